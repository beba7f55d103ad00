"""The service: what it serves, the jobs that it follows, and how requests are refused."""

import asyncio
import contextlib
import getpass
import hashlib
import json
import logging
import secrets
import signal
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from touchstone import registry
from touchstone.contract import ModelsError
from touchstone.io import artifacts
from touchstone.io.artifacts import ArtifactError
from touchstone.io.cache import Memory, Shared
from touchstone.io.objects import Bucket
from touchstone.io.results import Results, folder
from touchstone.io.settings import SettingsError
from touchstone.service import Settings, questions
from touchstone.service.pool import Answer, Metrics, Pool, QueueFullError, examined
from touchstone.service.questions import Counterfactual, ProblemError, Question, Training
from touchstone.service.store import ENDED, Job, ReusedError, Store
from touchstone.service.versions import Transition, Versions
from touchstone.stages import checkpoints
from touchstone.stages.training_run import Run, assert_trainable

_LOG = logging.getLogger(__name__)
_PATIENCE = 5.0  # s between questions of a job to a model that cannot answer yet
_LOOK = 0.5  # s between looks at a training
_FAREWELL = 3.0  # s that a training has to end by itself
_ATTEMPTS = 3  # of a training whose processes vanish
_POOLS = 2  # of versions that are not the one by default, at a time
_BEAT = 1.0  # s between signs of life of this process, and looks for those of others
_LAPSE = 5.0  # s without one after which another process takes up the jobs
_REFRESH = 10.0  # s between looks for versions of other machines
_LOST = "another process follows the job"
_DELIVERED = 20  # answers of jobs that are handed on at a time


class Service:
    """Pools of workers, and the jobs that they or the rules of the workflow answer.

    Args:
        settings: Of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.metrics = settings, Metrics()
        self.pools = {
            model_id: Pool(model_id, settings.workers, settings.queue, self.metrics)
            for model_id in settings.models
        }
        self.of_versions: OrderedDict[tuple[str, int], Pool] = OrderedDict()
        self.server = settings.server or secrets.token_hex(8)
        self.store = Store.at(settings.folder, settings.database)
        self.versions, self.results = opened(settings)
        self.memory = Memory(settings.cache)
        self.shared = Shared(settings.cache_url, "touchstone") if settings.cache_url else None
        self.states: dict[str, str] = {}  # what is wrong with each store; empty where it answers
        self.closing = asyncio.Event()
        self._followed: dict[str, asyncio.Task] = {}
        self._others: set[asyncio.Task] = set()
        self._training = asyncio.Semaphore(1)  # two that learn at a time take longer than in turn
        self._taking = asyncio.Lock()  # a job is kept and followed, before others look for it
        self._beats: dict[str, tuple[int, float]] = {}  # of processes, and since when

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Start the workers, take up the jobs of an earlier process, and end in order."""
        for pool in self.pools.values():
            pool.start()
        self._spawn(self._tend("database", self._share_jobs, _BEAT))
        if self.shared is not None:
            self._spawn(self._tend("cache", self._look_at_cache, _BEAT))
        if self.results is not None:
            self._spawn(self._tend("results", self._deliver, _BEAT))
        if self.versions.bucket is not None:
            self._spawn(self._tend("artifacts", self._refresh, _REFRESH))
        self._spawn(self._register_released())
        try:
            yield
        finally:
            self.closing.set()
            followed = [*self._followed.values(), *self._others]
            for task in followed:
                _stop(task)
            await asyncio.gather(*followed, return_exceptions=True)
            pools = [*self.pools.values(), *self.of_versions.values()]
            await asyncio.gather(*(pool.close() for pool in pools))
            with contextlib.suppress(SQLAlchemyError):
                # So that others take up its jobs at once.
                await asyncio.to_thread(self.store.leave, self.server)
            if self.shared is not None:
                await self.shared.close()
            self.store.close()
            self.versions.close()

    # What several processes share -----------------------------------------------------------------

    async def _tend(self, name: str, look: Any, pause: float) -> None:
        """Look after a store for as long as this process lives, whether the store is there or not.

        Args:
            name: Of the store.
            look: What is done each time; it raises where the store does not answer.
            pause: Seconds between two times.
        """
        while True:
            try:
                await look()
                problem = ""
            except Exception as error:  # whatever the driver of a store raises
                problem = str(error) if isinstance(error, ArtifactError) else type(error).__name__
            before = self.states.get(name, "")
            if problem and not before:
                _LOG.warning("%s: not reachable, the service goes on without: %s", name, problem)
            if before and not problem:
                _LOG.info("%s: reachable again", name)
            self.states[name] = problem
            self.metrics.reachable.labels(name).set(not problem)
            await asyncio.sleep(pause)

    async def _share_jobs(self) -> None:
        """Say that this process lives, and take up the jobs of those that do not any more."""
        beats = await asyncio.to_thread(self.store.beat, self.server)
        now = time.monotonic()
        for server, beat in beats.items():
            if self._beats.get(server, (None, 0.0))[0] != beat:
                self._beats[server] = (beat, now)
        gone = {each for each in beats if now - self._beats[each][1] > _LAPSE} - {self.server}
        for server in gone:
            await asyncio.to_thread(self.store.leave, server, beats[server])
        living = beats.keys() - gone
        unfinished = await asyncio.to_thread(self.store.unfinished)
        for number, server in unfinished.items():
            if number in self._followed:
                if server != self.server:  # this process stood still, and another took its place
                    _stop(self._followed[number], _LOST)
            elif server == self.server or server not in living:
                async with self._taking:
                    await self._take_up(number)
        for number in self._followed.keys() - unfinished.keys():
            job = await asyncio.to_thread(self.store.find, number)
            task = self._followed.get(number)
            if task is not None and (job is None or job.status in ENDED):
                _stop(task)  # another process ended the job

    async def _take_up(self, number: str) -> None:
        """Follow a job that no process follows, if this one can."""
        job = await asyncio.to_thread(self.store.find, number)
        if job is None or job.status in ENDED or number in self._followed:
            return
        is_training = job.question["kind"] == "train"
        if not is_training and job.question["model_id"] not in self.pools:
            return  # it waits for a service that has its model
        if not await asyncio.to_thread(self.store.claim, job, self.server):
            return
        if is_training:
            self._follow(job.id, self._train(job))
            return
        try:
            pool = await self.pool(job.question["model_id"], job.question["version"])
        except ProblemError as error:
            if error.status != 503:  # else the files of the version may be here next time
                await asyncio.to_thread(self.store.finish, job.id, "failed", error.detail)
            return
        answer = pool.ask(job.question, bounded=False)
        self._follow(job.id, self._answer(job.id, job.question, answer))

    async def _look_at_cache(self) -> None:
        assert self.shared is not None
        await self.shared.look()
        if self.shared.problem:
            raise ArtifactError(self.shared.problem)

    async def _refresh(self) -> None:
        await asyncio.to_thread(self.versions.refresh)

    async def _deliver(self) -> None:
        """Hand on the answers of jobs that have ended, in whatever process."""
        assert self.results is not None
        for job in await asyncio.to_thread(self.store.undelivered, _DELIVERED):
            text = told(job, execution=self.settings.execution)
            name = f"{job.question['model_id']}/{job.id}.json"
            await asyncio.to_thread(self.results.write, name, text.encode())
            await asyncio.to_thread(self.store.deliver, job.id)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    async def _register_released(self) -> None:
        """Make a first version of each artefact that was released with its model.

        It comes to the stages that it has earned: there is no other gate than that of `move`.
        """
        for model_id, pool in self.pools.items():
            while pool.facts is None:
                await asyncio.sleep(_LOOK)
            if pool.facts["source"] == "pretrained":
                canary = " ".join(pool.facts["canary"])
                with contextlib.suppress(ArtifactError):
                    await asyncio.to_thread(self._release, model_id, canary)

    def _release(self, model_id: str, canary: str) -> None:
        by, why, found = getpass.getuser(), "released with the package", self.versions
        if found.listed(model_id):
            return
        artefact = checkpoints.find(model_id, Results(folder(model_id)))
        made = found.add(model_id, found.store(artefact, model_id), canary, by, why)
        for stage in ("Staging", "Production"):
            found.move(model_id, made.version, stage, canary, by, why)

    async def pool(self, model_id: str, version: int | None = None) -> Pool:
        """Workers of a model, those of a version started where there are none.

        Raises:
            ProblemError: If there is no such model or version, or it is not served.
        """
        if model_id not in self.pools:
            questions.metadata(model_id)
            raise ProblemError(409, f"{model_id}: is not served; {checkpoints.answering(model_id)}")
        if version is None:
            return self.pools[model_id]
        if (model_id, version) not in self.of_versions:
            place = await asyncio.to_thread(self.place, model_id, version)
        known = self.of_versions.get((model_id, version))
        if known is None:
            known = Pool(
                model_id,
                self.settings.workers,
                self.settings.queue,
                self.metrics,
                str(place),
                f"{model_id}@{version}",
            )
            known.start()
            self.of_versions[model_id, version] = known
            others = [key for key in self.of_versions if key != (model_id, version)]
            idle = [key for key in others if self.of_versions[key].idle]
            for key in idle[: max(0, len(self.of_versions) - _POOLS)]:
                self._spawn(self.of_versions.pop(key).close())
        self.of_versions.move_to_end((model_id, version))
        return known

    def place(self, model_id: str, version: int):
        """Folder of a version, which is fetched from the bucket where it is not here.

        Raises:
            ProblemError: If there is none.
        """
        try:
            return self.versions.path(self.found(model_id, version)).absolute()
        except ArtifactError as error:
            raise ProblemError(503, str(error), headers={"Retry-After": "5"}) from None

    def found(self, model_id: str, version: int | str) -> Transition:
        """The last transition of a version, which may be named by an alias.

        Raises:
            ProblemError: If there is none.
        """
        known = self.versions
        number = known.aliases(model_id).get(version) if isinstance(version, str) else version
        if number is None:
            raise ProblemError(404, f"{model_id}: no version is called {version} yet")
        try:
            return known.find(model_id, number)
        except ArtifactError as error:
            raise ProblemError(404, str(error)) from None

    async def add_version(
        self, model_id: str, artefact: checkpoints.Artefact, by: str, why: str, digest: str = ""
    ) -> Transition:
        """Keep an artefact as a version, once a process of its own has heard it answer.

        Raises:
            ArtifactError: If it is damaged, not what the digest says, or does not answer.
        """
        found = self.versions
        made = await asyncio.to_thread(found.store, artefact, model_id)
        try:
            if digest and digest != made:
                raise ArtifactError(f"its digest is {made}, expected {digest}")
            listed = await asyncio.to_thread(found.listed, model_id)
            if known := [each for each in listed if each.digest == made]:
                return known[0]
            place = (self.settings.folder / model_id / made).absolute()
            canary = " ".join((await examined(model_id, str(place)))["canary"])
            return await asyncio.to_thread(found.add, model_id, made, canary, by, why)
        finally:
            await asyncio.to_thread(found.discard, model_id, made)

    def listed(self, model_id: str) -> dict[str, Any]:
        """Status of a model: what was made here, and whether a worker would answer."""
        status = registry.get_model_status(model_id)
        del status["output_dir"]  # of no use elsewhere
        pool = self.pools.get(model_id)
        facts = (pool.facts if pool else None) or {}
        return status | {
            "served": pool is not None,
            "ready": pool is not None and pool.ready,
            "artefact": facts.get("artefact") or checkpoints.answering(model_id),
            "reason": pool.reason if pool else "",
            "counterfactuals": facts.get("counterfactuals"),
        }

    async def resolved(self, question: Question | Counterfactual) -> dict[str, Any]:
        """A question as a worker takes it, held against the form of its model.

        Raises:
            ProblemError: If it cannot be answered.
        """
        content = question.model_dump()
        if content["model_id"] is None:
            able = self.counterfactuals()
            if not able:
                raise ProblemError(501, "no model that is served answers counterfactuals")
            if len(able) > 1:
                raise ProblemError(422, f"model_id: is missing, expected one of {', '.join(able)}")
            (content["model_id"],) = able
        model_id = content["model_id"]
        await self.pool(model_id)
        if isinstance(question, Question):
            questions.checked(question, questions.metadata(model_id))
        if question.version is not None:
            found = await asyncio.to_thread(self.found, model_id, question.version)
            content["version"] = found.version
        return content

    def counterfactuals(self) -> list[str]:
        """Models that are known to answer counterfactual questions."""
        facts = {model_id: pool.facts for model_id, pool in self.pools.items()}
        return [model_id for model_id, said in facts.items() if said and said["counterfactuals"]]

    async def ask(self, content: dict[str, Any]) -> asyncio.Future[Answer]:
        """Put a question into the queue of its model, unless its answer is known.

        Args:
            content: As from `resolved`.

        Returns:
            The answer, as soon as it is there.

        Raises:
            ProblemError: If it cannot be answered now.
        """
        started = time.perf_counter()
        pool = await self.pool(content["model_id"], content["version"])

        def key() -> str | None:
            if (identity := pool.identity) is None:
                return None
            text = json.dumps([identity, content], sort_keys=True)
            return hashlib.sha256(text.encode()).hexdigest()

        asked = key()
        if asked and (found := await self._known(asked, pool.label)) is not None:
            pool.tell(found, time.perf_counter() - started)
            known = asyncio.get_running_loop().create_future()
            known.set_result(found)
            return known
        try:
            answer = pool.ask(content)
        except QueueFullError as error:
            headers = {"Retry-After": str(error.seconds)}
            raise ProblemError(503, str(error), headers=headers) from None

        def keep(done: asyncio.Future[Answer]) -> None:
            # An artefact that was replaced meanwhile has another key.
            if asked and not done.cancelled() and done.result().kind == "answer" and asked == key():
                _, text, *counted = done.result()
                line = f"{json.dumps(counted)}\n{text}"
                self.memory.put(asked, line)
                if self.shared is not None:
                    self._spawn(self.shared.put(asked, line))

        answer.add_done_callback(keep)
        return answer

    async def _known(self, key: str, label: str) -> Answer | None:
        """An answer that this process remembers, or another one."""
        line, where = self.memory.get(key), "memory"
        if line is None and self.shared is not None:
            line, where = await self.shared.get(key), "redis"
            if line is not None:
                self.memory.put(key, line)
        if line is None:
            return None
        self.metrics.cached.labels(label, where).inc()
        counted, _, text = line.partition("\n")
        return Answer("answer", text, *json.loads(counted))

    # Jobs -----------------------------------------------------------------------------------------

    async def retried(self, asked: dict[str, Any], token: str) -> Job | None:
        """The job of a request that is sent again; nothing is computed for it.

        Args:
            asked: As it came: what an alias means may have changed since it came first.
            token: By which it is known; empty for none.

        Raises:
            ProblemError: If the token came with another request.
        """
        try:
            return await asyncio.to_thread(self.store.retried, asked, token) if token else None
        except ReusedError as error:
            raise ProblemError(422, str(error)) from None

    async def accept(
        self,
        content: dict[str, Any],
        answer: asyncio.Future[Answer],
        asked: dict[str, Any],
        token: str,
    ) -> Job:
        """Make a job of a question that waits; `asked` and `token` are as of `retried`."""
        async with self._taking:
            job = await self._kept(content, asked, token)
            if job.id not in self._followed and job.status not in ENDED:
                self._follow(job.id, self._answer(job.id, content, answer))
        return job

    async def train(self, training: Training, token: str) -> Job:
        """Accept a training.

        Raises:
            ProblemError: If it could not be started.
        """
        questions.metadata(training.model_id)
        try:
            assert_trainable(training.model_id, training.settings)
        except (ArtifactError, SettingsError, ModelsError) as error:
            raise ProblemError(422, str(error)) from None
        asked = training.model_dump()
        async with self._taking:
            job = await self._kept(asked | {"version": None}, asked, token)
            if job.id not in self._followed and job.status not in ENDED:
                self._follow(job.id, self._train(job))
        return job

    async def cancel(self, number: str) -> Job:
        """End a job that has not ended.

        Raises:
            ProblemError: If there is none, or it has ended.
        """
        if not await asyncio.to_thread(self.store.finish, number, "cancelled", "by request"):
            job = await asyncio.to_thread(self.job, number)
            raise ProblemError(409, f"the job has ended before: it is {job.status}")
        if (task := self._followed.get(number)) is not None:
            _stop(task)
            await asyncio.gather(task, return_exceptions=True)
        return await asyncio.to_thread(self.job, number)

    def job(self, number: str) -> Job:
        """A job by its id.

        Raises:
            ProblemError: If there is none.
        """
        found = self.store.find(number)
        if found is None:
            raise ProblemError(404, f"there is no job {number}")
        return found

    async def _kept(self, content: dict[str, Any], asked: dict[str, Any], token: str) -> Job:
        try:
            return await asyncio.to_thread(self.store.accept, content, token, self.server, asked)
        except ReusedError as error:
            raise ProblemError(422, str(error)) from None

    def _follow(self, number: str, work: Any) -> None:
        task = asyncio.create_task(work)
        self._followed[number] = task

        def forget(done: asyncio.Task) -> None:
            self._followed.pop(number, None)
            if not done.cancelled() and (error := done.exception()) is not None:
                _LOG.error("job %s", number, exc_info=error)
                if isinstance(error, SQLAlchemyError):
                    return  # it is taken up again once the database answers
                name = type(error).__name__
                self._spawn(asyncio.to_thread(self.store.finish, number, "failed", name))

        task.add_done_callback(forget)

    async def _answer(
        self, number: str, content: dict[str, Any], answer: asyncio.Future[Answer]
    ) -> None:
        """Keep the answer of a job when it is there."""
        try:
            found = await answer
            while found.kind == "unavailable":  # the next process may have an artefact
                await asyncio.sleep(_PATIENCE)
                pool = await self.pool(content["model_id"], content["version"])
                answer = pool.ask(content, bounded=False)
                found = await answer
        finally:
            answer.cancel()
        status = {"answer": "done", "unsupported": "refused"}.get(found.kind, found.kind)
        await asyncio.to_thread(self.store.finish, number, status, found.text)

    def run_of(self, job: Job) -> Run:
        """The training of a job."""
        return Run(self.settings.folder / ".jobs" / job.id, job.question["model_id"])

    async def _train(self, job: Job) -> None:
        """Run the rules of a training, and tell what they say."""
        run = self.run_of(job)
        async with self._training:
            try:
                await asyncio.to_thread(self.store.start, job.id)
                await self._work(job, run)
            except asyncio.CancelledError as error:
                if error.args != (_LOST,):  # who follows it now watches the same processes
                    await self._end_run(run)
                raise
        await asyncio.to_thread(self._tell_news, job, run)
        if run.code == 0:
            ended = "done", json.dumps(await self._made(job, run), allow_nan=False)
        else:
            ended = "failed", run.failure()
        await asyncio.to_thread(self.store.finish, job.id, *ended)

    async def _work(self, job: Job, run: Run) -> None:
        """Wait for the rules; processes of an earlier service are found, lost ones replaced."""
        told, process = None, None
        for attempt in range(_ATTEMPTS):
            if not run.lives and run.code is None:
                begun = {"attempt": attempt + 1, **self.settings.execution}
                await asyncio.to_thread(self.store.tell, job.id, "start", begun)
                process = run.start(job.question["settings"], job.question["until"])
            while run.lives:
                await asyncio.sleep(_LOOK)
                await asyncio.to_thread(self._tell_news, job, run)
                progress = run.progress()
                if progress is not None and progress != told:
                    await asyncio.to_thread(self.store.tell, job.id, "progress", progress)
                    told = progress
            if process is not None:
                process.wait()  # it has ended: its entry in the table of processes goes, too
            if run.code is not None:
                return

    async def _end_run(self, run: Run) -> None:
        """End a training, first with the chance to end in order."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            run.end(number)
            for _ in range(round(_FAREWELL / 0.05)):
                if not run.lives:
                    return
                await asyncio.sleep(0.05)

    def _tell_news(self, job: Job, run: Run) -> None:
        for line in run.news():
            self.store.tell(job.id, "line", line)

    async def _made(self, job: Job, run: Run) -> dict[str, Any]:
        """What a training made: its report, and the version that can answer, if there is one."""
        report = artifacts.read_json(run.results.report("train_report"))
        made: dict[str, Any] = {"train_report": report, "version": None}
        if job.question["until"] == "guardrail":
            model_id = job.question["model_id"]
            artefact = checkpoints.find(model_id, run.results, run.results.checkpoint)
            why = f"trained by job {job.id}"
            made["version"] = (
                await self.add_version(model_id, artefact, getpass.getuser(), why)
            ).version
        return made


def _stop(task: asyncio.Task, why: str | None = None) -> None:
    """Cancel a task, once: a second time would cut off what it does in order to end."""
    if not task.cancelling():
        task.cancel(why)


def about(job: Job) -> dict[str, Any]:
    """A job without its answer, as users see it."""
    question = job.question
    said = {
        "job": job.id,
        "kind": question["kind"],
        "model_id": question["model_id"],
        "status": job.status,
        "created": job.created,
        "finished": job.finished,
    }
    if question["kind"] == "train":
        said |= {"settings": question["settings"], "until": question["until"]}
    return said


def told(job: Job, **more: Any) -> str:
    """JSON of a job, with its answer or what is in its place, and whatever more is given."""
    head = json.dumps(about(job) | more)[:-1]
    match job.status:
        case "waiting" | "running":
            return f"{head}}}"
        case "done":  # the report's own text, so that its bits are those of a direct answer
            name = "result" if job.question["kind"] == "train" else "report"
            return f'{head}, "{name}": {job.answer}}}'
        case _:
            return f'{head}, "detail": {json.dumps(job.answer)}}}'


def opened(settings: Settings) -> tuple[Versions, Bucket | None]:
    """The versions of artefacts, and the bucket of results; both are asked whether they are there.

    Raises:
        ArtifactError: If a database or a bucket is not there, or lets nobody in.
    """
    buckets = []
    for address, variable in (
        (settings.artifacts, "ARTIFACTS_BUCKET"),
        (settings.results, "GOLD_BUCKET"),
    ):
        bucket = Bucket(address, variable) if address else None
        if bucket is not None:
            bucket.assert_there()
        buckets.append(bucket)
    return Versions(settings.folder, settings.database, settings.table, buckets[0]), buckets[1]


def check(settings: Settings) -> dict[str, Any]:
    """Whether every model loads and answers its canary, for a pipeline; serves nobody."""

    async def state(model_id: str) -> dict[str, Any]:
        try:
            facts = await examined(model_id, "")
        except ArtifactError as error:
            return {"ready": False, "reason": str(error)}
        return {"ready": True, "artefact": facts["artefact"], "sha256": facts["sha256"]}

    async def all_states() -> dict[str, Any]:
        return {model_id: await state(model_id) for model_id in settings.models}

    models = asyncio.run(all_states())
    ready = all(each["ready"] for each in models.values())
    return {"ready": ready, "models": models, "execution": settings.execution}
