"""Amortised posteriors beside exact ones."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from touchstone.inference import flow
from touchstone.inference.amortised import amortise, learn
from touchstone.inference.amortised_posterior import AmortisedPosterior
from touchstone.inference.priors import Prior, exponential_of, joined, normal, uniform

SMALL = {"n_simulations": 30_000, "batch_size": 128, "width": 32, "depth": 2}
SMALL["show_progress"] = False

# Three parameters seen linearly, in units far from one, with any entry missing or known.
MEAN, SD = np.array([3.0, -2.0, 100.0]), np.array([0.5, 2.0, 10.0])
A = np.array([[2.0, 0.3, 0.0], [0.0, 0.5, 0.1], [1.0, 0.0, -0.05], [0.5, -0.5, 0.05]])
NOISE = 0.8
THETA = np.array([3.4, -1.0, 108.0])
Y = A @ THETA + NOISE * np.array([0.5, -1.0, 0.3, 0.8])
NAN = np.nan


@pytest.fixture(scope="module")
def linear():
    def simulate(key, theta):
        return A.astype(np.float32) @ theta + NOISE * jax.random.normal(key, (len(A),))

    prior = normal(MEAN, SD)
    some = {"missing": 0.6, "known": 0.6, "n_steps": 3000}
    return amortise(simulate, prior, key=jax.random.key(0), **some, **SMALL)


def exact(missing=(), known=(NAN, NAN, NAN)):
    """Posterior of the unknown parameters given what is seen, and which they are."""
    known = np.array(known)
    unknown, seen = np.isnan(known), ~np.isin(np.arange(len(Y)), missing)
    design = A[seen][:, unknown]
    rest = Y[seen] - A[seen][:, ~unknown] @ known[~unknown] - design @ MEAN[unknown]
    covariance = np.linalg.inv(np.diag(SD[unknown] ** -2) + design.T @ design / NOISE**2)
    mean = MEAN[unknown] + covariance @ design.T @ rest / NOISE**2
    return stats.multivariate_normal(mean, covariance), unknown


CASES = [{}, {"missing": (0, 3)}, {"known": (NAN, -1.0, NAN)}]
CASES.append({"missing": (1,), "known": (3.4, NAN, NAN)})


@pytest.mark.parametrize("case", CASES)
def test_a_gaussian_posterior_is_found_with_whatever_is_there(linear, case):
    law, unknown = exact(**case)
    y = np.where(np.isin(np.arange(len(Y)), case.get("missing", ())), NAN, Y)
    known = jnp.array(case.get("known", (NAN,) * 3))
    draws = np.asarray(linear.sample(jax.random.key(1), y, 4000, known), float)
    sd = np.sqrt(np.diag(law.cov))
    np.testing.assert_allclose((draws[:, unknown].mean(0) - law.mean) / sd, 0, atol=0.15)
    np.testing.assert_allclose(draws[:, unknown].std(0) / sd, 1, atol=0.12)
    correlation = law.cov / np.outer(sd, sd)
    np.testing.assert_allclose(np.corrcoef(draws[:, unknown].T), correlation, atol=0.12)
    np.testing.assert_array_equal(draws[:, ~unknown], np.tile(known[~unknown], (4000, 1)))
    theta = np.tile(np.where(unknown, 0.0, known), (200, 1))
    theta[:, unknown] = np.asarray(law.rvs(200, random_state=0)).reshape(200, -1)
    ours = np.asarray(linear.log_density(y, jnp.float32(theta), known), float)
    assert abs((law.logpdf(theta[:, unknown]) - ours).mean()) < 0.03  # relative entropy
    assert (law.logpdf(theta[:, unknown]) - ours).std() < 0.2


def test_many_observations_are_asked_at_once(linear):
    keys = jax.random.split(jax.random.key(0), 3)
    ys = jnp.float32(Y + np.arange(3)[:, None])
    together = jax.vmap(lambda key, y: linear.sample(key, y, 5))(keys, ys)
    alone = [linear.sample(key, y, 5) for key, y in zip(keys, ys, strict=True)]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-3)


# A parameter between walls, and one that is positive and seen in size only: two modes.
CRISP = 0.3
SEEN = np.array([-0.1, 1.0], np.float32)


@pytest.fixture(scope="module")
def bounded():
    def simulate(key, theta):
        seen = jnp.array([theta[0], jnp.abs(jnp.log(theta[1]))])
        return seen + CRISP * jax.random.normal(key, (2,))

    prior = joined(uniform([0.0], [1.0]), exponential_of(normal([0.0], [1.0])))
    return amortise(simulate, prior, key=jax.random.key(0), n_steps=2000, **SMALL)


WALLED = stats.truncnorm(-SEEN[0] / CRISP, (1 - SEEN[0]) / CRISP, SEEN[0], CRISP)
LOGS = np.linspace(-6, 6, 4001)
TWO_MODES = stats.norm.pdf(LOGS) * stats.norm.pdf((np.abs(LOGS) - SEEN[1]) / CRISP)
TWO_MODES /= np.trapezoid(TWO_MODES, LOGS)


def test_a_bounded_parameter_stays_inside_and_does_not_pile_up(bounded):
    draws = np.asarray(bounded.sample(jax.random.key(1), SEEN, 4000), float)[:, 0]
    assert ((draws >= 0) & (draws <= 1)).all()
    assert stats.kstest(draws, WALLED.cdf).statistic < 0.04
    for width in (0.01, 0.03, 0.1):
        expected = WALLED.cdf(width)
        assert (draws < width).mean() == pytest.approx(expected, rel=0.15, abs=0.01)


def test_both_modes_are_found(bounded):
    draws = np.log(np.asarray(bounded.sample(jax.random.key(1), SEEN, 4000), float)[:, 1])
    distribution = np.cumsum(TWO_MODES) * (LOGS[1] - LOGS[0])
    assert stats.kstest(draws, lambda x: np.interp(x, LOGS, distribution)).statistic < 0.04


def test_the_density_is_normalised_and_exact_in_the_units_of_the_parameters(bounded):
    walls, logs = (np.arange(40) + 0.5) / 40, np.linspace(-4.0, 4.0, 81)
    grid = np.stack(np.meshgrid(walls, np.exp(logs), indexing="ij"), -1)
    flat = jnp.float32(grid.reshape(-1, 2))
    ours = np.exp(np.asarray(bounded.log_density(SEEN, flat), float)).reshape(40, 81)
    per_log = ours * np.exp(logs)
    total = per_log.sum() * (walls[1] - walls[0]) * (logs[1] - logs[0])
    assert total == pytest.approx(1.0, abs=0.02)
    law = np.outer(WALLED.pdf(walls), np.interp(logs, LOGS, TWO_MODES))
    variation = np.abs(per_log - law).sum() / law.sum() / 2
    assert variation < 0.08


def test_the_density_beyond_a_wall_is_zero(bounded):
    outside = jnp.array([[-0.1, 1.0], [1.1, 1.0], [0.5, -1.0]])
    assert (bounded.log_density(SEEN, outside) == -jnp.inf).all()


# Priors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prior", "law"),
    [
        (uniform([2.0], [5.0]), stats.uniform(2, 3)),
        (normal([2.0], [3.0]), stats.norm(2, 3)),
        (exponential_of(uniform([-3.0], [1.0])), stats.loguniform(np.exp(-3), np.exp(1))),
        (exponential_of(normal([1.0], [0.5])), stats.lognorm(0.5, scale=np.exp(1))),
    ],
)
def test_a_prior_carries_standard_normal_coordinates_to_its_law_and_back(prior, law):
    z = np.linspace(-3, 3, 13, dtype=np.float32)
    theta = np.array([prior.natural(value[None])[0] for value in z])
    np.testing.assert_allclose(law.cdf(theta), stats.norm.cdf(z), atol=1e-5)
    back = [prior.standard(value[None])[0] for value in theta]
    np.testing.assert_allclose(back, z, atol=1e-3)
    both = joined(prior, normal([0.0, 0.0], [1.0, 2.0]))
    assert both.size == 3
    np.testing.assert_allclose(both.natural(jnp.array([z[3], 1.0, 1.0])), [theta[3], 1.0, 2.0])


def test_a_prior_may_be_any_transform():
    """Two ordered parameters: the second is uniform above the first."""

    def natural(z):
        first, second = jax.scipy.special.ndtr(z)
        return jnp.array([first, first + (1 - first) * second])

    def standard(theta):
        second = (theta[1] - theta[0]) / (1 - theta[0])
        return jax.scipy.special.ndtri(jnp.array([theta[0], second]))

    # Without training and slopes, the posterior is the prior.
    untrained = AmortisedPosterior(
        flow.VectorFieldNet(2, 6, 4, 4, 1, 1.0, key=jax.random.key(0)),
        location=jnp.zeros(1),
        scale=jnp.ones(1),
        slope=jnp.zeros((6, 2)),
        residual_sd=jnp.ones(2),
        losses=jnp.zeros(0),
        prior=Prior(2, natural, standard),
        missing=0.0,
        known=0.0,
    )
    theta = jnp.array([[0.2, 0.5], [0.5, 0.6], [0.6, 0.5]])
    density = np.exp(np.asarray(untrained.log_density(jnp.zeros(1), theta)))
    np.testing.assert_allclose(density, [1 / 0.8, 1 / 0.5, 0.0], rtol=1e-3)


# What is refused ----------------------------------------------------------------------------------


def test_simulations_that_are_no_numbers_or_beyond_the_prior_are_counted():
    theta, y = np.full((10, 1), 0.5), np.zeros((10, 4))
    theta[0], y[3, 1], y[4] = 1.5, NAN, np.inf
    with pytest.raises(ValueError, match="3 of 10 simulations"):
        learn(theta, y, uniform([0.0], [1.0]), key=jax.random.key(0))


@pytest.mark.parametrize(
    ("observation", "known", "complaint"),
    [
        ([NAN, 1.0], None, "not trained with missing entries"),
        (SEEN, [0.5, NAN], "not trained with known parameters"),
        (SEEN, [2.0, NAN], "outside its prior"),
    ],
)
def test_a_question_that_was_not_trained_for_is_refused(bounded, observation, known, complaint):
    known = None if known is None else jnp.array(known)
    with pytest.raises(eqx.EquinoxRuntimeError, match=complaint):
        bounded.sample(jax.random.key(0), jnp.array(observation), 5, known)


# The density of a flow ----------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.05, 1.0])
def test_before_training_the_density_is_that_of_the_guess(spread):
    net = flow.VectorFieldNet(3, 2, 4, 4, 1, spread, key=jax.random.key(0))
    unknown = np.array([True, False, True])
    z = np.random.default_rng(0).normal(0, spread, (5, 3)).astype(np.float32)
    z[:, 1] = NAN  # what is known does not count
    ours = flow.log_density(net, jnp.ones(2), jnp.asarray(unknown), jnp.asarray(z), 3)
    law = stats.norm.logpdf(z[:, unknown], 0, spread).sum(1)
    np.testing.assert_allclose(ours, law, rtol=1e-4)


def test_the_density_is_that_of_the_draws():
    """A network with large random weights: its draws against its density, cell by cell."""
    net = flow.VectorFieldNet(2, 1, 8, 8, 1, 1.0, key=jax.random.key(0))
    net = eqx.tree_at(
        lambda n: n.out.weight, net, 2.0 * jax.random.normal(jax.random.key(1), (2, 8))
    )
    both, edges = jnp.ones(2, bool), np.linspace(-8, 8, 33)
    draws = flow.sample(net, jnp.ones(1), both, 40_000, 32, jax.random.key(2))
    found, *_ = np.histogram2d(*np.asarray(draws).T, bins=(edges, edges))
    fine = (np.linspace(-8, 8, 161)[1:] + np.linspace(-8, 8, 161)[:-1]) / 2
    grid = jnp.float32(np.stack(np.meshgrid(fine, fine, indexing="ij"), -1).reshape(-1, 2))
    density = np.exp(np.asarray(flow.log_density(net, jnp.ones(1), both, grid, 32), float))
    cells = density.reshape(32, 5, 32, 5).sum((1, 3)) * 0.1**2
    assert found.max() < 0.5 * found.sum()
    assert cells.sum() == pytest.approx(1.0, abs=0.02)
    likely = cells > 1e-3
    error = (found / 40_000 - cells)[likely] / np.sqrt(cells[likely] / 40_000)
    assert np.abs(error).max() < 5
    assert error.std() < 1.5
