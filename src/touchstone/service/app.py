"""The endpoints. This process computes nothing and imports no engine: workers do."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path as FilePath
from typing import Annotated, Any, NamedTuple

from fastapi import FastAPI, HTTPException, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException as StarletteException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from touchstone import __version__, registry
from touchstone.service import pages, questions
from touchstone.service.jobs import Job, Jobs
from touchstone.service.pool import Answer, Metrics, Pool, QueueFullError
from touchstone.service.questions import MODEL_ID, ProblemError, Question
from touchstone.service.versions import Versions

_LOG = logging.getLogger(__name__)
_SLOW_BODY = 20.0  # s in which a body has to arrive
_PATIENCE = 5.0  # s between questions of a job to a model that cannot answer yet
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_STATUS = {"refused": 422, "failed": 500, "unavailable": 503}
ModelId = Annotated[str, Path(pattern=MODEL_ID)]
JobId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]


class Settings(NamedTuple):
    """How a service runs.

    Attributes:
        models: Models that it serves.
        host: Address that it listens at.
        port: 0 takes a free one.
        workers: Processes for each model.
        queue: Questions of a model that may wait.
        deadline: Seconds that a request waits; a question that takes longer becomes a job.
        body: Bytes that the body of a request may have.
        folder: Of the service's own files.
    """

    models: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    queue: int = 64
    deadline: float = 30.0
    body: int = 8 * 2**20
    folder: FilePath = FilePath("results/registry")


class Service:
    """Pools of workers and the jobs that they answer.

    Args:
        settings: Of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.metrics = settings, Metrics()
        self.pools = {
            model_id: Pool(model_id, settings.workers, settings.queue, self.metrics)
            for model_id in settings.models
        }
        self.jobs = Jobs(settings.folder / "service.sqlite")
        self._followed: set[asyncio.Task] = set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Start the workers, take up the jobs of an earlier process, and end in order."""
        for pool in self.pools.values():
            pool.start()
        for job in self.jobs.unfinished():
            pool = self.pools.get(job.question["model_id"])
            if pool is not None:  # else it waits for a service that has its model
                self._follow(job.id, job.question, pool.ask(job.question, bounded=False))
        try:
            yield
        finally:
            for task in self._followed:
                task.cancel()
            await asyncio.gather(*(pool.close() for pool in self.pools.values()))
            self.jobs.close()

    def pool(self, model_id: str) -> Pool:
        """Workers of a model.

        Raises:
            ProblemError: If there is no such model, or it is not served.
        """
        questions.metadata(model_id)
        if model_id not in self.pools:
            raise ProblemError(409, f"{model_id}: is not served; {_answering(model_id)}")
        return self.pools[model_id]

    def listed(self, model_id: str) -> dict[str, Any]:
        """Status of a model: what was made here, and whether a worker would answer."""
        status = registry.get_model_status(model_id)
        del status["output_dir"]  # of no use elsewhere
        pool = self.pools.get(model_id)
        return status | {
            "served": pool is not None,
            "ready": pool is not None and pool.ready,
            "artefact": pool.facts["artefact"] if pool and pool.facts else _answering(model_id),
            "reason": pool.reason if pool else "",
        }

    def ask(self, question: Question) -> tuple[dict[str, Any], asyncio.Future[Answer]]:
        """Put a question into the queue of its model.

        Raises:
            ProblemError: If it cannot be answered, or not now.
        """
        pool = self.pool(question.model_id)
        questions.checked(question, questions.metadata(question.model_id))
        content = question.model_dump()
        try:
            return content, pool.ask(content)
        except QueueFullError as error:
            headers = {"Retry-After": str(error.seconds)}
            raise ProblemError(503, str(error), headers=headers) from None

    def accept(self, question: dict[str, Any], answer: asyncio.Future[Answer]) -> str:
        """Make a job of a question that waits; returns its id."""
        number = self.jobs.accept(question)
        self._follow(number, question, answer)
        return number

    def _follow(
        self, number: str, question: dict[str, Any], answer: asyncio.Future[Answer]
    ) -> None:
        """Keep the answer of a job when it is there."""

        async def follow() -> None:
            found = await answer
            while found.kind == "unavailable":  # the next process may have an artefact
                await asyncio.sleep(_PATIENCE)
                pool = self.pools[question["model_id"]]
                found = await pool.ask(question, bounded=False)
            self.jobs.finish(number, found.kind, found.text)

        task = asyncio.create_task(follow())
        self._followed.add(task)
        task.add_done_callback(self._followed.discard)


def _answering(model_id: str) -> str:
    from touchstone.stages import checkpoints

    return checkpoints.answering(model_id)


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
    # A page of another site may not ask under a name of its own that leads to this machine.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    _add_problems(app)
    _add_states(app, service)
    _add_models(app, service)
    pages.register(app, service)
    _add_questions(app, service)
    return app


def _add_problems(app: FastAPI) -> None:
    """Answer whatever goes wrong as a problem (RFC 9457)."""

    @app.exception_handler(ProblemError)
    async def _problem(_: Request, error: ProblemError) -> Response:
        return error.response()

    @app.exception_handler(StarletteException)
    async def _http(_: Request, error: HTTPException) -> Response:
        headers = dict(error.headers) if error.headers else None
        return ProblemError(error.status_code, str(error.detail), headers=headers).response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        said = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        return ProblemError(422, "the request is not valid", said).response()

    @app.exception_handler(Exception)
    async def _unexpected(_: Request, error: Exception) -> Response:
        _LOG.error("a request failed", exc_info=error)
        return ProblemError(500, f"the service failed ({type(error).__name__})").response()


def _add_states(app: FastAPI, service: Service) -> None:
    @app.get("/health", tags=["state"])
    async def health() -> dict[str, str]:
        """Whether this process is alive."""
        return {"status": "alive", "version": __version__}

    @app.get("/ready", tags=["state"])
    async def ready(response: Response) -> dict[str, Any]:
        """Whether each worker has answered its canary, as every worker before it did."""
        states = {
            model_id: {"ready": pool.ready, "reason": pool.reason, "workers": pool.pids}
            for model_id, pool in service.pools.items()
        }
        alright = all(state["ready"] for state in states.values())
        response.status_code = 200 if alright else 503
        return {"ready": alright, "models": states}

    @app.get("/metrics", tags=["state"])
    async def metrics() -> Response:
        """Latencies, queues, restarts and verdicts, for Prometheus."""
        content = generate_latest(service.metrics.registry)
        return Response(content, media_type=CONTENT_TYPE_LATEST)


def _add_models(app: FastAPI, service: Service) -> None:
    @app.get("/models", tags=["models"])
    def models() -> dict[str, Any]:
        """Every model with its status, and what is wrong with each that is broken."""
        found = registry.get_registry()
        return {
            "models": [service.listed(each) for each in found.models],
            "broken": sorted(found.broken),
        }

    @app.get("/models/{model_id}", tags=["models"])
    def model(model_id: ModelId) -> dict[str, Any]:
        """What a model is, what it infers, and the form by which it is asked."""
        about = questions.metadata(model_id)
        return service.listed(model_id) | {
            "description": about.description,
            "tags": about.tags,
            "parameters": {name: each.model_dump() for name, each in about.parameters.items()},
            "fields": [field.model_dump() for field in about.inference_params],
        }

    @app.get("/models/{model_id}/versions", tags=["models"])
    def versions(model_id: ModelId) -> dict[str, Any]:
        """The versions of a model, its aliases, and every transition with who, when and why."""
        questions.metadata(model_id)
        found = Versions(service.settings.folder)
        try:
            return {
                "versions": [each._asdict() for each in found.listed(model_id)],
                "aliases": found.aliases(model_id),
                "history": [each._asdict() for each in found.history(model_id)],
            }
        finally:
            found.close()


def _add_questions(app: FastAPI, service: Service) -> None:
    limit = service.settings.body
    body = {"content": {"application/json": {"schema": Question.model_json_schema()}}}
    in_body: dict[str, Any] = {"requestBody": {"required": True, **body}}

    async def question_of(request: Request) -> Question:
        try:
            async with asyncio.timeout(_SLOW_BODY):
                return await questions.asked(request, limit)
        except TimeoutError:
            raise ProblemError(408, f"the body did not arrive in {_SLOW_BODY:g} s") from None

    @app.post("/predict", tags=["questions"], openapi_extra=in_body)
    async def predict(request: Request) -> Response:
        """The report that the command line gives; after the deadline, a job instead."""
        question, answer = service.ask(await question_of(request))
        try:
            deadline = service.settings.deadline
            found = await asyncio.wait_for(asyncio.shield(answer), deadline)
        except TimeoutError:
            return _accepted(service.accept(question, answer))
        return _sent(found)

    @app.post("/jobs", tags=["questions"], status_code=202, openapi_extra=in_body)
    async def job(request: Request) -> Response:
        """Accept a question whose answer is fetched later."""
        return _accepted(service.accept(*service.ask(await question_of(request))))

    @app.get("/jobs/{job_id}", tags=["questions"])
    async def state(job_id: JobId) -> Response:
        """State of a job, with its report where it is done."""
        found = service.jobs.find(job_id)
        if found is None:
            raise ProblemError(404, f"there is no job {job_id}")
        return _job(found)


def _accepted(number: str) -> Response:
    where = f"/jobs/{number}"
    content = json.dumps({"job": number, "status": "waiting", "where": where})
    return Response(content, 202, {"Location": where, "Retry-After": "1"}, "application/json")


def _job(job: Job) -> Response:
    head = json.dumps({"job": job.id, "model_id": job.question["model_id"]})[:-1]
    match job.kind:
        case None:
            text = f'{head}, "status": "waiting"}}'
        case "answer":  # the report's own text, so that its bits are those of a direct answer
            text = f'{head}, "status": "done", "report": {job.answer}}}'
        case kind:
            text = f'{head}, "status": {json.dumps(kind)}, "detail": {json.dumps(job.answer)}}}'
    return Response(text, media_type="application/json")


def _sent(found: Answer) -> Response:
    """The report, or the problem in its place."""
    if found.kind == "answer":
        return Response(found.text, media_type="application/json")
    headers = {"Retry-After": "5"} if found.kind == "unavailable" else None
    raise ProblemError(_STATUS[found.kind], found.text, headers=headers)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests that are open then get some seconds."""
    import uvicorn

    uvicorn.run(
        create(settings),
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=5,
        server_header=False,
        access_log=False,
    )
