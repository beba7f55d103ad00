"""What a model answers, wherever it was computed: the same object of the same report."""

from dataclasses import dataclass
from typing import Any, NamedTuple


class Confidence(NamedTuple):
    """How far an answer is to be trusted.

    Attributes:
        level: Of the intervals, which are calibrated at it; see the artefact's certificate.
        verdict: Whether the model explains the observation and answers: "accept" or "escalate".
        computation: Whether the draws are those of the posterior: "accept", "escalate", or None
            where nothing was drawn for this answer.
        reason: Of the verdict, in words.
    """

    level: float
    verdict: str
    computation: str | None
    reason: str


@dataclass(frozen=True)
class Answer:
    """An answer of a model.

    Attributes:
        report: All of it, as the command line prints it with `--json`.
        draws: Of the posterior of each record by the name of the quantity, where they were asked
            for.
    """

    report: dict[str, Any]
    draws: list[dict[str, list[float]]] | None = None

    @property
    def posterior(self) -> list[dict[str, Any]]:
        """Rows of the system as it is: name, unit, meaning, median, low, high; of a record as in
        `Model.table`."""
        for name in ("posterior", "estimates"):
            if name in self.report:
                return self.report[name]
        return []

    @property
    def counterfactual(self) -> list[dict[str, Any]]:
        """Rows of the twin, with change, bracket and why; empty if refused or not asked for."""
        return self.report.get("counterfactual", [])

    @property
    def verdict(self) -> str:
        """Whether the model explains what it was asked about: "accept" or "escalate"."""
        return self.report["verdict"]

    @property
    def confidence(self) -> Confidence:
        """The level of the intervals, and both verdicts.

        Raises:
            ValueError: If the report does not state the level, as one of another version may.
        """
        report = self.report
        if "level" not in report:
            raise ValueError(f"level: a report of kind {report.get('kind')!r} does not state it")
        computation = report.get("computation", {}).get("verdict")
        return Confidence(report["level"], report["verdict"], computation, report["reason"])
