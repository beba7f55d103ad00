"""How galaxies are observed, what stress does to them, and what of it the best test sees."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from galaxies import CONFIG
from scipy.interpolate import interp1d
from scipy.stats import kstest, multivariate_normal, norm

from touchstone.contract import load_model
from touchstone.models.galaxy import counterfactual, observation, tables
from touchstone.models.galaxy.cosmology import Cosmology
from touchstone.models.galaxy.physics import Forward
from touchstone.vocabulary import Cases


@pytest.fixture(scope="module")
def model():
    """What is simulated needs no training."""
    return load_model("galaxy")


def test_observations_scatter_about_the_truth_as_their_errors_say(model):
    rng = np.random.default_rng(1)
    cases = model.cases(300, rng, rng, {})
    clean = model.abduction.fluxes(cases.truth)
    scale = np.sqrt(cases.detail.error**2 + (CONFIG["noise"]["floor"] * clean) ** 2)
    assert kstest(((cases.observed - clean) / scale)[cases.mask], "norm").pvalue > 0.001
    missing = 1 - cases.mask[:, [0, 1, 3, 4]].mean()
    assert missing == pytest.approx(CONFIG["noise"]["missing"], abs=0.03)


@pytest.mark.parametrize("stress", CONFIG["stresses"])
def test_a_stress_of_no_severity_changes_nothing_and_of_full_does(model, stress):

    def observed(name, severity) -> Cases:
        streams = (np.random.default_rng(seed) for seed in (2, 3))
        return model.cases(20, *streams, {}, name, severity)

    plain, none, full = observed(None, 0), observed(stress, 0.0), observed(stress, 1.0)
    np.testing.assert_array_equal(none.observed, plain.observed)
    np.testing.assert_array_equal(none.detail.redshift, plain.detail.redshift)
    np.testing.assert_array_equal(full.truth, plain.truth)
    changed = (full.observed != plain.observed) & plain.mask
    if stress == "wrong_redshift":
        assert not changed.any()
        assert np.abs(full.detail.redshift - plain.detail.redshift).min() > 0.05
    elif stress.startswith("zero_point"):
        assert changed.any(0).sum() == 1
    elif stress == "missing_band":
        assert not (full.observed != plain.observed)[full.mask].any()
        assert not (full.mask & ~plain.mask).any()
        assert 0.3 < 1 - full.mask[plain.mask].mean() < 0.7
    else:
        assert changed[plain.mask].mean() > 0.9


def test_galaxies_of_other_templates_are_those_of_a_model_of_these_templates(model):
    """At severity 1 fluxes are those of a model built on the other table, resampled by SciPy."""
    source = CONFIG["stresses"]["other_templates"]["templates"]
    theirs, (own, bands) = tables.popstar(**source), model.sources
    np.testing.assert_allclose(theirs.metallicity, own.metallicity)
    assert theirs.age[[0, -1]] == pytest.approx([1e5, 10**10.18])
    k, age, wavelength = 4, theirs.age[60], np.array([3000.0, 5000.0, 9000.0])
    at = tables.resampled(theirs, np.array([0.0]), np.array([age / 1e9]), wavelength)
    expected = interp1d(theirs.wavelength, theirs.luminosity[k, 60])(wavelength)
    np.testing.assert_allclose(at[0, 0], expected, rtol=1e-9)
    light = tables.resampled(
        theirs, np.log10(own.metallicity / 0.02), own.age / 1e9, own.wavelength
    )
    other = Forward(
        own._replace(luminosity=light), bands, Cosmology(**CONFIG["cosmology"]), (0.01, 0.6)
    )
    quiet = {"depth": dict.fromkeys("ugriz", 1e-6), "floor": 0.0}
    model = load_model("galaxy")
    model.config = CONFIG | {"noise": CONFIG["noise"] | quiet}
    model.abduction.depth = 1e-6 * np.ones(5)
    rng = np.random.default_rng
    cases = model.cases(8, rng(2), rng(3), {}, "other_templates", 1.0)
    values, _ = counterfactual.twins(model.graph, model.forward, cases.truth, (), "total")
    found, _ = counterfactual.readings(other, values, model.bands)
    expected = observation.nanomaggies_of(np.stack([found[b] for b in model.bands], axis=1))
    np.testing.assert_allclose(cases.observed[cases.mask], expected[cases.mask], rtol=1e-3)


def test_stresses_are_as_large_as_the_configuration_says(model, monkeypatch):
    """Fluxes at severity 1 beside those without, where there is hardly any noise."""
    abduction = model.abduction
    quiet = abduction.noise | {"floor": 0.0, "missing": 0.0}
    monkeypatch.setattr(abduction, "noise", quiet)
    monkeypatch.setattr(abduction, "depth", np.full(5, 1e-6))
    rng = np.random.default_rng

    def observed(stress, severity=1.0, n=60):
        return model.cases(n, rng(2), rng(3), {}, stress, severity)

    plain = observed("nucleus", 0.0)
    bright = (plain.observed > 0.01).all(1)

    def off(stress):
        return -2.5 * np.log10((observed(stress).observed / plain.observed)[bright])

    bands = dict(zip("ugriz", (0.5, 0.25, 0.25, 0.25, 0.25), strict=True))
    for k, (band, mag) in enumerate(bands.items()):
        expected = np.where(np.arange(5) == k, -mag, 0.0)
        np.testing.assert_allclose(off(f"zero_point_{band}"), [expected] * bright.sum(), atol=1e-6)
    np.testing.assert_allclose(off("grey_zero_point"), -0.2, atol=1e-6)
    # Half as much again in r: 0.44 mag; of a blue continuum more in u than in z.
    for stress, more in (("nucleus", 0.5), ("small_nucleus", 0.03), ("blend", 0.5),
                         ("similar_blend", 0.5)):  # fmt: skip
        np.testing.assert_allclose(off(stress)[:, 2], -2.5 * np.log10(1 + more), atol=1e-3)
    effective = abduction.effective / abduction.effective[2]
    added = observed("nucleus").observed - plain.observed
    np.testing.assert_allclose(
        added[bright], 0.5 * plain.observed[bright][:, 2:3] * effective**0.5, rtol=1e-3
    )
    moved = observed("wrong_redshift").detail.redshift - plain.detail.redshift
    assert set(np.abs(moved).round(6)) == {0.15}
    lost = 1 - observed("missing_band", n=2000).mask[:, [0, 1, 3, 4]].mean()
    assert lost == pytest.approx(0.6, abs=0.03)
    # A power law of slope -1.6, without the name of the code that has it.
    wavelength = np.asarray(model.forward.wavelength, float)
    steep = eqx.tree_at(
        lambda f: f.curve,
        model.forward,
        jnp.asarray((np.maximum(wavelength, 1200) / 5500) ** -1.6, jnp.float32),
    )
    values, _ = counterfactual.twins(model.graph, model.forward, plain.truth, (), "total")
    theirs, ours = (
        np.stack([counterfactual.readings(f, values, model.bands)[0][b] for b in "ugriz"], axis=1)
        for f in (steep, model.forward)
    )
    np.testing.assert_allclose(off("dust_law"), (theirs - ours)[bright], atol=0.02)
    assert np.abs(theirs - ours).max() > 0.2
    monkeypatch.setattr(abduction, "noise", quiet | {"floor": 0.02})
    clean = abduction.fluxes(plain.truth)
    once, thrice = (
        np.std((observed("errors_too_small", s).observed / clean - 1)[bright]) for s in (0.0, 1.0)
    )
    assert thrice / once == pytest.approx(3.0, rel=1e-3)


def family_of(model, cases):
    """Covariance of each galaxy's data in the family about the truth, in squares of the noise.

    By finite differences: terms vary by their standard-normal law.
    """
    step, u = 0.02, cases.truth.astype(np.float32)
    size = u.shape[1]
    clean = model.abduction.fluxes(u)
    place = model.graph.names.index("redshift")
    redshift = np.vectorize(lambda t: float(model.graph.mechanisms["redshift"].value(t, {})))
    scale = np.sqrt(cases.detail.error**2 + (CONFIG["noise"]["floor"] * clean) ** 2)
    slopes = np.zeros((len(u), 6, size))
    for k in range(size):
        ends = [u + sign * step * np.eye(size, dtype=np.float32)[k] for sign in (1, -1)]
        up, down = (model.abduction.fluxes(end) for end in ends)
        slopes[:, :5, k] = np.where(cases.mask, (up - down) / (2 * step * scale), 0.0)
        up, down = (redshift(end[:, place]) for end in ends)
        slopes[:, 5, k] = (up - down) / (2 * step * cases.detail.redshift_error)
    return np.eye(6) + slopes @ slopes.mT


def test_what_the_oracle_detects_is_what_the_best_test_of_the_linear_model_does(model):
    n = 12

    def power(stress, severity):
        rngs = (np.random.default_rng(seed) for seed in (2, 3))
        return model.detection_power(n, *rngs, {}, stress, severity)

    cases = model.cases(n, *(np.random.default_rng(seed) for seed in (2, 3)), {})
    covariance = family_of(model, cases)
    for stress, band in (("zero_point_g", 1), ("zero_point_z", 4)):
        mag = 0.1 * CONFIG["stresses"][stress]["mag"]
        shift = np.zeros((n, 6))
        # Fluxes and their errors grow alike: in standard deviations, those of the larger error.
        factor = 10 ** (0.4 * mag)
        error, floor = cases.detail.error[:, band], CONFIG["noise"]["floor"]
        clean = model.abduction.fluxes(cases.truth)[:, band]
        wide = np.sqrt((factor * error) ** 2 + (floor * clean) ** 2)
        shift[:, band] = np.where(cases.mask[:, band], (factor - 1) * clean / wide, 0.0)
        distance = np.sqrt(np.einsum("ni,nij,nj->n", shift, np.linalg.inv(covariance), shift))
        expected = norm.cdf(distance - norm.ppf(0.95))
        np.testing.assert_allclose(power(stress, 0.1), expected, atol=0.04)
    # Noise twice what is said: the likelihood ratio of both laws, simulated.
    rng = np.random.default_rng(5)
    expected = []
    for ours, seen in zip(covariance, cases.mask, strict=True):
        more = ours + np.diag(np.append(np.where(seen, 3.0, 0.0), 0.0))
        laws = [multivariate_normal(np.zeros(6), c) for c in (ours, more)]
        inside, outside = (
            laws[1].logpdf(drawn) - laws[0].logpdf(drawn)
            for drawn in (law.rvs(4000, random_state=rng) for law in laws)
        )
        expected.append((outside > np.quantile(inside, 0.95)).mean())
    np.testing.assert_allclose(power("errors_too_small", 0.5), expected, atol=0.06)


def test_what_is_declared_undetectable_is_so_to_the_oracle(model):
    def power(stress):
        rngs = (np.random.default_rng(seed) for seed in (2, 3))
        return model.detection_power(40, *rngs, {}, stress, 1.0).mean()

    hidden = [
        name for name, entry in CONFIG["stresses"].items() if entry["group"] == "undetectable"
    ]
    powers = {name: power(name) for name in CONFIG["stresses"]}
    assert max(powers[name] for name in hidden) < 0.5
    assert powers["missing_band"] == pytest.approx(0.05, abs=1e-3)
    assert powers["zero_point_g"] > 0.5
