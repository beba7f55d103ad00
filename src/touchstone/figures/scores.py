"""Score tables: what a stress does to them."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

_SPLIT_COLOURS = {"in_distribution": "#4477aa", "control": "#66ccee"}
_FAMILY_COLOURS = ("#cc3311", "#ee7733", "#aa3377", "#228833", "#bbbb44")
_LABELS = {
    "reliability_score": "Reliability score (0 to 100)",
    "pred_calibration_error": "Calibration error",
    "param_nrmse": "Parameter error (prior sd)",
    "score": "Signs together (-log10 of the part of cases)",
}


_LOGARITHMIC, _LEAST = ("score",), 0.1  # metrics of which a few are very large; what is less, there


def separation(ax: Axes, runs: pd.DataFrame, metric: str, threshold: float | None = None) -> Axes:
    """One metric of every run, a column for each variant, with its median."""
    labels = []
    groups = runs.groupby(["split", "family", "severity"], dropna=False, sort=False)
    spread = np.random.default_rng(0)
    for place, ((split, family, severity), rows) in enumerate(groups):  # ty: ignore[not-iterable] keys are triples
        values = rows[metric].to_numpy()
        if metric in _LOGARITHMIC:
            values = np.maximum(values, _LEAST)
        colour = _SPLIT_COLOURS.get(split) or _family_colour(runs, family)
        x = place + 0.3 * (spread.random(len(values)) - 0.5)
        ax.plot(x, values, "o", ms=2.5, mew=0, color=colour, alpha=0.6)
        ax.hlines(np.median(values), place - 0.3, place + 0.3, color="black", lw=1.5)
        labels.append("in distribution" if pd.isna(family) else f"{family} {severity:g}")
    if threshold is not None:
        ax.axhline(threshold, color="black", ls="--", lw=1, label=f"threshold {threshold:.3g}")
        ax.legend(fontsize=9)
    ax.set_xticks(range(len(labels)), labels, rotation=40, ha="right", fontsize=9)
    ax.set_ylabel(_LABELS.get(metric, metric))
    if metric in _LOGARITHMIC:
        ax.set_yscale("log")
    return ax


def risk_coverage(ax: Axes, harm: dict) -> Axes:
    """Share of the accepted that is wrong, as more is accepted; `harm` as in the report."""
    curve = pd.DataFrame(harm["curve"])
    ax.plot(curve["accepted"], curve["wrong"], color="#4477aa", label="by our score")
    ax.plot(curve["accepted"], curve["wrong_by_size"], color="0.6", ls="--", label="by its size")
    where, rate = harm["accepted"]["value"], harm["wrong"]
    if rate["value"] is not None:
        ends = np.array([[rate["value"] - rate["low"]], [rate["high"] - rate["value"]]])
        ax.errorbar(
            where, rate["value"], yerr=np.maximum(ends, 0), fmt="x", color="black", label="the rule"
        )
    ax.set(
        xlabel="Share of the cases that is accepted",
        ylabel="Share of these that is wrong",
        xlim=(0, 1),
        ylim=(0, None),
    )
    ax.legend(fontsize=9)
    return ax


def over_revisions(ax: Axes, rows: pd.DataFrame, name: str) -> Axes:
    """A rate with its interval at each revision, the oldest first; `rows` as of the history."""
    value, low, high = (rows[f"{name}_{end}"].astype(float) for end in ("value", "low", "high"))
    places = np.arange(len(rows))
    ends = np.maximum([value - low, high - value], 0)
    ax.errorbar(places, value, yerr=ends, fmt="o-", ms=4, lw=1, capsize=3, color="#4477aa")
    labels = [revision[:7] or "unknown" for revision in rows["revision"]]
    ax.set_xticks(places, labels, rotation=40, ha="right", fontsize=9)
    ax.set(ylim=(0, 1), xlim=(-0.5, len(rows) - 0.5))
    return ax


def roc(ax: Axes, curves: list[dict], alpha: float) -> Axes:
    """Recall of each detector by its rate of false alarms; `curves` as `roc` of the report."""
    for curve in curves:
        if curve["name"] != "decision":
            ax.plot(curve["false_alarms"], curve["recall"], lw=1, label=curve["name"])
    (ours,) = (curve for curve in curves if curve["name"] == "decision")
    ax.plot(ours["false_alarms"], ours["recall"], color="black", lw=2, label="the rule")
    ax.plot([0, 1], [0, 1], color="0.7", ls=":", label="a coin")
    ax.axvline(alpha, color="0.6", ls="--")
    highest = max(ours["false_alarms"])
    ax.set(xlabel="False alarms", ylabel="Recall", xlim=(0, highest), ylim=(0, 1))
    ax.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


def replications(ax: Axes, cells: list[dict]) -> Axes:
    """Part escalated of each mismatch and severity beside what a regression replicates of it.

    `cells` is that of the report's `unseen`.
    """
    rows = pd.DataFrame(cells)
    places = np.arange(len(rows))
    ax.vlines(places, rows["low"], rows["high"], color="#bbccee", lw=6, label="replicated, 90 %")
    ax.plot(places, rows["flagged"], "o", ms=4, color="black", label="counted")
    named = zip(rows["family"], rows["severity"], strict=True)
    labels = [f"{family} {severity:g}" for family, severity in named]
    ax.set_xticks(places, labels, rotation=90, fontsize=9)
    ax.set(ylabel="Part escalated", ylim=(-0.02, 1.02), xlim=(-0.7, len(rows) - 0.3))
    ax.legend(fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    return ax


def against_severity(ax: Axes, runs: pd.DataFrame, metric: str, ylabel: str) -> Axes:
    """Median and middle half of a metric of each family as the severity grows.

    It has no legend, since panels stand beside each other: the figure has one for all.
    """
    for family, rows in runs.dropna(subset=["family"]).groupby("family", sort=False):
        quartiles = rows.groupby("severity")[metric].quantile(np.array([0.25, 0.5, 0.75])).unstack()
        colour = _family_colour(runs, str(family))
        ax.plot(quartiles.index, quartiles[0.5], "o-", color=colour, label=str(family))
        ax.fill_between(quartiles.index, quartiles[0.25], quartiles[0.75], color=colour, alpha=0.2)
    reference = runs.loc[runs["family"].isna(), metric].median()
    ax.axhline(reference, color=_SPLIT_COLOURS["in_distribution"], ls="--", label="in distribution")
    ax.set(xlabel="Severity (0 = control)", ylabel=ylabel)
    return ax


def _family_colour(runs: pd.DataFrame, family: str) -> str:
    families = list(runs["family"].dropna().unique())
    return _FAMILY_COLOURS[families.index(family) % len(_FAMILY_COLOURS)]
