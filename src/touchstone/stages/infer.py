"""One measurement: its posterior, and the two verdicts on it."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from touchstone.contract import Model
from touchstone.io import artifacts, reports
from touchstone.io.results import Results
from touchstone.reliability.guardrail import Rule
from touchstone.reliability.scores import coverage_90, predictive_metrics
from touchstone.stages import randomness
from touchstone.stages.checkpoints import load
from touchstone.vocabulary import Cases, Posterior, Verdict


class Inference(NamedTuple):
    """What came of the stage.

    Attributes:
        report: As written.
        cases: The records of the measurement.
        posterior: Theirs: records of one system have one in common.
        prior: Draws of the prior of each record.
    """

    report: dict
    cases: Cases
    posterior: Posterior
    prior: dict[str, np.ndarray]


def run(
    model: Model,
    settings: dict,
    results: Results,
    name: str,
    data: str | Path,
    meta: str | Path,
    checkpoint: str | Path = "",
) -> Inference:
    """Infer a measurement and judge its posterior.

    Args:
        model: The model.
        settings: `seed`, and the model's `infer`: the budget of its first method.
        results: Where the guardrail is, and the report goes.
        name: Under which the measurement is reported.
        data: File of a record, or a folder of records of one system.
        meta: YAML with what is known about it.
        checkpoint: Folder; empty as in `checkpoints.load`.

    Raises:
        ArtifactError: If a file is missing, damaged, or no measurement of this model.
    """
    loaded = load(model, results, checkpoint)
    seed, budget = settings["seed"], settings["infer"]
    guardrail_file = results.report("posterior_failure_mode_report")
    guardrail = artifacts.read_json(guardrail_file)["best_guardrail"]
    rule = Rule(guardrail["rel_thr"], guardrail["cal_thr"])
    cases, notes = model.read(Path(data), Path(meta))
    started = time.perf_counter()
    posterior = model.infer(
        cases, randomness.generator(seed, "infer", 0), method=model.methods[0], budget=budget
    )
    timing = {"infer_s": time.perf_counter() - started}
    metrics = pd.DataFrame(predictive_metrics(cases, posterior) | coverage_90(cases, posterior))
    outside = _numbered(model.outside_training(cases))
    computation, verdict = judge_computation(posterior), judge_model(metrics, outside, rule)
    body = {
        "model_id": model.model_id,
        "measurement": str(data),
        "verdict": verdict.decision,
        "reason": verdict.reason,
        "false_alarm_rate": {k: guardrail["fpr"][k] for k in ("value", "low", "high", "n")},
        "outside_training": outside,
        "notes": notes,
        "computation": {
            "verdict": computation.decision,
            "reason": computation.reason,
            "figures": {k: v[0] for k, v in posterior.computation.figures.items()},
            "log_evidence": posterior.log_evidence[0],
        },
        "posterior": model.table(cases, posterior, randomness.generator(seed, "infer", 1)),
        "metrics": metrics.to_dict("records"),
    }
    inputs = {"meta": meta, "guardrail": guardrail_file, **loaded.inputs, **_files(data)}
    used = {"infer": budget, "model": model.config}
    lineage = reports.lineage(used, seed, inputs, **loaded.facts)
    report = reports.write(results.report(f"infer_{name}"), "infer", body, lineage, timing)
    rng = randomness.generator(seed, "infer", 2)
    return Inference(report, cases, posterior, model.prior(cases, posterior.weight.shape[1], rng))


def judge_computation(posterior: Posterior) -> Verdict:
    """Whether the draws may be believed to be those of the posterior under the model."""
    computation = posterior.computation
    sound = computation.sound(len(posterior.weight))
    worst = int(np.argmin(sound))  # the first that is not, if any
    return Verdict("accept" if sound.all() else "escalate", computation.reason(worst))


def judge_model(metrics: pd.DataFrame, outside: list[str], rule: Rule) -> Verdict:
    """Whether the model explains the measurement: every record, inside what was trained on.

    Args:
        metrics: Of each record.
        outside: What lies outside of the training, in words.
        rule: The guardrail.
    """
    reliability, error = metrics["reliability_score"], metrics["pred_calibration_error"]
    low = [f"the reliability score is {r:.1f}, below {rule.rel_thr:.1f}" for r in reliability]
    high = [f"the calibration error is {e:.3f}, above {rule.cal_thr:.3f}" for e in error]
    found = [
        [low[k]] * bool(reliability[k] < rule.rel_thr) + [high[k]] * bool(error[k] > rule.cal_thr)
        for k in range(len(metrics))
    ]
    reasons = [f"outside the trained range: {what}" for what in outside] + _numbered(found)
    if reasons:
        return Verdict("escalate", "; ".join(reasons))
    return Verdict(
        "accept",
        f"the reliability score is {reliability.min():.1f} (threshold {rule.rel_thr:.1f}), the "
        f"calibration error {error.max():.3f} (threshold {rule.cal_thr:.3f})"
        + (" at worst" if len(metrics) > 1 else ""),
    )


def _numbered(of_records: list[list[str]]) -> list[str]:
    """Words on each record in one list, with the number of the record where there are several."""
    several = len(of_records) > 1
    return [
        (f"record {k}: " if several else "") + what
        for k, words in enumerate(of_records, 1)
        for what in words
    ]


def _files(data: str | Path) -> dict[str, Path]:
    if not Path(data).is_dir():
        return {"data": Path(data)}
    return {f"data {file.name}": file for file in artifacts.files(data)}
