"""What of a mismatch the parameters absorb: fits to noise-free traces of the exact simulator."""

import jax
import numpy as np
import pytest
from scipy.linalg import eigh

from touchstone.contract import load_model
from touchstone.models.ecsfm.inference import oracle
from touchstone.reliability.oracle import power_of_shift

N, N_POINTS = 12, 64
pytestmark = pytest.mark.nightly  # the simulator is compiled twice


@pytest.fixture(scope="module")
def model():
    return load_model("ecsfm")


@pytest.fixture(scope="module")
def base(model):
    return model.simulation.base_cases(N, np.random.default_rng(1), {}, N_POINTS)


def powers(model, base, stress, severity, known=()):
    quiet = model.simulation.quiet(base, jax.random.key(3), stress, severity)
    fits = oracle.Fits(model.forward, base.records, base.signal)
    names = model.prior_of_parameters.names
    told = np.asarray(base.records.known) | np.isin(names, known)
    return power_of_shift(fits.distances(quiet, told))


def test_correlated_noise_is_whitened_as_by_the_dense_covariance(model, base):
    """Matérn discrepancy, white noise and baseline written as matrices; generalised eigenvalues."""
    time, severity = 0.05, 0.7
    records, names = base.records, model.prior_of_parameters.names
    of = model.forward, records, base.signal, {"time": time}, severity
    found = oracle.covariance_ratios(*of)
    natural = np.asarray(model.forward.natural(records.z, records.experiment), float)
    apart = np.abs(np.subtract.outer(np.arange(N_POINTS), np.arange(N_POINTS))) / N_POINTS
    for k in range(N):
        seen = np.asarray(records.mask[k])
        discrepancy, correlation, noise = np.exp(
            [natural[k, names.index(name)] for name in ("discrepancy", "correlation", "noise")]
        )
        x = np.sqrt(3) * apart / correlation
        potential = np.asarray(records.experiment.potential[k], float)
        low, high = potential.min(), potential.max()
        half = max(0.4 * (high - low), 0.15)
        shapes = 0.05 * np.stack([np.ones(N_POINTS), (potential - (low + high) / 2) / half])
        without = discrepancy**2 * (1 + x) * np.exp(-x) + noise**2 * np.eye(N_POINTS)
        without = (without + shapes.T @ shapes)[np.ix_(seen, seen)]
        more = (severity * noise) ** 2 * np.exp(-apart / (severity * time))[np.ix_(seen, seen)]
        exact = eigh(without + more, without, eigvals_only=True)
        ours = np.sort(found[k])[-seen.sum() :]
        np.testing.assert_allclose(ours, np.sort(exact), rtol=0.01, atol=0.01)


def test_a_film_hides_in_the_kinetics_unless_they_are_known_and_a_growing_one_does_not(model, base):
    """As PHYSICS says: static fouling is absorbed by k0, the resistance and the double layer."""
    assert powers(model, base, "static", 0.0) == pytest.approx(0.05, abs=0.1)
    hidden = powers(model, base, "static", 1.0)
    told = powers(model, base, "static", 1.0, ("k0_1", "resistivity", "C_dl"))
    assert hidden.mean() < 0.8
    assert told.mean() > hidden.mean() + 0.2
    assert (told >= hidden - 0.05).all()
    assert powers(model, base, "dynamic", 1.0).mean() > hidden.mean() + 0.2
