"""What the posterior network is told of a record, against records of which it is known."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import touchstone.models.ecsfm as ecsfm
from touchstone.models.ecsfm.inference import networks
from touchstone.models.ecsfm.physics.experiment import Experiment
from touchstone.models.ecsfm.physics.prior import Prior

CONFIG = yaml.safe_load((Path(ecsfm.__file__).parent / "config.yaml").read_text(encoding="utf-8"))
PRIOR = Prior(CONFIG, 2)
N = 256
X = np.linspace(-1.25, 1.25, N, dtype=np.float32)
PEAK = np.exp(-0.5 * ((X - 0.3) / 0.1) ** 2)
roughness, landmarks = jax.jit(networks.roughness), jax.jit(networks.landmarks)


@jax.jit
def context(observed, mask):
    """Of a sweep, A, with one couple of which nothing is known."""
    numbers = (jnp.float32(10.0), jnp.float32(0.15), 0, jnp.float32(298.15))
    experiment = Experiment(0.4 * X, *numbers, jnp.array([[True, False], [False, False]]))
    n_settings = len(networks.settings(experiment))
    normaliser = networks.Normaliser(jnp.zeros(n_settings), jnp.ones(n_settings), 0.0, 1.0)
    nothing, active = jnp.zeros(PRIOR.size, bool), PRIOR.active(experiment.present)
    return networks.posterior_context(
        observed, mask, experiment, jnp.ones(PRIOR.size), nothing, active, normaliser
    )


def test_the_context_tells_the_noise_of_a_peak_apart():
    noise = np.random.default_rng(1).standard_normal(N)
    seen = np.ones(N, bool)
    quiet, loud = (np.asarray(context(1e-6 * (PEAK + sd * noise), seen)) for sd in (0.003, 0.03))
    # Ten times the noise, of nearly the same rms: half a logarithm of ten, where the peak is not.
    told = np.abs(loud - quiet - np.log(10) / 2) < 0.1
    assert told.sum() >= 8
    assert (np.abs(loud - quiet) > 0.5).sum() >= told.sum()


def test_the_context_tells_peaks_of_either_sign_apart():
    seen = np.ones(N, bool)
    up, down = (np.asarray(context(way * 1e-6 * PEAK, seen)) for way in (1, -1))
    np.testing.assert_allclose(np.sort(up[3 * N :]), np.sort(down[3 * N :]), atol=1e-4)
    assert np.abs(up[3 * N :] - down[3 * N :]).max() > 1


def test_the_context_sees_no_more_than_was_observed():
    rng = np.random.default_rng(2)
    observed, mask = 1e-6 * PEAK, rng.random(N) < 0.4
    other = np.where(mask, observed, 1.0)
    np.testing.assert_array_equal(context(observed, mask), context(other, mask))


def test_the_context_tells_which_samples_were_observed():
    line, mask = 1e-6 * (1 + X / 4), np.random.default_rng(6).random(N) < 0.7
    mask[[0, -1]] = True
    whole, thinned = (np.asarray(context(line, seen)) for seen in (np.ones(N, bool), mask))
    assert (np.abs(whole - thinned)[N : 2 * N] > 0.1).sum() == (~mask).sum()


@given(st.floats(1e-4, 1e4))
def test_the_size_of_the_current_is_one_number_of_the_context(factor):
    mask = np.random.default_rng(3).random(N) < 0.7
    one, other = (np.asarray(context(f * 1e-6 * PEAK, mask)) for f in (1.0, factor))
    differ = np.flatnonzero(np.abs(one - other) > 1e-3)
    assert len(differ) == (abs(np.log(factor)) > 1e-3)
    np.testing.assert_allclose((other - one)[differ], np.log(factor), atol=1e-3)


@given(
    sd=st.floats(1e-3, 1.0),
    slope=st.floats(-3.0, 3.0),
    n_observed=st.integers(40, N),
    seed=st.integers(0, 1000),
)
def test_roughness_is_that_of_the_noise_about_a_line_whatever_was_observed(
    sd, slope, n_observed, seed
):
    rng = np.random.default_rng(seed)
    mask = rng.permutation(N) < n_observed
    value = slope * X + sd * rng.standard_normal(N)
    alone = roughness(value.astype(np.float32), mask)
    of_unit_noise = roughness(((value - slope * X) / sd).astype(np.float32), mask)
    # The line changes nothing, and the noise its logarithm only: standard deviations of 2.
    np.testing.assert_allclose(alone, of_unit_noise + np.log(sd) / 2, atol=0.02)


@pytest.mark.parametrize("part", [0.4, 1.0])
def test_roughness_is_the_standard_deviation_of_white_noise(part):
    rng = np.random.default_rng(5)
    log_sd = np.array(
        [
            2 * roughness(rng.standard_normal(N).astype(np.float32), rng.random(N) < part) - 4
            for _ in range(500)
        ]
    )
    # Variances, whose means over 500 records chance moves by 0.03 at most.
    np.testing.assert_allclose(np.exp(2 * log_sd).mean(0), 1.0, atol=0.15)
    assert np.exp(2 * log_sd).mean() == pytest.approx(1.0, abs=0.03)


def test_roughness_does_not_see_what_was_not_observed():
    rng = np.random.default_rng(1)
    value, mask = rng.standard_normal(N).astype(np.float32), rng.random(N) < 0.4
    other = np.where(mask, value, 100.0).astype(np.float32)
    np.testing.assert_array_equal(roughness(value, mask), roughness(other, mask))


@pytest.mark.parametrize(("n_observed", "n_distances"), [(1, 0), (2, 0), (3, 1), (17, 4), (32, 4)])
def test_roughness_that_no_samples_show_is_not_called_smooth(n_observed, n_distances):
    noise = np.random.default_rng(4).standard_normal(N).astype(np.float32)
    of_distance = np.asarray(roughness(noise, np.arange(N) < n_observed)).reshape(5, -1)
    assert of_distance[:n_distances].all()
    assert not of_distance[n_distances:].any()


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
