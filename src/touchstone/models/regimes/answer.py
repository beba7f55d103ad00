"""Answers of a loaded economy: effects, regimes, and the outcome of one date or of many."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from touchstone.io.artifacts import ArtifactError
from touchstone.models.regimes.economy import REGIMES, Economy

_MASS = (0.05, 0.5, 0.95)


class Outcomes(NamedTuple):
    """Of some dates, in the unit of the outcome.

    Attributes:
        mean, sd: Of the predictive distribution, shape (row,).
        low, high: 90 % interval of a normal distribution of these moments, shape (row,).
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
    half = 1.6448536 * unit * sd
    return Outcomes(
        mean, unit * sd, mean - half, mean + half,
        parameter / total, regime / total, noise / total,
    )  # fmt: skip


def features_of(text: str, names: tuple[str, ...]) -> Float[np.ndarray, " control"]:
    """Values of all features from `NAME=VALUE NAME=VALUE ...`, in their order.

    Raises:
        ArtifactError: With every problem: features that are missing, unknown, given twice, or have
            a value that is no finite number.
    """
    values: dict[str, float] = {}
    problems = []
    for part in text.replace(",", " ").split():
        name, _, value = part.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = np.nan
        if name in values:
            problems.append(f"{name}: is given twice")
        elif name not in names:
            problems.append(f"{name}: is no feature of the training")
        elif not np.isfinite(number):
            problems.append(f"{name}: {value!r} is no finite number")
        values[name] = number
    problems += [f"{name}: is missing" for name in names if name not in values]
    if problems:
        raise ArtifactError(f"features: {'; '.join(problems)}; expected {', '.join(names)}")
    return np.array([values[name] for name in names])


def answer(economy: Economy, values: dict) -> dict:
    """What a form is answered; see `Model.predict`, and what clients of causal models expect.

    Args:
        economy: The artefact.
        values: `treatment`, in its unit; `turbulent` and `features`, or None.

    Raises:
        ArtifactError: As in `features_of`.
    """
    outcome, treatment = economy.names[:2].tolist()
    controls, assumed = economy.last, {}
    if given := values.get("features"):
        raw = features_of(given, economy.controls)
        controls = (raw - economy.mean[2:]) / economy.sd[2:]
    else:
        natural = economy.mean[2:] + economy.sd[2:] * controls
        assumed = dict(zip(economy.controls, map(float, natural), strict=True))
    q = values.get("turbulent")
    if q is None:
        q = assumed["turbulent"] = float(economy.now[1])
    # The treatment is a shock: what comes on top of what the controls let expect.
    expected = economy.treatment_slope[0] + controls @ economy.treatment_slope[1:]
    shock = values["treatment"] / economy.sd[1]
    pair = outcomes(
        economy,
        np.array([expected, expected + shock]),
        np.stack([controls, controls]),
        np.full(2, q),
    )
    outside = economy.beyond(controls[None])
    if abs(shock) > 4 * np.sqrt(economy.treatment_variance):
        outside.append(
            f"treatment is {values['treatment']:g}, and what the controls left of {treatment} in "
            f"the training has an sd of "
            f"{np.sqrt(economy.treatment_variance) * economy.sd[1]:.3g}"
        )
    unit = economy.sd[0] / economy.sd[1]
    rows = {
        name: dict(zip(("estimate", "se", "low", "high"), (unit * row).tolist(), strict=True))
        for name, row in zip(("average", *REGIMES), economy.effect, strict=True)
    }
    estimates = [
        {
            "name": f"effect on {outcome}",
            "unit": f"{outcome} per {treatment}",
            "meaning": name if name == "average" else f"in the {name} regime",
            "median": row["estimate"],
            "low": row["low"],
            "high": row["high"],
        }
        for name, row in rows.items()
    ]
    estimates.append(
        {
            "name": outcome, "unit": "", "meaning": "after the treatment",
            "median": float(pair.mean[1]), "low": float(pair.low[1]), "high": float(pair.high[1]),
        }
    )  # fmt: skip
    p = economy.parameters
    mixed = (1 - q) * p.effect[:, 0] + q * p.effect[:, 1]
    low, median, high = values["treatment"] * unit * np.quantile(mixed, _MASS)
    low, high = min(low, high), max(low, high)
    probability = {"calm": 1 - q, "turbulent": q}
    return {
        "estimates": estimates,
        "probabilities": [{"name": f"{k} regime", "value": v} for k, v in probability.items()],
        "attribution": [
            {
                "name": treatment,
                "unit": outcome,
                "median": float(median),
                "low": float(low),
                "high": float(high),
            }
        ],
        "assumed": assumed,
        "outside_training": outside,
        "causal_effects": {treatment: rows["average"]},
        "effects_by_regime": {name: rows[name] for name in REGIMES},
        "model_type": "hybrid_causal_model",
        "n_samples": int(economy.n_rows),
        "n_features": len(economy.controls),
        "regime_probabilities": probability,
        "dominant_regime": max(probability, key=lambda name: probability[name]),
        "uncertainty": {
            name: float(getattr(pair, name)[1]) for name in ("parameter", "regime", "noise")
        },
        "robustness_value": float(economy.robustness[0]),
        "verdict": "escalate" if outside else "accept",
        "refusals": outside,
    }
