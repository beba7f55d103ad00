"""The prior in its two coordinates, and couples in the order of their formal potentials."""

from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

import touchstone.models.ecsfm as ecsfm
from touchstone.models.ecsfm.physics.experiment import Experiment
from touchstone.models.ecsfm.physics.prior import Prior
from touchstone.vocabulary import Quantity

CONFIG = yaml.safe_load((Path(ecsfm.__file__).parent / "config.yaml").read_text(encoding="utf-8"))
S = 4  # couples, more than the model has, so that their order is put to the test
PRIOR = Prior(CONFIG, S)
N_DRAWS = 20_000
# Kolmogorov-Smirnov: the distance is larger than this in one of a thousand true samples.
KS_LIMIT = 1.95 / np.sqrt(N_DRAWS)
E0 = slice(PRIOR.names.index("E0_1"), PRIOR.names.index(f"E0_{S}") + 1)

natural = jax.jit(PRIOR.natural)
natural_of_many = jax.jit(jax.vmap(PRIOR.natural, (0, None)))
standard = jax.jit(PRIOR.standard)
moments = jax.jit(PRIOR.moments)
couples = jax.jit(PRIOR.couples)


def experiment(n_couples=S, low=-0.1, high=0.9, forms=(True, True)):
    """One with the first couples present, and a sweep from `low` to `high`."""
    present = np.outer(np.arange(S) < n_couples, forms)
    potential, temperature = jnp.linspace(low, high, 50), jnp.float32(298.15)
    duration, radius = jnp.float32(10.0), jnp.float32(0.15)
    return Experiment(potential, duration, radius, 0, temperature, jnp.asarray(present))


@cache
def draws(n_couples):
    """Natural coordinates of standard normal draws, always of the same seed."""
    z = np.random.default_rng(7).standard_normal((N_DRAWS, PRIOR.size)).astype(np.float32)
    return np.asarray(natural_of_many(z, experiment(n_couples)), float)


# Two coordinates ----------------------------------------------------------------------------------


@given(
    z=hnp.arrays(np.float32, PRIOR.size, elements=st.floats(-2.5, 2.5, width=32)),
    n_couples=st.integers(1, S),
    low=st.floats(-1, 0.5),
    width=st.floats(0.0, 2),
)
def test_standard_coordinates_come_back_from_natural_ones(z, n_couples, low, width):
    there = experiment(n_couples, low, low + width)
    exist = np.asarray(PRIOR.active(there.present))
    values = natural(z, there)
    back = standard(values, there)
    # float32: what is left between E0 and the end of its window has few digits
    np.testing.assert_allclose(back[exist], z[exist], atol=0.02)
    np.testing.assert_allclose(natural(back, there)[exist], values[exist], rtol=1e-5, atol=1e-5)


def test_a_value_beyond_its_bounds_has_a_finite_standard_coordinate_on_its_side():
    here = experiment(1)
    index = [PRIOR.names.index(name) for name in ("D_ox_1", "k0_1", "E0_1", "alpha_1")]
    middle = natural(np.zeros(PRIOR.size, np.float32), here)
    for side in (-1, 1):
        z = np.asarray(standard(middle.at[jnp.array(index)].add(100 * side), here))[index]
        assert np.isfinite(z).all()
        assert (side * z > 4).all()


def test_a_prior_of_no_known_kind_is_named():
    with pytest.raises(ValueError, match="x: prior 'cauchy' is none of uniform"):
        Quantity.from_config("x", {"prior": "cauchy", "unit": "", "meaning": ""})


# Distributions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*CONFIG["couple_parameters"], *CONFIG["nuisances"]])
def test_draws_have_the_declared_distribution(name):
    entry = {**CONFIG["couple_parameters"], **CONFIG["nuisances"]}[name]
    declared = {
        "uniform": lambda low, high: stats.uniform(low, high - low),
        "loguniform": lambda low, high: stats.loguniform(low, high),
        "normal": lambda mean, sd: stats.norm(mean, sd),
        "lognormal": lambda mean, sd: stats.lognorm(sd, scale=np.exp(mean)),
    }[entry["prior"]]
    bounds = ("low", "high") if "uniform" in entry["prior"] else ("mean", "sd")
    column = PRIOR.names.index(name if name in PRIOR.names else f"{name}_1")
    values = draws(1)[:, column]
    if name == "E0":
        values = (values - 0.4) / 0.4  # bounds are in units of the window
    if entry["prior"].startswith("log"):
        values = np.exp(values)
    assert stats.kstest(values, declared(*(entry[b] for b in bounds)).cdf).statistic < KS_LIMIT


@pytest.mark.parametrize("n_couples", range(1, S + 1))
def test_formal_potentials_are_ordered_uniform_draws_from_the_window(n_couples):
    e0 = draws(n_couples)[:, E0][:, :n_couples]
    assert (np.diff(e0, axis=1) >= 0).all()
    for k in range(n_couples):  # the k-th of n ordered uniforms is Beta(k, n + 1 - k)
        order_statistic = stats.beta(k + 1, n_couples - k)
        assert stats.kstest((e0[:, k] - 0.0) / 0.8, order_statistic.cdf).statistic < KS_LIMIT


@pytest.mark.parametrize("n_couples", range(1, S + 1))
def test_moments_are_those_of_the_draws(n_couples):
    here = experiment(n_couples)
    exist = np.asarray(PRIOR.active(here.present))
    mean, sd = (np.asarray(m, float)[exist] for m in moments(here))
    sample = draws(n_couples)[:, exist]
    # four standard errors: sd / sqrt(n) of a mean, at most sd / sqrt(2n) of a standard deviation
    np.testing.assert_array_less(np.abs(sample.mean(0) - mean), 4 * sd / np.sqrt(N_DRAWS))
    np.testing.assert_array_less(np.abs(sample.std(0) - sd), 4 * sd / np.sqrt(2 * N_DRAWS))


def test_moments_of_two_ordered_potentials_are_exact():
    mean, sd = moments(experiment(2))
    np.testing.assert_allclose(mean[E0][:2], [0.8 / 3, 1.6 / 3], rtol=1e-5)
    np.testing.assert_allclose(sd[E0][:2], 0.8 * np.sqrt(1 / 18), rtol=1e-5)


@pytest.mark.parametrize(
    ("low", "high", "window"), [(-0.5, 0.5, (0.0, 0.4)), (0.29, 0.31, (0.3, 0.15))]
)
def test_the_window_is_four_fifths_of_the_sweep_or_its_least_width(low, high, window):
    np.testing.assert_allclose(experiment(low=low, high=high).window, window, atol=1e-6)


# What there is ------------------------------------------------------------------------------------


@pytest.mark.parametrize("forms", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("n_couples", [1, 2, S])
def test_forms_that_are_absent_have_no_concentration_and_no_parameters(n_couples, forms):
    here = experiment(n_couples, forms=forms)
    there = couples(natural(np.ones(PRIOR.size, np.float32), here), here)
    exist = dict(zip(PRIOR.names, np.asarray(PRIOR.active(here.present)), strict=True))
    for k in range(S):
        for name, concentration, form in (("C_ox", there.c_ox, 0), ("C_red", there.c_red, 1)):
            present = k < n_couples and forms[form]
            assert (concentration[k] > 0) == present
            assert exist[f"{name}_{k + 1}"] == present
        for name in ("D_ox", "D_ratio", "E0", "k0", "alpha"):
            assert exist[f"{name}_{k + 1}"] == (k < n_couples)
    assert all(exist[name] for name in CONFIG["nuisances"])


def test_the_middle_of_the_prior_in_units_of_the_simulator():
    here = experiment(1)
    values = natural(np.zeros(PRIOR.size, np.float32), here)
    couple = jax.tree.map(lambda a: float(a[0]), couples(values, here))
    middle = {  # geometric means of the bounds; 1 mM is 1e-6 mol/cm^3
        "d_ox": np.sqrt(3e-7 * 1e-4),
        "d_red": np.sqrt(3e-7 * 1e-4),
        "c_ox": 1e-6 * np.sqrt(0.05 * 10),
        "c_red": 1e-6 * np.sqrt(0.05 * 10),
        "e0": 0.4,
        "k0": 1e-3,
        "transfer_coefficient": 0.5,
    }
    for name, value in middle.items():
        assert getattr(couple, name) == pytest.approx(value, rel=1e-5)
    cell = PRIOR.instrument(values, here)
    assert float(cell.resistance) == pytest.approx(np.sqrt(5 * 200) / (4 * 0.15), rel=1e-5)
    assert float(cell.capacitance) == pytest.approx(1e-6 * np.sqrt(5 * 200), rel=1e-5)
    record = PRIOR.observation(values, jnp.full(here.potential.shape, -2e-6), here)
    assert float(record.white) == pytest.approx(2e-6 * np.sqrt(3e-4 * 0.1), rel=1e-5)
    assert float(record.discrepancy) == pytest.approx(2e-6 * np.sqrt(0.001 * 0.2), rel=1e-5)
    assert float(record.correlation) == pytest.approx(0.1, rel=1e-5)
    np.testing.assert_allclose(record.sizes, 2e-6 * 0.05, rtol=1e-5)
    assert float(np.ptp(record.shapes[1])) > 1
