"""After a verdict: inference under a simulator of higher fidelity, and what to measure next."""

from typing import NamedTuple

import numpy as np

from touchstone.contract import Escalated, Model
from touchstone.inference import psis
from touchstone.inference.design import Gain, expected_gain
from touchstone.reliability.decision import Decision
from touchstone.stages.cases import evidence
from touchstone.stages.verdicts import Judged, judge_computation, judge_model
from touchstone.vocabulary import Cases, Json, Posterior, Quantity, Verdict

# Gain in log evidence of a cause that is believed: if the model were right, a gain as large would
# come by chance in e^-5 of all records at most (Markov's inequality: its mean factor is one).
LEAST_GAIN = 5.0
_NARROWED = 0.8  # of its standard deviation: a quantity that a measurement informs
_MOST_DRAWS = 2000


def offered(model: Model) -> bool:
    """Whether a model has a simulator of higher fidelity, or measurements to propose."""
    own, blank = type(model), Model
    return own.escalate is not blank.escalate or own.protocols is not blank.protocols


class Resolution(NamedTuple):
    """Whether a simulator of higher fidelity explains a measurement.

    Attributes:
        escalated: What it infers.
        judged: How it does, by the signs and the rule of the model's own.
        gain: In log evidence.
        computation: Verdict on its draws.
        faults: Why the measurement is not resolved, in words; empty if it is.
    """

    escalated: Escalated
    judged: Judged
    gain: float
    computation: Verdict
    faults: list[str]

    @property
    def resolved(self) -> bool:
        """Whether the cause explains the measurement."""
        return not self.faults


def resolve(
    model: Model,
    cases: Cases,
    posterior: Posterior,
    outside: list[list[str]],
    decision: Decision,
    rng: np.random.Generator,
    budget: Json,
) -> Resolution:
    """Infer a measurement again under the model's simulator of higher fidelity, and judge that.

    Args:
        model: The model.
        cases: The records of a measurement that it does not explain.
        posterior: Theirs.
        outside: What of each record lies outside of the training, in words.
        decision: The rule.
        rng: For all randomness.
        budget: Of the first method.

    Raises:
        NotImplementedError: If the model has no such simulator.
    """
    escalated = model.escalate(cases, posterior, rng, budget=budget)
    found = evidence(model, escalated.cases, escalated.posterior, escalated.quantities)
    judged = judge_model(found, [""] * len(outside), outside, decision)
    computation = judge_computation(escalated.posterior)
    gain = float(escalated.posterior.log_evidence[0] - posterior.log_evidence[0])
    faults = []
    if computation.decision != "accept":
        faults.append(f"the computation is not sound: {computation.reason}")
    if judged.verdict.decision != "accept":
        faults.append(judged.verdict.reason)
    if not LEAST_GAIN <= gain < np.inf:
        faults.append(f"log evidence {gain:+.1f}, where {LEAST_GAIN:g} were needed")
    if not any(_tells(row) for row in escalated.table if row["quantity"] == escalated.size[0]):
        faults.append("there may be nothing of it")
    return Resolution(escalated, judged, gain, computation, faults)


def _tells(row: Json) -> bool:
    """Whether a row of a table says that there is something of a quantity."""
    return row["remark"] == "" or row["remark"].startswith("at least")


def report_of(found: Resolution) -> Json:
    """As a report holds it."""
    escalated = found.escalated
    name, called = escalated.size
    sizes = [row for row in escalated.table if row["quantity"] == name]
    figures = {k: v[0] for k, v in escalated.posterior.computation.figures.items()}
    return {
        "cause": escalated.cause,
        "resolved": found.resolved,
        "size": [
            f"{called}{_of_record(row)} {row['median']:.2g} [{{:.2g}}, {{:.2g}}]".format(
                *row["interval_90"]
            )
            for row in sizes
        ],
        "faults": found.faults,
        "score": found.judged.score,
        "log_evidence": found.gain,
        "computation": {
            "verdict": found.computation.decision,
            "reason": found.computation.reason,
            "figures": figures,
            "log_evidence": escalated.posterior.log_evidence[0],
        },
        "posterior": escalated.table,
    }


def _of_record(row: Json) -> str:
    return f" of record {row['record']}" if row["record"] else ""


def next_measurements(
    model: Model,
    quantities: list[Quantity],
    cases: Cases,
    posterior: Posterior,
    rng: np.random.Generator,
) -> list[Json]:
    """What each measurement that could come next is expected to say, the most informative first.

    Args:
        model: The model.
        quantities: Of the cases.
        cases: The records of a measurement.
        posterior: Theirs.
        rng: For all randomness.

    Returns:
        `protocol`, what to do; `gain` in nats, its standard `error` and what it is `at_most`; and
        `informs`, names of the quantities whose standard deviation it is expected to narrow to at
        most `_NARROWED`, the most first. No rows if the model proposes nothing.
    """
    index = psis.resample(posterior.weight[0], min(posterior.weight.shape[1], _MOST_DRAWS))
    unknown = [k for k in range(len(quantities)) if not cases.known[0, k]]
    entries = np.stack(
        [quantities[k].coordinate(posterior.draws[quantities[k].name][0, index]) for k in unknown],
        axis=1,
    )
    names = [quantities[k].name for k in unknown]
    gains = {
        protocol: expected_gain(expected[index], entries, rng)
        for protocol, expected in model.protocols(cases, posterior).items()
    }
    ranked = sorted(gains.items(), key=lambda item: -item[1].value)
    return [
        {
            "protocol": protocol,
            "gain": gain.value,
            "error": gain.error,
            "at_most": max(gain.at_most, gain.value),
            "informs": _informed(names, gain),
        }
        for protocol, gain in ranked
    ]


def _informed(names: list[str], gain: Gain) -> list[str]:
    order = np.argsort(gain.narrowed, kind="stable")
    return [names[k] for k in order if gain.narrowed[k] <= _NARROWED]


def uninformed(model: Model, table: list[Json]) -> list[str]:
    """Watched quantities of which a table of a posterior has less than an interval."""
    rows = [row for row in table if row["quantity"] in model.config["watched"]]
    return list(dict.fromkeys(row["quantity"] for row in rows if row["remark"]))
