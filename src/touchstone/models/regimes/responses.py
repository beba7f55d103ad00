"""How outcomes respond to a treatment over time, on average and in each regime.

Local projections (Jorda 2005) by orthogonal scores. Regimes are weighted by probabilities that use
no outcome which was not there before the treatment. An interval is as wide as simulated series of
the same length, dependence and history of regimes need; a joint band is wider by the largest
deviation over all horizons beside that of one (sup-t of Montiel Olea and Plagborg-Moller 2019).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from touchstone.contract import LEVEL, REACH
from touchstone.models.regimes import effects
from touchstone.models.regimes.economy import REGIMES
from touchstone.models.regimes.effects import Effects, Pivots
from touchstone.models.regimes.series import Recipe, Table

GROUPS = ("average", *REGIMES, "turbulent less calm")
NUMBERS = ("estimate", "low", "high", "joint low", "joint high")
_N_SHOWN = 6  # horizons in a table
_N_DRAWS = 4000  # of the largest deviation over horizons


def shown(n_horizons: int) -> range:
    """Horizons of a table, as many as can be read."""
    return range(0, n_horizons, max(n_horizons // _N_SHOWN, 1))


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


def by_horizon(
    table: Table,
    recipe: Recipe,
    rows: Rows,
    n_horizons: int,
    grid: Sequence[float],
    n_series: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "outcome group horizon number"]:
    """Responses of all outcomes to one unit of the treatment, in their own units.

    Args:
        table: The series.
        recipe: What is asked of them; no outcome later than that of the last row is used.
        rows: Dates of the treatments.
        n_horizons: Horizons, from 0 on.
        grid: Dependence of the simulated series.
        n_series: Number of these at each.
        rng: For them, and for the joint bands.

    Returns:
        `NUMBERS` of each of `GROUPS`.
    """
    pivots = calibrate(rows, grid, n_series, rng)
    at = np.searchsorted(table.dates, rows.dates)
    found = np.empty((len(recipe.outcomes), len(GROUPS), n_horizons, len(NUMBERS)))
    for o, name in enumerate(recipe.outcomes):
        values = table.column(name)
        sums = np.r_[0.0, np.nancumsum(values)]
        each: list[Effects] = []
        for h in range(n_horizons):
            inside = at + h <= at[-1] + recipe.horizon
            n = int(inside.sum())
            end = at[:n] + h
            target = sums[end + 1] - sums[at[:n]] if recipe.cumulative else values[end]
            each.append(_fitted(target, Rows(*(a[:n] for a in rows[:-1]), rows.variance)))
        for g, pivot in enumerate(pivots):
            found[o, g] = _bands([_part(got, g) for got in each], pivot, rng)
    return found


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
    found: list[Effects], pivots: Pivots, rng: np.random.Generator
) -> Float[np.ndarray, "horizon number"]:
    """Estimates, intervals and joint band over the horizons."""
    common = min(len(each.influence) for each in found)
    influence = np.column_stack([each.influence[:common] for each in found])
    root = np.linalg.cholesky(effects.long_run(influence) + 1e-9 * np.diag((influence**2).mean(0)))
    root /= np.sqrt((root**2).sum(1, keepdims=True))
    largest = np.abs(rng.standard_normal((_N_DRAWS, len(root))) @ root.T).max(1)
    wider = np.quantile(largest, LEVEL) / REACH
    rows = []
    for each in found:
        estimate, se = float(each.estimate[0]), float(each.se[0])
        low, high = pivots.interval(estimate, se, effects.measured_dependence(each), LEVEL)
        rows.append(
            [estimate, low, high, *(estimate + wider * (end - estimate) for end in (low, high))]
        )
    return np.array(rows)
