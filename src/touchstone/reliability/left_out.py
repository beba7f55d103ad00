"""How a rule does on a kind of failure that it never saw.

The rule that decides learns nothing from failures, so that each family is new to it. Beside it
stands a combination of the same signs that does learn from them, each time from all families but
one. It is the better where failures resemble each other; what it gains on the family left out says
whether learning is worth its keep.
"""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from touchstone.reliability.decision import Decision, calibrate
from touchstone.reliability.guardrail import wilson
from touchstone.reliability.rivals import columns, score

_BOUND = 6.0  # of how unusual a sign may be, so that one does not outweigh all others


def compare(
    runs: pd.DataFrame,
    fitted_on: Bool[np.ndarray, " case"],
    usual: pd.DataFrame,
    calibration: pd.DataFrame,
    decision: Decision,
) -> list[dict]:
    """Recall of the decision and of the learnt combination on each family, left out in turn.

    Args:
        runs: Rows of the base cases in distribution and under stress, with their signs.
        fitted_on: Base cases that the combination learns from; both are scored on the others.
        usual, calibration: In-family rows that set the threshold of the combination, as that of
            the decision.
        decision: The rule.

    Returns:
        For each family and severity: `n`, and the recall of the `decision` and the `combination`,
        the latter None where there is no other family to learn from.
    """
    runs = runs[runs["split"] != "control"]
    is_fitted = fitted_on[runs["case_index"]]
    stressed = runs["family"].notna().to_numpy()
    rows = []
    for family in runs["family"].dropna().unique():
        ours = (runs["family"] == family).to_numpy()
        learnt_from = runs[is_fitted & ~ours]
        learnt = _learn(learnt_from, stressed[is_fitted & ~ours], usual, calibration, decision)
        for severity, held in runs[ours & ~is_fitted].groupby("severity", sort=True):
            flagged = score(decision, held) > decision.threshold
            rows.append(
                {
                    "family": family,
                    "severity": severity,
                    "n": len(held),
                    "decision": wilson(flagged.mean(), len(held))._asdict(),
                    "combination": learnt and wilson(learnt(held).mean(), len(held))._asdict(),
                }
            )
    return rows


def _learn(rows: pd.DataFrame, stressed, usual, calibration, decision: Decision):
    """What a logistic regression on the signs flags, at the false alarms of the decision."""
    from sklearn.linear_model import LogisticRegression  # here, since nothing else needs it

    if not stressed.any():
        return None
    model = LogisticRegression(class_weight="balanced").fit(_features(rows, decision), stressed)

    def signs(of: pd.DataFrame):
        return {"combination": model.decision_function(_features(of, decision))}

    rule = calibrate(signs(usual), signs(calibration), decision.alpha, decision.delta)
    return lambda held: rule.score(signs(held)) > rule.threshold


def _features(rows: pd.DataFrame, decision: Decision) -> Float[np.ndarray, "run sign"]:
    unusual = decision.unusual(columns(rows, decision.usual))
    return np.minimum(np.stack(list(unusual.values()), axis=1), _BOUND)
