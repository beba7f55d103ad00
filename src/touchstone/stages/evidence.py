"""What a rule could detect, and how it does beside others, as tables and sentences."""

from touchstone.reliability.oracle import ALPHA, POWER, is_missed
from touchstone.stages.summary import rate_text

_LEARNERS = {"combination": "logistic regression", "boosted": "gradient boosting"}


def oracle_table(report: dict) -> list[list[str]]:
    """Mismatches that no test could detect and those that the rule misses, with the bias that each
    causes; the header alone where there are none, or no oracle was asked."""
    rows = [["mismatch", "severity", "power of the best test", "escalated", "wrong", "median bias"]]
    known = any(row["if_known"] is not None for row in report.get("oracle", []))
    rows[0][3:3] = ["the same if references are known"] * known
    for row in report.get("oracle", []):
        if row["detectable"] and not is_missed(row):
            continue
        bias = ", ".join(f"{name} {v:.2g}" for name, v in row["bias"].items() if v is not None)
        if_known = "–" if row["if_known"] is None else f"{row['if_known']:.2f}"
        name = row["family"] + (" (missed by the rule)" if row["detectable"] else "")
        rows.append(
            [
                name, f"{row['severity']:g}", f"{row['power']:.2f}", *[if_known] * known,
                rate_text(row["flagged"]), rate_text(row["wrong"]), bias,
            ]
        )  # fmt: skip
    return rows


def oracle_sentence(report: dict) -> str:
    """How many mismatches could be detected at all; empty where no oracle was asked."""
    rows = report.get("oracle")
    if not rows:
        return ""
    seen = sum(row["detectable"] for row in rows)
    missed = sum(map(is_missed, rows))
    return (
        f"Of {len(rows)} mismatches by kind and severity, the best test that knows the mismatch "
        f"detects {seen} (mean power of at least {POWER:g} at a level of {100 * ALPHA:g} %), of "
        f"which the rule misses {missed}. "
        + (
            f"Of the other {len(rows) - seen} the parameters absorb too much for any detector to "
            "see them in nearly every case. "
            if seen < len(rows)
            else "The parameters absorb none of them. "
        )
        + "Who believes a posterior that is not escalated is wrong by the bias in the last column "
        "(in the unit of the quantity; decades where its prior is logarithmic)."
    )


def rivals_table(report: dict) -> list[list[str]]:
    """Detectors of others at the promise of the rule; the header alone where there are none."""
    rows = [["detector", "false alarms", "recall", "recall of the rule less this"]]
    for row in report.get("rivals", []):
        alarms, gain = rate_text(row["fpr"]), rate_text(row["gain"])
        rows.append([row["name"], alarms, f"{row['recall']:.2f}", gain])
    return rows


def rivals_sentence(report: dict) -> str:
    """Whether the rule detects more than the detectors of others; empty where there are none."""
    rows = report.get("rivals")
    if not rows:
        return ""
    ours = rows[0]["recall"] + rows[0]["gain"]["value"]
    beaten = sum(row["gain"]["low"] > 0 for row in rows)
    return (
        f"The rule detects {ours:.2f} of the mismatches, mean over kinds and severities: more than "
        f"{beaten} of {len(rows)} detectors of others by more than the error, on the same cases, "
        "each with a threshold for the same promise from the same calibration."
    )


def left_out_table(report: dict) -> list[list[str]]:
    """Recall on each mismatch of what learnt nothing of it; the header alone without any."""
    rows = [["mismatch", "severity", "cases", "the rule", *_LEARNERS.values()]]
    for row in report.get("left_out", []):
        learnt = [rate_text(row[name]) if row.get(name) else "–" for name in _LEARNERS]
        severity, n = f"{row['severity']:g}", str(row["n"])
        rows.append([row["family"], severity, n, rate_text(row["decision"]), *learnt])
    return rows


def left_out_sentence(report: dict) -> str:
    """What detects more on a mismatch that is new; empty where there are none."""
    rows = report.get("left_out")
    if not rows:
        return ""
    means = {
        name: sum(row[name]["value"] for row in rows) / len(rows)
        for name in ("decision", *_LEARNERS)
        if all(row.get(name) for row in rows)
    }
    ours = means.pop("decision")
    theirs = " and ".join(f"{_LEARNERS[name]} {mean:.2f}" for name, mean in means.items())
    return (
        "The rule learns nothing from mismatches: each is new to it. Of those below it detects "
        f"{ours:.2f}"
        + (
            f"; of the same signs, learnt from all mismatches but the one in the row, {theirs}."
            if theirs
            else "."
        )
    )
