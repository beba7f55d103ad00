"""Whether every door of a model gives the same answer: to the same records and the same forms.

    python benchmarks/bench_same.py [--records 20] [--model MODEL]

The doors are the stage, the notebook, the command line, the model in Python, the client, and HTTP.
Every model that has an artefact here is asked. Reports have to be equal but for times and for the
folders in paths; the exit code is 1 where one differs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml
from campaign import TOUCHSTONE, report_of, serving

from touchstone import contract, registry
from touchstone.client import Client
from touchstone.io import reports, results, settings
from touchstone.io.artifacts import ArtifactError
from touchstone.stages import answers, checkpoints, infer, randomness

N_NOTEBOOKS, N_COMMANDS = 2, 5  # what starts a process for every answer is asked less


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=20, help="of each model")
    parser.add_argument("--model", help="by default every one that has an artefact")
    arguments = parser.parse_args()
    chosen = [arguments.model] if arguments.model else [*registry.get_all_models()]
    with tempfile.TemporaryDirectory(prefix="touchstone-same-") as folder:
        bad = compared(chosen, arguments.records, Path(folder))
    print(
        "\n" + ("\n".join(f"WRONG: {each}" for each in bad) or "every door gave the same answers")
    )
    return 1 if bad else 0


def compared(chosen: list[str], count: int, folder: Path) -> list[str]:
    """The same records through every door: reports are equal but for paths and times."""
    root, bad = Path.cwd(), []
    for model_id in chosen:
        try:
            checkpoints.find(model_id, results.Results(results.folder(model_id)))
        except ArtifactError as error:
            print(f"{model_id}: not asked; {error}")
            continue
        place = folder / model_id
        place.mkdir()
        if (root / "results").is_dir():
            (place / "results").symlink_to(root / "results")
        os.chdir(place)
        try:
            bad += _differences(model_id, count, root)
        finally:
            os.chdir(root)
    return bad


def _differences(model_id: str, count: int, root: Path) -> list[str]:
    """What differs between the doors to one model, in the working directory."""
    model, local = registry.load_model_instance(model_id), answers.load(model_id)
    own = results.Results(Path("stage"))
    names = [f"record_{number:02}.csv" for number in range(count)]
    for number, name in enumerate(names):
        files = Path(name), Path(name).with_suffix(".yaml")
        model.example(randomness.generator(number, "infer", 3), *files)
    forms = _forms(model_id, count)
    found = {
        "stage": [
            infer.run(local.model, local.settings, own, Path(name).stem, name).report
            for name in names
        ],
        "notebook": [_notebook(model_id, Path(name), root) for name in names[:N_NOTEBOOKS]],
        "touchstone infer": _said("infer", *names, "--model", model_id) if names else [],
        "touchstone.load": [local.infer(name).report for name in names],
    }
    by_form = {
        "touchstone.load": [local.predict(**values).report for values in forms],
        "touchstone predict": [
            _said("predict", model_id, *map("{0[0]}={0[1]}".format, values.items()))[0]
            for values in forms[:N_COMMANDS]
        ],
    }
    with serving(Path(), model=model_id) as service, Client(str(service.base_url)) as client:
        found["Client"] = [client.infer(model_id, record=name).report for name in names]
        by_form["Client"] = [client.infer(model_id, inputs=each).report for each in forms]
        asked = [{"name": name, "data": Path(name).read_text()} for name in names]
        asked = [
            each | {"meta": Path(each["name"]).with_suffix(".yaml").read_text()} for each in asked
        ]
        found["REST"] = [
            report_of(service, {"model_id": model_id, "record": each}) for each in asked
        ]
        by_form["REST"] = [
            report_of(service, {"model_id": model_id, "inputs": each}) for each in forms
        ]
        many = {"model_id": model_id, "inputs": forms}
        by_form["REST, several"] = report_of(service, many)["reports"] if forms else []
    bad = []
    for kind, doors in (("records", found), ("forms", by_form)):
        reference = next(iter(doors.values()))
        if len({json.dumps(_essence(report)) for report in reference}) < len(reference):
            bad.append(f"{model_id}: two of the {kind} have one answer, which shows nothing")
        for door, told in doors.items():
            differ = [
                k for k, report in enumerate(told) if _essence(report) != _essence(reference[k])
            ]
            print(f"{model_id}: {door:18} {len(told):2} {kind}, {len(differ)} differ")
            bad += [f"{model_id}: {door}: {kind} {differ} differ"] if differ else []
    return bad


def _forms(model_id: str, count: int) -> list[dict]:
    """Values of the form of a model that allows numbers alone, inside their bounds."""
    fields = {}
    for each in registry.get_inference_form_fields(model_id):
        if each.type == "float" and each.min_value is not None and each.max_value is not None:
            fields[each.name] = each.min_value, each.max_value
    rng = np.random.default_rng(0)
    forms = [{name: rng.uniform(*ends) for name, ends in fields.items()} for _ in range(count)]
    try:
        answers.load(model_id).predict(**forms[0])
    except ArtifactError:
        return []  # its form wants more than numbers
    return forms


def _notebook(model_id: str, record: Path, root: Path) -> dict:
    """The report that the notebook writes of a record, as the workflow runs it."""
    own = settings.of_stage(settings.found(contract.folders(), model_id), model_id, "infer")
    line = yaml.safe_dump({"settings": own}, default_flow_style=True, width=float("inf"))
    out, here = Path("notebook"), Path.cwd()
    for name in ("reports", "figures"):
        (out / name).mkdir(parents=True, exist_ok=True)
    given = {"model_id": model_id, "folder": here / out, "data": here / record, "name": record.stem}
    command = [sys.executable, "-m", "papermill", "--kernel", "python3", "--cwd", str(root)]
    command += ["--no-progress-bar", str(root / "notebooks/5_infer.ipynb"), str(here / "run.ipynb")]
    command += ["-y", line.strip()]
    for name, value in given.items():
        command += ["-r", name, str(value)]
    environment = os.environ | {"JUPYTER_PREFER_ENV_PATH": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads((out / f"reports/infer_{record.stem}.json").read_text())


def _said(*arguments: str) -> list[dict]:
    """Reports that the command line prints."""
    command = [str(TOUCHSTONE), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(done.stderr[-2000:])
    content = json.loads(done.stdout)
    return content if isinstance(content, list) else [content]


def _essence(report: dict) -> dict:
    """A report without times, with names in place of paths, and without the digest of both."""

    def named(content):
        if isinstance(content, dict):
            path = content.get("path")
            names = {"path": Path(path).name} if isinstance(path, str) else {}
            return {name: named(each) for name, each in content.items()} | names
        return [named(each) for each in content] if isinstance(content, list) else content

    found = named(reports.reproducible(report))
    del found["sha256"]
    measured = found.get("measurement")
    return found | ({"measurement": Path(measured).name} if measured else {})


if __name__ == "__main__":
    raise SystemExit(main())
