"""Commands that serve models over HTTP, and keep their versions."""

import getpass
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from touchstone.cli.common import app, bad_input, keep_compilations

if TYPE_CHECKING:
    from touchstone.service.versions import Versions

REGISTRY = Path("results/registry")
versions = typer.Typer(help="Versions of artefacts: their stages, and who moved them.")
app.add_typer(versions, name="versions", no_args_is_help=True)
Model = Annotated[str, typer.Argument(metavar="MODEL", help="One of `touchstone models`.")]
Why = Annotated[str, typer.Option(help="The reason, which is kept.")]
By = Annotated[str | None, typer.Option(help="Who; by default the user of this machine.")]


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
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
) -> None:
    """Serve models over HTTP: the answers of `predict` and `infer`, with their verdicts."""
    keep_compilations()
    with bad_input():
        from touchstone import registry
        from touchstone.io.artifacts import ArtifactError
        from touchstone.io.results import Results, folder
        from touchstone.service.app import LOOPBACK, Settings, run
        from touchstone.stages import checkpoints

        if host not in LOOPBACK:
            raise ArtifactError(
                f"--host: {host} can be reached by others, and the service knows no users yet; put "
                f"a proxy that does before one of {', '.join(LOOPBACK)}"
            )
        chosen = models or []
        for model_id in chosen:
            registry.get_model_metadata(model_id)
            checkpoints.find(model_id, Results(folder(model_id)))
        if not models:
            for model_id, _ in registry.get_model_for_dropdown():
                try:
                    checkpoints.find(model_id, Results(folder(model_id)))
                except ArtifactError as error:
                    typer.echo(f"touchstone: not served: {error}", err=True)
                else:
                    chosen.append(model_id)
        if not chosen:
            raise ArtifactError("no model has an artefact; run `make`, then serve again")
    run(Settings(tuple(chosen), host, port, workers, queue, deadline))


@versions.command("list")
def list_versions(model_id: Model) -> None:
    """List the versions of a model, and every transition."""
    with bad_input(), _versions(model_id) as found:
        aliases = found.aliases(model_id)
        for each in found.listed(model_id):
            names = [name for name, version in aliases.items() if version == each.version]
            said = f" ({', '.join(names)})" if names else ""
            typer.echo(f"version {each.version}{said}: {each.stage}, {each.digest}")
        for each in found.history(model_id):
            typer.echo(f"{each.date} version {each.version} -> {each.stage}: {each.by}, {each.why}")


@versions.command()
def add(model_id: Model, why: Why = "added", by: By = None) -> None:
    """Keep the artefact that answers for a model as a version."""
    keep_compilations()
    with bad_input(), _versions(model_id) as found:
        from touchstone.io.results import Results, folder
        from touchstone.stages import checkpoints

        artefact = checkpoints.find(model_id, Results(folder(model_id)))
        digest = found.store(artefact, model_id)
        canary = _canary(model_id, found.folder / model_id / digest)
        added = found.add(model_id, digest, canary, by or getpass.getuser(), why)
        typer.echo(f"version {added.version}: {added.stage}, {added.digest}")


@versions.command()
def promote(
    model_id: Model,
    version: Annotated[int, typer.Option(help="Its number.")],
    stage: Annotated[str, typer.Option(help="Staging, Production or Archived.")],
    why: Why,
    by: By = None,
) -> None:
    """Move a version to another stage, which it has to have earned."""
    keep_compilations()
    with bad_input(), _versions(model_id) as found:
        from touchstone.io.artifacts import ArtifactError
        from touchstone.service.versions import STAGES

        if stage not in STAGES[1:]:
            raise ArtifactError(f"--stage: {stage!r} is none of {', '.join(STAGES[1:])}")
        known = found.find(model_id, version)
        canary = "" if stage == "Archived" else _canary(model_id, found.path(known))
        moved = found.move(model_id, version, stage, canary, by or getpass.getuser(), why)
        typer.echo(f"version {moved.version}: {moved.stage}, {moved.digest}")


@contextmanager
def _versions(model_id: str) -> Generator["Versions"]:
    from touchstone import registry
    from touchstone.service.versions import Versions

    registry.get_model_metadata(model_id)
    found = Versions(REGISTRY)
    try:
        yield found
    finally:
        found.close()


def _canary(model_id: str, folder: Path) -> str:
    """Digest of what an artefact answers."""
    from touchstone.service.worker import Oracle

    return " ".join(Oracle(model_id, folder.absolute()).canary())
