"""Many regressions at once, by Gibbs sampling in place of NUTS: same posterior, no compilation.

For Laplace errors and normal priors alone. Laplace errors are normal ones of exponential variance
(Andrews and Mallows 1974), whose inverse is inverse Gaussian given the errors (Park and Casella
2008); given the variances coefficients and film effects are one normal block. The scatter, with the
variances integrated out, and the film scale, twice, are drawn by Metropolis steps.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtr, ndtri

from touchstone.models.interface.regression import Design

_N_DRAWS, _N_WARMUP = 2000, 300  # sweeps, of a regression without a row
_LEAST = 1e-6  # of a residual and of a variance, in standard deviations of the target
_STEP = 0.5  # of the logarithm of the film scale


class Chains(NamedTuple):
    """Draws of several regressions.

    Attributes:
        coefficients: Intercept, main effects and products, shape (fit, draw, coefficient).
        film_sd: Shape (fit, draw).
        film: Effects of the films, shape (fit, draw, film).
        scatter: Shape (fit, draw).
    """

    coefficients: Float[np.ndarray, "fit draw coefficient"]
    film_sd: Float[np.ndarray, "fit draw"]
    film: Float[np.ndarray, "fit draw film"]
    scatter: Float[np.ndarray, "fit draw"]


def columns(
    morphology: Float[np.ndarray, "row descriptor"],
    stimuli: Float[np.ndarray, "row stimulus"],
    sizes: dict[str, float],
    has_products: bool,
) -> tuple[Float[np.ndarray, "row coefficient"], Float[np.ndarray, " coefficient"]]:
    """Columns of the regression, in the order of `Chains`, and their prior standard deviations."""
    n, j, k = len(stimuli), morphology.shape[1], stimuli.shape[1]
    found = [np.ones((n, 1)), morphology, stimuli]
    sd = [sizes["intercept"]] + [sizes["morphology"]] * j + [sizes["stimulus"]] * k
    if has_products:
        found.append((morphology[:, :, None] * stimuli[:, None]).reshape(n, -1))
        sd += [sizes["product"]] * (j * k)
    return np.concatenate(found, axis=1), np.array(sd, float)


def sample(
    x: Float[np.ndarray, "row coefficient"],
    sd: Float[np.ndarray, " coefficient"],
    film: Int[np.ndarray, " row"] | None,
    target: Float[np.ndarray, "fit row"],
    weight: Float[np.ndarray, "fit row"],
    sizes: dict[str, float],
    n_draws: int,
    n_warmup: int,
    rng: np.random.Generator,
) -> Chains:
    """Sample regressions of the same rows, one chain each.

    Args:
        x: Columns, as from `columns`.
        sd: Their prior standard deviations.
        film: Number of the film of each row; None for a regression without film effects.
        target: Of each regression.
        weight: 1 for a row that a regression learns from, 0 for one that it leaves out.
        sizes: `film` and `scatter` of the priors.
        n_draws, n_warmup: Sweeps that are kept, and before those.
        rng: Of all chains.
    """
    n_fits, n_rows = target.shape
    p, n_films = x.shape[1], 0 if film is None else int(film.max()) + 1
    in_film = np.zeros((n_rows, 0)) if film is None else np.eye(n_films)[film]
    scatter, film_sd = np.full(n_fits, 0.5), np.full(n_fits, 0.5 * sizes["film"])
    precision = np.ones((n_fits, n_rows))  # of the errors, by their random variances
    kept = Chains(
        np.empty((n_fits, n_draws, p)), np.zeros((n_fits, n_draws)),
        np.empty((n_fits, n_draws, n_films)), np.empty((n_fits, n_draws)),
    )  # fmt: skip
    for sweep in range(n_warmup + n_draws):
        of_films = film_sd[:, None, None] * in_film
        scaled = np.concatenate([np.broadcast_to(x * sd, (n_fits, n_rows, p)), of_films], axis=2)
        standard = _normal_block(scaled, target, weight * precision, rng)
        off = target - np.einsum("rc,fc->fr", x * sd, standard[:, :p])
        z = standard[:, p:]
        if n_films:
            film_sd = _film_sd(off, z @ in_film.T, weight * precision, sizes["film"], rng)
        effects = film_sd[:, None] * z
        size = np.abs(off - effects @ in_film.T) + _LEAST
        scatter = _scatter(scatter, size, weight, sizes["scatter"], rng)
        if n_films:
            film_sd = _film_sd_of_effects(film_sd, effects, sizes["film"], rng)
        mean = 1 / (scatter[:, None] * size)
        precision = np.maximum(rng.wald(mean, 1 / scatter[:, None] ** 2), _LEAST)
        if (draw := sweep - n_warmup) >= 0:
            kept.coefficients[:, draw] = sd * standard[:, :p]
            kept.film_sd[:, draw], kept.film[:, draw] = film_sd, effects
            kept.scatter[:, draw] = scatter
    return kept


def _normal_block(scaled, target, precision, rng) -> np.ndarray:
    """Coefficients of standard normal priors, of normal errors, shape (fit, coefficient)."""
    weighted = np.sqrt(precision)[..., None] * scaled
    gram = weighted.transpose(0, 2, 1) @ weighted + np.eye(scaled.shape[2])
    # A draw of covariance `gram` beside the mean saves its factor: one solution is a draw.
    noise = np.sqrt(precision) * target + rng.standard_normal(target.shape)
    right = np.einsum("frc,fr->fc", weighted, noise)
    right += rng.standard_normal(right.shape)
    return np.linalg.solve(gram, right[..., None])[..., 0]


def _film_sd(off, z, precision, size, rng) -> np.ndarray:
    """Film scale given standard effects z of each row: a cut normal, by its half-normal prior."""
    sharp = 1 / size**2 + (precision * z**2).sum(1)
    mean, root = (precision * z * off).sum(1) / sharp, np.sqrt(sharp)
    above = rng.uniform(size=len(mean)) * ndtr(mean * root)
    return np.maximum(mean - ndtri(above) / root, _LEAST)


def _film_sd_of_effects(film_sd, effects, size, rng) -> np.ndarray:
    """One Metropolis step of the logarithm of the film scale given the effects themselves."""
    n, square = effects.shape[1], np.square(effects).sum(1)

    def log_density(value):
        return (1 - n) * np.log(value) - square / (2 * value**2) - value**2 / (2 * size**2)

    proposed = film_sd * np.exp(_STEP * rng.standard_normal(len(film_sd)))
    gain = log_density(proposed) - log_density(film_sd)
    return np.where(np.log(rng.uniform(size=len(gain))) < gain, proposed, film_sd)


def _scatter(scatter, size, weight, prior, rng) -> np.ndarray:
    """Scatter given the sizes of the errors: inverse gamma but for the prior, which accepts it."""
    proposed = (weight * size).sum(1) / rng.gamma(weight.sum(1) - 1)
    accept = (1 + (scatter / prior) ** 2) / (1 + (proposed / prior) ** 2)
    return np.where(rng.uniform(size=len(accept)) < accept, proposed, scatter)


class LeftOut(NamedTuple):
    """Rows by regressions that did not learn from them.

    Attributes:
        log_density: Of each row, shape (row,).
        pit: Probability below it.
    """

    log_density: Float[np.ndarray, " row"]
    pit: Float[np.ndarray, " row"]


def refit(
    design: Design,
    has_products: bool,
    has_film_effects: bool,
    rows: Int[np.ndarray, " left_out"],
    sizes: dict[str, float],
    rng: np.random.Generator,
) -> LeftOut:
    """Leave out one row at a time, and sample the regression of all others.

    Args:
        design: All rows.
        has_products, has_film_effects: What the regression has beside main effects.
        rows: Those to leave out, one after the other.
        sizes: Standard deviations of the priors.
        rng: For all chains.
    """
    n = len(rows)
    x, sd = columns(design.morphology, design.stimuli, sizes, has_products)
    weight = np.ones((n, len(design.target)))
    weight[np.arange(n), rows] = 0
    film = design.film if has_film_effects else None
    target = np.tile(design.target, (n, 1))
    drawn = sample(x, sd, film, target, weight, sizes, _N_DRAWS, _N_WARMUP, rng)
    location = np.einsum("fdc,fc->fd", drawn.coefficients, x[rows])
    if has_film_effects:
        location += drawn.film[np.arange(n), :, design.film[rows]]
    off = (design.target[rows, None] - location) / drawn.scatter
    log_density = -np.abs(off) - np.log(2 * drawn.scatter)
    tail = 0.5 * np.exp(-np.abs(off))
    pit = np.where(off < 0, tail, 1 - tail).mean(1)
    return LeftOut(np.logaddexp.reduce(log_density, axis=1) - np.log(_N_DRAWS), pit)
