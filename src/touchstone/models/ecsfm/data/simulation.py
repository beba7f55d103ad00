"""Simulated data: chunks to train on, cases in and outside of the family, an example record."""

import math
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jax.scipy.special import ndtri
from jaxtyping import Float

from touchstone.inference.batches import map_batches
from touchstone.models.ecsfm.data import family, measurement
from touchstone.models.ecsfm.data.dataset import Chunk, parameter_rows
from touchstone.models.ecsfm.data.masks import MASKS, draw_mask
from touchstone.models.ecsfm.data.mismatch import Happened, Scene, happen
from touchstone.models.ecsfm.physics.experiment import Records
from touchstone.models.ecsfm.physics.forward import Forward
from touchstone.models.ecsfm.physics.readings import readable, readings

_BATCH = 64  # experiments of a call of the simulator
_FEWEST_OBSERVED = 8  # samples of a record of which chance observes none
_EXAMPLE_SAMPLES = 1000
_NUMBERS = ("duration", "radius", "shape", "temperature")  # of an experiment, in a chunk


class BaseCases(NamedTuple):
    """What the variants of a stress have in common.

    Attributes:
        records: The experiments, with their true parameters; nothing is observed yet.
        clean: Noise-free currents without baseline, A, shape (n, N).
        task: Name of the task, shape (n,).
    """

    records: Records
    clean: np.ndarray
    task: np.ndarray

    @property
    def signal(self) -> np.ndarray:
        """Root mean square of the clean current, A: the unit of baseline and noise, shape (n,)."""
        return np.sqrt((self.clean**2).mean(1))


class Simulation:
    """Draws from the training family and observes it, as the model has it and under a mismatch.

    Args:
        config: The model's `config.yaml`.
        forward: The simulator.
    """

    def __init__(self, config: dict, forward: Forward):
        self.config, self.forward, self.prior = config, forward, forward.prior
        self.by_design = np.isin(self.prior.blocks, config["known_by_design"])

    def chunk(self, rng: np.random.Generator, settings: dict) -> Chunk:
        """Draw a chunk of the training family.

        Args:
            rng: Source of randomness.
            settings: `n_traces`, `n_points` and `levels`, the share of each curriculum level.
        """
        n_traces = settings["n_traces"]
        draws = family.draw(
            rng, self.config, n_traces, settings["n_points"], self.prior.size, settings["levels"]
        )
        experiment = draws.experiment
        z = np.asarray(ndtri(draws.quantile), np.float32)
        waveform = self.forward.waveforms(experiment)
        current = map_batches(
            self.forward.currents, z, experiment, waveform, batch_size=_BATCH, label="simulate"
        )
        natural = np.asarray(self.forward.natural(z, experiment))
        instrument = jax.jit(jax.vmap(self.prior.instrument))(natural, experiment)
        return Chunk(
            current=1e3 * current,
            potential=np.asarray(experiment.potential),
            parameters=parameter_rows(self.prior, natural, np.asarray(experiment.present)),
            task=draws.task,
            stage=draws.level,
            task_names=tuple(self.config["tasks"]),
            stage_names=tuple(self.config["levels"]),
            settings={
                **{name: np.asarray(getattr(experiment, name)) for name in _NUMBERS},
                "resistance": np.asarray(instrument.resistance),
                "capacitance": 1e6 * np.asarray(instrument.capacitance),
                "noise_std": 1e3 * np.sqrt((current**2).mean(1)) * np.exp(natural[:, -1]),
            },
            group=np.arange(n_traces),
            assumed=(),
        )

    def base_cases(
        self, n: int, rng: np.random.Generator, settings: dict, n_points: int
    ) -> BaseCases:
        """Draw what the variants of each stressed case have in common.

        Args:
            n: Number of cases.
            rng: Source of randomness.
            settings: `observed`, the probability that a sample is, or a kind of mask of the
                training, else all kinds as often as there; `noise`, the standard deviation of
                white noise in units of the clean signal, else its prior.
            n_points: Samples of each.
        """
        draws = family.draw(rng, self.config, n, n_points, self.prior.size, {"frontier": 1.0})
        z = np.array(ndtri(draws.quantile), np.float32)
        if settings.get("noise") is not None:
            index = self.prior.names.index("noise")
            noise = self.prior.parameters[index]
            fraction = ((math.log(settings["noise"]) - noise.location) / noise.scale + 1) / 2
            z[:, index] = ndtri(fraction)
        experiment = draws.experiment
        waveform = self.forward.waveforms(experiment)
        clean = map_batches(self.forward.currents, z, experiment, waveform, batch_size=_BATCH)
        mask = _masks(rng, clean, settings.get("observed"))
        known = self.by_design | ~np.asarray(self.prior.active(experiment.present))
        return BaseCases(
            Records.without_belief(np.full_like(clean, np.nan), mask, experiment, z, known),
            clean=clean,
            task=np.array(list(self.config["tasks"]))[draws.task],
        )

    def observe(
        self, base: BaseCases, key: Array, stress: str | None = None, severity: float = 0.0
    ) -> Records:
        """The base cases under a stress, with noise of their own.

        Args:
            base: The cases.
            key: For the noise, and for what else the stress leaves to chance: another for each
                variant.
            stress: Name in the model's `stresses`; None for the training family itself.
            severity: In [0, 1].
        """
        records, happened = base.records, self._happened(base, key, stress, severity)
        observed = map_batches(
            partial(self._observe, key),
            np.arange(len(records.z)),
            happened.natural.astype(np.float32),
            records.z[:, self.prior.baseline],
            happened.experiment,
            self.forward.waveforms(happened.experiment),
            base.signal,
            happened.gain.astype(np.float32),
            happened.added.astype(np.float32),
            happened.fouling,
            batch_size=_BATCH,
        )
        limit = happened.limit[:, None]
        return records._replace(observed=np.clip(observed, -limit, limit).astype(observed.dtype))

    def quiet(
        self, base: BaseCases, key: Array, stress: str, severity: float
    ) -> Float[np.ndarray, "case sample"]:
        """Noise-free currents of the base cases under a stress, without baseline, A; as `observe`.

        What the stress leaves to chance is as there, with the same key.
        """
        happened = self._happened(base, key, stress, severity)
        waveforms = self.forward.waveforms(happened.experiment)
        of = happened.natural.astype(np.float32), happened.experiment, waveforms, happened.fouling
        current = map_batches(self._currents, *of, batch_size=_BATCH)
        limit = happened.limit[:, None]
        return np.clip(happened.gain * current + happened.added, -limit, limit)

    def _happened(
        self, base: BaseCases, key: Array, stress: str | None, severity: float
    ) -> Happened:
        records = base.records
        natural = np.array(self.forward.natural(records.z, records.experiment))
        seed = np.asarray(jax.random.key_data(key))
        rng = np.random.default_rng(seed.tolist())
        scene = Scene(self.forward, natural, records.experiment, base.clean, rng)
        if stress is None:
            return scene.as_stated
        entry = {k: v for k, v in self.config["stresses"][stress].items() if k != "group"}
        return happen(scene, stress, entry, severity)

    @cached_property
    def _currents(self):
        return jax.jit(jax.vmap(lambda *point: self.forward.response(*point).current))

    @cached_property
    def _observe(self):
        def observe(
            key, index, natural, baseline, experiment, waveform, signal, gain, added, fouled
        ):
            current = self.forward.response(natural, experiment, waveform, fouled).current
            current = gain * current + added
            observation = self.prior.observation(natural, current, experiment, signal)
            return observation.with_baseline(baseline).draw(jax.random.fold_in(key, index))

        return jax.jit(jax.vmap(observe, in_axes=(None, *(0,) * 9)))

    def example(self, rng: np.random.Generator, data: Path, meta: Path) -> None:
        """Write a simulated record, marked as such, in the form that measurements are read in."""
        level = next(iter(self.config["levels"]))
        tasks = {"cv_reversible": self.config["tasks"]["cv_reversible"]}
        config = {**self.config, "tasks": tasks}
        draws = family.draw(rng, config, 1, _EXAMPLE_SAMPLES, self.prior.size, {level: 1.0})
        experiment = draws.experiment
        z = np.asarray(ndtri(draws.quantile), np.float32)
        natural = np.asarray(self.forward.natural(z, experiment))
        clean = self.forward.currents(z, experiment, self.forward.waveforms(experiment))
        one = jax.tree.map(lambda a: np.asarray(a)[0], experiment)
        key = jax.random.key(rng.integers(2**32))
        observation = self.prior.observation(natural[0], clean[0], one)
        observed = observation.with_baseline(z[0][self.prior.baseline]).draw(key)
        signal = np.sqrt((clean**2).mean())
        values = readings(self.prior, natural[0], one, signal)
        truth = {name: float(values[name]) for name in readable(one)}
        measurement.write(data, meta, np.asarray(observed), one, truth)


def _masks(
    rng: np.random.Generator, current: np.ndarray, observed: float | str | None
) -> np.ndarray:
    """Masks of noise-free currents, shape (n, N); see `Simulation.base_cases`."""
    if observed is None or isinstance(observed, str):
        shares = MASKS if observed is None else {observed: 1.0}
        keys = jax.random.split(jax.random.key(rng.integers(2**32)), len(current))
        draw = jax.vmap(lambda key, current: draw_mask(key, current, shares))
        mask = np.array(draw(keys, current))
    else:
        mask = rng.random(current.shape) < observed
    mask[:, : min(current.shape[1], _FEWEST_OBSERVED)] |= ~mask.any(1, keepdims=True)
    return mask
