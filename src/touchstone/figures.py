"""Plots: each function draws on the axes that it is given, and returns them."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from scipy.stats import rankdata

from touchstone.reliability.calibration import ecdf_band
from touchstone.vocabulary import Parameter, View

_SPLIT_COLOURS = {"in_distribution": "#4477aa", "control": "#66ccee"}
_FAMILY_COLOURS = ("#cc3311", "#ee7733", "#aa3377", "#228833", "#bbbb44")
_LABELS = {
    "reliability_score": "Reliability score (0 to 100)",
    "pred_calibration_error": "Calibration error",
    "param_nrmse": "Parameter error (prior sd)",
}


def traces(ax: Axes, title: str, curves: Sequence[tuple[View, np.ndarray]]) -> Axes:
    """Observations of different sizes, each in units of its largest value, on shared axes."""
    for view, values in curves:
        part = view.x / view.x.max() if view.x_label.startswith("Time") else view.x
        ax.plot(part, values / np.abs(values).max(), lw=0.9)
        ax.set_xlabel("Part of the record" if part is not view.x else view.x_label)
    ax.set_ylabel("Observation / largest")
    ax.set_title(title, fontsize=9)
    return ax


def histogram(ax: Axes, values: np.ndarray, label: str) -> Axes:
    """Distribution of what was drawn."""
    ax.hist(values, bins=40, color="#4477aa", density=True)
    ax.set(xlabel=label, yticks=[])
    return ax


def losses(ax: Axes, curves: dict[str, np.ndarray]) -> Axes:
    """Training losses, smoothed over one in a hundred of the steps."""
    for name, values in curves.items():
        width = max(1, len(values) // 100)
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        ax.plot(np.arange(len(smooth)) + width, smooth, label=name)
    ax.set(xlabel="Training step", ylabel="Flow-matching loss (untrained ≈ 1)", yscale="log")
    ax.legend()
    return ax


def bars(ax: Axes, labels: Sequence[str], groups: dict[str, Sequence[float]], ylabel: str) -> Axes:
    """Groups of bars over the same labels; a missing value leaves a gap."""
    place = np.arange(len(labels))
    width = 0.8 / len(groups)
    for number, (name, values) in enumerate(groups.items()):
        heights = np.array(values, float)
        ax.bar(place + (number - (len(groups) - 1) / 2) * width, heights, width, label=name)
    ax.set_xticks(place, labels, rotation=40, ha="right", fontsize=8)
    ax.set_ylabel(ylabel)
    ax.margins(y=0.2)  # room for the legend above the bars
    ax.legend(fontsize=8)
    return ax


def ranks(ax: Axes, columns: dict[str, np.ndarray], title: str) -> Axes:
    """Distribution functions of ranks less the diagonal, in the 95 % band of all of them.

    Times the root of the number of ranks, so that one band serves columns of every length.
    """
    n = max(len(values) for values in columns.values())
    points, low, high = ecdf_band(n, 1 - 0.05 / len(columns))
    ax.fill_between(points, n**0.5 * (low - points), n**0.5 * (high - points), color="0.9")
    ax.set_prop_cycle(color=colormaps["tab20"].colors)
    for name, values in columns.items():
        u = np.sort(values)
        above = np.arange(1, len(u) + 1) / len(u) - u
        ax.plot(u, len(u) ** 0.5 * above, lw=0.9, label=name)
    ax.axhline(0, color="black", lw=0.8)
    ax.set(xlabel="Rank of the truth among its draws", ylabel="(part of cases below − rank) √n")
    ax.set_title(title, fontsize=10)
    ax.legend(fontsize=6, ncols=3)
    return ax


def separation(ax: Axes, runs: pd.DataFrame, metric: str, threshold: float | None = None) -> Axes:
    """One metric of every run, a column for each variant, with its median."""
    labels = []
    groups = runs.groupby(["split", "family", "severity"], dropna=False, sort=False)
    spread = np.random.default_rng(0)
    for place, ((split, family, severity), rows) in enumerate(groups):
        values = rows[metric].to_numpy()
        colour = _SPLIT_COLOURS.get(split) or _family_colour(runs, family)
        x = place + 0.3 * (spread.random(len(values)) - 0.5)
        ax.plot(x, values, "o", ms=2.5, mew=0, color=colour, alpha=0.6)
        ax.hlines(np.median(values), place - 0.3, place + 0.3, color="black", lw=1.5)
        labels.append("in distribution" if pd.isna(family) else f"{family} {severity:g}")
    if threshold is not None:
        ax.axhline(threshold, color="black", ls="--", lw=1, label=f"threshold {threshold:.3g}")
        ax.legend(fontsize=8)
    ax.set_xticks(range(len(labels)), labels, rotation=40, ha="right", fontsize=8)
    ax.set_ylabel(_LABELS.get(metric, metric))
    return ax


def against_severity(ax: Axes, runs: pd.DataFrame, metric: str, ylabel: str) -> Axes:
    """Median and middle half of a metric of each family as the severity grows."""
    for family, rows in runs.dropna(subset=["family"]).groupby("family", sort=False):
        quartiles = rows.groupby("severity")[metric].quantile([0.25, 0.5, 0.75]).unstack()
        colour = _family_colour(runs, family)
        ax.plot(quartiles.index, quartiles[0.5], "o-", color=colour, label=str(family))
        ax.fill_between(quartiles.index, quartiles[0.25], quartiles[0.75], color=colour, alpha=0.2)
    reference = runs.loc[runs["family"].isna(), metric].median()
    ax.axhline(reference, color=_SPLIT_COLOURS["in_distribution"], ls="--", label="in distribution")
    ax.set(xlabel="Severity (0 = control)", ylabel=ylabel)
    ax.legend(fontsize=8)
    return ax


def predictive(
    ax: Axes,
    view: View,
    observed: np.ndarray,
    mask: np.ndarray,
    mean: np.ndarray,
    sd: np.ndarray,
    legend: bool = True,
) -> Axes:
    """Predictive mean with its one- and two-sigma bands, on what was observed and what was not."""
    unit = view.y_factor
    for part in _monotonic(view.x):
        for k, alpha in ((2, 0.15), (1, 0.3)):
            low, high = unit * (mean - k * sd)[part], unit * (mean + k * sd)[part]
            ax.fill_between(view.x[part], low, high, color="#4477aa", alpha=alpha, lw=0)
    ax.fill_between([], [], [], color="#4477aa", alpha=0.45, label="±1σ")
    ax.fill_between([], [], [], color="#4477aa", alpha=0.15, label="±2σ")
    ax.plot(view.x, unit * mean, color="#4477aa", lw=1.2, label="predictive mean")
    if not mask.all():
        missing = {"color": "0.75", "mfc": "none", "label": "missing"}
        ax.plot(view.x[~mask], unit * observed[~mask], "o", ms=2.5, mew=0.6, **missing)
    ax.plot(view.x[mask], unit * observed[mask], ".", ms=3, color="black", label="observed")
    ax.set(xlabel=view.x_label, ylabel=view.y_label)
    if legend:
        ax.legend(fontsize=8)
    return ax


def intervals(ax: Axes, table: Sequence[dict]) -> Axes:
    """90 % intervals of the posterior on those of the prior, each over its own prior interval."""
    names = [row["quantity"] for row in table]
    for place, row in enumerate(table):
        low, high = row["prior_interval_90"]
        positive = low > 0 and high / low > 10
        scale = np.log if positive else np.asarray
        start, width = scale(low), scale(high) - scale(low)
        left, right = ((scale(v) - start) / width for v in row["interval_90"])
        ax.plot([0, 1], [place, place], color="0.85", lw=7, solid_capstyle="butt")
        left, right = np.clip([left, right], -0.1, 1.1)
        ax.plot([left, right], [place, place], color="#4477aa", lw=4, solid_capstyle="butt")
        ax.plot((scale(row["median"]) - start) / width, place, "o", ms=4, color="black")
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_xlabel("Place within the 90 % interval of the prior (log scale where it spans a decade)")
    ax.invert_yaxis()
    return ax


def beside(ax: Axes, names: Sequence[str], draws: dict[str, np.ndarray], truth: np.ndarray) -> Axes:
    """90 % intervals and medians of several posteriors of one case, and the truth.

    Args:
        ax: Where to draw.
        names: Of the P parameters.
        draws: Of each posterior, standard coordinates, shape (n, P).
        truth: Shape (P,).
    """
    place = np.arange(len(names))
    for number, (name, z) in enumerate(draws.items()):
        low, median, high = np.quantile(z, [0.05, 0.5, 0.95], axis=0)
        at = place + 0.22 * (number - (len(draws) - 1) / 2)
        errors = np.abs([median - low, high - median])
        ax.errorbar(median, at, xerr=errors, fmt="o", ms=3, lw=1.5, label=name)
    ax.plot(truth, place, "|", ms=16, color="black", label="truth")
    ax.set_yticks(place, names, fontsize=8)
    ax.set_xlabel("Standard coordinate (the prior is a standard normal)")
    ax.invert_yaxis()
    ax.legend(fontsize=8)
    return ax


def trade_off(
    ax: Axes, parameters: Sequence[Parameter], draws: np.ndarray, prior: np.ndarray
) -> Axes:
    """The two parameters whose draws hang together most (by rank), on what of the prior is there.

    Args:
        ax: Where to draw.
        parameters: The P that were inferred.
        draws: Of the posterior, natural coordinates, shape (n, P).
        prior: Of the prior, shape (m, P).
    """
    tied = np.abs(np.corrcoef(rankdata(draws, axis=0), rowvar=False))
    pair = np.unravel_index(np.triu(tied, 1).argmax(), tied.shape)
    chosen = [parameters[k] for k in pair]

    def values(natural):
        return [
            np.exp(natural[:, k]) if parameter.logarithmic else natural[:, k]
            for k, parameter in zip(pair, chosen, strict=True)
        ]

    for axis, parameter in zip((ax.xaxis, ax.yaxis), chosen, strict=True):
        axis.set_label_text(parameter.name + (f" ({parameter.unit})" if parameter.unit else ""))
        ax.set(**{f"{axis.axis_name}scale": "log" if parameter.logarithmic else "linear"})
    ax.plot(*values(draws), ".", ms=3, color="#4477aa", label="posterior")
    ax.autoscale_view()
    ax.autoscale(False)  # the prior may be far wider
    ax.plot(*values(prior), ".", ms=2, color="0.8", zorder=1, label="prior")
    ax.legend(fontsize=8)
    return ax


def _family_colour(runs: pd.DataFrame, family: str) -> str:
    families = list(runs["family"].dropna().unique())
    return _FAMILY_COLOURS[families.index(family) % len(_FAMILY_COLOURS)]


def _monotonic(x: np.ndarray) -> list[slice]:
    """Stretches of a sweep that run one way, so that a band can be filled along each."""
    turns = np.flatnonzero(np.diff(np.sign(np.diff(x)))) + 1
    edges = [0, *turns, len(x) - 1]
    return [slice(a, b + 1) for a, b in pairwise(edges) if b > a]
