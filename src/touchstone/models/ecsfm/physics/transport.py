"""Diffusion to an electrode, a plane, sphere or disc, carried by a few decaying exponentials.

The surface concentration is linear in the past of the flux j. With time in units of the duration
of the experiment, and a = sqrt(D)/r (0 for a plane), the kernel of a sphere is the integral

    sqrt(D) K(t) = (2/pi) int u^2/(u^2 + a^2) exp(-u^2 t) du,

(Laplace transform 1/(sqrt(p) + a); Carslaw & Jaeger 1959, 14.2). With u = e^y the trapezoid rule
turns it into positive weights and rates that do not depend on D, so one set of memories serves
both forms of a couple, each advanced by one multiply-add a step and nothing cancels in float32.

To a disc in a plane more diffuses than to a plane, over its edge: at first as to a sphere of its
radius, in the end 4/pi times that. The transform 1/(sqrt(p) + a (1 + b/(1 + c sqrt(p)/a))) with
b = 4/pi - 1 has both limits; c = 0.8 keeps the current after a step of the potential within 0.5 %
of the exact one at all times (Aoki & Osteryoung 1984, the series for short and long times). The
flux is taken as even over the disc, which holds where the surface concentration is.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from numpy.polynomial import Chebyshev, Polynomial
from scipy.special import wofz

# The window of y beyond [log sqrt(1), log sqrt(1/shortest step)] and the spacing inside it: they
# balance the three errors (cut above, collapsed tail below, trapezoid) at a kernel error of 1e-5.
_BELOW, _ABOVE, _SPACING = 2.0, 0.87, 0.37
_TAIL = 40  # nodes below the window, collapsed into the slowest memory
_EDGE, _SOON = 4 / math.pi - 1, 0.8  # b and c of a disc


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

    def kernel_weights(
        self, a: Float[Array, ""], edge: Float[Array, ""]
    ) -> Float[Array, " memory"]:
        """Weight of each memory in sqrt(D) K for a = sqrt(D)/r.

        Args:
            a: Curvature, dimensionless.
            edge: 1 for a disc, 0 for a sphere or a plane.
        """
        nodes = jnp.asarray(self.nodes, a.dtype)
        more = _EDGE * edge * a**2 / (a**2 + _SOON**2 * nodes)
        less = 1 - _SOON * more
        part = nodes * less / (nodes * less**2 + (a * (1 + more)) ** 2)
        each = jnp.asarray(self.weights, a.dtype) * part
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


class Own(NamedTuple):
    """What a step's own, linear flux adds to the concentration, for one geometry.

    Attributes:
        once, twice: Coefficients of the single and the double integral of the kernel.
    """

    once: Float[Array, " coefficient"]
    twice: Float[Array, " coefficient"]

    @classmethod
    def of(cls, edge: Float[Array, ""]) -> "Own":
        """Of a disc (edge 1), or of a sphere or plane (edge 0)."""
        edge = jnp.asarray(edge)
        disc, sphere = (jnp.asarray(each, edge.dtype) for each in (_OF_DISC, _OF_SPHERE))
        return cls(*(sphere + edge * (disc - sphere)))

    def weights(
        self, step: Float[Array, ""], a: Float[Array, "*any"]
    ) -> tuple[Float[Array, "*any"], Float[Array, "*any"]]:
        """Exact weights of the flux at the start and at the end of a step in sqrt(D) times that.

        From the single and double integrals of the kernel over the step, at z = a sqrt(step).

        Args:
            step: Length of the step, in durations.
            a: Curvature sqrt(D)/r, dimensionless.
        """
        root = jnp.sqrt(step)
        z = a * root
        y, scale = (z - _MIDDLE) / (z + _MIDDLE), _MIDDLE / (z + _MIDDLE)
        once, twice = jnp.zeros_like(z), jnp.zeros_like(z)
        for first, second in zip(self.once, self.twice, strict=True):
            once, twice = once * y + first, twice * y + second
        return root * scale * (once - twice), root * scale * twice


def own_weights_of_plane(step: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """As `Own.weights`, of a plane."""
    root = jnp.sqrt(step)
    return root * (2 / 3 / math.sqrt(math.pi)), root * (4 / 3 / math.sqrt(math.pi))


def _disc() -> list[tuple[complex, complex]]:
    """The transform of a disc as a sum of those of spheres, 1/(sqrt(p)/a + root), with a factor."""
    half = (1 + _SOON) / (2 * _SOON)
    root = half + np.sqrt(complex(half**2 - (1 + _EDGE) / _SOON))
    factor = (1 - _SOON * root) / (_SOON * (root.conjugate() - root))
    return [(factor, root), (factor.conjugate(), root.conjugate())]


def _interpolated(degree: int, middle: float, spheres: list[tuple[complex, complex]]) -> np.ndarray:
    """Coefficients in y = (z - middle)/(z + middle) of both integrals times z/middle + 1.

    The integrals of a sphere are (1 - erfcx(z))/z, and (1 - (2/sqrt(pi) - that)/z)/z; both fall as
    1/z, which leaves functions of y that are smooth on [-1, 1]: Chebyshev interpolation holds them
    to 4e-7.
    """

    def both(y):
        value = 0.0
        for factor, root in spheres:
            z = root * middle * (1 + y) / (1 - y)
            once = (1 - wofz(1j * z)) / z  # wofz(iz) is erfcx(z)
            twice = (1 - (2 / math.sqrt(math.pi) - once) / z) / z
            value = value + factor * np.stack([once, twice])
        return value.real * 2 / (1 - y)

    polynomials = (
        Chebyshev.interpolate(lambda y, k=k: both(y)[k], degree).convert(kind=Polynomial)
        for k in range(2)
    )
    return np.stack([polynomial.coef[::-1] for polynomial in polynomials])


_MIDDLE = 3.0
_OF_SPHERE = _interpolated(7, _MIDDLE, [(1.0, 1.0)])
_OF_DISC = _interpolated(7, _MIDDLE, _disc())
