"""Models that answer in this process, and what they answer, as Python has them.

A client that asks over HTTP gives the same `Answer`, made from the same report.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from touchstone import contract, registry
from touchstone.answer import Answer
from touchstone.io import results, settings
from touchstone.stages import checkpoints, counterfactual, infer, predict, records

Strategy = Literal["strict_physics", "report_only"]


class Local:
    """A model with its artefact, which answers in this process as the command line does.

    Args:
        model_id: One of `touchstone models`.
        checkpoint: Folder; empty finds the artefact that answers.

    Raises:
        ModelsError: If there is no such model.
        ArtifactError: If there is no artefact, or it is damaged.
    """

    def __init__(self, model_id: str, checkpoint: str | Path = "") -> None:
        self.model = registry.load_model_instance(model_id)
        config = settings.found(contract.folders(), model_id)
        self.settings = settings.of_stage(config, model_id, "infer")
        found = results.Results(results.folder(model_id))
        self.judge = checkpoints.prepare(self.model, found, checkpoint)

    def predict(self, **values: Any) -> Answer:
        """Answer to the values of the form, as `touchstone predict` gives it."""
        return Answer(predict.run(self.model, self.judge, self.settings, values))

    def infer(self, data: str | Path, meta: str | Path = "") -> Answer:
        """Answer to a measurement, as `touchstone infer` gives it.

        Args:
            data: File of a record, or a folder of records of one system.
            meta: YAML with what is known about it; empty takes the YAML of the same name.
        """
        with records.prepared([Path(data)], Path(meta) if meta else None) as source:
            return Answer(infer.answer(self.model, self.settings, self.judge, source).report)

    def counterfactual(
        self,
        observation: str | Path | Mapping[str, Any],
        *,
        do: str | Mapping[str, float | str],
        mode: str,
        strategy: Strategy = "strict_physics",
    ) -> Answer:
        """What an observed system would be, had something about it been otherwise.

        Args:
            observation: File, as `touchstone infer` reads it, or values by the name of the field.
            do: What is done: values by name, or words such as "mass=2x, metallicity=0.02".
            mode: How effects respond, as the model names it.
            strategy: "strict_physics" refuses what violates a law, "report_only" says it.

        Raises:
            ArtifactError: If the observation, an action or the mode makes no sense.
        """
        asked = counterfactual.Asked(do, mode, strategy)
        return Answer(
            counterfactual.run(self.model, self.judge, self.settings, observation, asked).report
        )

    def external_twin(
        self, twin: str | Path | Mapping[str, Any], *, strategy: Strategy = "strict_physics"
    ) -> dict:
        """The report on a twin that others have made, as `touchstone predict --twin` gives it.

        Args:
            twin: Numbers by name, or a YAML file of them.
            strategy: "report_only" reports the laws that it breaks, "strict_physics" also the
                closest twin that breaks none, and the distance to it.

        Raises:
            ArtifactError: If the twin makes no sense.
        """
        given = Path(twin) if isinstance(twin, str) else twin
        return counterfactual.external(self.model, given, strategy)


def load(model_id: str, checkpoint: str | Path = "") -> Local:
    """A model with its artefact, ready to answer; arguments and errors as of `Local`."""
    return Local(model_id, checkpoint)
