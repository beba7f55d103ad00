"""From series on disk to answers: the artefact, what is refused, and what clients are told."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from touchstone.contract import load_model
from touchstone.io import artifacts
from touchstone.io.artifacts import ArtifactError
from touchstone.models.regimes import answer, economy, refusals, sensitivity, series, synthetic
from touchstone.models.regimes.series import LookAheadError

SETTINGS = {
    "data": None, "meta": None, "held_out": 0.15, "n_folds": 3, "n_series": 50, "n_horizons": 2,
    "n_regimes": 2, "n_warmup": 50, "n_draws": 200, "n_dates": 40, "n_steps": 20,
}  # fmt: skip
BUDGET = {"n_warmup": 50, "n_draws": 200}
FEATURES = " ".join(f"{name}=0.1" for name in synthetic.RECIPE.controls)


def write(folder, name, table, recipe):
    data, meta = folder / f"{name}.csv", folder / f"{name}.yaml"
    series.write_csv(data, table)
    series.write_recipe(meta, recipe, "simulated")
    return data, meta


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model that learnt from the CSV of a synthetic economy; its fit; its folder."""
    folder = tmp_path_factory.mktemp("regimes")
    table = synthetic.draw(np.random.default_rng(1), 300).table
    data, _ = write(folder, "series", table, synthetic.RECIPE)
    model = load_model("regimes")
    fit = model.fit([data], SETTINGS, np.random.default_rng(2), folder / "trained", {})
    return model, fit, folder


def test_the_effects_of_an_economy_lie_in_their_intervals(trained):
    found = trained[0].predict({"treatment": 1.0}, np.random.default_rng(0))["effects_by_regime"]
    for name, truth in zip(("calm", "turbulent"), synthetic.EFFECT, strict=True):
        assert found[name]["low"] < truth < found[name]["high"]


def test_placebos_of_an_economy_of_the_family_are_as_those_of_simulated_series(trained):
    (placebos,) = (t for t in trained[1].tables if t.title.startswith("Placebos"))
    assert 0.01 < placebos.rows[0]["p-value"] <= 1
    assert placebos.rows[0]["part"] < 0.4


def test_what_was_found_is_said_first(trained):
    """What the treatment does to the outcome, in each regime, before how it was found."""
    first = trained[1].findings[0]
    assert first.startswith("a unit of shock moves output by -")
    assert "after turbulent dates" in first
    # Which is of another horizon than what is told of robustness and regimes.
    learnt = trained[0].economy
    h = int(np.abs(learnt.responses[0, 0, :, 0]).argmax())
    assert f"on average {('in the same month', '1 month later')[h]}, where it is" in first
    low, high = learnt.responses[0, 0, h, 3:]
    assert f"joint band of all horizons goes from {low:.2g} to {high:.2g}" in first
    assert "placebos below are of output in the same month" in trained[1].findings[1]
    titles = [table.title for table in trained[1].tables]
    for words in ("Effect of one sd", "An omitted cause", "Placebos"):
        (title,) = (title for title in titles if title.startswith(words))
        assert "in the same month" in title
    names = [each.name for each in trained[1].drawings]
    assert names[:2] == ["effect_by_horizon", "level"]


def test_nothing_that_was_held_out_changes_the_scaler(trained, tmp_path):
    model, _, folder = trained
    learnt = model.economy
    table = series.read_csv(folder / "series.csv", synthetic.RECIPE)
    design = series.design(table, synthetic.RECIPE)
    n = int(learnt.n_rows)
    assert n == len(design.dates) - round(0.15 * len(design.dates))
    np.testing.assert_allclose(learnt.mean[2:], design.controls[:n].mean(0))
    np.testing.assert_allclose(learnt.sd[0], design.outcome[:n].std())
    meta = artifacts.read_json(folder / "trained/model_meta.json")
    assert meta["feature_columns"] == list(synthetic.RECIPE.controls)


def test_what_is_assumed_is_of_the_date_after_the_last_row(trained):
    """Features and regime of one date, which was held out; the regime is that of Hamilton's filter
    over all rows, written out."""
    learnt = trained[0].economy
    table = series.read_csv(trained[2] / "series.csv", synthetic.RECIPE)
    design = series.design(table, synthetic.RECIPE)
    window = learnt.window(design)
    np.testing.assert_allclose(learnt.last, window.controls[0, -1])
    y, d, x = window.outcome[0], window.treatment[0], window.controls[0]
    left = y - d * learnt.switching.slope[0] - x @ learnt.slope
    now = np.full(2, 0.5)
    for value in left:
        density = np.exp(-0.5 * (value - learnt.intercept) ** 2 / learnt.variance)
        now = now * density / np.sqrt(learnt.variance)
        now = now / now.sum() @ learnt.transition
    # Slopes of the regression are not quite those of the regimes.
    np.testing.assert_allclose(learnt.now, now, atol=0.03)
    found = trained[0].predict({"treatment": 1.0}, np.random.default_rng(0))
    assert found["assumed_at"] == str(design.dates[-1])
    assert len(design.dates) > int(learnt.n_rows)


def test_a_checkpoint_answers_as_the_model_that_wrote_it_and_a_damaged_one_not_at_all(trained):
    model, _, folder = trained
    other = load_model("regimes")
    assert other.load(folder / "trained")
    rng = np.random.default_rng(0)
    given = {"treatment": 0.5}
    assert other.predict(given, rng) == model.predict(given, rng)
    file = folder / "trained/economy.npz"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"x")
    with pytest.raises(ArtifactError, match=r"economy\.npz: differs from its sha256"):
        other.load(folder / "trained")
    file.write_bytes(content)


def test_clients_of_causal_models_find_their_keys(trained):
    found = trained[0].predict({"treatment": 1.0, "turbulent": 0.3}, np.random.default_rng(0))
    assert found["model_type"] == "hybrid_causal_model"
    assert found["causal_effects"].keys() == {"shock"}
    assert (found["n_samples"], found["n_features"]) == (int(trained[1].n_rows), 3)
    assert found["regime_probabilities"] == {"calm": 0.7, "turbulent": 0.3}
    assert found["dominant_regime"] == "calm"
    assert sum(found["uncertainty"].values()) == pytest.approx(1.0)
    assert (found["verdict"], found["refusals"]) == ("accept", [])
    assert found["assumed"].keys() == set(synthetic.RECIPE.controls)
    by_horizon = found["effects_by_horizon"]
    assert by_horizon["horizons"] == [0, 1]
    assert by_horizon["output"]["turbulent"].keys() == {"estimate", "low", "high"}
    assert found["causal_effects"]["shock"]["when"] == "in the same month"
    farthest = found["farthest_effects"]["output"]
    average = by_horizon["output"]["average"]
    assert farthest["horizon"] == int(np.abs(average["estimate"]).argmax())
    assert farthest["joint_low"] <= farthest["low"] == average["low"][farthest["horizon"]]
    assert "not detectable" in found["cautions"][0]
    summed = answer.answer(
        replace(trained[0].economy, cumulative=np.array(True)), {"treatment": 1.0}
    )
    assert "response of sum of output" in {row["name"] for row in summed["estimates"]}
    number = found["number_of_regimes"]
    assert number["used"] == 2
    assert len(number["evidence"]) == SETTINGS["n_regimes"]
    assert sum(number["evidence"]) == pytest.approx(1.0)
    *_, last = found["probabilities"]
    assert last["name"] == "2 regimes, by the evidence (BIC) of the training"
    assert last["value"] == number["evidence"][1]


def test_the_number_of_regimes_is_judged_by_evidence_which_an_answer_tells(trained):
    """The table beside densities of scipy, for one regime; and cautions of all who ask."""
    model, fit, folder = trained
    (table,) = (t for t in fit.tables if t.title.startswith("Number of regimes, by evidence"))
    one, two = table.rows
    design = series.design(
        series.read_csv(folder / "series.csv", synthetic.RECIPE), synthetic.RECIPE
    )
    n = int(model.economy.n_rows)
    columns = np.column_stack([np.ones(len(design.dates)), design.treatment, design.controls])
    y = model.economy.window(design).outcome[0]
    left = y - columns @ np.linalg.lstsq(columns[:n], y[:n])[0]
    density = norm.logpdf(left, scale=left[:n].std())
    assert one["log likelihood"] == pytest.approx(density[:n].sum(), abs=1e-3)
    assert one["log score of a date held out"] == pytest.approx(density[n:].mean(), abs=1e-4)
    # Two regimes is what the economy has.
    assert two["probability"] > 0.99
    assert two["log score of a date held out"] > one["log score of a date held out"]
    said = "effects by regime are those of 2 regimes; by evidence (BIC) the probabilities of one to"
    assert fit.findings[2].startswith(said)

    def cautions(*evidence):
        return answer.cautions(replace(model.economy, evidence=np.array(evidence)))[1:]

    assert cautions(0.05, 0.9, 0.05) == []
    (of_one,) = cautions(0.8, 0.15, 0.05)
    assert of_one.startswith(f"{said} 3 are 0.80, 0.15, 0.05: one is favoured")
    assert "may differ by chance alone" in of_one
    (of_three,) = cautions(0.1, 0.2, 0.7)
    assert "3 are favoured, so that either of the two may be several in one" in of_three
    assert answer.number_of_regimes(replace(model.economy, evidence=None)) == []


def test_a_feature_out_of_its_range_is_refused_by_its_name(trained):
    far = FEATURES.replace("prices_lag_28d=0.1", "prices_lag_28d=40")
    found = trained[0].predict({"treatment": 1.0, "features": far}, np.random.default_rng(0))
    assert found["verdict"] == "escalate"
    assert found["outside_training"] == found["refusals"]
    assert found["refusals"][0].startswith(
        "feature outside its range: prices_lag_28d is 40, trained from"
    )


def refused(learnt, shock=1.0, controls=(0.1, 0.1, 0.1), turbulent=0.3):
    rows = refusals.Rows(np.array([shock]), np.array([controls]), np.array([turbulent]))
    return refusals.of_rows(learnt, rows)[0]


def test_every_reason_to_refuse_a_date_is_given_by_its_name(trained):
    learnt = trained[0].economy
    assert refused(learnt) == []
    far = np.column_stack([learnt.low, learnt.high]).max(1) + 0.2 * (learnt.high - learnt.low)
    few = replace(learnt, n_regime=np.array([200.0, 6.0]))
    broken = replace(learnt, break_p=np.array(1e-6))
    found = [
        *refused(learnt, controls=(0.1, 40.0, 0.1)),
        *refused(learnt, shock=30.0),
        *refused(learnt, controls=far),
        *refused(few),
        *refused(broken),
    ]
    assert [each.split(":")[0].split(" (")[0] for each in found] == [
        "feature outside its range", "no overlap", "unseen regime", "too few dates in a regime",
        "structural break since training",
    ]  # fmt: skip
    assert "prices_lag_28d" in found[0]
    assert refused(few, turbulent=0.0) == []  # an effect that nobody asks for
    with pytest.raises(ArtifactError, match="activity_lag_5d: lies 5 days back, but activity is"):
        given = FEATURES.replace("activity_lag_28d", "activity_lag_5d")
        trained[0].predict({"treatment": 1.0, "features": given}, np.random.default_rng(0))


def test_windows_of_the_training_are_rarely_refused_and_changed_ones_are(trained):
    learnt, rng = trained[0].economy, np.random.default_rng(11)
    rows = rng.integers(len(learnt.draws), size=60)
    parameters = economy.Parameters(*(values[rows] for values in learnt.parameters))
    window = economy.draw(learnt, parameters, 160, rng, rng)

    def reasons(outcome):
        found = refusals.of_windows(learnt, window._replace(outcome=outcome))
        return [" ".join(each) for each in found]

    assert sum(map(bool, reasons(window.outcome))) <= 4
    assert len(refusals.breaks(learnt, window)) <= 4
    moved = window._replace(outcome=window.outcome + 1.5 * np.sqrt(learnt.outcome_variance))
    assert len(refusals.breaks(learnt, moved)) > 0.8 * 60
    wild = window.outcome.copy()
    wild[:, 60:80] += 6 * rng.standard_normal((60, 20))
    assert np.mean(["unseen regime" in each for each in reasons(wild)]) > 0.9


def test_rounding_is_nothing_new_where_one_control_is_the_lag_of_another():
    """Of the monthly series three controls are growth one, two and three months back."""
    design = series.design(*series.monthly())
    controls = (design.controls - design.controls.mean(0)) / design.controls.std(0)
    memory, innovations = economy.autoregression(controls)
    fields = dict.fromkeys(economy.Economy.__dataclass_fields__, np.zeros(0))
    learnt = economy.Economy(**fields | {"memory": memory, "innovations": innovations})
    rounded = np.round(controls, 4)
    exact = refusals.unlike(learnt, controls)
    assert refusals.unlike(learnt, rounded) == pytest.approx(exact, rel=0.02)
    assert refusals.unlike(learnt, np.repeat(controls[::20], 20, axis=0)) > 2 * exact


def test_a_batch_is_answered_as_each_row_alone(trained):
    rng = np.random.default_rng(0)
    features = "activity_lag_28d=0.1,9 prices_lag_28d=0.2 spread_lag_28d=-0.3,0.4"
    batch = {"treatment": [1.0, -2.0], "turbulent": [0.2, 0.8], "features": features}
    found = trained[0].predict(batch, rng)
    for k, row in enumerate(
        (
            "activity_lag_28d=0.1 prices_lag_28d=0.2 spread_lag_28d=-0.3",
            "activity_lag_28d=9 prices_lag_28d=0.2 spread_lag_28d=0.4",
        )
    ):
        given = {"treatment": batch["treatment"][k], "turbulent": batch["turbulent"][k]}
        alone = trained[0].predict({**given, "features": row}, rng)
        assert found["outcome"]["mean"][k] == pytest.approx(alone["outcome"]["mean"])
        assert found["uncertainty"]["noise"][k] == pytest.approx(alone["uncertainty"]["noise"])
        assert found["dominant_regime"][k] == alone["dominant_regime"]
        assert (found["verdicts"][k], found["refusals"][k]) == (
            alone["verdict"], alone["refusals"],
        )  # fmt: skip
    assert found["verdict"] == "escalate"  # of all rows together
    with pytest.raises(ArtifactError, match="numbers of rows differ: treatment: 2; expected 1 or"):
        trained[0].predict({**batch, "turbulent": [0.1, 0.2, 0.3], "features": None}, rng)


def test_every_problem_of_features_is_said_at_once(trained):
    given = "activity_lag_28d=high spread_lag_28d=nan extra=1 spread_lag_28d=1"
    with pytest.raises(ArtifactError) as error:
        trained[0].predict({"treatment": 1.0, "features": given}, np.random.default_rng(0))
    for words in (
        "activity_lag_28d: 'high' is no finite number", "spread_lag_28d: 'nan' is no finite",
        "extra: is no feature", "spread_lag_28d: is given twice", "prices_lag_28d: is missing",
    ):  # fmt: skip
        assert words in str(error.value)
        assert words in trained[0].form_problems({"treatment": "one", "features": given})[0]
    assert trained[0].form_problems({"features": FEATURES}) == []


def test_features_of_any_name_are_given_by_it(trained):
    names = ["yahoo_^GSPC_Close", "GDP growth, real_lag_90d", "fred_GDP_lag_30d"]
    learnt = replace(trained[0].economy, names=np.array(["output", "shock", *names]))
    given = "yahoo_^GSPC_Close=0.1,0.3  GDP growth, real_lag_90d=-2e-1 fred_GDP_lag_30d=0.4"
    found = answer.features_of(learnt, given)
    assert found == dict(zip(names, ([0.1, 0.3], [-0.2], [0.4]), strict=True))
    with pytest.raises(ArtifactError, match="GDP growth, real_lag_90d: '' is no finite number"):
        answer.features_of(learnt, "fred_GDP_lag_30d=1 GDP growth, real_lag_90d")


def test_parts_of_the_variance_are_those_of_draws(trained):
    """Outcomes that are simulated from the draws have the mean and the variance that are said."""
    learnt, rng = trained[0].economy, np.random.default_rng(3)
    controls, n = np.array([[0.5, -0.5, 1.0]]), 200_000
    found = answer.outcomes(learnt, np.array([1.0]), controls, np.array([0.4]))
    p = learnt.parameters
    k, s = rng.integers(len(p.slope), size=n), (rng.random(n) < 0.4).astype(int)
    y = p.intercept[k, s] + p.effect[k, s] + p.slope[k] @ controls[0]
    y = y + np.sqrt(p.variance[k, s]) * rng.standard_normal(n)
    np.testing.assert_allclose(found.mean[0], learnt.mean[0] + learnt.sd[0] * y.mean(), atol=0.02)
    np.testing.assert_allclose(found.sd[0], learnt.sd[0] * y.std(), rtol=0.02)


def test_intervals_of_the_outcome_reach_as_far_as_exchangeable_scores_need():
    """Of 30 scores the 28th: a further one is below it in 28 of 31 cases. One that a normal
    distribution would have is never undercut."""
    rng = np.random.default_rng(14)
    scores = 2 + rng.exponential(size=(4000, 31))
    inside = [last <= answer.reach(others) for *others, last in scores]
    assert np.mean(inside) == pytest.approx(28 / 31, abs=4 * np.sqrt(0.09 / 4000))
    assert answer.reach(np.full(30, 0.1)) == pytest.approx(1.645, abs=1e-3)
    assert answer.reach(np.ones(8)) is None


def test_intervals_of_the_outcome_are_checked_on_dates_held_out(trained):
    learnt, fit = trained[0].economy, trained[1]
    (table,) = (each for each in fit.tables if "of the outcome on dates held out" in each.title)
    plain, rolling = table.rows
    assert (plain["n"], rolling["n"]) == (fit.n_held_out, fit.n_held_out - 9)
    assert plain["low"] < 0.9 < plain["high"]  # the series are of the family
    assert rolling["coverage"] > 0.75
    assert learnt.outcome_reach[0] == rolling["reach (sd)"] >= plain["reach (sd)"]
    found = trained[0].predict({"treatment": 1.0}, np.random.default_rng(0))
    assert found["outcome_interval"] == f"calibrated on {fit.n_held_out} dates held out"
    low, mean, sd = (found["outcome"][name] for name in ("low", "mean", "sd"))
    assert (mean - low) / sd == pytest.approx(learnt.outcome_reach[0])
    old = replace(learnt, outcome_reach=None)
    assert answer.answer(old, {"treatment": 1.0})["outcome_interval"] == "not calibrated"


def test_a_thousand_rows_are_answered_as_each_alone(trained):
    learnt, rng = trained[0].economy, np.random.default_rng(4)
    rows = rng.standard_normal(1000), rng.standard_normal((1000, 3)), rng.random(1000)
    together = answer.outcomes(learnt, *rows)
    alone = answer.outcomes(learnt, *(values[7:8] for values in rows))
    np.testing.assert_allclose([v[7] for v in together], [v[0] for v in alone], rtol=1e-10)


def test_a_measurement_is_read_inferred_and_judged(trained, tmp_path):
    model = trained[0]
    table = synthetic.draw(np.random.default_rng(5), 160).table
    cases, notes = model.read(*write(tmp_path, "mine", table, synthetic.RECIPE))
    assert "159 dates from 1960-02-01" in notes[0]
    assert model.outside_training(cases) == [[]]
    found = model.infer(cases, np.random.default_rng(6), method="switching", budget=BUDGET)
    unit = float(model.economy.sd[1] / model.economy.sd[0])
    low, high = np.quantile(found.draws["effect_turbulent"][0], [0.005, 0.995])
    assert low < synthetic.EFFECT[1] * unit < high
    assert f"1 sd/sd is {1 / unit:.4g} output per unit of shock" in notes[1]
    assert "not detectable" in model.cautions(cases, found)[0]


def test_a_measurement_is_told_of_its_regimes_and_overlap(trained, tmp_path):
    """Probabilities that follow the regimes which the series had, smoothed ones closer; and what
    the controls leave of the treatment."""
    model, drawn = trained[0], synthetic.draw(np.random.default_rng(12), 160)
    cases, _ = model.read(*write(tmp_path, "mine", drawn.table, synthetic.RECIPE))
    state, rng = drawn.state[1:], np.random.default_rng(13)
    found = {m: model.infer(cases, rng, method=m, budget=BUDGET) for m in ("scores", "switching")}
    for posterior in found.values():
        smoothed, filtered = (posterior.latent[name][0] for name in ("smoothed", "filtered"))
        assert np.corrcoef(smoothed, state)[0, 1] > 0.5
        assert np.mean((smoothed - state) ** 2) < np.mean((filtered - state) ** 2)
        assert filtered[-1] == pytest.approx(smoothed[-1], abs=0.15)
    posterior = found["switching"]
    told = model.diagnostics(cases, posterior)
    assert told["turbulent_at_last_date"] == posterior.latent["smoothed"][:, -1]
    y, d, x = cases.detail.outcome[0], cases.detail.treatment[0], cases.detail.controls[0]
    left = sensitivity.regress(d, x)
    left = d - d.mean() - (x - x.mean(0)) @ left.slope
    assert told["overlap"][0] == pytest.approx(
        left.std() / np.sqrt(model.economy.treatment_variance)
    )
    drawings = model.drawings(cases, posterior)
    names = [each.name for each in drawings]
    assert names == ["regime_history", "sensitivity", "effect_by_horizon"]
    for each in drawings:
        each.save(tmp_path / f"{each.name}.png")
        assert (tmp_path / f"{each.name}.png").stat().st_size > 5000
    assert not any("few dates" in words for words in model.cautions(cases, posterior))
    calm = {"smoothed": np.full((1, len(y)), 0.02)}
    (few,) = [w for w in model.cautions(cases, posterior._replace(latent=calm)) if "few" in w]
    assert few.startswith("too few dates in a regime: 3 of these dates are turbulent")
    short = replace(model.economy, n_regime=np.array([200.0, 6.0]))
    (few,) = refusals.few_dates(short, posterior.latent["smoothed"])
    assert "6 of the training are turbulent" in few


def test_a_window_without_overlap_is_refused(trained, tmp_path):
    model = trained[0]
    table = synthetic.draw(np.random.default_rng(7), 160).table
    values = table.values.copy()
    values[1:, 1] = 0.3 * values[:-1, 2] + 0.3 * values[:-1, 3]
    values[:, 1] += 0.02 * np.random.default_rng(8).standard_normal(160)
    data = write(tmp_path, "mine", table._replace(values=values), synthetic.RECIPE)
    cases, _ = model.read(*data)
    assert any(words.startswith("no overlap") for words in model.outside_training(cases)[0])


def test_series_of_other_features_or_from_the_future_are_refused(trained, tmp_path):
    model = trained[0]
    table = synthetic.draw(np.random.default_rng(9), 160).table
    recipe = synthetic.RECIPE
    other = recipe._replace(controls=(*recipe.controls[:2], "spread_lag_60d"))
    with pytest.raises(ArtifactError) as error:
        model.read(*write(tmp_path, "other", table, other))
    assert "spread_lag_28d: is missing" in str(error.value)
    assert "spread_lag_60d: is no feature" in str(error.value)
    future = recipe._replace(controls=("activity_lag_5d", *recipe.controls[1:]))
    with pytest.raises(LookAheadError, match=r"future\.yaml: activity_lag_5d: lies 5 days back"):
        model.read(*write(tmp_path, "future", table, future))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"outcome": "activity"}, "outcome: 'activity', expected 'output'"),
        ({"treatment": "spread"}, "treatment: 'spread', expected 'shock'"),
        ({"horizon": 6}, "horizon: 6, expected 0"),
        (
            {"publication_lags": {"activity": 0, "prices": 20, "spread": 1}},
            "publication_lags: activity: 0, expected at least 20",
        ),
    ],
)
def test_another_question_than_that_of_the_training_is_refused(changes, said, trained, tmp_path):
    table = synthetic.draw(np.random.default_rng(9), 160).table
    other = synthetic.RECIPE._replace(**changes)
    with pytest.raises(ArtifactError) as error:
        trained[0].read(*write(tmp_path, "other", table, other))
    assert str(error.value) == f"{tmp_path / 'other.yaml'}: {said}"


def test_the_example_has_the_features_of_the_default_training(tmp_path, monkeypatch):
    model = load_model("regimes")
    data, meta = tmp_path / "example.csv", tmp_path / "example.yaml"
    monkeypatch.delenv("REGIMES_DATASET", raising=False)
    model.example(np.random.default_rng(1), data, meta)
    assert meta.read_text(encoding="utf-8").startswith("# simulated")
    _, recipe = series.monthly()
    assert series.read_recipe(meta) == recipe
    assert len(series.design(series.read_csv(data, recipe), recipe).dates) == 157


def test_both_methods_infer_cases_of_the_family(trained):
    model, rng = trained[0], np.random.default_rng(10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cases = model.cases(4, rng, rng, {}, "unseen_regime", 1.0)
        scores = model.infer(cases, rng, method="scores", budget={"n_draws": 100})
    assert np.isfinite(scores.prediction.innovation).all()
    # A regime that the family does not have stands out even by least squares.
    assert (np.abs(scores.prediction.innovation[:, :160]).max(1) > 3).all()
