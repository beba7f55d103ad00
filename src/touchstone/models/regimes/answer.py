"""Answers of a loaded economy: effects, regimes, and the outcome of one date or of many."""

import re
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from touchstone.contract import LEVEL, REACH
from touchstone.io.artifacts import ArtifactError
from touchstone.models.regimes import refusals, responses
from touchstone.models.regimes.economy import REGIMES, Economy


class Outcomes(NamedTuple):
    """Of some dates, in the unit of the outcome.

    Attributes:
        mean, sd: Of the predictive distribution, shape (row,).
        low, high: 90 % interval, shape (row,): as many of these standard deviations wide as the
            dates held out need, or a normal distribution where the artefact does not say.
        parameter, regime, noise: Parts of the variance: that the parameters are not known, that the
            regime is not known, and what stays if both were; they add up to one, shape (row,).
    """

    mean: Float[np.ndarray, " row"]
    sd: Float[np.ndarray, " row"]
    low: Float[np.ndarray, " row"]
    high: Float[np.ndarray, " row"]
    parameter: Float[np.ndarray, " row"]
    regime: Float[np.ndarray, " row"]
    noise: Float[np.ndarray, " row"]


def outcomes(
    economy: Economy,
    treatment: Float[np.ndarray, " row"],
    controls: Float[np.ndarray, "row control"],
    turbulent: Float[np.ndarray, " row"],
) -> Outcomes:
    """The outcome of each row by the law of total variance; all arguments standardised."""
    # Outcomes are linear in the coefficients, so that two moments of these say all.
    p = economy.parameters
    coefficients = np.column_stack([p.intercept, p.effect, p.slope])
    centre, covariance = coefficients.mean(0), np.cov(coefficients.T, bias=True)
    ones = np.ones_like(turbulent)
    weight = np.column_stack([1 - turbulent, turbulent])
    expected = np.column_stack([weight, weight * treatment[:, None], controls])
    apart = np.column_stack([-ones, ones, -treatment, treatment, 0 * controls])

    def variance(rows: np.ndarray) -> np.ndarray:
        return ((rows @ covariance) * rows).sum(1)

    parameter = variance(expected)
    regime = turbulent * (1 - turbulent) * ((apart @ centre) ** 2 + variance(apart))
    sizes = p.variance.mean(0)
    noise = (1 - turbulent) * sizes[0] + turbulent * sizes[1]
    total = parameter + regime + noise
    unit, sd = economy.sd[0], np.sqrt(total)
    mean = economy.mean[0] + unit * (expected @ centre)
    far = REACH if economy.outcome_reach is None else economy.outcome_reach[0]
    half = far * unit * sd
    return Outcomes(
        mean, unit * sd, mean - half, mean + half,
        parameter / total, regime / total, noise / total,
    )  # fmt: skip


class Question(NamedTuple):
    """Dates that are asked about.

    Attributes:
        treatment: Beyond what the controls let expect, in its unit, shape (row,).
        controls: Standardised, shape (row, J).
        turbulent: Probability of the turbulent regime, shape (row,).
        assumed: What was not given, by name.
        one: Whether one date was asked about, and not a batch of them.
    """

    treatment: Float[np.ndarray, " row"]
    controls: Float[np.ndarray, "row control"]
    turbulent: Float[np.ndarray, " row"]
    assumed: dict[str, float]
    one: bool


def features_of(economy: Economy, text: str) -> dict[str, list[float]]:
    """Values of all features from `NAME=VALUE NAME=VALUE ...`, by name.

    A value is a number, or numbers parted by commas: one for each row.

    Raises:
        ArtifactError: With every problem: features that are missing, unknown, given twice, could
            not have been known at their date, or have a value that is no finite number.
    """
    names = economy.controls
    values: dict[str, list[float]] = {}
    problems = []
    # Names may hold blanks, values not; what follows the last value is a name without one.
    *parts, rest = re.split(r"=(\S*)", f"{text} ")
    pairs = [*zip(parts[::2], parts[1::2], strict=True), (rest, "")]
    for name, given in [(name.strip(), given) for name, given in pairs if name.strip()]:
        numbers = []
        for value in given.split(","):
            try:
                numbers.append(float(value))
            except ValueError:
                numbers.append(np.nan)
            if not isfinite(numbers[-1]) and name in names:
                problems.append(f"{name}: {value!r} is no finite number")
        if name in values:
            problems.append(f"{name}: is given twice")
        elif name not in names:
            unknown = [f"{name}: is no feature of the training"]
            problems += refusals.look_aheads(economy, [name]) or unknown
        values[name] = numbers
    problems += [f"{name}: is missing" for name in names if name not in values]
    if problems:
        raise ArtifactError(f"features: {'; '.join(problems)}; expected {', '.join(names)}")
    return values


def question(economy: Economy, values: dict) -> Question:
    """Rows from the values of a form.

    Args:
        economy: The artefact.
        values: `treatment`, a number or a list; `turbulent`, the same or None; `features`, text or
            None.

    Raises:
        ArtifactError: As in `features_of`; if the numbers of rows differ.
    """
    columns = {"treatment": np.atleast_1d(values["treatment"])}
    assumed = {}
    if given := values.get("features"):
        columns |= features_of(economy, given)
    else:
        natural = economy.mean[2:] + economy.sd[2:] * economy.last
        assumed = dict(zip(economy.controls, map(float, natural), strict=True))
        columns |= {name: [value] for name, value in assumed.items()}
    if (turbulent := values.get("turbulent")) is None:
        turbulent = assumed["turbulent"] = float(economy.now[1])
    columns["turbulent"] = np.atleast_1d(turbulent)
    n = max(map(len, columns.values()))
    wrong = [f"{name}: {len(v)}" for name, v in columns.items() if len(v) not in (1, n)]
    if wrong:
        raise ArtifactError(f"numbers of rows differ: {'; '.join(wrong)}; expected 1 or {n}")
    full = {name: np.broadcast_to(np.array(v, float), n) for name, v in columns.items()}
    raw = np.stack([full[name] for name in economy.controls], axis=1)
    controls = (raw - economy.mean[2:]) / economy.sd[2:]
    return Question(full["treatment"], controls, full["turbulent"], assumed, n == 1)


def answer(economy: Economy, values: dict) -> dict:
    """What a form is answered; see `Model.predict`, and what clients of causal models expect.

    Of a batch, whatever differs from row to row is a list, and `estimates`, `probabilities` and
    `attribution` are those of the first row.

    Args:
        economy: The artefact.
        values: As in `question`.

    Raises:
        ArtifactError: As in `question`.
    """
    treatment = str(economy.names[1])
    asked = question(economy, values)
    q = asked.turbulent
    # The treatment is a shock: what comes on top of what the controls let expect.
    expected = economy.treatment_slope[0] + asked.controls @ economy.treatment_slope[1:]
    after = outcomes(economy, expected + asked.treatment / economy.sd[1], asked.controls, q)
    rows = refusals.Rows(asked.treatment, asked.controls, q)
    refused = refusals.of_rows(economy, rows)
    every = list(dict.fromkeys(words for each in refused for words in each))
    unit = economy.sd[0] / economy.sd[1]
    horizon = int(economy.horizon)
    effects = {
        name: {
            **dict(zip(("estimate", "se", "low", "high"), (unit * row).tolist(), strict=True)),
            "horizon": horizon, "when": economy.after(horizon),
        }
        for name, row in zip(("average", *REGIMES), economy.effect, strict=True)
    }  # fmt: skip
    verdicts = np.where(np.array(list(map(len, refused))) > 0, "escalate", "accept")
    of_row = {
        "outcome": {name: getattr(after, name) for name in ("mean", "sd", "low", "high")},
        "regime_probabilities": {"calm": 1 - q, "turbulent": q},
        "dominant_regime": np.where(q > 0.5, "turbulent", "calm"),
        "uncertainty": {name: getattr(after, name) for name in ("parameter", "regime", "noise")},
        "verdicts": verdicts,
        "refusals": refused,
    }
    found = _plain(of_row, asked.one)
    found.pop("verdicts") if asked.one else None
    return {
        **_first_row(economy, asked, after, effects),
        "assumed": asked.assumed,
        "assumed_at": None if economy.last_date is None else str(economy.last_date),
        "outside_training": every,
        "causal_effects": {treatment: effects["average"]},
        "effects_by_regime": {name: effects[name] for name in REGIMES},
        "farthest_effects": _farthest(economy),
        "effects_by_horizon": _by_horizon(economy),
        "model_type": "hybrid_causal_model",
        "n_samples": int(economy.n_rows),
        "n_features": len(economy.controls),
        **found,
        "number_of_regimes": {
            "used": len(REGIMES),
            "evidence": None if economy.evidence is None else economy.evidence.tolist(),
        },
        "outcome_interval": _calibration(economy),
        "robustness_value": float(economy.robustness[0]),  # of `causal_effects`
        "cautions": cautions(economy),
        "verdict": "escalate" if every else "accept",
        "n_rows": len(q),
    }


def reach(scores: Float[np.ndarray, " date"]) -> float | None:
    """Standard deviations from the mean of an outcome to the ends of its 90 % interval.

    By split conformal (Papadopoulos et al. 2002): the interval holds the outcome of a further date
    that is exchangeable with those given. No less than those of a normal distribution, since later
    dates than a calm stretch, which is what may be held out, need not be calm.

    Args:
        scores: Errors of outcomes that nothing was fitted to, in standard deviations.

    Returns:
        None if they are too few.
    """
    k = int(np.ceil((len(scores) + 1) * LEVEL))
    return max(REACH, float(np.sort(scores)[k - 1])) if k <= len(scores) else None


def _calibration(economy: Economy) -> str:
    """What the interval of the outcome rests on."""
    if economy.outcome_reach is None:
        return "not calibrated"
    return f"calibrated on {economy.outcome_reach[1]:.0f} dates held out"


def number_of_regimes(economy: Economy) -> list[str]:
    """That effects by regime are those of two, and what the evidence says of that, in a sentence;
    nothing where the artefact does not know."""
    if economy.evidence is None:
        return []
    each = ", ".join(f"{p:.2f}" for p in economy.evidence)
    said = (
        f"effects by regime are those of {len(REGIMES)} regimes; by evidence (BIC) the "
        f"probabilities of one to {len(economy.evidence)} are {each}"
    )
    best = int(economy.evidence.argmax()) + 1
    if best == 1:
        said += (
            ": one is favoured, so that effects by regime may differ by chance alone; the average "
            "effect is that of one regime"
        )
    elif best > len(REGIMES):
        said += f": {best} are favoured, so that either of the two may be several in one"
    return [said]


def cautions(economy: Economy) -> list[str]:
    """What no data of this kind can tell: an omitted cause; and how strong it would have to be in
    the training. Then that the evidence of the training is not for as many regimes as effects are
    of, where it is not."""
    best = len(REGIMES) if economy.evidence is None else int(economy.evidence.argmax()) + 1
    return [
        "a cause of both treatment and outcome that was not observed is not detectable; in the "
        f"training it would have to explain {float(economy.robustness[0]):.1%} of what is left of "
        f"both to explain away the average effect {economy.after(int(economy.horizon))}, which "
        "says nothing of those at other horizons",
        *(number_of_regimes(economy) if best != len(REGIMES) else []),
    ]


def _farthest(economy: Economy) -> dict:
    """Of each outcome, the average response where it is farthest from zero, with the joint band of
    all horizons."""
    found = {}
    for outcome, of_outcome in zip(economy.outcomes.tolist(), economy.responses, strict=True):
        h = responses.farthest(of_outcome[0])
        names = (name.replace(" ", "_") for name in responses.NUMBERS)
        numbers = dict(zip(names, of_outcome[0, h].tolist(), strict=True))
        found[outcome] = {"horizon": h, "when": economy.after(h), **numbers}
    return found


def _by_horizon(economy: Economy) -> dict:
    """Responses of each outcome at some horizons, on average and in each regime."""
    horizons = responses.shown(economy.responses.shape[2])
    return {
        "horizons": list(horizons),
        **{
            outcome: {
                group: dict(
                    zip(("estimate", "low", "high"), rows[horizons].T.tolist(), strict=False)
                )
                for group, rows in zip(responses.GROUPS[:-1], of_outcome, strict=False)
            }
            for outcome, of_outcome in zip(
                economy.outcomes.tolist(), economy.responses, strict=True
            )
        },
    }


def _plain(value: Any, one: bool) -> Any:
    """Arrays by row as lists; of one row, its value."""
    if isinstance(value, dict):
        return {name: _plain(each, one) for name, each in value.items()}
    found = value.tolist() if isinstance(value, np.ndarray) else value
    return found[0] if one else found


def _first_row(economy: Economy, asked: Question, after: Outcomes, effects: dict) -> dict:
    """What every model is shown by."""
    outcome, treatment = economy.names[:2].tolist()
    at = economy.after(int(economy.horizon))
    estimates = [
        {
            "name": f"effect on {outcome}",
            "unit": f"{outcome} per {treatment}",
            "meaning": f"{name if name == 'average' else f'in the {name} regime'}, {at}",
            "median": row["estimate"],
            "low": row["low"],
            "high": row["high"],
        }
        for name, row in effects.items()
    ]
    outcomes = zip(economy.outcomes.tolist(), economy.responding, economy.responses, strict=True)
    for name, responding, of_outcome in outcomes:
        h = responses.farthest(of_outcome[0])
        for group, row in zip(responses.GROUPS, of_outcome[:3, h].tolist(), strict=False):
            meaning = f"{group}, {economy.after(h)}"
            if group == "average":
                meaning += f", where it is farthest from zero; jointly {row[3]:.3g} to {row[4]:.3g}"
            estimates.append(
                {
                    "name": f"response of {responding}", "unit": f"{name} per {treatment}",
                    "meaning": meaning, "median": row[0], "low": row[1], "high": row[2],
                }
            )  # fmt: skip
    estimates.append(
        {
            "name": outcome, "unit": "", "meaning": f"{at}, {_calibration(economy)}",
            "median": float(after.mean[0]), "low": float(after.low[0]),
            "high": float(after.high[0]),
        }
    )  # fmt: skip
    q, shock = float(asked.turbulent[0]), float(asked.treatment[0])
    weight = np.array([1 - q, q])
    draws = economy.parameters.effect @ weight * (shock * economy.sd[0] / economy.sd[1])
    low, median, high = np.quantile(draws, [0.05, 0.5, 0.95]).tolist()
    probabilities = {f"{name} regime": weight[k] for k, name in enumerate(REGIMES)}
    if economy.evidence is not None:
        said = f"{len(REGIMES)} regimes, by the evidence (BIC) of the training"
        probabilities[said] = economy.evidence[len(REGIMES) - 1]
    return {
        "estimates": estimates,
        "probabilities": [
            {"name": name, "value": float(value)} for name, value in probabilities.items()
        ],
        "attribution": [
            {"name": treatment, "unit": outcome, "median": median, "low": low, "high": high}
        ],
    }
