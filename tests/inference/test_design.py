"""Expected information gains beside those of Gaussian and of discrete cases, which are exact."""

import numpy as np
import pytest

from touchstone.inference.design import expected_gain

N = 3000


def rng():
    return np.random.default_rng(5)


def test_the_gain_of_a_linear_record_is_that_of_gaussians():
    z = rng().standard_normal((N, 3))
    design = np.array([[1.5, 0.0, 0.0], [0.5, 0.8, 0.0], [0.0, 0.3, 0.0], [1.0, 1.0, 0.0]])
    information = np.eye(3) + design.T @ design
    exact = 0.5 * np.linalg.slogdet(information)[1]
    gain = expected_gain(z @ design.T, z, rng())
    assert gain.value == pytest.approx(exact, abs=4 * gain.error)
    assert gain.error < 0.1
    assert gain.at_most == pytest.approx(exact, abs=0.1)
    sd = np.sqrt(np.diag(np.linalg.inv(information)))
    np.testing.assert_allclose(gain.narrowed, sd, atol=0.07)
    assert gain.narrowed[2] > 0.9


def test_a_record_that_tells_two_draws_apart_is_worth_the_logarithm_of_two():
    which = np.arange(N) % 2
    gain = expected_gain(20.0 * which[:, None], which[:, None].astype(float), rng())
    assert gain.value == pytest.approx(np.log(2), abs=0.01)
    assert gain.at_most > np.log(2)
    assert gain.narrowed[0] < 0.01


def test_a_record_that_is_the_same_under_all_draws_says_nothing():
    z = rng().standard_normal((N, 2))
    gain = expected_gain(np.ones((N, 7)), z, rng())
    assert gain.value == pytest.approx(0.0, abs=1e-9)
    assert gain.at_most == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(gain.narrowed, 1.0, atol=1e-6)


def test_more_cannot_be_seen_than_the_draws_tell_apart():
    z = rng().standard_normal((N, 1))
    gain = expected_gain(1e6 * z, z, rng())
    assert np.log(N) - 0.1 < gain.value <= np.log(N)
    assert gain.at_most > gain.value
