"""Averages over a population of which only a selected part is seen.

Weights of one over the probability of being selected fail where that probability nearly vanishes:
what is never seen has no weight, and few draws have most of it. So the population is a family of
distributions, normal ones in standard coordinates, fitted to what was selected with the likelihood
of the selected (Loredo 2004; Mandel, Farr & Gair 2019): p(u | selected) = p(u) s(u) / ∫ p s. The
average is that of the fitted population, and its error that of its parameters (the delta method).
The integral is a sum over simulations with the same selection.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import softmax

_N_STEPS, _TOLERANCE = 50, 1e-9  # of Newton's method
_LEAST_DRAWS = 100  # effective ones, of simulations weighted to the fitted population


class SelectionError(ValueError):
    """A population that the selected sample can not be corrected to; the message says why."""


class Average(NamedTuple):
    """An average over the population.

    Attributes:
        value: The estimate.
        error: Its standard error.
    """

    value: float
    error: float


def average(
    sample: Float[np.ndarray, "object entry"],
    draws: Float[np.ndarray, "draw entry"],
    effect: Float[np.ndarray, " draw"],
    chance: Float[np.ndarray, " draw"],
    fitted: Bool[np.ndarray, " entry"] | None = None,
) -> Average:
    """Average of an effect over the population that a selected sample is of.

    Args:
        sample: Standard coordinates of the selected objects.
        draws: Of simulated objects of the standard normal population, selected or not.
        effect: Of each simulated object.
        chance: Of each simulated object to be selected.
        fitted: Coordinates whose mean and variance in the population are unknown, all by default;
            of the others they are 0 and 1.

    Raises:
        SelectionError: If the simulations do not reach the population of the sample.
    """
    which = np.ones(draws.shape[1], bool) if fitted is None else fitted

    def statistics(u):  # the family is exp(natural . statistics) times the standard normal
        return np.concatenate([u[:, which], u[:, which] ** 2 - 1], axis=1)

    simulated, observed = statistics(draws), statistics(sample)
    mean, n = observed.mean(0), len(observed)
    with np.errstate(divide="ignore"):
        selected = np.log(chance)
    natural = np.zeros(len(mean))
    for _ in range(_N_STEPS):
        weight = softmax(simulated @ natural + selected)
        expected = weight @ simulated
        centred = simulated - expected
        information = (centred * weight[:, None]).T @ centred
        step = np.linalg.solve(information, mean - expected)
        # A whole step may lead beyond where variances are positive.
        natural = natural + step / max(1.0, 4 * float(np.abs(step).max()))
        if np.abs(step).max() < _TOLERANCE:
            break
    else:
        raise SelectionError("the fit of the population to the selected sample does not converge")
    whole = softmax(simulated @ natural)
    for weights, what in ((weight, "what is selected of it"), (whole, "the whole of it")):
        if (count := 1 / (weights**2).sum()) < _LEAST_DRAWS:
            raise SelectionError(
                f"the population of the sample is far from the simulated one: {count:.0f} "
                f"effective draws of {what}, expected {_LEAST_DRAWS}"
            )
    value = float(whole @ effect)
    slope = ((effect - value) * whole) @ (simulated - whole @ simulated)
    return Average(value, float(np.sqrt(slope @ np.linalg.solve(information, slope) / n)))
