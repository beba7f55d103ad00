"""What is let through: bounds that hold, a mix that is what it says, a curve by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from touchstone.reliability import harm


def table(n_cases, families=("a", "b"), severities=(0.5, 1.0), rng=None):
    """Rows as of a score table; a case is wrong as often as its family and severity say."""
    rng = rng or np.random.default_rng(0)
    rows = [("in_distribution", None, 0.0, 0.01)]
    for k, family in enumerate(families):
        rows.append(("control", family, 0.0, 0.01))
        rows += [("stress_x", family, s, 0.3 * s * (k + 1)) for s in severities]
    return pd.concat(
        pd.DataFrame(
            {
                "split": split,
                "family": family,
                "severity": severity,
                "case_index": range(n_cases),
                "wrong": rng.random(n_cases) < chance,
                "score": rng.standard_normal(n_cases) + 4 * chance,
            }
        )
        for split, family, severity, chance in rows
    ).reset_index(drop=True)


@given(n=st.integers(1, 400), part=st.floats(0, 1))
def test_the_bound_is_clopper_and_pearsons(n, part):
    count = round(part * n)
    exact = binomtest(count, n, alternative="less").proportion_ci(0.95, "exact")
    assert harm.at_most(count, n) == pytest.approx(exact.high, abs=1e-9)


def test_of_nothing_accepted_nothing_is_certified():
    assert harm.at_most(0, 0) == 1.0


def test_half_of_the_mix_is_in_family_and_no_control_is_in_it():
    runs = table(50)
    weight = harm.mix(runs)
    by = pd.Series(weight).groupby(runs["split"]).sum()
    assert by["in_distribution"] == pytest.approx(25)
    assert by["stress_x"] == pytest.approx(25)
    assert by["control"] == 0
    each = pd.Series(weight).groupby([runs["family"], runs["severity"]]).sum()
    stressed = [each[(f, s)] for f in "ab" for s in (0.5, 1.0)]
    assert stressed == pytest.approx([25 / 4] * 4)


def test_rates_weigh_all_runs_by_the_mix_and_stand_on_the_curve():
    runs = table(400)
    weight, score = harm.mix(runs), runs["score"].to_numpy()
    found = harm.certify(runs, weight, score <= 0.8, np.random.default_rng(1))
    kept = weight * (score <= 0.8)
    share = kept.sum() / weight.sum()
    assert found.accepted.value == pytest.approx(share)
    assert found.wrong.value == pytest.approx((kept * runs["wrong"]).sum() / kept.sum())
    (on_curve,) = harm.curve(score, runs["wrong"].to_numpy(bool), weight, np.array([share]))
    assert found.wrong.value == pytest.approx(on_curve)
    assert found.wrong.low < found.wrong.value < found.wrong.high
    assert found.before.value == pytest.approx((weight * runs["wrong"]).sum() / weight.sum())


def test_what_accepts_nothing_has_no_rate_of_wrong_answers():
    runs = table(20)
    found = harm.certify(runs, harm.mix(runs), np.zeros(len(runs), bool), np.random.default_rng(1))
    assert found.wrong.value is None
    assert found.at_most == 1.0


def test_the_bound_holds_in_at_least_the_stated_part_of_repetitions():
    """Against the rate on the whole population, for a rule that flags by the score."""
    rng = np.random.default_rng(3)
    whole = table(60000, rng=rng)
    weight, flagged = harm.mix(whole), whole["score"].to_numpy() > 0.8
    truth = (weight * whole["wrong"] * ~flagged).sum() / weight[~flagged].sum()
    held = 0
    for _ in range(300):
        runs = table(80, rng=rng)
        accepted = runs["score"].to_numpy() <= 0.8
        held += harm.certify(runs, harm.mix(runs), accepted, rng).at_most >= truth
    assert held >= 300 * 0.95 - 3 * np.sqrt(300 * 0.95 * 0.05)


def test_the_curve_of_a_score_that_knows_is_the_best_there_is():
    wrong = np.array([False] * 6 + [True] * 2)
    score, weight = np.arange(8.0), np.ones(8)
    shares = np.array([0.5, 0.75, 0.875, 1.0])
    got = harm.curve(score, wrong, weight, shares)
    assert got == pytest.approx([0, 0, 1 / 7, 2 / 8])
    assert harm.curve(-score, wrong, weight, shares)[0] == pytest.approx(0.5)


def test_a_score_that_knows_nothing_lets_through_what_there_is():
    wrong = np.array([True, False, False, False])
    got = harm.curve(np.zeros(4), wrong, np.ones(4), np.array([0.1, 0.6, 1.0]))
    assert got == pytest.approx([0.25] * 3)


@given(seed=st.integers(0, 2**32 - 1))
def test_the_curve_does_not_depend_on_the_order_of_the_rows(seed):
    rng = np.random.default_rng(seed)
    score, wrong, weight = rng.integers(0, 4, 30) + 0.0, rng.random(30) < 0.4, rng.random(30)
    order = rng.permutation(30)
    shares = np.linspace(0.1, 1, 10)
    ours = harm.curve(score, wrong, weight, shares)
    assert ours == pytest.approx(harm.curve(score[order], wrong[order], weight[order], shares))
