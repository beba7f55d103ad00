"""The command that lists runs, and hands them to where others keep theirs."""

from typing import Annotated

import typer

from touchstone.cli.common import app, bad_input


@app.command()
def runs(
    mlflow: Annotated[
        str, typer.Option(help="Server or folder of MLflow that gets the runs.", metavar="URI")
    ] = "",
    experiment: Annotated[
        str, typer.Option("--experiment-name", help="Under which MLflow keeps them.")
    ] = "touchstone",
) -> None:
    """List the runs of this folder as CSV, or log those that MLflow does not have yet."""
    from touchstone.stages import runs, tracking

    with bad_input():
        if not mlflow:
            typer.echo(runs.as_csv(runs.rows()), nl=False)
            return
        logged = tracking.export(mlflow, experiment)
        for run in logged:
            typer.echo(f"logged {run}")
        typer.echo(f"{len(logged)} runs logged; those of before were left as they are")
