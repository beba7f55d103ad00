"""Figures, by what they show."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from touchstone import figures
from touchstone.vocabulary import Cases, Computation, Posterior, Prediction, Quantity, View


@pytest.fixture(autouse=True)
def closed():
    """No figure outlives its test."""
    yield
    plt.close("all")


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


# Intervals ----------------------------------------------------------------------------------------


def row(name, interval, median, prior=(0.0, 10.0)):
    return {
        "quantity": name,
        "interval_90": list(interval),
        "median": median,
        "prior_interval_90": list(prior),
    }


def drawn(*rows):
    """Of each row: ends of the prior's bar, ends of the posterior's, and the median."""
    ax = figures.intervals(plt.figure().subplots(), rows)
    places = [np.asarray(line.get_xdata(), float).tolist() for line in ax.lines]
    assert [label.get_text() for label in ax.get_yticklabels()] == [r["quantity"] for r in rows]
    return [places[k : k + 3] for k in range(0, len(places), 3)]


def test_intervals_stand_within_those_of_the_prior_in_decades_where_it_spans_one():
    linear, logarithmic = drawn(
        row("a", (2.5, 7.5), 6.0), row("b", (1.0, 100.0), 10.0, prior=(0.1, 1000.0))
    )
    np.testing.assert_allclose(np.concatenate(linear), [0, 1, 0.25, 0.75, 0.6])
    np.testing.assert_allclose(np.concatenate(logarithmic), [0, 1, 0.25, 0.75, 0.5])


def test_a_median_far_beyond_the_prior_is_clipped_as_its_bar_is():
    above, below = drawn(row("above", (50, 70), 60), row("below", (-70, 20), -60))
    np.testing.assert_allclose(np.concatenate(above), [0, 1, 1.1, 1.1, 1.1])
    np.testing.assert_allclose(np.concatenate(below), [0, 1, -0.1, 1.1, -0.1])


# Text ---------------------------------------------------------------------------------------------


def observation():
    """A view, one case with a missing sample, and its posterior."""
    x = np.linspace(0, 1, 20)
    observed, mask = np.sin(6 * x)[None], np.arange(20)[None] != 5
    cases = Cases(
        observed,
        mask,
        np.zeros((1, 1)),
        np.zeros((1, 1), bool),
        np.array(["any"]),
        np.zeros(1),
        None,
    )
    prediction = Prediction(observed, np.full((1, 20), 0.1), *[observed] * 2, 0.5 + 0.4 * observed)
    weight = np.full((1, 4), 0.25)
    nothing = Computation.unchecked()
    posterior = Posterior({}, weight, weight, weight, weight, prediction, np.zeros(1), nothing)
    return View(x, "Time (s)", "Signal (V)", 1.0), cases, posterior


def scores():
    rng = np.random.default_rng(0)
    variants = [("in_distribution", None, 0.0), ("control", "drift", 0.0), ("stress", "drift", 1.0)]
    return pd.concat(
        pd.DataFrame(
            {"split": split, "family": family, "severity": severity, "score": rng.random(9)}
        )
        for split, family, severity in variants
    )


def each_figure():
    rng = np.random.default_rng(0)
    view, cases, posterior = observation()
    draws = rng.standard_normal((50, 2))
    quantities = [Quantity(name, "normal", 0.0, 1.0, "V", "") for name in ("a", "b")]
    bars = [{"name": "a", "n": 3, "ours": 1.0, "theirs": None}]
    effect = {"name": "a", "n": 3, "median": 0.2, "low": 0.1, "high": 0.4}
    effect |= {"prior low": -1.0, "prior high": 1.0}
    band = np.array([0.5]), np.array([0.4]), np.array([0.6])
    columns = {f"quantity_{k}": rng.random(30) for k in range(21)}
    return {
        "against_severity": lambda ax: figures.against_severity(ax, scores(), "score", "Score"),
        "bars": lambda ax: figures.bars(ax, "Errors", bars),
        "effects": lambda ax: figures.effects(ax, "Effects", [effect]),
        "beside": lambda ax: figures.beside(ax, ["a", "b"], {"one": draws}, np.zeros(2)),
        "gallery": lambda ax: figures.gallery(ax, "Task", [(view, cases.observed[0])]),
        "intervals": lambda ax: figures.intervals(ax, [row("a", (2, 3), 2.5)]),
        "over_revisions": lambda ax: figures.over_revisions(ax, revisions(), "recall"),
        "losses": lambda ax: figures.losses(ax, {"part": rng.random(200)}),
        "predictive": lambda ax: figures.predictive(ax, view, cases, posterior, 0),
        "ranks": lambda ax: figures.ranks(ax, columns, band, "method"),
        "replications": lambda ax: figures.replications(
            ax, [{"family": "a", "severity": 1.0, "flagged": 0.7, "low": 0.5, "high": 0.8}]
        ),
        "residuals": lambda ax: figures.residuals(ax, view, cases, posterior, 0),
        "risk_coverage": lambda ax: figures.risk_coverage(ax, harm()),
        "roc": lambda ax: figures.roc(
            ax,
            [
                {"name": name, "false_alarms": [0.05, 0.5], "recall": [0.4, 0.9]}
                for name in ("decision", "k-hat")
            ],
            0.05,
        ),
        "separation": lambda ax: figures.separation(ax, scores(), "score", 0.5),
        "twin_ratio": lambda ax: figures.twin_ratio(ax, curves()),
        "twins": lambda ax: figures.twins(ax, curves()),
        "trade_off": lambda ax: figures.trade_off(ax, quantities, draws, draws),
    }


def curves():
    """A system and its twin, as a report has them."""
    line = {"low": [1.0, 2.0], "median": [1.5, 2.5], "high": [2.0, 3.0]}
    point = {"name": "a", "x": 1.0, "low": 1.0, "median": 1.5, "high": 2.0}
    return {
        "x": [0.0, 2.0], "x_label": "Time (s)", "y_label": "Signal (V)", "factual": line,
        "twin": line, "twin_points": [point],
        "observed": [{"name": "a", "x": 1.0, "y": 1.4, "error": 0.2}],
    }  # fmt: skip


def revisions():
    """Rates of a rule at three revisions, as the history keeps them."""
    ends = {"recall_value": [0.5, 0.6, 0.4], "recall_low": [0.4, 0.5, 0.3]}
    ends |= {"recall_high": [0.6, 0.7, 0.5]}
    return pd.DataFrame(ends | {"revision": ["", 40 * "a", 40 * "b"]})


def harm():
    """What a rule lets through, as its report has it."""
    rate = {"value": 0.1, "low": 0.05, "high": 0.2, "n": 60}
    curve = [{"accepted": s, "wrong": 0.4 * s, "wrong_by_size": 0.4} for s in (0.2, 0.6, 1.0)]
    return {"accepted": rate | {"value": 0.6}, "wrong": rate, "curve": curve}


def test_no_figure_is_left_out_below():
    assert {*each_figure(), "PAGE", "answer"} == set(figures.__all__)


@pytest.mark.parametrize("name", sorted(each_figure()))
def test_text_on_a_page_has_nine_points_at_least_and_stays_on_it(name):
    fig, ax = plt.subplots(figsize=(figures.PAGE, 4.6), layout="constrained")
    assert each_figure()[name](ax) is ax
    assert_readable(fig)


def assert_readable(fig):
    fig.canvas.draw()
    shown = [text for text in fig.findobj(Text) if text.get_visible() and text.get_text().strip()]
    assert shown
    assert min(text.get_fontsize() for text in shown) >= 9
    for legend in filter(None, (ax.get_legend() for ax in fig.axes)):
        assert fig.bbox.containsx(legend.get_window_extent().x1)
        assert fig.bbox.containsy(legend.get_window_extent().y0)


@pytest.mark.parametrize("known", [False, True])
def test_the_figure_of_an_answer_shows_record_residuals_and_intervals(known):
    view, cases, posterior = observation()
    rng = np.random.default_rng(0)
    quantities = [Quantity(name, "normal", 0.0, 1.0, "V", "") for name in ("a", "b")]
    draws = {name: rng.standard_normal((1, 50)) for name in ("a", "b")}
    cases = cases._replace(known=np.array([[False, known]]))
    table = [row("a", (2, 3), 2.5) | {"record": None}]
    posterior = posterior._replace(draws=draws)
    fig = figures.answer(quantities, [view], cases, posterior, draws, table)
    assert_readable(fig)
    record, residual, *rest = fig.axes
    assert record.get_ylabel() == "Signal (V)"
    assert len(residual.lines[0].get_ydata()) == cases.mask.sum()
    assert len(rest) == (1 if known else 2)  # a trade-off takes two quantities


def test_a_sample_that_the_posterior_thought_impossible_is_clipped_not_lost():
    view, cases, posterior = observation()
    prediction = posterior.prediction._replace(innovation=np.array([[-np.inf, *range(18), np.inf]]))
    ax = figures.residuals(
        plt.figure().subplots(), view, cases, posterior._replace(prediction=prediction), 0
    )
    assert np.isfinite(ax.lines[0].get_ydata()).all()
