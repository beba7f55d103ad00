"""Whether the arrays of a chunk can be data: shapes, and numbers that an experiment can have."""

import numpy as np

from touchstone.models.ecsfm.physics.experiment import SHAPES

NUMBERS = (
    "i",
    "e",
    "p",
    "task_id",
    "stage_id",
    "aug_id",
)  # keys that hold numbers if they are there
_PER_CASE = ("task_id", "stage_id", "aug_id", "shape")
_HIGHEST = 20.0  # V
_LARGEST = 1e30  # mA; currents are kept in float32
# Bounds of the settings, and their units. Wide: what is outside of them is in another unit.
SETTINGS = {
    "duration": (1e-9, 1e9, "s"),
    "radius": (1e-7, 100.0, "cm"),
    "temperature": (200.0, 500.0, "K"),
    "resistance": (1e-6, 1e12, "ohm"),
    "capacitance": (1e-6, 1e9, "uF/cm^2"),
    "noise_std": (0.0, _LARGEST, "mA"),
}
# The same of the blocks of `p`, for couples that are in the cell.
_BLOCKS = (
    ("ln D_ox", -30.0, 0.0, "ln(cm^2/s)", -11.5),
    ("ln D_red", -30.0, 0.0, "ln(cm^2/s)", -11.5),
    ("C_ox", 0.0, 1e5, "mM", 1.0),
    ("C_red", 0.0, 1e5, "mM", 0.0),
    ("E0", -_HIGHEST, _HIGHEST, "V", 0.2),
    ("ln k0", -100.0, 30.0, "ln(cm/s)", -4.6),
)


def check_shapes(raw: dict[str, np.ndarray]) -> None:
    """Hold shapes and types of the arrays of a chunk against each other.

    Args:
        raw: Arrays by key; those of a chunk by others may be few.

    Raises:
        ValueError: If one is not what it should be; the message names its key.
    """
    if raw["i"].ndim != 2 or raw["e"].shape != raw["i"].shape or raw["i"].size == 0:
        raise ValueError(
            f"i {raw['i'].shape} and e {raw['e'].shape} must be one shape (cases, samples)"
        )
    n = len(raw["i"])
    if raw["p"].ndim != 2 or raw["p"].shape[1] % 7 or len(raw["p"]) != n or raw["p"].size == 0:
        raise ValueError(f"p has shape {raw['p'].shape}, expected ({n}, 7 x species)")
    for key in (*NUMBERS, *SETTINGS):
        if key in raw and raw[key].dtype.kind not in "fiu":
            raise ValueError(f"{key} holds {raw[key].dtype}, expected numbers")
        if key in raw and not np.isfinite(raw[key]).all():
            raise ValueError(f"{key} holds values that are not finite")
    for key in (*_PER_CASE, *SETTINGS):
        if key in raw and raw[key].shape != (n,):
            raise ValueError(f"{key} has shape {raw[key].shape}, expected ({n},)")
    for key, names in (("task_id", "task_names"), ("stage_id", "stage_names")):
        if not np.isin(raw[key], np.arange(raw[names].size)).all():
            raise ValueError(f"{key} must be indices into {names}")
    if not np.isin(raw.get("shape", 0), np.arange(len(SHAPES))).all():
        raise ValueError(f"shape must be indices into {', '.join(SHAPES)}, from 0")


def check_contents(raw: dict[str, np.ndarray]) -> None:
    """Refuse numbers that no experiment has: another unit, another order, or no simulation.

    Args:
        raw: Arrays by key, of the right shapes.

    Raises:
        ValueError: If there is one; the message names its key and case (counted from 0).
    """
    silent = ~raw["i"].any(axis=1)
    if silent.any():
        case = int(np.argmax(silent))
        raise ValueError(f"i is zero at every sample of case {case}, expected a current in mA")
    for key, limit, unit in (("i", _LARGEST, "mA"), ("e", _HIGHEST, "V; are they in mV?")):
        beyond = np.abs(raw[key]).max(axis=1) > limit
        if beyond.any():
            case = int(np.argmax(beyond))
            worst = np.abs(raw[key][case]).max()
            raise ValueError(f"{key} reaches {worst:g} in case {case}, expected ±{limit:g} {unit}")
    for key, (low, high, unit) in SETTINGS.items():
        if key in raw:
            outside = (raw[key] < low) | (raw[key] > high)
            _refuse(outside, raw[key], key, f"{low:g} to {high:g} {unit}")
    _check_parameters(raw["p"].reshape(len(raw["p"]), 7, -1))


def _check_parameters(blocks: np.ndarray) -> None:
    """Check the blocks of `p`, shape (n, 7, species)."""
    negative = (blocks[:, 2:4] < 0).any(axis=(1, 2))
    _refuse(negative, blocks[:, 2:4].min(axis=(1, 2)), "p: a concentration", "0 or more mM")
    present = (blocks[:, 2:4] > 0).any(axis=1)
    for k, (name, low, high, unit, example) in enumerate(_BLOCKS):
        outside = present & ((blocks[:, k] < low) | (blocks[:, k] > high))
        expected = f"{low:g} to {high:g} {unit}, e.g. {example:g}"
        _refuse(outside.any(axis=1), _first(blocks[:, k], outside), f"p: {name}", expected)
    alpha = blocks[:, 6]
    outside = present & ((alpha <= 0) | (alpha >= 1))
    _refuse(outside.any(axis=1), _first(alpha, outside), "p: alpha", "between 0 and 1, e.g. 0.5")


def _first(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Of each row the first value that is marked (or any), shape (n,)."""
    return np.take_along_axis(values, np.argmax(where, axis=1)[:, None], axis=1)[:, 0]


def _refuse(wrong: np.ndarray, values: np.ndarray, key: str, expected: str) -> None:
    if wrong.any():
        case = int(np.argmax(wrong))
        raise ValueError(f"{key} is {values[case]:g} in case {case}, expected {expected}")
