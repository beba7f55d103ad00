"""Interfacial area in the workflow: the contract, filled by the rooms beside this file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from touchstone.contract import Comparison, Fit, Model, Simulated
from touchstone.io import artifacts, plain_yaml
from touchstone.io.artifacts import ArtifactError
from touchstone.models.interface import (
    cohort,
    films,
    findings,
    prediction,
    regression,
    scarce,
    table,
)
from touchstone.models.interface.films import Films
from touchstone.models.interface.findings import Compared
from touchstone.models.interface.frozen import Frozen, Scaler
from touchstone.models.interface.regression import Design
from touchstone.models.interface.table import Columns, Table
from touchstone.vocabulary import Cases, Check, Posterior, Quantity, Structure, View

_N_GALLERY = 3  # films that are drawn
_RIDGE = 10.0  # penalty of the regression that the model is compared with


class Interface(Model[Films]):
    """Bayesian regression of interfacial area on morphology and stimuli, with film effects."""

    def __init__(self, config: dict):
        super().__init__(config)
        self.columns = Columns.of(config)
        self._quantities = [
            Quantity.from_config(name, entry) for name, entry in config["parameters"].items()
        ]
        self._frozen: Frozen | None = None

    @property
    def quantities(self) -> list[Quantity]:
        """Mean area of a film, the effect of each stimulus on it, and the scatter."""
        return self._quantities

    @property
    def methods(self) -> tuple[str, ...]:
        """Draws of the frozen regression, weighed by the film; see `films.infer`."""
        return ("importance",)

    @property
    def frozen(self) -> Frozen:
        """The regression.

        Raises:
            ArtifactError: If neither `fit` nor `load` has been called.
        """
        if self._frozen is None:
            raise ArtifactError("interface: no checkpoint is loaded")
        return self._frozen

    @property
    def names(self) -> tuple[str, ...]:
        """Of the descriptors that the regression uses."""
        return tuple(self.columns.morphology[j] for j in self.frozen.kept)

    # Data -----------------------------------------------------------------------------------------

    def simulate(
        self, settings: dict, rng: np.random.Generator, file: Path, provenance: dict
    ) -> Simulated[Films]:
        """Write the synthetic cohort."""
        drawn = cohort.draw(rng, self.config, settings["n_films"])
        artifacts.save_arrays(file, drawn.arrays())
        scaler = Scaler.fit(drawn, np.arange(len(self.columns.morphology)))
        labels = drawn.film[np.sort(np.unique(drawn.number, return_index=True)[1])][:_N_GALLERY]
        gallery = {
            str(name): self._cases_of(drawn.take(drawn.film == name), scaler) for name in labels
        }
        of_each = np.bincount(drawn.number)
        counts = {f"films of {n}": int(n * (of_each == n).sum()) for n in np.unique(of_each)}
        return Simulated(len(drawn.target), {"measurements": counts}, gallery)

    def checks(self) -> list[Check]:
        """Moments of a large cohort beside those of the original study."""
        target = cohort.draw(np.random.default_rng(0), self.config, 4000).target
        stated = self.config["target"]
        source = "the original study, 13 films"
        return [
            Check("mean area (1/Å)", stated["mean"], float(target.mean()), 4e-4, source),
            Check("its standard deviation (1/Å)", stated["sd"], float(target.std()), 4e-4, source),
        ]

    def cases(
        self,
        n: int,
        rng: np.random.Generator,
        noise: np.random.Generator,
        settings: dict,
        stress: str | None = None,
        severity: float = 0.0,
    ) -> Cases[Films]:
        """Films whose areas the frozen regression makes; see `films.draw`."""
        entry = (stress, self.config["stresses"][stress]) if stress else None
        drawn = films.draw(self.frozen, self.names, n, rng, noise, entry, severity)
        truth = [q.coordinate(v) for q, v in zip(self.quantities, drawn.truth.T, strict=True)]
        return self._cases(drawn.films, drawn.target, np.stack(truth, axis=1), "film")

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
        """Of the best test on each film; see `oracle.power`."""
        from touchstone.models.interface import oracle  # here: a form is answered without it

        entry = (stress, self.config["stresses"][stress])
        drawn = films.draw(self.frozen, self.names, n, rng, noise, entry, severity, quiet=True)
        return oracle.power(self.frozen, drawn, noise)[:n_first]

    def example(self, rng: np.random.Generator, data: Path, meta: Path) -> None:
        """Write a film of the synthetic cohort."""
        drawn = cohort.draw(rng, self.config, 1)
        table.write_csv(data, drawn, self.columns)
        with artifacts.atomic(meta) as temporary:
            temporary.write_text("synthetic: true\n", encoding="utf-8")

    def read(self, data: Path, meta: Path) -> tuple[Cases[Films], list[str]]:
        """The measurements of one film; a table of several needs `film` in the metadata."""
        files = artifacts.files(data)
        if len(files) != 1:
            raise ArtifactError(f"{data}: holds {len(files)} tables, expected one, of one film")
        found = table.read(files[0], self.columns)
        said = plain_yaml.load(meta) or {}
        if not isinstance(said, dict):
            raise ArtifactError(f"{meta}: expected keys and values, such as `film: film 3`")
        labels = list(dict.fromkeys(found.film.tolist()))
        wanted = str(said.get("film", labels[0]))
        if wanted not in labels or ("film" not in said and len(labels) > 1):
            raise ArtifactError(
                f"{meta}: film: {'not stated' if 'film' not in said else repr(wanted)}, expected "
                f"one of those in {files[0].name}: {', '.join(labels[:10])}"
            )
        ours = found.take(found.film == wanted)
        lacking = [
            name
            for name, j in zip(self.names, self.frozen.kept, strict=True)
            if not np.isfinite(ours.morphology[:, j]).all()
        ]
        notes = [f"{len(ours.target)} measurements of {wanted} from {files[0].name}"]
        notes += [f"{name} is missing somewhere, and taken at its mean there" for name in lacking]
        return self._cases_of(ours, self.frozen.scaler), notes

    def _cases_of(self, found: Table, scaler: Scaler) -> Cases[Films]:
        """The rows of one film as one case."""
        design = scaler.design(found)
        seen = Films(
            design.morphology[None], design.stimuli[None], np.ones((1, len(found.target)), bool)
        )
        truth = np.zeros((1, len(self.quantities)))
        observed = found.target[None]
        return Cases(
            observed, seen.mask, truth, np.zeros(truth.shape, bool), np.array(["measurement"]),
            np.zeros(1, int), seen,
        )  # fmt: skip

    def _cases(self, seen: Films, target: np.ndarray, truth: np.ndarray, kind: str) -> Cases[Films]:
        n = len(target)
        mean, sd = self.frozen.mean[-1], self.frozen.sd[-1]
        return Cases(
            mean + sd * target, seen.mask, truth, np.zeros(truth.shape, bool), np.full(n, kind),
            np.arange(n), seen,
        )  # fmt: skip

    # Inference ------------------------------------------------------------------------------------

    def fit(
        self,
        data: list[Path],
        settings: dict,
        rng: np.random.Generator,
        folder: Path,
        lineage: dict,
    ) -> Fit:
        """Sample the regression and freeze its draws.

        Raises:
            NotConvergedError: If the chains did not converge; no checkpoint is left then.
        """
        file = data[0]
        whole = table.read(file, self.columns)
        table.assert_enough(whole, file)
        held = _held_out(whole, settings["held_out"], rng)
        fitted, out = whole.take(~held), whole.take(held)
        kept, said = table.of_use(fitted, self.columns, settings["columns"])
        if not len(kept):
            raise ArtifactError(f"{file}: no descriptor is of use ({'; '.join(said)})")
        scaler = Scaler.fit(fitted, kept)
        design = scaler.design(fitted)
        names = tuple(self.columns.morphology[j] for j in kept), self.columns.stimuli
        ours = settings["prior"], "laplace"  # which is what `infer` takes the errors for
        seed, frozen, found = int(rng.integers(2**31)), None, []
        sizes = self.config["regression"]
        for prior, likelihood in [ours, *map(tuple, settings["compared"])]:
            tree = _chains(design, sizes, names, prior, likelihood, settings, seed)
            diagnosis, loo = regression.diagnose(tree), regression.leave_one_out(tree)
            if frozen is None:
                regression.assert_converged(diagnosis)
                _keep_trace(tree, folder)
                draws, effect = _thinned(tree, settings["n_frozen"], design)
                labels = np.array(list(dict.fromkeys(fitted.film.tolist())))
                frozen = Frozen.of(draws, scaler, design, effect, labels)
            found.append(Compared(f"{likelihood} errors, {prior} prior", loo, diagnosis))
        frozen.save(folder, self.columns, settings, lineage)
        self.load(folder)
        n = len(design.target)
        losses = {each.name: -each.loo.elpd / n for each in found}
        effects = findings.effects(frozen, names, sizes)
        comparisons = [
            self._held_out_errors(design, scaler.design(out)),
            Comparison(
                "Measurements left out, one at a time (minus log density)",
                [{"name": "measurements", "n": n, **losses}],
            ),
        ]
        tables = [
            Comparison("Effect of one sd, in sd of the area", effects),
            Comparison(
                "Regressions compared by leaving one measurement out", findings.comparison(found)
            ),
        ]
        in_words = [
            *findings.about_stimuli(frozen, effects, self._units(), self.config["target"]),
            *findings.about_coefficients(frozen, effects, sizes),
            findings.about_films_held_out(comparisons[0].rows[0]),
            *findings.about_loo(found, design.has_film_effects),
        ]
        assumed = said + design.left_out()
        return Fit(n, len(out.target), {}, comparisons, assumed, tables, in_words)

    def _held_out_errors(self, design: Design, out: Design) -> Comparison:
        """Errors of the area of films held out, beside a ridge regression and the mean."""
        frozen = self.frozen
        ours = frozen.location(out.morphology, out.stimuli).mean(0)
        linear = np.column_stack([design.morphology, design.stimuli])
        penalty = _RIDGE * np.eye(linear.shape[1])
        slope = np.linalg.solve(linear.T @ linear + penalty, linear.T @ design.target)
        ridge = np.column_stack([out.morphology, out.stimuli]) @ slope

        def error(guess):
            return float(np.sqrt(np.mean((guess - out.target) ** 2)))

        row = {
            "name": "films held out", "n": len(out.target), "regression": error(ours),
            "ridge": error(ridge), "mean of the training": error(0.0),
        }  # fmt: skip
        return Comparison("Error of the area of films held out (sd of the training)", [row])

    def _units(self) -> dict[str, str]:
        return {name: entry["unit"] for name, entry in self.config["stimuli"].items()}

    def load(self, folder: Path) -> bool:
        """Load a checkpoint folder, or the folder of a file in it."""
        self._frozen, verified = Frozen.load(Path(folder), self.columns)
        return verified

    def infer(
        self,
        cases: Cases[Films],
        rng: np.random.Generator,
        *,
        method: str,
        budget: dict,
        label: str | None = None,
    ) -> Posterior:
        """Posterior of each film; see `films.infer`."""
        frozen = self.frozen
        target = (cases.observed - frozen.mean[-1]) / frozen.sd[-1]
        found = films.infer(frozen, cases.detail, target, rng, budget["n_draws"], label)
        columns = enumerate(self.quantities)
        before = np.stack([q.coordinate(found.prior[..., k]) for k, q in columns], axis=-1)
        after = np.stack(
            [q.coordinate(found.values[..., k]) for k, q in enumerate(self.quantities)], axis=-1
        )
        n, n_draws = found.values.shape[:2]
        return Posterior(
            {q.name: found.values[..., k] for k, q in enumerate(self.quantities)},
            np.full((n, n_draws), 1 / n_draws),
            before.mean(1),
            before.std(1),
            films.place(after, before),
            found.prediction,
            found.log_evidence,
            found.computation,
        )

    def prior(
        self, cases: Cases[Films], n_draws: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Draws of what the regression says of each film before its areas are seen."""
        drawn = np.stack([films.prior(self.frozen, x, rng, n_draws) for x in cases.detail.mean])
        return {q.name: drawn[..., k] for k, q in enumerate(self.quantities)}

    def outside_training(self, cases: Cases[Films]) -> list[list[str]]:
        """Films whose morphology or stimuli are none of the training's."""
        seen = cases.detail
        return [
            self.frozen.outside(mean, stimuli[mask], self.columns.stimuli)
            for mean, stimuli, mask in zip(seen.mean, seen.stimuli, seen.mask, strict=True)
        ]

    def novelty(self, cases: Cases[Films]) -> np.ndarray:
        """Of the morphology and the stimuli; see `Frozen.novelty`."""
        seen = cases.detail
        return np.array(
            [
                self.frozen.novelty(mean, stimuli[mask])
                for mean, stimuli, mask in zip(seen.mean, seen.stimuli, seen.mask, strict=True)
            ]
        )

    def summaries(self, cases: Cases[Films]) -> np.ndarray:
        """Mean descriptors and stimuli of each film, and the mean and spread of its areas."""
        seen = cases.detail
        weight = seen.mask / seen.mask.sum(1, keepdims=True)
        stimuli = np.einsum("fn,fnk->fk", weight, seen.stimuli)
        area = (cases.observed - self.frozen.mean[-1]) / self.frozen.sd[-1]
        mean = (weight * area).sum(1, keepdims=True)
        spread = np.sqrt((weight * (area - mean) ** 2).sum(1, keepdims=True))
        return np.hstack([seen.mean, stimuli, mean, spread])

    def check_fit(self, trace: Path, rng: np.random.Generator):
        """Replications, cross-validation, chains and attributions; see `checking.Checked`."""
        from touchstone.models.interface import checking  # here, since it imports xarray

        names = (*self.names, *self.columns.stimuli)
        checked = checking.Checked(self.frozen, trace, names, self.config["regression"], rng)
        return checked.tables(), checked.draw

    def structure(self, settings: dict) -> Structure:
        """PyMC's graph of the regression that was trained."""
        from touchstone.inference import pymc_graph  # here: a form is answered without it

        frozen, rows = self.frozen, prediction.Background.of(self.frozen)
        film = np.repeat(np.arange(len(frozen.counts)), frozen.counts)
        design = regression.Design(film, rows.morphology, rows.stimuli, frozen.areas)
        names, sizes = (self.names, self.columns.stimuli), self.config["regression"]
        return pymc_graph.of(regression.build(design, sizes, names, settings["prior"]))

    def predict(self, values: dict, rng: np.random.Generator) -> dict:
        """The area of a film under stimuli; see `prediction.answer`."""
        target = self.config["target"]
        names, of_target = (self.names, self.columns.stimuli), (target["name"], target["unit"])
        return prediction.answer(self.frozen, names, values, of_target, rng)

    def form_problems(self, values: dict) -> list[str]:
        """Values far from the training, or of no use to it; see `prediction.problems`."""
        names = self.names, self.columns.stimuli
        return prediction.problems(self.frozen, names, self.columns, values)

    def view(self, cases: Cases[Films], index: int) -> View:
        """Area against the number of the measurement."""
        count = cases.observed.shape[1]
        return View(np.arange(1.0, count + 1), "Measurement", "Interfacial area (1/Å)", 1.0)


def _held_out(whole: Table, part: float, rng: np.random.Generator) -> np.ndarray:
    """Rows of some of the films, at least one, that are not learnt from."""
    n_films = whole.number.max() + 1
    chosen = rng.permutation(n_films)[: max(1, round(part * n_films))]
    return np.isin(whole.number, chosen)


def _chains(design, sizes, names, prior, likelihood, settings, seed):
    """Chains of one regression, by the way of sampling that its number of rows needs."""
    if design.is_scarce:
        return scarce.fit(design, sizes, names, prior, likelihood, settings, seed)
    model = regression.build(design, sizes, names, prior, likelihood)
    return regression.with_log_likelihood(model, regression.sample(model, settings, seed))


def _thinned(tree, n: int, design: Design) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Evenly spaced draws of all chains, by the names of the regression, and their film effects.

    What the regression leaves out is zero.
    """
    j, k, n_films = design.morphology.shape[1], design.stimuli.shape[1], design.film.max() + 1
    left_out = {"product": (j, k), "film_sd": (), "film_z": (n_films,)}
    draws = {}
    for name in (*regression.COEFFICIENTS, "film_z"):
        if name in tree["posterior"]:
            draws[name] = regression.thinned(tree["posterior"][name].values, n)
        else:
            draws[name] = np.zeros((len(draws["intercept"]), *left_out[name]))
    effect = draws["film_sd"][:, None] * draws.pop("film_z")
    return draws, effect


def _keep_trace(tree, folder: Path) -> None:
    """Write the chains as NetCDF, with the time in their name, into the folder of traces."""
    file = artifacts.stamped(folder.parents[1] / "traces", "regression")
    with artifacts.atomic(file) as temporary:
        tree.to_netcdf(temporary, engine="h5netcdf")
