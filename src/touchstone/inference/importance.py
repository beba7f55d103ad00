"""Exact re-weighting: draws of an amortised posterior, carried to where the exact model puts them.

The best draws are improved by Fisher scoring, whose curvature makes a mixture of Student-t
proposals; rounds of importance sampling refit the mixture to its own weighted draws. At the end the
draws of all rounds count, each weighted by prior x likelihood / (mean of all proposals), as in
adaptive multiple importance sampling (Cornuet et al. 2012).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import gammaln, logsumexp
from jax.scipy.stats import norm

_FREEDOM = 5.0  # of the Student-t proposals: heavy tails, finite variance
_WIDEN = 1.1  # of the scale of a refitted proposal
_FIRST_DAMPING, _DAMPING = 1.0, (1e-4, 1e6)  # of Fisher scoring, relative to the information
_LONGEST_STEP = 1.0  # of Fisher scoring, in prior standard deviations
_ROUGH = 0.1  # prior standard deviations: scale of a proposal where the curvature is no use


class Reweighted(NamedTuple):
    """Weighted draws of one case.

    Attributes:
        z: Draws, shape (n, P); known entries at their values.
        log_weight: Unnormalised, shape (n,); the mean of its exponential is the evidence.
    """

    z: Array
    log_weight: Array


def reweight(
    predict: Callable[[Array], tuple[Array, Array]],
    observed: Array,
    mask: Array,
    draws: Array,
    known: Array,
    key: Array,
    *,
    varied: tuple[int, ...],
    n_starts: int,
    n_improve: int,
    n_rounds: int,
    n_draws: int,
) -> Reweighted:
    """Posterior of a Gaussian observation under a standard normal prior.

    Args:
        predict: Mean and standard deviation of the observation at a point z, shape (N,) each (or
            scalar); differentiable.
        observed: Shape (N,).
        mask: Observed samples, shape (N,).
        draws: Where to start: of an amortised posterior, known entries at their values, (n, P).
        known: Entries that are not inferred, shape (P,).
        key: For all randomness.
        varied: Entries that any case infers; derivatives are taken along these.
        n_starts: Draws that are improved, the most likely first.
        n_improve: Steps of Fisher scoring.
        n_rounds: Rounds of importance sampling.
        n_draws: Draws of a round.

    Returns:
        `n_rounds * n_draws` weighted draws.
    """
    size = draws.shape[1]
    free = ~known

    def log_posterior(z, mean, sd):
        likelihood = jnp.where(mask, norm.logpdf(observed, mean, sd), 0.0).sum()
        value = likelihood + jnp.where(free, norm.logpdf(z), 0.0).sum()
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)

    def log_target(z):
        return log_posterior(z, *predict(z))

    along = jnp.eye(size)[jnp.array(varied)]

    def examine(z):
        """Log target, its gradient, and the expected information of likelihood and prior."""
        push = jax.vmap(lambda tangent: jax.jvp(predict, (z,), (tangent,)), out_axes=(None, 0))
        (mean, sd), (d_mean, d_sd) = push(along)
        weight = jnp.where(mask, 1.0, 0.0) / sd
        a, b = (
            weight * d_mean,
            weight * jnp.broadcast_to(d_sd.reshape(len(varied), -1), d_mean.shape),
        )
        residual = jnp.where(mask, (observed - mean) / sd, 0.0)
        score = (a @ residual + b @ jnp.where(mask, residual**2 - 1, 0.0)) @ along
        information = along.T @ (a @ a.T + 2 * b @ b.T) @ along
        both = free[:, None] & free[None, :]
        information = jnp.where(both, information, 0.0) + jnp.eye(size)
        return log_posterior(z, mean, sd), jnp.where(free, score - z, 0.0), information

    def improve(state, _):
        z, value, score, information, damping = state
        damped = information + damping * jnp.diag(jnp.diag(information))
        step = jnp.clip(jnp.linalg.solve(damped, score), -_LONGEST_STEP, _LONGEST_STEP)
        trial = z + jnp.where(free, step, 0.0)
        new = (trial, *examine(trial))
        better = new[1] > value
        kept = [jnp.where(better, n, o) for n, o in zip(new, state[:-1], strict=True)]
        return (*kept, jnp.clip(damping * jnp.where(better, 0.2, 4.0), *_DAMPING)), None

    def polish(z):
        # The first step is none: it only looks around.
        state = (z, -jnp.inf, jnp.zeros(size), jnp.eye(size), jnp.asarray(_FIRST_DAMPING))
        (z, value, _, information, _), _ = jax.lax.scan(improve, state, length=n_improve + 1)
        return z, value, information

    _, best = jax.lax.top_k(jax.vmap(log_target)(draws), n_starts)
    modes, values, information = jax.vmap(polish)(draws[best])
    factors = jnp.linalg.cholesky(jnp.linalg.inv(information))
    sound = jnp.isfinite(factors).all((1, 2), keepdims=True)
    factors = jnp.where(sound, factors, _ROUGH * jnp.eye(size))
    # Laplace's evidence of each mode, softened: a mode may be wider than its curvature says.
    evidence = values + jnp.log(jnp.diagonal(factors, axis1=1, axis2=2)).sum(1)
    first = _Mixture(jax.nn.log_softmax(0.5 * evidence), modes, factors)

    def one_round(mixture, key):
        z = jnp.where(known, draws[0], mixture.draw(key, n_draws))
        value = jax.vmap(log_target)(z)
        weight = _tempered(value - mixture.log_density(z, free))
        return mixture.refitted(z, weight, free), (mixture, z, value)

    _, (used, z, value) = jax.lax.scan(one_round, first, jax.random.split(key, n_rounds))
    z, value = z.reshape(-1, size), value.ravel()
    density = jax.vmap(lambda mixture: mixture.log_density(z, free))(used)
    log_weight = value - (logsumexp(density, axis=0) - math.log(n_rounds))
    return Reweighted(z, log_weight)


def effective_part(log_weight: Array) -> Array:
    """Effective number of draws over their number (Kish)."""
    weight = jax.nn.softmax(log_weight)
    return 1 / (weight**2).sum() / log_weight.shape[0]


def resample(key: Array, draws: Reweighted, n: int) -> Array:
    """Equally weighted draws, shape (n, P), by systematic resampling."""
    ends = jnp.cumsum(jax.nn.softmax(draws.log_weight))
    places = (jnp.arange(n) + jax.random.uniform(key)) / n
    index = jnp.searchsorted(ends, places * ends[-1])
    return draws.z[jnp.clip(index, 0, draws.z.shape[0] - 1)]


def _tempered(log_weight: Array) -> Array:
    """Normalised weights, flattened until a fifth of the draws counts (for the refit only)."""
    powers = jnp.linspace(0.05, 1.0, 20)
    weights = jax.nn.softmax(powers[:, None] * log_weight, axis=1)
    enough = 1 / (weights**2).sum(1) > 0.2 * log_weight.shape[0]
    return weights[jnp.maximum(enough.sum() - 1, 0)]


class _Mixture(NamedTuple):
    """Student-t distributions: log weights (K,), centres (K, P), Cholesky factors (K, P, P)."""

    log_weight: Array
    centre: Array
    factor: Array

    def draw(self, key: Array, n: int) -> Array:
        """Draws, shape (n, P)."""
        which_key, normal_key, chi_key = jax.random.split(key, 3)
        which = jax.random.categorical(which_key, self.log_weight, shape=(n,))
        normal = jax.random.normal(normal_key, (n, self.centre.shape[1]))
        chi2 = 2 * jax.random.gamma(chi_key, _FREEDOM / 2, (n,))
        spread = jnp.einsum("npq,nq->np", self.factor[which], normal)
        return self.centre[which] + spread * jnp.sqrt(_FREEDOM / chi2)[:, None]

    def log_density(self, z: Array, free: Array) -> Array:
        """Log density over the free entries, shape (n,)."""
        return logsumexp(self._log_components(z, free), axis=0)

    def _log_components(self, z: Array, free: Array) -> Array:
        dimension = free.sum()

        def one(log_weight, centre, factor):
            scaled = solve_triangular(factor, jnp.where(free, z - centre, 0.0).T, lower=True)
            distance = (scaled**2).sum(0)
            log_scale = jnp.where(free, jnp.log(jnp.diagonal(factor)), 0.0).sum()
            constant = gammaln((_FREEDOM + dimension) / 2) - gammaln(_FREEDOM / 2)
            constant = constant - dimension / 2 * jnp.log(_FREEDOM * jnp.pi) - log_scale
            power = (_FREEDOM + dimension) / 2
            return log_weight + constant - power * jnp.log1p(distance / _FREEDOM)

        return jax.vmap(one)(*self)

    def refitted(self, z: Array, weight: Array, free: Array) -> "_Mixture":
        """One step of expectation-maximisation on weighted draws (weights sum to one)."""
        share = jax.nn.softmax(self._log_components(z, free), axis=0) * weight
        mass = share.sum(1)

        def one(share, mass, centre, factor):
            part = share / jnp.maximum(mass, 1e-12)
            mean = part @ z
            offset = jnp.where(free, z - mean, 0.0)
            # A little of the old shape keeps the matrix regular where few draws count.
            old = factor @ factor.T
            trust = 1 / (1 + 2 * free.sum() * (part**2).sum())
            covariance = trust * _WIDEN**2 * (part[:, None] * offset).T @ offset + (1 - trust) * old
            covariance = covariance + jnp.diag(jnp.where(free, 1e-9, 1.0))
            # A t distribution is wider than its scale matrix.
            new = jnp.linalg.cholesky(covariance * (_FREEDOM - 2) / _FREEDOM)
            fits = (mass > 1e-3) & jnp.isfinite(new).all()
            return jnp.where(fits, mean, centre), jnp.where(fits, new, factor)

        centre, factor = jax.vmap(one)(share, mass, self.centre, self.factor)
        return _Mixture(jnp.log(jnp.maximum(mass, 1e-3)), centre, factor)
