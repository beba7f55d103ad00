"""What an economy does not answer for, in words that begin with the reason.

An omitted cause of treatment and outcome is not among the reasons: no data of this kind show it.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import chi2
from scipy.stats import f as fisher

from touchstone.models.regimes import effects, series
from touchstone.models.regimes.economy import REGIMES, Economy, Window
from touchstone.models.regimes.series import Recipe

REASONS = (
    "feature outside its range",
    "no overlap",
    "unseen regime",
    "too few dates in a regime",
    "structural break since training",
)
_LEEWAY = 0.25  # of the range of a feature
_LEAST_OVERLAP = 0.3  # of the training's sd of the treatment given the controls
_LARGEST_SHOCK = 4.0  # of the same sd
_LEAST_DATES = 20  # of a regime, below which nothing is said of an effect there
_LEAST_WEIGHT = 0.05  # probability of a regime, below which its effect does not matter
_FARTHER = 1.5  # times the distance of the farthest date of the training
_STRETCH = 8  # dates, within which an unseen regime is looked for
_ROUNDING = 1e-3  # variance of a standardised control that is no matter
_UNLIKELY = 0.001  # p-value of a window or of later dates, if nothing has changed


class Rows(NamedTuple):
    """Dates that are asked about, in the unit of the data where nothing else is said.

    Attributes:
        shock: Treatment beyond what the controls let expect, shape (row,).
        controls: Standardised, shape (row, J).
        turbulent: Probability of the turbulent regime, shape (row,).
    """

    shock: Float[np.ndarray, " row"]
    controls: Float[np.ndarray, "row control"]
    turbulent: Float[np.ndarray, " row"]


def of_rows(economy: Economy, rows: Rows) -> list[list[str]]:
    """Why each of some dates is not answered for; an empty list where it is."""
    found: list[list[str]] = [[] for _ in rows.shock]
    outside = _outside(economy, rows.controls)
    for k, j in np.argwhere(outside).tolist():
        found[k].append(_range(economy, j, rows.controls[k, j : j + 1]))
    apart = rows.controls - economy.centre
    distance = ((apart @ economy.precision) * apart).sum(1)
    unseen = (distance > _FARTHER * economy.farthest) & ~outside.any(1)
    for k in np.flatnonzero(unseen):
        found[k].append(
            "unseen regime: the features together lie "
            f"{np.sqrt(distance[k] / economy.farthest):.1f} times as far from those of the "
            "training as its farthest date"
        )
    sd = float(np.sqrt(economy.treatment_variance) * economy.sd[1])
    for k in np.flatnonzero(np.abs(rows.shock) > _LARGEST_SHOCK * sd):
        found[k].append(
            f"no overlap: the treatment is {rows.shock[k]:g}, and what the controls leave of "
            f"{economy.names[1]} has an sd of {sd:.3g} in the training"
        )
    weight = np.column_stack([1 - rows.turbulent, rows.turbulent])
    for s, words in _few(economy.n_regime, "the training"):
        for k in np.flatnonzero(weight[:, s] > _LEAST_WEIGHT):
            found[k].append(words)
    if economy.break_p < _UNLIKELY:
        for each in found:
            each.append(
                "structural break since training: the dates held out do not follow the rest "
                f"(p = {economy.break_p:.1g})"
            )
    return found


def of_windows(economy: Economy, window: Window) -> list[list[str]]:
    """Why each case, a window of dates with their outcomes, is not answered for."""
    found = []
    for k, (x, left) in enumerate(zip(window.controls, overlap(economy, window), strict=True)):
        said = [
            _range(economy, j, x[:, j])
            for j in np.flatnonzero(_outside(economy, x).any(0)).tolist()
        ]
        if left < _LEAST_OVERLAP:
            said.append(
                f"no overlap: the controls leave {left:.2f} of the variation of "
                f"{economy.names[1]} that they left in the training, at least {_LEAST_OVERLAP} "
                "is needed to tell its effect from theirs"
            )
        error, _ = _errors(economy, window, k)
        if (worst := _stretch(economy, error)) is not None:
            said.append(
                f"unseen regime: around row {worst[0]} the outcome errs {worst[1]:.1f} times as "
                "much as in the turbulent regime of the training"
            )
        found.append(said)
    return found


def overlap(economy: Economy, window: Window) -> Float[np.ndarray, " case"]:
    """How much the treatment of each case varies beside its controls: the standard deviation of
    what they leave of it, in parts of that in the training."""
    found = []
    for d, x in zip(window.treatment, window.controls, strict=True):
        full = np.column_stack([np.ones(len(x)), x])
        left = d - full @ np.linalg.lstsq(full, d)[0]
        found.append(np.sqrt(left.var() / economy.treatment_variance))
    return np.array(found, float)


def few_dates(economy: Economy, turbulent: Float[np.ndarray, "case date"]) -> list[str]:
    """Regimes of which cases, or the training, have too few dates for an effect, in words.

    No reason to refuse a window: its own posterior of such an effect is as wide as the prior.

    Args:
        economy: That was learnt.
        turbulent: Probability of the turbulent regime at each date of each case.
    """
    counts = np.stack([(1 - turbulent).sum(1), turbulent.sum(1)], axis=1)
    found = [words for each in counts for _, words in _few(each, "these dates")]
    return found + [words for _, words in _few(economy.n_regime, "the training")]


def _few(counts: Float[np.ndarray, " regime"], whose: str) -> list[tuple[int, str]]:
    """Regimes of too few dates, and what is said of each."""
    return [
        (
            s,
            f"too few dates in a regime: {counts[s]:.0f} of {whose} are {REGIMES[s]}, at least "
            f"{_LEAST_DATES} are needed",
        )
        for s in np.flatnonzero(counts < _LEAST_DATES).tolist()
    ]


def breaks(economy: Economy, window: Window) -> list[str]:
    """That windows do not go on as the training did, in words; nothing where they do.

    A window's own posterior needs no such thing, since the family is of economies of any level and
    effect: it is what the training says of these dates that no longer holds.
    """
    values = (break_since(economy, window, k) for k in range(len(window.outcome)))
    return [
        "structural break since training: level or effect are not those of the training "
        f"(p = {p:.1g}); do not use effects of the training for these dates"
        for p in values
        if p < _UNLIKELY
    ]


def break_since(economy: Economy, window: Window, case: int = 0) -> float:
    """p-value of the outcomes of a window having the level and the effect of the training.

    A Wald test of both, whose errors are long-run ones by equal-weighted cosines, and hold the
    posterior's of the training.
    """
    error, variance = _errors(economy, window, case)
    return _break(economy, error, variance, window.treatment[case], window.controls[case])


def unlike(economy: Economy, controls: Float[np.ndarray, "date control"]) -> float:
    """How unusual changes of the controls are: the largest distance of the logarithm of their power
    within a stretch from its mean in the training, in standard deviations there."""
    usual = _log_power(economy, economy.innovations)
    power = _log_power(economy, controls[1:] - controls[:-1] @ economy.memory.T)
    return float(np.abs(power - usual.mean()).max() / usual.std())


def _log_power(
    economy: Economy, innovations: Float[np.ndarray, "date control"]
) -> Float[np.ndarray, " stretch"]:
    # A control that is the lag of another one has no innovation but what rounding makes of it.
    covariance = np.atleast_2d(np.cov(economy.innovations.T))
    precision = np.linalg.inv(covariance + _ROUNDING * np.eye(len(covariance)))
    square = ((innovations @ precision) * innovations).sum(1)
    return np.log(np.convolve(square, np.ones(min(_STRETCH, len(square))), "valid") + 1e-12)


def other_questions(economy: Economy, recipe: Recipe) -> list[str]:
    """What a recipe asks that is not what was trained on, in words that begin with its key.

    Controls may be in another order, and a series may be published later than in the training.
    """
    outcome, treatment = economy.names[:2].tolist()
    trained = {"outcome": outcome, "treatment": treatment, "horizon": int(economy.horizon)}
    found = [
        f"{key}: {given!r}, expected {expected!r}"
        for key, expected in trained.items()
        if (given := getattr(recipe, key)) != expected
    ]
    known, given = economy.controls, recipe.controls
    if other := [f"{name}: is missing" for name in known if name not in given] + [
        f"{name}: is no feature of the training" for name in given if name not in known
    ]:
        found.append(f"controls: {'; '.join(other)}")
    lags = dict(zip(economy.published.tolist(), economy.lags.tolist(), strict=True))
    return found + [
        f"publication_lags: {name}: {recipe.publication_lags[name]}, expected at least {days}"
        for name, days in lags.items()
        if recipe.publication_lags.get(name, days) < days
    ]


def look_aheads(economy: Economy, names: list[str]) -> list[str]:
    """Features that could not have been known, by the publication lags of the training."""
    lags = dict(zip(economy.published.tolist(), economy.lags.tolist(), strict=True))
    return [
        problem for name in names if series.parts(name)[0] in lags
        for problem in series.look_ahead(name, lags)
    ]  # fmt: skip


def _outside(
    economy: Economy, controls: Float[np.ndarray, "row control"]
) -> Bool[np.ndarray, "row control"]:
    room = _LEEWAY * (economy.high - economy.low)
    return (controls < economy.low - room) | (controls > economy.high + room)


def _range(economy: Economy, j: int, values: np.ndarray) -> str:
    """That a feature leaves its range, standardised values given."""
    mean, sd = economy.mean[2 + j], economy.sd[2 + j]
    ends = " to ".join(f"{mean + sd * v:.4g}" for v in np.unique([values.min(), values.max()]))
    return (
        f"feature outside its range: {economy.controls[j]} is {ends}, trained from "
        f"{mean + sd * economy.low[j]:.4g} to {mean + sd * economy.high[j]:.4g}"
    )


def _errors(economy: Economy, window: Window, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes less what the training's posterior lets expect before them, and their variance."""
    y, d, x = window.outcome[k], window.treatment[k], window.controls[k]
    learnt = economy.switching
    predicted = np.exp(learnt.states(y, np.column_stack([d, x])).predicted)
    p = economy.parameters
    mean = p.intercept.mean(0) + d[:, None] * p.effect.mean(0) + (x @ p.slope.mean(0))[:, None]
    sizes = p.variance.mean(0)
    expected = (predicted * mean).sum(1)
    spread = (predicted * (mean - expected[:, None]) ** 2).sum(1)
    return y - expected, predicted @ sizes + spread


def _stretch(economy: Economy, error: np.ndarray) -> tuple[int, float] | None:
    """Middle of the stretch that errs most, and how much; None where the turbulent regime may."""
    length = min(_STRETCH, len(error))
    largest = np.quantile(economy.parameters.variance[:, 1], 0.95)
    sums = np.convolve(error**2, np.ones(length), "valid") / largest
    worst = int(sums.argmax())
    if sums[worst] < chi2.isf(_UNLIKELY / len(sums), length):
        return None
    return worst + length // 2 + 1, float(np.sqrt(sums[worst] / length))


def _break(
    economy: Economy,
    error: np.ndarray,
    variance: np.ndarray,
    d: np.ndarray,
    x: np.ndarray,
) -> float:
    """See `break_since`."""
    shock = d - economy.treatment_slope[0] - x @ economy.treatment_slope[1:]
    design = np.column_stack([np.ones(len(error)), shock])
    weighted = design / variance[:, None]
    bread = np.linalg.inv(weighted.T @ design)
    shift = bread @ weighted.T @ error
    n, b = len(error), effects.n_cosines(len(error))
    scores = weighted * (error - design @ shift)[:, None]
    covariance = bread @ (n * effects.long_run(scores)) @ bread
    p = economy.parameters
    share = economy.n_regime / economy.n_regime.sum()
    covariance = covariance + np.cov(np.stack([p.intercept @ share, p.effect @ share]))
    # Cosines fewer than restrictions make no test; with b of them, b - 1 degrees are left for two.
    if b < 3:
        return 1.0
    wald = shift @ np.linalg.solve(covariance, shift) * (b - 1) / (2 * b)
    return float(fisher.sf(wald, 2, b - 1))
