"""Ask a service from Python: no engine is imported here, and the answers are those of `load`.

Client("http://localhost:8080").infer("interface", inputs={"film": "film 3", "Tg_num": 420})
"""

import asyncio
import base64
import random
import time
import uuid
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import httpx

from touchstone.answer import Answer

_AGAIN = (408, 425, 429, 502, 503, 504)  # of HTTP: another attempt may succeed
_LONGEST = 10.0  # s between attempts, where the service does not say
_ENDED = ("done", "refused", "failed", "cancelled")

type Inputs = Mapping[str, Any]
type Record = str | Path | Mapping[str, str]
type Strategy = Literal["strict_physics", "report_only"]


class ServiceError(Exception):
    """A question that was not answered.

    Attributes:
        status: Of HTTP; None where no response came.
        problems: Each thing that is wrong with the question, beginning with its key.
    """

    def __init__(
        self, detail: str, status: int | None = None, problems: Sequence[str] = ()
    ) -> None:
        super().__init__("; ".join([detail, *(each for each in problems if each not in detail)]))
        self.status, self.problems = status, list(problems)


class _Send(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    params: dict[str, Any]
    body: dict[str, Any] | None


class _Wait(NamedTuple):
    seconds: float


type _Steps[T] = Generator[_Send | _Wait, httpx.Response | None, T]


class _Policy(NamedTuple):
    timeout: float
    attempts: int
    key: str | None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


def _sent(
    policy: _Policy,
    end: float,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
    params: dict[str, Any] | None = None,
) -> _Steps[httpx.Response]:
    """One request, sent again under one idempotency key while that may help."""
    headers = policy.headers | ({"Idempotency-Key": uuid.uuid4().hex} if body else {})
    detail, status = "no attempt was made", None
    for attempt in range(policy.attempts):
        pause = random.uniform(0.5, 1.0) * min(_LONGEST, 0.2 * 2**attempt)
        try:
            response = yield _Send(method, path, headers, params or {}, body)
        except httpx.TransportError as error:
            detail, status = f"{type(error).__name__}: {error}", None
        else:
            assert response is not None
            if response.status_code not in _AGAIN:
                return response
            detail, status = _problem(response), response.status_code
            said = response.headers.get("retry-after", "")
            pause = float(said) if said.isdigit() else pause
        if time.monotonic() + pause > end or attempt + 1 == policy.attempts:
            break
        yield _Wait(pause)
    raise ServiceError(detail, status)


def _problem(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}"


def _checked(response: httpx.Response) -> Any:
    """The content of a response that is no problem."""
    if response.is_success:
        return response.json()
    problems = response.json().get("problems", []) if _is_json(response) else []
    raise ServiceError(_problem(response), response.status_code, problems)


def _is_json(response: httpx.Response) -> bool:
    return response.headers.get("content-type", "").endswith("json")


def _asked(policy: _Policy, path: str, body: dict[str, Any], params: dict[str, Any]) -> _Steps[Any]:
    """The content of an answer, that of its job where it takes longer than a request waits."""
    end = time.monotonic() + policy.timeout
    content = _checked((yield from _sent(policy, end, "POST", path, body, params)))
    pause = 0.1
    # What was sent again may be a job that has ended; its report is where it says.
    while "job" in content and ("where" in content or content["status"] not in _ENDED):
        if time.monotonic() > end:
            raise ServiceError(f"no answer in {policy.timeout:g} s; it will be at {content['job']}")
        yield _Wait(pause)
        pause = min(2.0, 1.5 * pause)
        where = f"/jobs/{content['job']}"
        content = _checked((yield from _sent(policy, end, "GET", where)))
    if "job" not in content:
        return content
    if content["status"] != "done":
        raise ServiceError(content.get("detail") or content["status"])
    return content["report"]


def _answer(content: dict[str, Any]) -> Answer:
    return Answer(content["report"], content["draws"]) if "draws" in content else Answer(content)


def _record(given: Record) -> dict[str, str]:
    """A record as it is sent; of a path the file, and the YAML file beside it."""
    if isinstance(given, Mapping):
        return {str(name): str(text) for name, text in given.items()}
    data = Path(given)
    files = {"data": data, "meta": data.with_suffix(".yaml")}
    # As bytes, since a text of another encoding or with other ends of lines is another record.
    content = {
        name: base64.b64encode(file.read_bytes()).decode()
        for name, file in files.items()
        if file.is_file() or file == data
    }
    return {"name": data.name, "encoding": "base64", **content}


def _question(
    model_id: str,
    inputs: Inputs | None,
    record: Record | None,
    observation: Inputs | Record | None,
    intervention: Inputs | str | None,
    mode: str | None,
    strategy: Strategy,
) -> tuple[str, dict[str, Any]]:
    """Path and body of a question.

    Raises:
        ValueError: If it asks for nothing, or for two things.
    """
    if sum(each is not None for each in (inputs, record, observation)) != 1:
        raise ValueError("expected one of inputs, record and observation")
    if observation is None:
        if intervention is not None or mode is not None:
            raise ValueError("an intervention is one on an observation, which is missing")
    elif intervention is None:
        raise ValueError("intervention: is missing, expected what is done to the observation")
    elif mode is None:
        raise ValueError(
            "mode: is missing, expected how effects respond to the intervention, in the words of "
            "the model (galaxy: 'total' or 'direct'), since the answer depends on it"
        )
    else:
        path = isinstance(observation, str | Path)
        body: dict[str, Any] = {
            "observation": _record(observation) if path else dict(observation),
            "intervention": intervention if isinstance(intervention, str) else dict(intervention),
            "mode": mode,
            "strategy": strategy,
        }
        return "/api/inference/counterfactual", {"model_id": model_id, **body}
    if record is not None:
        return "/predict", {"model_id": model_id, "record": _record(record)}
    return "/predict", {"model_id": model_id, "inputs": dict(inputs or {})}


def _params(model_version: int | str | None, draws: int) -> dict[str, Any]:
    chosen = {} if model_version is None else {"version": str(model_version)}
    return chosen | ({"draws": draws} if draws else {})


class Client:
    """A service, asked by one thread or several.

    Args:
        url: Such as http://localhost:8080.
        key: Of the user, where the service asks for one.
        timeout: Seconds that an answer may take, attempts and jobs included.
        attempts: How often a request is sent at most.
        transport: Of httpx, in place of its own.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 300.0,
        attempts: int = 5,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._policy = _Policy(timeout, attempts, key)
        self._http = httpx.Client(base_url=url, timeout=min(timeout, 60.0), transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def infer(
        self,
        model_id: str,
        *,
        inputs: Inputs | None = None,
        record: Record | None = None,
        observation: Inputs | Record | None = None,
        intervention: Inputs | str | None = None,
        mode: str | None = None,
        strategy: Strategy = "strict_physics",
        model_version: int | str | None = None,
        draws: int = 0,
    ) -> Answer:
        """What a model says of values of its form, of a record, or of an intervention.

        Args:
            model_id: One of `models()`.
            inputs: Values by the name of the field.
            record: Path of a measurement, whose YAML file lies beside it; or name, data and meta as
                texts.
            observation: As inputs or record, of what an intervention acts on.
            intervention: By name, a number that it is set to, in its unit, or a word that changes
                it: "2x" or "+0.3". Or all in words, such as "mass=2x, A_V=0".
            mode: How effects respond, as the model names it; an observation needs one.
            strategy: "strict_physics" refuses what violates a law, "report_only" says it.
            model_version: Number, "production" or "latest"; by default what answers on the
                command line of the service.
            draws: Of the posterior, to be sent with the answer.

        Raises:
            ServiceError: If there is no answer, with everything that is wrong with the question.
            ValueError: If it asks for nothing, for two things, or lacks intervention or mode.
        """
        path, body = _question(model_id, inputs, record, observation, intervention, mode, strategy)
        return _answer(self._run(_asked(self._policy, path, body, _params(model_version, draws))))

    def infer_many(
        self, model_id: str, inputs: Sequence[Inputs], model_version: int | str | None = None
    ) -> list[Answer]:
        """What a model says of each of several inputs, in one request; see `infer`."""
        body = {"model_id": model_id, "inputs": [dict(each) for each in inputs]}
        params = _params(model_version, 0)
        content = self._run(_asked(self._policy, "/predict", body, params))
        return [Answer(report) for report in content["reports"]]

    def models(self) -> list[dict[str, Any]]:
        """Every model with its status."""
        return self._get("/models")["models"]

    def info(self, model_id: str) -> dict[str, Any]:
        """What a model is, and the form by which it is asked."""
        return self._get(f"/models/{model_id}/info")

    def versions(self, model_id: str) -> dict[str, Any]:
        """Versions of a model, their aliases, and who moved which when and why."""
        return self._get(f"/models/{model_id}/versions")

    def _get(self, path: str) -> Any:
        end = time.monotonic() + self._policy.timeout
        return _checked(self._run(_sent(self._policy, end, "GET", path)))

    def _run[T](self, steps: _Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, _Wait):
                    time.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    response = self._http.request(**_arguments(step))
                except httpx.TransportError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(response)
        except StopIteration as ended:
            return ended.value


class AsyncClient:
    """A service, asked from a loop of events; arguments as of `Client`."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 300.0,
        attempts: int = 5,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._policy = _Policy(timeout, attempts, key)
        limit = min(timeout, 60.0)
        self._http = httpx.AsyncClient(base_url=url, timeout=limit, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def infer(
        self,
        model_id: str,
        *,
        inputs: Inputs | None = None,
        record: Record | None = None,
        observation: Inputs | Record | None = None,
        intervention: Inputs | str | None = None,
        mode: str | None = None,
        strategy: Strategy = "strict_physics",
        model_version: int | str | None = None,
        draws: int = 0,
    ) -> Answer:
        """As `Client.infer`."""
        path, body = _question(model_id, inputs, record, observation, intervention, mode, strategy)
        steps = _asked(self._policy, path, body, _params(model_version, draws))
        return _answer(await self._run(steps))

    async def infer_many(
        self, model_id: str, inputs: Sequence[Inputs], model_version: int | str | None = None
    ) -> list[Answer]:
        """As `Client.infer_many`."""
        body = {"model_id": model_id, "inputs": [dict(each) for each in inputs]}
        params = _params(model_version, 0)
        content = await self._run(_asked(self._policy, "/predict", body, params))
        return [Answer(report) for report in content["reports"]]

    async def models(self) -> list[dict[str, Any]]:
        """As `Client.models`."""
        return (await self._get("/models"))["models"]

    async def info(self, model_id: str) -> dict[str, Any]:
        """As `Client.info`."""
        return await self._get(f"/models/{model_id}/info")

    async def versions(self, model_id: str) -> dict[str, Any]:
        """As `Client.versions`."""
        return await self._get(f"/models/{model_id}/versions")

    async def _get(self, path: str) -> Any:
        end = time.monotonic() + self._policy.timeout
        return _checked(await self._run(_sent(self._policy, end, "GET", path)))

    async def _run[T](self, steps: _Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, _Wait):
                    await asyncio.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    response = await self._http.request(**_arguments(step))
                except httpx.TransportError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(response)
        except StopIteration as ended:
            return ended.value


def _arguments(step: _Send) -> dict[str, Any]:
    return {
        "method": step.method,
        "url": step.path,
        "headers": step.headers,
        "params": step.params,
        "json": step.body,
    }
