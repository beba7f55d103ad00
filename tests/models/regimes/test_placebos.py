"""Effects where none can be: found where something is wrong, and only there."""

from functools import partial

import numpy as np
import pytest

from touchstone.models.regimes import effects, training

N = 200


@pytest.fixture(scope="module")
def calibrated():
    """Blocks of dates, and the intervals of effects that are estimated on them."""
    folds = partial(effects.folds, plan="blocked", n_folds=4)
    rng = np.random.default_rng(0)
    grid = (0.0, 0.5)
    pivots = effects.linear_calibration(N, 2, effects.ridge(), folds(N), grid, 100, rng)
    return training.Calibrated(folds, pivots)


def rows_of(calibrated, y, d, x, n_controls=25):
    """Of treatments of other dates, and of the treatment that came later."""
    return training.placebos(0, calibrated, y, d, x, np.random.default_rng(1), n_controls)


def series(seed):
    return effects.simulate_linear(N, 2, 0.3, np.random.default_rng(seed), effect=0.5)


def test_nothing_is_found_where_nothing_is_wrong(calibrated):
    y, d, x = series(2)
    others, lead = rows_of(calibrated, y, d, x)
    assert others["p-value"] > 0.05
    assert lead["low"] < 0 < lead["high"]
    # The later treatment, given all that was known before it, on the folds of the effect itself.
    later = effects.partially_linear(
        y[:-1], d[1:], np.column_stack([x, d])[:-1], effects.ridge(), calibrated.folds(N - 1)
    )
    assert lead["n"] == N - 1
    assert lead["median"] == pytest.approx(later.estimate[0])


def test_a_treatment_that_answers_to_the_outcome_before_it_is_found(calibrated):
    y, d, x = series(3)
    feeds_back = d.copy()
    feeds_back[1:] += 0.5 * y[:-1]
    low, high = (rows_of(calibrated, y, feeds_back, x, 1)[1][end] for end in ("low", "high"))
    assert low > 0 or high < 0


def test_a_cycle_that_treatment_and_outcome_share_is_found(calibrated):
    """Whatever the shift, such treatments have effects beyond the intervals."""
    y, d, x = series(4)
    cycle = 2 * np.sin(2 * np.pi * np.arange(N) / 50)
    assert rows_of(calibrated, y + cycle, d + cycle, x)[0]["p-value"] < 0.05
