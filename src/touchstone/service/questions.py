"""What may be asked, and how a request that may not is refused."""

import asyncio
import base64
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any, Literal

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import models_json_schema
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from touchstone import registry
from touchstone.contract import ModelsError
from touchstone.registry import ModelMetadata
from touchstone.service.store import SCOPES, Key

MODEL_ID = r"^[a-z0-9_]{1,64}$"
# A browser asks its user for a password, which is the key.
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="touchstone", Basic realm="touchstone"'}
_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}\.[A-Za-z0-9]{1,8}$"  # of the file of a record
_MOST_CLIENTS = 10_000  # whose requests are counted
MOST_INPUTS, MOST_DRAWS, MOST_SETTINGS = 256, 10_000, 64  # of one request
_DEEPEST = 4  # levels of settings
SLOW_BODY = 20.0  # s in which a body has to arrive
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


def _setting(value: Any) -> bool | int | float | str:
    if isinstance(value, str) and len(value) <= 100:
        return value
    if isinstance(value, bool | int | float) and _value(value) == value:
        return value
    raise ValueError("expected a finite number, a short text, true or false")


def _flat(value: Any, depth: int = 0) -> Any:
    """Settings by their path, however they are nested."""
    if not isinstance(value, dict) or depth > _DEEPEST:
        return value
    found: dict[str, Any] = {}
    for key, each in value.items():
        inner = _flat(each, depth + 1)
        if not (isinstance(each, dict) and isinstance(inner, dict) and inner):
            inner = {"": each}
        for name, setting in inner.items():
            path = ".".join(part for part in (key, name) if part)
            if path in found:
                raise ValueError(f"{path:.100} is said twice")
            found[path] = setting
    return found


def _action(value: Any) -> int | float | str:
    if isinstance(value, bool):
        raise ValueError("expected a finite number or a short text")
    return _setting(value)


_SCALAR: dict[str, Any] = {"type": ["number", "string", "boolean"], "maxLength": 100}
type Setting = Annotated[Any, PlainValidator(_setting), WithJsonSchema(_SCALAR)]
type Action = Annotated[
    Any, PlainValidator(_action), WithJsonSchema(_SCALAR | {"type": ["number", "string"]})
]
_NESTED: dict[str, Any] = {
    "additionalProperties": {"anyOf": [_SCALAR, {"type": "object", "additionalProperties": True}]}
}
type Inputs = dict[str, Value]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Record(_Strict):
    """A measurement, as its files would be.

    Attributes:
        name: Of the file. It is a name and no path, since no file of the server is ever read.
        data: Content of the file.
        meta: Content of the YAML file beside it; None where there is none.
        encoding: "text", or "base64" of the bytes of both, which says every file as it is.
    """

    name: str = Field(pattern=_NAME)
    data: str = Field(min_length=1)
    meta: str | None = None
    encoding: Literal["text", "base64"] = "text"

    @model_validator(mode="after")
    def _is_no_metadata(self) -> "Record":
        if self.name.lower().endswith((".yaml", ".yml")):
            raise ValueError("name: is that of a YAML file, expected that of a record")
        if self.encoding == "base64":
            for name in ("data", "meta"):
                try:
                    base64.b64decode(getattr(self, name) or "", validate=True)
                except ValueError:
                    raise ValueError(f"{name}: is no base64") from None
        return self

    @classmethod
    def of(cls, name: str, data: bytes, meta: bytes | None) -> "Record":
        """A record of the bytes of its files."""
        said = None if meta is None else base64.b64encode(meta).decode()
        content = base64.b64encode(data).decode()
        return cls(name=name, data=content, meta=said, encoding="base64")


def _tag_of_observation(value: Any) -> str:
    return "<record>" if isinstance(value, dict) and "data" in value else "<values>"


def _only(name: str) -> dict[str, Any]:
    """Schema of a question that asks by one of the two ways, in words that a validator reads."""
    (other,) = {"inputs", "record"} - {name}
    absent = {"type": "null"}
    return {"required": [name], "properties": {name: {"not": absent}, other: absent}}


def _whole(value: Any) -> Any:
    """To JSON, 100.0 is a whole number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
# Tags stand between marks, so that no message names them as keys.
type OneOrSeveral = Annotated[
    Annotated[Inputs, Tag("<one>")]
    | Annotated[list[Inputs], Field(min_length=1, max_length=MOST_INPUTS), Tag("<several>")],
    Discriminator(lambda value: "<several>" if isinstance(value, list) else "<one>"),
]
type Observation = Annotated[
    Annotated[Record, Tag("<record>")] | Annotated[Inputs, Tag("<values>")],
    Discriminator(_tag_of_observation),
]
type Version = Annotated[
    Annotated[Whole, Field(ge=1, le=10**6), Tag("<number>")]
    | Annotated[Literal["production", "latest"], Tag("<name>")],
    Discriminator(lambda value: "<name>" if isinstance(value, str) else "<number>"),
]


class Asked(_Strict):
    """What a model is asked: the values of its form, several such, or a record.

    Attributes:
        inputs: Values by the name of their field, as `GET /models/{id}` lists them; or a list of
            such, which is answered in its order.
        record: A measurement to be inferred.
        version: Of the artefact: its number, "production" or "latest", which is the one that was
            promoted last; None is what answers on the command line.
        draws: Of the posterior, to be sent beside the report.
    """

    model_config = ConfigDict(json_schema_extra={"oneOf": [_only("inputs"), _only("record")]})

    inputs: OneOrSeveral | None = None
    record: Record | None = None
    version: Version | None = None
    draws: Whole = Field(default=0, ge=0, le=MOST_DRAWS)

    @model_validator(mode="after")
    def _asks_one_thing(self) -> "Asked":
        if (self.inputs is None) == (self.record is None):
            raise ValueError("expected either inputs, the values of the form, or a record")
        return self


class Question(Asked):
    """A question, and to which model.

    Attributes:
        model_id: One of `GET /models`; all else as of `Asked`.
    """

    kind: Literal["predict"] = "predict"
    model_id: str = Field(pattern=MODEL_ID)


class Counterfactual(_Strict):
    """What an observed system would be, had something about it been otherwise.

    Attributes:
        model_id: Of a model that answers such questions; needed where several do.
        observation: Values by the name of their field, or a record.
        intervention: What is done: values by name, or words such as "mass=2x, A_V=0".
        mode: How effects respond, as the model names it.
        strategy: "strict_physics" refuses an answer that violates a law, "report_only" says it.
        version: As of a `Question`.
    """

    kind: Literal["counterfactual"] = "counterfactual"
    model_id: str | None = Field(default=None, pattern=MODEL_ID)
    observation: Observation
    intervention: str | Annotated[dict[str, Action], Field(min_length=1, max_length=32)]
    mode: str = Field(max_length=64)
    strategy: Literal["strict_physics", "report_only"] = "strict_physics"
    version: Version | None = None


class Training(_Strict):
    """A training by the rules of the workflow, in a folder of its own.

    Attributes:
        model_id: One of `GET /models`.
        settings: In place of those of the configuration: by their path, such as
            `train.network.n_steps`, or nested; what begins with no part of the settings is of
            `train`.
        until: The last rule: "guardrail" makes a version that can answer, "train" a checkpoint.
    """

    kind: Literal["train"]
    model_id: str = Field(pattern=MODEL_ID)
    settings: Annotated[dict[str, Setting], BeforeValidator(_flat)] = Field(
        default={}, max_length=MOST_SETTINGS, json_schema_extra=_NESTED
    )
    until: Literal["train", "guardrail"] = "train"


class Move(_Strict):
    """A version on its way to another stage.

    Attributes:
        stage: Where to.
        why: The reason, which is kept.
        by: Who; a key says it by itself.
    """

    stage: Literal["Staging", "Production", "Archived"]
    why: str = Field(min_length=1, max_length=500)
    by: str = Field(default="", max_length=100)


def _tag_of_work(value: Any) -> str:
    known = value if isinstance(value, dict) else {}
    kind = known.get("kind", "counterfactual" if "intervention" in known else "predict")
    return f"<{kind}>" if isinstance(kind, str) else ""


type Work = Annotated[
    Annotated[Question, Tag("<predict>")]
    | Annotated[Counterfactual, Tag("<counterfactual>")]
    | Annotated[Training, Tag("<train>")],
    Discriminator(
        _tag_of_work,
        custom_error_type="kind",
        custom_error_message="kind: expected predict, counterfactual or train",
    ),
]


def schemas() -> dict[str, Any]:
    """JSON schemas of what may be asked, for the description of the service."""
    kinds: list[type[BaseModel]] = [Asked, Question, Counterfactual, Training, Move]
    _, found = models_json_schema(
        [(kind, "validation") for kind in kinds], ref_template="#/components/schemas/{model}"
    )
    return found["$defs"] | {"Problem": PROBLEM}


PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["type", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "problems": {"type": "array", "items": {"type": "string"}},
    },
}


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


NO_DATABASE = ProblemError(
    503, "the database cannot be reached; ask again", headers={"Retry-After": "5"}
)


class Gate:
    """What a request passes first: whose it is, what that key may do, how often, and from where.

    Args:
        app: What answers the requests that pass.
        key: Finds the key of a text; None where none is asked for.
        rate: Requests a second that one user may send in the long run; 0 for no limit.
    """

    def __init__(self, app: ASGIApp, key: Callable[[str], Key | None] | None, rate: float) -> None:
        self._app, self._key, self._rate = app, key, rate
        self._burst = max(20.0, 2 * rate)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests, and when

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            try:
                await self._admit(scope, Headers(scope=scope))
            except ProblemError as error:
                await error.response()(scope, receive, send)
                return
            except SQLAlchemyError:
                await NO_DATABASE.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope, headers: Headers) -> None:
        method, path = scope["method"], scope["path"]
        if method not in ("GET", "HEAD", "OPTIONS"):
            _assert_own_site(headers)
        client = scope.get("client") or ("", 0)
        who, scopes = "", SCOPES
        wanted = _scope_of(method, path)
        if self._key is not None and wanted:
            given = _given(headers.get("authorization", ""))
            found = await asyncio.to_thread(self._key, given)
            if found is None:
                self._count(str(client[0]))  # so that keys are not tried without end
                detail = "a key is needed, sent as `Authorization: Bearer`"
                raise ProblemError(401, detail, headers=_CHALLENGE)
            if wanted not in found.scopes:
                raise ProblemError(403, f"the key may {', '.join(found.scopes)}, not {wanted}")
            who, scopes = found.name, found.scopes
            client = (found.id, 0)
        if wanted:
            self._count(str(client[0]))
        scope.setdefault("state", {}).update(who=who, scopes=scopes)

    def _count(self, client: str) -> None:
        """Take one request from what a user has left."""
        if not self._rate:
            return
        now = time.monotonic()
        left, since = self._left.pop(client, (self._burst, now))
        left = min(self._burst, left + self._rate * (now - since))
        self._left[client] = (max(0.0, left - 1), now)
        if len(self._left) > _MOST_CLIENTS:
            self._left.popitem(last=False)
        if left < 1:
            seconds = math.ceil((1 - left) / self._rate)
            detail = f"more than {self._rate:g} requests a second; ask again in {seconds} s"
            raise ProblemError(429, detail, headers={"Retry-After": str(seconds)})


def _scope_of(method: str, path: str) -> str:
    """What a key needs for a request; empty where everybody may ask."""
    if path in ("/health", "/health/ready", "/ready") or path.startswith("/static/"):
        return ""
    if method == "POST" and path.startswith("/models/"):
        return "promote"
    if method == "POST" and path.startswith(("/predict", "/api/inference/")):
        return "infer"
    if path.startswith("/jobs") and method in ("POST", "DELETE"):
        return "infer"  # a training asks for more, see `assert_may`
    return "read"


def assert_may(request: Request, wanted: str) -> None:
    """Refuse a request whose key may not do something."""
    if wanted not in request.state.scopes:
        raise ProblemError(403, f"the key may {', '.join(request.state.scopes)}, not {wanted}")


def _given(authorization: str) -> str:
    """The key of a header: a bearer's token, or the password that a browser asks for."""
    kind, _, content = authorization.partition(" ")
    if kind.lower() == "bearer":
        return content.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(content, validate=True).decode().partition(":")[2]
        except ValueError:
            return ""
    return ""


def _assert_own_site(headers: Headers) -> None:
    """Refuse what a page of another site makes a browser send, with whatever the browser knows."""
    origin = headers.get("origin", "")
    other = origin and origin.partition("://")[2] != headers.get("host", "")
    if other or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise ProblemError(403, "the request is from a page of another site")


@cache
def _adapter(kind: Any) -> TypeAdapter:
    """What reads a kind of question; making it takes longer than reading with it."""
    return TypeAdapter(kind)


async def asked[T: BaseModel](request: Request, most: int, kind: type[T] | Any) -> T:
    """What the body of a request asks.

    Args:
        request: As received.
        most: Bytes that a body may have.
        kind: `Question`, another class of it, or `Work`.

    Raises:
        ProblemError: If the body is too long, no JSON, or no question; it never quotes the values.
    """
    if media_type(request) != "application/json":  # what a page of another site may not send
        raise ProblemError(415, "the content type is not application/json")
    content = await body(request, most)
    try:
        return _adapter(kind).validate_json(content)
    except ValidationError as error:
        raise no_question(error) from None


def media_type(request: Request) -> str:
    """Of the body of a request, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def no_question(error: ValidationError) -> ProblemError:
    """The refusal of what is no question, with everything that is wrong with it."""
    return ProblemError(422, "the body is no question", _said(error))


async def body(request: Request, most: int) -> bytes:
    """The body of a request.

    Raises:
        ProblemError: If it is too long, or does not arrive.
    """
    found = bytearray()
    try:
        async with asyncio.timeout(SLOW_BODY):
            async for part in request.stream():
                found += part
                if len(found) > most:
                    raise ProblemError(413, f"the body has more than {most} bytes")
    except TimeoutError:
        raise ProblemError(408, f"the body did not arrive in {SLOW_BODY:g} s") from None
    return bytes(found)


def checked(question: Question, about: ModelMetadata) -> None:
    """Hold the values of a form against its fields.

    Raises:
        ProblemError: With everything that is wrong with them.
    """
    if question.inputs is None:
        return
    if not about.inference_params:
        raise ProblemError(422, f"{question.model_id} answers no form; ask it by a record")
    several = isinstance(question.inputs, list)
    problems = []
    for number, inputs in enumerate(question.inputs if several else [question.inputs]):
        _, found = about.completed(inputs)
        problems += [f"inputs.{number}.{each}" for each in found] if several else found
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
        key = ".".join(part for part in map(str, each["loc"]) if not part.startswith("<"))
        text = each["msg"].removeprefix("Value error, ")
        said.append(f"{key}: {text}" if key else text)
    return said
