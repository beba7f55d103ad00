"""How a model's rule has done over revisions of data and code: one row each, kept between runs."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd

from touchstone.io import artifacts
from touchstone.io.results import HISTORY, Results

# What is followed, whether more of it is better, and in which words.
_FOLLOWED = {
    "false_alarms": (False, "false alarms"),
    "recall": (True, "recall"),
    "wrong": (False, "wrong answers among the accepted"),
}
_KEY = ("model_id", "settings", "data", "revision")
_ENDS = ("value", "low", "high", "n")


def append(report: dict, results: Results) -> pd.DataFrame:
    """Add a report of the guardrail, in place of one of the same model, settings, data and code.

    Args:
        report: As `guardrail.run` writes it.
        results: Of the model.

    Returns:
        All rows of the model, the oldest first.
    """
    lineage = report["lineage"]
    stress = lineage["parents"]["stress"]["settings"]
    # What a model says of itself is what changes from revision to revision, and no setting.
    settings = lineage["settings"], {k: v for k, v in stress.items() if k != "model"}
    row = {
        "model_id": report["model_id"],
        "settings": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
        "data": lineage["inputs"]["stress"]["sha256"],
        "revision": lineage["revision"] or "",
        "date": lineage["date"],
    }
    rates = {
        "false_alarms": report["decision_score"]["fpr"],
        "recall": report["decision_score"]["tpr"],
        "wrong": report["harm"]["wrong"],
    }
    row |= {f"{name}_{end}": rates[name][end] for name in _FOLLOWED for end in _ENDS}
    file = results.folder.parent / HISTORY
    file.parent.mkdir(parents=True, exist_ok=True)
    kinds = ["text" if name in (*_KEY, "date") else "real" for name in row]
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(row, kinds, strict=True))
    with closing(sqlite3.connect(file, timeout=60)) as base, base:
        base.execute(
            f"create table if not exists guardrail ({columns}, primary key ({', '.join(_KEY)}))"
        )
        places = ", ".join("?" * len(row))
        base.execute(f"insert or replace into guardrail values ({places})", list(row.values()))
    return rows_of(report["model_id"], results)


def rows_of(model_id: str, results: Results) -> pd.DataFrame:
    """All rows of a model, the oldest first; none where nothing was kept yet."""
    file = results.folder.parent / HISTORY
    if not file.is_file():
        return pd.DataFrame()
    query = "select * from guardrail where model_id = ? order by date"
    with closing(sqlite3.connect(file, timeout=60)) as base:
        return pd.read_sql_query(query, base, params=[model_id])


def comparable(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the settings of the newest; figures of other sizes or promises are another thing."""
    return rows[rows["settings"] == rows["settings"].iloc[-1]] if len(rows) else rows


def draw(rows: pd.DataFrame, file: Path) -> None:
    """Draw the rates of rows that are comparable, with their intervals, as a PNG."""
    import matplotlib.pyplot as plt  # here, since it takes a second to import

    from touchstone import figures

    size = figures.PAGE, 2.8
    figure, axes = plt.subplots(1, len(_FOLLOWED), figsize=size, layout="constrained")
    for ax, (name, (_, words)) in zip(axes, _FOLLOWED.items(), strict=True):
        figures.over_revisions(ax, rows, name).set_title(words, fontsize=9)
    with artifacts.atomic(file) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)


def warnings(rows: pd.DataFrame) -> list[str]:
    """What is worse in the newest row than in the one before it, by more than both intervals.

    Args:
        rows: As `append` gives them. Only those that are comparable are.
    """
    alike = comparable(rows)
    if len(alike) < 2:
        return []
    before, now = alike.iloc[-2], alike.iloc[-1]
    said = []
    for name, (more_is_better, words) in _FOLLOWED.items():
        if more_is_better:
            worse = now[f"{name}_high"] < before[f"{name}_low"]
        else:
            worse = now[f"{name}_low"] > before[f"{name}_high"]
        if worse:
            said.append(
                f"{words}: {now[f'{name}_value']:.3f} [{now[f'{name}_low']:.3f}, "
                f"{now[f'{name}_high']:.3f}], {before[f'{name}_value']:.3f} "
                f"[{before[f'{name}_low']:.3f}, {before[f'{name}_high']:.3f}] before; "
                + _changed(before, now)
            )
    return said


def _changed(before: pd.Series, now: pd.Series) -> str:
    """Which revision changed between two rows, of the code or of what was scored."""
    return ", ".join(
        f"{what} {before[name][:10] or 'unknown'} became {now[name][:10] or 'unknown'}"
        for name, what in (("revision", "code"), ("data", "score table"))
        if before[name] != now[name]
    )
