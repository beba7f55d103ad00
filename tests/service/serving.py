"""A project with a model that was trained in a moment, processes that serve it, and questions."""

import fcntl
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

import touchstone.models
from touchstone import contract
from touchstone.io import settings
from touchstone.io.results import Results
from touchstone.stages import guardrail, infer, scaffold, simulate, stress, train

MODEL = "served_model"
TWIN = "served_twin"
ASKED = {"model_id": MODEL, "inputs": {"level": 1.5}}
_count = itertools.count(1)
# What doing "shift=x" to the level would have made of a measurement.
_OTHERWISE = """
def counterfactual(self, do, *, mode, strategy):
    from touchstone.io.artifacts import ArtifactError

    name, _, shift = do.partition("=")
    if name != "shift" or mode != "total":
        raise ArtifactError(f"{do!r}, {mode!r}: expected shift, and the mode total")

    def answer(cases, posterior, rng):
        level = float(np.quantile(posterior.draws["level"][0], 0.5))
        row = {"name": "level", "unit": "V", "meaning": "", "remark": ""}
        ends = dict.fromkeys(("median", "low", "high"), level)
        moved = dict.fromkeys(ends, level + float(shift))
        change = dict.fromkeys(ends, float(shift))
        twin = {**row, **moved, "change": change, "bracket": change, "why": "it was shifted"}
        law = {"law": "levels stay", "status": "violated", "largest": 1.0, "limit": 0.0}
        return {
            "do": [do], "posterior": [row | ends], "counterfactual": [twin], "refusals": [],
            "remarks": [], "violations": [law | {"n": 1, "how": "by hand"}], "curves": {},
            "structure": {},
        }

    return answer
"""
TOUCHSTONE = Path(sys.executable).with_name("touchstone")


@contextmanager
def inside(folder: Path):
    """Find the models of a project, and work in its folder."""
    with pytest.MonkeyPatch.context() as patch:
        places = [*touchstone.models.__path__, str(folder / "models")]
        patch.setattr(touchstone.models, "__path__", places)
        patch.setenv("TOUCHSTONE_MODELS", str(folder / "models"))
        patch.chdir(folder)
        yield


def trained(factory: pytest.TempPathFactory) -> Path:
    """A project in which two new models, as they are scaffolded, were trained; returns its folder.

    The second answers counterfactual questions. They are trained once for all files of tests.
    """
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    template = shared / "trained"
    with (shared / "trained.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            made = factory.mktemp("making")
            _train(made)
            made.rename(template)
    return shutil.copytree(template, factory.mktemp("project"), dirs_exist_ok=True)


def _train(folder: Path) -> None:
    (folder / "models").mkdir()
    with inside(folder):
        for model_id in (MODEL, TWIN):
            place = scaffold.write(model_id, folder / "models")
            if model_id == TWIN:
                code = (place / "model.py").read_text()
                (place / "model.py").write_text(f"{code}\n{textwrap.indent(_OTHERWISE, '    ')}")
            model, results = contract.load_model(model_id), Results(Path("results") / model_id)
            config = settings.found(contract.folders(), model_id)
            simulate.run(model, settings.of_stage(config, model_id, "simulate"), results, 0)
            train.run(model, settings.of_stage(config, model_id, "train"), results, [], [])
            stress.run(model, settings.of_stage(config, model_id, "stress"), results)
            guardrail.run(settings.of_stage(config, model_id, "guardrail"), results)
        for file in infer.example(model, 1, results):
            shutil.copy(file, folder)


class Server(NamedTuple):
    """A running service."""

    process: subprocess.Popen
    client: httpx.Client
    log: Path

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        states = self.client.get("/ready").json()["models"].values()
        return [pid for state in states for pid in state["workers"]]

    def of(self, model_id: str) -> int:
        """Process id of the one worker of a model."""
        (pid,) = self.client.get("/ready").json()["models"][model_id]["workers"]
        return pid

    def wait_until_ready(self, seconds: float = 240.0) -> None:
        """Wait for the workers."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if self.client.get("/ready").status_code == 200:
                    return
            except httpx.TransportError:
                assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())


def environment(project: Path) -> dict[str, str]:
    """Of a command in the project."""
    return os.environ | {"TOUCHSTONE_MODELS": str(project / "models")}


@contextmanager
def serving(project: Path, *arguments: str, model: str = MODEL):
    """Serve a model in processes of its own, which are ended in order."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(TOUCHSTONE), "serve", "--port", str(port)]
    log = project / f"serve_{port}.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [*command, "--model", model, *arguments],
            cwd=project,
            env=environment(project),
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=240) as client:
        server = Server(process, client, log)
        try:
            server.wait_until_ready()
            yield server
        finally:
            if process.poll() is None:
                with suppress(httpx.TransportError):
                    for pid in server.workers():  # that a test may have stopped
                        os.kill(pid, signal.SIGCONT)
                process.terminate()
                process.wait(20)


def fresh():
    """A question that was not asked before, whose answer no memory has."""
    return {"model_id": MODEL, "inputs": {"level": next(_count) / 1024}}


def strict(response):
    """The JSON of a response, which has neither NaN nor Infinity."""
    return json.loads(response.text, parse_constant=pytest.fail)


def assert_problem(response, status, *words):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert strict(response)["status"] == status
    assert all(word in response.text for word in words), response.text
    assert "Traceback" not in response.text


def wait_for(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def done(client, job):
    """The content of a job once it is finished."""

    def content():
        found = strict(client.get(f"/jobs/{job}"))
        return found if found["status"] != "waiting" else None

    return wait_for(content)


def answer(client, question=ASKED):
    """The report, also where it takes so long that it becomes a job."""
    content = strict(client.post("/predict", json=question))
    return done(client, content["job"])["report"] if "job" in content else content
