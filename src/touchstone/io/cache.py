"""Texts that can be computed again, kept for a while: in memory, or in Redis for many."""

import time
from collections import OrderedDict
from typing import Any

from touchstone.io.artifacts import ArtifactError

_PATIENCE = 0.25  # s that the server has to answer; whoever waits could compute meanwhile
_PAUSE = 5.0  # s in which a server that did not answer is not asked again
_KEPT = 7 * 86400  # s that a text is kept there
_LARGEST = 4 * 2**20  # characters of a text that is sent there


class Memory:
    """The text that was asked for longest ago is forgotten first.

    Args:
        most: Characters that are kept.
    """

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._kept: OrderedDict[str, str] = OrderedDict()

    def get(self, key: str) -> str | None:
        """The text of a key."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: str, text: str) -> None:
        """Keep a text, if it is not as large as a tenth of all."""
        if key in self._kept or len(text) > self._most / 10:
            return
        self._kept[key] = text
        self._size += len(text)
        while self._size > self._most:
            self._size -= len(self._kept.popitem(last=False)[1])


class Shared:
    """A server of Redis or Valkey, which may come and go: without it nothing is kept.

    Args:
        url: Such as `redis://:PASSWORD@HOST:6379/0`, or `rediss://` for TLS.
        space: What the keys begin with.

    Attributes:
        problem: What is wrong with the server; empty where it answered last.

    Raises:
        ArtifactError: If this is no such URL, or the server does not let us in.
    """

    def __init__(self, url: str, space: str) -> None:
        import redis
        from redis import asyncio as client
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        self._space, self._asleep = space, 0.0
        self.problem = ""
        once: Any = Retry(NoBackoff(), 1)  # since a connection may be of before a restart
        options: Any = {"socket_timeout": _PATIENCE, "socket_connect_timeout": _PATIENCE}
        options |= {"decode_responses": True, "retry": once}
        try:
            with redis.from_url(url, socket_timeout=5.0, socket_connect_timeout=5.0) as first:
                first.ping()
        except ValueError:  # its text holds the URL, with the password
            raise ArtifactError(
                "CACHE_URL: is no URL of a cache, expected one such as redis://HOST:6379/0"
            ) from None
        except (redis.AuthenticationError, redis.ResponseError) as error:
            raise ArtifactError(f"CACHE_URL: the server lets nobody in ({error})") from None
        except (redis.RedisError, OSError) as error:
            self._fail(error)
        self._server = client.from_url(url, **options)

    async def get(self, key: str) -> str | None:
        """The text of a key; None where there is none, or no server."""
        found = await self._asked("get", f"{self._space}:{key}")
        return found if isinstance(found, str) else None

    async def put(self, key: str, text: str) -> None:
        """Keep a text, if it is not too large."""
        if len(text) <= _LARGEST:
            await self._asked("set", f"{self._space}:{key}", text, ex=_KEPT)

    async def close(self) -> None:
        """Close all connections."""
        await self._server.aclose()

    async def _asked(self, what: str, *arguments: Any, **more: Any) -> Any:
        import redis

        if time.monotonic() < self._asleep:
            return None
        try:
            found = await getattr(self._server, what)(*arguments, **more)
        except (redis.RedisError, OSError, UnicodeDecodeError) as error:
            self._fail(error)
            return None
        self.problem = ""
        return found

    async def look(self) -> None:
        """Ask the server whether it is there, so that `problem` is of now."""
        await self._asked("ping")

    def _fail(self, error: Exception) -> None:
        self._asleep = time.monotonic() + _PAUSE
        self.problem = f"the cache cannot be reached ({type(error).__name__})"
