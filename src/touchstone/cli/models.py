"""Commands on models: which there are, what they are, how they are trained and asked."""

import json
from pathlib import Path
from typing import Annotated

import typer

from touchstone.cli.common import ESCALATE, app, bad_input, chosen_model, keep_compilations


@app.command()
def models() -> None:
    """List the models, and which artefact answers for each; deprecated ones are left out."""
    with bad_input():
        from touchstone import registry
        from touchstone.stages import checkpoints

        for model_id, name in registry.get_model_for_dropdown():
            typer.echo(f"{model_id}: {name}\n  {checkpoints.answering(model_id)}")
        for model_id, reason in registry.get_registry().broken.items():
            typer.echo(f"{model_id}: BROKEN, {reason}", err=True)


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Artefact, checkpoint or report.")],
) -> None:
    """Say whether an artefact, a checkpoint or a report is what was written."""
    with bad_input():
        from touchstone.stages import verification

        typer.echo("\n".join(verification.verify(path)))


@app.command()
def info(
    model_id: Annotated[str, typer.Argument(metavar="MODEL", help="One of `touchstone models`.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Say what a model is, what it infers, by which form it is asked, and what it has made here."""
    with bad_input():
        from touchstone import registry
        from touchstone.stages import checkpoints, summary

        about, status = registry.get_model_metadata(model_id), registry.get_model_status(model_id)
        status["answering"] = checkpoints.answering(model_id)
        quantities = about.parameters or {
            quantity.name: quantity
            for quantity in registry.load_model_instance(model_id).quantities
        }
    if as_json:
        content = about.model_dump(mode="json") | {"here": status}
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        typer.echo(summary.model_text(about, quantities, status))


@app.command()
def predict(
    model_id: Annotated[str, typer.Argument(metavar="MODEL", help="One of `touchstone models`.")],
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE...", help="Values of the fields that `touchstone info` lists."
        ),
    ] = None,
    observation: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Measurement in place of values: needs --do."),
    ] = None,
    do: Annotated[
        str | None,
        typer.Option(help='What is done, such as "mass=2x, metallicity=0.02": a counterfactual.'),
    ] = None,
    mode: Annotated[str | None, typer.Option(help="How effects respond to --do.")] = None,
    strategy: Annotated[
        str, typer.Option(help="strict_physics refuses what breaks a law, report_only says it.")
    ] = "strict_physics",
    twin: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML of a twin that others have made: is it lawful?"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report, figure and page of a counterfactual.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Ask a model by the values of its form, such as Tg_num=420 or E_V=0.3,0.29,0.28.

    `touchstone info MODEL` lists the fields. What is left out is assumed or inferred, and said.
    With --do, some models say what would have been otherwise.
    """
    keep_compilations()
    with bad_input():
        from touchstone import registry
        from touchstone.io import settings
        from touchstone.io.artifacts import ArtifactError, assert_writable
        from touchstone.stages import checkpoints, predict, records, summary

        if twin is not None and (values or observation or do or mode or out):
            raise ArtifactError(f"--twin: {twin} stands alone, but for --strategy and --json")
        if do is None and (observation or mode or out):
            raise ArtifactError("--do: is missing, expected what is done, such as --do mass=2x")
        if observation is not None and values:
            raise ArtifactError(f"--observation: {observation} or values, not both")
        if out is not None:
            assert_writable(out)
        fields = registry.get_inference_form_fields(model_id)
        texts = {field.name for field in fields if field.type in ("string", "select")}
        params = records.key_values(values or [], texts)
        model, results, config = chosen_model(model_id)
        if twin is None:
            judge = checkpoints.prepare(model, results)
            own = settings.of_stage(config, model_id, "infer")
        if twin is not None:
            from touchstone.stages import counterfactual

            report = counterfactual.external(model, twin, strategy)
        elif do is None:
            report = predict.run(model, judge, own, params)
        else:
            from touchstone.stages import counterfactual, page  # start a form without them

            asked = counterfactual.Asked(do, mode or "", strategy)
            answered = counterfactual.run(model, judge, own, observation or params, asked)
            report = answered.report
            if out is not None:
                page.write_counterfactual(report, out)
    as_text = json.dumps(report, indent=2, ensure_ascii=False) if as_json else None
    typer.echo(as_text or summary.prediction_text(report))
    if out is not None:
        typer.echo(f"Report, figure and page: {out}", err=True)
    verdicts = report["verdict"], report.get("computation", {}).get("verdict")
    if set(verdicts) - {"accept", None}:
        raise typer.Exit(ESCALATE)


@app.command()
def ppc(
    model_id: Annotated[str, typer.Argument(metavar="MODEL", help="One of `touchstone models`.")],
) -> None:
    """Check whether a model could have made the data it learnt from, by its newest chains.

    Tables are printed, and written as CSV beside the figure, to the results of the model.
    """
    with bad_input():
        from touchstone.stages import checkpoints, posterior_check, summary

        model, results, settings = chosen_model(model_id)
        checkpoints.prepare(model, results)
        checked = posterior_check.run(model, results, settings["seed"])
    typer.echo(summary.tables_text(checked.tables))
    typer.echo("Written: " + ", ".join(map(str, checked.files)))


@app.command()
def train(
    model_id: Annotated[str, typer.Argument(metavar="MODEL", help="One of `touchstone models`.")],
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Data to learn from in place of the workflow's own."),
    ] = None,
    draws: Annotated[int | None, typer.Option(help="Draws of each chain.", min=1)] = None,
    warmup: Annotated[
        int | None, typer.Option(help="Draws of each chain that are not kept.", min=1)
    ] = None,
    chains: Annotated[int | None, typer.Option(help="Number of chains.", min=1)] = None,
    dataset_size: Annotated[
        str | None, typer.Option(metavar="N", help="Simulations to learn from, such as 10k.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="How often each simulation is seen.", min=1)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Simulations of a step.", min=1)] = None,
    experiment_name: Annotated[
        str | None,
        typer.Option(help="Results go to a folder of this name (TOUCHSTONE_EXPERIMENT finds it)."),
    ] = None,
    gpu: Annotated[
        bool | None,
        typer.Option("--gpu/--cpu", help="Where to compute; by default where JAX finds it best."),
    ] = None,
) -> None:
    """Train a model by the rules of the workflow, in the project's folder.

    Only a model that is trained by sampling takes --draws, --warmup and --chains, and only one
    that learns a network from rows of simulations the sizes. Options override the configuration.
    """
    with bad_input():
        from touchstone.stages import training_run

        given = {"draws": draws, "warmup": warmup, "chains": chains}
        changes = {name: number for name, number in given.items() if number is not None}
        size = training_run.count(dataset_size) if dataset_size else None
        sizes = training_run.Sizes(size, epochs, batch_size)
        code = training_run.run(model_id, data, changes, gpu, sizes, experiment_name)
    raise typer.Exit(code)


@app.command()
def new_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the folder: a Python name.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of models; by default that of the package.")
    ] = None,
) -> None:
    """Write the folder of a model that runs, for you to fill."""
    with bad_input():
        from touchstone.stages import scaffold

        folder = scaffold.write(name, out)
    typer.echo(f"{folder}: runs as it is; replace what is marked FILL")
    if out is not None:
        typer.echo(f"It is found once TOUCHSTONE_MODELS names {out}")
    typer.echo(f"Next: touchstone info {name}; touchstone train {name}")
