"""The rule that decides: its promise holds, whatever the signs are distributed like."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from touchstone.reliability.decision import OUTSIDE, Decision, calibrate, largest_rank

NAMES = ("first", "second", "third")
# Of very different shapes: what is usual of a sign is learnt, not supposed.
LAWS = {
    "first": lambda rng, n: rng.standard_normal(n),
    "second": lambda rng, n: rng.exponential(3.0, n),
    "third": lambda rng, n: rng.integers(0, 4, n) + 0.0,  # with ties
}


def drawn(rng, n):
    """Signs of cases of the family, which hang together."""
    common = rng.standard_normal(n)
    return {name: LAWS[name](rng, n) + 0.3 * common for name in NAMES}


@pytest.mark.parametrize(
    ("n", "alpha", "delta", "rank"),
    [(1000, 0.05, 0.05, 39), (58, 0.05, 0.05, 0), (59, 0.05, 0.05, 1), (14, 0.1, 0.05, 0)],
)
def test_the_threshold_has_the_rank_that_keeps_the_promise(n, alpha, delta, rank):
    """59 is the least number for 95 % coverage with 95 % confidence (Wilks 1941)."""
    assert largest_rank(n, alpha, delta) == rank


@given(n=st.integers(1, 3000), alpha=st.floats(0.01, 0.5), delta=st.floats(0.01, 0.5))
def test_the_rank_is_the_largest_by_the_binomial_law(n, alpha, delta):
    """More than n - k of n cases lie below the alpha quantile with the probability promised."""
    rank = largest_rank(n, alpha, delta)
    if rank:
        assert binom.cdf(rank - 1, n, alpha) <= delta + 1e-9
    assert binom.cdf(rank, n, alpha) > delta - 1e-9


def test_false_alarms_follow_the_law_of_the_calibration():
    rng = np.random.default_rng(1)
    alpha, delta, n = 0.1, 0.1, 150
    rates = []
    for _ in range(300):
        rule = calibrate(drawn(rng, 100), drawn(rng, n), alpha, delta)
        rates.append((rule.score(drawn(rng, 4000)) > rule.threshold).mean())
    rank = largest_rank(n, alpha, delta)
    assert np.mean(np.array(rates) > alpha) < delta + 3 * np.sqrt(delta * (1 - delta) / 300)
    assert np.mean(rates) == pytest.approx(beta(rank, n + 1 - rank).mean(), abs=0.005)


def test_cases_outside_of_the_training_are_alarms_that_count():
    rng = np.random.default_rng(3)

    def seen(n, part):
        return drawn(rng, n) | {OUTSIDE: (rng.random(n) < part).astype(float)}

    for part, kept in ((0.02, True), (0.2, False)):
        rule = calibrate(seen(100, part), seen(1000, part), 0.05, 0.05)
        fresh = seen(20_000, part)
        flagged = rule.score(fresh) > rule.threshold
        assert flagged[fresh[OUTSIDE] == 1].all()
        assert (rule.delta == 0.05) == kept  # a fifth cannot all be within one in twenty
        assert (flagged.mean() <= 0.05) == kept


def test_too_few_cases_say_what_they_buy():
    rng = np.random.default_rng(2)
    rule = calibrate(drawn(rng, 50), drawn(rng, 20), 0.05, 0.05)
    assert rule.delta == pytest.approx(0.95**20)
    assert rule.delta > 0.05


@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(NAMES), more=st.floats(0, 100))
def test_a_higher_sign_is_never_less_unusual(seed, name, more):
    rng = np.random.default_rng(seed)
    rule = calibrate(drawn(rng, 60), drawn(rng, 60), 0.1, 0.05)
    signs = drawn(rng, 5)
    higher = {**signs, name: signs[name] + more}
    assert (rule.score(higher) >= rule.score(signs)).all()


@pytest.mark.parametrize("name", ["first", "second"])
def test_how_unusual_a_sign_is_reaches_beyond_what_was_seen(name):
    rng = np.random.default_rng(3)
    rule = calibrate(drawn(rng, 4000), drawn(rng, 1000), 0.05, 0.05)
    fresh = drawn(rng, 1_000_000)
    for part in (0.3, 0.03, 0.003):
        value = np.quantile(fresh[name], 1 - part)
        one = {each: np.full(1, np.median(fresh[each])) for each in NAMES} | {name: value[None]}
        assert rule.unusual(one)[name][0] == pytest.approx(-np.log10(part), abs=0.45)


def test_what_is_no_number_is_not_accepted():
    rng = np.random.default_rng(4)
    rule = calibrate(drawn(rng, 60), drawn(rng, 60), 0.1, 0.05)
    signs = drawn(rng, 1) | {"first": np.array([np.nan])}
    assert rule.score(signs)[0] > rule.threshold


def test_a_rule_comes_back_from_its_report():
    rng = np.random.default_rng(5)
    rule = calibrate(drawn(rng, 60), drawn(rng, 60), 0.1, 0.05)
    assert Decision.from_json(rule.to_json()) == rule


# Adjusted for a covariate -------------------------------------------------------------------------


def sloped(rng, n):
    """Signs that are the larger, the larger a covariate is, as a misfit is with a discrepancy."""
    covariate = rng.uniform(-2, 2, n)
    signs = {name: rng.exponential(1.0, n) + 0.6 * covariate for name in NAMES}
    return {**signs, "covariate": covariate}


def rates_by_quarter(rule, rng):
    fresh = sloped(rng, 40_000)
    flagged = rule.score(fresh) > rule.threshold
    ends = np.quantile(fresh["covariate"], [0.25, 0.5, 0.75])
    quarter = np.digitize(fresh["covariate"], ends)
    return np.array([flagged[quarter == k].mean() for k in range(4)]), flagged.mean()


def test_false_alarms_are_about_as_frequent_whatever_the_covariate_is():
    rng = np.random.default_rng(6)
    plain, adjusted = [], []
    for _ in range(20):
        usual, calibration = sloped(rng, 420), sloped(rng, 980)
        without = {name: {**each} for name, each in (("u", usual), ("c", calibration))}
        for each in without.values():
            each.pop("covariate")
        plain.append(rates_by_quarter(calibrate(without["u"], without["c"], 0.05, 0.05), rng)[0])
        rule = calibrate(usual, calibration, 0.05, 0.05, "covariate")
        assert rule.needed == [*NAMES, "covariate"]
        adjusted.append(rates_by_quarter(rule, rng)[0])
    before, after = np.mean(plain, axis=0), np.mean(adjusted, axis=0)
    assert np.ptp(before) > 0.08
    assert np.ptp(after) < np.ptp(before) / 3


def test_the_promise_holds_as_well_where_the_score_is_adjusted():
    """Whatever the level of the groups is worth: of 90 usual cases it is worth little."""
    rng = np.random.default_rng(7)
    alpha, delta, n = 0.1, 0.1, 150
    rates = []
    for _ in range(200):
        rule = calibrate(sloped(rng, 90), sloped(rng, n), alpha, delta, "covariate")
        assert rule.covariate
        fresh = sloped(rng, 4000)
        rates.append((rule.score(fresh) > rule.threshold).mean())
    rank = largest_rank(n, alpha, delta)
    assert np.mean(np.array(rates) > alpha) < delta + 3 * np.sqrt(delta * (1 - delta) / 200)
    assert np.mean(rates) == pytest.approx(beta(rank, n + 1 - rank).mean(), abs=0.006)


def test_of_few_usual_cases_nothing_is_adjusted():
    rng = np.random.default_rng(8)
    rule = calibrate(sloped(rng, 89), sloped(rng, 60), 0.1, 0.05, "covariate")
    assert rule.needed == list(NAMES)


def test_a_covariate_that_is_no_number_is_not_accepted_and_the_rule_comes_back():
    rng = np.random.default_rng(9)
    rule = calibrate(sloped(rng, 120), sloped(rng, 100), 0.1, 0.05, "covariate")
    broken = sloped(rng, 1) | {"covariate": np.array([np.nan])}
    assert rule.score(broken)[0] > rule.threshold
    assert Decision.from_json(rule.to_json()) == rule


def test_a_report_of_a_rule_without_covariate_is_read():
    rng = np.random.default_rng(5)
    rule = calibrate(drawn(rng, 60), drawn(rng, 60), 0.1, 0.05)
    old = {k: v for k, v in rule.to_json().items() if k not in ("covariate", "centres", "levels")}
    assert Decision.from_json(old) == rule


# Beside another implementation --------------------------------------------------------------------


@pytest.mark.parametrize("covariate", ["", "covariate"])
def test_the_rule_flags_what_has_a_conformal_p_value_up_to_its_level(covariate):
    """Of crepes (Boström 2022): the rule of rank k of n flags those of at most k / (n + 1)."""
    from crepes import ConformalClassifier

    rng = np.random.default_rng(10)
    usual, calibration, fresh = (sloped(rng, n) for n in (300, 1000, 2000))
    rule = calibrate(usual, calibration, 0.05, 0.05, covariate)
    theirs = ConformalClassifier().fit(rule.score(calibration))
    p_values = theirs.predict_p(rule.score(fresh)[:, None], all_classes=True, smoothing=False)
    level = largest_rank(1000, 0.05, 0.05) / 1001
    assert level == 39 / 1001
    flagged = rule.score(fresh) > rule.threshold
    np.testing.assert_array_equal(flagged, p_values[:, 0] <= level + 1e-12)
    assert 0.02 < flagged.mean() < 0.06
