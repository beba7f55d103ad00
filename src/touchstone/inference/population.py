"""Exact re-weighting of many cases at once, where simulations are cheap and differentiable.

Population Monte Carlo (Cappé et al. 2004): draws come from Student-t kernels about centres, and the
next centres from the weighted draws. Posteriors of a few precise data are thin and bent: so each
kernel has the covariance of its own place, from the derivatives of the data (Fisher's
information), and the first centres, draws of an amortised posterior, are moved to where the data
are met, along the shortest way. The last kernels are bent as the second derivatives say, so that
they follow the data as far as they are wide; a bend keeps volumes, and costs no simulation of the
draws. There are two halves, each with its centres from the other one's
draws: a kernel about a draw of high weight would be high at that draw and take the weight away.
Weighted draws are of a last round, whose kernels are fixed before. `importance` makes do with fewer
simulations: it is for simulators that cost.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import gammaln, logsumexp
from jaxtyping import Float

from touchstone.inference.batches import map_batches

_FREEDOM = 5  # of the kernels: their tails are heavier than those of posteriors
_WIDTHS = (0.5, 1.0)  # of kernels where the data say nothing, one after another
_WIDEN = (1.1, 1.6)  # of kernels likewise: what the bends miss is a matter of the wider ones
_STIFF = 4.0  # information over that of the width, beyond which the data say where a kernel is
_MOVES = 2  # steps of the first centres to where the data are met
_COUNT = 4  # effective draws for each entry, at least, that centres are drawn from

type Residuals = Callable[[Any, Array], tuple[Array, Array]]


class Weighted(NamedTuple):
    """Weighted draws of cases.

    Attributes:
        z: Shape (case, half, draw, P).
        log_weight: Unnormalised, shape (case, half, draw); the mean of the exponential of a half
            is the evidence.
    """

    z: Float[np.ndarray, "case half draw entry"]
    log_weight: Float[np.ndarray, "case half draw"]


class _Kernels(NamedTuple):
    centres: Array  # (centre, P)
    factors: Array  # lower ones, of the information over the squared width, (centre, P, P)
    bends: Array  # (centre, P, P, P): see `_bent`


def sample(
    residuals: Residuals,
    cases: Any,
    starts: Float[np.ndarray, "case start entry"],
    key: Array,
    *,
    n_centres: int,
    n_round: int,
    n_rounds: int,
    n_last: int,
    label: str | None = None,
) -> Weighted:
    """Weighted draws of each case, under a standard normal prior.

    Args:
        residuals: A pytree: of what is known of a case and a point of shape (P,), the standardised
            residuals of the observation and the logarithms of their scales, as in
            `problem.Factor`; differentiable.
        cases: Pytree of arrays whose leading axis is the case.
        starts: Draws of an amortised posterior, shape (case, 2 n_centres, P).
        key: For all randomness.
        n_centres: Of a half.
        n_round: Draws of a round of a half.
        n_rounds: Rounds before the last one.
        n_last: Draws of the last round of a half.
        label: Of the progress bar.
    """
    keys = jax.random.key_data(jax.random.split(key, len(starts)))
    run = partial(_run, residuals, (n_centres, n_round, n_rounds, n_last))
    z, log_weight = map_batches(
        run, keys, cases, np.asarray(starts, np.float32), batch_size=1, label=label
    )  # one by one: a program of one case serves any number of them
    return Weighted(z, log_weight)


@eqx.filter_jit
def _run(residuals, sizes: tuple[int, int, int, int], key_data: Array, cases: Any, starts: Array):
    def one(key_data, case, starts):
        return _case(partial(residuals, case), jax.random.wrap_key_data(key_data), starts, *sizes)

    return jax.vmap(one)(key_data, cases, starts)


def _case(residuals, key: Array, starts: Array, n_centres, n_round, n_rounds, n_last):
    def weighted(key, kernels, n):
        z = _draw(key, kernels, n)
        value = jax.vmap(partial(_log_posterior, residuals))(z)
        log_weight = value - _log_density(kernels, z)
        return z, jnp.where(jnp.isfinite(log_weight), log_weight, -jnp.inf)

    def round_(carried, turn):
        key, late = turn
        drawn, chosen = jax.random.split(key)
        centres = carried[0][::-1]  # of the other half
        kernels = jax.vmap(partial(_about, residuals, late))(centres)
        z, log_weight = jax.vmap(partial(weighted, n=n_round))(jax.random.split(drawn), kernels)
        pick = jax.vmap(partial(_chosen, n_centres=n_centres))
        return (pick(jax.random.split(chosen), z, log_weight), kernels), None

    last, *keys = jax.random.split(key, n_rounds + 2)
    centres = starts.reshape(2, n_centres, -1)
    size = centres.shape[-1]
    blank = _Kernels(centres, *(jnp.zeros((2, n_centres, *[size] * n)) for n in (2, 3)))
    # The last turn fits the kernels of the weighted draws; its own draws are not needed.
    late = jnp.arange(len(keys)) >= n_rounds - 1
    (_, kernels), _ = lax.scan(round_, (centres, blank), (jnp.stack(keys), late))
    return jax.vmap(partial(weighted, n=n_last))(jax.random.split(last), kernels)


def _log_posterior(residuals, u: Array) -> Array:
    left, log_scale = residuals(u)
    size = jnp.log(2 * jnp.pi) * len(u)
    return -(0.5 * left**2 + log_scale).sum() - 0.5 * ((u**2).sum() + size)


def _about(residuals, bent: Array, centres: Array) -> _Kernels:
    """Kernels about where the data are met, nearly, the shortest way from centres; straight ones
    unless they shall be bent, which costs second derivatives."""
    size = centres.shape[1]

    def slopes_at(u):
        def value(u):
            left = residuals(u)[0]
            return left, left

        slopes, left = jax.jacfwd(value, has_aux=True)(u)
        return slopes, left

    def move(turn, found):
        u, _ = found
        slopes, left = slopes_at(u)
        step = slopes.T @ jnp.linalg.solve(slopes @ slopes.T + jnp.eye(len(left)), left)
        # Where the slopes change a lot, a whole step leads astray. The last turn moves nothing: it
        # has the slopes of where the others led.
        length = jnp.where(turn < _MOVES, 1 / jnp.maximum(1.0, jnp.linalg.norm(step)), 0.0)
        return u - length * step, slopes.T @ slopes

    def one(u, width, widen):
        u, information = lax.fori_loop(0, _MOVES + 1, move, (u, jnp.zeros((size, size), u.dtype)))
        whole = information + jnp.eye(size) / width**2
        return u, jnp.linalg.cholesky(whole) / widen, information

    turn = jnp.arange(len(centres)) % len(_WIDTHS)
    width, widen = jnp.asarray(_WIDTHS)[turn], jnp.asarray(_WIDEN)[turn]
    centres, factors, information = jax.vmap(one)(centres, width, widen)
    bends = lax.cond(
        bent,
        lambda: jax.vmap(partial(_bend, residuals))(centres, information, width),
        lambda: jnp.zeros((len(centres), size, size, size), centres.dtype),
    )
    return _Kernels(centres, factors, bends)


def _bend(residuals, u: Array, information: Array, width: Array) -> Array:
    """What a kernel is bent by, (P, P, P): how far a step along what the data leave open, squared,
    has to be amended along what they say, for the data to be met still."""

    def slopes_at(u):
        slopes = jax.jacfwd(lambda u: residuals(u)[0])(u)
        return slopes, slopes

    curved, slopes = jax.jacfwd(slopes_at, has_aux=True)(u)  # (residual, P, P), (residual, P)
    value, vector = jnp.linalg.eigh(information)
    stiff = value * width**2 > _STIFF
    answer = -(vector * jnp.where(stiff, 1 / (value + 1 / width**2), 0.0)) @ (slopes @ vector).T
    soft = (vector * ~stiff) @ vector.T
    found = 0.5 * jnp.einsum("pr,rij,ik,jl->pkl", answer, curved, soft, soft)
    return jnp.where(jnp.isfinite(found), found, 0.0)


def _bent(bend: Array, offset: Array) -> Array:
    """An offset and its bend, which changes no volume: it moves what is stiff by what is soft."""
    return (bend @ offset) @ offset


def _chosen(key: Array, z: Array, log_weight: Array, n_centres: int) -> Array:
    """Draws by their weights, which are flattened until enough of them count."""
    powers = jnp.linspace(0.05, 1.0, 20)[:, None]
    flat = jax.nn.log_softmax(powers * log_weight, axis=1)
    enough = jnp.exp(-logsumexp(2 * flat, axis=1)) > _COUNT * z.shape[1]
    log_weight = flat[jnp.maximum(jnp.count_nonzero(enough) - 1, 0)]
    # Systematic resampling: a draw of weight w is a centre n w times, rounded up or down.
    places = (jnp.arange(n_centres) + jax.random.uniform(key)) / n_centres
    index = jnp.searchsorted(jnp.cumsum(jnp.exp(log_weight)), places)
    return z[jnp.minimum(index, len(z) - 1)]


def _draw(key: Array, kernels: _Kernels, n_draws: int) -> Array:
    """From every kernel as often as from any other."""
    normal, chi, shift = jax.random.split(key, 3)
    n_centres, size = kernels.centres.shape
    which = (jnp.arange(n_draws) + jax.random.randint(shift, (), 0, n_centres)) % n_centres
    noise = jax.random.normal(normal, (n_draws, size, 1))
    solve = partial(jax.scipy.linalg.solve_triangular, trans=1, lower=True)
    noise = jax.vmap(solve)(kernels.factors[which], noise)[..., 0]
    tail = (jax.random.normal(chi, (n_draws, _FREEDOM)) ** 2).mean(1, keepdims=True)
    offset = noise / jnp.sqrt(tail)
    return kernels.centres[which] + offset + jax.vmap(_bent)(kernels.bends[which], offset)


def _log_density(kernels: _Kernels, z: Array) -> Array:
    """Of the mixture, shape (draw,)."""
    n_centres, size = kernels.centres.shape
    power = (_FREEDOM + size) / 2
    constant = gammaln(power) - gammaln(_FREEDOM / 2) - size / 2 * jnp.log(_FREEDOM * jnp.pi)

    def of_kernel(centre, factor, bend):
        offset = z - centre
        half = (offset @ bend.swapaxes(0, 1).reshape(size, -1)).reshape(-1, size, size)
        offset = offset - (half @ offset[..., None])[..., 0]
        square = ((offset @ factor) ** 2).sum(1)
        height = jnp.log(jnp.diagonal(factor)).sum()
        return height - power * jnp.log1p(square / _FREEDOM)

    each = jax.vmap(of_kernel)(*kernels)
    return logsumexp(each, axis=0) + constant - jnp.log(n_centres)
