"""The settings of a run, held against their schema."""

import math
from pathlib import Path

import jsonschema
import yaml


class ConfigError(ValueError):
    """A setting that is not what the schema allows; the message names key, value and what is."""


def _is_number(_checker, value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(_checker, value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# YAML has .nan and .inf, and 4.0 is no number of chunks: neither is a setting.
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"number": _is_number, "integer": _is_integer}
    ),
)
_SHOWN = ("type", "enum", "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


def check_config(config: dict, schema_file: Path | str) -> None:
    """Hold a configuration against a JSON schema written as YAML.

    Args:
        config: As parsed.
        schema_file: Of the schema.

    Raises:
        ConfigError: Naming every key that is wrong, its value, and what is allowed.
    """
    schema = yaml.safe_load(Path(schema_file).read_text(encoding="utf-8"))
    errors = sorted(_Validator(schema).iter_errors(config), key=lambda e: str(e.path))
    if errors:
        raise ConfigError("configuration: " + "; ".join(_explain(error) for error in errors))


def _explain(error: jsonschema.ValidationError) -> str:
    key = ".".join(str(part) for part in error.absolute_path) or "(top level)"
    if error.validator == "additionalProperties":
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
