"""The cross-entropy method: a Gaussian proposal that moves to where the likelihood is high."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
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
    z_known: Array,
    known: Array,
    key: Array,
    *,
    n_particles: int,
    n_iterations: int,
    elite_fraction: float,
) -> CemResult:
    """Posterior of one case under a standard normal prior (Rubinstein & Kroese 2004, alg. 4.1).

    Each iteration draws particles from an independent Gaussian for each parameter, weighs them by
    prior x likelihood, and refits the Gaussian to the elite. The last draws are weighted by
    prior x likelihood / proposal.

    Args:
        log_likelihood: `log_likelihood(z, key)` of particles, shape (n_particles, P), summed over
            the observation; shape (n_particles,).
        z_known: Values of the known parameters, shape (P,).
        known: Which are known, shape (P,).
        key: For all randomness.
        n_particles: Particles an iteration.
        n_iterations: Number of times the proposal is refitted.
        elite_fraction: Part of the particles that it is refitted to.

    Returns:
        The last particles and their weights.
    """
    n_elite = max(2, round(elite_fraction * n_particles))

    def draw(key, mean, sd):
        z = mean + sd * jax.random.normal(key, (n_particles, mean.shape[0]))
        return jnp.where(known, z_known, z)

    def log_target(z, key):
        prior = jnp.where(known, 0.0, norm.logpdf(z)).sum(-1)
        return prior + log_likelihood(z, key)

    def refit(proposal, key):
        draw_key, likelihood_key = jax.random.split(key)
        z = draw(draw_key, *proposal)
        _, best = jax.lax.top_k(log_target(z, likelihood_key), n_elite)
        elite = z[best]
        return (elite.mean(0), jnp.maximum(elite.std(0), _LEAST_SD)), None

    keys = jax.random.split(key, n_iterations + 2)
    start = (jnp.zeros_like(z_known), jnp.ones_like(z_known))
    (mean, sd), _ = jax.lax.scan(refit, start, keys[:n_iterations])
    z = draw(keys[-2], mean, sd)
    proposal = jnp.where(known, 0.0, norm.logpdf(z, mean, sd)).sum(-1)
    return CemResult(z, jax.nn.softmax(log_target(z, keys[-1]) - proposal))
