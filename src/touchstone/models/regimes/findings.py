"""What a training says of an economy, as an economist reads it: sentences, tables and figures."""

from functools import partial

import numpy as np
from jaxtyping import Bool, Float

from touchstone.contract import Comparison, Drawing
from touchstone.models.regimes import (
    drawings,
    effects,
    gibbs,
    refusals,
    responses,
    sensitivity,
    series,
    switching,
)
from touchstone.models.regimes import economy as economies
from touchstone.models.regimes.economy import Economy
from touchstone.models.regimes.responses import Responses
from touchstone.models.regimes.sensitivity import Benchmark
from touchstone.models.regimes.series import Recipe, Table
from touchstone.models.regimes.switching import Switching

_OWN_YEARS, _LAG_YEARS = 2, 3  # of the lags of outcome and treatment
_LAG_DATES = 4  # dates for each lag, fewer of which shorten both
_STRETCH_YEARS = 3  # of the largest treatments, without which the response is shown, too
_FEW = 0.7  # part of a response, less than which is left without these: they carry it


def answers(found: Economy, recipe: Recipe) -> list[str]:
    """What the responses say, in a sentence for each outcome; and which horizon all else is of."""
    said, the = [], "the " if recipe.cumulative else ""
    for outcome, (average, calm, turbulent, apart) in zip(
        found.responding, found.responses, strict=True
    ):
        h = responses.farthest(average)

        def interval(rows: np.ndarray, h: int = h) -> str:
            return f"{rows[h, 0]:.2g} ({rows[h, 1]:.2g} to {rows[h, 2]:.2g})"

        low, high = apart[h, 1:3]
        differ = "regimes differ" if low > 0 or high < 0 else "the data do not tell regimes apart"
        apart_from_zero = (average[:, 3] > 0) | (average[:, 4] < 0)
        said.append(
            f"a unit of {recipe.treatment} moves {the}{outcome} by {interval(average)} on "
            f"average {found.after(h)}, where it is farthest from zero and the joint band of all "
            f"horizons goes from {average[h, 3]:.2g} to {average[h, 4]:.2g}; by {interval(calm)} "
            f"after calm and by {interval(turbulent)} after turbulent dates: {differ} (90 % "
            f"intervals of this horizon). The joint band of the average is apart from zero "
            f"{_when(apart_from_zero, found.row)}"
        )
    estimate, _, low, high = found.effect[0] * found.sd[0] / found.sd[1]
    first = found.responses[0, 0]
    opposite = estimate * first[responses.farthest(first), 0] < 0
    said.append(
        f"the effects by regime, robustness values and placebos below are of {recipe.outcome} "
        f"{found.after(recipe.horizon)}, where the average effect of a unit is {estimate:.2g} "
        f"({low:.2g} to {high:.2g})"
        + (", of the opposite sign: they say nothing of the response above" if opposite else "")
    )
    return said


def _when(inside: Bool[np.ndarray, " horizon"], row: str) -> str:
    """Stretches of horizons, in words."""
    edges = np.flatnonzero(np.diff(np.r_[0, inside.astype(int), 0])).reshape(-1, 2)
    if not len(edges):
        return "at no horizon"
    stretches = [
        f"{start}" if end == start + 1 else f"{start} to {end - 1}" for start, end in edges.tolist()
    ]
    return f"after {', '.join(stretches)} {row}s"


def by_horizon(economy: Economy, recipe: Recipe, found: Responses) -> list[Comparison]:
    """Responses of each outcome at every sixth horizon, as tables."""
    horizons = responses.shown(found.numbers.shape[2])
    return [
        Comparison(
            f"Response of {outcome} to one unit of {recipe.treatment} (90 %)",
            [
                {
                    "name": f"{group}, {economy.after(h)}", "n": int(n_rows[h]),
                    **dict(zip(responses.NUMBERS, of_group[h].tolist(), strict=True)),
                }
                for group, of_group in zip(responses.GROUPS, of_outcome, strict=True)
                for h in horizons
            ],
        )
        for outcome, of_outcome, n_rows in zip(
            economy.responding, found.numbers, found.n_rows, strict=True
        )
    ]  # fmt: skip


def gaps(recipe: Recipe, found: Responses, n: int) -> list[str]:
    """How many dates are left out of responses, in a sentence for each outcome that has gaps."""
    return [
        f"{of_outcome.min()} to {of_outcome.max()} of {n} dates are left out of the response of "
        f"{outcome}, by its horizon, since values of it are missing"
        for outcome, of_outcome in zip(recipe.outcomes, found.n_gaps, strict=True)
        if of_outcome.any()
    ]


def level(
    found: Economy, table: Table, recipe: Recipe, rng: np.random.Generator
) -> tuple[Drawing, str]:
    """Response of the outcome, or of its sum, by distributed lags, with and without the years of
    the largest treatments."""
    both = np.stack([table.column(recipe.outcome), table.column(recipe.treatment)])
    inside = np.isfinite(both[0])
    both, dates = both[:, inside], table.dates[inside]
    known = np.flatnonzero(np.isfinite(both[1]))
    in_a_year = 365.25 / float(np.diff(dates).astype(int).mean())
    # As Romer and Romer (2004) have it, where there are enough dates; before the first treatment
    # that is known there was none.
    years = min(1.0, len(known) / (_LAG_DATES * (_OWN_YEARS + _LAG_YEARS) * in_a_year))
    n_own, n_lags = (max(round(y * years * in_a_year), 1) for y in (_OWN_YEARS, _LAG_YEARS))
    chosen = slice(max(known[0] - n_lags, 0), known[-1] + 1)
    both, dates = np.nan_to_num(both[:, chosen]), dates[chosen]
    length = min(round(_STRETCH_YEARS * in_a_year), len(dates) // 4)
    start = int(np.convolve(both[1] ** 2, np.ones(length), "valid").argmax())
    away = slice(start, start + length)
    years = " to ".join(str(dates[k].astype("datetime64[M]")) for k in (start, start + length - 1))
    rest = both[1].copy()
    rest[away] = 0.0
    treatments = {"all treatments": both[1], f"without those of {years}": rest}
    answers = {
        name: effects.distributed_lags(
            both[0], treatment, n_own, n_lags, 4 * n_lags // 3 + 1, rng, recipe.cumulative
        )
        for name, treatment in treatments.items()
    }
    ours, without = (each.estimate for each in answers.values())
    far = int(np.abs(ours).argmax())
    least = int(np.abs(without).argmax())
    of_outcome = f"the sum of {recipe.outcome}" if recipe.cumulative else recipe.outcome
    drawing = Drawing(
        "level",
        f"Response of {of_outcome} to a unit of {recipe.treatment}, by distributed lags of all "
        f"dates (Romer and Romer 2004: {n_own} of the outcome, {n_lags} of the treatment), with "
        "asymptotic 90 % intervals, which are not calibrated. It is an effect if the treatment "
        "depends on no outcome, as a shock does. The dates of the largest treatments are those of "
        f"{years}.",
        partial(drawings.level, responses=answers, label=of_outcome, row=found.row),
    )
    whole = answers["all treatments"]
    sentence = (
        f"by distributed lags {of_outcome} is farthest from zero {found.after(far)} than a unit of "
        f"{recipe.treatment}, at {ours[far]:.3g} (asymptotic 90 % interval {whole.low[far]:.3g} to "
        f"{whole.high[far]:.3g}); without the treatments of {years}, {length} of {len(dates)} "
        f"dates, it is {without[least]:.3g} at most, {found.after(least)}"
    )
    if without[least] * np.sign(ours[far]) < _FEW * abs(ours[far]):
        sentence += (
            ": much of the effect is that of these dates, and says little of treatments at others"
        )
    return drawing, sentence


def figures(
    found: Economy,
    recipe: Recipe,
    fitted: series.Design,
    sampled: gibbs.Sampled,
    tables: list[Comparison],
) -> list[Drawing]:
    """Effects by horizon and by regime, history, and sensitivity, in the units of the data."""
    unit = float(found.sd[0] / found.sd[1])
    when = found.after(recipe.horizon)
    per = f"{recipe.outcome} {when}, per unit of {recipe.treatment}"
    return [
        effect_by_horizon(found),
        Drawing(
            "effect_by_regime",
            f"Effect of {recipe.treatment} on {recipe.outcome} {when}, on average and in each "
            "regime. Blue intervals are as wide as simulated series of this length and dependence "
            "need for 90 %; grey ones are those of theory, and the only ones of an effect that has "
            "no others.",
            partial(drawings.by_regime, rows=tables[0].rows, unit=unit, label=per),
            2.4,
        ),
        Drawing(
            "regime_history",
            f"Regimes over time. {drawings.PROBABILITIES}",
            partial(
                drawings.history, dates=fitted.dates, outcome=fitted.outcome,
                smoothed=sampled.turbulent[0], filtered=sampled.filtered[0], name=recipe.outcome,
            ),
            4.6,
        ),
        omitted_cause_drawing(found, found.window(fitted)),
    ]  # fmt: skip


def effect_by_horizon(found: Economy) -> Drawing:
    """Responses of all outcomes in the training."""
    labels = found.responding
    return Drawing(
        "effect_by_horizon",
        f"Response to one unit of {found.names[1]} in the training, by local projections: on "
        "average, and after calm and turbulent dates. Dark bands hold at each horizon, light ones "
        "at all of them together, with 90 %.",
        partial(drawings.by_horizon, responses=found.responses, labels=labels, row=found.row),
        2.9 * len(labels) + 0.5,
    )


def omitted_cause_drawing(found: Economy, window: economies.Window) -> Drawing:
    """What an omitted cause would leave of the average effect in the first of some windows."""
    y, d, x = window.outcome[0], window.treatment[0], window.controls[0]
    outcome, treatment = found.names[:2].tolist()
    unit = float(found.sd[0] / found.sd[1])
    least = sensitivity.regress(y, np.column_stack([d, x]))
    causes = sensitivity.benchmarks(y, d, x, found.controls)
    return Drawing(
        "sensitivity",
        f"What the average effect of {treatment} on {outcome} {found.after(int(found.horizon))} "
        f"in these {len(y)} dates, by least squares, would be if a cause of both had been omitted, "
        "by how much of each it explains. On the red line nothing is left of the effect. Dots: a "
        f"cause as strong as each control.{_too_strong(found, causes)}",
        partial(
            drawings.contour, estimate=unit * float(least.slope[0]), se=unit * float(least.se[0]),
            dof=least.dof, causes=causes,
            robustness=sensitivity.robustness(float(least.slope[0] / least.se[0]), least.dof),
        ),
        4.2,
    )  # fmt: skip


def posterior(found: Economy, prior: economies.Prior, rng: np.random.Generator) -> Comparison:
    """Quantities of the training's rows under the Markov-switching model, beside their prior."""
    drawn = economies.draw_parameters(prior, found, rng, len(found.draws)).quantities
    names = ("effect_calm", "effect_turbulent", "sd_calm", "sd_turbulent", "stay_calm",
             "stay_turbulent", "treatment_sd")  # fmt: skip
    rows = []
    for name, after, before in zip(names, found.parameters.quantities.T, drawn.T, strict=True):
        low, median, high = (float(v) for v in np.quantile(after, [0.05, 0.5, 0.95]))
        ends = [float(v) for v in np.quantile(before, [0.05, 0.95])]
        rows.append(
            {
                "name": name, "n": int(found.n_rows), "median": median, "low": low, "high": high,
                "prior low": ends[0], "prior high": ends[1],
            }
        )  # fmt: skip
    return Comparison("Posterior of the Markov-switching regression (sd)", rows)


def evidence(
    fits: list[Switching], standard: Float[np.ndarray, "row column"], n: int
) -> Comparison:
    """How well one regime and more explain the outcome, and predict it on the dates held out.

    Args:
        fits: To the rows of the training, of one regime and more.
        standard: Outcome, treatment and controls of all rows, those of the training first.
        n: Number of these.
    """

    n_held = len(standard) - n
    rows = [
        {
            "name": f"{k} regime{'s' * (k > 1)}",
            "n": n,
            "log likelihood": each.log_likelihood,
            "BIC": each.bic,
            "probability": float(p),
            "log score of a date held out": (
                float(each.states(standard[:, 0], standard[:, 1:]).log_evidence)
                - each.log_likelihood
            )
            / n_held,
        }
        for k, (each, p) in enumerate(
            zip(fits, switching.probabilities(fits), strict=True), start=1
        )
    ]
    return Comparison(
        "Number of regimes, by evidence (half of the BIC approximates it; the likelihood is exact)",
        rows,
    )


def omitted_cause(found: Economy, y: np.ndarray, d: np.ndarray, x: np.ndarray) -> Comparison:
    """Robustness values, and what causes as strong as each control would leave."""
    n, causes = len(y), sensitivity.benchmarks(y, d, x, found.controls)
    rows = [
        {"name": "robustness value of the estimate", "n": n, "value": float(found.robustness[0])},
        {"name": "of its sign, at 90 %", "n": n, "value": float(found.robustness[1])},
    ]
    for each in causes:
        rows.append(
            {
                "name": f"a cause as strong as {each.name}",
                "n": n,
                "value": each.estimate,
                "R2 with treatment": each.with_treatment,
                "R2 with outcome": each.with_outcome,
            }
        )
    return Comparison(
        "An omitted cause: how strong, and the effect (sd) that it would leave, "
        f"{found.after(int(found.horizon))}.{_too_strong(found, causes)}",
        rows,
    )


def _too_strong(found: Economy, causes: list[Benchmark]) -> str:
    """The controls that are so strong that no omitted cause could be, in a sentence."""
    named = {each.name for each in causes}
    missing = [name for name in found.controls if name not in named]
    if not missing:
        return ""
    return f" No omitted cause can be as strong as {', '.join(missing)}, given what these explain."


def refused(found: Economy, held_out: economies.Window) -> Comparison:
    """How many of the dates held out an answer would be refused for, by reason."""
    learnt, x = found.switching, held_out.controls[0]
    design = np.column_stack([held_out.treatment[0], x])
    turbulent = np.exp(np.asarray(learnt.states(held_out.outcome[0], design).predicted))[:, 1]
    expected = found.treatment_slope[0] + x @ found.treatment_slope[1:]
    shock = (held_out.treatment[0] - expected) * found.sd[1]
    refused = refusals.of_rows(found, refusals.Rows(shock, x, turbulent))
    rows = [
        {
            "name": reason, "n": len(x),
            "refused": sum(any(words.startswith(reason) for words in each) for each in refused),
        }
        for reason in refusals.REASONS
    ]  # fmt: skip
    return Comparison("Refused of the dates held out, by reason", rows)
