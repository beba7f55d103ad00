"""Galaxies that the tests of this folder share."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import yaml

from touchstone import contract
from touchstone.models.galaxy import physics, tables
from touchstone.models.galaxy.cosmology import Cosmology

CONFIG = yaml.safe_load((contract.folders()["galaxy"] / "config.yaml").read_text(encoding="utf-8"))
BOUNDS = {
    "redshift": (0.01, 0.6),
    "log_mass": (8.0, 12.5),
    "log_tau": (-1.0, 1.3),
    "age": (0.3, 8.0),
    "log_metallicity": (-2.3, 0.397),
    "A_V": (0.0, 3.0),
}


def sources():
    """The table and the filters."""
    filters = tables.filters(tuple(CONFIG["bands"].values()))
    return tables.populations(**CONFIG["populations"]), filters


def forward(**options):
    """The forward model, in the precision of the moment."""
    return physics.Forward(*sources(), Cosmology(**CONFIG["cosmology"]), (0.01, 0.6), **options)


def draw(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """Galaxies all over the bounds."""
    return {name: rng.uniform(*ends, n) for name, ends in BOUNDS.items()}


def galaxy(values) -> physics.Galaxy:
    return physics.Galaxy(**{name: jnp.asarray(value) for name, value in values.items()})


def fluxes(model: physics.Forward, galaxies: physics.Galaxy) -> np.ndarray:
    """Of many galaxies, shape (galaxy, band)."""
    return np.asarray(_many(model, "fluxes", galaxies))


def budgets(model: physics.Forward, galaxies: physics.Galaxy) -> physics.Budget:
    """Of many galaxies."""
    return jax.tree.map(np.asarray, _many(model, "budget", galaxies))


@eqx.filter_jit
def _many(model, what, galaxies):
    return jax.vmap(getattr(model, what))(galaxies)
