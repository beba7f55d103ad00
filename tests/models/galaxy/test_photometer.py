"""The table that inference uses, and filters of another library, beside the forward model."""

from importlib import metadata

import jax
import numpy as np
import pytest
from astropy import units
from galaxies import CONFIG, draw, fluxes, forward, galaxy
from speclite.filters import FilterResponse

from touchstone.models.galaxy import counterfactual
from touchstone.models.galaxy.photometer import Photometer


@pytest.fixture(scope="module")
def model():
    return forward()


def test_the_table_gives_the_fluxes_of_the_forward_model(model):
    bounds = {"redshift": (0.01, 0.6), "log_tau": (-1.0, 1.3), "age": (0.7, 13.4), "A_V": (0, 3)}
    rng = np.random.default_rng(0)
    values = draw(rng, 300)
    universe = np.asarray(model.cosmology.age(values["redshift"]))
    values["age"] = universe * rng.uniform(0.1, 0.99, 300)
    many = galaxy({name: column.astype(np.float32) for name, column in values.items()})
    table = Photometer(model, bounds)
    found = np.asarray(jax.jit(lambda table, each: jax.vmap(table)(each))(table, many))
    off = np.abs(found / fluxes(model, many) - 1)
    assert np.quantile(off, 0.95) < 1e-3
    assert off.max() < 1e-2  # of young galaxies with dust in u: half of the floor of the noise


def test_photometry_is_that_of_speclite_through_the_filters_of_kcorrect(model):
    files = metadata.distribution("kcorrect")
    values = {name: column.astype(np.float32) for name, column in draw(
        np.random.default_rng(1), 12).items()}  # fmt: skip
    ours = fluxes(model, galaxy(values))
    grid = np.arange(2900.0, 11500.0, 1.0)
    spectra = counterfactual.shown(model, values, grid).astype(float)  # nanomaggies
    density = units.Unit("erg / (s cm2 AA)")
    flat = (3.631e-20 * units.Unit("erg / (s cm2 Hz)")).to(
        density, units.spectral_density(grid * units.AA)
    )
    for number, (band, name) in enumerate(CONFIG["bands"].items()):
        path = files.locate_file(f"kcorrect/data/responses/{name}.dat")
        lines = [line for line in path.read_text().splitlines() if line.startswith("|")][1:]
        cells = [line.split("|") for line in lines]
        curve = np.array([[row[1], row[4]] for row in cells], float)  # `lambda` and `pass`
        response = FilterResponse(
            curve[:, 0] * units.AA,
            curve[:, 1].clip(0),
            {"group_name": "kcorrect", "band_name": band},
        )
        theirs = [
            float(response.get_ab_maggies(spectrum * 1e-9 * flat, grid * units.AA))
            for spectrum in spectra
        ]
        np.testing.assert_allclose(ours[:, number], np.array(theirs) * 1e9, rtol=1e-3)
