"""The figure of an answer: the records, what is left of them, and what of the prior is left."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from touchstone.figures.posterior import intervals, predictive, trade_off
from touchstone.vocabulary import Cases, Posterior, Quantity, View

PAGE = 10.0  # inches: the width of the rendered pages
_LARGEST = 6.0  # normal scores beyond which they are clipped


def residuals(ax: Axes, view: View, cases: Cases, posterior: Posterior, case: int) -> Axes:
    """Normal scores of each sample given those before it: standard normal under a right model."""
    mask = cases.mask[case]
    scores = posterior.prediction.innovation[case][mask].clip(-_LARGEST, _LARGEST)
    for k, alpha in ((2, 0.15), (1, 0.3)):
        ax.axhspan(-k, k, color="#4477aa", alpha=alpha, lw=0)
    ax.plot(view.x[mask], scores, ".-", ms=3, mec="black", mfc="black", color="0.6", lw=0.5)
    ax.set(xlabel=view.x_label, ylabel="Whitened residual (sd)")
    return ax


def answer(
    quantities: Sequence[Quantity],
    views: Sequence[View],
    cases: Cases,
    posterior: Posterior,
    prior: dict[str, np.ndarray],
    table: Sequence[dict],
) -> Figure:
    """Prediction on the records, whitened residuals, intervals beside priors, and one trade-off.

    Args:
        quantities: Of the model.
        views: How each of the cases is drawn; kinds of abscissa have axes of their own.
        cases: The records.
        posterior: Theirs.
        prior: Draws, shape (case, draw) each.
        table: Rows of intervals; of several records, those of what they share, or of the first.
    """
    kinds = list(dict.fromkeys(view.x_label for view in views))
    rows = [row for row in table if row["record"] is None] or [r for r in table if r["record"] == 1]
    bottom = max(4.2, 0.28 * len(rows))
    heights = [4.2, 2.0] * len(kinds) + [bottom]
    fig = plt.figure(figsize=(PAGE, sum(heights)), layout="constrained")
    grid = fig.add_gridspec(len(heights), 2, height_ratios=heights)
    above = [fig.add_subplot(grid[k, :]) for k in range(2 * len(kinds))]
    for k, view in enumerate(views):
        place = 2 * kinds.index(view.x_label)
        predictive(above[place], view, cases, posterior, k, legend=k == 0)
        residuals(above[place + 1], view, cases, posterior, k)
    unknown = [q for q, known in zip(quantities, cases.known[0], strict=True) if not known]
    tied = len(unknown) > 1
    intervals(fig.add_subplot(grid[-1, 0] if tied else grid[-1, :]), rows)
    if tied:
        ours, before = (
            np.stack([draws[q.name][0] for q in unknown], axis=1)
            for draws in (posterior.draws, prior)
        )
        trade_off(fig.add_subplot(grid[-1, 1]), unknown, ours, before)
    return fig
