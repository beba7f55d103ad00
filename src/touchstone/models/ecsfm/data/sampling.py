"""Traces at the samples of a record: what is averaged, and what does not count."""

from functools import partial

import numpy as np

from touchstone.models.ecsfm.data.traces import Trace
from touchstone.models.ecsfm.physics.waveforms import find_jumps, is_sweep

_COARSE = 64  # readings among which the turns of a scan are looked for
_CORNER = 1.5  # sampling intervals about a reversal within which readings are not averaged
_SETTLES, _ROUNDED = 0.09, 0.02  # parts of a sweep, after its start and before its reversal


def to_record(trace: Trace, n_samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """A trace at the ends of N equal intervals.

    Each sample is the mean over half an interval to either side of the straight lines between
    readings, moved along the slope where one side is cut off; for current and potential alike. So
    samples differ smoothly, however many readings fall to each. A sample is interpolated if the
    potential jumps, at a reversal of the scan, or if the readings are too few.

    Args:
        trace: The trace.
        n_samples: N.

    Returns:
        Potential (V), current (A) and whether there was a reading near, shape (N,) each; and the
        duration, s.
    """
    duration = float(trace.time[-1])
    interval = duration / n_samples
    times = interval * np.arange(1, n_samples + 1)
    start, end = (np.clip(times + h * interval, trace.time[0], duration) for h in (-0.5, 0.5))
    count = np.searchsorted(trace.time, end) - np.searchsorted(trace.time, start)
    after = np.clip(np.searchsorted(trace.time, times), 1, len(trace.time) - 1)
    nearest = np.minimum(*(np.abs(trace.time[after - back] - times) for back in (0, 1)))
    mask = nearest <= max(interval / 2, np.median(np.diff(trace.time)))
    averaged = (count >= 2) & (not find_jumps(trace.potential))
    turns = trace.time[_turns(trace)]
    averaged &= ~(np.abs(times[:, None] - turns) < _CORNER * interval).any(1)
    width = np.where(averaged, end - start, 1.0)
    out = []
    for values in (trace.potential, trace.current):
        at = partial(np.interp, xp=trace.time, fp=values)
        area = np.concatenate([[0.0], np.cumsum(np.diff(trace.time) * (values[1:] + values[:-1]))])
        until = (_area(trace.time, values, area / 2, each) for each in (start, end))
        mean = -np.subtract(*until) / width
        moved = mean + (at(end) - at(start)) / width * (times - (start + end) / 2)
        out.append(np.where(averaged, moved, at(times)))
    potential, current = out
    return potential, current, mask, duration


def _area(time: np.ndarray, values: np.ndarray, area: np.ndarray, until: np.ndarray) -> np.ndarray:
    """Integral of straight lines between readings, whose own at the readings is given."""
    k = np.clip(np.searchsorted(time, until, side="right") - 1, 0, len(time) - 2)
    since = until - time[k]
    slope = (values[k + 1] - values[k]) / (time[k + 1] - time[k])
    return area[k] + since * (values[k] + slope * since / 2)


def _turns(trace: Trace) -> np.ndarray:
    """Readings at which the scan of a voltammogram is reversed; none of any other record."""
    coarse = trace.potential[np.linspace(0, len(trace.potential) - 1, _COARSE).astype(int)]
    if not is_sweep(coarse):
        return np.zeros(0, int)
    low, high = coarse.min(), coarse.max()
    outer = np.abs(trace.potential - (low + high) / 2) > 0.25 * (high - low)
    parts = np.split(np.arange(len(outer)), np.flatnonzero(np.diff(outer)) + 1)
    extremes = [
        part[np.argmax(np.abs(trace.potential[part] - (low + high) / 2))]
        for part in parts
        if outer[part[0]]
    ]
    return np.array([k for k in extremes if 0 < k < len(outer) - 1], int)


def unsettled(trace: Trace, n_samples: int) -> np.ndarray:
    """Samples of a voltammogram that do not count, shape (N,): the double layer settles.

    No electrode charges as quite one capacitor does, and there is little else to be seen after
    the start of a sweep and at its end.
    """
    turns, duration = _turns(trace), trace.time[-1]
    if not len(turns):
        return np.zeros(n_samples, bool)
    times = duration * np.arange(1, n_samples + 1) / n_samples
    ends = np.concatenate([[0.0], trace.time[turns], [duration]])
    length = np.diff(ends)[:, None]
    begun, left = times - ends[:-1, None], ends[1:, None] - times
    last = np.arange(len(length))[:, None] == len(length) - 1
    early = (begun > -1e-9 * length) & (begun <= _SETTLES * length)
    late = (left >= 0) & (left < _ROUNDED * length) & ~last
    return (early | late).any(0)
