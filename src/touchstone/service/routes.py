"""The endpoints for programs. This process computes nothing and imports no engine: workers do."""

import asyncio
import getpass
import json
import logging
import os
import re
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import (
    APIRouter,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Path,
    Query,
    Request,
    Response,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from touchstone import __version__, registry
from touchstone.io.artifacts import ArtifactError
from touchstone.service import Settings, pages, questions
from touchstone.service.app import Service, about, told
from touchstone.service.pool import Answer, examined
from touchstone.service.questions import (
    MODEL_ID,
    MOST_DRAWS,
    Asked,
    Counterfactual,
    Gate,
    Move,
    ProblemError,
    Question,
    Record,
    Training,
    Work,
    assert_may,
)
from touchstone.service.store import ENDED, Job
from touchstone.service.versions import (
    ALLOWED,
    PLAIN_NAME,
    PromotionError,
    Transition,
    certificate,
    received,
)
from touchstone.stages import runs

_LOG = logging.getLogger(__name__)
_STATUS = {"refused": 422, "unsupported": 501, "failed": 500, "unavailable": 503}
_WORK = ("Question", "Counterfactual", "Training")
_SLOW_UPLOAD = 600.0  # s in which an artefact has to arrive
_FILE = {"type": "string", "format": "binary"}
_RECORD = {"type": "object", "properties": {"data": _FILE, "meta": _FILE}, "required": ["data"]}
_FORM = {
    "type": "object",
    "properties": {
        "files": {"type": "array", "items": _FILE, "minItems": 1},
        "why": {"type": "string"},
        "by": {"type": "string"},
    },
    "required": ["files"],
}
_PROBLEM: dict[str, Any] = {
    "description": "What is wrong (RFC 9457).",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_UPLOAD: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}
}
_ASKED: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Asked"}},
            "multipart/form-data": {"schema": _RECORD},
        },
    }
}
_LOOK = 0.3  # s between looks for events of a job
_BEAT = 15.0  # s between signs of life of a stream without events
ModelId = Annotated[str, Path(pattern=MODEL_ID)]
ModelFilter = Annotated[str | None, Query(pattern=MODEL_ID)]
Number = Annotated[int, Path(ge=1, le=10**6)]
JobId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]


async def _token(  # a function that is none of a coroutine waits for a thread
    request: Request,
    given: Annotated[str, Header(alias="Idempotency-Key", max_length=255)] = "",
) -> str:
    """By which a user says that a request is sent again; the same word of another is another."""
    return f"{request.state.who}\n{given}" if given else ""


Token = Annotated[str, Depends(_token)]
VersionName = Annotated[
    str | None,
    Query(pattern=r"^(production|latest|[1-9][0-9]{0,5})$", description="Of the artefact."),
]
Draws = Annotated[int, Query(ge=0, le=MOST_DRAWS, description="Of the posterior, to be sent too.")]


def create(settings: Settings) -> FastAPI:
    """The application of a service.

    Args:
        settings: Of the service.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="touchstone", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.closing = service.closing  # set as soon as the process is to end
    local = settings.is_local
    app.add_middleware(Gate, key=None if local else service.store.key, rate=settings.rate)
    if local:
        # A page of another site may not ask under a name of its own that leads to this machine.
        hosts = ["127.0.0.1", "localhost", "[::1]"]
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    _add_problems(app)
    pages.register(app, service)
    _add_endpoints(app, service)
    return app


def _methods(app: FastAPI, path: str) -> list[str]:
    """Methods by which a described path is asked."""
    found: set[str] = set()
    for template, operations in app.openapi()["paths"].items():
        pattern = re.sub(r"\\\{.*?\\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path):
            found |= {method.upper() for method in operations}
    return sorted(found)


def _add_problems(app: FastAPI) -> None:
    """Answer whatever goes wrong as a problem (RFC 9457)."""

    @app.exception_handler(ProblemError)
    async def _problem(_: Request, error: ProblemError) -> Response:
        return error.response()

    @app.exception_handler(SQLAlchemyError)
    async def _no_database(_: Request, error: SQLAlchemyError) -> Response:
        _LOG.warning("a request failed: the database does not answer (%s)", type(error).__name__)
        return questions.NO_DATABASE.response()

    @app.exception_handler(StarletteException)
    async def _http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers) if error.headers else None
        if error.status_code == 405:  # the framework names the methods of one route alone
            known = _methods(app, request.url.path)
            headers = {"Allow": ", ".join(known)} if known else headers
        return ProblemError(error.status_code, str(error.detail), headers=headers).response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        said = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        return ProblemError(422, "the request is not valid", said).response()

    @app.exception_handler(Exception)
    async def _unexpected(_: Request, error: Exception) -> Response:
        _LOG.error("a request failed", exc_info=error)
        return ProblemError(500, f"the service failed ({type(error).__name__})").response()


def _add_endpoints(app: FastAPI, service: Service) -> None:
    for router in (_states, _models, _versions, _questions, _jobs, _runs):
        app.include_router(router(service))
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = described()
            schema["components"]["schemas"] = questions.schemas()
            for operations in schema["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)  # it is a problem as all others are
                    operation["responses"]["default"] = _PROBLEM
        return app.openapi_schema or {}

    app.openapi = openapi


def _states(service: Service) -> APIRouter:
    router = APIRouter(tags=["state"])

    @router.get("/health")
    async def health() -> dict[str, Any]:
        """Whether this process is alive."""
        about = {"status": "alive", "version": __version__, "process": os.getpid()}
        # Everybody may read this; what is wrong with a store stands in the log.
        stores = {
            name: "not reachable" if problem else "reachable"
            for name, problem in service.states.items()
        }
        return about | {"execution": service.settings.execution, "stores": stores}

    @router.get("/ready")
    @router.get("/health/ready")
    async def ready(response: Response) -> dict[str, Any]:
        """Whether each worker has answered its canary, as every worker before it did."""
        states = {
            model_id: {"ready": pool.ready, "reason": pool.reason, "workers": pool.pids}
            for model_id, pool in service.pools.items()
        }
        alright = all(state["ready"] for state in states.values())
        response.status_code = 200 if alright else 503
        return {"ready": alright, "models": states}

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Latencies, queues, restarts and verdicts, for Prometheus."""
        content = generate_latest(service.metrics.registry)
        if service.settings.historical:
            content += re.sub(rb"(?m)^(# (?:HELP|TYPE) |)touchstone_", rb"\1acie_", content)
        return Response(content, media_type=CONTENT_TYPE_LATEST)

    return router


def _models(service: Service) -> APIRouter:
    router = APIRouter(tags=["models"])

    @router.get("/models")
    def models() -> dict[str, Any]:
        """Every model with its status, and what is wrong with each that is broken."""
        found = registry.get_registry()
        return {
            "models": [service.listed(each) for each in found.models],
            "broken": sorted(found.broken),
        }

    @router.get("/models/{model_id}")
    @router.get("/models/{model_id}/info")
    def model(model_id: ModelId) -> dict[str, Any]:
        """What a model is, what it infers, the form by which it is asked, and its certificate."""
        about = questions.metadata(model_id)
        return service.listed(model_id) | {
            "description": about.description,
            "tags": about.tags,
            "parameters": {name: each.model_dump() for name, each in about.parameters.items()},
            "fields": [field.model_dump() for field in about.inference_params],
            "certificate": certificate(model_id),
        }

    return router


def _versions(service: Service) -> APIRouter:
    router = APIRouter(tags=["versions"])

    @router.get("/models/{model_id}/versions")
    def versions(model_id: ModelId) -> dict[str, Any]:
        """The versions of a model, its aliases, and every transition with who, when and why."""
        questions.metadata(model_id)
        found = service.versions
        return {
            "versions": [_version(each) for each in found.listed(model_id)],
            "aliases": found.aliases(model_id),
            "history": [each._asdict() for each in found.history(model_id)],
        }

    @router.get("/models/{model_id}/versions/{number}")
    def version(model_id: ModelId, number: Number, response: Response) -> dict[str, Any]:
        """A version; its ETag is what `If-Match` takes."""
        questions.metadata(model_id)
        each = service.found(model_id, number)
        response.headers["ETag"] = _etag(each)
        return _version(each)

    @router.post("/models/{model_id}/versions", status_code=201, openapi_extra=_UPLOAD)
    async def upload(
        model_id: ModelId,
        request: Request,
        response: Response,
        digest: Annotated[str, Query(pattern=r"^([0-9a-f]{64})?$")] = "",
    ) -> dict[str, Any]:
        """Add an artefact as a version: the files of its folder, as they are, in one form."""
        questions.metadata(model_id)
        with tempfile.TemporaryDirectory(dir=service.settings.folder, prefix=".upload_") as place:
            why, by = await _unpacked(request, service.settings.upload, FilePath(place))
            try:
                added = await service.add_version(
                    model_id, received(FilePath(place)), _who(request, by), why, digest
                )
            except ArtifactError as error:
                text = str(error)
                for folder in (place, service.settings.folder.absolute()):
                    text = text.replace(f"{folder}/", "")  # of no use elsewhere
                raise ProblemError(422, f"the artefact is refused: {text}") from None
        response.headers["ETag"] = _etag(added)
        response.headers["Location"] = f"/models/{model_id}/versions/{added.version}"
        return _version(added)

    @router.post("/models/{model_id}/versions/{number}/stage", openapi_extra=_in_body("Move"))
    async def move(
        model_id: ModelId,
        number: Number,
        request: Request,
        response: Response,
        if_match: Annotated[str, Header(max_length=100)] = "",
    ) -> dict[str, Any]:
        """Move a version to another stage, which it has to have earned: 409 says what it lacks."""
        asked = await questions.asked(request, service.settings.body, Move)
        questions.metadata(model_id)
        known = await asyncio.to_thread(service.found, model_id, number)
        if not if_match:
            raise ProblemError(428, "If-Match: is missing, expected the ETag of the version")
        if if_match != _etag(known):
            detail = f"version {number} was moved meanwhile: it is {known.stage}"
            raise ProblemError(412, detail, headers={"ETag": _etag(known)})
        canary = ""
        what = f"{model_id} version {number} from {known.stage} to {asked.stage}"
        # What may not come there at all is refused without hearing its answers.
        if asked.stage != "Archived" and asked.stage in ALLOWED[known.stage]:
            try:
                # What answers already is this artefact, or its files are refused all the same.
                running = service.of_versions.get((model_id, number))
                known_facts = running.facts if running is not None else None
                place = await asyncio.to_thread(service.place, model_id, number)
                facts = known_facts or await examined(model_id, str(place))
                canary = " ".join(facts["canary"])
            except ArtifactError as error:
                raise ProblemError(409, what, [str(error)]) from None
        by = _who(request, asked.by)
        try:
            said = (asked.stage, canary, by, asked.why)
            moved = await asyncio.to_thread(service.versions.move, model_id, number, *said)
        except PromotionError as error:
            raise ProblemError(409, what, error.problems) from None
        except ArtifactError as error:
            raise ProblemError(422, str(error)) from None
        response.headers["ETag"] = _etag(moved)
        return _version(moved)

    return router


@asynccontextmanager
async def _form(request: Request, most: int, seconds: float, fields: int) -> AsyncGenerator[Any]:
    """The form of a request, whose files are on disk.

    Raises:
        ProblemError: If there is none, it is too large, or it comes too slowly.
    """
    if questions.media_type(request) != "multipart/form-data":
        raise ProblemError(415, "the content type is not multipart/form-data")
    too_large = ProblemError(413, f"the body has more than {most} bytes")
    if int(request.headers.get("content-length") or 0) > most:
        raise too_large
    size = 0

    async def counted() -> Any:
        nonlocal size
        message = await request.receive()
        size += len(message.get("body", b""))
        if size > most:
            raise too_large
        return message

    try:
        async with (
            asyncio.timeout(seconds),
            Request(request.scope, counted).form(max_files=64, max_fields=fields) as form,
        ):
            yield form
    except TimeoutError:
        raise ProblemError(408, f"the body did not arrive in {seconds:g} s") from None


async def _unpacked(request: Request, most: int, folder: FilePath) -> tuple[str, str]:
    """Write the files of a form to a folder; returns `why` and `by`.

    Raises:
        ProblemError: As of `_form`, or if it names what is no plain file.
    """
    async with _form(request, most, _SLOW_UPLOAD, 2) as form:
        files = form.getlist("files")
        if set(form) - {"files", "why", "by"} or not files:
            raise ProblemError(422, "expected files, the artefact's, and maybe why and by")
        for file in files:
            name = getattr(file, "filename", None) or ""
            if not isinstance(file, UploadFile) or not PLAIN_NAME.fullmatch(name):
                raise ProblemError(422, f"files: {name!r:.110} is no name of a file")
            if (folder / name).exists():
                raise ProblemError(422, f"files: {name} was sent twice")
            with (folder / name).open("wb") as stream:
                while part := await file.read(2**20):
                    stream.write(part)
        said = [form.get(name, "") for name in ("why", "by")]
        why, by = (each if isinstance(each, str) else "" for each in said)
        return why[:500].strip() or "uploaded", by[:100]


async def _uploaded(request: Request, most: int) -> Asked:
    """The record whose files are in a form.

    Raises:
        ProblemError: As of `_form`, or if it is no record.
    """
    async with _form(request, most, questions.SLOW_BODY, 0) as form:
        if sorted(name for name, _ in form.multi_items()) not in (["data"], ["data", "meta"]):
            raise ProblemError(422, "expected data, the file of a record, and maybe meta, its YAML")
        sent = {name: await file.read() for name, file in form.items()}
        try:
            record = Record.of(form["data"].filename or "", sent["data"], sent.get("meta"))
        except ValidationError as error:
            raise questions.no_question(error) from None
        return Asked(record=record)


def _questions(service: Service) -> APIRouter:
    router = APIRouter(tags=["questions"])

    async def answered(question: Question | Counterfactual, token: str) -> Response:
        asked = question.model_dump()
        if (job := await service.retried(asked, token)) is not None:
            return _accepted(job)
        content = await service.resolved(question)
        answer = await service.ask(content)
        try:
            deadline = service.settings.deadline
            found = await asyncio.wait_for(asyncio.shield(answer), deadline)
        except TimeoutError:
            return _accepted(await service.accept(content, answer, asked, token))
        return _sent(found, service)

    async def predicted(
        question: Question, token: str, version: str | None, draws: int
    ) -> Response:
        changes = {"version": _named(version)} if version else {}
        changes |= {"draws": draws} if draws else {}
        return await answered(question.model_copy(update=changes), token)

    @router.post("/predict", openapi_extra=_in_body("Question"))
    async def predict(
        request: Request, token: Token, version: VersionName = None, draws: Draws = 0
    ) -> Response:
        """The report that the command line gives; after the deadline, a job instead."""
        question = await questions.asked(request, service.settings.body, Question)
        return await predicted(question, token, version, draws)

    @router.post("/predict/{model_id}", openapi_extra=_ASKED)
    async def predict_of(
        model_id: ModelId,
        request: Request,
        token: Token,
        version: VersionName = None,
        draws: Draws = 0,
    ) -> Response:
        """The same of the model that the path names, also with the files of a record as a form."""
        most = service.settings.body
        if questions.media_type(request) == "multipart/form-data":
            asked = await _uploaded(request, most)
        else:
            asked = await questions.asked(request, most, Asked)
        question = Question(model_id=model_id, **dict(asked))
        return await predicted(question, token, version, draws)

    @router.post("/api/inference/counterfactual", openapi_extra=_in_body("Counterfactual"))
    async def counterfactual(
        request: Request, token: Token, version: VersionName = None
    ) -> Response:
        """What an observed system would be, had something about it been otherwise."""
        question = await questions.asked(request, service.settings.body, Counterfactual)
        changes = {"version": _named(version)} if version else {}
        return await answered(question.model_copy(update=changes), token)

    return router


def _jobs(service: Service) -> APIRouter:
    router = APIRouter(prefix="/jobs", tags=["jobs"])

    @router.post("", status_code=202, openapi_extra=_in_body(*_WORK))
    async def job(request: Request, token: Token) -> Response:
        """Accept a question whose answer is fetched later, or a training."""
        asked = await questions.asked(request, service.settings.body, Work)
        if isinstance(asked, Training):
            assert_may(request, "promote")
        if (known := await service.retried(asked.model_dump(), token)) is not None:
            return _accepted(known)
        if isinstance(asked, Training):
            return _accepted(await service.train(asked, token))
        content = await service.resolved(asked)
        answer = await service.ask(content)
        return _accepted(await service.accept(content, answer, asked.model_dump(), token))

    @router.get("")
    def jobs(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> dict[str, Any]:
        """The newest jobs, without their answers."""
        return {"jobs": [about(each) for each in service.store.jobs(limit)]}

    @router.get("/{job_id}")
    def state(job_id: JobId) -> Response:
        """State of a job, with its report where it is done."""
        return _job(service.job(job_id))

    @router.delete("/{job_id}")
    async def cancel(job_id: JobId, request: Request) -> Response:
        """Cancel a job: a question that waits, or a training with all its processes."""
        job = await asyncio.to_thread(service.job, job_id)
        if job.question["kind"] == "train":
            assert_may(request, "promote")
        return _job(await service.cancel(job_id))

    @router.get("/{job_id}/events", response_class=StreamingResponse)
    def events(
        job_id: JobId,
        last_event_id: Annotated[str, Header(pattern=r"^[0-9]{0,9}$")] = "",
    ) -> Response:
        """Server-sent events of a job, from the one after `Last-Event-ID` on, to its end."""
        service.job(job_id)
        stream = _stream(service, job_id, int(last_event_id or 0))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream, headers=headers, media_type="text/event-stream")

    return router


async def _stream(service: Service, number: str, after: int) -> AsyncGenerator[str]:
    """Events of a job as they come."""
    quiet = 0.0
    while True:
        # In this order: all events of a job that has ended are there.
        job = await asyncio.to_thread(service.store.find, number)
        for event in await asyncio.to_thread(service.store.events, number, after):
            yield f"id: {event.number}\nevent: {event.name}\ndata: {event.content}\n\n"
            after, quiet = event.number, 0.0
        if job is None or job.status in ENDED or service.closing.is_set():
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(service.closing.wait(), _LOOK)
        quiet += _LOOK
        if quiet >= _BEAT:
            yield ": still at work\n\n"
            quiet = 0.0


def _runs(_: Service) -> APIRouter:
    router = APIRouter(tags=["runs"])

    as_csv: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {}}}}

    @router.get("/runs", responses=as_csv)
    def table(request: Request, model_id: ModelFilter = None) -> Response:
        """Every run whose reports are here, the newest first; as CSV where `Accept` says so."""
        rows = [row for row in runs.rows() if model_id in (None, row["model_id"])]
        if "text/csv" in request.headers.get("accept", ""):
            return PlainTextResponse(runs.as_csv(rows), media_type="text/csv")
        return JSONResponse({"runs": rows})

    @router.get("/runs.csv", response_class=Response, responses=as_csv)
    def download(model_id: ModelFilter = None) -> Response:
        """The same as a file."""
        rows = [row for row in runs.rows() if model_id in (None, row["model_id"])]
        return PlainTextResponse(runs.as_csv(rows), media_type="text/csv")

    return router


def _in_body(*names: str) -> dict[str, Any]:
    """Description of a body, which is read by hand so that its limits hold while it arrives."""
    kinds = [{"$ref": f"#/components/schemas/{name}"} for name in names]
    schema = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _who(request: Request, said: str) -> str:
    """Who asks: whom a key belongs to; without one, who somebody says to be."""
    return request.state.who or said or getpass.getuser()


def _named(version: str) -> int | str:
    return int(version) if version.isdigit() else version


def _etag(version: Transition) -> str:
    return f'"{version.sequence}"'


def _version(version: Transition) -> dict[str, Any]:
    return version._asdict() | {"etag": _etag(version)}


def _accepted(job: Job) -> Response:
    where = f"/jobs/{job.id}"
    content = json.dumps({"job": job.id, "status": job.status, "where": where})
    return Response(content, 202, {"Location": where, "Retry-After": "1"}, "application/json")


def _job(job: Job) -> Response:
    return Response(told(job), media_type="application/json")


def _sent(found: Answer, service: Service) -> Response:
    """The report, or the problem in its place."""
    if found.kind == "answer":
        return Response(found.text, media_type="application/json")
    text = found.text
    if found.kind == "unsupported":
        text += f"; those that do: {', '.join(service.counterfactuals()) or 'none that is served'}"
    headers = {"Retry-After": "5"} if found.kind == "unavailable" else None
    raise ProblemError(_STATUS[found.kind], text, headers=headers)
