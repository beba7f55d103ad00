"""Which samples of a record are observed."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Key

from touchstone.models.ecsfm.physics.arrays import Number

# How often each kind of mask is drawn in training.
MASKS = {"dense": 0.2, "random": 0.45, "gap": 0.15, "transitions": 0.2}
_LEAST_OBSERVED = 0.2  # part of the samples that a random mask of the training keeps at least
_TRANSITION_FLOOR = 0.1  # chance to keep a sample on a plateau, of that at the steepest


def draw_mask(key: Array, current: Array, shares: dict[str, float] = MASKS) -> Array:
    """A mask, shape (N,): everything, a random part, all but a gap, or transitions.

    Args:
        key: For all randomness.
        current: Noise-free current, shape (N,).
        shares: Probability of each kind, by its name in `MASKS`.
    """
    kind_key, part_key, point_key = jax.random.split(key, 3)
    n_samples = current.shape[0]
    part = jax.random.uniform(part_key, minval=_LEAST_OBSERVED)
    options = [
        jnp.ones(n_samples, bool),
        random_mask(point_key, n_samples, part),
        gap_mask(point_key, n_samples),
        transition_mask(point_key, current, part),
    ]
    probability = jnp.array([shares.get(name, 0.0) for name in MASKS])
    kind = jax.random.choice(kind_key, len(MASKS), p=probability)
    return jnp.stack(options)[kind]


def random_mask(key: Key[Array, ""], n_samples: int, keep: Number) -> Bool[Array, " {n_samples}"]:
    """Samples observed when each is kept with the same probability."""
    return jax.random.bernoulli(key, keep, (n_samples,))


def gap_mask(key: Key[Array, ""], n_samples: int) -> Bool[Array, " {n_samples}"]:
    """All samples but one gap of half the record, which may lie partly outside it."""
    start = jax.random.randint(key, (), -n_samples // 2, n_samples)
    index = jnp.arange(n_samples)
    return (index < start) | (index >= start + n_samples // 2)


def transition_mask(
    key: Key[Array, ""], current: Float[Array, " sample"], keep: Number
) -> Bool[Array, " sample"]:
    """Samples kept with a chance that grows with how fast the current changes there.

    Args:
        key: For the chance.
        current: Noise-free current.
        keep: Part of the samples that is kept, on average.
    """
    change = jnp.abs(jnp.asarray(jnp.gradient(current)))
    chance = _TRANSITION_FLOOR + change / jnp.maximum(change.max(), 1e-30)
    return jax.random.bernoulli(key, jnp.minimum(1.0, keep * chance / chance.mean()))
