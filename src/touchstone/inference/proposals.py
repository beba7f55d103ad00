"""Proposals for importance sampling: modes of a posterior, and mixtures about them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import gammaln, logsumexp

from touchstone.inference.problem import Problem, repeated

_FIRST_DAMPING, _DAMPING = 0.1, (1e-4, 1e6)  # of Fisher scoring, relative to the information
_GAIN, _IDLE = 0.1, 3  # a smaller gain of log density is none; so many in a row, and it is over
_TRIAL = 3  # points that every climb sees, before only the highest go on
_LONGEST_STEP = 1.0  # of Fisher scoring, in prior standard deviations
_FREEDOM = 5  # of the Student-t distributions: heavy tails, finite variance
_APART = 0.5  # standard deviations between components that start from one mode
_ROUGH = 0.1  # prior standard deviations: scale of a component where the curvature is no use


class Mode(NamedTuple):
    """Where climbs ended.

    Attributes:
        z: Shape (n, P).
        log_posterior: There, shape (n,).
        covariance: Inverse of the information there, shape (n, P, P).
        n_steps: Points that were simulated, with their derivatives, by all climbs.
    """

    z: Array
    log_posterior: Array
    covariance: Array
    n_steps: Array


class _Point(NamedTuple):
    """What Fisher scoring sees at a point."""

    z: Array
    value: Array
    score: Array
    information: Array


class _Climb(NamedTuple):
    """A climb under way."""

    n_steps: Array
    idle: Array  # steps in a row that gained nothing
    best: _Point
    trial: Array  # the point to look at next
    damping: Array

    def unfinished(self, n_improve: int) -> Array:
        return (self.n_steps <= n_improve) & (self.idle < _IDLE)


def climb(problem: Problem, start: Array, *, n_improve: int, n_modes: int) -> Mode:
    """Fisher scoring from many points, with Marquardt's damping: a race of which few see the end.

    After a few steps of all, only the highest go on, until none is higher than those that have
    arrived. The prior is centred at the start, not at zero: what the observation leaves open stays
    as it was, so that draws that start along a ridge end along it (randomised maximum likelihood).

    Args:
        problem: The problem.
        start: Shape (n, P).
        n_improve: Steps of each, at most.
        n_modes: How many climb at a time, and arrive; at most n.
    """
    free, (n_starts, size), n_heavy = problem.free, start.shape, len(problem.heavy)
    n_trial = min(_TRIAL, n_improve + 1)
    along = jnp.eye(size)[np.array([*problem.heavy, *problem.light])]

    def slopes(function: Callable, *pairs: tuple[Array, Array]):
        """Values at n points, and derivatives along the directions of each, (n, D, ...)."""
        points, ways = zip(*pairs, strict=True)
        n_ways = ways[0].shape[1]
        ways = tuple(way.reshape(-1, *way.shape[2:]) for way in ways)
        found = jax.vmap(lambda *pair: jax.jvp(function, *pair))(repeated(points, n_ways), ways)
        value, slope = jax.tree.map(lambda a: a.reshape(n_modes, n_ways, *a.shape[1:]), found)
        return jax.tree.map(lambda a: a[:, 0], value), slope

    def look(z: Array, start: Array) -> _Point:
        """Log target, its gradient, and the expected information of likelihood and prior."""
        ways = jnp.broadcast_to(along, (n_modes, *along.shape))
        simulated, moved = slopes(problem.simulate, (z, ways[:, :n_heavy]))
        still = (n_modes, len(problem.light), *simulated.shape[1:])
        moved = jnp.concatenate([moved, jnp.zeros(still, simulated.dtype)], axis=1)
        return jax.vmap(point)(z, start, *slopes(problem.residuals, (simulated, moved), (z, ways)))

    def point(z, start, seen, d_seen):
        (residual, log_scale), (d_residual, d_log_scale) = seen, d_seen
        shift = d_residual + residual * d_log_scale  # of the innovation, in units of its scale
        score = -(d_residual @ residual + d_log_scale.sum(1)) @ along - (z - start)
        information = along.T @ (shift @ shift.T + 2 * d_log_scale @ d_log_scale.T) @ along
        information = jnp.where(free[:, None] & free, information, 0.0) + jnp.eye(size)
        value = problem.log_likelihood(residual, log_scale) - 0.5 * ((z - start) ** 2).sum()
        return _Point(z, value, jnp.where(free, score, 0.0), information)

    def advance(climb: _Climb, seen: _Point) -> _Climb:
        better = seen.value > climb.best.value
        idle = jnp.where(seen.value > climb.best.value + _GAIN, 0, climb.idle + 1)
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), seen, climb.best)
        damping = jnp.clip(climb.damping * jnp.where(better, 0.1, 10.0), *_DAMPING)
        damped = best.information + damping * jnp.diag(jnp.diag(best.information))
        step = jnp.clip(jnp.linalg.solve(damped, best.score), -_LONGEST_STEP, _LONGEST_STEP)
        trial = best.z + jnp.where(free, step, 0.0)
        after = _Climb(climb.n_steps + 1, idle, best, trial, damping)
        busy = climb.unfinished(n_improve)
        return jax.tree.map(lambda new, old: jnp.where(busy, new, old), after, climb)

    def highest(climbs: _Climb, among: Array) -> Array:
        """Places of the highest; what has had no trial yet comes before all others."""
        value = jnp.where(among, climbs.best.value, -jnp.inf)
        return jax.lax.top_k(jnp.where(climbs.n_steps < n_trial, jnp.inf, value), n_modes)[1]

    def go_on(climbs: _Climb) -> _Climb:
        chosen = highest(climbs, climbs.unfinished(n_improve))
        ours = jax.tree.map(lambda all: all[chosen], climbs)
        ours = jax.vmap(advance)(ours, look(ours.trial, start[chosen]))
        return jax.tree.map(lambda all, some: all.at[chosen].set(some), climbs, ours)

    everyone, lowest = jnp.ones(n_starts, bool), jnp.full(n_starts, -jnp.inf)
    shape = (n_starts, size)
    nowhere = _Point(start, lowest, jnp.zeros(shape), jnp.zeros((*shape, size)))
    none = jnp.zeros(n_starts, int)
    climbs = jax.lax.while_loop(
        lambda climbs: climbs.unfinished(n_improve)[highest(climbs, everyone)].any(),
        go_on,
        _Climb(none, none, nowhere, start, jnp.full(n_starts, _FIRST_DAMPING)),
    )
    kept = highest(climbs, everyone)
    best, start = jax.tree.map(lambda all: all[kept], (climbs.best, start))
    value = best.value + 0.5 * ((best.z - start) ** 2).sum(1) - 0.5 * (free * best.z**2).sum(1)
    return Mode(best.z, value, jnp.linalg.inv(best.information), climbs.n_steps.sum())


class Mixture(NamedTuple):
    """Student-t distributions: log weights (K,), centres (K, P), Cholesky factors (K, P, P)."""

    log_weight: Array
    centre: Array
    factor: Array

    @classmethod
    def about(
        cls, modes: Array, values: Array, covariances: Array, free: Array, key: Array
    ) -> "Mixture":
        """One component about each mode, (K, P), weighted by Laplace's evidence."""
        factor = jnp.linalg.cholesky(covariances)
        sound = jnp.isfinite(factor).all((1, 2), keepdims=True)
        factor = jnp.where(sound, factor, _ROUGH * jnp.eye(modes.shape[1]))
        apart = _APART * jax.random.normal(key, modes.shape)
        centre = modes + jnp.where(free, jnp.einsum("kpq,kq->kp", factor, apart), 0.0)
        evidence = values + jnp.log(jnp.diagonal(factor, axis1=1, axis2=2)).sum(1)
        # Softened: a mode may be wider than its curvature says.
        return cls(jax.nn.log_softmax(0.5 * evidence), centre, factor)

    def draw(self, key: Array, n: int) -> Array:
        """Draws, shape (n, P)."""
        which_key, normal_key = jax.random.split(key)
        which = jax.random.categorical(which_key, self.log_weight, shape=(n,))
        size = self.centre.shape[1]
        normal = jax.random.normal(normal_key, (n, size + _FREEDOM))
        normal, chi2 = normal[:, :size], (normal[:, size:] ** 2).sum(1)
        spread = jnp.einsum("npq,nq->np", self.factor[which], normal)
        return self.centre[which] + spread * jnp.sqrt(_FREEDOM / chi2)[:, None]

    def log_density(self, z: Array, free: Array) -> Array:
        """Log density over the free entries, shape (n,)."""
        return logsumexp(self._log_components(z, free), axis=0)

    def _log_components(self, z: Array, free: Array) -> Array:
        dimension = free.sum()

        def one(log_weight, centre, factor):
            # One small inverse and a product: many times faster here than a solve for each draw.
            inverse = solve_triangular(factor, jnp.eye(factor.shape[0]), lower=True)
            distance = ((jnp.where(free, z - centre, 0.0) @ inverse.T) ** 2).sum(1)
            log_scale = jnp.where(free, jnp.log(jnp.diagonal(factor)), 0.0).sum()
            constant = gammaln((_FREEDOM + dimension) / 2) - gammaln(_FREEDOM / 2)
            constant = constant - dimension / 2 * jnp.log(_FREEDOM * jnp.pi) - log_scale
            power = (_FREEDOM + dimension) / 2
            return log_weight + constant - power * jnp.log1p(distance / _FREEDOM)

        return jax.vmap(one)(*self)

    def refitted(self, z: Array, weight: Array, free: Array, widen: Array) -> "Mixture":
        """One step of expectation-maximisation, on draws whose weights sum to one.

        Args:
            z: Draws, shape (n, P).
            weight: Shape (n,).
            free: Entries that are not known, shape (P,).
            widen: What the scales are multiplied by.
        """
        share = jax.nn.softmax(self._log_components(z, free), axis=0) * weight
        mass = share.sum(1)
        part = share / jnp.maximum(mass, 1e-12)[:, None]
        mean = part @ z
        offset = jnp.where(free, z - mean[:, None], 0.0)
        scatter = jnp.einsum("kn,knp,knq->kpq", part, offset, offset)
        # Where few draws count, the scatter of all components, and what was before, step in.
        rows = 2 * free.sum()
        enough = 1 / (1 + rows * (weight**2).sum())
        own = 1 / (1 + rows * (part**2).sum(1))[:, None, None]
        pooled = jnp.einsum("k,kpq->pq", mass, scatter)
        # A t distribution is wider than its scale matrix.
        shrunk = (own * scatter + (1 - own) * pooled) * (_FREEDOM - 2) / _FREEDOM
        shrunk = widen**2 * shrunk
        old = self.factor @ self.factor.mT
        scale = enough * shrunk + (1 - enough) * old + jnp.diag(jnp.where(free, 1e-9, 1.0))
        factor = jnp.linalg.cholesky(scale)
        fits = (mass > 1e-3) & jnp.isfinite(factor).all((1, 2))
        return Mixture(
            jax.nn.log_softmax(jnp.log(jnp.maximum(mass, 1e-3))),
            jnp.where(fits[:, None], mean, self.centre),
            jnp.where(fits[:, None, None], factor, self.factor),
        )
