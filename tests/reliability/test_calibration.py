"""Tests of posteriors on posteriors that are right, or wrong in a known way."""

import numpy as np
import pytest
from scipy import stats

from touchstone.reliability.calibration import (
    assess,
    c2st,
    calibration,
    coverage,
    coverage_deviation,
    distance_ranks,
    ecdf_band,
    fractional_ranks,
    uniformity,
)

# Two parameters with a standard normal prior, each observed once with this noise: given y the
# posterior is normal with mean y / (1 + NOISE^2) and variance NOISE^2 / (1 + NOISE^2).
NOISE, N, L = 0.5, 600, 60


def cases(narrow=1.0, shift=0.0, n=N, seed=0):
    """Truths, and draws from posteriors that are too narrow by a factor and shifted by some sd."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((n, 2))
    observed = truth + NOISE * rng.standard_normal((n, 2))
    sd = NOISE / np.sqrt(1 + NOISE**2)
    mean = observed / (1 + NOISE**2) + shift * sd
    return mean[:, None] + sd / narrow * rng.standard_normal((n, L, 2)), truth, rng


WRONG = [{"narrow": 1.3}, {"narrow": 1 / 1.3}, {"shift": 0.3}]


# Two samples --------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", [0.0, 1.0, 10.0])
def test_two_shifted_normals_are_told_apart_as_well_as_is_possible(distance):
    a, b = np.random.default_rng(1).standard_normal((2, 1500, 2))
    best = stats.norm.cdf(distance / 2)  # of all classifiers: the nearer mean
    assert c2st(a, b + np.array([distance, 0.0])) == pytest.approx(best, abs=0.025)


def test_the_unit_of_a_parameter_does_not_matter():
    a, b = np.random.default_rng(1).standard_normal((2, 150, 2))
    unit = np.array([2.0**20, 2.0**-20])  # exact in floating point
    assert c2st(unit * a, unit * (b + 1)) == c2st(a, b + 1)


@pytest.mark.parametrize(
    ("b", "complaint"),
    [(np.ones((9, 2)), r"\(10, 2\), \(9, 2\)"), (np.ones((10, 2)), "entry 1 is constant")],
)
def test_draws_that_cannot_be_compared_are_refused(b, complaint):
    a = np.column_stack([np.arange(10), np.zeros(10)])
    with pytest.raises(ValueError, match=complaint):
        c2st(a, b)


# Uniformity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 7, 60, 300])
def test_the_distance_from_the_diagonal_is_that_of_kolmogorov_and_smirnov(n):
    u = np.random.default_rng(n).uniform(size=n)
    # Between draws the distribution function is flat: it is farthest off at one end or the other.
    grid = np.concatenate([np.sort(u), np.sort(u) - 1e-12])
    farthest = np.abs((u <= grid[:, None]).mean(1) - grid).max()
    assert uniformity(u).deviation == pytest.approx(farthest)


@pytest.mark.parametrize("n", [30, 250])
def test_the_band_is_left_as_often_as_it_says(n):
    rng = np.random.default_rng(n)
    p_values = [uniformity(rng.uniform(size=n)).p_value for _ in range(300)]
    for level in (0.05, 0.2):
        chance = np.mean(np.array(p_values) < level)
        assert chance == pytest.approx(level, abs=3 * np.sqrt(level / 300))
    points, low, high = ecdf_band(n, 0.9)
    u = rng.uniform(size=(2000, n, 1))
    below = np.stack([(u[..., 0] <= point).mean(1) for point in points], 1)
    tiny = 1e-9
    inside = ((below >= low - tiny) & (below <= high + tiny)).all(1).mean()
    assert inside == pytest.approx(0.9, abs=0.025)


def test_numbers_in_the_tails_are_noticed():
    middle = np.linspace(0, 1, 202)[1:-1]
    in_the_tail = np.where(np.arange(200) < 5, 1e-6, middle)
    assert uniformity(middle).p_value > 0.99
    assert uniformity(in_the_tail).p_value > 0.1  # five are expected below the first points
    assert uniformity(np.append(middle, np.full(8, 1e-6))).p_value < 0.02


# Ranks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_draws", [1, 7, 100])
def test_ranks_are_uniform_however_few_and_tied_the_draws(n_draws):
    rng = np.random.default_rng(2)
    draws, truth = rng.poisson(1.0, (2000, n_draws)), rng.poisson(1.0, 2000)
    ranks = fractional_ranks(draws, truth, rng)
    assert stats.kstest(ranks, "uniform").pvalue > 0.01


def test_a_right_posterior_passes_and_a_wrong_one_does_not():
    draws, truth, rng = cases()
    ranks = fractional_ranks(draws, truth, rng)
    right = calibration(ranks)
    assert right.inside.all()
    assert (right.n == N).all()
    assert coverage_deviation(ranks) < 0.04
    assert uniformity(distance_ranks(draws, truth, rng)).p_value > 0.05
    for how in WRONG:
        draws, truth, rng = cases(**how)
        wrong = calibration(fractional_ranks(draws, truth, rng))
        assert not wrong.inside.any(), how
        assert (wrong.deviation > right.deviation).all()
        if "narrow" in how:  # shifts mostly cancel in the distances to points all around
            assert uniformity(distance_ranks(draws, truth, rng)).p_value < 0.01, how


def test_bands_of_all_parameters_hold_together():
    """Of many right posteriors of five parameters, few have any parameter outside."""
    ranks = np.random.default_rng(3).uniform(size=(120, 30, 5))
    outside = np.mean([not calibration(u, level=0.8).inside.all() for u in ranks])
    assert outside == pytest.approx(0.2, abs=0.11)


def test_coverage_of_too_narrow_a_posterior_is_that_of_a_normal():
    draws, truth, rng = cases(narrow=1.3, n=4000)
    levels = np.array([0.5, 0.8, 0.95])
    exact = 2 * stats.norm.cdf(stats.norm.ppf((1 + levels) / 2) / 1.3) - 1
    got = coverage(fractional_ranks(draws, truth, rng), levels=levels)
    np.testing.assert_allclose(got, exact, atol=0.02)


def test_what_is_known_does_not_count():
    draws, truth, rng = cases()
    unknown = rng.uniform(size=truth.shape) < 0.6
    unknown[~unknown.any(1), 0] = True
    draws[np.broadcast_to(~unknown[:, None], draws.shape)] = 77.0
    ranks = fractional_ranks(draws, truth, rng)
    judged = calibration(ranks, unknown)
    assert judged.inside.all()
    np.testing.assert_array_equal(judged.n, unknown.sum(0))
    assert not calibration(ranks).inside.any()
    assert coverage_deviation(ranks, unknown) < 0.05 < coverage_deviation(ranks)
    assert uniformity(distance_ranks(draws, truth, rng, unknown)).p_value > 0.05
    assert uniformity(distance_ranks(draws, truth, rng)).p_value < 1e-6


def test_a_parameter_that_is_never_unknown_says_nothing():
    ranks = np.column_stack([np.random.default_rng(7).uniform(size=50), np.full(50, 0.5)])
    only_first = np.tile([True, False], (50, 1))
    judged = calibration(ranks, only_first)
    assert judged.n.tolist() == [50, 0]
    assert judged.inside.tolist() == [True, True]
    assert judged.p_value[0] == calibration(ranks[:, :1]).p_value[0]


def test_only_random_points_see_that_parameters_hang_together():
    """Draws that are right one by one, and lack a correlation of 0.9."""
    rng = np.random.default_rng(4)
    common, own = rng.standard_normal((3000, 1)), rng.standard_normal((3000, 2))
    truth = np.sqrt(0.9) * common + np.sqrt(0.1) * own
    draws = rng.standard_normal((3000, L, 2))
    assert calibration(fractional_ranks(draws, truth, rng)).inside.all()
    assert uniformity(distance_ranks(draws, truth, rng)).p_value < 1e-3


def test_no_rank_tells_the_prior_from_a_posterior():
    """What these tests cannot see, and why sharpness belongs beside them."""
    rng = np.random.default_rng(6)
    truth, draws = rng.standard_normal((N, 2)), rng.standard_normal((N, L, 2))
    assert calibration(fractional_ranks(draws, truth, rng)).inside.all()
    assert uniformity(distance_ranks(draws, truth, rng)).p_value > 0.05


@pytest.mark.parametrize(("sd", "right"), [(1.0, True), (0.6, False)])
def test_an_assessment_tells_intervals_that_are_too_narrow(sd, right):
    rng = np.random.default_rng(5)
    n, names = 600, ["a", "b", "c"]
    centre = rng.standard_normal((n, 3))
    truth = centre + rng.standard_normal((n, 3))
    draws = centre[:, None] + sd * rng.standard_normal((n, 50, 3))
    unknown = np.ones((n, 3), bool)
    unknown[:, 2] = False
    found = assess(draws, truth, unknown, names, rng)
    assert [row["parameter"] for row in found.parameters] == ["a", "b"]
    assert all(row["inside"] == right for row in found.parameters)
    for row in found.parameters:
        assert row["n"] == n
        assert (abs(row["coverage_90"] - 0.9) < 0.04) == right
    assert (found.regions.p_value > 0.01) == right
