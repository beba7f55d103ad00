"""The network of the regimes: blind to the future, better than the prior, and judged exactly."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import beta, invgamma, norm

from touchstone.inference import nuts
from touchstone.io.artifacts import ArtifactError
from touchstone.models.regimes import amortised, economy, gibbs

N_DATES = 48
N_SERIES, N_POOL = 12, 20_000


@pytest.fixture(scope="module")
def trained(learnt):
    model, prior = learnt
    rng = np.random.default_rng(1)
    return amortised.train(
        lambda n: economy.draw_parameters(prior, model, rng, n), N_DATES, 120, rng
    )


def of_prior(learnt, n, seed=2):
    return economy.draw_parameters(learnt[1], learnt[0], np.random.default_rng(seed), n)


def test_coordinates_are_undone_and_have_the_density_of_the_prior(learnt):
    drawn, prior = of_prior(learnt, 50), learnt[1]
    u = amortised.coordinates(drawn)
    back = amortised.parameters(u)
    for name in ("effect", "intercept", "variance"):
        np.testing.assert_allclose(getattr(back, name), getattr(drawn, name), rtol=1e-6)
    with jax.enable_x64(True):
        found = np.asarray(jax.vmap(lambda v: amortised.log_prior(prior, v))(u))
        # The density of coordinates is that of the parameters times the change of volume.
        volume = jax.vmap(jax.jacobian(lambda v: jnp.concatenate(amortised.values(v))))(u)
    log_volume = np.linalg.slogdet(np.asarray(volume))[1]
    of_parameters = (
        norm.logpdf(drawn.effect, scale=prior.effect).sum(1)
        + norm.logpdf(drawn.intercept, scale=prior.intercept).sum(1)
        + invgamma.logpdf(drawn.variance, prior.shape, scale=prior.scale).sum(1)
        + beta.logpdf(back.stay, prior.stay, prior.leave).sum(1)
    )
    np.testing.assert_allclose(found, of_parameters + log_volume, atol=1e-6)


def test_nothing_that_the_network_says_changes_with_a_later_date(trained):
    rng = np.random.default_rng(3)
    y, d = rng.standard_normal((2, N_DATES))
    altered = y.copy()
    altered[40:] += 4
    ours, theirs = eqx.filter_jit(trained.net)(y, d), eqx.filter_jit(trained.net)(altered, d)
    for before, after in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(before[:40], after[:40])
    assert (ours.logit[40:] != theirs.logit[40:]).any()


def forward_backward(u, outcome, treatment):
    """Filtered and smoothed probability of the turbulent regime, by products of probabilities."""
    effect, intercept, variance, stay = (np.asarray(each, float) for each in amortised.values(u))
    density = norm.pdf(outcome[:, None], intercept + treatment[:, None] * effect, variance**0.5)
    transition = np.array([[stay[0], 1 - stay[0]], [1 - stay[1], stay[1]]])
    before, after = [density[0] / density[0].sum()], [np.ones(2)]
    for now, later in zip(density[1:], density[:0:-1], strict=True):
        before.append(before[-1] @ transition * now)
        before[-1] /= before[-1].sum()
        after.append(transition @ (later * after[-1]))
        after[-1] /= after[-1].sum()
    filtered, smoothed = np.array(before), np.array(before) * np.array(after[::-1])
    return filtered[:, 1], smoothed[:, 1] / smoothed.sum(1)


def test_probabilities_of_draws_are_the_exact_ones_and_filtered_ones_know_no_later_date(learnt):
    u, none = amortised.coordinates(of_prior(learnt, 5)), np.zeros((N_DATES, 0))
    y, d = np.random.default_rng(3).standard_normal((2, N_DATES))
    exact = np.mean([forward_backward(each, y, d) for each in u], axis=0)
    *_, smoothed, filtered = np.asarray(amortised.predictions(u, np.zeros((5, 0)), y, d, none))
    np.testing.assert_allclose([filtered, smoothed], exact, atol=2e-5)
    altered = y.copy()
    altered[40:] += 4
    *_, of_all, before = np.asarray(amortised.predictions(u, np.zeros((5, 0)), altered, d, none))
    np.testing.assert_array_equal(before[:40], filtered[:40])
    assert np.abs(of_all[:40] - smoothed[:40]).max() > 0.01


def test_regimes_of_series_of_the_prior_are_those_of_the_exact_posterior(learnt, trained):
    """Draws of the prior, weighted by their exact likelihood, are the posterior that no network has
    touched: re-weighted probabilities differ little from it, and err as little."""
    pool = jnp.asarray(amortised.coordinates(of_prior(learnt, N_POOL, seed=9)), jnp.float32)
    filters = jax.jit(jax.vmap(amortised.run_filter, (0, None, None)))
    errors, apart = [], []
    for k, u in enumerate(amortised.coordinates(of_prior(learnt, N_SERIES, seed=8))):
        series = amortised.simulate(u, jax.random.key(k), N_DATES, 1.0)
        y, d, state = (np.asarray(each, float) for each in series)
        log_filtered, log_evidence = map(np.asarray, filters(pool, y, d))
        weight = np.exp(log_evidence - log_evidence.max(), dtype=float)
        exact = weight @ np.exp(log_filtered[..., 1]) / weight.sum()
        found = amortised.posterior(trained.net, learnt[1], y, d, seed=k)
        guesses = exact, found.filtered, found.network
        apart.append([np.abs(guess - exact).mean() for guess in guesses])
        errors.append([np.mean((guess - state) ** 2) for guess in guesses])
    (_, ours, network), (exact, of_ours, of_network) = np.mean(apart, 0), np.mean(errors, 0)
    assert ours < 0.04
    assert network > 2 * ours
    assert of_ours == pytest.approx(exact, abs=0.015)
    assert of_network > of_ours


def test_training_lowers_the_cross_entropy_of_the_regimes(trained):
    assert trained.losses[-20:].mean() < trained.losses[:10].mean() - 0.03


@pytest.mark.nightly
def test_re_weighted_draws_have_the_posterior_of_gibbs_sampling(learnt, trained):
    model, prior = learnt
    rng = np.random.default_rng(4)
    window = economy.draw(model, of_prior(learnt, 6), 120, rng, rng)
    exact = gibbs.sample(model, prior, window, rng, 300, 2000)
    for k in range(6):
        y, d, x = (values[k] for values in window[:3])
        key = jax.random.key(k)
        found = amortised.judge(trained.net, prior, model.slope, y, d, x, key, 3000)
        weight = np.exp(np.asarray(found.log_weight, float) - float(found.log_weight.max()))
        weight /= weight.sum()
        assert 1 / (weight**2).sum() > 60
        effect = np.asarray(found.u)[:, :2]
        mean, of_exact = weight @ effect, exact.parameters.effect[k]
        np.testing.assert_allclose(mean, of_exact.mean(0), atol=0.45 * of_exact.std(0).max())
        turbulent = weight @ np.asarray(found.filtered)
        assert np.abs(turbulent - exact.filtered[k]).mean() < 0.06


@pytest.mark.nightly
def test_re_weighted_draws_have_the_posterior_of_nuts(learnt, trained):
    """Of a series without controls; chains in standard deviations of the prior."""
    prior, net = learnt[1], trained.net
    u = amortised.coordinates(of_prior(learnt, 1, seed=7))[0]
    y, d, _ = (np.asarray(a, float) for a in amortised.simulate(u, jax.random.key(5), 150, 1.0))
    centre, scale = np.asarray(net.centre, float), np.asarray(net.scale, float)

    def log_likelihood(z):
        at = centre + scale * z
        density = amortised.run_filter(at, y, d)[1] + amortised.log_prior(prior, at)
        return density - jax.scipy.stats.norm.logpdf(z).sum()

    names = [str(k) for k in range(amortised.N_PARAMETERS)]
    starts = np.random.default_rng(0).normal(0, 0.3, (4, len(names)))
    draws = nuts.sample(
        log_likelihood, starts, np.eye(len(names)), names=names, n_tune=500, n_draws=1000, seed=1
    )
    theirs = draws["posterior"].dataset["z"].values.reshape(-1, len(names))
    none = np.zeros((len(y), 0))
    found = amortised.judge(net, prior, none[0], y, d, none, jax.random.key(0), 8000)
    weight = np.exp(np.asarray(found.log_weight, float) - float(found.log_weight.max()))
    weight /= weight.sum()
    z = (np.asarray(found.u, float) - centre) / scale
    mean = weight @ z
    sd = np.sqrt(weight @ (z - mean) ** 2)
    np.testing.assert_allclose(mean, theirs.mean(0), atol=0.25 * theirs.std(0).max())
    np.testing.assert_allclose(sd, theirs.std(0), rtol=0.25)


def test_a_file_that_is_no_network_is_refused(tmp_path):
    file = tmp_path / amortised.FILE
    file.write_bytes(b"\x93NUMPY")
    with pytest.raises(ArtifactError, match=r"regime_posterior\.eqx: is no network"):
        amortised.load(file)
