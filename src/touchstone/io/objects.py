"""Files in a bucket of an object store that speaks S3."""

import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from touchstone.io import artifacts
from touchstone.io.artifacts import ArtifactError

_ADDRESS = re.compile(r"(?:s3://)?([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([A-Za-z0-9_./-]*))?")
_CLIENT = {"timeout": "60s", "connect_timeout": "5s"}
_RETRIES: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}


class Bucket:
    """A bucket, or what stands under a prefix of it.

    Who asks, and where, is what `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `AWS_REGION` and the like
    say, or the role of the machine.

    Args:
        address: A name, or `s3://name/prefix`.
        variable: Of the environment that it is from, which errors name.

    Raises:
        ArtifactError: If this is no name of a bucket.
    """

    def __init__(self, address: str, variable: str) -> None:
        from obstore.store import S3Store

        if not (match := _ADDRESS.fullmatch(address)):
            raise ArtifactError(
                f"{variable}: {address!r:.200} is no bucket, expected NAME or s3://NAME/PREFIX"
            )
        self.name, prefix = match[1], (match[2] or "").strip("/")
        self._variable = variable
        endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
        options: Any = _CLIENT | {"allow_http": endpoint.startswith("http://")}
        with self._asking():
            self._store = S3Store(
                self.name, prefix=prefix or None, client_options=options, retry_config=_RETRIES
            )

    def names(self, under: str = "") -> list[str]:
        """Names of all files whose first folders are these, sorted.

        Raises:
            ArtifactError: If there is no such bucket, or it cannot be read.
        """
        import obstore

        with self._asking():
            pages = obstore.list(self._store, under or None)
            return sorted(each["path"] for page in pages for each in page)

    def assert_there(self) -> None:
        """See that the bucket is there and lets us in.

        Raises:
            ArtifactError: If it does not.
        """
        import obstore

        with self._asking():
            next(iter(obstore.list(self._store, chunk_size=1)), None)

    def read(self, name: str) -> bytes:
        """Content of a file.

        Raises:
            ArtifactError: If there is none, or it cannot be read.
        """
        import obstore

        with self._asking(name):
            return bytes(obstore.get(self._store, name).bytes())

    def fetch(self, name: str, file: Path) -> None:
        """Write the content of a file here, a part at a time.

        Raises:
            ArtifactError: If there is none, or it cannot be read.
        """
        import obstore

        with self._asking(name), artifacts.atomic(file) as part, part.open("wb") as stream:
            for content in obstore.get(self._store, name).stream():
                stream.write(content)

    def write(self, name: str, content: bytes | Path, *, anew: bool = False) -> bool:
        """Write a file, whole or not at all.

        Args:
            name: Of the file.
            content: Of it, or a file that has it.
            anew: Whether a file that is there stays as it is.

        Returns:
            Whether it was written.

        Raises:
            ArtifactError: If it cannot be written.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._asking(name):
            try:
                obstore.put(self._store, name, content, mode="create" if anew else "overwrite")
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    @contextmanager
    def _asking(self, name: str = "") -> Generator[None]:
        """Say in a sentence what an object store says in many lines."""
        from obstore.exceptions import BaseError

        what = f"{self._variable}: s3://{self.name}{f'/{name}' if name else ''}"
        try:
            yield
        except FileNotFoundError:  # obstore's own error is one, too
            raise ArtifactError(f"{what}: is not there") from None
        except BaseError as error:
            raise ArtifactError(f"{what}: {_words(str(error))}") from None


def _words(text: str) -> str:
    """What went wrong, from the text of an error that holds requests and debug output."""
    if code := re.search(r"<Code>(\w+)</Code>", text):
        said = re.search(r"<Message>([^<]+)</Message>", text)
        return f"{code[1]}{f' ({said[1].strip()})' if said else ''}"
    lines = [" ".join(line.split()) for line in text.split("Debug source")[0].splitlines()]
    return " ".join(line for line in lines if line)[:300]
