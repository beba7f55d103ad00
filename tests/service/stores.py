"""Real servers that a service may keep things in: PostgreSQL, Redis, and an object store."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

PASSWORD = "not-to-be-seen"
_DEBIAN = Path("/usr/lib/postgresql")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _listens(port: int, process: subprocess.Popen) -> bool:
    """Whether a server listens, which may take a while; False as soon as it ends."""
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.05)
    return False


class Postgres:
    """PostgreSQL with an empty database, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        programs = sorted(_DEBIAN.glob("*/bin/postgres"))
        found = shutil.which("postgres") or (programs[-1] if programs else None)
        if found is None:
            pytest.skip("no PostgreSQL to keep jobs in")
        self._folder, self._port = folder, _free_port()
        self._data = folder / "data"
        self._data.mkdir(parents=True)
        self._user: dict = {}
        if os.geteuid() == 0:  # as which PostgreSQL does not run
            self._user = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(self._data, "postgres", "postgres")
        secret = folder / "password"
        secret.write_text(PASSWORD)
        self._program = Path(found)
        more = ["-A", "scram-sha-256", "-U", "touchstone", "--pwfile", secret]
        quick = ["-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions"]
        command = [self._program.with_name("initdb"), "-D", self._data, *more, *quick]
        said = subprocess.DEVNULL
        subprocess.run(command, check=True, cwd=self._data, stdout=said, **self._user)
        self.url = f"postgresql://touchstone:{PASSWORD}@127.0.0.1:{self._port}/postgres"
        self.start()

    def start(self) -> None:
        """Listen, with what was committed before."""
        where = ["-D", self._data, "-p", str(self._port), "-h", "127.0.0.1", "-k", ""]
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                [self._program, *where], cwd=self._data, stdout=log, stderr=log, **self._user
            )
        assert _listens(self._port, self._process), (self._folder / "log").read_text()

    def kill(self) -> None:
        """End at once, and every connection with it."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(20)


@contextmanager
def postgres():
    """A server of PostgreSQL with a password.

    Its folder is none of pytest's, which every new session of tests closes to other users.
    """
    with tempfile.TemporaryDirectory(prefix="touchstone-postgres-") as place:
        Path(place).chmod(0o755)
        server = Postgres(Path(place))
        try:
            yield server
        finally:
            server.kill()


class Redis:
    """A server of Redis or Valkey that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._program = shutil.which("redis-server") or shutil.which("valkey-server")
        if self._program is None:
            pytest.skip("neither Redis nor Valkey to keep answers in")
        self._folder, self._port = folder, _free_port()
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        """Listen, with nothing kept."""
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--save", ""]
        command = [self._program, *options, "--requirepass", PASSWORD, "--dir", str(self._folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        assert _listens(self._port, self._process)

    def kill(self) -> None:
        """End without a farewell."""
        self._process.kill()
        self._process.wait()


@contextmanager
def redis(folder: Path):
    """A server of Redis with a password."""
    server = Redis(folder)
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def objects(*buckets: str):
    """An object store with buckets; yields the variables by which it is found."""
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    for bucket in buckets:
        httpx.put(f"{url}/{bucket}").raise_for_status()
    keys = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": PASSWORD}
    try:
        with pytest.MonkeyPatch.context() as patch:
            found = keys | {"AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1"}
            for name, value in found.items():
                patch.setenv(name, value)
            yield found
    finally:
        server.stop()
