"""The verdicts of a run as a few lines of text."""

from pathlib import Path

from touchstone.io import artifacts

_RATE = "{:.2f} [{:.2f}, {:.2f}]"


def split_table(report: dict) -> list[list[str]]:
    """Each variant, its cases, mean reliability, and the part escalated with its interval.

    The part escalated is a false-alarm rate in distribution and for the controls, a recall under
    stress. It counts only the cases that the rule was not fitted on.
    """
    rows = [["split", "severity", "cases", "reliability", "recall", "false-alarm rate", "scored"]]
    flagged = {_variant(entry): entry["flagged"] for entry in report["by_variant"]}
    for entry in report["split_summary"]:
        rate = flagged[_variant(entry)]
        shown = _RATE.format(rate["value"], rate["low"], rate["high"])
        stressed = entry["split"].startswith("stress_")
        name = entry["split"] + (f" ({entry['family']})" if entry["family"] else "")
        recall, false_alarms = (shown, "–") if stressed else ("–", shown)
        score = f"{entry['reliability_score']:.1f}"
        cases = str(entry["n_cases"])
        n = str(rate["n"])
        rows.append([name, f"{entry['severity']:g}", cases, score, recall, false_alarms, n])
    return rows


def control_sentence(report: dict) -> str:
    """What the control says, with its smallest p-values."""
    stress, rule = report["control"]["stress"], report["control"]["guardrail"]
    least = min(test["p_adjusted"] for test in stress["tests"])
    of_rule = min(entry["p_value"] for entry in rule)
    verdict = "does not differ from" if stress["passed"] else "DIFFERS from"
    return (
        f"Control: severity 0 {verdict} the training family "
        f"(smallest adjusted p {least:.2f}; of the rule {of_rule:.2f})."
    )


def rule_sentence(report: dict) -> str:
    """The rule, its promise, and how it does beside others."""
    rule, ours = report["decision"], report["decision_score"]
    others = {
        "the historical pair of thresholds": report["best_guardrail"],
        "the size of the observation alone": report["baselines"]["max_abs_observed"],
    }

    def rates(score):
        recall, false = (
            _RATE.format(*(score[rate][end] for end in ("value", "low", "high")))
            for rate in ("tpr", "fpr")
        )
        return f"recall {recall}, false alarms {false}"

    return (
        f"Rule: escalate where a sign of misfit is as in fewer than 1 in {10 ** rule['threshold']:.3g} "
        f"simulated cases; false alarms at most {rule['alpha']:g} with probability "
        f"{1 - rule['delta']:.3g} ({rule['n_calibrated']} cases of calibration). On "
        f"{ours['n_scored_cases']} base cases it never saw: {rates(ours)}"
        + "".join(f"; {name}: {rates(score)}" for name, score in others.items())
        + "."
    )


def undetected(report: dict) -> list[str]:
    """Stressed variants, by family and severity, that are escalated as seldom as false alarms."""
    return [
        f"{entry['family']} {entry['severity']:g}"
        for entry in report["by_variant"]
        if entry["split"].startswith("stress_") and not entry["detected"]
    ]


def verdict_sentence(report: dict) -> str:
    """The two verdicts on a measurement, with their reasons: the computation, and the model."""
    computation = report["computation"]
    return (
        f"{Path(report['measurement']).name}: {report['verdict'].upper()}, "
        f"because {report['reason']}. "
        f"The computation: {computation['verdict'].upper()}, {computation['reason']}."
    )


def text(folders: dict[Path, str], page: Path) -> str:
    """Closing words of a run.

    Args:
        folders: Name of the measurement that was inferred, by the folder of a model's reports;
            what is not there is left out.
        page: The report to read.
    """
    lines = []
    for folder, measurement in folders.items():
        guardrail = folder / "posterior_failure_mode_report.json"
        if guardrail.exists():
            report = artifacts.read_json(guardrail)
            lines += ["", *_aligned(split_table(report)), "", rule_sentence(report)]
            lines += [control_sentence(report)]
            if names := undetected(report):
                lines.append(f"Escalated no more often than a false alarm: {', '.join(names)}.")
        infer = folder / f"infer_{measurement}.json"
        if infer.exists():
            report = artifacts.read_json(infer)
            header = ["quantity", "median", "90 % interval", "unit"]
            table = [
                [
                    row["quantity"] + (f" (record {row['record']})" if row.get("record") else ""),
                    f"{row['median']:.4g}",
                    "{:.4g} to {:.4g}".format(*row["interval_90"]),
                    row["unit"],
                ]
                for row in report["posterior"]
            ]
            lines += ["", *_aligned([header, *table]), "", verdict_sentence(report)]
    if page.exists():
        lines += ["", f"Report: {page}"]
    return "\n".join(lines)


def _variant(entry: dict) -> tuple:
    return entry["split"], entry["family"], entry["severity"]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
