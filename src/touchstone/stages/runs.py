"""The runs that were made here: what each was of, how it was set, and how well it did."""

import csv
import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from touchstone.io import artifacts
from touchstone.io.artifacts import ArtifactError
from touchstone.io.results import HISTORY

_TRAIN, _RULE = "train_report", "posterior_failure_mode_report"
# Of what the workflow makes, with overrides or as an experiment, and of trainings as jobs.
_PLACES = ("*", "*/override_*", "*/experiment_*", "registry/.jobs/*/results/*")
_ENDS = {"": "value", "_low": "low", "_high": "high", "_n": "n"}  # of a rate
_RATES = ("false_alarms", "recall", "wrong")
_COLUMNS = (
    *("model_id", "run", "date", "revision", "execution", "execution_started"),
    *("seed", "settings", "n_rows"),
    *("coverage_90", "coverage_90_n"),
    *(name + end for name in _RATES for end in _ENDS),
)


def rows(root: Path = Path("results")) -> list[dict[str, Any]]:
    """A row for each run, the newest first.

    Args:
        root: Folder of all results.

    Returns:
        Of each run its model, folder, date, revision of the code, the execution of a pipeline that
        made it and when that was started, seed, the `train` settings as JSON, how many rows were
        learnt from, the part of truths in 90 % intervals with its number of cases, and false
        alarms, recall and the part of wrong answers among the accepted, each with its 95 % interval
        and number of cases; None where a run did not come to it. Of runs whose reports were
        replaced since then, the rates are kept.
    """
    folders = {folder for pattern in _PLACES for folder in root.glob(pattern) if folder.is_dir()}
    made = [row for folder in folders if (row := _row(folder, root)) is not None]
    known = {(row["model_id"], row["date"]) for row in made}
    made += [row for row in _past(root) if (row["model_id"], row["date"]) not in known]
    return sorted(made, key=lambda row: (row["date"], row["model_id"]), reverse=True)


def as_csv(table: list[dict[str, Any]]) -> str:
    """Rows as text with a head."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return stream.getvalue()


def _row(folder: Path, root: Path) -> dict[str, Any] | None:
    """Of a folder of results; None where it has no reports, or damaged ones."""
    files = {name: folder / f"reports/{name}.json" for name in (_TRAIN, _RULE)}
    try:
        found = {name: artifacts.read_json(file) for name, file in files.items() if file.is_file()}
        if not found:
            return None
        row = dict.fromkeys(_COLUMNS)
        row |= _named(list(found.values())[-1]) | {"run": folder.relative_to(root).as_posix()}
        if (trained := found.get(_TRAIN)) is not None:
            row |= _of_training(trained)
        if (judged := found.get(_RULE)) is not None:
            score = judged["decision_score"]
            rates = (score["fpr"], score["tpr"], judged["harm"]["wrong"])
            for name, rate in zip(_RATES, rates, strict=True):
                row |= {name + end: rate[key] for end, key in _ENDS.items()}
    except (ArtifactError, KeyError, TypeError, AttributeError, IndexError):
        return None
    return row


def _named(report: dict[str, Any]) -> dict[str, Any]:
    lineage = report["lineage"]
    said = {name: lineage[name] for name in ("date", "revision", "seed")}
    execution = lineage.get("execution", {})
    pipeline = {"execution": execution.get("id"), "execution_started": execution.get("started")}
    return {"model_id": report["model_id"], **said, **pipeline}


def _of_training(report: dict[str, Any]) -> dict[str, Any]:
    settings = json.dumps(report["lineage"]["settings"]["train"])
    found = {"settings": settings, "n_rows": report["n_rows"], "seed": report["lineage"]["seed"]}
    for row in report["calibration"][:1]:
        found |= {"coverage_90": row["coverage_90"], "coverage_90_n": row["n_cases"]}
    return found


def _past(root: Path) -> list[dict[str, Any]]:
    """What the history of rules keeps."""
    file = root / HISTORY
    if not file.is_file():
        return []
    with closing(sqlite3.connect(file, timeout=60)) as base:
        base.row_factory = sqlite3.Row
        try:
            kept = [dict(row) for row in base.execute("select * from guardrail")]
        except sqlite3.OperationalError:  # no rule was fitted yet
            return []
    made = []
    for each in kept:
        row = dict.fromkeys(_COLUMNS) | {
            name: each[name] for name in ("model_id", "date", "revision")
        }
        for name in _RATES:
            row |= {name + end: each[f"{name}_{key}"] for end, key in _ENDS.items()}
        made.append(row)
    return made
