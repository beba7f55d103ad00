"""Versions of artefacts: which there are, which stage each is at, and who moved it there and why.

A version is a folder named by the digest of its manifest; a transition is a file that is never
changed. Where there is a bucket, both stand there too, and the folder is a copy of what was needed.
The index in a database is made from these files, and is made again where it is lost.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from touchstone.io import artifacts, reports
from touchstone.io.artifacts import ArtifactError
from touchstone.io.objects import Bucket
from touchstone.io.results import Results
from touchstone.io.results import folder as results_folder
from touchstone.reliability.certificate import certified
from touchstone.service import store
from touchstone.stages import checkpoints

STAGES = ("None", "Staging", "Production", "Archived")
ALLOWED = {
    "None": ("Staging", "Archived"),
    "Staging": ("Production", "Archived"),
    "Production": ("Archived",),
    "Archived": ("Staging",),
}
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # of a file of an artefact
_KINDS = (".json", ".npz", ".eqx", ".nc", ".yaml", ".csv")
_ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")
_UNPACKED = 2**31  # bytes that the arrays of a file may have
TABLE = "transitions"  # of the index
_TABLE_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class PromotionError(ArtifactError):
    """A stage that a version has not earned.

    Attributes:
        problems: Everything that failed.
    """

    def __init__(self, what: str, problems: list[str]) -> None:
        super().__init__(f"{what}: {'; '.join(problems)}")
        self.problems = problems


class Transition(NamedTuple):
    """A version that came to a stage.

    Attributes:
        model_id: Of the model.
        sequence: Number of the transition, of this model.
        version: Number of the version.
        digest: Of its manifest, and the name of its folder.
        stage: One of `STAGES`; "None" where the version was added.
        by, why, date: Who moved it, for what reason, and when (ISO 8601).
        canary: Digest of an answer, as the version gave it when it was added.
    """

    model_id: str
    sequence: int
    version: int
    digest: str
    stage: str
    by: str
    why: str
    date: str
    canary: str


class Versions:
    """The versions in a folder, and in a bucket where there is one.

    Args:
        folder: Such as `results/registry`; made where it is not there.
        database: URL of the database that has the index; empty is a file in the folder.
        table: Of the index.
        bucket: Where versions and transitions stand for all machines.

    Raises:
        ArtifactError: If the database or the bucket is not there, or both hold other transitions.
    """

    def __init__(
        self, folder: Path, database: str = "", table: str = TABLE, bucket: Bucket | None = None
    ) -> None:
        if not _TABLE_NAME.fullmatch(table) or table in store.TABLES:
            raise ArtifactError(
                f"MODEL_REGISTRY_TABLE: {table!r:.100} is no name of a table of its own, expected "
                "lower-case letters, digits and _"
            )
        self.folder, self.bucket = folder, bucket
        folder.mkdir(parents=True, exist_ok=True)
        texts = (sa.Column(name, sa.Text) for name in ("digest", "stage", "by", "why", "date"))
        self._table = sa.Table(
            table,
            sa.MetaData(),
            sa.Column("model_id", sa.String(64), primary_key=True),
            sa.Column("sequence", sa.Integer, primary_key=True),
            sa.Column("version", sa.Integer),
            *texts,
            sa.Column("canary", sa.Text),
        )
        file = f"sqlite:///{(folder / 'versions.sqlite').absolute()}"
        self._engine = store.connect(database or file, self._table.metadata)
        self._own = threading.local()  # the transaction in which a thread writes
        self._compared = False
        try:
            self.refresh()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the index."""
        self._engine.dispose()

    def refresh(self) -> None:
        """Take up what other processes and machines wrote.

        Raises:
            ArtifactError: If two registries were mixed, or the bucket cannot be read.
        """
        self._exchange()
        with self._writing():
            self._replay()

    def history(self, model_id: str) -> list[Transition]:
        """All transitions of a model, the oldest first."""
        here = self._table.c.model_id == model_id
        return self._rows(self._select().where(here).order_by(self._table.c.sequence))

    def _select(self) -> sa.Select:
        return sa.select(*(self._table.c[name] for name in Transition._fields))

    def _rows(self, query: sa.Select) -> list[Transition]:
        if (writer := getattr(self._own, "writer", None)) is not None:
            return [Transition(*row) for row in writer.execute(query)]
        with self._engine.connect() as connection:
            return [Transition(*row) for row in connection.execute(query)]

    def listed(self, model_id: str) -> list[Transition]:
        """The last transition of each version, by its number."""
        last = {each.version: each for each in self.history(model_id)}
        return [last[version] for version in sorted(last)]

    def aliases(self, model_id: str) -> dict[str, int]:
        """`production`, and `latest`: the version that was promoted last, of those not archived."""
        promoted = [each for each in self.listed(model_id) if each.stage in STAGES[1:3]]
        promoted.sort(key=lambda each: each.sequence)
        in_production = [each for each in promoted if each.stage == "Production"]
        found = {"production": in_production, "latest": promoted}
        return {name: versions[-1].version for name, versions in found.items() if versions}

    def path(self, version: Transition) -> Path:
        """Folder of a version, which is fetched from the bucket where it is not here.

        Raises:
            ArtifactError: If it is not in the bucket either, or what is there has another digest.
        """
        place = self.folder / version.model_id / version.digest
        if self.bucket is not None and not place.is_dir():
            self._fetch(self.bucket, version, place)
        return place

    def _fetch(self, bucket: Bucket, version: Transition, place: Path) -> None:
        under = f"{version.model_id}/{version.digest}"
        place.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".") as temporary:
            copy = Path(temporary) / "artefact"
            for name in bucket.names(under):
                plain = name.removeprefix(f"{under}/")
                if not PLAIN_NAME.fullmatch(plain):
                    raise ArtifactError(f"{under}: {plain!r:.110} is no name of a file")
                bucket.fetch(name, copy / plain)
            if not copy.is_dir() or _digest(copy) != version.digest:
                raise ArtifactError(
                    f"{version.model_id} version {version.version}: the bucket {bucket.name} does "
                    f"not hold an artefact of the digest {version.digest}"
                )
            received(copy)
            artifacts.verify(copy, [checkpoints.GUARDRAIL])
            _settle(copy, place)

    def find(self, model_id: str, number: int) -> Transition:
        """The last transition of a version.

        Raises:
            ArtifactError: If there is no such version.
        """
        listed = {each.version: each for each in self.listed(model_id)}
        if number not in listed:
            there = ", ".join(map(str, listed)) or "none"
            raise ArtifactError(f"{model_id}: there is no version {number}; there are {there}")
        return listed[number]

    def store(self, artefact: checkpoints.Artefact, model_id: str) -> str:
        """Copy an artefact into a folder named by its digest, complete or not at all.

        Args:
            artefact: As `checkpoints.find` finds it.
            model_id: Of the model.

        Returns:
            The digest; a folder that is there already stays.

        Raises:
            ArtifactError: If a file is not what the manifest says, or the rule is of another model.
        """
        of = checkpoints.guardrail_of(artefact)["model_id"]
        if of != model_id:
            raise ArtifactError(f"{checkpoints.GUARDRAIL}: is the rule of {of}, not of {model_id}")
        source = artefact.checkpoint
        artifacts.verify(source, [])
        manifest = artifacts.read_json(source / artifacts.MANIFEST)
        place = self.folder / model_id
        place.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place, prefix=".") as temporary:
            copy = Path(temporary) / "artefact"
            copy.mkdir()
            for name in manifest["files"]:
                if Path(name).name != name or (source / name).is_symlink():
                    raise ArtifactError(f"{source / name}: is no plain file of the folder")
                shutil.copyfile(source / name, copy / name)
            if artefact.guardrail.parent == source:
                shutil.copyfile(source / artifacts.MANIFEST, copy / artifacts.MANIFEST)
            else:  # the guardrail of a run lies among its reports, and goes along
                shutil.copyfile(artefact.guardrail, copy / checkpoints.GUARDRAIL)
                files = [*manifest["files"], checkpoints.GUARDRAIL]
                settings, lineage = manifest["settings"], manifest["lineage"]
                artifacts.write_manifest(copy, files, settings, lineage)
            artifacts.verify(copy, [checkpoints.GUARDRAIL])  # what was copied, not what was there
            digest = _digest(copy)
            _settle(copy, place / digest)
        return digest

    def add(self, model_id: str, digest: str, canary: str, by: str, why: str) -> Transition:
        """Number a folder that `store` made; one that has a number keeps it."""
        self._exchange()
        if self.bucket is not None:
            self._send(self.bucket, model_id, digest)
        with self._writing():
            self._replay()
            known = [each for each in self.listed(model_id) if each.digest == digest]
            if known:
                return known[0]
            number = 1 + max((each.version for each in self.listed(model_id)), default=0)
            return self._record(model_id, number, digest, "None", by, why, canary)

    def discard(self, model_id: str, digest: str) -> None:
        """Remove a folder that has no number, since its artefact does not answer."""
        if not any(each.digest == digest for each in self.listed(model_id)):
            shutil.rmtree(self.folder / model_id / digest, ignore_errors=True)

    def move(
        self, model_id: str, number: int, stage: str, canary: str, by: str, why: str
    ) -> Transition:
        """Move a version to another stage; one that is in production before it is archived.

        Args:
            model_id: Of the model.
            number: Of the version.
            stage: One of `STAGES`.
            canary: Digest of the answer that the version gives now.
            by: Who moves it.
            why: The reason, which is kept.

        Raises:
            PromotionError: With everything that the version lacks for this stage.
            ArtifactError: If there is no such version.
        """
        if not why.strip():
            raise ArtifactError(f"{model_id}: a transition needs a reason")
        self._exchange()
        with self._writing():
            self._replay()
            version = self.find(model_id, number)
            what = f"{model_id} version {number} from {version.stage} to {stage}"
            if stage not in ALLOWED[version.stage]:
                allowed = " or ".join(ALLOWED[version.stage])
                raise PromotionError(what, [f"may only become {allowed}"])
            if problems := self.lacking(version, stage, canary):
                raise PromotionError(what, problems)
            for other in self.listed(model_id):
                if stage == other.stage == "Production":
                    reason = f"version {number} takes its place"
                    self._record(
                        model_id, other.version, other.digest, "Archived", by, reason, other.canary
                    )
            return self._record(
                model_id, number, version.digest, stage, by, why.strip(), version.canary
            )

    def lacking(self, version: Transition, stage: str, canary: str) -> list[str]:
        """What a version lacks for a stage; nothing is lacking for the archive.

        Args:
            version: As from `find`.
            stage: One of `STAGES`.
            canary: Digest of the answer that it gives now.
        """
        if stage == "Archived":
            return []
        try:
            folder = self.path(version)
            if _digest(folder) != version.digest:
                return [f"{folder / artifacts.MANIFEST}: is not the one that was added"]
            artifacts.verify(folder, [checkpoints.GUARDRAIL])
            lacking = [] if canary == version.canary else ["the canary gets another answer"]
            if stage == "Production":
                file = folder / checkpoints.CERTIFICATE
                if not file.is_file():
                    return [*lacking, "there is no certificate; `make release` makes one"]
                rule = artifacts.read_json(folder / checkpoints.GUARDRAIL)
                lacking += certified(reports.read(file, "certificate"), rule)
            return lacking
        except ArtifactError as error:
            return [str(error)]

    @contextmanager
    def _writing(self) -> Generator[None]:
        """One writer at a time, in whatever process."""
        with self._engine.connect() as connection:
            if self._engine.dialect.name == "sqlite":
                connection.exec_driver_sql("begin immediate")
            else:
                # Readers go on; who writes waits here, as long as a statement may take.
                name = self._engine.dialect.identifier_preparer.quote(self._table.name)
                connection.exec_driver_sql(f"lock table {name} in share row exclusive mode")
            self._own.writer = connection
            try:
                yield
            except BaseException:
                connection.rollback()
                raise
            finally:
                self._own.writer = None
            connection.commit()

    def _record(
        self, model_id: str, number: int, digest: str, stage: str, *said: str
    ) -> Transition:
        """Write a transition: first its files, which count, then its row."""
        by, why, canary = said
        date = datetime.now(UTC).isoformat(timespec="seconds")
        sequence = 1 + max((each.sequence for each in self.history(model_id)), default=0)
        made = Transition(model_id, sequence, number, digest, stage, by, why, date, canary)
        name = _file(model_id, sequence)
        text = json.dumps(made._asdict(), indent=2).encode()
        if self.bucket is not None and not self.bucket.write(name, text, anew=True):
            raise ArtifactError(f"{model_id}: another machine moved a version meanwhile; ask again")
        file = self.folder / name
        with artifacts.atomic(file) as part:
            part.write_bytes(text)
        _sync(file)
        _sync(file.parent)
        self._insert(made)
        return made

    def _insert(self, made: Transition) -> None:
        self._own.writer.execute(sa.insert(self._table).values(made._asdict()))

    def _replay(self) -> None:
        """Take up the files of transitions that the index does not have."""
        known = {(row.model_id, row.sequence): row for row in self._rows(self._select())}
        for file in sorted(self.folder.glob("*/transitions/*.json")):
            written = _transition(file)
            row = known.get((written.model_id, written.sequence))
            if row is None:
                self._insert(written)
            elif row != written:
                raise ArtifactError(
                    f"{file}: is not what the table {self._table.name} says of version "
                    f"{row.version}; a database has the versions of one registry"
                )

    def _exchange(self) -> None:
        """Bring the transitions of the bucket here, and those that it does not have there."""
        if self.bucket is None:
            return
        kind = re.compile(r"([a-z0-9_]+)/transitions/\d{6}\.json")
        there = {name for name in self.bucket.names() if kind.fullmatch(name)}
        here = {
            file.relative_to(self.folder).as_posix()
            for file in self.folder.glob("*/transitions/*.json")
        }
        for name in sorted(here - there):
            written = _transition(self.folder / name)
            self._send(self.bucket, written.model_id, written.digest)
            self.bucket.write(name, (self.folder / name).read_bytes(), anew=True)
        for name in sorted(there - here):
            self.bucket.fetch(name, self.folder / name)
        if self._compared:
            return
        for name in sorted(there & here):  # once: what was written is never changed
            if self.bucket.read(name) != (self.folder / name).read_bytes():
                raise ArtifactError(
                    f"{self.folder / name}: is not what the bucket {self.bucket.name} has; "
                    "a folder and a bucket have the versions of one registry"
                )
        self._compared = True

    def _send(self, bucket: Bucket, model_id: str, digest: str) -> None:
        """Put a version into the bucket; its manifest comes last, and says that it is whole."""
        folder = self.folder / model_id / digest
        manifest = f"{model_id}/{digest}/{artifacts.MANIFEST}"
        if not folder.is_dir() or manifest in bucket.names(f"{model_id}/{digest}"):
            return
        files = sorted(folder.iterdir(), key=lambda file: file.name == artifacts.MANIFEST)
        for file in files:
            bucket.write(f"{model_id}/{digest}/{file.name}", file)


def _transition(file: Path) -> Transition:
    """What a file says, which may have come from elsewhere."""
    try:
        said = Transition(**artifacts.read_json(file))
        number = said.model_id == file.parents[1].name and int(file.stem) == said.sequence
        alright = number and said.version >= 1 and said.stage in STAGES
        if alright and re.fullmatch(r"[0-9a-f]{64}", said.digest):
            return said
    except TypeError:
        pass
    raise ArtifactError(f"{file}: is no transition of a version")


def _file(model_id: str, sequence: int) -> str:
    return f"{model_id}/transitions/{sequence:06d}.json"


def _digest(folder: Path) -> str:
    """By which an artefact is named: that of what its manifest says."""
    content = artifacts.read_json(folder / artifacts.MANIFEST)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _settle(copy: Path, place: Path) -> None:
    """Let a whole folder take its name, unless one has it."""
    for file in [*copy.iterdir(), copy]:
        _sync(file)
    try:
        copy.rename(place)
    except OSError:
        if not place.is_dir():
            raise
        return  # it was there, or another process was first
    _sync(place.parent)


def received(folder: Path) -> checkpoints.Artefact:
    """An artefact that came from elsewhere: whole, and of plain data alone.

    Args:
        folder: With its files, which are all that there is.

    Raises:
        ArtifactError: If a file is missing, too many, not what the manifest says, or could hold
            what is executed when it is read.
    """
    names = sorted(file.name for file in folder.iterdir())
    for name in (artifacts.MANIFEST, checkpoints.GUARDRAIL):
        if name not in names:
            raise ArtifactError(f"{name}: is missing, an artefact is not complete without it")
    listed = artifacts.read_json(folder / artifacts.MANIFEST).get("files")
    if not isinstance(listed, dict):
        raise ArtifactError(f"{artifacts.MANIFEST}: files: lists nothing")
    if extra := sorted({*names} - {*listed, artifacts.MANIFEST}):
        raise ArtifactError(f"{artifacts.MANIFEST}: does not list {', '.join(extra)}")
    for name in listed:
        if not PLAIN_NAME.fullmatch(name) or name not in names:
            raise ArtifactError(f"{artifacts.MANIFEST}: files: {name!r:.110} was not sent")
        _assert_inert(folder / name)
    certificate = folder / checkpoints.CERTIFICATE
    return checkpoints.Artefact(
        "given",
        folder,
        folder / checkpoints.GUARDRAIL,
        certificate if certificate.is_file() else None,
        None,
    )


def _assert_inert(file: Path) -> None:
    """Refuse what is no plain data, or unpacks to more than there is room for."""
    if file.suffix not in _KINDS or file.is_symlink():
        raise ArtifactError(f"{file.name}: is none of {', '.join(_KINDS)}")
    with file.open("rb") as stream:
        head = stream.read(8)
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        raise ArtifactError(f"{file.name}: is a pickle, which can execute anything")
    if file.suffix != ".npz":
        if head.startswith(_ARCHIVES):
            raise ArtifactError(f"{file.name}: is an archive, expected the file itself")
        return
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > _UNPACKED:
                raise ArtifactError(f"{file.name}: unpacks to more than {_UNPACKED} bytes")
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name == member.filename or not PLAIN_NAME.fullmatch(name):
                    raise ArtifactError(f"{file.name}: {member.filename!r:.110} is no array")
                with archive.open(member) as stream:
                    version = np.lib.format.read_magic(stream)
                    read = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
                    if read(stream)[2].hasobject:
                        raise ArtifactError(f"{file.name}: {name}: holds objects, not numbers")
    except ArtifactError:
        raise
    except Exception as error:  # a damaged archive can fail anywhere between zip, zlib and numpy
        raise ArtifactError(f"{file.name}: is no .npz of arrays ({type(error).__name__})") from None


def _sync(path: Path) -> None:
    """See that a file or the entries of a folder are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def certificate(model_id: str) -> dict[str, Any] | None:
    """Of the artefact that answers for a model, with all that speaks against it.

    None if it has none. The files that it was made from stand in the artefact.
    """
    try:
        file = checkpoints.find(model_id, Results(results_folder(model_id))).certificate
        return _read_certificate(file, *artifacts.state(file)) if file else None
    except ArtifactError:
        return None


@lru_cache(maxsize=16)
def _read_certificate(file: Path, _modified: int, _size: int) -> dict[str, Any]:
    content = reports.read(file, "certificate")
    lineage = {name: content["lineage"].get(name) for name in ("date", "revision", "seed")}
    return content | {"lineage": lineage, "against": certified(content)}
