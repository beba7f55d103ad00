"""Priors for any simulator, as transforms of standard normal coordinates."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import ndtr, ndtri


class Prior(NamedTuple):
    """A prior as a transform of standard normal coordinates, in which nothing piles up at a bound.

    Attributes:
        size: Number of parameters P.
        natural: From standard normal coordinates, shape (P,), to parameters, shape (P,).
        standard: Its inverse, not finite beyond a bound. Where parameters are to be known to
            inference, each must depend on the coordinate of its own only.
    """

    size: int
    natural: Callable[[Array], Array]
    standard: Callable[[Array], Array]


def uniform(low, high) -> Prior:
    """Independent uniform parameters between bounds of shape (P,)."""
    low, high = jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32)
    return Prior(
        low.size,
        lambda z: low + (high - low) * ndtr(z),
        lambda theta: ndtri((theta - low) / (high - low)),
    )


def normal(mean, sd) -> Prior:
    """Independent normal parameters with means and standard deviations of shape (P,)."""
    mean, sd = jnp.asarray(mean, jnp.float32), jnp.asarray(sd, jnp.float32)
    return Prior(mean.size, lambda z: mean + sd * z, lambda theta: (theta - mean) / sd)


def exponential_of(prior: Prior) -> Prior:
    """Parameters whose logarithms have a prior: log-uniform, log-normal."""
    return Prior(
        prior.size,
        lambda z: jnp.exp(prior.natural(z)),
        lambda theta: prior.standard(jnp.log(theta)),
    )


def joined(*priors: Prior) -> Prior:
    """The parameters of independent priors, one after another."""
    ends = np.cumsum([prior.size for prior in priors])

    def each(transform):
        def joint(values):
            parts = zip(priors, jnp.split(values, ends[:-1]), strict=True)
            return jnp.concatenate([getattr(prior, transform)(part) for prior, part in parts])

        return joint

    return Prior(int(ends[-1]), each("natural"), each("standard"))
