"""Posteriors beside a reference: what counts as like it, as a copy, as wider and as far off."""

import numpy as np
import pandas as pd
import pytest

from touchstone.reliability import comparison
from touchstone.vocabulary import Cases, Computation, Posterior, Prediction, Quantity

QUANTITIES = [
    Quantity("offset", "normal", 0.0, 2.0, "V", ""),
    Quantity("rate", "lognormal", 0.0, 2.0, "1/s", ""),
    Quantity("area", "normal", 0.0, 2.0, "cm^2", ""),
]
N = 400
R_HAT = 1.01
COVARIANCE = np.array([[1.0, 0.6], [0.6, 1.0]])


def gaussian(seed, n=N):
    """Draws of the coordinates of offset and rate, shape (draw, 2)."""
    return np.random.default_rng(seed).multivariate_normal(np.zeros(2), COVARIANCE, n)


def posterior_of(*each, r_hat=None):
    """Posterior of cases from draws of their unknown coordinates; the area is known."""
    each = np.array(each)
    n, n_draws = each.shape[:2]
    flat = np.zeros((n, 1))
    r_hat = np.ones(n) if r_hat is None else np.array(r_hat)
    return Posterior(
        {"offset": each[..., 0], "rate": np.exp(each[..., 1]), "area": np.ones((n, n_draws))},
        np.full((n, n_draws), 1 / n_draws),
        np.zeros((n, 3)),
        np.full((n, 3), 2.0),
        np.full((n, 3), 0.5),
        Prediction(flat, flat, flat, flat, flat),
        np.full(n, np.nan),
        Computation({"r_hat": r_hat, "seconds": r_hat}, {"r_hat": np.full(n, R_HAT)}, {}),
    )


def cases_of(n):
    """Simulated cases whose unknown coordinates are zero, and whose area is known."""
    observed, known = np.zeros((n, 1)), np.tile([False, False, True], (n, 1))
    truth = np.tile([0.0, 0.0, 1.0], (n, 1))
    return Cases(observed, observed == 0, truth, known, np.full(n, "any"), np.arange(n), None)


def beside(reference, **posteriors):
    """Rows of the comparison of single cases."""
    found = comparison.beside_reference(
        QUANTITIES,
        cases_of(1),
        {name: posterior_of(draws) for name, draws in posteriors.items()},
        posterior_of(reference),
    )
    return found.set_index("method")


def test_draws_like_the_reference_are_not_distinguished_from_it_and_others_are():
    rows = beside(gaussian(0), like=gaussian(1), guess=1.5 + gaussian(2))
    assert rows["c2st"]["like"] == pytest.approx(0.5, abs=0.06)
    assert rows["c2st"]["guess"] > 0.7
    assert rows["width"]["like"] == pytest.approx(1, abs=0.15)
    assert rows["tail"]["like"] == 0
    assert (rows["n_unknown"] == 2).all()
    assert (rows["n_distinct"] == N).all()


def test_a_posterior_without_the_correlation_of_the_reference_is_distinguished():
    """Its widths are right, so that no number of a single quantity would show it."""
    correlated = gaussian(0) @ np.linalg.cholesky(np.linalg.inv(COVARIANCE))
    rows = beside(gaussian(1, 4 * N), without=correlated)
    assert rows["width"]["without"] == pytest.approx(1, abs=0.15)
    assert rows["c2st"]["without"] > 0.56


def test_the_error_of_either_mean_is_in_standard_deviations_of_the_prior():
    rows = beside(gaussian(0) + 1.0, guess=gaussian(1) + 3.0)
    assert rows["reference_param_nrmse"]["guess"] == pytest.approx(1 / 2, abs=0.06)
    assert rows["param_nrmse"]["guess"] == pytest.approx(3 / 2, abs=0.06)


def test_width_is_the_mean_ratio_of_the_intervals():
    exact = gaussian(0)
    rows = beside(exact, wide=exact * [2.0, 1.0], narrow=exact / 4)
    assert rows["width"].to_dict() == pytest.approx({"wide": 1.5, "narrow": 0.25})


def test_the_tail_counts_draws_that_are_far_off_in_any_quantity():
    exact = gaussian(0)
    sd = exact.std(0)
    draws = gaussian(1)
    draws[:40, 0], draws[20:60, 1] = 5.1 * sd[0] + exact[:, 0].mean(), -9.0
    draws[60:80, 0] = 4.9 * sd[0] + exact[:, 0].mean()
    assert beside(exact, far=draws)["tail"]["far"] == 60 / N


def test_copies_of_a_draw_are_no_further_draws():
    """Nor are they where one quantity was integrated out and drawn anew for each of them."""
    copies = np.repeat(gaussian(0, 100), 4, axis=0)
    anew = np.column_stack([copies[:, 0], gaussian(1)[:, 1]])
    rows = beside(gaussian(2), copies=copies, anew=anew)
    assert rows["n_distinct"].to_dict() == {"copies": 100, "anew": 100}
    assert rows["c2st"]["copies"] == pytest.approx(0.5, abs=0.1)


def test_draws_too_few_for_a_classifier_have_no_accuracy():
    few = np.repeat(gaussian(0, 9), 10, axis=0)
    rows = beside(gaussian(1), few=few)
    assert rows["n_distinct"]["few"] == 9
    assert np.isnan(rows["c2st"]["few"])
    assert np.isfinite(rows["width"]["few"])


@pytest.fixture(scope="module")
def compared():
    """Three cases: a sound reference, one that did not converge, and one without draws."""
    ours = posterior_of(gaussian(0), gaussian(1), gaussian(2))
    reference = posterior_of(
        gaussian(3), 9.0 + gaussian(4), np.nan * gaussian(5), r_hat=[1.0, 1.5, np.nan]
    )
    return comparison.beside_reference(QUANTITIES, cases_of(3), {"fast": ours}, reference)


def test_a_case_that_the_reference_could_not_sample_has_a_row_that_says_so(compared):
    assert compared["sound"].tolist() == [True, False, False]
    assert compared["reference_r_hat"].tolist()[:2] == [1.0, 1.5]
    distances = ["c2st", "width", "tail", "n_distinct", "param_nrmse", "reference_param_nrmse"]
    assert compared.loc[2, distances].isna().all()
    assert compared.loc[:1, distances].notna().all(axis=None)
    assert compared["n_unknown"].tolist() == [2, 2, 2]


def test_the_summary_is_over_cases_whose_reference_is_sound(compared):
    (row,) = comparison.summary(compared)
    assert (row["method"], row["n_cases"], row["n_sound"]) == ("fast", 3, 1)
    first = compared.loc[0]
    assert row["c2st_median"] == row["c2st_90"] == first["c2st"]
    assert [row[name] for name in ("width", "tail", "param_nrmse")] == [
        first[name] for name in ("width", "tail", "param_nrmse")
    ]


def test_a_summary_without_a_sound_reference_has_no_numbers():
    rows = pd.DataFrame({"method": ["fast"], "sound": [False], "case_index": [0]})
    (row,) = comparison.summary(rows)
    assert (row["n_cases"], row["n_sound"]) == (1, 0)
    assert np.isnan([row["c2st_median"], row["width"]]).all()
