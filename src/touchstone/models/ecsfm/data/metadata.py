"""Metadata of a measurement: YAML as people write it, held against the schema in sentences."""

import difflib
import math
import re
from pathlib import Path

import yaml

from touchstone.io.artifacts import ArtifactError

SCHEMA = Path(__file__).with_name("measurement.schema.yaml")
# What YAML 1.1 reads as octal, hexadecimal, base 60, or without its underscores.
_TREACHEROUS = re.compile(r"[+-]?(0[0-9_]+|0[xXbBoO][0-9a-fA-F_]+|\d[\d_]*(:[0-5]?\d)+|\d+_[\d_]*)")


class _Loader(yaml.SafeLoader):
    """YAML whose numbers are those of JSON: 8e-6 is one, 010 and 1:30 are refused."""

    yaml_implicit_resolvers = {  # noqa: RUF012 the base class declares it so
        first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith((":int", ":float"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node, deep=False):
        """A mapping whose keys differ and whose numbers are beyond doubt."""
        seen = set()
        for key, value in node.value:
            name, line = key.value, key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode):
                if name in seen:
                    raise _KeyError(f"{name} is there twice (again in line {line}); keep one")
                seen.add(name)
            for item in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                plain = isinstance(item, yaml.ScalarNode) and item.style is None
                if plain and _TREACHEROUS.fullmatch(item.value):
                    raise _KeyError(
                        f"{name} is {item.value} (line {line}), which YAML does not read as it "
                        "looks; write a plain decimal number, e.g. 10 or 1.5"
                    )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[+-]?(0|[1-9]\d*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"([+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"),
    list("-+0123456789."),
)


class _KeyError(ValueError):
    """A key that cannot be read as it is; the message names it."""


def read_meta(*paths: Path | str) -> dict:
    """Metadata of a measurement; `measurement.schema.yaml` says what the YAML may hold.

    Args:
        paths: Of the YAML; where there are several, the last has the last word on a key.

    Raises:
        ArtifactError: If a file is missing or says something that the schema does not allow.
    """
    meta = {}
    for path in paths:
        meta |= _load(Path(path))
    import jsonschema  # here, since it takes a second to import

    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    errors = sorted(validator.iter_errors(meta), key=lambda error: list(map(str, error.path)))
    if errors:
        raise ArtifactError(f"{' with '.join(map(str, paths))}: {_sentence(errors[0])}")
    return meta


def _load(path: Path) -> dict:
    try:
        said = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except _KeyError as error:
        raise ArtifactError(f"{path}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if key := _not_finite(said):
        raise ArtifactError(f"{path}: {key} holds a number that is not finite, expected e.g. 1.5")
    if not isinstance(said, dict):
        raise ArtifactError(
            f"{path}: metadata: {said!r} is no mapping of keys to values; begin e.g. with "
            "electrode: {radius_mm: 1.5}"
        )
    return said


def _not_finite(said: object, key: str = "") -> str | None:
    """The key of a number that is not finite, if there is one."""
    if isinstance(said, float) and not math.isfinite(said):
        return key
    if isinstance(said, dict | list):
        for name, value in said.items() if isinstance(said, dict) else enumerate(said):
            if found := _not_finite(value, f"{key}.{name}" if key else str(name)):
                return found
    return None


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
