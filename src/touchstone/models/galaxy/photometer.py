"""The fluxes of `physics.Forward`, many times as fast, for inference.

Fluxes are linear in the light of each age, and the weights of ages depend on two numbers, the decay
and the beginning of star formation. The weights of all histories that the model has span few
directions (a singular value decomposition finds them): their components are a table over the two
numbers, and fluxes in these directions another one over redshift, metallicity and attenuation.
What is left is to interpolate, and one small product. Nothing is reported from here: answers are
of the exact forward model, which tests hold this one against.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from touchstone.models.galaxy import history
from touchstone.models.galaxy.cosmology import Cosmology
from touchstone.models.galaxy.physics import Forward, Galaxy

_STEP = 0.00125  # of redshift, between nodes
_N_DUST = 4  # nodes of the attenuation (Chebyshev)
_N_DIRECTIONS = 48
_N_HISTORIES = 400  # that the directions are of
_EVERY = 48  # nodes of redshift: the directions are of every so many
_ZERO = np.int32(0)  # a first index, of one type with the others in either precision
_N_TAU, _N_AGE = 40, 160  # nodes of the table of histories


class Photometer(eqx.Module):
    """Fluxes of galaxies.

    Args:
        forward: Whose fluxes they are.
        bounds: The lowest and the highest `redshift`, `log_tau`, `age` (Gyr) and `A_V` that fluxes
            are asked for, by name.
    """

    cosmology: Cosmology
    log_metallicity: Array
    histories: Array  # (log_tau, age, direction)
    table: Array  # (redshift, metallicity, direction, band x dust)
    polynomial: Array  # coefficients of Lagrange's polynomials of A_V, the highest first
    first: tuple[float, float, float] = eqx.field(static=True)  # of redshift, log_tau and age
    step: tuple[float, float] = eqx.field(static=True)  # of log_tau and age

    def __init__(self, forward: Forward, bounds: dict[str, tuple[float, float]]):
        low, high = bounds["redshift"]
        redshift = np.arange(low, high + _STEP, _STEP)
        chebyshev = np.cos(np.pi * (np.arange(_N_DUST) + 0.5) / _N_DUST)
        low, high = bounds["A_V"]
        dust = low + (high - low) * (chebyshev + 1) / 2
        tau, age = (
            np.linspace(*bounds[name], n) for name, n in (("log_tau", _N_TAU), ("age", _N_AGE))
        )
        weights = _weights(forward, *(a.ravel() for a in np.meshgrid(tau, age, indexing="ij")))
        some = np.random.default_rng(0).choice(len(weights), _N_HISTORIES, replace=False)
        light = np.asarray(forward.luminosity, np.float32)[..., slice(*forward.seen)]
        coarse = _fluxes(forward, light, redshift[::_EVERY], dust)
        directions, dual = _directions(weights[some], coarse)
        light = np.tensordot(dual.astype(light.dtype), light, 1)  # of directions in place of ages
        self.cosmology, self.log_metallicity = forward.cosmology, forward.log_metallicity
        self.histories = _stored((weights @ directions).reshape(_N_TAU, _N_AGE, -1), forward)
        self.table = _stored(_fluxes(forward, light, redshift, dust), forward)
        self.polynomial = _stored(np.linalg.inv(np.vander(dust)), forward)
        self.first = float(redshift[0]), float(tau[0]), float(age[0])
        self.step = float(tau[1] - tau[0]), float(age[1] - age[0])

    def __call__(self, galaxy: Galaxy) -> Float[Array, " band"]:
        """In each band, nanomaggies."""
        n_tau, n_age, n_directions = self.histories.shape
        i, of_tau = _cubic((galaxy.log_tau - self.first[1]) / self.step[0], n_tau)
        j, of_age = _cubic((galaxy.age - self.first[2]) / self.step[1], n_age)
        near = lax.dynamic_slice(self.histories, (i, j, _ZERO), (4, 4, n_directions))
        history_ = (of_tau[:, None, None] * of_age[:, None] * near).sum((0, 1))
        place = (galaxy.redshift - self.first[0]) / _STEP
        z = jnp.clip(place.astype(jnp.int32), 0, len(self.table) - 2)
        m, share = _between(self.log_metallicity, galaxy.log_metallicity)
        part = lax.dynamic_slice(self.table, (z, m, _ZERO, _ZERO), (2, 2, *self.table.shape[2:]))
        light = (part * history_[:, None]).sum(2)  # (redshift, metallicity, band x dust)
        light = (1 - share) * light[:, 0] + share * light[:, 1]
        light = jnp.log((1 + z - place) * light[0] + (place - z) * light[1])
        powers = galaxy.A_V ** jnp.arange(_N_DUST - 1, -1, -1)
        light = light.reshape(-1, _N_DUST) @ (powers @ self.polynomial)
        distance = self.cosmology.luminosity_distance(galaxy.redshift)
        dimming = galaxy.log_mass - 2 * jnp.log10(distance) - jnp.log10(1 + galaxy.redshift)
        return jnp.exp(light + np.log(10) * dimming)


def _stored(array: np.ndarray, forward: Forward) -> Array:
    return jnp.asarray(array, forward.luminosity.dtype)


def _between(grid: Array, value: Array) -> tuple[Array, Array]:
    """The node at or below a value, and how far it is to the next one."""
    value = jnp.clip(value, grid[0], grid[-1])
    k = jnp.clip(jnp.searchsorted(grid, value, side="right") - 1, 0, len(grid) - 2)
    return k.astype(jnp.int32), (value - grid[k]) / (grid[k + 1] - grid[k])


def _cubic(place: Array, n: int) -> tuple[Array, Array]:
    """First of four of n nodes about a place, and Lagrange's weights of the four."""
    first = jnp.clip(place.astype(jnp.int32) - 1, 0, n - 4)
    f = place - first - 1
    weights = [
        -f * (f - 1) * (f - 2) / 6,
        (f + 1) * (f - 1) * (f - 2) / 2,
        -(f + 1) * f * (f - 2) / 2,
        (f + 1) * f * (f - 1) / 6,
    ]
    return first, jnp.stack(weights)


def _fluxes(
    forward: Forward, light: np.ndarray, redshift: np.ndarray, dust: np.ndarray
) -> np.ndarray:
    """Of light (n, metallicity, wavelength), of one solar mass at 1 Mpc, without 1 / (1 + z): shape
    (redshift, metallicity, n, band x dust)."""
    seen = slice(*forward.seen)
    wavelength = np.asarray(forward.wavelength, float)[seen]
    node, throughput = np.asarray(forward.node, float), np.asarray(forward.throughput, float)
    passed = 10 ** (-0.4 * dust[:, None] * np.asarray(forward.curve, float)[seen])
    n, n_metals, n_waves = light.shape
    rows = light.swapaxes(0, 1).reshape(-1, n_waves)
    found = np.zeros((len(redshift), n_metals, n, len(throughput), len(dust)), np.float32)
    for z in range(len(redshift)):
        rest = node / (1 + redshift[z])
        k = np.searchsorted(wavelength, rest, side="right") - 1
        part = (rest - wavelength[k]) / (wavelength[k + 1] - wavelength[k])
        for band, through in enumerate(throughput):
            own = slice(*np.flatnonzero(through)[[0, -1]] + np.array([0, 1]))
            used = slice(k[own.start], k[own.stop - 1] + 2)  # wavelengths that the filter sees
            at, size = k[own] - used.start, used.stop - used.start
            response = np.bincount(at, through[own] * (1 - part[own]), size)
            response += np.bincount(at + 1, through[own] * part[own], size)
            weight = (response * passed[:, used]).astype(np.float32)
            found[z, :, :, band] = (rows[:, used] @ weight.T).reshape(n_metals, n, -1)
    return found.reshape(len(redshift), n_metals, n, -1)


def _directions(weights: np.ndarray, fluxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions of the weights of ages (age, direction), and what turns the light of ages into
    that of directions (direction, age)."""
    light = fluxes.swapaxes(2, 3).reshape(-1, fluxes.shape[2]).astype(float)
    found = weights @ light.T
    scale = 1 / found.mean(1, keepdims=True)  # all histories and all fluxes count alike
    column = 1 / (found * scale).mean(0)
    _, _, vectors = np.linalg.svd(found * scale * column, full_matrices=False)
    directions = (light.T * column) @ vectors[:_N_DIRECTIONS].T
    scaled = weights * scale
    # Components of all histories that are orthonormal, so that single precision loses no digits;
    # the fluxes that fit those of all histories best, by least squares, are then projections.
    components, size, turned = np.linalg.svd(scaled @ directions, full_matrices=False)
    return directions @ (turned.T / size), components.T @ scaled


def _weights(forward: Forward, log_tau: np.ndarray, age: np.ndarray) -> np.ndarray:
    """Of the ages of the table for each history, shape (history, age)."""
    with jax.enable_x64(True):
        ages = jnp.asarray(np.asarray(forward.age, float))
        return np.asarray(_many(ages, jnp.asarray(10**log_tau), jnp.asarray(age)))


@jax.jit
def _many(ages: Array, tau: Array, age: Array) -> Array:
    return jax.vmap(history.weights, (None, 0, 0))(ages, tau, age)
