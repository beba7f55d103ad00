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
import numpy as np
from arviz_stats.base import array_stats
from jax import Array
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import gammaln, logsumexp
from jax.scipy.stats import norm

WORST = 10.0  # k-hat of draws that are no good at all
_FREEDOM = 5.0  # of the Student-t proposals: heavy tails, finite variance
_WIDEN = 1.1  # of the scale of a refitted proposal
_FIRST_DAMPING, _DAMPING = 0.01, (1e-4, 1e6)  # of Fisher scoring, relative to the information
_LONGEST_STEP = 1.0  # of Fisher scoring, in prior standard deviations
_LANES = 64  # points simulated at once: more do not fit the fastest cache
_REFITS = 3  # steps of expectation-maximisation after a round
_ENOUGH = 5  # effective draws for each free parameter, for a refit
_APART = 0.5  # standard deviations between proposals that start from one mode
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
    residuals: Callable[[Array], tuple[Array, Array]],
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
        residuals: Standardised residuals of the observation at a point z, independent and standard
            normal under the model, and the logarithms of their scales, (N,) each, zero where
            nothing was observed; differentiable. The log likelihood is minus the sum of
            `0.5 * residual**2 + log_scale`.
        draws: Where to start: of an amortised posterior, known entries at their values, (n, P).
        known: Entries that are not inferred, shape (P,).
        key: For all randomness.
        varied: Entries that any case infers; derivatives are taken along these.
        n_starts: Draws that are improved: the best of as many groups.
        n_improve: Steps of Fisher scoring.
        n_rounds: Rounds of importance sampling.
        n_draws: Draws of a round.

    Returns:
        `n_rounds * n_draws` weighted draws.
    """
    size = draws.shape[1]
    known = jnp.asarray(known)
    free = ~known

    def log_posterior(z, residual, log_scale):
        value = -(0.5 * residual**2 + log_scale).sum() + jnp.where(free, norm.logpdf(z), 0.0).sum()
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)

    def log_targets(z):
        return jax.lax.map(lambda z: log_posterior(z, *residuals(z)), z, batch_size=_LANES)

    along = jnp.eye(size)[jnp.array(varied)]

    def examine(z):
        """Log target, its gradient, and the expected information of likelihood and prior."""
        push = jax.vmap(lambda tangent: jax.jvp(residuals, (z,), (tangent,)), out_axes=(None, 0))
        (residual, log_scale), (d_residual, d_log_scale) = push(along)
        shift = d_residual + residual * d_log_scale  # of the innovation, in units of its scale
        score = -(d_residual @ residual + d_log_scale.sum(1)) @ along
        information = along.T @ (shift @ shift.T + 2 * d_log_scale @ d_log_scale.T) @ along
        both = free[:, None] & free[None, :]
        information = jnp.where(both, information, 0.0) + jnp.eye(size)
        value = log_posterior(z, residual, log_scale)
        return value, jnp.where(free, score - z, 0.0), information

    def improve(state, _):
        z, value, score, information, damping = state
        damped = information + damping * jnp.diag(jnp.diag(information))
        step = jnp.clip(jnp.linalg.solve(damped, score), -_LONGEST_STEP, _LONGEST_STEP)
        trial = z + jnp.where(free, step, 0.0)
        new = (trial, *examine(trial))
        better = new[1] > value
        kept = [jnp.where(better, n, o) for n, o in zip(new, state[:-1], strict=True)]
        return (*kept, jnp.clip(damping * jnp.where(better, 0.1, 10.0), *_DAMPING)), None

    def polish(z):
        # The first step is none: it only looks around.
        state = (z, -jnp.inf, jnp.zeros(size), jnp.eye(size), jnp.asarray(_FIRST_DAMPING))
        (z, value, _, information, _), _ = jax.lax.scan(improve, state, length=n_improve + 1)
        return z, value, information

    groups = draws[: len(draws) // n_starts * n_starts].reshape(n_starts, -1, size)
    best = log_targets(groups.reshape(-1, size)).reshape(n_starts, -1).argmax(1)
    modes, values, information = jax.vmap(polish)(groups[jnp.arange(n_starts), best])
    factors = jnp.linalg.cholesky(jnp.linalg.inv(information))
    sound = jnp.isfinite(factors).all((1, 2), keepdims=True)
    factors = jnp.where(sound, factors, _ROUGH * jnp.eye(size))
    # Laplace's evidence of each mode, softened: a mode may be wider than its curvature says.
    evidence = values + jnp.log(jnp.diagonal(factors, axis1=1, axis2=2)).sum(1)
    apart_key, *round_keys = jax.random.split(key, n_rounds + 1)
    apart = _APART * jax.random.normal(apart_key, modes.shape)
    centres = modes + jnp.where(free, jnp.einsum("kpq,kq->kp", factors, apart), 0.0)
    first = _Mixture(jax.nn.log_softmax(0.5 * evidence), centres, factors)

    def weigh(used, n_used, z, value):
        """Log weights of all draws so far against the mean of all proposals so far."""
        density = jax.vmap(lambda mixture: mixture.log_density(z, free))(used)
        density = jnp.where(jnp.arange(n_rounds)[:, None] < n_used, density, -jnp.inf)
        return value - (logsumexp(density, axis=0) - jnp.log(n_used))

    def one_round(state, inputs):
        mixture, used, z, value = state
        number, key = inputs
        used = jax.tree.map(lambda all, one: all.at[number].set(one), used, mixture)
        fresh = jnp.where(known, draws[0], mixture.draw(key, n_draws))
        z = jax.lax.dynamic_update_slice_in_dim(z, fresh, number * n_draws, 0)
        value = jax.lax.dynamic_update_slice_in_dim(value, log_targets(fresh), number * n_draws, 0)
        log_weight = weigh(used, number + 1, z, value)
        weight = _tempered(log_weight, _ENOUGH * free.sum())
        for _ in range(_REFITS):
            mixture = mixture.refitted(z, weight, free)
        return (mixture, used, z, value), None

    n = n_rounds * n_draws
    blank = jax.tree.map(lambda a: jnp.broadcast_to(a, (n_rounds, *a.shape)), first)
    state = (first, blank, jnp.tile(draws[:1], (n, 1)), jnp.full(n, -jnp.inf))
    numbered = jnp.arange(n_rounds), jnp.stack(round_keys)
    (_, used, z, value), _ = jax.lax.scan(one_round, state, numbered)
    return Reweighted(z, weigh(used, n_rounds, z, value))


def simulator_calls(n_given: int, n_varied: int, sizes: dict[str, int]) -> int:
    """Simulations of one case by `reweight`; a derivative along one parameter counts as one.

    Args:
        n_given: Draws to start from.
        n_varied: Number of entries in `varied`.
        sizes: `n_starts`, `n_improve`, `n_rounds` and `n_draws`.
    """
    improving = sizes["n_starts"] * (1 + sizes["n_improve"]) * (1 + n_varied)
    return n_given + improving + sizes["n_rounds"] * sizes["n_draws"]


class Smoothed(NamedTuple):
    """Pareto-smoothed importance weights of some cases, and how far to trust them.

    Attributes:
        weight: Shape (n, draws), each row sums to one.
        effective: Effective number of draws (Kish), shape (n,).
        k_hat: Shape of the Pareto tail, at most `WORST`, shape (n,).
        log_evidence: Shape (n,).
    """

    weight: np.ndarray
    effective: np.ndarray
    k_hat: np.ndarray
    log_evidence: np.ndarray


def smooth(log_weight: np.ndarray) -> Smoothed:
    """Smooth the largest weights by a Pareto tail (Vehtari et al. 2024), by ArviZ.

    Args:
        log_weight: Unnormalised, as from `reweight`, shape (n, draws).
    """
    log_weight = np.asarray(log_weight, float)
    # ArviZ takes log likelihoods to be divided out, hence the sign.
    smoothed, k_hat = array_stats.psislw(-log_weight, axis=-1)
    weight = np.exp(smoothed - smoothed.max(1, keepdims=True))
    weight /= weight.sum(1, keepdims=True)
    top = log_weight.max(1)
    evidence = top + np.log(np.exp(log_weight - top[:, None]).mean(1))
    k_hat = np.nan_to_num(np.asarray(k_hat, float), nan=WORST, posinf=WORST)
    return Smoothed(weight, 1 / (weight**2).sum(1), np.minimum(k_hat, WORST), evidence)


def k_threshold(n_draws: int) -> float:
    """Largest k-hat at which that many draws can be trusted (Vehtari et al. 2024, eq. 13)."""
    return min(1 - 1 / math.log10(n_draws), 0.7)


def resample(weight: np.ndarray, n: int) -> np.ndarray:
    """Indices of equally weighted draws, by resampling at the midpoints of equal parts.

    Args:
        weight: Shape (cases, draws), each row sums to one.
        n: Draws of each case.

    Returns:
        Shape (cases, n).
    """
    ends = np.cumsum(weight, axis=1)
    ends /= ends[:, -1:]
    comb = (np.arange(n) + 0.5) / n
    found = [np.searchsorted(end, comb, side="right") for end in ends]
    return np.minimum(np.stack(found), weight.shape[1] - 1)


def _tempered(log_weight: Array, enough: Array) -> Array:
    """Normalised weights, flattened until `enough` draws count (for the refit only)."""
    powers = jnp.linspace(0.05, 1.0, 20)
    scaled = jnp.where(jnp.isfinite(log_weight), powers[:, None] * log_weight, -jnp.inf)
    weights = jax.nn.softmax(scaled, axis=1)
    sufficient = 1 / (weights**2).sum(1) > enough
    return weights[jnp.maximum(sufficient.sum() - 1, 0)]


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
            # One small inverse and a product: many times faster here than a solve for each draw.
            inverse = solve_triangular(factor, jnp.eye(factor.shape[0]), lower=True)
            distance = ((jnp.where(free, z - centre, 0.0) @ inverse.T) ** 2).sum(1)
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
        shrunk = _WIDEN**2 * (own * scatter + (1 - own) * pooled) * (_FREEDOM - 2) / _FREEDOM
        old = self.factor @ self.factor.mT
        scale = enough * shrunk + (1 - enough) * old + jnp.diag(jnp.where(free, 1e-9, 1.0))
        factor = jnp.linalg.cholesky(scale)
        fits = (mass > 1e-3) & jnp.isfinite(factor).all((1, 2))
        return _Mixture(
            jnp.log(jnp.maximum(mass, 1e-3)),
            jnp.where(fits[:, None], mean, self.centre),
            jnp.where(fits[:, None, None], factor, self.factor),
        )
