"""What weighted draws of a posterior say of a new observation, by the exact simulator."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from touchstone.inference.batches import map_chunks
from touchstone.inference.problem import simulated
from touchstone.models.ecsfm.inference.records import Record, Simulation
from touchstone.models.ecsfm.physics.experiment import Kind, Records
from touchstone.models.ecsfm.physics.observation import HALF_LOG_2PI, Filtered
from touchstone.models.ecsfm.physics.prior import Prior
from touchstone.models.ecsfm.physics.waveforms import Waveform

_FINEST = 2e-3  # of the rms of a record: errors that are smaller are of no interest


def predict(
    prior: Prior,
    marginal: bool,
    key: Array,
    index: np.ndarray,
    z: np.ndarray,
    weight: np.ndarray,
    cases: Records,
    waveform: Waveform,
) -> tuple[np.ndarray, ...]:
    """What weighted draws of some cases say of new observations.

    Args:
        prior: Of the model.
        marginal: Whether the baseline was marginalised: each draw then gets one given the rest.
        key: That of the sampler.
        index: Of each case, shape (n,).
        z: Draws, shape (n, draws, P).
        weight: Their weights, shape (n, draws).
        cases: The cases.
        waveform: Theirs.

    Returns:
        The draws; the mean and standard deviation of a new observation, (n, N) each; the standard
        deviation of its white noise, (n,); and the innovation of each observed sample, (n, N).
    """
    each = []
    for number in range(len(z)):
        case, own_waveform = jax.tree.map(lambda a, k=number: a[k], (cases, waveform))
        own_key = jax.random.split(jax.random.fold_in(key, index[number]), 3)[2]
        each.append(
            _of_case(prior, marginal, own_key, z[number], weight[number], case, own_waveform)
        )
    return tuple(np.stack(part) for part in zip(*each, strict=True))


def _of_case(prior, marginal, key, z, weight, case: Records, waveform) -> tuple[np.ndarray, ...]:
    kind = Kind.of(jax.tree.map(lambda a: a[None], case.experiment))
    simulation = Simulation(prior, kind, case.experiment, waveform, case.experiment)
    keys = np.asarray(jax.random.key_data(jax.random.split(key, len(z))))
    dither = jax.random.normal(jax.random.fold_in(key, 1), case.observed.shape)
    of_draws = _of_draws_marginal if marginal else _of_draws
    current = map_chunks(simulated, simulation, z)
    z, fit, sd, white, innovation = map_chunks(
        of_draws, (Record(prior, case), dither), z, current, keys
    )
    mean = weight @ fit
    sd = np.sqrt(weight @ (fit - mean) ** 2 + weight @ sd**2)
    return z, mean, sd, np.sqrt(weight @ white**2), weight @ innovation


def _of_draw(known: tuple[Record, Array], z: Array, current: Array, key: Array, *, marginal: bool):
    """Of one draw, what it predicts; its baseline is drawn first if that was marginalised."""
    record, dither = known
    prior, case = record.prior, record.case
    natural = prior.natural(z, case.experiment)
    observation = prior.observation(natural, current, case.experiment)
    if marginal:
        filtered = record.filtered(current, z)
        # What is known has no variance, which a Cholesky factor would divide by.
        regular = filtered.covariance + jnp.diag(1.0 * case.known[prior.baseline])
        drawn = jax.random.multivariate_normal(
            jax.random.wrap_key_data(key), filtered.baseline, regular
        )
        z = jnp.where(case.known, z, z.at[prior.baseline].set(drawn))
    observation = observation.with_baseline(z[prior.baseline])
    filtered = observation.filter(case.observed, case.mask)
    innovation = _dithered(filtered, case, dither)
    return z, observation.mean, observation.sd, observation.white, innovation


def _dithered(filtered: Filtered, case: Records, dither: Array) -> Array:
    """Innovations as if more noise had been recorded, where there is hardly any, shape (N,).

    No simulator and no instrument is right to the last digit. With the noise that is missing to
    `_FINEST` of the record added, what is smaller does not show, and under the model innovations
    are standard normal as before.
    """
    seen = case.mask.astype(case.observed.dtype)
    rms = jnp.sqrt((seen * case.observed**2).sum() / seen.sum())
    scale = jnp.exp(filtered.log_scale - HALF_LOG_2PI)
    part = scale / jnp.maximum(scale, _FINEST * rms)
    mixed = part * filtered.residual + jnp.sqrt(1 - part**2) * dither
    return jnp.where(case.mask, mixed, 0.0)


_of_draws, _of_draws_marginal = (
    jax.jit(jax.vmap(partial(_of_draw, marginal=marginal), in_axes=(None, 0, 0, 0)))
    for marginal in (False, True)
)
