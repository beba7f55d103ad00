"""The vocabulary that all models share, and the contract that a model fills."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
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


class Model(ABC):
    """A science in the workflow: a folder with a `config.yaml` and this contract filled.

    A chunk, a trained pair, base cases and a checkpoint are the model's own; the workflow only
    hands them on. Settings are the sections of the run's configuration.

    Args:
        config: The parsed `config.yaml`.
    """

    def __init__(self, config: dict):
        self.config = config

    @property
    @abstractmethod
    def parameters(self) -> list[Parameter]:
        """All parameters, in the order of `Cases.z`."""

    # simulate

    @abstractmethod
    def simulate(self, rng: np.random.Generator, settings: dict) -> Any:
        """Draw a chunk of the training family; it has `len` and `arrays(provenance)`."""

    @abstractmethod
    def load_chunk(self, path: Path, n_points: int) -> Any:
        """Read a chunk; an `ArtifactError` names what is wrong with it."""

    @abstractmethod
    def gallery(self, chunk: Any, n: int) -> dict[str, list[tuple[View, np.ndarray]]]:
        """Up to n observations of each task of a chunk, ready to draw."""

    @abstractmethod
    def checks(self) -> list[Check]:
        """The simulator beside exact answers."""

    @abstractmethod
    def example(self, rng: np.random.Generator, trace_path: Path, meta_path: Path) -> None:
        """Write a simulated measurement, marked as such, in the form that `read` takes."""

    # train

    @abstractmethod
    def train(
        self, chunks: list, settings: dict, key: jax.Array, folder: Path, lineage: dict
    ) -> Any:
        """Train on chunks and write the checkpoint; gives `losses`, `n_rows` and `n_held_out`."""

    @abstractmethod
    def evaluate(self, trained: Any, key: jax.Array, n_draws: int) -> dict[str, list[dict]]:
        """Errors on held-out rows beside those of trivial predictors: `tasks`, `parameters`."""

    @abstractmethod
    def load_checkpoint(self, path: Path) -> Any:
        """Read a checkpoint; it has `meta` and `verified`."""

    # stress

    @abstractmethod
    def base_cases(self, rng: np.random.Generator, settings: dict, n_points: int) -> Any:
        """Draw what the variants of each stressed case have in common; has `take` and `task`."""

    @abstractmethod
    def variant(
        self, base: Any, key: jax.Array, stress: str | None = None, severity: float = 0.0
    ) -> Cases:
        """The base cases under a stress of the `config.yaml`, with noise of their own."""

    # infer

    @abstractmethod
    def infer(
        self,
        checkpoint: Any,
        cases: Cases,
        key: jax.Array,
        *,
        method: str,
        label: str | None = None,
        **budget: Any,
    ) -> Posterior:
        """Posterior of each case and what it predicts."""

    @abstractmethod
    def reference(
        self,
        case: Cases,
        draws: np.ndarray,
        *,
        n_tune: int,
        n_draws: int,
        seed: int,
        kept: Any | None = None,
    ) -> Any:
        """Chains of NUTS for one simulated case, as a tree of xarray; those kept, if of this case.

        Its group `posterior` has `z`, the parameters that were sampled, (chain, draw, parameter),
        and `standard`, all as in `Posterior.z`, (chain, draw, all).
        """

    @abstractmethod
    def natural(self, z: np.ndarray, cases: Cases) -> np.ndarray:
        """Natural coordinates of standard ones, shape (n, draws, P)."""

    @abstractmethod
    def prior_moments(self, cases: Cases) -> tuple[np.ndarray, np.ndarray]:
        """Prior mean and standard deviation of the natural coordinates, shape (n, P) each."""

    @abstractmethod
    def read(self, trace_path: Path, meta_path: Path, n_points: int) -> tuple[Cases, list[str]]:
        """A measurement from disk, and what was read and assumed, in words.

        A file is one case; a folder is several records of one system, a case each.
        """

    @abstractmethod
    def outside_trained_range(self, checkpoint: Any, case: Cases) -> list[str]:
        """What of a case lies outside what the networks were trained on, in words."""

    @abstractmethod
    def table(self, posterior: Posterior, cases: Cases, rng: np.random.Generator) -> list[dict]:
        """Posterior of a measurement in the units of a reader, beside its prior.

        Rows have `record`, from 1, where there are several and the quantity is of that one alone.
        """

    @abstractmethod
    def view(self, cases: Cases, index: int) -> View:
        """How one of the cases is drawn."""
