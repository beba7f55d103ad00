"""JSON reports: strict, validated against their schema, and carrying their lineage."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from touchstone.io import artifacts

SCHEMA_VERSION = 1
_VOLATILE = ("timing", "date", "revision")
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
        Settings, seed, input digests, versions, revision, date, and the lineages of the inputs.
    """
    parents = {}
    for role, path in inputs.items():
        if Path(path).suffix == ".json":
            parents[role] = artifacts.read_json(path).get("lineage")
    return {
        "settings": settings,
        "seed": seed,
        "inputs": {
            role: {"path": str(path), "sha256": digest(path)} for role, path in inputs.items()
        },
        "versions": artifacts.versions(),
        "revision": _revision(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
        "parents": parents,
    }


def digest(path: Path | str) -> str:
    """Hex sha256 of a file; of a JSON report, that of what another run would reproduce."""
    if Path(path).suffix != ".json":
        return artifacts.sha256(path)
    content = json.dumps(reproducible(artifacts.read_json(path)), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def reproducible(content: Any) -> Any:
    """A report without what differs between two runs of the same: timing, dates, revisions."""
    if isinstance(content, dict):
        return {k: reproducible(v) for k, v in content.items() if k not in _VOLATILE}
    return [reproducible(item) for item in content] if isinstance(content, list) else content


def write(path: Path | str, kind: str, body: dict, lineage: dict, timing: dict) -> dict:
    """Write a report of a kind that has a schema; returns what was written.

    Args:
        path: Of the report.
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
    validate(content)
    artifacts.write_json(path, content)
    return content


def validate(report: dict) -> None:
    """Hold a report against the schema of its kind; a `ValidationError` says where it differs."""
    import jsonschema  # here, since it takes a second to import

    jsonschema.Draft202012Validator(schema(report["kind"])).validate(report)


@cache
def schema(kind: str) -> dict:
    """JSON schema of a kind of report."""
    own, common = (
        yaml.safe_load((_SCHEMAS / f"{name}.yaml").read_text(encoding="utf-8"))
        for name in (kind, "common")
    )
    return {**own, "$defs": common}


def plain(value: Any) -> Any:
    """Arrays and numpy scalars as JSON values; what is not finite becomes None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


@cache
def _revision() -> str | None:
    """Git revision of the working tree, with `+changes` if it differs from its commit."""
    try:
        revision, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision + ("+changes" if changed else "")


def _git(*arguments: str) -> str:
    """What git says of the folder of this file."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
