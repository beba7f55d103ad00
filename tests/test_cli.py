"""The command line on a model that is trained in a moment: what it prints, writes and refuses."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from pages import shown_offline
from typer.testing import CliRunner

import touchstone.models
from touchstone import contract
from touchstone.cli import app
from touchstone.contract import load_model
from touchstone.io import artifacts, reports, settings
from touchstone.io.results import Results
from touchstone.stages import checkpoints, guardrail, randomness, release, simulate, stress, train

ROOT = Path(__file__).parents[1]
TOY = "example_decay"
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
SMALL = {
    "stress": {"n_cases": 30, "n_compared": 1, "n_reference": 0},
    "calibration": {"n_cases": {"importance": 10}},
}


def of_stage(stage):
    shared = settings.defaults(settings.schema())
    config = settings.complete({**shared, "models": [TOY], TOY: SMALL}, contract.folders())
    return settings.of_stage(config, TOY, stage)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project in which the toy model was trained and released, and a record and its metadata."""
    project = tmp_path_factory.mktemp("project")
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tests/models" / TOY, project / "models" / TOY, ignore=skipped)
    with pytest.MonkeyPatch.context() as patch:
        use_models_of(project, patch)
        model, results = load_model(TOY), Results(project / "results" / TOY)
        simulate.run(model, of_stage("simulate"), results, 0)
        train.run(model, of_stage("train"), results, [], [results.report("simulate_0")])
        stress.run(model, of_stage("stress"), results)
        guardrail.run(of_stage("guardrail"), results)
        release.run(model, of_stage("stress"), results, 40)
    rng = randomness.generator(2026, "infer", 3)
    model.example(rng, project / "mine.csv", project / "mine.yaml")
    return project


def use_models_of(folder, monkeypatch):
    """Find the models of this folder, and not those beside the tests."""
    package = str(Path(touchstone.models.__file__).parent)
    monkeypatch.setattr(touchstone.models, "__path__", [package, str(folder / "models")])
    monkeypatch.setenv("TOUCHSTONE_MODELS", str(folder / "models"))


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """A folder with a record and its metadata, for which a released model answers."""
    shutil.copytree(trained / "models", tmp_path / "models")
    use_models_of(tmp_path, monkeypatch)
    for file in ("mine.csv", "mine.yaml"):
        shutil.copy(trained / file, tmp_path / file)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def locally(here, trained):
    """The same, where the model was trained, too."""
    shutil.copytree(trained / "results", here / "results")
    return here


def date():
    """Day of the certificate of the released model."""
    file = Path("models") / TOY / checkpoints.PRETRAINED / checkpoints.CERTIFICATE
    return artifacts.read_json(file)["lineage"]["date"][: len("2026-01-01")]


def call(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)


def infer(*arguments):
    return call("infer", *arguments, "--model", TOY)


def drifting(file, size=2, power=2):
    """Write a record that the model does not explain."""
    when, signal = np.loadtxt("mine.csv", delimiter=",", skiprows=1).T
    rows = np.column_stack([when, signal + size * (when / when[-1]) ** power])
    np.savetxt(file, rows, delimiter=",", header="time/s,signal/V", comments="")
    shutil.copy("mine.yaml", Path(file).with_suffix(".yaml"))


def assert_refused(result, *words):
    """One sentence on stderr, nothing on stdout, and the exit code of bad input."""
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert all(word in result.stderr for word in words), result.stderr


# Start --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["models"]])
def test_what_needs_no_inference_does_not_import_jax(arguments):
    code = (
        "import sys, time\nfrom touchstone.cli import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert {'jax', 'pandas', 'matplotlib', 'scipy'}.isdisjoint(sys.modules)\n"
        "assert time.process_time() < 2"  # about 0.4 s and 0.8 s where nothing else runs
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "infer" in done.stdout or TOY in done.stdout


def test_the_entry_point_is_the_application():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'touchstone = "touchstone.cli:app"' in text


def test_models_are_listed_with_the_artefact_that_answers(here):
    result = call("models")
    assert result.exit_code == 0
    assert (
        f"{TOY}: A decaying signal (v1.0)\n  pretrained, certificate of {date()}" in result.stdout
    )


# Answers ------------------------------------------------------------------------------------------


def test_an_accepted_record_gets_a_table_two_sentences_and_the_next_step(here):
    before = sorted(here.iterdir())
    result = infer("mine.csv")
    assert result.exit_code == 0, result.stderr
    assert not CONTROL.search(result.stdout)
    assert max(map(len, result.stdout.splitlines())) <= 80
    table, sound, explained, then, artefact = result.stdout.strip().split("\n\n")[1:]
    assert re.findall(r"^\w+", table, re.MULTILINE) == ["quantity", "amplitude", "rate"]
    assert sound.startswith("ACCEPT: the computation is sound")
    assert explained.startswith("ACCEPT: the model explains this record")
    assert then.startswith("Next: ")
    assert artefact.startswith(f"Artefact of {TOY}: pretrained, certificate of {date()}.")
    assert sorted(here.iterdir()) == before  # nothing is written without --out


def test_a_record_that_the_model_does_not_explain_is_escalated(here):
    drifting("drifts.csv")
    result = infer("drifts.csv")
    assert result.exit_code == 3
    assert "ESCALATE: the model does not explain this record" in result.stdout
    assert "Next: Do not use these intervals" in result.stdout


def test_an_escalated_record_is_inferred_again_where_that_is_asked_for(here):
    drifting("drifts.csv", size=0.8, power=1)
    result = infer("drifts.csv", "--escalate", "--out", "answers")
    assert result.exit_code == 3  # the verdict on the model itself stands
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "Resolved: a drift" in result.stdout
    assert "Next: Do not use the first intervals" in result.stdout
    assert json.loads(Path("answers/drifts.json").read_text())["escalation"]["resolved"]
    assert "The posterior with a drift" in Path("answers/drifts.html").read_text()


def test_a_record_at_the_limit_of_its_instrument_cannot_be_judged(here):
    record = np.loadtxt("mine.csv", delimiter=",", skiprows=1)
    limit = np.sort(record[:, 1])[-5]
    record[:, 1] = np.minimum(record[:, 1], limit)
    np.savetxt("mine.csv", record, delimiter=",", header="time/s,signal/V", comments="")
    result = infer("mine.csv")
    assert result.exit_code == 3
    assert "CANNOT JUDGE: whether the model explains this record" in result.stdout
    assert "at the limit of an instrument" in " ".join(result.stdout.split())


def test_json_is_the_report_and_nothing_else(here):
    result = infer("mine.csv", "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout, parse_constant=pytest.fail)
    reports.validate(report)
    assert report["lineage"]["artefact"]["source"] == "pretrained"
    assert report["lineage"]["inputs"]["certificate"]["path"].endswith("certificate.json")
    assert report["lineage"]["inputs"]["meta"]["path"] == "mine.yaml"


def test_the_command_and_the_stage_give_the_same_answer(here):
    from touchstone.stages import infer as stage

    said = json.loads(infer("mine.csv", "--json").stdout)
    model, own = load_model(TOY), of_stage("infer")
    done = stage.run(model, own, Results(Path("results") / TOY), "x", "mine.csv", "mine.yaml")
    assert reports.reproducible(done.report) == reports.reproducible(said)


def test_metadata_is_set_on_the_command_line_and_told(here):
    result = infer("mine.csv", "--set", "a.0=1e-6", "--json")
    assert_refused(infer("mine.csv", "--set", "synthetic.0=1"), "--set synthetic.0=1", "no entries")
    assert_refused(infer("mine.csv", "--set", "synthetic"), "expected KEY=VALUE")
    report = json.loads(result.stdout)
    assert report["lineage"]["set"] == ["a.0=1e-6"]
    assert report["lineage"]["inputs"]["meta"]["path"] == "mine.yaml"


def test_files_are_written_whole_and_the_page_reads_offline(here):
    assert infer("mine.csv", "--out", "answers").exit_code == 0
    names = ["mine.html", "mine.json", "mine.png", "mine_posterior.csv"]
    assert sorted(file.name for file in (here / "answers").iterdir()) == names
    assert (here / "answers/mine.png").read_bytes().startswith(b"\x89PNG")
    assert reports.read("answers/mine.json", "infer")["verdict"] == "accept"
    text = (here / "answers/mine.html").read_text(encoding="utf-8")
    assert not re.findall(r"<script|<link|@import|(?:src|href)=[\"'](?!data:)", text)
    assert "data:image/png;base64," in text
    assert "ACCEPT: the model explains this record" in text
    assert f"certificate of {date()}" in text
    shown_offline(here / "answers/mine.html")


def test_a_page_is_made_again_from_its_report(here):
    infer("mine.csv", "--out", "answers")
    page = here / "answers/mine.html"
    text = page.read_text(encoding="utf-8")
    page.unlink()
    result = call("report", "answers")
    assert result.exit_code == 0
    assert "answers/mine.html" in result.stdout
    assert page.read_text(encoding="utf-8") == text
    assert_refused(call("report", here), "holds no answer")


# Several files ------------------------------------------------------------------------------------


def test_several_files_are_as_many_answers_and_one_table(here):
    drifting("drifts.csv")
    (here / "other").mkdir()
    for file in ("mine.csv", "mine.yaml"):
        shutil.copy(file, here / "other" / file)
    result = infer("mine.csv", "drifts.csv", "other/mine.csv", "--out", "answers")
    assert result.exit_code == 3
    assert not CONTROL.search(result.stdout + result.stderr)
    assert max(map(len, result.stdout.splitlines())) <= 80
    table = pd.read_csv("answers/answers.csv")
    assert list(table["model"]) == ["accept", "escalate", "accept"]
    assert table["rate (1/s) median"].notna().all()
    written = {file.name for file in (here / "answers").glob("*.json")}
    assert written == {"mine.json", "drifts.json", "mine_2.json"}
    many = json.loads(infer("mine.csv", "other/mine.csv", "--json").stdout)
    assert [report["measurement"] for report in many] == ["mine.csv", "other/mine.csv"]


def test_one_bad_file_of_several_is_told_and_the_others_are_answered(here):
    (here / "short.csv").write_text("time/s,signal/V\n0.1,1.0\n")
    shutil.copy("mine.yaml", "short.yaml")
    result = infer("short.csv", "mine.csv", "--out", "answers")
    assert result.exit_code == 2
    assert "short.csv" in result.stderr
    assert "the model explains this record" in result.stdout
    assert not list((here / "answers").glob("short*"))


def test_joint_files_are_one_measurement(here, monkeypatch):
    shutil.copy("mine.csv", "again.csv")
    seen = []

    def read(model, data, meta):
        seen.append((sorted(file.name for file in data.iterdir()), meta.read_text()))
        raise artifacts.ArtifactError(f"{data}/again.csv: has no heading")

    monkeypatch.setattr(type(load_model(TOY)), "read", read)
    result = infer("mine.csv", "again.csv", "--joint", "--meta", "mine.yaml", "--set", "rate=0.1")
    ((names, meta),) = seen
    assert names == ["again.csv", "mine.csv", "mine.yaml"]
    assert yaml.safe_load(meta) == {"synthetic": True, "rate": 0.1}
    assert result.stderr == "touchstone: again.csv: has no heading\n"
    assert_refused(infer("mine.csv", "again.csv", "--joint"), "again.yaml: no such file")


# Reading and examples -----------------------------------------------------------------------------


def test_an_example_is_marked_as_simulated_and_gets_a_verdict(here):
    result = call("example", "--model", TOY, "--out", "new")
    assert result.exit_code == 0
    assert yaml.safe_load((here / "new/example.yaml").read_text())["synthetic"] is True
    assert infer("new/example.csv").exit_code == 0
    assert_refused(call("example", "--model", TOY, "--out", "new"), "is there already")


def test_read_says_what_was_understood(here, monkeypatch):
    result = call("read", "mine.csv", "--model", TOY)
    assert result.exit_code == 0
    assert result.stdout == "mine.csv\n- 20 samples from mine.csv\n"
    described = lambda model, data, meta: [f"{data.name} with {meta}"]  # noqa: E731
    monkeypatch.setattr(type(load_model(TOY)), "describe", described)
    assert "- mine.csv with mine.yaml" in call("read", "mine.csv", "--model", TOY).stdout
    (here / "mine.yaml").unlink()
    assert "- mine.csv with None" in call("read", "mine.csv", "--model", TOY).stdout


# Artefacts ----------------------------------------------------------------------------------------


def source_of(result):
    return json.loads(result.stdout)["lineage"]["artefact"]["source"]


def test_what_was_trained_here_comes_before_the_release(locally):
    assert source_of(infer("mine.csv", "--json")) == "trained"
    assert "trained here on" in call("models").stdout


def test_an_override_comes_before_both(locally, trained, monkeypatch):
    given = shutil.copytree(trained / "models" / TOY / "pretrained", locally / "elsewhere")
    monkeypatch.setenv("EXAMPLE_DECAY_CHECKPOINT", str(given))
    assert source_of(infer("mine.csv", "--json")) == "override"
    assert f"override {given}" in call("models").stdout
    (given / checkpoints.GUARDRAIL).unlink()
    assert_refused(infer("mine.csv"), "guardrail.json", "run `make MODEL=example_decay`")


def test_a_checkpoint_without_a_guardrail_leaves_the_answer_to_the_release(locally):
    (locally / f"results/{TOY}/reports/posterior_failure_mode_report.json").unlink()
    assert source_of(infer("mine.csv", "--json")) == "pretrained"


def test_where_there_is_no_artefact_a_sentence_says_what_to_run(here):
    shutil.rmtree(here / "models" / TOY / checkpoints.PRETRAINED)
    assert_refused(infer("mine.csv"), "nothing was trained", "run `make MODEL=example_decay`")


# What is refused ----------------------------------------------------------------------------------


def edited(file, *keys, value):
    """Change an entry of a JSON file as a person with an editor would."""
    content = json.loads(file.read_text(encoding="utf-8"))
    entry = content
    for key in keys[:-1]:
        entry = entry[key]
    entry[keys[-1]] = value
    file.write_text(json.dumps(content), encoding="utf-8")


EDITS = [
    (("best_guardrail", "rel_thr"), 0.0, "sha256"),
    (("best_guardrail", "rel_thr"), -1e9, "sha256"),
    (("best_guardrail", "rel_thr"), None, "best_guardrail.rel_thr"),
    (("best_guardrail", "cal_thr"), "high", "best_guardrail.cal_thr"),
    (("kind",), "infer", "kind is 'infer', expected 'posterior_failure_mode_report'"),
    (("schema_version",), 2, "schema_version is 2, expected 1"),
    (("best_guardrail",), {}, "best_guardrail"),
    (("sha256",), "0" * 64, "sha256"),
]


@pytest.mark.parametrize(("keys", "value", "told"), EDITS)
def test_an_edited_guardrail_is_refused_with_its_key(locally, keys, value, told):
    file = locally / f"results/{TOY}/reports/posterior_failure_mode_report.json"
    edited(file, *keys, value=value)
    assert_refused(infer("mine.csv"), f"{TOY}/reports/posterior_failure_mode_report.json", told)


@pytest.mark.parametrize("name", [checkpoints.GUARDRAIL, checkpoints.CERTIFICATE])
def test_an_edited_file_of_a_release_is_refused(here, name):
    folder = here / "models" / TOY / checkpoints.PRETRAINED
    edited(folder / name, "lineage", "seed", value=1)
    assert_refused(infer("mine.csv"), f"{name}: differs from its sha256 in manifest.json")
    assert_refused(call("verify", folder), name)


def test_a_certificate_that_is_none_is_refused_though_it_is_hashed(here):
    folder = here / "models" / TOY / checkpoints.PRETRAINED
    edited(folder / checkpoints.CERTIFICATE, "false_alarms", "rate", "value", value=0.5)
    names = ["proposal.npz", checkpoints.GUARDRAIL, checkpoints.CERTIFICATE]
    artifacts.write_manifest(folder, names, {}, {})
    assert_refused(infer("mine.csv"), "certificate.json: sha256")


def test_an_edited_stress_report_is_refused(locally):
    file = locally / f"results/{TOY}/reports/stress_report.json"
    edited(file, "runs", 0, "reliability_score", value=0.0)
    assert_refused(infer("mine.csv"), "lineage.inputs.stress", "run `make` again")


def test_a_guardrail_of_another_checkpoint_is_refused(locally):
    folder = locally / f"results/{TOY}/checkpoints/trained"
    artifacts.write_manifest(folder, ["proposal.npz"], {"held_out": 0.5}, {})
    assert_refused(infer("mine.csv"), "the guardrail was fitted for another checkpoint")


def test_a_release_without_a_certificate_says_so(here):
    folder = here / "models" / TOY / checkpoints.PRETRAINED
    (folder / checkpoints.CERTIFICATE).unlink()
    names = ["proposal.npz", checkpoints.GUARDRAIL]
    artifacts.write_manifest(folder, names, {}, {"date": "2026-11-27T12:00:00+00:00"})
    assert "pretrained on 2026-11-27, without a certificate" in infer("mine.csv").stdout


def test_a_release_whose_manifest_is_gone_is_no_release(here):
    (here / "models" / TOY / checkpoints.PRETRAINED / "manifest.json").unlink()
    assert_refused(infer("mine.csv"), "no artefact was released")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.csv"], ["nothing.csv: no such file"]),
        (["mine.csv", "--meta", "nothing.yaml"], ["nothing.yaml: no such file"]),
        (["short.csv", "--out", "answers"], ["short.csv: expected 20 rows"]),
        (["words.csv"], ["words.csv: cannot be read as a measurement of example_decay"]),
        (["mine.csv", "--out", "mine.csv"], ["mine.csv: cannot be written to"]),
        (["mine.csv", "--out", "/proc/none"], ["/proc/none: cannot be written to"]),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(here, arguments, words):
    (here / "short.csv").write_text("time/s,signal/V\n0.1,1.0\n")
    (here / "words.csv").write_text("time/s,signal/V\nno,numbers\n")
    for name in ("short", "words"):
        shutil.copy("mine.yaml", f"{name}.yaml")
    before = sorted(here.iterdir())
    assert_refused(infer(*arguments), *words)
    assert sorted(here.iterdir()) == before


def test_an_unknown_model_is_refused_with_those_that_exist(here):
    assert_refused(call("infer", "mine.csv", "--model", "alchemy"), "--model", "alchemy", TOY)


def test_a_wrong_folder_of_models_is_a_sentence(here, monkeypatch):
    monkeypatch.setenv("TOUCHSTONE_MODELS", str(here / "none"))
    assert_refused(call("models"), "TOUCHSTONE_MODELS", "is no folder")


# Verification -------------------------------------------------------------------------------------


def test_verify_says_what_it_verified(locally):
    folder = call("verify", locally / "models" / TOY / checkpoints.PRETRAINED)
    assert folder.exit_code == 0
    assert "certificate.json, guardrail.json, proposal.npz: as in manifest.json" in folder.stdout
    file = Path(f"results/{TOY}/reports/posterior_failure_mode_report.json")
    assert call("verify", f"results/{TOY}/checkpoints/trained").exit_code == 0
    assert "as it was written" in call("verify", file).stdout
    edited(file, "best_guardrail", "alpha", value=0.5)
    assert_refused(call("verify", file), "sha256")
    assert_refused(call("verify", locally), "no manifest.json")
    assert_refused(call("verify", "nothing"), "nothing: no such file")


def test_a_report_whose_input_changed_is_told(here):
    infer("mine.csv", "--out", "answers")
    report = call("verify", "answers/mine.json")
    assert report.exit_code == 0
    assert "data mine.csv: as in the lineage" in report.stdout
    with open("mine.csv", "a", encoding="utf-8") as stream:  # noqa: PTH123
        stream.write("\n")
    assert_refused(call("verify", "answers/mine.json"), "lineage.inputs.data", "has changed since")


# Compilations -------------------------------------------------------------------------------------


def test_compilations_are_kept_where_the_user_says_else_in_the_cache(here, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "mine.csv"))  # a file: not writable
    infer("mine.csv")
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    infer("mine.csv")
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(here / "cache/touchstone/jax")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    infer("mine.csv")
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "elsewhere"
