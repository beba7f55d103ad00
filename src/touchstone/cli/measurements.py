"""Commands on measurements: a verdict on one's own files."""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from touchstone.cli.common import (
    BAD_INPUT,
    ESCALATE,
    ModelId,
    app,
    bad_input,
    chosen_model,
    keep_compilations,
    say,
)

if TYPE_CHECKING:
    from touchstone.stages.infer import Inference

SUMMARY = "answers.csv"  # of several measurements
Meta = Annotated[
    Path | None, typer.Option(help="YAML with what is known; by default the one beside FILE.")
]


@app.command()
def infer(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Records or folders.")],
    model_id: ModelId = None,
    meta: Meta = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Entry of the metadata, as a.0.b=1.5."),
    ] = None,
    cycle: Annotated[
        str | None, typer.Option(help="Of a record: a number, last or all; as --set cycle=…")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for reports, figures, pages.")] = None,
    joint: Annotated[bool, typer.Option("--joint", help="One answer to all files.")] = False,
    escalate: Annotated[
        bool, typer.Option("--escalate", help="Act on an escalation; say what to measure next.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Infer measurements, and judge each posterior.

    A folder is one measurement: its records are of one system and are inferred together. Several
    files are as many measurements, unless --joint says that they are one. With --escalate, what the
    model does not explain is inferred again under its simulator of higher fidelity.
    """
    keep_compilations()
    with bad_input():
        from touchstone.io import artifacts

        if out is not None:
            artifacts.assert_writable(out)
            if (out / SUMMARY).resolve() in [file.resolve() for file in files]:
                raise artifacts.ArtifactError(f"--out: would overwrite {out / SUMMARY}")
        groups = [files] if joint else [[file] for file in files]
        changes = [*(changes or []), *([f"cycle={cycle}"] if cycle else [])]
        answered = _answers(model_id, groups, meta, changes, out, escalate)
    if answered:
        _show(answered, len(groups) > 1, out, as_json)
    if len(answered) < len(groups):
        raise typer.Exit(BAD_INPUT)
    verdicts = {v for each in answered for v in (each["verdict"], each["computation"]["verdict"])}
    if verdicts - {"accept"}:
        raise typer.Exit(ESCALATE)


@app.command()
def read(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Record, or folder of records.")],
    model_id: ModelId = None,
    meta: Meta = None,
) -> None:
    """Say what is understood of a measurement's files, without inference."""
    keep_compilations()
    with bad_input():
        from touchstone.stages import checkpoints, records

        model, results, _ = chosen_model(model_id)
        try:
            notes = records.describe(model, file, meta)
        except NotImplementedError:
            found = checkpoints.find(model.model_id, results)
            checkpoints.load(model, results, found.checkpoint)
            with records.prepared([file], meta) as source:
                _, notes = records.read(model, source)
    typer.echo("\n".join([str(file), *(f"- {note}" for note in notes)]))


@app.command()
def example(
    model_id: ModelId = None,
    out: Annotated[Path, typer.Option(help="Folder.")] = Path(),
) -> None:
    """Write a simulated record with its metadata, both marked as simulated."""
    keep_compilations()
    with bad_input():
        from touchstone.io.artifacts import ArtifactError, assert_writable
        from touchstone.stages import randomness

        model, _, settings = chosen_model(model_id)
        data, meta = (out / f"example.{suffix}" for suffix in ("csv", "yaml"))
        assert_writable(out)
        for file in filter(Path.exists, (data, meta)):
            raise ArtifactError(f"{file}: is there already; name another folder with --out")
        try:
            model.example(randomness.generator(settings["seed"], "infer", 3), data, meta)
        except NotImplementedError as error:
            raise ArtifactError(str(error)) from None
    typer.echo(f"{data}: simulated, not measured\n{meta}: what is known about it")
    typer.echo(f"Next: touchstone infer {data}")


@app.command()
def report(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="JSON of an answer, or a folder.")],
) -> None:
    """Write the page of an answer, or of all answers in a folder, beside its JSON."""
    with bad_input():
        from touchstone.stages import page

        for written in page.of_answers(path):
            typer.echo(f"{written}: open it in a browser; it reads offline")


def _answers(
    model_id: str | None,
    groups: list[list[Path]],
    meta: Path | None,
    changes: list[str],
    out: Path | None,
    escalate: bool,
) -> list[dict]:
    """Reports of measurements, by one model that is loaded once.

    A measurement that cannot be read does not keep the others from being answered.
    """
    from tqdm import tqdm

    from touchstone.io import settings as settings_
    from touchstone.io.artifacts import ArtifactError
    from touchstone.stages import infer as stage
    from touchstone.stages import page, records

    with redirect_stdout(sys.stderr):  # stdout is the answers' alone
        if len(groups) == 1:  # what is wrong with it is said before anything takes long
            with records.prepared(groups[0], meta, changes):
                pass
        model, results, config = chosen_model(model_id)
        settings = settings_.of_stage(config, model.model_id, "infer")
        judge = stage.prepare(model, results)
        answered, names = [], []
        hidden = None if len(groups) > 1 else True  # None hides the bar where stderr is a pipe
        for group in tqdm(groups, file=sys.stderr, unit="measurement", disable=hidden):
            try:
                with records.prepared(group, meta, changes) as source:
                    inference: Inference = stage.answer(model, settings, judge, source, escalate)
            except ArtifactError as error:
                say(f"touchstone: {error}")
                continue
            answered.append(inference.report)
            names.append(source.name)
            if out is not None:
                number = names.count(source.name)
                name = source.name + (f"_{number}" if number > 1 else "")
                page.write_all(model, inference, out, name)
    return answered


def _show(answered: list[dict], several: bool, out: Path | None, as_json: bool) -> None:
    """Print reports, as JSON or as text; several get a table, also as CSV."""
    from touchstone.stages import page, summary

    if out is not None and several:
        page.write_csv(answered, out / SUMMARY)
    if as_json:
        content = answered if several else answered[0]
        typer.echo(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False))
        return
    texts = [summary.answer_text(report) for report in answered]
    texts += [summary.answers_text(answered)] if several else []
    texts += [f"Reports, figures and pages: {out}"] if out is not None else []
    typer.echo("\n\n".join(texts))
