"""Weights of draws, smoothed by a Pareto tail whose shape says how far to trust them."""

import numpy as np

WORST_K_HAT = 10.0  # of draws that are no good at all


def smooth(log_weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights, the largest smoothed by a Pareto tail (Vehtari et al. 2024), by ArviZ.

    Args:
        log_weight: Unnormalised, shape (n,).

    Returns:
        Weights that sum to one, and k-hat; of draws that are all impossible, equal weights.
    """
    equal = np.full(len(log_weight), 1 / len(log_weight))
    if not np.isfinite(log_weight).any():
        return equal, WORST_K_HAT
    if np.ptp(log_weight) == 0:  # no tail
        return equal, 0.0
    from arviz_stats.base import array_stats  # here, since it imports all of ArviZ's statistics

    # ArviZ takes log likelihoods to be divided out, hence the sign.
    smoothed, k_hat = array_stats.psislw(-log_weight.astype(float))
    # Of very few possible draws it takes some impossible ones for the tail.
    weight = np.where(np.isfinite(log_weight), np.exp(smoothed - smoothed.max()), 0.0)
    k_hat = float(np.nan_to_num(k_hat, nan=WORST_K_HAT, posinf=WORST_K_HAT))
    return weight / weight.sum(), min(k_hat, WORST_K_HAT)


def k_threshold(n: int) -> float:
    """Largest k-hat at which n draws can be trusted (Vehtari et al. 2024, eq. 13)."""
    return min(1 - 1 / np.log10(n), 0.7)


def resample(weight: np.ndarray, n: int) -> np.ndarray:
    """Indices of n equally weighted draws, by resampling at the midpoints of equal parts.

    Args:
        weight: Shape (draws,), sums to one.
        n: How many.
    """
    ends = np.cumsum(weight)
    comb = (np.arange(n) + 0.5) / n
    return np.minimum(np.searchsorted(ends / ends[-1], comb, side="right"), len(weight) - 1)
