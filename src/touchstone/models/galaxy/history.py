"""A delayed exponential history of star formation, integrated exactly over a table of ages.

Stars form at a rate proportional to s exp(-s / tau), s after the beginning. Whatever a table says
of one age is linear between its ages, so that the sum over a history is a sum over the table, with
weights that are integrals of polynomials times an exponential: no quadrature is needed.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

_SMALL = 0.5  # below, moments of the exponential are series: their closed forms lose digits
_TERMS = 10


def weights(
    ages: Float[Array, " age"], tau: Float[Array, ""], duration: Float[Array, ""]
) -> Float[Array, " age"]:
    """Part of the mass formed that each age of a table stands for; the weights sum to one.

    Args:
        ages: Increasing from zero; the last is beyond the duration.
        tau: Time of the decay, in the unit of the ages.
        duration: From the beginning of the formation to now.
    """
    low, width = ages[:-1], jnp.diff(ages)
    part = jnp.clip(duration - low, 0.0, width)  # of each interval, before the beginning is reached
    # v is the way back from the older end of the part to the younger one: s = first + part * v.
    first = jnp.maximum(duration - low - part, 0.0)
    m0, m1, m2 = _moments(part / tau)
    scale = part * jnp.exp(-first / tau)
    mass = scale * (first * m0 + part * m1)
    # The older age of an interval counts as far as the stars are from the younger one: 1 - v.
    farther = first * (m0 - m1) + part * (m1 - m2)
    older = scale * farther * part / width
    zero = jnp.zeros(1, older.dtype)
    each = jnp.concatenate([mass - older, zero]) + jnp.concatenate([zero, older])
    return each / mass.sum()


def specific_rate(tau: Float[Array, ""], duration: Float[Array, ""]) -> Float[Array, ""]:
    """Rate of star formation now, per mass formed, in one over the unit of the times."""
    y = duration / tau
    return jnp.exp(-y) / (duration * _moments(y)[1])


def _moments(y: Array) -> tuple[Array, Array, Array]:
    """Integrals over v from 0 to 1 of exp(-y v) times 1, v and v squared, of y >= 0."""
    small = y < _SMALL
    safe = jnp.where(small, 1.0, y)
    decay = jnp.exp(-safe)
    m0 = -jnp.expm1(-safe) / safe
    m1 = (m0 - decay) / safe
    m2 = (2 * m1 - decay) / safe
    power, series = jnp.ones_like(y), [jnp.zeros_like(y)] * 3
    few = jnp.where(small, y, 0.0)
    for n in range(_TERMS):
        series = [sum_ + power / (n + k + 1) for k, sum_ in enumerate(series)]
        power = -power * few / (n + 1)
    closed = zip(series, (m0, m1, m2), strict=True)
    first, second, third = (jnp.where(small, s, c) for s, c in closed)
    return first, second, third
