"""Workers of one model: a bounded queue before them, and a new process where one dies."""

import asyncio
import contextlib
import json
import logging
import math
import multiprocessing
import socket
import time
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from touchstone.io import artifacts
from touchstone.io.artifacts import ArtifactError

_LOG = logging.getLogger(__name__)
_ATTEMPTS = 3  # of a question whose worker dies
_FAREWELL = 0.5  # s that a worker has to end by itself
_PATIENCE = 30.0  # s between attempts to load an artefact, at most
_HEAD = 2**20  # bytes of a reply that come before its text, at most
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Answer(NamedTuple):
    """What came of a question.

    Attributes:
        kind: "answer", "refused" (for what was asked), "unsupported" (by the model), "failed", or
            "unavailable" (no artefact).
        text: JSON of the report, or the reason.
        verdicts: Of the reports; the kind where there is none.
        laws: Which the reports violate.
    """

    kind: str
    text: str
    verdicts: list[str] = []  # noqa: RUF012 nobody changes it
    laws: list[str] = []  # noqa: RUF012 nobody changes it


class QueueFullError(Exception):
    """The queue is full; `seconds` is when to ask again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the queue is full, ask again in {seconds} s")
        self.seconds = seconds


class Metrics:
    """What a monitoring system reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        common: dict[str, Any] = {"labelnames": ["model"], "registry": self.registry}
        name = "touchstone_"
        self.latency = Histogram(
            f"{name}inference_latency_seconds",
            "From question to answer.",
            buckets=_BUCKETS,
            **common,
        )
        self.waiting = Gauge(
            f"{name}queue_length", "Questions that wait or are worked on.", **common
        )
        self.ready = Gauge(f"{name}workers_ready", "Workers that would answer.", **common)
        self.restarts = Counter(f"{name}worker_restarts", "Workers that died.", **common)
        self.verdicts = Counter(
            f"{name}verdicts",
            "Answers by their verdict; refused and failed questions too.",
            ["model", "verdict"],
            registry=self.registry,
        )
        self.violations = Counter(
            f"{name}physics_violations",
            "Answers that violate a law, by the law.",
            ["model", "law"],
            registry=self.registry,
        )
        self.cached = Counter(
            f"{name}cached_answers",
            "Answers that were known, by where: memory, or redis.",
            ["model", "where"],
            registry=self.registry,
        )
        self.accelerator = Gauge(
            f"{name}accelerator_memory_bytes",
            "Memory of an accelerator that the worker which answered last has taken.",
            ["model", "device"],
            registry=self.registry,
        )
        self.reachable = Gauge(
            f"{name}store_reachable",
            "Whether the database, the cache and the buckets answer.",
            ["store"],
            registry=self.registry,
        )


def _work(model_id: str, checkpoint: str, connection: socket.socket) -> None:
    """What a worker runs; its engines are imported there and not in the process that serves."""
    from touchstone.service import worker

    worker.main(model_id, checkpoint, connection)


class _Waiting(NamedTuple):
    question: dict[str, Any]
    answer: asyncio.Future[Answer]
    since: float


class _Process(NamedTuple):
    process: BaseProcess
    connection: socket.socket
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    died: asyncio.Event


class Pool:
    """Processes that answer for one model. All methods belong to one event loop.

    Args:
        model_id: Of the model.
        workers: Number of processes.
        most: Questions that may wait.
        metrics: Where they are counted.
        checkpoint: Folder of the artefact; empty as in `checkpoints.find`.
        label: Of this pool in the metrics; empty is the name of the model.

    Attributes:
        facts: Of the artefact: `artefact` in words, `sha256`, `canary`; None before one is loaded.
        reason: Why there is no worker that would answer; empty if there is one.
    """

    def __init__(
        self,
        model_id: str,
        workers: int,
        most: int,
        metrics: Metrics,
        checkpoint: str = "",
        label: str = "",
    ) -> None:
        self.model_id, self.most, self.metrics = model_id, most, metrics
        self.checkpoint, self.label = checkpoint, label or model_id
        self.facts: dict[str, Any] | None = None
        self.reason = f"{model_id}: the worker is starting"
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._n_ready, self._n_workers, self._busy = 0, workers, 0
        self._seconds = 1.0  # that an answer takes, a running mean
        self._tasks: list[asyncio.Task] = []
        self._processes: set[BaseProcess] = set()
        metrics.restarts.labels(self.label)
        self._count()

    @property
    def ready(self) -> bool:
        """Whether all workers have loaded the artefact and answered the canary."""
        return self._n_ready == self._n_workers

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that live."""
        return sorted(each.pid for each in self._processes if each.pid and each.is_alive())

    @property
    def idle(self) -> bool:
        """Whether nobody waits for an answer."""
        return self._busy == 0 and self._queue.empty()

    @property
    def identity(self) -> list[str] | None:
        """What decides an answer beside the question: the artefact, the code, and the machine.

        The answers to the canary stand for the machine: others may round otherwise. None where
        something of it is not known, or the files of the artefact were replaced.
        """
        facts = self.facts
        if facts is None or facts["sha256"] is None:
            return None
        if any([*artifacts.state(file)] != found for file, found in facts["files"].items()):
            return None
        return [self.model_id, facts["sha256"], facts["code"], *facts["canary"]]

    def start(self) -> None:
        """Start the workers."""
        self._tasks = [asyncio.create_task(self._keep()) for _ in range(self._n_workers)]

    async def close(self) -> None:
        """End the workers, whatever they do."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def ask(self, question: dict[str, Any], bounded: bool = True) -> asyncio.Future[Answer]:
        """Put a question into the queue.

        Args:
            question: As `questions.Question` has it.
            bounded: Whether a full queue refuses it; a job that was accepted earlier is not.

        Raises:
            QueueFullError: If the queue is full.
        """
        if bounded and self._queue.qsize() >= self.most:
            ahead = self._queue.qsize() / self._n_workers
            raise QueueFullError(min(600, math.ceil(ahead * self._seconds)))
        answer = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Waiting(question, answer, time.perf_counter()))
        self._count()
        return answer

    def _count(self) -> None:
        self.metrics.waiting.labels(self.label).set(self._queue.qsize() + self._busy)
        self.metrics.ready.labels(self.label).set(self._n_ready)

    async def _keep(self) -> None:
        """Keep one worker alive; the question that one died on goes to the next."""
        waiting, attempts, pause = None, 0, 0.5
        while True:
            try:
                started = await self._started()
            except ArtifactError as error:
                self.reason = str(error)
                self._refuse_all(waiting)
                waiting, attempts = None, 0
                started = None
            if started is None:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _PATIENCE)
                continue
            pause = 0.5
            self._n_ready += 1
            self.reason = ""
            self._count()
            try:
                while True:
                    waiting = waiting or await self._next(started)
                    if waiting.answer.done():  # it was cancelled
                        waiting = None
                        continue
                    attempts += 1
                    self._resolve(waiting, await self._exchange(started, waiting.question))
                    waiting, attempts = None, 0
            except (EOFError, OSError):
                _LOG.warning("%s: worker %s died", self.model_id, started.process.pid)
            finally:
                self._n_ready -= 1
                self._end(started)
            self.reason = f"{self.model_id}: a worker died and is started again"
            self.metrics.restarts.labels(self.label).inc()
            if waiting and attempts >= _ATTEMPTS:
                text = f"{attempts} workers died on this question"
                self._resolve(waiting, Answer("failed", text, ["failed"]))
                waiting, attempts = None, 0
            self._count()

    async def _started(self) -> _Process | None:
        """A worker that is ready; None if it died before it was.

        Raises:
            ArtifactError: If the artefact cannot be loaded, or its answers are not those of before.
        """
        # A fork would take locks with it that threads of this process hold.
        context = multiprocessing.get_context("spawn")
        ours, theirs = socket.socketpair()
        process = context.Process(
            target=_work, args=(self.model_id, self.checkpoint, theirs), daemon=True
        )
        with theirs:
            await asyncio.to_thread(process.start)
        streams = await asyncio.open_connection(sock=ours, limit=_HEAD)
        started = _Process(process, ours, *streams, asyncio.Event())
        self._processes.add(process)
        asyncio.get_running_loop().add_reader(process.sentinel, started.died.set)
        ok = False
        try:
            said = await self._heard(started)
            if said.kind == "broken":
                raise ArtifactError(said.text)
            facts = json.loads(said.text)
            if self._differs(facts):
                raise ArtifactError(f"{self.model_id}: two workers answer one question differently")
            self.facts, ok = facts, True
        except (EOFError, OSError):
            self.reason = f"{self.model_id}: the worker died while it was starting"
        finally:
            if not ok:
                self._end(started)
        return started if ok else None

    def _differs(self, facts: dict[str, Any]) -> bool:
        """Whether the canary of a worker is another than that of one with the same artefact."""
        before = self.facts
        alike = before is not None and before["sha256"] == facts["sha256"]
        return alike and before["canary"] != facts["canary"]

    def _end(self, started: _Process) -> None:
        asyncio.get_running_loop().remove_reader(started.process.sentinel)
        with contextlib.suppress(OSError):  # it may be closed already
            started.connection.shutdown(socket.SHUT_RDWR)  # a worker that waits ends by itself
        started.writer.close()
        started.process.join(_FAREWELL)
        started.process.kill()  # a worker writes nothing that could be left half-written
        started.process.join()
        self._processes.discard(started.process)
        started.process.close()

    async def _next(self, started: _Process) -> _Waiting:
        """The next question, or an `EOFError` as soon as the worker dies while it has none."""
        if not self._queue.empty() and not started.died.is_set():
            return self._queue.get_nowait()
        get = asyncio.create_task(self._queue.get())
        died = asyncio.create_task(started.died.wait())
        try:
            await asyncio.wait({get, died}, return_when=asyncio.FIRST_COMPLETED)
            if not get.done():
                raise EOFError
            return get.result()
        finally:
            get.cancel()
            died.cancel()

    async def _exchange(self, started: _Process, question: dict[str, Any]) -> Answer:
        """Ask a worker; one that stands still, and does not read, keeps nobody else waiting."""
        self._busy += 1
        self._count()
        try:
            started.writer.write(json.dumps(question).encode() + b"\n")
            await started.writer.drain()
            return await self._heard(started)
        finally:
            self._busy -= 1

    async def _heard(self, started: _Process) -> Answer:
        """What a worker says next, as `worker.main` writes it.

        Raises:
            EOFError: If it died.
        """
        head = await started.reader.readline()
        if not head:
            raise EOFError
        kind, size, accelerators, verdicts, laws = json.loads(head)
        text = (await started.reader.readexactly(size)).decode()
        for device, taken in accelerators.items():
            self.metrics.accelerator.labels(self.label, device).set(taken)
        return Answer(kind, text, verdicts or [kind], laws)

    def _resolve(self, waiting: _Waiting, answer: Answer) -> None:
        seconds = time.perf_counter() - waiting.since
        self._seconds += 0.2 * (seconds - self._seconds)
        self.tell(answer, seconds)
        self._count()
        if not waiting.answer.done():
            waiting.answer.set_result(answer)

    def tell(self, answer: Answer, seconds: float) -> None:
        """Count an answer, wherever it was known, and the time that it took."""
        self.metrics.latency.labels(self.label).observe(seconds)
        for verdict in answer.verdicts:
            self.metrics.verdicts.labels(self.label, verdict).inc()
        for law in answer.laws:
            self.metrics.violations.labels(self.label, law).inc()

    def _refuse_all(self, first: _Waiting | None) -> None:
        """Let nobody wait for an artefact that cannot be loaded."""
        reply = Answer("unavailable", self.reason, ["unavailable"])
        if first is not None:
            self._resolve(first, reply)
        while not (self._n_ready or self._queue.empty()):
            self._resolve(self._queue.get_nowait(), reply)


async def examined(model_id: str, checkpoint: str) -> dict[str, Any]:
    """Facts of an artefact that a process of its own loads, which then ends.

    Args:
        model_id: Of the model.
        checkpoint: Folder of the artefact.

    Returns:
        As `Pool.facts`.

    Raises:
        ArtifactError: If it cannot be loaded, or does not answer.
    """
    pool = Pool(model_id, 1, 1, Metrics(), checkpoint)
    try:
        started = await pool._started()
        if started is None or pool.facts is None:
            raise ArtifactError(f"{model_id}: the process died that loaded the artefact")
        pool._end(started)
        return pool.facts
    finally:
        await pool.close()
