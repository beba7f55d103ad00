"""What becomes of those who believe what a rule accepts: how often that is wrong.

A case is wrong where a quantity of interest lies outside of its central 99 % interval. The cases
are a mix that is stated: one half from the family of the model, the other half from the mismatches,
each of them and each severity alike. The variants of one base case are not independent, so that
what is certified counts one variant of each base case, drawn by the mix.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.special import betaincinv

from touchstone.reliability.guardrail import Interval, wilson

LEVEL = 0.95  # confidence in what is certified


class Harm(NamedTuple):
    """What a rule lets through, on a mix of cases.

    Attributes:
        accepted: Share of the cases that are accepted.
        wrong: Share of these that are wrong.
        at_most: Upper bound of that, at the confidence `LEVEL` (Clopper and Pearson 1934).
        before: Share of all cases that are wrong, whether accepted or not.
    """

    accepted: Interval
    wrong: Interval
    at_most: float
    before: Interval


def at_most(n_wrong: int, n: int, level: float = LEVEL) -> float:
    """Upper bound of a rate of which n_wrong out of n trials were seen; 1 if there are none."""
    return 1.0 if n_wrong >= n else float(betaincinv(n_wrong + 1, n - n_wrong, level))


def mix(runs: pd.DataFrame, families: list[str] | None = None) -> Float[np.ndarray, " run"]:
    """Weight of each run in the mix; those of all runs of a base case sum to one.

    Args:
        runs: Rows of every variant, with `split`, `family` and `case_index`; controls have none.
        families: Mismatches that are in it; all if not stated.
    """
    stressed = runs["split"].str.startswith("stress_").to_numpy()
    if families is not None:
        stressed = stressed & runs["family"].isin(families).to_numpy()
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
    flagged: Bool[np.ndarray, " run"],
    rng: np.random.Generator,
) -> Harm:
    """What a rule lets through, on one variant of each base case, drawn by the mix.

    Args:
        runs: With `case_index` and `wrong`; the rule has seen none of them.
        weight: Of each in the mix.
        flagged: What the rule escalates.
        rng: For the draw.
    """
    chosen = []
    for _, places in runs.reset_index(drop=True).groupby("case_index").indices.items():
        part = weight[places]
        if part.sum() > 0:
            chosen.append(rng.choice(places, p=part / part.sum()))
    wrong = runs["wrong"].to_numpy(bool)[chosen]
    kept = ~flagged[chosen]
    n, n_kept = len(chosen), int(kept.sum())
    return Harm(
        wilson(n_kept / n, n),
        wilson(wrong[kept].mean() if n_kept else 0.0, n_kept),
        at_most(int(wrong[kept].sum()), n_kept),
        wilson(wrong.mean(), n),
    )


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
