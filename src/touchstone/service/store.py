"""What the processes of a service share: accepted jobs with their events, and the users' keys.

All of it stands in one database, by the same statements in SQLite and in PostgreSQL.
"""

import hashlib
import hmac
import json
import secrets
import ssl
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import event, exc

from touchstone.io.artifacts import ArtifactError

_KEPT = 30 * 86400.0  # s that the answer of a job is kept
_PATIENCE = 10.0  # s that a database has to answer
_BUSY = 30  # s that SQLite waits for another writer
ENDED = ("done", "refused", "failed", "cancelled")
SCOPES = ("read", "infer", "promote")
_PREFIX = "touchstone"
_TABLES = sa.MetaData()
_JOBS = sa.Table(
    "jobs",
    _TABLES,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("question", sa.Text, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("status", sa.String(16), nullable=False, index=True),
    sa.Column("answer", sa.Text),
    sa.Column("finished", sa.Double),
    sa.Column("token", sa.String(64), unique=True),
    sa.Column("digest", sa.String(64)),
    sa.Column("server", sa.String(32)),
    sa.Column("told", sa.Integer, nullable=False, server_default="0"),
    sa.Column("delivered", sa.Integer, nullable=False, server_default="0"),
)
# Processes that follow jobs. A number that grows says that one lives, whatever its clock shows.
_SERVERS = sa.Table(
    "servers",
    _TABLES,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("beat", sa.BigInteger, nullable=False),
)
_EVENTS = sa.Table(
    "events",
    _TABLES,
    sa.Column("job", sa.String(32), sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(16), nullable=False),
    sa.Column("content", sa.Text, nullable=False),
)
_KEYS = sa.Table(
    "api_keys",
    _TABLES,
    sa.Column("id", sa.String(12), primary_key=True),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("scopes", sa.String(100), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("created", sa.String(40), nullable=False),
    sa.Column("revoked", sa.String(40)),
)


TABLES = tuple(_TABLES.tables)


class Job(NamedTuple):
    """A question or a training that was accepted.

    Attributes:
        id: By which it is asked for.
        question: As `questions.Question` or `questions.Training` has it.
        created: When it was accepted, in seconds since 1970.
        status: "waiting", "running", or one of `ENDED`.
        answer: JSON of what came of it, or the reason why nothing did.
        finished: When it ended.
        server: Which process follows it.
    """

    id: str
    question: dict[str, Any]
    created: float
    status: str
    answer: str | None
    finished: float | None
    server: str | None


class Event(NamedTuple):
    """Something that happened to a job: `number` from 1, a name, and JSON."""

    number: int
    name: str
    content: str


class Key(NamedTuple):
    """A key by which somebody asks; the secret itself is kept nowhere."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created: str
    revoked: str | None


class ReusedError(ValueError):
    """An idempotency key that was sent with another request before."""


class Store:
    """Tables that outlive the processes of a service.

    Args:
        url: Of a database, as SQLAlchemy has it; see `at`.

    Raises:
        ArtifactError: If the database is not there, or its driver.
    """

    def __init__(self, url: str) -> None:
        self._engine = connect(url, _TABLES)

    @classmethod
    def at(cls, folder: Path, url: str = "") -> "Store":
        """The store of a database, or of a file in a folder where there is none."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(url or f"sqlite:///{(folder / 'store.sqlite').absolute()}")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    # Jobs -----------------------------------------------------------------------------------------

    def accept(
        self,
        question: dict[str, Any],
        token: str = "",
        server: str | None = None,
        asked: dict[str, Any] | None = None,
    ) -> Job:
        """Keep a question: it is on disk before its client hears of it.

        Args:
            question: What is asked.
            token: By which a client says that it asks again and not anew; empty for none.
            server: Which process follows it.
            asked: The question as it came, by which it is known again; None is the question.

        Returns:
            The job; that of before where the token is the same.

        Raises:
            ReusedError: If the token came with another question.
        """
        now, asked = time.time(), question if asked is None else asked
        row = {
            "id": secrets.token_hex(16),
            "question": _text(question),
            "created": now,
            "status": "waiting",
            "token": _sha256(token) if token else None,
            "digest": _sha256(_text(asked)),
            "server": server,
        }
        with self._engine.begin() as connection:
            old = sa.select(_JOBS.c.id).where(_JOBS.c.finished < now - _KEPT)
            connection.execute(sa.delete(_EVENTS).where(_EVENTS.c.job.in_(old)))
            connection.execute(sa.delete(_JOBS).where(_JOBS.c.finished < now - _KEPT))
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(_JOBS).values(row))
                return _job(connection.execute(_of(row["id"])).one())
        except exc.IntegrityError:  # the token is known, in whatever process it came first
            before = self.retried(asked, token)
            assert before is not None
            return before

    def retried(self, asked: dict[str, Any], token: str) -> Job | None:
        """The job that a token came with before, if it did.

        Raises:
            ReusedError: If it came with another question.
        """
        with self._engine.connect() as connection:
            named = sa.select(_JOBS).where(_JOBS.c.token == _sha256(token))
            before = connection.execute(named).first()
        if before is None:
            return None
        if before.digest != _sha256(_text(asked)):
            raise ReusedError("the Idempotency-Key came with another request before")
        return _job(before)

    def start(self, number: str) -> None:
        """Say that a job is worked on."""
        waits = (_JOBS.c.id == number) & (_JOBS.c.status == "waiting")
        with self._engine.begin() as connection:
            connection.execute(sa.update(_JOBS).where(waits).values(status="running"))

    def finish(self, number: str, status: str, answer: str) -> bool:
        """Keep what came of a job, and tell its end; the first answer stays.

        Returns:
            Whether this is the first.
        """
        values = {"status": status, "answer": answer, "finished": time.time()}
        return self._tell(number, "end", {"status": status}, values)

    def find(self, number: str) -> Job | None:
        """The job of an id."""
        with self._engine.connect() as connection:
            row = connection.execute(_of(number)).first()
        return None if row is None else _job(row)

    def jobs(self, most: int) -> list[Job]:
        """The newest jobs, the newest first."""
        query = sa.select(_JOBS).order_by(_JOBS.c.created.desc()).limit(most)
        with self._engine.connect() as connection:
            return [_job(row) for row in connection.execute(query)]

    def unfinished(self) -> dict[str, str | None]:
        """Ids of the jobs that have not ended, the oldest first, with who follows each."""
        query = sa.select(_JOBS.c.id, _JOBS.c.server).where(_JOBS.c.status.not_in(ENDED))
        with self._engine.connect() as connection:
            return {
                row.id: row.server for row in connection.execute(query.order_by(_JOBS.c.created))
            }

    def undelivered(self, most: int) -> list[Job]:
        """Jobs that have ended, and whose answers were not handed on; the oldest first."""
        ended = _JOBS.c.status.in_(ENDED) & (_JOBS.c.delivered == 0)
        query = sa.select(_JOBS).where(ended).order_by(_JOBS.c.finished).limit(most)
        with self._engine.connect() as connection:
            return [_job(row) for row in connection.execute(query)]

    def deliver(self, number: str) -> None:
        """Say that the answer of a job was handed on."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(_JOBS).where(_JOBS.c.id == number).values(delivered=1))

    def tell(self, number: str, name: str, content: dict[str, Any]) -> None:
        """Add an event to a job, unless that has ended."""
        self._tell(number, name, content, {})

    def _tell(
        self, number: str, name: str, content: dict[str, Any], changes: dict[str, Any]
    ) -> bool:
        """Change a job that has not ended and add an event, both or neither; whether it was so."""
        text = json.dumps(content, allow_nan=False)
        open_ = (_JOBS.c.id == number) & _JOBS.c.status.not_in(ENDED)
        changed = sa.update(_JOBS).where(open_).values(changes | {"told": _JOBS.c.told + 1})
        with self._engine.begin() as connection:
            # The row of the job is locked first, so that two who tell at once have two numbers.
            row = connection.execute(changed.returning(_JOBS.c.told)).first()
            if row is None:
                return False
            values = {"job": number, "number": row.told, "name": name, "content": text}
            connection.execute(sa.insert(_EVENTS).values(values))
        return True

    def events(self, number: str, after: int) -> list[Event]:
        """Events of a job that came after one with this number."""
        query = sa.select(_EVENTS).where(_EVENTS.c.job == number, _EVENTS.c.number > after)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(_EVENTS.c.number))
            return [Event(row.number, row.name, row.content) for row in rows]

    # Processes ------------------------------------------------------------------------------------

    def beat(self, server: str) -> dict[str, int]:
        """Say that a process lives; the numbers of all that do, or did."""
        with self._engine.begin() as connection:
            mine = sa.update(_SERVERS).where(_SERVERS.c.id == server)
            if not connection.execute(mine.values(beat=_SERVERS.c.beat + 1)).rowcount:
                connection.execute(sa.insert(_SERVERS).values(id=server, beat=1))
            return {row.id: row.beat for row in connection.execute(sa.select(_SERVERS))}

    def leave(self, server: str, beat: int | None = None) -> None:
        """Forget a process that ends, or one whose number does not grow any more."""
        gone = _SERVERS.c.id == server
        if beat is not None:
            gone &= _SERVERS.c.beat == beat
        with self._engine.begin() as connection:
            connection.execute(sa.delete(_SERVERS).where(gone))

    def claim(self, job: Job, server: str) -> bool:
        """Let a process follow a job that the one of before follows no more; one alone may."""
        free = (_JOBS.c.id == job.id) & _JOBS.c.status.not_in(ENDED)
        free &= _JOBS.c.server.is_(None) if job.server is None else _JOBS.c.server == job.server
        last = sa.select(sa.func.coalesce(sa.func.max(_EVENTS.c.number), 0))
        told = last.where(_EVENTS.c.job == job.id).scalar_subquery()  # not kept by earlier releases
        with self._engine.begin() as connection:
            claimed = sa.update(_JOBS).where(free).values(server=server, told=told)
            return connection.execute(claimed).rowcount == 1

    # Keys -----------------------------------------------------------------------------------------

    def add_key(self, name: str, scopes: Collection[str]) -> str:
        """Make a key; its text is returned once, and only a hash of it is kept.

        Args:
            name: Whose it is.
            scopes: Some of `SCOPES`.
        """
        number, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        row = {
            "id": number,
            "name": name,
            "scopes": " ".join(scope for scope in SCOPES if scope in scopes),
            # 256 random bits cannot be guessed, so that a slow hash would protect nothing more.
            "sha256": _sha256(secret),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with self._engine.begin() as connection:
            connection.execute(sa.insert(_KEYS).values(row))
        return f"{_PREFIX}_{number}_{secret}"

    def listed_keys(self) -> list[Key]:
        """All keys, the revoked ones too."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_KEYS).order_by(_KEYS.c.created)).all()
        return [Key(r.id, r.name, tuple(r.scopes.split()), r.created, r.revoked) for r in rows]

    def revoke(self, number: str) -> bool:
        """Let a key open nothing from now on; whether there was one that did."""
        live = (_KEYS.c.id == number) & _KEYS.c.revoked.is_(None)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._engine.begin() as connection:
            return connection.execute(sa.update(_KEYS).where(live).values(revoked=now)).rowcount > 0

    def key(self, text: str) -> Key | None:
        """The key of a text; None if there is none, or it was revoked."""
        prefix, _, rest = text.partition("_")
        number, _, secret = rest.partition("_")
        if prefix != _PREFIX or not secret:
            return None
        query = sa.select(_KEYS).where(_KEYS.c.id == number, _KEYS.c.revoked.is_(None))
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None or not hmac.compare_digest(row.sha256, _sha256(secret)):
            return None
        return Key(row.id, row.name, tuple(row.scopes.split()), row.created, row.revoked)


def connect(url: str, tables: sa.MetaData) -> sa.Engine:
    """A database in which tables are there.

    Args:
        url: As SQLAlchemy has it; `postgresql://` takes the driver that is installed here.
        tables: Made where they are not there, with what those of an earlier release lack.

    Raises:
        ArtifactError: If there is no such database, or it lets nobody in; without the password.
    """
    try:
        address = sa.make_url(url)
        engine = _engine(address)
    except (exc.SQLAlchemyError, ModuleNotFoundError, ValueError) as error:
        # The text of the error may hold the password.
        said = f"expected one such as postgresql://USER:PASSWORD@HOST/NAME ({type(error).__name__})"
        raise ArtifactError(f"DATABASE_URL: is no URL of a database; {said}") from None
    try:
        _make(engine, tables)
    except (exc.SQLAlchemyError, OSError, TypeError) as error:
        engine.dispose()
        shown = address.render_as_string(hide_password=True)
        raise ArtifactError(f"DATABASE_URL: {shown}: {_words(error, address.password)}") from None
    return engine


def _engine(address: sa.URL) -> sa.Engine:
    if address.get_backend_name() not in ("postgres", "postgresql"):
        engine = sa.create_engine(address)
        event.listen(engine, "connect", _set_up)
        return engine
    arguments: dict[str, Any] = {"timeout": _PATIENCE}
    match address.query.get("sslmode", "prefer"):
        case "disable":
            arguments["ssl_context"] = False
        case "require":
            arguments["ssl_context"] = True
        case "verify-ca" | "verify-full":
            arguments["ssl_context"] = ssl.create_default_context()
    if address.drivername in ("postgres", "postgresql"):
        address = address.set(drivername="postgresql+pg8000")
    address = address.difference_update_query(["sslmode"])
    return sa.create_engine(address, pool_pre_ping=True, connect_args=arguments)


def _make(engine: sa.Engine, tables: sa.MetaData) -> None:
    for attempt in (1, 2, 3):
        try:
            tables.create_all(engine)
            break
        except exc.DBAPIError:  # another process made a table at the same moment
            if attempt == 3:
                raise
    known = sa.inspect(engine)
    with engine.begin() as connection:
        for table in tables.sorted_tables:
            there = {column["name"] for column in known.get_columns(table.name)}
            for column in table.columns:
                if column.name not in there:
                    made = str(sa.schema.CreateColumn(column).compile(engine))
                    connection.execute(sa.DDL(f"alter table {table.name} add column {made}"))


def _words(error: Exception, password: str | None) -> str:
    """What a driver says, in one line and without the password."""
    said: Any = getattr(error, "orig", None) or error
    of_server = said.args[0] if said.args and isinstance(said.args[0], dict) else {}
    text = " ".join(str(of_server.get("M", said)).split())
    return text.replace(password, "***") if password else text


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _of(number: str) -> sa.Select:
    return sa.select(_JOBS).where(_JOBS.c.id == number)


def _job(row: Any) -> Job:
    question = json.loads(row.question)
    return Job(row.id, question, row.created, row.status, row.answer, row.finished, row.server)


def _set_up(connection: Any, _record: Any) -> None:
    """Of SQLite: readers do not wait for a writer, and what was committed survives a crash."""
    pragmas = ("journal_mode = wal", "synchronous = full", f"busy_timeout = {1000 * _BUSY}")
    for pragma in pragmas:
        connection.execute(f"pragma {pragma}")
