"""Coordinates of the couples in which posteriors are straight, where proposals are made.

E0 and k0 are as in their uniform priors: what a record leaves open reaches from one bound to the
other there, and piles up at both in standard coordinates. And k0 is counted at the potential where
the current flows: an irreversible couple shows its rate there, k0 exp(-alpha f (E - E0)) of a
reduction, and little of k0, E0 and alpha apart. A film that was there at the start lowers all
rates, and the record shows what is left of them: so they are counted under it.

Importance sampling proposes in `warp`, where bounds are walls; NUTS, which goes by the gradient,
moves in `opened`, where there are none.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import ndtri
from jax.scipy.stats import norm

from touchstone.models.ecsfm.physics.arrays import AnyArray
from touchstone.models.ecsfm.physics.experiment import Experiment
from touchstone.models.ecsfm.physics.kinetics import inverse_thermal_voltage
from touchstone.models.ecsfm.physics.prior import Prior

_HALF = 3**0.5  # of the width of a uniform prior of unit variance
_SOFT = 0.25  # width of the soft edges that the bounds of k0 become on the whole line
_EDGE = 1e-6  # of a uniform prior, left out at either end


class Straight(eqx.Module):
    """The coordinates for a record.

    Attributes:
        prior: Of the model.
        experiment: Of the record.
        reduction: Whether a couple is reduced where its current flows, shape (S,).
        potential: Where that is, V, shape (S,).
    """

    prior: Prior = eqx.field(static=True)
    experiment: Experiment
    reduction: Array
    potential: Array

    @classmethod
    def of(
        cls, prior: Prior, experiment: Experiment, observed: AnyArray, mask: AnyArray
    ) -> "Straight":
        """For a record, A, shape (N,), of which the mask tells what was observed, shape (N,)."""
        seen = np.where(mask, observed, 0.0)
        ox, red = experiment.present[:, 0], experiment.present[:, 1]
        reduction = np.where(ox & red, seen.sum() < 0, ox)

        def where_it_flows(flow):
            return (flow * experiment.potential).sum() / np.maximum(flow.sum(), 1e-30)

        cathodic, anodic = (where_it_flows(np.maximum(way * seen, 0.0)) for way in (-1, 1))
        potential = np.where(reduction, cathodic, anodic).astype(observed.dtype)
        return cls(prior, experiment, reduction, potential)

    def warp(self, z: Array) -> Array:
        """Of standard coordinates, shape (P,)."""
        natural = self.prior.natural(z, self.experiment)
        straight = (natural - self._centre) / self._unit
        straight = straight.at[self.prior.block("k0")].add(self._shift(natural))
        return jnp.where(self._moved, straight, z)

    def unwarp(self, x: Array) -> Array:
        """Standard coordinates, shape (P,); what is beyond a bound is put near it."""
        z = self.prior.standard(self._natural(x), self.experiment)
        return jnp.where(self._moved, z, x)

    def opened(self, z: Array) -> Array:
        """Standard coordinates z, shape (P,), with k0 as in `warp` but on the whole line."""
        k0 = self.prior.block("k0")
        return z.at[k0].set(_open(z[k0]) + self._shift(self.prior.natural(z, self.experiment)))

    def closed(self, v: Array) -> Array:
        """Standard coordinates, of what `opened` returned."""
        k0 = self.prior.block("k0")
        return v.at[k0].set(_close(v[k0] - self._shift(self.prior.natural(v, self.experiment))))

    def log_prior(self, x: Array, free: Array) -> Array:
        """Log density of the prior over the entries of x that are free, shape (P,) each."""
        natural, e0 = self._natural(x), self.prior.block("E0")

        def quantiles(e0s):
            return self.prior.quantile(natural.at[e0].set(e0s), self.experiment)

        quantile = quantiles(natural[e0])
        # Of the potentials, each above that before it; k0 is uniform.
        slope = jnp.diagonal(jax.jacfwd(quantiles)(natural[e0])[e0]) * self._unit[e0]
        slope = jnp.full_like(x, 1 / (2 * _HALF)).at[e0].set(slope)
        inside = (quantile > _EDGE) & (quantile < 1 - _EDGE)
        uniform = jnp.where(inside, jnp.log(slope), -jnp.inf)
        return jnp.where(free, jnp.where(self._moved, uniform, norm.logpdf(x)), 0.0).sum()

    def _natural(self, x: Array) -> Array:
        """Natural coordinates; those of E0 and k0 may be beyond their bounds."""
        natural = jnp.where(
            self._moved, self._centre + self._unit * x, self.prior.natural(x, self.experiment)
        )
        k0 = self.prior.block("k0")
        return natural.at[k0].add(-self._unit[k0] * self._shift(natural))

    def _shift(self, natural: Array) -> Array:
        """Logarithm of the rate where the current flows less that of k0, in units of its sd."""
        beyond = self.potential - natural[self.prior.block("E0")]
        alpha = natural[self.prior.block("alpha")]
        power = jnp.where(self.reduction, -alpha, 1 - alpha)
        f = inverse_thermal_voltage(self.experiment.temperature)
        _, sd = self.prior.moments(self.experiment)
        left = self.prior.log_rate_factor(natural)
        return (power * f * beyond + left) / sd[self.prior.block("k0")]

    @property
    def _moved(self) -> np.ndarray:
        return np.isin(self.prior.blocks, ("E0", "k0"))

    @property
    def _centre(self) -> Array:
        mean, _ = self.prior.moments(self.experiment)
        return mean.at[self.prior.block("E0")].set(self.experiment.window[0])

    @property
    def _unit(self) -> Array:
        """Of a uniform prior over the same range, its standard deviation."""
        _, sd = self.prior.moments(self.experiment)
        return sd.at[self.prior.block("E0")].set(self.experiment.window[1] / _HALF)


def _open(z: Array) -> Array:
    """The whole line for a standard coordinate of k0: linear in its quantile between the bounds.

    A uniform density becomes one whose ends fall off as those of a logistic density do.
    """
    length = 2 * _HALF / _SOFT

    def lower(z):
        part = length * norm.cdf(z)
        return jnp.log(jnp.expm1(part)) - length / 2 - jnp.log(-jnp.expm1(part - length))

    return -_SOFT * jnp.sign(z) * lower(-jnp.abs(z))  # the lower half keeps its digits


def _close(w: Array) -> Array:
    """Of what `_open` returned."""

    def lower(w):
        rise = jax.nn.softplus((w + _HALF) / _SOFT) - jax.nn.softplus((w - _HALF) / _SOFT)
        return ndtri(_SOFT / (2 * _HALF) * rise)

    return jnp.where(w < 0, 1.0, -1.0) * lower(-jnp.abs(w))
