"""Training by the rules of the workflow, as a user asks for it on a command line."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from touchstone import contract, registry
from touchstone.io import settings
from touchstone.io.artifacts import ArtifactError


def run(model_id: str, data: Path | None, changes: dict[str, Any], gpu: bool | None) -> int:
    """Run Snakemake for the checkpoint of a model; its progress goes to the terminal.

    Args:
        model_id: Of the model.
        data: File that replaces the data of the workflow.
        changes: Settings of the model's `train` that replace those of the configuration.
        gpu: Whether JAX computes there; None leaves it to JAX.

    Returns:
        The exit code of Snakemake.

    Raises:
        ArtifactError: If this is no project, the data are not there, the model has no such setting,
            or there is no GPU.
        SettingsError: If a setting has a value that is not allowed.
        ModelsError: If there is no such model.
    """
    registry.get_model_metadata(model_id)
    if not Path("Snakefile").is_file():
        raise ArtifactError("Snakefile: no such file; run this in the folder of the project")
    _check(model_id, changes)
    # Rules call programs of this environment, which need not be activated.
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": programs}
    if data is not None:
        if not data.is_file():
            raise ArtifactError(f"--data: {data}: no such file")
        environment[f"{model_id.upper()}_DATASET_CHUNK"] = str(data.absolute())
    if gpu:
        _assert_gpu()
    if gpu is not None:
        environment["JAX_PLATFORMS"] = "cuda" if gpu else "cpu"
    config = {"models": [model_id]} | ({model_id: {"train": changes}} if changes else {})
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        yaml.safe_dump(config, file)  # --config would make texts of the numbers in a block
        file.flush()
        command = [sys.executable, "-m", "snakemake", "--until", "train", "--configfile", file.name]
        return subprocess.run(command, env=environment, check=False).returncode


def _check(model_id: str, changes: dict[str, Any]) -> None:
    """Refuse settings that the model does not have, or not with these values.

    Raises:
        ArtifactError: Naming the option, and the settings that there are.
        SettingsError: Naming the key, its value and what is allowed.
    """
    folders = contract.folders()
    own = settings.schema(folders[model_id] / "settings.schema.yaml")
    known = own["properties"]["train"].get("properties", {})
    if unknown := [f"--{name}" for name in changes if name not in known]:
        raise ArtifactError(
            f"{', '.join(unknown)}: {model_id} has no such setting, only {', '.join(known)}"
        )
    config = settings.found(folders, model_id)
    block = config[model_id]
    config[model_id] = block | {"train": block["train"] | changes}
    settings.complete(config, folders)


def _assert_gpu() -> None:
    """Refuse a GPU that JAX does not find, before anything is started."""
    import jax  # here, since only who asks for a GPU waits for it

    try:
        jax.devices("cuda")
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise ArtifactError(
            f"--gpu: JAX finds none ({said}); `uv sync --extra gpu` installs it for NVIDIA cards"
        ) from None
