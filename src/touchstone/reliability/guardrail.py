"""The historical rule, two thresholds fitted on some cases, and how any rule is scored on others.

It escalates a case whose reliability score is below one threshold, or whose calibration error is
above the other. It does not decide: it is the baseline that what does has to beat.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Real, Shaped
from scipy.special import ndtri

# scipy.stats takes longer to import than all else that an inference needs: only the tests that
# use it import it.

_CANDIDATES = 101  # of each threshold: quantiles of what was seen


class Interval(NamedTuple):
    """A rate with its 95 % interval.

    Attributes:
        value: None if there was nothing to count.
        low, high: Wilson's interval.
        n: Number of independent trials behind it.
    """

    value: float | None
    low: float
    high: float
    n: int


class Rule(NamedTuple):
    """Escalate if the score is below `rel_thr` or the error above `cal_thr`."""

    rel_thr: float
    cal_thr: float

    def flags(
        self, reliability: Float[np.ndarray, " run"], calibration_error: Float[np.ndarray, " run"]
    ) -> Bool[np.ndarray, " run"]:
        """Which cases to escalate."""
        return (reliability < self.rel_thr) | (calibration_error > self.cal_thr)


_NEVER = Rule(0.0, 2.0)  # no score is below 0, no calibration error above 0.6827 + 0.9545


def wilson(part: float, n: int, level: float = 0.95) -> Interval:
    """A rate and its interval (Wilson 1927) from n independent trials."""
    if n == 0:
        return Interval(None, 0.0, 1.0, 0)
    z = ndtri((1 + level) / 2)
    centre = (part + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(part * (1 - part) / n + z**2 / (4 * n**2))
    return Interval(float(part), max(0.0, centre - half), min(1.0, centre + half), n)


def halves(n_cases: int, part: float, rng: np.random.Generator) -> Bool[np.ndarray, " {n_cases}"]:
    """Which base cases a rule is fitted on; it is scored on the others.

    There is at least one of each.
    """
    fit = np.zeros(n_cases, bool)
    n_fit = min(max(round(part * n_cases), 1), n_cases - 1)
    fit[rng.permutation(n_cases)[:n_fit]] = True
    return fit


def fit(
    reliability: Float[np.ndarray, " run"],
    calibration_error: Float[np.ndarray, " run"],
    stressed: Bool[np.ndarray, " run"],
    ceiling: float,
) -> Rule:
    """The thresholds of highest F1 whose false-alarm rate is at most a ceiling.

    Args:
        reliability, calibration_error: Of each run.
        stressed: What should be escalated; the rest are the false alarms.
        ceiling: Of the false-alarm rate.

    Returns:
        The rule; among equals, the one with the fewest false alarms.
    """
    steps = np.linspace(0, 1, _CANDIDATES)
    rel_thr = np.concatenate([[_NEVER.rel_thr], np.quantile(reliability, steps)])
    cal_thr = np.concatenate([np.quantile(calibration_error, steps), [_NEVER.cal_thr]])
    below = reliability < rel_thr[:, None]
    above = calibration_error > cal_thr[:, None]
    # runs flagged by either = by the first + by the second - by both
    counts = {}
    for name, which in (("true", stressed), ("false", ~stressed)):
        first, second = below[:, which].astype(float), above[:, which].astype(float)
        counts[name] = first.sum(1)[:, None] + second.sum(1) - first @ second.T
    f1 = 2 * counts["true"] / (counts["true"] + counts["false"] + stressed.sum())
    allowed = counts["false"] <= ceiling * (~stressed).sum()
    rank = np.where(allowed, f1 - 1e-9 * counts["false"], -1.0)
    i, j = np.unravel_index(np.argmax(rank), rank.shape)
    return Rule(float(rel_thr[i]), float(cal_thr[j]))


def fit_threshold(
    score: Float[np.ndarray, " run"], stressed: Bool[np.ndarray, " run"], ceiling: float
) -> float:
    """The threshold of highest F1 of a single score, escalating above it, under the ceiling."""
    candidates = np.concatenate([np.unique(score), [np.inf]])
    flagged = score > candidates[:, None]
    true, false = flagged[:, stressed].sum(1), flagged[:, ~stressed].sum(1)
    f1 = 2 * true / (true + false + stressed.sum())
    allowed = false <= ceiling * (~stressed).sum()
    return float(candidates[np.argmax(np.where(allowed, f1 - 1e-9 * false, -1.0))])


def score(
    flagged: Bool[np.ndarray, " run"],
    stressed: Bool[np.ndarray, " run"],
    case: Shaped[np.ndarray, " run"],
) -> dict:
    """Precision, recall, F1 and rates of a rule on cases that it was not fitted on.

    The variants of one base case are not independent trials, so that the intervals count base
    cases.

    Args:
        flagged: What the rule escalates.
        stressed: What it should.
        case: Base case of each run.

    Returns:
        `precision`, `recall` and `f1`, then `tpr` (the recall) and `fpr` as `Interval`.
    """
    true, false = int((flagged & stressed).sum()), int((flagged & ~stressed).sum())
    n_flagged, n_stressed = true + false, int(stressed.sum())

    def rate(where):
        n = len(np.unique(case[where]))
        return wilson(flagged[where].mean() if n else 0.0, n)

    return {
        "precision": true / n_flagged if n_flagged else None,
        "recall": true / n_stressed if n_stressed else None,
        "f1": 2 * true / (n_flagged + n_stressed) if n_stressed else None,
        "tpr": rate(stressed)._asdict(),
        "fpr": rate(~stressed)._asdict(),
    }


def separation(score: Real[np.ndarray, " run"], stressed: Bool[np.ndarray, " run"]) -> float:
    """Chance that a stressed run has the higher score (area under the ROC curve)."""
    from scipy.stats import rankdata

    n_stressed, n_other = int(stressed.sum()), int((~stressed).sum())
    ranks = rankdata(score)[stressed].sum()
    return float((ranks - n_stressed * (n_stressed + 1) / 2) / (n_stressed * n_other))


def paired_p_value(control: Real[np.ndarray, " run"], reference: Real[np.ndarray, " run"]) -> float:
    """Two-sided p-value that paired runs do not differ (Wilcoxon's signed ranks)."""
    from scipy.stats import wilcoxon

    difference = control - reference
    if not np.any(difference):
        return 1.0
    return float(wilcoxon(difference).pvalue)


def sign_p_value(only_first: int, only_second: int) -> float:
    """Two-sided p-value that two rules flag paired runs alike (exact McNemar test)."""
    from scipy.stats import binomtest

    n = only_first + only_second
    return float(binomtest(only_first, n).pvalue) if n else 1.0


def holm(p_values: list[float]) -> list[float]:
    """p-values adjusted for being several (Holm 1979)."""
    order = np.argsort(p_values)
    steps = np.arange(len(p_values), 0, -1)
    adjusted = np.minimum(1.0, np.maximum.accumulate(steps * np.array(p_values)[order]))
    out = np.empty(len(p_values))
    out[order] = adjusted
    return [float(p) for p in out]
