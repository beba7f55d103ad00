"""Calibrate the rule that accepts or escalates, and score it beside others."""

import time
from typing import NamedTuple

import numpy as np
import pandas as pd

from touchstone.io import reports
from touchstone.io.results import Results
from touchstone.reliability import control, guardrail
from touchstone.reliability.decision import Decision, calibrate
from touchstone.reliability.signs import MEANING
from touchstone.stages import randomness

TRIVIAL = "max_abs_observed"  # the score that needs no thought: how large the observation is
_USUAL_PART = 0.3  # of the calibration cases: they say what is usual, the others set the threshold


class Guarded(NamedTuple):
    """What came of the stage.

    Attributes:
        report: As written.
        decision: The rule that decides.
        historical: The rule of two thresholds that it is compared with.
        scored: Rows that neither has seen, with the `score` of each and whether it is `flagged`.
    """

    report: dict
    decision: Decision
    historical: guardrail.Rule
    scored: pd.DataFrame


def run(settings: dict, results: Results) -> Guarded:
    """Calibrate the rule on the score table of the stress stage, and score it.

    The rule sees only the calibration cases. Those that it is compared with are fitted on some of
    the base cases, and all are scored on the others; all variants of one experiment are on one
    side.

    Args:
        settings: `seed`; `alpha`, the highest false-alarm rate; `delta`, the chance that it is
            exceeded; and `fit_part`, the part of the base cases that others are fitted on.
        results: Where the score table is, and the report goes.
    """
    started = time.perf_counter()
    seed, source = settings["seed"], results.report("stress_report")
    table = reports.read(source, "stress_report")
    runs = pd.DataFrame(table["runs"])
    rng = randomness.generator(seed, "guardrail")
    decision = _calibrate(runs[runs["split"] == "calibration"], settings, rng)
    runs = runs[runs["split"] != "calibration"]
    fitted_on = guardrail.halves(runs["case_index"].nunique(), settings["fit_part"], rng)
    runs["stressed"] = runs["split"].str.startswith("stress_")
    runs["score"] = decision.score(_signs(runs))
    is_fitted = fitted_on[runs["case_index"]]
    rules = _fit(runs[is_fitted & (runs["split"] != "control")], settings["alpha"])
    # The rule has seen no base case: its rates by variant are of all of them. Beside the others,
    # which were fitted on some, it is scored on the same cases as they.
    judged = runs.assign(flagged=runs["score"] > decision.threshold)
    held, scored = runs[~is_fitted], judged[~is_fitted]
    scores = _score(
        held,
        {"decision": scored["flagged"].to_numpy()}
        | {name: flag(held) for name, flag in rules.items()},
    )
    historical, ours = rules["historical pair"].rule, scores.pop("decision")
    n_scored = int((~fitted_on).sum())
    body = {
        "model_id": table["model_id"],
        **{name: table[name] for name in ("config", "split_summary", "runs")},
        "decision": decision.to_json(),
        "decision_score": {**ours, "n_scored_cases": n_scored},
        "best_guardrail": {
            **historical._asdict(),
            "alpha": settings["alpha"],
            "n_fitted_cases": int(fitted_on.sum()),
            "n_scored_cases": n_scored,
            **scores.pop("historical pair"),
        },
        "baselines": scores,
        "by_variant": _by_variant(judged, ours["fpr"]["high"]),
        "control": {"stress": table["control"], "guardrail": control.of_rule(judged)},
    }
    lineage = reports.lineage(
        {name: settings[name] for name in ("alpha", "delta", "fit_part")}, seed, {"stress": source}
    )
    timing = {"guardrail_s": time.perf_counter() - started}
    name = "posterior_failure_mode_report"
    report = reports.write(results.report(name), name, body, lineage, timing)
    return Guarded(report, decision, historical, scored)


def _signs(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    return {name: rows[name].to_numpy(float) for name in MEANING}


def _calibrate(rows: pd.DataFrame, settings: dict, rng: np.random.Generator) -> Decision:
    """The decision: some cases say what is usual, the others set the threshold."""
    usual = guardrail.halves(len(rows), _USUAL_PART, rng)
    found = _signs(rows)
    parts = ({name: values[which] for name, values in found.items()} for which in (usual, ~usual))
    return calibrate(*parts, settings["alpha"], settings["delta"])


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
        "historical pair": _Flags(rule),
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
