"""NUTS as the regression is sampled, beside reference posteriors of posteriordb."""

from pathlib import Path

import arviz as az
import numpy as np
import pymc as pm
import pytest

from touchstone.models.interface import regression

CHAINS = {"chains": 4, "warmup": 1000, "draws": 1000, "target_accept": 0.95}
DATA = Path(__file__).parents[2] / "data/kidiq.csv"
# Means, their Monte Carlo errors, and means of squares, which give standard deviations.
KIDIQ = {
    "slope": (0.608628437, 0.000599, 0.3739071),
    "sigma": (18.27584838, 0.006317, 334.3959904),
    "intercept": (25.91653157, 0.060797, 707.2872671),
}
SCHOOLS = {"mu": (4.410518337, 0.033037, 30.40302), "tau": (3.602059524, 0.031862, 23.20407)}


def compare(tree, reference):
    names = tuple(reference)
    assert regression.diagnose(tree, names).fault == ""
    for name, (mean, error, square) in reference.items():
        ours = tree["posterior"][name]
        ours_error = float(az.mcse(tree, var_names=[name])[name])
        assert abs(float(ours.mean()) - mean) < 4 * np.hypot(ours_error, error), name
        assert float(ours.std()) == pytest.approx(np.sqrt(square - mean**2), rel=0.1), name


def test_kidiq_has_its_reference_posterior():
    score, iq = np.loadtxt(DATA, delimiter=",", skiprows=3, unpack=True)
    with pm.Model() as model:
        intercept, slope = pm.Flat("intercept"), pm.Flat("slope")
        sigma = pm.HalfCauchy("sigma", 2.5)
        pm.Normal("score", intercept + slope * iq, sigma, observed=score)
    compare(regression.sample(model, CHAINS, 1), KIDIQ)


def test_eight_schools_have_their_reference_posterior():
    effect = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
    error = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    with pm.Model() as model:
        mu, tau = pm.Normal("mu", 0, 5), pm.HalfCauchy("tau", 5)
        standard = pm.Normal("standard", 0, 1, shape=8)
        pm.Normal("effect", mu + tau * standard, error, observed=effect)
    compare(regression.sample(model, CHAINS, 1), SCHOOLS)
