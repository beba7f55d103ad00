"""Frozen models over HTTP: the answers of the command line, to programs and to pages.

What starts and watches the serving process is here, and imports nothing that serves.
"""

import contextlib
import logging
import multiprocessing
import secrets
import signal
import socket
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

_LOG = logging.getLogger(__name__)
_SETTLED = 10.0  # s after which a serving process counts as started
_STARTS = 4  # in a row that fail before nothing is started any more
LOOPBACK = ("127.0.0.1", "localhost", "::1")


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
        upload: Bytes that an uploaded artefact may have.
        cache: Bytes of answers that are kept in memory.
        rate: Requests a second of one user, in the long run; 0 for no limit.
        historical: Whether metrics have their historical names, `acie_…`, too.
        database: URL of the store and the index of versions; empty is files in the folder.
        table: Of that index.
        cache_url: Of a server of Redis that keeps answers for several services; empty for none.
        artifacts: Bucket of the versions; empty for none.
        results: Bucket that gets the answers of jobs; empty for none.
        folder: Of the service's own files.
        execution: Of a pipeline that started it: `id` and `started`, which logs and jobs repeat.
        server: By which the serving process knows the jobs that it follows, and the next one too.
    """

    models: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    queue: int = 64
    deadline: float = 30.0
    body: int = 8 * 2**20
    upload: int = 512 * 2**20
    cache: int = 64 * 2**20
    rate: float = 0.0
    historical: bool = False
    database: str = ""
    table: str = "transitions"
    cache_url: str = ""
    artifacts: str = ""
    results: str = ""
    folder: Path = Path("results/registry")
    execution: dict[str, str] = {}  # noqa: RUF012 nobody changes it
    server: str = ""

    @property
    def is_local(self) -> bool:
        """Whether only users of this machine reach it, who need no key."""
        return self.host in LOOPBACK


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; a serving process that dies is replaced at once.

    The socket belongs to this process, so that requests wait while the next one starts.
    """
    settings = settings._replace(server=secrets.token_hex(8))
    _say(settings)
    listening = socket.create_server((settings.host, settings.port), backlog=1024)
    # Connections inherit it; without it, small answers wait for the acknowledgement of others.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stopping = threading.Event()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_serve, args=(settings, listening, theirs))

    def stop(*_: Any) -> None:
        stopping.set()
        if child.is_alive():
            child.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    failures = 0
    while not stopping.is_set() and failures < _STARTS:
        started = time.monotonic()
        child = context.Process(target=_serve, args=(settings, listening, theirs))
        child.start()
        if stopping.is_set():  # a signal came before there was a process to pass it to
            child.terminate()
        child.join()
        if stopping.is_set():
            break
        _LOG.warning("the serving process ended with code %s", child.exitcode)
        killed = (child.exitcode or 0) < 0  # by a signal, and not by an error that would come again
        failures = 0 if killed or time.monotonic() - started > _SETTLED else failures + 1
        stopping.wait(0.1 * 4**failures)
    ours.close()
    if not stopping.is_set():
        raise SystemExit(f"touchstone: the serving process ended {failures} times at its start")


def _say(settings: Settings) -> None:
    """Let every line of the log name the execution of the pipeline, if there is one."""
    said = ", ".join(f"{name} {value}" for name, value in settings.execution.items())
    named = f"[execution {said}] " if said else ""
    form = "%(levelname)s: " + named.replace("%", "%%") + "%(message)s"
    logging.basicConfig(level=logging.INFO, format=form)


def _serve(settings: Settings, listening: socket.socket, parent: Any) -> None:
    """What the serving process runs; it ends when the one that started it does."""
    import uvicorn

    from touchstone.io.artifacts import ArtifactError

    _say(settings)
    try:
        application = import_module("touchstone.service.routes").create(settings)
    except ArtifactError as error:  # a store that was there when the service was started
        _LOG.error("%s", error)
        raise SystemExit(1) from None
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    config = uvicorn.Config(
        application, timeout_graceful_shutdown=5, server_header=False, access_log=False
    )

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            """Let streams end first: all else waits for them."""
            application.state.closing.set()
            await super().shutdown(sockets)

    server = Server(config)

    def watch() -> None:
        with contextlib.suppress(EOFError, OSError):
            parent.recv()
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
    host, port = listening.getsockname()[:2]
    _LOG.info("touchstone serves %s at http://%s:%s", ", ".join(settings.models), host, port)
    server.run(sockets=[listening])
