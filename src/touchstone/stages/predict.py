"""Ask a model by the values of its form.

Where the form describes a measurement, the answer is that of `infer` to the same measurement, from
the same lines of code.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from touchstone import registry
from touchstone.contract import LEVEL, Model
from touchstone.io import artifacts, reports
from touchstone.io.artifacts import ArtifactError
from touchstone.stages import counterfactual, randomness
from touchstone.stages.checkpoints import Judge


class FormError(artifacts.ArtifactError):
    """Values that a form does not allow.

    Attributes:
        problems: All of them, in words that begin with the name of the field.
    """

    def __init__(self, model_id: str, problems: list[str]):
        super().__init__(f"{model_id}: {'; '.join(problems)}")
        self.problems = problems


def run(model: Model, judge: Judge, settings: dict, params: dict[str, Any]) -> dict:
    """Answer to the values of a form; writes nothing.

    Args:
        model: The model, which holds the artefact of the judge.
        judge: As from `checkpoints.prepare`.
        settings: `seed`; and where the form describes a measurement, `infer` and `budgets`.
        params: Values by the name of their field.

    Raises:
        FormError: If values are missing, of another type, out of bounds, unknown, or do not go
            together; all problems at once.
        ArtifactError: If they describe nothing that the model can answer.
    """
    values, problems = registry.validate_inference_params(model.model_id, params)
    problems += model.form_problems(values)
    if problems:
        raise FormError(model.model_id, problems)
    started = time.perf_counter()
    try:
        if counterfactual.answers(model) and values.get("do"):
            answer = _otherwise(model, judge, settings, values)
        else:
            answer = _predicted(model, settings["seed"], values)
    except NotImplementedError:
        answer = _measured(model, judge, settings, values, params)
    artefact = judge.artefact
    facts = {**judge.loaded.facts, "artefact": artefact.facts}
    lineage = reports.lineage(
        {"model": model.config}, settings["seed"], judge.loaded.inputs, **facts
    )
    said = {"level": LEVEL, **answer, "artefact": artefact.words}
    body = {"model_id": model.model_id, "values": params, **said}
    return reports.make("prediction", body, lineage, {"predict_s": time.perf_counter() - started})


def _predicted(model: Model, seed: int, values: dict[str, Any]) -> dict:
    """What a model predicts, with the verdict whether it learnt from the like.

    Raises:
        NotImplementedError: If it predicts nothing from the form alone.
    """
    answer = model.predict(values, randomness.generator(seed, "predict", 0))
    outside = answer["outside_training"]
    return answer | {
        "verdict": "escalate" if outside else "accept",
        "reason": "; ".join(outside) or "all values lie inside of the training",
    }


def _otherwise(model: Model, judge: Judge, settings: dict, values: dict[str, Any]) -> dict:
    """What the measurement that values describe would be after what they say is done."""
    measured = {
        name: value
        for name, value in values.items()
        if name not in counterfactual.Asked._fields and value is not None
    }
    strategy = values.get("strategy") or counterfactual.STRATEGIES[0]
    asked = counterfactual.Asked(values["do"], values["mode"], strategy)
    report = counterfactual.run(model, judge, settings, measured, asked).report
    named = ("name", "unit", "median", "low", "high")
    return {
        **{name: report[name] for name in ("verdict", "reason", "computation")},
        "estimates": [
            {name: row[name] for name in named} | {"meaning": f"{row['meaning']}, {side}"}
            for side, rows in (
                ("as it is", report["posterior"]),
                (
                    f"after do({', '.join(report['do'])}), {report['mode']}",
                    report["counterfactual"],
                ),
            )
            for row in rows
            if row["median"] is not None
        ],
        "probabilities": [],
        "attribution": [],
        "assumed": {},
        "outside_training": [*report["outside_training"], *report["refusals"]],
        "answer": report,
    }


def _measured(
    model: Model, judge: Judge, settings: dict, values: dict[str, Any], params: dict[str, Any]
) -> dict:
    """What `infer` says of the measurement that values describe."""
    with tempfile.TemporaryDirectory(prefix="touchstone-") as folder:
        data, meta = Path(folder) / "form.csv", Path(folder) / "form.yaml"
        try:
            model.record(values, data, meta)
        except NotImplementedError:
            raise ArtifactError(f"{model.model_id}: answers no form") from None
        from touchstone.stages import infer, records  # here: not every form needs inference

        source = records.Source("form", "the values of the form", data, meta, {}, ())
        try:
            report = infer.answer(model, settings, judge, source).report
        except ArtifactError as error:
            text = str(error).replace(str(data), model.model_id).replace(str(meta), model.model_id)
            raise ArtifactError(text) from None
    meanings = {quantity.name: quantity.meaning for quantity in model.quantities}
    defaults = {
        field.name: field.default
        for field in registry.get_inference_form_fields(model.model_id)
        if field.default is not None and params.get(field.name) is None
    }
    return {
        "verdict": report["verdict"],
        "reason": report["reason"],
        "computation": {name: report["computation"][name] for name in ("verdict", "reason")},
        "estimates": [
            {
                "name": row["quantity"],
                "unit": row["unit"],
                "meaning": meanings.get(row["quantity"], ""),
                "median": row["median"],
                "low": row["interval_90"][0],
                "high": row["interval_90"][1],
            }
            for row in report["posterior"]
        ],
        "probabilities": [],
        "attribution": [],
        "assumed": defaults,
        "outside_training": report["outside_training"],
        "inference": report,
    }
