"""What could be detected at all: powers beside exact ones, and the table that lists failures."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, norm

from touchstone.reliability import oracle


def test_the_power_against_a_shift_is_that_of_neyman_and_pearson():
    found = oracle.power_of_shift(np.array([0.0, 1.0, 2 * norm.ppf(0.95)]))
    assert found == pytest.approx([0.05, norm.sf(norm.ppf(0.95) - 1), 0.95])


def test_the_power_against_a_variance_is_that_of_the_chi_square_test():
    """Equal ratios: the likelihood ratio is a function of the sum of squares."""
    n, ratio = 12, 2.5
    exact = chi2.sf(chi2.isf(0.05, n) / ratio, n)
    found = oracle.power_of_covariance(np.full((3, n), ratio), np.random.default_rng(1))
    assert found == pytest.approx(exact, abs=0.05)


def test_what_leaves_nothing_has_the_power_of_a_coin_of_the_level():
    rng = np.random.default_rng(2)
    assert oracle.power_of_covariance(np.ones((2, 5)), rng) == pytest.approx(0.05, abs=1e-9)
    nothing = np.zeros((2, 4)), np.ones((2, 4)), np.zeros(2)
    assert oracle.power_of_laplace_shift(*nothing, rng) == pytest.approx(0.05, abs=1e-9)


def test_the_power_of_one_laplace_sample_is_exact():
    """One sample, shift m: the ratio rises with the sample, so that a one-sided test is best."""
    for shift in (1.0, 3.0):
        limit = -np.log(2 * 0.05)  # 5 % of a Laplace variable lie above
        exact = 1 - 0.5 * np.exp(limit - shift) if shift > limit else 0.5 * np.exp(shift - limit)
        found = oracle.power_of_laplace_shift(
            np.full((4, 1), shift), np.ones((4, 1)), np.zeros(4), np.random.default_rng(3)
        )
        if shift > limit:
            assert found == pytest.approx(exact, abs=0.04)
        else:  # the ratio is flat beyond the shift: ties
            assert found == pytest.approx(exact, abs=0.06)


def test_a_gaussian_part_beside_counts_as_it_does_alone():
    found = oracle.power_of_laplace_shift(
        np.zeros((5, 2)), np.ones((5, 2)), np.full(5, 2.0), np.random.default_rng(4)
    )
    assert found == pytest.approx(norm.sf(norm.ppf(0.95) - 2), abs=0.04)


def test_what_the_oracle_detects_and_the_rule_does_not_is_listed():
    n = 40
    keys = {"severity": 1.0, "case_index": range(n)}
    power = pd.concat(
        [
            pd.DataFrame({"family": "seen", **keys, "power": 0.99, "power_if_known": np.nan}),
            pd.DataFrame({"family": "hidden", **keys, "power": 0.2, "power_if_known": 0.97}),
        ]
    )
    judged = pd.concat(
        [
            pd.DataFrame({"family": family, **keys, "flagged": np.arange(n) < 10,
                          "wrong": np.arange(n) % 2, "bias_k0": -0.3})
            for family in ("hidden", "seen")
        ]
    )  # fmt: skip
    seen, hidden = oracle.table(power, judged, ["k0"])
    assert (seen["family"], seen["n"], seen["detectable"], seen["if_known"]) == (
        "seen",
        n,
        True,
        None,
    )
    assert seen["flagged"]["value"] == 0.25
    assert (seen["missed"]["value"], seen["missed"]["n"]) == (0.75, n)
    assert oracle.is_missed(seen)
    assert (hidden["detectable"], hidden["missed"]["n"]) == (False, 0)
    assert hidden["if_known"] == pytest.approx(0.97)
    assert not oracle.is_missed(hidden)
    assert (hidden["wrong"]["value"], hidden["bias"]["k0"]) == (0.5, pytest.approx(0.3))
