"""What a model provides, and how models are found."""

from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import numpy as np
import yaml

from touchstone.vocabulary import Cases, Check, Parameter, Posterior, View

_MODELS = Path(__file__).parent / "models"


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


def model_ids() -> list[str]:
    """Names of all models."""
    return sorted(path.parent.name for path in _MODELS.glob("*/config.yaml"))


def load_model(model_id: str) -> Model:
    """The model of a name, made from its `config.yaml`.

    A model's package has a module `model` with one subclass of `Model`.

    Raises:
        KeyError: If there is no such model; the message lists those that there are.
    """
    if model_id not in model_ids():
        raise KeyError(f"model_id {model_id!r} is none of {', '.join(model_ids())}")
    config = yaml.safe_load((_MODELS / model_id / "config.yaml").read_text(encoding="utf-8"))
    module = import_module(f"touchstone.models.{model_id}.model")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Model) and value is not Model
    ]
    return found[0](config)
