"""The command that serves models to programs and to a page."""

from typing import Annotated

import typer

from touchstone.cli.common import app, bad_input, keep_compilations


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
        from touchstone.stages import checkpoints

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
        from touchstone.service.app import Settings, run

    run(Settings(tuple(chosen), host, port, workers, queue, deadline))
