"""Plots: each function draws on the axes that it is given, and returns them; `answer` is a page.

Text has at least 9 pt where a figure is as wide as `PAGE`, the width of the rendered pages.
"""

from touchstone.figures.answer import PAGE, answer, residuals
from touchstone.figures.posterior import beside, gallery, intervals, predictive, trade_off
from touchstone.figures.scores import (
    against_severity,
    over_revisions,
    replications,
    risk_coverage,
    roc,
    separation,
)
from touchstone.figures.training import bars, effects, losses, ranks
from touchstone.figures.twins import twin_ratio, twins

__all__ = [
    "PAGE",
    "against_severity",
    "answer",
    "bars",
    "beside",
    "effects",
    "gallery",
    "intervals",
    "losses",
    "over_revisions",
    "predictive",
    "ranks",
    "replications",
    "residuals",
    "risk_coverage",
    "roc",
    "separation",
    "trade_off",
    "twin_ratio",
    "twins",
]
