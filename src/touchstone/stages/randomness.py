"""One seed, from which every random number of every stage descends."""

import numpy as np

_STAGES = ("simulate", "train", "stress", "guardrail", "infer", "release", "predict")


def generator(seed: int, stage: str, *index: int) -> np.random.Generator:
    """Generator of a stage, distinct for each stage and index (chunk, purpose, variant)."""
    return np.random.default_rng(
        np.random.SeedSequence(seed, spawn_key=(_STAGES.index(stage), *index))
    )
