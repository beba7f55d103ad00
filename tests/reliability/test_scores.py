"""Scores of predictions and of estimates, beside numbers found by hand and known distributions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binom, laplace, norm

from touchstone.reliability.scores import (
    coordinates,
    coverage_90,
    judge,
    parameter_nrmse,
    posterior_mean,
    predictive_metrics,
)
from touchstone.vocabulary import Cases, Computation, Posterior, Prediction, Quantity


def cases_of(observed, mask=None, truth=None, known=None):
    """Cases of no kind in particular, all samples observed where no mask is given."""
    n = len(observed)
    mask = np.ones(observed.shape, bool) if mask is None else mask
    truth = np.zeros((n, 1)) if truth is None else truth
    known = np.zeros(truth.shape, bool) if known is None else known
    return Cases(observed, mask, truth, known, np.full(n, "any"), np.arange(n), None)


def gaussian(observed, mean, sd, noise):
    """Prediction of Gaussian samples, with noise of a standard deviation for each case."""
    cdf = norm.cdf(observed, mean, sd)
    log_density = norm.logpdf(observed, mean, sd) + np.log(noise)[:, None]
    return Prediction(mean, sd, cdf, log_density, norm.ppf(cdf))


def posterior_of(prediction, draws=None, computation=None):
    """Posterior with a prediction; its draws are of equal weights, its prior standard normal."""
    n = len(prediction.mean)
    draws = {"q": np.zeros((n, 4))} if draws is None else draws
    shape = next(iter(draws.values())).shape
    return Posterior(
        draws,
        np.full(shape, 1 / shape[1]),
        np.zeros((n, len(draws))),
        np.ones((n, len(draws))),
        np.full((n, len(draws)), 0.5),
        prediction,
        np.full(n, -3.0),
        Computation.unchecked() if computation is None else computation,
    )


def metrics_of(observed, mask, mean, sd, noise):
    """Metrics of a Gaussian prediction."""
    prediction = gaussian(observed, mean, sd, noise)
    return predictive_metrics(cases_of(observed, mask), posterior_of(prediction))


# Predictions --------------------------------------------------------------------------------------


def test_metrics_of_one_case_are_those_found_by_hand():
    observed = np.array([[0.0, 1.0, 2.0, 4.0]])
    mean = np.array([[0.0, 1.0, 2.0, 2.0]])
    sd = np.array([[1.0, 1.0, 1.0, 0.99]])  # the last is just beyond two standard deviations
    got = metrics_of(observed, None, mean, sd, np.array([0.5]))
    by_hand = {
        "pred_nrmse": 1.0 / 4,  # errors 0, 0, 0, 2 over a range of 4
        # (0 + 0 + 0 + 2.0406 - 0.01005) / 4 + ln(1 / 0.5) + ln(2 pi) / 2
        "pred_nll": 2.119725,
        "pred_calibration_error": 0.067311 + 0.204500,  # 3/4 within one sd, 3/4 within two
        "pred_sharpness": 3.99 / 4 / 4,
        # 100 (.45 e^-.25 + .3 e^-2.119725 + .15 e^-1.087242 + .1 e^-.249375)
        "reliability_score": 51.4980,
        "max_abs_observed": 4.0,
    }
    assert {name: values[0] for name, values in got.items()} == pytest.approx(by_hand, abs=2e-4)


def test_a_perfect_and_sharp_prediction_scores_no_more_than_a_hundred():
    observed, sd = np.array([[0.0, 1.0, 2.0]]), np.full((1, 3), 1e-3)
    assert metrics_of(observed, None, observed, sd, np.ones(1))["reliability_score"] == 100.0


def test_a_case_without_an_observed_sample_is_named():
    ones, mask = np.ones((2, 2)), np.array([[True, True], [False, False]])
    with pytest.raises(ValueError, match="case 1 has no observed sample"):
        metrics_of(ones, mask, ones, ones, np.ones(2))


@st.composite
def predictions(draw, cases=3, samples=12):
    """Observed values, mask, predictive mean and sd, and noise, of a few cases."""

    def values(shape, low, high):
        return draw(hnp.arrays(np.float64, shape, elements=st.floats(low, high)))

    observed = values((cases, samples), -10, 10)
    observed[:, 0], observed[:, 1] = -11.0, 11.0  # a range that is not zero
    mask = draw(hnp.arrays(bool, (cases, samples)))
    mask[:, :2] = True
    mean, sd = values((cases, samples), -10, 10), values((cases, samples), 0.1, 3)
    return observed, mask, mean, sd, values(cases, 0.05, 3)


@given(predictions(), st.integers(-30, 30))
def test_the_unit_of_the_observation_changes_nothing_but_the_trivial_score(case, exponent):
    observed, mask, mean, sd, noise = case
    unit = 2.0**exponent  # exact in floating point, so that nothing changes sides of an interval
    before = metrics_of(*case)
    after = metrics_of(unit * observed, mask, unit * mean, unit * sd, unit * noise)
    np.testing.assert_allclose(after.pop("max_abs_observed"), unit * before.pop("max_abs_observed"))
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, rtol=1e-9, atol=1e-9, err_msg=name)


@given(predictions(), st.sampled_from([np.nan, 1e9, -3.0]))
def test_unobserved_samples_do_not_matter(case, value):
    observed, mask, mean, sd, noise = case
    before = metrics_of(*case)
    hidden = np.where(mask, observed, value), mask, np.where(mask, mean, 7.0), sd, noise
    for name, values in metrics_of(*hidden).items():
        np.testing.assert_array_equal(values, before[name], err_msg=name)


@given(predictions())
def test_scores_are_between_nothing_and_a_hundred(case):
    score = metrics_of(*case)["reliability_score"]
    assert ((score >= 0) & (score <= 100)).all()


@pytest.mark.parametrize("law", [norm, laplace])
def test_data_of_the_predicted_distribution_are_calibrated_whatever_it_is(law):
    """The part inside an interval is judged by probabilities, not by standard deviations."""
    observed = law.rvs(size=(1, 40_000), random_state=0)
    mean, cdf = np.zeros(observed.shape), law.cdf(observed)
    sd = np.full(observed.shape, law.std())
    right = Prediction(mean, sd, cdf, law.logpdf(observed), cdf)
    cases = cases_of(observed)
    metrics = predictive_metrics(cases, posterior_of(right))
    # The standard deviations of the two parts are 0.0023 and 0.0010.
    assert metrics["pred_calibration_error"] == pytest.approx(0, abs=0.01)
    assert metrics["pred_nll"] == pytest.approx(law.entropy(), abs=0.02)
    inside = coverage_90(cases, posterior_of(right))
    assert inside["coverage_90"] == pytest.approx(0.9, abs=0.01)


def test_a_gaussian_prediction_of_laplace_data_is_not_calibrated():
    observed = laplace.rvs(size=(1, 40_000), random_state=0)
    mean, sd = np.zeros(observed.shape), np.full(observed.shape, laplace.std())
    error = metrics_of(observed, None, mean, sd, np.ones(1))["pred_calibration_error"]
    beyond = np.array([1, 2]) * laplace.std()
    expected = np.abs(
        laplace.cdf(beyond) - laplace.cdf(-beyond) - norm.cdf([1, 2]) + norm.cdf([-1, -2])
    )
    assert error == pytest.approx(expected.sum(), abs=0.01)


def test_the_two_bands_count_what_each_holds_among_the_observed_samples():
    flat = np.zeros((1, 4))
    cdf, pit = np.array([[0.5, 0.04, 0.96, 0.5]]), np.array([[0.5, 0.06, 0.94, 0.99]])
    cases = cases_of(flat, np.array([[True, True, True, False]]))
    got = coverage_90(cases, posterior_of(Prediction(flat, flat + 1, cdf, flat, norm.ppf(pit))))
    assert {name: values.tolist() for name, values in got.items()} == {
        "coverage_90": [pytest.approx(1 / 3)],
        "coverage_90_ahead": [1.0],
    }


# Estimates ----------------------------------------------------------------------------------------


def test_parameter_error_counts_unknown_parameters_in_prior_standard_deviations():
    estimate = np.array([[1.0, 5.0, 0.0], [1.0, 1.0, 1.0]])
    truth = np.array([[0.0, 3.0, 9.0], [0.0, 0.0, 0.0]])
    prior_sd = np.array([[0.5, 2.0, 1.0], [1.0, 1.0, 1.0]])
    unknown = np.array([[True, True, False], [False, False, False]])
    # errors of 2 and 1 prior standard deviations; nothing unknown is no error
    got = parameter_nrmse(estimate, truth, prior_sd, unknown)
    np.testing.assert_allclose(got, [np.sqrt((4 + 1) / 2), 0.0])


OFFSET = Quantity("offset", "normal", 0.0, 1.0, "V", "")
RATE = Quantity("rate", "lognormal", 0.0, 1.0, "1/s", "")


def test_the_mean_is_of_weighted_coordinates():
    flat = np.zeros((1, 2))
    prediction = Prediction(flat, flat + 1, flat, flat, flat)
    draws = {"offset": np.array([[1.0, 5.0]]), "rate": np.array([[1.0, np.e**4]])}
    posterior = posterior_of(prediction, draws)._replace(weight=np.array([[0.75, 0.25]]))
    each = coordinates([OFFSET, RATE], draws)
    np.testing.assert_allclose(each, [[[1.0, 0.0], [5.0, 4.0]]])
    np.testing.assert_allclose(posterior_mean([OFFSET, RATE], posterior), [[2.0, 1.0]])


@pytest.fixture
def judged():
    """Two cases, the rate known in the second; estimates 1 too high in either coordinate."""
    observed = np.array([[0.0, 1.0], [0.0, 1.0]])
    known = np.array([[False, False], [False, True]])
    cases = cases_of(observed, truth=np.zeros((2, 2)), known=known)
    draws = {"offset": np.ones((2, 4)), "rate": np.full((2, 4), np.e)}
    computation = Computation({"k_hat": np.array([0.5, 0.9])}, {"k_hat": np.full(2, 0.7)}, {})
    prediction = gaussian(observed, observed, np.ones((2, 2)), np.ones(2))
    return cases, posterior_of(prediction, draws, computation)


def test_a_row_of_metrics_has_errors_scores_and_what_vouches_for_the_draws(judged):
    cases, posterior = judged
    rows = judge([OFFSET, RATE], ["rate"], cases, posterior)
    assert list(rows.columns) == [
        *("param_nrmse", "prior_mean_nrmse"),
        *predictive_metrics(cases, posterior),
        *("log_evidence", "computation_k_hat", "computation_sound", "bias_rate", "wrong"),
    ]
    assert rows["param_nrmse"].tolist() == [1.0, 1.0]
    assert rows["prior_mean_nrmse"].tolist() == [0.0, 0.0]
    assert rows["computation_sound"].tolist() == [1.0, 0.0]
    assert rows["log_evidence"].tolist() == [-3.0, -3.0]


def test_an_answer_is_wrong_where_the_truth_is_outside_of_its_central_99_percent():
    rng = np.random.default_rng(0)
    n, draws = 2000, rng.standard_normal((2000, 3000))
    observed = np.zeros((n, 2))
    truth = np.stack([rng.standard_normal(n), np.full(n, 99.0)], axis=1)
    known = np.tile([False, True], (n, 1))
    cases = cases_of(observed, truth=truth, known=known)
    prediction = gaussian(observed, observed, np.ones((n, 2)), np.ones(n))
    posterior = posterior_of(prediction, {"offset": draws, "rate": np.exp(draws)})
    rows = judge([OFFSET, RATE], ["offset", "rate"], cases, posterior)
    # Of an exact posterior 1 % are, whatever is known; binomial limits of 99.9 %.
    assert binom.ppf(5e-4, n, 0.01) <= rows["wrong"].sum() <= binom.ppf(1 - 5e-4, n, 0.01)
    wrong = np.abs(truth[:, 0]) > norm.ppf(0.995)
    assert (rows["wrong"].to_numpy(bool) == wrong).mean() > 0.995


def test_bias_of_a_logarithm_is_in_decades_and_there_is_none_of_what_is_known(judged):
    rows = judge([OFFSET, RATE], ["offset", "rate"], *judged)
    assert rows["bias_offset"].tolist() == [1.0, 1.0]
    np.testing.assert_allclose(rows["bias_rate"], [1 / np.log(10), np.nan])


def test_draws_that_nothing_vouches_for_are_not_said_to_be_sound_or_unsound(judged):
    cases, posterior = judged
    posterior = posterior._replace(computation=Computation.unchecked())
    rows = judge([OFFSET, RATE], [], cases, posterior)
    assert not [name for name in rows if name.startswith(("computation", "bias"))]
