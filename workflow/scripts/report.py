"""The page that a run ends with: the verdicts first, what they rest on after.

Arguments: template, style sheet, page, pages of the notebooks.
"""

import sys
from pathlib import Path

import jinja2
import yaml

from touchstone import contract
from touchstone.io.artifacts import atomic, read_json
from touchstone.stages import summary
from touchstone.stages.page import embedded

TEMPLATE, STYLE, TARGET, *NOTEBOOKS = sys.argv[1:]
RESULTS = Path("results")


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
