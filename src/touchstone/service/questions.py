"""What may be asked, and how a request that may not is refused."""

import math
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from touchstone import registry
from touchstone.contract import ModelsError
from touchstone.registry import ModelMetadata

MODEL_ID = r"^[a-z0-9_]{1,64}$"
_LARGEST = 2**53  # of an integer that every reader of JSON keeps
_EXPECTED = "expected a finite number, a text, true, false, null or a list of finite numbers"


def _value(value: Any) -> bool | int | float | str | list[float] | None:
    if isinstance(value, list) and all(
        isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each)
        for each in value
    ):
        return value
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int) and abs(value) <= _LARGEST:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ValueError(_EXPECTED)


type Value = Annotated[
    Any,
    PlainValidator(_value),
    WithJsonSchema(
        {
            "type": ["number", "string", "boolean", "null", "array"],
            "items": {"type": "number"},
        }
    ),
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Record(_Strict):
    """A measurement, as its files would be.

    Attributes:
        name: Of the file. It is a name and no path, since no file of the server is ever read.
        data: Text of the file.
        meta: Text of the YAML file beside it.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}\.[A-Za-z0-9]{1,8}$")
    data: str = Field(min_length=1)
    meta: str = ""

    @model_validator(mode="after")
    def _is_no_metadata(self) -> "Record":
        if self.name.lower().endswith((".yaml", ".yml")):
            raise ValueError("name: is that of a YAML file, expected that of a record")
        return self


class Question(_Strict):
    """One question to a model: the values of its form, or a record.

    Attributes:
        model_id: One of `GET /models`.
        inputs: Values by the name of their field, as `GET /models/{id}` lists them.
        record: A measurement to be inferred.
    """

    model_id: str = Field(pattern=MODEL_ID)
    inputs: dict[str, Value] | None = None
    record: Record | None = None

    @model_validator(mode="after")
    def _asks_one_thing(self) -> "Question":
        if (self.inputs is None) == (self.record is None):
            raise ValueError("expected either inputs, the values of the form, or a record")
        return self


class ProblemError(Exception):
    """A request that is not answered, in the words of RFC 9457.

    Args:
        status: Of HTTP.
        detail: A sentence.
        problems: Each thing that is wrong with the input, beginning with its key.
        headers: Of the response.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        problems: Sequence[str] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.problems, self.headers = list(problems), headers

    def response(self) -> JSONResponse:
        """As it is sent."""
        body = {"type": "about:blank", "status": self.status, "detail": self.detail}
        if self.problems:
            body["problems"] = self.problems
        kind = "application/problem+json"
        return JSONResponse(body, self.status, self.headers, media_type=kind)


async def asked(request: Request, most: int) -> Question:
    """The question in the body of a request.

    Args:
        request: As received.
        most: Bytes that a body may have.

    Raises:
        ProblemError: If the body is too long, no JSON, or no question; it never quotes the values.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # what a page of another site may not send unasked
        raise ProblemError(415, "the content type is not application/json")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise ProblemError(413, f"the body has more than {most} bytes")
    try:
        return Question.model_validate_json(bytes(body))
    except ValidationError as error:
        raise ProblemError(422, "the body is no question", _said(error)) from None


def checked(question: Question, about: ModelMetadata) -> None:
    """Hold the values of a form against its fields.

    Raises:
        ProblemError: With everything that is wrong with them.
    """
    if question.inputs is None:
        return
    if not about.inference_params:
        raise ProblemError(422, f"{question.model_id} answers no form; ask it by a record")
    _, problems = registry.validate_inference_params(question.model_id, question.inputs)
    if problems:
        raise ProblemError(422, f"{question.model_id}: {'; '.join(problems)}", problems)


def metadata(model_id: str) -> ModelMetadata:
    """What a model says of itself.

    Raises:
        ProblemError: If there is no such model, or its folder is broken.
    """
    try:
        return registry.get_model_metadata(model_id)
    except ModelsError as error:
        broken = model_id in registry.get_registry().broken
        raise ProblemError(409 if broken else 404, str(error)) from None


def _said(error: ValidationError) -> list[str]:
    """Every problem that pydantic found, without the values."""
    said = []
    for each in error.errors(include_input=False, include_url=False, include_context=False):
        key = ".".join(map(str, each["loc"]))
        text = each["msg"].removeprefix("Value error, ")
        said.append(f"{key}: {text}" if key else text)
    return said
