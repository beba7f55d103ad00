"""A system and its counterfactual twin, as they would be observed."""

from typing import Any

from matplotlib.axes import Axes

_SIDES = {"factual": ("as it is", "#4477aa"), "twin": ("its twin", "#cc3311")}
_MOST_NAMES = 10  # points that are named


def twins(ax: Axes, curves: dict) -> Axes:
    """Curves of the system and its twin with their intervals, and what was observed.

    Args:
        ax: Where to draw.
        curves: Of a report: `x`, `x_label`, `y_label`; `factual` and perhaps `twin`, with `low`,
            `median` and `high`; `factual_points` and `twin_points`, with `name`, `x` and the same;
            and `observed`, points with `name`, `x`, `y` and `error`.
    """
    for side, (label, colour) in _SIDES.items():
        if side not in curves:
            continue
        line = curves[side]
        ax.fill_between(curves["x"], line["low"], line["high"], color=colour, alpha=0.25, lw=0)
        ax.plot(curves["x"], line["median"], color=colour, lw=1, label=label)
        for point in curves.get(f"{side}_points", ()):
            ends = [[point["median"] - point["low"]], [point["high"] - point["median"]]]
            ax.errorbar(point["x"], point["median"], ends, fmt="s", color=colour, mec="black")
    seen = curves.get("observed", ())
    places, values, errors = ([point[name] for point in seen] for name in ("x", "y", "error"))
    few = len(seen) <= _MOST_NAMES
    style: dict[str, Any] = {
        "fmt": "o" if few else ".",
        "ms": 4 if few else 2,
        "capsize": 3 if few else 0,
    }
    ax.errorbar(places, values, errors, color="black", lw=0.8, zorder=1, label="observed", **style)
    for point in seen if few else ():
        ax.annotate(
            point["name"], (point["x"], point["y"]), xytext=(0, -16), textcoords="offset points",
            ha="center", fontsize=10,
        )  # fmt: skip
    ax.set(xlabel=curves["x_label"], ylabel=curves["y_label"], ylim=(0, None))
    ax.legend(frameon=False, fontsize=10)
    return ax


def twin_ratio(ax: Axes, curves: dict) -> Axes:
    """Median of the twin over that of the system; `curves` as in `twins`."""
    pairs = zip(curves["twin"]["median"], curves["factual"]["median"], strict=True)
    ratio = [after / before if before else float("nan") for after, before in pairs]
    ax.plot(curves["x"], ratio, color=_SIDES["twin"][1], lw=1)
    ax.axhline(1, color="0.6", lw=0.8)
    ax.set(xlabel=curves["x_label"], ylabel="Twin over system")
    return ax
