"""The physics again by other means, to hold answers against: adaptive quadrature, no shared code.

Slow and simple: SciPy integrates the history, NumPy interpolates the table, astropy knows the
cosmology and the units.
"""

from typing import Any, NamedTuple

import numpy as np
from astropy import units
from astropy.cosmology import FlatLambdaCDM
from scipy.integrate import quad

from touchstone.models.galaxy.tables import Filter, Populations


class Sums(NamedTuple):
    """Of one galaxy: masses and luminosities in solar units, fluxes in nanomaggies, ages in Gyr."""

    formed: float
    surviving: float
    returned: float
    intrinsic: float
    attenuated: float
    absorbed: float
    fluxes: np.ndarray
    age_of_universe: float


def sums(
    values: dict[str, float],
    populations: Populations,
    filters: tuple[Filter, ...],
    hubble: float,
    matter: float,
) -> Sums:
    """Everything that is conserved, and the fluxes, of the fields of `physics.Galaxy` by name."""
    tau, start = 10.0 ** values["log_tau"], values["age"]
    mass = 10.0 ** values["log_mass"]
    ages = populations.age / 1e9

    def rate(age):
        since = start - age
        return since * np.exp(-since / tau)

    # Between the ages of the table its light is linear: 8 Gauss points in each are exact enough.
    edges = np.unique(np.concatenate([ages[ages < start], [start]]))
    x, w = np.polynomial.legendre.leggauss(8)
    width = np.diff(edges)[:, None]
    at = (edges[:-1, None] + width * (x + 1) / 2).ravel()
    weight = (width / 2 * w).ravel() * rate(at)
    total = quad(rate, 0.0, start, epsabs=0, epsrel=1e-10)[0]
    logs = np.log10(populations.metallicity / 0.02)
    k = int(np.clip(np.searchsorted(logs, values["log_metallicity"]) - 1, 0, len(logs) - 2))
    share = (values["log_metallicity"] - logs[k]) / (logs[k + 1] - logs[k])
    table = (1 - share) * populations.luminosity[k] + share * populations.luminosity[k + 1]
    right = np.clip(np.searchsorted(ages, at, side="right"), 1, len(ages) - 1)
    beyond = (at - ages[right - 1]) / (ages[right] - ages[right - 1])
    light = ((weight * (1 - beyond)) @ table[right - 1] + (weight * beyond) @ table[right]) / total
    wave = populations.wavelength
    passed = np.exp(-values["A_V"] * np.log(10) / 2.5 * _calzetti(wave))

    def lost(age):  # Leitner & Kravtsov 2011
        return 0.046 * np.log(age * 1e9 / 2.76e5 + 1)

    returned = quad(lambda a: lost(a) * rate(a), 0, start, epsrel=1e-9, limit=200)[0] / total
    kept = quad(lambda a: (1 - lost(a)) * rate(a), 0, start, epsrel=1e-9, limit=200)[0] / total
    universe: Any = FlatLambdaCDM  # astropy makes its methods by decorators
    cosmology = universe(H0=hubble, Om0=matter)
    redshift = values["redshift"]
    area = 4 * np.pi * cosmology.luminosity_distance(redshift).to(units.cm) ** 2
    unit = (mass * units.L_sun / units.AA / area / (1 + redshift)).to(
        units.erg / units.s / units.cm**2 / units.AA
    )
    observed = light * passed * unit.value
    return Sums(
        mass,
        mass * kept,
        mass * returned,
        mass * _area(light, wave),
        mass * _area(light * passed, wave),
        mass * _area(light * (1 - passed), wave),
        np.array([_band(each, wave * (1 + redshift), observed) for each in filters]),
        float(cosmology.age(redshift).to_value(units.Gyr)),
    )


def _area(y: np.ndarray, x: np.ndarray) -> float:
    return float(np.sum((y[1:] + y[:-1]) * (x[1:] - x[:-1])) / 2)


def _band(each: Filter, wavelength: np.ndarray, flux: np.ndarray) -> float:
    """AB flux through a filter, nanomaggies, on a grid of 0.5 Å."""
    grid = np.arange(each.wavelength[0], each.wavelength[-1], 0.5)
    through = np.interp(grid, each.wavelength, each.transmission) * grid
    flat = units.ABflux.to(units.erg / units.s / units.cm**2 / units.Hz) * 2.99792458e18 / grid**2
    return (
        1e9 * _area(np.interp(grid, wavelength, flux) * through, grid) / _area(flat * through, grid)
    )


def _calzetti(wavelength: np.ndarray) -> np.ndarray:
    """Calzetti et al. 2000, eq. 4, over its value at 5500 Å, constant outside of its range."""
    inverse = 1e4 / np.clip(wavelength, 1200.0, 22000.0)

    def polynomial(x):
        blue = np.polyval([0.011, -0.198, 1.509, -2.156], x)
        return 4.05 + 2.659 * np.where(x > 1 / 0.63, blue, 1.040 * x - 1.857)

    return polynomial(inverse) / polynomial(np.array(1 / 0.55))
