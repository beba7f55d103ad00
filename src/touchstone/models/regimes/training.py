"""From a table of series to an economy: regimes, effects with intervals, sensitivity, posterior."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression

from touchstone.contract import LEVEL, REACH, Comparison, Drawing
from touchstone.models.regimes import (
    answer,
    effects,
    findings,
    gibbs,
    refusals,
    responses,
    sensitivity,
    series,
    switching,
)
from touchstone.models.regimes import economy as economies
from touchstone.models.regimes.economy import REGIMES, Economy
from touchstone.models.regimes.effects import Effects, Fold, Pivots
from touchstone.models.regimes.series import Recipe, Table
from touchstone.models.regimes.switching import Switching
from touchstone.reliability.guardrail import wilson

_GRID = (0.0, 0.25, 0.5, 0.7, 0.85)  # dependence of the series that calibrate the intervals
_MORE_WINDOWS = 3  # times the series of other intervals: windows are drawn by these, not judged
_N_PLACEBOS = 40
_N_QUICK = 40  # steps of the fit to a simulated series
_UNLIKELY = 0.05  # p-value of the placebos below which it is said


class Learnt(NamedTuple):
    """What came of a training.

    Attributes:
        economy: What is kept.
        n_held_out: Rows held out.
        comparisons: Errors on them.
        tables: What was learnt.
        said: What was chosen, and why, in words.
        drawings: The answer, as an economist reads it.
    """

    economy: Economy
    n_held_out: int
    comparisons: list[Comparison]
    tables: list[Comparison]
    said: list[str]
    drawings: list[Drawing]


class Calibrated(NamedTuple):
    """How an average effect is estimated, and its interval made.

    Attributes:
        folds: Of a number of dates, by the plan that was chosen.
        pivots: Of effects that are estimated on these folds.
    """

    folds: Callable[[int], list[Fold]]
    pivots: Pivots


def by_regime(
    y: Float[np.ndarray, " row"],
    d: Float[np.ndarray, " row"],
    x: Float[np.ndarray, "row control"],
    regimes: Switching,
    horizon: int,
    plan: list[Fold],
) -> Effects:
    """Effects in each of two regimes, weighted by probabilities that use no outcome which was not
    there before the treatment."""
    filtered = regimes.states(y, np.column_stack([d, x])).filtered
    weight = regimes.ahead(np.asarray(filtered), horizon + 1)
    features = np.column_stack([x, weight[:, 1], x * weight[:, 1:]])
    return effects.partially_linear(y, d, features, effects.ridge(), plan, weight)


def fit_regimes(
    config: dict,
    outcome: Float[np.ndarray, " row"],
    design: Float[np.ndarray, "row regressor"],
    rng: np.random.Generator,
    **sizes: int,
) -> Switching:
    """Two regimes that last as long as the prior lets expect, where the data do not say otherwise:
    the mode of the posterior; see `switching.fit`."""
    stay, leave = (np.array(config["prior"][key], float) - 1 for key in ("stay", "leave"))
    counted = np.array([[stay[0], leave[0]], [leave[1], stay[1]]])
    return switching.fit(outcome, design, 2, rng, counted=counted, **sizes)


def learn(
    table: Table, recipe: Recipe, config: dict, settings: dict, rng: np.random.Generator
) -> Learnt:
    """Learn an economy.

    Args:
        table: The series.
        recipe: What is asked of them.
        config: Of the model.
        settings: Of `train`.
        rng: For all randomness.

    Raises:
        ArtifactError: As in `series.design`.
    """
    whole = series.design(table, recipe)
    n_held = round(settings["held_out"] * len(whole.dates))
    fitted = whole.take(slice(0, len(whole.dates) - n_held))
    columns = np.column_stack([whole.outcome, whole.treatment, whole.controls])
    n = len(fitted.dates)
    mean, sd = columns[:n].mean(0), columns[:n].std(0)
    every = (columns - mean) / sd
    y, d, x = every[:n, 0], every[:n, 1], every[:n, 2:]

    of_outcome = np.linalg.lstsq(np.column_stack([np.ones(n), d, x]), y)[0]
    left = y - np.column_stack([np.ones(n), d, x]) @ of_outcome
    full = np.column_stack([np.ones(n), x])
    of_treatment = np.linalg.lstsq(full, d)[0]
    memory, innovations = economies.autoregression(x)
    fits = [
        switching.fit(y, np.column_stack([d, x]), k, rng)
        for k in range(1, settings["n_regimes"] + 1)
    ]
    regimes = fit_regimes(config, y, np.column_stack([d, x]), rng)
    states = regimes.states(y, np.column_stack([d, x]))
    latest = regimes.states(every[:, 0], every[:, 1:])
    bare = Economy(
        names=np.array([recipe.outcome, recipe.treatment, *whole.names]),
        mean=mean,
        sd=sd,
        low=x.min(0),
        high=x.max(0),
        memory=memory,
        innovations=innovations,
        slope=of_outcome[2:],
        treatment_slope=of_treatment,
        outcome_variance=np.array(left.var()),
        treatment_variance=np.array((d - full @ of_treatment).var()),
        transition=regimes.transition,
        intercept=regimes.intercept,
        variance=regimes.variance,
        draws=np.zeros((0, 0)),
        now=np.exp(np.asarray(latest.filtered)[-1]) @ regimes.transition,
        effect=np.array([[regimes.slope[0], 0, 0, 0]]),
        inflation=np.ones(2),
        errors=np.zeros((2, 0)),
        outcomes=np.array(recipe.outcomes),
        responses=np.zeros((0, 0, 0, 0)),
        robustness=np.zeros(2),
        n_rows=np.array(n),
        horizon=np.array(recipe.horizon),
        last=every[-1, 2:],
        centre=x.mean(0),
        precision=np.linalg.pinv(np.cov(x.T)),
        farthest=np.array(0.0),
        n_regime=np.exp(np.asarray(states.smoothed)).sum(0),
        break_p=np.array(1.0),
        published=np.array(list(recipe.publication_lags)),
        lags=np.array(list(recipe.publication_lags.values()), int),
        last_date=whole.dates[-1].astype(str),
        period=np.array(series.period(table)),
        evidence=switching.probabilities(fits),
        cumulative=np.array(recipe.cumulative),
    )
    apart = x - bare.centre
    bare = _with(bare, farthest=((apart @ bare.precision) * apart).sum(1).max())
    found, calibrated, effect_tables, said = _effects(bare, y, d, x, config, settings, rng)
    sampled = gibbs.sample(
        found, prior_of(config, found), found.window(fitted), rng,
        settings["n_warmup"], settings["n_draws"],
    )  # fmt: skip
    draws = np.concatenate([np.reshape(a[0], (len(a[0]), -1)) for a in sampled.parameters], axis=1)
    known = regimes.ahead(np.asarray(states.filtered), recipe.horizon + 1)
    rows = responses.Rows(fitted.dates, fitted.treatment, x, known, regimes.variance)
    n_horizons, n_series = settings["n_horizons"], settings["n_series"]
    shown = responses.by_horizon(table, recipe, rows, n_horizons, _GRID, n_series, rng)
    found = _with(found, draws=draws, responses=shown.numbers)
    held_out = found.window(whole.take(slice(n, None)))
    found = _with(found, break_p=np.array(refusals.break_since(found, held_out)))
    found, ahead, of_outcome_ahead = outcome_ahead(found, found.window(whole))
    controls = placebos(recipe.horizon, calibrated, y, d, x, rng)
    row = controls[0]
    if row["p-value"] < _UNLIKELY:
        said.append(
            f"treatments of other dates have an effect beyond {LEVEL:.0%} intervals in "
            f"{row['part']:.0%} of {_N_PLACEBOS} placebos, as many as in {row['p-value']:.0%} of "
            "series without any: these data vary more than the intervals allow for"
        )
    tables = [
        *effect_tables,
        *findings.by_horizon(found, recipe, shown),
        findings.posterior(found, prior_of(config, found), rng),
        findings.evidence(fits, every, n),
        findings.omitted_cause(found, y, d, x),
        Comparison(
            f"Placebos of the effect {found.after(recipe.horizon)}: other dates' treatments (part "
            "beyond 90 %), and the treatment that came later",
            controls,
        ),
        findings.refused(found, held_out),
        ahead,
    ]
    said += findings.gaps(recipe, shown, n)
    said.append(f"{sampled.turbulent[0].mean():.0%} of the dates are turbulent")
    said.append(of_outcome_ahead)
    said.append(f"R-hat of the posterior of the training is {sampled.r_hat[0]:.3f}")
    comparisons = [_held_out(regimes, every, n, of_outcome)]
    figures = findings.figures(found, recipe, fitted, sampled, tables)
    level, sentence = findings.level(found, table, recipe, rng)
    figures.insert(1, level)
    said = [*findings.answers(found, recipe), *answer.number_of_regimes(found), sentence, *said]
    return Learnt(found, n_held, comparisons, tables, said, figures)


def prior_of(config: dict, found: Economy) -> economies.Prior:
    """Of the parameters of economies about one that was learnt."""
    return economies.prior_of(
        config, float(found.outcome_variance), float(found.treatment_variance)
    )


def _with(found: Economy, **changes: np.ndarray) -> Economy:
    return Economy(**{**vars(found), **changes})


# Effects ------------------------------------------------------------------------------------------


def _effects(
    bare: Economy,
    y: np.ndarray,
    d: np.ndarray,
    x: np.ndarray,
    config: dict,
    settings: dict,
    rng: np.random.Generator,
) -> tuple[Economy, Calibrated, list[Comparison], list[str]]:
    """The average effect, those by regime, their intervals and how these came about, what was
    chosen."""
    n, j = x.shape
    trial = effects.partially_linear(y, d, x, effects.ridge(), effects.folds(n, "full"))
    dependence = effects.autocorrelation(trial.influence[:, 0])
    chosen = effects.choose_plan(n, 2 * j + 1, dependence, settings["n_folds"])
    seed = int(rng.integers(2**31))
    folds = partial(
        effects.folds, plan=chosen.name, n_folds=settings["n_folds"], embargo=chosen.embargo,
        seed=seed,
    )  # fmt: skip
    plan = folds(n)
    average = effects.partially_linear(y, d, x, effects.ridge(), plan)
    n_series = settings["n_series"]
    pivots = effects.linear_calibration(n, j, effects.ridge(), plan, _GRID, n_series, rng)
    measured = effects.measured_dependence(average)
    regimes = by_regime(y, d, x, bare.switching, int(bare.horizon), plan)
    fitted = _regime_pivots(bare, config, plan, n, n_series, rng)
    rows, numbers, prior = [], [], float(config["prior"]["effect"])
    estimates, errors = np.r_[average.estimate, regimes.estimate], np.r_[average.se, regimes.se]
    for k, (estimate, se) in enumerate(zip(estimates, errors, strict=True)):
        if k == 0:
            low, high = pivots.interval(estimate, se, measured, LEVEL)
        else:
            alone = Pivots(np.zeros(1), fitted[k - 1 : k])
            low, high = alone.interval(estimate, se, 0.0, LEVEL)
        theory = effects.asymptotic(estimate, se, n, LEVEL)
        numbers.append([estimate, se, low, high])
        rows.append(
            {
                "name": ("average", *REGIMES)[k],
                "n": n,
                "median": float(estimate),
                "low": float(low),
                "high": float(high),
                "prior low": -REACH * prior,
                "prior high": REACH * prior,
                "low of theory": theory[0],
                "high of theory": theory[1],
                "in units": float(estimate * bare.sd[0] / bare.sd[1]),
            }
        )
    of_arms: list[str] = []
    if len(np.unique(d)) == 2:
        unit = float(bare.sd[0] / bare.sd[1])
        more, of_arms = _doubly_robust(y, d, x, plan, prior, unit)
        rows += more
    least = sensitivity.regress(y, np.column_stack([d, x]))
    t_value = least.slope[0] / least.se[0]
    values = [sensitivity.robustness(t_value, least.dof, level=v) for v in (None, LEVEL)]
    inflation, errors = _window_errors(bare, config, n_series, rng)
    found = _with(
        bare, effect=np.array(numbers), inflation=inflation, errors=errors,
        robustness=np.array(values),
    )  # fmt: skip
    said = [
        f"the plan of folds is {chosen.name}: {chosen.why}",
        f"dependence of what is left of treatment and outcome is {measured:.2f}; intervals are "
        f"those of {n_series} simulated series at each of {len(_GRID)} strengths of dependence",
        "an omitted cause of treatment and outcome can not be detected from these data; it would "
        f"have to explain {values[0]:.1%} of what is left of both to explain the effect away",
        *of_arms,
    ]
    when = bare.after(int(bare.horizon))
    table = Comparison(f"Effect of one sd, in sd of the outcome, {when} (90 %)", rows)
    return found, Calibrated(folds, pivots), [table], said


def _doubly_robust(
    y: np.ndarray, d: np.ndarray, x: np.ndarray, plan: list[Fold], prior: float, unit: float
) -> tuple[list[dict], list[str]]:
    """The average effect of a treatment of two values by the interactive score, which needs only
    one of its nuisances to be right, as a row where there is one; and what is to be said of it."""
    try:
        found = effects.interactive(y, d > d.mean(), x, effects.ridge(), LogisticRegression(), plan)
    except ValueError as error:
        return [], [f"there is no doubly robust effect: {error}"]
    estimate, se = float(found.estimate[0] / np.ptp(d)), float(found.se[0] / np.ptp(d))
    low, high = effects.asymptotic(estimate, se, len(y), LEVEL)
    row = {
        "name": "average, doubly robust", "n": len(y), "median": estimate, "low": low, "high": high,
        "prior low": -REACH * prior, "prior high": REACH * prior, "low of theory": low,
        "high of theory": high, "in units": estimate * unit,
    }  # fmt: skip
    said = "the interval of the doubly robust effect is asymptotic, and not calibrated"
    if found.n_clipped:
        low, high = effects.OVERLAP
        said += (
            f"; the treatment of {found.n_clipped} of {len(y)} dates was all but certain, and "
            f"their propensities were set to {low:g} or {high:g}: overlap is weak"
        )
    return [row], [said]


def _simulated(
    bare: Economy,
    config: dict,
    n: int,
    plan: list[Fold],
    choose: Callable[[np.ndarray, np.ndarray], Switching],
    n_series: int,
    rng: np.random.Generator,
) -> Iterator[tuple[Effects, Float[np.ndarray, " regime"]]]:
    """Estimates of effects by regime in economies of the prior, and the truths."""
    parameters = economies.draw_parameters(prior_of(config, bare), bare, rng, n_series)
    window = economies.draw(bare, parameters, n, rng, rng)
    for y, d, x, truth in zip(*window[:3], parameters.effect, strict=True):
        regimes = choose(y, np.column_stack([d, x]))
        yield by_regime(y, d, x, regimes, int(bare.horizon), plan), truth


def _regime_pivots(
    bare: Economy,
    config: dict,
    plan: list[Fold],
    n: int,
    n_series: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "regime series"]:
    """Errors of effects by regime over standard errors, in economies of the training's length with
    regimes that are fitted to each economy, as those of the training were."""
    own = partial(fit_regimes, config, rng=rng, n_starts=1, n_steps=_N_QUICK)
    every = _simulated(bare, config, n, plan, own, n_series, rng)
    return np.array([(found.estimate - truth) / found.se for found, truth in every]).T


def _window_errors(
    bare: Economy, config: dict, n_series: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, " regime"], Float[np.ndarray, "regime series"]]:
    """How far off effects are in windows whose regimes are those of the training: errors over
    standard errors, root mean square; and truths less their shrunk estimates, in sds of these."""
    n, sd = config["n_dates"], prior_of(config, bare).effect
    plan = effects.folds(n, "full")
    n_windows = _MORE_WINDOWS * n_series
    every = list(_simulated(bare, config, n, plan, lambda *_: bare.switching, n_windows, rng))
    inflation = np.sqrt(
        np.mean([((found.estimate - truth) / found.se) ** 2 for found, truth in every], axis=0)
    )
    shrunk = [effects.shrink(found, inflation, sd) for found, _ in every]
    errors = [(truth - s.mean) / s.sd for s, (_, truth) in zip(shrunk, every, strict=True)]
    return inflation, np.array(errors).T


def recovered(
    table: Table, recipe: Recipe, config: dict, truth: np.ndarray, rng: np.random.Generator
) -> Comparison:
    """Effects by regime in series whose effects are known, beside these."""
    found = series.design(table, recipe)
    columns = np.column_stack([found.outcome, found.treatment, found.controls])
    y, d, *x = ((columns - columns.mean(0)) / columns.std(0)).T
    controls, n = np.column_stack(x), len(y)
    regimes = fit_regimes(config, y, np.column_stack([d, controls]), rng)
    plan = effects.folds(n, "full")
    got = by_regime(y, d, controls, regimes, recipe.horizon, plan)
    unit = columns[:, 0].std() / columns[:, 1].std()
    rows = []
    for name, estimate, se, known in zip(REGIMES, got.estimate, got.se, truth, strict=True):
        low, high = effects.asymptotic(float(estimate), float(se), n, LEVEL)
        rows.append(
            {
                "name": name, "n": n, "truth": float(known), "estimate": unit * float(estimate),
                "low": unit * low, "high": unit * high,
            }
        )  # fmt: skip
    return Comparison("Known effects of the synthetic economy (90 % intervals of theory)", rows)


# What else is said --------------------------------------------------------------------------------


def placebos(
    horizon: int,
    calibrated: Calibrated,
    y: np.ndarray,
    d: np.ndarray,
    x: np.ndarray,
    rng: np.random.Generator,
    n_controls: int = 99,
) -> list[dict]:
    """Effects where none can be, estimated as the average effect is, with the intervals that are
    reported: of treatments of other dates, which are not independent of each other, and of the
    next one.

    Args:
        horizon: Rows from the treatment to the outcome.
        calibrated: How the average effect was estimated.
        y, d, x: Outcome, treatment and controls.
        rng: For the dates, and the series beside them.
        n_controls: Simulated series that have as many placebos each.
    """

    def interval(got: effects.Effects) -> tuple[float, float]:
        measured = effects.measured_dependence(got)
        return calibrated.pivots.interval(float(got.estimate[0]), float(got.se[0]), measured, LEVEL)

    n, plan = len(y), calibrated.folds(len(y))
    shifts = rng.choice(np.arange(n // 4, 3 * n // 4), _N_PLACEBOS, replace=False)

    def part(y: np.ndarray, d: np.ndarray, x: np.ndarray) -> float:
        ends = [
            interval(effects.partially_linear(y, np.roll(d, k), x, effects.ridge(), plan))
            for k in shifts
        ]
        return float(np.mean([not low <= 0 <= high for low, high in ends]))

    ours = part(y, d, x)
    # Placebos of one series are not independent of each other: series like it say how often so many
    # go beyond.
    average = effects.partially_linear(y, d, x, effects.ridge(), plan)
    dependence = effects.measured_dependence(average)
    theirs = [
        part(*effects.simulate_linear(n, x.shape[1], dependence, rng)) for _ in range(n_controls)
    ]
    p_value = (1 + sum(each >= ours for each in theirs)) / (1 + n_controls)
    ahead = horizon + 1
    now, later = np.column_stack([x, d])[:-ahead], d[ahead:]
    lead = effects.partially_linear(
        y[:-ahead], later, now, effects.ridge(), calibrated.folds(len(later))
    )
    low, high = interval(lead)
    return [
        {"name": "treatments of other dates", "n": _N_PLACEBOS, "part": ours, "p-value": p_value},
        {
            "name": "the treatment after the outcome", "n": len(later),
            "median": float(lead.estimate[0]), "low": low, "high": high,
        },
    ]  # fmt: skip


def outcome_ahead(found: Economy, window: economies.Window) -> tuple[Economy, Comparison, str]:
    """How often intervals of the outcome hold it on dates held out, one step ahead.

    Args:
        found: The economy.
        window: All its rows, those that were trained on first.

    Returns:
        The economy, with how far its intervals have to reach; a table; and what it says.
    """
    y, d, x = window.outcome[0], window.treatment[0], window.controls[0]
    filtered = np.asarray(found.switching.states(y, np.column_stack([d, x])).filtered)
    known = found.switching.ahead(filtered, int(found.horizon) + 1)
    later = slice(int(found.n_rows), None)
    said = answer.outcomes(found, d[later], x[later], known[later, 1])
    scores = np.abs(found.mean[0] + found.sd[0] * y[later] - said.mean) / said.sd
    n = len(scores)
    reach = [answer.reach(scores[:k]) for k in range(n + 1)]
    # What the dates held out before each would have given.
    pairs = [(score, limit) for score, limit in zip(scores, reach, strict=False) if limit]
    held = {
        "normal, not calibrated": (scores <= REACH, REACH),
        "calibrated on the dates held out before": (np.array([s <= r for s, r in pairs]), reach[n]),
    }
    rows = []
    for name, (inside, far) in held.items():
        if len(inside):
            rate = wilson(inside.mean(), len(inside))
            of_rate = {"coverage": rate.value, "low": rate.low, "high": rate.high}
            rows.append({"name": name, "n": len(inside), **of_rate, "reach (sd)": far})
    words = "; ".join(
        "{name}: {coverage:.2f} ({low:.2f} to {high:.2f}) of {n}".format(**row) for row in rows
    )
    if reach[n] is not None:
        found = _with(found, outcome_reach=np.array([reach[n], n]))
    table = Comparison("90 % intervals of the outcome on dates held out, one step ahead", rows)
    return found, table, f"of the outcomes held out, 90 % intervals hold these parts: {words}"


def _held_out(regimes: Switching, every: np.ndarray, n: int, regression: np.ndarray) -> Comparison:
    """Errors of the outcome of the dates held out, given all before each."""
    y, design = every[:, 0], every[:, 1:]
    predicted = np.exp(np.asarray(regimes.states(y, design).predicted))
    ours = (predicted @ regimes.intercept + design @ regimes.slope)[n:]
    linear = regression[0] + design[n:] @ regression[1:]

    def error(guess):
        return float(np.sqrt(np.mean((guess - y[n:]) ** 2)))

    row = {
        "name": "later dates", "n": len(y) - n, "switching": error(ours),
        "regression": error(linear), "mean of the training": error(0.0),
    }  # fmt: skip
    return Comparison("Error of the outcome of dates held out (sd of the training)", [row])
