"""Films as cases: new ones of the training's kind, those under stress, and what their areas say.

The draws of the regression are frozen. A new film adds its own effect and weighs the draws. Both
are exact: the effect by quadrature, the draws by importance, whose tail tells whether they suffice.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from tqdm import tqdm

from touchstone.inference import psis
from touchstone.models.interface.frozen import Frozen
from touchstone.vocabulary import Computation, Prediction

_NODES = np.linspace(-4.5, 4.5, 73)  # of the film effect, in its standard deviations
_LEAST_EFFECTIVE = 100.0  # draws of the regression
_N_AHEAD = 400  # draws of the regression that say what the next measurement may be
_FINEST = 1e-6  # probability of a measurement, beyond which it is just unheard of
INTENSITIES, SPACINGS = "I_", "d_"


class Films(NamedTuple):
    """What a case holds beside its measurements, standardised.

    Attributes:
        morphology: Shape (film, N, J).
        stimuli: Shape (film, N, K).
        mask: Which measurements there are.
    """

    morphology: Float[np.ndarray, "film measurement descriptor"]
    stimuli: Float[np.ndarray, "film measurement stimulus"]
    mask: Bool[np.ndarray, "film measurement"]

    @property
    def mean(self) -> Float[np.ndarray, "film descriptor"]:
        """Mean descriptors of each film."""
        weight = self.mask / self.mask.sum(1, keepdims=True)
        return np.einsum("fn,fnj->fj", weight, self.morphology)


class Drawn(NamedTuple):
    """Simulated films.

    Attributes:
        films: As they are seen.
        target: Standardised area, shape (film, N).
        truth: Values of the quantities, in the order of the model, shape (film, 2 + K).
        shift: Of the areas from what the model lets expect of the films as they are seen, but for
            the errors, shape (film, N).
        moved: Of the mean descriptors from those that the film has, shape (film, J).
        scatter: Scale of the errors, shape (film,).
        scale: Factor of the errors by the stress, shape (film,).
    """

    films: Films
    target: np.ndarray
    truth: np.ndarray
    shift: np.ndarray
    moved: np.ndarray
    scatter: np.ndarray
    scale: np.ndarray


def draw(
    frozen: Frozen,
    names: tuple[str, ...],
    n: int,
    rng: np.random.Generator,
    noise: np.random.Generator,
    stress: tuple[str, dict] | None,
    severity: float,
    quiet: bool = False,
) -> Drawn:
    """Films whose areas a draw of the regression makes, so that the posterior is right on average.

    Args:
        frozen: The regression.
        names: Of its descriptors.
        n: Number of films.
        rng: For films, effects and draws.
        noise: For the errors.
        stress: Name and entry in `config.yaml`; None for the training's kind.
        severity: Of the stress.
        quiet: Whether the areas have no errors but those of the stress.
    """
    morphology, stimuli, mask = frozen.draw_films(rng, n)
    chosen = rng.integers(len(frozen.intercept), size=n)
    film = frozen.film_sd[chosen] * rng.standard_normal(n)
    seen = Films(morphology, stimuli, mask)
    name, entry = stress or ("", {})
    if name == "out_of_range":
        seen = seen._replace(stimuli=stimuli * (1 + severity * (entry["stretch"] - 1)))
    # Beyond the range of the training the stimuli have no further effect.
    acting = np.clip(seen.stimuli, frozen.series.min((0, 1)), frozen.series.max((0, 1)))
    location = np.stack(
        [
            one.location(x, s)[0]
            for one, x, s in zip(_each(frozen, chosen), morphology, acting, strict=True)
        ]
    )
    truth = np.stack(
        [
            np.concatenate([one.location(x[None], 0 * s[:1])[0], one.effects(x)[0]])
            for one, x, s in zip(_each(frozen, chosen), seen.mean, stimuli, strict=True)
        ]
    )
    # A polymorph has the area that it shows; what other stresses add is no area of the film.
    truth[:, 0] += film + (severity * entry["area"] if name == "polymorph" else 0.0)
    scatter = frozen.scatter[chosen, None]
    errors = noise.laplace(0, 1, location.shape) * scatter
    target = location + film[:, None] + (0.0 if quiet else errors)
    had = seen.mean
    seen, target = _stressed(seen, target, names, name, entry, severity, frozen, noise)
    expected = np.stack(
        [
            one.location(x, s)[0]
            for one, x, s in zip(_each(frozen, chosen), seen.morphology, seen.stimuli, strict=True)
        ]
    )
    shift = target - expected - film[:, None]
    sizes, moved = scatter[:, 0], seen.mean - had
    scale = np.full(n, 1 + severity * entry["factor"] if name == "background" else 1.0)
    return Drawn(seen, target, _natural(frozen, truth, sizes), shift, moved, sizes, scale)


def _each(frozen: Frozen, chosen: np.ndarray):
    """The regression of single draws."""
    fields = ("intercept", "morphology", "stimulus", "product", "film_sd", "scatter")
    for d in chosen:
        values = {name: getattr(frozen, name)[d : d + 1] for name in fields}
        yield Frozen(**{**vars(frozen), **values})


def _natural(frozen: Frozen, standard: np.ndarray, scatter: np.ndarray) -> np.ndarray:
    """Quantities in their units: mean area, effects, standard deviation of a measurement."""
    mean, sd = frozen.mean[-1], frozen.sd[-1]
    values = sd * standard
    values[..., 0] += mean
    return np.concatenate([values, (sd * np.sqrt(2) * scatter)[..., None]], axis=-1)


def _stressed(
    films: Films,
    target: np.ndarray,
    names: tuple[str, ...],
    stress: str,
    entry: dict,
    severity: float,
    frozen: Frozen,
    noise: np.random.Generator,
) -> tuple[Films, np.ndarray]:
    """What is seen of the films and of their areas, under a stress."""
    shift = np.zeros(films.morphology.shape[-1])
    if stress == "recalibrated":
        shift[[name.startswith(INTENSITIES) for name in names]] = severity * entry["shift"]
    elif stress == "polymorph":
        shift[[name.startswith(SPACINGS) for name in names]] = severity * entry["shift"]
        target = target + severity * entry["area"]
    elif stress == "outlying":
        target = target + severity * entry["scale"] * noise.standard_cauchy(target.shape)
    elif stress == "mislabelled":
        count, target = films.mask.sum(1), target.copy()
        for row, k in zip(target, count, strict=True):
            swapped = noise.permutation(k)[: round(severity * entry["share"] * k)]
            row[swapped] = row[np.roll(swapped, 1)]
    elif stress == "background":
        mean = frozen.mean[-1] / frozen.sd[-1]
        target = (target + mean) * (1 + severity * entry["factor"]) - mean
    # An area is positive.
    least = -frozen.mean[-1] / frozen.sd[-1] + 0.01
    return films._replace(morphology=films.morphology + shift), np.maximum(target, least)


class Inferred(NamedTuple):
    """What areas say of films.

    Attributes:
        values: Quantities of each draw, in their units, shape (film, draw, quantity).
        prior: Draws of the same before the areas are seen, shape (film, draw, quantity).
        prediction: Of the areas, in their unit.
        log_evidence: Of the areas in standard deviations, shape (film,).
        computation: Whether the draws of the regression suffice.
    """

    values: np.ndarray
    prior: np.ndarray
    prediction: Prediction
    log_evidence: np.ndarray
    computation: Computation


def infer(
    frozen: Frozen,
    films: Films,
    target: np.ndarray,
    rng: np.random.Generator,
    n_draws: int,
    label: str | None = None,
) -> Inferred:
    """Posterior of each film.

    Args:
        frozen: The regression.
        films: The films.
        target: Standardised areas, shape (film, N); where a film has none, anything.
        rng: For the draws.
        n_draws: Of each film.
        label: Of a progress bar.
    """
    rows = [
        _one(frozen, Films(*(a[f] for a in films)), target[f], rng, n_draws)
        for f in tqdm(range(len(target)), desc=label, disable=label is None, unit="film")
    ]
    values, prior, prediction, evidence, effective, k_hat = map(np.stack, zip(*rows, strict=True))
    n = len(values)
    limit = np.full(n, psis.k_threshold(len(frozen.intercept)))
    computation = Computation(
        {"k_hat": k_hat, "effective_draws": effective},
        {"k_hat": limit},
        {"effective_draws": np.full(n, _LEAST_EFFECTIVE)},
    )
    return Inferred(
        values, prior, Prediction(*np.moveaxis(prediction, 1, 0)), evidence, computation
    )


def _one(frozen: Frozen, film: Films, target: np.ndarray, rng: np.random.Generator, n_draws: int):
    seen = film.mask
    x, s, y = film.morphology, film.stimuli, target
    location, scatter = frozen.location(x, s), frozen.scatter
    # Of the sum of distances to all measurements, by draw and node of the film effect.
    effect = frozen.film_sd[:, None] * _NODES
    off = y - location[:, None] - effect[..., None]
    distance = np.abs(off) / scatter[:, None, None]
    log_density = -distance - np.log(2 * scatter)[:, None, None]
    log_prior = np.broadcast_to(-0.5 * _NODES**2, effect.shape)
    log_prior = log_prior - _log_sum(log_prior[:1]) - np.log(len(scatter))
    ahead = log_prior + np.cumsum(np.where(seen, log_density, 0.0), axis=2).transpose(2, 0, 1)
    joint = ahead[-1]
    of_draw = np.logaddexp.reduce(joint, axis=1)
    evidence = _log_sum(of_draw)
    weight, k_hat = psis.smooth(of_draw)
    flat = np.exp(joint - of_draw[:, None]) * weight[:, None]
    chosen = psis.resample((flat / flat.sum()).ravel(), n_draws)
    d, node = np.divmod(rng.permutation(chosen), len(_NODES))
    step = _NODES[1] - _NODES[0]
    film_effect = frozen.film_sd[d] * (_NODES[node] + step * rng.uniform(-0.5, 0.5, n_draws))
    mean = (seen / seen.sum()) @ x
    prediction = _prediction(frozen, location[d] + film_effect[:, None], scatter[d], y)
    prediction[-1] = np.where(seen, _innovations(ahead, log_prior, off, distance, rng), 0.0)
    return (
        _quantities(frozen, mean, d, film_effect),
        prior(frozen, mean, rng, n_draws),
        prediction,
        evidence,
        1 / np.square(weight).sum(),
        k_hat,
    )


def prior(
    frozen: Frozen, mean: np.ndarray, rng: np.random.Generator, n: int
) -> Float[np.ndarray, "draw quantity"]:
    """Quantities of a film of mean descriptors (J,) before its areas are seen."""
    d = rng.integers(len(frozen.scatter), size=n)
    return _quantities(frozen, mean, d, frozen.film_sd[d] * rng.standard_normal(n))


def _quantities(
    frozen: Frozen, mean: np.ndarray, d: np.ndarray, film_effect: np.ndarray
) -> Float[np.ndarray, "draw quantity"]:
    """Quantities of a film, of some draws of the regression with film effects."""
    at_mean = frozen.location(mean[None], np.zeros((1, frozen.stimulus.shape[1])))[d, 0]
    standard = np.column_stack([at_mean + film_effect, frozen.effects(mean)[d]])
    return _natural(frozen, standard, frozen.scatter[d])


def _prediction(
    frozen: Frozen, location: np.ndarray, scatter: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Mean, sd, distribution and log density of a new measurement, and room for the innovations."""
    from scipy.special import logsumexp  # here, as below, since a form is answered without it

    off = (y - location) / scatter[:, None]
    log_density = logsumexp(-np.abs(off) - np.log(2 * scatter[:, None]), axis=0) - np.log(len(off))
    sd = np.sqrt(location.var(0) + 2 * (scatter**2).mean())
    noise = np.sqrt(2) * scatter.mean()
    mean, unit = frozen.mean[-1], frozen.sd[-1]
    return np.stack(
        [
            mean + unit * location.mean(0),
            unit * sd,
            _laplace(off).mean(0),
            log_density + np.log(noise),
            np.zeros_like(y),
        ]
    )


def _innovations(ahead, log_prior, off, distance, rng) -> np.ndarray:
    """Each measurement as a normal quantile of what those before it let expect, shape (N,)."""
    from scipy.special import ndtri

    some = rng.choice(len(log_prior), min(_N_AHEAD, len(log_prior)), replace=False)
    before = np.concatenate([log_prior[None], ahead[:-1]])[:, some]
    weight = np.exp(before - before.max((1, 2), keepdims=True))
    cdf = _laplace(np.sign(off[some]) * distance[some]).transpose(2, 0, 1)
    probability = (weight * cdf).sum((1, 2)) / weight.sum((1, 2))
    return ndtri(np.clip(probability, _FINEST, 1 - _FINEST))


def _laplace(z: np.ndarray) -> np.ndarray:
    """Distribution function of a standard Laplace variable."""
    tail = 0.5 * np.exp(-np.abs(z))
    return np.where(z < 0, tail, 1 - tail)


def _log_sum(values: np.ndarray) -> float:
    return float(np.logaddexp.reduce(np.ravel(values)))


def place(values: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Quantile of posterior means in their priors, as of a Gaussian, shape (film, quantity)."""
    from scipy.special import ndtr

    return ndtr((values.mean(1) - prior.mean(1)) / prior.std(1))
