"""The regression of interfacial area on morphology and stimuli, sampled by NUTS.

Everything is standardised: a coefficient is in standard deviations of the target for one of the
predictor.
"""

import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from touchstone.io.artifacts import ArtifactError

if TYPE_CHECKING:
    import pymc as pm
    import pytensor.tensor as pt
    import xarray as xr

_WORST_R_HAT, _LEAST_ESS, _LEAST_BFMI = 1.01, 400.0, 0.3
_MOST_DIVERGENT = 0.001  # part of the draws
_ROWS_EACH = 2  # rows for a coefficient, of which fewer than that cannot inform every one
FREEDOM = 4.0  # of Student's t
_RELEVANT = 5  # coefficients, that the horseshoe's global scale supposes to matter
COEFFICIENTS = ("intercept", "morphology", "stimulus", "product", "film_sd", "scatter")


class Design(NamedTuple):
    """Standardised data.

    Attributes:
        film: Number of the film of each row.
        morphology: Shape (row, J).
        stimuli: Shape (row, K).
        target: Shape (row,).
    """

    film: Int[np.ndarray, " row"]
    morphology: Float[np.ndarray, "row descriptor"]
    stimuli: Float[np.ndarray, "row stimulus"]
    target: Float[np.ndarray, " row"]

    @property
    def n_main(self) -> int:
        """Number of coefficients without products: intercept, descriptors, stimuli."""
        return 1 + self.morphology.shape[1] + self.stimuli.shape[1]

    @property
    def n_all(self) -> int:
        """Number of coefficients with the products of each descriptor and each stimulus."""
        return self.n_main + self.morphology.shape[1] * self.stimuli.shape[1]

    @property
    def has_products(self) -> bool:
        """Whether there are rows enough for products of descriptors and stimuli."""
        return len(self.target) >= _ROWS_EACH * self.n_all

    @property
    def has_film_effects(self) -> bool:
        """Whether any film has several rows, which tell its effect from the errors."""
        return bool((np.bincount(self.film) > 1).any())

    @property
    def is_scarce(self) -> bool:
        """Whether coefficients could follow the rows so closely that the scatter vanishes.

        The density of a scatter near zero is then finite, but a funnel: see `scarce`.
        """
        return len(self.target) < _ROWS_EACH * self.n_main

    def left_out(self) -> list[str]:
        """What the regression leaves out for want of rows, in words."""
        n, said = len(self.target), []
        if not self.has_products:
            said.append(
                f"products of descriptors and stimuli are left out, because {n} measurements are "
                f"fewer than {_ROWS_EACH} for each of {self.n_all} coefficients: a stimulus has "
                "the same effect on every film"
            )
        if not self.has_film_effects:
            said.append(
                "film effects are left out, because no film was measured twice: what a film is "
                "by itself cannot be told from the error of its measurement"
            )
        return said


class NotConvergedError(ArtifactError):
    """Chains that did not converge; the message names the figure and what to change."""


def build(
    design: Design,
    sizes: dict[str, float],
    names: tuple[tuple[str, ...], tuple[str, ...]],
    prior: str = "normal",
    likelihood: str = "laplace",
) -> "pm.Model":
    """The regression as a PyMC model.

    Args:
        design: The data.
        sizes: Standard deviations of the priors, as `regression` of the model's `config.yaml`.
        names: Of the descriptors and of the stimuli.
        prior: Of the coefficients of morphology and of products: "normal", or "horseshoe", the
            regularised one of Piironen and Vehtari (2017).
        likelihood: "laplace", "normal" or "student".
    """
    import pymc as pm

    n_films = int(design.film.max()) + 1
    coords = {"descriptor": names[0], "stimulus_name": names[1], "film": np.arange(n_films)}
    with pm.Model(coords=coords) as model:
        x = pm.Data("x", design.morphology, dims=("row", "descriptor"))
        s = pm.Data("s", design.stimuli, dims=("row", "stimulus_name"))
        intercept = pm.Normal("intercept", 0, sizes["intercept"])
        of_stimulus = pm.Normal("stimulus", 0, sizes["stimulus"], dims="stimulus_name")
        j, k = design.morphology.shape[1], design.stimuli.shape[1]
        size = j * (1 + k) if design.has_products else j
        if prior == "horseshoe":
            shrunk = horseshoe(design, sizes, size)
            flat = pm.Normal("coefficient_z", 0, 1, shape=size) * shrunk
            morphology = pm.Deterministic("morphology", flat[:j], dims="descriptor")
        else:
            morphology = pm.Normal("morphology", 0, sizes["morphology"], dims="descriptor")
        mean = intercept + x @ morphology + s @ of_stimulus
        if design.has_products:
            dims = ("descriptor", "stimulus_name")
            if prior == "horseshoe":
                product = pm.Deterministic("product", flat[j:].reshape((j, k)), dims=dims)
            else:
                product = pm.Normal("product", 0, sizes["product"], dims=dims)
            mean = mean + ((x @ product) * s).sum(1)
        if design.has_film_effects:
            film_sd = pm.HalfNormal("film_sd", sizes["film"])
            film = pm.Normal("film_z", 0, 1, dims="film")
            mean = mean + film_sd * film[design.film]
        scatter = pm.HalfCauchy("scatter", sizes["scatter"])
        if likelihood == "laplace":
            pm.Laplace("target", mean, scatter, observed=design.target, dims="row")
        elif likelihood == "student":
            shape = {"nu": FREEDOM, "mu": mean, "sigma": scatter}
            pm.StudentT("target", **shape, observed=design.target, dims="row")
        else:
            pm.Normal("target", mean, scatter, observed=design.target, dims="row")
    return model


def horseshoe(design: Design, sizes: dict[str, float], size: int) -> "pt.TensorVariable":
    """Standard deviations of coefficients most of which are near zero, inside a PyMC model."""
    import pymc as pm

    relevant = min(_RELEVANT, size / 2)
    scale = relevant / (size - relevant) / np.sqrt(len(design.target))
    tau = pm.HalfStudentT("tau", 2, scale)
    lam = pm.HalfStudentT("lam", 2, 1, shape=size)
    slab = sizes["morphology"] ** 2 * pm.InverseGamma("slab", 2, 2)
    return tau * lam * pm.math.sqrt(slab / (slab + tau**2 * lam**2))


def sample(model: "pm.Model", settings: dict, seed: int) -> "xr.DataTree":
    """Chains of a model.

    Args:
        model: As from `build`.
        settings: `chains`, `warmup`, `draws` and `target_accept`.
        seed: Of all chains.
    """
    import pymc as pm

    with model, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of is asserted
        return pm.sample(
            settings["draws"],
            tune=settings["warmup"],
            chains=settings["chains"],
            cores=2,
            nuts_sampler="nutpie",
            target_accept=settings["target_accept"],
            random_seed=seed,
            progressbar=False,
        )


def thinned(values: np.ndarray, n: int) -> np.ndarray:
    """At most n draws of all chains, evenly spaced: of shape (chain, draw, ...), to (n, ...)."""
    flat = values.reshape(-1, *values.shape[2:])
    return flat[np.linspace(0, len(flat) - 1, min(n, len(flat))).astype(int)]


def with_log_likelihood(model: "pm.Model", tree: "xr.DataTree") -> "xr.DataTree":
    """Chains of a model, with the log likelihood of each row."""
    import pymc as pm

    with model:
        pm.compute_log_likelihood(tree, progressbar=False)
    return tree


class Diagnosis(NamedTuple):
    """How well chains have mixed: the worst of all entries.

    Attributes:
        r_hat: Largest split R-hat.
        ess: Smallest effective number of draws, of bulk and tails.
        divergent: Part of the draws that diverged.
        bfmi: Smallest Bayesian fraction of missing information.
    """

    r_hat: float
    ess: float
    divergent: float
    bfmi: float

    @property
    def fault(self) -> str:
        """What is wrong and what to change, in words; empty if nothing is."""
        if self.divergent > _MOST_DIVERGENT:
            return (
                f"{100 * self.divergent:.2g} % of the draws diverged: raise target_accept, or "
                "choose the other prior"
            )
        if not self.r_hat <= _WORST_R_HAT:
            return f"R-hat is {self.r_hat:.3f} (at most {_WORST_R_HAT}): raise warmup and draws"
        if not self.ess >= _LEAST_ESS:
            return f"{self.ess:.0f} effective draws (at least {_LEAST_ESS:.0f}): raise draws"
        if not self.bfmi >= _LEAST_BFMI:
            return f"BFMI is {self.bfmi:.2f} (at least {_LEAST_BFMI}): raise warmup"
        return ""


def diagnose(tree: "xr.DataTree", names: tuple[str, ...] = COEFFICIENTS) -> Diagnosis:
    """R-hat, effective draws, divergences and BFMI of chains, over those names they have."""
    import arviz as az

    present = [name for name in names if name in tree["posterior"]]

    def all_of(found) -> np.ndarray:
        return np.concatenate([np.ravel(found[name].values) for name in present])

    ess = [az.ess(tree, var_names=present, method=method) for method in ("bulk", "tail")]
    sampled = tree["sample_stats"]
    energy = np.asarray(sampled["energy"])
    # Change of the energy over its spread (Betancourt 2016).
    bfmi = np.square(np.diff(energy, axis=1)).mean(1) / energy.var(1)
    return Diagnosis(
        float(all_of(az.rhat(tree, var_names=present)).max()),
        float(min(all_of(found).min() for found in ess)),
        float(np.mean(np.asarray(sampled["diverging"]))),
        float(bfmi.min()),
    )


def assert_converged(diagnosis: Diagnosis) -> None:
    """Refuse chains that did not converge.

    Raises:
        NotConvergedError: With the figure, its limit, and what to change.
    """
    if fault := diagnosis.fault:
        raise NotConvergedError(f"interface.train: the chains did not converge: {fault}")


class Loo(NamedTuple):
    """Leave-one-out cross-validation.

    Attributes:
        elpd: Expected log predictive density of the target, in its standard deviations.
        se: Its standard error.
        p: Effective number of parameters.
        pointwise: Of each row, shape (row,).
        k: Pareto k of each row, shape (row,).
        high: Whether it is too high to trust, shape (row,).
    """

    elpd: float
    se: float
    p: float
    pointwise: np.ndarray
    k: np.ndarray
    high: np.ndarray

    @property
    def k_high(self) -> int:
        """Number of rows whose Pareto k is too high to trust."""
        return int(np.count_nonzero(self.high))

    def replaced(self, rows: np.ndarray, exact: np.ndarray) -> "Loo":
        """The same with exact values of some rows."""
        pointwise, high = self.pointwise.copy(), self.high.copy()
        pointwise[rows], high[rows] = exact, False
        elpd = float(pointwise.sum())
        se = float(np.sqrt(len(pointwise)) * pointwise.std())
        return Loo(elpd, se, self.p + self.elpd - elpd, pointwise, self.k, high)


def leave_one_out(tree: "xr.DataTree") -> Loo:
    """Pareto-smoothed importance sampling of what is left out (Vehtari, Gelman, Gabry 2017)."""
    import arviz as az

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the high k are counted
        found = az.loo(tree, pointwise=True)
    k = np.ravel(found.pareto_k)
    return Loo(
        float(found.elpd),
        float(found.se),
        float(found.p),
        np.ravel(found.elpd_i),
        k,
        k > found.good_k,
    )
