"""Whether files are what they were when they were written, in words."""

from pathlib import Path

from touchstone.io import artifacts, reports
from touchstone.io.artifacts import ArtifactError
from touchstone.stages import checkpoints


def verify(path: Path) -> list[str]:
    """What was verified of an artefact or checkpoint folder, or of a report.

    Raises:
        ArtifactError: If something is not what it was, or nothing vouches for it.
    """
    if not path.exists():
        raise ArtifactError(f"{path}: no such file or folder")
    if path.is_dir() or path.name == artifacts.MANIFEST:
        return _folder(path if path.is_dir() else path.parent)
    return _report(path)


def _folder(folder: Path) -> list[str]:
    """A folder with a manifest, and the guardrail in it where there is one."""
    if not (folder / artifacts.MANIFEST).is_file():
        raise ArtifactError(f"{folder}: no {artifacts.MANIFEST}, so nothing can be verified")
    artifacts.verify(folder, [])
    listed = artifacts.read_json(folder / artifacts.MANIFEST)["files"]
    said = [f"{folder}: {', '.join(listed)}: as in {artifacts.MANIFEST}"]
    guardrail, certificate = (
        folder / name for name in (checkpoints.GUARDRAIL, checkpoints.CERTIFICATE)
    )
    if guardrail.is_file():
        beside = certificate if certificate.is_file() else None
        checkpoints.guardrail_of(checkpoints.Artefact("given", folder, guardrail, beside, None))
        said.append(f"{guardrail}: as its schema says")
    return said


def _report(file: Path) -> list[str]:
    """A report, and the inputs that its lineage names where they are there."""
    report = reports.read(file)
    said = [f"{file}: a report of kind {report['kind']}, as it was written"]
    for role, entry in report["lineage"]["inputs"].items():
        source = Path(entry["path"])
        if not source.is_file():
            said.append(f"{role} {source}: not here, so not verified")
        elif reports.digest(source) != entry["sha256"]:
            raise ArtifactError(f"{file}: lineage.inputs.{role}: {source} has changed since")
        else:
            said.append(f"{role} {source}: as in the lineage")
    return said
