"""The two verdicts on a measurement, from its signs and its computation, in words."""

from typing import NamedTuple

import numpy as np

from touchstone.contract import Model
from touchstone.reliability.decision import CERTAIN, OUTSIDE, Decision
from touchstone.reliability.signs import LOCAL, MEANING, NAMES, where
from touchstone.vocabulary import Cases, Posterior, Verdict

_RARE = 1.0  # of a sign that is named: as in 1 of 10 simulated records


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
    inside = np.zeros(len(places))  # what is outside has words of its own
    scores = decision.score(found | {OUTSIDE: inside}) - several
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
        decided = Verdict("cannot judge", "; ".join(numbered(unjudged)))
    elif any(reasons):
        decided = Verdict("escalate", "; ".join(numbered(reasons)))
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


def places(model: Model, cases: Cases, posterior: Posterior) -> list[str]:
    """Where each record is explained worst, in words."""
    found = []
    for k, innovation in enumerate(posterior.prediction.innovation):
        first, last = where(innovation, cases.mask[k])
        view = model.view(cases, k)
        found.append(f" (worst at {view.x_label}: {view.x[first]:.3g} to {view.x[last]:.3g})")
    return found


def numbered(of_records: list[list[str]]) -> list[str]:
    """Words on each record in one list, with the number of the record where there are several."""
    several = len(of_records) > 1
    return [
        (f"record {k}: " if several else "") + what
        for k, words in enumerate(of_records, 1)
        for what in words
    ]
