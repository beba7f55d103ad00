"""What a whole run of a science leaves, and measurements of one's own."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pages import shown_offline
from tiny_run import REAL, environment, finished_in, project, said, snakemake

from touchstone.contract import load_model
from touchstone.io import reports
from touchstone.models.interface import cohort, table

STAGES = ("1_simulate_0", "2_train", "3_stress", "4_guardrail", "5_infer_example")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder in which the tiny workflow ran undisturbed."""
    return finished_in(tmp_path_factory.mktemp("a run"), REAL)


def test_every_stage_leaves_its_report_figures_and_page(finished):
    results = finished / "results" / REAL
    for stage in STAGES:
        assert (results / f"notebooks/{stage}.html").stat().st_size > 10_000
    for name in ("posterior_failure_mode_separation", "posterior_worst_stress_trace"):
        assert (results / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
    assert b"<text" in (results / "figures/structure.svg").read_bytes()
    for name in ("train_tables", "train_calibration", "infer_example"):
        assert (results / f"reports/{name}.csv").read_text().count("\n") > 1
    assert (finished / "results/report.html").exists()


def test_reports_are_strict_json_that_their_schema_allows(finished):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    files = list((finished / "results" / REAL / "reports").glob("*.json"))
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


@pytest.mark.nightly
def test_films_of_ones_own_are_trained_on_by_the_command_and_checked(tmp_path):
    """Areas in another unit, a stimulus in °C, and a descriptor that never varies."""
    folder = project(tmp_path / "of mine", "interface")
    model = load_model("interface")
    columns = table.Columns.of(model.config)
    films = cohort.draw(np.random.default_rng(5), model.config, 30)
    films = films._replace(stimuli=films.stimuli - [0, 273.15, 0], target=100 * films.target)
    films.morphology[:, 3] = 7.0
    table.write_csv(tmp_path / "films.csv", films, columns)

    def touchstone(*arguments):
        code = f"from touchstone.cli import app; app({list(arguments)!r})"
        return subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False,
            env=environment(folder),
        )  # fmt: skip

    run = touchstone("train", "interface", "--data", str(tmp_path / "films.csv"), "--draws", "1500")
    assert run.returncode == 0, said(run)[-4000:]
    (apart,) = (folder / "results/interface").glob("override_*")
    report = json.loads((apart / "reports/train_report.json").read_text())
    assert report["n_rows"] + report["n_held_out"] == 180
    assert "I_z100 is the same in all measurements: dropped" in report["lineage"]["assumed"]
    assert len(list((apart / "traces").glob("*.nc"))) == 1


# Measurements -------------------------------------------------------------------------------------


def infer(folder: Path, data: Path) -> subprocess.CompletedProcess:
    setting = "measurement=" + json.dumps({"data": str(data), "model": REAL})
    return snakemake(folder, "measurement", "--config", setting)


@pytest.fixture
def example(finished):
    return finished / f"results/{REAL}/datasets/example.csv"


@pytest.mark.nightly
def test_a_measurement_of_ones_own_gets_a_verdict(finished, example, tmp_path):
    data = Path(shutil.copy(example, tmp_path / "my own (1).csv"))
    shutil.copy(example.with_suffix(".yaml"), data.with_suffix(".yaml"))
    run = infer(finished, data)
    assert run.returncode == 0, said(run)[-4000:]
    report = json.loads((finished / f"results/{REAL}/reports/infer_my_own__1_.json").read_text())
    assert report["verdict"] in ("accept", "escalate")
    assert f"my own (1).csv: {report['verdict'].upper()}" in said(run)


@pytest.mark.nightly
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


PAGES = [f"{REAL}/notebooks/{stage}" for stage in STAGES]


@pytest.mark.parametrize("page", ["report", *PAGES])
def test_pages_read_with_the_network_off(page, finished):
    file = finished / f"results/{page}.html"
    text = file.read_text(encoding="utf-8")
    assert not re.findall(r"<script|<link|@import|(?:src|href)=[\"']https?:", text)
    shown = shown_offline(file)
    assert "$$" not in re.sub(r"<details>.*?</details>", "", shown, flags=re.DOTALL)
