"""Runs in MLflow, as its own server gives them back."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
UV = shutil.which("uv") or ROOT / ".uv/bin/uv"
RATE = {"value": 0.05, "low": 0.03, "high": 0.08, "n": 400}


@pytest.fixture
def project(tmp_path):
    """A folder with the reports of one run."""
    folder = tmp_path / "results/decay"
    (folder / "reports").mkdir(parents=True)
    (folder / "figures").mkdir()
    (folder / "figures/structure.svg").write_text("<svg/>")
    lineage = {"date": "2026-01-02T03:04:05+00:00", "revision": "abc", "seed": 7}
    settings = {"train": {"n_steps": 100, "prior": "normal"}}
    trained = {
        "model_id": "decay",
        "n_rows": 2000,
        "lineage": lineage | {"settings": settings},
        "calibration": [{"coverage_90": 0.91, "n_cases": 300}],
    }
    judged = {
        "model_id": "decay",
        "lineage": lineage,
        "decision_score": {"fpr": RATE, "tpr": RATE | {"value": 0.06}},
        "harm": {"wrong": dict.fromkeys(RATE)},
    }
    reports = {"train_report": trained, "posterior_failure_mode_report": judged}
    for name, content in reports.items():
        (folder / f"reports/{name}.json").write_text(json.dumps(content))
    return tmp_path


def runs(project, *arguments):
    """What the command says, in an environment with the extra."""
    command = [
        UV,
        "run",
        "--quiet",
        "--isolated",
        "--frozen",
        "--no-default-groups",
        "--extra",
        "mlflow",
    ]
    command += ["--python", sys.executable]
    return subprocess.run(
        [*command, "--project", ROOT, "touchstone", "runs", *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        env=os.environ | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"},
    )


@pytest.fixture
def server(tmp_path):
    """A server of MLflow, in an environment of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.sqlite"]
    store += ["--artifacts-destination", f"{tmp_path}/artifacts", "--port", str(port)]
    command = [UV, "tool", "run", "--python", sys.executable, "--from", "mlflow==3.17.2"]
    command += ["mlflow", "server", "--workers", "1"]
    with (tmp_path / "mlflow.log").open("w") as log:
        process = subprocess.Popen([*command, *store], stdout=log, stderr=log)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
    try:
        for _ in range(600):
            try:
                if client.get("/health").status_code == 200:
                    break
            except httpx.TransportError:
                assert process.poll() is None, (tmp_path / "mlflow.log").read_text()
            time.sleep(0.5)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(30)


@pytest.mark.nightly
def test_a_server_of_mlflow_has_each_run_once_with_its_settings_figures_and_files(project, server):
    uri = str(server.base_url)
    for expected in ("1 runs logged", "0 runs logged"):
        done = runs(project, "--mlflow", uri, "--experiment-name", "mine")
        assert expected in done.stdout, done.stderr
    api = "/api/2.0/mlflow"
    named = server.get(f"{api}/experiments/get-by-name", params={"experiment_name": "mine"}).json()
    number = named["experiment"]["experiment_id"]
    (run,) = server.post(f"{api}/runs/search", json={"experiment_ids": [number]}).json()["runs"]
    assert (run["info"]["status"], run["info"]["run_name"]) == ("FINISHED", "decay")
    settings = {each["key"]: each["value"] for each in run["data"]["params"]}
    assert settings == {"n_steps": "100", "prior": "normal", "seed": "7"}
    figures = {each["key"]: each["value"] for each in run["data"]["metrics"]}
    assert figures["coverage_90"] == 0.91
    assert figures["false_alarms_high"] == 0.08
    assert figures["recall"] == 0.06
    assert "wrong" not in figures
    path = {"run_id": run["info"]["run_id"], "path": "figures"}
    files = server.get(f"{api}/artifacts/list", params=path).json()["files"]
    assert [each["path"] for each in files] == ["figures/structure.svg"]


@pytest.mark.nightly
def test_a_server_that_is_not_there_is_said_in_a_sentence(project):
    done = runs(project, "--mlflow", "http://127.0.0.1:1")
    assert done.returncode == 2
    *_, said = done.stderr.splitlines()  # after what MLflow says of its attempts
    assert said.startswith("touchstone: --mlflow: http://127.0.0.1:1")
