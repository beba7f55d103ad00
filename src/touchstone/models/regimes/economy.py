"""Economies of two regimes, calm and turbulent, about one that was learnt; and how they leave it.

Everything is in standard deviations of the training's columns. Controls x follow a vector
autoregression, whose innovations are stretches of those of the training; the treatment is
d = a + x g + t v; the outcome is y = c_s + effect_s d + x b + sd_s e, where the regime s is a
Markov chain, and v and e are standard normal. The turbulent regime is the one of the larger sd.
"""

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from touchstone.io import artifacts
from touchstone.io.artifacts import ArtifactError
from touchstone.models.regimes.series import Design
from touchstone.models.regimes.switching import Switching

ARRAYS, META = "economy.npz", "model_meta.json"
VERSION = 3
REGIMES = ("calm", "turbulent")
_BURN_IN = 40  # dates
_STRETCH = 8  # dates, whose innovations of the controls stay together
_OUTLYING = 0.1  # part of the errors that heavy tails make larger
_LONGEST_ROOT = 0.98  # of the controls, which would else not come back


class Prior(NamedTuple):
    """Of the parameters of an economy, in standard deviations.

    Attributes:
        effect, intercept, slope: Standard deviations of normal priors; slopes are centred at those
            of the training.
        shape, scale: Of the inverse-gamma priors of the two error variances, shape (2,).
        leave, stay: Of the beta priors of leaving and of staying in each regime, shape (2,).
        treatment_shape, treatment_scale: Of the inverse-gamma prior of the treatment's variance.
    """

    effect: float
    intercept: float
    slope: float
    shape: np.ndarray
    scale: np.ndarray
    leave: np.ndarray
    stay: np.ndarray
    treatment_shape: float
    treatment_scale: float


class Parameters(NamedTuple):
    """Of some economies, the first axis of each array.

    Attributes:
        intercept, effect: By regime, shape (n, 2).
        slope: Of the outcome on the controls, shape (n, J).
        variance: Of the outcome's errors, ascending, shape (n, 2).
        stay: Probability of staying in each regime, shape (n, 2).
        treatment_slope: Constant, then slopes of the treatment, shape (n, 1 + J).
        treatment_variance: Shape (n,).
    """

    intercept: np.ndarray
    effect: np.ndarray
    slope: np.ndarray
    variance: np.ndarray
    stay: np.ndarray
    treatment_slope: np.ndarray
    treatment_variance: np.ndarray

    @property
    def quantities(self) -> Float[np.ndarray, "economy quantity"]:
        """Values in the order of the model's quantities."""
        sd, treatment = np.sqrt(self.variance), np.sqrt(self.treatment_variance)
        return np.column_stack([self.effect, sd, self.stay, treatment])


class Window(NamedTuple):
    """Dates of economies.

    Attributes:
        outcome, treatment: Shape (n, T).
        controls: Shape (n, T, J).
        state: Regime of each date, or -1 where nobody knows, shape (n, T).
    """

    outcome: Float[np.ndarray, "case date"]
    treatment: Float[np.ndarray, "case date"]
    controls: Float[np.ndarray, "case date control"]
    state: Int[np.ndarray, "case date"]


@dataclass(frozen=True)
class Economy:
    """What is kept of a training.

    Attributes:
        names: Of outcome, treatment, then the controls, shape (2 + J,).
        mean, sd: Of those columns, in the rows that were trained on, shape (2 + J,).
        low, high: Range of the standardised controls, shape (J,).
        memory: Of the controls' autoregression, shape (J, J).
        innovations: Of that autoregression, in the rows trained on, shape (T - 1, J).
        slope: Of the outcome, shape (J,).
        treatment_slope: Constant, then slopes of the treatment, shape (1 + J,).
        outcome_variance, treatment_variance: Of what the regressions leave.
        transition, intercept, variance: Of the regimes that the data have, calm first.
        draws: Parameters given the training's rows, see `Parameters`; flat, shape (draw, column).
        now: Probability of each regime after the last row, held out or not, shape (2,).
        effect: Estimate, standard error, low and high of the average effect, then of those in each
            regime, in standard deviations, shape (3, 4).
        inflation: Errors of the effects in the regimes in windows, over their standard errors, root
            mean square, shape (2,).
        errors: Truths of such windows less their shrunk estimates, in standard deviations of these,
            shape (2, series); see `effects.shrink`.
        outcomes: Names of all outcomes, that of the regimes first, shape (outcome,).
        responses: Of each outcome at each horizon from 0 on to a unit of the treatment, in its own
            unit; see `responses`.
        robustness: Robustness values of the average effect: of its estimate, of its sign at 90 %.
        n_rows: Rows trained on.
        horizon: Rows from the treatment to the outcome.
        last: Standardised controls of the last row, held out or not, shape (J,).
        centre, precision: Of the standardised controls in the rows trained on: mean and inverse
            covariance, shapes (J,) and (J, J).
        farthest: Largest squared distance from the centre among those rows.
        n_regime: Expected number of rows in each regime, shape (2,).
        break_p: p-value of the dates held out following the training, see `refusals.break_since`.
        published: Names of the series that controls are made of, shape (series,).
        lags: Days after its date at which each is known, shape (series,).
        last_date: Of the last row. Artefacts before this and what follows was kept have None.
        period: Distance of rows in words, such as "month".
        outcome_reach: Standard deviations from the mean of the outcome to the ends of its 90 %
            interval, see `answer.reach`; and the number of dates held out that it is of, shape
            (2,).
        evidence: Probability of each number of regimes, from one on, see
            `switching.probabilities`; shape (number,).
        cumulative: Whether responses are those of the sums of the outcomes.
    """

    names: np.ndarray
    mean: Float[np.ndarray, " column"]
    sd: Float[np.ndarray, " column"]
    low: Float[np.ndarray, " control"]
    high: Float[np.ndarray, " control"]
    memory: Float[np.ndarray, "control control"]
    innovations: Float[np.ndarray, "date control"]
    slope: Float[np.ndarray, " control"]
    treatment_slope: Float[np.ndarray, " column"]
    outcome_variance: Float[np.ndarray, ""]
    treatment_variance: Float[np.ndarray, ""]
    transition: Float[np.ndarray, "regime regime"]
    intercept: Float[np.ndarray, " regime"]
    variance: Float[np.ndarray, " regime"]
    draws: Float[np.ndarray, "draw column"]
    now: Float[np.ndarray, " regime"]
    effect: Float[np.ndarray, "effect number"]
    inflation: Float[np.ndarray, " regime"]
    errors: Float[np.ndarray, "regime series"]
    outcomes: np.ndarray
    responses: Float[np.ndarray, "outcome group horizon number"]
    robustness: Float[np.ndarray, " 2"]
    n_rows: Int[np.ndarray, ""]
    horizon: Int[np.ndarray, ""]
    last: Float[np.ndarray, " control"]
    centre: Float[np.ndarray, " control"]
    precision: Float[np.ndarray, "control control"]
    farthest: Float[np.ndarray, ""]
    n_regime: Float[np.ndarray, " regime"]
    break_p: Float[np.ndarray, ""]
    published: np.ndarray
    lags: Int[np.ndarray, " series"]
    last_date: np.ndarray | None = None
    period: np.ndarray | None = None
    outcome_reach: Float[np.ndarray, " 2"] | None = None
    evidence: Float[np.ndarray, " number"] | None = None
    cumulative: np.ndarray | None = None

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the features, in their order."""
        return tuple(self.names[2:].tolist())

    @property
    def row(self) -> str:
        """What the distance of two rows is called."""
        return "row" if self.period is None else str(self.period)

    def after(self, horizon: int) -> str:
        """A horizon in words, such as "in the same month" and "22 months later"."""
        if horizon == 0:
            return "on the same date" if self.period is None else f"in the same {self.period}"
        return f"{horizon} {self.row}{'s' * (horizon > 1)} later"

    @property
    def responding(self) -> tuple[str, ...]:
        """What each of the responses is one of, in words."""
        total = "sum of " if self.cumulative else ""
        return tuple(f"{total}{name}" for name in self.outcomes.tolist())

    @property
    def parameters(self) -> Parameters:
        """Of the training's rows, by draw."""
        j = len(self.slope)
        ends = np.cumsum([2, 2, j, 2, 2, 1 + j])
        *parts, last = np.split(self.draws, ends, axis=1)
        return Parameters(*parts, last[:, 0])

    @property
    def switching(self) -> Switching:
        """The regimes of the training, which say those of other dates before they are seen."""
        slope = np.concatenate([self.effect[:1, 0], self.slope])
        return Switching(self.intercept, slope, self.variance, self.transition, 0.0, 0.0)

    def window(self, design: Design) -> Window:
        """Rows of data in standard deviations of the training, as one case."""
        columns = np.column_stack([design.outcome, design.treatment, design.controls])
        standard = (columns - self.mean) / self.sd
        unknown = np.full((1, len(standard)), -1)
        return Window(standard[None, :, 0], standard[None, :, 1], standard[None, :, 2:], unknown)

    def save(self, folder: Path, settings: dict, lineage: dict, beside: tuple[str, ...]) -> None:
        """Write the artefact, its manifest last, which vouches for the files beside it, too."""
        arrays = {
            name: np.asarray(values) for name, values in vars(self).items() if values is not None
        }
        artifacts.save_arrays(folder / ARRAYS, arrays)
        meta = {
            "schema_version": VERSION,
            "model_id": "regimes",
            "feature_columns": list(self.controls),
            "scaler": {
                name: {"mean": float(mean), "sd": float(sd)}
                for name, mean, sd in zip(self.controls, self.mean[2:], self.sd[2:], strict=True)
            },
            "settings": settings,
        }
        artifacts.write_json(folder / META, meta)
        artifacts.write_manifest(folder, [ARRAYS, META, *beside], settings, lineage)

    @classmethod
    def load(cls, path: Path, beside: tuple[str, ...]) -> tuple["Economy", bool]:
        """Read an artefact, and whether a manifest vouches for it and the files beside it.

        Raises:
            ArtifactError: If a file is missing, altered, or of another version.
        """
        if not path.exists():
            raise ArtifactError(f"{path}: no such checkpoint")
        folder = path if path.is_dir() else path.parent
        verified = artifacts.verify(folder, [ARRAYS, META, *beside])
        meta, arrays = artifacts.read_json(folder / META), artifacts.load_arrays(folder / ARRAYS)
        if (version := meta.get("schema_version")) != VERSION:
            raise ArtifactError(
                f"{folder / META}: schema_version {version}, expected {VERSION}; train anew"
            )
        try:
            economy = cls(
                **{
                    field.name: arrays[field.name]
                    for field in fields(cls)
                    if field.default is MISSING or field.name in arrays
                }
            )
        except KeyError as error:
            raise ArtifactError(f"{folder}: not a checkpoint of this model ({error})") from None
        for name, values in arrays.items():
            if values.dtype.kind in "fi" and not np.isfinite(values).all():
                raise ArtifactError(f"{folder / ARRAYS}: {name} holds values that are not finite")
        return economy, verified


def autoregression(
    controls: Float[np.ndarray, "date control"],
) -> tuple[Float[np.ndarray, "control control"], Float[np.ndarray, "date control"]]:
    """Memory and innovations of standardised controls, see `Economy`, by least squares.

    Where the fit would not come back to its mean, the memory is shrunk until it does.
    """
    before, after = controls[:-1], controls[1:]
    memory = np.linalg.lstsq(before, after)[0].T
    root = np.abs(np.linalg.eigvals(memory)).max()
    memory *= min(1.0, _LONGEST_ROOT / root)
    left = after - before @ memory.T
    return memory, left - left.mean(0)


def prior_of(config: dict, outcome_variance: float, treatment_variance: float) -> Prior:
    """From the model's config, whose variances are parts of those of the training."""
    said = config["prior"]
    shape = np.array(said["variance_shape"], float)
    size = outcome_variance * np.array(said["variance"], float)
    t_shape = float(said["treatment_shape"])
    return Prior(
        float(said["effect"]),
        float(said["intercept"]),
        float(said["slope"]),
        shape,
        (shape - 1) * size,
        np.array(said["leave"], float),
        np.array(said["stay"], float),
        t_shape,
        (t_shape - 1) * treatment_variance,
    )


def draw_parameters(prior: Prior, economy: Economy, rng: np.random.Generator, n: int) -> Parameters:
    """Parameters of n economies from the prior."""
    j = len(economy.slope)
    variance = np.empty((n, 2))
    missing = np.arange(n)
    while len(missing):  # calm is what varies less
        variance[missing] = prior.scale / rng.gamma(prior.shape, size=(len(missing), 2))
        missing = missing[variance[missing, 0] >= variance[missing, 1]]
    return Parameters(
        prior.intercept * rng.standard_normal((n, 2)),
        prior.effect * rng.standard_normal((n, 2)),
        economy.slope + prior.slope * rng.standard_normal((n, j)),
        variance,
        rng.beta(prior.stay, prior.leave, (n, 2)),
        economy.treatment_slope + prior.slope * rng.standard_normal((n, 1 + j)),
        prior.treatment_scale / rng.gamma(prior.treatment_shape, size=n),
    )


class Stress(NamedTuple):
    """A way to leave the family: its name, its size at severity 1, and the severity."""

    name: str
    size: float
    severity: float


NONE = Stress("", 0.0, 0.0)


def draw(
    economy: Economy,
    parameters: Parameters,
    n_dates: int,
    rng: np.random.Generator,
    noise: np.random.Generator,
    stress: Stress = NONE,
) -> Window:
    """Windows of economies, one for each of the parameters.

    Args:
        economy: Whose controls are imitated.
        parameters: Of the economies.
        n_dates: Number of dates.
        rng: For controls and regimes.
        noise: For errors, and all that a stress draws.
        stress: The mismatch.
    """
    n, j = parameters.slope.shape
    x = np.zeros((n, _BURN_IN + n_dates, j))
    n_stretches = -(-x.shape[1] // _STRETCH)
    starts = rng.integers(len(economy.innovations) - _STRETCH + 1, size=(n, n_stretches, 1))
    rows = (starts + np.arange(_STRETCH)).reshape(n, -1)
    for t in range(1, x.shape[1]):
        x[:, t] = x[:, t - 1] @ economy.memory.T + economy.innovations[rows[:, t]]
    x = np.clip(x[:, _BURN_IN:], economy.low, economy.high)
    state, uniform = np.zeros((n, n_dates), int), rng.random((n, n_dates))
    state[:, 0] = uniform[:, 0] < 0.5
    every = np.arange(n)
    for t in range(1, n_dates):
        stays = uniform[:, t] < parameters.stay[every, state[:, t - 1]]
        state[:, t] = np.where(stays, state[:, t - 1], 1 - state[:, t - 1])
    return _observe(parameters, x, state, noise, stress)


def _observe(
    parameters: Parameters, x: np.ndarray, state: np.ndarray, noise: np.random.Generator, stress
) -> Window:
    """Treatment and outcome of controls and regimes, under a stress."""
    n, n_dates, _ = x.shape
    every = np.arange(n)[:, None]
    e, v = noise.standard_normal((2, n, n_dates))
    size, late = stress.severity * stress.size, np.arange(n_dates) >= n_dates // 2
    sd = np.sqrt(parameters.variance)[every, state]
    t_sd = np.sqrt(parameters.treatment_variance)[:, None]
    if stress.name == "confounding":
        # Part of both errors is a cause that nobody observed; each is as large as without it.
        cause = noise.standard_normal(e.shape)
        e, v = ((part + size * cause) / np.sqrt(1 + size**2) for part in (e, v))
    effect = parameters.effect[every, state]
    level = parameters.intercept[every, state]
    if stress.name == "break_effect":
        effect = effect + size * late
    elif stress.name == "break_mean":
        level = level + size * late
    elif stress.name == "heavy_tails":
        e = e * np.where(noise.random(e.shape) < _OUTLYING, 1 + size, 1.0)
    elif stress.name == "unseen_regime":
        length = n_dates // 5
        start = noise.integers(0, n_dates - length, size=(n, 1))
        inside = (np.arange(n_dates) >= start) & (np.arange(n_dates) < start + length)
        level = level - size * inside
        sd = sd * (1 + size * inside)
    elif stress.name == "no_overlap":
        t_sd = t_sd * (1 - size)
    expected = parameters.treatment_slope[:, :1] + np.einsum(
        "ntj,nj->nt", x, parameters.treatment_slope[:, 1:]
    )
    d = expected + t_sd * v
    y = level + effect * d + np.einsum("ntj,nj->nt", x, parameters.slope) + sd * e
    if stress.name == "wrong_lag":
        # From the middle on, features are those of earlier dates than they are said to be.
        shown = np.arange(n_dates) - round(size) * late
        x = x[:, np.maximum(shown, 0)]
    elif stress.name == "missing_block":
        # Dates without values, which were filled with the last ones before.
        length = round(size * n_dates)
        start = noise.integers(n_dates // 4, 3 * n_dates // 4 - length, size=(n, 1))
        shown = np.arange(n_dates)
        shown = np.where((shown >= start) & (shown < start + length), start - 1, shown)
        y, d, x = y[every, shown], d[every, shown], x[every, shown]
    elif stress.name == "look_ahead":
        # The last control holds part of the outcome, as if it were dated before it was known.
        x = x.copy()
        x[..., -1] = np.sqrt(1 - size**2) * x[..., -1] + size * (y - y.mean(1, keepdims=True))
    elif stress.name == "unit_change":
        y = np.where(late, y * (1 + size), y)
    return Window(y, d, x, state)
