"""The words that rooms exchange: quantities, cases, posteriors, and what is said of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from jaxtyping import Bool, Float, Int

type Index = slice | Sequence[int] | np.ndarray  # of some of the cases


type Json = dict[str, Any]  # settings, lineage, or a row of a table: what a JSON object may hold


@dataclass(frozen=True)
class Quantity:
    """A parameter with a prior.

    Its *coordinate* is the value itself, or the logarithm of the value under a log-prior.

    Attributes:
        name: As in reports.
        prior: "uniform", "loguniform", "normal" or "lognormal".
        location, scale: Of the coordinate: centre and half-range, or mean and standard deviation.
        unit: Of the value; empty for a pure number.
        meaning: In words.
    """

    name: str
    prior: str
    location: float
    scale: float
    unit: str
    meaning: str

    @classmethod
    def from_config(cls, name: str, entry: Json) -> "Quantity":
        """A quantity from its entry in a model's `config.yaml`.

        Raises:
            ValueError: If the kind of prior is unknown.
        """
        kind = entry["prior"]
        if kind in ("normal", "lognormal"):
            location, scale = float(entry["mean"]), float(entry["sd"])
        elif kind in ("uniform", "loguniform"):
            low, high = float(entry["low"]), float(entry["high"])
            if kind == "loguniform":
                low, high = math.log(low), math.log(high)
            location, scale = (low + high) / 2, (high - low) / 2
        else:
            raise ValueError(
                f"{name}: prior {kind!r} is none of uniform, loguniform, normal, lognormal"
            )
        return cls(name, kind, location, scale, entry["unit"], entry["meaning"])

    @property
    def logarithmic(self) -> bool:
        """Whether the coordinate is a logarithm."""
        return self.prior.startswith("log")

    @property
    def bounded(self) -> bool:
        """Whether the prior is uniform in the coordinate."""
        return self.prior.endswith("uniform")

    def coordinate(self, value: np.ndarray) -> np.ndarray:
        """Coordinate of values."""
        return np.log(value) if self.logarithmic else np.asarray(value)

    def value(self, coordinate: np.ndarray) -> np.ndarray:
        """Value at coordinates."""
        return np.exp(coordinate) if self.logarithmic else np.asarray(coordinate)


class Cases[Detail](NamedTuple):
    """Observations to infer from; every array has the leading axis of the cases.

    Attributes:
        observed: What was measured.
        mask: Which of the samples were measured.
        truth: Coordinate of every quantity of the model; where a case was not simulated, only
            those of known quantities count.
        known: Which quantities are known to inference, or do not exist in the case.
        kind: Name of the kind of case, such as a task.
        system: Number of the system that was observed. Cases of one system are inferred together.
        detail: What the model needs besides: a tree of arrays of its own.
    """

    observed: Float[np.ndarray, "case sample"]
    mask: Bool[np.ndarray, "case sample"]
    truth: Float[np.ndarray, "case quantity"]
    known: Bool[np.ndarray, "case quantity"]
    kind: np.ndarray
    system: Int[np.ndarray, " case"]
    detail: Detail

    def take(self, index: Index) -> "Cases[Detail]":
        """Some of the cases, by index or slice."""
        return _take(self, index)


class Prediction(NamedTuple):
    """What a posterior says of the data; each array has the shape of the observations.

    Attributes:
        mean: Of a new observation.
        sd: Standard deviation of a new observation, noise included.
        cdf: Probability of a new observation less than each observed sample.
        log_density: Of a new observation at each observed sample, counted in standard deviations
            of the noise, so that it does not depend on the unit.
        innovation: What each observed sample adds to those before it, in standard deviations of
            what the posterior lets expect: standard normal where the noise is what it says.
    """

    mean: Float[np.ndarray, "case sample"]
    sd: Float[np.ndarray, "case sample"]
    cdf: Float[np.ndarray, "case sample"]
    log_density: Float[np.ndarray, "case sample"]
    innovation: Float[np.ndarray, "case sample"]

    @property
    def pit(self) -> Float[np.ndarray, "case sample"]:
        """Probability of less than each observed sample given those before it."""
        from scipy.special import ndtr  # here, since what needs no inference waits for it

        return ndtr(self.innovation)


class Computation(NamedTuple):
    """Whether draws are those of the posterior under the model, whatever engine made them.

    Attributes:
        figures: What the engine measured of itself, by name; shape (case,) each.
        largest: Limits of some of the figures, which a sound computation does not exceed.
        smallest: Limits of some of the figures, which a sound computation reaches.
    """

    figures: dict[str, np.ndarray]
    largest: dict[str, np.ndarray]
    smallest: dict[str, np.ndarray]

    @classmethod
    def unchecked(cls) -> "Computation":
        """Of an engine that measures nothing of a single case."""
        return cls({}, {}, {})

    @property
    def passed(self) -> dict[str, np.ndarray]:
        """Whether each figure that has a limit keeps to it, by name; NaN never does."""
        within = {name: self.figures[name] <= limit for name, limit in self.largest.items()}
        return within | {n: self.figures[n] >= limit for n, limit in self.smallest.items()}

    def sound(self, n_cases: int) -> Bool[np.ndarray, " case"]:
        """Whether all limits are kept; False where there is none, since nothing vouches then."""
        passed = self.passed
        return np.logical_and.reduce(list(passed.values())) if passed else np.zeros(n_cases, bool)

    def reason(self, case: int) -> str:
        """The figures of one case beside their limits, in words."""
        if not self.passed:
            return "the engine measures nothing that could vouch for the draws of a single case"
        sides = (("at most", self.largest), ("at least", self.smallest))
        return ", ".join(
            f"{name.replace('_', ' ')} is {self.figures[name][case]:.3g} "
            f"({side} {limits[name][case]:.3g})"
            for side, limits in sides
            for name in limits
        )


class Posterior(NamedTuple):
    """What inference says of each case.

    Attributes:
        draws: Values of each quantity of the model, by name, shape (case, draw) each; a known
            quantity has its known value in all draws.
        weight: Of each draw; the weights of a case sum to one.
        prior_mean, prior_sd: Moments of the prior of each quantity's coordinate.
        place: Of the posterior mean of each coordinate in its prior, as a quantile.
        prediction: What the draws predict.
        log_evidence: Of the observation; NaN where the engine does not know it.
        computation: Whether the draws may be believed to be those of the posterior.
        latent: What the draws say of hidden states of each case, by name, the case first.
    """

    draws: dict[str, np.ndarray]
    weight: Float[np.ndarray, "case draw"]
    prior_mean: Float[np.ndarray, "case quantity"]
    prior_sd: Float[np.ndarray, "case quantity"]
    place: Float[np.ndarray, "case quantity"]
    prediction: Prediction
    log_evidence: Float[np.ndarray, " case"]
    computation: Computation
    latent: dict[str, np.ndarray] = {}  # noqa: RUF012 (is never written to)

    def take(self, index: Index) -> "Posterior":
        """What it says of some of the cases, by index or slice."""
        return _take(self, index)


class Verdict(NamedTuple):
    """What to do with a posterior, and why; what cannot be judged is no pass."""

    decision: Literal["accept", "escalate", "cannot judge"]
    reason: str


class Check(NamedTuple):
    """A number of the simulator beside its exact value.

    Attributes:
        name: What is compared, with its unit.
        exact: The exact value, with its source in `source`.
        obtained: What the simulator gives.
        tolerance: Largest difference that passes.
        source: Of the exact value.
    """

    name: str
    exact: float
    obtained: float
    tolerance: float
    source: str

    @property
    def passed(self) -> bool:
        """Whether the simulator agrees."""
        return bool(abs(self.obtained - self.exact) <= self.tolerance)


class View(NamedTuple):
    """How an observation is drawn.

    Attributes:
        x: Place of each sample on the abscissa.
        x_label, y_label: With units.
        y_factor: From the observation's unit to that of the label.
    """

    x: Float[np.ndarray, " sample"]
    x_label: str
    y_label: str
    y_factor: float


class Structure(NamedTuple):
    """The structure of a model: a directed graph without cycles, to be drawn.

    Attributes:
        nodes: What each node is, by its name: a heading, and more on lines of its own.
        kinds: Of each node, by its name: "given", "inferred", "computed" or "observed"; after an
            action "set", "responds" or "kept".
        edges: Names of two nodes each, the second of which depends on the first.
        cut: Those of the edges that an action has cut.
    """

    nodes: dict[str, str]
    kinds: dict[str, str]
    edges: list[tuple[str, str]]
    cut: Sequence[tuple[str, str]] = ()


def _take[Tree](value: Tree, index: Index) -> Tree:
    """Rows of every array of a tree of named tuples and dictionaries."""
    if value is None:
        return value
    if isinstance(value, dict):
        return cast("Tree", {key: _take(item, index) for key, item in value.items()})
    if isinstance(value, tuple):
        return cast("Tree", type(value)(*(_take(item, index) for item in value)))
    return cast("Tree", np.asarray(value)[index])
