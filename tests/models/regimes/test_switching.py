"""The latent state against enumeration of all its paths, and against statsmodels."""

import ast
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import statsmodels
from scipy.special import logsumexp
from scipy.stats import norm
from statsmodels.tsa.regime_switching.markov_regression import MarkovRegression

from touchstone.models.regimes import switching


def enumerated(log_density, log_transition, log_start):
    """All probabilities by the sum over every path."""
    n, k = log_density.shape
    paths = np.array(list(itertools.product(range(k), repeat=n)))
    weight = log_start[paths[:, 0]] + log_transition[paths[:, :-1], paths[:, 1:]].sum(1)
    joint = np.cumsum(log_density[np.arange(n), paths], axis=1)
    whole = weight + joint[:, -1]

    def of_date(t, log_weight):
        return np.array([logsumexp(log_weight[paths[:, t] == s]) for s in range(k)])

    smoothed = np.stack([of_date(t, whole) for t in range(n)]) - logsumexp(whole)
    filtered = np.stack([of_date(t, weight + joint[:, t]) for t in range(n)])
    filtered -= logsumexp(filtered, axis=1, keepdims=True)
    p = np.exp(whole - logsumexp(whole))
    pairs = np.zeros((k, k))
    for path, each in zip(paths, p, strict=True):
        np.add.at(pairs, (path[:-1], path[1:]), each)
    return filtered, smoothed, pairs, logsumexp(whole)


def chain(seed, n, k):
    rng = np.random.default_rng(seed)
    density = 2 * rng.standard_normal((n, k))
    transition, start = rng.dirichlet(np.ones(k), k), rng.dirichlet(np.ones(k))
    return density, np.log(transition), np.log(start)


@pytest.mark.parametrize(("seed", "n", "k"), [(1, 9, 2), (2, 7, 3), (3, 1, 2)])
def test_all_probabilities_are_those_of_the_sum_over_all_paths(seed, n, k):
    arguments = chain(seed, n, k)
    filtered, smoothed, pairs, evidence = enumerated(*arguments)
    with jax.enable_x64(True):
        found = switching.forward_backward(*arguments)
    np.testing.assert_allclose(found.filtered, filtered, atol=1e-10)
    np.testing.assert_allclose(found.smoothed, smoothed, atol=1e-10)
    np.testing.assert_allclose(found.pairs, pairs, atol=1e-10)
    np.testing.assert_allclose(found.log_evidence, evidence, atol=1e-10)


def test_series_side_by_side_give_what_each_gives_alone():
    rows = [chain(seed, 12, 2) for seed in range(3)]
    with jax.enable_x64(True):
        together = jax.vmap(switching.forward_backward)(*map(np.stack, zip(*rows, strict=True)))
        alone = [switching.forward_backward(*row) for row in rows]
    for k, each in enumerate(alone):
        np.testing.assert_allclose(together.smoothed[k], each.smoothed, atol=1e-12)


def test_filtered_probabilities_do_not_change_when_the_future_does():
    density, _, start = chain(4, 20, 2)
    others = np.log([[0.9, 0.1], [0.1, 0.9]]), start
    altered = density.copy()
    altered[12:, 1] += 20  # the state is the second beyond doubt
    ours, theirs = (switching.forward_backward(d, *others) for d in (density, altered))
    np.testing.assert_array_equal(ours.filtered[:12], theirs.filtered[:12])
    assert np.abs(np.exp(ours.smoothed[:12]) - np.exp(theirs.smoothed[:12])).max() > 0.01


def test_sampled_paths_have_the_smoothed_probabilities_and_transitions():
    density, transition, start = chain(5, 6, 2)
    _, smoothed, pairs, _ = enumerated(density, transition, start)
    _, filtered, _ = switching.forward(density, transition, start)
    keys = jax.random.split(jax.random.key(0), 20000)
    sample = jax.vmap(switching.sample_path, (0, None, None))
    paths = np.asarray(sample(keys, filtered, jnp.asarray(transition)))
    np.testing.assert_allclose((paths == 1).mean(0), np.exp(smoothed)[:, 1], atol=0.015)
    changes = (paths[:, :-1] == 0) & (paths[:, 1:] == 1)
    np.testing.assert_allclose(changes.sum(1).mean(), pairs[0, 1], atol=0.03)


def federal_funds():
    """The rate, 1954 to 2010, as it stands in a test of statsmodels, which is not to be run."""
    place = "tsa/regime_switching/tests/test_markov_regression.py"
    text = (Path(statsmodels.__file__).parent / place).read_text(encoding="utf-8")
    (found,) = (
        node.value
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "fedfunds"
    )
    return np.array(ast.literal_eval(found))


def test_the_likelihood_of_the_federal_funds_rate_is_the_published_one():
    """Two means and one variance; Stata's manual of mswitch gives -508.63592."""
    y = federal_funds()
    theirs = MarkovRegression(y, k_regimes=2)
    p00, p10, m0, m1, variance = 0.9820939, 0.0503587, 3.70877, 9.556793, 2.107562**2
    ours = switching.Switching(
        np.array([m0, m1]), np.zeros(0), np.full(2, variance),
        np.array([[p00, 1 - p00], [p10, 1 - p10]]), 0.0, 0.0,
    )  # fmt: skip
    found = ours.states(y, np.zeros((len(y), 0)))
    smoothed = theirs.smooth([p00, p10, m0, m1, variance])
    np.testing.assert_allclose(found.log_evidence, -508.63592, atol=0.01)
    np.testing.assert_allclose(found.log_evidence, smoothed.llf, atol=1e-6)
    reference = np.asarray(smoothed.smoothed_marginal_probabilities)
    np.testing.assert_allclose(np.exp(found.smoothed), reference, atol=1e-6)


def test_the_likelihood_of_filardos_business_cycle_is_the_published_one():
    """Means that switch, four lags, transitions by a leading index: -586.5718 (Filardo 1994).

    A state is the regimes of five dates together: of this one first.
    """
    place = "tsa/regime_switching/tests/results/mar_filardo.csv"
    table = pd.read_csv(Path(statsmodels.__file__).parent / place)
    growth, index = table["dlip"].to_numpy()[1:], table["dmdlleading"].to_numpy()[:-1]
    mean, lags = np.array([0.517298, -0.865888]), np.array([0.189474, 0.079344, 0.110944, 0.122251])
    to_first = np.stack([4.35941747 + 1.7702123 * index, -1.6493936 + 0.9945672 * index], axis=1)
    p = 1 / (1 + np.exp(-to_first))
    transition = np.stack([p, 1 - p], axis=2)  # of the dates that they lead to
    states = np.array(list(itertools.product((0, 1), repeat=5)))
    n = len(growth)
    before = np.stack([growth[4 - k : n - k] for k in range(1, 5)], axis=1)
    expected = mean[states[:, 0]] + (before[:, None] - mean[states[:, 1:]]) @ lags
    density = norm.logpdf(growth[4:, None], expected, np.exp(-0.362469))
    follows = (states[:, None, :4] == states[None, :, 1:]).all(2)
    step = transition[5:][:, states[:, 0][:, None], states[:, 0][None, :]]
    step = np.log(np.where(follows, step, 1e-300))
    start = switching.stationary(transition[0])[states[:, 4]]
    for k in range(1, 5):
        start = start * transition[k][states[:, 5 - k], states[:, 4 - k]]
    with jax.enable_x64(True):
        found = switching.forward(density, np.append(step, step[-1:], axis=0), np.log(start))[-1]
    assert float(found) == pytest.approx(-586.572, abs=0.01)


def simulated(seed, n, stay=0.95):
    rng = np.random.default_rng(seed)
    state = np.zeros(n, int)
    for t in range(1, n):
        state[t] = state[t - 1] if rng.random() < stay else 1 - state[t - 1]
    x = rng.standard_normal((n, 2))
    y = np.array([0.5, -0.5])[state] + x @ [0.6, -0.3]
    return y + np.array([0.4, 1.2])[state] * rng.standard_normal(n), x, state


def test_the_fit_reaches_the_likelihood_of_statsmodels_on_the_same_series():
    y, x, state = simulated(1, 300)
    ours = switching.fit(y, x, 2, np.random.default_rng(0))
    theirs = MarkovRegression(y, 2, exog=x, switching_exog=False, switching_variance=True).fit(
        search_reps=10
    )
    assert ours.log_likelihood > theirs.llf - 0.05
    np.testing.assert_allclose(ours.slope, [0.6, -0.3], atol=0.12)
    turbulent = np.exp(ours.states(y, x).smoothed[:, 1])
    assert np.mean((turbulent - state) ** 2) < 0.1


@pytest.mark.parametrize(("n_true", "spread"), [(1, (1.0, 1.0)), (2, (0.4, 1.6))])
def test_the_number_of_regimes_is_found_by_evidence(n_true, spread):
    rng = np.random.default_rng(7)
    state = (np.arange(400) // 40) % 2
    y = np.array(spread)[state] * rng.standard_normal(400)
    fits = [switching.fit(y, np.zeros((400, 0)), k, rng, n_starts=3) for k in (1, 2, 3)]
    assert np.argmax(switching.probabilities(fits)) + 1 == n_true


def test_probabilities_ahead_use_nothing_later_and_end_in_the_long_run():
    y, x, _ = simulated(2, 120)
    model = switching.fit(y, x, 2, np.random.default_rng(0), n_starts=1)
    states = model.states(y, x)
    np.testing.assert_allclose(
        model.ahead(states.filtered, 1)[1:], np.exp(states.predicted[1:]), atol=1e-10
    )
    altered = y.copy()
    altered[60:] += 9
    later = model.ahead(model.states(altered, x).filtered, 3)
    np.testing.assert_array_equal(later[:63], model.ahead(states.filtered, 3)[:63])
    far = model.ahead(states.filtered, 500)
    np.testing.assert_allclose(far, np.tile(switching.stationary(model.transition), (120, 1)))


def test_transitions_that_are_counted_besides_move_the_fit_as_a_prior_does():
    """Enough of them decide; a few move the estimate towards them; none leave it as it is."""
    rng = np.random.default_rng(8)
    state = np.repeat([0, 1, 0, 1, 0], 30)
    y = np.where(state == 1, 3.0, 0.5) * rng.standard_normal(150)
    none = np.zeros((150, 0))
    counts = np.array([[1.0, 1.0], [1.0, 1.0]])
    plain, few, many = (
        switching.fit(y, none, 2, np.random.default_rng(9), counted=c * counts)
        for c in (1e-3, 3.0, 1e5)
    )
    np.testing.assert_allclose(many.transition, 0.5, atol=1e-3)
    assert (np.diag(few.transition) < np.diag(plain.transition)).all()
    assert (np.diag(few.transition) > 0.7).all()
