"""A measured system had something about it been otherwise: abduction, action and prediction.

The measurement is inferred and judged as `infer` does it; from its posterior the model answers.
"""

import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from touchstone import contract
from touchstone.contract import Model
from touchstone.io import reports
from touchstone.io.artifacts import ArtifactError
from touchstone.stages import randomness, records
from touchstone.stages.checkpoints import Judge

if TYPE_CHECKING:
    from touchstone.stages.infer import Inference

STRATEGIES = ("strict_physics", "report_only")


class Asked(NamedTuple):
    """What is asked.

    Attributes:
        do: Values by name, or words such as "mass=2x, metallicity=0.02".
        mode: How effects respond.
        strategy: What becomes of an answer that violates a law.
    """

    do: str | Mapping[str, float | str]
    mode: str
    strategy: str


class Answered(NamedTuple):
    """An answer.

    Attributes:
        report: As `reports.make` gives it.
        inference: Of the measurement.
    """

    report: dict
    inference: "Inference"


def run(
    model: Model,
    judge: Judge,
    settings: dict,
    observation: str | Path | Mapping[str, Any],
    asked: Asked,
) -> Answered:
    """Answer a counterfactual question; writes nothing.

    Args:
        model: The model, which holds the artefact of the judge.
        judge: As from `checkpoints.prepare`.
        settings: As in `infer.answer`.
        observation: File, with a YAML file beside it or none, or values by the name of the field.
        asked: The question.

    Raises:
        ArtifactError: If the model answers no such question, or the observation or the question
            makes no sense.
    """
    from touchstone.stages import infer  # here: a form that measures nothing starts without it

    if not answers(model):
        others = [m for m in contract.folders() if answers(contract.load_model(m))]
        raise ArtifactError(
            f"{model.model_id}: answers no counterfactuals, those that do are {', '.join(others)}"
        )
    if asked.strategy not in STRATEGIES:
        raise ArtifactError(f"strategy: {asked.strategy!r} is none of {', '.join(STRATEGIES)}")
    answer = model.counterfactual(in_words(asked.do), mode=asked.mode, strategy=asked.strategy)
    started = time.perf_counter()
    with measured(model, observation) as source:
        inference = infer.answer(model, settings, judge, source)
    rng = randomness.generator(settings["seed"], "predict", 0)
    own = answer(inference.cases, inference.posterior, rng)
    factual = inference.report
    reasons = [factual["reason"]] if factual["verdict"] == "escalate" else []
    reasons += own["refusals"]
    body = {
        "model_id": model.model_id,
        "observation": dict(observation) if isinstance(observation, Mapping) else str(observation),
        "mode": asked.mode,
        "strategy": asked.strategy,
        "level": contract.LEVEL,
        "verdict": "escalate" if reasons else "accept",
        "reason": "; ".join(reasons) or factual["reason"],
        "computation": {name: factual["computation"][name] for name in ("verdict", "reason")},
        **own,
        "notes": factual["notes"],
        "outside_training": factual["outside_training"],
        "artefact": judge.artefact.words,
    }
    timing = {"counterfactual_s": time.perf_counter() - started}
    report = reports.make("counterfactual", body, factual["lineage"], timing)
    return Answered(report, inference)


def answers(model: Model) -> bool:
    """Whether a model answers counterfactual questions."""
    return type(model).counterfactual is not Model.counterfactual


def in_words(do: str | Mapping[str, float | str]) -> str:
    """Actions in words: a number is what its name is set to, "2x" multiplies, "+0.3" adds."""
    if isinstance(do, str):
        return do
    return ", ".join(
        f"{name}{value}" if str(value).startswith(("+", "-")) and isinstance(value, str)
        else f"{name}={value}"
        for name, value in do.items()
    )  # fmt: skip


@contextmanager
def measured(model: Model, observation: str | Path | Mapping[str, Any]) -> Generator:
    """An observation as a measurement on disk; one of values is gone afterwards."""
    if isinstance(observation, Mapping):
        with tempfile.TemporaryDirectory(prefix="touchstone-") as folder:
            data, meta = Path(folder) / "form.csv", Path(folder) / "form.yaml"
            model.record(dict(observation), data, meta)
            try:
                yield records.Source("form", "the values of the form", data, meta, {}, ())
            except ArtifactError as error:
                text = str(error)
                for file in (data, meta):
                    text = text.replace(str(file), model.model_id)
                raise ArtifactError(text) from None
        return
    data = Path(observation)
    if not data.is_file() and not data.is_dir():
        raise ArtifactError(f"{data}: no such file")
    meta = data.with_suffix(".yaml")
    inputs = {"data": data} | ({"meta": meta} if meta.is_file() else {})
    yield records.Source(records.name_of(data), str(data), data, meta, inputs, ())
