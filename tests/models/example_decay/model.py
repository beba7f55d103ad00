"""A decaying signal: regression proposes, exact weights correct, quadrature is the reference."""

from pathlib import Path

import numpy as np
from scipy.optimize import least_squares
from scipy.special import logsumexp
from scipy.stats import norm

from touchstone.contract import Comparison, Escalated, Fit, Model, Simulated, summary_of
from touchstone.inference import psis
from touchstone.io import artifacts
from touchstone.reliability.oracle import power_of_shift
from touchstone.vocabulary import Cases, Check, Computation, Posterior, Prediction, Quantity, View

N_SAMPLES = 20
PROPOSAL = "proposal.npz"


class ExampleDecay(Model[None]):
    """amplitude * exp(-rate * time), with white noise of a known size."""

    methods = ("importance",)

    def __init__(self, config: dict):
        super().__init__(config)
        entries = config["parameters"].items()
        self.of_parameters = [Quantity.from_config(name, entry) for name, entry in entries]
        self.location = np.array([q.location for q in self.of_parameters])
        self.scale = np.array([q.scale for q in self.of_parameters])
        self.drift = Quantity.from_config("drift", config["drift"])
        self.noise = config["noise"]
        self.time = config["duration"] * np.arange(1, N_SAMPLES + 1) / N_SAMPLES

    @property
    def quantities(self):
        return self.of_parameters

    def signal(self, coordinate):
        """Signal at coordinates (..., 2), shape (..., sample)."""
        return coordinate[..., :1] * np.exp(-np.exp(coordinate[..., 1:]) * self.time)

    def draw_prior(self, rng, *shape):
        return self.location + self.scale * rng.uniform(-1, 1, (*shape, 2))

    def as_cases(self, observed, truth, known=False, kind="decay"):
        n = len(observed)
        everything = np.ones(observed.shape, bool)
        index = np.arange(n) if kind != "measurement" else np.zeros(n, int)
        return Cases(
            observed, everything, truth, np.full((n, 2), known), np.full(n, kind), index, None
        )

    # Data -----------------------------------------------------------------------------------------

    def simulate(self, settings, rng, file, provenance):
        coordinate = self.draw_prior(rng, settings["n_rows"])
        clean = self.signal(coordinate)
        artifacts.save_arrays(file, {"coordinate": coordinate, "signal": clean})
        n = len(clean)
        return Simulated(
            n,
            {"simulations": {"decay": n}},
            {"decay": self.as_cases(clean[:3], coordinate[:3], True)},
        )

    def checks(self):
        half = self.signal(np.array([1.0, np.log(np.log(2) / self.time[-1])]))[-1]
        return [Check("signal after one half-life (V)", 0.5, half, 1e-12, "definition")]

    def cases(self, n, rng, noise, settings, stress=None, severity=0.0):
        truth = self.draw_prior(rng, n)
        drift = severity * self.config["stresses"][stress]["slope"] if stress else 0.0
        clean = self.signal(truth) + drift * self.time / self.time[-1]
        return self.as_cases(clean + self.noise * noise.standard_normal(clean.shape), truth)

    def detection_power(self, n, rng, noise, settings, stress, severity, known=(), n_first=None):
        """Of the shift that the best fit to the noise-free signal leaves."""
        drift = severity * self.config["stresses"][stress]["slope"] * self.time / self.time[-1]
        bounds = self.location - self.scale, self.location + self.scale
        left = [
            least_squares(lambda x, t=t: self.signal(x) - self.signal(t) - drift, t, bounds=bounds)
            for t in self.draw_prior(rng, n)[:n_first]
        ]
        return power_of_shift(np.array([np.linalg.norm(fit.fun) for fit in left]) / self.noise)

    def example(self, rng, data, meta):
        case = self.cases(1, rng, rng, {})
        table = np.column_stack([self.time, case.observed[0]])
        with artifacts.atomic(data) as temporary:
            np.savetxt(temporary, table, delimiter=",", header="time/s,signal/V", comments="")
        with artifacts.atomic(meta) as temporary:
            temporary.write_text("synthetic: true\n", encoding="utf-8")

    def read(self, data, meta):
        table = np.loadtxt(data, delimiter=",", skiprows=1)
        if table.shape != (N_SAMPLES, 2) or not np.isfinite(table).all():
            raise artifacts.ArtifactError(f"{data}: expected {N_SAMPLES} rows of time and signal")
        cases = self.as_cases(table[None, :, 1], self.location[None], kind="measurement")
        return cases, [f"{N_SAMPLES} samples from {Path(data).name}"]

    # Inference ------------------------------------------------------------------------------------

    def fit(self, data, settings, rng, folder, lineage):
        chunks = [artifacts.load_arrays(path) for path in data]
        coordinate, clean = (
            np.concatenate([c[k] for c in chunks]) for k in ("coordinate", "signal")
        )
        features = _features(clean + self.noise * rng.standard_normal(clean.shape))
        held = rng.random(len(clean)) < settings["held_out"]
        slope = np.linalg.lstsq(features[~held], coordinate[~held])[0]
        error = features @ slope - coordinate
        arrays = {"slope": slope, "sd": 2 * error[~held].std(0)}
        artifacts.save_arrays(folder / PROPOSAL, arrays)
        artifacts.write_manifest(folder, [PROPOSAL], settings, lineage)
        self.load(folder)
        rows = [
            {
                "name": quantity.name,
                "n": int(held.sum()),
                "regression": float(error[held, k].std()),
                "prior mean": float((coordinate[held, k] - self.location[k]).std()),
            }
            for k, quantity in enumerate(self.quantities)
        ]
        return Fit(
            int((~held).sum()),
            int(held.sum()),
            {},
            [Comparison("Error of the coordinate", rows)],
            [],
        )

    def load(self, folder):
        folder = Path(folder) if Path(folder).is_dir() else Path(folder).parent
        verified = artifacts.verify(folder, [PROPOSAL])
        self.proposal = artifacts.load_arrays(folder / PROPOSAL)
        return verified

    def prior(self, cases, n_draws, rng):
        return self.named(self.draw_prior(rng, len(cases.kind), n_draws))

    def infer(self, cases, rng, *, method, budget, label=None):
        n = budget["n_proposals"]
        each = []
        for observed in cases.observed:
            centre = (_features(observed[None]) @ self.proposal["slope"])[0]
            x = centre + self.proposal["sd"] * rng.standard_normal((n, 2))
            log_weight = self.log_posterior(x, observed) - norm.logpdf(
                x, centre, self.proposal["sd"]
            ).sum(1)
            weight, k_hat = psis.smooth(log_weight)
            kept = x[rng.choice(n, budget["n_draws"], p=weight)]
            each.append(
                (
                    kept,
                    k_hat,
                    1 / (weight**2).sum(),
                    logsumexp(log_weight) - np.log(n),
                )
            )
        draws, k_hat, effective, evidence = (np.array(column) for column in zip(*each, strict=True))
        size = len(draws)
        computation = Computation(
            {"k_hat": k_hat, "effective_draws": effective},
            {"k_hat": np.full(size, psis.k_threshold(n))},
            {"effective_draws": np.full(size, 100.0)},
        )
        return self.posterior(cases, draws, evidence, computation)

    def reference(self, cases, start, rng, *, budget, folder, label=None):
        """By quadrature on a grid over the whole prior."""
        x = self.grid(budget["n_nodes"])
        draws, largest = [], []
        for observed in cases.observed:
            log_weight = self.log_posterior(x, observed)
            weight = np.exp(log_weight - logsumexp(log_weight))
            chosen = x[rng.choice(len(x), budget["n_draws"], p=weight)]
            inside_cell = rng.uniform(-1, 1, chosen.shape) * self.scale / budget["n_nodes"]
            draws.append(chosen + inside_cell)
            largest.append(weight.max())
        limit = {"largest_weight": np.full(len(draws), 0.2)}
        computation = Computation({"largest_weight": np.array(largest)}, limit, {})
        return self.posterior(cases, np.array(draws), np.full(len(draws), np.nan), computation)

    def escalate(self, cases, posterior, rng, *, budget):
        """With a drift: exact given the decay, which goes over a grid."""
        x, line = self.grid(300), self.time / self.time[-1]
        left = cases.observed[0] - self.signal(x)
        variance = 1 / (1 / self.drift.scale**2 + (line**2).sum() / self.noise**2)
        mean = variance * (left @ line / self.noise**2)
        log_weight = norm.logpdf(left, 0, self.noise).sum(1) + 0.5 * mean**2 / variance
        log_weight += 0.5 * np.log(variance / self.drift.scale**2)
        evidence = logsumexp(log_weight)
        weight = np.exp(log_weight - evidence)
        kept = rng.choice(len(x), budget["n_draws"], p=weight)
        drift = mean[kept] + np.sqrt(variance) * rng.standard_normal(len(kept))
        signal = self.signal(x[kept]) + drift[:, None] * line
        largest = {"largest_weight": np.array([weight.max()])}
        computation = Computation(largest, {"largest_weight": np.array([0.2])}, {})
        evidence = np.array([evidence - np.log(len(x))])
        found = self.posterior(cases, x[None, kept], evidence, computation, signal[None])
        wider = cases._replace(
            truth=np.append(cases.truth, [[0.0]], 1), known=np.append(cases.known, [[False]], 1)
        )
        found = found._replace(
            draws=found.draws | {"drift": drift[None]},
            place=np.append(found.place, [[0.5]], 1),
            prior_mean=np.append(found.prior_mean, [[0.0]], 1),
            prior_sd=np.append(found.prior_sd, [[self.drift.scale]], 1),
        )
        prior = self.drift.scale * rng.standard_normal(1000)
        row = {"quantity": "drift", "record": None, "unit": "V"}
        row |= summary_of(drift, found.weight[0], prior)
        table = [row, *self.table(cases, found, rng)]
        quantities = [*self.quantities, self.drift]
        return Escalated("a drift", quantities, wider, found, table, ("drift", "size (V)"))

    def protocols(self, cases, posterior):
        """Again, and once the signal is gone, which says nothing."""
        amplitude, rate = (posterior.draws[name][0, :, None] for name in ("amplitude", "rate"))
        return {
            name: amplitude * np.exp(-rate * (self.time + wait)) / self.noise
            for name, wait in (("the same again", 0.0), ("the same after an hour", 3600.0))
        }

    def grid(self, n_nodes):
        """Centres of equal cells of the prior, shape (cell, 2)."""
        nodes = (np.arange(n_nodes) + 0.5) / n_nodes * 2 - 1
        return self.location + self.scale * np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2)

    def log_posterior(self, x, observed):
        inside = (np.abs(x - self.location) <= self.scale).all(-1)
        log_likelihood = norm.logpdf(observed, self.signal(x), self.noise).sum(-1)
        return np.where(inside, log_likelihood - np.log(2 * self.scale).sum(), -np.inf)

    def named(self, draws):
        return {q.name: q.value(draws[..., k]) for k, q in enumerate(self.quantities)}

    def posterior(self, cases, draws, evidence, computation, signal=None):
        signal = self.signal(draws) if signal is None else signal
        mean, sd = signal.mean(1), np.sqrt(signal.var(1) + self.noise**2)
        cdf = norm.cdf(cases.observed, mean, sd)
        log_density = norm.logpdf(cases.observed, mean, sd) + np.log(self.noise)
        innovation = ((cases.observed[:, None] - signal) / self.noise).mean(1)
        n, n_draws = draws.shape[:2]
        place = (draws.mean(1) - self.location) / self.scale / 2 + 0.5
        return Posterior(
            self.named(draws),
            np.full((n, n_draws), 1 / n_draws),
            np.tile(self.location, (n, 1)),
            np.tile(self.scale / np.sqrt(3), (n, 1)),
            place,
            Prediction(mean, sd, cdf, log_density, innovation),
            evidence,
            computation,
        )

    def view(self, cases, index):
        return View(self.time, "Time (s)", "Signal (V)", 1.0)


def _features(observed):
    return np.column_stack([np.ones(len(observed)), observed, observed**2])
