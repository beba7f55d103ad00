"""YAML: of users, where what YAML 1.1 reads otherwise than it looks is refused or mended; and the
project's own, read as it is by the fastest parser."""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from touchstone.io.artifacts import ArtifactError

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


_FASTEST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML has it


class _KeyError(ValueError):
    """A key that cannot be read as it is; the message names it."""


def load_own(path: Path) -> Any:
    """Content of a YAML file of the project; errors are those of the file system and of PyYAML."""
    return yaml.load(path.read_text(encoding="utf-8"), _FASTEST)


def load(path: Path) -> object:
    """Content of a YAML file.

    Raises:
        ArtifactError: If the file is missing or no YAML, has a key twice, or a number that is not
            finite or that YAML does not read as it looks.
    """
    try:
        return parse(path.read_text(encoding="utf-8-sig"), str(path))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path}: not valid YAML ({error})") from None


def parse(text: str, source: str) -> object:
    """Content of a YAML text; errors are as those of `load`, and begin with its source."""
    try:
        content = yaml.load(text, _Loader)
        key = _not_finite(content)
    except _KeyError as error:
        raise ArtifactError(f"{source}: {error}") from None
    except yaml.YAMLError as error:
        raise ArtifactError(f"{source}: not valid YAML ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise ArtifactError(f"{source}: not valid YAML (a part of it holds itself)") from None
    if key is not None:
        raise ArtifactError(f"{source}: {key} holds a number that is not finite, expected e.g. 1.5")
    return content


def _not_finite(said: object, key: str = "") -> str | None:
    """The key of a number that is not finite, if there is one."""
    if isinstance(said, float) and not math.isfinite(said):
        return key
    if isinstance(said, dict | list):
        for name, value in said.items() if isinstance(said, dict) else enumerate(said):
            if found := _not_finite(value, f"{key}.{name}" if key else str(name)):
                return found
    return None
