"""Finds the models: each folder beside this file that holds a `config.yaml`."""

from importlib import import_module
from pathlib import Path

import yaml

from .base import Model

_HERE = Path(__file__).parent


def model_ids() -> list[str]:
    """Names of all models."""
    return sorted(path.parent.name for path in _HERE.glob("*/config.yaml"))


def load_model(model_id: str) -> Model:
    """The model of a name, made from its `config.yaml`.

    A model's package has a module `model` with one subclass of `Model`.

    Raises:
        KeyError: If there is no such model; the message lists those that there are.
    """
    if model_id not in model_ids():
        raise KeyError(f"model_id {model_id!r} is none of {', '.join(model_ids())}")
    config = yaml.safe_load((_HERE / model_id / "config.yaml").read_text(encoding="utf-8"))
    module = import_module(f"{__package__}.{model_id}.model")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Model) and value is not Model
    ]
    return found[0](config)
