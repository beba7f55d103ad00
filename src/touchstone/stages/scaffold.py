"""The folder of a new model, which passes the contract's tests before anything is filled in."""

import keyword
from pathlib import Path

from touchstone import contract
from touchstone.io import artifacts
from touchstone.io.artifacts import ArtifactError

_TEMPLATE = Path(__file__).parents[1] / "templates/model"


def write(name: str, folder: Path | None = None) -> Path:
    """Write the folder of a model.

    Args:
        name: Of the folder.
        folder: That it goes into; None takes that of the package's own models.

    Raises:
        ArtifactError: If the name is none for a module, or is taken.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise ArtifactError(f"{name!r} is no name of a model: expected letters as in my_model")
    if name in contract.folders():
        raise ArtifactError(f"{name}: there is a model of this name in {contract.folders()[name]}")
    folder = (folder or Path(contract.__file__).parent / "models") / name
    if folder.exists():
        raise ArtifactError(f"{folder}: is there already")
    title = name.replace("_", " ").capitalize()
    class_name = "".join(part.capitalize() for part in name.split("_"))
    for file in sorted(_TEMPLATE.iterdir()):
        if file.suffix not in (".py", ".yaml"):
            continue
        text = file.read_text(encoding="utf-8")
        text = text.replace("NewModel", class_name).replace("New model", title)
        with artifacts.atomic(folder / file.name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder
