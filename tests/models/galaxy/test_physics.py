"""The forward model beside astropy, an independent quadrature, and exact limits."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy import units
from astropy.cosmology import FlatLambdaCDM
from galaxies import CONFIG, budgets, draw, fluxes, forward, galaxy, sources
from scipy.integrate import quad
from sedpy import attenuation

from touchstone.io.artifacts import ArtifactError
from touchstone.models.galaxy import dust, history, physics, quadrature, tables
from touchstone.models.galaxy.cosmology import Cosmology


@pytest.fixture(scope="module")
def wide():
    """The forward model, and what it and the quadrature say of the same galaxies, in float64."""
    values, each = draw(np.random.default_rng(0), 10), []
    with jax.enable_x64(True):
        model, many = forward(), galaxy(values)
        budget, flux = jax.tree.map(np.asarray, (budgets(model, many), fluxes(model, many)))
    for k in range(10):
        one = {name: float(column[k]) for name, column in values.items()}
        each.append(quadrature.sums(one, *sources(), **CONFIG["cosmology"]))
    return values, budget, flux, each


def test_budgets_are_those_of_an_independent_quadrature(wide):
    _, budget, _, each = wide
    for name in ("formed", "surviving", "returned", "intrinsic", "attenuated", "absorbed"):
        expected = [getattr(one, name) for one in each]
        np.testing.assert_allclose(getattr(budget, name), expected, rtol=3e-5)


def test_what_one_part_loses_another_has(wide):
    _, budget, _, each = wide
    np.testing.assert_allclose(budget.surviving + budget.returned, budget.formed, rtol=1e-12)
    np.testing.assert_allclose(budget.attenuated + budget.infrared, budget.intrinsic, rtol=1e-12)
    for k, one in enumerate(each):  # the budgets of one, the sums of the other
        assert one.attenuated + budget.infrared[k] == pytest.approx(budget.intrinsic[k], rel=1e-4)
        assert one.surviving + budget.returned[k] == pytest.approx(budget.formed[k], rel=1e-4)


def test_fluxes_are_those_of_an_independent_quadrature(wide):
    _, _, flux, each = wide
    np.testing.assert_allclose(flux, [one.fluxes for one in each], rtol=5e-4)


def test_single_precision_is_enough(wide):
    values, _, flux, _ = wide
    ours = fluxes(forward(), galaxy(values))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, flux, rtol=2e-5)


def test_distances_and_ages_are_those_of_astropy():
    redshift = np.linspace(0.01, 0.6, 30)
    theirs = FlatLambdaCDM(H0=70, Om0=0.3)
    with jax.enable_x64(True):
        ours = Cosmology(70.0, 0.3)
        distance, age = ours.luminosity_distance(jnp.asarray(redshift)), ours.age(redshift)
    expected = theirs.luminosity_distance(redshift).to_value(units.Mpc)
    np.testing.assert_allclose(distance, expected, rtol=1e-10)
    np.testing.assert_allclose(age, theirs.age(redshift).to_value(units.Gyr), rtol=1e-10)


@pytest.mark.parametrize(("tau", "duration"), [(0.1, 12.0), (20.0, 0.2), (3.0, 3.0), (1.0, 1e-3)])
def test_weights_integrate_what_is_linear_exactly(tau, duration):
    ages = np.concatenate([[0.0], np.geomspace(1e-4, 20.0, 60)])

    def rate(age):
        return (duration - age) * np.exp(-(duration - age) / tau)

    total = quad(rate, 0, duration, epsrel=1e-12)[0]
    mean_age = quad(lambda a: a * rate(a), 0, duration, epsrel=1e-12)[0] / total
    with jax.enable_x64(True):
        weights = np.asarray(history.weights(jnp.asarray(ages), tau, duration))
        now = float(history.specific_rate(jnp.asarray(tau), jnp.asarray(duration)))
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1, rel=1e-12)
    assert weights @ ages == pytest.approx(mean_age, rel=1e-9)
    assert now == pytest.approx(rate(0.0) / total, rel=1e-9)


def test_the_law_of_dust_is_that_of_another_library():
    wavelength = np.linspace(1201.0, 21990.0, 500)
    expected = attenuation.calzetti(wavelength)
    np.testing.assert_allclose(dust.calzetti(wavelength), expected, rtol=1e-12)


def test_stars_give_back_what_is_published():
    """Madau and Dickinson 2014, section 3.1: 0.41 of the mass for the function of Chabrier, where
    stars below a solar mass live for ever; of a constant rate for about 10 Gyr."""
    values = {name: column[:1] for name, column in draw(np.random.default_rng(0), 1).items()}
    steady = values | {"log_tau": np.array([0.7]), "age": np.array([10.0])}
    found = budgets(forward(), galaxy(steady))
    np.testing.assert_allclose(found.returned / found.formed, 0.41, atol=0.05)


def test_a_burst_is_a_simple_population():
    populations, _ = sources()
    ages = populations.age / 1e9
    one = {"redshift": 0.1, "log_mass": 0.0, "log_tau": -4.0, "log_metallicity": 0.0, "A_V": 0.0}
    with jax.enable_x64(True):
        model = forward()
        got = np.asarray(model.spectrum(galaxy(one | {"age": ages[150] + 2e-4})))
    np.testing.assert_allclose(got, populations.luminosity[4, 150], rtol=1e-3, atol=1e-12)


def test_twice_the_mass_is_twice_the_light_and_no_dust_absorbs_nothing():
    values = draw(np.random.default_rng(1), 10)
    with jax.enable_x64(True):
        model = forward()
        once = fluxes(model, galaxy(values))
        heavy = values | {"log_mass": values["log_mass"] + np.log10(2)}
        twice = fluxes(model, galaxy(heavy))
        bare = budgets(model, galaxy(values | {"A_V": np.zeros(10)}))
    np.testing.assert_allclose(twice, 2 * np.asarray(once), rtol=1e-12)
    assert (bare.infrared == 0).all()
    assert (bare.attenuated == bare.intrinsic).all()


def test_a_spectrum_flat_in_frequency_has_one_magnitude_in_all_bands():
    populations, filters = sources()
    flat = np.broadcast_to(1 / populations.wavelength**2, populations.luminosity.shape)
    with jax.enable_x64(True):
        model = physics.Forward(
            populations._replace(luminosity=flat), filters, Cosmology(70.0, 0.3), (0.01, 0.6)
        )
        values = draw(np.random.default_rng(2), 10)
        flux = fluxes(model, galaxy(values | {"A_V": np.zeros(10)}))
    np.testing.assert_allclose(flux, np.tile(flux[:, :1], 5), rtol=2e-5)


def test_slopes_are_those_of_differences():
    values = draw(np.random.default_rng(3), 1)
    names = [name for name in values if name != "redshift"]  # kinks of the table move with it
    point = np.array([values[name][0] for name in values])

    with jax.enable_x64(True):
        model = forward()

        @eqx.filter_jit
        def log_fluxes(point):
            return jnp.log(model.fluxes(physics.Galaxy(*point)))

        slopes = eqx.filter_jit(jax.jacfwd(log_fluxes))(point)
        for name in names:
            k = list(values).index(name)
            step = 1e-5 * np.eye(6)[k]
            difference = (log_fluxes(point + step) - log_fluxes(point - step)) / 2e-5
            np.testing.assert_allclose(slopes[:, k], difference, rtol=1e-4, atol=1e-6)


def test_a_table_that_is_not_there_or_is_another_is_named(tmp_path):
    entry = CONFIG["populations"]
    with pytest.raises(ArtifactError, match=r"needs BC03lr.h5 of none 0.0.5, which is not install"):
        tables.populations(**entry | {"distribution": "none"})
    with pytest.raises(ArtifactError, match=r"BC03lr.h5 is another table: its sha256 differs"):
        tables.populations(**entry | {"sha256": "0" * 64})
