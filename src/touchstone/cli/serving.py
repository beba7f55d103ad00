"""Commands that serve models over HTTP, and keep their versions."""

import functools
import getpass
import inspect
import json
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from touchstone.cli.common import app, bad_input, keep_compilations

if TYPE_CHECKING:
    from touchstone.service import Settings
    from touchstone.service.store import Store
    from touchstone.service.versions import Transition, Versions

REGISTRY = Path("results/registry")
EXECUTION = ("PIPELINE_EXECUTION_ID", "EXECUTION_START_TIME")
versions = typer.Typer(help="Versions of artefacts: their stages, and who moved them.")
app.add_typer(versions, name="versions", no_args_is_help=True)
keys = typer.Typer(help="Keys of those who may ask the service from elsewhere.")
app.add_typer(keys, name="keys", no_args_is_help=True)
Database = Annotated[
    str,
    typer.Option(envvar="DATABASE_URL", help="In place of files in results/registry."),
]
Table = Annotated[
    str,
    typer.Option(envvar="MODEL_REGISTRY_TABLE", help="Of the index of versions in the database."),
]
Artifacts = Annotated[
    str, typer.Option(envvar="ARTIFACTS_BUCKET", help="S3 bucket that keeps the versions, too.")
]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="One of `touchstone models`.")]
Number = Annotated[int, typer.Option("--version", help="Its number.")]
Why = Annotated[str, typer.Option(help="The reason, which is kept.")]
By = Annotated[str | None, typer.Option(help="Who; by default the user of this machine.")]


class Mode(StrEnum):
    """What `serve` is for: users, or a step of a pipeline that asks whether models are ready."""

    STANDALONE = "standalone"
    STEP_FUNCTIONS = "step-functions"


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen at; other users need keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8080,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="To serve; by default all that have an artefact."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes for each model.", min=1)] = 1,
    queue: Annotated[int, typer.Option(help="Questions of a model that may wait.", min=1)] = 64,
    deadline: Annotated[
        float, typer.Option(help="Seconds after which a question becomes a job.", min=0)
    ] = 30.0,
    rate: Annotated[
        float, typer.Option(help="Requests a second of one user; 0 for no limit.", min=0)
    ] = 0.0,
    cache: Annotated[
        float, typer.Option(help="MiB of answers that are kept in memory.", min=0)
    ] = 64.0,
    historical: Annotated[
        bool, typer.Option("--historical-metrics", help="Metrics under their names acie_…, too.")
    ] = False,
    mode: Annotated[
        Mode, typer.Option(envvar="EXECUTION_MODE", help="step-functions: check, and end.")
    ] = Mode.STANDALONE,
    execution: Annotated[
        str, typer.Option(envvar="PIPELINE_EXECUTION_ID", help="Of a pipeline, for logs and jobs.")
    ] = "",
    started: Annotated[
        str, typer.Option(envvar="EXECUTION_START_TIME", help="When that pipeline was started.")
    ] = "",
    database: Database = "",
    table: Table = "transitions",
    cache_url: Annotated[
        str, typer.Option(envvar="CACHE_URL", help="Of a Redis that keeps answers for several.")
    ] = "",
    artifacts: Artifacts = "",
    results: Annotated[
        str, typer.Option(envvar="GOLD_BUCKET", help="S3 bucket that gets the answers of jobs.")
    ] = "",
) -> None:
    """Serve models over HTTP: the answers of `predict` and `infer`, with their verdicts."""
    keep_compilations()
    with bad_input():
        from touchstone.io.artifacts import ArtifactError
        from touchstone.service import LOOPBACK, Settings, run

        if host not in LOOPBACK and mode is Mode.STANDALONE:
            with _store(database) as store:
                if all(key.revoked for key in store.listed_keys()):
                    raise ArtifactError(
                        f"--host: {host} can be reached by others, and there is no key yet; "
                        "`touchstone keys add NAME` makes one"
                    )
        said = {"id": execution, "started": started}
        for name, value in zip(EXECUTION, said.values(), strict=True):
            if value:
                os.environ[name] = value  # for what is trained here
        settings = Settings(
            _served(models or []),
            host,
            port,
            workers,
            queue,
            deadline,
            cache=round(cache * 2**20),
            rate=rate,
            historical=historical,
            database=database,
            table=table,
            cache_url=cache_url,
            artifacts=artifacts,
            results=results,
            execution={name: value for name, value in said.items() if value},
        )
        _assert_stores(settings)
    if mode is Mode.STEP_FUNCTIONS:
        from touchstone.service.app import check

        ready = check(settings)
        typer.echo(json.dumps(ready, indent=2))
        raise typer.Exit(0 if ready["ready"] else 1)
    run(settings)


def _assert_stores(settings: "Settings") -> None:
    """See that every store that is named is there, before anything is started."""
    from touchstone.io.cache import Shared
    from touchstone.service.app import opened

    with _store(settings.database):
        opened(settings)[0].close()
    if settings.cache_url and (problem := Shared(settings.cache_url, "").problem):
        typer.echo(f"touchstone: CACHE_URL: {problem}; the service goes on without it", err=True)


def _served(chosen: list[str]) -> tuple[str, ...]:
    """Models that are named, or all that have an artefact."""
    from touchstone import registry
    from touchstone.io.artifacts import ArtifactError
    from touchstone.io.results import Results, folder
    from touchstone.stages import checkpoints

    for model_id in chosen:
        registry.get_model_metadata(model_id)
        checkpoints.find(model_id, Results(folder(model_id)))
    if chosen:
        return tuple(chosen)
    found = []
    for model_id, _ in registry.get_model_for_dropdown():
        try:
            checkpoints.find(model_id, Results(folder(model_id)))
        except ArtifactError as error:
            typer.echo(f"touchstone: not served: {error}", err=True)
        else:
            found.append(model_id)
    if not found:
        raise ArtifactError("no model has an artefact; run `make`, then serve again")
    return tuple(found)


@keys.command("add")
def add_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is.")],
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", help="read, infer or promote; may be repeated. All by default."),
    ] = None,
    database: Database = "",
) -> None:
    """Make a key, and print it this once: only a hash of it is kept."""
    with bad_input(), _store(database) as store:
        from touchstone.io.artifacts import ArtifactError
        from touchstone.service.store import SCOPES

        if wrong := [scope for scope in scopes or [] if scope not in SCOPES]:
            raise ArtifactError(f"--scope: {', '.join(wrong)} is none of {', '.join(SCOPES)}")
        typer.echo(store.add_key(name, scopes or SCOPES))


@keys.command("list")
def list_keys(database: Database = "") -> None:
    """List all keys: id, name, what each may do, since when, and whether it was revoked."""
    with bad_input(), _store(database) as store:
        for key in store.listed_keys():
            state = f"revoked {key.revoked}" if key.revoked else "live"
            typer.echo(f"{key.id} {key.name}: {', '.join(key.scopes)}; {key.created}, {state}")


@keys.command()
def revoke(
    number: Annotated[str, typer.Argument(metavar="ID", help="Of the key.")],
    database: Database = "",
) -> None:
    """Let a key open nothing from now on."""
    with bad_input(), _store(database) as store:
        from touchstone.io.artifacts import ArtifactError

        if not store.revoke(number):
            raise ArtifactError(f"{number}: there is no live key of this id")


def _on_versions(work: Callable[..., None]) -> Callable[..., None]:
    """A command that gets the versions of a model, from where the options of all such name them."""

    def command(
        model_id: Model,
        database: Database = "",
        table: Table = "transitions",
        artifacts: Artifacts = "",
        **own: Any,
    ) -> None:
        with bad_input(), _versions(model_id, database, table, artifacts) as found:
            work(found, model_id, **own)

    # The options are read from the signature: those above, and what the work takes besides.
    model, *shared, _ = inspect.signature(command).parameters.values()
    _, _, *own = inspect.signature(work).parameters.values()
    parameters = [each.replace(kind=each.KEYWORD_ONLY) for each in (model, *own, *shared)]
    command.__signature__ = inspect.Signature(parameters)  # ty: ignore[missing-attribute]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return functools.update_wrapper(command, work, assigned=("__name__", "__doc__"))


@versions.command("list")
@_on_versions
def list_versions(found: "Versions", model_id: str) -> None:
    """List the versions of a model, and every transition."""
    aliases = found.aliases(model_id)
    for each in found.listed(model_id):
        names = [name for name, version in aliases.items() if version == each.version]
        said = f" ({', '.join(names)})" if names else ""
        typer.echo(f"version {each.version}{said}: {each.stage}, {each.digest}")
    _say_history(found.history(model_id))


@versions.command()
@_on_versions
def history(found: "Versions", model_id: str) -> None:
    """List every transition of a model: when, which version, to which stage, who, and why."""
    _say_history(found.history(model_id))


@versions.command()
@_on_versions
def show(found: "Versions", model_id: str, version: Number) -> None:
    """Show a version: its stage and digest, its transitions, and what speaks against it."""
    each = found.find(model_id, version)
    typer.echo(f"version {each.version}: {each.stage}, {each.digest}")
    _say_history([each for each in found.history(model_id) if each.version == version])
    against = found.lacking(each, "Production", each.canary)  # no answer is computed here
    typer.echo(f"for Production: {'; '.join(against) or 'nothing speaks against it'}")


@versions.command()
@_on_versions
def add(found: "Versions", model_id: str, why: Why = "added", by: By = None) -> None:
    """Keep the artefact that answers for a model as a version."""
    keep_compilations()
    from touchstone.io.results import Results, folder
    from touchstone.stages import checkpoints

    artefact = checkpoints.find(model_id, Results(folder(model_id)))
    digest = found.store(artefact, model_id)
    try:
        canary = _canary(model_id, found.folder / model_id / digest)
        added = found.add(model_id, digest, canary, by or getpass.getuser(), why)
    finally:
        found.discard(model_id, digest)
    typer.echo(f"version {added.version}: {added.stage}, {added.digest}")


@versions.command()
@_on_versions
def promote(
    found: "Versions",
    model_id: str,
    version: Number,
    stage: Annotated[str, typer.Option(help="Staging, Production or Archived.")],
    why: Why,
    by: By = None,
) -> None:
    """Move a version to another stage, which it has to have earned."""
    keep_compilations()
    from touchstone.io.artifacts import ArtifactError
    from touchstone.service.versions import STAGES

    if stage not in STAGES[1:]:
        raise ArtifactError(f"--stage: {stage!r} is none of {', '.join(STAGES[1:])}")
    known = found.find(model_id, version)
    canary = "" if stage == "Archived" else _canary(model_id, found.path(known))
    moved = found.move(model_id, version, stage, canary, by or getpass.getuser(), why)
    typer.echo(f"version {moved.version}: {moved.stage}, {moved.digest}")


def _say_history(transitions: "list[Transition]") -> None:
    for each in transitions:
        typer.echo(f"{each.date} version {each.version} -> {each.stage}: {each.by}, {each.why}")


@contextmanager
def _store(database: str) -> Generator["Store"]:
    from touchstone.service.store import Store

    store = Store.at(REGISTRY, database)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def _versions(model_id: str, database: str, table: str, artifacts: str) -> Generator["Versions"]:
    from touchstone import registry
    from touchstone.io.objects import Bucket
    from touchstone.service.versions import Versions

    registry.get_model_metadata(model_id)
    bucket = Bucket(artifacts, "ARTIFACTS_BUCKET") if artifacts else None
    found = Versions(REGISTRY, database, table, bucket)
    try:
        yield found
    finally:
        found.close()


def _canary(model_id: str, folder: Path) -> str:
    """Digest of what an artefact answers."""
    from touchstone.service.worker import Oracle

    return " ".join(Oracle(model_id, folder.absolute()).canary())
