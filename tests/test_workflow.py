"""The workflow as a user runs it, tiny, with two models, in a folder whose name holds a space."""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from pages import shown_offline

from touchstone.io import reports
from touchstone.stages import scaffold

ROOT = Path(__file__).parents[1]
FOLDERS = ("config", "notebooks", "profiles", "src", "workflow")
TOY, REAL = "example_decay", "ecsfm"
STAGES = ("1_simulate_0", "2_train", "3_stress", "4_guardrail", "5_infer_example")


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


def stem(folder: Path) -> Path:
    return folder / "results" / TOY


def all_reports(folder: Path) -> dict[str, dict]:
    """What another run would reproduce of each report."""
    files = sorted(folder.glob("reports/*.json"))
    return {f.name: reports.reproducible(json.loads(f.read_text())) for f in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder in which the tiny workflow ran undisturbed, for both models."""
    folder = project(tmp_path_factory.mktemp("a run"), REAL, TOY)
    run = snakemake(folder)
    assert run.returncode == 0, said(run)[-4000:]
    assert "escalate" in said(run).lower() or "accept" in said(run).lower()
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished folder that a test may change, with the toy model alone."""
    folder = shutil.copytree(finished, tmp_path / "a copy", copy_function=shutil.copy2)
    tiny = yaml.safe_load((folder / "config/test.yaml").read_text())
    tiny["models"] = [TOY]
    (folder / "config/test.yaml").write_text(yaml.safe_dump(tiny))
    return folder


@pytest.mark.parametrize("model_id", [REAL, TOY])
def test_every_stage_leaves_its_report_figures_and_page(model_id, finished):
    results = finished / "results" / model_id
    for stage in STAGES:
        assert (results / f"notebooks/{stage}.html").stat().st_size > 10_000
    for name in ("posterior_failure_mode_separation", "posterior_worst_stress_trace"):
        assert (results / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
    assert b"<text" in (results / "figures/structure.svg").read_bytes()
    for name in ("train_tables", "train_calibration", "infer_example"):
        assert (results / f"reports/{name}.csv").read_text().count("\n") > 1
    assert (finished / "results/report.html").exists()


@pytest.mark.parametrize("model_id", [REAL, TOY])
def test_reports_are_strict_json_that_their_schema_allows(model_id, finished):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    files = list((finished / "results" / model_id / "reports").glob("*.json"))
    assert len(files) == 5
    for file in files:
        report = json.loads(file.read_text(), parse_constant=refuse)
        assert next(iter(report)) == "schema_version"
        reports.validate(report)


def test_lineage_reaches_back_to_the_simulation(finished):
    report = json.loads((finished / f"results/{REAL}/reports/infer_example.json").read_text())
    guardrail = report["lineage"]["parents"]["guardrail"]
    training = guardrail["parents"]["stress"]["parents"]["checkpoint"]
    assert training["parents"]["audit_0"]["settings"]["n_traces"] == 400
    assert {entry["seed"] for entry in (report["lineage"], guardrail, training)} == {2026}


# What runs again ----------------------------------------------------------------------------------


def test_a_second_run_has_nothing_to_do(finished):
    assert planned(finished) == set()


def test_a_changed_setting_reruns_what_depends_on_it_and_no_more(finished):
    jobs = planned(finished, "--config", "alpha=0.2")
    assert {f"{REAL}: fit and score the guardrail", "Write results/report.html"} <= jobs
    again = {f"{REAL}: train the model", f"{REAL}: stress the posterior"}
    assert not (again | {f"{TOY}: simulate chunk 0"}) & jobs


def change(file: Path) -> None:
    file.write_text(file.read_text() + "\n# changed\n")


def test_a_changed_file_of_one_model_reruns_nothing_of_another(finished):
    file = finished / "my models" / TOY / "model.py"
    before = file.read_text()
    change(file)
    jobs = planned(finished)
    file.write_text(before)
    assert f"{TOY}: train the model" in jobs
    assert not [job for job in jobs if REAL in job]


def test_a_changed_engine_reruns_training_and_inference(finished):
    file = finished / "src/touchstone/inference/importance.py"
    before = file.read_text()
    change(file)
    jobs = planned(finished)
    file.write_text(before)
    for model_id in (REAL, TOY):
        for stage in ("train the model", "stress the posterior"):
            assert f"{model_id}: {stage}" in jobs
    assert f"{TOY}: simulate chunk 0" not in jobs


def test_an_override_tried_and_taken_away_leaves_a_models_own_results(copied, tmp_path):
    own = all_reports(stem(copied))
    given = shutil.copytree(stem(copied) / "checkpoints/trained", tmp_path / "mine")
    variables = {"EXAMPLE_DECAY_CHECKPOINT": str(given / "manifest.json")}
    run = snakemake(copied, "--until", "stress", **variables)
    assert run.returncode == 0, said(run)[-4000:]
    (apart,) = stem(copied).glob("override_*")
    assert not (apart / "datasets").exists()
    report = json.loads((apart / "reports/stress_report.json").read_text())
    assert report["config"]["checkpoint"] == str(given)
    assert report["lineage"]["override"] == str(given / "manifest.json")
    assert report["runs"] == own["stress_report.json"]["runs"]
    assert all_reports(stem(copied)) == own
    assert planned(copied) <= {"Write results/report.html"}
    (given / "proposal.npz").write_bytes(b"other content")
    refused = snakemake(copied, "--until", "stress", **variables)
    assert refused.returncode != 0
    assert "proposal.npz: differs from its sha256" in said(refused)


def test_a_chunk_from_elsewhere_replaces_the_simulation(copied, tmp_path):
    given = shutil.copy(stem(copied) / "datasets/chunk_0.npz", tmp_path / "theirs.npz")
    run = snakemake(copied, "--until", "train", EXAMPLE_DECAY_DATASET_CHUNK=str(given))
    assert run.returncode == 0, said(run)[-4000:]
    (apart,) = stem(copied).glob("override_*")
    assert not (apart / "datasets").exists()
    report = json.loads((apart / "reports/train_report.json").read_text())
    assert report["n_rows"] + report["n_held_out"] == 2000
    assert report["lineage"]["inputs"]["chunk_0"]["path"] == str(given)


def test_a_new_model_is_trained_by_the_command_with_settings_of_ones_own(tmp_path):
    folder = project(tmp_path / "of mine", "fresh_model")
    scaffold.write("fresh_model", folder / "my models")
    code = (
        "from touchstone.stages.training_run import run; import sys; "
        "sys.exit(run('fresh_model', None, {'held_out': 0.5}, False))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, said(run)[-4000:]
    report = json.loads((folder / "results/fresh_model/reports/train_report.json").read_text())
    assert 70 < report["n_held_out"] < 130  # of 200
    assert not (folder / "results/fresh_model/reports/stress_report.json").exists()


def test_a_run_killed_in_a_stage_ends_as_an_undisturbed_one(finished, copied):
    (copied / "results/report.html").unlink()
    (stem(copied) / "reports/stress_report.json").unlink()
    log = stem(copied) / "logs/3_stress.log"
    log.unlink()
    started = subprocess.Popen(
        command(),
        cwd=copied,
        env=environment(copied),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while started.poll() is None and not (log.exists() and "Cell 3" in log.read_text()):
        time.sleep(0.1)
    assert started.poll() is None, "the run ended before it could be killed"
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    run = snakemake(copied)
    assert run.returncode == 0, said(run)[-4000:]
    assert all_reports(stem(copied)) == all_reports(stem(finished))
    assert not list((copied / "results").rglob(".*.json*"))


def test_a_released_artefact_answers_where_nothing_was_trained(tmp_path):
    folder = project(tmp_path / "fresh", TOY)
    released = folder / "my models" / TOY / "pretrained"
    released.mkdir()
    for name in ("manifest.json", "guardrail.json"):
        (released / name).write_text("{}")
    page = f"results/{TOY}/pretrained/notebooks/5_infer_example.html"
    example = f"results/{TOY}/pretrained/datasets/example.csv"
    assert planned(folder, "measurement") == {
        f"{TOY}/pretrained: simulate the example measurement",
        f"{TOY}/pretrained: infer {example}",
        f"Render {page}",
    }
    assert f"{TOY}: train the model" in planned(folder)


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["ECSFM_CHECKPOINT", "EXAMPLE_DECAY_DATASET_CHUNK"])
def test_an_override_that_does_not_exist_is_named(variable, finished):
    run = snakemake(finished, "--dry-run", **{variable: "/no/such/file"})
    assert run.returncode != 0
    assert f"{variable}: /no/such/file does not exist" in said(run)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("alpha=2", "alpha is 2; allowed: type number, exclusiveMinimum 0, exclusiveMaximum 1"),
        ("typo=1", "unknown key typo; allowed are seed, models"),
        ("models=[alchemy]", "models: alchemy is none of"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(setting, told, finished):
    run = snakemake(finished, "--dry-run", "--config", setting)
    assert run.returncode != 0
    assert told in said(run)


def test_a_run_beside_another_is_refused_with_a_sentence(tmp_path):
    folder = project(tmp_path, TOY)
    (folder / "results").mkdir()
    with (folder / "results/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = snakemake(folder, "--until", "example")
    assert run.returncode != 0
    assert "Another run is at work in this folder" in said(run)
    assert "Traceback" not in said(run)
    assert not list((folder / "results").rglob("example*"))


# Measurements -------------------------------------------------------------------------------------


def infer(folder: Path, data: Path, model_id: str = REAL) -> subprocess.CompletedProcess:
    setting = "measurement=" + json.dumps({"data": str(data), "model": model_id})
    return snakemake(folder, "measurement", "--config", setting)


@pytest.fixture
def example(finished):
    return finished / f"results/{REAL}/datasets/example.csv"


def test_a_measurement_of_ones_own_gets_a_verdict(finished, example, tmp_path):
    data = Path(shutil.copy(example, tmp_path / "my own (1).csv"))
    shutil.copy(example.with_suffix(".yaml"), data.with_suffix(".yaml"))
    run = infer(finished, data)
    assert run.returncode == 0, said(run)[-4000:]
    report = json.loads((finished / f"results/{REAL}/reports/infer_my_own__1_.json").read_text())
    assert report["verdict"] in ("accept", "escalate")
    assert f"my own (1).csv: {report['verdict'].upper()}" in said(run)


def test_records_of_one_system_get_one_posterior(finished, example, tmp_path):
    folder = tmp_path / "two scans"
    folder.mkdir()
    for name in ("a.csv", "b.csv"):
        shutil.copy(example, folder / name)
    shutil.copy(example.with_suffix(".yaml"), tmp_path / "two scans.yaml")
    run = infer(finished, folder)
    assert run.returncode == 0, said(run)[-4000:]
    report = json.loads((finished / f"results/{REAL}/reports/infer_two_scans.json").read_text())
    assert len(report["metrics"]) == 2
    records = {row["quantity"]: [] for row in report["posterior"]}
    for row in report["posterior"]:
        records[row["quantity"]].append(row["record"])
    assert records["E0_1"] == [None]
    assert records["noise"] == [1, 2]
    assert f"{folder / 'b.csv'}" in [v["path"] for v in report["lineage"]["inputs"].values()]


def test_a_broken_measurement_fails_with_its_reason_and_leaves_nothing(finished, example, tmp_path):
    lines = example.read_text().splitlines()
    lines[40] = lines[40].rpartition(",")[0] + ",nan"
    data = tmp_path / "broken.csv"
    data.write_text("\n".join(lines))
    shutil.copy(example.with_suffix(".yaml"), data.with_suffix(".yaml"))
    run = infer(finished, data)
    assert run.returncode != 0
    assert f"\nArtifactError: {data}: current of sample" in said(run)
    assert not list((finished / f"results/{REAL}").glob("*/*broken.[jph]*"))


def test_a_measurement_without_metadata_is_told_what_is_missing(finished, tmp_path):
    data = tmp_path / "alone.csv"
    data.write_text("time/s,potential/V,current/A\n")
    run = infer(finished, data)
    assert run.returncode != 0
    assert f"measurement.meta: {data.with_suffix('.yaml')} does not exist" in said(run)


def test_a_folder_without_records_is_told_before_anything_runs(finished, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.yaml").touch()
    run = infer(finished, tmp_path / "empty")
    assert run.returncode != 0
    assert f"measurement.data: {tmp_path / 'empty'} does not exist or is empty" in said(run)
    assert "started" not in said(run)


def test_a_measurement_that_is_not_there_is_refused_beside_a_page_of_it(finished, tmp_path):
    setting = "measurement=" + json.dumps({"data": str(tmp_path / "example.csv"), "model": REAL})
    run = snakemake(finished, "--config", setting)
    assert run.returncode != 0
    assert f"measurement.data: {tmp_path / 'example.csv'} does not exist" in said(run)


PAGES = [f"{model_id}/notebooks/{stage}" for model_id in (REAL, TOY) for stage in STAGES]


@pytest.mark.parametrize("page", ["report", *PAGES])
def test_pages_read_with_the_network_off(page, finished):
    file = finished / f"results/{page}.html"
    text = file.read_text(encoding="utf-8")
    assert not re.findall(r"<script|<link|@import|(?:src|href)=[\"']https?:", text)
    shown = shown_offline(file)
    assert "$$" not in re.sub(r"<details>.*?</details>", "", shown, flags=re.DOTALL)
