"""What is recorded of a noise-free current: baseline, correlated discrepancy, white noise; gaps."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Key

from touchstone.models.ecsfm.physics.arrays import AnyArray, Number

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Observation(NamedTuple):
    """A Gaussian record: a current, an unknown baseline, a smooth discrepancy, and white noise.

    The discrepancy is a Gaussian process of the Matérn class, smoothness 3/2. It wanders as an
    Ornstein-Uhlenbeck process does, but without that one's jitter from sample to sample, of which
    measured voltammograms show nothing; O(N) all the same.

    Attributes:
        mean: Current without the unknown baseline, A.
        shapes: Of offset and slope along the record.
        sizes: Of these at one standard deviation of their priors, A.
        white: Standard deviation of the white noise, A.
        discrepancy: Standard deviation of the discrepancy, A.
        correlation: Correlation time of the discrepancy, in durations of the record.
    """

    mean: Float[Array, " sample"]
    shapes: Float[Array, "2 sample"]
    sizes: Float[Array, "2"]
    white: Float[Array, ""]
    discrepancy: Float[Array, ""]
    correlation: Float[Array, ""]

    @property
    def sd(self) -> Float[Array, ""]:
        """Standard deviation of a sample about the mean, A, once the baseline is known."""
        return jnp.sqrt(self.white**2 + self.discrepancy**2)

    def with_baseline(self, z: Float[AnyArray, "2"]) -> "Observation":
        """The same with a known baseline: standard coordinates of offset and slope."""
        mean = self.mean + (z * self.sizes) @ self.shapes
        return self._replace(mean=mean, sizes=jnp.zeros_like(self.sizes))

    def draw(self, key: Key[Array, ""]) -> Float[Array, " sample"]:
        """A record with the baseline that is known, A."""
        slow_key, white_key = jax.random.split(key)
        n_samples = self.mean.shape[0]
        step, (q11, q12, q22) = _matern(n_samples, self.correlation)
        fresh = jax.random.normal(slow_key, (n_samples, 2))
        l11 = jnp.sqrt(q11)
        l21 = q12 / l11
        l22 = jnp.sqrt(jnp.maximum(q22 - l21**2, 0.0))

        def advance(state, drawn):
            value, slope = step(*state)
            state = value + l11 * drawn[0], slope + l21 * drawn[0] + l22 * drawn[1]
            return state, state[0]

        _, later = jax.lax.scan(advance, (fresh[0, 0], fresh[0, 1]), fresh[1:])
        slow = self.discrepancy * jnp.concatenate([fresh[:1, 0], later])
        return self.mean + slow + self.white * jax.random.normal(white_key, (n_samples,))

    def filter(
        self,
        observed: Float[AnyArray, " sample"],
        mask: Bool[AnyArray, " sample"],
        baseline: Float[AnyArray, "2"] | tuple[Number, Number] = (0.0, 0.0),
        known: Bool[AnyArray, "2"] | tuple[bool, bool] = (False, False),
    ) -> "Filtered":
        """What each sample adds to those before it, and what all say of the baseline.

        A Kalman filter over the discrepancy and its slope (Hartikainen & Särkkä 2010) whitens the
        record and the baseline alike; recursive least squares takes the latter out.

        Args:
            observed: Record, A.
            mask: Samples that were observed.
            baseline: Standard coordinates of offset and slope; where not known, of no effect.
            known: Whether each is.
        """
        step, (q11, q12, q22) = _matern(mask.shape[0], self.correlation)
        stationary = (self.discrepancy / self.white) ** 2  # in units of the white noise

        def advance(state, inputs):
            tracks, (p11, p12, p22), mean, (v11, v12, v22) = state
            *samples, seen = inputs
            spread = 1 + p11
            share = 1 / spread
            gain, left = jnp.where(seen, share, 0.0), jnp.where(seen, share, 1.0)
            innovations = [
                sample - value for sample, (value, _) in zip(samples, tracks, strict=True)
            ]
            tracks = tuple(
                step(value + p11 * gain * innovation, slope + p12 * gain * innovation)
                for innovation, (value, slope) in zip(innovations, tracks, strict=True)
            )
            # After the sample; p11 / spread, not p11 - p11^2 / spread, which cancels.
            p11, p12, p22 = p11 * left, p12 * left, p22 - p12**2 * gain
            # A P A': the columns of P, then the rows of that.
            (a, c), (b, d) = step(p11, p12), step(p12, p22)
            (p11, p12), (_, p22) = step(a, b), step(c, d)
            p11, p12, p22 = (p + stationary * q for p, q in ((p11, q11), (p12, q12), (p22, q22)))
            # Of the innovation, its variance, and that of the baseline in it.
            residual, *design = innovations
            design = [size * each for size, each in zip(sizes, design, strict=True)]
            toward = v11 * design[0] + v12 * design[1], v12 * design[0] + v22 * design[1]
            variance = spread + design[0] * toward[0] + design[1] * toward[1]
            residual = residual - design[0] * mean[0] - design[1] * mean[1]
            gain = jnp.where(seen, 1 / variance, 0.0)
            mean = tuple(m + gain * residual * t for m, t in zip(mean, toward, strict=True))
            pairs = (toward[0] ** 2, toward[0] * toward[1], toward[1] ** 2)
            v = tuple(old - gain * pair for old, pair in zip((v11, v12, v22), pairs, strict=True))
            return (tracks, (p11, p12, p22), mean, v), (residual, variance)

        zero, one = jnp.zeros_like(stationary), jnp.ones_like(stationary)
        tracks = ((zero, zero),) * 3  # of the record, and of offset and slope
        before = tuple(jnp.where(k, b, zero) for k, b in zip(known, baseline, strict=True))
        v11, v22 = (jnp.where(k, zero, one) for k in known)
        start = (tracks, (stationary, zero, stationary), before, (v11, zero, v22))
        # The shapes are the same for all draws of a batch; their sizes come in where they are used.
        sizes = self.sizes / self.white
        samples = ((observed - self.mean) / self.white, *self.shapes)
        (*_, mean, (v11, v12, v22)), (residual, variance) = jax.lax.scan(
            advance, start, (*samples, mask)
        )
        log_scale = jnp.log(self.white) + 0.5 * jnp.log(variance) + HALF_LOG_2PI
        return Filtered(
            jnp.where(mask, residual / jnp.sqrt(variance), 0.0),
            jnp.where(mask, log_scale, 0.0),
            jnp.stack(mean),
            jnp.array([[v11, v12], [v12, v22]]),
        )


class Filtered(NamedTuple):
    """A record, sample by sample; minus the sum of `0.5 * residual**2 + log_scale` is its log
    likelihood, the baseline marginalised.

    Attributes:
        residual: Innovations in units of their scales, standard normal under the model;
            zero where not observed.
        log_scale: Logarithms of the scales (in A, with the constant of the normal density);
            zero where not observed.
        baseline: Mean of the standard coordinates of offset and slope given the record.
        covariance: Of the same.
    """

    residual: Float[Array, " sample"]
    log_scale: Float[Array, " sample"]
    baseline: Float[Array, "2"]
    covariance: Float[Array, "2 2"]


def _matern(n_samples: int, correlation: Float[Array, ""]):
    """A Matérn process of unit variance from one sample to the next.

    With the slope counted in sqrt(3) / correlation, its stationary covariance is the identity.

    Returns:
        What becomes of (value, slope) without fresh noise, and the covariance of that noise.
    """
    x = math.sqrt(3) / (n_samples * correlation)
    fade = jnp.exp(-x)

    def step(value, slope):
        return fade * ((1 + x) * value + x * slope), fade * ((1 - x) * slope - x * value)

    y = 2 * x
    q11 = _without_first_terms(y)
    q12 = jnp.exp(-y) * y**2 / 2
    q22 = q11 + 2 * y * jnp.exp(-y)
    return step, (q11, q12, q22)


def _without_first_terms(y: Array) -> Array:
    """1 - e^-y (1 + y + y^2/2), without cancellation at small y >= 0.

    It is the incomplete gamma function P(3, y), whose general form takes the compiler seconds.
    """
    small = y < 2
    safe = jnp.where(small, y, 0.0)
    series = jnp.zeros_like(y)
    for n in range(22, 2, -1):
        series = 1 / math.factorial(n) + safe * series
    fade = jnp.exp(-y)
    return jnp.where(small, fade * safe**3 * series, 1 - fade * (1 + y + y**2 / 2))
