"""Flow matching and the cross-entropy method beside exact posteriors."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from touchstone.inference import flow, flow_training
from touchstone.inference.cem import cross_entropy
from touchstone.inference.flow import VectorFieldNet
from touchstone.inference.flow_training import Example

# A linear-Gaussian model: y = A z + noise, z standard normal. Its posteriors are known exactly.
A = np.array([[1.0, 0.5], [-0.3, 0.8], [0.6, -0.4]], np.float32)
NOISE = 0.5
Y = np.array([1.2, 0.1, -0.3], np.float32)


def exact(known=None):
    """Mean and covariance of the unknown entries given Y and the known ones (nan: unknown)."""
    known = np.full(2, np.nan) if known is None else np.asarray(known, float)
    unknown = np.isnan(known)
    rest = Y - A @ np.where(unknown, 0.0, known)
    precision = np.eye(unknown.sum()) + A[:, unknown].T @ A[:, unknown] / NOISE**2
    covariance = np.linalg.inv(precision)
    return covariance @ A[:, unknown].T @ rest / NOISE**2, covariance


# Flow matching ------------------------------------------------------------------------------------


def context_of(y, z, known):
    return jnp.concatenate([y, jnp.where(known, z, 0.0), known.astype(jnp.float32)])


def make_example(key, row):
    """A pair (z, y), fresh whatever the row, with any of the two entries of z known."""
    z_key, noise_key, known_key = jax.random.split(key, 3)
    z = jax.random.normal(z_key, (2,))
    y = A @ z + NOISE * jax.random.normal(noise_key, (3,))
    known = jax.random.bernoulli(known_key, 0.3, (2,))
    return Example(z, ~known, context_of(y, z, known))


def network(seed=0, width=32, depth=2):
    return VectorFieldNet(2, 7, width, width, depth, 1.0, key=jax.random.key(seed))


@pytest.fixture(scope="module")
def trained():
    """A network that has learnt the linear-Gaussian model, and its losses."""
    return flow_training.train(
        network(),
        make_example,
        np.zeros(1),
        batch_size=128,
        n_steps=1500,
        paths=4,
        learning_rate=3e-3,
        key=jax.random.key(1),
        show_progress=False,
    )


sample = jax.jit(flow.sample, static_argnames=("n_draws", "n_steps"))


def posterior(net, known=(np.nan, np.nan), key=0):
    """Draws of z given Y."""
    known = np.asarray(known, np.float32)
    unknown = np.isnan(known)
    context = context_of(jnp.asarray(Y), np.nan_to_num(known), jnp.asarray(~unknown))
    draws = sample(net, context, jnp.asarray(unknown), 4000, 30, jax.random.key(key))
    return np.asarray(draws, float)


def test_flow_matching_finds_an_exact_gaussian_posterior(trained):
    net, losses = trained
    draws = posterior(net)
    mean, covariance = exact()
    sd = np.sqrt(np.diag(covariance))
    assert float(losses[0]) == pytest.approx(1.0, abs=0.15)  # it starts by knowing nothing
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.15 * sd.min())
    np.testing.assert_allclose(draws.std(0), sd, rtol=0.12)
    correlation = covariance[0, 1] / sd.prod()
    assert np.corrcoef(draws.T)[0, 1] == pytest.approx(correlation, abs=0.1)


@pytest.mark.parametrize("known", [(0.8, np.nan), (np.nan, -0.5)])
def test_what_is_known_sharpens_the_rest_and_is_not_drawn(trained, known):
    draws = posterior(trained[0], known)
    unknown = np.isnan(known)
    (mean,), ((variance,),) = exact(known)
    sd = np.sqrt(variance)
    assert draws[:, unknown].mean() == pytest.approx(mean, abs=0.15 * sd)
    assert draws[:, unknown].std() == pytest.approx(sd, rel=0.12)
    np.testing.assert_array_equal(draws[:, ~unknown], 0.0)


def test_the_key_decides_the_draws(trained):
    first, again, other = (posterior(trained[0], key=key) for key in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_what_is_known_is_no_part_of_the_loss():
    net = network()
    net = eqx.tree_at(lambda n: n.out.weight, net, jnp.ones_like(net.out.weight))
    loss = jax.jit(flow_training.FlowMatchingLoss(3))
    unknown = jnp.array([[True, False]])

    def of(first, second):
        target, context = jnp.array([[first, second]]), jnp.ones((1, 7))
        return float(loss(net, Example(target, unknown, context), jax.random.key(0)))

    assert of(0.5, 0.0) == of(0.5, 1e3)
    assert of(0.5, 0.0) != of(0.6, 0.0)


@pytest.mark.parametrize("spread", [0.05, 0.5, 2.0])
def test_before_training_draws_come_from_the_guess(spread):
    guess = posterior(VectorFieldNet(2, 7, 4, 4, 1, spread, key=jax.random.key(0)))
    standard = posterior(VectorFieldNet(2, 7, 4, 4, 1, 1.0, key=jax.random.key(0)))
    np.testing.assert_allclose(standard.std(0), 1.0, atol=0.05)
    np.testing.assert_allclose(guess, spread * standard, rtol=0.02)  # the error of 30 steps


class PowerCut(flow_training.tqdm):
    def update(self, n=1):
        if self.n + n == 1100:
            raise RuntimeError("power cut")
        return super().update(n)


def test_an_interrupted_training_ends_where_an_undisturbed_one_does(tmp_path, monkeypatch):
    def run(seed, rate=1e-2, **state):
        settings = {"n_steps": 1100, "paths": 1, "learning_rate": rate}
        settings |= {"batch_size": 2, "key": jax.random.key(5)}
        net = network(seed, width=4, depth=1)
        return flow_training.train(net, make_example, np.zeros(1), **settings, **state)

    def assert_same(one, other):
        jax.tree.map(np.testing.assert_array_equal, one, other)

    state = tmp_path / "run.state"
    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="power cut"):
        patched.setattr(flow_training, "tqdm", PowerCut)
        run(0, state_file=state)
    # What the state holds counts, and not the network that this one starts from.
    undisturbed = run(0)
    assert_same(run(9, state_file=state), undisturbed)
    # So it does once training is complete, but not for a program of other steps.
    assert_same(run(9, state_file=state), undisturbed)
    assert_same(run(9, rate=2e-2, state_file=state), run(9, rate=2e-2))


def test_a_step_learns_from_the_rows_of_its_span_only():
    def of_row(key, row):
        return make_example(key, row)._replace(target=jnp.full(2, row))

    def losses(rows, span=None):
        settings = {"batch_size": 8, "n_steps": 4, "paths": 1, "learning_rate": 0.0}
        settings |= {"key": jax.random.key(0), "show_progress": False, "span": span}
        return flow_training.train(network(width=4, depth=1), of_row, rows, **settings)[1]

    late = losses(
        np.array([0.0, 0.0, 1e3, 1e3]), lambda step: (2 * (step >= 2), 2 + 2 * (step >= 2))
    )
    np.testing.assert_array_equal(late > 1e3, [False, False, True, True])
    assert (losses(np.array([0.0, 1e3])) > 1e3).all()  # from all rows without a span


# The cross-entropy method -------------------------------------------------------------------------


@partial(jax.jit, static_argnames=("n_particles", "n_iterations"))
def elect(key, z_known, known, n_particles, n_iterations):
    """Weighted mean and standard deviation of the particles, and the particles."""

    def log_likelihood(z, key):
        return -0.5 * (((Y - z @ A.T) / NOISE) ** 2).sum(-1)

    budget = {"n_particles": n_particles, "n_iterations": n_iterations, "elite_fraction": 0.25}
    result = cross_entropy(log_likelihood, z_known, known, key, **budget)
    mean = result.weight @ result.z
    return mean, jnp.sqrt(result.weight @ (result.z - mean) ** 2), result


UNKNOWN = np.zeros(2), np.zeros(2, bool)


def test_cross_entropy_finds_an_exact_gaussian_posterior():
    mean, covariance = exact()
    ours, sd, result = elect(jax.random.key(0), *UNKNOWN, 20_000, 4)
    np.testing.assert_allclose(ours, mean, atol=0.02)
    np.testing.assert_allclose(sd, np.sqrt(np.diag(covariance)), rtol=0.03)
    assert float(result.weight.sum()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("n_particles", "n_iterations"), [(32, 3), (64, 4), (96, 6)])
def test_few_particles_neither_collapse_nor_miss(n_particles, n_iterations):
    mean, covariance = exact()
    exact_sd = np.sqrt(np.diag(covariance))
    keys = jax.random.split(jax.random.key(0), 200)
    batch = jax.vmap(lambda key: elect(key, *UNKNOWN, n_particles, n_iterations)[:2])
    means, sds = (np.asarray(a, float) for a in jax.jit(batch)(keys))
    np.testing.assert_allclose(means.mean(0), mean, atol=0.1 * exact_sd.min())
    assert (np.abs(means - mean) < 1.5 * exact_sd).mean() > 0.99
    assert (sds.mean(0) > 0.75 * exact_sd).all()
    assert (sds.mean(0) < 1.1 * exact_sd).all()


def test_cross_entropy_leaves_known_entries_at_their_values():
    (mean,), ((variance,),) = exact((0.8, np.nan))
    known = np.array([True, False])
    ours, sd, result = elect(jax.random.key(0), np.array([0.8, 0.0]), known, 20_000, 4)
    np.testing.assert_allclose(result.z[:, 0], 0.8)
    assert float(ours[1]) == pytest.approx(mean, abs=0.02)
    assert float(sd[1]) == pytest.approx(np.sqrt(variance), rel=0.03)


def test_the_key_decides_the_particles():
    first, again, other = (elect(jax.random.key(key), *UNKNOWN, 50, 2)[2].z for key in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
