"""What a notebook begins with, run by the workflow or by itself."""

import os
from pathlib import Path

import touchstone
from touchstone.contract import folders
from touchstone.io import settings as settings_
from touchstone.io.results import Results, folder


def begin(
    stage: str, model_id: str = "", settings: dict | None = None, results: str = ""
) -> tuple[str, dict, Results]:
    """Name of the model, the settings of a stage, and where results lie.

    Without arguments, as in JupyterLab, they are those of `config/config.yaml`. The working
    directory becomes the root of the project.

    Args:
        stage: Name of the stage.
        model_id: Empty takes the first of the configuration's models.
        settings: Empty takes the configuration's.
        results: Folder; empty takes the model's own.

    Raises:
        RuntimeError: If this process does not run in the environment of the project.
    """
    if not Path("Snakefile").exists():
        os.chdir("..")  # in JupyterLab a notebook starts in its own folder
    if not Path(touchstone.__file__).is_relative_to(Path.cwd()):
        raise RuntimeError(f"{touchstone.__file__}: not the package of the project in {Path.cwd()}")
    if not model_id or not settings:
        config = settings_.load(folders())
        model_id = model_id or config["models"][0]
        settings = settings or settings_.of_stage(config, model_id, stage)
    return model_id, settings, Results(Path(results or folder(model_id)))
