"""Detectors that others use, each with a threshold set as ours is: on the same calibration cases,
for the same promised rate of false alarms."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from jaxtyping import Float

from touchstone.reliability.decision import OUTSIDE, Decision, calibrate

# Columns of a score table, high where a case is suspicious; "-" turns a column round. A rival of
# several columns escalates where one of them is unusual.
SIZE = "size of the observation"  # which needs no model at all: small or large
RIVALS = {
    # Fit and spread of the posterior's predictions, as this project once judged them.
    "historical pair": ("-reliability_score", "pred_calibration_error"),
    SIZE: ("max_abs_observed", "-max_abs_observed"),
    # Posterior predictive check by chi-square (Gelman, Meng and Stern 1996).
    "predictive chi-square": ("sign_spread",),
    # Log density of the observation under the model, as a check of misspecification.
    "log evidence": ("-log_evidence",),
    # Tail of the importance weights (Vehtari et al. 2024), as amortised workflows gate by.
    "k-hat": ("computation_k_hat",),
    # Distance of the learnt summaries from those of the training family (Li et al. 2024).
    "Mahalanobis distance": ("summary_mahalanobis",),
    # Kernel discrepancy of the same (Schmitt et al. 2023).
    "maximum mean discrepancy": ("summary_mmd",),
}


def columns(rows: pd.DataFrame, names: Iterable[str]) -> dict[str, Float[np.ndarray, " run"]]:
    """Columns of a score table, turned round where their name begins with "-"."""
    return {
        name: -rows[name[1:]].to_numpy(float) if name[0] == "-" else rows[name].to_numpy(float)
        for name in names
    }


def score(decision: Decision, rows: pd.DataFrame) -> Float[np.ndarray, " run"]:
    """Of the rows of a score table, which may say what lies outside of the training."""
    return decision.score(columns(rows, [*decision.needed, *({OUTSIDE} & {*rows})]))


def there(rows: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Rivals whose columns a score table has, with a number in every row."""
    found = set(rows.columns[rows.notna().all()])
    return {
        name: needed
        for name, needed in RIVALS.items()
        if {each.lstrip("-") for each in needed} <= found
    }


def calibrated(
    usual: pd.DataFrame,
    calibration: pd.DataFrame,
    names: Iterable[str],
    alpha: float,
    delta: float,
    covariate: str = "",
) -> Decision:
    """A rule over some columns, from rows of in-family cases; see `decision.calibrate`."""
    names = [*names, *([covariate] if covariate else [])]
    return calibrate(columns(usual, names), columns(calibration, names), alpha, delta, covariate)
