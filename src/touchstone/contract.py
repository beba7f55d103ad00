"""What a model provides to the workflow, and how models are found."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from touchstone.io import plain_yaml
from touchstone.io.artifacts import atomic
from touchstone.vocabulary import Cases, Check, Json, Posterior, Quantity, Structure, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

_VARIABLE = "TOUCHSTONE_MODELS"
_ALIKE = 0.15  # largest distance of two distribution functions that are called the same


class ModelsError(ValueError):
    """Folders of models that do not exist, or that hold two models of one name."""


class Comparison(NamedTuple):
    """Errors on what was held out of a training, beside those of answers that need none.

    Attributes:
        title: What is compared, with its unit.
        rows: Of a table: `name`, `n`, then a number for each answer; None where there is none.
    """

    title: str
    rows: list[Json]


class Drawing(NamedTuple):
    """A figure of what a model has learnt, which only that model knows how to draw.

    Attributes:
        name: Of its file, without suffix.
        caption: What it shows, in words.
        draw: Draws on a figure, which is as wide as a page.
        height: Of the figure, in inches.
    """

    name: str
    caption: str
    draw: "Callable[[FigureBase], None]"
    height: float = 3.6

    def save(self, file: Path) -> None:
        """Write it as PNG."""
        from matplotlib.figure import Figure  # here, since few models draw

        from touchstone.figures import PAGE

        figure = Figure(figsize=(PAGE, self.height), layout="constrained")
        self.draw(figure)
        with atomic(file) as temporary:
            figure.savefig(temporary, dpi=110, format="png")


class Fit(NamedTuple):
    """What a training says of itself.

    Attributes:
        n_rows, n_held_out: Number of rows trained on, and held out.
        losses: Loss of each step, by the part that was trained; empty where there are no steps.
        comparisons: Errors on the rows held out.
        assumed: What the data did not state, or what was left out, in words.
        tables: What was learnt, to be read and not to be compared. Rows that have `low` and `high`
            about a `median` are drawn as intervals, beside `prior low` and `prior high`.
        findings: What was learnt and what the data cannot tell, in sentences.
        drawings: What was learnt, as figures.
    """

    n_rows: int
    n_held_out: int
    losses: dict[str, np.ndarray]
    comparisons: list[Comparison]
    assumed: list[str]
    tables: Sequence[Comparison] = ()
    findings: Sequence[str] = ()
    drawings: Sequence[Drawing] = ()


class Simulated[Detail](NamedTuple):
    """What a chunk of simulations holds.

    Attributes:
        n_rows: Number of simulations.
        counts: Number of simulations of each kind, in tables by name.
        gallery: Some of them to be drawn, by title.
    """

    n_rows: int
    counts: dict[str, dict[str, int]]
    gallery: dict[str, Cases[Detail]]


class Escalated[Detail](NamedTuple):
    """A measurement inferred again, under a simulator of higher fidelity than the model's own.

    Attributes:
        cause: What that simulator knows of and the model's own does not, in a word or two.
        quantities: All parameters of that simulator, in the order of `cases.truth`.
        cases: The records of the measurement, with these quantities.
        posterior: Theirs.
        table: Rows as of `Model.table`, those of the cause first.
        size: Name of the quantity in the table that says how much of the cause there is, and what
            it is called in a sentence.
    """

    cause: str
    quantities: list[Quantity]
    cases: Cases[Detail]
    posterior: Posterior
    table: list[Json]
    size: tuple[str, str]


class Model[Detail](ABC):
    """A science in the workflow: a folder with a `config.yaml` and this contract filled.

    What a model trains, and what its cases hold beside the shared words, stays its own.
    Settings are those that the model's `settings.schema.yaml` describes.

    Args:
        config: The parsed `config.yaml`.
    """

    def __init__(self, config: Json) -> None:
        self.config = config

    @property
    def model_id(self) -> str:
        """Name of the model's folder."""
        return str(self.config["model_id"])

    @property
    def stresses(self) -> dict[str, str]:
        """Group of each stress, by the name of the stress."""
        return {name: entry["group"] for name, entry in self.config["stresses"].items()}

    @property
    @abstractmethod
    def quantities(self) -> list[Quantity]:
        """All parameters, in the order of `Cases.truth`."""

    @property
    @abstractmethod
    def methods(self) -> tuple[str, ...]:
        """Names of the methods of inference; the first is the one that answers users."""

    @abstractmethod
    def fit(
        self,
        data: list[Path],
        settings: Json,
        rng: np.random.Generator,
        folder: Path,
        lineage: Json,
    ) -> Fit:
        """Learn from data, write the checkpoint folder with its manifest, and hold it loaded.

        An interrupted training goes on where it was.
        """

    @abstractmethod
    def load(self, folder: Path) -> bool:
        """Load a checkpoint folder; whether its files were verified by a manifest.

        Raises:
            ArtifactError: If a file is missing, or is not what the manifest says.
        """

    @abstractmethod
    def cases(
        self,
        n: int,
        rng: np.random.Generator,
        noise: np.random.Generator,
        settings: Json,
        stress: str | None = None,
        severity: float = 0.0,
    ) -> Cases[Detail]:
        """Simulate observations of a loaded model's kind.

        Args:
            n: Number of cases.
            rng: For all that the variants of a base case have in common.
            noise: For the noise, which is another in each variant.
            settings: How the cases are observed; empty as in the training.
            stress: Name of a stress; None for the training family itself.
            severity: Of the stress, in [0, 1].
        """

    @abstractmethod
    def infer(
        self,
        cases: Cases[Detail],
        rng: np.random.Generator,
        *,
        method: str,
        budget: Json,
        label: str | None = None,
    ) -> Posterior:
        """Posterior of each case by one of the methods; a label shows progress bars under it."""

    @abstractmethod
    def prior(
        self, cases: Cases[Detail], n_draws: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Draws of the prior of each case, given what is known: as `Posterior.draws`."""

    @abstractmethod
    def read(self, data: Path, meta: Path) -> tuple[Cases[Detail], list[str]]:
        """A measurement from disk, and what was read and assumed, in words.

        Args:
            data: File of a record, which is one case, or a folder of records of one system.
            meta: YAML with what is known about it.

        Raises:
            ArtifactError: If a file is missing, or does not describe a measurement of this model.
        """

    @abstractmethod
    def view(self, cases: Cases[Detail], index: int) -> View:
        """How one of the cases is drawn."""

    # What a model may have besides ----------------------------------------------------------------

    def simulate(
        self,
        settings: Json,
        rng: np.random.Generator,
        file: Path,
        provenance: Json,
    ) -> Simulated[Detail]:
        """Write a chunk of the training family to a file."""
        raise NotImplementedError(f"{self.model_id} has no simulator to train on")

    def checks(self) -> list[Check]:
        """Numbers of the simulator beside exact values."""
        return []

    def example(self, rng: np.random.Generator, data: Path, meta: Path) -> None:
        """Write a simulated measurement, marked as such, in the form that `read` takes."""
        raise NotImplementedError(f"{self.model_id} has no example of a measurement")

    def describe(self, data: Path, meta: Path | None) -> list[str]:
        """What is understood of a measurement's files, in words, with no checkpoint loaded.

        Args:
            data: As in `read`.
            meta: As in `read`; None where there is none.

        Raises:
            ArtifactError: If a file is missing, or does not describe a measurement of this model.
        """
        raise NotImplementedError(f"{self.model_id} describes no files without a checkpoint")

    def reference(
        self,
        cases: Cases[Detail],
        start: Posterior,
        rng: np.random.Generator,
        *,
        budget: Json,
        folder: Path,
        label: str | None = None,
    ) -> Posterior:
        """Posterior by a method that is slow and sure of itself.

        Args:
            cases: The cases.
            start: Another posterior of theirs, which says where to begin.
            rng: For all randomness.
            budget: Of the method.
            folder: Where it keeps what took long.
            label: Of the progress bar.
        """
        raise NotImplementedError(f"{self.model_id} has no reference posterior")

    def outside_training(self, cases: Cases[Detail]) -> list[list[str]]:
        """What of each case lies outside what was trained on, in words."""
        return [[] for _ in cases.observed]

    def novelty(self, cases: Cases[Detail]) -> np.ndarray:
        """How far each case lies from what was trained on, by all that is known without its
        observation: a number of the model's own, high where it is far, shape (case,)."""
        return np.zeros(len(cases.kind))

    def detection_power(
        self,
        n: int,
        rng: np.random.Generator,
        noise: np.random.Generator,
        settings: Json,
        stress: str,
        severity: float,
        known: Sequence[str] = (),
        n_first: int | None = None,
    ) -> np.ndarray:
        """Power of the best test that knows a stress, at a level of 5 %, against the best in-family
        fit to the noise-free observation: what no detector can surpass, shape (case,).

        Args:
            n: Number of cases.
            rng: As in `cases`: the same base cases.
            noise: For what the stress leaves to chance, the same as in `cases`.
            settings: As in `cases`.
            stress: Name of the stress.
            severity: Of the stress.
            known: Names of quantities that are known besides, so that nothing hides in them.
            n_first: Number of the first of these cases that it is said of; all if not given.
        """
        raise NotImplementedError(f"{self.model_id} does not say what could be detected")

    def summaries(self, cases: Cases[Detail]) -> np.ndarray:
        """What the model's engine makes of each case, shape (case, feature), for the detectors of
        others that look at nothing else."""
        raise NotImplementedError(f"{self.model_id} keeps no summaries")

    def predict(self, values: Json, rng: np.random.Generator) -> Json:
        """Answer to the form of `inference_params` in `config.yaml`, by a loaded model.

        Args:
            values: Validated, by the name of the field; None where nothing was given.
            rng: For all randomness.

        Returns:
            `estimates`, rows of `name`, `unit`, `meaning`, `median`, `low` and `high` (of a 90 %
            interval); `probabilities`, rows of `name` and `value`; `attribution`, rows of `name`,
            `unit`, `median`, `low` and `high`, the largest first; `assumed`, values that were not
            given; and `outside_training`, in words.

        Raises:
            ArtifactError: If a value names what there is not.
        """
        raise NotImplementedError(f"{self.model_id} answers no form")

    def record(self, values: Json, data: Path, meta: Path) -> None:
        """Write the measurement that a form describes, in the form that `read` takes.

        A model that has this and no `predict` is asked for `infer` of that measurement.

        Args:
            values: As in `predict`.
            data: File of the record.
            meta: YAML of what is known about it.
        """
        raise NotImplementedError(f"{self.model_id} measures nothing by a form")

    def counterfactual(
        self, do: str, *, mode: str, strategy: str
    ) -> "Callable[[Cases[Detail], Posterior, np.random.Generator], Json]":
        """What measured systems would be, had something about them been otherwise.

        Args:
            do: What is done, in words such as "mass=2x, metallicity=0.02".
            mode: How effects respond: one of those that the model names where it is none of them.
            strategy: "strict_physics" refuses an answer that violates a law, "report_only" gives
                it with the violation.

        Returns:
            A function of a measurement, its posterior and a source of randomness. It returns `do`,
            the actions in words; `posterior`, rows of `name`, `unit`, `meaning`, `median`, `low`
            and `high` (of a 90 % interval) of the system as it is; `counterfactual`, such rows of
            its twin, with `change` (`median`, `low`, `high`), `bracket` (`low`, `high`: over what
            the noises of the twins may have in common, as the schema of the report says) and
            `why`, empty where the answer is refused;
            `refusals` and `remarks`, in words; `violations`, rows of `law`, `status`, `largest`,
            `limit`, `n` and `how`; `curves` and `structure`, which are drawn.

        Raises:
            ArtifactError: If an action or the mode names what there is not.
        """
        raise NotImplementedError(f"{self.model_id} answers no counterfactuals")

    def external_twin(self, twin: Path | Mapping[str, Any], *, strict: bool) -> Json:
        """How far a twin that others have made breaks the laws, and the closest one that does not.

        Args:
            twin: Numbers by name, or a YAML file of them.
            strict: Whether the closest one is wanted.

        Returns:
            `violations`, rows as of `counterfactual`; `metric`, what distances are measured in; and
            where it is wanted `twin`, the closest one; `distance` to it; `largest_change`,
            relative; and `left`, its own violations.

        Raises:
            ArtifactError: If the twin makes no sense.
        """
        raise NotImplementedError(f"{self.model_id} knows no laws that a twin could break")

    def form_problems(self, values: Json) -> list[str]:
        """What is wrong with values of a form by what is loaded, or together, where each may be
        right by itself.

        Args:
            values: By the name of the field, None where nothing was given; some may be of a type
                that their field does not allow.

        Returns:
            Words that begin with the name of a field.
        """
        return []

    def check_fit(
        self, trace: Path, rng: np.random.Generator
    ) -> "tuple[list[Comparison], Callable[[Sequence[Axes]], None]]":
        """Whether a loaded model could have made the data that it learnt from.

        Args:
            trace: Chains that its training kept.
            rng: For what it makes.

        Returns:
            Tables, and a function that draws on four axes.

        Raises:
            ArtifactError: If the chains are not those of the checkpoint.
        """
        raise NotImplementedError(f"{self.model_id} keeps no chains to check")

    def structure(self, settings: Json) -> Structure:
        """Structure of a loaded model; without it the flow of its data is drawn.

        Args:
            settings: Of its training.
        """
        raise NotImplementedError(f"{self.model_id} has no structure of its own")

    def alternatives(self, cases: Cases[Detail]) -> dict[str, Cases[Detail]]:
        """A measurement under other settings, by what would have to be so, such as "the unit were
        another": where the model does not explain it, some of these might."""
        return {}

    def escalate(
        self, cases: Cases[Detail], posterior: Posterior, rng: np.random.Generator, *, budget: Json
    ) -> Escalated[Detail]:
        """The records of one system again, under a simulator of higher fidelity.

        Args:
            cases: A measurement that the model does not explain.
            posterior: Its posterior, to start from.
            rng: For all randomness.
            budget: Of the first method.
        """
        raise NotImplementedError(f"{self.model_id} has no simulator of higher fidelity")

    def protocols(self, cases: Cases[Detail], posterior: Posterior) -> dict[str, np.ndarray]:
        """Measurements that could come next on the system of the first record, by what to do.

        Args:
            cases: A measurement, or one with the quantities of `Escalated`.
            posterior: Its posterior.

        Returns:
            What each draw lets expect of the next measurement, in coordinates in which its noise is
            independent and standard normal, shape (draw, sample).
        """
        return {}

    def diagnostics(self, cases: Cases[Detail], posterior: Posterior) -> dict[str, np.ndarray]:
        """What is to be known of each case besides its metrics, by name, shape (case,) each: it is
        reported, and no rule looks at it."""
        return {}

    def drawings(self, cases: Cases[Detail], posterior: Posterior) -> list[Drawing]:
        """Figures of a measurement that only this model knows how to draw."""
        return []

    def cautions(self, cases: Cases[Detail], posterior: Posterior) -> list[str]:
        """What the data of a measurement can not tell apart, and what would, in words."""
        return []

    def table(
        self, cases: Cases[Detail], posterior: Posterior, rng: np.random.Generator
    ) -> list[Json]:
        """Posterior of a measurement in the units of a reader, beside its prior.

        Rows have `quantity`, `record` (from 1, None if of all records), `unit`, `mean`, `median`,
        `interval_90`,
        `prior_interval_90` and `remark`; see `summary_of`.
        """
        several = len(cases.observed) > 1
        prior = self.prior(cases, 4000, rng)
        return [
            {
                "quantity": quantity.name,
                "record": k + 1 if several else None,
                "unit": quantity.unit,
                **summary_of(
                    posterior.draws[quantity.name][k], posterior.weight[k], prior[quantity.name][k]
                ),
            }
            for k in range(len(cases.observed))
            for quantity, known in zip(self.quantities, cases.known[k], strict=True)
            if not known
        ]


LEVEL = 0.9  # of every interval of an answer, such as those of `summary_of`
REACH = NormalDist().inv_cdf(0.5 + LEVEL / 2)  # standard deviations from a mean to the end of one


def summary_of(draws: np.ndarray, weight: np.ndarray, prior: np.ndarray) -> Json:
    """Mean, median and 90 % interval of weighted draws, the 90 % interval of prior draws, and a
    remark: "not informed" where both say the same, "at least" or "at most" where one side is all
    that the data say, else empty."""
    low, median, high = np.quantile(draws, [0.05, 0.5, 0.95], weights=weight, method="inverted_cdf")
    levels = np.quantile(prior, np.linspace(0.05, 0.95, 19))
    below = weight @ (draws[:, None] < levels)
    remark = ""
    if np.abs(below - np.linspace(0.05, 0.95, 19)).max() < _ALIKE:
        remark = "not informed"
    elif high > levels[-1] and low > levels[0]:
        remark = f"at least {low:.3g}"
    elif low < levels[0] and high < levels[-1]:
        remark = f"at most {high:.3g}"
    return {
        "mean": float(weight @ draws),
        "median": float(median),
        "interval_90": [float(low), float(high)],
        "prior_interval_90": [float(levels[0]), float(levels[-1])],
        "remark": remark,
    }


def _places() -> list[Path]:
    """Folders in which models lie.

    Raises:
        ModelsError: If TOUCHSTONE_MODELS names what is no folder.
    """
    places = import_module("touchstone.models").__path__
    for given in filter(None, os.environ.get(_VARIABLE, "").split(os.pathsep)):
        folder = Path(given).expanduser().absolute()
        if not folder.is_dir():
            raise ModelsError(f"{_VARIABLE}: {given} is no folder")
        if str(folder) not in places:
            places.append(str(folder))
    return [Path(place) for place in places]


def folders() -> dict[str, Path]:
    """Folder of every model, by name.

    Beside the models of this package, those in the folders that the environment variable
    TOUCHSTONE_MODELS names, separated as in PATH.

    Raises:
        ModelsError: If TOUCHSTONE_MODELS names what is no folder, or two models have one name.
    """
    found = {}
    for place in _places():
        for file in sorted(place.glob("*/config.yaml")):
            if file.parent.name in found:
                raise ModelsError(f"{file.parent}: there is another model of this name")
            found[file.parent.name] = file.parent
    return found


def folder_of(model_id: str) -> Path | None:
    """Folder of one model, or None; no other is looked at, since every answer asks for its own.

    Raises:
        ModelsError: As `folders`.
    """
    if Path(model_id).name != model_id:  # a path is no name
        return None
    candidates = [place / model_id for place in _places()]
    found = [folder for folder in candidates if (folder / "config.yaml").is_file()]
    if len(found) > 1:
        raise ModelsError(f"{found[1]}: there is another model of this name")
    return found[0] if found else None


def load_model(model_id: str) -> Model[Any]:
    """The model of a name, made from its `config.yaml`.

    A model's folder has a module `model` with one subclass of `Model`.

    Raises:
        KeyError: If there is no such model; the message lists those that there are.
    """
    found = folders()
    if model_id not in found:
        raise KeyError(f"model_id {model_id!r} is none of {', '.join(found)}")
    config = plain_yaml.load_own(found[model_id] / "config.yaml")
    module = import_module(f"touchstone.models.{model_id}.model")
    (model,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Model) and value is not Model
    )
    return model({"model_id": model_id, **config})
