"""What a training did, and whether posteriors are right on average."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes


def losses(ax: Axes, curves: dict[str, np.ndarray]) -> Axes:
    """Training losses, smoothed over one in a hundred of the steps."""
    for name, values in curves.items():
        width = max(1, len(values) // 100)
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        ax.plot(np.arange(len(smooth)) + width, smooth, label=name)
    ax.set(xlabel="Training step", ylabel="Loss (untrained ≈ 1)", yscale="log")
    ax.legend()
    return ax


def bars(ax: Axes, title: str, rows: Sequence[dict]) -> Axes:
    """Rows of a table (`name`, `n`, then numbers) as groups of bars; None leaves a gap."""
    labels = [row["name"] for row in rows]
    groups = {key: [row[key] for row in rows] for key in rows[0] if key not in ("name", "n")}
    place = np.arange(len(labels))
    width = 0.8 / len(groups)
    for number, (name, values) in enumerate(groups.items()):
        heights = np.array(values, float)
        ax.bar(place + (number - (len(groups) - 1) / 2) * width, heights, width, label=name)
    ax.set_xticks(place, labels, rotation=40, ha="right", fontsize=9)
    ax.set_title(title, fontsize=10)
    ax.margins(y=0.2)  # room for the legend above the bars
    ax.legend(fontsize=9, ncols=len(groups), loc="upper center")
    return ax


def effects(ax: Axes, title: str, rows: Sequence[dict]) -> Axes:
    """Rows of a table (`name`, `median`, `low`, `high`) as intervals about zero, on those of the
    prior (`prior low`, `prior high`) in grey; the first row is the highest."""
    place = -np.arange(len(rows))
    ends = {
        name: [row[name] for row in rows] for name in ("prior low", "prior high", "low", "high")
    }
    ax.hlines(place, ends["prior low"], ends["prior high"], color="0.85", lw=8, label="prior")
    ax.hlines(place, ends["low"], ends["high"], color="C0", lw=3, label="posterior")
    ax.plot([row["median"] for row in rows], place, "o", color="black", ms=4, label="median")
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(place, [row["name"] for row in rows], fontsize=9)
    ax.set_title(f"{title}: 90 % intervals", fontsize=10)
    ax.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def ranks(
    ax: Axes,
    columns: dict[str, np.ndarray],
    band: tuple[np.ndarray, np.ndarray, np.ndarray],
    title: str,
) -> Axes:
    """Distribution functions of ranks less the diagonal, in a band that all should stay in.

    Times the root of the number of ranks, so that one band serves columns of every length.

    Args:
        ax: Where to draw.
        columns: Ranks by name.
        band: Points, lower and upper end, for as many ranks as the longest column has.
        title: Of the axes.
    """
    n = max(len(values) for values in columns.values())
    points, low, high = band
    ax.fill_between(points, n**0.5 * (low - points), n**0.5 * (high - points), color="0.9")
    ax.set_prop_cycle(color=colormaps["tab20"](np.arange(20)))
    for name, values in columns.items():
        u = np.sort(values)
        above = np.arange(1, len(u) + 1) / len(u) - u
        ax.plot(u, len(u) ** 0.5 * above, lw=0.9, label=name)
    ax.axhline(0, color="black", lw=0.8)
    ax.set(xlabel="Rank of the truth among its draws", ylabel="(part of cases below − rank) √n")
    ax.set_title(title, fontsize=10)
    ax.legend(fontsize=9, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax
