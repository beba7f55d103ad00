"""One seed, from which every random number of every stage descends."""

import jax
import numpy as np

_STAGES = ("simulate", "train", "stress", "guardrail", "infer")


def generator(seed: int, stage: str, index: int = 0) -> np.random.Generator:
    """NumPy generator of a stage, distinct for each stage and index (chunk, say)."""
    return np.random.default_rng(
        np.random.SeedSequence(seed, spawn_key=(_STAGES.index(stage), index))
    )


def key(seed: int, stage: str, index: int = 0) -> jax.Array:
    """JAX key of a stage, distinct for each stage and index."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _STAGES.index(stage)), index)
