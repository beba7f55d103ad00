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
    "sign_runs": "the samples stay too long on one side of what is expected",
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
    "sign_runs": "the number of runs to one side",
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
    innovations = [
        np.asarray(innovation[seen], float)
        for innovation, seen in zip(posterior.prediction.innovation, cases.mask, strict=True)
    ]
    return {
        **{
            name: np.array([sign(e) for e in innovations]) for name, sign in _OF_INNOVATIONS.items()
        },
        "sign_misfit": misfit(cases, posterior),
        "sign_edge": -np.log10(
            np.maximum(edge_probabilities(quantities, edges, cases, posterior).min(1), 1e-12)
        ),
        "sign_novelty": novelty,
    }


def spread(e: Float[np.ndarray, " sample"]) -> float:
    """Sum of squares, in standard deviations from its mean: the predictive chi-square.

    It is the check of Gelman, Meng and Stern (1996), one step ahead. It sees noise that is too
    large or too small everywhere; it does not see in which order the errors come, nor what the
    inferred noise has grown to cover.
    """
    return float(((e**2).sum() - len(e)) / np.sqrt(2 * len(e)))


def largest(e: Float[np.ndarray, " sample"]) -> float:
    """-log10 of the chance that one of as many samples is as far out as the largest.

    Bonferroni's bound, after Grubbs (1969). It sees one wild sample, and not many mild ones.
    """
    beyond = np.log(2) + log_ndtr(-np.abs(e).max())  # of one sample
    return float(-(beyond + np.log(len(e))) / np.log(10))


def local(e: Float[np.ndarray, " sample"]) -> float:
    """The largest sum over a stretch of `WINDOW` samples, in standard deviations.

    A scan statistic (Naus 1965). It sees a bump or a step that the discrepancy cannot follow;
    errors that change sign within the stretch cancel.
    """
    return float(np.abs(_sums(e)).max())


def correlation(e: Float[np.ndarray, " sample"]) -> float:
    """Correlation of neighbours, in standard deviations (Box and Pierce 1970, of lag one).

    It sees noise that is smooth or alternates; not what returns after many samples, and one wild
    sample hides all of it.
    """
    centred = e - e.mean()
    power = max(float((centred**2).sum()), np.finfo(float).tiny)
    return float(abs((centred[1:] * centred[:-1]).sum()) / power * np.sqrt(len(e)))


def runs(e: Float[np.ndarray, " sample"]) -> float:
    """How many changes of sign are wanting, in standard deviations (Wald and Wolfowitz 1940).

    The median of innovations is known to be 0, so that each neighbour changes side with
    probability 1/2. It sees slow errors however small beside a few wild samples; sizes, and errors
    that alternate, it does not see.
    """
    n = len(e) - 1
    changes = np.count_nonzero(np.signbit(e[1:]) != np.signbit(e[:-1]))
    return float((n / 2 - changes) / np.sqrt(max(n, 1) / 4))


def uniformity(e: Float[np.ndarray, " sample"]) -> float:
    """Distance of the probabilities of the samples, given those before, from the uniform law.

    Kolmogorov's distance by the root of n, of the transform of Rosenblatt (1952). It sees an offset
    and noise of another size or shape; like `spread` it does not see any order.
    """
    n = len(e)
    ordered, steps = np.sort(ndtr(e)), np.arange(n + 1) / n
    distance = max(np.abs(ordered - steps[1:]).max(), np.abs(ordered - steps[:-1]).max())
    return float(distance * np.sqrt(n))


_OF_INNOVATIONS = {
    "sign_spread": spread,
    "sign_largest": largest,
    "sign_local": local,
    "sign_correlation": correlation,
    "sign_runs": runs,
    "sign_uniformity": uniformity,
}


def misfit(cases: Cases, posterior: Posterior) -> Float[np.ndarray, " case"]:
    """log10 of the size of what the mean prediction leaves, beside that of the prediction.

    The size of the inferred discrepancy (Kennedy and O'Hagan 2001). It sees what a free discrepancy
    has absorbed, which no sign of the innovations does; not what the parameters have absorbed.
    """
    left = np.where(cases.mask, cases.observed - posterior.prediction.mean, 0.0)
    fit = np.where(cases.mask, posterior.prediction.mean, 0.0)
    size = np.sqrt((left**2).sum(1) / np.maximum((fit**2).sum(1), np.finfo(float).tiny))
    return np.log10(np.maximum(size, 1e-12))


def edge_probabilities(
    quantities: list[Quantity], edges: list[str], cases: Cases, posterior: Posterior
) -> Float[np.ndarray, "case edge"]:
    """Prior probability of lying farther out than the posterior mean does; 1 where it is known.

    The conflict of prior and data of Evans and Moshonov (2006), by place. It sees parameters that
    were driven out of their range to explain a mismatch; a bias well inside the prior it does not.
    """
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
