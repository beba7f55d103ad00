"""Butler-Volmer kinetics at a surface whose concentrations are linear in the flux."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from touchstone.models.ecsfm.physics.arrays import Number

FARADAY = 96485.33212  # C/mol, CODATA 2018
GAS_CONSTANT = 8.314462618  # J/(mol K)


class Couples(NamedTuple):
    """Redox couples O + e- = R, one entry each; a couple with no O and no R is absent.

    Attributes:
        d_ox, d_red: Diffusion coefficients, cm^2/s.
        c_ox, c_red: Bulk concentrations, mol/cm^3.
        e0: Formal potentials, V.
        k0: Standard rate constants, cm/s.
        transfer_coefficient: alpha.
    """

    d_ox: Float[Array, " couple"]
    d_red: Float[Array, " couple"]
    c_ox: Float[Array, " couple"]
    c_red: Float[Array, " couple"]
    e0: Float[Array, " couple"]
    k0: Float[Array, " couple"]
    transfer_coefficient: Float[Array, " couple"]


def inverse_thermal_voltage(temperature: Number) -> Number:
    """f = F/RT in 1/V, with the temperature in K."""
    return FARADAY / (GAS_CONSTANT * temperature)


def flux(
    x: Float[Array, "*couple"],
    rate: Float[Array, "*couple"],
    transfer_coefficient: Float[Array, "*couple"],
    ox: tuple[Float[Array, "*couple"], Float[Array, "*couple"]],
    red: tuple[Float[Array, "*couple"], Float[Array, "*couple"]],
) -> tuple[Float[Array, "*couple"], Float[Array, "*couple"]]:
    """Net flux j = k (C_red e^{(1-alpha)x} - C_ox e^{-alpha x}) and its slope dj/dx.

    The surface concentrations C_ox = h_ox + g_ox j and C_red = h_red - g_red j make the rate law
    linear in j. Numerator and denominator are divided by e^{-alpha x}(1 + e^x), which keeps every
    term bounded from the irreversible foot to the diffusion limit.

    Args:
        x: f (E - E0).
        rate: Rate constant k, cm per unit of time.
        transfer_coefficient: alpha.
        ox: (h_ox, g_ox): concentration without this flux, and its response to it.
        red: (h_red, g_red), likewise.

    Returns:
        Flux in mol/cm^2 per unit of time, oxidation positive, and its derivative by x.
    """
    (h_ox, g_ox), (h_red, g_red) = ox, red
    forward = x >= 0
    small = jnp.exp(jnp.where(forward, -x, x))
    share = 1 / (1 + small)
    reduced, oxidised = (share * jnp.where(way, 1.0, small) for way in (forward, ~forward))
    slow = share * jnp.exp(transfer_coefficient * x - jnp.where(forward, x, 0.0))
    drive = rate * (h_red * reduced - h_ox * oxidised)
    drag = slow + rate * (g_red * reduced + g_ox * oxidised)
    j = drive / drag
    bend = reduced * oxidised
    d_drive = rate * (h_red + h_ox) * bend
    d_drag = slow * (transfer_coefficient - reduced) + rate * (g_red - g_ox) * bend
    return j, (d_drive - j * d_drag) / drag
