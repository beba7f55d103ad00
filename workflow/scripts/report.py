"""The page that a run ends with: the verdicts first, what they rest on after.

Arguments: template, style sheet, page, pages of the notebooks.
"""

import sys
from pathlib import Path

import jinja2
import yaml

from touchstone import contract
from touchstone.io.artifacts import atomic, read_json
from touchstone.io.results import Results
from touchstone.stages import evidence, history, summary
from touchstone.stages.page import embedded

TEMPLATE, STYLE, TARGET, *NOTEBOOKS = sys.argv[1:]
RESULTS = Path("results")


TABLES = (
    ("What could be detected at all", evidence.oracle_sentence, evidence.oracle_table),
    ("Beside the detectors of others", evidence.rivals_sentence, evidence.rivals_table),
    ("On mismatches that are new", evidence.left_out_sentence, evidence.left_out_table),
)


def over_revisions(model_id: str, folder: Path) -> dict:
    """The rule's rates over revisions: how many there are, what became worse, and a figure."""
    results = Results(folder)
    rows = history.comparable(history.rows_of(model_id, results))
    if len(rows) < 2:
        return {"n": len(rows), "worse": [], "image": ""}
    history.draw(rows, results.figure("history"))
    image = embedded(results.figure("history"))
    return {"n": len(rows), "worse": history.warnings(rows), "image": image}


def of_run(folder: Path, pages: list[Path]) -> dict:
    """What the page shows of a model, whose results are in a folder."""
    stems = [page.stem for page in pages]
    name = next(stem for stem in stems if stem.startswith("5_infer_")).removeprefix("5_infer_")
    audits = [stem.rpartition("_")[2] for stem in stems if stem.startswith("1_simulate_")]
    trained = "2_train" in stems
    guardrail = read_json(folder / "reports/posterior_failure_mode_report.json")
    model_id = guardrail["model_id"]
    about = yaml.safe_load((contract.folders()[model_id] / "config.yaml").read_text("utf-8"))
    figures = {
        "infer": f"infer_{name}",
        "separation": "guardrail",
        "severity": "posterior_against_severity",
        "worst": "posterior_worst_stress_trace",
        **({"calibration": "calibration"} if trained else {}),
    }
    training = read_json(folder / "reports/train_report.json") if trained else None
    return {
        "model_id": model_id,
        "title": about["name"],
        "infer": read_json(folder / f"reports/infer_{name}.json"),
        "guardrail": guardrail,
        "checks": read_json(folder / f"reports/simulate_{audits[0]}.json")["checks"]
        if audits
        else None,
        "training": training,
        "drawings": [
            {**each, "image": embedded(folder / f"figures/{each['name']}.png")}
            for each in (training or {}).get("drawings", [])
        ],
        "split_table": summary.split_table(guardrail),
        "rule": summary.rule_sentence(guardrail),
        "harm": summary.harm_sentence(guardrail),
        "control": summary.control_sentence(guardrail),
        "undetected": summary.undetected(guardrail),
        "tables": [
            (title, sentence(guardrail), table(guardrail))
            for title, sentence, table in TABLES
            if len(table(guardrail)) > 1 or sentence(guardrail)
        ],
        "history": over_revisions(model_id, folder),
        "figures": {key: embedded(folder / f"figures/{file}.png") for key, file in figures.items()},
        "notebooks": [page.relative_to(RESULTS) for page in pages],
    }


runs: dict[Path, list[Path]] = {}
for page in map(Path, NOTEBOOKS):
    runs.setdefault(page.parents[1], []).append(page)
environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
text = environment.from_string(Path(TEMPLATE).read_text(encoding="utf-8")).render(
    style=Path(STYLE).read_text(encoding="utf-8"),
    models=[of_run(folder, pages) for folder, pages in runs.items()],
)
with atomic(TARGET) as temporary:
    temporary.write_text(text, encoding="utf-8")
