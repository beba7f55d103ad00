"""A latent Markov state: exact probabilities of every date, paths, and how many regimes there are.

The state of date t is seen through a density that depends on it. The recursions are those of
Hamilton (1989) forwards and of Kim (1994) backwards, in logarithms, so that they are exact for any
length. Filtered probabilities use no later date; smoothed ones use all dates.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp
from jaxtyping import Float

_LEAST_VARIANCE = 1e-3  # of a regime, in variances of the outcome: less than that fits single dates
_LEAST_STAY = 1e-3  # transitions that are counted besides, so that no regime is left for ever
_DONE = 1e-7  # gain of the log likelihood for each date, below which the fit has converged


class States(NamedTuple):
    """What the dates say of a latent state with K values.

    Attributes:
        predicted: Log probability of each state given all earlier dates, shape (T, K).
        filtered: Log probability given all dates up to this one, shape (T, K).
        smoothed: Log probability given all dates, shape (T, K).
        pairs: Expected number of transitions from one state (row) to another, shape (K, K).
        log_evidence: Log density of all dates.
    """

    predicted: Float[Array, "date state"]
    filtered: Float[Array, "date state"]
    smoothed: Float[Array, "date state"]
    pairs: Float[Array, "state state"]
    log_evidence: Float[Array, ""]


def forward(
    log_density: Float[Array, "date state"],
    log_transition: Float[Array, "*date state state"],
    log_start: Float[Array, " state"],
) -> tuple[Array, Array, Array]:
    """Predicted and filtered log probabilities, and the log evidence.

    Args:
        log_density: Of each date under each state.
        log_transition: From state (row) to state (column) of the next date; the same at all dates,
            or one for each.
        log_start: Of the state of the first date.
    """

    def step(predicted, now):
        density, transition = now
        joint = predicted + density
        evidence = logsumexp(joint)
        filtered = joint - evidence
        ahead = logsumexp(filtered[:, None] + transition, axis=0)
        return ahead, (predicted, filtered, evidence)

    every = jnp.broadcast_to(log_transition, (len(log_density), *log_transition.shape[-2:]))
    _, (predicted, filtered, evidence) = jax.lax.scan(step, log_start, (log_density, every))
    return predicted, filtered, evidence.sum()


def forward_backward(
    log_density: Float[Array, "date state"],
    log_transition: Float[Array, "state state"],
    log_start: Float[Array, " state"],
) -> States:
    """All probabilities of the state of every date; arguments as in `forward`."""
    predicted, filtered, evidence = forward(log_density, log_transition, log_start)

    def step(later, now):
        smoothed_later, predicted_later = later
        predicted_now, filtered_now = now
        pair = filtered_now[:, None] + log_transition + (smoothed_later - predicted_later)
        smoothed_now = logsumexp(pair, axis=1)
        return (smoothed_now, predicted_now), (smoothed_now, jnp.exp(pair))

    last = filtered[-1], predicted[-1]
    _, (before, pairs) = jax.lax.scan(step, last, (predicted[:-1], filtered[:-1]), reverse=True)
    smoothed = jnp.concatenate([before, filtered[-1:]])
    return States(predicted, filtered, smoothed, pairs.sum(0), evidence)


def sample_path(
    key: Array, filtered: Float[Array, "date state"], log_transition: Float[Array, "state state"]
) -> Array:
    """A path of states from their joint posterior, shape (T,) (Chib 1996)."""
    noise = jax.random.gumbel(key, filtered.shape)
    last = jnp.argmax(filtered[-1] + noise[-1])

    def step(later, now):
        log_probability, gumbel = now
        state = jnp.argmax(log_probability + log_transition[:, later] + gumbel)
        return state, state

    _, before = jax.lax.scan(step, last, (filtered[:-1], noise[:-1]), reverse=True)
    return jnp.concatenate([before, last[None]])


def stationary(transition: Float[np.ndarray, "state state"]) -> Float[np.ndarray, " state"]:
    """Long-run probabilities of the states."""
    k = len(transition)
    equations = np.vstack([transition.T - np.eye(k), np.ones(k)])
    return np.linalg.lstsq(equations, np.r_[np.zeros(k), 1.0])[0]


class Switching(NamedTuple):
    """A regression whose intercept and error variance depend on a Markov state.

    Attributes:
        intercept: Of each state; states are in the order of their error variance, shape (K,).
        slope: Common to all states, shape (J,).
        variance: Of the errors in each state, shape (K,).
        transition: From state (row) to state (column), shape (K, K).
        log_likelihood: Of the data that it was fitted to.
        bic: Schwarz's criterion; minus half of it approximates the log evidence.
    """

    intercept: Float[np.ndarray, " state"]
    slope: Float[np.ndarray, " regressor"]
    variance: Float[np.ndarray, " state"]
    transition: Float[np.ndarray, "state state"]
    log_likelihood: float
    bic: float

    def states(
        self, outcome: Float[np.ndarray, " date"], design: Float[np.ndarray, "date regressor"]
    ) -> States:
        """Probabilities of the states of some dates, as NumPy arrays."""
        with jax.enable_x64(True):
            residual = outcome - design @ self.slope
            found = _e_step(residual, self.intercept, self.variance, self.transition)
            return States(*map(np.asarray, found))

    def ahead(self, filtered: np.ndarray, dates: int) -> Float[np.ndarray, "date state"]:
        """Probabilities of the state of each date, given the data of those at least `dates`
        earlier; the long-run probabilities where there is none.

        Args:
            filtered: Log probabilities, shape (T, K).
            dates: Number of dates between what is known and the state, at least 1.
        """
        known = np.exp(filtered) @ np.linalg.matrix_power(self.transition, dates)
        first = np.tile(stationary(self.transition), (min(dates, len(known)), 1))
        return np.concatenate([first, known[:-dates]])


@jax.jit
def _e_step(residual, intercept, variance, transition):
    apart = residual[:, None] - intercept
    log_density = -0.5 * (apart**2 / variance + jnp.log(2 * jnp.pi * variance))
    k = len(intercept)
    equations = jnp.vstack([transition.T - jnp.eye(k), jnp.ones(k)])
    right = jnp.zeros(k + 1).at[-1].set(1.0)
    start = jnp.linalg.solve(equations.T @ equations, equations.T @ right)
    log_start = jnp.log(jnp.maximum(start, 1e-300))
    return forward_backward(log_density, jnp.log(transition), log_start)


def fit(
    outcome: Float[np.ndarray, " date"],
    design: Float[np.ndarray, "date regressor"],
    n_states: int,
    rng: np.random.Generator,
    n_starts: int = 4,
    n_steps: int = 200,
    counted: Float[np.ndarray, "state state"] | float = _LEAST_STAY,
) -> Switching:
    """Maximum likelihood by expectation maximisation (Hamilton 1990), the best of several starts.

    Args:
        outcome: Of every date.
        design: Regressors with a slope common to all states; it may have no column.
        n_states: Number of states.
        rng: For the starts.
        n_starts: Number of starts.
        n_steps: Most steps from each start.
        counted: Transitions that count as if they had been seen, states in the order of their error
            variance: those of a Dirichlet prior less one make its posterior's mode.
    """
    y, x = np.asarray(outcome, float), np.asarray(design, float)
    found = [
        _climb(y, x, n_states, rng, n_steps, counted)
        for _ in range(1 if n_states == 1 else n_starts)
    ]
    return max(found, key=lambda each: each.log_likelihood)


def _climb(
    outcome: np.ndarray,
    design: np.ndarray,
    k: int,
    rng: np.random.Generator,
    n_steps: int,
    counted: np.ndarray | float,
) -> Switching:
    full = np.column_stack([np.ones(len(outcome)), design])
    slope = np.linalg.lstsq(full, outcome)[0][1:]
    residual = outcome - design @ slope
    spread = residual.var()
    intercept = residual.mean() + 0.5 * np.sqrt(spread) * rng.standard_normal(k)
    variance = spread * np.geomspace(0.3, 2.0, k) if k > 1 else np.array([spread])
    transition = np.full((k, k), 0.1 / max(k - 1, 1)) if k > 1 else np.ones((1, 1))
    np.fill_diagonal(transition, 0.9 if k > 1 else 1.0)
    before = -np.inf
    for _ in range(n_steps):
        with jax.enable_x64(True):
            states = _e_step(outcome - design @ slope, intercept, variance, transition)
        weight = np.exp(np.asarray(states.smoothed))
        now = float(states.log_evidence)
        if now - before < _DONE * len(outcome):
            break
        before = now
        pairs = np.asarray(states.pairs) + counted
        transition = pairs / pairs.sum(1, keepdims=True)
        # Slopes given variances, then intercepts and variances given slopes: each step climbs.
        precision = weight / variance
        total = precision.sum(1)
        target = (precision * (outcome[:, None] - intercept)).sum(1) / total
        if design.shape[1]:
            slope = np.linalg.lstsq(design * np.sqrt(total)[:, None], target * np.sqrt(total))[0]
        residual = outcome - design @ slope
        mass = np.maximum(weight.sum(0), 1e-9)
        intercept = weight.T @ residual / mass
        variance = (weight * (residual[:, None] - intercept) ** 2).sum(0) / mass
        variance = np.maximum(variance, _LEAST_VARIANCE * spread)
    order = np.argsort(variance)
    n_free = 2 * k + len(slope) + k * (k - 1)
    bic = -2 * before + n_free * np.log(len(outcome))
    transition = transition[np.ix_(order, order)]
    return Switching(intercept[order], slope, variance[order], transition, before, float(bic))


def probabilities(fits: list[Switching]) -> Float[np.ndarray, " fit"]:
    """Posterior probability of each number of states under a uniform prior (Schwarz 1978)."""
    evidence = -0.5 * np.array([each.bic for each in fits])
    weight = np.exp(evidence - evidence.max())
    return weight / weight.sum()
