"""An amortised posterior for any simulator and prior: simulate, learn once, ask as often as liked.

    times = jnp.linspace(0.0, 5.0, 20)
    prior = uniform([0.0, 0.1], [1.0, 3.0])

    def simulate(key, theta):
        decay = theta[0] * jnp.exp(-theta[1] * times)
        return decay + 0.05 * jax.random.normal(key, times.shape)

    posterior = amortise(simulate, prior, key=jax.random.key(0))
    draws = posterior.sample(jax.random.key(1), observation, 1000)
    log_density = posterior.log_density(observation, draws)

Whatever is not there is NaN. With `missing` in training, entries of an observation may be; with
`known`, all parameters that are given to inference are not. What learns is flow matching, on what
a linear regression of the parameters on the observation leaves.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import ndtr, ndtri

from touchstone.inference import flow

_RIDGE = 1e-6  # of the regression, relative to the variance of an entry of the context


class Prior(NamedTuple):
    """A prior as a transform of standard normal coordinates, in which nothing piles up at a bound.

    Attributes:
        size: Number of parameters P.
        natural: From standard normal coordinates, shape (P,), to parameters, shape (P,).
        standard: Its inverse, not finite beyond a bound. Where parameters are to be known to
            inference, each must depend on the coordinate of its own only.
    """

    size: int
    natural: Callable[[Array], Array]
    standard: Callable[[Array], Array]


def uniform(low, high) -> Prior:
    """Independent uniform parameters between bounds of shape (P,)."""
    low, high = jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32)
    return Prior(
        low.size,
        lambda z: low + (high - low) * ndtr(z),
        lambda theta: ndtri((theta - low) / (high - low)),
    )


def normal(mean, sd) -> Prior:
    """Independent normal parameters with means and standard deviations of shape (P,)."""
    mean, sd = jnp.asarray(mean, jnp.float32), jnp.asarray(sd, jnp.float32)
    return Prior(mean.size, lambda z: mean + sd * z, lambda theta: (theta - mean) / sd)


def exponential_of(prior: Prior) -> Prior:
    """Parameters whose logarithms have a prior: log-uniform, log-normal."""
    return Prior(
        prior.size,
        lambda z: jnp.exp(prior.natural(z)),
        lambda theta: prior.standard(jnp.log(theta)),
    )


def joined(*priors: Prior) -> Prior:
    """The parameters of independent priors, one after another."""
    ends = np.cumsum([prior.size for prior in priors])

    def each(transform):
        def joint(values):
            parts = zip(priors, jnp.split(values, ends[:-1]), strict=True)
            return jnp.concatenate([getattr(prior, transform)(part) for prior, part in parts])

        return joint

    return Prior(int(ends[-1]), each("natural"), each("standard"))


class AmortisedPosterior(eqx.Module):
    """A posterior that takes any observation; from `amortise` or `learn`.

    Attributes:
        net: Flow of what the regression leaves of the standard coordinates, in `left`.
        location, scale: Mean and standard deviation of the observations, shape (N,).
        slope: Of the regression on the context, shape (2 (N + P), P).
        left: Standard deviation that it leaves, shape (P,).
        losses: Of the steps of the training; without any learning beyond the line they are 1.
        prior: The prior.
        missing, known: Largest parts that were hidden and told in training.
    """

    net: flow.VectorFieldNet
    location: Array
    scale: Array
    slope: Array
    left: Array
    losses: Array
    prior: Prior = eqx.field(static=True)
    missing: float = eqx.field(static=True)
    known: float = eqx.field(static=True)

    @eqx.filter_jit
    def sample(
        self,
        key: Array,
        observation: Array,
        n_draws: int,
        known: Array | None = None,
        n_steps: int = 64,
    ) -> Array:
        """Draws of the parameters given one observation; `jax.vmap` takes many.

        Args:
            key: For the draws.
            observation: As simulated; NaN where it is missing.
            n_draws: Number of draws.
            known: Parameters that are known, NaN where they are not, shape (P,); none if not given.
            n_steps: Steps of the flow.

        Returns:
            Shape (n_draws, P); known parameters at their values.

        Raises:
            EquinoxRuntimeError: If something is missing or known that never was in training, or
                is known to be what the prior rules out.
        """
        context, unknown, known, z_known = self._question(observation, known)
        rest = flow.sample(self.net, context, unknown, n_draws, n_steps, key)
        z = jnp.where(unknown, context @ self.slope + self.left * rest, z_known)
        return jnp.where(unknown, jax.vmap(self.prior.natural)(z), known)

    @eqx.filter_jit
    def log_density(
        self,
        observation: Array,
        theta: Array,
        known: Array | None = None,
        n_steps: int = 64,
    ) -> Array:
        """Log density of parameters given one observation; -inf beyond the bounds of the prior.

        Args:
            observation: As simulated; NaN where it is missing.
            theta: Parameters, shape (n, P); known entries do not count.
            known: As for `sample`: the density is over the other parameters.
            n_steps: Steps of the flow.

        Returns:
            Shape (n,).
        """
        context, unknown, known, _ = self._question(observation, known)
        z = jax.vmap(self.prior.standard)(jnp.where(unknown, theta, known))
        inside = jnp.isfinite(z).all(1)
        z = jnp.where(inside[:, None], z, 0.0)
        rest = (z - context @ self.slope) / self.left
        value = flow.log_density(self.net, context, unknown, rest, n_steps)
        value = value - jnp.where(unknown, jnp.log(self.left), 0.0).sum()

        def log_stretch(z):
            jacobian = jax.jacfwd(self.prior.natural)(z)
            jacobian = jnp.where(unknown[:, None] & unknown, jacobian, jnp.eye(len(z)))
            return jnp.linalg.slogdet(jacobian).logabsdet

        return jnp.where(inside, value - jax.vmap(log_stretch)(z), -jnp.inf)

    def _question(self, observation: Array, known: Array | None) -> tuple[Array, ...]:
        """Context, which parameters are unknown, the others, and their standard coordinates."""
        y = jnp.ravel(observation)
        known = jnp.full(self.prior.size, jnp.nan) if known is None else known
        unknown = jnp.isnan(known)
        z = jnp.where(unknown, jnp.nan, self.prior.standard(known))
        z = eqx.error_if(
            z, jnp.isinf(z) | (jnp.isnan(z) & ~unknown), "a known parameter is outside its prior"
        )
        if not self.missing:
            y = eqx.error_if(y, jnp.isnan(y), "not trained with missing entries")
        if not self.known:
            z = eqx.error_if(z, ~unknown, "not trained with known parameters")
        return self._context(y, z), unknown, known, z

    def _context(self, y: Array, z: Array) -> Array:
        """Standardised entries and which they are, of an observation and known coordinates."""
        y = (y - self.location) / self.scale
        there = [~jnp.isnan(values) for values in (y, z)]
        return jnp.concatenate([jnp.nan_to_num(y), jnp.nan_to_num(z), *there]).astype(jnp.float32)


def amortise(
    simulate: Callable[[Array, Array], Array],
    prior: Prior,
    *,
    key: Array,
    n_simulations: int = 100_000,
    **settings,
) -> AmortisedPosterior:
    """Simulate from the prior, and learn the posterior.

    Args:
        simulate: `simulate(key, theta)` gives an observation, in JAX.
        prior: Of the parameters.
        key: For all randomness.
        n_simulations: How many simulations to learn from.
        settings: As for `learn`.
    """
    prior_key, noise_key, learn_key = jax.random.split(key, 3)

    def one(key, z):
        theta = prior.natural(z)
        return theta, simulate(key, theta)

    keys = jax.random.split(noise_key, n_simulations)
    z = jax.random.normal(prior_key, (n_simulations, prior.size))
    theta, observation = jax.jit(
        lambda *pairs: jax.lax.map(lambda pair: one(*pair), pairs, batch_size=1000)
    )(keys, z)
    return learn(theta, observation, prior, key=learn_key, **settings)


def learn(
    theta: Array,
    observation: Array,
    prior: Prior,
    *,
    key: Array,
    missing: float = 0.0,
    known: float = 0.0,
    n_steps: int = 8000,
    batch_size: int = 256,
    paths: int = 4,
    learning_rate: float = 4e-3,
    width: int = 128,
    depth: int = 3,
    show_progress: bool = True,
) -> AmortisedPosterior:
    """Learn the posterior from simulations that were made anywhere.

    Args:
        theta: Parameters drawn from the prior, shape (n, P).
        observation: What each gave, shape (n, ...).
        prior: Of the parameters.
        key: For all randomness.
        missing: Largest part of an observation that is hidden; each time, the part is uniform
            between nothing and this.
        known: Largest part of the parameters that is told, likewise.
        n_steps, batch_size, paths, learning_rate: Of `flow.train`.
        width, depth: Of the network.
        show_progress: Whether to show it.

    Raises:
        ValueError: If a simulation is not finite, or its parameters are beyond the prior's bounds.
    """
    z = jax.vmap(prior.standard)(jnp.asarray(theta, jnp.float32))
    y = jnp.asarray(observation, jnp.float32).reshape(len(z), -1)
    wrong = int((~jnp.isfinite(jnp.column_stack([z, y])).all(1)).sum())
    if wrong:
        raise ValueError(f"{wrong} of {len(z)} simulations are not finite, or outside the prior")
    net_key, line_key, train_key = jax.random.split(key, 3)
    size = 2 * (y.shape[1] + prior.size)
    spread = y.std(0)
    blank = AmortisedPosterior(
        flow.VectorFieldNet(prior.size, size, width, width, depth, 1.0, key=net_key),
        location=y.mean(0),
        scale=jnp.where(spread > 0, spread, 1.0),
        slope=jnp.zeros((size, prior.size)),
        left=jnp.ones(prior.size),
        losses=jnp.zeros(n_steps),
        prior=prior,
        missing=missing,
        known=known,
    )

    def hide(key, z, y):
        """Which coordinates are to be learnt, and the context of a simulation."""
        y_key, z_key = jax.random.split(key)
        unknown = ~_some(z_key, known, z.shape)
        y = jnp.where(_some(y_key, missing, y.shape), jnp.nan, y)
        return unknown, blank._context(y, jnp.where(unknown, jnp.nan, z))

    unknown, context = jax.jit(jax.vmap(hide))(jax.random.split(line_key, len(z)), z, y)
    slope, left = _regression(*(np.asarray(a) for a in (context, z, unknown)))

    def draw(key, step, data):
        row_key, hide_key = jax.random.split(key)
        row = jax.random.randint(row_key, (batch_size,), 0, len(z))
        z_row, y_row = (values[row] for values in data)
        unknown, context = jax.vmap(hide)(jax.random.split(hide_key, batch_size), z_row, y_row)
        return flow.Example((z_row - context @ slope) / left, unknown, context)

    net, losses = flow.train(
        blank.net,
        draw,
        (z, y),
        n_steps=n_steps,
        paths=paths,
        learning_rate=learning_rate,
        key=train_key,
        show_progress=show_progress,
    )
    return eqx.tree_at(
        lambda p: (p.net, p.slope, p.left, p.losses), blank, (net, slope, left, losses)
    )


def _some(key: Array, most: float, shape: tuple[int, ...]) -> Array:
    """Entries at random, a part of them that is uniform up to `most`."""
    part_key, key = jax.random.split(key)
    return jax.random.bernoulli(key, most * jax.random.uniform(part_key), shape)


def _regression(context: np.ndarray, z: np.ndarray, unknown: np.ndarray) -> tuple[Array, Array]:
    """Slopes of every coordinate where it is unknown, and the standard deviation that they leave.

    A Gaussian posterior of a linear model is all there already, and the network starts from it.
    """
    slopes, left = [], []
    for target, rows in zip(z.T, unknown.T, strict=True):
        x, t = context[rows], target[rows]
        gram = x.T @ x + _RIDGE * len(x) * np.eye(x.shape[1])
        slopes.append(np.linalg.solve(gram, x.T @ t))
        left.append(math.sqrt(np.mean((t - x @ slopes[-1]) ** 2)))
    return jnp.asarray(np.stack(slopes, 1), jnp.float32), jnp.asarray(left, jnp.float32)
