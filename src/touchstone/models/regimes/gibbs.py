"""The posterior of an economy of two regimes by Gibbs sampling (Chib 1996).

Each sweep draws the path of regimes from its exact joint posterior, then every block of parameters
from its conditional: coefficients are normal, variances inverse gamma, transitions beta. That the
turbulent variance is the larger one is kept by refusing draws that break it, which is a
Metropolis step whose proposal is the conditional.

Parameters that are drawn given a path stay near it. After the warmup each sweep therefore ends with
Metropolis steps that know no path, since the forward recursion sums over all of them: to a draw of
a t distribution with the moments of the warmup, or along the difference of two draws of it (ter
Braak and Vrugt 2008), which leads from one mode to another.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.stats import norm
from jaxtyping import Float

from touchstone.models.regimes import amortised
from touchstone.models.regimes.economy import Economy, Parameters, Prior, Window, draw_parameters
from touchstone.models.regimes.sequential import Known, innovations
from touchstone.models.regimes.switching import forward, sample_path

N_CHAINS = 4
_N_STARTS = 100  # draws of the prior that chains start from
_THIN = 2  # sweeps for each draw
_N_TRIES = 8  # draws of the variances, of which the last that is in order counts
_N_TOGETHER = 50  # sweeps between two looks, so that one program runs for any number of them
_N_STEPS = 2  # without a path, at the end of each sweep
_N_KEPT = 200  # draws of the warmup that steps are made of
_DOF = 5  # of the t distribution
_FAR = 2.38  # times the difference of two draws, over the root of twice the number of parameters


class Moves(NamedTuple):
    """What steps without a path are made of, of each case.

    Attributes:
        kept: Draws of the warmup in the coordinates of `amortised`, then slopes; shape
            (case, kept, K).
        middle, root: Their mean, and the root of their covariance; shapes (case, K), (case, K, K).
        use: Whether steps are made at all, shape (case,).
    """

    kept: Float[np.ndarray, "case kept k"]
    middle: Float[np.ndarray, "case k"]
    root: Float[np.ndarray, "case k k"]
    use: np.ndarray


class Sampled(NamedTuple):
    """Draws of parameters, and what they say of each date, in standard deviations.

    Attributes:
        parameters: Each array has axes case and draw first.
        r_hat: Largest split R-hat among the quantities of each case.
        turbulent: Probability of the turbulent regime given all dates, shape (case, T).
        filtered: The same given no later date, shape (case, T).
        mean, sd, cdf, density: Of a new outcome, then of a new treatment; shape (case, 2 T).
        innovation: Of outcome and treatment given the dates before, shape (case, 2 T).
        log_evidence: Of each case, by its innovations.
        noise: Mean variance of the errors of outcome and of treatment, shape (case, 2).
    """

    parameters: Parameters
    r_hat: np.ndarray
    turbulent: np.ndarray
    filtered: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    cdf: np.ndarray
    density: np.ndarray
    innovation: np.ndarray
    log_evidence: np.ndarray
    noise: np.ndarray


def sample(
    economy: Economy,
    prior: Prior,
    window: Window,
    rng: np.random.Generator,
    n_warmup: int,
    n_draws: int,
) -> Sampled:
    """Posterior of each case.

    Args:
        economy: That slopes are centred at.
        prior: Of the parameters.
        window: The cases.
        rng: For starts and draws.
        n_warmup: Sweeps of each chain before its draws, at least.
        n_draws: Of each case, shared among the chains.
    """
    n, n_keep = len(window.outcome), -(-n_draws // N_CHAINS)
    # Each chain starts at one of many draws of the prior, by their likelihoods: where the posterior
    # has several modes, chains are shared among these about as it is.
    candidates = draw_parameters(prior, economy, rng, n * _N_STARTS)
    candidates = Parameters(*(a.reshape(n, _N_STARTS, *a.shape[1:]) for a in candidates))
    data = window.outcome, window.treatment, window.controls
    key = jax.random.key(int(rng.integers(2**31)))
    n_warm, n_after = -(-n_warmup // _N_TOGETHER), -(-_THIN * n_keep // _N_TOGETHER)
    first, *keys = jax.random.split(key, 1 + n_warm + n_after)
    now = _starts(jax.random.split(first, (n, N_CHAINS)), candidates, *data)
    centre = jnp.asarray(economy.slope), jnp.asarray(economy.treatment_slope)
    moves, drawn, totals = _no_moves(n, 8 + len(economy.slope)), [], []
    for number, each in enumerate(keys):
        if number == n_warm:
            moves, drawn = _moves(drawn[n_warm // 2 :]), []
        split = jax.random.split(each, (n, N_CHAINS))
        now, draws, sums = _advance(split, now, *data, centre, prior, moves)
        drawn.append(Parameters(*(np.asarray(a, float) for a in draws)))
        if number >= n_warm:
            totals.append([np.asarray(total, float).mean(1) for total in sums])
    draws = _joined(drawn)
    draws = Parameters(*(a[:, :, ::_THIN] for a in draws))
    r_hat = _r_hat(draws)
    flat = Parameters(*(a.reshape(n, -1, *a.shape[3:])[:, :n_draws] for a in draws))
    mean, square, cdf, density, turbulent, filtered = (
        np.mean(each, axis=0) / _N_TOGETHER for each in zip(*totals, strict=True)
    )
    sd = np.sqrt(np.maximum(square - mean**2, 1e-12))
    known = Known(flat.variance.mean(1), flat.stay.mean(1), flat.treatment_variance.mean(1))
    ahead = innovations(economy, prior, window, known)
    innovation = np.concatenate([ahead.outcome, ahead.treatment], axis=1)
    share = turbulent.mean(1)[:, None]
    outcome = ((1 - share) * flat.variance[..., 0] + share * flat.variance[..., 1]).mean(1)
    noise = np.stack([outcome, flat.treatment_variance.mean(1)], axis=1)
    return Sampled(
        flat, r_hat, turbulent, filtered, mean, sd, cdf, density, innovation, ahead.log_evidence,
        noise,
    )  # fmt: skip


def _joined(parts: list[Parameters]) -> Parameters:
    """Draws one after the other, shape (case, chain, draw, ...)."""
    return Parameters(*(np.concatenate(each, axis=2) for each in zip(*parts, strict=True)))


def _no_moves(n: int, k: int) -> Moves:
    root = np.tile(np.eye(k), (n, 1, 1))
    return Moves(np.zeros((n, _N_KEPT, k)), np.zeros((n, k)), root, np.zeros(n))


def _moves(drawn: list[Parameters]) -> Moves:
    """Of the draws of the warmup, all chains together."""
    draws = _joined(drawn)
    n, n_chains, n_each = draws.variance.shape[:3]
    flat = Parameters(*(a.reshape(-1, *a.shape[3:]) for a in draws))
    theta = np.column_stack([amortised.coordinates(flat), flat.slope]).reshape(
        n, -1, 8 + flat.slope.shape[1]
    )
    kept = theta[:, np.linspace(0, n_chains * n_each - 1, _N_KEPT).astype(int)]
    middle = theta.mean(1)
    apart = theta - middle[:, None]
    covariance = np.einsum("nik,nil->nkl", apart, apart) / theta.shape[1]
    root = np.linalg.cholesky(covariance + 1e-6 * np.eye(theta.shape[2]))
    return Moves(kept, middle, root, np.ones(n))


@jax.jit
def _starts(keys, candidates, outcome, treatment, controls):
    """One of the candidates for each chain, by their likelihoods."""

    def start(key, candidates, y, d, x):
        log_density = jax.vmap(lambda each: _forward(each, y, d, x)[-1])(candidates)
        chosen = jax.random.categorical(key, log_density, shape=(N_CHAINS,))
        return jax.tree.map(lambda values: values[chosen], candidates)

    return jax.vmap(start)(keys[:, 0], candidates, outcome, treatment, controls)


@jax.jit
def _advance(keys, states, outcome, treatment, controls, centre, prior, moves):
    """Chains of all cases side by side: their states, every draw, and sums over these sweeps."""

    def chain(key, state, y, d, x, moves):
        def step(carry, key):
            state, sums = carry
            first, second = jax.random.split(key)
            new, said = _sweep(first, state, y=y, d=d, x=x, centre=centre, prior=prior)
            steps = jax.random.split(second, _N_STEPS)
            new, _ = jax.lax.scan(
                lambda old, key: (_step(key, old, y, d, x, centre[0], prior, moves), None),
                new,
                steps,
            )
            return (new, jax.tree.map(jnp.add, sums, said)), new

        shapes = jax.eval_shape(
            lambda: _sweep(key, state, y=y, d=d, x=x, centre=centre, prior=prior)[1]
        )
        nothing = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), shapes)
        keys = jax.random.split(key, _N_TOGETHER)
        (state, sums), draws = jax.lax.scan(step, (state, nothing), keys)
        return state, draws, sums

    of_case = jax.vmap(chain, (0, 0, None, None, None, None))
    return jax.vmap(of_case)(keys, states, outcome, treatment, controls, moves)


def _step(key, now: Parameters, y, d, x, centre, prior: Prior, moves: Moves) -> Parameters:
    """A Metropolis step of all that the outcome depends on; see the head of this file."""
    keys = jax.random.split(key, 6)
    k = moves.middle.shape[0]

    def log_target(theta):
        u, slope = theta[:8], theta[8:]
        evidence = amortised.run_filter(u, y - x @ slope, d)[1]
        of_slope = -0.5 * (((slope - centre) / prior.slope) ** 2).sum()
        return evidence + amortised.log_prior(prior, u) + of_slope

    def log_proposal(theta):
        z = jax.scipy.linalg.solve_triangular(moves.root, theta - moves.middle, lower=True)
        return -0.5 * (_DOF + k) * jnp.log1p((z**2).sum() / _DOF)

    u = amortised.coordinates_of(now)
    old = jnp.concatenate([u, now.slope])
    chi = (jax.random.normal(keys[0], (_DOF,)) ** 2).mean()
    normal = jax.random.normal(keys[1], (k,))
    drawn = moves.middle + moves.root @ normal / jnp.sqrt(chi)
    pair = moves.kept[jax.random.randint(keys[2], (2,), 0, len(moves.kept))]
    size = jnp.where(jax.random.bernoulli(keys[3]), 1.0, _FAR / np.sqrt(2 * k))
    along = old + size * (pair[0] - pair[1])
    independent = jax.random.bernoulli(keys[4])
    new = jnp.where(independent, drawn, along)
    back = jnp.where(independent, log_proposal(old) - log_proposal(new), 0.0)
    before, after = jax.vmap(log_target)(jnp.stack([old, new]))
    gain = after - before + back
    log_uniform = -jax.random.exponential(keys[5])
    accepted = (moves.use > 0) & (log_uniform < gain)
    chosen = jnp.where(accepted, new, old)
    found = amortised.values(chosen[:8])
    stay = jnp.clip(found.stay, 1e-4, 1 - 1e-4)
    of_outcome = found.intercept, found.effect, chosen[8:], found.variance, stay
    return Parameters._make((*of_outcome, now.treatment_slope, now.treatment_variance))


def _forward(now: Parameters, y, d, x):
    """Means of both regimes, transitions, filtered log probabilities, and log evidence."""
    mean = now.intercept + d[:, None] * now.effect + (x @ now.slope)[:, None]
    log_density = norm.logpdf(y[:, None], mean, jnp.sqrt(now.variance))
    off = 1 - now.stay
    transition = jnp.log(jnp.array([[now.stay[0], off[0]], [off[1], now.stay[1]]]))
    _, filtered, log_evidence = forward(log_density, transition, jnp.log(jnp.full(2, 0.5)))
    return mean, transition, filtered, log_evidence


def _sweep(key: Array, now: Parameters, *, y, d, x, centre, prior):
    """One sweep, and what the parameters before it say of each date."""
    keys = jax.random.split(key, 4)
    mean, transition, filtered, _ = _forward(now, y, d, x)
    state = sample_path(keys[0], filtered, transition)
    t_mean = now.treatment_slope[0] + x @ now.treatment_slope[1:]
    said = _said(now, y, d, mean, t_mean, filtered, state)

    inside = jax.nn.one_hot(state, 2)
    design = jnp.concatenate([inside, d[:, None] * inside, x], axis=1)
    j = x.shape[1]
    centres = jnp.concatenate([jnp.zeros(4), centre[0]])
    sizes = jnp.concatenate(
        [jnp.repeat(jnp.array([prior.intercept, prior.effect]), 2), jnp.full(j, prior.slope)]
    )
    coefficient = _regression(keys[1], y, design, 1 / now.variance[state], centres, sizes)
    full = jnp.concatenate([jnp.ones((len(d), 1)), x], axis=1)
    precision = jnp.full(len(d), 1 / now.treatment_variance)
    t_slope = _regression(keys[2], d, full, precision, centre[1], jnp.full(1 + j, prior.slope))

    left, t_left = y - design @ coefficient, d - full @ t_slope
    leaves = (state[:-1] != state[1:]).astype(y.dtype)
    of = inside[:-1]
    shapes = jnp.concatenate(
        [
            jnp.tile(prior.shape + inside.sum(0) / 2, _N_TRIES),
            jnp.array([prior.treatment_shape + len(d) / 2]),
            prior.stay + of.T @ (1 - leaves),
            prior.leave + of.T @ leaves,
        ]
    )
    gammas = jax.random.gamma(keys[3], shapes)
    tries, (t_gamma, *gammas) = gammas[: 2 * _N_TRIES].reshape(-1, 2), gammas[2 * _N_TRIES :]
    variance = now.variance
    for each in tries:
        found = (prior.scale + inside.T @ left**2 / 2) / each
        variance = jnp.where(found[0] < found[1], found, variance)
    t_variance = (prior.treatment_scale + (t_left**2).sum() / 2) / t_gamma
    stays, leaving = jnp.array(gammas[:2]), jnp.array(gammas[2:])
    stay = stays / (stays + leaving)
    stay = jnp.clip(stay, 1e-4, 1 - 1e-4)
    blocks = coefficient[:2], coefficient[2:4], coefficient[4:], variance, stay
    new = Parameters._make((*blocks, t_slope, t_variance))
    return new, said


def _regression(key, target, design, precision, centre, size):
    """Coefficients of a linear regression from their normal conditional."""
    weighted = design * precision[:, None]
    inverse = weighted.T @ design + jnp.diag(1 / size**2)
    root = jnp.linalg.cholesky(inverse)
    mean = jax.scipy.linalg.cho_solve((root, True), weighted.T @ target + centre / size**2)
    noise = jax.random.normal(key, mean.shape)
    return mean + jax.scipy.linalg.solve_triangular(root.T, noise, lower=False)


def _said(now, y, d, mean, t_mean, filtered, state):
    """Moments, distribution and density of a new date, of outcome and treatment; and both
    probabilities of the turbulent regime."""
    every, sd, t_sd = jnp.arange(len(y)), jnp.sqrt(now.variance), jnp.sqrt(now.treatment_variance)
    m, s = mean[every, state], sd[state]
    z, t_z = (y - m) / s, (d - t_mean) / t_sd
    both = jnp.concatenate
    return (
        both([m, t_mean]),
        both([m**2 + s**2, t_mean**2 + t_sd**2]),
        both([norm.cdf(z), norm.cdf(t_z)]),
        both([norm.pdf(z), norm.pdf(t_z)]),
        state.astype(y.dtype),
        jnp.exp(filtered[:, 1]),
    )


def _r_hat(draws: Parameters) -> np.ndarray:
    """Largest split R-hat (Gelman and Rubin 1992) of the quantities of each case."""
    n, chains, keep = draws.variance.shape[:3]
    flat = Parameters(*(a.reshape(-1, *a.shape[3:]) for a in draws)).quantities
    half = keep // 2
    values = np.log(np.maximum(np.abs(flat), 1e-12))
    values[:, :2] = flat[:, :2]
    values = values.reshape(n, chains, keep, -1)[:, :, : 2 * half]
    values = values.reshape(n, 2 * chains, half, -1)
    within = values.var(2, ddof=1).mean(1)
    between = values.mean(2).var(1, ddof=1)
    return np.sqrt((half - 1) / half + between / within).max(1)
