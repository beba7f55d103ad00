"""Twins that others have made: violations seen, and projected away to the closest point."""

import json

import numpy as np
import pytest
from astropy import units
from astropy.cosmology import FlatLambdaCDM
from galaxies import CONFIG, budgets, draw, fluxes, forward, galaxy, sources
from scipy.optimize import minimize, nnls
from typer.testing import CliRunner

from touchstone.cli import app
from touchstone.contract import load_model
from touchstone.io.artifacts import ArtifactError
from touchstone.models.galaxy import external
from touchstone.stages import counterfactual

BANDS = tuple(CONFIG["bands"])


@pytest.fixture(scope="module")
def judge():
    return external.Judge(forward(), BANDS, (0.01, 0.6))


@pytest.fixture(scope="module")
def lawful():
    """A galaxy of the forward model, with everything that a twin may have."""
    model, values = forward(), draw(np.random.default_rng(5), 1)
    many = galaxy(values)
    budget, flux = budgets(model, many), fluxes(model, many)
    one = galaxy({name: column[0] for name, column in values.items()})
    parts = {name: float(getattr(budget, name)[0]) for name in external.PARTS}
    places = {"redshift": float(values["redshift"][0]), "age": float(values["age"][0])}
    spectrum = np.asarray(model.spectrum(one), float)
    return (
        places | parts | {"spectrum": spectrum} | dict(zip(BANDS, map(float, flux[0]), strict=True))
    )


def test_a_galaxy_of_the_model_breaks_no_law_and_stays_where_it_is(judge, lawful):
    found = judge(lawful, strict=True)
    assert {row["status"] for row in found["violations"]} == {"kept"}
    assert len(found["violations"]) == 10  # mass, energy, sum, five bands, sign, age
    assert found["largest_change"] < 1e-4
    assert max(row["largest"] for row in found["left"]) < 1e-12


def test_laws_are_those_of_astropy_and_a_quadrature(judge):
    """Of a spectrum that falls as a power of the wavelength, whose integrals are known."""
    redshift, wavelength, cosmology = 0.2, judge.wavelength, FlatLambdaCDM(H0=70, Om0=0.3)
    age = cosmology.age(redshift).to_value(units.Gyr)
    area = 4 * np.pi * cosmology.luminosity_distance(redshift).to(units.cm) ** 2
    unit = (units.L_sun / units.AA / area / (1 + redshift)).to("erg / (s cm2 AA)").value
    twin = {"redshift": redshift, "age": 0.999 * age, "spectrum": 1e10 / wavelength}
    # Between the wavelengths of the model the spectrum is a straight line.
    light = 1e10 / wavelength
    twin["attenuated"] = sum(np.diff(wavelength) * (light[1:] + light[:-1]) / 2)
    for band, each in zip(BANDS, sources()[1], strict=True):
        x = np.arange(each.wavelength[0], each.wavelength[-1], 0.1)
        photons = x * np.interp(x, each.wavelength, each.transmission)
        own = np.trapezoid(photons * unit * 1e10 * (1 + redshift) / x, x)
        flat = units.ABflux.to("erg / (s cm2 Hz)") * 2.99792458e18 / x**2
        twin[band] = 1e9 * own / np.trapezoid(photons * flat, x)
    found = judge(twin, strict=False)["violations"]
    assert len(found) == 8  # sum, five bands, sign, age
    assert max(row["largest"] for row in found) < 5e-4
    older = judge(twin | {"age": 1.001 * age}, strict=False)["violations"]
    assert [row["status"] for row in older if "older" in row["law"]] == ["violated"]


@pytest.mark.parametrize("metric", ["relative", "noise"])
def test_a_broken_twin_is_moved_to_the_closest_lawful_one(judge, lawful, metric):
    """Beside SciPy's non-negative least squares, with the laws as rows of great weight."""
    rng = np.random.default_rng(6)
    broken = {
        name: value * np.exp(0.1 * rng.standard_normal(np.shape(value)))
        for name, value in lawful.items()
    } | {"redshift": lawful["redshift"], "age": 20.0}
    broken["spectrum"][400:420] *= -0.2
    broken["returned"] *= -1
    entries = {name: value for name, value in broken.items() if name not in external.PLACES}
    if metric == "noise":
        broken["errors"] = {
            name: 0.05 * np.abs(value) + 0.01 * np.abs(value).max()
            for name, value in entries.items()
        }
    seen = judge(broken, strict=False)
    assert all(row["status"] == "violated" for row in seen["violations"])
    assert "twin" not in seen
    found = judge(broken, strict=True)
    assert found["metric"] == metric
    assert {row["status"] for row in found["left"]} == {"kept"}
    assert max(row["largest"] for row in found["left"]) <= 1e-12
    assert found["twin"]["age"] < 14
    places = {"redshift": broken["redshift"]}
    x = np.concatenate([np.atleast_1d(value) for value in entries.values()])
    ends = np.cumsum([0, *(np.size(value) for value in entries.values())])
    if metric == "noise":
        scale = np.concatenate([np.atleast_1d(broken["errors"][name]) for name in entries])
    else:
        scale = np.abs(x)
    laws = judge._laws(entries, places)
    rows = np.zeros((len(laws), len(x)))
    for row, law in zip(rows, laws, strict=True):
        for name, coefficient in law.coefficients.items():
            k = list(entries).index(name)
            row[ends[k] : ends[k + 1]] = coefficient
    rows = rows * scale
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    exact, _ = nnls(
        np.concatenate([np.eye(len(x)), 1e4 * rows]), np.append(x / scale, np.zeros(len(rows)))
    )
    expected = np.linalg.norm(exact - x / scale)
    assert found["distance"] == pytest.approx(expected, rel=1e-5)
    closest = np.concatenate([np.atleast_1d(found["twin"][name]) for name in entries])
    np.testing.assert_allclose(closest / scale, exact, atol=1e-5)


def test_masses_alone_are_projected_as_by_a_general_solver(judge):
    twin = {"formed": 10.0, "surviving": 7.0, "returned": -1.0}
    found = judge(twin, strict=True)
    x, scale = np.array([10.0, 7.0, -1.0]), np.array([10.0, 7.0, 1.0])
    solved = minimize(
        lambda y: (((y - x) / scale) ** 2).sum(), x, method="SLSQP", bounds=[(0, None)] * 3,
        constraints={"type": "eq", "fun": lambda y: y[0] - y[1] - y[2]}, options={"ftol": 1e-14},
    )  # fmt: skip
    assert found["distance"] == pytest.approx(np.sqrt(solved.fun), rel=1e-6)
    moved = found["twin"]
    np.testing.assert_allclose([moved[name] for name in twin], solved.x, atol=1e-5)
    assert moved["formed"] == pytest.approx(moved["surviving"] + moved["returned"], rel=1e-12)


@pytest.mark.parametrize(
    ("twin", "words"),
    [
        ({}, "is empty"),
        ({"halo": 1.0}, "halo: unknown, allowed are redshift"),
        ({"formed": "many"}, "formed: 'many' is no number"),
        ({"formed": float("nan")}, "formed: holds what is no finite number"),
        ({"spectrum": [1.0, 2.0]}, r"spectrum: has the shape \(2,\), expected 842 numbers"),
        ({"formed": 1.0, "errors": {"formed": 0.0}}, "errors.formed: expected above zero"),
        (
            {"formed": 1.0, "returned": 1.0, "errors": {"formed": 1.0}},
            "errors.returned: is missing",
        ),
        *(
            ({"formed": 1.0, "redshift": z}, f"redshift: {z:g}, the model is of 0.01 to 0.6")
            for z in (-1, 1e-9, 8)
        ),
    ],
)
def test_a_twin_that_makes_no_sense_is_refused(judge, twin, words):
    with pytest.raises(ArtifactError, match=words):
        judge(twin, strict=True)


def test_both_doors_give_the_same_report(lawful, tmp_path):
    """The file names its spectrum, as the command line has it; Python gets the numbers."""
    twin = {name: value for name, value in lawful.items() if name != "spectrum"}
    twin["returned"] *= 1.5
    wavelength = np.asarray(forward().wavelength, float)
    table = np.column_stack([wavelength, lawful["spectrum"]])
    np.savetxt(tmp_path / "s.csv", table, "%.17g", ",", header="wavelength,luminosity", comments="")
    lines = [f"{name}: {value!r}" for name, value in twin.items()]
    (tmp_path / "twin.yaml").write_text("\n".join([*lines, "spectrum: s.csv"]), encoding="utf-8")
    asked = ["predict", "galaxy", "--twin", str(tmp_path / "twin.yaml")]
    told = CliRunner().invoke(app, [*asked, "--json"])
    assert told.exit_code == 3  # a law is violated
    report = json.loads(told.stdout)
    assert report["reason"] == "violated: mass: formed = surviving + returned"
    assert report["twin"]["spectrum"][0] == pytest.approx(lawful["spectrum"][0], rel=1e-3)
    ours = counterfactual.external(
        load_model("galaxy"), twin | {"spectrum": lawful["spectrum"]}, "strict_physics"
    )
    assert ours["distance"] == pytest.approx(report["distance"], rel=1e-9)
    only = CliRunner().invoke(app, [*asked, "--strategy", "report_only"])
    assert "violated" in only.stdout and "closest" not in only.stdout
    (tmp_path / "s.csv").write_text("wavelength,luminosity\n4000,1\n", encoding="utf-8")
    wrong = CliRunner().invoke(app, asked)
    assert wrong.exit_code == 2
    assert "s.csv: wavelength: 1 rows, expected the 842 of the model" in wrong.stderr
