"""Which checkpoint a stage rests on, and which guardrail judges its answers."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from touchstone.contract import Model, folders
from touchstone.io import artifacts, reports
from touchstone.io.artifacts import ArtifactError
from touchstone.io.results import Results, override
from touchstone.io.results import folder as results_folder

PRETRAINED = "pretrained"  # folder of a released artefact, beside the model's config.yaml
GUARDRAIL, CERTIFICATE = "guardrail.json", "certificate.json"
_RULE, _STRESS = "posterior_failure_mode_report", "stress_report"


class Loaded(NamedTuple):
    """The checkpoint that a model has loaded.

    Attributes:
        folder: Of the checkpoint, or a file in it.
        inputs: Its manifest, if there is one, for the lineage.
        facts: Whether it was verified, and whether the environment named it.
    """

    folder: Path
    inputs: dict[str, Path]
    facts: dict[str, Any]


class Artefact(NamedTuple):
    """A checkpoint with the guardrail that was fitted for it.

    Attributes:
        source: "trained", "pretrained", "override" or "given".
        checkpoint: Its folder.
        guardrail: Report of the rule.
        certificate: What a release vouches for; None for what was not released.
        date: When it was made (ISO 8601); None where the files do not say.
    """

    source: str
    checkpoint: Path
    guardrail: Path
    certificate: Path | None
    date: str | None

    @property
    def facts(self) -> dict[str, str | None]:
        """What the lineage of an answer says of the artefact."""
        path = str(self.checkpoint) if self.source in ("override", "given") else None
        certificate = str(self.certificate) if self.certificate else None
        return {"source": self.source, "path": path, "date": self.date, "certificate": certificate}

    @property
    def words(self) -> str:
        """Which artefact it is."""
        return words(self.facts)


@dataclass(frozen=True)
class Judge:
    """A loaded artefact, with what its answers are judged by.

    Attributes:
        artefact: Which one.
        loaded: The checkpoint that the model holds.
    """

    artefact: Artefact
    loaded: Loaded

    @cached_property
    def guardrail(self) -> dict:
        """Report of the rule, verified when it is first asked for.

        Raises:
            ArtifactError: As `guardrail_of`.
        """
        return guardrail_of(self.artefact)

    @cached_property
    def false_alarms(self) -> dict:
        """Rate on cases that nothing was learnt from: those of the certificate, which are more, or
        those of the run."""
        if self.artefact.certificate:
            return reports.read(self.artefact.certificate, "certificate")["false_alarms"]["rate"]
        return self.guardrail["decision_score"]["fpr"]


def words(facts: dict[str, str | None]) -> str:
    """Which artefact answered, from `Artefact.facts`."""
    day = (facts["date"] or "an unknown date")[: len("2026-01-01")]
    match facts["source"]:
        case "trained":
            return f"trained here on {day}"
        case "pretrained" if facts["certificate"]:
            return f"pretrained, certificate of {day}"
        case "pretrained":
            return f"pretrained on {day}, without a certificate"
    return f"{facts['source']} {facts['path']}, trained on {day}"


def load(model: Model, results: Results, checkpoint: str | Path = "") -> Loaded:
    """Load a checkpoint into a model.

    Args:
        model: The model.
        results: Of the model.
        checkpoint: Folder; empty takes the override, or the newest of the results.

    Raises:
        ArtifactError: If there is none, or it is damaged.
    """
    given = override(model.model_id, "CHECKPOINT")
    path = Path(checkpoint or given or results.newest_checkpoint())
    verified = model.load(path)
    folder = path if path.is_dir() else path.parent
    manifest = folder / artifacts.MANIFEST
    return Loaded(
        folder,
        {"checkpoint": manifest} if manifest.exists() else {},
        {"verified": verified, "override": str(given) if given else None},
    )


def find(model_id: str, results: Results, checkpoint: str | Path = "") -> Artefact:
    """The artefact that answers users; nothing is loaded or verified here.

    A checkpoint that is given or named by the environment comes first, then what was trained
    here, then the one that was released with the model, which is of other data than those that
    the environment may name.

    Args:
        model_id: Of the model.
        results: Of the model.
        checkpoint: Folder, or a file in it; empty finds one.

    Raises:
        ArtifactError: If there is none, or it has no guardrail; the message says what to run.
    """
    named = override(model_id, "CHECKPOINT")
    released = folders()[model_id] / PRETRAINED
    fitted = results.report(_RULE)
    if path := Path(checkpoint) if checkpoint else named:
        folder = path if path.is_dir() else path.parent
        beside = folder / GUARDRAIL
        guardrail = beside if beside.is_file() else fitted
        if not guardrail.is_file():
            raise ArtifactError(
                f"{folder}: neither holds a {GUARDRAIL} nor has one in {fitted.parent}; "
                f"run `make MODEL={model_id}`"
            )
        source = "override" if named == path else _source(folder, results, released)
    elif fitted.is_file() and results.checkpoints():
        folder, guardrail, source = results.newest_checkpoint(), fitted, "trained"
    elif (released / artifacts.MANIFEST).is_file() and not override(model_id, "DATASET_CHUNK"):
        folder, guardrail, source = released, released / GUARDRAIL, "pretrained"
    else:
        raise ArtifactError(
            f"{model_id}: nothing was trained in {results.folder}, and no artefact was released "
            f"with this model; run `make MODEL={model_id}`"
        )
    certificate = folder / CERTIFICATE if (folder / CERTIFICATE).is_file() else None
    vouching = (
        certificate if source == "pretrained" and certificate else folder / artifacts.MANIFEST
    )
    return Artefact(source, folder, guardrail, certificate, _date(vouching))


def prepare(model: Model, results: Results, checkpoint: str | Path = "") -> Judge:
    """Find the artefact that answers, verify it, and load it into the model.

    Args:
        model: The model.
        results: Of the model.
        checkpoint: Folder; empty as in `find`.

    Raises:
        ArtifactError: If there is none, or it is damaged.
    """
    artefact = find(model.model_id, results, checkpoint)
    return Judge(artefact, load(model, results, artefact.checkpoint))


def answering(model_id: str) -> str:
    """The artefact that answers for a model, or what to run for one, in words."""
    try:
        return find(model_id, Results(results_folder(model_id))).words
    except ArtifactError as error:
        return str(error).removeprefix(f"{model_id}: ")


def _source(folder: Path, results: Results, released: Path) -> str:
    """What a folder that was given by its path is otherwise known as."""
    if folder.resolve() == released.resolve():
        return "pretrained"
    inside = folder.resolve().is_relative_to((results.folder / "checkpoints").resolve())
    return "trained" if inside else "given"


def _date(file: Path) -> str | None:
    """Date in the lineage of a certificate or manifest."""
    lineage = artifacts.read_json(file).get("lineage") if file.is_file() else None
    date = lineage.get("date") if isinstance(lineage, dict) else None
    return date if isinstance(date, str) else None


def guardrail_of(artefact: Artefact) -> dict:
    """The report of an artefact's guardrail, held against what it was fitted for.

    A guardrail beside its checkpoint is hashed by the manifest of both. The lineage of one that
    was fitted here names the stress report, and through it the manifest of the checkpoint.

    Raises:
        ArtifactError: If the report was changed by hand, is of another version, or was fitted for
            another checkpoint.
    """
    folder, file = artefact.checkpoint, artefact.guardrail
    if file.parent == folder:
        beside = [GUARDRAIL] + [CERTIFICATE] * (artefact.certificate is not None)
        if not (folder / artifacts.MANIFEST).is_file():
            raise ArtifactError(f"{folder}: no {artifacts.MANIFEST} vouches for its {GUARDRAIL}")
        artifacts.verify(folder, beside)
        if artefact.certificate:
            reports.read(artefact.certificate, "certificate")
        return reports.read(file, _RULE)
    report = reports.read(file, _RULE)
    stress, manifest = file.with_name(f"{_STRESS}.json"), folder / artifacts.MANIFEST
    if stress.is_file() and reports.digest(stress) != _input(report["lineage"], "stress"):
        raise ArtifactError(
            f"{file}: lineage.inputs.stress: is not the {stress.name} beside it; run `make` again"
        )
    ours = reports.digest(manifest) if manifest.is_file() else None
    if ours != _input(report["lineage"]["parents"].get("stress"), "checkpoint"):
        raise ArtifactError(
            f"{file}: lineage.parents.stress.inputs.checkpoint: the guardrail was fitted for "
            f"another checkpoint than {folder}; run `make` again"
        )
    return report


def _input(lineage: dict | None, role: str) -> str | None:
    """Digest of an input in a lineage; None if it had no such input."""
    return ((lineage or {}).get("inputs") or {}).get(role, {}).get("sha256")
