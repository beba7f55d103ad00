"""The record of a current: its likelihood against the dense Gaussian, its draws, its masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from touchstone.models.ecsfm.data.masks import gap_mask, random_mask, transition_mask
from touchstone.models.ecsfm.physics.observation import Observation

N = 48
TIME = np.arange(N) / N
SHAPES = jnp.stack([jnp.ones(N), jnp.linspace(-1, 1, N)])
SIZES = jnp.array([0.03, 0.05])
BASELINE = np.asarray(SIZES)[:, None] * np.asarray(SHAPES)


def observation(white, discrepancy, correlation, mean=0.0):
    numbers = (jnp.float32(x) for x in (white, discrepancy, correlation))
    return Observation(jnp.full(N, mean), SHAPES, SIZES, *numbers)


def covariance(white, discrepancy, correlation):
    """Of a record whose baseline is known: Matérn 3/2 and white noise."""
    apart = np.sqrt(3) * np.abs(TIME[:, None] - TIME) / correlation
    return discrepancy**2 * (1 + apart) * np.exp(-apart) + white**2 * np.eye(N)


@jax.jit
def filtered(record, observed, mask):
    return record.filter(observed, mask)


@settings(max_examples=60)
@given(
    white=st.floats(1e-3, 0.1),
    discrepancy=st.floats(1e-3, 0.2),
    correlation=st.floats(0.01, 1.0),
    seed=st.integers(0, 99),
    part=st.floats(0.05, 1.0),
)
def test_the_likelihood_is_that_of_the_dense_gaussian(white, discrepancy, correlation, seed, part):
    rng = np.random.default_rng(seed)
    full = covariance(white, discrepancy, correlation) + BASELINE.T @ BASELINE
    observed = rng.multivariate_normal(np.full(N, 0.7), full)
    mask = rng.random(N) < part
    mask[seed % N] = True
    ours = filtered(observation(white, discrepancy, correlation, 0.7), observed, mask)
    seen = np.ix_(mask, mask)
    exact = multivariate_normal(np.full(mask.sum(), 0.7), full[seen]).logpdf(observed[mask])
    log_likelihood = -(0.5 * ours.residual**2 + ours.log_scale).sum()
    # float32: the record is in units of the white noise, up to a thousand of them
    assert float(log_likelihood) == pytest.approx(exact, abs=0.02 + 1e-4 * abs(exact))
    assert (np.asarray(ours.residual)[~mask] == 0).all()
    gain = BASELINE[:, mask] @ np.linalg.inv(full[seen])
    scale = np.sqrt(np.diag(np.eye(2) - gain @ BASELINE[:, mask].T))
    apart = (ours.baseline - gain @ (observed[mask] - 0.7)) / scale
    assert np.abs(apart).max() < 0.05
    exact_covariance = np.eye(2) - gain @ BASELINE[:, mask].T
    assert np.abs((ours.covariance - exact_covariance) / np.outer(scale, scale)).max() < 0.05


def test_a_known_baseline_is_part_of_the_mean():
    z = jnp.array([0.5, -1.2])
    record = observation(0.02, 0.05, 0.2, 0.7)
    mean = 0.7 + np.asarray(z) @ BASELINE
    observed = mean + 0.05 * np.sin(9 * TIME)
    ours = filtered(record.with_baseline(z), observed, np.ones(N, bool))
    exact = multivariate_normal(mean, covariance(0.02, 0.05, 0.2)).logpdf(observed)
    assert float(-(0.5 * ours.residual**2 + ours.log_scale).sum()) == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize("known", [(True, False), (False, True), (True, True)])
def test_what_is_known_of_a_baseline_is_not_marginalised(known):
    record, known = observation(0.02, 0.05, 0.2, 0.7), np.array(known)
    z = np.array([0.5, -1.2], np.float32)
    mean, unknown = 0.7 + z[known] @ BASELINE[known], BASELINE[~known]
    observed = mean + 0.05 * np.sin(9 * TIME)
    ours = jax.jit(Observation.filter)(record, observed, np.ones(N, bool), z, known)
    exact = multivariate_normal(mean, covariance(0.02, 0.05, 0.2) + unknown.T @ unknown)
    log_likelihood = -(0.5 * ours.residual**2 + ours.log_scale).sum()
    assert float(log_likelihood) == pytest.approx(exact.logpdf(observed), abs=0.02)
    np.testing.assert_array_equal(ours.baseline[known], z[known])


@pytest.mark.parametrize("correlation", [0.01, 0.1, 1.0])
def test_records_scatter_as_the_likelihood_says(correlation):
    record = observation(0.01, 0.05, correlation).with_baseline(jnp.zeros(2))
    keys = jax.random.split(jax.random.key(1), 20_000)
    drawn = np.asarray(jax.jit(jax.vmap(record.draw))(keys), float)
    expected = covariance(0.01, 0.05, correlation)
    error = np.cov(drawn.T) - expected
    assert np.abs(error).max() < 5 * expected[0, 0] * np.sqrt(2 / len(drawn))


@pytest.mark.parametrize("keep", [0.1, 0.4, 1.0])
def test_random_mask_keeps_the_declared_fraction(keep):
    n = 200_000
    kept = np.asarray(random_mask(jax.random.key(1), n, keep)).mean()
    assert abs(kept - keep) <= 4 * np.sqrt(keep * (1 - keep) / n)


def test_gap_mask_leaves_out_one_gap_of_at_most_half_the_record():
    keys = jax.random.split(jax.random.key(2), 2000)
    masks = np.asarray(jax.vmap(lambda key: gap_mask(key, 256))(keys))
    edges = np.diff(masks.astype(int), axis=1, prepend=1, append=1)
    assert ((edges == -1).sum(1) <= 1).all()
    assert (masks.sum(1) >= 128).all()
    # a gap of half the record, uniform over all places that touch it, leaves two thirds
    assert masks.mean() == pytest.approx(2 / 3, abs=0.02)


def test_transition_mask_keeps_what_changes_and_the_declared_part():
    current = jnp.tanh(20 * (jnp.linspace(0, 1, 256) - 0.5))  # changes in the middle only
    keys = jax.random.split(jax.random.key(3), 500)
    masks = np.asarray(jax.vmap(lambda key: transition_mask(key, current, 0.2))(keys))
    assert masks.mean() == pytest.approx(0.2, abs=0.03)
    assert masks[:, 118:138].mean() > 3 * masks[:, :80].mean()
