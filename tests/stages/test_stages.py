"""The five stages on a model whose posterior is known exactly, called as notebooks call them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest

from touchstone import contract
from touchstone.contract import Drawing, load_model
from touchstone.io import reports, settings
from touchstone.io.artifacts import ArtifactError
from touchstone.io.results import Results
from touchstone.reliability.decision import Decision
from touchstone.reliability.signs import MEANING
from touchstone.stages import (
    escalation,
    evidence,
    guardrail,
    infer,
    page,
    randomness,
    records,
    simulate,
    stress,
    summary,
    train,
)
from touchstone.vocabulary import Computation

MODEL_ID = "example_decay"
CONFIG = settings.complete(
    {
        **settings.defaults(settings.schema()),
        "models": [MODEL_ID],
        MODEL_ID: {"stress": {"n_cases": 60}, "calibration": {"n_cases": {"importance": 300}}},
    },
    contract.folders(),
)


def of_stage(stage):
    return settings.of_stage(CONFIG, MODEL_ID, stage)


class Run:
    """All stages, one after another, in a folder."""

    def __init__(self, folder):
        self.model, self.results = load_model(MODEL_ID), Results(folder)
        self.simulation = simulate.run(self.model, of_stage("simulate"), self.results, 0)
        audits = [self.results.report("simulate_0")]
        self.training = train.run(self.model, of_stage("train"), self.results, [], audits)
        self.stress = stress.run(self.model, of_stage("stress"), self.results)
        self.guardrail = guardrail.run(of_stage("guardrail"), self.results)
        self.model.example(np.random.default_rng(0), *self.results.example)
        self.inference = self.infer("example", *self.results.example)

    def infer(self, name, *paths):
        return infer.run(self.model, of_stage("infer"), self.results, name, *paths)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("results") / MODEL_ID)


def test_tables_of_the_reports_stand_beside_them_as_csv(done):
    posterior = pd.read_csv(done.results.table("infer_example"))
    for ours, row in zip(posterior.itertuples(), done.inference.report["posterior"], strict=True):
        assert (ours.quantity, ours.median) == (row["quantity"], row["median"])
        assert [ours.low_90, ours.high_90] == row["interval_90"]
    (calibrated,) = done.training.report["calibration"]
    table = pd.read_csv(done.results.table("train_calibration"))
    assert table["coverage_90"].tolist() == [row["coverage_90"] for row in calibrated["parameters"]]
    (held_out,) = done.training.report["held_out"]
    learnt = pd.read_csv(done.results.table("train_tables")).set_index(["name", "column"])["value"]
    for row in held_out["rows"]:
        assert {key: learnt[row["name"], key] for key in row.keys() - {"name"}} == {
            key: value for key, value in row.items() if key != "name"
        }


def test_the_posterior_is_the_exact_one(done):
    (row,) = done.stress.report["reference"]["summary"]
    assert row["n_sound"] == row["n_cases"] == 4
    assert row["c2st_median"] < 0.55
    assert row["width"] == pytest.approx(1.0, abs=0.05)
    assert row["param_nrmse"] == pytest.approx(row["reference_param_nrmse"], rel=0.05)


def test_a_right_posterior_is_calibrated(done):
    (row,) = done.training.report["calibration"]
    assert all(parameter["inside"] for parameter in row["parameters"])
    assert row["coverage_90"] == pytest.approx(0.9, abs=0.04)
    assessment, _ = done.training.assessments["importance"]
    assert kstest(assessment.distances, "uniform").pvalue > 1e-3


def test_a_posterior_that_is_too_narrow_is_not(done, monkeypatch):
    named = done.model.named

    def narrow(draws):
        centre = draws.mean(-2, keepdims=True)
        return named(centre + 0.5 * (draws - centre))

    monkeypatch.setattr(done.model, "named", narrow)
    _, (row,) = train.calibrate(done.model, of_stage("train"), {})
    assert not any(parameter["inside"] for parameter in row["parameters"])
    assert row["coverage_90"] < 0.75


def test_the_variants_of_a_base_case_differ_in_noise_and_stress_alone(done):
    in_distribution, control, stressed = (outcome.cases for outcome in done.stress.outcomes)
    for variant in (control, stressed):
        np.testing.assert_array_equal(variant.truth, in_distribution.truth)
        assert (variant.observed != in_distribution.observed).all()
    drift = (stressed.observed - in_distribution.observed).mean(0)
    np.testing.assert_allclose(drift, 0.5 * done.model.time / done.model.time[-1], atol=0.05)


def test_the_control_passes_and_the_stress_is_detected(done):
    assert done.stress.report["control"]["passed"]
    by_split = {row["split"]: row for row in done.guardrail.report["by_variant"]}
    assert by_split["stress_drifting"]["detected"]
    assert not by_split["control"]["detected"]


def test_the_rule_is_scored_on_cases_that_it_was_not_fitted_on(done):
    best = done.guardrail.report["best_guardrail"]
    assert best["n_fitted_cases"] + best["n_scored_cases"] == CONFIG[MODEL_ID]["stress"]["n_cases"]
    assert best["fpr"]["n"] == best["n_scored_cases"] == done.guardrail.scored.case_index.nunique()


def test_a_measurement_gets_both_verdicts_and_its_quantities(done):
    report = done.inference.report
    assert report["verdict"] == report["computation"]["verdict"] == "accept"
    truth = done.model.cases(1, *[np.random.default_rng(0)] * 2, {}).truth[0]
    for row, coordinate, quantity in zip(
        report["posterior"], truth, done.model.quantities, strict=True
    ):
        assert row["interval_90"][0] < row["median"] < row["interval_90"][1]
        before, after = (np.ptp(row[key]) for key in ("prior_interval_90", "interval_90"))
        assert after < 0.3 * before
        assert quantity.value(coordinate) == pytest.approx(row["median"], rel=0.2)


def test_a_measurement_that_drifts_is_escalated(done, tmp_path):
    time, signal = np.loadtxt(done.results.example[0], delimiter=",", skiprows=1).T
    drifting = np.column_stack([time, signal + 1.5 * (time / time[-1]) ** 2])
    np.savetxt(tmp_path / "drifts.csv", drifting, delimiter=",", header="time/s,signal/V")
    report = done.infer("drifts", tmp_path / "drifts.csv", done.results.example[1]).report
    assert report["verdict"] == "escalate"
    assert "worst at Time (s)" in report["reason"]
    assert report["score"] > report["threshold"]


def test_a_damaged_measurement_is_refused_by_name_and_leaves_no_report(done, tmp_path):
    (tmp_path / "short.csv").write_text("time/s,signal/V\n0.1,1.0\n")
    with pytest.raises(ArtifactError, match=r"short\.csv: expected 20 rows"):
        done.infer("short", tmp_path / "short.csv", done.results.example[1])
    assert not done.results.report("infer_short").exists()


def test_the_same_seed_gives_the_same_reports(done, tmp_path):
    again = Run(tmp_path / MODEL_ID)
    names = [path.stem for path in done.results.folder.glob("reports/*.json")]
    for name in set(names) - {"infer_drifts"}:
        first, second = (
            json.dumps(_without_paths(json.loads(run.results.report(name).read_text())))
            for run in (done, again)
        )
        assert first == second, name


def _without_paths(report):
    """What another run in another folder would reproduce."""
    if isinstance(report, dict):
        skipped = ("path", "checkpoint", "measurement", "sha256", "chunk_sha256")
        return {
            key: _without_paths(value)
            for key, value in reports.reproducible(report).items()
            if key not in skipped
        }
    return [_without_paths(item) for item in report] if isinstance(report, list) else report


def test_lineage_reaches_back_to_the_simulation(done):
    lineage = done.inference.report["lineage"]
    training = lineage["parents"]["guardrail"]["parents"]["stress"]["parents"]["checkpoint"]
    assert training["parents"]["audit_0"]["settings"]["n_rows"] == 2000
    assert lineage["verified"] is True


def test_the_closing_words_hold_the_verdict_and_every_quantity(done):
    folder = done.results.folder / "reports"
    words = summary.text({folder: "example"}, done.results.folder / "none.html")
    assert "example.csv: ACCEPT" in words
    assert all(quantity.name in words for quantity in done.model.quantities)
    assert "drift" in words


# Verdicts -----------------------------------------------------------------------------------------

# One case in 10 ** x is above x.
USUAL = [-1.0, 0.0, np.log10(5), 1 / np.log(10)]
RULE = Decision(dict.fromkeys(MEANING, USUAL), USUAL, 2.0, 0.05, 0.05, 300, 700)


def judged(*records, outside=None, places=None):
    """Verdict on records, each with the signs that are not the least."""
    found = {name: np.array([record.get(name, -1.0) for record in records]) for name in MEANING}
    places = places or [" (here)"] * len(records)
    return infer.judge_model(found, places, outside or [[] for _ in records], RULE)


@pytest.mark.parametrize(
    ("change", "outside", "decision", "words"),
    [
        ({}, [], "accept", "within the limit of 1 in 100"),
        ({"sign_misfit": 1.9}, [], "accept", "what is left unexplained, is as in 1 in 79"),
        (
            {"sign_misfit": 3.1},
            [],
            "escalate",
            "unexplained is large beside the record (as in 1 in 1,",
        ),
        (
            {"sign_misfit": 1.6, "sign_edge": 1.6},
            [],
            "escalate",
            "signs of misfit are as in 1 in 180",
        ),
        ({"sign_local": 3.1}, [], "escalate", "one stretch of the record errs to one side (here)"),
        ({}, ["the duration is 3 s"], "escalate", "outside the trained range: the duration is 3 s"),
    ],
)
def test_any_reason_escalates_and_is_told(change, outside, decision, words):
    got = judged(change, outside=[outside])
    assert got.verdict.decision == decision
    assert words in got.verdict.reason
    assert (got.score > RULE.threshold) == (decision == "escalate")


def test_one_record_of_several_escalates_and_is_named():
    got = judged({}, {"sign_edge": 5.0})
    assert got.verdict.decision == "escalate"
    assert got.verdict.reason.startswith("record 2: an estimate lies at the edge of its prior")


def test_the_worst_of_several_is_allowed_to_be_worse():
    change = {"sign_edge": 2.5}
    assert judged(change).verdict.decision == "escalate"
    assert judged(*[{}] * 9, change).verdict.decision == "accept"


def test_what_cannot_be_judged_is_no_pass_however_usual_its_signs_are():
    found = {name: np.full(2, -1.0) for name in MEANING}
    unjudged = [[], ["9 samples one after another have the largest value"]]
    got = infer.judge_model(found, ["", ""], [[], []], RULE, unjudged)
    assert got.verdict == (
        "cannot judge",
        "record 2: 9 samples one after another have the largest value",
    )
    assert got.score > RULE.threshold


@pytest.mark.parametrize(
    ("n_seen", "value", "words"),
    [(20, np.nan, "1 of 20 samples are not numbers"), (0, 1.0, "no sample was observed")],
)
def test_a_record_that_no_engine_takes_is_refused(done, n_seen, value, words):
    observed = done.inference.cases.observed.copy()
    observed[0, 3] = value
    mask = np.arange(observed.shape[1])[None] < n_seen
    cases = done.inference.cases._replace(observed=observed, mask=mask)
    source = records.Source("mine", "mine.csv", Path(), Path(), {}, ())
    with pytest.raises(ArtifactError, match=rf"mine\.csv: cannot judge: {words}"):
        infer._obstacles(cases, source)


@pytest.mark.parametrize("value", [0.9, np.nan])
def test_a_computation_beyond_its_limit_is_escalated(done, value):
    limits = {"k_hat": np.array([0.7])}
    computation = Computation({"k_hat": np.array([value])}, limits, {})
    posterior = done.inference.posterior._replace(computation=computation)
    verdict = infer.judge_computation(posterior)
    assert verdict.decision == "escalate"
    assert "k hat is" in verdict.reason


def test_an_engine_that_measures_nothing_is_not_believed(done):
    posterior = done.inference.posterior._replace(computation=Computation.unchecked())
    assert infer.judge_computation(posterior).decision == "escalate"


# After an escalation ------------------------------------------------------------------------------


def measured(done, name, stress=None, severity=0.0, added=0.0, seed=1):
    """Files of one simulated record, to which something may be added."""
    rngs = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    case = done.model.cases(1, *rngs, {}, stress, severity)
    file = done.results.folder / f"{name}.csv"
    table = np.column_stack([done.model.time, case.observed[0] + added])
    np.savetxt(file, table, delimiter=",", header="time/s,signal/V")
    meta = file.with_suffix(".yaml")
    meta.write_text("synthetic: true\n")
    return file, meta


def escalated(done, name, *paths):
    return infer.run(
        done.model, of_stage("infer"), done.results, name, *paths, escalate=True
    ).report


def test_a_mismatch_that_the_finer_simulator_knows_of_is_resolved(done):
    paths = measured(done, "drifting", "drift", 1.0)
    first = done.infer("drifting", *paths).report
    assert first["verdict"] == "escalate"
    assert "touchstone infer drifting.csv --escalate" in summary.answer_text(first)
    again = escalated(done, "drifting", *paths)
    assert again["posterior"] == first["posterior"]
    found = again["escalation"]
    assert found["resolved"] and not found["faults"]
    rows = {row["quantity"]: row for row in found["posterior"]}
    low, high = rows["drift"]["interval_90"]
    assert low < done.model.config["stresses"]["drift"]["slope"] < high
    words = summary.answer_text(again).replace("\n", " ")
    assert "Resolved: a drift, size (V) 0." in words
    assert "touchstone infer" not in words
    text = page.render(again, None)
    assert "The posterior with a drift" in text and "Resolved: a drift" in text


def test_figures_of_the_models_own_stand_on_the_page_with_their_captions(done, tmp_path):
    report = done.infer("plain", *measured(done, "plain")).report
    assert "drawings" not in report  # of a model that has none
    own = Drawing("states", "What is hidden.", lambda figure: figure.subplots().plot([0, 1]))
    own.save(tmp_path / "plain_states.png")
    own.save(tmp_path / "plain.png")
    text = page.render(
        {**report, "drawings": [{"name": own.name, "caption": own.caption}]}, tmp_path / "plain.png"
    )
    assert text.count("data:image/png") == 2
    assert "<figcaption>What is hidden.</figcaption>" in text


def test_what_the_finer_simulator_does_not_explain_is_not_resolved_by_it(done):
    spikes = 0.6 * (np.arange(len(done.model.time)) % 7 == 3)
    report = escalated(done, "spiked", *measured(done, "spiked", added=spikes))
    assert report["verdict"] == "escalate"
    assert not report["escalation"]["resolved"]
    words = summary.answer_text(report).replace("\n", " ")
    assert "Not resolved: a drift" in words
    best, worst = report["next_measurements"]
    assert (best["protocol"], worst["protocol"]) == ("the same again", "the same after an hour")
    assert best["gain"] > 3 * best["error"] > 0
    assert worst["gain"] == pytest.approx(0.0, abs=1e-6)
    assert best["informs"] and not worst["informs"]
    assert f"Measure next: {best['protocol']}" in words


def test_records_of_the_family_are_not_resolved_by_what_they_do_not_hold(done):
    rule = Decision.from_json(done.guardrail.report["decision"])
    budget, resolved = of_stage("infer")["infer"], 0
    cases = done.model.cases(20, np.random.default_rng(3), np.random.default_rng(4), {})
    for k in range(20):
        one = cases.take([k])
        rng = np.random.default_rng(k)
        posterior = done.model.infer(one, rng, method="importance", budget=budget)
        found = escalation.resolve(done.model, one, posterior, [[]], rule, rng, budget)
        assert found.computation.decision == "accept"
        resolved += found.resolved
    assert resolved == 0  # each has a chance of e^-5 at most


def test_an_answer_that_leaves_nothing_open_is_not_acted_on(done):
    report = escalated(done, "example", *done.results.example)
    assert report["verdict"] == "accept" and report["uninformed"] == []
    assert not {"command", "escalation", "next_measurements"} & set(report)


# Randomness ---------------------------------------------------------------------------------------


def test_every_stage_and_purpose_has_random_numbers_of_its_own():
    places = [
        (seed, stage, *index)
        for seed in (0, 1)
        for stage in ("simulate", "train", "stress", "guardrail", "infer")
        for index in ((), (0,), (1,), (0, 0), (0, 1), (1, 0))
    ]
    drawn = {randomness.generator(*place).integers(2**63) for place in places}
    assert len(drawn) == len(places)


# Beside others ------------------------------------------------------------------------------------


def guarded(done, folder, change):
    """The report of the rule on the score table after a change of it."""
    table = json.loads(done.results.report("stress_report").read_text())
    change(table)
    body = {k: v for k, v in table.items() if k not in ("schema_version", "kind", "sha256")}
    results = Results(folder / MODEL_ID)
    lineage, timing = body.pop("lineage"), body.pop("timing")
    reports.write(results.report("stress_report"), "stress_report", body, lineage, timing)
    return guardrail.run(of_stage("guardrail"), results).report


def test_the_rule_lies_on_the_curve_also_where_computations_are_unsound(done, tmp_path):
    def change(table):
        for row in table["runs"]:
            row["computation_sound"] = float(row["case_index"] % 3 > 0)

    harm = guarded(done, tmp_path, change)["harm"]
    curve = pd.DataFrame(harm["curve"])
    at_rule = np.interp(harm["accepted"]["value"], curve["accepted"], curve["wrong"])
    assert 0 < harm["accepted"]["value"] < 2 / 3
    assert at_rule == pytest.approx(harm["wrong"]["value"], abs=0.01)


def test_harm_is_certified_again_without_what_no_test_could_detect(done, tmp_path):
    """Of a second family, which is the first at severity 0 and so absorbed, nothing is left."""

    def change(table):
        stressed = [row for row in table["runs"] if row["split"].startswith("stress_")]
        inside = [row for row in table["runs"] if row["split"] == "in_distribution"]
        table["runs"] += [
            row | {"split": "stress_hidden", "family": "hidden", "severity": 1.0} for row in inside
        ]
        variant = {"n_cases": len(inside)}
        table["split_summary"] += [
            each | {"split": "stress_hidden", "family": "hidden", "severity": 1.0} | variant
            for each in table["split_summary"]
            if each["split"] == "in_distribution"
        ]
        table["detection"] = [
            {"family": f, "severity": s, "case_index": k, "power": p, "power_if_known": None}
            for f, s, k, p in (
                *((r["family"], r["severity"], r["case_index"], r["severity"]) for r in stressed),
                *(("hidden", 1.0, r["case_index"], 0.05) for r in inside),
            )
        ]

    report = guarded(done, tmp_path, change)
    alone = done.guardrail.report["harm"]
    some = report["harm"]["of_detectable"]
    assert some["families"] == ["drift"]
    # Which is the mix of the table without that family.
    for name in ("accepted", "wrong", "before"):
        assert some[name]["value"] == pytest.approx(alone[name]["value"])
    assert report["harm"]["before"]["value"] < some["before"]["value"]
    rows = evidence.oracle_table(report)
    assert [row[0] for row in rows[1:]].count("hidden") == 1
    assert not any(row[:2] == ["drift", "1"] for row in rows)
    said = evidence.oracle_sentence(report)
    assert "detects 1 (mean power of at least 0.95" in said
    assert f"Of the other {len(report['oracle']) - 1} the parameters absorb" in said
    assert f"those that the best test could detect (drift), {some['wrong']['value']:.2f} [" in (
        summary.harm_sentence(report)
    )


def test_tables_of_the_rule_beside_others_have_a_row_for_each(done):
    report = done.guardrail.report
    for rows, table, sentence in (
        (report["rivals"], evidence.rivals_table, evidence.rivals_sentence),
        (report["left_out"], evidence.left_out_table, evidence.left_out_sentence),
    ):
        shown = table(report)
        assert len(shown) == 1 + len(rows) > 1
        assert {len(row) for row in shown} == {len(shown[0])}
        assert sentence(report).endswith(".")
    recall = report["rivals"][0]["recall"] + report["rivals"][0]["gain"]["value"]
    assert f"The rule detects {recall:.2f} of" in evidence.rivals_sentence(report)
    assert evidence.oracle_table(report | {"oracle": []})[1:] == []
    assert evidence.oracle_sentence(report | {"oracle": []}) == ""


def test_what_is_let_through_counts_both_verdicts(done, tmp_path):
    """A table in which every computation is unsound lets nothing through, whatever the model."""

    def change(table):
        for row in table["runs"]:
            row["computation_sound"] = 0.0

    harm = guarded(done, tmp_path, change)["harm"]
    assert harm["accepted"]["value"] == 0.0
    assert harm["wrong"]["value"] is None
    assert harm["at_most"] == 1.0
    assert done.guardrail.report["harm"]["accepted"]["value"] > 0


def test_a_drift_makes_answers_wrong_and_the_rule_takes_them_out(done):
    harm = done.guardrail.report["harm"]
    assert harm["wrong"]["high"] < harm["before"]["value"]
    (chi_square,) = (
        row for row in done.guardrail.report["rivals"] if row["name"] == "predictive chi-square"
    )
    assert 0 < chi_square["recall"] <= 1
    assert chi_square["gain"]["low"] <= chi_square["gain"]["value"] <= chi_square["gain"]["high"]


def test_what_the_oracle_says_of_a_case_stands_beside_what_the_rule_does(done):
    """No rule of its level surpasses the oracle, which sees the whole drift here."""
    (row,) = done.guardrail.report["oracle"]
    assert (row["family"], row["severity"], row["n"]) == ("drift", 1.0, 12)
    assert row["if_known"] is None
    assert 0.05 < row["power"] <= 1
    assert row["flagged"]["low"] < row["power"]
    assert set(row["bias"]) == {"rate"}
    detection = done.stress.detection
    assert detection["case_index"].tolist() == list(range(12))
    assert row["power"] == pytest.approx(detection["power"].mean())


def test_base_cases_score_as_those_of_the_calibration(done):
    found = done.guardrail.report["exchangeable"]
    assert found["n"] == 60
    assert found["p_value"] > 0.001
