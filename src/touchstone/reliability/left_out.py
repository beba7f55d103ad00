"""How a rule does on a kind of failure that it never saw.

The rule that decides learns nothing from failures, so that each family is new to it. Beside it
stand two combinations of the same signs that do learn from them, each time from all families but
one: a regularised logistic regression, and gradient boosting. They are the better where failures
resemble each other; what they gain on the family left out says whether learning is worth its keep.
"""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from touchstone.reliability.decision import Decision, calibrate
from touchstone.reliability.guardrail import wilson
from touchstone.reliability.rivals import columns, score

_BOUND = 6.0  # of how unusual a sign may be, so that one does not outweigh all others
LEARNT = ("combination", "boosted")  # the simpler first


def compare(
    runs: pd.DataFrame,
    fitted_on: Bool[np.ndarray, " case"],
    usual: pd.DataFrame,
    calibration: pd.DataFrame,
    decision: Decision,
) -> list[dict]:
    """Recall of the decision and of the learnt combinations on each family, left out in turn.

    Args:
        runs: Rows of the base cases in distribution and under stress, with their signs.
        fitted_on: Base cases that the combinations learn from; all are scored on the others.
        usual: In-family rows that say what is usual to the decision, and that the combinations
            learn from, too: base cases in distribution are few beside those under stress.
        calibration: In-family rows that set the thresholds of the combinations, as that of the
            decision.
        decision: The rule.

    Returns:
        For each family and severity: `n`, and the recall of the `decision`, the `combination` and
        the `boosted` one, the latter two None where there is no other family to learn from.
    """
    runs = runs[runs["split"] != "control"]
    is_fitted = fitted_on[runs["case_index"]]
    stressed = runs["family"].notna().to_numpy()
    rows = []
    for family in runs["family"].dropna().unique():
        ours = (runs["family"] == family).to_numpy()
        others = is_fitted & ~ours
        seen = pd.concat([runs[others], usual])
        is_stressed = np.append(stressed[others], np.zeros(len(usual), bool))
        learnt = _learn(seen, is_stressed, usual, calibration, decision)
        learnt = learnt or dict.fromkeys(LEARNT)
        for severity, held in runs[ours & ~is_fitted].groupby("severity", sort=True):
            flagged = score(decision, held) > decision.threshold
            rows.append(
                {
                    "family": family,
                    "severity": severity,
                    "n": len(held),
                    "decision": wilson(flagged.mean(), len(held))._asdict(),
                    **{
                        name: flags and wilson(flags(held).mean(), len(held))._asdict()
                        for name, flags in learnt.items()
                    },
                }
            )
    return rows


def _learn(rows: pd.DataFrame, stressed, usual, calibration, decision: Decision):
    """What each learner on the signs flags, at the false alarms of the decision; {} of nothing."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # here, since nothing else
    from sklearn.linear_model import LogisticRegression  # needs them

    if not stressed.any():
        return {}
    learners = (
        LogisticRegression(class_weight="balanced"),
        HistGradientBoostingClassifier(class_weight="balanced", max_leaf_nodes=8, random_state=0),
    )
    fitted = [each.fit(_features(rows, decision), stressed) for each in learners]
    return {
        name: _flags(model, usual, calibration, decision)
        for name, model in zip(LEARNT, fitted, strict=True)
    }


def _flags(model, usual: pd.DataFrame, calibration: pd.DataFrame, decision: Decision):
    """A learner with a threshold from in-family cases, as a function of rows."""

    def signs(of: pd.DataFrame):
        return {"learnt": model.decision_function(_features(of, decision))}

    rule = calibrate(signs(usual), signs(calibration), decision.alpha, decision.delta)
    return lambda held: rule.score(signs(held)) > rule.threshold


def _features(rows: pd.DataFrame, decision: Decision) -> Float[np.ndarray, "run sign"]:
    unusual = decision.unusual(columns(rows, decision.usual))
    return np.minimum(np.stack(list(unusual.values()), axis=1), _BOUND)
