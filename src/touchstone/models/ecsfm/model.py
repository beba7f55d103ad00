"""Voltammetry in the workflow: the contract, filled by the rooms beside this file."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import jax
import numpy as np

from touchstone.contract import Escalated, Fit, Model, Simulated, summary_of
from touchstone.io import artifacts
from touchstone.models.ecsfm.data import (
    alternatives,
    cautions,
    dataset,
    excitation,
    form,
    measurement,
)
from touchstone.models.ecsfm.data.simulation import Simulation
from touchstone.models.ecsfm.inference import (
    networks,
    oracle,
    posteriors,
    protocols,
    training,
)
from touchstone.models.ecsfm.inference.checkpoint import Checkpoint
from touchstone.models.ecsfm.inference.fouled import COVERAGE, Fouled
from touchstone.models.ecsfm.inference.inferrer import METHODS, Inferrer
from touchstone.models.ecsfm.physics import checks
from touchstone.models.ecsfm.physics.experiment import Records
from touchstone.models.ecsfm.physics.forward import Forward
from touchstone.models.ecsfm.physics.prior import Prior
from touchstone.models.ecsfm.physics.readings import is_of_couple, readable, readings, unit
from touchstone.models.ecsfm.physics.waveforms import is_sweep
from touchstone.reliability.oracle import power_of_covariance, power_of_shift
from touchstone.vocabulary import Cases, Check, Posterior, Quantity, View

_N_GALLERY = 3  # experiments of a task that are drawn
_N_PRIOR = 4000  # draws of the prior, for its intervals
_EDGE = 4.0  # a known value farther out, in standard coordinates, was hardly ever trained on

_settings = jax.jit(jax.vmap(networks.settings))  # of one record, whenever one is judged


class Ecsfm(Model[Records]):
    """Electrochemical sensing: redox couples at an electrode, seen through an instrument."""

    def __init__(self, config: dict):
        super().__init__(config)
        self.prior_of_parameters = Prior(config, config["max_couples"])
        self.forward = Forward(self.prior_of_parameters)
        self.simulation = Simulation(config, self.forward)
        self.inferrer, self.fouled = Inferrer(self.forward), Fouled(config)
        self._checkpoint: Checkpoint | None = None

    @property
    def quantities(self) -> list[Quantity]:
        """All parameters."""
        return self.prior_of_parameters.parameters

    @property
    def methods(self) -> tuple[str, ...]:
        """Exact re-weighting answers; see `Inferrer`."""
        return METHODS

    @property
    def checkpoint(self) -> Checkpoint:
        """The networks.

        Raises:
            ArtifactError: If neither `fit` nor `load` has been called.
        """
        if self._checkpoint is None:
            raise artifacts.ArtifactError("ecsfm: no checkpoint is loaded")
        return self._checkpoint

    # Data -----------------------------------------------------------------------------------------

    def simulate(
        self, settings: dict, rng: np.random.Generator, file: Path, provenance: dict
    ) -> Simulated[Records]:
        """Write a chunk of experiments; `settings` as in `Simulation.chunk`."""
        chunk = self.simulation.chunk(rng, settings)
        artifacts.save_arrays(file, chunk.arrays(provenance))
        back = self._load_chunk(file, settings["n_points"])
        gallery = {
            name: self._cases(back.records(rows[:_N_GALLERY], self.prior_of_parameters), name)
            for name, rows in back.by_task().items()
        }
        return Simulated(len(back), back.counts(), gallery)

    def checks(self) -> list[Check]:
        """The simulator beside exact answers."""
        return checks.physics_checks()

    def example(self, rng: np.random.Generator, data: Path, meta: Path) -> None:
        """Write a simulated voltammogram of a reversible couple."""
        self.simulation.example(rng, data, meta)

    def cases(
        self,
        n: int,
        rng: np.random.Generator,
        noise: np.random.Generator,
        settings: dict,
        stress: str | None = None,
        severity: float = 0.0,
    ) -> Cases[Records]:
        """Simulated records; `settings` as in `Simulation.base_cases`."""
        base = self.simulation.base_cases(n, rng, settings, self.checkpoint.meta["n_points"])
        key = jax.random.key(noise.integers(2**32))
        records = self.simulation.observe(base, key, stress, severity)
        return self._cases(records, base.task)

    def detection_power(
        self,
        n: int,
        rng: np.random.Generator,
        noise: np.random.Generator,
        settings: dict,
        stress: str,
        severity: float,
        known: Sequence[str] = (),
        n_first: int | None = None,
    ) -> np.ndarray:
        """Of the best test on each record; see `oracle`. Correlated noise is no shift of the mean:
        there the test is one of covariances."""
        base = self.simulation.base_cases(n, rng, settings, self.checkpoint.meta["n_points"])
        first, signal = base.records.take(slice(n_first)), base.signal[:n_first]
        if stress == "correlated":
            entry = self.config["stresses"][stress]
            ratio = oracle.covariance_ratios(self.forward, first, signal, entry, severity)
            return power_of_covariance(ratio, noise)
        key = jax.random.key(noise.integers(2**32))
        quiet = self.simulation.quiet(base, key, stress, severity)[:n_first]
        fits = oracle.Fits(self.forward, first, signal)
        told = np.asarray(first.known) | np.isin(self.prior_of_parameters.names, known)
        return power_of_shift(fits.distances(quiet, told))

    def read(self, data: Path, meta: Path) -> tuple[Cases[Records], list[str]]:
        """Measured records of one system; see `measurement` for formats and metadata."""
        n_points = self.checkpoint.meta["n_points"]
        records, notes = measurement.read(data, meta, self.prior_of_parameters, n_points)
        cases = self._cases(records, "measurement")
        return cases._replace(system=np.zeros(len(records.observed), int)), notes

    def describe(self, data: Path, meta: Path | None) -> list[str]:
        """What is understood of the files of a measurement; see `measurement.describe_all`."""
        return measurement.describe_all(data, meta)

    def record(self, values: dict, data: Path, meta: Path) -> None:
        """Write the record of a form with its metadata; see `data.form`."""
        form.write(values, data, meta)

    def form_problems(self, values: dict) -> list[str]:
        """Which values do not go together; see `data.form`."""
        return form.problems(values)

    def _load_chunk(self, file: Path, n_points: int) -> dataset.Chunk:
        return dataset.load_chunk(file, n_points, self.prior_of_parameters.max_couples)

    def _cases(self, records: Records, kind: str | np.ndarray) -> Cases[Records]:
        n = len(records.observed)
        truth = np.asarray(self.forward.natural(records.z, records.experiment))
        kinds = np.broadcast_to(np.asarray(kind), n)
        observed, mask, known = map(np.asarray, (records.observed, records.mask, records.known))
        return Cases(observed, mask, truth, known, kinds, np.arange(n), records)

    # Inference ------------------------------------------------------------------------------------

    def fit(
        self,
        data: list[Path],
        settings: dict,
        rng: np.random.Generator,
        folder: Path,
        lineage: dict,
    ) -> Fit:
        """Train both networks on chunks; see `training.train`."""
        chunks = [self._load_chunk(path, settings["n_points"]) for path in data]
        prior, by_design = self.prior_of_parameters, self.simulation.by_design
        key, evaluation_key = (jax.random.key(rng.integers(2**32)) for _ in range(2))
        trained = training.train(chunks, prior, by_design, settings, key, folder, lineage)
        self._checkpoint = trained.checkpoint
        return Fit(
            trained.n_rows,
            trained.n_held_out,
            trained.losses,
            training.evaluate(trained, prior, by_design, evaluation_key),
            sorted({name for chunk in chunks for name in chunk.assumed}),
        )

    def load(self, folder: Path) -> bool:
        """Load a checkpoint folder, or the folder of a file in it."""
        self._checkpoint = Checkpoint.load(folder)
        return self._checkpoint.verified

    def infer(
        self,
        cases: Cases[Records],
        rng: np.random.Generator,
        *,
        method: str,
        budget: dict,
        label: str | None = None,
    ) -> Posterior:
        """Posterior of each case, and what the exact simulator predicts; see `Inferrer`."""
        key = jax.random.key(rng.integers(2**32))
        return self.inferrer.infer(self.checkpoint, cases, key, method, budget, label)

    def reference(
        self,
        cases: Cases[Records],
        start: Posterior,
        rng: np.random.Generator,
        *,
        budget: dict,
        folder: Path,
        label: str | None = None,
    ) -> Posterior:
        """The no-U-turn sampler on the exact simulator; see `Inferrer.reference`."""
        seed = int(rng.integers(2**31))
        return self.inferrer.reference(cases, start, seed, budget, folder, label)

    def escalate(
        self, cases: Cases[Records], posterior: Posterior, rng: np.random.Generator, *, budget: dict
    ) -> Escalated[Records]:
        """By the simulator with a film on the electrode; see `Fouled`."""
        wider = self.fouled.cases(cases)
        found = self.fouled.infer(wider, posterior, rng, budget)
        before = self.fouled.draws_of_prior(wider, _N_PRIOR, rng)
        table = self.fouled.table(wider, found, rng) + self._table(cases, found, before)
        quantities, size = self.fouled.prior.parameters, (COVERAGE, "coverage at the end")
        return Escalated("fouling", quantities, wider, found, table, size)

    def protocols(self, cases: Cases[Records], posterior: Posterior) -> dict[str, np.ndarray]:
        """Other scan rates and windows, a step, and what removes a film; see `protocols`."""
        has_film = cases.known.shape[1] == self.fouled.prior.size
        inferrer = self.fouled.inferrer if has_film else self.inferrer
        return dict(protocols.expectations(inferrer, self.fouled, cases, posterior))

    def prior(
        self, cases: Cases[Records], n_draws: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Draws of the prior of each case, given what is known."""
        records, size = cases.detail, self.prior_of_parameters.size
        z = rng.standard_normal((len(records.z), n_draws, size)).astype(np.float32)
        return self.inferrer.prior_values(z, records)

    def summaries(self, cases: Cases[Records]) -> np.ndarray:
        """What the posterior network has made of each record."""
        checkpoint = self.checkpoint
        networks_of = self.prior_of_parameters, checkpoint.posterior, checkpoint.normaliser
        return np.asarray(posteriors.summaries(*networks_of, cases.detail))

    def outside_training(self, cases: Cases[Records]) -> list[list[str]]:
        """What of each record lies outside of what the networks were trained on."""
        return [self._outside(cases.take(slice(k, k + 1)).detail) for k in range(len(cases.kind))]

    def _outside(self, record: Records) -> list[str]:
        numbers = np.asarray(_settings(record.experiment))[0]
        ranges = self.checkpoint.meta["trained_range"].items()
        outside = [
            f"{name} is {value:.3g}, trained from {low:.3g} to {high:.3g}"
            for (name, (low, high)), value in zip(ranges, numbers, strict=False)
            if not low - 1e-3 <= value <= high + 1e-3
        ]
        potential = np.asarray(record.experiment.potential[0])
        counted = excitation.of_potential(potential, float(record.experiment.duration[0]))
        outside += excitation.outside(counted, self.config, len(potential))
        prior = self.prior_of_parameters
        given = record.known[0] & np.asarray(prior.active(record.experiment.present))[0]
        return outside + [
            f"the known {name} is at or beyond the edge of its prior"
            for name, z, known in zip(prior.names, record.z[0], given, strict=True)
            if known and abs(z) > _EDGE
        ]

    # Words and figures ----------------------------------------------------------------------------

    def view(self, cases: Cases[Records], index: int) -> View:
        """Current against potential for cyclic voltammetry, else against time."""
        experiment = cases.detail.experiment
        potential = np.asarray(experiment.potential[index])
        if is_sweep(potential):
            return View(potential, "Potential (V)", "Current (µA)", 1e6)
        part = np.arange(1, len(potential) + 1) / len(potential)
        return View(np.asarray(experiment.duration[index] * part), "Time (s)", "Current (µA)", 1e6)

    def alternatives(self, cases: Cases[Records]) -> dict[str, Cases[Records]]:
        """Usual slips of the settings; see `data.alternatives`."""
        readings = alternatives.of_records(cases.detail, self.prior_of_parameters)
        return {
            words: self._cases(records, "measurement")._replace(system=cases.system)
            for words, records in readings
        }

    def cautions(self, cases: Cases[Records], posterior: Posterior) -> list[str]:
        """Errors of the metadata that a parameter would absorb; see `data.cautions`."""
        return cautions.of_records(self.prior_of_parameters, cases, posterior)

    def table(
        self, cases: Cases[Records], posterior: Posterior, rng: np.random.Generator
    ) -> list[dict]:
        """Posterior in the units of a laboratory; see `physics.readings`.

        Couples, which all records have in common, are listed once.
        """
        return self._table(cases, posterior, self.prior(cases, _N_PRIOR, rng))

    def _table(
        self, cases: Cases[Records], posterior: Posterior, prior: dict[str, np.ndarray]
    ) -> list[dict]:
        several, rows = len(cases.kind) > 1, []
        for k in range(len(cases.kind)):
            experiment = jax.tree.map(lambda a, k=k: np.asarray(a)[k], cases.detail.experiment)
            signal = np.sqrt((posterior.prediction.mean[k] ** 2).mean())
            ours = self._readings(posterior.draws, k, experiment, signal)
            before = self._readings(prior, k, experiment, signal)
            for name in readable(experiment):
                shared = is_of_couple(name)
                given = np.ptp(before[name]) <= 1e-5 * np.abs(before[name]).max()
                if given or (shared and k):
                    continue
                rows.append(
                    {
                        "quantity": name,
                        "record": k + 1 if several and not shared else None,
                        "unit": unit(name),
                        **summary_of(ours[name], posterior.weight[k], before[name]),
                    }
                )
        return rows

    @cached_property
    def _each_reading(self):
        prior = self.prior_of_parameters
        each = jax.vmap(lambda *point: readings(prior, *point), in_axes=(0, None, None))
        return jax.jit(each)

    def _readings(self, draws: dict, case: int, experiment, signal) -> dict[str, np.ndarray]:
        columns = [q.coordinate(draws[q.name][case]) for q in self.quantities]
        found = self._each_reading(np.stack(columns, axis=1), experiment, signal)
        return {name: np.asarray(values) for name, values in found.items()}
