"""The figure of a counterfactual answer: the system and its twin, as they would be observed."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

_SIDES = {"factual": ("as it is", "#4477aa"), "twin": ("its twin", "#cc3311")}


def twins(curves: dict) -> Figure:
    """Curves of the system and its twin with 90 % bands, what was observed, and the change.

    Args:
        curves: Of a report: `x`, `x_label`, `y_label`; `factual` and perhaps `twin`, with `low`,
            `median` and `high`; `factual_points` and `twin_points`, and `observed`, points with
            `name`, `x`, and `low`, `median`, `high`, or `y` and `error`.
    """
    changed = "twin" in curves
    fig, axes = plt.subplots(
        1 + changed, 1, figsize=(10, 4.6 + 2.2 * changed), layout="constrained", sharex=True,
        squeeze=False, height_ratios=[4.6, 2.2][: 1 + changed],
    )  # fmt: skip
    ax, x = axes[0, 0], curves["x"]
    for side, (label, colour) in _SIDES.items():
        if side not in curves:
            continue
        line = curves[side]
        ax.fill_between(x, line["low"], line["high"], color=colour, alpha=0.25, lw=0)
        ax.plot(x, line["median"], color=colour, lw=1, label=label)
        for point in curves.get(f"{side}_points", ()):
            ends = [[point["median"] - point["low"]], [point["high"] - point["median"]]]
            ax.errorbar(
                point["x"],
                point["median"],
                ends,
                fmt="s",
                color=colour,
                mec="black",
                ms=7,
                zorder=3,
            )
    seen = curves.get("observed", ())
    ax.errorbar(
        [point["x"] for point in seen], [point["y"] for point in seen],
        [point["error"] for point in seen], fmt="o", ms=4, color="black", capsize=3, zorder=4,
        label="observed",
    )  # fmt: skip
    if len(seen) <= 10:
        for point in seen:
            ax.annotate(
                point["name"], (point["x"], point["y"]), xytext=(0, -16),
                textcoords="offset points", ha="center", fontsize=10,
            )  # fmt: skip
    ax.set_ylabel(curves["y_label"])
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize=10)
    if changed:
        below = axes[1, 0]
        pairs = zip(curves["twin"]["median"], curves["factual"]["median"], strict=True)
        ratio = [after / before if before else float("nan") for after, before in pairs]
        below.plot(x, ratio, color="#cc3311", lw=1)
        below.axhline(1, color="0.6", lw=0.8)
        below.set_ylabel("Twin over system")
    axes[-1, 0].set_xlabel(curves["x_label"])
    return fig
