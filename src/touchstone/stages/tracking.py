"""Runs as MLflow keeps them, on a server or in a folder."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from touchstone.io.artifacts import ArtifactError
from touchstone.io.results import Results
from touchstone.stages import runs

EXPERIMENT = "touchstone"
_KEY = "touchstone.run"  # tag by which a run is known again
_PIPELINE = ("execution", "execution_started")
_TEXTS = ("model_id", "run", "date", "revision", "seed", "settings", *_PIPELINE)
_LONGEST = 6000  # characters of a parameter


def export(uri: str, experiment: str = EXPERIMENT, root: Path = Path("results")) -> list[str]:
    """Log every run that MLflow does not have yet: settings, figures, reports and pictures.

    Args:
        uri: Of a server (`http://…`), or of a folder (`file:///…`).
        experiment: Under which they are logged; made where it is not there.
        root: Folder of all results.

    Returns:
        The runs that were logged, by their folder.

    Raises:
        ArtifactError: If MLflow is not installed, or cannot be reached.
    """
    try:
        from mlflow import MlflowClient  # ty: ignore[import-not-found] an extra
        from mlflow.exceptions import MlflowException  # ty: ignore[import-not-found]
    except ImportError:
        raise ArtifactError("--mlflow: needs `uv sync --extra mlflow`") from None
    client = MlflowClient(tracking_uri=uri)
    try:
        found = client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else client.create_experiment(experiment)
        known = {each.data.tags.get(_KEY) for each in _logged(client, number)}
        logged = []
        for row in runs.rows(root):
            key = f"{row['run']} {row['date']}"
            if row["run"] is not None and key not in known:
                _log(client, number, key, row, Results(root / row["run"]))
                logged.append(row["run"])
    except MlflowException as error:
        raise ArtifactError(f"--mlflow: {uri}: {' '.join(str(error).split())[:300]}") from None
    return logged


def _logged(client: Any, experiment: str) -> Iterator[Any]:
    """All runs of an experiment, a page at a time."""
    token = None
    while token != "":
        page = client.search_runs([experiment], page_token=token)
        yield from page
        token = page.token or ""


def _log(client: Any, experiment: str, key: str, row: dict[str, Any], results: Results) -> None:
    """Log one run; it is marked as finished last, so that one which was broken off is seen."""
    begun = round(1000 * datetime.fromisoformat(row["date"]).timestamp())
    tags = {_KEY: key, "model_id": row["model_id"], "revision": row["revision"] or ""}
    tags |= {name: row[name] for name in _PIPELINE if row[name]}
    run = client.create_run(experiment, start_time=begun, tags=tags, run_name=row["run"])
    number = run.info.run_id
    settings = json.loads(row["settings"] or "{}") | {"seed": row["seed"]}
    for name, value in settings.items():
        text = value if isinstance(value, str) else json.dumps(value)
        client.log_param(number, name, text[:_LONGEST])
    for name, value in row.items():
        if name not in _TEXTS and value is not None:
            client.log_metric(number, name, value, timestamp=begun)
    for folder in ("reports", "figures"):
        if (results.folder / folder).is_dir():
            client.log_artifacts(number, str(results.folder / folder), folder)
    client.set_terminated(number, end_time=begun)
