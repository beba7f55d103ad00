"""Plots: each function draws on the axes that it is given, and returns them.

Text has at least 9 pt where a figure is as wide as `PAGE`, the width of the rendered pages.
"""

from touchstone.figures.posterior import beside, gallery, intervals, predictive, trade_off
from touchstone.figures.scores import against_severity, separation
from touchstone.figures.training import bars, losses, ranks

PAGE = 10.0  # inches

__all__ = [
    "PAGE",
    "against_severity",
    "bars",
    "beside",
    "gallery",
    "intervals",
    "losses",
    "predictive",
    "ranks",
    "separation",
    "trade_off",
]
