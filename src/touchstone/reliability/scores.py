"""How well a posterior predicts what it was conditioned on, and the truth where that is known."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import norm

_NOMINAL = norm.cdf([1, 2]) - norm.cdf([-1, -2])


def predictive_metrics(
    observed: Float[np.ndarray, "case sample"],
    mask: Bool[np.ndarray, "case sample"],
    mean: Float[np.ndarray, "case sample"],
    sd: Float[np.ndarray, "case sample"],
    noise: Float[np.ndarray, " case"],
) -> dict[str, Float[np.ndarray, " case"]]:
    """Fit, calibration and the reliability score of each case, on its observed samples.

    The negative log density is that of the observation counted in standard deviations of the
    noise, so that it does not depend on the unit.

    Args:
        observed: The records.
        mask: Observed samples.
        mean: Predictive mean.
        sd: Predictive standard deviation, noise included.
        noise: Standard deviation of the noise.

    Returns:
        `pred_nrmse`, `pred_nll`, `pred_calibration_error`, `pred_sharpness`,
        `reliability_score` (0 to 100) and `max_abs_current` (the trivial score).

    Raises:
        ValueError: If a case has no observed sample.
    """
    count = mask.sum(1)
    if (count == 0).any():
        raise ValueError(f"case {int(np.argmin(count))} has no observed sample")

    def average(values):
        return np.where(mask, values, 0.0).sum(1) / count

    spread = np.where(mask, observed, -np.inf).max(1) - np.where(mask, observed, np.inf).min(1)
    spread = np.where(spread > 0, spread, 1.0)
    score = (observed - mean) / sd
    nrmse = np.sqrt(average((observed - mean) ** 2)) / spread
    nll = average(0.5 * score**2 + np.log(sd / noise[:, None]) + 0.5 * np.log(2 * np.pi))
    coverage = [average(np.abs(score) <= k) for k in (1, 2)]
    calibration = sum(np.abs(c - nominal) for c, nominal in zip(coverage, _NOMINAL, strict=True))
    sharpness = average(sd) / spread
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
        "max_abs_current": np.where(mask, np.abs(observed), 0.0).max(1),
    }


def parameter_nrmse(
    estimate: Float[np.ndarray, "case parameter"],
    truth: Float[np.ndarray, "case parameter"],
    prior_sd: Float[np.ndarray, "case parameter"],
    unknown: Bool[np.ndarray, "case parameter"],
) -> Float[np.ndarray, " case"]:
    """Root mean square of (estimate - truth)/prior sd over the unknown parameters.

    Args:
        estimate: Posterior mean.
        truth: What the parameters were simulated with.
        prior_sd: Standard deviation of the prior.
        unknown: Parameters that were inferred.
    """
    scale = np.where(unknown, prior_sd, 1.0)  # an absent parameter has none
    square = np.where(unknown, ((estimate - truth) / scale) ** 2, 0.0)
    return np.sqrt(square.sum(1) / np.maximum(unknown.sum(1), 1))
