"""Figures, by what they show."""

import matplotlib.pyplot as plt
import numpy as np

from touchstone import figures
from touchstone.vocabulary import Quantity


def test_the_pair_that_is_drawn_is_the_one_that_hangs_together():
    rng = np.random.default_rng(0)
    names = ("rate", "charge", "resistance")
    quantities = [
        Quantity(name, prior, 0.0, 1.0, unit, "")
        for name, prior, unit in zip(
            names, ("uniform", "loguniform", "loguniform"), ("", "C", "Ω"), strict=True
        )
    ]
    draws = rng.standard_normal((500, 3))
    draws[:, 2] = -(draws[:, 1] ** 3) + 0.1 * rng.standard_normal(500)
    draws[:, 1:] = np.exp(draws[:, 1:])
    prior = np.exp(10 * rng.standard_normal((50, 3)))
    ax = figures.trade_off(plt.figure().subplots(), quantities, draws, prior)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("charge (C)", "resistance (Ω)")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    posterior, before = ax.lines
    assert len(before.get_xdata()) == 50
    np.testing.assert_allclose(posterior.get_ydata(), draws[:, 2])
    # The window is that of the posterior, whatever the prior.
    low, high = np.log(ax.get_ylim())
    assert high - low < 1.2 * np.ptp(np.log(draws[:, 2]))


def test_posteriors_stand_beside_each_other_with_their_intervals():
    _, ax = plt.subplots()
    even = np.linspace(0, 1, 101)[:, None] * [1.0, 10.0]
    figures.beside(ax, ["a", "b"], {"one": even, "other": even + 5}, np.array([0.3, 4.0]))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["truth", "one", "other"]
    for container, shift in zip(ax.containers, (0, 5), strict=True):
        (bars,) = container[2]
        ends = [segment[:, 0] for segment in bars.get_segments()]
        np.testing.assert_allclose(ends, [[shift + 0.05, shift + 0.95], [shift + 0.5, shift + 9.5]])
