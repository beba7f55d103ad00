"""A project with a model that was trained in a moment, and processes that serve it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
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


def trained(folder: Path) -> Path:
    """A project in which a new model, as it is scaffolded, was trained; returns its folder."""
    (folder / "models").mkdir()
    with inside(folder):
        scaffold.write(MODEL, folder / "models")
        model, results = contract.load_model(MODEL), Results(Path("results") / MODEL)
        config = settings.found(contract.folders(), MODEL)
        simulate.run(model, settings.of_stage(config, MODEL, "simulate"), results, 0)
        train.run(model, settings.of_stage(config, MODEL, "train"), results, [], [])
        stress.run(model, settings.of_stage(config, MODEL, "stress"), results)
        guardrail.run(settings.of_stage(config, MODEL, "guardrail"), results)
        for file in infer.example(model, 1, results):
            shutil.copy(file, folder)
    return folder


class Server(NamedTuple):
    """A running service."""

    process: subprocess.Popen
    client: httpx.Client
    log: Path

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        states = self.client.get("/ready").json()["models"].values()
        return [pid for state in states for pid in state["workers"]]

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
    """Serve a model in a process of its own, which is ended in order."""
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
                for pid in server.workers():  # that a test may have stopped
                    os.kill(pid, signal.SIGCONT)
                process.terminate()
                process.wait(20)
