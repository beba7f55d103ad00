"""How far summaries of an observation lie from those of the training family."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_MOST = 24  # directions of the summaries that are looked at
_LEAST = 1e-8  # part of the variance, of a direction that counts


class Reference(NamedTuple):
    """Summaries of in-family cases.

    Attributes:
        centre: Their mean, shape (F,).
        directions: By which summaries become uncorrelated, of unit variance, shape (F, K).
        points: The cases themselves, so turned, shape (n, K).
    """

    centre: Float[np.ndarray, " feature"]
    directions: Float[np.ndarray, "feature direction"]
    points: Float[np.ndarray, "case direction"]

    @classmethod
    def fit(cls, summaries: Float[np.ndarray, "case feature"]) -> "Reference":
        """Of cases of the training family: their principal directions, the largest first."""
        centre = summaries.mean(0)
        _, size, directions = np.linalg.svd(summaries - centre, full_matrices=False)
        size = size / np.sqrt(len(summaries) - 1)
        kept = (size**2 > _LEAST * (size**2).sum()) & (np.arange(len(size)) < _MOST)
        turned = directions[kept].T / size[kept]
        return cls(centre, turned, (summaries - centre) @ turned)

    def mahalanobis(
        self, summaries: Float[np.ndarray, "case feature"]
    ) -> Float[np.ndarray, " case"]:
        """Distance of each case from the centre, in standard deviations; it sees what is far from
        all, and not what fills a gap in between."""
        return np.sqrt((((summaries - self.centre) @ self.directions) ** 2).sum(1))

    def mmd(self, summaries: Float[np.ndarray, "case feature"]) -> Float[np.ndarray, " case"]:
        """Squared maximum mean discrepancy of one case from the family (Gretton et al. 2012), with
        a Gaussian kernel of the median distance; the part that is the same for all is left out."""
        own = (summaries - self.centre) @ self.directions
        some = self.points[:: max(1, len(self.points) // 500)]
        width = np.median(_squares(some, some)[np.triu_indices(len(some), 1)])
        return 1 - 2 * np.exp(-_squares(own, self.points) / width).mean(1)


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances of all pairs."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.maximum(squares, 0.0)
