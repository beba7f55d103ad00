"""The tiny workflow with a toy model: what runs again, overrides, a killed run, what is refused."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_run import TOY, command, environment, finished_in, planned, project, said, snakemake

from touchstone.io import reports
from touchstone.stages import scaffold


def stem(folder: Path) -> Path:
    return folder / "results" / TOY


def all_reports(folder: Path) -> dict[str, dict]:
    """What another run would reproduce of each report."""
    files = sorted(folder.glob("reports/*.json"))
    return {f.name: reports.reproducible(json.loads(f.read_text())) for f in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder in which the tiny workflow ran undisturbed."""
    return finished_in(tmp_path_factory.mktemp("a run"), TOY)


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of the finished folder that a test may change."""
    return shutil.copytree(finished, tmp_path / "a copy", copy_function=shutil.copy2)


# What runs again ----------------------------------------------------------------------------------


def test_a_second_run_has_nothing_to_do(finished):
    assert planned(finished) == set()


def test_a_changed_setting_reruns_what_depends_on_it_and_no_more(finished):
    jobs = planned(finished, "--config", "alpha=0.2")
    assert {f"{TOY}: fit and score the guardrail", "Write results/report.html"} <= jobs
    unchanged = ("simulate chunk 0", "train the model", "stress the posterior")
    assert not {f"{TOY}: {job}" for job in unchanged} & jobs


def change(file: Path) -> None:
    file.write_text(file.read_text() + "\n# changed\n")


def test_a_changed_file_of_one_model_reruns_nothing_of_another(copied):
    scaffold.write("fresh_model", copied / "my models")
    settings = copied / "config/test.yaml"
    settings.write_text(settings.read_text().replace(f"- {TOY}", f"- {TOY}\n- fresh_model"))
    jobs = planned(copied)
    assert "fresh_model: train the model" in jobs
    assert not [job for job in jobs if TOY in job]
    change(copied / "my models/fresh_model/model.py")
    assert planned(copied) == jobs
    change(copied / "my models" / TOY / "model.py")
    assert f"{TOY}: train the model" in planned(copied)


def test_a_changed_engine_reruns_training_and_inference(finished):
    file = finished / "src/touchstone/inference/importance.py"
    before = file.read_text()
    change(file)
    jobs = planned(finished)
    file.write_text(before)
    assert {f"{TOY}: train the model", f"{TOY}: stress the posterior"} <= jobs
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


@pytest.mark.nightly
def test_a_chunk_from_elsewhere_replaces_the_simulation(copied, tmp_path):
    given = shutil.copy(stem(copied) / "datasets/chunk_0.npz", tmp_path / "theirs.npz")
    run = snakemake(copied, "--until", "train", EXAMPLE_DECAY_DATASET_CHUNK=str(given))
    assert run.returncode == 0, said(run)[-4000:]
    (apart,) = stem(copied).glob("override_*")
    assert not (apart / "datasets").exists()
    report = json.loads((apart / "reports/train_report.json").read_text())
    assert report["n_rows"] + report["n_held_out"] == 2000
    assert report["lineage"]["inputs"]["chunk_0"]["path"] == str(given)


@pytest.mark.nightly
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
    (stem(copied) / "reports/posterior_failure_mode_report.json").unlink()
    log = stem(copied) / "logs/4_guardrail.log"
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


def test_a_chunk_from_elsewhere_is_trained_on_and_nothing_is_simulated(finished, tmp_path):
    given = shutil.copy(stem(finished) / "datasets/chunk_0.npz", tmp_path / "theirs.npz")
    jobs = planned(finished, EXAMPLE_DECAY_DATASET_CHUNK=str(given))
    assert [job for job in jobs if job.endswith(": train the model")]
    assert not [job for job in jobs if "simulate chunk" in job]


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["EXAMPLE_DECAY_CHECKPOINT", "EXAMPLE_DECAY_DATASET_CHUNK"])
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
