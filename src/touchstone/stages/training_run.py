"""Training by the rules of the workflow: on a command line, or in a folder of its own."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from touchstone import contract, registry
from touchstone.io import artifacts, results, settings
from touchstone.io.artifacts import ArtifactError
from touchstone.io.results import Results

UNTIL = ("train", "guardrail")  # the last rule of a training: without a guardrail nothing answers
# What the rules read; the rest of a project is not theirs.
_SHARED = ("Snakefile", "config", "environment.yml", "notebooks", "profiles", "src", "workflow")
_LOG, _LOCK, _LEADER, _CODE = "run.log", "run.lock", "run.pid", "run.code"
_LINE = re.compile(r"\s*(\S.*?)  +(\S.*)")  # of the terminal: a label, and what it is about
_BAR = re.compile(r".*?(\d+)%\|.*\| .*\[.*\]")  # as tqdm draws it
_CELL = re.compile(r"Executing Cell (\d+)-*")
_TAIL = 4096  # bytes of a log that are searched for the newest progress

PARTS = ("simulate", "train", "calibration", "stress", "budgets")  # of a model's settings
# Options of settings that have another name.
_OPTIONS = {"n_rows": "dataset-size", "n_steps": "epochs", "batch_size": "batch-size"}


class Sizes(NamedTuple):
    """How much to learn from, in words that all who train networks use.

    Attributes:
        dataset: Simulations; None as configured.
        epochs: How often each is seen; None as configured.
        batch: Simulations of a step; None as configured.
    """

    dataset: int | None = None
    epochs: int | None = None
    batch: int | None = None


def count(text: str) -> int:
    """A number such as 10k or 2M.

    Raises:
        ArtifactError: If it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text.strip())
    number = float(match[1]) * {"": 1, "k": 1e3, "m": 1e6}[match[2].lower()] if match else 0.0
    if not number >= 1 or number != int(number):
        raise ArtifactError(f"--dataset-size: {text!r} is no number such as 10000, 10k or 2M")
    return int(number)


def run(
    model_id: str,
    data: Path | None,
    changes: dict[str, Any],
    gpu: bool | None,
    sizes: Sizes = Sizes(),  # noqa: B008 it is frozen
    experiment: str | None = None,
) -> int:
    """Run Snakemake for the checkpoint of a model; its progress goes to the terminal.

    Args:
        model_id: Of the model.
        data: File that replaces the data of the workflow.
        changes: Settings that replace those of the configuration; see `nested`.
        gpu: Whether JAX computes there; None leaves it to JAX.
        sizes: Which override the configuration, too.
        experiment: Name of a folder of results of its own; see `results.folder`.

    Returns:
        The exit code of Snakemake.

    Raises:
        ArtifactError: If this is no project, the data are not there, the model has no such setting,
            there is no GPU, or the model would not use it.
        SettingsError: If a setting has a value that is not allowed.
        ModelsError: If there is no such model.
    """
    about = registry.get_model_metadata(model_id)
    if gpu and about.device == "cpu":
        raise ArtifactError(f"--gpu: {model_id} is sampled on the CPU; leave it out")
    changes = changes | _sized(model_id, sizes)
    assert_trainable(model_id, changes, _option)
    environment = _environment()
    if data is not None:
        if not data.is_file():
            raise ArtifactError(f"--data: {data}: no such file")
        environment[f"{model_id.upper()}_DATASET_CHUNK"] = str(data.absolute())
    if gpu:
        _assert_gpu()
    if gpu is not None:
        environment["JAX_PLATFORMS"] = "cuda" if gpu else "cpu"
    if experiment is not None:
        environment[results.EXPERIMENT] = experiment
        results.folder_of_experiment(model_id, experiment)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(_configuration(model_id, changes))
        file.flush()
        return subprocess.run(_command(file.name, "train"), env=environment, check=False).returncode


class Run:
    """A training in a folder of its own, whose processes may outlive whoever started them.

    The folder has links to the rules of the project, and results of its own, so that no other
    run waits for it and nothing that answers users is replaced.

    Args:
        folder: Made by `start`.
        model_id: Of the model.
    """

    def __init__(self, folder: Path, model_id: str) -> None:
        self.folder, self.model_id = folder, model_id
        self._read = 0

    @property
    def results(self) -> Results:
        """What the training makes."""
        return Results(self.folder / "results" / self.model_id)

    def start(self, changes: dict[str, Any], until: str) -> subprocess.Popen:
        """Start the rules; a training that was interrupted goes on where it was.

        Args:
            changes: As in `run`.
            until: One of `UNTIL`.

        Raises:
            ArtifactError, SettingsError, ModelsError: As in `run`.
        """
        assert_trainable(self.model_id, changes)
        project = Path.cwd()
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in _SHARED:
            link = self.folder / name
            if (project / name).exists() and not link.is_symlink():
                link.symlink_to(project / name)
        settings_file = self.folder / "settings.yaml"
        settings_file.write_text(_configuration(self.model_id, changes), encoding="utf-8")
        (self.folder / _CODE).unlink(missing_ok=True)
        environment = _environment()  # what was compiled once need not be compiled in each folder
        environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(project / ".snakemake/jax"))
        environment.setdefault("PYTENSOR_FLAGS", f"base_compiledir={project / '.pytensor'}")
        # The exit code is a file, since whoever starts the rules may not live until they end.
        script = f'"$@"; echo $? > {_CODE}.part; mv {_CODE}.part {_CODE}'
        with (self.folder / _LOCK).open("w") as lock, (self.folder / _LOG).open("ab") as log:
            fcntl.flock(lock, fcntl.LOCK_EX)  # which lasts as long as the processes do
            process = subprocess.Popen(
                ["sh", "-c", script, "sh", *_command(settings_file.name, until)],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[lock.fileno()],
            )
        (self.folder / _LEADER).write_text(str(process.pid))
        return process

    @property
    def lives(self) -> bool:
        """Whether processes of it are at work, whoever started them."""
        try:
            with (self.folder / _LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @property
    def code(self) -> int | None:
        """Exit code of the rules; None if they did not come to an end."""
        try:
            return int((self.folder / _CODE).read_text())
        except (FileNotFoundError, ValueError):
            return None

    def end(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to all processes of it, if there are any."""
        if self.lives:
            try:
                os.killpg(int((self.folder / _LEADER).read_text()), number)
            except (FileNotFoundError, ProcessLookupError, ValueError):
                return

    def news(self) -> list[dict[str, Any]]:
        """Lines that the terminal got since the last call, each as `label` and `text`."""
        try:
            with (self.folder / _LOG).open("rb") as file:
                file.seek(self._read)
                content = file.read()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        lines = whole.decode(errors="replace").splitlines()
        found = ((line, _LINE.fullmatch(line.rstrip())) for line in lines if line.strip())
        return [
            {"label": match[1], "text": match[2]} if match else {"label": "", "text": line.strip()}
            for line, match in found
        ]

    def progress(self) -> dict[str, Any] | None:
        """The newest progress of a stage: `stage`, `percent`, `text`; None before there is any."""
        logs = sorted(self.results.folder.glob("logs/*.log"), key=lambda file: file.stat().st_mtime)
        if not logs:
            return None
        with logs[-1].open("rb") as file:
            file.seek(max(logs[-1].stat().st_size - _TAIL, 0))
            tail = file.read().decode(errors="replace")
        for line in reversed(re.split(r"[\r\n]", tail)):
            if bar := _BAR.fullmatch(line):
                said = {"percent": int(bar[1]), "text": line.strip()}
            elif cell := _CELL.fullmatch(line):
                said = _of_cells(logs[-1].with_suffix(".ipynb"), int(cell[1]))
            else:
                continue
            return {"stage": logs[-1].stem} | said
        return None

    def failure(self) -> str:
        """The last lines of the terminal, where a training failed."""
        lines = (self.folder / _LOG).read_text(errors="replace").splitlines()
        return "\n".join(line.strip() for line in lines[-8:] if line.strip())


def _of_cells(notebook: Path, number: int) -> dict[str, Any]:
    """How far a notebook has come, which is written while it is read here."""
    try:
        n_cells = len(artifacts.read_json(notebook)["cells"])
    except ArtifactError:
        return {"percent": None, "text": f"cell {number}"}
    return {"percent": round(100 * number / n_cells), "text": f"cell {number} of {n_cells}"}


def assert_trainable(
    model_id: str, changes: dict[str, Any], name: Callable[[str], str] = "settings.{}".format
) -> None:
    """Refuse a training that could not be started.

    Args:
        model_id: Of the model.
        changes: Of its settings; see `nested`.
        name: How a message calls a setting.

    Raises:
        ArtifactError: If this is no project, or the model has no such setting.
        SettingsError: If a setting has a value that is not allowed.
        ModelsError: If there is no such model.
    """
    registry.get_model_metadata(model_id)
    if not Path("Snakefile").is_file():
        raise ArtifactError("Snakefile: no such file; run this in the folder of the project")
    _check(model_id, changes, name)


def nested(changes: dict[str, Any]) -> dict[str, Any]:
    """Settings by the part of a model's settings that they are of.

    Args:
        changes: By their path, such as `train.network.n_steps`; what begins with none of `PARTS`
            is of `train`.
    """
    parts: dict[str, Any] = {}
    for key, value in changes.items():
        *folders, last = _path(key)
        place = parts
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = value
    return parts


def _path(key: str) -> list[str]:
    path = key.split(".")
    return path if len(path) > 1 and path[0] in PARTS else ["train", *path]


def _option(key: str) -> str:
    """How the command line calls a setting."""
    last = key.rpartition(".")[2]
    return f"--{_OPTIONS.get(last, last)}"


def _environment() -> dict[str, str]:
    """Of the rules, which call programs of this environment, which need not be activated."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": programs}


def _configuration(model_id: str, changes: dict[str, Any]) -> str:
    """What the rules are told; `--config` would make texts of the numbers in a block."""
    config = {"models": [model_id]} | ({model_id: nested(changes)} if changes else {})
    return yaml.safe_dump(config)


def _command(file: str, until: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", "--until", until, "--configfile", file]


def _sized(model_id: str, sizes: Sizes) -> dict[str, Any]:
    """Settings for sizes: steps are epochs of batches."""
    block = settings.found(contract.folders(), model_id)[model_id]
    simulate, train = block.get("simulate", {}), block["train"]
    changed: dict[str, Any] = {} if sizes.batch is None else {"batch_size": sizes.batch}
    if sizes.dataset is not None:
        changed |= {"simulate.n_chunks": 1, "simulate.n_rows": sizes.dataset}
    if sizes.epochs is not None:
        rows = sizes.dataset or simulate.get("n_chunks", 1) * simulate.get("n_rows", 0)
        batch = sizes.batch or train.get("batch_size", 1)
        used = rows * (1 - train.get("held_out", 0.0))
        changed["n_steps"] = max(1, round(sizes.epochs * used / batch))
    return changed


def _check(model_id: str, changes: dict[str, Any], name: Callable[[str], str]) -> None:
    """Refuse settings that the model does not have, or not with these values.

    Raises:
        ArtifactError: Naming the setting, and those that there are.
        SettingsError: Naming the key, its value and what is allowed.
    """
    folders = contract.folders()
    own = settings.schema(folders[model_id] / "settings.schema.yaml")["properties"]
    config = settings.found(folders, model_id)
    for key in changes:
        *above, last = _path(key)
        known: Any = config[model_id]
        for folder in above:
            known = known.get(folder) if isinstance(known, dict) else None
        if len(above) == 1:  # some of a part have no default
            known = (known or {}) | own.get(above[0], {}).get("properties", {})
        if not isinstance(known, dict) or last not in known:
            there = ", ".join(known or []) if isinstance(known, dict) else ""
            raise ArtifactError(
                f"{name(key)}: {model_id} has no such setting, only {there or 'none'}"
            )
    config[model_id] = settings.merged(config[model_id], nested(changes))
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
