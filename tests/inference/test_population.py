"""Exact re-weighting of many cases at once, against posteriors that are known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from touchstone.inference import population

SIZES = {"n_centres": 32, "n_round": 128, "n_rounds": 2, "n_last": 512}


class Data(eqx.Module):
    """Two data of three entries: linear, or bent by the square of the first."""

    bend: jax.Array

    def __call__(self, case, u):
        design = jnp.array([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]])
        seen = design @ u + self.bend * u[0] ** 2
        scale = jnp.array([0.1, 0.3])
        return (case - seen) / scale, jnp.log(scale)


@pytest.fixture(scope="module")
def observed():
    rng = np.random.default_rng(0)
    return rng.standard_normal((4, 2)).astype(np.float32)


def drawn(bend, observed):
    starts = np.random.default_rng(1).standard_normal((4, 64, 3))  # of the prior: nothing is known
    return population.sample(Data(jnp.asarray(bend)), observed, starts, jax.random.key(2), **SIZES)


def moments(weighted, case):
    z, log_weight = weighted.z[case].reshape(-1, 3), weighted.log_weight[case].ravel()
    weight = np.exp(log_weight - log_weight.max())
    evidence = np.log(weight.mean()) + log_weight.max()
    weight /= weight.sum()
    mean = weight @ z
    return mean, (z - mean).T @ ((z - mean) * weight[:, None]), evidence, 1 / (weight**2).sum()


def test_moments_and_evidence_of_a_linear_model_are_exact(observed):
    found = drawn(0.0, observed)
    design, noise = np.array([[1, 0.5, 0], [0, 1, -1]]), np.diag([0.01, 0.09])
    covariance = design @ design.T + noise
    gain = design.T @ np.linalg.inv(covariance)
    for case in range(4):
        mean, spread, evidence, effective = moments(found, case)
        exact = np.eye(3) - gain @ design
        assert effective > 150
        np.testing.assert_allclose(mean, gain @ observed[case], atol=0.2)
        np.testing.assert_allclose(spread, exact, atol=0.2)
        # The evidence leaves out the constant of the normal distributions of the data.
        expected = multivariate_normal(cov=covariance).logpdf(observed[case]) + np.log(2 * np.pi)
        assert evidence == pytest.approx(expected, abs=0.2)


def test_a_bent_posterior_is_that_of_draws_of_the_prior(observed):
    found, bend = drawn(0.7, observed), 0.7
    u = np.random.default_rng(3).standard_normal((400_000, 3))
    for case in range(4):
        first = u[:, 0] + 0.5 * u[:, 1] + bend * u[:, 0] ** 2
        second = u[:, 1] - u[:, 2] + bend * u[:, 0] ** 2
        left = ((observed[case] - np.stack([first, second], 1)) / [0.1, 0.3]) ** 2
        weight = np.exp(-0.5 * left.sum(1))
        expected = weight @ u / weight.sum()
        mean, _, evidence, effective = moments(found, case)
        assert effective > 60
        np.testing.assert_allclose(mean, expected, atol=0.3)
        assert evidence == pytest.approx(np.log(weight.mean() / 0.03), abs=0.25)


class Parabola(eqx.Module):
    """One datum, precise: the second entry with the square of the first."""

    def __call__(self, case, u):
        scale = jnp.full(1, 0.03)
        return (case - u[1:2] - 1.5 * u[:1] ** 2) / scale, jnp.log(scale)


def test_kernels_follow_a_thin_parabola():
    """Kernels that are straight leave it within a fifth of a unit."""
    starts = np.random.default_rng(4).standard_normal((2, 64, 2))
    observed, least = np.array([[0.0], [4.0]], np.float32), (230, 500)
    found = population.sample(Parabola(), observed, starts, jax.random.key(5), **SIZES)
    for case, y in enumerate(observed[:, 0]):
        log_weight = found.log_weight[case].ravel().astype(float)
        weight = np.exp(log_weight - log_weight.max())
        expected = quad(lambda u, y=y: norm.pdf(u) * norm.pdf(y - 1.5 * u**2, 0, 1.00045), -9, 9)[0]
        assert weight.sum() ** 2 / (weight**2).sum() > least[case]  # straight ones: 170 and 370
        evidence = np.log(weight.mean()) + log_weight.max()
        # The evidence leaves out the constant of the normal distribution of the datum.
        assert evidence == pytest.approx(np.log(expected * np.sqrt(2 * np.pi)), abs=0.15)
