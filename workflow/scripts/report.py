"""The page that a run ends with: the verdicts first, what they rest on after.

Arguments: template, style sheet, page, name of the measurement, pages of the notebooks.
"""

import base64
import sys
from pathlib import Path

import jinja2
import yaml

from touchstone.io.artifacts import atomic, read_json
from touchstone.stages import summary

MODELS = Path("src/touchstone/models")  # read, not imported: JAX would take longer than the page
TEMPLATE, STYLE, TARGET, NAME, *NOTEBOOKS = sys.argv[1:]


def embedded(path: str | Path) -> str:
    """A figure as a data URL, so that the page is one file."""
    return "data:image/png;base64," + base64.b64encode(Path(path).read_bytes()).decode()


def of_model(model_id: str) -> dict:
    """What the page shows of a model."""
    folder = Path("results") / model_id
    stems = [Path(p) for p in NOTEBOOKS if Path(p).is_relative_to(folder)]
    audits = [
        folder / f"reports/simulate_{p.stem.rpartition('_')[2]}.json"
        for p in stems
        if p.stem.startswith("1_simulate")
    ]
    trained = any(p.stem == "2_train" for p in stems)
    training = folder / "reports/train_report.json"
    guardrail = read_json(folder / "reports/posterior_failure_mode_report.json")
    return {
        "model_id": model_id,
        "title": yaml.safe_load((MODELS / model_id / "config.yaml").read_text())["title"],
        "infer": read_json(folder / f"reports/infer_{NAME}.json"),
        "guardrail": guardrail,
        "checks": read_json(audits[0])["checks"] if audits else None,
        "training": read_json(training) if trained else None,
        "split_table": summary.split_table(guardrail),
        "rule": summary.rule_sentence(guardrail),
        "control": summary.control_sentence(guardrail),
        "undetected": summary.undetected(guardrail),
        "figures": {
            name: embedded(folder / f"figures/{file}.png")
            for name, file in {
                "infer": f"infer_{NAME}",
                "separation": "guardrail",
                "severity": "posterior_against_severity",
                "worst": "posterior_worst_stress_trace",
                **({"calibration": "calibration"} if trained else {}),
            }.items()
        },
        "notebooks": [p.relative_to("results") for p in stems],
    }


environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
page = environment.from_string(Path(TEMPLATE).read_text(encoding="utf-8")).render(
    style=Path(STYLE).read_text(encoding="utf-8"),
    models=[of_model(model_id) for model_id in dict.fromkeys(Path(p).parts[1] for p in NOTEBOOKS)],
)
with atomic(TARGET) as temporary:
    temporary.write_text(page, encoding="utf-8")
