"""Fit the rule that accepts or escalates on some base cases, and score it on the others."""

import time
from typing import NamedTuple

import numpy as np
import pandas as pd

from touchstone.io import artifacts, reports
from touchstone.io.results import Results
from touchstone.reliability import control, guardrail
from touchstone.stages import randomness

TRIVIAL = "max_abs_observed"  # the score that needs no thought: how large the observation is


class Guarded(NamedTuple):
    """What came of the stage.

    Attributes:
        report: As written.
        rule: The rule.
        scored: Rows that it was not fitted on, with whether each was `flagged`.
    """

    report: dict
    rule: guardrail.Rule
    scored: pd.DataFrame


def run(settings: dict, results: Results) -> Guarded:
    """Fit and score the rule on the score table of the stress stage.

    The split is by base case: all variants of one experiment are on one side.

    Args:
        settings: `seed`; `alpha`, the highest false-alarm rate on the cases fitted on; and
            `fit_part`, the part of the base cases that is fitted on.
        results: Where the score table is, and the report goes.
    """
    started = time.perf_counter()
    seed, source = settings["seed"], results.report("stress_report")
    table = artifacts.read_json(source)
    runs = pd.DataFrame(table["runs"])
    rng = randomness.generator(seed, "guardrail")
    fitted_on = guardrail.halves(runs["case_index"].nunique(), settings["fit_part"], rng)
    runs["stressed"] = runs["split"].str.startswith("stress_")
    is_fitted = fitted_on[runs["case_index"]]
    rules = _fit(runs[is_fitted & (runs["split"] != "control")], settings["alpha"])
    held = runs[~is_fitted]
    scores = _score(held, {name: flag(held) for name, flag in rules.items()})
    rule, scored = rules["guardrail"].rule, held.assign(flagged=rules["guardrail"](held))
    best = scores.pop("guardrail")
    body = {
        "model_id": table["model_id"],
        **{name: table[name] for name in ("config", "split_summary", "runs")},
        "best_guardrail": {
            **rule._asdict(),
            "alpha": settings["alpha"],
            "n_fitted_cases": int(fitted_on.sum()),
            "n_scored_cases": int((~fitted_on).sum()),
            **best,
        },
        "baselines": scores,
        "by_variant": _by_variant(scored, best["fpr"]["high"]),
        "control": {"stress": table["control"], "guardrail": control.of_rule(scored)},
    }
    lineage = reports.lineage(
        {name: settings[name] for name in ("alpha", "fit_part")}, seed, {"stress": source}
    )
    timing = {"guardrail_s": time.perf_counter() - started}
    name = "posterior_failure_mode_report"
    report = reports.write(results.report(name), name, body, lineage, timing)
    return Guarded(report, rule, scored)


class _Flags(NamedTuple):
    """A rule over rows of scores."""

    rule: guardrail.Rule

    def __call__(self, rows: pd.DataFrame) -> np.ndarray:
        return self.rule.flags(
            rows["reliability_score"].to_numpy(), rows["pred_calibration_error"].to_numpy()
        )


def _fit(rows: pd.DataFrame, alpha: float) -> dict:
    """The rule and the rules that need no thought, as functions of rows."""
    stressed = rows["stressed"].to_numpy()
    rule = guardrail.fit(
        rows["reliability_score"].to_numpy(),
        rows["pred_calibration_error"].to_numpy(),
        stressed,
        alpha,
    )
    largest = guardrail.fit_threshold(-rows[TRIVIAL].to_numpy(), stressed, alpha)
    return {
        "guardrail": _Flags(rule),
        TRIVIAL: lambda held: (-held[TRIVIAL] > largest).to_numpy(),
        "flag everything": lambda held: np.ones(len(held), bool),
        "flag nothing": lambda held: np.zeros(len(held), bool),
    }


def _score(held: pd.DataFrame, flags: dict[str, np.ndarray]) -> dict[str, dict]:
    judged = (held["split"] != "control").to_numpy()
    stressed, case = held["stressed"].to_numpy()[judged], held["case_index"].to_numpy()[judged]
    return {name: guardrail.score(flag[judged], stressed, case) for name, flag in flags.items()}


def _by_variant(scored: pd.DataFrame, false_alarms_high: float) -> list[dict]:
    """Part flagged of each variant; detected is what lies above the false alarms' interval."""
    rows = []
    keys = ["split", "family", "severity"]
    groups = scored.groupby(keys, dropna=False, sort=False)
    for (split, family, severity), group in groups:  # ty: ignore[not-iterable] keys are triples
        rate = guardrail.wilson(group["flagged"].mean(), len(group))
        rows.append(
            {
                "split": split,
                "family": None if pd.isna(family) else family,
                "severity": severity,
                "flagged": rate._asdict(),
                "detected": bool(rate.low > false_alarms_high),
            }
        )
    return rows
