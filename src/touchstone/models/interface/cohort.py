"""A synthetic cohort of films with a known truth, for want of data that anybody has published."""

import numpy as np

from touchstone.models.interface.table import Columns, Table

_FACTORS = 3  # crystallinity, orientation and size of the domains, so to speak
_COMMON = 0.7  # of the variance of a descriptor, at most, that is of the factors
_LEAST = 0.05  # of the mean, below which no column goes


def draw(rng: np.random.Generator, config: dict, n_films: int) -> Table:
    """Films, each measured along a series of stimuli.

    Descriptors hang together through a few factors. The target is linear in standardised
    descriptors and stimuli and in some of their products, with an effect of the film and Laplace
    errors. Its moments are those of the original study, and the Porod prefactor is the target but
    for its contrast, as by Porod's law.

    Args:
        rng: Source of randomness.
        config: The model's `config.yaml`; the truth is its `cohort`.
        n_films: Number of films.
    """
    truth, columns = config["cohort"], Columns.of(config)
    series = np.array(truth["series"])
    n, n_rows = len(series), n_films * len(series)
    film = np.repeat(np.arange(n_films), n)
    j = len(columns.morphology)
    # The loadings are of the family of films, so that they are the same for every seed.
    loading = np.random.default_rng(0).normal(0, 0.5, (_FACTORS, j))
    loading *= np.sqrt(_COMMON / np.maximum((loading**2).sum(0), _COMMON))
    own = np.sqrt(1 - (loading**2).sum(0))
    between = rng.standard_normal((n_films, _FACTORS)) @ loading
    between += own * rng.standard_normal((n_films, j))
    within = rng.standard_normal((n_rows, j))
    x = np.sqrt(1 - truth["within"]) * between[film] + np.sqrt(truth["within"]) * within
    # One stimulus runs through the series; the others are what they are for the film.
    s = np.repeat(rng.standard_normal((n_films, len(columns.stimuli))), n, axis=0)
    running = rng.integers(len(columns.stimuli), size=n_films)[film]
    s[np.arange(n_rows), running] = np.tile(series, n_films)
    y = x @ _vector(truth["morphology"], columns.morphology)
    y += s @ _vector(truth["stimulus"], columns.stimuli)
    for name, effects in truth["product"].items():
        y += x[:, columns.morphology.index(name)] * (s @ _vector(effects, columns.stimuli))
    y += truth["film"] * rng.standard_normal(n_films)[film] + rng.laplace(
        0, truth["scatter"], n_rows
    )
    target = config["target"]
    # In standard deviations of the cohort as a whole, so that effects are what they are called.
    area = target["mean"] + target["sd"] * y / np.sqrt(_variance(truth))
    area = np.maximum(area, _LEAST * target["mean"])
    morphology = _natural(x, config["morphology"])
    prefactor = columns.morphology.index("Porod_prefactor")
    contrast = 1 + 0.03 * rng.standard_normal(n_rows)
    morphology[:, prefactor] = area / target["mean"] * contrast
    names = np.array([f"film {number + 1}" for number in film])
    return Table(names, morphology, _natural(s, config["stimuli"]), area)


def _vector(effects: dict[str, float], names: tuple[str, ...]) -> np.ndarray:
    return np.array([effects.get(name, 0.0) for name in names])


def _natural(standard: np.ndarray, entries: dict[str, dict]) -> np.ndarray:
    """Values of columns in their units, none of them near or below zero."""
    mean, sd = (np.array([entry[k] for entry in entries.values()], float) for k in ("mean", "sd"))
    return np.maximum(mean + sd * standard, np.minimum(_LEAST * mean, mean))


def _variance(truth: dict) -> float:
    """Variance of the target in its own scale, were all columns independent."""
    products = [v for effects in truth["product"].values() for v in effects.values()]
    effects = [*truth["morphology"].values(), *truth["stimulus"].values(), *products]
    return sum(v**2 for v in effects) + truth["film"] ** 2 + 2 * truth["scatter"] ** 2
