"""A posterior of a window's regimes in milliseconds: a causal transformer, and its exact judge.

The network reads outcome and treatment date by date, and says after each what it knows: the
probability of the turbulent regime, and a normal distribution of the parameters. It learns this
from economies of the prior, so that it stands for the posterior of both (neural posterior
estimation, Papamakarios and Murray 2016). Attention is masked: no date sees a later one. What it
says of the parameters is a proposal only: the exact likelihood, by the forward recursion, weighs
its draws, and says by their effective number how good the proposal was.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.scipy.special import gammaln
from jax.scipy.stats import beta, norm
from jaxtyping import ArrayLike, Float

from touchstone.io.artifacts import ArtifactError
from touchstone.models.regimes.economy import Parameters, Prior
from touchstone.models.regimes.switching import forward, forward_backward

FILE = "regime_posterior.eqx"
N_PARAMETERS = 8
N_DRAWS = 1000  # of each proposal
_WIDTH, _N_HEADS, _N_BLOCKS = 32, 4, 2
_N_WAVES = 8  # sines and cosines of the number of the date
_LONGEST_WAVE = 1000.0  # dates
_DOF = 5.0  # of the proposal's tails, heavier than those of a normal distribution
_BATCH, _LEARNING_RATE = 32, 3e-3
_LEAST_STAY = 1e-4
_N_ROUNDS = 4  # proposals, one after the other
_LEAST_EFFECTIVE = 60  # draws, that the moments of a proposal are of


def coordinates(parameters: Parameters) -> Float[np.ndarray, "economy 8"]:
    """Unbounded coordinates: effects, intercepts, log of the calm variance, log of the part by
    which the turbulent one is larger, logits of staying."""
    calm, turbulent = parameters.variance.T
    stay = np.clip(parameters.stay, _LEAST_STAY, 1 - _LEAST_STAY)
    larger = np.log(np.expm1(np.log(turbulent) - np.log(calm)))
    return np.column_stack(
        [parameters.effect, parameters.intercept, np.log(calm), larger, np.log(stay / (1 - stay))]
    )


def parameters(u: Float[np.ndarray, "economy 8"]) -> "Values":
    """The inverse of `coordinates`, shape (economy, 2) each."""
    variance = np.exp(u[:, 4:5]) * np.column_stack([np.ones(len(u)), 1 + np.exp(u[:, 5])])
    return Values(u[:, :2], u[:, 2:4], variance, 1 / (1 + np.exp(-u[:, 6:])))


def coordinates_of(now: Parameters) -> Float[Array, " 8"]:
    """Coordinates of one economy; see `coordinates`."""
    calm, turbulent = jnp.log(now.variance)
    stay = jnp.clip(now.stay, _LEAST_STAY, 1 - _LEAST_STAY)
    larger = jnp.log(jnp.expm1(jnp.maximum(turbulent - calm, 1e-6)))
    both = jnp.concatenate([now.effect, now.intercept])
    return jnp.concatenate([both, jnp.stack([calm, larger]), jnp.log(stay / (1 - stay))])


class Values(NamedTuple):
    """Parameters by regime, shape (2,) each, of one economy, or of many."""

    effect: Array | np.ndarray
    intercept: Array | np.ndarray
    variance: Array | np.ndarray
    stay: Array | np.ndarray


def values(u: Float[Array, " 8"]) -> Values:
    """Parameters from their coordinates."""
    variance = jnp.exp(u[4]) * jnp.stack([jnp.ones_like(u[5]), 1 + jnp.exp(u[5])])
    return Values(u[:2], u[2:4], variance, jax.nn.sigmoid(u[6:]))


def log_prior(prior: Prior, u: Float[Array, " 8"]) -> Array:
    """Log density of coordinates, but for that of calm being calm."""
    effect, intercept, variance, stay = values(u)
    shape, scale = jnp.asarray(prior.shape), jnp.asarray(prior.scale)
    gamma = shape * jnp.log(scale) - gammaln(shape) - (shape + 1) * jnp.log(variance)
    gamma = gamma - scale / variance
    turns = beta.logpdf(stay, jnp.asarray(prior.stay), jnp.asarray(prior.leave))
    jacobian = 2 * u[4] + u[5] + jnp.log(stay * (1 - stay)).sum()
    return (
        norm.logpdf(effect, scale=prior.effect).sum()
        + norm.logpdf(intercept, scale=prior.intercept).sum()
        + gamma.sum()
        + turns.sum()
        + jacobian
    )


def run_filter(
    u: Float[Array, " 8"], outcome: Float[Array, " date"], treatment: Float[Array, " date"]
) -> tuple[Array, Array]:
    """Filtered log probabilities, shape (T, 2), and log evidence, by the exact recursion.

    Args:
        u: Coordinates.
        outcome: Less what the controls explain of it.
        treatment: Of the same dates.
    """
    return forward(*_chain(u, outcome, treatment))[1:]


def _chain(u: Array, outcome: Array, treatment: Array) -> tuple[Array, Array, Array]:
    """Log densities, transitions and start of the regimes."""
    effect, intercept, variance, stay = values(u)
    mean = intercept + treatment[:, None] * effect
    density = norm.logpdf(outcome[:, None], mean, jnp.sqrt(variance))
    stay = jnp.clip(stay, _LEAST_STAY, 1 - _LEAST_STAY)
    transition = jnp.log(jnp.array([[stay[0], 1 - stay[0]], [1 - stay[1], stay[1]]]))
    return density, transition, jnp.log(jnp.full(2, 0.5))


@jax.jit
def predictions(
    u: Float[Array, "draw 8"],
    slope: Float[Array, "draw control"],
    outcome: Float[Array, " date"],
    treatment: Float[Array, " date"],
    controls: Float[Array, "date control"],
) -> Float[Array, "6 date"]:
    """Mean, standard deviation, distribution and density, at each date, of a new outcome in the
    regime that the date was in, whatever that was; and the probability that it was the turbulent
    one, given all dates and given no later one."""

    def of_draw(u, b):
        left = outcome - controls @ b
        now = values(u)
        states = forward_backward(*_chain(u, left, treatment))
        p = jnp.exp(states.smoothed)
        mean = now.intercept + treatment[:, None] * now.effect + (controls @ b)[:, None]
        sd = jnp.sqrt(now.variance)
        z = (outcome[:, None] - mean) / sd
        rows = mean, mean**2 + sd**2, norm.cdf(z), norm.pdf(z) / sd
        of_outcome = [(p * row).sum(1) for row in rows]
        return jnp.stack([*of_outcome, p[:, 1], jnp.exp(states.filtered[:, 1])])

    mean, square, *others = jax.vmap(of_draw)(u, slope).mean(0)
    return jnp.stack([mean, jnp.sqrt(jnp.maximum(square - mean**2, 1e-12)), *others])


class Said(NamedTuple):
    """What the network says after each date.

    Attributes:
        logit: Of the turbulent regime, shape (T,).
        mean: Of the coordinates, in standard deviations of the prior, shape (T, 8).
        root: Lower triangular root of their precision, shape (T, 8, 8).
    """

    logit: Float[Array, " date"]
    mean: Float[Array, "date 8"]
    root: Float[Array, "date 8 8"]


class _Block(eqx.Module):
    attention: eqx.nn.MultiheadAttention
    layers: eqx.nn.MLP
    first: eqx.nn.LayerNorm
    second: eqx.nn.LayerNorm

    def __init__(self, *, key: Array):
        keys = jax.random.split(key)
        self.attention = eqx.nn.MultiheadAttention(_N_HEADS, _WIDTH, key=keys[0])
        self.layers = eqx.nn.MLP(_WIDTH, _WIDTH, 2 * _WIDTH, 1, jax.nn.gelu, key=keys[1])
        self.first, self.second = eqx.nn.LayerNorm(_WIDTH), eqx.nn.LayerNorm(_WIDTH)

    def __call__(self, h: Float[Array, "date width"]) -> Float[Array, "date width"]:
        seen = jnp.tril(jnp.ones((len(h), len(h)), bool))
        a = jax.vmap(self.first)(h)
        h = h + self.attention(a, a, a, mask=seen)
        return h + jax.vmap(self.layers)(jax.vmap(self.second)(h))


class RegimeNet(eqx.Module):
    """Causal transformer over the dates of a window.

    It is given what the exact filter says at the mean of the prior, and says by how much a
    posterior of the parameters changes this.

    Args:
        centre, scale: Mean and standard deviation of the coordinates under the prior.
        key: For the initial weights.
    """

    lift: eqx.nn.MLP
    blocks: list[_Block]
    out: eqx.nn.Linear
    centre: Float[Array, " 8"]
    scale: Float[Array, " 8"]

    def __init__(self, centre: np.ndarray, scale: np.ndarray, *, key: Array):
        keys = jax.random.split(key, _N_BLOCKS + 2)
        self.lift = eqx.nn.MLP(3 + 2 * _N_WAVES, _WIDTH, _WIDTH, 1, jax.nn.gelu, key=keys[0])
        self.blocks = [_Block(key=each) for each in keys[2:]]
        n_out = 1 + N_PARAMETERS + N_PARAMETERS * (N_PARAMETERS + 1) // 2
        out = eqx.nn.Linear(_WIDTH, n_out, key=keys[1])
        self.out = eqx.tree_at(lambda layer: layer.weight, out, 0.1 * out.weight)
        self.centre, self.scale = jnp.asarray(centre, jnp.float32), jnp.asarray(scale, jnp.float32)

    def __call__(self, outcome: Float[Array, " date"], treatment: Float[Array, " date"]) -> Said:
        filtered, _ = run_filter(jax.lax.stop_gradient(self.centre), outcome, treatment)
        logit = filtered[:, 1] - filtered[:, 0]
        lengths = jnp.geomspace(4.0, _LONGEST_WAVE, _N_WAVES)
        angle = 2 * jnp.pi * jnp.arange(len(outcome))[:, None] / lengths
        columns = [outcome, treatment, logit / 4]
        given = jnp.concatenate([jnp.stack(columns, 1), jnp.sin(angle), jnp.cos(angle)], axis=1)
        h = jax.vmap(self.lift)(given)
        for block in self.blocks:
            h = block(h)
        said = jax.vmap(self.out)(h)
        lower = jnp.zeros((len(h), N_PARAMETERS, N_PARAMETERS))
        lower = lower.at[(slice(None), *np.tril_indices(N_PARAMETERS))].set(
            said[:, 1 + N_PARAMETERS :]
        )
        every = jnp.arange(N_PARAMETERS)
        root = lower.at[:, every, every].set(jnp.exp(lower[:, every, every]))
        return Said(logit + said[:, 0], said[:, 1 : 1 + N_PARAMETERS], root)


def load(file: Path) -> RegimeNet:
    """A network from its file.

    Raises:
        ArtifactError: If the file is no such network.
    """
    blank = RegimeNet(np.zeros(N_PARAMETERS), np.ones(N_PARAMETERS), key=jax.random.key(0))
    try:
        return eqx.tree_deserialise_leaves(file, blank)
    except (RuntimeError, ValueError, EOFError) as error:
        raise ArtifactError(f"{file}: is no network of this model ({error})") from None


class Learnt(NamedTuple):
    """A trained network, and its loss at each step: cross-entropy of the regimes, in nats."""

    net: RegimeNet
    losses: np.ndarray


def train(
    draw: Callable[[int], Parameters],
    n_dates: int,
    n_steps: int,
    rng: np.random.Generator,
    treatment_sd: float = 1.0,
) -> Learnt:
    """Train on economies of the prior.

    Args:
        draw: Draws of the prior.
        n_dates: Of each series.
        n_steps: Number of steps.
        rng: For all randomness.
        treatment_sd: Standard deviation of the treatment.
    """
    pool = coordinates(draw(50_000))
    key, first = jax.random.split(jax.random.key(int(rng.integers(2**31))))
    net = RegimeNet(pool.mean(0), pool.std(0), key=first)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, _LEARNING_RATE, max(n_steps // 20, 1), n_steps
    )
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    pool = jnp.asarray(pool, jnp.float32)

    def loss(net: RegimeNet, key: Array) -> tuple[Array, Array]:
        which, keys = jax.random.split(key)
        u = pool[jax.random.randint(which, (_BATCH,), 0, len(pool))]
        draw_series = partial(simulate, n_dates=n_dates, treatment_sd=treatment_sd)
        outcome, treatment, state = jax.vmap(draw_series)(u, jax.random.split(keys, _BATCH))
        said = jax.vmap(net)(outcome, treatment)
        entropy = optax.sigmoid_binary_cross_entropy(said.logit, state).mean()
        z = ((u - net.centre) / net.scale)[:, None] - said.mean
        z = jnp.einsum("ntij,ntj->nti", said.root, z)
        log_root = jnp.log(jnp.diagonal(said.root, axis1=2, axis2=3))
        of_parameters = (0.5 * z**2 - log_root).mean()
        return entropy + of_parameters, entropy

    @eqx.filter_jit
    def steps(net: RegimeNet, state: optax.OptState, keys: Array):
        arrays, static = eqx.partition(net, eqx.is_array)

        def step(carry, key):
            arrays, state = carry
            grads, entropy = eqx.filter_grad(loss, has_aux=True)(eqx.combine(arrays, static), key)
            updates, state = optimiser.update(grads, state, arrays)
            # Those of the prior stay as they are.
            updates = eqx.tree_at(lambda net: (net.centre, net.scale), updates, (zero, zero))
            return (eqx.apply_updates(arrays, updates), state), entropy

        zero = jnp.zeros(N_PARAMETERS)
        (arrays, state), entropy = jax.lax.scan(step, (arrays, state), keys)
        return eqx.combine(arrays, static), state, entropy

    state = optimiser.init(eqx.filter(net, eqx.is_array))
    net, _, losses = steps(net, state, jax.random.split(key, n_steps))
    return Learnt(net, np.asarray(losses, float))


def simulate(u: Array, key: Array, n_dates: int, treatment_sd: float) -> tuple[Array, Array, Array]:
    """Outcome, treatment and regime of each date of an economy without controls."""
    effect, intercept, variance, stay = values(u)
    keys = jax.random.split(key, 4)
    treatment = treatment_sd * jax.random.normal(keys[0], (n_dates,))
    uniform = jax.random.uniform(keys[1], (n_dates,))

    def step(state, chance):
        return jnp.where(chance < stay[state], state, 1 - state), state

    first = jax.random.bernoulli(keys[2]).astype(int)
    _, state = jax.lax.scan(step, first, uniform)
    noise = jax.random.normal(keys[3], (n_dates,))
    outcome = intercept[state] + effect[state] * treatment + jnp.sqrt(variance[state]) * noise
    return outcome, treatment, state.astype(outcome.dtype)


class Judged(NamedTuple):
    """Draws of one window, and how the exact likelihood weighs them.

    Attributes:
        u: Coordinates, shape (draw, 8).
        slope: Of the outcome on the controls, shape (draw, J).
        log_weight: Of each, unnormalised.
        filtered: Probability of the turbulent regime given no later date, of each, shape (draw, T).
        network: The same as the network says it, shape (T,).
    """

    u: Float[Array, "draw 8"]
    slope: Float[Array, "draw control"]
    log_weight: Float[Array, " draw"]
    filtered: Float[Array, "draw date"]
    network: Float[Array, " date"]


@eqx.filter_jit
def judge(
    net: RegimeNet,
    prior: Prior,
    centre: Float[ArrayLike, " control"],
    outcome: Float[ArrayLike, " date"],
    treatment: Float[ArrayLike, " date"],
    controls: Float[ArrayLike, "date control"],
    key: Array,
    n_draws: int,
) -> Judged:
    """Draws of the posterior of a window, weighted by its exact likelihood.

    The network proposes; each further proposal has the moments of the draws before, as the
    likelihood weighs them (population Monte Carlo, Cappe et al. 2004).

    Args:
        net: The network.
        prior: Of the parameters.
        centre: Of the prior of the slopes.
        outcome, treatment, controls: Of the window.
        key: For the draws.
        n_draws: Of each proposal.
    """
    centre, outcome, treatment, controls = map(jnp.asarray, (centre, outcome, treatment, controls))
    mean, factor = _slopes(prior, centre, outcome, treatment, controls)
    said = net(outcome - controls @ mean, treatment)
    j = len(centre)

    def parts(theta: Array) -> tuple[Array, Array]:
        u = net.centre + net.scale * theta[:N_PARAMETERS]
        return u, centre + prior.slope * theta[N_PARAMETERS:]

    def log_target(theta: Array) -> tuple[Array, Array]:
        u, slope = parts(theta)
        filtered, evidence = run_filter(u, outcome - controls @ slope, treatment)
        density = evidence + log_prior(prior, u) + norm.logpdf(slope, centre, prior.slope).sum()
        return density, jnp.exp(filtered[:, 1])

    def propose(middle: Array, root: Array, key: Array) -> tuple[Array, Array, Array]:
        first, second = jax.random.split(key)
        normal = jax.random.normal(first, (n_draws, N_PARAMETERS + j))
        chi = 2 * jax.random.gamma(second, _DOF / 2, (n_draws, 1)) / _DOF
        z = normal / jnp.sqrt(chi)
        theta = middle + z @ root.T
        density, filtered = jax.vmap(log_target)(theta)
        log_proposal = -0.5 * (_DOF + N_PARAMETERS + j) * jnp.log1p((z**2).sum(1) / _DOF)
        return theta, jnp.nan_to_num(density - log_proposal, nan=-jnp.inf), filtered

    # Of independent parts: what the network says, and the slopes.
    of_net = jax.scipy.linalg.solve_triangular(said.root[-1], jnp.eye(N_PARAMETERS), lower=True)
    root = jax.scipy.linalg.block_diag(of_net, factor / prior.slope)
    middle = jnp.append(said.mean[-1], (mean - centre) / prior.slope)
    keys = jax.random.split(key, _N_ROUNDS)
    theta, log_weight, filtered = propose(middle, root, keys[0])
    for each in keys[1:]:
        middle, root = _moments(theta, log_weight)
        theta, log_weight, filtered = propose(middle, root, each)
    u, slope = jax.vmap(parts)(theta)
    return Judged(u, slope, log_weight, filtered, jax.nn.sigmoid(said.logit))


def _moments(theta: Float[Array, "draw k"], log_weight: Float[Array, " draw"]):
    """Mean and root of the covariance of weighted draws, of which enough count: the weights are
    tempered until they do."""
    log_weight = log_weight - log_weight.max()

    def halve(ends: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = ends
        power = (low + high) / 2
        weight = jnp.exp(power * log_weight)
        enough = weight.sum() ** 2 / (weight**2).sum() > _LEAST_EFFECTIVE
        return (jnp.where(enough, power, low), jnp.where(enough, high, power)), None

    (power, _), _ = jax.lax.scan(halve, (jnp.zeros(()), jnp.ones(())), None, length=12)
    weight = jax.nn.softmax(power * log_weight)
    middle = weight @ theta
    apart = theta - middle
    covariance = (apart * weight[:, None]).T @ apart + 1e-4 * jnp.eye(theta.shape[1])
    return middle, jnp.linalg.cholesky(covariance)


def _slopes(prior: Prior, centre, outcome, treatment, controls):
    """Mean and root of the covariance of the slopes if there were one regime: a proposal."""
    full = jnp.concatenate([jnp.ones_like(outcome)[:, None], treatment[:, None], controls], axis=1)
    size = jnp.append(
        jnp.array([prior.intercept, prior.effect]), jnp.full(len(centre), prior.slope)
    )
    middle = jnp.append(jnp.zeros(2), centre)
    noise = jnp.mean(jnp.asarray(prior.scale) / (jnp.asarray(prior.shape) - 1))
    precision = full.T @ full / noise + jnp.diag(1 / size**2)
    covariance = jnp.linalg.inv(precision)
    mean = covariance @ (full.T @ outcome / noise + middle / size**2)
    return mean[2:], jnp.linalg.cholesky(covariance[2:, 2:])


class Window(NamedTuple):
    """What is known of a window of outcomes that controls do not explain.

    Attributes:
        filtered: Probability of the turbulent regime given no later date, shape (T,).
        network: The same as the network says it, before the exact likelihood was asked.
        effective: Effective part of the draws.
    """

    filtered: Float[np.ndarray, " date"]
    network: Float[np.ndarray, " date"]
    effective: float


def posterior(
    net: RegimeNet,
    prior: Prior,
    outcome: Float[np.ndarray, " date"],
    treatment: Float[np.ndarray, " date"],
    seed: int,
) -> Window:
    """Regimes of a window, whose outcome is less what the controls explain; see `judge`."""
    none = np.zeros((len(outcome), 0))
    key = jax.random.key(seed)
    found = judge(net, prior, none[0], outcome, treatment, none, key, N_DRAWS)
    weight = np.asarray(found.log_weight, float)
    weight = np.exp(weight - weight.max())
    weight /= weight.sum()
    effective = float(1 / (weight**2).sum() / N_DRAWS)
    return Window(weight @ np.asarray(found.filtered), np.asarray(found.network), effective)
