"""The verdicts of a run, or of one answer, as a few lines of text."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from touchstone.contract import Comparison
from touchstone.io import artifacts
from touchstone.registry import FormField, ModelMetadata, Parameter
from touchstone.stages.checkpoints import words
from touchstone.vocabulary import Quantity

_ALIKE = 5.0  # in log evidence, of causes that the data do not tell apart
_MOST_SHARES = 8  # of an attribution, that a terminal shows
WIDTH = 80  # columns of a terminal
_RATE = "{:.2f} [{:.2f}, {:.2f}]"


def rate_text(rate: Mapping[str, float | None]) -> str:
    """A rate with its interval; of nothing there is none."""
    ends = [rate[end] for end in ("value", "low", "high")]
    return "–" if ends[0] is None else _RATE.format(*ends)


def split_table(report: dict) -> list[list[str]]:
    """Each variant, its cases, mean reliability, and the part escalated with its interval.

    The part escalated is a false-alarm rate in distribution and for the controls, a recall under
    stress. It counts only the cases that the rule was not fitted on.
    """
    rows = [["split", "severity", "cases", "reliability", "recall", "false-alarm rate", "scored"]]
    flagged = {_variant(entry): entry["flagged"] for entry in report["by_variant"]}
    for entry in report["split_summary"]:
        rate = flagged[_variant(entry)]
        shown = rate_text(rate)
        stressed = entry["split"].startswith("stress_")
        name = entry["split"] + (f" ({entry['family']})" if entry["family"] else "")
        recall, false_alarms = (shown, "–") if stressed else ("–", shown)
        score = f"{entry['reliability_score']:.1f}"
        cases = str(entry["n_cases"])
        n = str(rate["n"])
        rows.append([name, f"{entry['severity']:g}", cases, score, recall, false_alarms, n])
    return rows


def control_sentence(report: dict) -> str:
    """What the control says, with the p-values of its scores and, smallest, of the rule."""
    stress, rule = report["control"]["stress"], report["control"]["guardrail"]
    # Artefacts of before the joint test have the adjusted p-values of each alone.
    of_scores = stress.get("p_value") or min(test["p_adjusted"] for test in stress["tests"])
    of_rule = min(entry["p_value"] for entry in rule)
    verdict = "does not differ from" if stress["passed"] else "DIFFERS from"
    return (
        f"Control: severity 0 {verdict} the training family "
        f"(p {of_scores:.2f} of its scores together; {of_rule:.2f} of the rule)."
    )


def rule_sentence(report: dict) -> str:
    """The rule, its promise, and how it does beside others."""
    rule, ours = report["decision"], report["decision_score"]
    others = {
        "the historical pair of thresholds": report["best_guardrail"],
        "the size of the observation alone": report["baselines"]["max_abs_observed"],
    }

    def rates(score):
        recall, false = rate_text(score["tpr"]), rate_text(score["fpr"])
        return f"recall {recall}, false alarms {false}"

    limit = f"1 in {10 ** rule['threshold']:.3g}"
    return (
        f"Rule: escalate where the signs of misfit are together as in fewer than {limit} simulated "
        "cases; "
        f"false alarms at most {rule['alpha']:g} with probability "
        f"{1 - rule['delta']:.3g} ({rule['n_calibrated']} cases of calibration). On "
        f"{ours['n_scored_cases']} base cases it never saw: {rates(ours)}"
        + "".join(f"; {name}: {rates(score)}" for name, score in others.items())
        + "."
    )


def harm_sentence(report: dict) -> str:
    """What the rule lets through, on the mix of cases that the report states."""
    found = report["harm"]

    if found["wrong"]["value"] is None:
        return "What is let through: the two verdicts accept nothing."
    bound = f"at most {found['at_most']:.2f} with a confidence of {100 * found['level']:g} %"
    said = (
        "What is let through: of cases half in family and half under a mismatch the two verdicts "
        f"accept {rate_text(found['accepted'])}; of these {rate_text(found['wrong'])} are wrong "
        f"({bound}), of all {rate_text(found['before'])}."
    )
    some = found.get("of_detectable")
    if not some or some["wrong"]["value"] is None:
        return said
    return (
        f"{said} Where the mismatches are only those that the best test could detect "
        f"({', '.join(some['families'])}), {rate_text(some['wrong'])} of the accepted are wrong "
        f"(at most {some['at_most']:.2f})."
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


def computation_sentence(report: dict) -> str:
    """Whether the draws are those of the posterior under the model, and why."""
    computation = report["computation"]
    sound = computation["verdict"] == "accept"
    return (
        f"{computation['verdict'].upper()}: the computation is {'' if sound else 'not '}sound, "
        f"because {computation['reason']}."
    )


def model_sentence(report: dict) -> str:
    """Whether the model explains the measurement, and why."""
    does = {
        "accept": "the model explains",
        "escalate": "the model does not explain",
        "cannot judge": "whether the model explains",
    }[report["verdict"]]
    what = "these records" if len(report["metrics"]) > 1 else "this record"
    return f"{report['verdict'].upper()}: {does} {what}, because {report['reason']}."


def alternatives_sentence(report: dict) -> str:
    """What would explain an escalated measurement better."""
    best = report["alternatives"][0]["log_evidence"]
    alike = [each for each in report["alternatives"] if each["log_evidence"] > best - _ALIKE]
    return (
        "The record would be explained better if "
        + ", or if ".join(each["cause"] for each in alike)
        + f" (log evidence +{best:.0f}"
        + ("; the data cannot tell these apart)." if len(alike) > 1 else ").")
    )


def next_sentence(report: dict) -> str:
    """What to do with an answer."""
    if report["verdict"] == "cannot judge":
        return (
            "Do not use these intervals. Measure again inside the range of the instrument, or "
            "leave the samples at its limit out of the record."
        )
    if (report.get("escalation") or {}).get("resolved"):
        return (
            f"Do not use the first intervals. Those with {report['escalation']['cause']} may be "
            "used, where that can be the cause."
        )
    if report["verdict"] != "accept":
        return (
            "Do not use these intervals. See in the figure where the residuals leave their band, "
            "compare the metadata with the experiment, and measure again or ask an expert."
        )
    if report["computation"]["verdict"] != "accept":
        return (
            "Do not use these intervals. Infer again with larger settings of `infer` or another "
            "seed; if the computation stays unsound, use a reference method."
        )
    return (
        "The intervals may be used. They hold for the metadata as stated: check what was assumed, "
        "since a parameter may absorb an error in it."
    )


def command_sentence(report: dict) -> str:
    """What acts on the verdict; empty where nothing does, or where that was done."""
    if "command" not in report:
        return ""
    what = "see whether a simulator of higher fidelity explains it, and " * (
        report["verdict"] != "accept"
    )
    return f"To {what}be told what to measure next, run `{report['command']}` (options as before)."


def escalation_sentence(report: dict) -> str:
    """Whether the simulator of higher fidelity explains a measurement; empty where none was asked.

    A cause that the data cannot tell from another is named together with that.
    """
    found = report.get("escalation")
    if found is None:
        return ""
    what = ", ".join([found["cause"], *found["size"]])
    if not found["resolved"]:
        return f"Not resolved: {what}, since {'; '.join(found['faults'])}."
    alike = [
        each["cause"]
        for each in report["alternatives"]
        if each["log_evidence"] > found["log_evidence"] - _ALIKE
    ]
    score, limit = found["score"], report["threshold"]
    return (
        f"Resolved: {what}. Under the simulator that knows of it the signs of misfit are within "
        f"the limit (score {score:.2f} of {limit:.2f}), and the log evidence is "
        f"{found['log_evidence']:.0f} higher."
        + "".join(f" The data cannot tell that from: {cause}." for cause in alike)
    )


def proposal_sentence(report: dict) -> str:
    """What to measure next, and what that would say; empty where nothing is proposed."""
    if not report.get("next_measurements"):
        return ""
    best, *others = report["next_measurements"]
    informs = f", mostly on {', '.join(best['informs'][:3])}" if best["informs"] else ""
    said = (
        f"Measure next: {best['protocol']}. Expected information: {best['gain']:.1f} ± "
        f"{best['error']:.1f} nats{informs}"
    )
    if others:
        said += "; others: " + ", ".join(
            f"{each['protocol']} {each['gain']:.1f} ± {each['error']:.1f}" for each in others
        )
    return said + "."


def artefact_sentence(report: dict) -> str:
    """Which artefact answered, and how often its rule raises a false alarm."""
    lineage, rate = report["lineage"], report["false_alarm_rate"]
    said = f"Artefact of {report['model_id']}: {words(lineage['artefact'])}"
    said += "." if lineage["verified"] else ", not verified by a manifest."
    if rate["value"] is None:
        return said
    value, low, high = (f"{100 * rate[name]:.0f}" for name in ("value", "low", "high"))
    return (
        f"{said} Its rule raised a false alarm on {value} % of {rate['n']} simulated records "
        f"(95 % interval {low} to {high} %)."
    )


def posterior_table(report: dict) -> list[list[str]]:
    """Of a report or of its escalation: of each quantity the median, the 90 % interval, that of its
    prior, the unit, and what is to be remarked."""
    rows = [["quantity", "median", "90 % interval", "prior 90 %", "unit", ""]]
    for row in report["posterior"]:
        of_record = f" (record {row['record']})" if row.get("record") else ""
        ends = ("{:.3g} to {:.3g}".format(*row[k]) for k in ("interval_90", "prior_interval_90"))
        median = f"{row['median']:.3g}"
        rows.append([row["quantity"] + of_record, median, *ends, row["unit"], row["remark"]])
    return rows


def _narrow_table(report: dict) -> list[list[str]]:
    """The same for a terminal: a remark, which says what of the interval counts, in its place."""
    return [
        [quantity, median, remark or interval, *others]
        for quantity, median, interval, *others, remark in posterior_table(report)
    ]


def answer_text(report: dict) -> str:
    """An answer for a terminal of 80 columns: table, two verdicts, what to do next, artefact."""
    sentences = [
        computation_sentence(report),
        model_sentence(report),
        *([alternatives_sentence(report)] if report["alternatives"] else []),
        *(f"Caution: {caution}" for caution in report["cautions"]),
        f"Next: {next_sentence(report)}",
        command_sentence(report),
        escalation_sentence(report),
        proposal_sentence(report),
        artefact_sentence(report),
    ]
    title = report["measurement"]
    tables = ["\n".join(_aligned(_narrow_table(report)))]
    if again := report.get("escalation"):
        tables.append(f"With {again['cause']}:\n" + "\n".join(_aligned(_narrow_table(again))))
    return "\n\n".join([title, *tables, *map(_filled, filter(None, sentences))])


def answers_table(reports: list[dict]) -> list[list[str]]:
    """One row for each measurement: both verdicts, and the reason of the first that escalates."""
    rows = [["measurement", "computation", "model", "reason"]]
    for report in reports:
        computation = report["computation"]
        reason = computation if computation["verdict"] != "accept" else report
        rows.append(
            [
                Path(report["measurement"]).name,
                computation["verdict"],
                report["verdict"],
                reason["reason"],
            ]
        )
    return rows


def answers_text(reports: list[dict]) -> str:
    """The rows of `answers_table` for a terminal of 80 columns; long names and reasons are cut."""
    cut = [
        [_cut(name, 24), computation, model, _cut(reason, 27)]
        for name, computation, model, reason in answers_table(reports)
    ]
    return "\n".join(_aligned(cut))


def model_text(
    about: ModelMetadata, quantities: Mapping[str, Quantity | Parameter], status: dict
) -> str:
    """What a model is, the quantities it infers, its form, and what it has made here.

    Args:
        about: What it says of itself.
        quantities: By name.
        status: As from `registry.get_model_status`, with `answering`: which artefact answers.
    """
    tags = f" Tags: {', '.join(about.tags)}." if about.tags else ""
    parts = [_filled(f"{about.name} (v{about.version}, {about.status}), by {about.author}")]
    parts += [_filled(about.description.strip() + tags)]
    described = {
        name: f"{each.meaning} ({each.prior}{', ' if each.unit else ''}{each.unit})"
        for name, each in quantities.items()
    }
    parts.append("It infers\n" + _definitions(described))
    if fields := {field.name: _of_field(field) for field in about.inference_params}:
        title = "Fields of its form, for `touchstone predict` as KEY=VALUE"
        parts.append(f"{title}\n{_definitions(fields)}")
    trained = f"trained on {status['last_trained']}" if status["is_trained"] else "not trained"
    said = f"Here it is {trained}; what it makes lies in {status['output_dir']}."
    if status["structure"]:
        said += f" Its structure is drawn in {status['structure']}."
    parts.append(_filled(f"{said} Artefact that answers: {status['answering']}."))
    return "\n\n".join(parts)


def _of_field(field: FormField) -> str:
    """What a field takes: meaning, type or options, bounds, and what it is without a value."""
    said = " or ".join(field.options) or ("numbers" if field.numbers else field.type)
    low, high = (None if end is None else f"{end:g}" for end in (field.min_value, field.max_value))
    if low and high:
        said += f" from {low} to {high}"
    elif low or high:
        said += f" of at least {low}" if low else f" of at most {high}"
    if field.default is not None:
        said += f", by default {field.default}"
    elif field.required:
        said += ", required"
    return f"{field.help_text or field.label} ({said})"


def _definitions(texts: Mapping[str, str]) -> str:
    """Names, each with a text beside it in as many lines as it needs."""
    width = max(map(len, texts)) + 4
    return "\n".join(
        textwrap.fill(
            text, WIDTH, initial_indent=f"  {name}".ljust(width), subsequent_indent=" " * width
        )
        for name, text in texts.items()
    )


def prediction_text(report: dict) -> str:
    """An answer to a form: estimates, what they rest on, and whether that is of the training."""
    if report["kind"] == "twin":
        return twin_text(report)
    if report["kind"] == "counterfactual" or "answer" in report:
        return counterfactual_text(report.get("answer", report))
    assumed = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in report["assumed"].items()
    )
    if "inference" in report:
        said = [_filled(f"Not given, so assumed: {assumed}.")] if assumed else []
        return "\n\n".join([answer_text(report["inference"]), *said])

    def rows(header, entries):
        numbers = [
            [
                each["name"],
                f"{each['median']:.4g}",
                f"{each['low']:.4g} to {each['high']:.4g}",
                each["unit"],
                each.get("meaning", ""),
            ]
            for each in entries
        ]
        return "\n".join(_aligned([[header, "median", "90 % interval", "unit", ""], *numbers]))

    parts = [rows("estimate", report["estimates"])]
    parts += [f"{each['name']}: {100 * each['value']:.0f} %" for each in report["probabilities"]]
    if report["attribution"]:
        shown = report["attribution"][:_MOST_SHARES]
        parts.append(rows("adds to the mean of the training", shown))
    if assumed:
        parts.append(_filled(f"Not given, so taken from the training: {assumed}."))
    parts.append(_filled(f"{report['verdict'].upper()}: {report['reason']}."))
    parts += [_filled(f"Caution: {caution}.") for caution in report.get("cautions", [])]
    parts.append(_filled(f"Artefact of {report['model_id']}: {report['artefact']}."))
    return "\n\n".join(parts)


def change_table(report: dict) -> list[list[str]]:
    """What changed and why: a row for each quantity of the system and of its twin."""
    rows = [["quantity", "unit", "as it is", "twin", "change", "why"]]
    twins = {row["name"]: row for row in report["counterfactual"]}

    def ends(row):
        if row["median"] is None:
            return "not informed"
        if row["low"] == row["high"]:
            return f"{row['median']:.4g}"
        return f"{row['median']:.4g} ({row['low']:.4g} to {row['high']:.4g})"

    for row in report["posterior"]:
        twin = twins.get(row["name"])
        if twin is None:
            rows.append([row["name"], row["unit"], ends(row), "–", "–", ""])
            continue
        same = twin["change"]["low"] == twin["change"]["high"] == 0
        change = "none" if same else ends(twin["change"])
        rows.append([row["name"], row["unit"], ends(row), ends(twin), change, twin["why"]])
    return rows


def law_table(report: dict) -> list[list[str]]:
    """Each law of conservation: whether it is kept, by how much, and how that was checked."""
    rows = [["law", "", "largest violation", "limit", "checked by"]]
    for row in report["violations"]:
        largest, limit = (
            "–" if row[name] is None else f"{row[name]:.1e}" for name in ("largest", "limit")
        )
        of = f" (n = {row['n']})" if row["n"] else ""
        rows.append([row["law"], row["status"].replace("_", " "), largest, limit, row["how"] + of])
    return rows


def asked_sentences(report: dict) -> list[str]:
    """What was asked and how it is answered, for a reader who has never seen such an answer."""
    done, graph = ", ".join(report["do"]), report["structure"]
    follows = [name for name, kind in graph["kinds"].items() if kind == "responds"]
    cut = [f"{a} → {b}" for a, b in graph["cut"]]
    said = [
        f"The question: what would this system be, had {done} been done to it, and nothing else?",
        "The answer has three steps. From the observation we infer what is particular to this "
        "system, its noises. We set what the action sets, whatever its causes were"
        + (f": the arrows {', '.join(cut)} are cut" if cut else "")
        + ". With the same noises we work out anew all that follows"
        + (f": {', '.join(follows)}." if follows else "; here nothing does."),
    ]
    said += [
        f"Mode {report['mode']}. Intervals are of {100 * report['level']:g} %. They are of a twin "
        "that shares all noise with its system, which no observation can confirm: the bracket of a "
        "quantity in the report also holds twins whose noises are the opposite or independent, "
        "node by node."
    ]
    return said


def counterfactual_text(report: dict) -> str:
    """An answer to a counterfactual question for a terminal."""
    table = [[*row[:1], *row[2:5], row[1]] for row in change_table(report)]
    laws = [row[:4] for row in law_table(report)]
    computation = report["computation"]
    level = f"{100 * report['level']:g} %"
    said = [
        f"{report['verdict'].upper()}: {report['reason']}.",
        f"The computation: {computation['verdict'].upper()}, {computation['reason']}.",
        f"Intervals are of {level}, of twins that share all noise, which no data can tell; the "
        "report has the bracket that also holds noises which are the opposite or independent.",
        *(f"Caution: {remark}." for remark in report["remarks"]),
        f"Artefact of {report['model_id']}: {report['artefact']}.",
    ]
    title = f"do({', '.join(report['do'])}), {report['mode']}"
    return "\n\n".join(
        [title, "\n".join(_aligned(table)), "\n".join(_aligned(laws)), *map(_filled, said)]
    )


def twin_text(report: dict) -> str:
    """What is said of a twin that others have made, for a terminal."""
    parts = ["\n".join(_aligned([row[:4] for row in law_table(report)]))]
    if "twin" in report:
        numbers = [
            [name, f"{value:.8g}"] for name, value in report["twin"].items()
            if not isinstance(value, list)
        ]  # fmt: skip
        parts.append("\n".join(_aligned([["closest lawful twin", ""], *numbers])))
        parts.append(
            _filled(
                f"Its distance is {report['distance']:.4g} in the {report['metric']} metric (root "
                "of the sum of squares of changes, each over "
                f"{'its error' if report['metric'] == 'noise' else 'the size of the number'}); no "
                f"number changes by more than {100 * report['largest_change']:.3g} %."
            )
        )
    return "\n\n".join([*parts, _filled(f"{report['verdict'].upper()}: {report['reason']}.")])


def tables_text(tables: Sequence[Comparison]) -> str:
    """Tables for a terminal, each below its title."""
    parts = []
    for table in tables:
        rows = [[name if name != "name" else "" for name in table.rows[0]]]
        rows += [
            [f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()]
            for row in table.rows
        ]
        parts.append("\n".join([table.title, *_aligned(rows)]))
    return "\n\n".join(parts)


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
            lines += ["", *_aligned(_narrow_table(report)), "", verdict_sentence(report)]
            lines += [artefact_sentence(report)]
    if page.exists():
        lines += ["", f"Report: {page}"]
    return "\n".join(lines)


def _variant(entry: dict) -> tuple:
    return entry["split"], entry["family"], entry["severity"]


def _filled(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
