"""What exact re-weighting asks of a model: a simulation, and what an observation says of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.stats import norm


class Coordinates(NamedTuple):
    """Where proposals are made: coordinates x in which posteriors are straight, z by default.

    Attributes:
        warp: x of a point z, shape (P,); differentiable. Entries that are not heavy stay as they
            are, and do not matter to the others.
        unwarp: z of any x, shape (P,); what is beyond a bound of the prior is put near it.
        log_prior: Of x and the entries that are free, (P,) each: log density of the prior over the
            free entries of x; minus infinity beyond a bound.
    """

    warp: Callable[[Array], Array] = lambda z: z
    unwarp: Callable[[Array], Array] = lambda x: x
    log_prior: Callable[[Array, Array], Array] = lambda x, free: (free * norm.logpdf(x)).sum()


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
        coordinates: Where proposals are made.
    """

    simulate: Callable[[Array], Array]
    residuals: Callable[[Array, Array], tuple[Array, Array]]
    free: Array
    heavy: tuple[int, ...]
    light: tuple[int, ...] = ()
    coordinates: Coordinates = Coordinates()

    def log_likelihood(self, residual: Array, log_scale: Array) -> Array:
        """Of the observation; minus infinity where the simulation fails."""
        value = -(0.5 * residual**2 + log_scale).sum()
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)


def repeated(tree: Any, times: int) -> Any:
    """Every row n times in a row: arrays (n, ...) become (n times, ...).

    What is worked out of the copies is then worked out for each: arithmetic on arrays of one
    shape is several times as fast as where some lack an axis. Without the barrier the compiler
    would see that rows are equal, and take the axis out again.
    """
    return jax.lax.optimization_barrier(jax.tree.map(lambda a: jnp.repeat(a, times, axis=0), tree))
