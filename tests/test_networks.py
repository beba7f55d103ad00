"""What the posterior network is told of a record, against records of which it is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from touchstone.models.ecsfm import networks

N = 256
X = np.linspace(-1.25, 1.25, N, dtype=np.float32)
roughness, landmarks = jax.jit(networks.roughness), jax.jit(networks.landmarks)


@settings(deadline=None)
@given(
    sd=st.floats(1e-3, 1.0),
    slope=st.floats(-3.0, 3.0),
    keep=st.floats(0.2, 1.0),
    seed=st.integers(0, 1000),
)
def test_roughness_is_the_noise_about_a_line_whatever_was_observed(sd, slope, keep, seed):
    rng = np.random.default_rng(seed)
    mask = rng.random(N) < keep
    value = slope * X + sd * rng.standard_normal(N)
    alone = roughness(value.astype(np.float32), mask)
    of_unit_noise = roughness(((value - slope * X) / sd).astype(np.float32), mask)
    # The line changes nothing, and the noise its logarithm only: standard deviations of 2.
    np.testing.assert_allclose(alone, of_unit_noise + np.log(sd) / 2, atol=0.02)
    log_sd = 2 * np.asarray(of_unit_noise) - 4
    assert abs(np.median(log_sd)) < 0.4


def test_roughness_does_not_see_what_was_not_observed():
    rng = np.random.default_rng(1)
    value, mask = rng.standard_normal(N).astype(np.float32), rng.random(N) < 0.4
    other = np.where(mask, value, 100.0).astype(np.float32)
    np.testing.assert_array_equal(roughness(value, mask), roughness(other, mask))


@pytest.mark.parametrize("n_observed", [1, 2, 5])
def test_roughness_of_hardly_any_samples_is_finite(n_observed):
    assert np.isfinite(roughness(X, np.arange(N) < n_observed)).all()


@settings(deadline=None)
@given(centre=st.floats(-0.6, 0.6), width=st.floats(0.05, 0.15), height=st.floats(0.5, 4.0))
def test_landmarks_are_height_centre_and_width_of_a_peak(centre, width, height):
    peak = height * jnp.exp(-0.5 * ((X - centre) / width) ** 2)
    found = landmarks(peak, X)
    log_height, *moments = np.asarray(found[:7])
    assert log_height == pytest.approx(np.log(height), abs=0.06)
    for power, middle, spread in zip((1, 4, 16), moments[::2], moments[1::2], strict=True):
        assert middle == pytest.approx(centre, abs=0.01)
        assert spread == pytest.approx(width / power**0.5, rel=0.05, abs=0.01)
    np.testing.assert_allclose(landmarks(-peak, X), np.roll(found, 7), atol=1e-5)
