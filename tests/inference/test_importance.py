"""Exact re-weighting against posteriors that are known in closed form or on a grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.stats import multivariate_normal, norm

from touchstone.inference import importance, psis
from touchstone.inference.problem import Coordinates, Factor, Problem

BUDGET = {"n_starts": 4, "n_improve": 10, "n_rounds": 8, "n_draws": 80, "n_effective": np.inf}
SIZE, N, SD = 5, 40, 0.3


norm_logpdf = jax.scipy.stats.norm.logpdf
STANDARD = Coordinates()
HALF = 3**0.5  # of the width of a uniform prior of unit variance


def uniform(z):
    """Coordinates of the first two entries in which their priors are uniform."""
    return z.at[:2].set(HALF * (2 * jax.scipy.stats.norm.cdf(z[:2]) - 1))


def standard(x):
    inside = jnp.clip(x[:2] / HALF, -1 + 1e-6, 1 - 1e-6)
    return x.at[:2].set(jax.scipy.special.ndtri((inside + 1) / 2))


def log_prior(x, free):
    flat = jnp.where(jnp.abs(x[:2]) < HALF, -jnp.log(2 * HALF), -jnp.inf)
    return (
        free * jnp.append(jnp.where(free[:2], flat, 0.0), jax.scipy.stats.norm.logpdf(x[2:]))
    ).sum()


def coordinates(size, *functions):
    """Coordinates of all entries."""
    return Coordinates(np.arange(size), *map(Partial, functions))


def problem_of(simulate, residuals, size, heavy, light=(), at=STANDARD):
    """A problem with one observation that depends on all entries."""
    factor = Factor(np.arange(size), Partial(simulate), Partial(residuals))
    return Problem((factor,), np.array(heavy, int), np.array(light, int), at)


def reweighted(problem, start, seed=0, **budget):
    rng = np.random.default_rng(seed)
    return importance.reweight(problem, np.asarray(start), rng, **{**BUDGET, **budget})


def run(predict, observed, mask, known, z_known, heavy, light=(), at=STANDARD, seed=0, **budget):
    def residuals(mean, z):
        _, sd = predict(z)
        log_scale = jnp.broadcast_to(jnp.log(sd) + 0.5 * np.log(2 * np.pi), observed.shape)
        residual = (observed - mean) / sd
        return jnp.where(mask, residual, 0.0), jnp.where(mask, log_scale, 0.0)

    start = jax.random.normal(jax.random.key(seed), (64, len(known)))
    start = jnp.where(known, z_known, start)

    free = np.flatnonzero(~known)
    heavy, light = np.intersect1d(heavy, free), np.intersect1d(light, free)
    problem = problem_of(lambda z: predict(z)[0], residuals, len(known), heavy, light, at)
    return reweighted(problem, start, seed + 1, **budget)


def effective(result):
    return 1 / (psis.smooth(np.asarray(result.log_weight))[0] ** 2).sum()


def moments(result):
    weight = np.asarray(jax.nn.softmax(result.log_weight), float)
    z = np.asarray(result.z, float)
    mean = weight @ z
    return mean, (weight[:, None] * (z - mean)).T @ (z - mean)


@pytest.fixture(scope="module")
def linear():
    rng = np.random.default_rng(3)
    design = rng.standard_normal((N, SIZE))
    truth = rng.standard_normal(SIZE)
    return design, truth, design @ truth + SD * rng.standard_normal(N)


@pytest.mark.parametrize("masked", [False, True])
def test_a_linear_gaussian_posterior_and_its_evidence_are_exact(linear, masked):
    design, _, observed = linear
    mask = np.arange(N) % 3 > 0 if masked else np.ones(N, bool)
    known = np.zeros(SIZE, bool)
    matrix = jnp.asarray(design, jnp.float32)
    result = run(
        lambda z: (matrix @ z, jnp.float32(SD)),
        jnp.asarray(observed, jnp.float32),
        mask,
        known,
        0.0,
        tuple(range(SIZE)),
    )
    seen = design[mask]
    covariance = np.linalg.inv(np.eye(SIZE) + seen.T @ seen / SD**2)
    exact = covariance @ seen.T @ observed[mask] / SD**2
    mean, spread = moments(result)
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((mean - exact) / sd, 0, atol=0.1)
    np.testing.assert_allclose(np.sqrt(np.diag(spread)) / sd, 1, atol=0.1)
    marginal = multivariate_normal(cov=seen @ seen.T + SD**2 * np.eye(mask.sum()))
    evidence = jax.nn.logsumexp(result.log_weight) - np.log(len(result.log_weight))
    assert abs(float(evidence) - marginal.logpdf(observed[mask])) < 0.1
    assert effective(result) > 0.5 * len(result.log_weight)
    _, k_hat = psis.smooth(np.asarray(result.log_weight))
    assert k_hat < psis.k_threshold(len(result.log_weight))


def test_what_is_known_stays_and_conditions_the_rest(linear):
    design, truth, observed = linear
    known = np.arange(SIZE) < 2
    matrix = jnp.asarray(design, jnp.float32)
    result = run(
        lambda z: (matrix @ z, jnp.float32(SD)),
        jnp.asarray(observed, jnp.float32),
        np.ones(N, bool),
        known,
        jnp.asarray(truth, jnp.float32),
        (2, 3, 4),
    )
    assert np.array_equal(np.unique(np.asarray(result.z)[:, :2], axis=0).shape, (1, 2))
    free = design[:, 2:]
    covariance = np.linalg.inv(np.eye(3) + free.T @ free / SD**2)
    exact = covariance @ free.T @ (observed - design[:, :2] @ truth[:2]) / SD**2
    mean, _ = moments(result)
    np.testing.assert_allclose((mean[2:] - exact) / np.sqrt(np.diag(covariance)), 0, atol=0.1)


@pytest.mark.parametrize(
    ("budget", "narrowest", "least_evidence"),
    [
        ({"n_starts": 8, "n_rounds": 16, "n_draws": 14, "n_effective": 12}, 0.9**2, 0.8),
        ({"n_starts": 16, "n_rounds": 24, "n_draws": 72, "n_effective": 30}, 0.97**2, 0.95),
    ],
    ids=["many small rounds", "few large rounds"],
)
def test_adapting_the_proposals_narrows_a_bent_posterior_little(budget, narrowest, least_evidence):
    """z1 = z0^2 + 0.1 noise among twelve: one integral over z0 gives the variance and the evidence.

    Weighed by mixtures fitted to themselves in small rounds, draws would keep 0.6 of the one and
    0.45 of the other.
    """
    size, sd = 12, 0.1

    def residuals(current, z):
        return current, jnp.zeros_like(current)

    def simulate(z):
        return jnp.append((z[2:] - 0.3) / 0.1, (z[1] - z[0] ** 2) / sd)

    problem = problem_of(simulate, residuals, size, range(size))

    def one(seed):
        start = np.random.default_rng(1000 + seed).standard_normal((120, size))
        return reweighted(problem, start, seed, n_improve=25, **budget)

    grid = np.linspace(-8, 8, 20_001)
    density = norm.pdf(grid) * np.exp(-0.5 * grid**4 / (1 + sd**2))
    variance = (density @ grid**2) / density.sum()
    bent = np.trapezoid(density, grid) * sd / np.hypot(1, sd)
    flat = 0.1 / np.hypot(1, 0.1) * np.exp(-0.5 * 0.3**2 / (1 + 0.1**2))
    ours = []
    for seed in range(30):
        result = one(seed)
        weight, _ = psis.smooth(result.log_weight)
        z = result.z[:, 0]
        evidence = np.exp(result.log_weight).mean() / (bent * flat ** (size - 2))
        ours.append([weight @ (z - weight @ z) ** 2 / variance, evidence])
    (narrow, evidence) = np.mean(ours, axis=0)
    assert narrowest < narrow < 1.05
    assert least_evidence < evidence < 1.05


@pytest.mark.parametrize("light", [(), (2,)], ids=["all heavy", "noise light"])
def test_a_bent_posterior_with_unknown_noise_agrees_with_a_grid(light):
    """Mean z0 + 0.1 z1^2 and log noise 0.3 z2: a ridge in two entries, and a scale."""
    observed = np.random.default_rng(5).normal(1.5, 0.5, 30)

    def predict(z):
        mean = jnp.full(30, z[0] + 0.1 * z[1] ** 2)
        return mean, 0.5 * jnp.exp(0.3 * z[2])

    result = run(
        predict,
        jnp.asarray(observed, jnp.float32),
        np.ones(30, bool),
        np.zeros(3, bool),
        0.0,
        tuple(k for k in range(3) if k not in light),
        light,
    )
    axis = np.linspace(-4, 4, 161)
    a, b, c = np.meshgrid(axis, axis, axis[::4], indexing="ij")
    sd = 0.5 * np.exp(0.3 * c)
    misfit = sum((y - a - 0.1 * b**2) ** 2 for y in observed)
    log = -0.5 * (a**2 + b**2 + c**2) - 0.5 * misfit / sd**2 - 30 * np.log(sd)
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    for k, values in enumerate((a, np.abs(b), c)):
        draws = np.asarray(result.z)[:, k]
        draws = np.abs(draws) if k == 1 else draws
        ours = np.asarray(jax.nn.softmax(result.log_weight)) @ draws
        exact = (weight * values).sum()
        assert abs(ours - exact) < 0.15 * np.sqrt((weight * (values - exact) ** 2).sum())


def test_what_is_known_is_simulated_at_its_own_value_even_where_proposals_are_bounded():
    """A known entry far out in its prior, among those proposed where theirs is uniform."""
    known, far = np.array([True, False]), 7.0

    def predict(z):
        return jnp.full(20, z[0] + z[1]), jnp.float32(0.2)

    observed = jnp.full(20, far + 0.5, jnp.float32)
    mask, z = np.ones(20, bool), jnp.array([far, 0.0])
    result = run(
        predict, observed, mask, known, z, (0, 1), (), coordinates(2, uniform, standard, log_prior)
    )
    mean, _ = moments(result)
    assert np.all(np.asarray(result.z)[:, 0] == far)
    assert mean[1] == pytest.approx(0.5 / (1 + 0.2**2 / 20), abs=0.01)


def test_proposals_do_not_vary_with_a_known_entry_that_their_coordinate_hangs_on():
    """The second coordinate is z1 + 6 z0, of which z0 is known."""
    coupled = coordinates(
        2,
        lambda z: z.at[1].add(6 * z[0]),
        lambda x: x.at[1].add(-6 * x[0]),
        lambda x, free: (free * norm_logpdf(x.at[1].add(-6 * x[0]))).sum(),
    )
    observed = jnp.full(20, 0.5, jnp.float32)
    plain, warped = (
        run(
            lambda z: (jnp.full(20, z[0] + z[1]), jnp.float32(0.2)),
            *(observed, np.ones(20, bool), np.array([True, False]), 0.0, (0, 1), (), at),
            n_rounds=1,
        )
        for at in (STANDARD, coupled)
    )
    assert effective(warped) == pytest.approx(effective(plain), rel=0.1)


@pytest.mark.parametrize("room", [0.0, 0.05])
def test_rounds_in_which_nothing_is_possible_do_not_spoil_the_others(room):
    """The simulation fails but in a slab that few draws are in, or none."""
    result = run(
        lambda z: (jnp.where(jnp.abs(z[0]) < room, jnp.full(20, z[1]), jnp.nan), jnp.float32(2.0)),
        *(jnp.zeros(20), np.ones(20, bool), np.zeros(2, bool), 0.0, (0, 1)),
        n_draws=4,
        n_rounds=40,
    )
    log_weight = np.asarray(result.log_weight)
    assert not np.isnan(log_weight).any()
    assert (log_weight > -np.inf).any() == (room > 0)
    assert np.isfinite(result.z).all()


def test_fewer_draws_than_starts_are_all_climbed_from(linear):
    design, truth, observed = linear
    matrix = jnp.asarray(design, jnp.float32)
    result = run(
        lambda z: (matrix @ z, jnp.float32(SD)),
        *(jnp.asarray(observed, jnp.float32), np.ones(N, bool), np.zeros(SIZE, bool), 0.0),
        tuple(range(SIZE)),
        n_starts=100,
    )
    np.testing.assert_allclose(moments(result)[0], truth, atol=4 * SD / np.sqrt(N))


def test_where_a_prior_is_uniform_proposals_in_its_own_coordinate_agree():
    """A uniform entry that the data leave open, and one that they fix, in both coordinates."""

    def predict(z):
        u = 2 * jax.scipy.stats.norm.cdf(z) - 1
        return jnp.full(20, u[0] + 2 * u[1]) + 0.02 * z[2], jnp.float32(0.2)

    observed = jnp.full(20, 1.2, jnp.float32)
    plain, straight = (
        run(predict, observed, np.ones(20, bool), np.zeros(3, bool), 0.0, (0, 1, 2), (), at)
        for at in (STANDARD, coordinates(3, uniform, standard, log_prior))
    )
    a, b = np.meshgrid(*2 * [np.linspace(-4.5, 4.5, 801)], indexing="ij")
    misfit = 1.2 - (2 * norm.cdf(a) - 1) - 2 * (2 * norm.cdf(b) - 1)
    log = -0.5 * misfit**2 / (0.2**2 / 20 + 0.02**2) - 0.5 * (a**2 + b**2)
    weight = np.exp(log - log.max()) / np.exp(log - log.max()).sum()
    mean, spread = moments(straight)
    for k, values in enumerate((a, b)):
        exact = (weight * values).sum()
        sd = np.sqrt((weight * (values - exact) ** 2).sum())
        assert abs(mean[k] - exact) < 0.15 * sd
        assert abs(np.sqrt(spread[k, k]) / sd - 1) < 0.15
    # What is a bent ridge in standard coordinates is a straight one between its ends.
    assert effective(straight) > effective(plain)


def test_rounds_end_when_enough_draws_count(linear):
    design, _, observed = linear
    matrix = jnp.asarray(design, jnp.float32)
    result = run(
        lambda z: (matrix @ z, jnp.float32(SD)),
        jnp.asarray(observed, jnp.float32),
        np.ones(N, bool),
        np.zeros(SIZE, bool),
        0.0,
        tuple(range(SIZE)),
        n_effective=100,
    )
    assert len(result.log_weight) < BUDGET["n_rounds"] * BUDGET["n_draws"] * SIZE
    assert effective(result) > 500
    covariance = np.linalg.inv(np.eye(SIZE) + design.T @ design / SD**2)
    mean, _ = moments(result)
    exact = covariance @ design.T @ observed / SD**2
    np.testing.assert_allclose((mean - exact) / np.sqrt(np.diag(covariance)), 0, atol=0.15)


def test_light_entries_make_each_simulation_count_for_more():
    """Known mean, three scales of the noise unknown: every simulation is worth a full draw."""
    rng = np.random.default_rng(2)
    part = np.arange(30) % 3
    observed = jnp.asarray(rng.normal(0, np.exp(0.5 * part)), jnp.float32)

    def predict(z):
        return jnp.full(30, 0.1 * z[0]), jnp.exp(z[1:][part])

    light, heavy = (
        run(predict, observed, np.ones(30, bool), np.zeros(4, bool), 0.0, *entries)
        for entries in (((0,), (1, 2, 3)), ((0, 1, 2, 3), ()))
    )
    lost = light.log_weight.size - np.array([effective(light), effective(heavy)])
    assert lost[0] < 2 / 3 * lost[1]
    mean, spread = scales_on_a_grid(np.asarray(observed, float), part)
    for result in (light, heavy):
        ours_mean, ours_spread = moments(result)
        np.testing.assert_allclose(ours_mean[1:], mean, atol=0.05)
        np.testing.assert_allclose(ours_spread[1:, 1:], spread, atol=0.05)


def scales_on_a_grid(observed, part):
    """Mean and covariance of the three scales: given the mean, they are independent."""
    axis = np.linspace(-5, 5, 401)
    prior = np.exp(-0.5 * axis**2)
    moment, weight = [], prior.copy()
    for k in range(3):
        misfit = ((observed[part == k][:, None] - 0.1 * axis) ** 2).sum(0)
        log = -0.5 * misfit[:, None] * np.exp(-2 * axis) - (part == k).sum() * axis
        density = np.exp(log - log.max()) * prior
        total = density.sum(1)
        weight *= total
        moment.append([density @ axis / total, density @ axis**2 / total])
    weight /= weight.sum()
    first, second = (np.array([m[k] for m in moment]) for k in range(2))
    mean = first @ weight
    together = (first * weight) @ first.T
    np.fill_diagonal(together, second @ weight)
    return mean, together - np.outer(mean, mean)


def two_modes(far):
    """Runs of a target with two equal modes at -3 and 3; each sees one, or all that `far` says."""

    def run(number):
        rng = np.random.default_rng(number)
        centre = rng.choice([-3.0, 3.0], (2000, 1)) if number in far else np.full((2000, 1), 3.0)
        z = centre + 0.6 * rng.standard_normal((2000, 1))
        log = norm.logpdf(z, 3, 0.5), norm.logpdf(z, -3, 0.5)
        target = np.logaddexp(*log) - np.log(2)
        there = norm.logpdf(z, 3, 0.6), norm.logpdf(z, -3, 0.6)
        proposal = np.logaddexp(*there) - np.log(2) if number in far else there[0]
        return importance.Reweighted(z[:1500], (target - proposal)[:1500, 0], 1500)

    return run


def test_runs_go_on_until_two_agree_and_are_pooled_by_their_evidence():
    both = importance.agree(two_modes({0, 1}), 6)
    assert both.disagreement < importance.AGREEMENT
    assert both.n_simulations == 2 * 1500
    assert both.log_evidence == pytest.approx(0, abs=0.05)
    assert both.k_hat < both.k_threshold
    assert both.weight @ (both.z[:, 0] < 0) == pytest.approx(0.5, abs=0.05)
    # One mode is half of the evidence: who misses the other falls short of who does not.
    late = importance.agree(two_modes({1, 3}), 6)
    assert late.n_simulations == 4 * 1500
    never = importance.agree(two_modes({1}), 6)
    assert never.n_simulations == 6 * 1500
    assert never.disagreement > importance.AGREEMENT


def test_resampling_keeps_the_weights():
    for weight in (np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, 0.0, 1.0, 0.0])):
        drawn = psis.resample(weight, 1000)
        np.testing.assert_allclose(np.bincount(drawn, minlength=4), 1000 * weight, atol=1)


@pytest.mark.parametrize(("sd", "trusted"), [(0.95, True), (0.5, False)])
def test_k_hat_tells_a_proposal_that_misses_the_tails(sd, trusted):
    """Target N(0, I) in three dimensions, proposals narrower than that."""
    z = sd * np.random.default_rng(1).standard_normal((20, 2000, 3))
    log_weight = (-0.5 * z**2 + 0.5 * (z / sd) ** 2 + np.log(sd)).sum(2)
    weight, k_hat = zip(*map(psis.smooth, log_weight), strict=True)
    assert (np.median(k_hat) < psis.k_threshold(2000)) == trusted
    np.testing.assert_allclose(np.sum(weight, axis=1), 1)


def test_weights_that_are_all_on_one_draw_are_not_trusted():
    log_weight = np.full(500, -1e4)
    log_weight[7] = 0.0
    weight, k_hat = psis.smooth(log_weight)
    assert weight[7] > 0.7
    assert k_hat > psis.k_threshold(500)


def test_draws_that_are_all_impossible_are_not_trusted():
    weight, k_hat = psis.smooth(np.full(500, -np.inf))
    assert weight.sum() == pytest.approx(1)
    assert k_hat > psis.k_threshold(500)


def test_impossible_draws_have_no_weight_however_few_are_possible():
    log_weight = np.full(5000, -np.inf)
    log_weight[::50] = np.random.default_rng(0).standard_normal(100)
    weight, _ = psis.smooth(log_weight)
    assert not weight[log_weight == -np.inf].any()
    assert weight.sum() == pytest.approx(1)


def test_a_hill_that_one_start_leads_to_is_found_though_all_others_start_higher():
    """Two hills in z0, joined by a narrow valley that is bent in the other entries."""
    n_bent, sd = 4, 0.05

    def slope(z0):
        return jnp.stack([6 * (1 - jnp.exp(-2 * (z0 - 2) ** 2)), 1.2 * (z0 + 2)])

    def valley(z0):
        return (z0 + 2) ** 2 / 16

    def simulate(z):
        return jnp.concatenate([slope(z[0]), (z[1:] - valley(z[0])) / sd])

    def residuals(current, z):
        return current, jnp.zeros(2 + n_bent)

    problem = problem_of(simulate, residuals, 1 + n_bent, range(1 + n_bent))
    z0 = jnp.linspace(-2.2, -1.8, 12).at[5].set(1.0)
    start = jnp.concatenate([z0[:, None], jnp.tile(valley(z0)[:, None], n_bent)], axis=1)
    height = -0.5 * (jax.vmap(slope)(z0) ** 2).sum(1)
    assert height.argmin() == 5

    log_weight = reweighted(problem, start).log_weight
    grid = np.linspace(-6, 6, 4001)
    height = -0.5 * (np.asarray(slope(grid)) ** 2).sum(0)
    bent = n_bent * (np.log(sd / np.hypot(1, sd)) - 0.5 * valley(grid) ** 2 / (1 + sd**2))
    density = norm.pdf(grid) * np.exp(height + bent)
    evidence = np.log(np.trapezoid(density, grid))
    assert np.log(np.trapezoid(density[grid < 0], grid[grid < 0])) < evidence - 2
    assert np.log(np.exp(log_weight).mean()) == pytest.approx(evidence, abs=0.1)


def test_simulations_are_counted():
    """Every point that is simulated counts, and each derivative along one of three entries too."""
    points = {"simulated": 0, "climbed": 0}

    class Counted(Factor):
        def log_likelihood(self, z, variants):
            points["simulated"] += len(z)
            return super().log_likelihood(z, variants)

        def sensitivities(self, z, heavy, light):
            points["climbed"] += len(z)
            return super().sensitivities(z, heavy, light)

    def residuals(mean, z):
        return (1 - mean) * jnp.exp(-z[3]), jnp.full(3, z[3])

    problem = problem_of(lambda z: z[:3], residuals, 4, (0, 1, 2), (3,))
    problem = problem._replace(factors=(Counted(*problem.factors[0]),))
    result = reweighted(problem, jax.random.normal(jax.random.key(0), (64, 4)))
    assert points["simulated"] == 12 * 5 + len(result.z)  # starts are chosen of twelve groups
    assert points["climbed"] > 0
    assert result.n_simulations == points["simulated"] + 4 * points["climbed"]
