"""What could be detected at all: the power of the best test, which knows the mismatch.

A mismatch that the parameters absorb leaves nothing that any detector could see. What it leaves is
the difference of the noise-free observation from the best in-family fit to it. By the lemma of
Neyman and Pearson (1933) no test of that level has a higher power than the likelihood ratio of the
two: what it does not detect is undetectable, and what it detects and a rule does not is a failure
of the rule. It knows what chance left to the mismatch, too (where a bubble came, which samples a
spike hit), so that its power is an upper bound.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.special import ndtr, ndtri

from touchstone.reliability.guardrail import wilson

ALPHA, POWER = 0.05, 0.95  # level of the test, and the power from which a family is detectable
_N_DRAWS = 2000


def power_of_shift(distance: Float[np.ndarray, " case"]) -> Float[np.ndarray, " case"]:
    """Power against a known shift of Gaussian data.

    Args:
        distance: Size of the shift, whitened by the covariance of the data.
    """
    return ndtr(distance - ndtri(1 - ALPHA))


def power_of_covariance(
    ratio: Float[np.ndarray, "case sample"], rng: np.random.Generator
) -> Float[np.ndarray, " case"]:
    """Power against a known covariance of Gaussian data, by simulation.

    Args:
        ratio: Eigenvalues of that covariance, whitened by the one without the mismatch.
        rng: For the simulated data.
    """
    square = np.square(rng.standard_normal((2, _N_DRAWS, ratio.shape[1])))
    inside = square[0] @ (1 - 1 / ratio).T
    outside = square[1] @ (ratio - 1).T
    return _power(inside, outside)


def power_of_laplace_shift(
    shift: Float[np.ndarray, "case sample"],
    scale: Float[np.ndarray, "case sample"],
    distance: Float[np.ndarray, " case"],
    rng: np.random.Generator,
) -> Float[np.ndarray, " case"]:
    """Power against a known shift and scale of data with Laplace errors, by simulation.

    Args:
        shift: Of each sample, in scales of its error; 0 where nothing is observed.
        scale: Factor of the errors under the mismatch; 1 where nothing is observed.
        distance: Of what is Gaussian beside them, as in `power_of_shift`.
        rng: For the simulated data.
    """
    error = rng.laplace(size=(_N_DRAWS, 1, shift.shape[1]))
    normal = rng.standard_normal((_N_DRAWS, 1)) * distance

    def ratio(data):
        return (np.abs(data) - np.abs(data - shift) / scale).sum(2) + normal

    inside, outside = ratio(error), ratio(scale * error + shift)
    return _power(inside - distance**2 / 2, outside + distance**2 / 2)


def _power(
    inside: Float[np.ndarray, "draw case"], outside: Float[np.ndarray, "draw case"]
) -> Float[np.ndarray, " case"]:
    """Share of the log likelihood ratios under the mismatch above the level of those without.

    Ties with the level, as of what leaves nothing at all, are flagged with that part that makes
    the test exact.
    """
    limit = np.quantile(inside, 1 - ALPHA, axis=0)
    above, tied = (inside > limit).mean(0), (inside == limit).mean(0)
    part = np.clip((ALPHA - above) / np.maximum(tied, 1 / len(inside)), 0.0, 1.0)
    return (outside > limit).mean(0) + part * (outside == limit).mean(0)


def table(power: pd.DataFrame, judged: pd.DataFrame, watched: list[str]) -> list[dict]:
    """What the oracle detects of each mismatch, beside what the rule does on the same cases.

    Args:
        power: Rows of `family`, `severity`, `case_index`, `power` and `power_if_known`.
        judged: Rows of the same cases, with `flagged`, `wrong` and biases.
        watched: Quantities whose bias is told.

    Returns:
        For each family and severity: `n`, the mean `power`, whether that makes it `detectable`,
        the same `if_known` (None without such quantities), the `flagged` rate of the rule on these
        cases, `missed`: of the cases that the oracle detects, the share that the rule does not,
        the rate of `wrong` answers, and the median size of the `bias` of each watched quantity.
    """
    keys = ["family", "severity", "case_index"]
    both = power.merge(judged, on=keys, validate="one_to_one")
    rows = []
    for (family, severity), group in both.groupby(keys[:2], sort=False):  # ty: ignore[not-iterable]
        n, flagged = len(group), group["flagged"].to_numpy(bool)
        seen = group["power"].to_numpy() >= POWER
        known = group["power_if_known"].astype(float).mean()
        missed = (~flagged[seen]).mean() if seen.any() else 0.0
        rows.append(
            {
                "family": family,
                "severity": float(severity),
                "n": n,
                "power": float(group["power"].mean()),
                "detectable": bool(group["power"].mean() >= POWER),
                "if_known": None if np.isnan(known) else float(known),
                "flagged": wilson(flagged.mean(), n)._asdict(),
                "missed": wilson(missed, int(seen.sum()))._asdict(),
                "wrong": wilson(group["wrong"].mean(), n)._asdict(),
                "bias": {name: _median_size(group[f"bias_{name}"]) for name in watched},
            }
        )
    return rows


def _median_size(values: pd.Series) -> float | None:
    sizes = values.dropna().abs()
    return float(sizes.median()) if len(sizes) else None


def detectable(rows: list[dict]) -> list[str]:
    """Families that the oracle detects at the highest severity that was tried; rows as `table`."""
    highest: dict[str, dict] = {}
    for row in sorted(rows, key=lambda each: each["severity"]):
        highest[row["family"]] = row
    tried = dict.fromkeys(row["family"] for row in rows)
    return [family for family in tried if highest[family]["detectable"]]


def is_missed(row: dict) -> bool:
    """Whether a mismatch is detectable, and the rule's detection rate significantly below that."""
    return bool(row["detectable"] and row["flagged"]["high"] < POWER)
