"""What the two networks see: dimensionless shapes, and the logarithms that scale them.

Time is counted in durations, potential from the centre of the window in its half-widths, current
in its own root mean square; the logarithm of that, against F A c sqrt(D/T) at 1 mM and
1e-5 cm^2/s, is one more number. Duration, radius, curvature, temperature and the width of the
window go in as numbers too, since the priors are in physical units.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from touchstone.inference.flow_training import Example
from touchstone.models.ecsfm.data.masks import draw_mask
from touchstone.models.ecsfm.physics.arrays import AnyArray
from touchstone.models.ecsfm.physics.experiment import Experiment
from touchstone.models.ecsfm.physics.kinetics import FARADAY, inverse_thermal_voltage
from touchstone.models.ecsfm.physics.prior import RECORD, Prior

VERSION = 3  # of the contexts: networks that learnt from others are no use
# The numbers of `settings` that have a trained range, in their order.
SETTINGS = ("ln duration/s", "ln radius/cm", "ln curvature", "temperature/K", "ln half-window·F/RT")
_D, _C = 1e-5, 1e-6  # cm^2/s, mol/cm^3
_SERIES = 0.25  # scale of the values along the record: they are many, the numbers few
# How rough a record is: between neighbours so many observed samples away, in so many parts of it.
_LAGS, _PARTS = (1, 2, 4, 8, 16), 8
_ROUGHNESS = (-4.0, 2.0)  # mean and standard deviation, about, of its logarithm
_POWERS = (1, 4, 16)  # of the current, whose centres are landmarks
_LEAST_CURRENT = 1e-2  # that is one, of the rms


class Normaliser(NamedTuple):
    """Means and standard deviations, over the training data, of what the networks see.

    Attributes:
        setting_mean, setting_sd: Of `settings`.
        size_mean, size_sd: Of the log of the rms current over the reference current.
    """

    setting_mean: AnyArray
    setting_sd: AnyArray
    size_mean: AnyArray
    size_sd: AnyArray

    @classmethod
    def fit(cls, current: np.ndarray, experiment: Experiment) -> "Normaliser":
        """Normaliser of noise-free currents (A, shape (n, N)) and their experiments."""
        numbers = np.asarray(jax.vmap(settings)(experiment))
        scale = np.asarray(jax.vmap(reference_current)(experiment))
        size = np.log(_rms(current, np.ones_like(current)) / scale)
        spread = numbers.std(0)
        return cls(
            *(
                np.asarray(value, np.float32)
                for value in (
                    numbers.mean(0),
                    np.where(spread > 0, spread, 1.0),
                    size.mean(),
                    size.std() or 1.0,
                )
            )
        )


def reference_current(experiment: Experiment) -> Array:
    """F A c sqrt(D/T) at 1 mM and 1e-5 cm^2/s, in A."""
    return FARADAY * experiment.area * _C * jnp.sqrt(_D / experiment.duration)


def settings(experiment: Experiment) -> Array:
    """The numbers of an experiment: all that is not its waveform's shape."""
    _, half = experiment.window
    curvature = jnp.sqrt(_D * experiment.duration) * experiment.curvature
    return jnp.stack(
        [
            jnp.log(experiment.duration),
            jnp.log(experiment.radius),
            jnp.log(curvature + 1e-3),
            experiment.temperature,
            jnp.log(half * inverse_thermal_voltage(jnp.asarray(experiment.temperature))),
            *experiment.present.astype(jnp.float32).ravel(),
            experiment.electrode.edge,
        ]
    )


def _shape(experiment: Experiment) -> Array:
    centre, half = experiment.window
    return (experiment.potential - centre) / half


def _rms(current, mask):
    return np.sqrt((mask * current**2).sum(-1) / np.maximum(mask.sum(-1), 1))


def posterior_context(
    observed: Array,
    mask: Array,
    experiment: Experiment,
    z: Array,
    known: Array,
    active: Array,
    normaliser: Normaliser,
) -> Array:
    """Context of the posterior network.

    Missing samples are bridged by straight lines, and the mask says which they are. Roughness and
    landmarks say nothing new, but what layers are slow to learn: how large the noise is, among
    values of order one, and where the peaks are.

    Args:
        observed: Current, A, shape (N,).
        mask: Which samples were observed, shape (N,).
        experiment: The experiment.
        z: Standard coordinates, of which the known ones are used, shape (P,).
        known: Shape (P,).
        active: Parameters that exist, shape (P,).
        normaliser: Of the checkpoint.

    Returns:
        Shape (C,).
    """
    seen = mask.astype(observed.dtype)
    rms = jnp.sqrt((seen * observed**2).sum() / jnp.maximum(seen.sum(), 1))
    rms = jnp.maximum(rms, 1e-30)
    size = jnp.log(rms / reference_current(experiment))
    bridged, shape = _bridge(observed / rms, mask), _shape(experiment)
    given = known & active
    return jnp.concatenate(
        [
            _SERIES * bridged,
            _SERIES * (seen - 0.5),
            _SERIES * shape,
            roughness(observed / rms, mask),
            landmarks(bridged, shape),
            (settings(experiment) - normaliser.setting_mean) / normaliser.setting_sd,
            ((size - normaliser.size_mean) / normaliser.size_sd)[None],
            jnp.where(given, z, 0.0),
            given.astype(observed.dtype),
        ]
    )


def _bridge(values: Array, mask: Array) -> Array:
    """Straight lines over missing samples; the nearest observed value beyond the ends."""
    n = values.shape[0]
    index = jnp.arange(n)
    left = jax.lax.cummax(jnp.where(mask, index, -1))
    right = jax.lax.cummin(jnp.where(mask, index, n), reverse=True)
    left, right = jnp.where(left < 0, right, left), jnp.where(right >= n, left, right)
    left, right = jnp.clip(left, 0, n - 1), jnp.clip(right, 0, n - 1)
    part = (index - left) / jnp.maximum(right - left, 1)
    return values[left] + part * (values[right] - values[left])


def landmarks(value: Array, shape: Array) -> Array:
    """Where on the shape of the potential current flows, either way, and how much.

    Centres and widths of the whole current and, by its powers, of its peaks.

    Args:
        value: Current in units of its rms, shape (N,).
        shape: Of the potential, -1 to 1 where E0 may be, shape (N,).

    Returns:
        For positive, then negative current, the logarithm of its peak, and centre and width for
        each of three powers, shape (14,).
    """
    found = []
    for flow in (jnp.maximum(value, 0.0), jnp.maximum(-value, 0.0)):
        height = flow.max()
        found.append(jnp.log(height + _LEAST_CURRENT))
        for power in _POWERS:
            weight = (flow / jnp.maximum(height, _LEAST_CURRENT)) ** power + 1e-6
            weight = weight / weight.sum()
            centre = weight @ shape
            found += [centre, jnp.sqrt(weight @ (shape - centre) ** 2)]
    return jnp.stack(found)


def roughness(value: Array, mask: Array) -> Array:
    """Logarithms of how far samples are from straight lines between their neighbours.

    Standard deviations, of white noise if the signal is straight, over each part of the record, for
    neighbours at several distances among the observed samples.

    Args:
        value: Shape (N,).
        mask: Samples that were observed, shape (N,).

    Returns:
        Standardised, zero for distances that no samples have; of each, all parts in turn; (40,).
    """
    n = value.shape[0]
    (place,) = jnp.nonzero(mask, size=n, fill_value=n - 1)
    value, number = value[place], jnp.arange(n)
    in_part = place[:, None] * _PARTS // n == jnp.arange(_PARTS)

    def of(lag):
        there = (number >= lag) & (number + lag < mask.sum())
        left, right = jnp.maximum(number - lag, 0), jnp.minimum(number + lag, n - 1)
        part = (place - place[left]) / jnp.maximum(place[right] - place[left], 1)
        line = value[left] + part * (value[right] - value[left])
        square = there * (value - line) ** 2 / (1 + part**2 + (1 - part) ** 2)
        # A part in which little was observed is as the others are.
        mean = square.sum() / jnp.maximum(there.sum(), 1)
        squares, counts = square @ in_part, there @ in_part.astype(value.dtype)
        log_sd = 0.5 * jnp.log((squares + mean) / (counts + 1) + 1e-10)
        usual, spread = _ROUGHNESS
        return jnp.where(there.any(), (log_sd - usual) / spread, 0.0)

    return jnp.concatenate([of(lag) for lag in _LAGS])


def surrogate_context(
    z: Array, experiment: Experiment, active: Array, normaliser: Normaliser
) -> Array:
    """Context of the surrogate network: parameters of the simulation and the waveform."""
    used = (jnp.arange(z.shape[0]) < z.shape[0] - len(RECORD)) & active
    return jnp.concatenate(
        [
            _shape(experiment),
            (settings(experiment) - normaliser.setting_mean) / normaliser.setting_sd,
            jnp.where(used, z, 0.0),
            active.astype(z.dtype),
        ]
    )


def surrogate_target(current: Array, experiment: Experiment, normaliser: Normaliser) -> Array:
    """Shape of a noise-free current and its normalised size, shape (N + 1,)."""
    rms = jnp.sqrt((current**2).mean())
    size = jnp.log(rms / reference_current(experiment))
    size = (size - normaliser.size_mean) / normaliser.size_sd
    return jnp.concatenate([current / rms, size[None]])


def surrogate_current(target: Array, experiment: Experiment, normaliser: Normaliser) -> Array:
    """Current in A from a target; inverse of `surrogate_target`."""
    size = target[-1] * normaliser.size_sd + normaliser.size_mean
    return target[:-1] * reference_current(experiment) * jnp.exp(size)


def draw_known(key: Array, by_design: Array) -> Array:
    """Which parameters are known in a training example: none, those by design, or any subset."""
    kind_key, part_key, each_key = jax.random.split(key, 3)
    part = jax.random.uniform(part_key)
    subset = jax.random.bernoulli(each_key, part, by_design.shape)
    kind = jax.random.choice(kind_key, 4, p=jnp.array([0.15, 0.35, 0.25, 0.25]))
    options = [jnp.zeros_like(by_design), by_design, subset, by_design | subset]
    return jnp.stack(options)[kind]


def posterior_example(
    key: Array, row: Any, prior: Prior, by_design: Array, normaliser: Normaliser, training=True
) -> Example:
    """A noise-free row of the data with fresh baseline and noise, as the posterior learns it.

    In training the mask and the known parameters are drawn, too; otherwise everything is observed
    and what is known by design is known.
    """
    record_key, noise_key, mask_key, known_key = jax.random.split(key, 4)
    experiment, current = row.experiment, row.current
    fresh = jax.random.normal(record_key, (len(RECORD),))
    z = row.z.at[-len(RECORD) :].set(fresh)
    natural = prior.natural(z, experiment)
    observation = prior.observation(natural, current, experiment)
    observed = observation.with_baseline(z[prior.baseline]).draw(noise_key)
    active = prior.active(experiment.present)
    mask, known = jnp.ones(current.shape[0], bool), by_design
    if training:
        mask = draw_mask(mask_key, current)
        known = draw_known(known_key, by_design)
    context = posterior_context(observed, mask, experiment, z, known, active, normaliser)
    return Example(z, active & ~known, context)


def surrogate_example(row: Any, prior: Prior, normaliser: Normaliser) -> Example:
    """A row of the data, as the surrogate learns it."""
    experiment = row.experiment
    target = surrogate_target(row.current, experiment, normaliser)
    active = prior.active(experiment.present)
    context = surrogate_context(row.z, experiment, active, normaliser)
    return Example(target, jnp.ones(target.shape, bool), context)
