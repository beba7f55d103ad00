"""What becomes of those who believe what is accepted: how often that is wrong.

A case is wrong where a quantity of interest lies outside of its central 99 % interval. The cases
are a mix that is stated: one half from the family of the model, the other half from the mismatches,
each of them and each severity alike. Rates weigh all runs by the mix, with intervals from resampled
base cases. The bound that is certified needs independent trials: it counts one variant of each base
case, drawn by the mix.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.special import betaincinv

from touchstone.reliability.guardrail import Interval

LEVEL = 0.95  # confidence in what is certified, and of intervals
_N_BOOTSTRAP = 2000


class Harm(NamedTuple):
    """What is let through of a mix of cases.

    Attributes:
        accepted: Share of the cases that are accepted.
        wrong: Share of these that are wrong; its value is None if there are none.
        at_most: Upper bound of that, at the confidence `LEVEL` (Clopper and Pearson 1934).
        n_certified: Accepted cases that the bound is of.
        before: Share of all cases that are wrong, whether accepted or not.
    """

    accepted: Interval
    wrong: Interval
    at_most: float
    n_certified: int
    before: Interval


def at_most(n_wrong: int, n: int, level: float = LEVEL) -> float:
    """Upper bound of a rate of which n_wrong out of n trials were seen; 1 if there are none."""
    return 1.0 if n_wrong >= n else float(betaincinv(n_wrong + 1, n - n_wrong, level))


def mix(runs: pd.DataFrame) -> Float[np.ndarray, " run"]:
    """Weight of each run in the mix; those of all runs of a base case sum to one.

    Args:
        runs: Rows of every variant, with `split` and `case_index`; controls have no weight.
    """
    stressed = runs["split"].str.startswith("stress_").to_numpy()
    inside = (runs["split"] == "in_distribution").to_numpy()
    weight = np.zeros(len(runs))
    for part in (inside, stressed):
        of_case = runs["case_index"].where(part)
        share = of_case.map(of_case.value_counts())
        weight += np.where(part, 0.5 / share.fillna(1.0).to_numpy(float), 0.0)
    return weight


def certify(
    runs: pd.DataFrame,
    weight: Float[np.ndarray, " run"],
    accepted: Bool[np.ndarray, " run"],
    rng: np.random.Generator,
) -> Harm:
    """What is let through.

    Args:
        runs: With `case_index` and `wrong`; whatever accepts has seen none of them.
        weight: Of each in the mix.
        accepted: Which runs are believed.
        rng: For resampling, and for the draw of the certified cases.
    """
    runs = runs.reset_index(drop=True)
    wrong = runs["wrong"].to_numpy(bool)
    numbers, case = np.unique(runs["case_index"], return_inverse=True)
    n = len(numbers)
    # Weight of each base case in all, in what is accepted, in what of it is wrong, in all wrong.
    of_case = np.stack(
        [
            np.bincount(case, weight * part, n)
            for part in (np.ones(len(runs)), accepted, accepted & wrong, wrong)
        ]
    )
    draws = rng.multinomial(n, np.full(n, 1 / n), _N_BOOTSTRAP)

    def share(part: int, of: int) -> Interval:
        total = of_case[of].sum()
        if total == 0:
            return Interval(None, 0.0, 1.0, 0)
        below = draws @ of_case[of]
        rates = (draws @ of_case[part])[below > 0] / below[below > 0]
        low, high = np.quantile(rates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
        return Interval(float(of_case[part].sum() / total), low, high, n)

    chosen = []
    for places in runs.groupby("case_index").indices.values():
        part = weight[places]
        if part.sum() > 0:
            chosen.append(rng.choice(places, p=part / part.sum()))
    kept = accepted[chosen]
    n_kept = int(kept.sum())
    bound = at_most(int(wrong[chosen][kept].sum()), n_kept)
    return Harm(share(1, 0), share(2, 1), bound, n_kept, share(3, 0))


def curve(
    score: Float[np.ndarray, " run"],
    wrong: Bool[np.ndarray, " run"],
    weight: Float[np.ndarray, " run"],
    shares: Float[np.ndarray, " share"],
) -> Float[np.ndarray, " share"]:
    """Share of the accepted that is wrong, where the lowest scores are accepted, up to each share.

    Args:
        score: High where a case is suspicious; equal scores are accepted together, each in part.
        wrong: Which runs are.
        weight: Of each run in the mix.
        shares: Of the mix that is accepted, in (0, 1].
    """
    order = np.argsort(score, kind="stable")
    # Runs of one score are as good as each other: each has the mean of all.
    _, place = np.unique(score[order], return_inverse=True)
    mass = np.bincount(place, weight[order])
    harm = np.bincount(place, (weight * wrong)[order])
    total = np.concatenate([[0.0], np.cumsum(mass)])
    bad = np.concatenate([[0.0], np.cumsum(harm)])
    return np.interp(shares * total[-1], total, bad) / (shares * total[-1])
