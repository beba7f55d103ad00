"""Coordinates of proposals: back and forth, and the prior's density in them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from scipy.stats import norm

import touchstone.models.ecsfm as ecsfm
from touchstone.models.ecsfm.inference.straight import Straight
from touchstone.models.ecsfm.physics.experiment import Experiment
from touchstone.models.ecsfm.physics.fouling import Fouling
from touchstone.models.ecsfm.physics.prior import FouledPrior, Prior

CONFIG = yaml.safe_load((Path(ecsfm.__file__).parent / "config.yaml").read_text(encoding="utf-8"))
PRIOR, FOULED = Prior(CONFIG, 2), FouledPrior(CONFIG, 2)
F = 96485.33212 / (8.314462618 * 298.15)
N = 100


def straight(n_couples=2, forms=(True, False), sign=-1.0, prior=PRIOR):
    """Of a step from -0.2 to 0.6 V whose current flows after it."""
    present = np.outer(np.arange(2) < n_couples, forms)
    potential = jnp.where(jnp.arange(N) < 20, -0.2, 0.6)
    numbers = (jnp.float32(10.0), jnp.float32(0.15), 0, jnp.float32(298.15))
    experiment = Experiment(potential, *numbers, jnp.asarray(present))
    current = sign * jnp.where(jnp.arange(N) < 20, 0.0, 1e-6)
    return Straight.of(prior, experiment, current, jnp.ones(N, bool))


def draws(n, seed=0, prior=PRIOR):
    return np.random.default_rng(seed).standard_normal((n, prior.size)).astype(np.float32)


@pytest.mark.parametrize(("n_couples", "prior"), [(1, PRIOR), (2, PRIOR), (2, FOULED)])
def test_points_come_back(n_couples, prior):
    here = straight(n_couples, prior=prior)
    z = draws(300, prior=prior)
    exist = np.asarray(prior.active(here.experiment.present))
    back = jax.jit(jax.vmap(lambda z: here.unwarp(here.warp(z))))(z)
    np.testing.assert_allclose(back[:, exist], z[:, exist], atol=0.02)


@pytest.mark.parametrize("n_couples", [1, 2])
def test_on_the_whole_line_points_come_back_and_all_have_a_slope(n_couples):
    with jax.enable_x64(True):
        here = straight(n_couples)
        z = jnp.asarray(2.0 * draws(300, 3).astype(float))
        back = np.asarray(jax.jit(jax.vmap(lambda z: here.closed(here.opened(z))))(z))
        np.testing.assert_allclose(back, z, atol=1e-6)
        k0 = PRIOR.names.index("k0_1")
        middle = here.opened(z[0])
        ends = jnp.stack([middle.at[k0].add(x) for x in (-20.0, -5.0, 0.0, 5.0, 20.0)])
        standard, slopes = (
            jax.jit(jax.vmap(f))(ends) for f in (here.closed, jax.jacfwd(here.closed))
        )
        assert (np.diff(standard[:, k0]) > 0).all()
        assert (np.asarray(slopes)[:, k0, k0] > 0).all()
        others = np.setdiff1d(np.arange(PRIOR.size), np.arange(PRIOR.size)[PRIOR.block("k0")])
        assert (ends[:, others] == standard[:, others]).all()


def test_between_its_bounds_k0_on_the_whole_line_is_k0_where_the_current_flows():
    here = straight(1)
    k0 = PRIOR.names.index("k0_1")
    z = np.clip(draws(200, 4), -1, 1)
    on_the_line, warped = (
        np.asarray(jax.jit(jax.vmap(f))(z))[:, k0] for f in (here.opened, here.warp)
    )
    np.testing.assert_allclose(on_the_line, warped, atol=0.05)


@pytest.mark.parametrize("free", [("E0_1", "E0_2", "k0_1", "k0_2", "alpha_1"), ("E0_2", "alpha_2")])
def test_the_density_is_that_of_the_standard_prior_with_the_volume_of_the_map(free):
    here = straight()
    free = np.isin(PRIOR.names, free)
    at = np.flatnonzero(free)
    warp, slopes_of = (jax.jit(lambda z, f=f: f(z)) for f in (here.warp, jax.jacfwd(here.warp)))
    log_prior = jax.jit(lambda x, free: here.log_prior(x, free))
    for z in draws(20, 1):
        slopes = np.asarray(slopes_of(z), float)[np.ix_(at, at)]
        expected = norm.logpdf(z[at]).sum() - np.linalg.slogdet(slopes)[1]
        got = float(log_prior(warp(z), jnp.asarray(free)))
        assert got == pytest.approx(expected, abs=1e-3)


def test_what_is_beyond_a_bound_is_impossible():
    here = straight(1)
    free = jnp.asarray(np.isin(PRIOR.names, ["E0_1", "k0_1"]))
    x = here.warp(np.zeros(PRIOR.size, np.float32))
    assert np.isfinite(here.log_prior(x, free))
    for name in ("E0_1", "k0_1"):
        for far in (-8.0, 8.0):
            beyond = x.at[PRIOR.names.index(name)].add(far)
            assert np.isneginf(here.log_prior(beyond, free))
            assert np.isfinite(here.unwarp(beyond)).all()


@pytest.mark.parametrize(
    ("forms", "sign", "reduction"),
    [
        ((True, False), -1, True),
        ((False, True), 1, False),
        ((True, True), 1, False),
        ((True, True), -1, True),
    ],
)
def test_one_coordinate_is_the_rate_where_the_current_flows(forms, sign, reduction):
    """Whatever E0 and alpha: ln k0 - alpha f (E - E0) of a reduction."""
    here = straight(1, forms, sign)
    z = jnp.asarray(draws(50, 2))
    natural = np.asarray(jax.vmap(lambda z: PRIOR.natural(z, here.experiment))(z), float)
    e0, k0, alpha = (natural[:, PRIOR.names.index(name)] for name in ("E0_1", "k0_1", "alpha_1"))
    rate = k0 + (-alpha if reduction else 1 - alpha) * F * (0.6 - e0)
    coordinate = np.asarray(jax.vmap(here.warp)(z))[:, PRIOR.names.index("k0_1")]
    line = np.polyfit(coordinate, rate, 1)
    np.testing.assert_allclose(np.polyval(line, coordinate), rate, atol=1e-3)


def test_a_film_that_was_there_and_the_rates_that_it_leaves_are_one_coordinate():
    """At half the rates and as many covered sites as leave half of them, the record is the same."""
    here = straight(prior=FOULED)
    coverage, k0 = (FOULED.names.index(name) for name in ("coverage", "k0_1"))
    natural = np.asarray(FOULED.natural(jnp.zeros(FOULED.size), here.experiment))
    clean, covered = natural.copy(), natural.copy()
    clean[coverage], covered[coverage] = np.log(1e-3), np.log(0.5)
    left = [Fouling().rate_factor(jnp.asarray(theta)) for theta in (1e-3, 0.5)]
    covered[k0] += np.log(float(left[0] / left[1]))
    z = np.stack([FOULED.standard(jnp.asarray(n), here.experiment) for n in (clean, covered)])
    ours, theirs = np.asarray(jax.jit(jax.vmap(here.warp))(z))[:, k0]
    assert ours == pytest.approx(theirs, abs=1e-4)
