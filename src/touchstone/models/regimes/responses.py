"""How outcomes respond to a treatment over time, on average and in each regime.

Local projections (Jorda 2005) by orthogonal scores. Regimes are weighted by probabilities that use
no outcome which was not there before the treatment. An interval is as wide as simulated series of
the same length, dependence and history of regimes need; a joint band is wider by the largest
deviation over all horizons beside that of one (sup-t of Montiel Olea and Plagborg-Moller 2019).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from touchstone.contract import LEVEL, REACH
from touchstone.io.artifacts import ArtifactError
from touchstone.models.regimes import effects
from touchstone.models.regimes.economy import REGIMES
from touchstone.models.regimes.effects import Effects, Pivots
from touchstone.models.regimes.series import Recipe, Table

GROUPS = ("average", *REGIMES, "turbulent less calm")
NUMBERS = ("estimate", "low", "high", "joint low", "joint high")
_N_SHOWN = 6  # horizons in a table
_LEAST_ROWS = 4  # for each control, that have all horizons where there are gaps
_N_DRAWS = 4000  # of the largest deviation over horizons


def shown(n_horizons: int) -> range:
    """Horizons of a table, as many as can be read."""
    return range(0, n_horizons, max(n_horizons // _N_SHOWN, 1))


def farthest(response: Float[np.ndarray, "horizon number"]) -> int:
    """Horizon at which a response is farthest from zero."""
    return int(np.abs(response[:, 0]).argmax())


class Rows(NamedTuple):
    """Dates of the training.

    Attributes:
        dates: In days, shape (row,).
        treatment: In its unit, shape (row,).
        controls: Standardised, shape (row, J).
        weight: Probability of each regime, known before the treatment, shape (row, 2).
        variance: Of the outcome's errors in each regime, shape (2,).
    """

    dates: np.ndarray
    treatment: Float[np.ndarray, " row"]
    controls: Float[np.ndarray, "row control"]
    weight: Float[np.ndarray, "row regime"]
    variance: Float[np.ndarray, " regime"]

    def take(self, chosen: Bool[np.ndarray, " row"]) -> "Rows":
        """Some of the dates."""
        return Rows(*(values[chosen] for values in self[:-1]), self.variance)


class Responses(NamedTuple):
    """Of all outcomes to one unit of the treatment, in their own units.

    Attributes:
        numbers: `NUMBERS` of each of `GROUPS`, shape (outcome, group, horizon, number).
        n_rows: Dates that each is estimated from, shape (outcome, horizon).
        n_gaps: Dates that are left out since a value between them and the horizon is missing, the
            same shape.
    """

    numbers: Float[np.ndarray, "outcome group horizon number"]
    n_rows: Int[np.ndarray, "outcome horizon"]
    n_gaps: Int[np.ndarray, "outcome horizon"]


def by_horizon(
    table: Table,
    recipe: Recipe,
    rows: Rows,
    n_horizons: int,
    grid: Sequence[float],
    n_series: int,
    rng: np.random.Generator,
) -> Responses:
    """Responses of all outcomes at all horizons.

    Args:
        table: The series.
        recipe: What is asked of them; no outcome later than that of the last row is used.
        rows: Dates of the treatments.
        n_horizons: Horizons, from 0 on.
        grid: Dependence of the simulated series.
        n_series: Number of these at each.
        rng: For them, and for the joint bands.

    Raises:
        ArtifactError: If gaps leave too few dates of an outcome.
    """
    at = np.searchsorted(table.dates, rows.dates)
    before_end = at[:, None] + np.arange(n_horizons) <= at[-1] + recipe.horizon
    pivots = {len(rows.dates): calibrate(rows, grid, n_series, rng)}
    shape = (len(recipe.outcomes), n_horizons)
    numbers = np.empty((shape[0], len(GROUPS), n_horizons, len(NUMBERS)))
    n_rows, n_gaps = np.empty(shape, int), np.empty(shape, int)
    for o, name in enumerate(recipe.outcomes):
        target = targets(table, recipe, name, rows.dates, n_horizons)
        used = np.isfinite(target)
        at_all = used.all(1)
        n_rows[o], n_gaps[o] = used.sum(0), (before_end & ~used).sum(0)
        if n_gaps[o].any() and at_all.sum() < _LEAST_ROWS * rows.controls.shape[1]:
            raise ArtifactError(
                f"{name}: {at_all.sum()} dates have no gap in the {n_horizons} rows from them on, "
                f"expected at least {_LEAST_ROWS} for each control"
            )
        each = [
            (_fitted(target[use, h], rows.take(use)), at_all[use]) for h, use in enumerate(used.T)
        ]
        # Intervals are those of series as long as this one is without its gaps.
        if (n := int(used[:, 0].sum())) not in pivots:
            pivots[n] = calibrate(rows.take(used[:, 0]), grid, n_series, rng)
        for g, pivot in enumerate(pivots[n]):
            numbers[o, g] = _bands([(_part(got, g), of_all) for got, of_all in each], pivot, rng)
    return Responses(numbers, n_rows, n_gaps)


def targets(
    table: Table, recipe: Recipe, name: str, dates: np.ndarray, n_horizons: int
) -> Float[np.ndarray, "row horizon"]:
    """An outcome so many rows after each of some dates, or its sum from them on.

    NaN where a value of it is missing, or is later than the outcome of the last of the dates.
    """
    at = np.searchsorted(table.dates, dates)
    values = table.column(name)[: at[-1] + recipe.horizon + 1]
    padded = np.append(values, np.full(n_horizons, np.nan))
    spans = np.lib.stride_tricks.sliding_window_view(padded, n_horizons)[at]
    return spans.cumsum(1) if recipe.cumulative else spans


def _fitted(target: Float[np.ndarray, " row"], rows: Rows) -> Effects:
    """All of `GROUPS` at one horizon, side by side."""
    plan = effects.folds(len(target), "full")
    x, w = rows.controls, rows.weight
    average = effects.partially_linear(target, rows.treatment, x, effects.ridge(), plan)
    features = np.column_stack([x, w[:, 1], x * w[:, 1:]])
    regimes = effects.partially_linear(target, rows.treatment, features, effects.ridge(), plan, w)
    estimate = np.r_[average.estimate, regimes.estimate, np.diff(regimes.estimate)]
    apart = np.diff(regimes.influence, axis=1)
    influence = np.column_stack([average.influence, regimes.influence, apart])
    return Effects(estimate, influence, average.residual, average.unexplained)


def _part(found: Effects, group: int) -> Effects:
    return found._replace(
        estimate=found.estimate[group : group + 1],
        influence=found.influence[:, group : group + 1],
    )


def calibrate(
    rows: Rows, grid: Sequence[float], n_series: int, rng: np.random.Generator
) -> list[Pivots]:
    """Pivots of each of `GROUPS` where there is no effect, in series with the regimes of the
    training: outcomes, treatments and controls of a given dependence, and errors that are as much
    larger in the turbulent regime as there."""
    n, j = rows.controls.shape
    sizes = np.sqrt(rows.weight @ rows.variance / rows.variance.mean())
    slope = 1 / np.arange(1, j + 1)
    measured, pivots = np.empty((len(grid), n_series)), np.empty((len(grid), n_series, len(GROUPS)))
    for g, dependence in enumerate(grid):
        for k in range(n_series):
            y, d, x = effects.simulate_linear(n, j, dependence, rng)
            explained = x @ slope
            given = rows._replace(treatment=d, controls=x)
            found = _fitted(explained + sizes * (y - explained), given)
            measured[g, k] = effects.measured_dependence(found)
            pivots[g, k] = found.estimate / found.se
    middle = measured.mean(1)
    order = np.argsort(middle)
    return [Pivots(middle[order], pivots[order, :, k]) for k in range(len(GROUPS))]


def _bands(
    found: list[tuple[Effects, Bool[np.ndarray, " row"]]], pivots: Pivots, rng: np.random.Generator
) -> Float[np.ndarray, "horizon number"]:
    """Estimates, intervals and joint band over the horizons; each with which of its dates have all
    horizons, by which these depend on each other."""
    influence = np.column_stack([each.influence[of_all] for each, of_all in found])
    root = np.linalg.cholesky(effects.long_run(influence) + 1e-9 * np.diag((influence**2).mean(0)))
    root /= np.sqrt((root**2).sum(1, keepdims=True))
    largest = np.abs(rng.standard_normal((_N_DRAWS, len(root))) @ root.T).max(1)
    wider = np.quantile(largest, LEVEL) / REACH
    rows = []
    for each, _ in found:
        estimate, se = float(each.estimate[0]), float(each.se[0])
        low, high = pivots.interval(estimate, se, effects.measured_dependence(each), LEVEL)
        rows.append(
            [estimate, low, high, *(estimate + wider * (end - estimate) for end in (low, high))]
        )
    return np.array(rows)
