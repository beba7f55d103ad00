"""An amortised posterior for any simulator and prior: simulate, learn once, ask as often as liked.

    times = jnp.linspace(0.0, 5.0, 20)
    prior = uniform([0.0, 0.1], [1.0, 3.0])

    def simulate(key, theta):
        decay = theta[0] * jnp.exp(-theta[1] * times)
        return decay + 0.05 * jax.random.normal(key, times.shape)

    posterior = amortise(simulate, prior, key=jax.random.key(0))
    draws = posterior.sample(jax.random.key(1), observation, 1000)
    log_density = posterior.log_density(observation, draws)

Whatever is not there is NaN. With `missing` in training, entries of an observation may be; with
`known`, all parameters that are given to inference are not.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from touchstone.inference import flow_training
from touchstone.inference.amortised_posterior import AmortisedPosterior
from touchstone.inference.priors import Prior

_RIDGE = 1e-6  # of the regression, relative to the variance of an entry of the context


def amortise(
    simulate: Callable[[Array, Array], Array],
    prior: Prior,
    *,
    key: Array,
    n_simulations: int = 100_000,
    **settings,
) -> AmortisedPosterior:
    """Simulate from the prior, and learn the posterior.

    Args:
        simulate: `simulate(key, theta)` gives an observation, in JAX.
        prior: Of the parameters.
        key: For all randomness.
        n_simulations: How many simulations to learn from.
        settings: As for `learn`.
    """
    prior_key, noise_key, learn_key = jax.random.split(key, 3)

    def one(key, z):
        theta = prior.natural(z)
        return theta, simulate(key, theta)

    keys = jax.random.split(noise_key, n_simulations)
    z = jax.random.normal(prior_key, (n_simulations, prior.size))
    theta, observation = jax.jit(
        lambda *pairs: jax.lax.map(lambda pair: one(*pair), pairs, batch_size=1000)
    )(keys, z)
    return learn(theta, observation, prior, key=learn_key, **settings)


def learn(
    theta: Array,
    observation: Array,
    prior: Prior,
    *,
    key: Array,
    missing: float = 0.0,
    known: float = 0.0,
    n_steps: int = 8000,
    batch_size: int = 256,
    paths: int = 4,
    learning_rate: float = 4e-3,
    width: int = 128,
    depth: int = 3,
    show_progress: bool = True,
) -> AmortisedPosterior:
    """Learn the posterior from simulations that were made anywhere.

    Args:
        theta: Parameters drawn from the prior, shape (n, P).
        observation: What each gave, shape (n, ...).
        prior: Of the parameters.
        key: For all randomness.
        missing: Largest part of an observation that is hidden; each time, the part is uniform
            between nothing and this.
        known: Largest part of the parameters that is told, likewise.
        n_steps, batch_size, paths, learning_rate: Of `flow_training.train`.
        width, depth: Of the network.
        show_progress: Whether to show it.

    Raises:
        ValueError: If a simulation is not finite, or its parameters are beyond the prior's bounds.
    """
    z = jax.vmap(prior.standard)(jnp.asarray(theta, jnp.float32))
    y = jnp.asarray(observation, jnp.float32).reshape(len(z), -1)
    wrong = int((~jnp.isfinite(jnp.column_stack([z, y])).all(1)).sum())
    if wrong:
        raise ValueError(f"{wrong} of {len(z)} simulations are not finite, or outside the prior")
    net_key, line_key, train_key = jax.random.split(key, 3)
    posterior = AmortisedPosterior.untrained(y, prior, missing, known, width, depth, net_key)
    posterior = _with_regression(posterior, z, y, line_key)
    net, losses = flow_training.train(
        posterior.net,
        posterior.example,
        (z, y),
        batch_size=batch_size,
        n_steps=n_steps,
        paths=paths,
        learning_rate=learning_rate,
        key=train_key,
        show_progress=show_progress,
    )
    return eqx.tree_at(lambda p: (p.net, p.losses), posterior, (net, losses))


def _with_regression(
    posterior: AmortisedPosterior, z: Array, y: Array, key: Array
) -> AmortisedPosterior:
    """An untrained posterior with the regression of each coordinate, where it is unknown.

    A Gaussian posterior of a linear model is all there already, and the network starts from it.
    """
    examples = jax.jit(jax.vmap(posterior.example))(jax.random.split(key, len(z)), (z, y))
    target, unknown, context = (np.asarray(part) for part in examples)
    slopes, sds = [], []
    for t, rows in zip(target.T, unknown.T, strict=True):
        x, t = context[rows], t[rows]
        gram = x.T @ x + _RIDGE * len(x) * np.eye(x.shape[1])
        slopes.append(np.linalg.solve(gram, x.T @ t))
        sds.append(math.sqrt(np.mean((t - x @ slopes[-1]) ** 2)))
    fitted = jnp.asarray(np.stack(slopes, 1), jnp.float32), jnp.asarray(sds, jnp.float32)
    return eqx.tree_at(lambda p: (p.slope, p.residual_sd), posterior, fitted)
