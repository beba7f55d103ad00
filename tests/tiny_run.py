"""The tiny workflow as a user runs it, in a folder whose name holds a space."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
FOLDERS = ("config", "notebooks", "profiles", "src", "workflow")
TOY, REAL = "example_decay", "ecsfm"


def project(folder: Path, *models: str) -> Path:
    """A copy of what the workflow needs, with the toy model in a folder of its own."""
    skipped = shutil.ignore_patterns("__pycache__")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=skipped)
    shutil.copytree(ROOT / "tests/models" / TOY, folder / "my models" / TOY, ignore=skipped)
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, folder / name)
    tiny = yaml.safe_load((folder / "config/test.yaml").read_text())
    tiny["models"] = list(models)
    (folder / "config/test.yaml").write_text(yaml.safe_dump(tiny))
    return folder


def command(*arguments: str) -> list[str]:
    binary = Path(sys.executable).with_name("snakemake")
    return [str(binary), *arguments, "--configfile", "config/test.yaml"]


def environment(folder: Path, **variables: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # Plugins of the workflow engine are found beside the package.
    places = os.pathsep.join(str(folder / name) for name in ("src", "workflow/plugins"))
    ours = {"PATH": path, "PYTHONPATH": places, "TOUCHSTONE_MODELS": str(folder / "my models")}
    return {**os.environ, **ours, **variables}


def snakemake(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Run the tiny workflow; the package is the one of the folder."""
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(folder, **variables),
        capture_output=True,
        text=True,
        check=False,
    )


def said(run: subprocess.CompletedProcess) -> str:
    return run.stdout + run.stderr


def planned(folder: Path, *arguments: str, **variables: str) -> set[str]:
    """What each job that would run says that it does, such as "ecsfm: train the model"."""
    run = snakemake(folder, "--dry-run", *arguments, **variables)
    assert run.returncode == 0, said(run)[-4000:]
    return set(re.findall(r"^Job \d+: (.*)$", said(run), re.MULTILINE))


def finished_in(folder: Path, *models: str) -> Path:
    """The folder of a project in which the tiny workflow ran undisturbed."""
    run = snakemake(project(folder, *models))
    assert run.returncode == 0, said(run)[-4000:]
    assert "escalate" in said(run).lower() or "accept" in said(run).lower()
    return folder
