"""Diffusion to an electrode, planar or spherical, carried by a few decaying exponentials.

The surface concentration is linear in the past of the flux j. With time in units of the duration
of the experiment, and a = sqrt(D)/r (0 for a plane), both kernels are one integral,

    sqrt(D) K(t) = (2/pi) int u^2/(u^2 + a^2) exp(-u^2 t) du,

(Laplace transform 1/(sqrt(p) + a); Carslaw & Jaeger 1959, 14.2). With u = e^y the trapezoid rule
turns it into positive weights and rates that do not depend on D, so one set of memories serves
both forms of a couple, each advanced by one multiply-add a step and nothing cancels in float32.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from numpy.polynomial import Chebyshev, Polynomial
from scipy.special import erfcx

# The window of y beyond [log sqrt(1), log sqrt(1/shortest step)] and the spacing inside it: they
# balance the three errors (cut above, collapsed tail below, trapezoid) at a kernel error of 1e-5.
_BELOW, _ABOVE, _SPACING = 2.0, 0.87, 0.37
_TAIL = 40  # nodes below the window, collapsed into the slowest memory


class Memory(NamedTuple):
    """The exponentials that stand for the diffusion kernel.

    Attributes:
        rates: Decay rates, in 1/duration; the last is the collapsed tail's.
        nodes: Rates of all nodes of the trapezoid.
        weights: Their weights at a = 0.
    """

    rates: Float[np.ndarray, " memory"]
    nodes: Float[np.ndarray, " node"]
    weights: Float[np.ndarray, " node"]

    def kernel_weights(self, a: Float[Array, ""]) -> Float[Array, " memory"]:
        """Weight of each memory in sqrt(D) K for a = sqrt(D)/r.

        Args:
            a: Curvature, dimensionless.
        """
        nodes = jnp.asarray(self.nodes, a.dtype)
        each = jnp.asarray(self.weights, a.dtype) * nodes / (nodes + a**2)
        split = len(self.rates) - 1
        return jnp.append(each[:split], each[split:].sum())


def memory(shortest_step: float) -> Memory:
    """Exponentials that hold the kernel to 1e-5 between the shortest step and the duration.

    The nodes below the window decay so slowly that their sum is one exponential: its weight and
    rate keep the sum's value and first moment, which is ten times closer than a constant.

    Args:
        shortest_step: Shortest time step, in durations.
    """
    top = 0.5 * math.log(1.0 / shortest_step) + _ABOVE
    n = math.ceil((top + _BELOW) / _SPACING) + 1
    y = top - _SPACING * np.arange(n + _TAIL)
    nodes = np.exp(2 * y)
    weights = 2 / np.pi * _SPACING * np.exp(y)
    slow = np.average(nodes[n:], weights=weights[n:])
    return Memory(np.append(nodes[:n], slow), nodes, weights)


def hat_integrals(
    rates: Float[Array, " memory"], step: Float[Array, ""]
) -> tuple[Float[Array, " memory"], Float[Array, " memory"], Float[Array, " memory"]]:
    """Decay of each memory over a step, and what a flux linear over the step adds to it.

    Args:
        rates: Decay rates, in 1/duration.
        step: Length of the step, in durations.

    Returns:
        Decay factors, weights of the flux at the start, weights of the flux at the end.
    """
    x = rates * step
    decay = jnp.exp(-x)
    phi1, phi2 = _phi(x, decay)
    return decay, step * (phi1 - phi2), step * phi2


def phi_functions(x: Float[Array, "*any"]) -> tuple[Float[Array, "*any"], Float[Array, "*any"]]:
    """(1 - e^-x)/x and (x - 1 + e^-x)/x^2 without cancellation at small x >= 0."""
    return _phi(x, jnp.exp(-x))


def _phi(x, decay):
    small = x < 0.3
    safe = jnp.where(small, 1.0, x)
    n_terms = 7 if x.dtype == jnp.float32 else 11
    series = jnp.zeros_like(x)
    for n in range(n_terms - 1, -1, -1):
        series = 1 / math.factorial(n + 2) - x * series
    phi2 = jnp.where(small, series, (safe - 1 + decay) / safe**2)
    return jnp.where(small, 1 - x * series, (1 - decay) / safe), phi2


def own_weights(
    step: Float[Array, ""], a: Float[Array, "*any"] | None
) -> tuple[Float[Array, "*any"], Float[Array, "*any"]]:
    """Exact contribution of a step's own, linear flux to sqrt(D) times the concentration change.

    From the single and double integrals of the kernel, inverse transforms of
    1/(p (sqrt(p) + a)) and 1/(p^2 (sqrt(p) + a)).

    Args:
        step: Length of the step, in durations.
        a: Curvature sqrt(D)/r, dimensionless; None for a plane.

    Returns:
        Weights of the flux at the start and at the end of the step.
    """
    root = jnp.sqrt(step)
    if a is None:
        return root * (2 / 3 / math.sqrt(math.pi)), root * (4 / 3 / math.sqrt(math.pi))
    once, twice = _kernel_integrals(a * root)
    return root * (once - twice), root * twice


def _kernel_integrals(
    z: Float[Array, "*any"],
) -> tuple[Float[Array, "*any"], Float[Array, "*any"]]:
    """Single and double integral of the spherical kernel over a step, at z = a sqrt(step) >= 0."""
    y, scale = (z - _MIDDLE) / (z + _MIDDLE), _MIDDLE / (z + _MIDDLE)
    once, twice = (jnp.zeros_like(z) for _ in _INTEGRALS)
    for first, second in zip(*_INTEGRALS, strict=True):
        once, twice = once * y + first, twice * y + second
    return scale * once, scale * twice


def _interpolated(degree: int, middle: float) -> tuple[list[float], list[float]]:
    """Coefficients in y = (z - middle)/(z + middle) of both integrals times z/middle + 1.

    The integrals are (1 - erfcx(z))/z, and (1 - (2/sqrt(pi) - that)/z)/z; both fall as 1/z, which
    leaves functions of y that are smooth on [-1, 1]: Chebyshev interpolation holds them to 4e-7.
    """

    def both(y):
        z = middle * (1 + y) / (1 - y)
        once = (1 - erfcx(z)) / z
        twice = (1 - (2 / math.sqrt(math.pi) - once) / z) / z
        return np.stack([once, twice]) * 2 / (1 - y)

    polynomials = (
        Chebyshev.interpolate(lambda y, k=k: both(y)[k], degree).convert(kind=Polynomial)
        for k in range(2)
    )
    return tuple(polynomial.coef[::-1].tolist() for polynomial in polynomials)


_MIDDLE = 3.0
_INTEGRALS = _interpolated(7, _MIDDLE)
