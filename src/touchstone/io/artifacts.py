"""Files that outlive a run: written whole or not at all, hashed, and free of executable content."""

import csv
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from touchstone import __version__

MANIFEST = "manifest.json"
_PACKAGES = ("jax", "jaxlib", "equinox", "optax", "numpy", "scipy", "pymc", "arviz")


class ArtifactError(ValueError):
    """A file that is missing, damaged, or not what it should be; the message names it."""


@contextmanager
def atomic(path: Path | str) -> Generator[Path]:
    """A temporary path beside `path` that takes its name once the block ends without an error."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written ({error.strerror})") from None
    os.close(handle)
    temporary = Path(temporary)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def assert_writable(folder: Path) -> None:
    """See that files can be written to a folder, before anything takes long; makes nothing.

    Raises:
        ArtifactError: If they cannot, there or where the folder would be made.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise ArtifactError(f"{folder}: cannot be written to ({error.strerror})") from None


def files(path: Path | str) -> list[Path]:
    """A file itself, or the files of a folder by name, but hidden ones."""
    path = Path(path)
    if not path.is_dir():
        return [path]
    return [file for file in sorted(path.iterdir()) if file.is_file() and file.name[0] != "."]


def stamped(folder: Path, name: str) -> Path:
    """A NetCDF file of chains that are written now: its name has the time (UTC)."""
    return folder / f"{name}_{datetime.now(UTC):%Y%m%dT%H%M%SZ}.nc"


def state(path: Path | str) -> tuple[int, int]:
    """What changes with the content of a file: when it was written, and its size."""
    try:
        found = Path(path).stat()
    except OSError:
        return 0, 0  # whoever reads the file says what is wrong
    return found.st_mtime_ns, found.st_size


def sha256(path: Path | str) -> str:
    """Hex digest of a file's content."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on."""
    return {"touchstone": __version__, **{name: _version(name) for name in _PACKAGES}}


_version = cache(metadata.version)


def write_json(path: Path | str, content: dict) -> None:
    """Write strict JSON (no NaN, no Infinity) in one piece."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_csv(path: Path | str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of a table as CSV in one piece; what a row lacks stays empty."""
    names = dict.fromkeys(name for row in rows for name in row)
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_json(path: Path | str) -> dict:
    """Read JSON; an `ArtifactError` names the file if it is missing or damaged."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except ValueError as error:
        raise ArtifactError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: not a JSON object")
    return content


def save_arrays(path: Path | str, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as `.npz` in one piece; the same arrays give the same bytes."""
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)  # ty: ignore[invalid-argument-type] none is named allow_pickle


def load_arrays(path: Path | str) -> dict[str, np.ndarray]:
    """Read an `.npz`; refuses pickled content and names what is wrong with a damaged file."""
    try:
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except Exception as error:  # a damaged archive can fail anywhere between zip, zlib and numpy
        raise ArtifactError(f"{path}: not a readable .npz of plain arrays ({error})") from None


def write_manifest(folder: Path, files: list[str], settings: dict, lineage: dict) -> None:
    """Record the sha256 and size of a folder's files, package versions, settings and lineage."""
    entries = {
        name: {"sha256": sha256(folder / name), "size": (folder / name).stat().st_size}
        for name in sorted(files)
    }
    content = {"files": entries, "versions": versions(), "settings": settings, "lineage": lineage}
    write_json(folder / MANIFEST, {"schema_version": 1, **content})


def verify(folder: Path, needed: list[str]) -> bool:
    """Hold a folder against its manifest.

    Args:
        folder: Of the artefact.
        needed: Files that must be there.

    Returns:
        True if every file matches the manifest; False, with a warning, if there is no manifest.

    Raises:
        ArtifactError: If a file is missing, or differs from what the manifest says.
    """
    for name in needed:
        if not (folder / name).is_file():
            raise ArtifactError(f"{folder}: holds no {name}")
    if not (folder / MANIFEST).is_file():
        warnings.warn(f"{folder}: no {MANIFEST}, so its files are not verified", stacklevel=2)
        return False
    try:
        files = read_json(folder / MANIFEST)["files"]
        digests = {name: entry["sha256"] for name, entry in files.items()}
    except (AttributeError, KeyError, TypeError):
        raise ArtifactError(f"{folder / MANIFEST}: not a manifest") from None
    for name in needed:
        if name not in digests:
            raise ArtifactError(f"{folder / MANIFEST}: does not list {name}")
    for name, digest in digests.items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            raise ArtifactError(f"{folder / name}: differs from its sha256 in {MANIFEST}")
    return True
