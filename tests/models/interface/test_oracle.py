"""What of a mismatch a film absorbs: the convex problem beside a general minimiser."""

import numpy as np
import pytest
from scipy.optimize import minimize

from touchstone.contract import folders, load_model
from touchstone.models.interface.oracle import unabsorbed


@pytest.mark.parametrize("seed", range(4))
def test_what_is_left_solves_the_convex_problem(seed):
    rng = np.random.default_rng(seed)
    shift, factor = 3 * rng.standard_normal(6), rng.standard_normal((6, 3))
    covariance = factor @ factor.T + 0.5 * np.eye(6) + 4
    inverse = np.linalg.inv(covariance)

    def cost(left):
        taken = shift - left
        return np.abs(left).sum() + taken @ inverse @ taken / 2

    found = cost(unabsorbed(shift, covariance))
    starts = (k * shift + 0.1 * rng.standard_normal(6) for k in (0, 0.5, 1))
    options = {"maxiter": 50_000, "xtol": 1e-9, "ftol": 1e-12}
    best = min(minimize(cost, start, method="Powell", options=options).fun for start in starts)
    assert found == pytest.approx(best, abs=2e-3)


def test_a_constant_shift_is_taken_up_by_a_film_effect_that_is_free():
    left = unabsorbed(np.full(5, 2.0), 1e6 * np.ones((5, 5)) + 1e-9 * np.eye(5))
    assert np.abs(left).max() < 1e-3


def test_the_power_grows_with_the_severity_and_is_the_level_without():
    model = load_model("interface")
    model.load(folders()["interface"] / "pretrained")
    for stress in model.stresses:
        none, half, whole = (
            model.detection_power(
                30, np.random.default_rng(1), np.random.default_rng(2), {}, stress, severity
            )
            for severity in (0.0, 0.5, 1.0)
        )
        assert none == pytest.approx(0.05, abs=1e-6), stress
        assert 0.05 < half.mean() <= whole.mean() + 1e-9, stress
