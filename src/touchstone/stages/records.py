"""The files of a measurement: found, changed as a user asks, and handed to a model."""

import re
import shutil
import tempfile
from collections.abc import Container, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from touchstone.contract import Model
from touchstone.io import artifacts, plain_yaml
from touchstone.io.artifacts import ArtifactError
from touchstone.io.settings import measurement_paths
from touchstone.vocabulary import Cases


class Source(NamedTuple):
    """A measurement on disk.

    Attributes:
        name: Under which it is reported.
        measurement: As the user named it.
        data: File of a record, or folder of records of one system, that the model reads.
        meta: YAML that the model reads.
        inputs: Files of the user, by role, for the lineage.
        changes: Entries of the metadata that the user set, as KEY=VALUE.
    """

    name: str
    measurement: str
    data: Path
    meta: Path
    inputs: dict[str, Path]
    changes: tuple[str, ...]


def name_of(data: Path) -> str:
    """Name under which a measurement is reported: of a file without its suffix."""
    path = data.absolute()  # of ".", too, a name
    return re.sub(r"[^\w.+-]", "_", path.name if path.is_dir() else path.stem)


@contextmanager
def prepared(
    files: Sequence[Path], meta: Path | None = None, changes: Sequence[str] = ()
) -> Generator[Source]:
    """A measurement as a model reads it; copies that this takes are gone afterwards.

    Args:
        files: A record, or a folder of records of one system, or several such records.
        meta: YAML with what is known; None takes the YAML of the same name beside the data.
        changes: Entries of the metadata that replace those of the YAML, as KEY=VALUE with a dotted
            key.

    Raises:
        ArtifactError: If a file is missing, or a change cannot be made; also in place of one from
            inside the block that names a copy.
    """
    metas = {file: Path(measurement_paths({"data": str(file), "meta": meta})[1]) for file in files}
    for file in files:
        if not any(each.is_file() for each in artifacts.files(file)):
            raise ArtifactError(f"{file}: no such file, or an empty folder")
        if not metas[file].is_file() and not changes:
            raise ArtifactError(
                f"{metas[file]}: no such file; it says what is known about {file} "
                "(`touchstone example` writes one to start from)"
            )
    first = files[0]
    source = Source(name_of(first), str(first), first, metas[first], {}, tuple(changes))
    inputs = {f"meta {m.name}" if len(files) > 1 else "meta": m for m in metas.values()}
    for file in files:
        for each in artifacts.files(file):
            inputs["data" if each == first else f"data {each.name}"] = each
    source = source._replace(inputs={role: f for role, f in inputs.items() if f.is_file()})
    if len(files) == 1 and not changes:
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="touchstone-") as folder:
        copy = _copied(source, files, metas, Path(folder))
        try:
            yield copy
        except ArtifactError as error:
            said = f"{source.meta} (with {', '.join(changes)})" if changes else str(source.meta)
            text = str(error).replace(str(copy.meta), said)
            raise ArtifactError(text.replace(f"{copy.data}/", "")) from None


def _copied(source: Source, files: Sequence[Path], metas: dict[Path, Path], folder: Path) -> Source:
    """A source whose records lie in one folder, and whose metadata is changed."""
    data = source.data
    if len(files) > 1:
        data = folder / "records"
        data.mkdir()
        for file in files:
            if file.is_dir() or (data / file.name).exists():
                raise ArtifactError(f"{file}: joint records are files with names of their own")
            shutil.copyfile(file, data / file.name)
            own = file.with_suffix(".yaml")
            if own.is_file():
                shutil.copyfile(own, data / own.name)
        more = f"_and_{len(files) - 1}_more"
        source = source._replace(name=source.name + more, measurement=", ".join(map(str, files)))
    elif data.is_dir():  # where the metadata may lie among the records, which stay where they are
        data = folder / data.absolute().name
        hidden = source.meta.resolve()
        data.mkdir()
        for file in artifacts.files(source.data):
            if file.resolve() != hidden:
                shutil.copyfile(file, data / file.name)
    meta = folder / source.meta.name
    content = _parsed(source.meta) if source.meta.is_file() else {}
    for change in source.changes:
        _set(content, change)
    meta.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return source._replace(data=data, meta=meta)


def read(model: Model, source: Source) -> tuple[Cases, list[str]]:
    """What a model reads from a measurement, and what it assumed, in words.

    Raises:
        ArtifactError: If the files are no measurement of this model.
    """
    with _reader(model, source.measurement):
        return model.read(source.data, source.meta)


def describe(model: Model, data: Path, meta: Path | None = None) -> list[str]:
    """What a model understands of a measurement's files, in words, with no checkpoint loaded.

    Args:
        model: The model.
        data: A record, or a folder of records of one system.
        meta: YAML with what is known; None takes the YAML of the same name, where there is one.

    Raises:
        ArtifactError: If the files are no measurement of this model.
        NotImplementedError: If the model needs a checkpoint to read.
    """
    beside = Path(measurement_paths({"data": str(data), "meta": meta})[1])
    for file in (data, meta):
        if file is not None and not file.exists():
            raise ArtifactError(f"{file}: no such file")
    with _reader(model, str(data)):
        return model.describe(data, beside if beside.is_file() else None)


@contextmanager
def _reader(model: Model, measurement: str) -> Generator[None]:
    """Turn whatever a reader did not expect of a user's file into a sentence."""
    try:
        yield
    except (ArtifactError, NotImplementedError):
        raise
    except Exception as error:
        raise ArtifactError(
            f"{measurement}: cannot be read as a measurement of {model.model_id} "
            f"({type(error).__name__}: {error})"
        ) from error


def _parsed(meta: Path) -> dict[str, Any]:
    content = plain_yaml.load(meta)
    if not isinstance(content, dict):
        raise ArtifactError(f"{meta}: the metadata is not a list of keys and values")
    return content


def _set(content: Any, change: str) -> None:
    """Set one entry of nested dictionaries and lists, such as a.0.b=1.5."""
    path, equals, text = change.partition("=")
    *parents, last = keys = path.split(".")
    if not equals or not all(keys):
        raise ArtifactError(
            f"--set {change}: expected KEY=VALUE with a dotted key, as in a.0.b=1.5"
        )
    for depth, key in enumerate(parents):
        if isinstance(content, dict):
            content = content.setdefault(key, {})
        else:
            content = content[_place(content, key, keys[:depth], change)]
    if isinstance(content, dict):
        content[last] = _value(text)
    else:
        content[_place(content, last, parents, change)] = _value(text)


def _place(content: Any, key: str, parents: list[str], change: str) -> int:
    """Index of an entry of a list.

    Raises:
        ArtifactError: If there is no list, or no such entry in it.
    """
    where = ".".join(parents)
    if not isinstance(content, list):
        raise ArtifactError(f"--set {change}: {where} is {content!r}, which has no entries")
    if not key.isdecimal() or int(key) >= len(content):
        raise ArtifactError(f"--set {change}: {where} has entries 0 to {len(content) - 1}")
    return int(key)


def key_values(given: Sequence[str], texts: Container[str] = ()) -> dict[str, Any]:
    """Values by their key, from KEY=VALUE each.

    Args:
        given: As a user wrote them.
        texts: Keys whose values are texts, whatever they look like.

    Raises:
        ArtifactError: If one has no key, or two have the same.
    """
    found = {}
    for each in given:
        key, equals, text = each.partition("=")
        if not key or not equals:
            raise ArtifactError(f"{each}: expected KEY=VALUE")
        if key in found:
            raise ArtifactError(f"{each}: {key} is given twice")
        found[key] = text if key in texts else _value(text)
    return found


def _value(text: str) -> Any:
    """A number as Python reads it, since YAML takes 8e-6 for a text; else as YAML reads it."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ArtifactError(f"--set: {text!r} is not valid YAML ({error})") from None
