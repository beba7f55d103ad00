"""What of a mismatch a film absorbs, and with which power the best test would see the rest.

The model is linear in the area: what a film effect and the uncertain coefficients take up of a
shift of the areas is a convex problem with one solution. What is left stands against Laplace
errors, what is taken up against the spread of film effects, and a shift of the descriptors against
the spread of the films that were trained on.
"""

import numpy as np
from jaxtyping import Float

from touchstone.models.interface.films import Drawn
from touchstone.models.interface.frozen import Frozen
from touchstone.reliability.oracle import power_of_laplace_shift

_N_ITERATIONS = 50  # of the reweighted least squares
_LEAST = 1e-6  # residual, in scales of the error, that counts as none


def power(frozen: Frozen, drawn: Drawn, rng: np.random.Generator) -> Float[np.ndarray, " film"]:
    """Power of the likelihood-ratio test of each film, as in `reliability.oracle`.

    A film with a stimulus that no film of the training had is none of the family.

    Args:
        frozen: The regression.
        drawn: Films whose areas have no errors but those of the mismatch.
        rng: For simulated errors.
    """
    inverse = np.linalg.inv(frozen.covariance)
    low, high = frozen.ranges()
    left, distance, outside = [], [], []
    for x, s, seen, moved, shift, scatter in zip(
        *drawn.films, drawn.moved, drawn.shift, drawn.scatter, strict=True
    ):
        location = frozen.location(x, s)
        covariance = np.cov(location.T) + np.mean(frozen.film_sd**2)
        spread = covariance[np.ix_(seen, seen)] / scatter**2
        rest = unabsorbed(shift[seen] / scatter, spread)
        absorbed = shift[seen] / scatter - rest
        left.append(np.zeros(len(seen)))
        left[-1][seen] = rest
        square = absorbed @ np.linalg.solve(spread, absorbed)
        distance.append(np.sqrt(moved @ inverse @ moved + square))
        outside.append(bool(((s[seen] < low - _LEAST) | (s[seen] > high + _LEAST)).any()))
    scale = np.where(drawn.films.mask, drawn.scale[:, None], 1.0)
    found = power_of_laplace_shift(np.array(left), scale, np.array(distance), rng)
    return np.where(outside, 1.0, found)


def unabsorbed(
    shift: Float[np.ndarray, " measurement"],
    covariance: Float[np.ndarray, "measurement measurement"],
) -> Float[np.ndarray, " measurement"]:
    """What is left of a shift by the most probable in-family change of the areas.

    Of all changes g it is the one of least sum of |shift - g| + g' C^-1 g / 2, by least squares
    that are weighed again and again.

    Args:
        shift: In scales of the Laplace errors.
        covariance: C, of what the family lets vary, in squares of the same.
    """
    left = np.array(shift)
    for _ in range(_N_ITERATIONS):
        # C (C + W^-1)^-1 shift, where W holds one over the size of what is left.
        size = np.maximum(np.abs(left), _LEAST)
        left = shift - covariance @ np.linalg.solve(covariance + np.diag(size), shift)
    return left
