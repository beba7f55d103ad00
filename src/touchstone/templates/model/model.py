"""New model: the contract filled by the simplest thing that works, for you to replace.

A level, normal under its prior, is seen in samples with white noise of a known size. Its posterior
is exact. Replace what is marked FILL, in this order: `draw_prior` and `signal`, then `read`, `fit`
and `infer`. `touchstone train` and the contract's tests tell what is missing.
"""

from pathlib import Path

import numpy as np
from scipy.stats import norm

from touchstone.contract import Comparison, Fit, Model, Simulated, summary_of
from touchstone.io import artifacts
from touchstone.vocabulary import Cases, Computation, Posterior, Prediction, Quantity, View

LEARNT = "learnt.npz"


class NewModel(Model[None]):
    """A level under noise. FILL: the class of your own, in a sentence."""

    def __init__(self, config: dict):
        super().__init__(config)
        entries = config["parameters"].items()
        self._quantities = [Quantity.from_config(name, entry) for name, entry in entries]
        self.noise, self.n_samples = float(config["noise"]), int(config["n_samples"])
        self.centre, self.width = self._quantities[0].location, self._quantities[0].scale

    @property
    def quantities(self) -> list[Quantity]:
        """What is inferred, in the order of `Cases.truth`."""
        return self._quantities

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods of inference; the first answers users. Each needs a budget in the schema."""
        return ("exact",)

    # Data: FILL -----------------------------------------------------------------------------------

    def draw_prior(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Coordinates of all quantities, shape (n, quantity)."""
        return self.centre + self.width * rng.standard_normal((n, 1))

    def signal(self, coordinates: np.ndarray) -> np.ndarray:
        """What would be seen without noise, shape (n, sample)."""
        return np.repeat(coordinates, self.n_samples, axis=1)

    def simulate(
        self, settings: dict, rng: np.random.Generator, file: Path, provenance: dict
    ) -> Simulated[None]:
        """Write a chunk to train on. A model without a simulator leaves this method out."""
        truth = self.draw_prior(rng, settings["n_rows"])
        observed = self.signal(truth) + self.noise * rng.standard_normal(
            (len(truth), self.n_samples)
        )
        artifacts.save_arrays(file, {"truth": truth, "observed": observed})
        gallery = {"level": self._cases(observed[:3], truth[:3], "level")}
        return Simulated(len(truth), {"simulations": {"level": len(truth)}}, gallery)

    def cases(
        self,
        n: int,
        rng: np.random.Generator,
        noise: np.random.Generator,
        settings: dict,
        stress: str | None = None,
        severity: float = 0.0,
    ) -> Cases[None]:
        """Observations of the model's kind, or under a stress."""
        truth = self.draw_prior(rng, n)
        clean = self.signal(truth)
        if stress:  # FILL: what each stress does
            rise = self.config["stresses"][stress]["rise"]
            clean = clean + severity * rise * np.linspace(-0.5, 0.5, self.n_samples)
        return self._cases(clean + self.noise * noise.standard_normal(clean.shape), truth, "level")

    def example(self, rng: np.random.Generator, data: Path, meta: Path) -> None:
        """Write a simulated measurement, marked as such."""
        observed = self.cases(1, rng, rng, {}).observed[0]
        with artifacts.atomic(data) as temporary:
            np.savetxt(temporary, observed, header="signal/V", comments="")
        with artifacts.atomic(meta) as temporary:
            temporary.write_text("synthetic: true\n", encoding="utf-8")

    def read(self, data: Path, meta: Path) -> tuple[Cases[None], list[str]]:
        """A measurement from disk, and what was understood, in words."""
        try:
            observed = np.loadtxt(data, skiprows=1)
        except (OSError, ValueError) as error:
            raise artifacts.ArtifactError(f"{data}: no column of numbers ({error})") from None
        if observed.shape != (self.n_samples,) or not np.isfinite(observed).all():
            raise artifacts.ArtifactError(f"{data}: expected {self.n_samples} finite numbers")
        cases = self._cases(observed[None], np.zeros((1, 1)), "measurement")
        return cases, [f"{self.n_samples} samples from {Path(data).name}"]

    def _cases(self, observed: np.ndarray, truth: np.ndarray, kind: str) -> Cases[None]:
        n = len(observed)
        seen, known = np.ones(observed.shape, bool), np.zeros(truth.shape, bool)
        return Cases(observed, seen, truth, known, np.full(n, kind), np.arange(n), None)

    # Inference: FILL ------------------------------------------------------------------------------

    def fit(
        self,
        data: list[Path],
        settings: dict,
        rng: np.random.Generator,
        folder: Path,
        lineage: dict,
    ) -> Fit:
        """Learn, write the checkpoint with its manifest, and hold it loaded."""
        chunks = [artifacts.load_arrays(path) for path in data]
        truth, observed = (
            np.concatenate([chunk[name] for chunk in chunks]) for name in ("truth", "observed")
        )
        held = rng.random(len(truth)) < settings["held_out"]
        error = observed.mean(1)[:, None] - truth
        artifacts.save_arrays(folder / LEARNT, {"bias": error[~held].mean(0)})
        artifacts.write_manifest(folder, [LEARNT], settings, lineage)
        self.load(folder)
        row = {
            "name": "level", "n": int(held.sum()), "mean of the samples": float(error[held].std()),
            "prior mean": float(truth[held].std()),
        }  # fmt: skip
        comparisons = [Comparison("Error of the level (V)", [row])]
        return Fit(int((~held).sum()), int(held.sum()), {}, comparisons, [])

    def load(self, folder: Path) -> bool:
        """Load a checkpoint; whether a manifest vouches for it."""
        folder = Path(folder) if Path(folder).is_dir() else Path(folder).parent
        verified = artifacts.verify(folder, [LEARNT])
        artifacts.load_arrays(folder / LEARNT)
        return verified

    def prior(
        self, cases: Cases[None], n_draws: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Draws of the prior of each case."""
        n = len(cases.observed)
        drawn = self.draw_prior(rng, n * n_draws).reshape(n, n_draws, -1)
        return {q.name: q.value(drawn[..., k]) for k, q in enumerate(self.quantities)}

    def infer(
        self,
        cases: Cases[None],
        rng: np.random.Generator,
        *,
        method: str,
        budget: dict,
        label: str | None = None,
    ) -> Posterior:
        """Posterior of each case, and what it predicts: here by the formulas of two Gaussians."""
        n, n_samples = cases.observed.shape
        count = np.arange(n_samples + 1)
        variance = 1 / (1 / self.width**2 + count / self.noise**2)
        sums = np.concatenate([np.zeros((n, 1)), np.cumsum(cases.observed, axis=1)], axis=1)
        mean = variance * (self.centre / self.width**2 + sums / self.noise**2)
        draws = mean[:, -1:] + np.sqrt(variance[-1]) * rng.standard_normal((n, budget["n_draws"]))
        # One step ahead: what each sample adds to those before it.
        spread = np.sqrt(variance[:-1] + self.noise**2)
        innovation = (cases.observed - mean[:, :-1]) / spread
        evidence = norm.logpdf(innovation).sum(1) - np.log(spread).sum()
        centre = np.repeat(mean[:, -1:], n_samples, axis=1)
        sd = np.full(centre.shape, np.sqrt(variance[-1] + self.noise**2))
        log_density = norm.logpdf(cases.observed, centre, sd) + np.log(self.noise)
        cdf = norm.cdf(cases.observed, centre, sd)
        name = self.quantities[0].name
        # FILL: figures that tell whether the draws may be believed; these are exact.
        computation = Computation({"error": np.zeros(n)}, {"error": np.full(n, 1.0)}, {})
        return Posterior(
            {name: draws},
            np.full(draws.shape, 1 / draws.shape[1]),
            np.full((n, 1), self.centre),
            np.full((n, 1), self.width),
            norm.cdf(mean[:, -1:], self.centre, self.width),
            Prediction(centre, sd, cdf, log_density, innovation),
            evidence,
            computation,
        )

    def predict(self, values: dict, rng: np.random.Generator) -> dict:
        """Answer to the form of `inference_params`."""
        drawn = values["level"] + self.noise * rng.standard_normal(4000)
        found = summary_of(drawn, np.full(len(drawn), 1 / len(drawn)), drawn)
        low, high = found["interval_90"]
        ends = {"median": found["median"], "low": low, "high": high}
        return {
            "estimates": [{"name": "signal", "unit": "V", "meaning": "in a new sample", **ends}],
            "probabilities": [],
            "attribution": [],
            "assumed": {},
            "outside_training": [],
        }

    def view(self, cases: Cases[None], index: int) -> View:
        """How a case is drawn."""
        return View(np.arange(1.0, self.n_samples + 1), "Sample", "Signal (V)", 1.0)
