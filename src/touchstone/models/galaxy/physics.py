"""The forward model: from what a galaxy is to its spectrum, its budgets and its fluxes.

A composite population (`history`) behind dust (`dust`), at a distance (`cosmology`), through
filters. Pure JAX, differentiable; `jax.vmap` takes many galaxies.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from touchstone.models.galaxy import dust, history
from touchstone.models.galaxy.cosmology import Cosmology
from touchstone.models.galaxy.tables import Filter, Populations

# Solar luminosity over 4 pi (Mpc)^2, in erg/s/cm^2; IAU 2015 B3 and B2.
_LSUN, _MPC = 3.828e33, 3.0856775814913673e24
_FLUX = _LSUN / (4 * np.pi * _MPC**2)
_AB = 3.631e-20 * 1e-9  # of a nanomaggie, in erg/s/cm^2/Hz (Oke & Gunn 1983)
_C = 2.99792458e18  # Å/s
_STEP = 5.0  # Å, of the integration over a filter
_FINE = 4  # parts of an interval of the table, between which the loss of mass is linear
# Mass that stars have given back, per mass formed, after a time in years: Leitner & Kravtsov 2011,
# eq. 1, for the initial mass function of Chabrier.
_LOSS, _LOSS_TIME = 0.046, 2.76e5


class Galaxy(NamedTuple):
    """What a galaxy is, as far as its light says.

    Attributes:
        redshift: Of the light.
        log_mass: log10 of the mass ever formed, in solar masses.
        log_tau: log10 of the decay of star formation, in Gyr.
        age: Since star formation began, in Gyr.
        log_metallicity: log10 of the mass fraction of metals over 0.02.
        A_V: Attenuation at 5500 Å, mag.
    """

    redshift: Array
    log_mass: Array
    log_tau: Array
    age: Array
    log_metallicity: Array
    A_V: Array


class Budget(NamedTuple):
    """Masses (solar masses) and luminosities (solar luminosities, over the table's wavelengths)."""

    formed: Array
    surviving: Array
    returned: Array
    intrinsic: Array
    attenuated: Array
    absorbed: Array
    infrared: Array


class Forward(eqx.Module):
    """Spectra, budgets and fluxes of galaxies.

    Args:
        populations: The table.
        filters: Of the bands.
        cosmology: Where the galaxies are.
        redshifts: The lowest and the highest that fluxes are asked for.
    """

    cosmology: Cosmology
    age: Array  # of the table, Gyr
    log_metallicity: Array
    wavelength: Array
    luminosity: Array  # (age, metallicity, wavelength)
    curve: Array  # attenuation over A_V, (wavelength,)
    loss_age: Array  # Gyr, finer than `age`: the light is linear between its ages, the loss is not
    lost: Array  # part of the mass given back at each of those
    interval: Array  # number of the wavelength at or below each whole Å
    node: Array  # Å, of all filters one after another
    throughput: Array  # nanomaggies per erg/s/cm^2/Å at each node, (band, node)
    seen: tuple[int, int] = eqx.field(static=True)  # wavelengths that any filter sees

    def __init__(
        self,
        populations: Populations,
        filters: tuple[Filter, ...],
        cosmology: Cosmology,
        redshifts: tuple[float, float],
        curve: Float[np.ndarray, " wavelength"] | None = None,
    ):
        wavelength = populations.wavelength
        nodes = [np.arange(f.wavelength[0], f.wavelength[-1] + _STEP / 2, _STEP) for f in filters]
        throughput = np.zeros((len(filters), sum(map(len, nodes))))
        first = 0
        for row, (each, node) in enumerate(zip(filters, nodes, strict=True)):
            photons = np.interp(node, each.wavelength, each.transmission) * node
            photons[[0, -1]] /= 2  # the trapezoidal rule
            own = slice(first, first + len(node))
            throughput[row, own] = photons / (photons * _AB * _C / node**2).sum()
            first += len(node)
        low = min(node[0] for node in nodes) / (1 + redshifts[1])
        high = max(node[-1] for node in nodes)  # also of light that is not shifted
        seen = np.searchsorted(wavelength, [low, high], side="right") + np.array([-1, 1])
        self.cosmology = cosmology
        self.age = jnp.asarray(populations.age / 1e9)
        self.log_metallicity = jnp.asarray(np.log10(populations.metallicity / 0.02))
        self.wavelength = jnp.asarray(wavelength)
        self.luminosity = jnp.asarray(populations.luminosity.swapaxes(0, 1))
        self.curve = jnp.asarray(dust.calzetti(wavelength) if curve is None else curve)
        number = np.arange(_FINE * (len(populations.age) - 1) + 1) / _FINE
        fine = np.interp(number, np.arange(len(populations.age)), populations.age)
        self.loss_age = jnp.asarray(fine / 1e9)
        self.lost = jnp.asarray(_LOSS * np.log1p(fine / _LOSS_TIME))
        whole = np.arange(int(wavelength[-1]) + 1)
        self.interval = jnp.asarray(np.searchsorted(wavelength, whole, side="right") - 1)
        self.node = jnp.asarray(np.concatenate(nodes))
        self.throughput = jnp.asarray(throughput * _FLUX)
        self.seen = int(seen[0]), int(seen[1])

    def log_specific_rate(self, log_tau: Array, age: Array) -> Array:
        """log10 of the rate of star formation per mass formed and year, at least -14."""
        return jnp.log10(history.specific_rate(10.0**log_tau, age) * 1e-9 + 1e-14)

    def intrinsic(self, galaxy: Galaxy, seen: slice = slice(None)) -> Float[Array, " wavelength"]:
        """Luminosity per mass formed before dust, solar per Å and solar mass."""
        place = jnp.clip(galaxy.log_metallicity, self.log_metallicity[0], self.log_metallicity[-1])
        k = jnp.searchsorted(self.log_metallicity, place, side="right") - 1
        k = jnp.clip(k, 0, len(self.log_metallicity) - 2)
        part = (place - self.log_metallicity[k]) / (
            self.log_metallicity[k + 1] - self.log_metallicity[k]
        )
        number = jnp.arange(len(self.log_metallicity))
        share = jnp.where(number == k, 1 - part, 0.0) + jnp.where(number == k + 1, part, 0.0)
        # One product for many galaxies: taking two metallicities of each would copy their tables.
        weights = history.weights(self.age, 10.0**galaxy.log_tau, galaxy.age)
        table = self.luminosity[:, :, seen]
        return share @ (weights @ table.reshape(len(weights), -1)).reshape(len(share), -1)

    def transmitted(self, galaxy: Galaxy, seen: slice = slice(None)) -> Float[Array, " wavelength"]:
        """Part of the light that the dust lets through."""
        return 10.0 ** (-0.4 * galaxy.A_V * self.curve[seen])

    def spectrum(self, galaxy: Galaxy) -> Float[Array, " wavelength"]:
        """Luminosity after dust, solar per Å."""
        return 10.0**galaxy.log_mass * self.intrinsic(galaxy) * self.transmitted(galaxy)

    def fluxes(self, galaxy: Galaxy) -> Float[Array, " band"]:
        """In each band, nanomaggies; of a redshift between those of the construction."""
        return self._through(galaxy, 1 + galaxy.redshift)

    def rest_fluxes(self, galaxy: Galaxy) -> Float[Array, " band"]:
        """The same as if its light were not shifted: what a K-correction compares with."""
        return self._through(galaxy, jnp.ones_like(galaxy.redshift))

    def _through(self, galaxy: Galaxy, stretch: Array) -> Float[Array, " band"]:
        seen = slice(*self.seen)
        # Held back, or the compiler works it out anew at every node of the filters.
        light = lax.optimization_barrier(
            self.intrinsic(galaxy, seen) * self.transmitted(galaxy, seen)
        )
        rest = self.node / stretch
        k = self.interval[rest.astype(jnp.int32)] - seen.start
        wavelength = self.wavelength[seen]
        slope = jnp.diff(light) / jnp.diff(wavelength)
        at_node = light[k] + (rest - wavelength[k]) * slope[k]
        distance = self.cosmology.luminosity_distance(galaxy.redshift)
        dimming = 10.0 ** (galaxy.log_mass - 2 * jnp.log10(distance)) / stretch
        return dimming * (self.throughput @ at_node)

    def density(self, galaxy: Galaxy, wavelength: Float[Array, " pixel"]) -> Float[Array, " pixel"]:
        """Flux per frequency at observed wavelengths (Å), nanomaggies; zero beyond the table."""
        stretch = 1 + galaxy.redshift
        light = self.intrinsic(galaxy) * self.transmitted(galaxy)
        at = jnp.interp(wavelength / stretch, self.wavelength, light, left=0.0, right=0.0)
        distance = self.cosmology.luminosity_distance(galaxy.redshift)
        dimming = 10.0 ** (galaxy.log_mass - 2 * jnp.log10(distance)) / stretch
        return dimming * at * (_FLUX / (_AB * _C)) * wavelength**2

    def budget(self, galaxy: Galaxy) -> Budget:
        """Masses and luminosities; what one part lost, another has."""
        formed = 10.0**galaxy.log_mass
        ages = history.weights(self.loss_age, 10.0**galaxy.log_tau, galaxy.age)
        intrinsic, passed = self.intrinsic(galaxy), self.transmitted(galaxy)
        absorbed = formed * jnp.trapezoid(intrinsic * (1 - passed), self.wavelength)
        return Budget(
            formed=formed,
            surviving=formed * (ages @ (1 - self.lost)),
            returned=formed * (ages @ self.lost),
            intrinsic=formed * jnp.trapezoid(intrinsic, self.wavelength),
            attenuated=formed * jnp.trapezoid(intrinsic * passed, self.wavelength),
            absorbed=absorbed,
            infrared=absorbed,  # the dust is in equilibrium: it shines what it absorbs
        )
