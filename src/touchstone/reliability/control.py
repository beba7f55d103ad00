"""The control, and how well single scores separate stressed cases from the training family."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from touchstone.reliability import guardrail

_TESTED = ("reliability_score", "pred_calibration_error", "pred_nll", "param_nrmse")
_LEVEL = 0.05  # a p-value above it does not tell the control from the training family
_N_PERMUTATIONS = 999  # of which p-values are multiples


def paired(runs: pd.DataFrame) -> dict:
    """Severity 0 of every stress against the training family, paired by base case.

    Wilcoxon's signed ranks, adjusted for the number of tests after Holm, and one test of all
    families and metrics jointly. A small p-value would say that something other than the stress
    tells the splits apart.

    Args:
        runs: Rows of scores with `split`, `family` and `case_index`.

    Returns:
        `passed`, and the joint `p_value` that says so, see `joint`; and a row of `tests` for each
        family and metric.
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
    p_value = joint(runs)
    return {
        "passed": p_value > _LEVEL,
        "p_value": p_value,
        "tests": [{**test, "p_adjusted": p} for test, p in zip(tests, adjusted, strict=True)],
    }


def joint(runs: pd.DataFrame, seed: int = 0) -> float:
    """p-value that nothing tells the controls of a base case from it and from one another.

    They differ in their noise alone, so that they may change places. The largest standardised
    signed-rank statistic of all families and metrics is held against those of base cases whose
    variants are exchanged at random (Westfall and Young 1993): uniform where nothing differs,
    however the metrics hang together.

    Args:
        runs: As in `paired`.
        seed: Of the exchanges.
    """
    controls = runs[runs["split"] == "control"]
    inside = runs[runs["split"] == "in_distribution"].assign(family="")
    table = pd.concat([inside, controls]).set_index(["family", "case_index"])[list(_TESTED)]
    wide = table.unstack("family").dropna()  # base cases of which there is every variant
    order = ["", *dict.fromkeys(controls["family"])]
    values = np.stack([wide[metric][order].to_numpy() for metric in _TESTED], axis=-1)
    rng = np.random.default_rng(seed)
    ours = _largest(values)
    shuffled = np.argsort(rng.random((_N_PERMUTATIONS, *values.shape[:2])), axis=2)
    theirs = [_largest(np.take_along_axis(values, each[..., None], 1)) for each in shuffled]
    # Rounding must not tell equal statistics apart.
    return float((1 + np.sum(np.array(theirs) >= ours - 1e-9)) / (1 + len(theirs)))


def _largest(values: Float[np.ndarray, "case variant metric"]) -> float:
    """Largest signed-rank statistic of all variants against the first, in standard deviations."""
    difference = values[:, 1:] - values[:, :1]
    ranks = np.abs(difference).argsort(0).argsort(0) + 1.0
    signed = (np.sign(difference) * ranks).sum(0)
    return float(np.abs(signed).max() / np.sqrt((ranks[:, :1, :1] ** 2).sum()))


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


def pooled(runs: pd.DataFrame) -> guardrail.Interval:
    """Rate at which a rule flags all controls together; its interval counts base cases.

    Args:
        runs: Rows with `split`, `case_index` and `flagged`.
    """
    controls = runs[runs["split"] == "control"]
    return guardrail.wilson(controls["flagged"].mean(), controls["case_index"].nunique())


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
