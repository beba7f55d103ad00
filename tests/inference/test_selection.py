"""Averages over populations that are seen in part, beside exact ones."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from touchstone.inference import selection

LIMIT, SOFT = 1.0, 0.4  # what is seen: those above a limit, softly


def chance(u):
    return norm.cdf((u[:, 0] + 0.5 * u[:, 1] - LIMIT) / SOFT)


def test_intervals_hold_the_average_of_the_whole_population_and_naive_ones_do_not():
    """Of f = u0² + u1 the average is mean² + variance + mean, exactly, of any normal population."""
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((10_000, 2))
    effect = draws[:, 0] ** 2 + draws[:, 1]
    mean, spread = np.array([0.2, -0.3]), np.array([0.9, 1.1])
    truth = mean[0] ** 2 + spread[0] ** 2 + mean[1]
    held, naive = [], []
    for _ in range(100):
        everyone = mean + spread * rng.standard_normal((2000, 2))
        seen = everyone[rng.random(len(everyone)) < chance(everyone)]
        found = selection.average(seen, draws, effect, chance(draws))
        held.append(abs(found.value - truth) < norm.isf(0.05) * found.error)
        own = seen[:, 0] ** 2 + seen[:, 1]
        naive.append(abs(own.mean() - truth) < norm.isf(0.05) * own.std() / np.sqrt(len(own)))
    assert binomtest(sum(held), len(held), 0.9).pvalue > 0.01
    assert np.mean(naive) < 0.05


def test_without_selection_it_is_the_maximum_likelihood_of_a_normal_population():
    rng = np.random.default_rng(1)
    draws, sample = rng.standard_normal((200_000, 1)), 0.3 + 0.9 * rng.standard_normal((500, 1))
    found = selection.average(sample, draws, draws[:, 0], np.ones(len(draws)))
    assert found.value == pytest.approx(sample.mean(), abs=0.01)
    assert found.error == pytest.approx(sample.std() / np.sqrt(500), rel=0.02)


def test_a_sample_that_no_simulation_is_like_is_refused():
    rng = np.random.default_rng(2)
    draws, far = rng.standard_normal((2000, 1)), 6 + 0.1 * rng.standard_normal((100, 1))
    with pytest.raises(selection.SelectionError, match=r"effective draws|does not converge"):
        selection.average(far, draws, draws[:, 0], np.ones(len(draws)))
