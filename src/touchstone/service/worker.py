"""A process that holds one frozen model and answers one question after the other."""

import contextlib
import hashlib
import json
import logging
import os
import signal
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from touchstone import contract, registry
from touchstone.io import artifacts, reports, results, settings
from touchstone.io.artifacts import ArtifactError
from touchstone.stages import infer, predict, randomness, records

_LOG = logging.getLogger(__name__)
# Of an artefact that is replaced while it is served: the process ends, and the next one loads it.
REPLACED = 64


class Oracle:
    """A model with its artefact, which answers as the command line does.

    Args:
        model_id: Of the model.
        checkpoint: Folder; empty as in `checkpoints.find`.

    Raises:
        ArtifactError: If there is no artefact, or it is damaged.
    """

    def __init__(self, model_id: str, checkpoint: str | Path = "") -> None:
        config = settings.found(contract.folders(), model_id)
        self.project = Path.cwd()
        self.settings = settings.of_stage(config, model_id, "infer")
        self.model = registry.load_model_instance(model_id)
        found = results.Results(results.folder(model_id))
        self.judge = infer.prepare(self.model, found, checkpoint)
        self.stamp = self._stamp()

    def _stamp(self) -> list[tuple[int, int, int]]:
        """What changes when a file of the artefact is replaced."""
        files = [self.judge.artefact.guardrail, *self.judge.loaded.inputs.values()]
        found = [(self.project / file).stat() for file in files]
        return [(each.st_ino, each.st_size, each.st_mtime_ns) for each in found]

    @property
    def replaced(self) -> bool:
        """Whether the artefact on disk is another one than that which was loaded."""
        try:
            return self._stamp() != self.stamp
        except OSError:
            return True

    def answer(self, question: dict[str, Any]) -> dict:
        """The report that `touchstone predict` or `touchstone infer` gives.

        Args:
            question: As `questions.Question` has it.

        Raises:
            ArtifactError: If the values or the record cannot be answered.
        """
        record = question["record"]
        if record is None:
            return predict.run(self.model, self.judge, self.settings, question["inputs"])
        data = Path(record["name"])
        with self._desk():
            data.write_bytes(record["data"].encode())
            data.with_suffix(".yaml").write_bytes(record["meta"].encode())
            return self._inferred(data)

    def canary(self) -> list[str]:
        """Digests of answers that every process with this artefact has to give alike."""
        digests = []
        with self._desk():
            with contextlib.suppress(NotImplementedError):
                rng = randomness.generator(self.settings["seed"], "infer", 3)
                self.model.example(rng, Path("example.csv"), Path("example.yaml"))
                digests.append(_digest(self._inferred(Path("example.csv"))))
            with contextlib.suppress(predict.FormError):  # a form may have fields to be filled
                digests.append(_digest(self.answer({"record": None, "inputs": {}})))
        return digests

    def _inferred(self, data: Path) -> dict:
        with records.prepared([data]) as source:
            return infer.answer(self.model, self.settings, self.judge, source).report

    @contextlib.contextmanager
    def _desk(self):
        """A working directory for the files of one question, in which the results are found.

        Reports have the paths of their inputs: here they are the names that the user gave.
        """
        with tempfile.TemporaryDirectory(prefix="touchstone-") as folder:
            (Path(folder) / "results").symlink_to(self.project / "results")
            with contextlib.chdir(folder):
                yield


def _digest(report: dict) -> str:
    """Of what was answered, wherever the artefact lies."""
    said = {name: value for name, value in report.items() if name not in ("lineage", "sha256")}
    text = json.dumps(reports.reproducible(said), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def main(model_id: str, connection: Connection) -> None:
    """Load, say what was loaded, then answer until the other end is closed.

    Sends `("ready", facts)` or `("broken", reason)`; then for each question one of
    `("answer", JSON, verdict)`, `("refused", reason)` and `("failed", reason)`.

    Args:
        model_id: Of the model.
        connection: To the process that serves.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, which the server answers to
    os.environ.setdefault("MPLBACKEND", "agg")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            oracle = Oracle(model_id)
            canary = oracle.canary()
        artefact = oracle.judge.artefact
        manifest = artefact.checkpoint / artifacts.MANIFEST
        facts = {
            "artefact": artefact.words,
            "sha256": artifacts.sha256(manifest) if manifest.is_file() else None,
            "canary": canary,
        }
    except Exception as error:  # whatever a model raises, its name is all that helps
        _LOG.exception("%s: cannot be loaded", model_id)
        connection.send(("broken", f"{model_id}: {error}"))
        return
    connection.send(("ready", facts))
    with contextlib.suppress(EOFError, OSError):  # the server is gone
        while True:
            question = connection.recv()
            if oracle.replaced:
                sys.exit(REPLACED)
            connection.send(_reply(oracle, question))


def _reply(oracle: Oracle, question: dict[str, Any]) -> tuple:
    try:
        report = oracle.answer(question)
    except ArtifactError as error:
        return "refused", str(error)
    except Exception as error:
        _LOG.exception("%s: a question was not answered", question["model_id"])
        return "failed", f"{type(error).__name__}: {error}"
    return "answer", json.dumps(report, allow_nan=False, ensure_ascii=False), report["verdict"]
