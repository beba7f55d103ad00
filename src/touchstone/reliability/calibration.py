"""Whether posteriors are right on average: two-sample test, ranks, coverage, random points.

Everything rests on one number per case and question, which is uniform on (0, 1) if the truth is
distributed as the draws are: the fractional rank of the truth among them. Ranks of one parameter
are simulation-based calibration (Talts et al. 2018), those near one half its coverage, and ranks
of distances to random points the test of Lemos et al. (2023).
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Real
from scipy.special import gammaln
from scipy.stats import binom, kstest
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neural_network import MLPClassifier

_MOST_PARTS = 100  # of (0, 1), between which an empirical distribution function is judged
LEVELS = np.linspace(0.1, 0.9, 9)


def c2st(
    a: Real[np.ndarray, "draw parameter"],
    b: Real[np.ndarray, "other_draw other_parameter"],
    seed: int = 1,
) -> float:
    """Classifier two-sample test, as in Lueckmann et al. (2021): 0.5 for equal distributions.

    A network with two hidden layers, ten times as wide as the draws are long, tells the two sets
    apart, both standardised by the first; its accuracy is cross-validated in five folds.

    Args:
        a: Draws.
        b: As many draws of as many entries.
        seed: Of the folds and the initial weights.

    Returns:
        The accuracy.

    Raises:
        ValueError: If the shapes differ, or an entry of `a` is constant.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise ValueError(f"as many draws of as many entries are needed, not {a.shape}, {b.shape}")
    mean, sd = a.mean(0), a.std(0)
    if not sd.all():
        raise ValueError(f"entry {int(np.argmin(sd))} is constant: leave out what is known")
    width = 10 * a.shape[1]
    classifier = MLPClassifier((width, width), max_iter=10_000, random_state=seed)
    folds = KFold(5, shuffle=True, random_state=seed)
    draws = ((np.concatenate([a, b]) - mean) / sd).astype(np.float32)  # as there, and fast
    return float(cross_val_score(classifier, draws, np.arange(2).repeat(len(a)), cv=folds).mean())


def fractional_ranks(
    draws: Real[np.ndarray, "case draw *entry"],
    truth: Real[np.ndarray, " case *entry"],
    rng: np.random.Generator,
) -> Float[np.ndarray, " case *entry"]:
    """Place of the truth among its draws, in (0, 1).

    Ties are broken, and the steps of a rank among L draws filled, at random: where the truth is
    distributed as the draws are, this is exactly uniform, however few they are.

    Args:
        draws: Equally weighted.
        truth: What the draws are to be distributed as.
        rng: For the ties.
    """
    less = (draws < truth[:, None]).sum(1)
    equal = (draws == truth[:, None]).sum(1)
    return (less + rng.uniform(size=truth.shape) * (equal + 1)) / (draws.shape[1] + 1)


def distance_ranks(
    draws: Float[np.ndarray, "case draw parameter"],
    truth: Float[np.ndarray, "case parameter"],
    rng: np.random.Generator,
    unknown: Bool[np.ndarray, "case parameter"] | None = None,
) -> Float[np.ndarray, " case"]:
    """Place of the truth's distance to a random point among those of the draws (TARP).

    The part of the cases below a credibility is the expected coverage of Lemos et al. (2023). It
    sees how parameters hang together, as ranks of single ones do not; it hardly sees a shift, which
    these do.

    Args:
        draws: In standard coordinates, equally weighted.
        truth: In standard coordinates.
        rng: For the points, which are drawn from the prior, and for ties.
        unknown: Entries that the distance is over; all if not given. Every case needs one.
    """
    counts = np.ones(truth.shape) if unknown is None else unknown.astype(float)
    point = rng.standard_normal(truth.shape)
    far = (counts[:, None] * (draws - point[:, None]) ** 2).sum(2)
    return fractional_ranks(far, (counts * (truth - point) ** 2).sum(1), rng)


class Uniformity(NamedTuple):
    """Whether numbers are uniform on (0, 1).

    Attributes:
        n: How many.
        deviation: Largest distance of their empirical distribution function from the diagonal.
        p_value: Of that function's leaving a simultaneous band as far as it does.
    """

    n: int
    deviation: float
    p_value: float


def uniformity(u: Float[np.ndarray, " case"]) -> Uniformity:
    """Test numbers for uniformity by a simultaneous band; no number is no objection.

    The band for the empirical distribution function (ECDF) of Säilynoja et al. (2022) leaves the
    same chance on either side at every point, so that it sees the tails, too. How often uniform
    numbers would leave it is computed, not simulated: counts below growing points are a Markov
    chain (their method of optimisation).
    """
    n = len(u)
    if n == 0:
        return Uniformity(0, 0.0, 1.0)
    points, chance = _points(n)
    below = np.searchsorted(np.sort(u), points, side="right")
    least = chance[np.arange(len(points)), below].min()
    # The band that just fails to contain the function; rounding must not decide.
    p_value = max(0.0, 1 - _staying(points, chance > least * (1 + 1e-9)))
    return Uniformity(n, float(kstest(u, "uniform").statistic), p_value)


def ecdf_band(
    n: int, level: float = 0.95
) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
    """Points and the band that contains the ECDF of n uniform numbers at all of them.

    Args:
        n: How many numbers.
        level: Least probability that all of the function is inside.

    Returns:
        Points, lower and upper end.
    """
    points, chance = _points(n)
    low, high = 0.0, 1.0  # part of the chance at each point that is left outside
    for _ in range(20):
        middle = (low + high) / 2
        if _staying(points, chance > middle) >= level:
            low = middle
        else:
            high = middle
    inside = chance > low
    return points, inside.argmax(1) / n, 1 - inside[:, ::-1].argmax(1) / n


@lru_cache(maxsize=64)
def _points(n: int) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, "point count"]]:
    """Points, and the two-sided chance of every count 0..n of uniform numbers below them."""
    n_parts = max(2, min(n, _MOST_PARTS))
    points = np.arange(1, n_parts) / n_parts
    law, counts = binom(n, points[:, None]), np.arange(n + 1)
    return points, 2 * np.minimum(law.cdf(counts), law.sf(counts - 1))


def _staying(points: Float[np.ndarray, " point"], inside: Bool[np.ndarray, "point count"]) -> float:
    """Probability that the counts 0..n of uniform numbers below the points are all inside."""
    n = inside.shape[1] - 1
    log_factorial = gammaln(np.arange(n + 1) + 1)
    count, probability, last = np.zeros(1, int), np.ones(1), 0.0
    for point, allowed in zip(points, inside, strict=True):
        after = np.flatnonzero(allowed)
        # Of the numbers above the last point, a binomial number is below this one.
        share = (point - last) / (1 - last)
        left, more = (n - after)[:, None], after[:, None] - count
        ways = log_factorial[n - count] - log_factorial[left] - log_factorial[more]
        log_chance = ways + more * np.log(share) + left * np.log1p(-share)
        probability = np.exp(np.where(more >= 0, log_chance, -np.inf)) @ probability
        count, last = after, point
    return float(probability.sum())


class Calibration(NamedTuple):
    """Simulation-based calibration of every parameter.

    Attributes:
        n: Cases in which it is unknown.
        deviation: Largest distance of the ECDF of its ranks from the diagonal.
        p_value: Of its band.
        inside: Whether it is inside of a band that all parameters of a right posterior stay
            inside of with the probability asked for.
    """

    n: Int[np.ndarray, " parameter"]
    deviation: Float[np.ndarray, " parameter"]
    p_value: Float[np.ndarray, " parameter"]
    inside: Bool[np.ndarray, " parameter"]


def calibration(
    ranks: Float[np.ndarray, "case parameter"],
    unknown: Bool[np.ndarray, "case parameter"] | None = None,
    level: float = 0.95,
) -> Calibration:
    """Simulation-based calibration: whether the ranks of each parameter are uniform.

    Args:
        ranks: From `fractional_ranks`.
        unknown: Entries that were inferred; all if not given.
        level: Probability that all parameters of a right posterior are inside (Bonferroni).
    """
    unknown = np.ones(ranks.shape, bool) if unknown is None else unknown
    found = [uniformity(u[where]) for u, where in zip(ranks.T, unknown.T, strict=True)]
    n, deviation, p_value = (np.array(column) for column in zip(*found, strict=True))
    return Calibration(n, deviation, p_value, p_value > (1 - level) / max((n > 0).sum(), 1))


def coverage(
    ranks: Float[np.ndarray, "case parameter"],
    unknown: Bool[np.ndarray, "case parameter"] | None = None,
    levels: Float[np.ndarray, " level"] = LEVELS,
) -> Float[np.ndarray, " level"]:
    """Part of the truths inside their central intervals of each level, over all that is unknown.

    Args:
        ranks: From `fractional_ranks`.
        unknown: Entries that were inferred; all if not given.
        levels: Nominal coverage.
    """
    u = ranks.ravel() if unknown is None else ranks[unknown]
    return (np.abs(2 * u - 1)[:, None] <= levels).mean(0)


def coverage_deviation(
    ranks: Float[np.ndarray, "case parameter"],
    unknown: Bool[np.ndarray, "case parameter"] | None = None,
    levels: Float[np.ndarray, " level"] = LEVELS,
) -> float:
    """Largest difference of coverage and level."""
    return float(np.abs(coverage(ranks, unknown, levels) - levels).max())


class Assessment(NamedTuple):
    """Calibration of the posteriors of simulated cases.

    Attributes:
        ranks: Of the truths.
        distances: Ranks of the distances to random points.
        parameters: A row for each parameter that any case infers.
        regions: Uniformity of the distances: expected coverage.
        coverage_90: Part of all truths in their 90 % intervals.
    """

    ranks: Float[np.ndarray, "case parameter"]
    distances: Float[np.ndarray, " case"]
    parameters: list[dict]
    regions: Uniformity
    coverage_90: float


def assess(
    draws: Float[np.ndarray, "case draw parameter"],
    truth: Float[np.ndarray, "case parameter"],
    unknown: Bool[np.ndarray, "case parameter"],
    names: list[str],
    rng: np.random.Generator,
) -> Assessment:
    """Ranks and coverage of cases whose truths were drawn from the prior.

    Args:
        draws: In standard coordinates, equally weighted.
        truth: In standard coordinates.
        unknown: Entries that were inferred.
        names: Of the parameters.
        rng: For ties and points.

    Returns:
        The assessment; its rows hold `parameter`, `n`, `deviation` (of the ranks from uniform),
        `p_value`, `inside` (of the simultaneous 95 % bands of all parameters), `coverage_90` and
        `coverage_deviation` (the largest over nine levels).
    """
    ranks = fractional_ranks(draws, truth, rng)
    distances = distance_ranks(draws, truth, rng, unknown)
    found = calibration(ranks, unknown)
    parameters = []
    for k, name in enumerate(names):
        ours = ranks[unknown[:, k], k][:, None]
        if len(ours):
            parameters.append(
                {
                    "parameter": name,
                    "n": len(ours),
                    "deviation": float(found.deviation[k]),
                    "p_value": float(found.p_value[k]),
                    "inside": bool(found.inside[k]),
                    "coverage_90": float(coverage(ours, levels=np.array([0.9]))[0]),
                    "coverage_deviation": coverage_deviation(ours),
                }
            )
    of_all = float(coverage(ranks, unknown, np.array([0.9]))[0])
    return Assessment(ranks, distances, parameters, uniformity(distances), of_all)
