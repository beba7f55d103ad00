"""Where the results of a model lie, and which checkpoint they rest on."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from touchstone.io.artifacts import MANIFEST, ArtifactError

HISTORY = "history.sqlite"  # beside the folders of results: how rules have done over revisions
EXPERIMENT = "TOUCHSTONE_EXPERIMENT"
_OVERRIDES = ("CHECKPOINT", "DATASET_CHUNK")


@dataclass(frozen=True)
class Results:
    """The folder of a model's results, in which every stage knows its place.

    Attributes:
        folder: Such as `results/<model_id>`.
    """

    folder: Path

    def chunk(self, number: int | str) -> Path:
        """A chunk of simulations."""
        return self.folder / f"datasets/chunk_{number}.npz"

    def chunks(self) -> list[Path]:
        """All chunks that are there."""
        return sorted(self.folder.glob("datasets/chunk_*.npz"))

    @property
    def checkpoint(self) -> Path:
        """The checkpoint folder that the training writes."""
        return self.folder / "checkpoints/trained"

    def report(self, name: str) -> Path:
        """A JSON report."""
        return self.folder / f"reports/{name}.json"

    def table(self, name: str) -> Path:
        """A table as CSV, beside the report that it is from."""
        return self.folder / f"reports/{name}.csv"

    def figure(self, name: str) -> Path:
        """A figure; its folder is made."""
        path = self.folder / f"figures/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def structure(self) -> Path:
        """Drawing of the structure of the model."""
        return self.folder / "figures/structure.svg"

    @property
    def traces(self) -> Path:
        """The folder of chains."""
        return self.folder / "traces"

    @property
    def example(self) -> tuple[Path, Path]:
        """The simulated measurement, and what is known about it."""
        return self.folder / "datasets/example.csv", self.folder / "datasets/example.yaml"

    def checkpoints(self) -> list[Path]:
        """All finished checkpoint folders, the one that was finished last at the end."""
        found = self.folder.glob(f"checkpoints/*/{MANIFEST}")
        return [path.parent for path in sorted(found, key=lambda path: path.stat().st_mtime)]

    def newest_checkpoint(self) -> Path:
        """The checkpoint folder that was finished last.

        Raises:
            ArtifactError: If there is none.
        """
        found = self.checkpoints()
        if not found:
            folder = self.folder / "checkpoints"
            raise ArtifactError(f"{folder}: holds no checkpoint; train one first")
        return found[-1]


def overrides(model_id: str) -> dict[str, Path]:
    """Artefacts that the environment names in place of the workflow's own.

    Args:
        model_id: Of the model.

    Returns:
        Absolute paths by variable: `<MODEL_ID>_CHECKPOINT` and `<MODEL_ID>_DATASET_CHUNK`, for
        which `<MODEL_ID>_DATASET` is another name.

    Raises:
        ArtifactError: If a variable names what does not exist.
    """
    found = {}
    for what in _OVERRIDES:
        variable = f"{model_id.upper()}_{what}"
        for name in (variable, variable.removesuffix("_CHUNK")):
            if value := os.environ.get(name):
                found[variable] = Path(value).expanduser().absolute()
                if not found[variable].exists():
                    raise ArtifactError(f"{name}: {value} does not exist")
    return found


def override(model_id: str, what: str) -> Path | None:
    """The path that the environment gives for "CHECKPOINT" or "DATASET_CHUNK" of a model."""
    return overrides(model_id).get(f"{model_id.upper()}_{what}")


def folder(model_id: str) -> Path:
    """Folder of a model's results; one of its own for each set of overrides, and each experiment
    that the environment variable TOUCHSTONE_EXPERIMENT names.

    So what an override or an experiment makes does not take the place of what the workflow made
    without it.

    Raises:
        ArtifactError: If the experiment has no name of a folder.
    """
    given = overrides(model_id)
    if name := os.environ.get(EXPERIMENT):
        if not given:
            return folder_of_experiment(model_id, name)
        given = {EXPERIMENT: Path(name)} | given
    if not given:
        return Path("results") / model_id
    text = "\n".join(f"{variable}={path}" for variable, path in sorted(given.items()))
    return Path("results") / model_id / f"override_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def folder_of_experiment(model_id: str, name: str) -> Path:
    """Folder of the results of a model under the name of an experiment.

    Raises:
        ArtifactError: If that is no name.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise ArtifactError(f"{EXPERIMENT}: {name!r}, expected up to 64 letters, digits, - and _")
    return Path("results") / model_id / f"experiment_{name}"
