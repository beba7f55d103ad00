"""The artefact that was released: it answers where nothing was trained."""

import json

import pytest
from typer.testing import CliRunner

from touchstone.cli import app
from touchstone.contract import folders


@pytest.fixture(scope="module")
def certificate():
    """What the release was certified with."""
    file = folders()["regimes"] / "pretrained/certificate.json"
    return json.loads(file.read_text(encoding="utf-8"))


def test_a_question_is_answered_in_a_folder_where_nothing_was_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REGIMES_CHECKPOINT", raising=False)
    run = CliRunner().invoke(app, ["predict", "regimes", "treatment=1", "turbulent=0.3", "--json"])
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert found["lineage"]["artefact"]["source"] == "pretrained"
    assert found["causal_effects"].keys() == {"romer_shock"}
    response = found["effects_by_horizon"]["fred_INDPRO_growth"]["average"]
    two_years = found["effects_by_horizon"]["horizons"].index(24)
    # Two years after a shock production is lower, as Romer and Romer (2004) found.
    assert response["low"][two_years] < -2.0 < response["high"][two_years] + 2.0
    assert response["estimate"][two_years] < 0
    assert found["assumed_at"] == "1997-01-01"  # the last date of its series
    assert found["causal_effects"]["romer_shock"]["when"] == "in the same month"
    # The months want two regimes, as many as the effects are of.
    assert found["number_of_regimes"]["used"] == 2
    assert found["number_of_regimes"]["evidence"][1] > 0.9
    farthest = found["farthest_effects"]["fred_INDPRO_growth"]
    assert 18 <= farthest["horizon"] <= 30
    assert farthest["joint_low"] < farthest["estimate"] < farthest["joint_high"]
    assert not list(tmp_path.iterdir())


def test_every_problem_of_a_form_is_said_at_once(monkeypatch):
    monkeypatch.delenv("REGIMES_CHECKPOINT", raising=False)
    given = "fred_INDPRO_growth_lag_28d=high fred_INDPRO_growth_lag_5d=1 yahoo_^GSPC_Close=3"
    form = ["treatment=one", "turbulent=1.4", f"features={given} fred_INDPRO_growth_lag_59d=nan"]
    run = CliRunner().invoke(app, ["predict", "regimes", *form])
    assert run.exit_code == 2
    for words in (
        "treatment: 'one'", "turbulent: number 1: 1.4 is above 1.0",
        "fred_INDPRO_growth_lag_28d: 'high' is no finite number",
        "fred_INDPRO_growth_lag_59d: 'nan' is no finite number",
        "fred_INDPRO_growth_lag_5d: lies 5 days back, but fred_INDPRO_growth is published 17 days",
        "yahoo_^GSPC_Close: is no feature", "fred_BAA_less_AAA_lag_28d: is missing",
    ):  # fmt: skip
        assert words in run.output


def test_its_certificate_is_of_cases_that_were_used_for_nothing_else(certificate):
    rate, promised = (certificate["false_alarms"][key] for key in ("rate", "promised"))
    assert rate["n"] == 2000
    assert rate["low"] < promised["high"]
    rows = {(row["family"], row["severity"]): row["flagged"] for row in certificate["by_variant"]}
    assert rows["confounding", 1.0]["low"] < rate["high"]  # declared undetectable
    assert rows["wrong_lag", 1.0]["low"] > 0.8
