"""Exact re-weighting: draws of an amortised posterior, carried to where the exact model puts them.

The best draws are improved by Fisher scoring, whose curvature makes a mixture of Student-t
proposals; rounds of importance sampling refit the mixture to its own weighted draws until enough
of them count. The draws of all rounds are used, each weighted by prior x likelihood / (mean of all
proposals), as in adaptive multiple importance sampling (Cornuet et al. 2012).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from arviz_stats.base import array_stats
from jax import Array
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import gammaln, logsumexp, ndtr, ndtri
from jax.scipy.stats import norm

WORST = 10.0  # k-hat of draws that are no good at all
_FREEDOM = 5.0  # of the Student-t proposals: heavy tails, finite variance
_WIDEN = 1.25  # of the scale of a refitted proposal
_FIRST_DAMPING, _DAMPING = 0.01, (1e-4, 1e6)  # of Fisher scoring, relative to the information
_GAIN, _IDLE = 0.1, 3  # a smaller gain of log density is none; so many in a row, and it is over
_LONGEST_STEP = 1.0  # of Fisher scoring, in prior standard deviations
_LANES = 64  # points simulated at once: more do not fit the fastest cache
_ENOUGH = 5  # effective draws for each free parameter, for a refit
_APART = 0.5  # standard deviations between proposals that start from one mode
_INNER = 4  # light draws of a simulation
_LEAST_ROUNDS = 3  # before the number of effective draws is believed
_WIDTH, _EDGE = (
    12**0.5,
    1e-6,
)  # of a uniform prior of unit variance; of what is left out at its ends
_ROUGH = 0.1  # prior standard deviations: scale of a proposal where the curvature is no use


class Reweighted(NamedTuple):
    """Weighted draws of one case.

    Attributes:
        z: Draws, shape (n, P); known entries at their values.
        log_weight: Unnormalised, shape (n,); the mean of its exponential is the evidence.
        made: How many draws were made; what follows has no meaning, and no weight.
        n_simulations: Of the case; a derivative along one entry counts as one.
    """

    z: Array
    log_weight: Array
    made: Array
    n_simulations: Array


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
    def _is_straight(self) -> np.ndarray:
        return np.isin(np.arange(self.free.shape[0]), self.straight)


def reweight(
    problem: Problem,
    draws: Array,
    key: Array,
    *,
    n_starts: int,
    n_improve: int,
    n_rounds: int,
    n_draws: int,
    n_effective: int,
) -> Reweighted:
    """Posterior of a problem.

    Simulations are what costs. Each is weighed under several draws of the light entries, and
    keeps one (Rao-Blackwell).

    Args:
        problem: The problem.
        draws: Where to start: of an amortised posterior, known entries at their values, (n, P).
        key: For all randomness.
        n_starts: Draws that are improved: the best of as many groups.
        n_improve: Steps of Fisher scoring, at most.
        n_rounds: Rounds of importance sampling, at most.
        n_draws: Draws of a round.
        n_effective: Effective draws that are enough to end the rounds.

    Returns:
        Up to `n_rounds * n_draws` weighted draws.
    """
    free, heavy, light = problem.free, np.array(problem.heavy), np.array(problem.light, int)
    inner = _INNER if light.size else 1
    x = problem.warp(draws)
    given_x = x[0]

    def log_posteriors(heavies, lights):
        """At heavy entries (n, H), each with some draws of the light ones (n, I, L)."""

        def one(given):
            x = given_x.at[heavy].set(given[0])
            simulated = problem.simulate(problem.unwarp(x))

            def at(lights):
                whole = x.at[light].set(lights)
                seen = problem.residuals(simulated, problem.unwarp(whole))
                value = problem.log_prior(whole) + problem.log_likelihood(*seen)
                return jnp.where(jnp.isfinite(value), value, -jnp.inf)

            return jax.vmap(at)(given[1])

        return jax.lax.map(one, (heavies, lights), batch_size=_LANES)

    start_key, key, pick_key = jax.random.split(key, 3)
    n_groups = len(draws) // n_starts * n_starts
    groups = draws[:n_groups].reshape(n_starts, -1, draws.shape[1])
    values = log_posteriors(x[:n_groups, heavy], x[:n_groups, None, light])
    values = values.reshape(n_starts, -1)
    starts = groups[jnp.arange(n_starts), values.argmax(1)]
    climb = partial(_climb, problem, n_improve=n_improve)
    modes, values, covariances, n_climbed = jax.vmap(climb)(starts)
    modes, slopes = jax.jvp(problem.warp, (modes,), (jnp.ones_like(modes),))
    covariances = covariances * slopes[:, :, None] * slopes[:, None, :]
    # What scales the residuals hangs together with what shifts them only weakly: the information
    # of the two is zero in a Gaussian model. So heavy and light entries are proposed apart.
    first = [
        _Mixture.about(modes[:, of], values, covariances[:, of[:, None], of], free[of], key)
        for of, key in zip((heavy, light), jax.random.split(start_key), strict=True)
    ]

    def log_density(proposal, heavies, lights):
        """Of the proposal, for each simulation and light draw, (n, I)."""
        of_heavy = proposal[0].log_density(heavies, free[heavy])
        of_light = proposal[1].log_density(jax.lax.collapse(lights, 0, 2), free[light])
        return of_heavy[:, None] + of_light.reshape(lights.shape[:2])

    def one_round(state):
        key, heavy_key, light_key, pick_key = jax.random.split(state.key, 4)
        used = jax.tree.map(
            lambda all, one: all.at[state.n_rounds].set(one), state.used, state.proposal
        )
        heavies = state.proposal[0].draw(heavy_key, n_draws)
        heavies = jnp.where(free[heavy], heavies, given_x[heavy])
        lights = state.proposal[1].draw(light_key, n_draws * inner)
        lights = jnp.where(free[light], lights, given_x[light])
        lights = lights.reshape(n_draws, inner, len(light))
        # Old draws under the new proposal, fresh draws under all.
        of_new = log_density(state.proposal, state.heavy, state.light)
        of_all = jax.vmap(lambda proposal: log_density(proposal, heavies, lights))(used)
        is_used = jnp.arange(n_rounds)[:, None, None] <= state.n_rounds
        of_all = logsumexp(jnp.where(is_used, of_all, -jnp.inf), axis=0)

        def put(all, one):
            return jax.lax.dynamic_update_slice_in_dim(all, one, state.n_rounds * n_draws, 0)

        state = state._replace(
            key=key,
            n_rounds=state.n_rounds + 1,
            used=used,
            heavy=put(state.heavy, heavies),
            light=put(state.light, lights),
            value=put(state.value, log_posteriors(heavies, lights)),
            log_density=put(jnp.logaddexp(state.log_density, of_new), of_all),
        )
        log_weight = logsumexp(state.log_weight, axis=1)
        weight = _tempered(log_weight, _ENOUGH * free.sum())
        kept = _pick(pick_key, state.log_weight, state.light)
        proposal = (
            state.proposal[0].refitted(state.heavy, weight, free[heavy]),
            state.proposal[1].refitted(kept, weight, free[light]),
        )
        effective = 1 / (jax.nn.softmax(log_weight) ** 2).sum()
        return state._replace(proposal=proposal, effective=effective)

    def unfinished(state):
        few = (state.n_rounds < _LEAST_ROUNDS) | ~(state.effective >= n_effective)
        return few & (state.n_rounds < n_rounds)

    n = n_rounds * n_draws
    state = _Rounds(
        key=key,
        n_rounds=jnp.asarray(0),
        effective=jnp.asarray(0.0),
        proposal=tuple(first),
        used=jax.tree.map(lambda a: jnp.broadcast_to(a, (n_rounds, *a.shape)), tuple(first)),
        heavy=jnp.tile(given_x[heavy], (n, 1)),
        light=jnp.tile(given_x[light], (n, inner, 1)),
        value=jnp.full((n, inner), -jnp.inf),
        log_density=jnp.full((n, inner), -jnp.inf),
    )
    state = jax.lax.while_loop(unfinished, one_round, state)
    x = jnp.tile(given_x, (n, 1)).at[:, heavy].set(state.heavy)
    x = x.at[:, light].set(_pick(pick_key, state.log_weight, state.light))
    z = jnp.where(free, problem.unwarp(x), draws[0])
    log_weight = logsumexp(state.log_weight, axis=1) - jnp.log(inner)
    made = state.n_rounds * n_draws
    n_looked = (n_climbed + 1).sum() * (1 + len(heavy))
    return Reweighted(z, log_weight, made, n_groups + n_looked + made)


def _climb(problem: Problem, start: Array, *, n_improve: int) -> tuple[Array, ...]:
    """Fisher scoring from a point, with Marquardt's damping, until it is over.

    The prior is centred at the start, not at zero: what the observation leaves open stays as it
    was, so that draws that start along a ridge end along it (randomised maximum likelihood).

    Returns:
        The best point, its log posterior, the inverse of the information there, and the number of
        steps.
    """
    free, size = problem.free, start.shape[0]
    along = jnp.eye(size)[np.array([*problem.heavy, *problem.light])]

    def examine(z):
        """Log target, its gradient, and the expected information of likelihood and prior."""
        push = jax.vmap(lambda along: jax.jvp(problem.simulate, (z,), (along,)), (0,), (None, 0))
        simulated, moved = push(along[: len(problem.heavy)])
        moved = jnp.pad(moved, [(0, len(problem.light)), *((0, 0) for _ in simulated.shape)])
        (residual, log_scale), push = jax.linearize(problem.residuals, simulated, z)
        d_residual, d_log_scale = jax.vmap(push)(moved, along)
        shift = d_residual + residual * d_log_scale  # of the innovation, in units of its scale
        score = -(d_residual @ residual + d_log_scale.sum(1)) @ along
        information = along.T @ (shift @ shift.T + 2 * d_log_scale @ d_log_scale.T) @ along
        both = free[:, None] & free[None, :]
        information = jnp.where(both, information, 0.0) + jnp.eye(size)
        value = problem.log_likelihood(residual, log_scale) - 0.5 * ((z - start) ** 2).sum()
        return value, jnp.where(free, score - (z - start), 0.0), information

    def improve(state):
        n, idle, best, damping = state
        damped = best.information + damping * jnp.diag(jnp.diag(best.information))
        step = jnp.clip(jnp.linalg.solve(damped, best.score), -_LONGEST_STEP, _LONGEST_STEP)
        z = best.z + jnp.where(free, step, 0.0)
        trial = _Point(z, *examine(z))
        better = trial.value > best.value
        idle = jnp.where(trial.value > best.value + _GAIN, 0, idle + 1)
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), trial, best)
        damping = jnp.clip(damping * jnp.where(better, 0.1, 10.0), *_DAMPING)
        return n + 1, idle, best, damping

    def unfinished(state):
        n, idle, *_ = state
        return (n < n_improve) & (idle < _IDLE)

    first = 0, 0, _Point(start, *examine(start)), jnp.asarray(_FIRST_DAMPING)
    n, _, best, _ = jax.lax.while_loop(unfinished, improve, first)
    value = best.value + 0.5 * ((best.z - start) ** 2).sum() - 0.5 * (free * best.z**2).sum()
    return best.z, value, jnp.linalg.inv(best.information), n


class _Point(NamedTuple):
    """Where Fisher scoring is, and what it sees there."""

    z: Array
    value: Array
    score: Array
    information: Array


class Smoothed(NamedTuple):
    """Pareto-smoothed importance weights of some cases, and how far to trust them.

    Attributes:
        weight: Shape (n, draws), each row sums to one.
        effective: Effective number of draws (Kish), shape (n,).
        k_hat: Shape of the Pareto tail, at most `WORST`, shape (n,).
        k_threshold: Largest k-hat at which so many draws can be trusted, shape (n,).
        log_evidence: Shape (n,).
    """

    weight: np.ndarray
    effective: np.ndarray
    k_hat: np.ndarray
    k_threshold: np.ndarray
    log_evidence: np.ndarray


def smooth(log_weight: np.ndarray, made: np.ndarray | None = None) -> Smoothed:
    """Smooth the largest weights by a Pareto tail (Vehtari et al. 2024), by ArviZ.

    Args:
        log_weight: Unnormalised, as from `reweight`, shape (cases, draws).
        made: How many draws were made of each case, shape (cases,); all if not given.
    """
    log_weight = np.asarray(log_weight, float)
    n_cases, most = log_weight.shape
    made = np.full(n_cases, most) if made is None else np.asarray(made)
    weight = np.zeros_like(log_weight)
    k_hat, evidence = np.empty(n_cases), np.empty(n_cases)
    for k, n in enumerate(made):
        ours = log_weight[k, :n]
        top = ours.max()
        evidence[k] = top + np.log(np.exp(ours - top).mean())
        # ArviZ takes log likelihoods to be divided out, hence the sign.
        smoothed, k_hat[k] = array_stats.psislw(-ours)
        weight[k, :n] = np.exp(smoothed - smoothed.max())
    weight /= weight.sum(1, keepdims=True)
    k_hat = np.minimum(np.nan_to_num(k_hat, nan=WORST, posinf=WORST), WORST)
    # Vehtari et al. 2024, eq. 13.
    threshold = np.minimum(1 - 1 / np.log10(made), 0.7)
    return Smoothed(weight, 1 / (weight**2).sum(1), k_hat, threshold, evidence)


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


def _pick(key: Array, log_weight: Array, lights: Array) -> Array:
    """One of the light draws of each simulation by its weight, (n, L) of (n, I, L)."""
    chosen = jax.random.categorical(key, log_weight, axis=1)
    return jnp.take_along_axis(lights, chosen[:, None, None], axis=1)[:, 0]


class _Rounds(NamedTuple):
    """Rounds of importance sampling so far.

    Attributes:
        key: For the next.
        n_rounds: How many.
        effective: Effective number of draws.
        proposal: Of the next, for heavy and light entries.
        used: Of all rounds, a leading axis longer.
        heavy: Draws, shape (n, H).
        light: Draws, some for each, shape (n, I, L).
        value: Log posterior, shape (n, I); minus infinity where nothing has been drawn yet.
        log_density: Of the sum of all proposals used, shape (n, I).
    """

    key: Array
    n_rounds: Array
    effective: Array
    proposal: tuple["_Mixture", "_Mixture"]
    used: tuple["_Mixture", "_Mixture"]
    heavy: Array
    light: Array
    value: Array
    log_density: Array

    @property
    def log_weight(self) -> Array:
        """Against the mean of all proposals, shape (n, I)."""
        log_weight = self.value - (self.log_density - jnp.log(self.n_rounds))
        return jnp.where(jnp.isfinite(self.value), log_weight, -jnp.inf)


class _Mixture(NamedTuple):
    """Student-t distributions: log weights (K,), centres (K, P), Cholesky factors (K, P, P)."""

    log_weight: Array
    centre: Array
    factor: Array

    @classmethod
    def about(
        cls, modes: Array, values: Array, covariances: Array, free: Array, key: Array
    ) -> "_Mixture":
        """One component about each mode, weighted by Laplace's evidence."""
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
