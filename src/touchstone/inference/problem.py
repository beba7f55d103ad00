"""What exact re-weighting asks of a model: simulations, and what observations say of them.

The engine is Python and NumPy; only what a model supplies is compiled, for a fixed number of rows.
What varies from case to case, such as which parameters are known, how many records there are and
how many draws are made, therefore compiles nothing anew.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from touchstone.inference.batches import map_chunks


def log_normal(z: np.ndarray) -> np.ndarray:
    """Log density of the standard normal distribution."""
    return -0.5 * (z**2 + np.log(2 * np.pi))


class Coordinates(NamedTuple):
    """Coordinates x in which proposals are made and posteriors are straight; z where not changed.

    The functions are pytrees (a method of an `equinox.Module`, or a `jax.tree_util.Partial`).

    Attributes:
        entries: Places of the E entries that are changed, shape (E,).
        warp: x of those entries of a point z, shape (E,); differentiable.
        unwarp: z of any x, shape (E,); what is beyond a bound of the prior is put near it.
        log_prior: Of x and of which entries are free, (E,) each: log density of the prior over the
            free entries of x; minus infinity beyond a bound.
    """

    entries: np.ndarray = np.zeros(0, int)
    warp: Callable[[Array], Array] | None = None
    unwarp: Callable[[Array], Array] | None = None
    log_prior: Callable[[Array, Array], Array] | None = None

    def to(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x of points z, shape (n, P), and its derivatives by z, shape (n, P, P)."""
        x, slopes = z.copy(), np.tile(np.eye(z.shape[1]), (len(z), 1, 1))
        if len(self.entries):
            e = self.entries
            x[:, e], slopes[np.ix_(range(len(z)), e, e)] = map_chunks(_warped, self.warp, z[:, e])
        return x, slopes

    def back(self, x: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """z of points x, shape (n, P), and log density of the prior over their free entries, (n,).

        Args:
            x: Shape (n, P).
            free: Places of the free entries.
        """
        e = self.entries
        z, log_density = x.copy(), log_normal(x[:, np.setdiff1d(free, e)]).sum(1)
        if len(e):
            z[:, e], changed = map_chunks(
                _unwarped, (self.unwarp, self.log_prior, np.isin(e, free)), x[:, e]
            )
            log_density = log_density + changed
        return z, log_density


class Factor(NamedTuple):
    """One of the independent factors of a likelihood: an observation and its own simulation.

    The functions are pytrees, as in `Coordinates`.

    Attributes:
        entries: Places, in a point z of the problem, of the Q entries it depends on, shape (Q,).
        simulate: The costly part of the model, at those entries, shape (Q,); differentiable.
        residuals: Of that and the entries: the standardised residuals of the observation,
            independent and standard normal under the model, and the logarithms of their scales,
            (N,) each, zero where nothing was observed; differentiable. The log likelihood is minus
            the sum of `0.5 * residual**2 + log_scale`.
    """

    entries: np.ndarray
    simulate: Callable[[Array], Array]
    residuals: Callable[[Array, Array], tuple[Array, Array]]

    def log_likelihood(self, z: np.ndarray, variants: np.ndarray) -> np.ndarray:
        """Log likelihood of some variants of each simulated point, shape (n, I).

        Args:
            z: Points to simulate, shape (n, P).
            variants: The same with other values of the light entries, shape (n, I, P).
        """
        outcome = map_chunks(simulated, self.simulate, z[:, self.entries])
        n, inner = variants.shape[:2]
        rows = np.repeat(outcome, inner, axis=0), variants[..., self.entries].reshape(n * inner, -1)
        return map_chunks(_log_likelihood, self.residuals, *rows).reshape(n, inner)

    def sensitivities(
        self, z: np.ndarray, heavy: np.ndarray, light: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """Residuals and log scales, (n, N), their derivatives, (n, D, N), and by which entries.

        Args:
            z: Points, shape (n, P).
            heavy, light: Places of the entries by which derivatives are asked for, as in `Problem`.
        """
        heavy, light = np.intersect1d(heavy, self.entries), np.intersect1d(light, self.entries)
        along, points, n = np.concatenate([heavy, light]), z[:, self.entries], len(z)
        ways = np.float32(self.entries == along[:, None])
        if not len(heavy):  # the programs need a direction: none of the derivatives is of this one
            ways = np.concatenate([np.zeros_like(ways, shape=(1, len(self.entries))), ways])
        n_heavy, n_ways = len(ways) - len(light), len(ways)
        # A derivative is worked out beside its own copy of the point: arithmetic on arrays of one
        # shape is several times as fast as where some lack an axis.
        simulated, moved = map_chunks(
            _simulated_slopes,
            self.simulate,
            np.repeat(points, n_heavy, axis=0),
            np.tile(ways[:n_heavy], (n, 1)),
        )
        moved = moved.reshape(n, n_heavy, *moved.shape[1:])
        still = np.zeros_like(moved, shape=(n, len(light), *moved.shape[2:]))
        moved = np.concatenate([moved, still], axis=1).reshape(n * n_ways, *moved.shape[2:])
        values, slopes = map_chunks(
            _residual_slopes,
            self.residuals,
            (np.repeat(simulated[::n_heavy], n_ways, axis=0), np.repeat(points, n_ways, axis=0)),
            (moved, np.tile(ways, (n, 1))),
        )
        residual, log_scale = (a[::n_ways] for a in values)
        slopes = (a.reshape(n, n_ways, -1)[:, n_ways - len(along) :] for a in slopes)
        return residual, log_scale, *slopes, along


class Problem(NamedTuple):
    """Gaussian observations under a standard normal prior.

    Attributes:
        factors: Of the likelihood.
        heavy: Places of the inferred entries that simulations depend on.
        light: Of those inferred entries that no simulation depends on.
        coordinates: In which proposals are made.
    """

    factors: tuple[Factor, ...]
    heavy: np.ndarray
    light: np.ndarray = np.zeros(0, int)
    coordinates: Coordinates = Coordinates()

    @property
    def free(self) -> np.ndarray:
        """Places of all inferred entries."""
        return np.concatenate([self.heavy, self.light]).astype(int)

    def log_likelihood(self, z: np.ndarray, variants: np.ndarray) -> np.ndarray:
        """As in `Factor`, of all factors; minus infinity where a simulation fails."""
        value = sum(factor.log_likelihood(z, variants).astype(float) for factor in self.factors)
        return np.where(np.isfinite(value), value, -np.inf)


# The compiled programs. What they are given first is the same for all rows.


@jax.jit
def simulated(simulate, points):
    return jax.vmap(simulate)(points)


@jax.jit
def _simulated_slopes(simulate, points, ways):
    return jax.vmap(lambda point, way: jax.jvp(simulate, (point,), (way,)))(points, ways)


@jax.jit
def _log_likelihood(residuals, simulated, points):
    residual, log_scale = jax.vmap(residuals)(simulated, points)
    return -(0.5 * residual**2 + log_scale).sum(1)


@jax.jit
def _residual_slopes(residuals, at, ways):
    return jax.vmap(lambda at, ways: jax.jvp(residuals, at, ways))(at, ways)


@jax.jit
def _warped(warp, points):
    return jax.vmap(warp)(points), jax.vmap(jax.jacfwd(warp))(points)


@jax.jit
def _unwarped(functions, points):
    unwarp, log_prior, free = functions
    return jax.vmap(unwarp)(points), jax.vmap(log_prior, (0, None))(points, free)
