"""How strong an omitted cause would have to be, and what effects are found where there are none.

Robustness values and bounds by observed covariates are those of Cinelli and Hazlett (2020).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student


def partial_r2(t_value: float, dof: int) -> float:
    """Part of what is left of an outcome that a regressor explains."""
    return t_value**2 / (t_value**2 + dof)


def robustness(t_value: float, dof: int, part: float = 1.0, level: float | None = None) -> float:
    """Partial R2 with treatment and outcome that an omitted cause needs to explain an effect away.

    Args:
        t_value: Estimate over standard error.
        dof: Degrees of freedom.
        part: Of the estimate that would have to be explained away.
        level: Confidence of the interval that would have to hold zero, such as 0.9; None asks for
            the estimate itself to be reduced.

    Returns:
        Robustness value in [0, 1] (Cinelli and Hazlett 2020, equations 18 and 20; 0 where the
        interval holds zero already).
    """
    f = part * abs(t_value) / np.sqrt(dof)
    if level is not None:
        f -= student.ppf((1 + level) / 2, dof - 1) / np.sqrt(dof - 1)
    if f <= 0:
        return 0.0
    return float(0.5 * (np.sqrt(f**4 + 4 * f**2) - f**2))


def adjusted(
    estimate: float, se: float, dof: int, with_treatment: float, with_outcome: float
) -> float:
    """Estimate that an omitted cause of given partial R2 would leave, moved towards zero."""
    size = np.sqrt(with_outcome * with_treatment / (1 - with_treatment))
    return float(np.sign(estimate) * (abs(estimate) - se * np.sqrt(dof) * size))


class Benchmark(NamedTuple):
    """An omitted cause as strong as an observed covariate.

    Attributes:
        name: Of the covariate.
        with_treatment, with_outcome: Partial R2 of the cause.
        estimate: That it would leave.
    """

    name: str
    with_treatment: float
    with_outcome: float
    estimate: float


def bound(covariate_treatment: float, covariate_outcome: float, strength: float = 1.0):
    """Partial R2 of an omitted cause that is `strength` times as strong as a covariate.

    Args:
        covariate_treatment: Partial R2 of the covariate with the treatment, given the others.
        covariate_outcome: Partial R2 of the covariate with the outcome, given treatment and others.
        strength: Times.

    Returns:
        With treatment and with outcome (Cinelli and Hazlett 2020, section 4.4).

    Raises:
        ValueError: If no cause can be as strong.
    """
    odds = covariate_treatment / (1 - covariate_treatment)
    with_treatment = strength * odds
    if with_treatment >= 1:
        raise ValueError("no omitted cause can be as strong as this covariate")
    shared = strength * covariate_treatment**2
    shared /= (1 - strength * covariate_treatment) * (1 - covariate_treatment)
    if shared >= 1:
        raise ValueError("no omitted cause can be as strong as this covariate")
    factor = (np.sqrt(strength) + np.sqrt(shared)) / np.sqrt(1 - shared)
    with_outcome = factor**2 * covariate_outcome / (1 - covariate_outcome)
    return with_treatment, min(float(with_outcome), 1.0)


class Regression(NamedTuple):
    """Least squares: coefficients, their standard errors, and degrees of freedom."""

    slope: Float[np.ndarray, " regressor"]
    se: Float[np.ndarray, " regressor"]
    dof: int


def regress(
    target: Float[np.ndarray, " row"], design: Float[np.ndarray, "row regressor"]
) -> Regression:
    """Least squares with a constant, which is left out of what is returned."""
    full = np.column_stack([np.ones(len(target)), design])
    inverse = np.linalg.pinv(full.T @ full, hermitian=True)
    slope = inverse @ full.T @ target
    left = target - full @ slope
    dof = len(target) - full.shape[1]
    covariance = inverse * (left @ left / dof)
    return Regression(slope[1:], np.sqrt(np.diag(covariance))[1:], dof)


def benchmarks(
    outcome: Float[np.ndarray, " row"],
    treatment: Float[np.ndarray, " row"],
    controls: Float[np.ndarray, "row control"],
    names: tuple[str, ...],
) -> list[Benchmark]:
    """What an omitted cause as strong as each control would leave of the effect."""
    of_outcome = regress(outcome, np.column_stack([treatment, controls]))
    of_treatment = regress(treatment, controls)
    found = []
    for k, name in enumerate(names):
        d = partial_r2(of_treatment.slope[k] / of_treatment.se[k], of_treatment.dof)
        y = partial_r2(of_outcome.slope[k + 1] / of_outcome.se[k + 1], of_outcome.dof)
        try:
            strength = bound(d, y)
        except ValueError:
            continue
        left = adjusted(of_outcome.slope[0], of_outcome.se[0], of_outcome.dof, *strength)
        found.append(Benchmark(name, *strength, left))
    return found
