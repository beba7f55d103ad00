"""What was learnt of an economy, as figures: effects, regimes over time, and what could refute."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from touchstone.models.regimes.effects import Response
from touchstone.models.regimes.sensitivity import Benchmark, adjusted

_TURBULENT = "C3"
PROBABILITIES = (
    "Smoothed probabilities use all dates, and tell history; filtered ones use no outcome of a "
    "later date. Parameters are those that all dates tell in both, so that an answer at that date "
    "would not have had the filtered ones."
)
_LIKELY = 0.5  # probability of the turbulent regime, from which on dates are shaded


def by_horizon(
    figure: FigureBase,
    responses: Float[np.ndarray, "outcome group horizon number"],
    labels: Sequence[str],
    row: str,
) -> None:
    """Response of each outcome on average (left) and in each regime (right), with both bands.

    Args:
        figure: Where to draw.
        responses: Estimate, low, high, joint low and joint high, on average, calm and turbulent.
        labels: Of the outcomes.
        row: What the distance of two rows is called.
    """
    axes = figure.subplots(len(labels), 2, sharex=True, squeeze=False)
    shown = (("average", 0, "C0"), ("calm", 1, "C0"), ("turbulent", 2, _TURBULENT))
    for pair, of_outcome, label in zip(axes, responses, labels, strict=True):
        for name, group, color in shown:
            ax: Axes = pair[min(group, 1)]
            estimate, low, high, joint_low, joint_high = of_outcome[group].T
            x = np.arange(len(estimate))
            ax.fill_between(x, joint_low, joint_high, color=color, alpha=0.12, lw=0)
            ax.fill_between(x, low, high, color=color, alpha=0.3, lw=0)
            ax.plot(x, estimate, color=color, label=name)
        for ax in pair:
            ax.axhline(0, color="black", lw=0.8)
            ax.legend(fontsize=9)
        pair[0].set_ylabel(label)
    for ax in axes[-1]:
        ax.set_xlabel(f"{row.capitalize()}s after the treatment")


def level(figure: FigureBase, responses: dict[str, Response], label: str, row: str) -> None:
    """Responses of a level at each horizon, with their intervals, by name."""
    ax = figure.subplots()
    for number, (name, each) in enumerate(responses.items()):
        x, color = np.arange(len(each.estimate)), f"C{number}"
        ax.fill_between(x, each.low, each.high, color=color, alpha=0.2, lw=0)
        ax.plot(x, each.estimate, color=color, label=name)
    ax.axhline(0, color="black", lw=0.8)
    ax.set(xlabel=f"{row.capitalize()}s after the treatment", ylabel=label)
    figure.legend(*ax.get_legend_handles_labels(), fontsize=9, loc="outside lower center", ncols=2)


def by_regime(figure: FigureBase, rows: Sequence[dict], unit: float, label: str) -> None:
    """Effects on average and in each regime: calibrated intervals, and those of theory.

    Args:
        figure: Where to draw.
        rows: `name`, `median`, `low`, `high`, `low of theory` and `high of theory` each, in
            standard deviations.
        unit: What makes an effect of them.
        label: Of the effect.
    """
    ax = figure.subplots()
    place = -np.arange(len(rows), dtype=float)
    ends = {
        key: unit * np.array([row[key] for row in rows], float) for key in rows[0] if key != "name"
    }
    ax.hlines(
        place - 0.18, ends["low of theory"], ends["high of theory"], color="0.6", lw=2,
        label="of theory",
    )  # fmt: skip
    # The interval of a row that was not calibrated is that of theory.
    own = ends["low"] != ends["low of theory"]
    ax.hlines(place[own], ends["low"][own], ends["high"][own], color="C0", lw=4, label="calibrated")
    ax.plot(ends["median"], place, "o", color="black", ms=5, label="estimate")
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(place, [row["name"] for row in rows])
    ax.set(xlabel=label, ylim=(place[-1] - 0.5, 0.5))
    ax.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))


def history(
    figure: FigureBase,
    dates: np.ndarray,
    outcome: Float[np.ndarray, " date"],
    smoothed: Float[np.ndarray, " date"],
    filtered: Float[np.ndarray, " date"],
    name: str,
) -> None:
    """The outcome over time, turbulent dates shaded; below it both probabilities of turbulence.

    Args:
        figure: Where to draw.
        dates: In days, or their numbers.
        outcome: In its unit.
        smoothed: Probability of the turbulent regime given all dates.
        filtered: The same given no later date.
        name: Of the outcome.
    """
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    for start, end in _stretches(smoothed > _LIKELY):
        above.axvspan(dates[start], dates[end], color=_TURBULENT, alpha=0.15, lw=0)
    above.plot(dates, outcome, color="black", lw=0.9)
    above.axhline(0, color="0.7", lw=0.8)
    above.set(ylabel=name, title="Shaded: the turbulent regime is the likelier one")
    above.title.set_fontsize(10)
    below.fill_between(
        dates, 0, smoothed, color=_TURBULENT, alpha=0.3, lw=0, label="smoothed (all dates)"
    )
    below.plot(dates, filtered, color="black", lw=0.8, label="filtered (no later date)")
    below.set(ylim=(0, 1), ylabel="P(turbulent)")
    figure.legend(
        *below.get_legend_handles_labels(), fontsize=9, loc="outside lower center", ncols=2
    )


def contour(
    figure: FigureBase,
    estimate: float,
    se: float,
    dof: int,
    causes: Sequence[Benchmark],
    robustness: float,
) -> None:
    """The estimate that an omitted cause of given strength would leave (Cinelli and Hazlett 2020).

    Args:
        figure: Where to draw.
        estimate: Of the effect.
        se: Its standard error, by least squares.
        dof: Degrees of freedom.
        causes: As strong as each control.
        robustness: Robustness value of the estimate.
    """
    ax: Axes = figure.subplots()
    strongest = max(
        [robustness, *(v for each in causes for v in (each.with_treatment, each.with_outcome))]
    )
    end = float(np.clip(1.3 * strongest, 0.02, 0.95))
    grid = np.linspace(0, end, 121)
    d, y = np.meshgrid(grid, grid)
    # Beyond zero the effect has the other sign.
    left = np.sign(estimate) * (abs(estimate) - se * np.sqrt(dof) * np.sqrt(y * d / (1 - d)))
    lines = ax.contour(d, y, left, levels=9, colors="0.55", linewidths=0.8)
    ax.clabel(lines, fontsize=9, fmt="%.2g")
    zero = ax.contour(d, y, left, levels=[0.0], colors=_TURBULENT, linewidths=2)
    ax.clabel(zero, fontsize=9, fmt="0")
    ax.plot(0, 0, "^", color="black", clip_on=False, ms=7)
    ax.annotate(f"as estimated: {estimate:.3g}", (0, 0), (6, 8), textcoords="offset points")
    ax.plot(
        robustness,
        robustness,
        "s",
        color=_TURBULENT,
        ms=6,
        label=f"robustness value {robustness:.1%}",
    )
    for number, each in enumerate(causes):
        left_over = adjusted(estimate, se, dof, each.with_treatment, each.with_outcome)
        ax.plot(
            each.with_treatment, each.with_outcome, "o", color=f"C{number % 10}", ms=6,
            label=f"as strong as {each.name}: {left_over:.3g}",
        )  # fmt: skip
    ax.set(
        xlabel="Part of the treatment that the cause explains (partial R²)",
        ylabel="Part of the outcome (partial R²)",
        xlim=(0, end),
        ylim=(0, end),
    )
    ax.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))


def _stretches(inside: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of each stretch of true values; a stretch of one ends at the next."""
    edges = np.flatnonzero(np.diff(np.r_[0, inside.astype(int), 0]))
    last = len(inside) - 1
    return [(start, min(end, last)) for start, end in edges.reshape(-1, 2).tolist()]
