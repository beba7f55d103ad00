"""What a potential programme does: how often it turns, jumps or repeats, and how fast."""

from typing import NamedTuple

import numpy as np

from touchstone.models.ecsfm.physics.waveforms import find_jumps

_LEAST_MOVE, _LEAST_PART = 2e-3, 0.01  # V, and of the window: a smaller move back is no reversal
_MOST_TURNS, _WHOLE = 7, 0.8  # of a scan, and the part of its window that it runs through first
_LEAST_POINTS = 20  # of a period, where a record has been thinned
_LEEWAY = 1.02  # by which a setting may lie outside: it is read off a record


class Excitation(NamedTuple):
    """What is counted of a record.

    Attributes:
        cycles: There and back, of a potential that runs; else 0.
        scan_rate: Of it, V/s; else 0.
        steps: Jumps of a potential that rests between them; else 0.
        periods: Of one that oscillates; else 0.
        frequency: Of it, Hz; else 0.
    """

    cycles: float = 0.0
    scan_rate: float = 0.0
    steps: int = 0
    periods: float = 0.0
    frequency: float = 0.0


def extremes(potential: np.ndarray) -> list[float]:
    """The first potential, those where it turns round, and the last: V, shape (turns + 2,).

    Moves that are too small to be meant are none.
    """
    least = max(_LEAST_MOVE, _LEAST_PART * np.ptp(potential))
    moving = np.flatnonzero(np.diff(potential)) + 1
    turning = np.diff(np.sign(np.diff(potential))[moving - 1]) != 0
    found, direction = [float(potential[0])] * 2, 0.0
    for value in [*potential[moving[:-1][turning]].tolist(), float(potential[-1])]:
        move = value - found[-1]
        if direction * move > 0 or (not direction and abs(move) > least):
            direction, found[-1] = np.sign(move), value
        elif abs(move) > least:
            direction = -direction
            found.append(value)
    return found


def oscillates(ends: list[float]) -> bool:
    """Whether a potential with these extremes turns more often than a scan, or not through it all.

    A scan runs through its whole window first; a tone starts in the middle of its own, and one on
    a ramp is smaller than the window.
    """
    first, window = abs(ends[1] - ends[0]), max(ends) - min(ends)
    return len(ends) - 2 > _MOST_TURNS and first < _WHOLE * window


def of_potential(potential: np.ndarray, duration: float) -> Excitation:
    """What is counted of a record.

    Args:
        potential: At the ends of equal intervals, V, shape (N,).
        duration: s.
    """
    potential, n = np.asarray(potential, float), len(potential)
    jumps, ends = find_jumps(potential), extremes(potential)
    if oscillates(ends):
        periods = round((len(ends) - 1) / 2)
        return Excitation(periods=periods, frequency=periods / duration)
    scanned = potential[max(jumps, default=0) :]
    moves = np.abs(np.diff(scanned))
    if np.ptp(scanned) <= _LEAST_MOVE or len(jumps) > 1:
        return Excitation(steps=len(jumps))
    moving = np.count_nonzero(moves > 0.1 * moves.max())
    rate = moves.sum() / (moving * duration / n)
    return Excitation(cycles=(len(extremes(scanned)) - 1) / 2, scan_rate=rate)


def outside(excitation: Excitation, config: dict, n_samples: int) -> list[str]:
    """What of it no technique of the training has, in words.

    Args:
        excitation: Of a record.
        config: The model's `config.yaml`.
        n_samples: N.
    """
    techniques = config["techniques"].values()
    pulses = [t for t in techniques if "samples_per_period" in t]
    periods = [p for t in techniques for p in t.get("periods", [])]
    periods += [n_samples // t["samples_per_period"] for t in pulses]
    # A sweep one way is the first half of a cycle.
    cycles = [0.5, *(c for t in techniques for c in t.get("cycles", []))]
    said = [
        *_beyond("number of cycles", excitation.cycles, cycles, ""),
        *_beyond(
            "scan rate", excitation.scan_rate, _range(techniques, "scan_rate", "cycles"), "V/s"
        ),
        *_beyond("number of periods", excitation.periods, periods, ""),
        *_beyond("frequency", excitation.frequency, _range(techniques, "frequency"), "Hz"),
    ]
    if excitation.steps > 1:
        said.append(f"the potential steps {excitation.steps} times, trained with 1")
    return said


def _range(techniques, name: str, beside: str | None = None) -> list[float]:
    """Ends of the ranges of a setting, of those techniques that have another one beside it."""
    ranges = [t[name] for t in techniques if name in t and (beside is None or beside in t)]
    return [float(end) for each in ranges for end in (each["low"], each["high"])]


def _beyond(what: str, value: float, trained: list[float], unit: str) -> list[str]:
    low, high = min(trained), max(trained)
    if not value or low / _LEEWAY <= value <= high * _LEEWAY:
        return []
    return [
        f"the {what} is {value:.3g} {unit}".rstrip() + f", trained from {low:.3g} to {high:.3g}"
    ]


def assert_resolved(potential: np.ndarray, n_samples: int) -> None:
    """See that a record of which samples are kept still shows each of its periods.

    Args:
        potential: At all readings, V.
        n_samples: That are kept, if the readings are more.

    Raises:
        ValueError: If too few of a period would be kept; the message names the count.
    """
    ends = extremes(np.asarray(potential, float))
    periods = (len(ends) - 1) / 2
    if len(potential) <= n_samples or not oscillates(ends):
        return
    if (kept := n_samples / periods) < _LEAST_POINTS:
        raise ValueError(
            f"the potential oscillates {round(periods):,} times in {len(potential):,} "
            f"readings, of which {n_samples} samples are kept: {kept:.3g} a period, and fewer than "
            f"{_LEAST_POINTS} do not show what the current does; cut out a part of at most "
            f"{n_samples // _LEAST_POINTS} periods"
        )
