"""The control, and how well single scores separate stressed cases from the training family."""

import numpy as np
import pandas as pd

from touchstone.reliability import guardrail

_TESTED = ("reliability_score", "pred_calibration_error", "pred_nll", "param_nrmse")
_LEVEL = 0.05  # an adjusted p-value above it does not tell the control from the training family


def paired(runs: pd.DataFrame) -> dict:
    """Severity 0 of every stress against the training family, paired by base case.

    Wilcoxon's signed ranks, adjusted for the number of tests after Holm. A small p-value would say
    that something other than the stress tells the splits apart.

    Args:
        runs: Rows of scores with `split`, `family` and `case_index`.

    Returns:
        `passed`, and a row of `tests` for each family and metric.
    """
    in_family = runs[runs["split"] == "in_distribution"].set_index("case_index")
    tests: list[dict] = []
    for family, rows in runs[runs["split"] == "control"].groupby("family", sort=False):
        ours = rows.set_index("case_index")
        theirs = in_family.loc[ours.index]
        for metric in _TESTED:
            a, b = ours[metric].to_numpy(), theirs[metric].to_numpy()
            tests.append(
                {
                    "family": family,
                    "metric": metric,
                    "n": len(a),
                    "mean_difference": float((a - b).mean()),
                    "p_value": guardrail.paired_p_value(a, b),
                }
            )
    adjusted = guardrail.holm([test["p_value"] for test in tests])
    return {
        "passed": min(adjusted) > _LEVEL,
        "tests": [{**test, "p_adjusted": p} for test, p in zip(tests, adjusted, strict=True)],
    }


def of_rule(runs: pd.DataFrame) -> list[dict]:
    """Whether a rule flags each control as it flags the training family (exact McNemar test).

    Args:
        runs: Rows with `split`, `family`, `case_index` and `flagged`.
    """
    in_family = runs[runs["split"] == "in_distribution"].set_index("case_index")["flagged"]
    tests = []
    for family, rows in runs[runs["split"] == "control"].groupby("family", sort=False):
        flagged = rows.set_index("case_index")["flagged"].loc[in_family.index]
        only_control = int((flagged & ~in_family).sum())
        only_reference = int((~flagged & in_family).sum())
        tests.append(
            {
                "family": family,
                "n": len(flagged),
                "only_control": only_control,
                "only_reference": only_reference,
                "p_value": guardrail.sign_p_value(only_control, only_reference),
            }
        )
    return tests


def separation(runs: pd.DataFrame, scores: dict[str, int]) -> list[dict]:
    """How well single scores tell each stressed variant from the training family.

    Args:
        runs: Rows of scores, of one method.
        scores: Columns, with the sign that makes a suspicious case score high.

    Returns:
        A row for each family and severity: the chance that a stressed case scores higher.
    """
    reference = runs[runs["split"] == "in_distribution"]
    rows = []
    groups = runs.dropna(subset=["family"]).groupby(["family", "severity"], sort=False)
    for (family, severity), stressed in groups:  # ty: ignore[not-iterable] keys are pairs
        is_stressed = np.repeat([False, True], [len(reference), len(stressed)])
        areas = {
            name: guardrail.separation(
                sign * np.concatenate([reference[name], stressed[name]]), is_stressed
            )
            for name, sign in scores.items()
        }
        rows.append({"family": family, "severity": severity, "n": len(stressed), **areas})
    return rows
