"""Ask a model by the values of its form."""

import time
from typing import Any

from touchstone import registry
from touchstone.contract import Model
from touchstone.io import artifacts, reports
from touchstone.stages import randomness
from touchstone.stages.infer import Judge


class FormError(artifacts.ArtifactError):
    """Values that a form does not allow; the message has every problem."""


def run(model: Model, judge: Judge, seed: int, params: dict[str, Any]) -> dict:
    """Answer to the values of a form; writes nothing.

    Args:
        model: The model, which holds the artefact of the judge.
        judge: As from `infer.prepare`.
        seed: Of all randomness.
        params: Values by the name of their field.

    Raises:
        FormError: If values are missing, of another type, out of bounds, or unknown.
    """
    values, problems = registry.validate_inference_params(model.model_id, params)
    if problems:
        raise FormError(f"{model.model_id}: {'; '.join(problems)}")
    started = time.perf_counter()
    try:
        answer = model.predict(values, randomness.generator(seed, "predict", 0))
    except NotImplementedError as error:
        raise FormError(str(error)) from None
    outside = answer["outside_training"]
    verdict = {
        "verdict": "escalate" if outside else "accept",
        "reason": "; ".join(outside) or "all values lie inside of the training",
    }
    artefact = judge.artefact
    inputs = {"guardrail": artefact.guardrail, **judge.loaded.inputs}
    facts = {**judge.loaded.facts, "artefact": artefact.facts}
    lineage = reports.lineage({"model": model.config}, seed, inputs, **facts)
    body = {"model_id": model.model_id, "values": params, **verdict, **answer}
    timing = {"predict_s": time.perf_counter() - started}
    return reports.make("prediction", {**body, "artefact": artefact.words}, lineage, timing)
