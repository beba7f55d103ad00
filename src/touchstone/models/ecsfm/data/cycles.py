"""Cycles of a voltammogram: where its potential has come back to its start."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from touchstone.models.ecsfm.physics.waveforms import find_jumps

_TURN = 0.1  # part of the window by which the potential must come back to have turned
_STRAIGHT = 0.05  # part of a sweep by which it may leave the line between its turns
_FEWEST = 8  # samples of a sweep
_EXACT = 1e-6  # part of the window by which numbers are rounded
_CLOSING = 0.02  # part of the longest cycle that is none of its own
_COMPLETE = 0.9  # part of the longest cycle's path that makes a cycle complete


class Cycle(NamedTuple):
    """Samples `start` to `stop` of a record (as of a slice), and whether they are a whole cycle."""

    label: int
    start: int
    stop: int
    complete: bool


def sweep_turns(potential: np.ndarray, clock: np.ndarray) -> list[int]:
    """Samples between which the potential runs straight: the first, the turns, and the last.

    Args:
        potential: V, shape (n,).
        clock: Ascending times of the samples, in any unit, shape (n,).

    Returns:
        Sample numbers from 0; none if the potential is no sweep (a step, a sine, square waves).
    """
    window = np.ptp(potential)
    if not window > 0 or find_jumps(potential):
        return []
    turns, best, direction = [0], 0, 0
    for n, value in enumerate(potential):
        rise = value - potential[best]
        if direction * rise > 0 or (direction == 0 and abs(rise) > _TURN * window):
            direction, best = direction or (1 if rise > 0 else -1), n
        elif direction and -direction * rise > _TURN * window:
            turns.append(best)
            direction, best = -direction, n
    turns.append(len(potential) - 1)
    legs = list(pairwise(turns))
    bends = [_bend(potential[a : b + 1], clock[a : b + 1]) for a, b in legs]
    long = np.median([b - a for a, b in legs]) >= _FEWEST
    return turns if long and np.median(bends) <= _STRAIGHT else []


def find_cycles(potential: np.ndarray, clock: np.ndarray) -> list[Cycle]:
    """Cycles of a sweep: the next begins where the potential passes that of the first sample."""
    turns = sweep_turns(potential, clock)
    if len(turns) < 3:
        return []
    away = np.sign(potential[turns[1]] - potential[0]) * (potential - potential[0])
    window = np.ptp(potential)
    starts = []
    for turn, after in zip(turns[2::2], [*turns[3::2], turns[-1]], strict=False):
        back = np.flatnonzero(away[turn : after + 1] >= -_EXACT * window)
        if len(back):  # at once where the potential turns before it is back
            starts.append(turn + int(back[0]))
    bounds = sorted({0, *(start for start in starts if start < len(potential)), len(potential)})
    return _mark_complete(potential, bounds, range(1, len(bounds)))


def read_cycles(column: np.ndarray, potential: np.ndarray) -> list[Cycle]:
    """Cycles by a column of their numbers; none if the column does not number cycles."""
    if not np.isfinite(column).all() or (column != np.round(column)).any():
        return []
    bounds = [0, *(np.flatnonzero(np.diff(column)) + 1).tolist(), len(column)]
    labels = [int(column[start]) for start in bounds[:-1]]
    if len(set(labels)) < len(labels):
        return []
    return _mark_complete(potential, bounds, labels)


def _mark_complete(potential: np.ndarray, bounds: list[int], labels) -> list[Cycle]:
    pieces = list(zip(labels, bounds, bounds[1:], strict=False))
    if len(pieces) > 1 and bounds[-1] - bounds[-2] <= _CLOSING * max(np.diff(bounds)):
        *pieces, (label, start, _), (_, _, stop) = pieces  # the sample that closes the last cycle
        pieces.append((label, start, stop))
    paths = [np.abs(np.diff(potential[start:stop])).sum() for _, start, stop in pieces]
    enough = _COMPLETE * max(paths)
    return [Cycle(*piece, bool(path >= enough)) for piece, path in zip(pieces, paths, strict=True)]


def _bend(values: np.ndarray, clock: np.ndarray) -> float:
    """Largest distance from the line between first and last value, in units of their distance."""
    height, width = values[-1] - values[0], clock[-1] - clock[0]
    if height == 0 or width == 0:
        return np.inf
    return float(np.abs((values - values[0]) / height - (clock - clock[0]) / width).max())
