"""The released artefact: intact, of this model, small, and it answers where nothing was trained."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import touchstone
from touchstone.cli import app
from touchstone.contract import folders, load_model
from touchstone.io import artifacts, reports
from touchstone.io.results import Results
from touchstone.stages import checkpoints
from touchstone.stages.checkpoints import CERTIFICATE, GUARDRAIL, PRETRAINED

FOLDER = folders()["galaxy"] / PRETRAINED
ROOT = Path(__file__).parents[3]
MOST_BYTES = 2_000_000
SOUND = 0.95  # of the posteriors, for the model to leave its beta


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    """As found where nothing was trained, and its certificate."""
    found = checkpoints.find("galaxy", Results(tmp_path_factory.mktemp("nothing")))
    assert found.source == "pretrained"
    return found, reports.read(FOLDER / CERTIFICATE, "certificate")


def test_every_file_is_hashed_small_and_holds_no_table_of_others(artefact):
    _, certificate = artefact
    assert artifacts.verify(FOLDER, ["posterior_model.eqx", GUARDRAIL, CERTIFICATE])
    there = {file.name for file in artifacts.files(FOLDER)}
    assert there == {*artifacts.read_json(FOLDER / artifacts.MANIFEST)["files"], artifacts.MANIFEST}
    assert there == {
        artifacts.MANIFEST, "posterior_model.eqx", "model_meta.json", GUARDRAIL, CERTIFICATE,
    }  # fmt: skip
    assert sum((FOLDER / name).stat().st_size for name in there) <= MOST_BYTES
    assert (
        certificate["lineage"]["settings"]["model"]["nodes"] == load_model("galaxy").config["nodes"]
    )


def test_the_model_is_in_beta_unless_its_posteriors_are_sound(artefact):
    _, certificate = artefact
    sound = certificate["false_alarms"]["computation_sound"]
    assert sound["low"] <= sound["value"] <= sound["high"]
    assert load_model("galaxy").config["status"] == "beta" or sound["value"] >= SOUND


@pytest.mark.nightly
def test_a_question_is_answered_without_a_training(artefact, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = ["g=17.9", "r=17.2", "i=16.9", "z=16.7", "redshift=0.08"]
    told = CliRunner().invoke(
        app, ["predict", "galaxy", *values, "--do", "mass=2x", "--mode", "direct", "--json"]
    )
    assert told.exit_code in (0, 3)  # a verdict
    report = json.loads(told.stdout)
    assert report["artefact"].startswith("pretrained")
    (mass,) = (row for row in report["counterfactual"] if row["name"] == "log_mass_formed")
    assert mass["change"]["median"] == pytest.approx(0.30103, abs=1e-4)


@pytest.mark.nightly
def test_both_doors_answer_a_file_by_the_released_artefact(artefact, tmp_path, monkeypatch):
    """In a project of small budgets: the command line with a page, and Python."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOUCHSTONE_EXPERIMENT", raising=False)
    shutil.copytree(ROOT / "config", "config")
    Path("Snakefile").touch()
    file = Path("config/config.yaml")
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    few = {"n_draws": 200, "n_steps": 4, "n_centres": 32, "n_round": 256, "n_rounds": 2}
    config["galaxy"]["infer"] = few | {"n_last": 1024, "n_passes": 1}
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    Path("gal.csv").write_text("g,r,i,z,redshift\n17.9,17.2,16.9,16.7,0.08\n", encoding="utf-8")
    Path("gal.yaml").write_text("unit: AB mag\n", encoding="utf-8")
    asked = ["predict", "galaxy", "--observation", "gal.csv", "--mode", "direct", "--do"]
    told = CliRunner().invoke(app, [*asked, "mass=2x, metallicity=0.02", "--out", "answer"])
    assert told.exit_code in (0, 3), told.output  # a verdict
    (file,) = Path("answer").glob("*.json")
    report = reports.read(file, "counterfactual")
    assert report["artefact"].startswith("pretrained")
    assert {each.suffix for each in Path("answer").iterdir()} >= {".json", ".html", ".png"}
    rows = {row["name"]: row for row in report["counterfactual"]}
    assert rows["log_mass_formed"]["change"]["median"] == pytest.approx(0.30103, abs=1e-4)
    assert rows["log_metallicity"]["median"] == pytest.approx(0.0, abs=1e-6)
    answer = touchstone.load("galaxy").counterfactual(
        "gal.csv", do={"mass": "2x", "metallicity": 0.02}, mode="direct"
    )
    assert answer.counterfactual == report["counterfactual"]
