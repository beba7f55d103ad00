"""What a service keeps on disk: accepted jobs with their events, and the keys of its users."""

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import event, exc

from touchstone.io.artifacts import ArtifactError

_KEPT = 30 * 86400.0  # s that the answer of a job is kept
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


class Job(NamedTuple):
    """A question or a training that was accepted.

    Attributes:
        id: By which it is asked for.
        question: As `questions.Question` or `questions.Training` has it.
        created: When it was accepted, in seconds since 1970.
        status: "waiting", "running", or one of `ENDED`.
        answer: JSON of what came of it, or the reason why nothing did.
        finished: When it ended.
    """

    id: str
    question: dict[str, Any]
    created: float
    status: str
    answer: str | None
    finished: float | None


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
        try:
            self._engine = sa.create_engine(url, pool_pre_ping=True)
            if self._engine.dialect.name == "sqlite":
                event.listen(self._engine, "connect", _set_up)
            _TABLES.create_all(self._engine)
        except (exc.SQLAlchemyError, ModuleNotFoundError) as error:
            # What the driver says may hold the password.
            raise ArtifactError(f"DATABASE_URL: no database ({type(error).__name__})") from None

    @classmethod
    def at(cls, folder: Path, url: str = "") -> "Store":
        """The store of a database, or of a file in a folder where there is none."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(url or f"sqlite:///{(folder / 'store.sqlite').absolute()}")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    # Jobs -----------------------------------------------------------------------------------------

    def accept(self, question: dict[str, Any], token: str = "") -> Job:
        """Keep a question: it is on disk before its client hears of it.

        Args:
            question: What is asked.
            token: By which a client says that it asks again and not anew; empty for none.

        Returns:
            The job; that of before where the token is the same.

        Raises:
            ReusedError: If the token came with another question.
        """
        now, text = time.time(), json.dumps(question, sort_keys=True)
        token = hashlib.sha256(token.encode()).hexdigest() if token else ""
        row = {
            "id": secrets.token_hex(16),
            "question": text,
            "created": now,
            "status": "waiting",
            "token": token or None,
            "digest": hashlib.sha256(text.encode()).hexdigest(),
        }
        with self._engine.begin() as connection:
            old = sa.select(_JOBS.c.id).where(_JOBS.c.finished < now - _KEPT)
            connection.execute(sa.delete(_EVENTS).where(_EVENTS.c.job.in_(old)))
            connection.execute(sa.delete(_JOBS).where(_JOBS.c.finished < now - _KEPT))
            if token:
                before = connection.execute(sa.select(_JOBS).where(_JOBS.c.token == token)).first()
                if before is not None:
                    if before.digest != row["digest"]:
                        raise ReusedError("the Idempotency-Key came with another request before")
                    return _job(before)
            connection.execute(sa.insert(_JOBS).values(row))
            return _job(connection.execute(_of(row["id"])).one())

    def start(self, number: str) -> None:
        """Say that a job is worked on."""
        waits = (_JOBS.c.id == number) & (_JOBS.c.status == "waiting")
        with self._engine.begin() as connection:
            connection.execute(sa.update(_JOBS).where(waits).values(status="running"))

    def finish(self, number: str, status: str, answer: str) -> bool:
        """Keep what came of a job; the first answer stays. Whether this is the first."""
        open_ = (_JOBS.c.id == number) & _JOBS.c.status.not_in(ENDED)
        values = {"status": status, "answer": answer, "finished": time.time()}
        with self._engine.begin() as connection:
            return connection.execute(sa.update(_JOBS).where(open_).values(values)).rowcount == 1

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

    def unfinished(self) -> list[Job]:
        """Jobs that have not ended, the oldest first."""
        query = sa.select(_JOBS).where(_JOBS.c.status.not_in(ENDED)).order_by(_JOBS.c.created)
        with self._engine.connect() as connection:
            return [_job(row) for row in connection.execute(query)]

    def tell(self, number: str, name: str, content: dict[str, Any]) -> None:
        """Add an event to a job."""
        last = sa.select(sa.func.coalesce(sa.func.max(_EVENTS.c.number), 0))
        text = json.dumps(content, allow_nan=False)
        with self._engine.begin() as connection:
            count = connection.execute(last.where(_EVENTS.c.job == number)).scalar_one()
            values = {"job": number, "number": count + 1, "name": name, "content": text}
            connection.execute(sa.insert(_EVENTS).values(values))

    def events(self, number: str, after: int) -> list[Event]:
        """Events of a job that came after one with this number."""
        query = sa.select(_EVENTS).where(_EVENTS.c.job == number, _EVENTS.c.number > after)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(_EVENTS.c.number))
            return [Event(row.number, row.name, row.content) for row in rows]

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
            "sha256": hashlib.sha256(secret.encode()).hexdigest(),
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
        given = hashlib.sha256(secret.encode()).hexdigest()
        if row is None or not hmac.compare_digest(row.sha256, given):
            return None
        return Key(row.id, row.name, tuple(row.scopes.split()), row.created, row.revoked)


def _of(number: str) -> sa.Select:
    return sa.select(_JOBS).where(_JOBS.c.id == number)


def _job(row: Any) -> Job:
    question = json.loads(row.question)
    return Job(row.id, question, row.created, row.status, row.answer, row.finished)


def _set_up(connection: Any, _record: Any) -> None:
    """Of SQLite: readers do not wait for a writer, and what was committed survives a crash."""
    for pragma in ("journal_mode = wal", "synchronous = full", "busy_timeout = 30000"):
        connection.execute(f"pragma {pragma}")
