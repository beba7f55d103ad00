"""What of an observation keeps anyone from judging it: such a case is never accepted.

An observation without a sample says nothing, a sample that is not a number is no measurement, and
one at the limit of its instrument says only that the quantity lies beyond it.
"""

import numpy as np
from jaxtyping import Bool, Float

from touchstone.vocabulary import Cases

_RUN = 3  # equal extreme samples one after another, where no other values are equal
# Where others are, the resolution is coarse: then more, and so many times the longest run of those.
_COARSE_RUN, _TIMES = 5, 4
_EQUAL = 1e-6  # part of the range within which samples are equal: averages of equal readings differ


def obstacles(cases: Cases) -> list[list[str]]:
    """What keeps each case from being judged, in words; nothing of most."""
    return [
        _obstacles(np.asarray(observed, float), np.asarray(mask, bool))
        for observed, mask in zip(cases.observed, cases.mask, strict=True)
    ]


def _obstacles(observed: Float[np.ndarray, " sample"], mask: Bool[np.ndarray, " sample"]):
    samples = observed[mask]
    if not np.isfinite(samples).any():
        return ["no sample was observed"]
    broken = np.flatnonzero(~np.isfinite(samples))
    found = [f"{len(broken)} of {len(samples)} samples are not numbers"] if len(broken) else []
    samples = samples[np.isfinite(samples)]
    for side, name in ((1.0, "largest"), (-1.0, "smallest")):
        length = saturated(side * samples)
        if length:
            found.append(
                f"{length} samples one after another have the {name} value of the record, "
                f"{side * (side * samples).max():.3g}, as at the limit of an instrument"
            )
    return found


def saturated(samples: Float[np.ndarray, " sample"]) -> int:
    """Number of samples of the longest run at the largest value, where that looks like a limit.

    A limit shows as equal extreme values in a row. Where values elsewhere are equal, too, the
    resolution is coarse, and the run has to be much longer than those elsewhere. A constant record
    reaches no limit.

    Args:
        samples: Those observed, in their order.

    Returns:
        The number; 0 where the record does not look saturated.
    """
    top, range_ = samples.max(), np.ptp(samples)
    at_limit = samples >= top - _EQUAL * range_
    longest = _longest(at_limit)
    if range_ == 0 or longest < _RUN:
        return 0
    inside = ~at_limit & (samples > samples.min() + _EQUAL * range_)  # both ends may be cut off
    elsewhere, needed = samples[inside], _RUN
    if (np.diff(np.sort(elsewhere)) <= _EQUAL * range_).any():
        repeated = np.abs(np.diff(elsewhere)) <= _EQUAL * range_
        needed = max(_COARSE_RUN, _TIMES * (1 + _longest(repeated)))
    return longest if longest >= needed else 0


def _longest(true: Bool[np.ndarray, " sample"]) -> int:
    """Length of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], true.astype(int), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))
