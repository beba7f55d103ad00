"""Potential programmes, and the time steps that resolve them.

An experiment is sampled N times, the n-th sample at the end of the n-th of N equal intervals. The
solver's steps are finer where the flux is singular: after a jump of the potential (t = 0 counts as
one) the step grows in proportion to the time since the jump, until it reaches the interval.
"""

import heapq
import math
from functools import lru_cache

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from touchstone.models.ecsfm.physics.arrays import AnyArray

RAMP = 1e-3  # a jump of the potential takes this fraction of a sampling interval
_FEW = 20  # steps in the interval after a jump, below which they are not graded in even ratios
_FINEST_GROWTH = 0.25  # step over time since the jump, where nodes are free
_MOST_TURNS = 8  # of the potential in a record that is a voltammogram


class Waveform(eqx.Module):
    """A potential programme on its own time axis, linear between the solver's nodes.

    Attributes:
        step: Lengths of the steps as fractions of the duration, all positive.
        potential: Applied potential at the nodes, V.
        sample: Nodes at which the current is read, from 1 to the number of steps.
        duration: s.
        shortest: Lower bound of `step`, a Python float: it fixes the number of memories.
    """

    step: Float[AnyArray, "*batch step"]
    potential: Float[AnyArray, "*batch step+1"]
    sample: Int[AnyArray, "*batch sample"]
    duration: Float[AnyArray, "*batch"]
    shortest: float = eqx.field(static=True)


def shortest_step(n_samples: int) -> float:
    """Lower bound of all steps of `time_steps`, as a fraction of the duration."""
    return 0.9 * _FINEST_GROWTH * RAMP / n_samples


@lru_cache(maxsize=4096)
def time_steps(
    n_samples: int, jumps: tuple[int, ...] = (), n_nodes: int | None = None
) -> tuple[Float[np.ndarray, " step"], Int[np.ndarray, " {n_samples}"]]:
    """Solver steps for an experiment with jumps of the potential after some of its samples.

    Args:
        n_samples: Number of samples N.
        jumps: Ascending numbers of the samples right after which the potential jumps.
        n_nodes: Number of steps M to make; by default what the grading needs. Nodes that the
            grading does not need halve the longest steps, so that all experiments of a data set
            can share one shape, and with it one compilation.

    Returns:
        Step lengths as fractions of the duration, float64, and the indices of the nodes (counted
        from 0 at the start) that are samples.

    Raises:
        ValueError: If `n_nodes` cannot hold the samples and three steps after each jump.
    """
    if n_nodes is None:
        counts = _counts(n_samples, jumps, _FINEST_GROWTH)
    else:
        counts = _fit_counts(n_samples, jumps, n_nodes)
    steps = []
    for count, since in zip(counts, _since_jump(n_samples, jumps), strict=True):
        if since == 0:
            rest = np.geomspace(RAMP, 1.0, count)
            if count < _FEW:
                # Too few steps for even ratios: a power law whose first step is the ramp's length.
                power = -math.log(RAMP) / math.log(count - 1)
                rest = RAMP + (1 - RAMP) * np.linspace(0, 1, count) ** power
            edges = np.concatenate([[0.0], rest])
        else:
            edges = np.geomspace(since, since + 1.0, count + 1) - since
        steps.append(np.diff(edges) / n_samples)
    return np.concatenate(steps), np.cumsum(counts)


def _since_jump(n_samples: int, jumps: tuple[int, ...]) -> Int[np.ndarray, " {n_samples}"]:
    """Sampling intervals between each interval's start and the jump before it."""
    index = np.arange(n_samples)
    starts = np.array([0, *jumps])
    return index - starts[np.searchsorted(starts, index, side="right") - 1]


def _counts(n_samples: int, jumps: tuple[int, ...], growth: float) -> list[int]:
    """Steps in each sampling interval if no step is longer than growth x time since the jump."""
    rate = math.log1p(growth)
    after = 1 + max(2, math.ceil(-math.log(RAMP) / rate))
    return [
        after if since == 0 else math.ceil(math.log1p(1 / since) / rate)
        for since in _since_jump(n_samples, jumps)
    ]


def _fit_counts(n_samples: int, jumps: tuple[int, ...], n_nodes: int) -> list[int]:
    growths = np.geomspace(_FINEST_GROWTH, 1 / RAMP, 60)
    counts = next((c for g in growths if sum(c := _counts(n_samples, jumps, g)) <= n_nodes), None)
    if counts is None:
        raise ValueError(
            f"n_nodes: {n_nodes} steps cannot resolve {n_samples} samples with {len(jumps)} jumps"
        )
    since = _since_jump(n_samples, jumps)
    longest = [(-1 / count, i) for i, count in enumerate(counts) if since[i] > 0]
    heapq.heapify(longest)
    for _ in range(n_nodes - sum(counts)):
        _, i = heapq.heappop(longest)
        counts[i] += 1
        heapq.heappush(longest, (-1 / counts[i], i))
    return counts


def find_jumps(potential: Float[np.ndarray, " sample"]) -> tuple[int, ...]:
    """Samples right after which the potential jumps: far more than a typical step of the record.

    Args:
        potential: Applied potential at the samples, V.

    Returns:
        Ascending sample numbers, counted from 1.
    """
    steps = np.abs(np.diff(potential))
    jumps = np.flatnonzero(steps > 3e-3 + 5 * np.median(steps)) + 1
    return tuple(int(j) for j in jumps)


def is_sweep(potential: Float[np.ndarray, " sample"]) -> bool:
    """Whether a record is a voltammogram: a potential that runs, turns seldom, and never jumps."""
    turns = np.count_nonzero(np.diff(np.sign(np.diff(potential))))
    return bool(np.ptp(potential) > 0 and turns <= _MOST_TURNS and not find_jumps(potential))


def resolve(
    potential: Float[AnyArray, "case sample"],
    duration: Float[AnyArray, " case"],
    n_nodes: int | None = None,
) -> Waveform:
    """Waveforms from records of the applied potential.

    The potential is linear between samples, constant after a jump, and starts one interval before
    the first sample on the line through the first two.

    Args:
        potential: Applied potential at the ends of equal intervals, V.
        duration: s.
        n_nodes: Number of steps M, as in `time_steps`; None if all records need the same number.

    Returns:
        A batch of waveforms in float32.
    """
    rows = [_resolve_one(record, n_nodes) for record in np.asarray(potential, float)]
    step, at_nodes, sample = (np.stack(column) for column in zip(*rows, strict=True))
    return Waveform(
        step.astype(np.float32),
        at_nodes.astype(np.float32),
        sample.astype(np.int32),
        np.asarray(duration, np.float32),
        shortest_step(potential.shape[1]),
    )


def _resolve_one(potential: Float[np.ndarray, " sample"], n_nodes: int | None):
    jumps = find_jumps(potential)
    n = len(potential)
    step, sample = time_steps(n, jumps, n_nodes)
    start = potential[0] if 1 in jumps else 2 * potential[0] - potential[1]
    times = np.concatenate([[0.0], np.cumsum(step)]) * n
    at_nodes = np.interp(times, np.arange(n + 1), np.concatenate([[start], potential]))
    for jump in jumps:
        first, last = sample[jump - 1] + 1, sample[jump]
        at_nodes[first : last + 1] = potential[jump]
    return step, at_nodes, sample
