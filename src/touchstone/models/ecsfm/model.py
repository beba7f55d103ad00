"""Voltammetry in the workflow: simulate, train, stress and infer."""

import math
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr
from jax import Array
from jax.scipy.special import ndtri

from touchstone.contract import Model
from touchstone.inference.batches import map_batches
from touchstone.io.artifacts import ArtifactError
from touchstone.models.ecsfm.data import family, measurement
from touchstone.models.ecsfm.data.dataset import Chunk, load_chunk, parameter_rows
from touchstone.models.ecsfm.inference import networks, posteriors, quantities, training
from touchstone.models.ecsfm.inference.checkpoint import Checkpoint
from touchstone.models.ecsfm.inference.training import Trained
from touchstone.models.ecsfm.physics import checks
from touchstone.models.ecsfm.physics.experiment import Experiment, Kind
from touchstone.models.ecsfm.physics.fouling import Fouling
from touchstone.models.ecsfm.physics.prior import Prior
from touchstone.models.ecsfm.physics.simulator import Response, simulate
from touchstone.models.ecsfm.physics.waveforms import Waveform, find_jumps, resolve
from touchstone.vocabulary import Cases, Check, Parameter, Posterior, View

_EXAMPLE_SAMPLES = 1000
_MOST_TURNS = 8  # of the potential in a record that is drawn as a voltammogram
_EDGE = 4.0  # a known value farther out, in standard coordinates, was hardly ever trained on
_NODES_PER_SAMPLE = 2.5  # solver steps: room for the graded steps of every technique


class BaseCases(NamedTuple):
    """What the variants of a stress have in common.

    Attributes:
        z: True parameters, standard coordinates, shape (n, P).
        experiment: The experiments.
        waveform: The same, for the solver.
        mask: Observed samples, shape (n, N).
        known: Parameters known by design or absent, shape (n, P).
        signal: Root mean square of the clean current, A: the unit of baseline and noise.
        task: Name of the task, shape (n,).
    """

    z: np.ndarray
    experiment: Experiment
    waveform: Waveform
    mask: np.ndarray
    known: np.ndarray
    signal: np.ndarray
    task: np.ndarray

    def take(self, index) -> "BaseCases":
        """Some of the cases, by index or slice."""
        rest = self._replace(waveform=None)
        waveform = jax.tree.map(lambda a: np.asarray(a)[index], self.waveform)
        return jax.tree.map(lambda a: np.asarray(a)[index], rest)._replace(waveform=waveform)


class Ecsfm(Model):
    """Electrochemical sensing: redox couples at an electrode, seen through an instrument."""

    def __init__(self, config: dict):
        super().__init__(config)
        self.max_couples = config["max_couples"]
        self.prior = Prior(config, self.max_couples)
        self.task_names = tuple(config["tasks"])
        self.stage_names = tuple(config["levels"])
        self._posteriors = posteriors.Posteriors(self.prior)
        self.by_design = np.isin(self.prior.blocks, config["known_by_design"])

    # Forward ----------------------------------------------------------------------------------

    def current(self, z: Array, experiment: Experiment, waveform: Waveform) -> Array:
        """Noise-free current of one experiment, without baseline, A, shape (N,)."""
        return self._simulate(self.prior.natural(z, experiment), experiment, waveform)

    def _simulate(
        self, natural: Array, experiment: Experiment, waveform: Waveform, kind: Kind | None = None
    ) -> Array:
        return self._response(natural, experiment, waveform, kind=kind).current

    def _response(
        self, natural, experiment, waveform, fouling=None, kind: Kind | None = None
    ) -> Response:
        couples = self.prior.couples(natural, experiment)
        electrode = experiment.electrode
        if kind is not None:
            couples = jax.tree.map(lambda a: a[: kind.n_couples], couples)
            electrode = electrode._replace(curvature=None) if kind.planar else electrode
        instrument = self.prior.instrument(natural, experiment)
        return simulate(waveform, couples, electrode, instrument, fouling)

    @cached_property
    def _currents(self):
        return jax.jit(jax.vmap(self.current))

    def _resolve(self, experiment: Experiment) -> Waveform:
        n_nodes = int(_NODES_PER_SAMPLE * experiment.potential.shape[1])
        return resolve(experiment.potential, experiment.duration, n_nodes)

    def simulate(self, rng: np.random.Generator, settings: dict) -> Chunk:
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
        current = map_batches(
            self._currents,
            z,
            experiment,
            self._resolve(experiment),
            batch_size=64,
            label="simulate",
        )
        natural = np.asarray(jax.jit(jax.vmap(self.prior.natural))(z, experiment))
        instrument = jax.jit(jax.vmap(self.prior.instrument))(natural, experiment)
        return Chunk(
            current=1e3 * current,
            potential=experiment.potential,
            parameters=parameter_rows(self.prior, natural, experiment.present),
            task=draws.task,
            stage=draws.level,
            task_names=self.task_names,
            stage_names=self.stage_names,
            settings={
                "duration": experiment.duration,
                "radius": experiment.radius,
                "curvature": experiment.curvature,
                "temperature": experiment.temperature,
                "resistance": np.asarray(instrument.resistance),
                "capacitance": 1e6 * np.asarray(instrument.capacitance),
                "noise_std": 1e3 * np.sqrt((current**2).mean(1)) * np.exp(natural[:, -1]),
            },
            group=np.arange(n_traces),
            assumed=(),
        )

    def load_chunk(self, path: Path, n_points: int) -> Chunk:
        """Read a chunk at a record length; see `dataset.load_chunk`."""
        return load_chunk(path, n_points, self.max_couples)

    def gallery(self, chunk: Chunk, n: int) -> dict[str, list[tuple[View, np.ndarray]]]:
        """Up to n noise-free traces of each task of a chunk, of the widest level there is."""
        by_level = np.argsort(-chunk.stage, kind="stable")
        chosen = {
            name: [i for i in by_level if chunk.task[i] == task][:n]
            for task, name in enumerate(chunk.task_names)
        }
        duration = chunk.experiment.duration
        drawn = {}
        for name, rows in chosen.items():
            # All traces of a task on one kind of axis.
            swept = all(_is_sweep(chunk.potential[i]) for i in rows)
            views = [_view(chunk.potential[i], duration[i], swept) for i in rows]
            drawn[name] = [(v, 1e-3 * chunk.current[i]) for v, i in zip(views, rows, strict=True)]
        return {name: curves for name, curves in drawn.items() if curves}

    def checks(self) -> list[Check]:
        """The simulator beside exact answers."""
        return checks.physics_checks()

    # Training ---------------------------------------------------------------------------------

    def train(
        self, chunks: list[Chunk], settings: dict, key: Array, folder: Path, lineage: dict
    ) -> Trained:
        """Train both networks and write the checkpoint; see `training.train`."""
        return training.train(chunks, self.prior, self.by_design, settings, key, folder, lineage)

    def evaluate(self, trained: Trained, key: Array, n_draws: int) -> dict:
        """How the networks do on held-out rows; see `training.evaluate`."""
        return training.evaluate(trained, self.prior, self.by_design, key, n_draws)

    def load_checkpoint(self, path: Path) -> Checkpoint:
        """Read a checkpoint folder, or the folder of a file in it."""
        return Checkpoint.load(path)

    # Stress -----------------------------------------------------------------------------------

    def base_cases(self, rng: np.random.Generator, settings: dict, n_points: int) -> BaseCases:
        """Draw what the variants of each stressed case have in common.

        Args:
            rng: Source of randomness.
            settings: `n_cases`; `observed`, the probability that a sample is, or a kind of mask
                of the training, or null for all kinds as often as there; `noise`, the standard
                deviation of white noise in units of the clean signal, or null for its prior.
            n_points: Samples of each.
        """
        n_cases = settings["n_cases"]
        draws = family.draw(rng, self.config, n_cases, n_points, self.prior.size, {"frontier": 1.0})
        z = np.array(ndtri(draws.quantile), np.float32)
        if settings["noise"] is not None:
            index = self.prior.names.index("noise")
            noise = self.prior.parameters[index]
            fraction = ((math.log(settings["noise"]) - noise.location) / noise.scale + 1) / 2
            z[:, index] = ndtri(fraction)
        waveform = self._resolve(draws.experiment)
        clean = map_batches(self._currents, z, draws.experiment, waveform, batch_size=64)
        active = np.asarray(self.prior.active(draws.experiment.present))
        mask = _masks(rng, clean, settings["observed"])
        return BaseCases(
            z=z,
            experiment=draws.experiment,
            waveform=waveform,
            mask=mask,
            known=self.by_design | ~active,
            signal=np.sqrt((clean**2).mean(1)),
            task=np.array(self.task_names)[draws.task],
        )

    def variant(
        self, base: BaseCases, key: Array, stress: str | None = None, severity: float = 0.0
    ) -> Cases:
        """The base cases under a stress, with noise of their own.

        Args:
            base: The cases.
            key: For the noise: another for each variant.
            stress: Name in the model's `stresses`; None for the training family's own simulator.
            severity: In [0, 1].

        Returns:
            The observations.
        """
        fouling = None
        if stress is not None:
            fouling = self._fouling(stress, base).at_severity(np.float32(severity))
            fouling = jax.tree.map(
                lambda a: np.broadcast_to(np.float32(a), base.signal.shape), fouling
            )

        observed = map_batches(
            partial(self._observe, key),
            np.arange(len(base.z)),
            base.z,
            base.experiment,
            base.waveform,
            base.signal,
            fouling,
            batch_size=64,
        )
        return Cases(observed, base.mask, base.experiment, base.z, base.known)

    @cached_property
    def _observe(self):
        def observe(key, index, z, experiment, waveform, signal, fouling):
            natural = self.prior.natural(z, experiment)
            current = self._response(natural, experiment, waveform, fouling).current
            observation = self.prior.observation(natural, current, experiment, signal)
            return observation.with_baseline(z[self.prior.baseline]).draw(
                jax.random.fold_in(key, index)
            )

        return jax.jit(jax.vmap(observe, in_axes=(None, 0, 0, 0, 0, 0, 0)))

    def _fouling(self, stress: str, base: BaseCases) -> Fouling:
        settings = dict(self.config["stresses"][stress])
        del settings["group"]
        final = settings.pop("final_coverage", None)
        fouling = Fouling(**settings)
        if final is None:
            return fouling
        natural = jax.vmap(self.prior.natural)(base.z, base.experiment)
        couples = jax.vmap(self.prior.couples)(natural, base.experiment)
        present = np.asarray(couples.c_ox + couples.c_red)[:, 0]
        k_ads = -np.log1p(-final) / (present * base.experiment.duration)
        ratio = fouling.k_reaction / fouling.k_ads
        return fouling._replace(k_ads=k_ads, k_reaction=ratio * k_ads)

    # Inference --------------------------------------------------------------------------------

    @property
    def parameters(self) -> list[Parameter]:
        """All parameters, in the order of `Cases.z`."""
        return self.prior.parameters

    def natural(self, z: np.ndarray, cases: Cases) -> np.ndarray:
        """Natural coordinates of standard ones, shape (n, draws, P)."""
        return np.asarray(self._natural(z, cases.experiment))

    @cached_property
    def _natural(self):
        return jax.jit(jax.vmap(jax.vmap(self.prior.natural, in_axes=(0, None))))

    def prior_moments(self, cases: Cases) -> tuple[np.ndarray, np.ndarray]:
        """Prior mean and standard deviation of the natural coordinates, shape (n, P) each."""
        return jax.tree.map(np.asarray, jax.vmap(self.prior.moments)(cases.experiment))

    def view(self, cases: Cases, index: int) -> View:
        """Current against potential for cyclic voltammetry, else against time."""
        experiment = cases.experiment
        potential = experiment.potential[index]
        return _view(potential, experiment.duration[index], _is_sweep(potential))

    def infer(
        self,
        checkpoint: Checkpoint,
        cases: Cases,
        key: Array,
        *,
        method: str,
        label: str | None = None,
        **budget,
    ) -> Posterior:
        """Posterior of each case, and what the exact simulator predicts from it.

        Args:
            checkpoint: The trained networks.
            cases: Observations of the checkpoint's record length.
            key: For all randomness; the draws of a case depend on its place among the cases only.
            method: As in `Posteriors.sampler`.
            label: Shows progress bars under this name.
            budget: As there.
        """
        waveform = self._resolve(cases.experiment)
        index = np.arange(len(cases.observed))
        sampler = self._posteriors.sampler(method, budget)
        drawn = map_batches(
            partial(sampler, checkpoint, key),
            index,
            cases,
            waveform,
            batch_size=posteriors.BATCH[method] or len(cases.z),
            label=label and f"{label}: draw",
        )
        z, mean, sd, noise, pit = map_batches(
            partial(self._posteriors.predict, method in posteriors.MARGINAL, key),
            index,
            drawn.z,
            drawn.weight,
            cases,
            waveform,
            batch_size=4,
            label=label and f"{label}: predict",
        )
        return Posterior(z, drawn.weight, mean, sd, noise, pit, *drawn[2:])

    def reference(
        self,
        case: Cases,
        draws: np.ndarray,
        *,
        n_tune: int,
        n_draws: int,
        seed: int,
        kept: xr.DataTree | None = None,
    ) -> xr.DataTree:
        """Chains of NUTS on the exact simulator, for one simulated case.

        Args:
            case: The case (leading axis of length one).
            draws: Of an approximate posterior, shape (n, P): the sampler takes its scales and all
                starts but one from them; that one is the truth.
            n_tune, n_draws, seed: As in `nuts.sample`.
            kept: Chains of an earlier call; returned if they are of this case.

        Returns:
            As `nuts.sample`, without the baseline, which is marginalised; `standard` of the group
            `posterior` has all parameters, with the baseline (dims chain, draw, all).

        Raises:
            ValueError: As `nuts.sample`.
        """
        waveform = self._resolve(case.experiment)
        sizes = {"n_tune": n_tune, "n_draws": n_draws}
        chains = self._posteriors.nuts(case, waveform, draws, seed=seed, kept=kept, **sizes)
        if chains is kept:
            return kept
        sampled = chains["posterior"]["z"]
        z = np.tile(case.z.astype(np.float32), (sampled[..., 0].size, 1))
        at = [self.prior.names.index(name) for name in sampled["parameter"].values]
        z[:, at] = sampled.values.reshape(len(z), -1)
        weight = np.full((1, len(z)), 1 / len(z), np.float32)
        predict = self._posteriors.predict
        z, *_ = predict(
            True, jax.random.key(seed), np.zeros(1, int), z[None], weight, case, waveform
        )
        chains["posterior"]["standard"] = xr.DataArray(
            np.asarray(z)[0].reshape(*sampled.shape[:2], -1),
            dims=("chain", "draw", "all"),
            coords={"all": list(self.prior.names)},
        )
        return chains

    # Measurements -----------------------------------------------------------------------------

    def example(self, rng: np.random.Generator, trace_path: Path, meta_path: Path) -> None:
        """Write a simulated measurement, marked as such, in the form that `read` takes."""
        task = {"cv_reversible": self.config["tasks"]["cv_reversible"]}
        draws = family.draw(
            rng,
            {**self.config, "tasks": task},
            1,
            _EXAMPLE_SAMPLES,
            self.prior.size,
            {self.stage_names[0]: 1.0},
        )
        z = np.asarray(ndtri(draws.quantile), np.float32)
        experiment = draws.experiment
        natural = np.asarray(jax.vmap(self.prior.natural)(z, experiment))
        clean = self._currents(z, experiment, self._resolve(experiment))
        one = jax.tree.map(lambda a: np.asarray(a)[0], experiment)
        key = jax.random.key(rng.integers(2**32))
        observation = self.prior.observation(natural[0], clean[0], one)
        observed = observation.with_baseline(z[0][self.prior.baseline]).draw(key)
        signal = np.sqrt((clean**2).mean())
        values = quantities.of(self.prior, natural[0], one, signal)
        truth = {name: float(values[name]) for name in quantities.present(one)}
        measurement.write(trace_path, meta_path, observed, one, truth)

    def read(self, trace_path: Path, meta_path: Path, n_points: int) -> tuple[Cases, list[str]]:
        """A measurement from disk, one case a record; see `measurement` for formats and metadata.

        The records of a folder are of one system, over one window of potentials.
        """
        cases, notes = [], []
        files = measurement.records(trace_path, meta_path)
        for number, (record, meta_paths) in enumerate(files, 1):
            meta = measurement.read_meta(*meta_paths)
            trace = measurement.read_trace(record, meta)
            try:
                cases.append(measurement.to_case(trace, meta, self.prior, n_points))
            except ValueError as error:
                raise ArtifactError(f"{' with '.join(map(str, meta_paths))}: {error}") from None
            which = f"record {number}, {record.name}: " if len(files) > 1 else ""
            own = [f"metadata from {path.name}, too" for path in meta_paths[1:]]
            notes += [which + note for note in (*trace.notes, *own)]
            if number == 1:
                couples = meta["couples"]
                window = np.sort(trace.potential)[[0, -1]]
            elif meta["couples"] != couples:
                raise ArtifactError(
                    f"{meta_paths[-1]}: couples: {files[0][0].name} has others, but the records "
                    "of a folder have them in common"
                )
            elif np.abs(np.sort(trace.potential)[[0, -1]] - window).max() > 0.1 * np.ptp(window):
                raise ArtifactError(
                    f"{record}: its potentials are others than the {window[0]:.3g} to "
                    f"{window[1]:.3g} V of {files[0][0].name}; infer it alone"
                )
        return jax.tree.map(lambda *arrays: np.concatenate(arrays), *cases), notes

    def outside_trained_range(self, checkpoint: Checkpoint, case: Cases) -> list[str]:
        """What of a case lies outside what the networks were trained on, in words."""
        numbers = np.asarray(jax.vmap(networks.settings)(case.experiment))[0]
        ranges = checkpoint.meta["trained_range"].items()
        outside = [
            f"{name} is {value:.3g}, trained from {low:.3g} to {high:.3g}"
            for (name, (low, high)), value in zip(ranges, numbers, strict=False)
            if not low - 1e-3 <= value <= high + 1e-3
        ]
        active = np.asarray(self.prior.active(case.experiment.present))[0]
        return outside + [
            f"the known {name} is at or beyond the edge of its prior"
            for name, z, known in zip(
                self.prior.names, case.z[0], case.known[0] & active, strict=True
            )
            if known and abs(z) > _EDGE
        ]

    def table(self, posterior: Posterior, cases: Cases, rng: np.random.Generator) -> list[dict]:
        """Posterior in the units of a reader, beside its prior; see `quantities`."""
        return quantities.table(self.prior, posterior, cases, rng)


def _masks(
    rng: np.random.Generator, current: np.ndarray, observed: float | str | None
) -> np.ndarray:
    """Masks of noise-free currents, shape (n, N); see `Ecsfm.base_cases`."""
    if observed is None or isinstance(observed, str):
        shares = networks.MASKS if observed is None else {observed: 1.0}
        keys = jax.random.split(jax.random.key(rng.integers(2**32)), len(current))
        draw = jax.vmap(lambda key, current: networks.draw_mask(key, current, shares))
        mask = np.array(draw(keys, current))
    else:
        mask = rng.random(current.shape) < observed
    mask[:, : min(current.shape[1], 8)] |= ~mask.any(1, keepdims=True)
    return mask


def _is_sweep(potential: np.ndarray) -> bool:
    """Whether a record is a voltammogram: a potential that runs, turns seldom, and never jumps."""
    turns = np.count_nonzero(np.diff(np.sign(np.diff(potential))))
    return np.ptp(potential) > 0 and turns <= _MOST_TURNS and not find_jumps(potential)


def _view(potential: np.ndarray, duration: float, swept: bool) -> View:
    """A sweep is drawn against its potential, anything else against time."""
    if swept:
        return View(potential, "Potential (V)", "Current (µA)", 1e6)
    time = duration * np.arange(1, len(potential) + 1) / len(potential)
    return View(time, "Time (s)", "Current (µA)", 1e6)
