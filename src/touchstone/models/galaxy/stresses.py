"""How galaxies are observed, and how an observation can be other than the model believes."""

import jax.numpy as jnp
import numpy as np
from equinox import tree_at

from touchstone.inference.batches import map_chunks
from touchstone.inference.problem import simulated
from touchstone.models.galaxy import dust, tables
from touchstone.models.galaxy.abduction import Abduction, Light
from touchstone.models.galaxy.observation import Photometry

_QUASAR = 0.5  # slope of the flux with wavelength: nu^-0.5, of the continuum of an active nucleus


def observe(
    abduction: Abduction,
    u: np.ndarray,
    rng: np.random.Generator,
    noise: np.random.Generator,
    stress: dict | None = None,
    severity: float = 0.0,
    fluxes: np.ndarray | None = None,
    quiet: bool = False,
) -> tuple[np.ndarray, np.ndarray, Photometry]:
    """Noisy fluxes of galaxies, which bands there are, and what is known besides.

    Args:
        abduction: Of the model.
        u: Exogenous terms, shape (n, P).
        rng: For errors, missing bands and companions: the same in all variants of a case.
        noise: For the noise.
        stress: Entry of a stress in `config.yaml`, whose keys say what happens.
        severity: In [0, 1].
        fluxes: Of the terms where they are known already, shape (n, band).
        quiet: Whether to leave out the noise of fluxes and redshifts.
    """
    entry, own = abduction.noise, abduction.graph.mechanisms["redshift"]
    n, n_bands = len(u), len(abduction.depth)
    error = abduction.depth * np.exp(entry["spread"] * rng.standard_normal((n, n_bands)))
    seen = rng.random((n, n_bands)) >= entry["missing"]
    seen[:, n_bands // 2] = True  # no galaxy is chosen that is not seen
    redshift_error = np.exp(rng.uniform(*np.log(entry["redshift"]), n))
    companion = rng.standard_normal(u.shape).astype(np.float32)
    clean = abduction.fluxes(u) if fluxes is None else fluxes
    place = abduction.graph.names.index("redshift")
    redshift = np.asarray(own.value(jnp.asarray(u[:, place]), {}), float)
    lost = rng.random((n, n_bands))
    what = {} if stress is None else stress
    if severity and "slope" in what:
        clean = map_chunks(simulated, _with_law(abduction, what["slope"], severity), u)
    if severity and "templates" in what:
        clean = map_chunks(simulated, _with_templates(abduction, what["templates"], severity), u)
    clean = np.asarray(clean, float)
    bright = clean[:, n_bands // 2, None]
    if severity and "nucleus" in what:
        wavelength = abduction.effective / abduction.effective[n_bands // 2]
        clean = clean + severity * what["nucleus"] * bright * wavelength**_QUASAR
    if severity and "blend" in what:
        apart = what["apart"]  # 1: the companion is any galaxy, 0: it is the same one again
        near = np.sqrt(1 - apart**2) * u + apart * companion
        other = np.asarray(abduction.fluxes(near), float)
        other = other / other[:, n_bands // 2, None]
        clean = clean + severity * what["blend"] * bright * other
    scale = np.sqrt(error**2 + (entry["floor"] * clean) ** 2)
    if severity and "factor" in what:
        scale = scale * (1 + severity * (what["factor"] - 1))
    loud = 0.0 if quiet else 1.0
    flux = clean + loud * scale * noise.standard_normal((n, n_bands))
    measured = redshift + loud * redshift_error * noise.standard_normal(n)
    if severity and "mag" in what:
        changed = np.ones(n_bands, bool)
        if "band" in what:
            changed = np.array([band == what["band"] for band in abduction.bands])
        factor = 10 ** (0.4 * severity * what["mag"] * changed)
        flux, error = flux * factor, error * factor
    if severity and "offset" in what:
        moved = measured + severity * what["offset"]
        measured = np.where(moved < own.high, moved, measured - severity * what["offset"])
    if severity and "missing" in what:
        seen &= (lost >= severity * what["missing"]) | (np.arange(n_bands) == n_bands // 2)
    measured = np.clip(measured, own.low, own.high)
    return np.where(seen, flux, 0.0), seen, Photometry(error, measured, redshift_error)


def _with_law(abduction: Abduction, slope: float, severity: float) -> Light:
    """The light of the same galaxies under a dust law between Calzetti's and a power law."""
    forward = abduction.light.forward
    wavelength = np.asarray(forward.wavelength)
    curve = (1 - severity) * dust.calzetti(wavelength)
    curve = curve + severity * dust.power_law(wavelength, slope)
    other = tree_at(lambda model: model.curve, forward, jnp.asarray(curve, forward.curve.dtype))
    return Light(other, other.fluxes, abduction.graph)


def _with_templates(abduction: Abduction, source: dict, severity: float) -> Light:
    """The light of the same galaxies, their stars partly of another library of spectra."""
    forward = abduction.light.forward
    theirs = tables.popstar(**source)
    grid = (
        np.asarray(a, float) for a in (forward.log_metallicity, forward.age, forward.wavelength)
    )
    light = tables.resampled(theirs, *grid).swapaxes(0, 1)
    mixed = (1 - severity) * forward.luminosity + severity * jnp.asarray(light, jnp.float32)
    other = tree_at(lambda model: model.luminosity, forward, mixed)
    return Light(other, other.fluxes, abduction.graph)
