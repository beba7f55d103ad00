"""The pages for people: ask a model, see what it rests on, watch the service. They read offline."""

import asyncio
import json
import math
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import jinja2
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse

from touchstone import contract, registry
from touchstone.io import artifacts, plain_yaml, reports, settings
from touchstone.io.artifacts import ArtifactError
from touchstone.io.results import Results
from touchstone.io.validation import jsonschema
from touchstone.service import questions
from touchstone.service.questions import ProblemError
from touchstone.service.versions import STAGES, Versions, certificate
from touchstone.stages import runs, summary
from touchstone.stages.training_run import PARTS

STATIC = Path(__file__).parent / "static"
_TEMPLATES = Path(__file__).parent / "templates"
_HEADERS = {
    # Whatever a name of a model or a file may hold, a browser runs nothing but these scripts.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_SCRIPTS = {file.name for file in STATIC.glob("*.js")}
_LEVEL = 0.95  # of the intervals of the certificate
_DRAWING = threading.Lock()  # matplotlib draws one figure at a time


class Figure(NamedTuple):
    """A row of the certificate.

    Attributes:
        what: Which rate, or which test.
        value: As shown.
        interval: 95 % interval of a rate; empty for what is none.
        n: Cases that it is from.
        wanted: What it is under a right model, or has to be.
    """

    what: str
    value: str
    interval: str
    n: str
    wanted: str


class Setting(NamedTuple):
    """A field of the form of a training.

    Attributes:
        name: Path of the setting, such as `train.n_steps`.
        label: What stands beside the field.
        default: What the configuration says.
        options: Of a choice; empty for a number.
        about: What it means.
    """

    name: str
    label: str
    default: Any
    options: list[str]
    about: str


def register(app: FastAPI, service: Any) -> None:
    """Add the pages to an application.

    Args:
        app: The application.
        service: The `Service` of the application, which imports this module.
    """

    def menu() -> list[dict[str, Any]]:
        entries = []
        for model_id, label in registry.get_model_for_dropdown():
            pool = service.pools.get(model_id)
            state = "not served" if pool is None else "ready" if pool.ready else pool.reason
            entries.append({"model_id": model_id, "label": label, "state": state})
        return entries

    def page(template: str, here: str, selected: str | None, **content: Any) -> Response:
        text = (
            _environment()
            .get_template(template)
            .render(
                here=here,
                script=template.removesuffix(".html.j2"),
                menu=menu(),
                broken=registry.get_registry().broken,
                chosen=selected,
                **content,
            )
        )
        return HTMLResponse(text, headers=_HEADERS)

    def chosen(model: str | None) -> str:
        return model or next(iter(service.pools), None) or menu()[0]["model_id"]

    @app.get("/", include_in_schema=False)
    def infer(model: str | None = None) -> Response:
        """Ask a model: a record, or the values of its form."""
        model = chosen(model)
        about, listed = questions.metadata(model), service.listed(model)
        return page("infer.html.j2", "/", model, title=about.name, about=about, model=listed)

    @app.get("/modeling", include_in_schema=False)
    def modeling(model: str | None = None) -> Response:
        """What a model is and rests on, its versions, and its training."""
        model = chosen(model)
        about = questions.metadata(model)
        return page(
            "modeling.html.j2",
            "/modeling",
            model,
            title=about.name,
            about=about,
            model=service.listed(model),
            certificate=_certificate(model),
            settings=_settings(model),
            stages=STAGES,
            **_versions(service.versions, model),
        )

    @app.get("/monitor", include_in_schema=False)
    def monitor() -> Response:
        """The state of the service and the runs."""
        return page("monitor.html.j2", "/monitor", None, title="Monitor")

    @app.get("/run", include_in_schema=False)
    def run(name: str) -> Response:
        """One run: the graph of its model, how it was set, how well it did, and what it made."""
        for row in runs.rows():
            if row["run"] == name:
                return page("run.html.j2", "/monitor", None, title=f"Run {name}", **_of_run(row))
        raise ProblemError(404, "there is no such run")

    @app.get("/docs", include_in_schema=False)
    def api() -> Response:
        """What programs may ask, from the schema that is served."""
        text = _environment().get_template("api.html.j2").render(schema=app.openapi())
        return HTMLResponse(text, headers=_HEADERS)

    @app.post("/answer", include_in_schema=False)
    async def answer(request: Request) -> Response:
        """A report that this service gave, in words and tables, as a part of a page."""
        body = await questions.body(request, service.settings.body)
        try:
            report = json.loads(body)
            reports.validate(report)
            text = await asyncio.to_thread(answered, report)  # which may draw
        except (ArtifactError, jsonschema().ValidationError, ValueError, LookupError, TypeError):
            raise ProblemError(422, "the body is no report of a prediction or inference") from None
        return HTMLResponse(text, headers=_HEADERS)

    @app.get("/static/page.css", include_in_schema=False)
    def style() -> Response:
        """The style of all pages of the project, then what these add."""
        shared = Path(__file__).parents[1] / "templates/style.css"
        files = (shared, STATIC / "page.css")
        text = "".join(file.read_text(encoding="utf-8") for file in files)
        return Response(text, media_type="text/css")

    @app.get("/static/{name}", include_in_schema=False)
    def script(name: str) -> Response:
        if name not in _SCRIPTS:
            raise ProblemError(404, "there is no such script")
        return FileResponse(STATIC / name, media_type="text/javascript")


def answered(report: dict[str, Any]) -> str:
    """HTML of an answer: the verdicts, what to do next, and the tables of the notebook's page.

    Args:
        report: Of the kind `infer`, `prediction` or `counterfactual`.
    """
    content: dict[str, Any] = {"report": report, "inferred": None, "twin": None}
    within = report.get("answer")
    twin = report if report["kind"] == "counterfactual" else within
    if isinstance(twin, dict) and twin.get("kind") == "counterfactual":
        content["twin"] = _twin(twin)
        content["artefact"] = f"Artefact of {twin['model_id']}: {twin['artefact']}."
    if report["kind"] == "prediction":
        content["estimates"] = [
            [each["name"], each["meaning"], *_interval(each), each["unit"]]
            for each in report["estimates"]
        ]
        shares = report["attribution"]
        content["attribution"] = [[each["name"], *_interval(each), each["unit"]] for each in shares]
        content["probabilities"] = [
            [each["name"], f"{100 * each['value']:.0f} %"] for each in report["probabilities"]
        ]
        content["assumed"] = [[key, _shown(value)] for key, value in report["assumed"].items()]
        content["artefact"] = f"Artefact of {report['model_id']}: {report['artefact']}."
    inference = report.get("inference", report)
    if inference["kind"] == "infer":
        content["artefact"] = summary.artefact_sentence(inference)
        content["inferred"] = {
            "report": inference,
            "computation": summary.computation_sentence(inference),
            "model": summary.model_sentence(inference),
            "alternatives": summary.alternatives_sentence(inference)
            if inference["alternatives"]
            else "",
            "next": summary.next_sentence(inference),
            "rows": _posterior_rows(inference),
            "metrics": _metrics(inference),
        }
    return _environment().get_template("answer.html.j2").render(**content)


def _twin(report: dict[str, Any]) -> dict[str, Any]:
    """What is shown of an answer to a counterfactual question."""
    from touchstone.stages import page  # here: a service that draws nothing starts without it

    with _DRAWING, tempfile.TemporaryDirectory(prefix="touchstone-") as folder:
        figure, graph = Path(folder) / "twins.png", Path(folder) / "graph.svg"
        page.draw_twins(report, figure, graph)
        drawn = {"figure": page.embedded(figure), "graph": page.embedded(graph)}
    return drawn | {
        "report": report,
        "asked": summary.asked_sentences(report),
        "changes": summary.change_table(report),
        "laws": summary.law_table(report),
    }


def _posterior_rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The posterior's table, with the place of each interval in that of its prior, in percent."""
    rows = []
    for cells, row in zip(summary.posterior_table(report)[1:], report["posterior"], strict=True):
        low, high = row["prior_interval_90"]
        ends = (*row["interval_90"], row["median"])
        logarithmic = low > 0 and high / low > 20 and min(ends) > 0
        scale = math.log if logarithmic else float
        span = (scale(high) - scale(low)) or 1.0
        at = [min(100.0, max(0.0, 100 * (scale(x) - scale(low)) / span)) for x in ends]
        places = {"low": f"{at[0]:.1f}", "width": f"{max(at[1] - at[0], 1):.1f}"}
        rows.append(places | {"median": f"{at[2]:.1f}", "cells": cells[:-1], "remark": cells[-1]})
    return rows


def _metrics(report: dict[str, Any]) -> list[list[str]]:
    head = ["metric", *(f"record {k}" for k in range(1, len(report["metrics"]) + 1))]
    names = report["metrics"][0]
    return [head, *([name, *(_shown(each[name]) for each in report["metrics"])] for name in names)]


def _of_run(row: dict[str, Any]) -> dict[str, Any]:
    """What is shown of a run, from a row of their table."""
    from touchstone.stages.page import embedded  # here: it imports slowly

    found = Results(Path("results") / row["run"])
    trained = found.checkpoints()
    files = artifacts.read_json(trained[-1] / artifacts.MANIFEST)["files"] if trained else {}
    rates = {
        "false_alarms": "False alarms",
        "recall": "Mismatches that are escalated",
        "wrong": "Wrong among the accepted",
    }
    metrics = [
        (what, f"{row[name]:.3f}", f"{row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f}", n)
        for name, what in rates.items()
        if (n := row[f"{name}_n"]) and row[name] is not None
    ]
    if row["coverage_90"] is not None:
        covered = _share(row["coverage_90"], row["coverage_90_n"])
        metrics.insert(0, ("Truths inside their 90 % intervals", *covered))
    return {
        "run": row,
        "graph": embedded(found.structure) if found.structure.is_file() else "",
        "metrics": metrics,
        "settings": [*json.loads(row["settings"] or "{}").items()],
        "files": [(name, each["sha256"]) for name, each in files.items()],
    }


def _interval(each: dict[str, Any]) -> tuple[str, str]:
    return _shown(each["median"]), f"{_shown(each['low'])} to {_shown(each['high'])}"


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _certificate(model_id: str) -> dict[str, Any] | None:
    """What is shown of the certificate of the artefact that answers; None if it has none."""
    content = certificate(model_id)
    if content is None:
        return None
    return {
        "figures": figures(content),
        "against": content["against"],
        "calibration": [
            [
                each["parameter"],
                *_share(each["coverage_90"], each["n"])[:2],
                str(each["n"]),
                "inside" if each["inside"] else "outside",
            ]
            for each in content["calibration"][0]["parameters"]
        ],
        "undetected": summary.undetected(content),
        "date": content["lineage"].get("date"),
    }


def figures(certificate: dict[str, Any]) -> list[Figure]:
    """The rates of a certificate, each with its interval and number of cases.

    Args:
        certificate: As `make release` writes it.
    """
    alarms, score = certificate["false_alarms"], certificate["decision_score"]
    wanted = f"at most {certificate['decision']['alpha']:g}"
    rows = [
        _rate("False alarms on new cases of the family", alarms["rate"], wanted),
        _rate("Mismatches that are escalated, all stresses", score["tpr"], "1"),
        _rate("Computation sound", alarms["computation_sound"], "1"),
    ]
    if harm := certificate.get("harm"):  # which a release of before did not count
        rows += [
            _rate("Wrong among all, half of them under a mismatch", harm["before"], "0"),
            _rate("Wrong among the accepted, of the same mix", harm["wrong"], "0"),
            _rate("Accepted, of the same mix", harm["accepted"], "–"),
        ]
    for each in certificate["calibration"]:
        regions = each["regions"]
        rows.append(
            Figure(
                f"Ranks of truths in random regions ({each['method']}): p-value",
                f"{regions['p_value']:.3g}",
                "",
                str(regions["n"]),
                "above 0.01",
            )
        )
        for name, share in each["passed"].items():
            what = f"{name.replace('_', ' ')} within its limit ({each['method']})"
            rows.append(Figure(what, *_share(share, each["n_cases"]), "1"))
    tests = certificate["control"]["stress"]["tests"]
    least = min((test["p_adjusted"] for test in tests), default=math.nan)
    n = str(max((test["n"] for test in tests), default=0))
    what = f"Control: severity 0 is the family, least adjusted p of {len(tests)} tests"
    return [*rows, Figure(what, f"{least:.2f}", "", n, "above 0.01")]


def _rate(what: str, rate: dict[str, Any], wanted: str) -> Figure:
    if rate["value"] is None:
        return Figure(what, "–", "", str(rate["n"]), wanted)
    interval = f"{rate['low']:.3f} to {rate['high']:.3f}"
    return Figure(what, f"{rate['value']:.3f}", interval, str(rate["n"]), wanted)


def _share(share: float, n: int) -> tuple[str, str, str]:
    """A share, its Wilson interval (1927) and n; this process imports no statistics."""
    z = NormalDist().inv_cdf(0.5 + _LEVEL / 2)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2) / (1 + z**2 / n)
    return f"{share:.3f}", f"{middle - half:.3f} to {middle + half:.3f}", str(n)


def _settings(model_id: str) -> dict[str, list[Setting]]:
    """Numbers and choices that a training has by default, by the part of the settings."""
    folders = contract.folders()
    schema = plain_yaml.load_own(folders[model_id] / "settings.schema.yaml")
    block = settings.found(folders, model_id)[model_id]
    parts = ((part, block.get(part), schema["properties"].get(part, {})) for part in PARTS)
    found = {part: list(_leaves(part, value, said, schema)) for part, value, said in parts}
    return {part: leaves for part, leaves in found.items() if leaves}


def _leaves(path: str, value: Any, said: dict, schema: dict) -> Iterator[Setting]:
    """Settings under a path, each with what its schema says; a path of a file is none of them."""
    if "$ref" in said:
        said = schema["$defs"][said["$ref"].removeprefix("#/$defs/")] | said
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(
                f"{path}.{name}", inner, said.get("properties", {}).get(name, {}), schema
            )
        return
    options = said.get("enum", [])
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number or options:
        name = path.partition(".")[2]
        label = name.replace("_", " ").replace(".", ", ")
        yield Setting(path, label, value, options, said.get("description", ""))


def _versions(found: Versions, model_id: str) -> dict[str, Any]:
    """The versions of a model with what they are called, and the history, the newest first."""
    aliases, listed = found.aliases(model_id), found.listed(model_id)
    history = found.history(model_id)[::-1]
    names = {
        each.version: ", ".join(
            name for name, version in aliases.items() if version == each.version
        )
        for each in listed
    }
    return {"versions": listed[::-1], "names": names, "history": history}


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
