"""Gibbs sampling of the regression: beside integrals on a grid, and right on average."""

import numpy as np
import pytest
from regressions import MODEL
from scipy.special import logsumexp

from touchstone.models.interface import gibbs
from touchstone.models.interface.regression import Design
from touchstone.reliability import calibration

SIZES = MODEL.config["regression"]


def test_a_row_left_out_has_the_density_that_an_integral_gives():
    """Intercept, slope and scatter on a grid; one of ten rows is far off."""
    rng, n = np.random.default_rng(0), 10
    x = rng.standard_normal(n)
    y = 0.2 + 0.5 * x + 0.3 * rng.laplace(size=n)
    y[3] += 3
    a, b = (np.linspace(-5, 5, 121) * SIZES[name] for name in ("intercept", "morphology"))
    log_s = np.linspace(np.log(0.01), np.log(20), 80)
    s = np.exp(log_s)
    off = np.abs(y - a[:, None, None] - b[:, None] * x)[:, :, None]
    of_rows = -off / s[:, None] - np.log(2 * s[:, None])  # (a, b, scatter, row)
    prior = -0.5 * (a[:, None, None] / SIZES["intercept"]) ** 2
    prior = prior - 0.5 * (b[:, None] / SIZES["morphology"]) ** 2
    prior = prior - np.log1p((s / SIZES["scatter"]) ** 2) + log_s
    total = prior + of_rows.sum(-1)
    expected = logsumexp(total) - np.array(
        [logsumexp(total - of_rows[..., row]) for row in range(n)]
    )
    # No stimulus varies, so its effect has its prior and no say.
    design = Design(np.arange(n), x[:, None], np.zeros((n, 1)), y)
    # Eight chains of each, whose densities scatter by up to .05.
    rows = np.tile(np.arange(n), 8)
    found = gibbs.refit(design, False, False, rows, SIZES, np.random.default_rng(1))
    density = np.exp(found.log_density).reshape(8, n)
    error = density.std(0, ddof=1) / 8**0.5
    assert (np.abs(density.mean(0) - np.exp(expected)) < 4 * error).all()
    assert (error < 0.05 * density.mean(0)).all()
    assert found.pit[3] > 0.97


def test_posteriors_of_truths_from_the_prior_are_right_on_average():
    rng, n_fits, n_films = np.random.default_rng(0), 300, 6
    film = np.repeat(np.arange(n_films), 3)
    morphology, stimuli = rng.standard_normal((18, 2)), rng.standard_normal((18, 1))
    x, sd = gibbs.columns(morphology, stimuli, SIZES, True)
    truth = np.column_stack(
        [
            sd * rng.standard_normal((n_fits, len(sd))),
            SIZES["film"] * np.abs(rng.standard_normal(n_fits)),
            SIZES["scatter"] * np.abs(rng.standard_cauchy(n_fits)),
        ]
    )
    effect = truth[:, -2:-1] * rng.standard_normal((n_fits, n_films))
    y = truth[:, :-2] @ x.T + effect[:, film]
    y += truth[:, -1:] * rng.laplace(size=y.shape)
    found = gibbs.sample(x, sd, film, y, np.ones(y.shape), SIZES, 1500, 300, rng)
    draws = np.concatenate(
        [found.coefficients, found.film_sd[..., None], found.scatter[..., None]], axis=2
    )
    ranks = calibration.fractional_ranks(draws[:, ::15], truth, rng)
    assert calibration.calibration(ranks, level=0.99).inside.all()
    # The effect of a film, whose truth is one of several.
    ranks = calibration.fractional_ranks(found.film[:, ::15, 0], effect[:, 0], rng)
    assert calibration.uniformity(ranks).p_value > 0.001
    covered = calibration.coverage(ranks[:, None], levels=np.array([0.9]))
    assert covered == pytest.approx(0.9, abs=0.06)
