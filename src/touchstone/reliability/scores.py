"""How well posteriors predict what they were conditioned on, and the truth where it is known."""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.special import ndtr

from touchstone.vocabulary import Cases, Posterior, Quantity

_CERTAINTY = 0.99  # of the interval outside of which an answer is wrong
_NOMINAL = ndtr([1.0, 2.0]) - ndtr([-1.0, -2.0])  # probability within one and two sigma


def predictive_metrics(cases: Cases, posterior: Posterior) -> dict[str, np.ndarray]:
    """Fit, calibration and the reliability score of each case, on its observed samples.

    The predictive distribution may be any: its coverage is judged by the probabilities that a
    Gaussian has within one and two standard deviations.

    Returns:
        `pred_nrmse`, `pred_nll`, `pred_calibration_error`, `pred_sharpness`,
        `reliability_score` (0 to 100) and `max_abs_observed` (the trivial score), shape (case,)
        each.

    Raises:
        ValueError: If a case has no observed sample.
    """
    observed, mask, prediction = cases.observed, cases.mask, posterior.prediction
    count = mask.sum(1)
    if (count == 0).any():
        raise ValueError(f"case {int(np.argmin(count))} has no observed sample")

    def average(values):
        return np.where(mask, values, 0.0).sum(1) / count

    spread = np.where(mask, observed, -np.inf).max(1) - np.where(mask, observed, np.inf).min(1)
    spread = np.where(spread > 0, spread, 1.0)
    nrmse = np.sqrt(average((observed - prediction.mean) ** 2)) / spread
    nll = -average(prediction.log_density)
    inside = [average(np.abs(2 * prediction.cdf - 1) <= nominal) for nominal in _NOMINAL]
    calibration = sum(np.abs(c - nominal) for c, nominal in zip(inside, _NOMINAL, strict=True))
    sharpness = average(prediction.sd) / spread
    reliability = 100 * (
        0.45 * np.exp(-nrmse)
        + 0.30 * np.exp(-nll)
        + 0.15 * np.exp(-4 * calibration)
        + 0.10 * np.exp(-sharpness)
    )
    return {
        "pred_nrmse": nrmse,
        "pred_nll": nll,
        "pred_calibration_error": calibration,
        "pred_sharpness": sharpness,
        "reliability_score": np.clip(reliability, 0.0, 100.0),
        "max_abs_observed": np.where(mask, np.abs(observed), 0.0).max(1),
    }


def coverage_90(cases: Cases, posterior: Posterior) -> dict[str, np.ndarray]:
    """Part of the observed samples in two 90 % bands, shape (case,) each.

    Returns:
        `coverage_90`, of the band of a new observation; and `coverage_90_ahead`, of the band that
        each sample has given those before it.
    """
    count = cases.mask.sum(1)
    probabilities = {"": posterior.prediction.cdf, "_ahead": posterior.prediction.pit}
    return {
        f"coverage_90{name}": ((np.abs(p - 0.5) < 0.45) & cases.mask).sum(1) / count
        for name, p in probabilities.items()
    }


def coordinates(
    quantities: list[Quantity], draws: dict[str, np.ndarray]
) -> Float[np.ndarray, "case draw quantity"]:
    """Coordinates of named draws."""
    return np.stack([q.coordinate(draws[q.name]) for q in quantities], axis=-1)


def posterior_mean(
    quantities: list[Quantity], posterior: Posterior
) -> Float[np.ndarray, "case quantity"]:
    """Mean of each coordinate."""
    draws = coordinates(quantities, posterior.draws)
    return np.einsum("nd,ndq->nq", posterior.weight, draws)


def parameter_nrmse(
    estimate: Float[np.ndarray, "case quantity"],
    truth: Float[np.ndarray, "case quantity"],
    prior_sd: Float[np.ndarray, "case quantity"],
    unknown: Bool[np.ndarray, "case quantity"],
) -> Float[np.ndarray, " case"]:
    """Root mean square of (estimate - truth) / prior sd over the unknown quantities."""
    scale = np.where(unknown, prior_sd, 1.0)  # an absent quantity has none
    square = np.where(unknown, ((estimate - truth) / scale) ** 2, 0.0)
    return np.sqrt(square.sum(1) / np.maximum(unknown.sum(1), 1))


def judge(
    quantities: list[Quantity], watched: list[str], cases: Cases, posterior: Posterior
) -> pd.DataFrame:
    """Metrics of simulated cases, whose truth is known, one row each.

    Beside the error of the posterior mean stands that of the prior mean. The watched quantities
    have the bias of their posterior mean; of a logarithm it is counted in decades. `wrong` is 1
    where the truth of one of them lies outside of its central 99 % interval: whoever believes that
    posterior comes to harm.
    """
    unknown = ~cases.known
    estimate = posterior_mean(quantities, posterior)
    of = cases.truth, posterior.prior_sd, unknown
    computation = posterior.computation
    columns = {
        "param_nrmse": parameter_nrmse(estimate, *of),
        "prior_mean_nrmse": parameter_nrmse(posterior.prior_mean, *of),
        **predictive_metrics(cases, posterior),
        "log_evidence": posterior.log_evidence,
        **{f"computation_{name}": values for name, values in computation.figures.items()},
    }
    if computation.passed:
        columns["computation_sound"] = computation.sound(len(cases.kind)).astype(float)
    names = [quantity.name for quantity in quantities]
    wrong = np.zeros(len(cases.kind), bool)
    for name in watched:
        k = names.index(name)
        wrong |= unknown[:, k] & _outside_interval(quantities[k], k, cases, posterior)
        bias = np.where(unknown[:, k], estimate[:, k] - cases.truth[:, k], np.nan)
        columns[f"bias_{name}"] = bias / np.log(10) if quantities[k].logarithmic else bias
    return pd.DataFrame(columns | {"wrong": wrong.astype(float)})


def _outside_interval(
    quantity: Quantity, k: int, cases: Cases, posterior: Posterior
) -> Bool[np.ndarray, " case"]:
    """Whether the truth of a quantity lies outside of its central 99 % interval.

    Fewer than 200 draws do not resolve it: then outside of all draws, which an exact posterior of
    n draws is in 2 of n + 1 cases.
    """
    draws = quantity.coordinate(posterior.draws[quantity.name])
    below = (posterior.weight * (draws < cases.truth[:, k : k + 1])).sum(1)
    return np.abs(below - 0.5) > 0.5 * _CERTAINTY
