"""The area of a film under stimuli: how large, how sure, by what, and whether it is high.

The attribution is Shapley's: of a predictor, the mean over all orders of what it adds to the
expectation over the films of the training when it becomes known (Lundberg and Lee 2017). For a
regression with products of two it is a sum, exact for each draw of the posterior.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from touchstone.io.artifacts import ArtifactError
from touchstone.models.interface.frozen import Frozen
from touchstone.models.interface.table import Columns

_MASS = [0.05, 0.5, 0.95]
CHANGE = "_change"  # ends the name of a field that changes a stimulus of a film that is named


class Background(NamedTuple):
    """Measurements of the training, standardised.

    Attributes:
        morphology: Shape (row, J).
        stimuli: Shape (row, K).
    """

    morphology: Float[np.ndarray, "row descriptor"]
    stimuli: Float[np.ndarray, "row stimulus"]

    @classmethod
    def of(cls, frozen: Frozen) -> "Background":
        """All that a regression learnt from."""
        there = np.arange(frozen.series.shape[1]) < frozen.counts[:, None]
        return cls((frozen.films[:, None] + frozen.residuals)[there], frozen.combinations)


def attribution(
    frozen: Frozen, background: Background, morphology: np.ndarray, stimuli: np.ndarray
) -> Float[np.ndarray, "row draw predictor"]:
    """Shapley values of each predictor, descriptors before stimuli, in standard deviations.

    They add up to the location less its mean over the background.

    Args:
        frozen: The regression.
        background: What a predictor is where it is not known.
        morphology: Shape (row, J).
        stimuli: Shape (row, K).
    """
    mean_x, mean_s = background.morphology.mean(0), background.stimuli.mean(0)
    together = background.morphology.T @ background.stimuli / len(background.stimuli)
    of_x = (morphology - mean_x)[:, None] * frozen.morphology
    of_s = (stimuli - mean_s)[:, None] * frozen.stimulus
    x, s = morphology[:, :, None], stimuli[:, None, :]
    alone_x, alone_s = x * mean_s, mean_x[:, None] * s  # when only one of the two is known
    gain_x = 0.5 * ((alone_x - together) + (x * s - alone_s))
    gain_s = 0.5 * ((alone_s - together) + (x * s - alone_x))
    of_x = of_x + np.einsum("rjk,djk->rdj", gain_x, frozen.product)
    of_s = of_s + np.einsum("rjk,djk->rdk", gain_s, frozen.product)
    return np.concatenate([of_x, of_s], axis=2)


class Predicted(NamedTuple):
    """Areas of one film at one set of stimuli, in their unit.

    Attributes:
        mean: Of the film, by draw, shape (draw,).
        measured: A new measurement, by draw.
        attribution: Of each predictor, by draw, shape (draw, predictor).
    """

    mean: np.ndarray
    measured: np.ndarray
    attribution: np.ndarray


def predict(
    frozen: Frozen,
    morphology: np.ndarray,
    stimuli: np.ndarray,
    film: int | None,
    rng: np.random.Generator,
) -> Predicted:
    """Predict one film, known to the training by its number or not, at (J,) and (K,)."""
    unit = frozen.sd[-1]
    x, s = morphology[None], stimuli[None]
    if film is None:
        effect = frozen.film_sd * rng.standard_normal(len(frozen.film_sd))
    else:
        effect = frozen.effect[:, film]
    location = frozen.location(x, s)[:, 0] + effect
    error = rng.laplace(0, 1, len(location)) * frozen.scatter
    ours = attribution(frozen, Background.of(frozen), x, s)[0]
    return Predicted(
        frozen.mean[-1] + unit * location,
        frozen.mean[-1] + unit * (location + error),
        unit * ours,
    )


def _intervals(draws: np.ndarray) -> list[dict[str, float]]:
    """Median and 90 % interval of each column of draws."""
    ends = np.quantile(draws, _MASS, axis=0).T.tolist()
    return [{"median": median, "low": low, "high": high} for low, median, high in ends]


def problems(
    frozen: Frozen, names: tuple[tuple[str, ...], tuple[str, ...]], columns: Columns, values: dict
) -> list[str]:
    """Values of a form that this regression has no use for; see `Model.form_problems`.

    A value that lies farther from the training than that is wide is taken for a slip, such as of
    the unit. Nearer ones are answered, and said to be outside.

    Args:
        frozen: The regression.
        names: Of its descriptors and of the stimuli.
        columns: All columns that a form may name.
        values: As in `answer`.
    """
    said = []
    rows = np.hstack(Background.of(frozen))
    lowest, highest = (
        frozen.mean[:-1] + frozen.sd[:-1] * end for end in (rows.min(0), rows.max(0))
    )
    for name, low, high in zip((*names[0], *names[1]), lowest, highest, strict=True):
        value, width = values.get(name), high - low
        # What was the same in all films has no range: any other value is outside.
        if value is None or width <= 1e-6 * abs(high) or low - width <= value <= high + width:
            continue
        side, end = ("above", high + width) if value > high else ("below", low - width)
        said.append(f"{name}: {value:g} is {side} {end:.4g}, trained from {low:.4g} to {high:.4g}")
    for name in columns.morphology:
        if name not in names[0] and values.get(name) is not None:
            said.append(f"{name}: is not used, since the training left it out")
    for name in names[1]:
        if values.get(name + CHANGE) is None:
            continue
        if not values.get("film"):
            said.append(f"{name}{CHANGE}: is of a known film, expected its name as film")
        if values.get(name) is not None:
            said.append(f"{name}{CHANGE}: {name} is given, too, expected one of them")
    return said


def _film(frozen: Frozen, label: str | None) -> tuple[int | None, np.ndarray]:
    """Number of a film of the training, and its standardised descriptors and mean stimuli; without
    a label those of the mean of all.

    Raises:
        ArtifactError: If there is no such film.
    """
    if not label:
        return None, np.concatenate([frozen.films.mean(0), frozen.combinations.mean(0)])
    labels = frozen.labels.tolist()
    if label not in labels:
        raise ArtifactError(f"film: {label!r} is none of the training's: {', '.join(labels)}")
    film = labels.index(label)
    series = frozen.series[film, : frozen.counts[film]]
    return film, np.concatenate([frozen.films[film], series.mean(0)])


def answer(
    frozen: Frozen,
    names: tuple[tuple[str, ...], tuple[str, ...]],
    values: dict,
    target: tuple[str, str],
    rng: np.random.Generator,
) -> dict:
    """What a form is answered; see `Model.predict`.

    Args:
        frozen: The regression.
        names: Of its descriptors and of the stimuli.
        values: Of the form: `film`, `quantile`, and of each predictor a number, or None; of a
            stimulus of a film that is named also its change.
        target: Name and unit of what is predicted.
        rng: For film effects and errors.

    Raises:
        ArtifactError: If there is no such film.
    """
    predictors, j = (*names[0], *names[1]), len(names[0])
    mean, sd = frozen.mean[:-1], frozen.sd[:-1]
    film, base = _film(frozen, values.get("film"))
    standard, given = base.copy(), []
    for k, name in enumerate(predictors):
        if values.get(name) is not None:
            standard[k] = (values[name] - mean[k]) / sd[k]
            given.append(name)
        elif values.get(name + CHANGE) is not None:
            standard[k] += values[name + CHANGE] / sd[k]
            given.append(name)
    found = predict(frozen, standard[:j], standard[j:], film, rng)
    high = frozen.mean[-1] + frozen.sd[-1] * np.quantile(frozen.areas, values["quantile"])
    outside = frozen.outside(standard[:j], standard[None, j:], names[1])
    what, unit = target
    order = np.argsort(-np.abs(found.attribution.mean(0)))
    columns = [found.mean, found.measured, *found.attribution.T[order]]
    of_film, of_measurement, *of_each = _intervals(np.stack(columns, axis=1))
    rows = [
        {"name": what, "unit": unit, "meaning": "of the film", **of_film},
        {"name": what, "unit": unit, "meaning": "in a new measurement", **of_measurement},
    ]
    shares = [
        {"name": predictors[k], "unit": unit, **each}
        for k, each in zip(order, of_each, strict=True)
    ]
    natural, before = (
        {name: float(m + s * z) for name, m, s, z in zip(predictors, mean, sd, at, strict=True)}
        for at in (standard, base)
    )
    if film is not None and given:
        # By the same draws, so that what the two have in common is no uncertainty of the change.
        less = frozen.location(base[None, :j], base[None, j:])[:, 0]
        change = frozen.location(standard[None, :j], standard[None, j:])[:, 0] - less
        (of_change,) = _intervals(frozen.sd[-1] * change[:, None])
        moved = ", ".join(f"{name} {before[name]:.4g} to {natural[name]:.4g}" for name in given)
        meaning = f"of the film, less that of the film as it is ({moved})"
        rows.append({"name": what, "unit": unit, "meaning": meaning, **of_change})
    return {
        "estimates": rows,
        "probabilities": [
            {
                "name": f"{what} above {high:.4g} {unit}, its {values['quantile']:g} quantile",
                "value": float((found.mean > high).mean()),
            }
        ],
        "attribution": shares,
        "assumed": {name: value for name, value in natural.items() if name not in given},
        "outside_training": outside,
    }
