"""Distances and ages in a flat universe of matter and a cosmological constant."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

_C = 299792.458  # km/s
_GYR = 977.7922216807891  # Gyr km/s/Mpc: the inverse of 1 km/s/Mpc
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)


class Cosmology(eqx.Module):
    """A flat universe without radiation.

    Attributes:
        hubble: Its constant today, km/s/Mpc.
        matter: Density of matter today, in critical densities.
    """

    hubble: float
    matter: float

    def luminosity_distance(self, redshift: Array) -> Array:
        """In Mpc; redshifts of any shape. Hogg 1999, eqs. 15, 16 and 21."""
        nodes, weights = (jnp.asarray(a, redshift.dtype) for a in (_NODES, _WEIGHTS))
        at = redshift[..., None] * (nodes + 1) / 2
        rate = jnp.sqrt(self.matter * (1 + at) ** 3 + 1 - self.matter)
        comoving = redshift / 2 * (weights / rate).sum(-1)
        return _C / self.hubble * (1 + redshift) * comoving

    def age(self, redshift: Array) -> Array:
        """Of the universe, in Gyr; Carroll, Press & Turner 1992, eq. 17 for a flat universe."""
        dark = 1 - self.matter
        bound = jnp.sqrt(dark / self.matter) * (1 + redshift) ** -1.5
        return 2 / 3 / jnp.sqrt(dark) * jnp.arcsinh(bound) * _GYR / self.hubble
