"""The words that rooms exchange: quantities, cases, posteriors and what is said of them."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np


@dataclass(frozen=True)
class Parameter:
    """A quantity with a prior, seen in two coordinates.

    *Natural*: the value, or its logarithm under a log-prior. *Standard*: the coordinate in which
    the prior is the standard normal, so that nothing piles up at a bound.

    Attributes:
        name: As in reports.
        prior: "uniform", "loguniform", "normal" or "lognormal".
        location, scale: Of the natural coordinate: centre and half-range, or mean and sd.
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
    def from_config(cls, name: str, entry: dict) -> "Parameter":
        """A parameter from its entry in a model's `config.yaml`."""
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
        """Whether the natural coordinate is a logarithm."""
        return self.prior.startswith("log")

    @property
    def bounded(self) -> bool:
        """Whether the prior is uniform in the natural coordinate."""
        return self.prior.endswith("uniform")


class Cases(NamedTuple):
    """Observations to infer from; every array has the leading axis of the cases.

    Attributes:
        observed: What was measured, shape (n, N).
        mask: Which samples were, shape (n, N).
        experiment: How; a pytree of the model's own.
        z: Standard coordinates of the parameters, shape (n, P): the truth where simulated;
            otherwise only the known ones count.
        known: Which parameters are known to inference (or do not exist), shape (n, P).
    """

    observed: np.ndarray
    mask: np.ndarray
    experiment: Any
    z: np.ndarray
    known: np.ndarray

    def take(self, index) -> "Cases":
        """Some of the cases, by index or slice."""
        return jax.tree.map(lambda a: np.asarray(a)[index], self)


class Posterior(NamedTuple):
    """What inference says of each case.

    Attributes:
        z: Draws in standard coordinates, shape (n, draws, P); known parameters at their values.
        weight: Weight of each draw, shape (n, draws), sums to one.
        mean: Predictive mean of a new observation, shape (n, N).
        sd: Predictive standard deviation, noise included, shape (n, N).
        noise: Standard deviation of the noise alone, shape (n,).
        pit: Probability of less than each observed sample, given those before it and the
            posterior (its probability integral transform), shape (n, N): about uniform where the
            noise is what it is taken for.
        effective: Effective number of draws of an importance sampler; NaN where the draws were not
            weighted, as in all that follow; shape (n,) each.
        efficiency: The same over all simulations of the case.
        k_hat: Shape of the tail of its weights.
        k_threshold: Largest k-hat at which so many draws can be trusted.
        log_evidence: Of the observation, counted in its own rms.
        disagreement: Log evidence of the best of several independent runs less that of the next.
    """

    z: np.ndarray
    weight: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    noise: np.ndarray
    pit: np.ndarray
    effective: np.ndarray
    efficiency: np.ndarray
    k_hat: np.ndarray
    k_threshold: np.ndarray
    log_evidence: np.ndarray
    disagreement: np.ndarray


class Check(NamedTuple):
    """A number of the simulator beside its exact value.

    Attributes:
        quantity: What it is, with its unit.
        exact: The exact value, with its source in `source`.
        obtained: What the simulator gives.
        tolerance: Largest difference that passes.
        source: Of the exact value.
    """

    quantity: str
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
        x: Shape (N,).
        x_label, y_label: With units.
        y_factor: From the observation's unit to that of the label.
    """

    x: np.ndarray
    x_label: str
    y_label: str
    y_factor: float
