"""The control beside the training family, and single scores that separate what is stressed."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, kstest, wilcoxon
from sklearn.metrics import roc_auc_score

from touchstone.reliability import control

METRICS = ("reliability_score", "pred_calibration_error", "pred_nll", "param_nrmse")
N = 60
FAMILIES = ("slow", "fast")


def rows_of(split, family, severity, scores):
    """Rows of the score table, a row for each base case, in any order."""
    rows = {"split": split, "family": family, "severity": severity, "case_index": np.arange(N)}
    return pd.DataFrame(rows | scores).sample(frac=1, random_state=0)


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    return {metric: rng.standard_normal(N) for metric in METRICS}


def table(scores, controls):
    """The training family and the controls of two stresses, of which the first is given."""
    return pd.concat(
        [
            rows_of("in_distribution", None, 0.0, scores),
            rows_of("control", FAMILIES[0], 0.0, controls),
            rows_of("control", FAMILIES[1], 0.0, scores),
            rows_of("stress_of_rate", FAMILIES[0], 1.0, {m: v + 9 for m, v in scores.items()}),
        ]
    )


def test_runs_that_are_the_same_are_not_distinguished(scores):
    found = control.paired(table(scores, scores))
    assert found["passed"]
    assert [(test["family"], test["metric"]) for test in found["tests"]] == [
        (family, metric) for family in FAMILIES for metric in METRICS
    ]
    for test in found["tests"]:
        assert (test["n"], test["mean_difference"]) == (N, 0.0)
        assert (test["p_value"], test["p_adjusted"]) == (1.0, 1.0)


def test_a_control_that_differs_by_its_noise_alone_passes(scores):
    rng = np.random.default_rng(1)
    noisy = {metric: values + rng.standard_normal(N) for metric, values in scores.items()}
    found = control.paired(table(scores, noisy))
    assert found["passed"]
    difference = noisy["pred_nll"] - scores["pred_nll"]
    (test,) = (t for t in found["tests"] if (t["family"], t["metric"]) == ("slow", "pred_nll"))
    assert test["p_value"] == pytest.approx(wilcoxon(difference).pvalue)
    assert test["mean_difference"] == pytest.approx(difference.mean())


def test_a_control_that_is_shifted_in_one_metric_fails_by_that_metric(scores):
    found = control.paired(table(scores, {**scores, "pred_nll": scores["pred_nll"] + 0.05}))
    assert not found["passed"]
    small = [(t["family"], t["metric"]) for t in found["tests"] if t["p_adjusted"] < 0.05]
    assert small == [("slow", "pred_nll")]


def test_runs_are_paired_by_base_case_though_the_control_has_few_of_them(scores):
    runs = table(scores, scores)
    few = runs[(runs["split"] != "control") | (runs["case_index"] < 7)]
    found = control.paired(few)
    assert [test["n"] for test in found["tests"]] == [7] * len(found["tests"])
    assert found["passed"]


def test_a_rule_is_tested_on_the_base_cases_that_it_flags_once_of_the_two(scores):
    first, second = np.arange(N) < 10, np.arange(N) < 2
    runs = table({"flagged": first}, {"flagged": second | (np.arange(N) == 30)})
    slow, fast = control.of_rule(runs[runs["split"] != "stress_of_rate"])
    assert (slow["family"], slow["n"]) == ("slow", N)
    assert (slow["only_control"], slow["only_reference"]) == (1, 8)
    assert slow["p_value"] == pytest.approx(binomtest(1, 9).pvalue)
    assert (fast["only_control"], fast["only_reference"], fast["p_value"]) == (0, 0, 1.0)
    together = control.pooled(runs)
    assert (together.value, together.n) == (pytest.approx(13 / 120), N)


def test_separation_is_the_area_under_the_roc_curve(scores):
    rng = np.random.default_rng(2)
    runs = [rows_of("in_distribution", None, 0.0, scores)]
    for family, severity in (("slow", 0.0), ("slow", 1.0), ("fast", 1.0)):
        moved = {m: np.round(v + severity * rng.standard_normal(), 1) for m, v in scores.items()}
        runs.append(rows_of("stress_of_rate" if severity else "control", family, severity, moved))
    signs = {"reliability_score": -1, "pred_nll": 1}
    found = control.separation(pd.concat(runs), signs)
    assert len(found) == len(runs) - 1
    for row, stressed in zip(found, runs[1:], strict=True):
        assert (row["family"], row["severity"]) == tuple(stressed.iloc[0][["family", "severity"]])
        assert row["n"] == N
        is_stressed = np.repeat([False, True], N)
        for name, sign in signs.items():
            both = np.concatenate([runs[0][name], stressed[name]])
            assert row[name] == pytest.approx(roc_auc_score(is_stressed, sign * both))


def test_the_joint_p_value_is_uniform_however_the_metrics_hang_together():
    """Over controls that are none but noise, with metrics that are nearly the same."""
    rng = np.random.default_rng(3)
    p_values = []
    for _ in range(30):
        common = rng.standard_normal((3, N))
        splits = [{m: c + 0.1 * rng.standard_normal(N) for m in METRICS} for c in common]
        runs = pd.concat(
            [
                rows_of("in_distribution", None, 0.0, splits[0]),
                rows_of("control", FAMILIES[0], 0.0, splits[1]),
                rows_of("control", FAMILIES[1], 0.0, splits[2]),
            ]
        )
        p_values.append(control.joint(runs))
    assert kstest(p_values, "uniform").pvalue > 0.01


def test_the_joint_p_value_sees_one_metric_of_one_family(scores):
    shifted = {**scores, "pred_nll": scores["pred_nll"] + 0.05}
    assert control.joint(table(scores, shifted)) <= 0.002
