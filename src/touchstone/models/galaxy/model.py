"""Counterfactual galaxies in the workflow: the contract, filled by the rooms beside this file."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from touchstone.contract import Comparison, Drawing, Fit, Model, Simulated, summary_of
from touchstone.io import artifacts, plain_yaml
from touchstone.io.artifacts import ArtifactError
from touchstone.models.galaxy import (
    conservation,
    counterfactual,
    external,
    observation,
    oracle,
    population,
    quadrature,
    stresses,
    tables,
)
from touchstone.models.galaxy.abduction import Abduction
from touchstone.models.galaxy.abduction import known as known_of
from touchstone.models.galaxy.cosmology import Cosmology
from touchstone.models.galaxy.graph import DIRECT, TOTAL, Graph
from touchstone.models.galaxy.observation import Photometry
from touchstone.models.galaxy.physics import Forward
from touchstone.vocabulary import Cases, Check, Posterior, Quantity, Structure, View

_FLOW, _META = "posterior_model.eqx", "model_meta.json"
_VERSION = 1
_N_GALLERY, _N_PRIOR = 3, 4000
MODES = (TOTAL, DIRECT)
_N_SIMULATED = 8000  # galaxies that a correction for selection rests on
_N_COMPARED = 500  # rows held out that the flow is compared on


class GalaxyModel(Model[Photometry]):
    """A structural causal model of galaxies, abducted from photometry and a redshift."""

    def __init__(self, config: dict):
        super().__init__(config)
        self._quantities = [
            Quantity.from_config(name, entry) for name, entry in config["parameters"].items()
        ]
        self.graph = Graph(config["nodes"] | config["parts"])
        self.bands = tuple(config["bands"])
        self.depth = config["noise"]["depth"]
        self._meta: dict | None = None

    @property
    def quantities(self) -> list[Quantity]:
        """Exogenous terms of the nodes that have a mechanism."""
        return self._quantities

    @property
    def methods(self) -> tuple[str, ...]:
        """Exact re-weighting of the flow's draws; see `Abduction`."""
        return ("reweighted",)

    @cached_property
    def sources(self) -> tuple[tables.Populations, tuple[tables.Filter, ...]]:
        """The tables, read when they are first needed."""
        filters = tables.filters(tuple(self.config["bands"].values()))
        return tables.populations(**self.config["populations"]), filters

    @cached_property
    def forward(self) -> Forward:
        """The physics."""
        cosmology = Cosmology(**self.config["cosmology"])
        return Forward(*self.sources, cosmology, self._redshifts)

    @property
    def _redshifts(self) -> tuple[float, float]:
        """The lowest and the highest."""
        redshift = self.graph.mechanisms["redshift"]
        return redshift.low, redshift.high

    @cached_property
    def abduction(self) -> Abduction:
        """Learns and infers."""
        effective = np.array([each.effective for each in self.sources[1]])
        return Abduction(self.graph, self.forward, self.config["noise"], self.bands, effective)

    @property
    def meta(self) -> dict:
        """Of the checkpoint.

        Raises:
            ArtifactError: If neither `fit` nor `load` has been called.
        """
        if self._meta is None:
            raise ArtifactError("galaxy: no checkpoint is loaded")
        return self._meta

    # Data -----------------------------------------------------------------------------------------

    def simulate(
        self, settings: dict, rng: np.random.Generator, file: Path, provenance: dict
    ) -> Simulated[Photometry]:
        """Write exogenous terms and their fluxes, without noise."""
        u = rng.standard_normal((settings["n_rows"], len(self.quantities))).astype(np.float32)
        artifacts.save_arrays(file, {"u": u, "fluxes": self.abduction.fluxes(u)})
        few = u[:_N_GALLERY]
        cases = self._cases(few, stresses.observe(self.abduction, few, rng, rng))
        count = {"simulations": {"galaxy": len(u)}}
        return Simulated(len(u), count, {"galaxy": cases})

    def checks(self) -> list[Check]:
        """Budgets and fluxes of one galaxy beside an independent quadrature."""
        u = np.array([[0.3, 0.2, -0.5, 0.4, -0.3, 0.6]], np.float32)
        values, _ = counterfactual.twins(self.graph, self.forward, u, (), "total")
        found, budget = counterfactual.readings(self.forward, values, self.bands)
        one = {name: float(column[0]) for name, column in values.items()}
        exact = quadrature.sums(one, *self.sources, **self.config["cosmology"])
        rows = [
            Check(
                f"{name} over {whole}",
                getattr(exact, name) / getattr(exact, whole),
                float(getattr(budget, name)[0] / getattr(budget, whole)[0]),
                1e-4,
                "adaptive quadrature",
            )
            for name, whole in (
                ("surviving", "formed"),
                ("returned", "formed"),
                ("absorbed", "intrinsic"),
                ("attenuated", "intrinsic"),
            )
        ]
        expected = dict(zip(self.bands, observation.magnitude(exact.fluxes), strict=True))
        return rows + [
            Check(f"magnitude in {b} (mag)", float(m), float(found[b][0]), 1e-3, "quadrature")
            for b, m in expected.items()
        ]

    def cases(
        self,
        n: int,
        rng: np.random.Generator,
        noise: np.random.Generator,
        settings: dict,
        stress: str | None = None,
        severity: float = 0.0,
    ) -> Cases[Photometry]:
        """Galaxies of the population, observed; see `stresses.observe`."""
        u = rng.standard_normal((n, len(self.quantities))).astype(np.float32)
        entry = self.config["stresses"][stress] if stress else None
        return self._cases(u, stresses.observe(self.abduction, u, rng, noise, entry, severity))

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
        """Of the best test on each galaxy; see `oracle.power`."""
        u = rng.standard_normal((n, len(self.quantities))).astype(np.float32)
        entry = self.config["stresses"][stress]
        quiet = stresses.observe(self.abduction, u, rng, noise, entry, severity, quiet=True)
        cases = self._cases(u, quiet).take(slice(n_first))
        factor = 1 + severity * (entry.get("factor", 1.0) - 1)
        light, floor = self.abduction.light, self.config["noise"]["floor"]
        return oracle.power(light, floor, known_of(cases), cases.truth, factor, noise)

    def _cases(
        self, u: np.ndarray, seen: tuple[np.ndarray, np.ndarray, Photometry], kind: str = "galaxy"
    ) -> Cases[Photometry]:
        flux, mask, detail = seen
        n = len(u)
        known = np.zeros(u.shape, bool)
        return Cases(flux, mask, u, known, np.full(n, kind), np.arange(n), detail)

    def example(self, rng: np.random.Generator, data: Path, meta: Path) -> None:
        """Write a simulated galaxy of the population's centre."""
        u = 0.5 * rng.standard_normal((1, len(self.quantities))).astype(np.float32)
        flux, _, detail = stresses.observe(self.abduction, u, rng, rng, None, 0.0)
        names = [*self.bands, *(f"{band}_error" for band in self.bands)]
        names += ["redshift", "redshift_error"]
        numbers = [*flux[0], *detail.error[0], detail.redshift[0], detail.redshift_error[0]]
        with artifacts.atomic(data) as temporary:
            row = ",".join(f"{number:.8g}" for number in numbers)
            temporary.write_text(f"{','.join(names)}\n{row}\n", encoding="utf-8")
        with artifacts.atomic(meta) as temporary:
            temporary.write_text("synthetic: true\nunit: nanomaggies\n", encoding="utf-8")

    def read(self, data: Path, meta: Path) -> tuple[Cases[Photometry], list[str]]:
        """A galaxy from a table of one row; see `observation.read`."""
        files = artifacts.files(data)
        if len(files) != 1:
            raise ArtifactError(f"{data}: holds {len(files)} tables, expected one of one galaxy")
        said = (plain_yaml.load(meta) if meta.is_file() else None) or {}
        if not isinstance(said, dict):
            raise ArtifactError(f"{meta}: expected keys and values, such as `unit: AB mag`")
        fluxes, redshift, error = observation.read(
            files[0], said, self.depth, self._redshifts, float(self.sources[0].wavelength[-1])
        )
        what, wavelength, notes = "bands", None, []
        if isinstance(fluxes, observation.Spectrum):
            if fluxes.beyond:
                notes.append(f"{fluxes.beyond} pixels are left out: the model has no light there")
            what, wavelength, fluxes = "pixels", fluxes.wavelength, fluxes.fluxes
        notes.insert(0, f"{int(fluxes.seen.sum())} {what} of one galaxy from {files[0].name}")
        return self._measured(fluxes, redshift, error, wavelength), notes

    def _measured(
        self,
        fluxes: observation.Fluxes,
        redshift: float,
        error: float,
        wavelength: np.ndarray | None,
    ) -> Cases[Photometry]:
        pixels = None if wavelength is None else wavelength[None]
        detail = Photometry(fluxes.error[None], np.array([redshift]), np.array([error]), pixels)
        u = np.zeros((1, len(self.quantities)))
        return self._cases(u, (fluxes.flux[None], fluxes.seen[None], detail), "measurement")

    # Inference ------------------------------------------------------------------------------------

    def fit(
        self,
        data: list[Path],
        settings: dict,
        rng: np.random.Generator,
        folder: Path,
        lineage: dict,
    ) -> Fit:
        """Train the flow on chunks, whose fluxes get noise here."""
        chunks = [artifacts.load_arrays(path) for path in data]
        u, fluxes = (np.concatenate([chunk[name] for chunk in chunks]) for name in ("u", "fluxes"))
        cases = self._cases(u, stresses.observe(self.abduction, u, rng, rng, fluxes=fluxes))
        held = np.arange(len(u)) >= round((1 - settings["held_out"]) * len(u))
        key = jax.random.key(rng.integers(2**32))
        sizes = {name: value for name, value in settings.items() if name != "held_out"}
        self.abduction.learn(u[~held], cases.take(~held), key, sizes)
        flow = self.abduction.flow
        assert flow is not None
        losses = np.asarray(flow.losses)
        seen = np.where(cases.mask, cases.observed, np.nan)
        meta = {
            "schema_version": _VERSION,
            "model_id": "galaxy",
            "width": settings["width"],
            "depth": settings["depth"],
            "n_losses": len(losses),
            "brightest": np.nanmax(seen, axis=0).tolist(),
        }
        with artifacts.atomic(folder / _FLOW) as temporary:
            self.abduction.save(temporary)
        artifacts.write_json(folder / _META, meta)
        artifacts.write_manifest(folder, [_FLOW, _META], settings, lineage)
        self.load(folder)
        comparison = self._held_out(
            u[held][:_N_COMPARED], cases.take(held).take(slice(_N_COMPARED))
        )
        finding, drawing = self._seen_in_part(rng)
        return Fit(
            int((~held).sum()), int(held.sum()), {"flow": losses}, [comparison], [],
            findings=[finding], drawings=[drawing],
        )  # fmt: skip

    def _seen_in_part(self, rng: np.random.Generator) -> tuple[str, Drawing]:
        """What is wrong with an average effect among bright galaxies, in words and drawn."""
        do, of = "mass=2x", "g-r"
        among = self._population(do, TOTAL, of, "r")
        rows = population.by_limit(among, rng, _N_SIMULATED)
        truth, seen, mended = (
            rows[0][name]["value"] for name in ("everyone", "selected", "corrected")
        )
        finding = (
            f"do({do}), {TOTAL}, changes {of} by {truth:+.4f} mag on average of a simulated "
            f"population; of its {rows[0]['n']} galaxies brighter than r = {rows[0]['limit']:g} by "
            f"{seen:+.4f}, which is biased, and corrected for the selection {mended:+.4f}."
        )
        caption = (
            f"Average effect of do({do}) on {of} among galaxies brighter than a limit, with 90 % "
            "intervals: red as if they were all, blue corrected for the selection. The band is the "
            "average of the whole population, simulated."
        )
        label = f"Average change of {of} (mag)"
        return finding, Drawing(
            "selection", caption, partial(population.draw_limits, rows=rows, label=label)
        )

    def _held_out(self, u: np.ndarray, cases: Cases[Photometry]) -> Comparison:
        """Errors of exogenous terms of galaxies held out, beside the regression and the prior."""
        flow = self.abduction.flow
        assert flow is not None
        drawn = self.abduction.propose(cases, jax.random.key(0), 64, 8)
        x = self.abduction.features(cases)
        x = (x - np.asarray(flow.location)) / np.asarray(flow.scale)
        zeros = np.zeros((len(x), u.shape[1]))
        context = np.concatenate([x, zeros, np.ones_like(x), zeros], axis=1)
        guesses = {"flow": drawn.mean(1), "regression": context @ np.asarray(flow.slope)}
        rows = [
            {
                "name": quantity.name,
                "n": len(u),
                **{name: _rms(guess[:, k] - u[:, k]) for name, guess in guesses.items()},
                "prior mean": _rms(u[:, k]),
            }
            for k, quantity in enumerate(self.quantities)
        ]
        return Comparison("Error of exogenous terms of galaxies held out (prior sd)", rows)

    def load(self, folder: Path) -> bool:
        """Load a checkpoint folder, or the folder of a file in it."""
        folder = Path(folder) if Path(folder).is_dir() else Path(folder).parent
        verified = artifacts.verify(folder, [_FLOW, _META])
        meta = artifacts.read_json(folder / _META)
        if meta.get("schema_version") != _VERSION:
            raise ArtifactError(
                f"{folder / _META}: schema_version {meta.get('schema_version')}, expected "
                f"{_VERSION}; train anew"
            )
        sizes = (int(meta[name]) for name in ("width", "depth", "n_losses"))
        self.abduction.load(folder / _FLOW, *sizes)
        self._meta = meta
        return verified

    def infer(
        self,
        cases: Cases[Photometry],
        rng: np.random.Generator,
        *,
        method: str,
        budget: dict,
        label: str | None = None,
    ) -> Posterior:
        """Posterior of each case; see `Abduction.infer`."""
        assert method in self.methods and self.meta
        return self.abduction.infer(cases, rng, budget, label)

    def prior(
        self, cases: Cases[Photometry], n_draws: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Draws of the exogenous terms, which nothing is known of before."""
        return {q.name: rng.standard_normal((len(cases.kind), n_draws)) for q in self.quantities}

    def outside_training(self, cases: Cases[Photometry]) -> list[list[str]]:
        """Redshifts, errors and fluxes that the training had none of."""
        return [self._outside(cases, k) for k in range(len(cases.kind))]

    def _outside(self, cases: Cases[Photometry], case: int) -> list[str]:
        noise, detail, seen = self.config["noise"], cases.detail, cases.mask[case]
        own = self.graph.mechanisms["redshift"]
        said = []
        redshift, error = float(detail.redshift[case]), float(detail.redshift_error[case])
        if not own.low <= redshift <= own.high:
            said.append(f"redshift is {redshift:.4g}, trained from {own.low:g} to {own.high:g}")
        low, high = noise["redshift"]
        if not low / 2 <= error <= 2 * high:
            said.append(f"redshift_error is {error:.2g}, trained from {low:g} to {high:g}")
        if detail.wavelength is not None:
            return [*said, "a spectrum, and what is usual is known of photometry alone"]
        spread = np.exp(4 * noise["spread"])
        columns = zip(
            self.bands, cases.observed[case], detail.error[case], self.meta["brightest"], seen,
            strict=True,
        )  # fmt: skip
        for band, flux, error, brightest, there in columns:
            usual = self.depth[band]
            if there and not usual / spread <= error <= usual * spread:
                said.append(
                    f"{band}_error is {error:.3g} nanomaggies, trained from {usual / spread:.3g} "
                    f"to {usual * spread:.3g}"
                )
            if there and flux > brightest:
                said.append(f"{band} is {flux:.3g} nanomaggies, trained up to {brightest:.3g}")
            if there and flux < -5 * error:
                said.append(f"{band} is {flux:.3g} nanomaggies, far below zero")
        return said

    # Words and figures ----------------------------------------------------------------------------

    def question(self, do: str, *, mode: str, strategy: str) -> counterfactual.Question:
        """The question of exogenous terms, whatever they were abducted from."""
        _assert_mode(mode)
        return counterfactual.Question(
            self.graph,
            self.forward,
            self.bands,
            self.abduction.effective,
            partial(conservation.report, sources=self.sources, cosmology=self.config["cosmology"]),
            self.graph.actions(do),
            mode,
            strategy == "strict_physics",
        )

    def counterfactual(
        self, do: str, *, mode: str, strategy: str
    ) -> Callable[[Cases[Photometry], Posterior, np.random.Generator], dict]:
        """The galaxy as it is, and its twin; see `counterfactual.Question`.

        Args:
            do: Such as "mass=2x, A_V=0, log_metallicity+0.3".
            mode: "total" or "direct"; see `Graph.twin`.
            strategy: "strict_physics" or "report_only".
        """
        ask = self.question(do, mode=mode, strategy=strategy)

        def answer(cases: Cases[Photometry], posterior: Posterior, rng: np.random.Generator):
            columns = [posterior.draws[q.name][0] for q in self.quantities]
            found = ask(np.stack(columns, axis=1).astype(np.float32), rng)
            seen, pixels = cases.mask[0], cases.detail.wavelength
            names = self.bands if pixels is None else [""] * len(seen)
            columns = names, self.view(cases, 0).x, cases.observed[0], cases.detail.error[0], seen
            found["curves"]["observed"] = [
                {"name": name, "x": float(x), "y": float(y), "error": float(error)}
                for name, x, y, error, there in zip(*columns, strict=True)
                if there
            ]
            return found

        return answer

    def population_effect(
        self,
        do: str,
        *,
        mode: str,
        rng: np.random.Generator,
        of: str = "g-r",
        seen: population.Selection | None = None,
        terms: Mapping[str, tuple[float, float]] | None = None,
        n: int = 3000,
        n_simulated: int = _N_SIMULATED,
    ) -> population.Effect:
        """What an action does to a population, of which the bright galaxies are seen.

        No checkpoint is needed.

        Args:
            do: As in `counterfactual`.
            mode: "total" or "direct"; see `Graph.twin`.
            rng: For all randomness.
            of: The reading, such as "log_sfr", a band, or a colour.
            seen: The selection, by default r < 17.77 mag, softly.
            terms: Mean and standard deviation of the exogenous terms in the population, by node;
                of others 0 and 1.
            n: Galaxies of the population, seen or not.
            n_simulated: Galaxies that the correction rests on.

        Returns:
            The distribution of the reading without and with the action, and the average effect: of
            all, of those that are seen, and of all as estimated from those that are seen.

        Raises:
            ArtifactError: If an action, the mode, a reading or a node is none.
            SelectionError: If the galaxies that are seen are too far from those simulated.
        """
        seen = seen or population.Selection()
        among = self._population(do, mode, of, seen.band)
        return among.effect(among.draw(n, rng, terms), among.draw(n_simulated, rng), rng, seen)

    def _population(self, do: str, mode: str, of: str, band: str) -> population.Population:
        _assert_mode(mode)
        return population.Population(
            self.graph, self.forward, self.bands, self.graph.actions(do), mode, of, band
        )

    def external_twin(self, twin: Path | Mapping[str, Any], *, strict: bool) -> dict:
        """Held to the laws, and projected onto them; see `external.Judge`."""
        judge = external.Judge(self.forward, self.bands, self._redshifts)
        return judge(twin if isinstance(twin, Mapping) else judge.read(twin), strict=strict)

    def record(self, values: dict, data: Path, meta: Path) -> None:
        """Write the galaxy that a form describes as a table of one row."""
        known = [*self.bands, *(f"{band}_error" for band in self.bands)]
        known += [f"{band}_extinction" for band in self.bands] + ["redshift", "redshift_error"]
        asked = ("unit", "do", "mode", "strategy")
        if unknown := [name for name in values if name not in (*known, *asked)]:
            raise ArtifactError(
                f"{', '.join(unknown)}: unknown, allowed are {', '.join(known)} and unit"
            )
        row = {name: values[name] for name in known if values.get(name) is not None}
        artifacts.write_csv(data, [row])
        unit = values.get("unit") or observation.MAG
        meta.write_text(f"unit: {unit}\n", encoding="utf-8")

    def structure(self, settings: dict) -> Structure:
        """The causal graph."""
        graph = self.graph
        kinds = {name: "inferred" if name in graph.names else "computed" for name in graph.order}
        edges = [(parent, name) for name in graph.order for parent in graph.parents[name]]
        nodes = {name: graph.described(name) for name in graph.order}
        return Structure(nodes, kinds | {"photometry": "observed", "noise": "given"}, edges)

    def table(
        self, cases: Cases[Photometry], posterior: Posterior, rng: np.random.Generator
    ) -> list[dict]:
        """Masses, rates, ages, metals and dust in place of exogenous terms."""
        drawn = np.stack([posterior.draws[q.name][0] for q in self.quantities], axis=1)
        prior = rng.standard_normal((_N_PRIOR, drawn.shape[1]))
        place = self.graph.names.index("redshift")
        prior[:, place] = rng.choice(drawn[:, place], _N_PRIOR)
        ours, before = (
            counterfactual.readings(
                self.forward,
                counterfactual.twins(self.graph, self.forward, u.astype(np.float32), (), "total")[
                    0
                ],
                self.bands,
            )[0]
            for u in (drawn, prior)
        )
        return [
            {
                "quantity": name,
                "record": None,
                "unit": unit,
                **summary_of(ours[name], posterior.weight[0], before[name]),
            }
            for name, (unit, _) in counterfactual.READINGS.items()
        ]

    def view(self, cases: Cases[Photometry], index: int) -> View:
        """Flux against wavelength."""
        pixels = cases.detail.wavelength
        x = self.abduction.effective if pixels is None else pixels[index]
        return View(x, "Wavelength (Å)", "Flux (nanomaggies)", 1.0)


def _assert_mode(mode: str) -> None:
    if mode not in MODES:
        raise ArtifactError(f"mode: {mode!r} is none of {', '.join(MODES)}")


def _rms(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(error**2)))
