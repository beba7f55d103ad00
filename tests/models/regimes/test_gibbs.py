"""Posteriors of economies: right on average, and what they say of regimes and of each date."""

import numpy as np
import pytest
from scipy.stats import kstest

from touchstone.contract import load_model
from touchstone.models.regimes import economy, gibbs


@pytest.fixture(scope="module")
def inferred(learnt):
    rng = np.random.default_rng(1)
    parameters = economy.draw_parameters(learnt[1], learnt[0], rng, 120)
    window = economy.draw(learnt[0], parameters, 60, rng, rng)
    return parameters, window, gibbs.sample(*learnt, window, rng, 200, 400)


def quantities(sampled):
    n, n_draws = sampled.parameters.variance.shape[:2]
    flat = (a.reshape(n * n_draws, *a.shape[2:]) for a in sampled.parameters)
    return economy.Parameters(*flat).quantities.reshape(n, n_draws, -1)


def test_truths_are_distributed_as_the_draws(inferred):
    """Simulation-based calibration (Talts et al. 2018), of seven quantities together."""
    parameters, _, sampled = inferred
    ranks = (quantities(sampled) < parameters.quantities[:, None]).mean(1)
    p_values = [kstest(column, "uniform").pvalue for column in ranks.T]
    assert min(p_values) > 0.01 / len(p_values)


def test_probabilities_of_the_regime_are_calibrated(inferred):
    _, window, sampled = inferred
    p, turbulent = sampled.turbulent.ravel(), window.state.ravel() == 1
    assert np.mean((p - turbulent) ** 2) < 0.8 * turbulent.var()
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.01)):
        inside = (p >= low) & (p < high)
        # Dates of an economy are not independent: the error is that of as many economies.
        error = 3 * np.sqrt(0.25 / 120)
        assert turbulent[inside].mean() == pytest.approx(p[inside].mean(), abs=error)


def test_chains_agree_in_nearly_all_cases(inferred):
    assert np.mean(inferred[2].r_hat < 1.1) > 0.92


def test_innovations_of_the_family_are_nearly_standard_normal(inferred):
    innovation = inferred[2].innovation
    assert innovation.mean() == pytest.approx(0, abs=0.05)
    assert innovation.std() == pytest.approx(1, abs=0.08)


def test_filtered_probabilities_of_the_last_date_are_the_smoothed_ones(inferred):
    sampled = inferred[2]
    assert np.abs(sampled.filtered[:, -1] - sampled.turbulent[:, -1]).max() < 0.12
    assert np.abs(sampled.filtered[:, 0] - sampled.turbulent[:, 0]).max() > 0.2


@pytest.mark.parametrize("name", load_model("regimes").stresses)
def test_a_stress_of_no_severity_is_none(name, learnt):
    parameters = economy.draw_parameters(learnt[1], learnt[0], np.random.default_rng(2), 3)

    def drawn(stress):
        return economy.draw(
            learnt[0], parameters, 50, np.random.default_rng(3), np.random.default_rng(4), stress
        )

    def differ(severity):
        size = load_model("regimes").config["stresses"][name]["size"]
        both = zip(drawn(economy.Stress(name, size, severity)), drawn(economy.NONE), strict=True)
        return [bool((ours != theirs).any()) for ours, theirs in both]

    assert not any(differ(0.0))
    # Features that are not what they are said to be leave outcomes as they are.
    of_features = name in ("wrong_lag", "look_ahead")
    assert differ(1.0)[2 if of_features else 0]
