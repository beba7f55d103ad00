"""What exact re-weighting asks of a model: a simulation, and what an observation says of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import ndtr, ndtri
from jax.scipy.stats import norm

_WIDTH = 12**0.5  # of a uniform prior of unit variance
_EDGE = 1e-6  # of that width, left out at either end


class Problem(NamedTuple):
    """A Gaussian observation under a standard normal prior.

    Attributes:
        simulate: The dear part of the model at a point z, shape (P,); differentiable.
        residuals: Of that and z, the standardised residuals of the observation, independent and
            standard normal under the model, and the logarithms of their scales, (N,) each, zero
            where nothing was observed; differentiable. The log likelihood is minus the sum of
            `0.5 * residual**2 + log_scale`.
        free: Entries that are inferred, shape (P,).
        heavy: Places of the entries that any case infers and that `simulate` depends on.
        light: Of those that any case infers but `simulate` does not depend on.
        straight: Of the heavy ones, those in which proposals are made where their prior is uniform,
            since posteriors are long and straight there, but bent in z.
    """

    simulate: Callable[[Array], Array]
    residuals: Callable[[Array, Array], tuple[Array, Array]]
    free: Array
    heavy: tuple[int, ...]
    light: tuple[int, ...] = ()
    straight: tuple[int, ...] = ()

    def log_likelihood(self, residual: Array, log_scale: Array) -> Array:
        """Of the observation; minus infinity where the simulation fails."""
        value = -(0.5 * residual**2 + log_scale).sum()
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)

    def warp(self, z: Array) -> Array:
        """Coordinates in which proposals are made, shape (..., P)."""
        return jnp.where(self._is_straight, _WIDTH * (ndtr(z) - 0.5), z)

    def unwarp(self, x: Array) -> Array:
        """Inverse of `warp`; what is beyond a bound is put near it."""
        fraction = jnp.clip(x / _WIDTH + 0.5, _EDGE, 1 - _EDGE)
        return jnp.where(self._is_straight, ndtri(fraction), x)

    def log_prior(self, x: Array) -> Array:
        """Log density of the prior over warped coordinates, shape (...)."""
        inside = jnp.abs(x) < _WIDTH * (0.5 - _EDGE)
        uniform = jnp.where(inside, -jnp.log(_WIDTH), -jnp.inf)
        density = jnp.where(self._is_straight, uniform, norm.logpdf(x))
        return jnp.where(self.free, density, 0.0).sum(-1)

    @property
    def _is_straight(self) -> Array:
        return self.free & np.isin(np.arange(self.free.shape[0]), self.straight)


def repeated(tree: Any, times: int) -> Any:
    """Every row n times in a row: arrays (n, ...) become (n times, ...).

    What is worked out of the copies is then worked out for each: arithmetic on arrays of one
    shape is several times as fast as where some lack an axis. Without the barrier the compiler
    would see that rows are equal, and take the axis out again.
    """
    return jax.lax.optimization_barrier(
        jax.tree.map(lambda a: jnp.repeat(a, times, axis=0), tree)
    )
