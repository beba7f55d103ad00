"""One measurement: its posterior, and the two verdicts on it."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from touchstone.contract import Model
from touchstone.io import artifacts, reports
from touchstone.io.artifacts import ArtifactError
from touchstone.io.results import Results
from touchstone.reliability.decision import CERTAIN, Decision
from touchstone.reliability.judgeable import obstacles
from touchstone.reliability.scores import coverage_90, predictive_metrics
from touchstone.reliability.signs import LOCAL, MEANING, NAMES, where
from touchstone.stages import randomness, records
from touchstone.stages.cases import evidence
from touchstone.stages.checkpoints import Judge, prepare
from touchstone.vocabulary import Cases, Posterior, Verdict

_RARE = 1.0  # of a sign that is named: as in 1 of 10 simulated records
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

    Raises:
        ArtifactError: If a file is missing, damaged, or no measurement of this model.
    """
    judge = prepare(model, results, checkpoint)
    with records.prepared([Path(data)], Path(meta) if meta else None) as source:
        inference = answer(model, settings, judge, source)
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


def answer(model: Model, settings: dict, judge: Judge, source: records.Source) -> Inference:
    """Infer a measurement and judge its posterior; writes nothing.

    Args:
        model: The model, which holds the artefact of the judge.
        settings: `seed`; the model's `infer`, the budget of its first method; and `budgets`.
        judge: As from `prepare`.
        source: The measurement.

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
        predictive_metrics(cases, posterior) | coverage_90(cases, posterior) | found
    )
    outside, places = model.outside_training(cases), _places(model, cases, posterior)
    computation = judge_computation(posterior)
    judged = judge_model(found, places, outside, decision, unjudged)
    rate = judge.guardrail["decision_score"]["fpr"]
    others = []
    if judged.verdict.decision == "escalate":
        rng = randomness.generator(seed, "infer", 4)
        others = explain(model, cases, posterior, rng, settings["budgets"][model.methods[0]])
    body = {
        "model_id": model.model_id,
        "measurement": source.measurement,
        "verdict": judged.verdict.decision,
        "reason": judged.verdict.reason,
        "score": judged.score,
        "threshold": decision.threshold,
        "promise": {"alpha": decision.alpha, "delta": decision.delta},
        "false_alarm_rate": rate,
        "signs": [
            {name: value[k] for name, value in judged.unusual.items()} for k in range(len(places))
        ],
        "outside_training": _numbered(outside),
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
    artefact = judge.artefact
    inputs = {"guardrail": artefact.guardrail, **judge.loaded.inputs, **source.inputs}
    if artefact.certificate:
        inputs["certificate"] = artefact.certificate
    facts = {**judge.loaded.facts, "artefact": artefact.facts, "set": list(source.changes)}
    used = {**{name: settings[name] for name in ("infer", "budgets")}, "model": model.config}
    report = reports.make("infer", body, reports.lineage(used, seed, inputs, **facts), timing)
    rng = randomness.generator(seed, "infer", 2)
    return Inference(report, cases, posterior, model.prior(cases, posterior.weight.shape[1], rng))


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
        raise ArtifactError(f"{source.measurement}: cannot judge: {'; '.join(_numbered(found))}")
    return found


def judge_computation(posterior: Posterior) -> Verdict:
    """Whether the draws may be believed to be those of the posterior under the model."""
    computation = posterior.computation
    sound = computation.sound(len(posterior.weight))
    worst = int(np.argmin(sound))  # the first that is not, if any
    return Verdict("accept" if sound.all() else "escalate", computation.reason(worst))


class Judged(NamedTuple):
    """How a model does on the records of a measurement.

    Attributes:
        verdict: Whether it explains all of them.
        score: Of the record that is explained worst, as `Decision.score`, less what the worst of
            several has by chance.
        unusual: How unusual each sign is, by its name, shape (record,) each.
    """

    verdict: Verdict
    score: float
    unusual: dict[str, np.ndarray]


def judge_model(
    found: dict[str, np.ndarray],
    places: list[str],
    outside: list[list[str]],
    decision: Decision,
    unjudged: list[list[str]] | None = None,
) -> Judged:
    """Whether the model explains a measurement: every record, and inside what was trained on.

    Args:
        found: Signs, by name, shape (record,) each.
        places: Where each record is explained worst, in words.
        outside: What of each record lies outside of the training, in words.
        decision: The rule.
        unjudged: What keeps each record from being judged, in words; nothing if not given.
    """
    unusual = decision.unusual(found)
    # The worst of several records is unusual more often than one is (Bonferroni).
    several = np.log10(len(places))
    scores = decision.score(found) - several
    limit = _one_in(decision.threshold + several)
    likeness = decision.covariate.removeprefix("condition_")
    records_ = "simulated records" + (f" of like {likeness}" if likeness else "")
    reasons = [
        [f"outside the trained range: {what}" for what in outside[k]]
        + (
            [
                f"{_remarkable(unusual, k, places[k])}; together the signs of misfit are as in "
                f"{_one_in(scores[k] + several)} {records_} (the limit is {limit})"
            ]
            if scores[k] > decision.threshold
            else []
        )
        for k in range(len(places))
    ]
    if unjudged and any(unjudged):
        decided = Verdict("cannot judge", "; ".join(_numbered(unjudged)))
    elif any(reasons):
        decided = Verdict("escalate", "; ".join(_numbered(reasons)))
    else:
        name = max(unusual, key=lambda each: unusual[each].max())
        decided = Verdict(
            "accept",
            f"together the signs of misfit are as in {_one_in(scores.max() + several)} {records_}, "
            f"within the limit of {limit}; the most unusual one, {NAMES[name]}, is as in "
            f"{_one_in(unusual[name].max())}",
        )
    certain = CERTAIN if any(map(len, [*outside, *(unjudged or [])])) else 0.0
    return Judged(decided, float(max(scores.max(), certain)), unusual)


def _remarkable(unusual: dict[str, np.ndarray], record: int, place: str) -> str:
    """What the signs of a record say that are rare, the rarest first; of all, if none is rare."""
    ranked = sorted(unusual.items(), key=lambda item: -item[1][record])
    shown = [item for item in ranked if item[1][record] >= _RARE] or ranked[:1]
    return ", ".join(
        f"{MEANING[name]}{place if name in LOCAL else ''} (as in {_one_in(values[record])})"
        for name, values in shown
    )


def _one_in(score: float) -> str:
    """A part of cases in words, from its -log10."""
    number = 10 ** min(score, 6.0)
    if score > 6:
        return "fewer than 1 in a million"
    return f"1 in {number:.1f}" if number < 10 else f"1 in {float(f'{number:.2g}'):,.0f}"


def _places(model: Model, cases: Cases, posterior: Posterior) -> list[str]:
    """Where each record is explained worst, in words."""
    found = []
    for k, innovation in enumerate(posterior.prediction.innovation):
        first, last = where(innovation, cases.mask[k])
        view = model.view(cases, k)
        found.append(f" (worst at {view.x_label}: {view.x[first]:.3g} to {view.x[last]:.3g})")
    return found


def _numbered(of_records: list[list[str]]) -> list[str]:
    """Words on each record in one list, with the number of the record where there are several."""
    several = len(of_records) > 1
    return [
        (f"record {k}: " if several else "") + what
        for k, words in enumerate(of_records, 1)
        for what in words
    ]
