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
from touchstone.stages import checkpoints, randomness, records
from touchstone.vocabulary import Cases, Posterior, Verdict


class Inference(NamedTuple):
    """What came of the stage.

    Attributes:
        report: As `reports.make` gives it.
        cases: The records of the measurement.
        posterior: Theirs: records of one system have one in common.
        prior: Draws of the prior of each record.
    """

    report: dict
    cases: Cases
    posterior: Posterior
    prior: dict[str, np.ndarray]


class Judge(NamedTuple):
    """A loaded artefact, with what its answers are judged by.

    Attributes:
        artefact: Which one.
        loaded: The checkpoint that the model holds.
        guardrail: Report of the rule, verified.
    """

    artefact: checkpoints.Artefact
    loaded: checkpoints.Loaded
    guardrail: dict


def prepare(model: Model, results: Results, checkpoint: str | Path = "") -> Judge:
    """Find the artefact that answers, verify it, and load it into the model.

    Args:
        model: The model.
        results: Of the model.
        checkpoint: Folder; empty as in `checkpoints.find`.

    Raises:
        ArtifactError: If there is none, or it is damaged.
    """
    artefact = checkpoints.find(model.model_id, results, checkpoint)
    guardrail = checkpoints.guardrail_of(artefact)
    return Judge(artefact, checkpoints.load(model, results, artefact.checkpoint), guardrail)


def run(
    model: Model,
    settings: dict,
    results: Results,
    name: str,
    data: str | Path,
    meta: str | Path,
    checkpoint: str | Path = "",
) -> Inference:
    """Infer a measurement, judge its posterior, and write the report.

    Args:
        model: The model.
        settings: As in `answer`.
        results: Where a guardrail of this project is, and the report goes.
        name: Under which the measurement is reported.
        data: File of a record, or a folder of records of one system.
        meta: YAML with what is known about it.
        checkpoint: Folder; empty as in `checkpoints.find`.

    Raises:
        ArtifactError: If a file is missing, damaged, or no measurement of this model.
    """
    judge = prepare(model, results, checkpoint)
    with records.prepared([Path(data)], Path(meta)) as source:
        inference = answer(model, settings, judge, source)
    artifacts.write_json(results.report(f"infer_{name}"), inference.report)
    return inference


def answer(model: Model, settings: dict, judge: Judge, source: records.Source) -> Inference:
    """Infer a measurement and judge its posterior; writes nothing.

    Args:
        model: The model, which holds the artefact of the judge.
        settings: `seed`, and the model's `infer`: the budget of its first method.
        judge: As from `prepare`.
        source: The measurement.

    Raises:
        ArtifactError: If a file is no measurement of this model.
    """
    seed, budget = settings["seed"], settings["infer"]
    guardrail = judge.guardrail["best_guardrail"]
    rule = Rule(guardrail["rel_thr"], guardrail["cal_thr"])
    cases, notes = records.read(model, source)
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
        "measurement": source.measurement,
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
    artefact = judge.artefact
    inputs = {"guardrail": artefact.guardrail, **judge.loaded.inputs, **source.inputs}
    if artefact.certificate:
        inputs["certificate"] = artefact.certificate
    facts = {**judge.loaded.facts, "artefact": artefact.facts, "set": list(source.changes)}
    used = {"infer": budget, "model": model.config}
    report = reports.make("infer", body, reports.lineage(used, seed, inputs, **facts), timing)
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
