"""Responses by horizon and regime: against effects that are known, and a theorem."""

import numpy as np
import pytest
from scipy.signal import lfilter

from touchstone.io.artifacts import ArtifactError
from touchstone.models.regimes import effects, responses, series
from touchstone.models.regimes.responses import Rows
from touchstone.models.regimes.series import Recipe, Table

N = 340
RECIPE = Recipe("date", "y", "d", (), {}, further_outcomes=("twice",), cumulative=True)
EFFECT = np.array([0.2, 0.8])
SD = np.array([0.6, 1.2])


def economy(seed):
    """A shock that acts on its own date alone, in regimes whose probabilities are known before."""
    rng = np.random.default_rng(seed)
    turbulent = np.clip(0.5 + 0.45 * np.sin(2 * np.pi * np.arange(N) / 60), 0.02, 0.98)
    state = (rng.random(N) < turbulent).astype(int)
    x, d = rng.standard_normal((N, 2)), rng.standard_normal(N)
    y = EFFECT[state] * d + x @ [0.3, -0.2] + SD[state] * rng.standard_normal(N)
    dates = (np.datetime64("1970-01") + np.arange(N)).astype("datetime64[D]")
    table = Table(dates, ("y", "twice", "d"), np.column_stack([y, 2 * y, d]))
    return table, Rows(dates, d, x, np.column_stack([1 - turbulent, turbulent]), SD**2)


def found_in(seed, recipe=RECIPE, n_horizons=7, n_series=60):
    table, rows = economy(seed)
    rng = np.random.default_rng(seed)
    return responses.by_horizon(table, recipe, rows, n_horizons, (0.0, 0.5), n_series, rng).numbers


def test_sums_keep_the_effect_of_their_first_date_in_each_regime():
    """The mean over series is the truth at all horizons; single intervals hold it in 90 %."""
    found = np.array([found_in(seed)[0] for seed in range(12)])
    truth = np.array([*EFFECT, EFFECT[1] - EFFECT[0]])[:, None]
    estimate = found[:, 1:, :, 0]
    error = estimate.std(0) / np.sqrt(len(found))
    assert (np.abs(estimate.mean(0) - truth) < 4 * error).all()
    inside = (found[:, 1:, :, 1] <= truth) & (truth <= found[:, 1:, :, 2])
    assert inside.mean() > 0.78  # horizons of one series are not independent
    joint = (found[:, 1:, :, 3] <= truth) & (truth <= found[:, 1:, :, 4])
    assert joint.all(2).mean() > 0.75


def test_joint_bands_are_wider_and_all_numbers_scale_with_the_outcome():
    found = found_in(1)
    once, twice = found
    assert (once[..., 3] <= once[..., 1]).all()
    assert (once[..., 2] <= once[..., 4]).all()
    np.testing.assert_allclose(twice[..., :3], 2 * once[..., :3], rtol=1e-9)
    # The largest deviation over horizons is simulated anew.
    wide = np.diff(found[..., 3:]) / np.diff(found[..., 1:3])
    np.testing.assert_allclose(wide[1], wide[0], rtol=0.05)


def test_the_average_at_horizon_zero_is_the_partially_linear_effect():
    table, rows = economy(2)
    plan = effects.folds(N, "full")
    alone = effects.partially_linear(
        table.column("y"), rows.treatment, rows.controls, effects.ridge(), plan
    )
    assert found_in(2)[0, 0, 0, 0] == pytest.approx(alone.estimate[0], rel=1e-12)


def test_outcomes_that_are_no_changes_are_not_summed():
    each = found_in(3, RECIPE._replace(cumulative=False))
    # A later date alone does not depend on the shock.
    assert (np.abs(each[0, 0, 1:, 0]) < 0.35).all()
    assert each[0, 0, 0, 0] > 0.35


def test_no_outcome_after_that_of_the_last_row_is_used():
    table, rows = economy(4)
    fewer = Rows(*(values[:-40] for values in rows[:-1]), rows.variance)
    later = table.values.copy()
    later[-40:] = 1e6
    given = (RECIPE, fewer, 5, (0.0,), 20)
    ours, theirs = (
        responses.by_horizon(t, *given, np.random.default_rng(0)).numbers
        for t in (table, table._replace(values=later))
    )
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("cumulative", "first"), [(True, 100), (False, 0)])
def test_dates_with_a_gap_in_their_span_are_left_out_and_counted(cumulative, first):
    """The response of a series with a gap is that of a table which has only the dates beside it;
    were gaps taken for zeros, it would be nearer to zero."""
    table, rows = economy(5)
    values = table.values.copy()
    values[:first, 1] = np.nan
    values[-40:, 1] = np.nan
    recipe = RECIPE._replace(cumulative=cumulative)
    given = recipe, rows, 7, (0.0, 0.5), 20, np.random.default_rng(0)
    found = responses.by_horizon(table._replace(values=values), *given)
    inside = np.arange(first, N - 40)
    alone = responses.by_horizon(
        series.Table(table.dates[inside], table.names, table.values[inside]),
        recipe, rows.take(inside), *given[2:],
    )  # fmt: skip
    np.testing.assert_allclose(found.numbers[1, :, :, 0], alone.numbers[1, :, :, 0], rtol=1e-9)
    np.testing.assert_array_equal(found.n_rows[1], N - 40 - first - np.arange(7))
    # A date whose value of the last row is missing has been left out for its end before.
    np.testing.assert_array_equal(found.n_gaps[1], np.full(7, 40 + first))
    assert not found.n_gaps[0].any()


def test_an_outcome_of_few_dates_is_refused_by_its_name():
    table, rows = economy(6)
    values = table.values.copy()
    values[12:, 1] = np.nan
    with pytest.raises(ArtifactError, match="twice: 6 dates have no gap in the 7 rows from them"):
        responses.by_horizon(
            table._replace(values=values), RECIPE, rows, 7, (0.0,), 20, np.random.default_rng(0)
        )


def test_distributed_lags_of_a_level_are_its_response_and_of_changes_that_of_their_sum():
    rng, n = np.random.default_rng(7), 4000
    d, noise = rng.standard_normal((2, n))
    y = lfilter([1], [1, -0.5], np.append(0.0, d[:-1]) + noise)
    level, change = (
        effects.distributed_lags(y, d, 2, 3, 6, np.random.default_rng(0), cumulative)
        for cumulative in (False, True)
    )
    truth = np.append(0.0, 0.5 ** np.arange(5))
    np.testing.assert_allclose(level.estimate, truth, atol=0.08)
    np.testing.assert_allclose(change.estimate, truth.cumsum(), atol=0.15)
    assert ((level.low <= truth) & (truth <= level.high)).mean() > 0.8
