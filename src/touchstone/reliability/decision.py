"""The decision to accept or to escalate: one score, one threshold, one promised false-alarm rate.

How unusual a sign is, is -log10 of the part of simulated cases in which it is as high. The signs of
a case are taken together by the root of the sum of squares: between the largest alone, which does
not see that several are high at once, and Fisher's (1932) sum, which one sign hardly moves. The
score is how unusual that is, counted in the same way. On other simulated cases, used for nothing
else, a threshold is set by split conformal prediction (Vovk 2012, conditional on the calibration):
the false-alarm rate of the rule is at most alpha, with probability 1 - delta over those cases, for
all observations that are exchangeable with them. Every reason to escalate is inside the score, so
that none adds alarms that were not counted.

The promise is for all cases together. Where a model names what makes false alarms more or less
frequent (a covariate, such as the size of the discrepancy), the score is counted from the level
that one in ten cases of a like covariate reaches, straight lines between the medians of three
groups of the cases that say what is usual: a conformal score about a quantile that is regressed on
the covariate (Romano, Patterson and Candès 2019), by which 1 still means "as in one of ten". The
threshold stays one, and so does its promise, whatever that level is worth. A threshold for each
group (Vovk's Mondrian prediction) would need at least 59 cases of calibration in each for alpha =
delta = 0.05; of 245 it uses the seventh highest score, whose mean rate of false alarms is 2.8 %.
"""

from dataclasses import asdict, dataclass, field, replace

import numpy as np
from jaxtyping import Float
from scipy.special import betainc

# Upper quantiles of a sign by which it is known; beyond the last its tail is exponential.
LEVELS = (1.0, 0.5, 0.2)
CERTAIN = 99.0  # score of what can not come from the model's family at all
OUTSIDE = "outside_training"  # column of a score table: 1 where that is known without any sign
_PARTS = 3  # groups of usual cases by the covariate
_FEWEST = 30  # cases of a group, whose level of one in ten means anything


@dataclass(frozen=True)
class Decision:
    """The rule.

    Attributes:
        usual: Of each sign, its quantiles at `LEVELS`, then the mean excess over the last.
        together: The same of all signs taken together.
        threshold: Of the score: escalate above.
        alpha: Promised false-alarm rate.
        delta: Chance, over the calibration, that the rate is higher.
        n_usual: Cases that say what is usual.
        n_calibrated: Cases that the threshold is of.
        covariate: Column that the score is adjusted for; empty if none.
        centres: Values of the covariate, ascending, shape (group,).
        levels: Score that one in ten usual cases about each centre reaches.
    """

    usual: dict[str, list[float]]
    together: list[float]
    threshold: float
    alpha: float
    delta: float
    n_usual: int
    n_calibrated: int
    covariate: str = ""
    centres: list[float] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)

    @property
    def needed(self) -> list[str]:
        """Columns that a score needs."""
        return [*self.usual, *([self.covariate] if self.covariate else [])]

    def unusual(self, signs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """-log10 of the part of cases of the model's family in which each sign is as high.

        A sign that is not a number is as unusual as can be: what cannot be judged is not accepted.
        """
        found = {}
        for name, usual in self.usual.items():
            value = _surprise(np.asarray(signs[name], float), usual)
            found[name] = np.where(np.isfinite(signs[name]), value, CERTAIN)
        return found

    def score(self, signs: dict[str, np.ndarray]) -> Float[np.ndarray, " case"]:
        """How unusual the signs of each case are together, among cases of a like covariate.

        Args:
            signs: The columns `needed`, shape (case,) each, and `OUTSIDE` if any case may be: it is
                as unusual as can be, and so is a covariate that is not a number.
        """
        score = _surprise(_together(self.unusual(signs)), self.together)
        certain = (score >= CERTAIN) | (np.asarray(signs.get(OUTSIDE, 0.0)) == 1)
        if self.covariate:
            covariate = np.asarray(signs[self.covariate], float)
            score = score - np.interp(covariate, self.centres, self.levels) + 1
            certain |= ~np.isfinite(covariate)
        return np.where(certain, CERTAIN, np.minimum(score, CERTAIN))

    def to_json(self) -> dict:
        """As a report holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: dict) -> "Decision":
        """From a report."""
        return cls(**{name: found[name] for name in cls.__dataclass_fields__ if name in found})


def calibrate(
    usual: dict[str, np.ndarray],
    calibration: dict[str, np.ndarray],
    alpha: float,
    delta: float,
    covariate: str = "",
) -> Decision:
    """A decision from the signs of simulated cases, none of them in both parts.

    Args:
        usual: Signs, by name, of the cases that say what is usual, shape (n,) each; and whether a
            case lies `OUTSIDE`, if any may.
        calibration: Signs of the cases that set the threshold, shape (m,) each.
        alpha: Promised false-alarm rate.
        delta: Chance that it is exceeded.
        covariate: Name of a column of both that the score is adjusted for; empty for none. It is
            left out of account where the usual cases are too few.

    Returns:
        The decision. Where the cases are too few for the promise, the threshold is the highest
        score seen, and the decision's delta is the one that this buys; so it is where more cases
        than may be flagged lie outside of the training.
    """
    known = {
        name: _known(values[np.isfinite(values)])
        for name, values in usual.items()
        if name not in (covariate, OUTSIDE)
    }
    n_usual = len(next(iter(usual.values())))
    n = len(next(iter(calibration.values())))
    blank = Decision(known, [0.0, 0.0, 0.0, 1.0], np.inf, alpha, delta, n_usual, n)
    together = _known(_together(blank.unusual(usual)))
    blank = replace(blank, together=together)
    if covariate and np.isfinite(usual[covariate]).sum() >= _PARTS * _FEWEST:
        centres, levels = _levels(usual[covariate], blank.score(usual))
        blank = replace(blank, covariate=covariate, centres=centres, levels=levels)
    score = np.sort(blank.score(calibration))
    # What is certain lies above any threshold, whatever was promised.
    rank = max(largest_rank(n, alpha, delta), 1 + np.count_nonzero(score >= CERTAIN))
    threshold = float(score[-min(rank, n)])
    bought = 1 - float(betainc(rank, n + 1 - rank, alpha))
    return replace(blank, threshold=threshold, delta=max(delta, bought))


def largest_rank(n: int, alpha: float, delta: float) -> int:
    """Rank from the top of the score that is the threshold, among n; 0 if n is too small.

    Above the k-th highest of n scores lies a part of the family that is Beta(k, n + 1 - k).
    """
    ranks = np.arange(1, n + 1)
    enough = betainc(ranks, n + 1 - ranks, alpha) >= 1 - delta
    return int(np.count_nonzero(enough))  # a higher threshold promises more


def _together(unusual: dict[str, np.ndarray]) -> Float[np.ndarray, " case"]:
    """Of the signs of each case: the root of the sum of squares."""
    return np.sqrt(np.square(list(unusual.values())).sum(0))


def _levels(
    covariate: Float[np.ndarray, " case"], score: Float[np.ndarray, " case"]
) -> tuple[list[float], list[float]]:
    """Median covariate of groups of equally many cases, and the score that a tenth of each has."""
    seen = np.isfinite(covariate)
    covariate, score = covariate[seen], score[seen]
    groups = np.array_split(np.argsort(covariate, kind="stable"), _PARTS)
    centres = [float(np.median(covariate[group])) for group in groups]
    return centres, [float(np.quantile(score[group], 0.9)) for group in groups]


def _known(values: Float[np.ndarray, " case"]) -> list[float]:
    """What is kept of a sign; see `Decision.usual`."""
    quantiles = np.quantile(values, [1 - level for level in LEVELS])
    excess = values[values > quantiles[-1]] - quantiles[-1]
    # Where all are alike, anything higher is unheard of.
    least = 1e-9 * max(1.0, float(np.abs(quantiles).max()))
    return [*quantiles.tolist(), max(float(excess.mean()) if len(excess) else 0.0, least)]


def _surprise(value: Float[np.ndarray, " case"], usual: list[float]) -> Float[np.ndarray, " case"]:
    """-log10 of the upper tail: linear between the levels, then that of an exponential law."""
    height = -np.log10(LEVELS)
    *quantiles, excess = usual
    # Equal quantiles would have no slope.
    at = np.array(quantiles) + excess * 1e-6 * np.arange(len(quantiles))
    beyond = height[-1] + (value - at[-1]) / (excess * np.log(10))
    inside = np.interp(value, at, height)
    return np.minimum(np.where(value > at[-1], beyond, inside), CERTAIN)
