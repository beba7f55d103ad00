"""Biofouling: a coverage that grows on the electrode and what it does to the measurement."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from touchstone.models.ecsfm.physics.arrays import Number
from touchstone.models.ecsfm.physics.kinetics import FARADAY


class Fouling(NamedTuple):
    """Coverage dynamics and their effects; defaults are the reference values.

    The four that a severity scales come first: at zero nothing fouls.

    Attributes:
        initial_coverage: theta(0).
        k_ads: Adsorption rate by the fouling couple at the surface, cm^3/(mol s).
        k_reaction: Growth by the charge passed, cm^2/C.
        site_density: Gamma, mol/cm^2.
        k_des: Desorption, 1/s.
        k_clean: Cleaning while the potential is at or above `clean_above`, 1/s.
        clean_above: V.
        area_floor: Area fraction left at full coverage.
        area_power: Exponent of the bare fraction in the area.
        kinetics_decay: c in k0(theta) = k0 exp(-c theta).
        film_base: Film resistance times area of the bare electrode, ohm cm^2.
        film_max: Film resistance times area at full coverage, ohm cm^2.
        film_power: Exponent of the coverage in the film resistance.
        capacitance_loss: Loss of double layer at full coverage.
        capacitance_floor: Least fraction of the double layer.
        electrons: Electrons per adsorbed molecule.
    """

    initial_coverage: Number = 0.0
    k_ads: Number = 4200.0
    k_reaction: Number = 0.004
    site_density: Number = 2e-9
    k_des: Number = 8e-5
    k_clean: Number = 0.02
    clean_above: Number = 0.75
    area_floor: Number = 0.09
    area_power: Number = 1.0
    kinetics_decay: Number = 2.8
    film_base: Number = 0.0
    film_max: Number = 18.0
    film_power: Number = 1.2
    capacitance_loss: Number = 0.82
    capacitance_floor: Number = 0.25
    electrons: Number = 1.0

    def at_severity(self, severity: Number) -> "Fouling":
        """The same fouling, its four driving terms scaled by a severity in [0, 1]."""
        return self._replace(
            initial_coverage=severity * self.initial_coverage,
            k_ads=severity * self.k_ads,
            k_reaction=severity * self.k_reaction,
            site_density=severity * self.site_density,
        )

    def growth(
        self, concentration: Float[Array, ""], faradaic: Float[Array, ""]
    ) -> Float[Array, ""]:
        """Rate at which bare sites are covered, 1/s.

        Args:
            concentration: Surface concentration of both forms of the fouling couple, mol/cm^3.
            faradaic: Faradaic current density, A/cm^2.
        """
        return self.k_ads * jnp.maximum(concentration, 0.0) + self.k_reaction * jnp.abs(faradaic)

    def loss(self, potential: Float[Array, ""]) -> Float[Array, ""]:
        """Rate at which covered sites are freed, 1/s, at an applied potential in V."""
        return self.k_des + jnp.where(potential >= self.clean_above, self.k_clean, 0.0)

    def area_fraction(self, coverage: Float[Array, ""]) -> Float[Array, ""]:
        """a(theta), the part of the geometric area that reacts."""
        bare = _power(1 - coverage, self.area_power)
        return self.area_floor + (1 - self.area_floor) * bare

    def rate_factor(self, coverage: Float[Array, ""]) -> Float[Array, ""]:
        """a(theta) k0(theta)/k0, by which every rate constant is multiplied."""
        return self.area_fraction(coverage) * jnp.exp(-self.kinetics_decay * coverage)

    def film_resistance(self, coverage: Float[Array, ""]) -> Float[Array, ""]:
        """Film resistance times area, ohm cm^2."""
        return self.film_base + self.film_max * _power(coverage, self.film_power)

    def capacitance_factor(self, coverage: Float[Array, ""]) -> Float[Array, ""]:
        """c_dl(theta)/c_dl."""
        left = (1 - self.capacitance_loss * coverage) * self.area_fraction(coverage)
        return jnp.maximum(left, self.capacitance_floor)

    def adsorption_current(self, coverage_rate: Float[Array, ""]) -> Float[Array, ""]:
        """Current density of the adsorption itself, A/cm^2, from dtheta/dt in 1/s."""
        return self.electrons * FARADAY * self.site_density * coverage_rate


def advance_coverage(
    coverage: Float[Array, ""],
    growth: Float[Array, ""],
    loss: Float[Array, ""],
    step: Float[Array, ""],
) -> Float[Array, ""]:
    """Exact solution of dtheta/dt = growth (1 - theta) - loss theta over a step."""
    total = growth + loss
    settled = growth / jnp.where(total > 0, total, 1.0)
    return settled + (coverage - settled) * jnp.exp(-total * step)


def _power(base: Float[Array, ""], exponent: Number) -> Float[Array, ""]:
    """base^exponent for base in [0, 1], with a finite slope at 0."""
    safe = jnp.where(base > 0, base, 1.0)
    return jnp.where(base > 0, safe**exponent, 0.0)
