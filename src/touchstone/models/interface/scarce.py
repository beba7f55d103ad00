"""The regression where rows are few: its coefficients are integrated out while NUTS samples.

With about as many coefficients as rows, some of them follow the areas exactly. The density of a
small scatter then stays finite, but the coefficients that go with it fill ever less room: a funnel,
in which chains get stuck. Errors by Laplace and Student are normal errors of random variance
(Andrews and Mallows 1974). Given those variances all coefficients are normal, and drop out of the
density of what is left, which has no funnel. They are drawn afterwards, exactly.
"""

from typing import TYPE_CHECKING

import numpy as np

from touchstone.models.interface import regression
from touchstone.models.interface.regression import FREEDOM, Design

if TYPE_CHECKING:
    import pymc as pm
    import xarray as xr


def fit(
    design: Design,
    sizes: dict[str, float],
    names: tuple[tuple[str, ...], tuple[str, ...]],
    prior: str,
    likelihood: str,
    settings: dict,
    seed: int,
) -> "xr.DataTree":
    """Chains of the regression, as `regression.sample` of `regression.build` would give them.

    The arguments are theirs. Products have no place here: few rows cannot inform them.
    """
    tree = regression.sample(_build(design, sizes, prior, likelihood), settings, seed)
    return _with_coefficients(tree, design, sizes, names, likelihood, np.random.default_rng(seed))


def _columns(design: Design) -> np.ndarray:
    return np.column_stack([np.ones(len(design.target)), design.morphology, design.stimuli])


def _build(design: Design, sizes: dict[str, float], prior: str, likelihood: str) -> "pm.Model":
    """Scatter, variances of the errors, and standard deviations of coefficients and films."""
    import pymc as pm

    n, j, k = len(design.target), design.morphology.shape[1], design.stimuli.shape[1]
    x = _columns(design)
    with pm.Model() as model:
        scatter = pm.HalfCauchy("scatter", sizes["scatter"])
        if likelihood == "laplace":
            variance = 2 * scatter**2 * pm.Exponential("mixing", 1, shape=n)
        elif likelihood == "student":
            half = FREEDOM / 2
            variance = scatter**2 * pm.InverseGamma("mixing", half, half, shape=n)
        else:
            variance = scatter**2 * np.ones(n)
        variance = pm.Deterministic("variance", variance)
        if prior == "horseshoe":
            of_morphology = regression.horseshoe(design, sizes, j)
        else:
            of_morphology = np.full(j, sizes["morphology"])
        sd = pm.math.concatenate(
            [np.full(1, sizes["intercept"]), of_morphology, np.full(k, sizes["stimulus"])]
        )
        sd = pm.Deterministic("coefficient_sd", sd)
        covariance = pm.math.dot(x * sd**2, x.T) + variance * np.eye(n)
        if design.has_film_effects:
            film_sd = pm.HalfNormal("film_sd", sizes["film"])
            covariance = covariance + film_sd**2 * (design.film[:, None] == design.film)
        pm.MvNormal("target", 0, cov=covariance, observed=design.target)
    return model


def _with_coefficients(
    tree: "xr.DataTree",
    design: Design,
    sizes: dict[str, float],
    names: tuple[tuple[str, ...], tuple[str, ...]],
    likelihood: str,
    rng: np.random.Generator,
) -> "xr.DataTree":
    """Draw the coefficients of each draw, and the log likelihood of each row."""
    import xarray as xr

    chains = tree["posterior"].to_dataset()
    shape = chains["scatter"].shape
    x, n_films = _columns(design), int(design.film.max()) + 1
    in_film = (design.film[:, None] == np.arange(n_films)).astype(float)
    variance = chains["variance"].values.reshape(-1, len(x))
    sd = chains["coefficient_sd"].values.reshape(len(variance), -1)
    film_sd = np.zeros(len(variance))
    if design.has_film_effects:
        film_sd = chains["film_sd"].values.ravel()
    # All columns with normal weights. By Matheron's rule a draw of the prior, moved by what its
    # own simulated areas are off, is a draw of the posterior.
    weighted = np.concatenate(
        [sd[:, None] * x, film_sd[:, None, None] * in_film], axis=2
    )  # (draw, row, weight), of standard normal weights
    covariance = weighted @ weighted.transpose(0, 2, 1)
    covariance += variance[:, :, None] * np.eye(len(x))
    weight = rng.standard_normal(weighted.shape[::2])
    simulated = np.einsum("drw,dw->dr", weighted, weight)
    simulated += np.sqrt(variance) * rng.standard_normal(variance.shape)
    off = np.linalg.solve(covariance, (design.target - simulated)[..., None])
    weight += (weighted.transpose(0, 2, 1) @ off)[..., 0]
    location = np.einsum("drw,dw->dr", weighted, weight)
    coefficients = sd * weight[:, : x.shape[1]]
    j = len(names[0])
    found = {
        "intercept": ((), coefficients[:, 0]),
        "morphology": (("descriptor",), coefficients[:, 1 : 1 + j]),
        "stimulus": (("stimulus_name",), coefficients[:, 1 + j :]),
    }
    if design.has_film_effects:
        found["film_z"] = (("film",), weight[:, x.shape[1] :])
    coords = {"descriptor": list(names[0]), "stimulus_name": list(names[1])}
    chains = chains.assign(
        {
            name: (("chain", "draw", *dims), values.reshape(*shape, *values.shape[1:]))
            for name, (dims, values) in found.items()
        }
    ).assign_coords(coords)
    from scipy import stats  # here, since a form is answered without it

    scatter = chains["scatter"].values.reshape(-1, 1)
    log_density = {
        "laplace": stats.laplace.logpdf,
        "student": lambda y, at, scale: stats.t.logpdf(y, FREEDOM, at, scale),
        "normal": stats.norm.logpdf,
    }[likelihood](design.target, location, scatter)
    by_row = (("chain", "draw", "row"), log_density.reshape(*shape, -1))
    tree["posterior"] = xr.DataTree(chains)
    tree["log_likelihood"] = xr.DataTree(xr.Dataset({"target": by_row}))
    return tree
