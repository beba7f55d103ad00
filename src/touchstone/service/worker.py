"""A process that holds one frozen model and answers one question after the other.

Programs of one case serve any number of questions, so that each gets the same bits alone and among
others; `docs/service.md` says what wider ones would cost.
"""

import base64
import contextlib
import hashlib
import json
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import touchstone
from touchstone import contract, registry
from touchstone.io import artifacts, reports, results, settings
from touchstone.io.artifacts import ArtifactError
from touchstone.stages import counterfactual, infer, predict, randomness, records
from touchstone.vocabulary import Posterior

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

    def _stamp(self) -> dict[str, tuple[int, int]]:
        files = [self.judge.artefact.guardrail, *self.judge.loaded.inputs.values()]
        return {str(self.project / file): artifacts.state(self.project / file) for file in files}

    @property
    def replaced(self) -> bool:
        """Whether the artefact on disk is another one than that which was loaded."""
        return self._stamp() != self.stamp

    def answer(self, question: dict[str, Any]) -> dict:
        """The report that `touchstone predict` or `touchstone infer` gives.

        Args:
            question: As `questions.Question` has it, or `questions.Counterfactual`.

        Returns:
            The report; `reports` of several inputs; or `report` and `draws`, where draws are asked
            for: by the name of the quantity, for each record.

        Raises:
            ArtifactError: If the values or the record cannot be answered.
        """
        if question["kind"] == "counterfactual":
            return self._otherwise(question)
        inputs, n_draws = question["inputs"], question["draws"]
        if isinstance(inputs, list):
            return {"reports": [self._numbered(k, each) for k, each in enumerate(inputs)]}
        posterior = None
        if inputs is None:
            with self._desk():
                inferred = self._inferred(_laid(question["record"]))
            report, posterior = inferred.report, inferred.posterior
        else:
            report = predict.run(self.model, self.judge, self.settings, inputs)
        if not n_draws:
            return report
        posterior = posterior or self._posterior_of_form(inputs)
        rng = randomness.generator(self.settings["seed"], "infer", 5)
        return {"report": report, "draws": _drawn(posterior, n_draws, rng)}

    def _numbered(self, number: int, inputs: dict[str, Any]) -> dict:
        try:
            return predict.run(self.model, self.judge, self.settings, inputs)
        except ArtifactError as error:
            raise ArtifactError(f"inputs.{number}: {error}") from None

    def _posterior_of_form(self, inputs: dict[str, Any]) -> Posterior:
        """Of the measurement that a form describes."""
        values, _ = registry.validate_inference_params(self.model.model_id, inputs)
        try:
            with counterfactual.measured(self.model, values) as source:
                return infer.answer(self.model, self.settings, self.judge, source).posterior
        except NotImplementedError:
            raise ArtifactError(f"draws: {self.model.model_id} keeps none of a form") from None

    def _otherwise(self, question: dict[str, Any]) -> dict:
        asked = counterfactual.Asked(
            question["intervention"], question["mode"], question["strategy"]
        )
        observation = question["observation"]
        with self._desk():
            if "data" in observation:
                observation = _laid(observation)
            found = counterfactual.run(self.model, self.judge, self.settings, observation, asked)
        return found.report

    def canary(self) -> list[str]:
        """Digests of answers that every process with this artefact has to give alike."""
        digests = []
        with self._desk():
            with contextlib.suppress(NotImplementedError):
                rng = randomness.generator(self.settings["seed"], "infer", 3)
                self.model.example(rng, Path("example.csv"), Path("example.yaml"))
                digests.append(_digest(self._inferred(Path("example.csv")).report))
            if not registry.get_inference_form_fields(self.model.model_id):
                return digests
            with contextlib.suppress(predict.FormError):  # a form may have fields to be filled
                digests.append(_digest(predict.run(self.model, self.judge, self.settings, {})))
        return digests

    def _inferred(self, data: Path) -> infer.Inference:
        with records.prepared([data]) as source:
            return infer.answer(self.model, self.settings, self.judge, source)

    @contextlib.contextmanager
    def _desk(self):
        """A working directory for the files of one question, in which the results are found.

        Reports have the paths of their inputs: here they are the names that the user gave.
        """
        with tempfile.TemporaryDirectory(prefix="touchstone-") as folder:
            (Path(folder) / "results").symlink_to(self.project / "results")
            with contextlib.chdir(folder):
                yield


def _laid(record: dict[str, Any]) -> Path:
    """The files of a record, written into the working directory."""
    to_bytes = base64.b64decode if record.get("encoding") == "base64" else str.encode
    data = Path(record["name"])
    data.write_bytes(to_bytes(record["data"]))
    if record["meta"] is not None:
        data.with_suffix(".yaml").write_bytes(to_bytes(record["meta"]))
    return data


def _drawn(posterior: Posterior, n_draws: int, rng: Any) -> list[dict[str, list[float]]]:
    """Equally weighted draws of each record, by the name of the quantity."""
    found = []
    for k, weight in enumerate(posterior.weight):
        chosen = rng.choice(len(weight), n_draws, p=weight / weight.sum())
        found.append({name: values[k][chosen].tolist() for name, values in posterior.draws.items()})
    return found


def _digest(report: dict) -> str:
    """Of what was answered, wherever the artefact lies."""
    said = {name: value for name, value in report.items() if name not in ("lineage", "sha256")}
    text = json.dumps(reports.reproducible(said), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _code(oracle: Oracle) -> str:
    """Digest of what decides an answer beside artefact and question: code, packages, settings.

    Services that share answers may run what was built from other sources under one version.
    """
    digest = hashlib.sha256()
    roots = (Path(touchstone.__file__).parent, contract.folders()[oracle.model.model_id])
    for root in roots:
        for file in sorted(each for each in root.rglob("*") if each.suffix in (".py", ".yaml")):
            digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    said = [artifacts.versions(), reports.lineage({}, 0, {})["revision"], oracle.settings]
    digest.update(json.dumps(said, sort_keys=True).encode())
    return digest.hexdigest()


def main(model_id: str, checkpoint: str, connection: socket.socket) -> None:
    """Load, say what was loaded, then answer until the other end is closed.

    A question is a line of JSON. What is said is a line, too, and a text after it: the line is a
    list of the kind, the bytes of the text, the bytes of memory that are taken on each accelerator,
    and of an answer the verdicts and the violated laws.
    The kind is "ready" with the facts in JSON, or "broken" with the reason; then for each question
    "answer" with the report in JSON, or "refused", "unsupported" or "failed" with the reason.

    Args:
        model_id: Of the model.
        checkpoint: As of an `Oracle`.
        connection: To the process that serves.
    """
    questions, replies = connection.makefile("rb"), connection.makefile("wb")

    def say(kind: str, text: str, verdicts: Sequence[str] = (), laws: Sequence[str] = ()) -> None:
        body = text.encode(errors="backslashreplace")
        head = [kind, len(body), _accelerators(), verdicts, laws]
        replies.write(json.dumps(head).encode() + b"\n" + body)
        replies.flush()

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, which the server answers to
    os.environ.setdefault("MPLBACKEND", "agg")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            oracle = Oracle(model_id, checkpoint)
            canary = oracle.canary()
        artefact = oracle.judge.artefact
        manifest = artefact.checkpoint / artifacts.MANIFEST
        facts = {
            "artefact": artefact.words,
            "source": artefact.source,
            "sha256": artifacts.sha256(manifest) if manifest.is_file() else None,
            "canary": canary,
            "counterfactuals": counterfactual.answers(oracle.model),
            "files": oracle.stamp,
            "code": _code(oracle),
        }
    except Exception as error:  # whatever a model raises, its name is all that helps
        _LOG.exception("%s: cannot be loaded", model_id)
        say("broken", f"{model_id}: {error}")
        return
    with contextlib.suppress(OSError):  # the server is gone
        say("ready", json.dumps(facts))
        for question in questions:
            if oracle.replaced:
                sys.exit(REPLACED)
            say(*_reply(oracle, json.loads(question)))


def _accelerators() -> dict[str, int]:
    """Bytes that this process has taken on each accelerator, by its name; none on a processor."""
    if (jax := sys.modules.get("jax")) is None:
        return {}
    stats = {str(each): each.memory_stats() for each in jax.local_devices()}
    return {name: found["bytes_in_use"] for name, found in stats.items() if found}


def _reply(oracle: Oracle, question: dict[str, Any]) -> tuple:
    if question["kind"] == "counterfactual" and not counterfactual.answers(oracle.model):
        return "unsupported", f"{oracle.model.model_id} answers no counterfactuals"
    try:
        answered = oracle.answer(question)
    except ArtifactError as error:
        return "refused", str(error)
    except Exception as error:
        _LOG.exception("%s: a question was not answered", question["model_id"])
        return "failed", f"{type(error).__name__}: {error}"
    found = answered.get("reports") or [answered.get("report", answered)]
    violated = [
        row["law"]
        for report in found
        for row in report.get("answer", report).get("violations", [])
        if row["status"] == "violated"
    ]
    text = json.dumps(answered, allow_nan=False, ensure_ascii=False)
    return "answer", text, [report["verdict"] for report in found], violated
