"""JSON reports: strict, validated against their schema, and carrying their lineage."""

import hashlib
import json
import math
import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from touchstone.io import artifacts, plain_yaml
from touchstone.io.validation import jsonschema

SCHEMA_VERSION = 1
_PLAIN = (str, int, bool, type(None))
_VOLATILE = ("timing", "date", "revision", "execution")
# Of a pipeline that runs this, which its own records name.
_EXECUTION = {"id": "PIPELINE_EXECUTION_ID", "started": "EXECUTION_START_TIME"}
_SCHEMAS = Path(__file__).parent / "schemas"


def lineage(settings: dict, seed: int, inputs: Mapping[str, Path | str], **facts: Any) -> dict:
    """Where a result comes from.

    Args:
        settings: Of the stage.
        seed: Of the run.
        inputs: Files the stage read, by role. The lineage of a JSON report among them is kept,
            and its digest is that of its content without timing, dates and revisions.
        facts: Anything more that a reader must know (overrides, what was assumed).

    Returns:
        Settings, seed, input digests, versions, revision, date, the execution of a pipeline where
        the environment names one, and the lineages of the inputs.
    """
    read = {role: _origin(Path(path), *artifacts.state(path)) for role, path in inputs.items()}
    return {
        "settings": settings,
        "seed": seed,
        "inputs": {
            role: {"path": str(path), "sha256": read[role].sha256} for role, path in inputs.items()
        },
        "versions": artifacts.versions(),
        "revision": _revision(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **({"execution": execution} if (execution := _execution()) else {}),
        **facts,
        "parents": {
            role: read[role].lineage
            for role, path in inputs.items()
            if Path(path).suffix == ".json"
        },
    }


def _execution() -> dict[str, str]:
    found = {name: os.environ.get(variable, "") for name, variable in _EXECUTION.items()}
    return {name: value for name, value in found.items() if value}


class _Origin(NamedTuple):
    """What the lineage of a result says of a file that it was made from."""

    sha256: str
    lineage: dict | None


@lru_cache(maxsize=64)
def _origin(path: Path, _modified: int, _size: int) -> _Origin:
    """Of a file in a state, so that one which has not changed is not read for every answer."""
    if path.suffix != ".json":
        return _Origin(artifacts.sha256(path), None)
    content = artifacts.read_json(path)
    return _Origin(_digest(content), content.get("lineage"))


def digest(path: Path | str) -> str:
    """Hex sha256 of a file; of a JSON report, that of what another run would reproduce."""
    if Path(path).suffix != ".json":
        return artifacts.sha256(path)
    return _digest(artifacts.read_json(path))


def _digest(content: dict) -> str:
    text = json.dumps(reproducible(content), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def reproducible(content: Any) -> Any:
    """A report without what differs between two runs of the same: timing, dates, revisions."""
    if isinstance(content, dict):
        return {k: reproducible(v) for k, v in content.items() if k not in _VOLATILE}
    return [reproducible(item) for item in content] if isinstance(content, list) else content


def write(path: Path | str, kind: str, body: dict, lineage: dict, timing: dict) -> dict:
    """Write a report of a kind that has a schema; returns what was written. See `make`."""
    report = make(kind, body, lineage, timing)
    artifacts.write_json(path, report)
    return report


def make(kind: str, body: dict, lineage: dict, timing: dict) -> dict:
    """A report of a kind that has a schema, with the sha256 of what another run would reproduce.

    Args:
        kind: Name of its schema.
        body: Its content; arrays become lists and NaN becomes null.
        lineage: As from `lineage`.
        timing: Seconds, by what took them.

    Raises:
        jsonschema.ValidationError: If the report is not what its schema says.
    """
    content = plain(
        {
            "schema_version": SCHEMA_VERSION,
            "kind": kind,
            **body,
            "lineage": lineage,
            "timing": timing,
        }
    )
    content["sha256"] = _digest(content)
    validate(content)
    return content


def read(path: Path | str, kind: str | None = None) -> dict:
    """Read a report that a stage wrote; every stage that rests on a report reads it here.

    Args:
        path: Of the report.
        kind: That it must be of; None takes any that has a schema.

    Raises:
        ArtifactError: Naming the file and the key, if the report is of another kind or version,
            is not what its schema allows, or was changed after it was written.
    """
    report = artifacts.read_json(path)
    found, kinds = report.get("kind"), [kind] if kind else _kinds()
    if found not in kinds:
        raise artifacts.ArtifactError(
            f"{path}: kind is {found!r}, expected {' or '.join(map(repr, kinds))}"
        )
    if report.get("schema_version") != SCHEMA_VERSION:
        raise artifacts.ArtifactError(
            f"{path}: schema_version is {report.get('schema_version')!r}, expected {SCHEMA_VERSION}"
        )
    errors = list(_validator(report["kind"]).iter_errors(report))
    # Where a key is wrong, those that depend on it are "unevaluated", which would say nothing.
    telling = [error for error in errors if error.validator != "unevaluatedProperties"]
    error = jsonschema().exceptions.best_match(telling or errors)
    if error is not None:
        key = ".".join(map(str, error.absolute_path)) or "the report"
        raise artifacts.ArtifactError(f"{path}: {key}: {_short(error.message)}")
    said = report.get("sha256")
    if said != _digest({name: value for name, value in report.items() if name != "sha256"}):
        raise artifacts.ArtifactError(
            f"{path}: sha256: the content is not what was written; make this report again"
        )
    return report


def _short(message: str, most: int = 200) -> str:
    """A message of a validator, which may quote a whole table, cut in its middle."""
    half = most // 2
    return message if len(message) <= most else f"{message[:half]} … {message[-half:]}"


def _kinds() -> list[str]:
    """Kinds of report that have a schema."""
    others = ("common", "config")
    return sorted(file.stem for file in _SCHEMAS.glob("*.yaml") if file.stem not in others)


def validate(report: dict) -> None:
    """Hold a report against the schema of its kind; a `ValidationError` says where it differs."""
    _validator(report["kind"]).validate(report)


@cache
def _validator(kind: str) -> Any:
    return jsonschema().Draft202012Validator(schema(kind))


@cache
def schema(kind: str) -> dict:
    """JSON schema of a kind of report."""
    own, common = (plain_yaml.load_own(_SCHEMAS / f"{name}.yaml") for name in (kind, "common"))
    return {**own, "$defs": common}


def plain(value: Any) -> Any:
    """Arrays and numpy scalars as JSON values; what is not finite becomes None."""
    if type(value) in _PLAIN:  # most of a report: no more is asked of it
        return value
    if type(value) is float:
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


@cache
def _revision() -> str | None:
    """Git revision of the working tree, with `+changes` if it differs from its commit.

    None of an installed package, also where its environment lies in a working tree of something
    else.
    """
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        revision, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision + ("+changes" if changed else "")


def _git(*arguments: str) -> str:
    """What git says of the folder of this file."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
