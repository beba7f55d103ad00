"""Innovations date by date: a closed form, an altered future, and a break that they show."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from touchstone.models.regimes import economy, sequential
from touchstone.models.regimes.sequential import Known

N_DATES = 120


def drawn(learnt, stress=economy.NONE, n=40, seed=1):
    """Windows of economies, and what is known of them."""
    rng = np.random.default_rng(seed)
    parameters = economy.draw_parameters(learnt[1], learnt[0], rng, n)
    window = economy.draw(learnt[0], parameters, N_DATES, rng, np.random.default_rng(2), stress)
    known = Known(parameters.variance, parameters.stay, parameters.treatment_variance)
    return window, known


def test_densities_of_the_treatment_are_those_of_all_dates_together(learnt):
    window, known = drawn(learnt, n=1)
    model, prior = learnt
    found = sequential.innovations(model, prior, window, known)
    full = np.column_stack([np.ones(N_DATES), window.controls[0]])
    noise = known.treatment_variance[0]
    covariance = prior.slope**2 * full @ full.T + noise * np.eye(N_DATES)
    together = multivariate_normal(full @ model.treatment_slope, covariance)
    # The recursion whitens: its squares add up to the Mahalanobis distance.
    apart = window.treatment[0] - full @ model.treatment_slope
    distance = apart @ np.linalg.solve(covariance, apart)
    assert (found.treatment[0] ** 2).sum() == pytest.approx(distance, rel=1e-8)
    of_outcome = found.log_evidence[0] - together.logpdf(window.treatment[0])
    assert -4 * N_DATES < of_outcome < 0


def test_regimes_that_are_alike_leave_a_regression(learnt):
    """With no doubt of the coefficients and one error variance, an innovation is the error."""
    model, prior = learnt
    sure = prior._replace(effect=1e-9, intercept=1e-9, slope=1e-9)
    window, known = drawn(learnt, n=3)
    same = known._replace(variance=np.full((3, 2), 0.7))
    found = sequential.innovations(model, sure, window, same)
    error = (window.outcome - window.controls @ model.slope) / np.sqrt(0.7)
    np.testing.assert_allclose(found.outcome, np.clip(error, -4.753, 4.753), atol=1e-3)
    t_error = window.treatment - model.treatment_slope[0]
    t_error = (t_error - window.controls @ model.treatment_slope[1:]) / np.sqrt(
        known.treatment_variance[:, None]
    )
    log = norm.logpdf(error, scale=1) - np.log(np.sqrt(0.7))
    t_log = norm.logpdf(t_error) - np.log(np.sqrt(known.treatment_variance[:, None]))
    np.testing.assert_allclose(found.log_evidence, (log + t_log).sum(1), rtol=1e-6)


def test_no_innovation_changes_with_a_later_date(learnt):
    window, known = drawn(learnt)
    later = window.outcome.copy()
    later[:, 70:] += 5
    ours = sequential.innovations(*learnt, window, known)
    theirs = sequential.innovations(*learnt, window._replace(outcome=later), known)
    np.testing.assert_array_equal(ours.outcome[:, :70], theirs.outcome[:, :70])
    assert (ours.outcome[:, 70] != theirs.outcome[:, 70]).all()


def test_innovations_of_the_family_are_standard_normal_and_independent(learnt):
    window, known = drawn(learnt, n=200)
    z = sequential.innovations(*learnt, window, known).outcome
    assert z.mean() == pytest.approx(0, abs=0.03)
    assert z.std() == pytest.approx(1, abs=0.03)
    assert (z[:, 1:] * z[:, :-1]).mean() == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("name", ["break_mean", "break_effect"])
def test_a_break_shows_at_its_date(name, learnt):
    window, known = drawn(learnt, economy.Stress(name, 2.0, 1.0), n=100)
    z = sequential.innovations(*learnt, window, known).outcome
    half = N_DATES // 2
    assert (z[:, half : half + 10] ** 2).mean() > 2.0
    assert (z[:, :half] ** 2).mean() < 1.2
