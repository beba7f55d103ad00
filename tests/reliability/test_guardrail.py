"""The rule that accepts or escalates, and the statistics that it is judged by."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from touchstone.reliability import guardrail
from touchstone.reliability.guardrail import Rule

seeds = st.integers(0, 2**32 - 1)


@st.composite
def runs(draw):
    """A few scored runs, with ties: reliability, calibration error and whether it is stressed."""
    row = st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans())
    rows = draw(st.lists(row, min_size=2, max_size=12).filter(_of_both_kinds))
    reliability, error, stressed = (np.array(column) for column in zip(*rows, strict=True))
    return 20.0 * reliability, 0.3 * error, stressed


def _of_both_kinds(rows):
    return len({stressed for *_, stressed in rows}) == 2


def worth(flagged, stressed, ceiling):
    """What makes a rule better: F1, then few false alarms; None above the ceiling."""
    true, false = (flagged & stressed).sum(), (flagged & ~stressed).sum()
    if false > ceiling * (~stressed).sum():
        return None
    return 2 * true / (true + false + stressed.sum()), -false


def best(candidates, stressed, ceiling):
    found = (worth(flagged, stressed, ceiling) for flagged in candidates)
    return max(value for value in found if value is not None)


def cuts(values):
    """Thresholds on either side of every value."""
    return [-np.inf, *np.unique(values), np.inf]


# Wilson's interval --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [
        # Newcombe (1998), Statistics in Medicine 17, 857, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(count, n, low, high):
    interval = guardrail.wilson(count / n, n)
    assert (interval.value, interval.n) == (count / n, n)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_ends_of_wilsons_interval_are_the_rates_a_score_test_just_accepts(counts):
    count, n = counts
    rate, z2 = count / n, norm.ppf(0.975) ** 2
    roots = np.roots([1 + z2 / n, -(2 * rate + z2 / n), rate**2])  # (p - x)² = z² x (1 - x) / n
    interval = guardrail.wilson(rate, n)
    assert (interval.low, interval.high) == pytest.approx(sorted(roots.real), abs=1e-7)


@pytest.mark.parametrize("n", [10, 40, 100])
def test_wilsons_interval_covers_at_its_level_on_average(n):
    counts, rates = np.arange(n + 1), np.linspace(0.0005, 0.9995, 1000)
    intervals = [guardrail.wilson(count / n, n) for count in counts]
    low, high = (np.array([getattr(i, end) for i in intervals]) for end in ("low", "high"))
    covered = (low <= rates[:, None]) & (rates[:, None] <= high)
    coverage = (binom.pmf(counts, n, rates[:, None]) * covered).sum(1)
    assert coverage.mean() == pytest.approx(0.95, abs=0.01)


def test_nothing_counted_says_nothing():
    assert guardrail.wilson(0.0, 0) == (None, 0.0, 1.0, 0)


# Fitting ------------------------------------------------------------------------------------------


@given(runs(), st.floats(0, 0.99))
def test_the_rule_is_the_best_of_all_under_the_ceiling(data, ceiling):
    reliability, error, stressed = data
    rule = guardrail.fit(reliability, error, stressed, ceiling)
    every = (
        Rule(*pair).flags(reliability, error) for pair in product(cuts(reliability), cuts(error))
    )
    obtained = worth(rule.flags(reliability, error), stressed, ceiling)
    assert obtained == best(every, stressed, ceiling)


@given(runs(), st.floats(0, 0.99))
def test_a_single_threshold_is_the_best_of_all_under_the_ceiling(data, ceiling):
    score, _, stressed = data
    threshold = guardrail.fit_threshold(score, stressed, ceiling)
    every = (score > cut for cut in cuts(score))
    assert worth(score > threshold, stressed, ceiling) == best(every, stressed, ceiling)


@given(seeds, st.floats(0, 1))
def test_a_rule_never_exceeds_its_ceiling_on_what_it_was_fitted_on(seed, ceiling):
    rng = np.random.default_rng(seed)
    reliability, error = rng.uniform(0, 100, 300), rng.uniform(0, 1.6, 300)
    stressed = rng.random(300) < 0.6
    flagged = guardrail.fit(reliability, error, stressed, ceiling).flags(reliability, error)
    assert flagged[~stressed].mean() <= ceiling


def test_where_stress_changes_nothing_the_false_alarms_on_other_cases_are_near_alpha():
    rng = np.random.default_rng(0)
    n, alpha = 4000, 0.1
    reliability, error = rng.uniform(0, 100, 2 * n), rng.uniform(0, 1.6, 2 * n)
    stressed, case = np.repeat([False, True], n), np.tile(np.arange(n), 2)
    fitted = guardrail.halves(n, 0.5, rng)[case]
    rule = guardrail.fit(reliability[fitted], error[fitted], stressed[fitted], alpha)
    flagged = rule.flags(reliability, error)
    held_out = guardrail.score(flagged[~fitted], stressed[~fitted], case[~fitted])
    assert held_out["fpr"]["n"] == n // 2
    assert held_out["fpr"]["low"] <= alpha <= held_out["fpr"]["high"]
    assert held_out["tpr"]["low"] <= alpha <= held_out["tpr"]["high"]


@given(st.integers(2, 300), st.floats(0, 1), seeds)
def test_the_cases_are_split_by_the_part_asked_for(n, part, seed):
    fitted = guardrail.halves(n, part, np.random.default_rng(seed))
    assert fitted.shape == (n,) and fitted.dtype == bool
    assert 0 < fitted.sum() < n
    assert abs(fitted.sum() - part * n) <= 1.0
    assert np.array_equal(fitted, guardrail.halves(n, part, np.random.default_rng(seed)))


def test_another_seed_splits_the_cases_otherwise():
    first, second = (guardrail.halves(100, 0.5, np.random.default_rng(seed)) for seed in (0, 1))
    assert not np.array_equal(first, second)


# Scoring ------------------------------------------------------------------------------------------


def test_a_rule_escalates_for_either_reason_and_not_at_its_thresholds():
    flagged = Rule(rel_thr=50.0, cal_thr=0.4).flags(
        np.array([49.0, 50.0, 51.0, 49.0]), np.array([0.3, 0.4, 0.5, 0.5])
    )
    assert flagged.tolist() == [True, False, True, True]


def test_a_score_is_what_one_counts_by_hand():
    stressed = np.array([True, True, True, True, False, False, False])
    flagged = np.array([True, True, True, False, True, False, False])
    case = np.array([0, 0, 1, 1, 0, 1, 2])
    score = guardrail.score(flagged, stressed, case)
    assert (score["precision"], score["recall"], score["f1"]) == (3 / 4, 3 / 4, 3 / 4)
    # four stressed runs are of two base cases only
    assert score["tpr"] == guardrail.wilson(3 / 4, 2)._asdict()
    assert score["fpr"] == guardrail.wilson(1 / 3, 3)._asdict()


@pytest.mark.parametrize(
    ("flagged", "stressed", "expected"),
    [
        ([False, False], [True, False], {"precision": None, "recall": 0.0, "f1": 0.0}),
        ([True, True], [True, False], {"precision": 0.5, "recall": 1.0, "f1": 2 / 3}),
        ([True, False], [False, False], {"precision": 0.0, "recall": None, "f1": None}),
    ],
)
def test_what_has_nothing_to_count_is_none_and_not_zero(flagged, stressed, expected):
    score = guardrail.score(np.array(flagged), np.array(stressed), np.arange(2))
    assert expected.items() <= score.items()


@given(runs())
def test_separation_is_the_share_of_pairs_that_are_in_order(data):
    score, _, stressed = data
    difference = score[stressed][:, None] - score[~stressed]
    pairs = (difference > 0).mean() + (difference == 0).mean() / 2
    assert guardrail.separation(score, stressed) == pytest.approx(pairs)


# Tests of the control -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        # 4 × 0.005, 3 × 0.01, 2 × 0.03, then 1 × 0.04 raised to the one before it
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.6, 0.7], [1.0, 1.0]),
        ([0.04], [0.04]),
    ],
)
def test_holm_adjusts_as_by_hand(p_values, adjusted):
    assert guardrail.holm(p_values) == pytest.approx(adjusted)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    # 2 (1 + 5) / 2⁵; 2 / 2⁴; nothing to tell them apart
    [(1, 4, 12 / 32), (0, 4, 2 / 16), (3, 3, 1.0), (0, 0, 1.0)],
)
def test_the_sign_test_counts_the_pairs_that_differ(only_first, only_second, p_value):
    assert guardrail.sign_p_value(only_first, only_second) == pytest.approx(p_value)


def test_the_paired_test_sees_a_shift_and_none_where_there_is_none():
    reference = np.random.default_rng(0).normal(size=50)
    assert guardrail.paired_p_value(reference, reference) == 1.0
    assert guardrail.paired_p_value(reference + 0.1, reference) < 1e-6
