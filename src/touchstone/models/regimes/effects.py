"""Effects by orthogonal scores, and how far off they may be where dates depend on each other.

The partially linear and the interactive score of Chernozhukov et al. (2018), with nuisances from
scikit-learn, on folds that suit dependent dates; long-run variances by equal-weighted cosines
(Lazarus, Lewis, Stock and Watson 2018); and intervals whose width is that of simulated series of
the same length and dependence, since those of theory are too narrow at the length of macro data.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.signal import lfilter
from scipy.stats import t as student
from sklearn.base import BaseEstimator, clone

PLANS = ("full", "random", "blocked", "purged")
_LEAST_TRAIN = 10  # rows of a fold, and of each arm there, that a nuisance is fitted on
_LONG = 20  # rows for each control, from which on folds cost less than they bring
_DEPENDENT = 0.3  # autocorrelation of the scores, from which on folds are blocks
_FORGOTTEN = 0.1  # of an autocorrelation, that is left after the embargo
_PENALTY = 1.0  # of the slopes of ridge regressions
OVERLAP = 0.01, 0.99  # of propensities, which are clipped there


class Learner(Protocol):
    """What is asked of a regression of scikit-learn; targets may be several."""

    def fit(self, features: np.ndarray, target: np.ndarray, /) -> object: ...
    def predict(self, features: np.ndarray, /) -> np.ndarray: ...


class Fold(NamedTuple):
    """Rows that nuisances are fitted on, and rows that they are used for."""

    train: Int[np.ndarray, " train"]
    test: Int[np.ndarray, " test"]


def folds(n: int, plan: str, n_folds: int = 5, embargo: int = 0, seed: int = 0) -> list[Fold]:
    """Folds of n dates.

    Args:
        n: Number of dates.
        plan: "full" fits and uses all dates; "random" draws folds; "blocked" takes stretches of
            dates; "purged" leaves out `embargo` dates on both sides of each stretch as well.
        n_folds: Number of folds.
        embargo: Dates.
        seed: Of the random folds.

    Raises:
        ValueError: If the plan is unknown, or leaves too few dates to fit on.
    """
    every = np.arange(n)
    if plan == "full":
        return [Fold(every, every)]
    if plan not in PLANS:
        raise ValueError(f"plan {plan!r} is none of {', '.join(PLANS)}")
    order = np.random.default_rng(seed).permutation(n) if plan == "random" else every
    found = []
    for part in np.array_split(order, n_folds):
        test = np.sort(part)
        away = np.ones(n, bool)
        away[test] = False
        if plan == "purged":
            away[max(test[0] - embargo, 0) : test[-1] + 1 + embargo] = False
        found.append(Fold(every[away], test))
    if min(len(fold.train) for fold in found) < _LEAST_TRAIN:
        raise ValueError(f"{n} dates in {n_folds} folds, embargo {embargo}: too few to fit on")
    return found


class Plan(NamedTuple):
    """A plan of folds.

    Attributes:
        name: One of `PLANS`.
        embargo: Dates left out on both sides of a fold.
        why: It was chosen, in words.
    """

    name: str
    embargo: int
    why: str


def choose_plan(n: int, n_controls: int, dependence: float, n_folds: int = 5) -> Plan:
    """A fold plan for data of a size and a dependence.

    Args:
        n: Number of dates.
        n_controls: Number of regressors of the nuisances.
        dependence: First autocorrelation of the scores.
        n_folds: Number of folds.
    """
    many = n / max(n_controls, 1)
    if many < _LONG:
        return Plan(
            "full", 0, f"{many:.0f} dates for each control are too few to fit on a part of them"
        )
    if abs(dependence) < _DEPENDENT:
        why = f"scores are nearly independent (autocorrelation {dependence:.2f})"
        return Plan("random", 0, why)
    # As many dates as scores take to forget each other.
    embargo = int(np.ceil(np.log(_FORGOTTEN) / np.log(min(abs(dependence), 0.99))))
    why = f"scores depend on their neighbours (autocorrelation {dependence:.2f})"
    if n - n / n_folds - 2 * embargo < _LONG * n_controls:
        return Plan("blocked", 0, f"{why}, and dates are too few for an embargo of {embargo}")
    return Plan("purged", embargo, f"{why}, with an embargo of {embargo} dates")


def cross_fit(
    learner: Learner,
    features: Float[np.ndarray, "row control"],
    targets: Float[np.ndarray, "row target"],
    plan: list[Fold],
) -> Float[np.ndarray, "row target"]:
    """What a regression expects of targets, fitted anew for each fold."""
    found = np.empty_like(targets, float)
    for fold in plan:
        model = clone(learner)
        model.fit(features[fold.train], targets[fold.train])
        found[fold.test] = model.predict(features[fold.test]).reshape(len(fold.test), -1)
    return found


class Effects(NamedTuple):
    """Effects from their scores.

    Attributes:
        estimate: Shape (K,).
        influence: Influence of each row on each effect, which sum to zero, shape (row, K).
        residual: Treatment less what the controls explain, shape (row,).
        unexplained: Outcome less its nuisance and the effects, shape (row,).
        n_clipped: Rows whose propensity was too near to zero or one, and was moved away from it.
    """

    estimate: Float[np.ndarray, " effect"]
    influence: Float[np.ndarray, "row effect"]
    residual: Float[np.ndarray, " row"]
    unexplained: Float[np.ndarray, " row"]
    n_clipped: int = 0

    @property
    def se_iid(self) -> Float[np.ndarray, " effect"]:
        """Standard errors of independent rows."""
        n = len(self.influence)
        return np.sqrt((self.influence**2).sum(0)) / n

    @property
    def se(self) -> Float[np.ndarray, " effect"]:
        """Standard errors of dependent rows, by equal-weighted cosines."""
        return np.sqrt(np.diag(long_run(self.influence)) / len(self.influence))


def partially_linear(
    outcome: Float[np.ndarray, " row"],
    treatment: Float[np.ndarray, " row"],
    features: Float[np.ndarray, "row control"],
    learner: Learner,
    plan: list[Fold],
    weight: Float[np.ndarray, "row regime"] | None = None,
) -> Effects:
    """Effects of a treatment in the partially linear model (Robinson 1988), by regime.

    The score is that of partialling out: outcome and treatment, less what the controls explain of
    each, are regressed on one another. With weights, which have to be known before the outcome, the
    effect is a weighted sum of those of the regimes.

    Args:
        outcome: Of each row.
        treatment: Of each row.
        features: What the nuisances may use.
        learner: Of both nuisances.
        plan: From `folds`.
        weight: Probability of each regime; None for one effect.
    """
    expected = cross_fit(learner, features, np.column_stack([outcome, treatment]), plan)
    y, d = outcome - expected[:, 0], treatment - expected[:, 1]
    return solve(y, d, np.ones((len(y), 1)) if weight is None else weight)


def solve(
    y: Float[np.ndarray, " row"],
    d: Float[np.ndarray, " row"],
    weight: Float[np.ndarray, "row regime"],
) -> Effects:
    """Effects by regime from what the controls leave of outcome and treatment."""
    instruments = weight * d[:, None]
    jacobian = instruments.T @ instruments / len(y)
    estimate = np.linalg.solve(jacobian, instruments.T @ y / len(y))
    left = y - instruments @ estimate
    influence = np.linalg.solve(jacobian, (instruments * left[:, None]).T).T
    return Effects(estimate, influence, d, left)


def interactive(
    outcome: Float[np.ndarray, " row"],
    treated: Bool[np.ndarray, " row"],
    features: Float[np.ndarray, "row control"],
    learner: Learner,
    classifier: Learner,
    plan: list[Fold],
) -> Effects:
    """Average effect of a binary treatment in the interactive model (doubly robust score).

    Args:
        outcome: Of each row.
        treated: Whether each row was.
        features: What the nuisances may use.
        learner: Of the outcome, in each arm.
        classifier: Of the treatment; has `predict_proba`.
        plan: From `folds`.

    Raises:
        ValueError: If the dates that a fold is fitted on have too few of one arm.
    """
    n = len(outcome)
    fewest = min(np.bincount(treated[fold.train], minlength=2).min() for fold in plan)
    if fewest < _LEAST_TRAIN:
        raise ValueError(
            f"a fold is fitted on {fewest} dates of one arm, at least {_LEAST_TRAIN} are needed"
        )
    arms, propensity = np.empty((n, 2)), np.empty(n)
    for fold in plan:
        for arm in (0, 1):
            rows = fold.train[treated[fold.train] == arm]
            model = clone(learner)
            model.fit(features[rows], outcome[rows])
            arms[fold.test, arm] = model.predict(features[fold.test])
        model = clone(classifier)
        model.fit(features[fold.train], treated[fold.train])
        propensity[fold.test] = model.predict_proba(features[fold.test])[:, 1]
    m = np.clip(propensity, *OVERLAP)
    d = treated.astype(float)
    chosen = np.where(treated, arms[:, 1], arms[:, 0])
    score = arms[:, 1] - arms[:, 0] + (d / m - (1 - d) / (1 - m)) * (outcome - chosen)
    estimate = score.mean(keepdims=True)
    n_clipped = int((m != propensity).sum())
    return Effects(estimate, (score - estimate)[:, None], d - m, outcome - chosen, n_clipped)


class Response(NamedTuple):
    """Of an outcome, or its sum, since a treatment of one unit, at each horizon from 0 on.

    Attributes:
        estimate: Shape (horizon,).
        low, high: 90 % interval of theory of each, shape (horizon,).
    """

    estimate: Float[np.ndarray, " horizon"]
    low: Float[np.ndarray, " horizon"]
    high: Float[np.ndarray, " horizon"]


def distributed_lags(
    outcome: Float[np.ndarray, " date"],
    treatment: Float[np.ndarray, " date"],
    n_own: int,
    n_lags: int,
    n_horizons: int,
    rng: np.random.Generator,
    cumulative: bool = True,
    n_draws: int = 500,
) -> Response:
    """Response by distributed lags (Romer and Romer 2004, equation 2).

    The treatment may not act on the outcome of its own date, nor depend on the outcome.

    Args:
        outcome: Of every date.
        treatment: Of the same dates.
        n_own: Number of lags of the outcome.
        n_lags: Number of lags of the treatment.
        n_horizons: Number of horizons.
        rng: For the coefficients that the intervals are of: normal about their estimates, as
            least squares has it for long series with independent errors.
        cumulative: Whether outcomes are changes, such as growth, whose sum is asked for.
        n_draws: Number of these.
    """
    first, n = max(n_own, n_lags), len(outcome)
    columns = [outcome[first - k : n - k] for k in range(1, n_own + 1)]
    columns += [treatment[first - k : n - k] for k in range(1, n_lags + 1)]
    full = np.column_stack([np.ones(n - first), *columns])
    target = outcome[first:]
    found = np.linalg.lstsq(full, target)[0]
    left = target - full @ found
    covariance = np.linalg.pinv(full.T @ full) * (left @ left / (len(target) - len(found)))
    drawn = rng.multivariate_normal(found, covariance, n_draws)
    every = np.vstack([found, drawn])
    own, acts = every[:, 1 : 1 + n_own], every[:, 1 + n_own :]
    change = np.zeros((len(every), n_horizons))
    for h in range(1, n_horizons):
        back = min(h, n_own)
        change[:, h] = (own[:, :back] * change[:, h - back : h][:, ::-1]).sum(1)
        if h <= n_lags:
            change[:, h] += acts[:, h - 1]
    found, *drawn = change.cumsum(1) if cumulative else change
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    return Response(found, low, high)


# Dependence ---------------------------------------------------------------------------------------


def n_cosines(n: int) -> int:
    """Number of cosines for n dates: 0.4 n^(2/3), of Lazarus et al. (2018)."""
    return max(int(0.4 * n ** (2 / 3)), 1)


def long_run(
    values: Float[np.ndarray, "date series"], n: int | None = None
) -> Float[np.ndarray, "series series"]:
    """Long-run covariance by equal-weighted cosines (Lazarus et al. 2018, equation 5).

    Args:
        values: Whose mean is zero.
        n: Number of cosines; None for `n_cosines`.
    """
    size = len(values)
    b = n or n_cosines(size)
    angle = np.pi * np.outer(np.arange(1, b + 1), (np.arange(size) + 0.5) / size)
    projected = np.sqrt(2 / size) * np.cos(angle) @ values
    return projected.T @ projected / b


def autocorrelation(values: Float[np.ndarray, " date"]) -> float:
    """First autocorrelation."""
    apart = values - values.mean()
    return float(apart[1:] @ apart[:-1] / max(apart @ apart, np.finfo(float).tiny))


# Intervals that hold ------------------------------------------------------------------------------


class Pivots(NamedTuple):
    """How far estimates lie from truths that are known, in standard errors of their own.

    Attributes:
        dependence: Mean dependence that was measured in the series of each true one, ascending,
            shape (G,).
        values: Estimate less truth over standard error, shape (G, series).
    """

    dependence: Float[np.ndarray, " grid"]
    values: Float[np.ndarray, "grid series"]

    def quantile(self, level: float | np.ndarray, dependence: float) -> np.ndarray:
        """Quantile of the pivot at a measured dependence, linear between those simulated.

        Pivots are made symmetric: the sign of the effect is not known.
        """
        both = np.concatenate([self.values, -self.values], axis=1)
        rows = np.quantile(both, np.atleast_1d(level), axis=1)
        found = np.array([np.interp(dependence, self.dependence, row) for row in rows])
        return found if np.ndim(level) else found[0]

    def interval(
        self, estimate: float, se: float, dependence: float, level: float = 0.9
    ) -> tuple[float, float]:
        """Interval of an effect that holds at its level in series like those simulated."""
        half = se * float(self.quantile((1 + level) / 2, dependence))
        return estimate - half, estimate + half


def calibrate(
    simulate: Callable[[float, np.random.Generator], tuple[float, float, float]],
    grid: tuple[float, ...],
    n_series: int,
    rng: np.random.Generator,
) -> Pivots:
    """Simulate series over a grid of dependence, and hold their effects against the truth.

    Args:
        simulate: From a true dependence, a series: error of its effect, standard error, and
            dependence as it is measured in the series.
        grid: True dependence.
        n_series: Number of series at each.
        rng: For the series.
    """
    measured, pivots = [], []
    for dependence in grid:
        found = np.array([simulate(dependence, rng) for _ in range(n_series)])
        pivots.append(found[:, 0] / found[:, 1])
        measured.append(found[:, 2].mean())
    order = np.argsort(measured)
    return Pivots(np.array(measured)[order], np.array(pivots)[order])


class Shrunk(NamedTuple):
    """Where effects lie given their estimates under a normal prior, if estimates were normal.

    Attributes:
        mean, sd: Of each effect, shape (effect,).
    """

    mean: Float[np.ndarray, " effect"]
    sd: Float[np.ndarray, " effect"]


def shrink(found: Effects, inflation: Float[np.ndarray, " effect"], prior_sd: float) -> Shrunk:
    """Effects given estimates whose errors are larger than their standard errors say.

    Args:
        found: The estimates.
        inflation: Error over standard error, root mean square, shape (effect,).
        prior_sd: Of each effect, about zero.
    """
    error = (inflation * found.se) ** 2
    part = prior_sd**2 / (prior_sd**2 + error)
    return Shrunk(part * found.estimate, np.sqrt(part * error))


def asymptotic(estimate: float, se: float, n: int, level: float = 0.9) -> tuple[float, float]:
    """Interval of theory for equal-weighted cosines: Student's t of as many degrees of freedom."""
    half = se * student.ppf((1 + level) / 2, n_cosines(n))
    return float(estimate - half), float(estimate + half)


def simulate_linear(
    n: int, n_controls: int, dependence: float, rng: np.random.Generator, effect: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcome, treatment and controls that all are autoregressions of one coefficient.

    Controls act on both with coefficients that fall as 1/j; everything has unit innovations.
    """
    every = rng.standard_normal((n + 50, n_controls + 2))
    every = lfilter([np.sqrt(1 - dependence**2)], [1, -dependence], every, axis=0)
    x, v, u = every[50:, :-2], every[50:, -2], every[50:, -1]
    slope = 1 / np.arange(1, n_controls + 1)
    d = x @ slope + v
    return effect * d + x @ slope + u, d, x


def linear_calibration(
    n: int,
    n_controls: int,
    learner: Learner,
    plan: list[Fold],
    grid: tuple[float, ...],
    n_series: int,
    rng: np.random.Generator,
) -> Pivots:
    """Pivots of the partially linear effect in series of `simulate_linear`."""

    def one(dependence: float, stream: np.random.Generator) -> tuple[float, float, float]:
        y, d, x = simulate_linear(n, n_controls, dependence, stream)
        found = partially_linear(y, d, x, learner, plan)
        return float(found.estimate[0]), float(found.se[0]), measured_dependence(found)

    return calibrate(one, grid, n_series, rng)


def measured_dependence(found: Effects) -> float:
    """Geometric mean of the autocorrelations of what is left of treatment and outcome: at its
    square do the scores of the two depend on their neighbours."""
    product = autocorrelation(found.residual) * autocorrelation(found.unexplained)
    return float(np.sqrt(max(product, 0.0)))


class _Ridge(BaseEstimator):
    """Ridge regression of several targets, equal to that of scikit-learn, whose checks of what it
    is given would take most of the time where thousands of short series are simulated."""

    def fit(self, features: np.ndarray, target: np.ndarray) -> "_Ridge":
        middle, mean = features.mean(0), target.mean(0)
        apart = features - middle
        normal = apart.T @ apart + _PENALTY * np.eye(features.shape[1])
        self.slope_ = np.linalg.solve(normal, apart.T @ (target - mean))
        self.constant_ = mean - middle @ self.slope_
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        return features @ self.slope_ + self.constant_


def ridge() -> Learner:
    """The nuisance that is used where no other is asked for."""
    return _Ridge()
