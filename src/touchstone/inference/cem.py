"""The cross-entropy method: a Gaussian proposal that moves to where the likelihood is high."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.stats import norm

_LEAST_SD = 0.05  # of the proposal, in standard coordinates


class CemResult(NamedTuple):
    """Weighted draws.

    Attributes:
        z: Draws, shape (n_particles, P); known entries at their values.
        weight: Shape (n_particles,), sums to one.
    """

    z: Array
    weight: Array


def cross_entropy(
    log_likelihood: Callable[[Array, Array], Array],
    z_known: Array | np.ndarray,
    known: Array | np.ndarray,
    key: Array,
    *,
    n_particles: int,
    n_iterations: int,
    elite_fraction: float,
) -> CemResult:
    """Posterior of one case under a standard normal prior (Rubinstein & Kroese 2004, alg. 4.1).

    Each iteration draws particles from an independent Gaussian for each parameter and weighs them
    by prior x likelihood / proposal; to the weighted particles it refits the Gaussian. The weights
    of the elite are cut to the least of them (Koblents & Miguez 2015), so that no single particle
    decides, and yet a Gaussian that has reached the posterior stays as wide as that. The last
    draws keep their weights uncut.

    Args:
        log_likelihood: `log_likelihood(z, key)` of particles, shape (n_particles, P), summed over
            the observation; shape (n_particles,).
        z_known: Values of the known parameters, shape (P,).
        known: Which are known, shape (P,).
        key: For all randomness.
        n_particles: Particles an iteration.
        n_iterations: Number of times the proposal is refitted.
        elite_fraction: Part of the particles whose weights are cut.

    Returns:
        The last particles and their weights.
    """
    n_elite = max(2, round(elite_fraction * n_particles))

    def draw(key, mean, sd):
        z = mean + sd * jax.random.normal(key, (n_particles, mean.shape[0]))
        return jnp.where(known, z_known, z)

    def log_weight(z, mean, sd, key):
        ratio = norm.logpdf(z) - norm.logpdf(z, mean, sd)
        return jnp.where(known, 0.0, ratio).sum(-1) + log_likelihood(z, key)

    def refit(proposal, key):
        draw_key, likelihood_key = jax.random.split(key)
        z = draw(draw_key, *proposal)
        log_w = log_weight(z, *proposal, likelihood_key)
        least = jax.lax.top_k(log_w, n_elite)[0][-1]
        weight = jax.nn.softmax(jnp.minimum(log_w, least))
        mean = weight @ z
        return (mean, jnp.maximum(jnp.sqrt(weight @ (z - mean) ** 2), _LEAST_SD)), None

    keys = jax.random.split(key, n_iterations + 2)
    start = (jnp.zeros_like(z_known), jnp.ones_like(z_known))
    (mean, sd), _ = jax.lax.scan(refit, start, keys[:n_iterations])
    z = draw(keys[-2], mean, sd)
    return CemResult(z, jax.nn.softmax(log_weight(z, mean, sd, keys[-1])))
