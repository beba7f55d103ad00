"""What of a mismatch a galaxy's exogenous terms absorb, and how well the best test sees the rest.

About the truth the family lets exogenous terms vary by their standard-normal law. What they do not
absorb of a shift of the fluxes, and how far they have to go for the rest, is the least sum of
squares of both: to first order the shift whitened by the covariance of the family.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from touchstone.inference.batches import map_chunks
from touchstone.models.galaxy.abduction import Known, Light
from touchstone.reliability.oracle import power_of_covariance, power_of_shift

_N_STEPS = 20  # of Levenberg and Marquardt


class _Shift(eqx.Module):
    """What separates an observation without noise from the fluxes of some terms."""

    light: Light
    floor: float

    def residuals(self, known: Known, truth: Array, u: Array) -> Array:
        """Of the bands, then of the redshift, in standard deviations, shape (band + 1,)."""
        graph = self.light.graph
        scale = jnp.sqrt(known.error**2 + (self.floor * self.light(truth)) ** 2)
        bands = jnp.where(known.seen, (known.observed - self.light(u)) / scale, 0.0)
        redshift = graph.mechanisms["redshift"].value(u[graph.names.index("redshift")], {})
        return jnp.append(bands, (known.redshift - redshift) / known.redshift_error)

    def distance(self, known: Known, truth: Array) -> Array:
        """Root of the least sum of squares of the residuals and of how far the terms go."""
        residuals = partial(self.residuals, known, truth)

        def value(u):
            return (residuals(u) ** 2).sum() + ((u - truth) ** 2).sum()

        def step(_, carried):
            u, best, damping = carried
            slopes, left = jax.jacfwd(residuals)(u), residuals(u)
            normal = slopes.T @ slopes + jnp.eye(len(u))
            damped = normal + damping * jnp.diag(jnp.diag(normal))
            other = u - jnp.linalg.solve(damped, slopes.T @ left + u - truth)
            found = value(other)
            better = found < best
            return (
                jnp.where(better, other, u),
                jnp.where(better, found, best),
                damping * jnp.where(better, 0.2, 5.0),
            )

        begin = truth, value(truth), jnp.asarray(1e-2)
        return jnp.sqrt(jax.lax.fori_loop(0, _N_STEPS, step, begin)[1])

    def covariance(self, known: Known, truth: Array) -> Array:
        """What the terms make of the covariance of the residuals, (band + 1, band + 1)."""
        slopes = jax.jacfwd(partial(self.residuals, known, truth))(truth)
        return slopes @ slopes.T


def power(
    light: Light,
    floor: float,
    known: Known,
    truth: Float[np.ndarray, "case term"],
    factor: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, " case"]:
    """Power of the likelihood-ratio test of each galaxy, as in `reliability.oracle`.

    Args:
        light: Fluxes of exogenous terms, of the model.
        floor: Part of a flux that is its least error.
        known: Observations under the mismatch without noise.
        truth: The exogenous terms.
        factor: How many times the noise is what the errors say, under the mismatch.
        rng: For simulated data, where the mismatch is one of the noise.
    """
    shift = _Shift(light, floor)
    given = known, truth.astype(np.float32)
    if factor == 1.0:
        return power_of_shift(map_chunks(_distances, shift, *given).astype(float))
    varies = map_chunks(_covariances, shift, *given).astype(float)
    one = np.broadcast_to(np.eye(varies.shape[1]), varies.shape)
    noise = one.copy()
    bands = np.arange(varies.shape[1] - 1)
    noise[:, bands, bands] = np.where(known.seen, factor**2, 1.0)
    root = np.linalg.inv(np.linalg.cholesky(one + varies))
    ratio = np.linalg.eigvalsh(root @ (noise + varies) @ root.mT)
    return power_of_covariance(ratio, rng)


@eqx.filter_jit
def _distances(shift: _Shift, known: Known, truth: Array) -> Array:
    return jax.vmap(shift.distance)(known, truth)


@eqx.filter_jit
def _covariances(shift: _Shift, known: Known, truth: Array) -> Array:
    return jax.vmap(shift.covariance)(known, truth)
