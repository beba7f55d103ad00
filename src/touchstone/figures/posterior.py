"""A posterior and what it predicts, on the data and beside other posteriors."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy.stats import rankdata

from touchstone.vocabulary import Cases, Posterior, Quantity, View

_DECADE = 10.0
_SHOWN = (-0.1, 1.1)  # places on the prior's interval beyond which bars and medians are clipped


def gallery(ax: Axes, title: str, curves: Sequence[tuple[View, np.ndarray]]) -> Axes:
    """Observations of different sizes, each in units of its largest value, on shared axes."""
    for view, values in curves:
        ax.plot(view.x / np.abs(view.x).max(), values / np.abs(values).max(), lw=0.9)
    label = " or ".join(dict.fromkeys(view.x_label.split(" (")[0] for view, _ in curves))
    ax.set(xlabel=f"{label} / largest", ylabel="Observation / largest")
    ax.set_title(title, fontsize=10)
    return ax


def predictive(
    ax: Axes, view: View, cases: Cases, posterior: Posterior, case: int, legend: bool = True
) -> Axes:
    """Predictive mean with its one- and two-sigma bands, on what was observed and what was not."""
    observed, mask = cases.observed[case], cases.mask[case]
    mean, sd = posterior.prediction.mean[case], posterior.prediction.sd[case]
    unit = view.y_factor
    for part in _monotonic(view.x):
        for k, alpha in ((2, 0.15), (1, 0.3)):
            low, high = unit * (mean - k * sd)[part], unit * (mean + k * sd)[part]
            ax.fill_between(view.x[part], low, high, color="#4477aa", alpha=alpha, lw=0)
    ax.fill_between([], [], [], color="#4477aa", alpha=0.45, label="±1σ")
    ax.fill_between([], [], [], color="#4477aa", alpha=0.15, label="±2σ")
    ax.plot(view.x, unit * mean, color="#4477aa", lw=1.2, label="predictive mean")
    if not mask.all():
        missing: dict[str, Any] = {"color": "0.75", "mfc": "none", "label": "missing"}
        ax.plot(view.x[~mask], unit * observed[~mask], "o", ms=2.5, mew=0.6, **missing)
    ax.plot(view.x[mask], unit * observed[mask], ".", ms=3, color="black", label="observed")
    ax.set(xlabel=view.x_label, ylabel=view.y_label)
    if legend:
        ax.legend(fontsize=9)
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
        middle = (scale(row["median"]) - start) / width
        left, right, middle = np.clip([left, right, middle], *_SHOWN)
        ax.plot([left, right], [place, place], color="#4477aa", lw=4, solid_capstyle="butt")
        ax.plot(middle, place, "o", ms=4, color="black")
    ax.set_yticks(range(len(names)), names, fontsize=9)
    ax.set_xlabel(
        "Place within the 90 % interval of the prior\n(log scale where it spans a decade)"
    )
    ax.invert_yaxis()
    return ax


def beside(ax: Axes, names: Sequence[str], draws: dict[str, np.ndarray], truth: np.ndarray) -> Axes:
    """90 % intervals and medians of several posteriors of one case, and the truth.

    Args:
        ax: Where to draw.
        names: Of the quantities.
        draws: Of each posterior, in standard deviations from the mean of the prior, shape (draw,
            quantity).
        truth: Likewise.
    """
    place = np.arange(len(names))
    for number, (name, z) in enumerate(draws.items()):
        low, median, high = np.quantile(z, [0.05, 0.5, 0.95], axis=0)
        at = place + 0.22 * (number - (len(draws) - 1) / 2)
        errors = np.abs([median - low, high - median])
        ax.errorbar(median, at, xerr=errors, fmt="o", ms=3, lw=1.5, label=name)
    ax.plot(truth, place, "|", ms=16, color="black", label="truth")
    ax.set_yticks(place, names, fontsize=9)
    ax.set_xlabel("Distance from the prior mean (prior sd)")
    ax.invert_yaxis()
    ax.legend(fontsize=9)
    return ax


def trade_off(
    ax: Axes, quantities: Sequence[Quantity], draws: np.ndarray, prior: np.ndarray
) -> Axes:
    """The two quantities whose draws hang together most (by rank), on what of the prior is there.

    Args:
        ax: Where to draw.
        quantities: Those that were inferred.
        draws: Values, shape (draw, quantity).
        prior: Values drawn from the prior, shape (draw, quantity).
    """
    with np.errstate(invalid="ignore"):  # what does not vary depends on nothing
        tied = np.corrcoef(rankdata(draws, axis=0), rowvar=False)
    tied = np.abs(np.nan_to_num(tied))
    pair = np.unravel_index(np.triu(tied, 1).argmax(), tied.shape)
    chosen = [quantities[k] for k in pair]
    for axis, quantity, place in zip((ax.xaxis, ax.yaxis), chosen, pair, strict=True):
        axis.set_label_text(quantity.name + (f" ({quantity.unit})" if quantity.unit else ""))
        # Over less than this a logarithmic axis has ticks too many to read.
        values = draws[:, place]
        wide = quantity.logarithmic and values.max() > _DECADE * values.min()
        ax.set(**{f"{axis.axis_name}scale": "log" if wide else "linear"})
    ax.plot(*draws[:, pair].T, ".", ms=3, color="#4477aa", label="posterior")
    ax.autoscale_view()
    ax.autoscale(False)  # the prior may be far wider
    ax.plot(*prior[:, pair].T, ".", ms=2, color="0.8", zorder=1, label="prior")
    ax.legend(fontsize=9)
    return ax


def _monotonic(x: np.ndarray) -> list[slice]:
    """Stretches of a sweep that run one way, so that a band can be filled along each."""
    turns = np.flatnonzero(np.diff(np.sign(np.diff(x)))) + 1
    edges = [0, *turns, len(x) - 1]
    return [slice(a, b + 1) for a, b in pairwise(edges) if b > a]
