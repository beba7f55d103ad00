"""The workflow as a user runs it, tiny, in a folder whose name holds a space."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from touchstone.io import reports

ROOT = Path(__file__).parents[1]
FOLDERS = ("config", "notebooks", "profiles", "src", "workflow")
STAGES = ("1_simulate_0", "2_train", "3_stress", "4_guardrail", "5_infer_example")


def snakemake(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Run the tiny workflow; the package is the one of the folder."""
    return subprocess.run(
        _command(*arguments),
        cwd=folder,
        env=_environment(folder, **variables),
        capture_output=True,
        text=True,
        check=False,
    )


def _command(*arguments: str) -> list[str]:
    binary = Path(sys.executable).with_name("snakemake")
    return [str(binary), *arguments, "--configfile", "config/test.yaml"]


def _environment(folder: Path, **variables: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ours = {"PATH": path, "PYTHONPATH": str(folder / "src")}
    return {**os.environ, **ours, **variables}


def said(run: subprocess.CompletedProcess) -> str:
    return run.stdout + run.stderr


def project(folder: Path) -> Path:
    """A copy of what the workflow needs."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, folder / name)
    tiny = folder / "config/test.yaml"
    tiny.write_text(tiny.read_text().replace("n_chunks: 1", "n_chunks: 2"))
    return folder


def all_reports(folder: Path) -> dict[str, dict]:
    """What another run would reproduce of each report."""
    files = sorted((folder / "results/ecsfm/reports").glob("*.json"))
    return {f.name: reports.reproducible(json.loads(f.read_text())) for f in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder in which the tiny workflow ran undisturbed."""
    folder = project(tmp_path_factory.mktemp("a run"))
    run = snakemake(folder)
    assert run.returncode == 0, said(run)[-4000:]
    return folder


def test_every_stage_leaves_its_report_figures_and_page(finished):
    results = finished / "results/ecsfm"
    for stage in STAGES:
        assert (results / f"notebooks/{stage}.html").stat().st_size > 10_000
    for name in ("posterior_failure_mode_separation", "posterior_worst_stress_trace"):
        assert (results / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (finished / "results/report.html").exists()


def test_reports_are_strict_json_that_their_schema_allows(finished):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    files = list((finished / "results/ecsfm/reports").glob("*.json"))
    assert len(files) == 6
    for file in files:
        report = json.loads(file.read_text(), parse_constant=refuse)
        assert next(iter(report)) == "schema_version"
        reports.validate(report)


def test_lineage_reaches_back_to_the_simulation(finished):
    report = json.loads((finished / "results/ecsfm/reports/infer_example.json").read_text())
    guardrail = report["lineage"]["parents"]["guardrail"]
    training = guardrail["parents"]["stress"]["parents"]["checkpoint"]
    assert training["parents"]["audit_0"]["settings"]["n_traces"] == 400
    assert {entry["seed"] for entry in (report["lineage"], guardrail, training)} == {2026}


def test_a_second_run_has_nothing_to_do(finished):
    run = snakemake(finished)
    assert run.returncode == 0
    assert "Nothing to be done" in said(run)


def test_a_changed_setting_reruns_what_depends_on_it_and_no_more(finished):
    planned = said(snakemake(finished, "--dry-run", "--config", "alpha=0.2"))
    for rule in ("guardrail", "infer", "report"):
        assert f"\n{rule} " in planned
    for rule in ("simulate", "train", "stress"):
        assert f"\n{rule} " not in planned


def test_the_splits_share_their_base_cases_and_differ_in_noise(finished):
    report = json.loads((finished / "results/ecsfm/reports/stress_report.json").read_text())
    size = {}
    for run in report["runs"]:
        size.setdefault(run["case_index"], {})[run["split"], run["family"]] = run["max_abs_current"]
    for of_case in size.values():
        base = of_case["in_distribution", None]
        for family in ("static", "dynamic"):
            assert of_case["control", family] != base
            np.testing.assert_allclose(of_case["control", family], base, rtol=0.3)


def test_the_rule_is_scored_on_cases_it_was_not_fitted_on(finished):
    file = finished / "results/ecsfm/reports/posterior_failure_mode_report.json"
    best = json.loads(file.read_text())["best_guardrail"]
    assert best["n_fitted_cases"] + best["n_scored_cases"] == 16
    assert best["fpr"]["n"] == best["n_scored_cases"]


def test_runs_killed_in_every_stage_end_as_an_undisturbed_one(finished, tmp_path_factory):
    folder = project(tmp_path_factory.mktemp("a killed run"))
    for stage in STAGES:
        started = subprocess.Popen(
            _command(),
            cwd=folder,
            env=_environment(folder),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        log = folder / f"results/ecsfm/logs/{stage}.log"
        while started.poll() is None and not (log.exists() and "Cell 6" in log.read_text()):
            time.sleep(0.2)
        assert started.poll() is None, f"the run ended before it could be killed in {stage}"
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
        log.unlink()
    run = snakemake(folder)
    assert run.returncode == 0, said(run)[-4000:]
    assert all_reports(folder) == all_reports(finished)
    assert not list((folder / "results").rglob(".*.json*"))


def test_a_checkpoint_from_elsewhere_replaces_simulation_and_training(finished, tmp_path):
    folder = project(tmp_path / "with a checkpoint")
    given = shutil.copytree(finished / "results/ecsfm/checkpoints/trained", tmp_path / "mine")
    tiny = folder / "config/test.yaml"
    tiny.write_text(tiny.read_text().replace("nuts: {n_cases: 0", "nuts: {n_cases: 1"))
    run = snakemake(folder, "--until", "stress", ECSFM_CHECKPOINT=str(given / "model_meta.json"))
    assert run.returncode == 0, said(run)[-4000:]
    assert not (folder / "results/ecsfm/datasets").exists()
    report = json.loads((folder / "results/ecsfm/reports/stress_report.json").read_text())
    ours = json.loads((finished / "results/ecsfm/reports/stress_report.json").read_text())
    assert report["config"]["checkpoint"] == str(given)
    assert report["lineage"]["override"] == str(given / "model_meta.json")
    assert report["runs"] == ours["runs"]
    assert [row["posterior"] for row in report["reference"]["cases"]] == ["reweighted", "flow"]
    assert (folder / "results/ecsfm/traces/nuts_0.nc").exists()
    (given / "normalizers.npz").write_bytes(b"other content")
    refused = snakemake(folder, "--until", "stress", ECSFM_CHECKPOINT=str(given))
    assert refused.returncode != 0
    assert "normalizers.npz: differs from its sha256" in said(refused)


def test_a_chunk_from_elsewhere_replaces_the_simulation(finished, tmp_path):
    given = shutil.copy(finished / "results/ecsfm/datasets/chunk_1.npz", tmp_path / "theirs.npz")
    folder = project(tmp_path / "with a chunk")
    run = snakemake(folder, "--until", "train", ECSFM_DATASET_CHUNK=str(given))
    assert run.returncode == 0, said(run)[-4000:]
    assert not (folder / "results/ecsfm/datasets").exists()
    report = json.loads((folder / "results/ecsfm/reports/train_report.json").read_text())
    assert report["n_rows"] + report["n_held_out"] == 400
    assert report["lineage"]["inputs"]["chunk_0"]["path"] == str(given)


@pytest.mark.parametrize("variable", ["ECSFM_CHECKPOINT", "ECSFM_DATASET_CHUNK"])
def test_an_override_that_does_not_exist_is_named(variable, finished):
    run = snakemake(finished, "--dry-run", **{variable: "/no/such/file"})
    assert run.returncode != 0
    assert f"{variable}: /no/such/file does not exist" in said(run)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("alpha=2", "alpha is 2; allowed: type number, exclusiveMinimum 0, exclusiveMaximum 1"),
        ("typo=1", "unknown key typo; allowed are seed, models"),
        ("stress={posterior: nuts}", "stress.posterior is 'nuts'; allowed: enum ['flow', "),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(setting, told, finished):
    run = snakemake(finished, "--dry-run", "--config", setting)
    assert run.returncode != 0
    assert told in said(run)


def infer(folder: Path, trace: Path) -> subprocess.CompletedProcess:
    setting = "infer=" + json.dumps({"trace": str(trace)})
    return snakemake(folder, "measurement", "--config", setting)


def test_a_measurement_of_ones_own_gets_a_verdict(finished, tmp_path):
    example = finished / "results/ecsfm/traces/example.csv"
    trace = Path(shutil.copy(example, tmp_path / "my own (1).csv"))
    shutil.copy(example.with_suffix(".yaml"), trace.with_suffix(".yaml"))
    run = infer(finished, trace)
    assert run.returncode == 0, said(run)[-4000:]
    report = json.loads((finished / "results/ecsfm/reports/infer_my_own__1_.json").read_text())
    assert report["verdict"] in ("accept", "escalate")
    assert f"my own (1).csv: {report['verdict'].upper()}" in said(run)


def test_records_of_one_system_get_one_posterior(finished, tmp_path):
    example = finished / "results/ecsfm/traces/example.csv"
    folder = tmp_path / "two scans"
    folder.mkdir()
    for name in ("a.csv", "b.csv"):
        shutil.copy(example, folder / name)
    shutil.copy(example.with_suffix(".yaml"), tmp_path / "two scans.yaml")
    run = infer(finished, folder)
    assert run.returncode == 0, said(run)[-4000:]
    report = json.loads((finished / "results/ecsfm/reports/infer_two_scans.json").read_text())
    assert len(report["metrics"]) == 2
    records = {row["quantity"]: [] for row in report["posterior"]}
    for row in report["posterior"]:
        records[row["quantity"]].append(row["record"])
    assert records["E0_1"] == [None]
    assert records["noise"] == [1, 2]
    assert f"{folder / 'b.csv'}" in [v["path"] for v in report["lineage"]["inputs"].values()]


def test_a_broken_measurement_fails_with_its_reason_and_leaves_nothing(finished, tmp_path):
    example = finished / "results/ecsfm/traces/example.csv"
    lines = example.read_text().splitlines()
    lines[40] = lines[40].rpartition(",")[0] + ",nan"
    trace = tmp_path / "broken.csv"
    trace.write_text("\n".join(lines))
    shutil.copy(example.with_suffix(".yaml"), trace.with_suffix(".yaml"))
    run = infer(finished, trace)
    assert run.returncode != 0
    assert f"\nArtifactError: {trace}: current of sample" in said(run)
    assert not list((finished / "results/ecsfm").glob("*/*broken.[jph]*"))


def test_a_measurement_without_metadata_is_told_what_is_missing(finished, tmp_path):
    trace = tmp_path / "alone.csv"
    trace.write_text("time/s,potential/V,current/A\n")
    run = infer(finished, trace)
    assert run.returncode != 0
    assert f"infer.meta: {trace.with_suffix('.yaml')} does not exist" in said(run)


def test_a_folder_without_records_is_told_before_anything_runs(finished, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.yaml").touch()
    run = infer(finished, tmp_path / "empty")
    assert run.returncode != 0
    assert f"infer.trace: {tmp_path / 'empty'} does not exist or is empty" in said(run)
    assert "Job stats" not in said(run)


@pytest.mark.parametrize("page", ["report", *(f"ecsfm/notebooks/{stage}" for stage in STAGES)])
def test_pages_read_with_the_network_off(page, finished):
    file = finished / f"results/{page}.html"
    text = file.read_text(encoding="utf-8")
    assert not re.findall(r"<script|<link|@import|(?:src|href)=[\"']https?:", text)
    if (chromium := shutil.which("chromium")) is None:
        pytest.skip("no chromium to open it with")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"]
    offline = "--host-resolver-rules=MAP * ~NOTFOUND"
    opened = subprocess.run(
        [chromium, *flags, offline, "--enable-logging=stderr", file.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "</body>" in opened.stdout
    assert "CONSOLE" not in opened.stderr
    assert "$$" not in re.sub(r"<details>.*?</details>", "", opened.stdout, flags=re.DOTALL)
