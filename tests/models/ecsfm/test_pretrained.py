"""The released artefact: what its certificate says of it is so, and it answers a user's files."""

import json

import numpy as np
import pytest
import yaml
from scipy.stats import binom
from typer.testing import CliRunner

from touchstone.cli import app
from touchstone.contract import folders, load_model
from touchstone.io import artifacts, reports
from touchstone.io.results import Results
from touchstone.reliability.decision import Decision
from touchstone.stages import checkpoints, train
from touchstone.stages.cases import evidence
from touchstone.stages.checkpoints import CERTIFICATE, GUARDRAIL, PRETRAINED

FOLDER = folders()["ecsfm"] / PRETRAINED
WEIGHTS = ("surrogate_model.eqx", "posterior_model.eqx")
MOST_BYTES = 6_000_000
CHANCE = 1e-4  # that an artefact as good as its certificate fails a test of its rates
N_FLOW, N_CASES = 300, 40


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    """As found where nothing was trained, with the model that holds it."""
    found = checkpoints.find("ecsfm", Results(tmp_path_factory.mktemp("nothing")))
    assert found.source == "pretrained"
    rule = checkpoints.guardrail_of(found)
    model = load_model("ecsfm")
    assert model.load(found.checkpoint)
    return model, rule, reports.read(FOLDER / CERTIFICATE, "certificate")


def assert_as_certified(n_found: int, n: int, rate: dict) -> None:
    """The number found is likely under a rate in the certificate's interval."""
    assert binom.ppf(CHANCE, n, rate["low"]) <= n_found <= binom.ppf(1 - CHANCE, n, rate["high"])


def test_every_file_is_hashed_small_and_says_where_it_comes_from(artefact):
    _, rule, certificate = artefact
    assert artifacts.verify(FOLDER, [*WEIGHTS, GUARDRAIL, CERTIFICATE])
    there = {file.name for file in artifacts.files(FOLDER)}
    assert there == {*artifacts.read_json(FOLDER / artifacts.MANIFEST)["files"], artifacts.MANIFEST}
    assert sum((FOLDER / name).stat().st_size for name in WEIGHTS) <= MOST_BYTES
    assert certificate["decision"] == rule["decision"]
    lineage = certificate["lineage"]
    assert lineage["seed"] and lineage["versions"]["jax"] and lineage["revision"]


def test_what_is_certified_rests_on_as_many_cases_as_a_release_needs(artefact):
    model, _, certificate = artefact
    assert all(row["n_cases"] >= 2000 for row in certificate["calibration"])
    assert certificate["false_alarms"]["rate"]["n"] >= 2000
    assert certificate["decision"]["n_calibrated"] >= 980
    by_variant = certificate["by_variant"]
    assert {row["family"] for row in by_variant} == {None, *model.stresses}
    assert sum(row["flagged"]["n"] for row in by_variant) >= 1800  # 60 of each: see release.yaml


def test_the_false_alarms_certified_are_those_that_the_calibration_promises(artefact):
    _, _, certificate = artefact
    alarms = certificate["false_alarms"]
    rate, promised = alarms["rate"], alarms["promised"]
    assert rate["low"] <= promised["high"]
    assert rate["high"] >= promised["low"]
    assert promised["low"] < certificate["decision"]["alpha"]


def test_posteriors_of_the_flow_are_calibrated_as_certified(artefact):
    model, _, certificate = artefact
    budgets = certificate["lineage"]["settings"]["budgets"]
    settings = {"seed": 7, "calibration": {"n_cases": {"flow": N_FLOW}}, "budgets": budgets}
    _, (row,) = train.calibrate(model, settings, {})
    (certified,) = (row for row in certificate["calibration"] if row["method"] == "flow")
    for ours, theirs in zip(row["parameters"], certified["parameters"], strict=True):
        assert ours["parameter"] == theirs["parameter"]
        n, rate = ours["n"], theirs["coverage_90"]
        spread = 4 * np.sqrt(rate * (1 - rate) * (1 / n + 1 / theirs["n"])) + 1 / n
        assert ours["coverage_90"] == pytest.approx(rate, abs=spread)


def flagged(artefact, stress=None):
    """How many of some fresh cases the rule escalates."""
    model, rule, certificate = artefact
    streams = np.random.default_rng(11).spawn(3)
    cases = model.cases(N_CASES, streams[0], streams[1], {}, stress, 1.0 if stress else 0.0)
    budget = certificate["lineage"]["settings"]["budgets"][model.methods[0]]
    posterior = model.infer(cases, streams[2], method=model.methods[0], budget=budget)
    found = evidence(model, cases, posterior)
    decision = Decision.from_json(rule["decision"])
    return int((decision.score(found) > decision.threshold).sum())


@pytest.mark.nightly
def test_alarms_on_fresh_cases_are_as_certified_and_on_biofouled_ones_too(artefact):
    _, _, certificate = artefact
    assert_as_certified(flagged(artefact), N_CASES, certificate["false_alarms"]["rate"])
    (severe,) = (
        row["flagged"]
        for row in certificate["by_variant"]
        if row["family"] == "dynamic" and row["severity"] == 1.0
    )
    assert severe["low"] > certificate["false_alarms"]["rate"]["high"]
    assert_as_certified(flagged(artefact, "dynamic"), N_CASES, severe)


def command(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """A folder with the example where nothing was trained, and the report on it."""
    folder = tmp_path_factory.mktemp("answered")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert command("example").exit_code == 0
        found = command("infer", "example.csv", "--json", "--cycle", "all", "--out", "answers")
    assert found.exit_code == 0, found.output
    return folder, json.loads(found.stdout)


def test_it_answers_where_nothing_was_trained_and_says_so(answered):
    folder, report = answered
    assert report["lineage"]["artefact"]["source"] == "pretrained"
    assert report["lineage"]["set"] == ["cycle=all"]
    truth = yaml.safe_load((folder / "example.yaml").read_text(encoding="utf-8"))["truth"]
    rows = [(row["interval_90"], truth[row["quantity"]]) for row in report["posterior"]]
    inside = sum(low <= value <= high for (low, high), value in rows)
    assert inside >= binom.ppf(CHANCE, len(rows), 0.9)
    assert (folder / "answers/example.html").is_file()
    said = command("verify", str(FOLDER))
    assert said.exit_code == 0
    assert CERTIFICATE in said.output


def test_values_get_the_posterior_and_both_verdicts_of_the_files_that_hold_them(
    answered, monkeypatch
):
    folder, of_files = answered
    monkeypatch.chdir(folder)
    time, potential, current = np.loadtxt("example.csv", delimiter=",", skiprows=2).T
    meta = yaml.safe_load((folder / "example.yaml").read_text(encoding="utf-8"))
    values = {"t_s": time, "E_V": potential, "i_A": 1e-6 * current}
    values = {name: ",".join(map(repr, column.tolist())) for name, column in values.items()}
    values |= {**meta["electrode"], "temperature_C": meta["temperature_C"], "cycle": "all"}
    for number, couple in enumerate(meta["couples"], 1):
        values |= {f"{name}_{number}": value for name, value in couple.items()}
    found = command("predict", "ecsfm", "--json", *(f"{k}={v}" for k, v in values.items()))
    assert found.exit_code == 0, found.output
    answer = json.loads(found.stdout)
    of_values = answer["inference"]
    for key in ("verdict", "reason", "score", "signs", "computation", "posterior", "metrics"):
        assert of_values[key] == of_files[key]
    assert (answer["verdict"], answer["reason"]) == (of_files["verdict"], of_files["reason"])
    assert answer["computation"]["verdict"] == of_files["computation"]["verdict"]
    medians = {row["name"]: row["median"] for row in answer["estimates"]}
    assert medians == {row["quantity"]: row["median"] for row in of_files["posterior"]}
    assert answer["assumed"] == {"current_sign": "oxidation_positive"}
