"""Metadata of a measurement: YAML held against its schema, in sentences."""

import difflib
from pathlib import Path

import yaml

from touchstone.io import plain_yaml
from touchstone.io.artifacts import ArtifactError
from touchstone.io.validation import jsonschema

SCHEMA = Path(__file__).with_name("measurement.schema.yaml")


def read_meta(*paths: Path | str, whole: bool = True) -> dict:
    """Metadata of a measurement; `measurement.schema.yaml` says what the YAML may hold.

    Args:
        paths: Of the YAML; where there are several, the last has the last word on a key.
        whole: Whether they must hold all that a measurement needs.

    Raises:
        ArtifactError: If a file is missing or says something that the schema does not allow.
    """
    meta = {}
    for path in paths:
        meta |= _load(Path(path))
    schema = plain_yaml.load_own(SCHEMA)
    if not whole:
        del schema["required"]
    validator = jsonschema().Draft202012Validator(schema)
    errors = sorted(validator.iter_errors(meta), key=lambda error: list(map(str, error.path)))
    if errors:
        raise ArtifactError(f"{' with '.join(map(str, paths))}: {_sentence(errors[0])}")
    return meta


def _load(path: Path) -> dict:
    said = plain_yaml.load(path)
    if not isinstance(said, dict):
        raise ArtifactError(
            f"{path}: metadata: {said!r} is no mapping of keys to values; begin e.g. with "
            "electrode: {radius_mm: 1.5}"
        )
    return said


def _sentence(error) -> str:
    """What a schema error means: the key, what it is, what was expected, an example."""
    where = ".".join(str(part) for part in error.absolute_path) or "metadata"
    keys = error.schema.get("properties", {})
    if error.validator == "required":
        key = next(key for key in error.validator_value if key not in error.instance)
        return f"{where}: {key} is missing: {_expected(keys.get(key, {}))}"
    if error.validator == "additionalProperties":
        key = str(next(key for key in error.instance if key not in keys))
        near = difflib.get_close_matches(key, keys, 1)
        hint = f"; {near[0]} is meant?" if near else ""
        return f"{where}: {key!r} is no key here, expected some of {', '.join(keys)}{hint}"
    return f"{where} is {error.instance!r}, expected {_expected(error.schema)}"


def _expected(schema: dict) -> str:
    """What a key may hold, with an example, from its entry in the schema."""
    if "enum" in schema:
        said = " or ".join(map(str, schema["enum"]))
    else:
        said = schema.get("description", f"a value of type {schema.get('type', 'any')}")
    if "minimum" in schema and "maximum" in schema:
        said += f" from {schema['minimum']:g} to {schema['maximum']:g}"
    for option in schema.get("oneOf", []):
        if "maximum" in option:
            said += f" from {option.get('minimum', 0):g} to {option['maximum']:g}"
    example = next(iter(schema.get("examples", [])), None)
    return said if example is None else f"{said}, e.g. {_as_yaml(example)}"


def _as_yaml(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...").strip()
