"""The answer to a measurement as files: report, figure, and one page that reads offline."""

import base64
import os
from collections.abc import Sequence
from pathlib import Path

from touchstone.contract import Model
from touchstone.io import artifacts, reports
from touchstone.io.artifacts import ArtifactError, atomic
from touchstone.stages import summary
from touchstone.stages.infer import Inference, posterior_rows
from touchstone.vocabulary import Structure

_TEMPLATES = Path(__file__).parents[1] / "templates"
_DPI = 110


def render(report: dict, figure: Path | None) -> str:
    """HTML of an answer, with its figure in it and nothing to fetch.

    Args:
        report: Of the kind `infer`.
        figure: PNG, beside which are those of the model's own; None leaves all out.
    """
    import jinja2  # here, since only those who ask for a page wait for it

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = (_TEMPLATES / "answer.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        report=report,
        style=(_TEMPLATES / "style.css").read_text(encoding="utf-8"),
        computation=summary.computation_sentence(report),
        model=summary.model_sentence(report),
        alternatives=summary.alternatives_sentence(report) if report["alternatives"] else "",
        next=summary.next_sentence(report),
        after=[
            *filter(None, (summary.command_sentence(report), summary.escalation_sentence(report)))
        ],
        proposal=summary.proposal_sentence(report),
        again=summary.posterior_table(report["escalation"]) if report.get("escalation") else [],
        artefact=summary.artefact_sentence(report),
        table=summary.posterior_table(report),
        figure=embedded(figure) if figure else None,
        drawings=[
            {**each, "data": embedded(path)}
            for each in report.get("drawings", [])
            if figure and (path := _beside(figure, each["name"])).is_file()
        ],
    )


def _beside(figure: Path, name: str) -> Path:
    """A figure of the model's own, beside that of an answer."""
    return figure.with_stem(f"{figure.stem}_{name}")


def embedded(figure: Path) -> str:
    """A figure, PNG or SVG, as a data URL, so that a page is one file."""
    kind = {".png": "png", ".svg": "svg+xml"}[figure.suffix]
    return f"data:image/{kind};base64," + base64.b64encode(figure.read_bytes()).decode()


def write(report: dict, figure: Path | None, page: Path) -> None:
    """Write the page of an answer; arguments as in `render`."""
    with atomic(page) as temporary:
        temporary.write_text(render(report, figure), encoding="utf-8")


def of_answers(path: Path) -> list[Path]:
    """Write the page of an answer, or of all answers in a folder; returns the pages.

    The figure is the PNG of the same name beside the report, or in the folder of figures.

    Raises:
        ArtifactError: If there is no answer, or one is not what was written.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if path.is_dir():
        files = [file for file in files if artifacts.read_json(file).get("kind") == "infer"]
    if not files:
        raise ArtifactError(f"{path}: holds no answer of `touchstone infer`")
    pages = []
    for file in files:
        report = reports.read(file, "infer")
        beside = file.with_suffix(".png")
        places = (beside, file.parents[1] / "figures" / beside.name)
        figure = next((place for place in places if place.is_file()), None)
        write(report, figure, file.with_suffix(".html"))
        pages.append(file.with_suffix(".html"))
    return pages


def write_all(model: Model, inference: Inference, folder: Path, name: str) -> list[Path]:
    """Write report, figure, page and table of an answer; returns their paths.

    Args:
        model: The model.
        inference: As `infer.answer` gives it.
        folder: Where they go.
        name: Of the files, without their suffix.
    """
    report, figure, page = (folder / f"{name}.{suffix}" for suffix in ("json", "png", "html"))
    draw(model, inference, figure)
    drawings = model.drawings(inference.cases, inference.posterior)
    own = [_beside(figure, drawing.name) for drawing in drawings]
    for drawing, file in zip(drawings, own, strict=True):
        drawing.save(file)
    write(inference.report, figure, page)
    artifacts.write_json(report, inference.report)
    table = folder / f"{name}_posterior.csv"  # another name than the record's
    artifacts.write_csv(table, posterior_rows(inference.report))
    return [report, figure, *own, page, table]


def draw(model: Model, inference: Inference, file: Path) -> None:
    """Write the figure of an answer as PNG; arguments as in `write_all`."""
    os.environ.setdefault("MPLBACKEND", "agg")  # no window, whatever the terminal stands beside
    from matplotlib import pyplot as plt  # here, since only those who ask for a figure wait for it

    from touchstone import figures

    cases, posterior = inference.cases, inference.posterior
    views = [model.view(cases, k) for k in range(len(cases.kind))]
    fig = figures.answer(
        model.quantities, views, cases, posterior, inference.prior, inference.report["posterior"]
    )
    fig.axes[0].set_title(Path(inference.report["measurement"]).name)
    with atomic(file) as temporary:
        fig.savefig(temporary, dpi=_DPI, format="png")
    plt.close(fig)


def write_csv(answers: Sequence[dict], file: Path) -> None:
    """Write one row a measurement: verdicts, reasons, and every quantity with its interval."""
    artifacts.write_csv(file, list(map(_row, answers)))


def _row(report: dict) -> dict:
    row = {
        "measurement": report["measurement"],
        "computation": report["computation"]["verdict"],
        "model": report["verdict"],
        "computation_reason": report["computation"]["reason"],
        "model_reason": report["reason"],
    }
    for entry in report["posterior"]:
        record = f" record {entry['record']}" if entry["record"] else ""
        name = entry["quantity"] + record + (f" ({entry['unit']})" if entry["unit"] else "")
        low, high = entry["interval_90"]
        row |= {f"{name} median": entry["median"], f"{name} 5 %": low, f"{name} 95 %": high}
    return row


def write_counterfactual(report: dict, folder: Path) -> list[Path]:
    """Write report, figures and page of an answer to a counterfactual question; returns them."""
    names = ("counterfactual.json", "twins.png", "graph.svg", "counterfactual.html")
    written = [folder / name for name in names]
    draw_twins(report, *written[1:3])
    with atomic(written[3]) as temporary:
        temporary.write_text(_counterfactual_html(report, *written[1:3]), encoding="utf-8")
    artifacts.write_json(written[0], report)
    return written


def draw_twins(report: dict, figure: Path, graph: Path) -> None:
    """Write the two drawings of an answer to a counterfactual question.

    Args:
        report: Of the kind `counterfactual`.
        figure: PNG, of what is observed of the system and its twin.
        graph: SVG, of what causes what, and what was set and cut.
    """
    os.environ.setdefault("MPLBACKEND", "agg")
    from matplotlib import pyplot as plt

    from touchstone import figures
    from touchstone.figures.structure import save_structure

    curves = report["curves"]
    heights = [4.6, 2.2][: 1 + ("twin" in curves)]
    fig, axes = plt.subplots(
        len(heights), 1, figsize=(figures.PAGE, sum(heights)), height_ratios=heights,
        layout="constrained", sharex=True, squeeze=False,
    )  # fmt: skip
    figures.twins(axes[0, 0], curves)
    if "twin" in curves:
        axes[0, 0].set_xlabel("")
        figures.twin_ratio(axes[1, 0], curves)
    with atomic(figure) as temporary:
        fig.savefig(temporary, dpi=_DPI, format="png")
        plt.close(fig)
    found = report["structure"]
    edges, cut = ([(a, b) for a, b in found[name]] for name in ("edges", "cut"))
    with atomic(graph) as temporary:
        save_structure(temporary, Structure(found["nodes"], found["kinds"], edges, cut))


def _counterfactual_html(report: dict, figure: Path, graph: Path) -> str:
    """HTML of an answer to a counterfactual question, with nothing to fetch."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = (_TEMPLATES / "counterfactual.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        report=report,
        style=(_TEMPLATES / "style.css").read_text(encoding="utf-8"),
        graph=embedded(graph),
        figure=embedded(figure),
        changes=summary.change_table(report),
        laws=summary.law_table(report),
        asked=summary.asked_sentences(report),
    )
