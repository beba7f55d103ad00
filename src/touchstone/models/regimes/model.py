"""Effects by market regime in the workflow: the contract, filled by the rooms beside this file."""

from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import norm
from tqdm import tqdm

from touchstone.contract import Drawing, Fit, Model, Simulated
from touchstone.inference import psis
from touchstone.io import artifacts, results
from touchstone.io.artifacts import ArtifactError
from touchstone.io.settings import recipe_of
from touchstone.models.regimes import (
    amortised,
    answer,
    drawings,
    economy,
    findings,
    gibbs,
    refusals,
    sequential,
    series,
    synthetic,
    training,
)
from touchstone.models.regimes import effects as scores
from touchstone.models.regimes.amortised import RegimeNet
from touchstone.models.regimes.economy import Economy, Parameters, Stress, Window
from touchstone.models.regimes.sequential import Known
from touchstone.models.regimes.series import Recipe, Table
from touchstone.vocabulary import Cases, Computation, Posterior, Prediction, Quantity, View

_LARGEST_R_HAT = 1.1  # of chains as short as those of a simulated case
_BATCH = 50  # cases whose chains run side by side
_N_PRIOR = 4000  # draws that give the moments of the prior
_EXAMPLE_DATES = 160
_N_PREDICTED = 100  # draws of the network that a prediction is of


class Regimes(Model[Window]):
    """Markov-switching posterior and orthogonal scores of an outcome under a treatment."""

    def __init__(self, config: dict):
        super().__init__(config)
        self._quantities = [
            Quantity.from_config(name, entry) for name, entry in config["parameters"].items()
        ]
        self._economy: Economy | None = None
        self._net: RegimeNet | None = None

    @property
    def quantities(self) -> list[Quantity]:
        """Effects in both regimes, what the model leaves there, and how long regimes last."""
        return self._quantities

    @property
    def methods(self) -> tuple[str, ...]:
        """`switching` is the exact posterior by Gibbs sampling; `amortised` the same in
        milliseconds, by a network whose draws the exact likelihood weighs; `scores` needs no
        distribution of the errors: orthogonal scores, whose errors are those of simulated
        economies."""
        return ("switching", "amortised", "scores")

    @property
    def economy(self) -> Economy:
        """What was learnt.

        Raises:
            ArtifactError: If neither `fit` nor `load` has been called.
        """
        if self._economy is None:
            raise ArtifactError("regimes: no checkpoint is loaded")
        return self._economy

    # Data -----------------------------------------------------------------------------------------

    def simulate(
        self, settings: dict, rng: np.random.Generator, file: Path, provenance: dict
    ) -> Simulated[Window]:
        """Write the synthetic economy, whose effects are known."""
        drawn = synthetic.draw(rng, settings["n_dates"])
        synthetic.save(file, drawn)
        design = series.design(drawn.table, synthetic.RECIPE)
        unknown = np.full((1, len(design.dates)), -1)
        window = Window(
            design.outcome[None], design.treatment[None], design.controls[None], unknown
        )
        counts = {name: int((drawn.state == k).sum()) for k, name in enumerate(economy.REGIMES)}
        gallery = {"synthetic economy": self._cases(window, None, "economy")}
        return Simulated(len(drawn.state), {"dates": counts}, gallery)

    def cases(
        self,
        n: int,
        rng: np.random.Generator,
        noise: np.random.Generator,
        settings: dict,
        stress: str | None = None,
        severity: float = 0.0,
    ) -> Cases[Window]:
        """Windows of new economies about the one that was learnt; see `economy.draw`."""
        prior = training.prior_of(self.config, self.economy)
        parameters = economy.draw_parameters(prior, self.economy, rng, n)
        mismatch = economy.NONE
        if stress:
            mismatch = Stress(stress, self.config["stresses"][stress]["size"], severity)
        n_dates = self.config["n_dates"]
        window = economy.draw(self.economy, parameters, n_dates, rng, noise, mismatch)
        return self._cases(window, parameters, "economy")

    def example(self, rng: np.random.Generator, data: Path, meta: Path) -> None:
        """Write months that are simulated in the manner of the default data.

        Where the environment names data of another kind, these are the example: no other series
        have their features.
        """
        given = results.override(self.model_id, "DATASET_CHUNK")
        if given and given.suffix == ".csv":
            recipe = series.read_recipe(given.with_suffix(".yaml"))
            series.write_csv(data, series.read_csv(given, recipe), recipe.date)
            series.write_recipe(meta, recipe, "the series that were trained on")
            return
        table, recipe = series.monthly()
        series.write_csv(
            data, series.imitate(table, recipe.treatment, rng, _EXAMPLE_DATES), recipe.date
        )
        series.write_recipe(meta, recipe, "simulated")

    def read(self, data: Path, meta: Path) -> tuple[Cases[Window], list[str]]:
        """Series of dates, of which the question has to be asked that was trained on."""
        table, recipe = _read(artifacts.files(data), meta)
        if problems := refusals.other_questions(self.economy, recipe):
            raise ArtifactError(f"{meta}: {'; '.join(problems)}")
        design = series.design(table, recipe._replace(controls=self.economy.controls))
        sd, treatment_sd = self.economy.sd[:2].tolist()
        notes = [
            f"{len(design.dates)} dates from {design.dates[0]} to {design.dates[-1]}, each with "
            f"its {recipe.outcome} {recipe.horizon} rows later",
            f"an sd of the outcome is {sd:.4g}, and 1 sd/sd is {sd / treatment_sd:.4g} "
            f"{recipe.outcome} per unit of {recipe.treatment}",
        ]
        return self._cases(self.economy.window(design), None, "measurement"), notes

    def describe(self, data: Path, meta: Path | None) -> list[str]:
        """What is understood of series."""
        if meta is None:
            raise ArtifactError(f"{data}: needs a YAML file that says what its series are")
        table, recipe = _read(artifacts.files(data), meta)
        design = series.design(table, recipe)
        return [
            f"{len(table.dates)} dates, {len(design.dates)} of them complete",
            f"effect of {recipe.treatment} on {recipe.outcome}, {recipe.horizon} rows later",
            f"held fixed: {', '.join(recipe.controls)}",
        ]

    def _cases(self, window: Window, parameters: Parameters | None, kind: str) -> Cases[Window]:
        """Outcome and treatment of each date, one after the other, are what is observed."""
        n = len(window.outcome)
        truth = np.zeros((n, len(self.quantities)))
        if parameters is not None:
            columns = zip(self.quantities, parameters.quantities.T, strict=True)
            truth = np.stack([q.coordinate(values) for q, values in columns], axis=1)
        observed = np.concatenate([window.outcome, window.treatment], axis=1)
        return Cases(
            observed, np.ones(observed.shape, bool), truth, np.zeros(truth.shape, bool),
            np.full(n, kind), np.arange(n), window,
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
        """Learn from a CSV of series; else from the monthly ones that come with the model."""
        comparisons = []
        if data[0].suffix == ".npz":
            drawn = synthetic.load(data[0])
            comparisons.append(
                training.recovered(
                    drawn.table, synthetic.RECIPE, self.config, synthetic.EFFECT, rng
                )
            )
            table, recipe = series.monthly()
        else:
            if (meta := recipe_of(settings, data[0])) is None:
                raise ArtifactError(f"{data[0]}: needs a YAML file that says what its series are")
            table, recipe = _read(data, meta)
        learnt = training.learn(table, recipe, self.config, settings, rng)
        prior = training.prior_of(self.config, learnt.economy)
        trained = amortised.train(
            lambda n: economy.draw_parameters(prior, learnt.economy, rng, n),
            settings["n_dates"],
            settings["n_steps"],
            rng,
        )
        with artifacts.atomic(folder / amortised.FILE) as temporary:
            eqx.tree_serialise_leaves(temporary, trained.net)
        learnt.economy.save(folder, settings, lineage, (amortised.FILE,))
        self.load(folder)
        return Fit(
            int(learnt.economy.n_rows),
            learnt.n_held_out,
            {"regimes (cross-entropy)": trained.losses},
            [*learnt.comparisons, *comparisons],
            [],
            learnt.tables,
            learnt.said,
            learnt.drawings,
        )

    def load(self, folder: Path) -> bool:
        """Load a checkpoint folder, or the folder of a file in it."""
        path = Path(folder)
        self._economy, verified = Economy.load(path, (amortised.FILE,))
        file = (path if path.is_dir() else path.parent) / amortised.FILE
        self._net = amortised.load(file)
        return verified

    def infer(
        self,
        cases: Cases[Window],
        rng: np.random.Generator,
        *,
        method: str,
        budget: dict,
        label: str | None = None,
    ) -> Posterior:
        """Posterior of each case, by one of the `methods`."""
        infer = {
            "switching": self._switching,
            "amortised": self._amortised,
            "scores": self._scores,
        }[method]
        n = len(cases.observed)
        starts = range(0, n, _BATCH)
        parts = [
            infer(cases.take(slice(start, start + _BATCH)).detail, rng, budget)
            for start in tqdm(starts, desc=label, disable=label is None, unit="batch")
        ]
        values, predictions, evidence, computations, states = zip(*parts, strict=True)
        smoothed, filtered = map(np.concatenate, zip(*states, strict=True))
        draws = np.concatenate(values)
        prediction = Prediction(*map(np.concatenate, zip(*predictions, strict=True)))
        figures = np.concatenate(computations)
        name, limit = "r_hat", np.full(n, _LARGEST_R_HAT)
        if method == "amortised":
            name, limit = "k_hat", np.full(n, psis.k_threshold(amortised.N_DRAWS))
        before = self._coordinates(self._prior_values(_N_PRIOR, rng))
        mean, sd = before.mean(0), before.std(0)
        after = self._coordinates(draws.reshape(-1, draws.shape[-1])).reshape(draws.shape)
        return Posterior(
            {q.name: draws[..., k] for k, q in enumerate(self.quantities)},
            np.full(draws.shape[:2], 1 / draws.shape[1]),
            np.tile(mean, (n, 1)),
            np.tile(sd, (n, 1)),
            ndtr((after.mean(1) - mean) / sd),
            prediction,
            np.concatenate(evidence),
            Computation({name: figures}, {name: limit}, {}),
            {"smoothed": smoothed, "filtered": filtered},
        )

    def _switching(self, window: Window, rng: np.random.Generator, budget: dict):
        """Draws, prediction, log evidence and R-hat by Gibbs sampling; and both probabilities of
        the turbulent regime, given all dates and given no later one."""
        prior, n_cases = training.prior_of(self.config, self.economy), len(window.outcome)
        # One program serves for all batches: a last one that is short is filled up.
        filled = window
        if n_cases > 1:
            filled = Window(*(values[np.arange(_BATCH) % n_cases] for values in window))
        found = gibbs.sample(
            self.economy, prior, filled, rng, budget["n_warmup"], budget["n_draws"]
        )
        found = jax.tree.map(lambda values: values[:n_cases], found)
        n, n_draws = found.parameters.variance.shape[:2]
        flat = Parameters(*(a.reshape(n * n_draws, *a.shape[2:]) for a in found.parameters))
        values = flat.quantities.reshape(n, n_draws, -1)
        sizes = np.repeat(np.sqrt(found.noise), window.outcome.shape[1], axis=1)
        log_density = np.log(np.maximum(found.density * sizes, 1e-300))
        prediction = Prediction(found.mean, found.sd, found.cdf, log_density, found.innovation)
        states = found.turbulent, found.filtered
        return values, prediction, found.log_evidence, found.r_hat, states

    def _amortised(self, window: Window, rng: np.random.Generator, budget: dict):
        """The same, and k-hat, by the network and the likelihood."""
        prior, learnt = training.prior_of(self.config, self.economy), self.economy
        assert self._net is not None, "is loaded with the economy"
        values, rows, k_hats, known, states = [], [], [], [], []
        for y, d, x in zip(*window[:3], strict=True):
            key = jax.random.key(int(rng.integers(2**31)))
            found = amortised.judge(self._net, prior, learnt.slope, y, d, x, key, amortised.N_DRAWS)
            weight, k_hat = psis.smooth(np.asarray(found.log_weight, float))
            chosen = psis.resample(weight, budget["n_draws"])
            u, slope = np.asarray(found.u, float)[chosen], np.asarray(found.slope)[chosen]
            said = amortised.parameters(u)
            of_treatment = _least_squares(d, x)
            # Slopes take as many dates' worth of what is left.
            shape = prior.treatment_shape + (len(d) - 1 - x.shape[1]) / 2
            scale = prior.treatment_scale + of_treatment[1, 0] ** 2 * len(d) / 2
            t_variance = scale / rng.gamma(shape, size=len(u))
            sizes = np.sqrt(said.variance)
            values.append(np.column_stack([said.effect, sizes, said.stay, np.sqrt(t_variance)]))
            few = rng.permutation(len(u))[:_N_PREDICTED]
            mean, sd, cdf, density, *probabilities = np.asarray(
                amortised.predictions(u[few], slope[few], y, d, x), float
            )
            states.append(probabilities)
            noise = np.sqrt(said.variance.mean())
            log = np.log(np.maximum(density * noise, 1e-300))
            known.append((said.variance.mean(0), said.stay.mean(0), t_variance.mean()))
            of_outcome = np.stack([mean, sd, cdf, log, np.zeros(len(mean))])
            rows.append(np.concatenate([of_outcome, of_treatment], axis=1))
            k_hats.append(k_hat)
        ahead = sequential.innovations(
            learnt, prior, window, Known(*map(np.array, zip(*known, strict=True)))
        )
        rows, evidence = np.moveaxis(np.array(rows), 1, 0), ahead.log_evidence
        rows[-1] = np.concatenate([ahead.outcome, ahead.treatment], axis=1)
        states = tuple(np.moveaxis(np.array(states), 1, 0))
        return np.array(values), Prediction(*rows), evidence, np.array(k_hats), states

    def _scores(self, window: Window, rng: np.random.Generator, budget: dict):
        """Effects given their orthogonal scores, whose errors are those of simulated economies; all
        else from the prior, a prediction by least squares, and the regimes of the training."""
        n, n_dates = window.outcome.shape
        n_draws, learnt = budget["n_draws"], self.economy
        prior = training.prior_of(self.config, learnt)
        values = self._prior_values(n * n_draws, rng).reshape(n, n_draws, -1)
        plan = scores.folds(n_dates, "full")
        rows, states = [], []
        for k, (y, d, x) in enumerate(zip(*window[:3], strict=True)):
            found = training.by_regime(y, d, x, learnt.switching, int(learnt.horizon), plan)
            shrunk = scores.shrink(found, learnt.inflation, prior.effect)
            errors = learnt.errors[:, rng.integers(learnt.errors.shape[1], size=n_draws)]
            values[k, :, :2] = shrunk.mean + shrunk.sd * errors.T
            rows.append(np.concatenate([_least_squares(y, d, x), _least_squares(d, x)], axis=1))
            of_case = learnt.switching.states(y, np.column_stack([d, x]))
            states.append([np.exp(p[:, 1]) for p in (of_case.smoothed, of_case.filtered)])
        prediction = Prediction(*np.moveaxis(np.array(rows), 1, 0))
        states = tuple(np.moveaxis(np.array(states), 1, 0))
        return values, prediction, np.full(n, np.nan), np.ones(n), states

    def _prior_values(self, n: int, rng: np.random.Generator) -> np.ndarray:
        prior = training.prior_of(self.config, self.economy)
        return economy.draw_parameters(prior, self.economy, rng, n).quantities

    def _coordinates(self, values: np.ndarray) -> np.ndarray:
        columns = zip(self.quantities, values.T, strict=True)
        return np.stack([q.coordinate(v) for q, v in columns], axis=-1)

    def prior(
        self, cases: Cases[Window], n_draws: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Draws of the family about the economy that was learnt."""
        n = len(cases.observed)
        values = self._prior_values(n * n_draws, rng).reshape(n, n_draws, -1)
        return {q.name: values[..., k] for k, q in enumerate(self.quantities)}

    def novelty(self, cases: Cases[Window]) -> np.ndarray:
        """How much more, or less, than in the training the controls change in some stretch."""
        return np.array([refusals.unlike(self.economy, x) for x in cases.detail.controls])

    def outside_training(self, cases: Cases[Window]) -> list[list[str]]:
        """See `refusals`."""
        return refusals.of_windows(self.economy, cases.detail)

    def cautions(self, cases: Cases[Window], posterior: Posterior) -> list[str]:
        """A structural break since the training, few dates in a regime; and what no data of this
        kind can tell, see `answer.cautions`."""
        return [
            *refusals.breaks(self.economy, cases.detail),
            *refusals.few_dates(self.economy, posterior.latent["smoothed"]),
            *answer.cautions(self.economy),
        ]

    def diagnostics(self, cases: Cases[Window], posterior: Posterior) -> dict[str, np.ndarray]:
        """Overlap, probability of the turbulent regime at the last date, and dates in it."""
        smoothed = posterior.latent["smoothed"]
        return {
            "overlap": refusals.overlap(self.economy, cases.detail),
            "turbulent_at_last_date": smoothed[:, -1],
            "turbulent_dates": smoothed.sum(1),
        }

    def drawings(self, cases: Cases[Window], posterior: Posterior) -> list[Drawing]:
        """The regimes of the first case over its dates, what an omitted cause would leave of the
        effect there, and the responses of the training, which a window is too short for."""
        outcome, learnt = cases.detail.outcome[0], self.economy
        name = str(learnt.names[0])
        draw = partial(
            drawings.history, dates=np.arange(1, len(outcome) + 1),
            outcome=learnt.mean[0] + learnt.sd[0] * outcome, name=name,
            smoothed=posterior.latent["smoothed"][0], filtered=posterior.latent["filtered"][0],
        )  # fmt: skip
        caption = f"Regimes of the measurement, by the number of the date. {drawings.PROBABILITIES}"
        return [
            Drawing("regime_history", caption, draw, 4.6),
            findings.omitted_cause_drawing(learnt, cases.detail),
            findings.effect_by_horizon(learnt),
        ]

    def form_problems(self, values: dict) -> list[str]:
        """Of the features; see `answer.features_of`."""
        given = values.get("features")
        if isinstance(given, str) and given:
            try:
                answer.features_of(self.economy, given)
            except ArtifactError as error:
                return [str(error)]
        return []

    def predict(self, values: dict, rng: np.random.Generator) -> dict:
        """Effects, regimes and the outcome of one date; see `answer.answer`."""
        return answer.answer(self.economy, values)

    def view(self, cases: Cases[Window], index: int) -> View:
        """Outcome, then treatment, against the number of the date."""
        count = cases.observed.shape[1]
        return View(np.arange(1.0, count + 1), "Date: outcome, then treatment", "Value (sd)", 1.0)


def _read(files: list[Path], meta: Path) -> tuple[Table, Recipe]:
    """Series and their recipe from disk."""
    if len(files) != 1:
        raise ArtifactError(f"{files[0].parent}: holds {len(files)} tables, expected one")
    recipe = series.read_recipe(meta)
    try:
        series.assert_known(recipe)
    except series.LookAheadError as error:
        raise series.LookAheadError(f"{meta}: {error}") from None
    return series.read_csv(files[0], recipe), recipe


def _least_squares(target: np.ndarray, *columns: np.ndarray) -> np.ndarray:
    """Rows of a `Prediction` by a regression with normal errors, shape (5, T)."""
    full = np.column_stack([np.ones(len(target)), *columns])
    mean = full @ np.linalg.lstsq(full, target)[0]
    sd = (target - mean).std()
    z = (target - mean) / sd
    cdf = np.clip(ndtr(z), 1e-6, 1 - 1e-6)
    return np.stack([mean, np.full(len(mean), sd), cdf, norm.logpdf(z), ndtri(cdf)])
