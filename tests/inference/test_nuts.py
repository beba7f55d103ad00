"""The reference sampler against posteriors that are known in closed form."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm, truncnorm

from touchstone.inference import nuts

NAMES = ["D", "k0", "alpha"]
SIZE, N, SD = 3, 12, 0.02


def run(log_likelihood, start, factor=None, *, n_tune=300, n_draws=1000, seed=1, **options):
    size = start.shape[1]
    factor = np.eye(size) if factor is None else factor
    names = NAMES[:size]
    sizes = {"n_tune": n_tune, "n_draws": n_draws}
    return nuts.sample(log_likelihood, start, factor, names=names, seed=seed, **sizes, **options)


def flat(draws):
    return draws["posterior"]["z"].values.reshape(-1, draws["posterior"].sizes["parameter"])


@pytest.fixture(scope="module")
def linear():
    """A linear Gaussian likelihood, two of whose parameters are known almost only as a sum."""
    rng = np.random.default_rng(0)
    design = rng.standard_normal((N, SIZE))
    design[:, 1] = design[:, 0] + 0.02 * design[:, 1]
    observed = design @ rng.standard_normal(SIZE) + SD * rng.standard_normal(N)
    covariance = np.linalg.inv(np.eye(SIZE) + design.T @ design / SD**2)
    mean = covariance @ design.T @ observed / SD**2
    return lambda z: -0.5 * (((observed - design @ z) / SD) ** 2).sum(), mean, covariance


def dispersed(mean, factor, n_chains=4, seed=2):
    offset = np.random.default_rng(seed).standard_normal((n_chains, len(mean)))
    return mean + 3 * offset @ factor.T


@pytest.fixture(scope="module")
def reference(linear):
    log_likelihood, mean, covariance = linear
    factor = np.linalg.cholesky(covariance)
    return run(log_likelihood, dispersed(mean, factor), factor)


def test_a_conjugate_posterior_is_exact(linear, reference):
    _, mean, covariance = linear
    convergence = nuts.assert_converged(reference)
    # In coordinates where the exact posterior is N(0, I).
    white = np.linalg.solve(np.linalg.cholesky(covariance), (flat(reference) - mean).T).T
    error = 1 / np.sqrt(min(convergence.ess_bulk.values()))
    assert np.abs(white.mean(0)).max() < 4 * error
    assert np.abs(np.cov(white.T) - np.eye(SIZE)).max() < 6 * error
    assert convergence.n_divergent == 0


def test_the_factor_changes_the_speed_and_not_the_posterior(linear, reference):
    log_likelihood, mean, covariance = linear
    start = dispersed(mean, np.linalg.cholesky(covariance))
    plain = run(log_likelihood, start)
    assert not nuts.diagnose(plain).faults
    sd = np.sqrt(np.diag(covariance))
    assert np.allclose(flat(plain).mean(0), mean, atol=0.2 * sd.max())
    assert np.allclose(flat(plain).std(0), sd, rtol=0.2)
    assert plain.attrs["n_gradients"] > 1.2 * reference.attrs["n_gradients"]


def test_a_banana_is_exact_once_it_is_straightened():
    width = 0.5

    def straight(z):
        return (z[1] - z[0] ** 2 + 1) / width

    # Takes back the prior of z2, and makes both z1 and what is straight standard normal.
    def log_likelihood(z):
        return 0.5 * z[1] ** 2 - 0.5 * straight(z) ** 2

    start = np.array([[-2.0, 1], [2, 5], [0.5, -2], [-0.5, 2]])
    straightened = nuts.Bijection(
        lambda z: jnp.stack([z[0], straight(z)]),
        lambda v: jnp.stack([v[0], width * v[1] + v[0] ** 2 - 1]),
    )
    plain = run(log_likelihood, start, n_draws=3000)
    easy = run(log_likelihood, start, coordinates=straightened)
    for draws in (plain, easy):
        z = flat(draws).T
        white = np.stack([z[0], straight(z)])
        error = 1 / np.sqrt(min(nuts.assert_converged(draws).ess_bulk.values()))
        assert np.abs(white.mean(1)).max() < 4 * error
        assert np.abs(np.cov(white) - np.eye(2)).max() < 6 * error
        assert np.corrcoef(z[0] ** 2, z[1])[0, 1] > 0.9
    steps = [draws["sample_stats"]["n_steps"].mean() for draws in (plain, easy)]
    assert steps[1] < 0.5 * steps[0]


def test_coordinates_that_stretch_do_not_change_the_posterior(linear):
    log_likelihood, mean, covariance = linear
    sd = np.sqrt(np.diag(covariance))
    stretched = nuts.Bijection(
        lambda z: jnp.arcsinh((z - mean) / sd), lambda v: mean + sd * jnp.sinh(v)
    )
    draws = run(log_likelihood, dispersed(mean, np.diag(sd)), coordinates=stretched, n_draws=2000)
    error = 1 / np.sqrt(min(nuts.assert_converged(draws).ess_bulk.values()))
    white = np.linalg.solve(np.linalg.cholesky(covariance), (flat(draws) - mean).T)
    assert np.abs(white.mean(1)).max() < 4 * error
    assert np.abs(np.cov(white) - np.eye(SIZE)).max() < 6 * error
    # They are told to be of the posterior, whose density knows nothing of coordinates.
    assert nuts.are_of(draws, log_likelihood, NAMES)


@pytest.mark.parametrize("nowhere", [-np.inf, np.nan])
def test_where_the_likelihood_is_not_finite_no_draw_lands(nowhere):
    start = np.array([[-2.0], [-1], [-0.5], [0.5]])
    draws = run(lambda z: jnp.where(z[0] > 1, nowhere, 0.0), start)
    z, exact = flat(draws), truncnorm(-np.inf, 1)
    assert z.max() <= 1
    assert z.mean() == pytest.approx(exact.mean(), abs=0.1)
    assert z.std() == pytest.approx(exact.std(), rel=0.1)
    assert any("diverged" in fault for fault in nuts.diagnose(draws).faults)


def test_modes_that_no_chain_leaves_are_reported():
    def log_likelihood(z):
        return jnp.logaddexp(*(-0.5 * ((z[0] - mode) / 0.05) ** 2 for mode in (-1.0, 1.0)))

    draws = run(log_likelihood, np.array([[-1.0], [-1], [1], [1]]), n_draws=300)
    assert nuts.diagnose(draws).r_hat["D"] > 1.5
    with pytest.raises(nuts.NotConvergedError, match="R-hat of D"):
        nuts.assert_converged(draws)


def test_too_few_draws_are_reported(linear):
    log_likelihood, mean, covariance = linear
    factor = np.linalg.cholesky(covariance)
    draws = run(log_likelihood, dispersed(mean, factor), factor, n_tune=100, n_draws=50)
    assert any("tail effective size" in fault for fault in nuts.diagnose(draws).faults)


def test_chains_that_never_moved_have_not_converged(reference):
    still = reference.copy(deep=True)
    still["posterior"]["z"].values[:] = 1.0
    with np.errstate(invalid="ignore"):
        assert len(nuts.diagnose(still).faults) >= SIZE


def test_the_density_is_the_likelihood_under_a_standard_normal_prior(linear, reference):
    log_likelihood, _, _ = linear
    z = flat(reference)[::100]
    with jax.enable_x64(True):
        expected = norm.logpdf(z).sum(1) + [float(log_likelihood(point)) for point in z]
    logp = reference["sample_stats"]["logp"].values.ravel()[::100]
    np.testing.assert_allclose(logp, expected, rtol=1e-9)


def test_draws_are_told_from_those_of_another_posterior(linear, reference):
    log_likelihood, _, _ = linear
    assert nuts.are_of(reference, log_likelihood, NAMES)
    assert not nuts.are_of(reference, lambda z: log_likelihood(z) + 0.01 * z[0], NAMES)
    assert not nuts.are_of(reference, log_likelihood, NAMES[::-1])


def test_who_does_not_sample_does_not_wait_for_the_sampler():
    """Nor for PyMC, which sampling does not use either."""
    script = """
import sys
import jax.numpy as jnp, numpy as np
from touchstone.inference import nuts
assert not {"nutpie", "arviz", "matplotlib", "numba"} & sys.modules.keys()
nuts.diagnose(nuts.sample(lambda z: 0 * z[0], np.array([[-1.0], [1.0]]), np.eye(1), names=["D"],
                          n_tune=20, n_draws=10, seed=0))
assert not {"pymc", "pytensor"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_it_is_double_precision_in_a_process_that_is_not():
    seen = set()

    def log_likelihood(z):
        seen.add(z.dtype)
        return -0.5 * (z**2).sum()

    draws = run(log_likelihood, np.array([[-1.0], [1.0]]), n_tune=50, n_draws=10)
    assert seen == {jnp.dtype("float64")}
    assert draws["posterior"]["z"].dtype == np.float64
    assert jnp.ones(1).dtype == np.float32


def test_a_seed_gives_the_same_draws(linear):
    log_likelihood, mean, covariance = linear
    factor = np.linalg.cholesky(covariance)
    start = dispersed(mean, factor)
    one, same, other = (
        flat(run(log_likelihood, start, factor, n_tune=50, n_draws=20, seed=seed))
        for seed in (5, 5, 6)
    )
    assert np.array_equal(one, same)
    assert not np.isclose(one, other).any()


@pytest.mark.parametrize("unfit", [-1.0, 2.0])
def test_a_start_without_a_posterior_or_a_slope_is_refused(unfit):
    # Not a number below zero; and at two the slopes of likelihood and prior cancel.
    with pytest.raises(nuts.UnfitStartError, match=r"at start \[1\]"):
        run(lambda z: 4 * jnp.log(z[0]), np.array([[1.0], [unfit]]))


def test_draws_are_kept_as_netcdf(reference, tmp_path):
    path = tmp_path / "reference.nc"
    reference.to_netcdf(path, engine="h5netcdf")
    with xr.open_datatree(path, engine="h5netcdf") as kept:
        assert kept.equals(reference)
        assert dict(kept.attrs) == dict(reference.attrs)
        assert nuts.diagnose(kept) == nuts.diagnose(reference)
