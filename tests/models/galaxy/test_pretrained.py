"""The released artefact: intact, of this model, small, and it answers where nothing was trained."""

import json

import pytest
from typer.testing import CliRunner

from touchstone.cli import app
from touchstone.contract import folders, load_model
from touchstone.io import artifacts, reports
from touchstone.io.results import Results
from touchstone.stages import checkpoints
from touchstone.stages.checkpoints import CERTIFICATE, GUARDRAIL, PRETRAINED

FOLDER = folders()["galaxy"] / PRETRAINED
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
