"""Exact re-weighting: draws of an amortised posterior, carried to where the exact model puts them.

From the best draws Fisher scoring climbs to the modes, which with their curvatures make a mixture
of Student-t proposals. Each round of importance sampling draws from it and refits it to the
weighted draws, until enough of them count. The draws of all rounds are used, each weighted by
prior x likelihood / (mean of all proposals), as in adaptive multiple importance sampling (Cornuet
et al. 2012), but in two halves, each proposed by what the other has learnt. A mixture fitted to a
draw of high weight is high at that draw and would take the weight away again: posteriors come out
too narrow, and k-hat is content, since the tails weigh least.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from arviz_stats.base import array_stats
from jax import Array
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm

from touchstone.inference.problem import Problem, repeated
from touchstone.inference.proposals import Mixture, climb

# Two runs agree whose log evidences differ by less: chance makes 0.1 of 200 effective draws in
# each, and a mode that only one has seen is then a quarter of the posterior at most.
AGREEMENT = 0.3
_WORST = 10.0  # k-hat of draws that are no good at all
_ENTRANTS = 3  # climbs that start, for each that arrives: a mode that none enters is lost
_ENOUGH = 2  # effective draws for each free parameter, for a refit
_INNER = 4  # light draws of a simulation
_LEAST_ROUNDS = 3  # before the number of effective draws is believed


class Reweighted(NamedTuple):
    """Weighted draws of one case.

    Attributes:
        z: Draws, shape (n, P); known entries at their values.
        log_weight: Unnormalised, shape (n,); the mean of its exponential is the evidence.
        made: How many draws were made; rows beyond are padding.
        n_simulations: Of the case; a derivative along one entry counts as one.
    """

    z: Array
    log_weight: Array
    made: Array
    n_simulations: Array


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
        n_starts: Climbs that arrive, of `_ENTRANTS` times as many that start: at the best draws of
            as many groups.
        n_improve: Steps of Fisher scoring, at most.
        n_rounds: Rounds of importance sampling, at most.
        n_draws: Draws of a round for each heavy or light entry: a covariance is learnt from them.
            Few large rounds narrow a bent posterior less than many small ones do.
        n_effective: Effective draws for each of these entries that are enough to end the rounds.

    Returns:
        The weighted draws of all rounds.
    """
    free, heavy, light = problem.free, np.array(problem.heavy), np.array(problem.light, int)
    size, n_starts = len(heavy) + len(light), min(n_starts, len(draws))
    inner, n_half = _INNER if light.size else 1, n_draws * size // 2
    warp = problem.coordinates.warp
    log_prior = jax.vmap(problem.coordinates.log_prior, (0, None))
    x = jax.vmap(warp)(draws)
    given_x = x[0]

    def points(x):
        """z of coordinates (n, P); what is known is at its own value, whatever its bounds."""
        return jnp.where(free, jax.vmap(problem.coordinates.unwarp)(x), draws[0])

    def log_posteriors(heavies, lights):
        """At heavy entries (n, H), each with some draws of the light ones (n, I, L)."""
        n, inner, n_light = lights.shape
        x = jnp.tile(given_x, (n, 1)).at[:, heavy].set(heavies)
        z = points(x)
        simulated = jax.vmap(problem.simulate)(z)
        prior = log_prior(x, free.at[light].set(False))
        z, simulated, prior = repeated((z, simulated, prior), inner)
        lights = lights.reshape(n * inner, n_light)
        seen = jax.vmap(problem.residuals)(simulated, z.at[:, light].set(lights))
        prior = prior + (free[light] * norm.logpdf(lights)).sum(1)
        value = prior + jax.vmap(problem.log_likelihood)(*seen)
        return jnp.where(jnp.isfinite(value), value, -jnp.inf).reshape(n, inner)

    start_key, key, pick_key = jax.random.split(key, 3)
    n_groups = min(_ENTRANTS * n_starts, len(draws))
    n_looked = len(draws) // n_groups * n_groups
    groups = draws[:n_looked].reshape(n_groups, -1, draws.shape[1])
    values = log_posteriors(x[:n_looked, heavy], x[:n_looked, None, light])
    starts = groups[jnp.arange(n_groups), values.reshape(n_groups, -1).argmax(1)]
    modes = climb(problem, starts, n_improve=n_improve, n_modes=n_starts)
    centres, slopes = jax.vmap(warp)(modes.z), jax.vmap(jax.jacfwd(warp))(modes.z)
    slopes = jnp.where(free[:, None] & free, slopes, 0.0)  # what is known does not vary
    covariances = slopes @ modes.covariance @ slopes.mT + jnp.diag(jnp.where(free, 0.0, 1.0))
    best = modes.log_posterior.argmax()[None]

    def first(key):
        # What scales the residuals hangs together with what shifts them only weakly: the
        # information of the two is zero in a Gaussian model. So they are proposed apart, and the
        # former, of which each simulation has several draws, about the best mode alone.
        def about(of, which, key):
            covariance = covariances[which][:, of[:, None], of]
            values = modes.log_posterior[which]
            return Mixture.about(centres[which][:, of], values, covariance, free[of], key)

        heavy_key, light_key = jax.random.split(key)
        return about(heavy, jnp.arange(n_starts), heavy_key), about(light, best, light_key)

    # Draws of a Gaussian in d dimensions lie sqrt(d) deviations out: propose one farther. Not so
    # the light ones, whose posteriors are not bent, and of which each simulation has several.
    widen = 1 + 1 / jnp.sqrt(free.sum())

    def log_density(proposal, heavies, lights):
        """Of the proposal, for each simulation and light draw, (n, I)."""
        of_heavy = proposal[0].log_density(heavies, free[heavy])
        of_light = proposal[1].log_density(jax.lax.collapse(lights, 0, 2), free[light])
        return of_heavy[:, None] + of_light.reshape(lights.shape[:2])

    def draw(proposal, key):
        """Simulations (n, H) and some light draws of each (n, I, L)."""
        heavy_key, light_key = jax.random.split(key)
        heavies = proposal[0].draw(heavy_key, n_half)
        lights = proposal[1].draw(light_key, n_half * inner)
        heavies = jnp.where(free[heavy], heavies, given_x[heavy])
        lights = jnp.where(free[light], lights, given_x[light])
        return heavies, lights.reshape(n_half, inner, len(light))

    def refit(proposal, key, heavies, lights, log_weights):
        """The proposal, moved to where these draws weigh."""
        log_weight = logsumexp(log_weights, axis=1)
        weight = _tempered(log_weight, _ENOUGH * free.sum())
        kept = _pick(key, log_weights, lights)
        return (
            proposal[0].refitted(heavies, weight, free[heavy], widen),
            proposal[1].refitted(kept, weight, free[light], 1.0),
        )

    def one_round(state):
        key, draw_key, refit_key = jax.random.split(state.key, 3)
        used = jax.tree.map(
            lambda all, one: all.at[state.n_rounds].set(one), state.used, state.proposal
        )
        heavies, lights = jax.vmap(draw)(state.proposal, jax.random.split(draw_key))
        # Old draws under the new proposal, fresh draws under all.
        of_new = jax.vmap(log_density)(state.proposal, state.heavy, state.light)

        def add(number, total):
            one = jax.tree.map(lambda all: all[number], used)
            return jnp.logaddexp(total, jax.vmap(log_density)(one, heavies, lights))

        of_all = jnp.full((2, n_half, inner), -jnp.inf)
        of_all = jax.lax.fori_loop(0, state.n_rounds + 1, add, of_all)
        together = (a.reshape(2 * n_half, *a.shape[2:]) for a in (heavies, lights))
        values = log_posteriors(*together).reshape(of_all.shape)

        def put(all, one):
            return jax.lax.dynamic_update_slice_in_dim(all, one, state.n_rounds * n_half, 1)

        state = state._replace(
            key=key,
            n_rounds=state.n_rounds + 1,
            used=used,
            heavy=put(state.heavy, heavies),
            light=put(state.light, lights),
            value=put(state.value, values),
            log_density=put(jnp.logaddexp(state.log_density, of_new), of_all),
        )
        # Each half's proposal, moved to where the other half's draws weigh.
        others = (a[::-1] for a in (state.heavy, state.light, state.log_weight))
        proposal = jax.vmap(refit)(state.proposal, jax.random.split(refit_key), *others)
        log_weight = logsumexp(state.log_weight, axis=2).ravel()
        effective = 1 / (jax.nn.softmax(log_weight) ** 2).sum()
        return state._replace(proposal=proposal, effective=effective)

    def unfinished(state):
        few = (state.n_rounds < _LEAST_ROUNDS) | ~(state.effective >= n_effective * size)
        return few & (state.n_rounds < n_rounds)

    n, proposal = n_rounds * n_half, jax.vmap(first)(jax.random.split(start_key))
    state = _Rounds(
        key=key,
        n_rounds=jnp.asarray(0),
        effective=jnp.asarray(0.0),
        proposal=proposal,
        used=jax.tree.map(lambda a: jnp.broadcast_to(a, (n_rounds, *a.shape)), proposal),
        heavy=jnp.tile(given_x[heavy], (2, n, 1)),
        light=jnp.tile(given_x[light], (2, n, inner, 1)),
        value=jnp.full((2, n, inner), -jnp.inf),
        log_density=jnp.full((2, n, inner), -jnp.inf),
    )
    state = jax.lax.while_loop(unfinished, one_round, state)
    # The halves in turn, so that those made come first.
    heavies, lights, log_weights = (
        jnp.swapaxes(a, 0, 1).reshape(2 * n, *a.shape[2:])
        for a in (state.heavy, state.light, state.log_weight)
    )
    z = points(jnp.tile(given_x, (2 * n, 1)).at[:, heavy].set(heavies))
    z = z.at[:, light].set(_pick(pick_key, log_weights, lights))
    log_weight = logsumexp(log_weights, axis=1) - jnp.log(inner)
    made = state.n_rounds * 2 * n_half
    n_climbed = modes.n_steps * (1 + len(heavy))
    return Reweighted(z, log_weight, made, n_looked + n_climbed + made)


class Pooled(NamedTuple):
    """Weighted draws of all runs of one case, and how far to trust them.

    Attributes:
        z: Shape (n, P).
        weight: Pareto-smoothed, shape (n,), sums to one.
        effective: Effective number of draws (Kish).
        k_hat: Shape of the Pareto tail of the weights, at most `_WORST`.
        k_threshold: Largest k-hat at which so many draws can be trusted.
        log_evidence: Of the observation.
        disagreement: Log evidence of the best run less that of the next.
        n_simulations: Of all runs.
    """

    z: np.ndarray
    weight: np.ndarray
    effective: float
    k_hat: float
    k_threshold: float
    log_evidence: float
    disagreement: float
    n_simulations: int

    @property
    def trusted(self) -> bool:
        """Whether nothing objects to the draws."""
        return self.k_hat <= self.k_threshold and self.disagreement <= AGREEMENT


def agree(run: Callable[[int], Reweighted], n_runs: int) -> Pooled:
    """Run independently until two runs agree and the tail of all weights is light; pool all.

    k-hat sees only what some proposal visits; a mode that one run found and another missed shows
    in their evidences. Their mean is the evidence of all draws together.

    Args:
        run: Of the case, by its number.
        n_runs: At most, and at least two.
    """
    runs = [run(0)]
    pooled = None
    while len(runs) < n_runs and not (pooled and pooled.trusted):
        runs.append(run(len(runs)))
        pooled = _pool([jax.tree.map(np.asarray, each) for each in runs])
    return pooled


def _pool(runs: list[Reweighted]) -> Pooled:
    """All runs as one, each weighted by its evidence."""
    made = [int(each.made) for each in runs]
    z = np.concatenate([each.z[:n] for each, n in zip(runs, made, strict=True)])
    log_weight = np.concatenate(
        [each.log_weight[:n] - np.log(n) for each, n in zip(runs, made, strict=True)]
    )
    weight, k_hat = smooth(log_weight)
    return Pooled(
        z,
        weight,
        1 / (weight**2).sum(),
        k_hat,
        k_threshold(len(weight)),
        _log_sum(log_weight) - np.log(len(runs)),
        _disagreement(runs),
        sum(int(each.n_simulations) for each in runs),
    )


def _disagreement(runs: list[Reweighted]) -> float:
    """Log evidence of the best run less that of the next."""
    evidence = [_log_sum(run.log_weight[: run.made]) - np.log(run.made) for run in runs]
    next_best, best = np.sort(evidence)[-2:]
    return float(best - next_best) if np.isfinite(best) else np.inf


def _log_sum(values: np.ndarray) -> float:
    top = values.max()
    return float(top + np.log(np.exp(values.astype(float) - top).sum())) if top > -np.inf else top


def smooth(log_weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights, the largest smoothed by a Pareto tail (Vehtari et al. 2024), by ArviZ.

    Args:
        log_weight: Unnormalised, shape (n,).

    Returns:
        Weights that sum to one, and k-hat; of draws that are all impossible, equal weights.
    """
    if not np.isfinite(log_weight).any():
        return np.full(len(log_weight), 1 / len(log_weight)), _WORST
    # ArviZ takes log likelihoods to be divided out, hence the sign.
    smoothed, k_hat = array_stats.psislw(-log_weight.astype(float))
    # Of very few possible draws it takes some impossible ones for the tail.
    weight = np.where(np.isfinite(log_weight), np.exp(smoothed - smoothed.max()), 0.0)
    k_hat = float(np.nan_to_num(k_hat, nan=_WORST, posinf=_WORST))
    return weight / weight.sum(), min(k_hat, _WORST)


def k_threshold(n: int) -> float:
    """Largest k-hat at which n draws can be trusted (Vehtari et al. 2024, eq. 13)."""
    return min(1 - 1 / np.log10(n), 0.7)


def resample(weight: np.ndarray, n: int) -> np.ndarray:
    """Indices of n equally weighted draws, by resampling at the midpoints of equal parts.

    Args:
        weight: Shape (draws,), sums to one.
        n: How many.
    """
    ends = np.cumsum(weight)
    comb = (np.arange(n) + 0.5) / n
    return np.minimum(np.searchsorted(ends / ends[-1], comb, side="right"), len(weight) - 1)


def _tempered(log_weight: Array, enough: Array) -> Array:
    """Normalised weights, flattened until `enough` draws count (for the refit only)."""
    powers = jnp.linspace(0.05, 1.0, 20)
    scaled = jnp.where(jnp.isfinite(log_weight), powers[:, None] * log_weight, -jnp.inf)
    weights = jnp.nan_to_num(jax.nn.softmax(scaled, axis=1))  # none, if no draw is possible
    sufficient = 1 / (weights**2).sum(1) > enough
    return weights[jnp.maximum(sufficient.sum() - 1, 0)]


def _pick(key: Array, log_weight: Array, lights: Array) -> Array:
    """One of the light draws of each simulation by its weight, (n, L) of (n, I, L)."""
    chosen = jax.random.categorical(key, log_weight, axis=1)
    return jnp.take_along_axis(lights, chosen[:, None, None], axis=1)[:, 0]


class _Rounds(NamedTuple):
    """Rounds of importance sampling so far; the two halves are a leading axis.

    Attributes:
        key: For the next.
        n_rounds: How many.
        effective: Effective number of draws, of both halves.
        proposal: Of the next, for heavy and light entries.
        used: Of all rounds, another axis in front.
        heavy: Draws, shape (2, n, H).
        light: Draws, some for each, shape (2, n, I, L).
        value: Log posterior, shape (2, n, I); minus infinity where nothing has been drawn yet.
        log_density: Of the sum of all proposals used, shape (2, n, I).
    """

    key: Array
    n_rounds: Array
    effective: Array
    proposal: tuple["Mixture", "Mixture"]
    used: tuple["Mixture", "Mixture"]
    heavy: Array
    light: Array
    value: Array
    log_density: Array

    @property
    def log_weight(self) -> Array:
        """Against the mean of all proposals of the half, shape (2, n, I)."""
        log_weight = self.value - (self.log_density - jnp.log(self.n_rounds))
        return jnp.where(jnp.isfinite(self.value), log_weight, -jnp.inf)
