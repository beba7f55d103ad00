"""Detectors of others, families that are left out, and one that was never tried."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist, mahalanobis, pdist
from scipy.stats import binom

from touchstone.reliability import left_out, rivals, unseen
from touchstone.reliability.novelty import Reference


def rows(rng, n, shift=None):
    """Signs of n cases, some of them shifted."""
    found = {"sign_spread": rng.standard_normal(n), "computation_k_hat": rng.standard_normal(n)}
    for name, by in (shift or {}).items():
        found[name] = found[name] + by
    return pd.DataFrame(found).assign(log_evidence=rng.standard_normal(n))


def test_every_rival_keeps_the_same_promise():
    """On fresh cases, within binomial limits of 99.9 % about what the rank gives."""
    rng = np.random.default_rng(1)
    usual, calibration, fresh = rows(rng, 300), rows(rng, 1000), rows(rng, 4000)
    found = rivals.there(calibration)
    assert set(found) == {"predictive chi-square", "log evidence", "k-hat"}
    for names in found.values():
        rule = rivals.calibrated(usual, calibration, names, 0.05, 0.05)
        alarms = (rule.score(rivals.columns(fresh, names)) > rule.threshold).sum()
        assert binom.ppf(5e-4, 4000, 0.025) < alarms < binom.ppf(1 - 5e-4, 4000, 0.055)


def test_a_column_is_turned_round_by_its_sign():
    table = pd.DataFrame({"log_evidence": [1.0, -2.0]})
    assert rivals.columns(table, ["-log_evidence"])["-log_evidence"].tolist() == [-1.0, 2.0]


def test_a_rival_whose_column_has_gaps_is_not_run():
    table = rows(np.random.default_rng(0), 10)
    table.loc[3, "log_evidence"] = np.nan
    assert "log evidence" not in rivals.there(table)


# Families that are left out -----------------------------------------------------------------------

NAMES = ("sign_spread", "computation_k_hat")


def score_table(rng, shifts, n=200):
    """Base cases in distribution and under families that shift the signs."""
    parts = [rows(rng, n).assign(split="in_distribution", family=None, severity=0.0)]
    for family, shift in shifts.items():
        parts.append(rows(rng, n, shift).assign(split="stress_x", family=family, severity=1.0))
    return pd.concat([part.assign(case_index=range(n)) for part in parts], ignore_index=True)


def compared(shifts, seed=0):
    rng = np.random.default_rng(seed)
    usual, calibration = rows(rng, 300), rows(rng, 700)
    decision = rivals.calibrated(usual, calibration, NAMES, 0.05, 0.05)
    fitted_on = np.arange(200) % 2 == 0
    return left_out.compare(score_table(rng, shifts), fitted_on, usual, calibration, decision)


def test_what_resembles_the_others_is_found_and_what_does_not_is_not():
    like = {"a": {"sign_spread": 4.0}, "b": {"sign_spread": 4.0}}
    other = {"a": {"sign_spread": 4.0}, "c": {"computation_k_hat": 4.0}}
    for row in compared(like):
        assert row["n"] == 100
        assert row["combination"]["value"] > 0.9
        assert row["boosted"]["value"] > 0.9
    found = {row["family"]: row for row in compared(other)}
    # It learnt to look at the other sign; the rule, which learnt nothing, looks at both.
    assert found["c"]["combination"]["value"] < 0.5
    assert found["c"]["boosted"]["value"] < 0.5
    assert found["c"]["decision"]["value"] > 0.8


def test_with_no_other_family_nothing_is_learnt():
    (row,) = compared({"a": {"sign_spread": 4.0}})
    assert row["combination"] is None
    assert row["boosted"] is None
    assert row["decision"]["value"] > 0.8


# A family that was never tried --------------------------------------------------------------------


def counts(parts, n=200, detector="ours", rng=None):
    rng = rng or np.random.default_rng(0)
    return pd.DataFrame(
        {
            "detector": detector,
            "family": [f"f{k}" for k in range(len(parts))],
            "severity": 1.0,
            "flagged": rng.binomial(n, parts),
            "n": n,
        }
    )


def test_of_two_families_nothing_is_said_of_another():
    assert unseen.expect(counts([0.2, 0.8]), 1) is None


def test_families_that_are_alike_promise_more_of_another_than_those_that_differ():
    alike = counts(np.full(8, 0.8))
    apart = counts(np.array([0.1, 0.3, 0.6, 0.8, 0.95, 0.99, 0.99, 0.99]), detector="theirs")
    found = unseen.expect(pd.concat([alike, apart]), 1)
    assert found is not None
    assert found["n_families"] == 8
    assert found["r_hat"] <= 1.01
    ours, theirs = found["detectors"]
    assert ours["median"] == pytest.approx(0.8, abs=0.05)
    # Replications of what the regression was fitted to hold most of it.
    cells = pd.DataFrame(found["cells"])
    assert list(cells["family"]) == [f"f{k}" for k in range(8)]
    assert ((cells["low"] <= cells["flagged"]) & (cells["flagged"] <= cells["high"])).sum() >= 6
    assert ours["high"] - ours["low"] < 0.35 < theirs["high"] - theirs["low"]
    assert found["p_value"] > 0.01


def overdispersed(rng, n_detectors=10, n_families=8, n=400, excess=0.08):
    """Counts that scatter about a logistic regression, with the recall on a family left out."""
    parts, unseen_recall = [], []
    for detector in range(n_detectors):
        mean, slope, spread = rng.normal(0.5, 1.0), rng.normal(2.5, 0.5), 1.0 + rng.random()
        own = spread * rng.standard_normal(n_families + 1)
        for family, effect in enumerate(own):
            for severity in (0.5, 1.0):
                part = 1 / (1 + np.exp(-(mean + effect + slope * (severity - 1))))
                size = 1 / excess - 1
                recall = rng.beta(part * size, (1 - part) * size)
                if family == n_families:
                    last = recall
                    continue
                parts.append(
                    {"detector": f"d{detector}", "family": f"f{family}", "severity": severity,
                     "flagged": rng.binomial(n, recall), "n": n}
                )  # fmt: skip
        unseen_recall.append(last)
    return pd.DataFrame(parts), unseen_recall


@pytest.mark.nightly
def test_of_counts_that_scatter_more_than_binomial_ones_the_interval_holds_the_unseen_recall():
    """90 % intervals on a family left out, of 20 detectors with known truth; the check passes."""
    inside = n = 0
    for seed in (1, 2):
        rows, truth = overdispersed(np.random.default_rng(seed))
        found = unseen.expect(rows, seed)
        assert found is not None
        assert found["r_hat"] <= 1.01
        assert 0.02 < found["p_value"] < 0.98
        for row, recall in zip(found["detectors"], truth, strict=True):
            inside += row["low"] <= recall <= row["high"]
            n += 1
    assert binom.cdf(inside, n, 0.9) > 0.01


# Distance of summaries ----------------------------------------------------------------------------


def test_the_distance_is_mahalanobis_and_does_not_depend_on_units():
    rng = np.random.default_rng(2)
    family = rng.standard_normal((500, 4)) @ rng.standard_normal((4, 4))
    new = 2 * rng.standard_normal((20, 4))
    reference = Reference.fit(family)
    inverse = np.linalg.inv(np.cov(family.T))
    expected = [mahalanobis(x, family.mean(0), inverse) for x in new]
    assert reference.mahalanobis(new) == pytest.approx(expected, rel=1e-6)


def test_the_discrepancy_is_that_of_a_gaussian_kernel():
    rng = np.random.default_rng(3)
    family, new = rng.standard_normal((300, 2)), 3 * rng.standard_normal((20, 2))
    reference = Reference.fit(family)
    white = reference.points
    assert np.cov(white.T) == pytest.approx(np.eye(2), abs=1e-9)
    turned = (new - family.mean(0)) @ reference.directions
    squares = cdist(turned, white, "sqeuclidean")
    kernel = np.exp(-squares / np.median(pdist(white, "sqeuclidean")))
    assert reference.mmd(new) == pytest.approx(1 - 2 * kernel.mean(1), abs=1e-9)
    far = np.linalg.norm(turned, axis=1)
    assert reference.mmd(new)[far.argmax()] > np.median(reference.mmd(new))
