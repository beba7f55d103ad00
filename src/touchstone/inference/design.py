"""How much a measurement that was not made yet would say: its expected information gain.

All is seen from draws of a posterior. Each of them lets expect a record; in coordinates in which
the noise of the record is independent and standard normal, what the record says of the draws
depends on the distances between these expectations alone.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from touchstone.inference.proposals import log_sum

_N_RECORDS = 400  # simulated records, at most
_BLOCK = 100  # of them at a time: each holds a number for each draw
_NEGLIGIBLE = 1e-3  # of the noise: what sets expectations apart by less is left out


class Gain(NamedTuple):
    """Expected information gain, in nats: by how much the entropy of the draws falls on average.

    Attributes:
        value: Prior contrastive estimate, whose expectation is no more than the gain.
        error: Its standard error, over the simulated records.
        at_most: What no record of such expectations exceeds: the gain where all is Gaussian.
        narrowed: Of each entry, the root of the mean posterior variance in units of the variance of
            the draws, shape (P,); 1 where the record says nothing.
    """

    value: float
    error: float
    at_most: float
    narrowed: Float[np.ndarray, " entry"]


def expected_gain(
    expected: Float[np.ndarray, "draw sample"],
    entries: Float[np.ndarray, "draw entry"],
    rng: np.random.Generator,
) -> Gain:
    """Expected information gain of a record (Foster et al. 2020, eq. 10).

    A record is simulated from one draw, and its density under that draw held against the mean of
    its densities under all draws, that one included: in expectation a lower bound of the gain,
    which cannot exceed the logarithm of the number of draws. No record of such expectations is
    worth more than one that is Gaussian with the same covariance: the bound from above.

    Args:
        expected: Expectation of the record under each draw, in units of its noise; draws that count
            alike.
        entries: The draws.
        rng: For the records.
    """
    track = _coordinates(expected)
    n_draws, n_tracks = track.shape
    at_most = 0.5 * np.linalg.slogdet(np.eye(n_tracks) + np.cov(track.T).reshape(n_tracks, -1))[1]
    truths = rng.permutation(n_draws)[:_N_RECORDS]
    gains, variances = [], []
    for first in range(0, len(truths), _BLOCK):
        truth = truths[first : first + _BLOCK]
        noise = rng.standard_normal((len(truth), n_tracks))
        record = track[truth] + noise
        square = (record**2).sum(1)[:, None] + (track**2).sum(1) - 2 * record @ track.T
        log_density = -0.5 * square
        mean = log_sum(log_density, axis=1) - np.log(n_draws)
        gains.append(-0.5 * (noise**2).sum(1) - mean)
        weight = np.exp(log_density - mean[:, None]) / n_draws
        variances.append(weight @ entries**2 - (weight @ entries) ** 2)
    gain = np.concatenate(gains)
    before = np.maximum(entries.var(0), np.finfo(float).tiny)
    narrowed = np.sqrt(np.maximum(np.concatenate(variances).mean(0), 0.0) / before)
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    return Gain(float(gain.mean()), float(error), float(at_most), narrowed)


def _coordinates(expected: Float[np.ndarray, "draw sample"]) -> Float[np.ndarray, "draw track"]:
    """Expectations about their mean, along the few directions in which they differ at all."""
    centred = expected - expected.mean(0)
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    tracks = scale > _NEGLIGIBLE * np.sqrt(len(expected))
    return (left * scale)[:, tracks] if tracks.any() else np.zeros((len(expected), 1))
