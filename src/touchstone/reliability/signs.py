"""Signs that a model does not explain an observation, each a number that is high where it does not.

They are looked for in the innovations: what each sample adds to those before it, in standard
deviations of what the posterior lets expect, standard normal where the model is right. A free
discrepancy whitens whatever is smooth, so that the size of what is left unexplained, and estimates
at the edge of their priors, are signs, too. What is usual of each, `decision` learns from simulated
cases: none is taken to have the distribution that theory gives it.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import log_ndtr, ndtr

from touchstone.vocabulary import Cases, Posterior, Quantity

WINDOW = 8  # observed samples within which a local misfit is looked for
# Of each sign, what it says where it is high.
MEANING = {
    "sign_spread": "the samples scatter more than the noise that was inferred",
    "sign_largest": "single samples lie far from what those before them let expect",
    "sign_local": "one stretch of the record errs to one side",
    "sign_correlation": "neighbouring samples err alike",
    "sign_uniformity": "the samples are not spread as the posterior lets expect",
    "sign_misfit": "what the model leaves unexplained is large beside the record",
    "sign_edge": "an estimate lies at the edge of its prior",
    "sign_novelty": "the measurement is unlike those of the training",
}

NAMES = {  # in a sentence
    "sign_spread": "the scatter of the samples",
    "sign_largest": "the largest innovation",
    "sign_local": "the worst stretch",
    "sign_correlation": "the correlation of neighbouring samples",
    "sign_uniformity": "the distribution of the samples",
    "sign_misfit": "the size of what is left unexplained",
    "sign_edge": "the place of the estimates in their priors",
    "sign_novelty": "the distance from the training",
}
LOCAL = ("sign_spread", "sign_largest", "sign_local")  # that have a place in the record


def signs(
    quantities: list[Quantity],
    edges: list[str],
    cases: Cases,
    posterior: Posterior,
    novelty: Float[np.ndarray, " case"],
) -> dict[str, np.ndarray]:
    """All signs of each case, by the names in `MEANING`, shape (case,) each.

    Args:
        quantities: Of the model.
        edges: Names of those whose estimates are not expected at the edge of their prior.
        cases: The observations.
        posterior: Theirs.
        novelty: How far each lies from the training, as `Model.novelty`.
    """
    rows = [
        _of_innovations(innovation[seen])
        for innovation, seen in zip(posterior.prediction.innovation, cases.mask, strict=True)
    ]
    found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    left = np.where(cases.mask, cases.observed - posterior.prediction.mean, 0.0)
    fit = np.where(cases.mask, posterior.prediction.mean, 0.0)
    size = np.sqrt((left**2).sum(1) / np.maximum((fit**2).sum(1), np.finfo(float).tiny))
    edge = edge_probabilities(quantities, edges, cases, posterior)
    return {
        **found,
        "sign_misfit": np.log10(np.maximum(size, 1e-12)),
        "sign_edge": -np.log10(np.maximum(edge.min(1), 1e-12)),
        "sign_novelty": novelty,
    }


def _of_innovations(e: Float[np.ndarray, " sample"]) -> dict[str, float]:
    e = np.asarray(e, float)
    n = len(e)
    square = e**2
    beyond = np.log(2) + log_ndtr(-np.abs(e).max())  # of one sample
    centred = e - e.mean()
    power = max((centred**2).sum(), np.finfo(float).tiny)
    ordered = np.sort(ndtr(e))
    steps = np.arange(n + 1) / n
    distance = max(np.abs(ordered - steps[1:]).max(), np.abs(ordered - steps[:-1]).max())
    return {
        "sign_spread": (square.sum() - n) / np.sqrt(2 * n),
        "sign_largest": -(beyond + np.log(n)) / np.log(10),
        "sign_local": np.abs(_sums(e)).max(),
        "sign_correlation": abs((centred[1:] * centred[:-1]).sum() / power) * np.sqrt(n),
        "sign_uniformity": distance * np.sqrt(n),
    }


def edge_probabilities(
    quantities: list[Quantity], edges: list[str], cases: Cases, posterior: Posterior
) -> Float[np.ndarray, "case edge"]:
    """Prior probability of lying farther out than the posterior mean does; 1 where it is known."""
    index = [k for k, quantity in enumerate(quantities) if quantity.name in edges]
    place = posterior.place[:, index]
    return np.where(cases.known[:, index], 1.0, 2 * np.minimum(place, 1 - place))


def where(
    innovation: Float[np.ndarray, " sample"], seen: Bool[np.ndarray, " sample"]
) -> tuple[int, int]:
    """First and last sample of the stretch that is explained worst."""
    at = np.flatnonzero(seen)
    first = int(np.abs(_sums(innovation[at])).argmax())
    return int(at[first]), int(at[min(first + WINDOW, len(at)) - 1])


def _sums(e: Float[np.ndarray, " sample"]) -> Float[np.ndarray, " window"]:
    """Of the samples of each stretch, in standard deviations: what errs alike adds up, what is
    merely noisier does not."""
    window = min(WINDOW, len(e))
    return np.convolve(e, np.ones(window), "valid") / np.sqrt(window)
