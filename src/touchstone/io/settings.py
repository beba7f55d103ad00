"""The settings of a run, held against their schemas."""

import copy
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml

from touchstone.io import artifacts, plain_yaml
from touchstone.io.validation import jsonschema

_SHARED = Path(__file__).parent / "schemas/config.yaml"
_OWN = "settings.schema.yaml"
DEFAULT = Path("config/config.yaml")


class SettingsError(ValueError):
    """A setting that a schema does not allow; the message names key, value and what is."""


def _is_number(_checker, value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(_checker, value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@cache
def _validator():
    """A validator to which neither .nan and .inf, which YAML has, nor 4.0 chunks are settings."""
    library = jsonschema()
    checker = library.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"number": _is_number, "integer": _is_integer}
    )
    return library.validators.extend(library.Draft202012Validator, type_checker=checker)


_SHOWN = ("type", "enum", "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


@cache
def schema(file: Path = _SHARED) -> dict:
    """A JSON schema written as YAML; by default that of the keys that all models share."""
    return plain_yaml.load_own(file)


def complete(config: dict, folders: Mapping[str, Path]) -> dict:
    """A configuration with a complete block for each of its models, checked.

    Args:
        config: As parsed. Of a block that it holds in part, or not at all, the rest is what the
            model's schema says is the default.
        folders: Folder of every model, by name.

    Returns:
        A new configuration, whose models include that of the measurement.

    Raises:
        SettingsError: Naming every key that is wrong, its value, and what is allowed.
    """
    shared = schema()
    known = {*shared["properties"], *folders}
    if unknown := [key for key in config if key not in known]:
        raise SettingsError(
            f"configuration: unknown key {', '.join(unknown)}; allowed are "
            f"{', '.join([*shared['properties'], *folders])}"
        )
    _check(config, shared)
    named = config["measurement"]["model"]
    chosen = active(folders) if config["models"] is None else config["models"]
    models = list(dict.fromkeys([*chosen, *([named] if named else [])]))
    if absent := [model_id for model_id in models if model_id not in folders]:
        raise SettingsError(
            f"configuration: models: {', '.join(absent)} is none of {', '.join(folders)}"
        )
    complete = {**copy.deepcopy(config), "models": models}
    for model_id in models:
        own = schema(folders[model_id] / _OWN)
        block = merged(defaults(own), config.get(model_id, {}))
        _check(block, own, model_id)
        _check(block, shared["$defs"]["block"], model_id)
        complete[model_id] = block
    return complete


def active(folders: Mapping[str, Path]) -> list[str]:
    """Models whose `config.yaml` says that they are active: those that run where none is named."""
    return [name for name, folder in folders.items() if _status(folder) == "active"]


def _status(folder: Path) -> str | None:
    """What a model says that it is; None where its `config.yaml` cannot be read."""
    try:
        own = plain_yaml.load_own(folder / "config.yaml")
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return own.get("status") if isinstance(own, dict) else None


def load(folders: Mapping[str, Path], file: Path = DEFAULT) -> dict:
    """The configuration of a file, complete and checked; see `complete`."""
    return complete(plain_yaml.load_own(file), folders)


def found(folders: Mapping[str, Path], model_id: str | None = None) -> dict:
    """The configuration of the project in the working directory, else what schemas say by default.

    Args:
        folders: Folder of every model, by name.
        model_id: The only model that it is of; None takes the project's first, else the first.

    Raises:
        SettingsError: As in `complete`.
    """
    in_project = Path("Snakefile").is_file() and DEFAULT.is_file()
    config = load(folders) if in_project else {**defaults(schema()), "models": list(folders)}
    return complete({**config, "models": [model_id or config["models"][0]]}, folders)


def of_stage(config: dict, model_id: str, stage: str) -> dict:
    """What a stage of a model takes from a complete configuration, with the seed."""
    seed, block = {"seed": config["seed"]}, config[model_id]
    match stage:
        case "simulate":
            return seed | {k: v for k, v in block["simulate"].items() if k != "n_chunks"}
        case "train":
            return seed | {name: block[name] for name in ("train", "calibration", "budgets")}
        case "stress":
            return seed | {name: block[name] for name in ("stress", "budgets")}
        case "guardrail":
            return seed | {"alpha": config["alpha"], **config["guardrail"]}
        case "infer":
            return seed | {name: block[name] for name in ("infer", "budgets")}
    raise ValueError(f"{stage!r} is no stage")


def measurement_paths(measurement: dict) -> tuple[str, str]:
    """Path of the data and of the metadata, by default the YAML file beside the data."""
    data, meta = measurement["data"], measurement["meta"]
    path = Path(data)
    return data, meta or (f"{path}.yaml" if path.is_dir() else str(path.with_suffix(".yaml")))


def recipe_of(train: dict, data: Path) -> Path | None:
    """YAML that says what the data of a training are.

    Args:
        train: Settings of the training; those with a key `meta` are of a model that takes one.
        data: What is trained on.

    Returns:
        What `meta` names, else the file of the data's name where there is one.
    """
    if "meta" not in train:
        return None
    beside = data.with_suffix(".yaml")
    return Path(train["meta"]) if train["meta"] else beside if beside.is_file() else None


def assert_measurement(measurement: dict) -> None:
    """Refuse a measurement whose files are not there, also where a page of it is.

    Raises:
        SettingsError: Naming key and path.
    """
    if not measurement["data"]:
        return
    for key, path in zip(("data", "meta"), measurement_paths(measurement), strict=True):
        if not any(file.is_file() for file in artifacts.files(path)):
            raise SettingsError(
                f"measurement.{key}: {path} does not exist or is empty (see README, own data)"
            )


def defaults(node: dict):
    """What a schema says that settings are by default."""
    if "default" in node or "properties" not in node:
        return copy.deepcopy(node.get("default"))
    return {name: defaults(child) for name, child in node["properties"].items()}


def merged(base: dict, over: dict) -> dict:
    """A nested dictionary with what another says instead."""
    if not isinstance(over, dict):
        return over
    found = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        found[key] = merged(base[key], value) if both else value
    return found


def _check(config: dict, schema: dict, prefix: str = "") -> None:
    errors = sorted(_validator()(schema).iter_errors(config), key=lambda e: str(e.path))
    if errors:
        words = "; ".join(_explain(error, prefix) for error in errors)
        raise SettingsError(f"configuration: {words}")


def _explain(error, prefix: str) -> str:
    path = [prefix, *error.absolute_path] if prefix else error.absolute_path
    key = ".".join(str(part) for part in path) or "(top level)"
    assert isinstance(error.schema, Mapping)  # a schema that is a mere boolean has no keys
    if error.validator == "additionalProperties" and error.schema.get("properties"):
        known = error.schema["properties"]
        unknown = [name for name in error.instance if name not in known]
        return f"{key}: unknown key {', '.join(unknown)}; allowed are {', '.join(known)}"
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return f"{key}: lacks {', '.join(missing)}"
    names = dict.fromkeys((*_SHOWN, error.validator))
    allowed = {name: error.schema[name] for name in names if name in error.schema}
    bounds = ", ".join(f"{name} {value}" for name, value in allowed.items())
    return f"{key} is {error.instance!r}; allowed: {bounds}"
