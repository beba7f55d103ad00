"""Questions that take longer than a request waits: kept on disk until they are answered."""

import json
import secrets
import sqlite3
import time
from pathlib import Path
from typing import Any, NamedTuple

_KEPT = 30 * 86400.0  # s that the answer of a job is kept
_TABLE = """
create table if not exists jobs (
    id text primary key, question text not null, created real not null,
    kind text, answer text, finished real
) strict
"""


class Job(NamedTuple):
    """A question that was accepted.

    Attributes:
        id: By which it is asked for.
        question: As `questions.Question` has it.
        kind: As `pool.Answer.kind`; None while there is no answer.
        answer: JSON of the report, or the reason why there is none.
    """

    id: str
    question: dict[str, Any]
    kind: str | None
    answer: str | None


class Jobs:
    """The jobs of a service, in a file that outlives its processes.

    Args:
        file: SQLite; made where it is not there.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(file, isolation_level=None)
        # A job is on disk before its client hears of it.
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = full")
        self._connection.execute(_TABLE)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def accept(self, question: dict[str, Any]) -> str:
        """Keep a question; returns the id of its job."""
        now, number = time.time(), secrets.token_hex(16)
        self._connection.execute("delete from jobs where finished < ?", (now - _KEPT,))
        self._connection.execute(
            "insert into jobs (id, question, created) values (?, ?, ?)",
            (number, json.dumps(question), now),
        )
        return number

    def finish(self, number: str, kind: str, answer: str) -> None:
        """Keep what came of a job; the first answer stays."""
        self._connection.execute(
            "update jobs set kind = ?, answer = ?, finished = ? where id = ? and kind is null",
            (kind, answer, time.time(), number),
        )

    def find(self, number: str) -> Job | None:
        """The job of an id."""
        found = self._select("where id = ?", number)
        return found[0] if found else None

    def unfinished(self) -> list[Job]:
        """Jobs that have no answer, the oldest first."""
        return self._select("where kind is null order by created")

    def _select(self, where: str, *values: str) -> list[Job]:
        rows = self._connection.execute(
            f"select id, question, kind, answer from jobs {where}", values
        )
        return [Job(row[0], json.loads(row[1]), row[2], row[3]) for row in rows]
