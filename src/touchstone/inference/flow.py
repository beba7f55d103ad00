"""A conditional flow: one network that draws any target given any context, and gives its density.

A straight path x_t = (1 - t) x_0 + t x_1 leads from noise x_0 ~ N(0, I) to a target x_1. The
network gives the mean velocity E[x_1 - x_0 | x_t, context] of the path, which it learns in
`flow_training`, and the ordinary differential equation with that velocity carries noise to samples
of the target. Entries of the target that are known enter as context: they are no part of the path.
"""

import math
from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.stats import norm

_ENCODER_DEPTH = 2
_FREQUENCIES = 6  # of the time on the path


class VectorFieldNet(eqx.Module):
    """Velocity of a target at a time of the path, given a context.

    The context is encoded once into a scale and a shift for every layer that the state passes, so
    that the many states of one context cost little. The network itself gives what remains when
    the target is guessed to be normal about zero with the standard deviation `spread` (the
    preconditioning of Karras et al. 2022, for a straight path), which suits both a target that
    its context hardly determines (1) and one that it determines nearly (close to 0).

    Args:
        target_size: Length of the target.
        context_size: Length of the context.
        encoder_width: Of the layers that the context passes.
        width: Of the layers that the state passes.
        depth: Number of blocks that the state passes.
        spread: Expected standard deviation of the target given its context.
        key: For the initial weights.
    """

    encoder: "_Encoder"
    lift: eqx.nn.Linear
    blocks: list["_Block"]
    out: eqx.nn.Linear
    spread: float = eqx.field(static=True)

    def __init__(
        self,
        target_size: int,
        context_size: int,
        encoder_width: int,
        width: int,
        depth: int,
        spread: float,
        *,
        key: Array,
    ):
        keys = jax.random.split(key, depth + 3)
        self.encoder = _Encoder(context_size, encoder_width, depth * 2 * width, key=keys[0])
        self.lift = eqx.nn.Linear(target_size + 2 * _FREQUENCIES, width, key=keys[1])
        self.blocks = [_Block(width, key=k) for k in keys[3:]]
        out = eqx.nn.Linear(width, target_size, key=keys[2])
        self.out = jax.tree.map(jnp.zeros_like, out)
        self.spread = spread

    def encode(self, context: Array) -> Array:
        """Scales and shifts of a context, shape (depth, 2, width)."""
        return self.encoder(context).reshape(len(self.blocks), 2, -1)

    def summary(self, context: Array) -> Array:
        """What the network has made of a context, shape (encoder_width,)."""
        return self.encoder.hidden(context)

    def __call__(self, t: Array, x: Array, code: Array) -> Array:
        """Velocity at time t in [0, 1] of a state x, shape (target_size,)."""
        variance = path_variance(t, self.spread)
        guess = (t * self.spread**2 - (1 - t)) / variance * x
        return guess + self.residual(t, x, code) / jnp.sqrt(variance)

    def residual(self, t: Array, x: Array, code: Array) -> Array:
        """What the guess leaves of the velocity, times the path's sd, shape (target_size,)."""
        angle = jnp.pi * t * 2.0 ** jnp.arange(_FREQUENCIES)
        x_unit = x / jnp.sqrt((1 - t) ** 2 + t**2)
        h = self.lift(jnp.concatenate([x_unit, jnp.sin(angle), jnp.cos(angle)]))
        for block, (scale, shift) in zip(self.blocks, code, strict=True):
            h = block(h, scale, shift)
        return self.out(jax.nn.silu(h))


def path_variance(t: Array, spread: float) -> Array:
    """Variance at time t of the path to a normal target of standard deviation `spread`."""
    return (1 - t) ** 2 + (t * spread) ** 2


class _Encoder(eqx.Module):
    """Residual network of a context; large entries of the context are compressed."""

    first: eqx.nn.Linear
    blocks: list["_Block"]
    last: eqx.nn.Linear

    def __init__(self, context_size: int, width: int, code_size: int, *, key: Array):
        keys = jax.random.split(key, 2 + _ENCODER_DEPTH)
        self.first = eqx.nn.Linear(context_size, width, key=keys[0])
        self.last = eqx.nn.Linear(width, code_size, key=keys[1])
        self.blocks = [_Block(width, key=k) for k in keys[2:]]

    def __call__(self, context: Array) -> Array:
        return self.last(jax.nn.silu(self.hidden(context)))

    def hidden(self, context: Array) -> Array:
        h = self.first(jnp.arcsinh(context))
        for block in self.blocks:
            h = block(h, 0.0, 0.0)
        return h


class _Block(eqx.Module):
    """Residual block whose input is scaled and shifted."""

    norm: eqx.nn.LayerNorm
    first: eqx.nn.Linear
    second: eqx.nn.Linear

    def __init__(self, width: int, *, key: Array):
        first_key, second_key = jax.random.split(key)
        self.norm = eqx.nn.LayerNorm(width, use_weight=False, use_bias=False)
        self.first = eqx.nn.Linear(width, width, key=first_key)
        self.second = eqx.nn.Linear(width, width, key=second_key)

    def __call__(self, h: Array, scale: Array | float, shift: Array | float) -> Array:
        hidden = self.first(self.norm(h) * (1 + scale) + shift)
        return h + self.second(jax.nn.silu(hidden))


def sample(
    net: VectorFieldNet, context: Array, unknown: Array, n_draws: int, n_steps: int, key: Array
) -> Array:
    """Draws of the target of one context, by the midpoint rule; known entries are zero.

    Args:
        net: A trained network.
        context: Shape (context_size,).
        unknown: Entries to draw, shape (target_size,).
        n_draws: Number of draws.
        n_steps: Steps from noise to target.
        key: For the noise.

    Returns:
        Draws, shape (n_draws, target_size).
    """
    noise = jax.random.normal(key, (n_draws, unknown.shape[0])) * unknown
    turn = _turning(net, context, unknown)

    def advance(u, step):
        angle, size = step
        middle = u + size / 2 * turn(angle, u)
        return u + size * turn(angle + size / 2, middle), None

    u, _ = jax.lax.scan(advance, noise, _steps(n_steps))
    return net.spread * u


def log_density(
    net: VectorFieldNet, context: Array, unknown: Array, z: Array, n_steps: int
) -> Array:
    """Log density of targets of one context under the flow, over the unknown entries.

    The midpoint rule leads from the target back to noise; the trace of the Jacobian is exact, from
    its products with the unit vectors (instantaneous change of variables: Chen et al. 2018,
    theorem 1).

    Args:
        net: A trained network.
        context: Shape (context_size,).
        unknown: Entries that the density is over, shape (target_size,).
        z: Targets, shape (n, target_size); known entries do not count.
        n_steps: Steps from target to noise.

    Returns:
        Shape (n,).
    """
    mask = unknown.astype(context.dtype)
    turn = _turning(net, context, unknown)

    def with_trace(angle, u):
        value, push = jax.linearize(partial(turn, angle), u)
        change = jax.vmap(lambda unit: push(jnp.broadcast_to(unit, u.shape)))(jnp.diag(mask))
        return value, jnp.einsum("pnp->n", change)

    def back(carry, step):
        (u, trace), (angle, size) = carry, step
        middle = u - size / 2 * turn(angle + size, u)
        velocity, part = with_trace(angle + size / 2, middle)
        return (u - size * velocity, trace + size * part), None

    start = jnp.where(unknown, z, 0.0) / net.spread, jnp.zeros(len(z))
    (noise, trace), _ = jax.lax.scan(back, start, _steps(n_steps), reverse=True)
    return (mask * (norm.logpdf(noise) - math.log(net.spread))).sum(1) - trace


def _steps(n: int) -> tuple[Array, Array]:
    """Angles at which the n steps of the path begin, and their sizes.

    The last are smaller: a narrow target shows only when little noise is left.
    """
    angles = math.pi / 2 * (1 - jnp.linspace(1.0, 0.0, n + 1) ** 1.5)
    return angles[:-1], jnp.diff(angles)


def _turning(
    net: VectorFieldNet, context: Array, unknown: Array
) -> Callable[[Array, Array], Array]:
    """Change of states u with the angle of the path, for one context; u has shape (n, size).

    In units of its standard deviation, and as a function of the angle from 0 to pi/2 whose sine
    and cosine are the shares of target and noise, the path to the guessed normal target stands
    still: only what the network has learnt is integrated, and `spread` makes nothing stiff.
    """
    code = net.encode(context)
    mask = unknown.astype(context.dtype)

    def turn(angle, u):
        whole = net.spread * jnp.cos(angle) + jnp.sin(angle)
        t, sd = jnp.sin(angle) / whole, net.spread / whole
        residual = jax.vmap(lambda u: net.residual(t, sd * u, code))(u)
        return residual * mask / net.spread

    return turn
