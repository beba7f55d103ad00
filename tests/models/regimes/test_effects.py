"""Effects by orthogonal scores: against closed forms, known effects, and simulated coverage."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import sklearn
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

from touchstone.models.regimes import effects
from touchstone.reliability.guardrail import wilson


def test_the_full_plan_with_least_squares_is_the_regression_coefficient():
    """By the theorem of Frisch, Waugh and Lovell; its error is that of White."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((150, 4))
    d = x @ [1, 0.5, 0, -1] + rng.standard_normal(150)
    y = 0.7 * d + x @ [0.2, -1, 1, 0] + rng.standard_normal(150) * (1 + np.abs(d))
    found = effects.partially_linear(y, d, x, LinearRegression(), effects.folds(150, "full"))
    design = np.column_stack([d, np.ones(150), x])
    slope = np.linalg.lstsq(design, y)[0]
    left = y - design @ slope
    bread = np.linalg.inv(design.T @ design)
    white = bread @ (design.T * left**2) @ design @ bread
    np.testing.assert_allclose(found.estimate[0], slope[0], rtol=1e-10)
    np.testing.assert_allclose(found.se_iid[0], np.sqrt(white[0, 0]), rtol=1e-10)


def test_effects_and_errors_are_those_of_doubleml_on_the_same_folds():
    """Numbers of DoubleML 0.11.4 (`DoubleMLPLR`, `DoubleMLIRM`) on the same rows and nuisances."""
    i = np.arange(200)
    x = np.column_stack([np.sin(0.7 * i), np.cos(1.3 * i), ((i * 37) % 101) / 50 - 1])
    v, u = ((i * 53) % 97) / 40 - 1.2, ((i * 29) % 89) / 35 - 1.25
    d = x @ [0.5, -0.3, 0.4] + v
    y = 0.6 * d + x @ [0.2, 0.7, -0.5] + u
    plan = effects.folds(200, "blocked", 4)
    found = effects.partially_linear(y, d, x, effects.ridge(), plan)
    np.testing.assert_allclose(found.estimate[0], 0.6113753693731284, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.se_iid[0], 0.07360348332826157, rtol=0, atol=1e-10)
    treated = x[:, 0] + v > 0
    arms = LinearRegression(), LogisticRegression()
    found = effects.interactive(y + 1.0 * treated, treated, x, *arms, plan)
    np.testing.assert_allclose(found.estimate[0], 1.7546307953300917, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.se_iid[0], 0.12432421184417251, rtol=0, atol=1e-8)


def test_the_default_nuisance_is_the_ridge_regression_of_scikit_learn():
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((60, 9)), rng.standard_normal((60, 2))
    theirs = Ridge(alpha=1.0).fit(x, y).predict(x)
    np.testing.assert_allclose(effects.ridge().fit(x, y).predict(x), theirs, rtol=0, atol=1e-13)


@pytest.mark.nightly
def test_doubleml_itself_finds_the_same(tmp_path):
    """DoubleML in an environment of its own, with our version of scikit-learn."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((300, 5))
    d = x @ [0.5, -0.3, 0.4, 0, 0] + rng.standard_normal(300)
    y = 0.6 * d + x @ [0.2, 0.7, -0.5, 0, 0.1] + rng.standard_normal(300)
    treated = d > 0
    plan = effects.folds(300, "blocked", 5)
    fold = np.empty(300, int)
    for k, each in enumerate(plan):
        fold[each.test] = k
    given = {"x": x, "d": d, "y": y, "treated": treated, "y_treated": y + treated, "fold": fold}
    np.savez(tmp_path / "given.npz", **given)
    script = Path(__file__).with_name("data") / "doubleml_scores.py"
    versions = ["doubleml==0.11.4", f"scikit-learn=={sklearn.__version__}"]
    command = ["uv", "run", "--no-project", "--python", "3.12"]
    command += [part for version in versions for part in ("--with", version)]
    done = subprocess.run(
        [*command, "python", script, tmp_path / "given.npz"], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"DoubleML cannot be had here: {done.stderr[-300:]}")
    theirs = json.loads(done.stdout)
    ours = effects.partially_linear(y, d, x, effects.ridge(), plan)
    np.testing.assert_allclose(
        [ours.estimate[0], ours.se_iid[0]], theirs["linear"], rtol=0, atol=1e-10
    )
    logistic = LogisticRegression(tol=1e-10, max_iter=1000)
    doubly = effects.interactive(y + treated, treated, x, LinearRegression(), logistic, plan)
    np.testing.assert_allclose(
        [doubly.estimate[0], doubly.se_iid[0]], theirs["interactive"], rtol=0, atol=1e-10
    )


def test_the_interactive_score_is_unbiased_where_one_nuisance_is_wrong():
    rng = np.random.default_rng(2)
    found = []
    for _ in range(25):
        x = rng.standard_normal((800, 2))
        p = 1 / (1 + np.exp(-x[:, 0]))
        treated = rng.random(800) < p
        y = treated * (1 + 0.5 * x[:, 1]) + np.exp(0.5 * x[:, 0]) + rng.standard_normal(800)
        plan = effects.folds(800, "random", 2)
        got = effects.interactive(y, treated, x, LinearRegression(), LogisticRegression(), plan)
        found.append((got.estimate[0], got.se_iid[0]))
    estimate, se = np.array(found).T
    assert abs(estimate.mean() - 1.0) < 3 * estimate.std() / np.sqrt(25)
    assert 0.7 < se.mean() / estimate.std() < 1.5


def test_an_arm_that_folds_hardly_have_is_an_error_and_clipped_propensities_are_counted():
    rng = np.random.default_rng(7)
    x, i = rng.standard_normal((120, 1)), np.arange(120)
    y = rng.standard_normal(120)
    given = LinearRegression(), LogisticRegression(C=1e6), effects.folds(120, "blocked", 4)
    # All who were treated are in one block, so that nobody is left to fit on.
    with pytest.raises(ValueError, match="a fold is fitted on 0 dates of one arm, at least 10"):
        effects.interactive(y, i < 30, x, *given)
    found = effects.interactive(y, x[:, 0] + 0.05 * rng.standard_normal(120) > 0, x, *given)
    sure = np.abs(found.residual)[np.abs(x[:, 0]) > 1]
    assert len(sure) < found.n_clipped < 120
    np.testing.assert_allclose(sure, 0.01)  # certain, and never more certain than that
    assert effects.interactive(y, rng.random(120) < 0.5, x, *given).n_clipped == 0


@pytest.mark.parametrize("plan", ["random", "blocked", "purged"])
def test_folds_use_every_date_once_and_fit_on_none_of_their_own(plan):
    found = effects.folds(103, plan, 5, embargo=6)
    np.testing.assert_array_equal(np.sort(np.concatenate([f.test for f in found])), np.arange(103))
    for fold in found:
        assert not set(fold.train) & set(fold.test)
        if plan == "purged":
            assert np.abs(fold.train[:, None] - fold.test).min() > 6
        if plan == "blocked":
            assert np.ptp(fold.test) == len(fold.test) - 1


def test_folds_that_leave_nothing_to_fit_on_are_refused():
    with pytest.raises(ValueError, match="too few to fit on"):
        effects.folds(40, "purged", 4, embargo=20)
    with pytest.raises(ValueError, match="'odd' is none of full, random, blocked, purged"):
        effects.folds(40, "odd")


def test_the_plan_follows_size_and_dependence():
    assert effects.choose_plan(240, 20, 0.0).name == "full"
    assert effects.choose_plan(2000, 20, 0.05).name == "random"
    assert effects.choose_plan(420, 20, 0.6).name == "blocked"
    purged = effects.choose_plan(2000, 20, 0.6)
    assert purged.name == "purged"
    assert 0.6**purged.embargo <= 0.1 < 0.6 ** (purged.embargo - 1)


def test_the_long_run_variance_is_that_of_an_autoregression():
    """(1 - rho)^-2 for unit innovations; cosines take the mean over low frequencies."""
    rng, rho = np.random.default_rng(3), 0.5
    values = rng.standard_normal((4200, 200))
    for t in range(1, len(values)):
        values[t] += rho * values[t - 1]
    values = values[200:]
    found = np.diag(effects.long_run(values, 40))
    assert found.mean() == pytest.approx(4.0, abs=4 * found.std() / np.sqrt(200) + 0.05)
    # Of independent values it is chi-squared of as many degrees of freedom as cosines.
    white = np.diag(effects.long_run(rng.standard_normal((500, 4000)), 12))
    assert white.var() == pytest.approx(2 / 12, rel=0.1)


def economies(seed, n, weights):
    """Outcome, treatment, controls, predicted probabilities and states of two regimes."""
    rng = np.random.default_rng(seed)
    stay = np.array([0.97, 0.93])  # 70 % and 30 % of the dates
    effect, sd = np.array([0.2, 0.8]), np.array([0.6, 1.5])
    state, predicted, p = np.zeros(n, int), np.zeros((n, 2)), np.array([0.7, 0.3])
    x = rng.standard_normal((n, 3))
    d = x @ [0.5, -0.3, 0.2] + rng.standard_normal(n)
    y = np.zeros(n)
    s = int(rng.random() < p[1])
    transition = np.array([[stay[0], 1 - stay[0]], [1 - stay[1], stay[1]]])
    for t in range(n):
        predicted[t] = p
        state[t] = s
        y[t] = effect[s] * d[t] + x[t] @ [0.3, 0.3, 0] + sd[s] * rng.standard_normal()
        density = np.exp(-0.5 * ((y[t] - effect * d[t] - x[t] @ [0.3, 0.3, 0]) / sd) ** 2) / sd
        filtered = p * density / (p * density).sum()
        p = filtered @ transition
        s = int(rng.random() < transition[s, 1])
    hard = np.eye(2)[(predicted[:, 1] > 0.5).astype(int)]
    return y, d, x, predicted if weights == "soft" else hard


def test_soft_probabilities_that_are_known_beforehand_leave_no_bias_and_hard_labels_do():
    bias = {}
    for weights in ("soft", "hard"):
        found = []
        for seed in range(60):
            y, d, x, w = economies(seed, 480, weights)
            features = np.column_stack([x, w[:, 1], x * w[:, 1:]])
            plan = effects.folds(480, "full")
            found.append(
                effects.partially_linear(y, d, features, LinearRegression(), plan, w).estimate
            )
        found = np.array(found)
        bias[weights] = found.mean(0) - [0.2, 0.8], found.std(0) / np.sqrt(60)
    off, error = bias["soft"]
    assert (np.abs(off) < 3 * error).all()
    off, error = bias["hard"]
    assert off[1] < -3 * error[1]


@pytest.fixture(scope="module")
def pivots():
    """Of 240 dates and 20 controls, over a grid of dependence."""
    return effects.linear_calibration(
        240, 20, effects.ridge(), effects.folds(240, "full"), (0.0, 0.3, 0.5, 0.7, 0.8), 250,
        np.random.default_rng(10),
    )  # fmt: skip


@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_calibrated_intervals_hold_where_those_of_theory_do_not(rho, pivots):
    n, n_series = 240, 200
    rng, plan, inside = np.random.default_rng(11), effects.folds(n, "full"), []
    for _ in range(n_series):
        y, d, x = effects.simulate_linear(n, 20, rho, rng, effect=0.5)
        found = effects.partially_linear(y, d, x, effects.ridge(), plan)
        estimate, se = found.estimate[0], found.se[0]
        ends = [
            (estimate - 1.645 * found.se_iid[0], estimate + 1.645 * found.se_iid[0]),
            effects.asymptotic(estimate, se, n),
            pivots.interval(estimate, se, effects.measured_dependence(found)),
        ]
        inside.append([low <= 0.5 <= high for low, high in ends])
    independent, cosines, calibrated = np.mean(inside, axis=0)
    rate = wilson(calibrated, n_series, 0.99)
    assert rate.low < 0.9 < rate.high
    if rho == 0.7:
        assert independent < cosines < calibrated
        assert wilson(independent, n_series).high < 0.8
