"""One measurement: its posterior, and the two verdicts on it."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from touchstone.contract import LEVEL, Model
from touchstone.io import artifacts, reports
from touchstone.io.artifacts import ArtifactError
from touchstone.io.results import Results
from touchstone.reliability.decision import Decision
from touchstone.reliability.judgeable import obstacles
from touchstone.reliability.scores import coverage_90, predictive_metrics
from touchstone.stages import escalation, randomness, records
from touchstone.stages.cases import diagnostics, evidence
from touchstone.stages.checkpoints import Judge, prepare
from touchstone.stages.verdicts import judge_computation, judge_model, numbered, places
from touchstone.vocabulary import Cases, Posterior

_LEAST_GAIN = 5.0  # in log evidence, of an alternative that is worth a word


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


def example(model: Model, seed: int, results: Results) -> tuple[Path, Path]:
    """The simulated measurement of a model and its metadata, written where they are not there."""
    data, meta = results.example
    if not data.is_file() or not meta.is_file():
        model.example(randomness.generator(seed, "infer", 3), data, meta)
    return data, meta


def run(
    model: Model,
    settings: dict,
    results: Results,
    name: str,
    data: str | Path,
    meta: str | Path = "",
    checkpoint: str | Path = "",
    escalate: bool = False,
) -> Inference:
    """Infer a measurement, judge its posterior, and write the report, its table also as CSV.

    Args:
        model: The model.
        settings: As in `answer`.
        results: Where a guardrail of this project is, and the report goes.
        name: Under which the measurement is reported.
        data: File of a record, or a folder of records of one system.
        meta: YAML with what is known about it; empty takes the YAML of the same name.
        checkpoint: Folder; empty as in `checkpoints.find`.
        escalate: As in `answer`.

    Raises:
        ArtifactError: If a file is missing, damaged, or no measurement of this model.
    """
    judge = prepare(model, results, checkpoint)
    with records.prepared([Path(data)], Path(meta) if meta else None) as source:
        inference = answer(model, settings, judge, source, escalate)
    artifacts.write_json(results.report(f"infer_{name}"), inference.report)
    artifacts.write_csv(results.table(f"infer_{name}"), posterior_rows(inference.report))
    return inference


def posterior_rows(report: dict) -> list[dict]:
    """The posterior of a report as rows of plain values, for a CSV."""
    return [
        {
            "quantity": row["quantity"],
            "record": row["record"],
            "unit": row["unit"],
            "mean": row["mean"],
            "median": row["median"],
            **dict(zip(("low_90", "high_90"), row["interval_90"], strict=True)),
            **dict(zip(("prior_low_90", "prior_high_90"), row["prior_interval_90"], strict=True)),
            "remark": row["remark"],
        }
        for row in report["posterior"]
    ]


def answer(
    model: Model, settings: dict, judge: Judge, source: records.Source, escalate: bool = False
) -> Inference:
    """Infer a measurement and judge its posterior; writes nothing.

    Args:
        model: The model, which holds the artefact of the judge.
        settings: `seed`; the model's `infer`, the budget of its first method; and `budgets`.
        judge: As from `prepare`.
        source: The measurement.
        escalate: Whether to act on the verdict: infer again under a simulator of higher fidelity
            where the model does not explain the measurement, and say what to measure next.

    Raises:
        ArtifactError: If a file is no measurement of this model.
    """
    seed, budget = settings["seed"], settings["infer"]
    decision = Decision.from_json(judge.guardrail["decision"])
    cases, notes = records.read(model, source)
    unjudged = _obstacles(cases, source)
    started = time.perf_counter()
    posterior = model.infer(
        cases, randomness.generator(seed, "infer", 0), method=model.methods[0], budget=budget
    )
    timing = {"infer_s": time.perf_counter() - started}
    found = evidence(model, cases, posterior)
    metrics = pd.DataFrame(
        predictive_metrics(cases, posterior)
        | coverage_90(cases, posterior)
        | found
        | diagnostics(model, cases, posterior)
    )
    outside = model.outside_training(cases)
    computation = judge_computation(posterior)
    judged = judge_model(found, places(model, cases, posterior), outside, decision, unjudged)
    rate = judge.false_alarms
    others = []
    if judged.verdict.decision == "escalate":
        rng = randomness.generator(seed, "infer", 4)
        others = explain(model, cases, posterior, rng, settings["budgets"][model.methods[0]])
    body = {
        "model_id": model.model_id,
        "measurement": source.measurement,
        "verdict": judged.verdict.decision,
        "reason": judged.verdict.reason,
        "level": LEVEL,
        "score": judged.score,
        "threshold": decision.threshold,
        "promise": {"alpha": decision.alpha, "delta": decision.delta},
        "false_alarm_rate": rate,
        "signs": [
            {name: value[k] for name, value in judged.unusual.items()} for k in range(len(outside))
        ],
        "outside_training": numbered(outside),
        "notes": notes,
        "alternatives": others,
        "cautions": model.cautions(cases, posterior),
        "computation": {
            "verdict": computation.decision,
            "reason": computation.reason,
            "figures": {k: v[0] for k, v in posterior.computation.figures.items()},
            "log_evidence": posterior.log_evidence[0],
        },
        "posterior": model.table(cases, posterior, randomness.generator(seed, "infer", 1)),
        "metrics": metrics.to_dict("records"),
    }
    if own := model.drawings(cases, posterior):
        body["drawings"] = [{"name": each.name, "caption": each.caption} for each in own]
    body["uninformed"] = escalation.uninformed(model, body["posterior"])
    verdict = judged.verdict.decision
    leaves_open = verdict == "escalate" or (verdict == "accept" and bool(body["uninformed"]))
    if escalate and leaves_open:
        started = time.perf_counter()
        body |= _after(model, settings, (cases, posterior, outside), body, decision)
        timing["escalate_s"] = time.perf_counter() - started
    elif leaves_open and escalation.offered(model):
        body["command"] = f"touchstone infer {Path(source.measurement).name} --escalate"
    artefact = judge.artefact
    inputs = {"guardrail": artefact.guardrail, **judge.loaded.inputs, **source.inputs}
    if artefact.certificate:
        inputs["certificate"] = artefact.certificate
    facts = {**judge.loaded.facts, "artefact": artefact.facts, "set": list(source.changes)}
    used = {**{name: settings[name] for name in ("infer", "budgets")}, "model": model.config}
    report = reports.make("infer", body, reports.lineage(used, seed, inputs, **facts), timing)
    rng = randomness.generator(seed, "infer", 2)
    return Inference(report, cases, posterior, model.prior(cases, posterior.weight.shape[1], rng))


def _after(
    model: Model,
    settings: dict,
    inferred: tuple[Cases, Posterior, list[list[str]]],
    body: dict,
    decision: Decision,
) -> dict:
    """What follows from the verdict and the table of a report: `escalation`, `next_measurements`.

    Where the simulator of higher fidelity has more evidence than the model, what is to be measured
    next is to narrow its posterior, else that of the model.
    """
    cases, posterior, outside = inferred
    streams = (randomness.generator(settings["seed"], "infer", number) for number in (5, 6))
    quantities, uninformed = model.quantities, body["uninformed"]
    settled, after = body["verdict"] == "accept", {}
    if not settled:
        try:
            found = escalation.resolve(
                model, cases, posterior, outside, decision, next(streams), settings["infer"]
            )
        except NotImplementedError:
            after["escalation"] = None
        else:
            after["escalation"] = escalation.report_of(found)
            settled = found.resolved
            if found.gain > 0:
                _, quantities, cases, posterior, table, _ = found.escalated
                uninformed = escalation.uninformed(model, table)
    if settled and not uninformed:
        return after
    proposed = escalation.next_measurements(model, quantities, cases, posterior, next(streams))
    return after | {"next_measurements": proposed}


def explain(
    model: Model, cases: Cases, posterior: Posterior, rng: np.random.Generator, budget: dict
) -> list[dict]:
    """What would have to be so for the measurement to be explained better, the best first.

    Args:
        model: The model.
        cases: The records of a measurement that it does not explain.
        posterior: Theirs.
        rng: For all randomness.
        budget: Of the first method, for a simulated case: evidences need no more.

    Returns:
        `cause`, in words, and the gain in `log_evidence`, of each alternative with a gain of at
        least `_LEAST_GAIN`. Those of like gain the data cannot tell apart.
    """
    ours, found = posterior.log_evidence[0], []
    for cause, other in model.alternatives(cases).items():
        got = model.infer(other, rng, method=model.methods[0], budget=budget).log_evidence[0]
        if got - ours >= _LEAST_GAIN:
            found.append({"cause": cause, "log_evidence": float(got - ours)})
    return sorted(found, key=lambda each: -each["log_evidence"])


def _obstacles(cases: Cases, source: records.Source) -> list[list[str]]:
    """What keeps each record from being judged, where there is something to infer from.

    Raises:
        ArtifactError: If a sample is no number, or there is none: no engine takes such a record.
    """
    found = obstacles(cases)
    if (
        not np.isfinite(np.where(cases.mask, cases.observed, 0.0)).all()
        or not cases.mask.any(1).all()
    ):
        raise ArtifactError(f"{source.measurement}: cannot judge: {'; '.join(numbered(found))}")
    return found
