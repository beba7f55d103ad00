"""Which checkpoint a stage rests on."""

from pathlib import Path
from typing import Any, NamedTuple

from touchstone.contract import Model
from touchstone.io import artifacts
from touchstone.io.results import Results, override


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
