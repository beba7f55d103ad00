"""Signs of misfit: usual where the model is right, and each high where its own fault is."""

import numpy as np
import pytest
from scipy.stats import binom, kstest, norm

from touchstone.reliability.signs import MEANING, signs, where
from touchstone.vocabulary import Cases, Computation, Posterior, Prediction, Quantity

N, N_CASES = 200, 400
FLAT = Quantity("flat", "uniform", 0.0, 1.0, "", "bounded")
BELL = Quantity("bell", "normal", 0.0, 1.0, "", "not bounded")


def found(innovation, *, mask=None, left=0.01, estimate=(0.0, 0.0), known=(False, False)):
    """Signs of cases with such innovations, whose misfit is a part of the record."""
    n, n_samples = innovation.shape
    rng = np.random.default_rng(9)
    fit = np.sin(np.arange(n_samples) / 9) * np.ones((n, 1))
    observed = fit + left * rng.standard_normal(fit.shape)
    mask = np.ones(fit.shape, bool) if mask is None else mask
    cases = Cases(
        observed,
        mask,
        np.zeros((n, 2)),
        np.tile(known, (n, 1)),
        np.full(n, "any"),
        np.arange(n),
        None,
    )
    prediction = Prediction(fit, fit, fit, fit, innovation)
    draws = {q.name: np.full((n, 3), at) for q, at in zip((FLAT, BELL), estimate, strict=True)}
    posterior = Posterior(
        draws,
        np.full((n, 3), 1 / 3),
        np.zeros((n, 2)),
        np.tile([3**-0.5, 1.0], (n, 1)),
        np.tile([(1 + estimate[0]) / 2, norm.cdf(estimate[1])], (n, 1)),
        prediction,
        np.zeros(n),
        Computation.unchecked(),
    )
    return signs([FLAT, BELL], ["flat", "bell"], cases, posterior, np.zeros(n))


@pytest.fixture(scope="module")
def white():
    return np.random.default_rng(1).standard_normal((N_CASES, N))


@pytest.fixture(scope="module")
def usual(white):
    return found(white)


def test_signs_of_white_noise_are_what_theory_says(usual):
    assert kstest(usual["sign_spread"], norm.cdf).pvalue > 1e-3
    # N p of the largest of N is exponential, but for its far end.
    assert kstest(10 ** -usual["sign_largest"], lambda x: 1 - np.exp(-x)).pvalue > 1e-3
    changes = (N - 1) / 2 - usual["sign_runs"] * np.sqrt((N - 1) / 4)
    binomial_law = binom(N - 1, 0.5)
    assert (
        kstest(
            changes + np.random.default_rng(3).uniform(-0.5, 0.5, N_CASES),
            norm((N - 1) / 2, binomial_law.std()).cdf,
        ).pvalue
        > 1e-3
    )
    half_normal = 2 * norm.cdf(usual["sign_correlation"]) - 1
    assert kstest(half_normal, "uniform").pvalue > 1e-3
    # Kolmogorov's distribution has median 0.828 and upper quantile 1.358 at 5 %.
    assert np.median(usual["sign_uniformity"]) == pytest.approx(0.828, abs=0.07)
    assert (usual["sign_uniformity"] > 1.358).mean() == pytest.approx(0.05, abs=0.035)


def smooth(white):
    rough = np.zeros_like(white)
    rough[:, 0] = white[:, 0]
    for k in range(1, white.shape[1]):
        rough[:, k] = 0.5 * rough[:, k - 1] + np.sqrt(0.75) * white[:, k]
    return rough


def one_spike(white):
    return np.where(np.arange(N) == 77, 6.0, white)


def one_stretch(white):
    return np.where((np.arange(N) >= 60) & (np.arange(N) < 68), white + 2.0, white)


def slow_among_spikes(white):
    """Errors to one side for long, too small beside a few wild samples to correlate."""
    slow = white + 0.9 * np.sign(np.sin(np.arange(N) / 12))
    return np.where(np.arange(N) % 40 == 7, 40.0 * (-1) ** (np.arange(N) // 40), slow)


@pytest.mark.parametrize(
    ("name", "faulty"),
    [
        ("sign_runs", smooth),
        ("sign_runs", slow_among_spikes),
        ("sign_spread", lambda white: 1.4 * white),
        ("sign_correlation", smooth),
        ("sign_largest", one_spike),
        ("sign_local", one_stretch),
        ("sign_uniformity", lambda white: white + 0.4),
        ("sign_uniformity", lambda white: 0.5 * white),
    ],
)
def test_each_fault_shows_in_its_own_sign(white, usual, name, faulty):
    limit = np.quantile(usual[name], 0.95)
    assert (found(faulty(white))[name] > limit).mean() > 0.9


def test_runs_see_what_a_few_wild_samples_hide_from_the_correlation(white, usual):
    limit = {name: np.quantile(usual[name], 0.95) for name in ("sign_runs", "sign_correlation")}
    got = found(slow_among_spikes(white))
    assert (got["sign_correlation"] > limit["sign_correlation"]).mean() < 0.5
    alternating = found(np.abs(white) * (-1) ** np.arange(N))
    assert (alternating["sign_runs"] < limit["sign_runs"]).all()  # its blind spot, as documented


def test_what_is_left_unexplained_counts_beside_the_record(white):
    small, large = found(white, left=0.01), found(white, left=0.3)
    scale = np.sqrt(np.mean(np.sin(np.arange(N) / 9) ** 2))
    for got, left in ((small, 0.01), (large, 0.3)):
        np.testing.assert_allclose(got["sign_misfit"], np.log10(left / scale), atol=0.1)


@pytest.mark.parametrize(
    ("estimate", "part"),
    [((0.0, 0.0), 1.0), ((0.99, 0.0), 0.01), ((0.0, -3.0), 0.0027), ((0.9, 1.0), 0.1)],
)
def test_an_estimate_at_the_edge_is_as_rare_as_its_prior_says(white, estimate, part):
    got = found(white[:1], estimate=estimate)["sign_edge"][0]
    assert got == pytest.approx(-np.log10(part), abs=0.01)


def test_what_is_known_is_at_no_edge(white):
    assert found(white[:1], estimate=(0.999, 0.0), known=(True, False))["sign_edge"][0] == 0


def test_samples_that_were_not_seen_do_not_count(white):
    mask = np.arange(N) < 120
    spoilt = np.where(mask, white, 1e3)
    seen = np.tile(mask, (N_CASES, 1))
    ours, alone = found(spoilt, mask=seen), found(white[:, :120])
    for name in MEANING:
        if name not in ("sign_misfit", "sign_edge"):
            np.testing.assert_allclose(ours[name], alone[name])


def test_the_worst_stretch_is_found_where_it_is():
    innovation = np.random.default_rng(2).standard_normal(N)
    innovation[100:108] = 4.0
    seen = np.ones(N, bool)
    seen[103] = False
    first, last = where(innovation, seen)
    assert 96 <= first <= 101 and 106 <= last <= 110
