"""The models there are: what each says of itself, the form it is asked by, and what it has made."""

import math
import re
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from touchstone import contract
from touchstone.contract import Model, ModelsError
from touchstone.io import artifacts, plain_yaml, results, settings

type Value = bool | int | float | str | list[float] | None
_SCALAR = (bool, int, float, str)
_KINDS: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "float": (int, float),
    "string": (str,),
    "select": (str,),
    "boolean": (bool,),
}


class FormField(BaseModel):
    """One field of the form by which a model is asked for a prediction.

    Attributes:
        name: Key of the value.
        type: Of the value; a "select" is one of the options.
        label: What a form shows beside the field.
        default: Value where none is given.
        required: Whether a value has to be given; one that has a default need not be.
        min_value, max_value: Bounds of a number, both included.
        options: Of a select.
        numbers: Of a string, that it holds numbers, parted by commas, semicolons or blanks, to each
            of which the bounds apply; a number or a list of them is taken in its place.
        help_text: What the field means, with its unit.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(pattern=r"^[A-Za-z_]\w*$")
    type: Literal["integer", "float", "string", "select", "boolean"]
    label: str
    default: Value = None
    required: bool = False
    min_value: int | float | None = None
    max_value: int | float | None = None
    options: list[str] = []
    numbers: bool = False
    help_text: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> "FormField":
        if (self.type == "select") != bool(self.options):
            raise ValueError("options: a select has some, and no other type has any")
        if self.numbers and self.type != "string":
            raise ValueError("numbers: only a string holds some")
        low, high = self.min_value, self.max_value
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_value {low} is above max_value {high}")
        if self.default is not None and (problem := self.problem(self.default)):
            raise ValueError(f"default: {problem}")
        return self

    def problem(self, value: Any) -> str:
        """What is wrong with a value, in words that say what is expected; empty if nothing is."""
        if self.numbers:
            return self._problem_of_list(value)
        # A bool is an int to Python, and no number to a user.
        is_bool = isinstance(value, bool) and self.type != "boolean"
        if is_bool or not isinstance(value, _KINDS[self.type]):
            return f"{value!r} is no {self.type}"
        if self.type == "select" and value not in self.options:
            return f"{value!r} is none of {', '.join(self.options)}"
        return self._problem_of_number(value) if self.type in ("integer", "float") else ""

    def _problem_of_number(self, value: float) -> str:
        if not math.isfinite(value):
            return f"{value} is not finite"
        if self.min_value is not None and value < self.min_value:
            return f"{value} is below {self.min_value}"
        if self.max_value is not None and value > self.max_value:
            return f"{value} is above {self.max_value}"
        return ""

    def _problem_of_list(self, value: Any) -> str:
        try:
            found = [self._problem_of_number(number) for number in _numbers(value)]
        except ValueError:
            return f"{value!r:.60} is no list of numbers, expected e.g. 0.1,0.2,0.3"
        wrong = [f"number {k}: {said}" for k, said in enumerate(found, 1) if said]
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return wrong[0] + more if wrong else ""

    def parsed(self, value: Any) -> Any:
        """A value without a problem as a model takes it: a list of floats, a float, or as it is."""
        if self.numbers:
            return _numbers(value)
        return float(value) if self.type == "float" else value


def _numbers(value: Any) -> list[float]:
    """Numbers of a text or a list, or one number.

    Raises:
        ValueError: If something else is among them, or there are none.
    """
    items = [value] if isinstance(value, int | float) else value
    items = re.split(r"[,;\s]+", value.strip(" ,;[]\n\t")) if isinstance(value, str) else items
    if not isinstance(items, list) or any(isinstance(each, bool) for each in items) or not items:
        raise ValueError("no numbers")
    if not isinstance(value, str) and not all(isinstance(each, int | float) for each in items):
        raise ValueError("no numbers")
    return [float(each) for each in items]


class Parameter(BaseModel):
    """A quantity that the model infers; its prior is `Quantity.from_config`'s business."""

    model_config = ConfigDict(extra="allow")

    prior: Literal["uniform", "loguniform", "normal", "lognormal"]
    unit: str
    meaning: str


class _Stress(BaseModel):
    """A way to leave the training family; what it needs besides is the model's."""

    model_config = ConfigDict(extra="allow")

    group: str = Field(pattern=r"^[A-Za-z_]\w*$")


class ModelMetadata(BaseModel):
    """What a model says of itself in its `config.yaml`, whose other keys are its own.

    Attributes:
        name: For people.
        description: A sentence or two.
        version: As MAJOR.MINOR or MAJOR.MINOR.PATCH.
        author: Who answers for it.
        status: "beta" is shown as such, "deprecated" is not offered any more.
        tags: To search by.
        parameters: What it infers, by name; a model may name them otherwise.
        inference_params: The form of `predict`.
        device: "cpu" for a model whose training no GPU would help, "any" for one that JAX trains.
        training: Defaults of a training, which the configuration of a run overrides: numbers and
            texts of `train` in the model's `settings.schema.yaml`, which is where they stand.
        stresses: Ways to leave the training family, by name.
    """

    model_config = ConfigDict(extra="allow")

    name: str = Field(min_length=1)
    description: str = Field(min_length=1)
    version: str = Field(pattern=r"^\d+\.\d+(\.\d+)?$")
    author: str = Field(min_length=1)
    status: Literal["active", "beta", "deprecated"] = "active"
    tags: list[str] = []
    device: Literal["any", "cpu"] = "any"
    parameters: dict[str, Parameter] = {}
    inference_params: list[FormField] = []
    training: dict[str, Value] = {}
    stresses: dict[str, _Stress] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_field_a_name(self) -> "ModelMetadata":
        names = [field.name for field in self.inference_params]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"inference_params: {', '.join(twice)} stands there twice")
        return self

    def completed(self, params: dict[str, Any]) -> tuple[dict[str, Value], list[str]]:
        """Values of the form, completed by defaults; see `validate_inference_params`."""
        fields = {field.name: field for field in self.inference_params}
        values, problems = {}, []
        for name, field in fields.items():
            given = params.get(name)
            if given is None and field.required and field.default is None:
                problems.append(f"{name}: is missing, expected a {field.type}")
            problem = "" if given is None else field.problem(given)
            problems += [f"{name}: {problem}"] if problem else []
            chosen = field.default if given is None else given
            values[name] = chosen if problem or chosen is None else field.parsed(chosen)
        allowed = ", ".join(fields) or "none"
        problems += [
            f"{name}: is unknown, allowed are {allowed}" for name in params.keys() - fields
        ]
        return values, problems


class Registry(NamedTuple):
    """All folders that hold a model.

    Attributes:
        models: What each says of itself, by the name of its folder.
        broken: What is wrong with a folder, naming file and key, by its name.
    """

    models: dict[str, ModelMetadata]
    broken: dict[str, str]


def get_registry() -> Registry:
    """Read the `config.yaml` of every folder; a broken one hides no healthy one."""
    models, broken = {}, {}
    for model_id, folder in contract.folders().items():
        try:
            models[model_id] = _of(folder)
        except ModelsError as error:
            broken[model_id] = str(error)
    return Registry(models, broken)


def _of(folder: Path) -> ModelMetadata:
    """What the model of a folder says of itself.

    Raises:
        ModelsError: If the folder is broken, naming file and key.
    """
    file = folder / "config.yaml"
    try:
        about = _metadata(file, *artifacts.state(file))
    except ValidationError as error:
        raise ModelsError(f"{file}: {_said(error)}") from None
    if not (folder / "model.py").is_file():
        raise ModelsError(f"{folder / 'model.py'}: no such file")
    return about


@lru_cache(maxsize=64)
def _metadata(file: Path, _modified: int, _size: int) -> ModelMetadata:
    """Of a file in a state, so that one which has not changed is not read for every answer."""
    about = ModelMetadata.model_validate(_parsed(file))
    schema = file.with_name("settings.schema.yaml")
    if schema.is_file() and not about.training:
        train = settings.defaults(_parsed(schema)).get("train") or {}
        scalars = {name: value for name, value in train.items() if isinstance(value, _SCALAR)}
        about = about.model_copy(update={"training": scalars})
    return about


def _parsed(file: Path) -> dict:
    try:
        content = plain_yaml.load_own(file)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ModelsError(f"{file}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise ModelsError(f"{file}: holds no keys, expected name, description, version and more")
    return content


def _said(error: ValidationError) -> str:
    """Every problem that pydantic found: key, what is wrong, and what was there."""
    said = []
    for each in error.errors():
        key = ".".join(map(str, each["loc"]))
        text = each["msg"].removeprefix("Value error, ")
        missing = each["type"] == "missing"
        given = "" if missing or not key else f" (given: {each['input']!r:.60})"
        said.append(f"{key}: {text}{given}" if key else text)
    return "; ".join(said)


def get_all_models(tag: str | None = None) -> dict[str, ModelMetadata]:
    """Healthy models by name of their folder, those with a tag where one is given."""
    found = get_registry().models
    return {model_id: each for model_id, each in found.items() if tag is None or tag in each.tags}


def get_model_metadata(model_id: str) -> ModelMetadata:
    """What a model says of itself.

    Raises:
        ModelsError: If there is no such model, or its folder is broken; the message says why.
    """
    folder = contract.folder_of(model_id)
    if folder is None:
        raise ModelsError(f"model {model_id!r} is none of {', '.join(get_registry().models)}")
    return _of(folder)


def load_model_instance(model_id: str) -> Model[Any]:
    """A model, ready to load a checkpoint.

    Raises:
        ModelsError: As in `get_model_metadata`, or if its module does not make a model.
    """
    get_model_metadata(model_id)
    try:
        return contract.load_model(model_id)
    except Exception as error:  # a module that somebody else wrote can fail in any way
        file = contract.folders()[model_id] / "model.py"
        raise ModelsError(f"{file}: {type(error).__name__}: {error}") from error


def get_model_for_dropdown() -> list[tuple[str, str]]:
    """Name of the folder and what a list shows, of every model that is not deprecated."""
    return [
        (model_id, f"{each.name} (v{each.version})" + (" [BETA]" if each.status == "beta" else ""))
        for model_id, each in get_all_models().items()
        if each.status != "deprecated"
    ]


def get_output_paths(model_id: str) -> dict[str, Path]:
    """Folders of what a model makes: of everything, then of each kind."""
    folder = results.folder(model_id)
    return {
        "output": folder,
        "traces": folder / "traces",
        "reports": folder / "reports",
        "diagrams": folder / "figures",
        "checkpoints": folder / "checkpoints",
    }


def has_trained_model(model_id: str) -> bool:
    """Whether a finished checkpoint is in the results of the working directory."""
    return bool(results.Results(results.folder(model_id)).checkpoints())


def get_latest_trace(model_id: str) -> Path | None:
    """Chains that were written last; None if there are none."""
    found = get_output_paths(model_id)["traces"].glob("*.nc")
    return max(found, key=lambda file: (file.stat().st_mtime, file.name), default=None)


def get_model_status(model_id: str) -> dict[str, Any]:
    """What a model has made here: `model_id`, `name`, `version`, `status`, `is_trained`,
    `has_trace`, `last_trained` (ISO 8601, or None), `output_dir`, and `structure`, the drawing of
    its structure, or None.

    Raises:
        ModelsError: As in `get_model_metadata`.
    """
    about = get_model_metadata(model_id)
    ours = results.Results(results.folder(model_id))
    found = ours.checkpoints()
    seconds = (found[-1] / "manifest.json").stat().st_mtime if found else None
    return {
        "model_id": model_id,
        "name": about.name,
        "version": about.version,
        "status": about.status,
        "is_trained": bool(found),
        "has_trace": get_latest_trace(model_id) is not None,
        "last_trained": datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else None,
        "output_dir": str(ours.folder),
        "structure": str(ours.structure) if ours.structure.is_file() else None,
    }


def get_all_models_with_status(tag: str | None = None) -> list[dict[str, Any]]:
    """The status of every healthy model, those with a tag where one is given."""
    return [get_model_status(model_id) for model_id in get_all_models(tag)]


def get_inference_form_fields(model_id: str) -> list[FormField]:
    """Fields of the form by which a model is asked for a prediction."""
    return get_model_metadata(model_id).inference_params


def validate_inference_params(
    model_id: str, params: dict[str, Any]
) -> tuple[dict[str, Value], list[str]]:
    """Values of a form, completed by defaults, and every problem with them at once.

    Args:
        model_id: Of the model.
        params: Values by the name of their field.

    Returns:
        The values, and the problems in words that begin with the field's name; the values are of
        use where there is no problem.
    """
    return get_model_metadata(model_id).completed(params)
