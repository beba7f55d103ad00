"""Abduction: the posterior of the exogenous terms of a galaxy, given its photometry.

An amortised flow proposes, exact re-weighting with the likelihood of the forward model corrects.
"""

from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import logsumexp
from scipy.special import ndtr as normal_cdf

from touchstone.inference import amortised, importance, psis
from touchstone.inference.amortised_posterior import AmortisedPosterior
from touchstone.inference.batches import map_batches, map_chunks
from touchstone.inference.priors import Prior
from touchstone.inference.problem import Factor, Problem, simulated
from touchstone.models.galaxy.graph import Graph, galaxy_of
from touchstone.models.galaxy.observation import Photometry
from touchstone.models.galaxy.physics import Forward
from touchstone.vocabulary import Cases, Computation, Posterior, Prediction

_ENOUGH_DRAWS = 100  # effective ones: the ends of a 90 % interval then rest on five draws each
_STARTS = 64  # draws of the flow that a run chooses its starts from
_LEAST = 0.02  # part of a band's variance that its own datum can not explain, at least
_HIDDEN = 4.0  # log of the error of a missing band over the typical one, as the network sees it


class Light(eqx.Module):
    """Fluxes of exogenous terms: the costly part of the likelihood."""

    forward: Forward
    graph: Graph = eqx.field(static=True)

    def __call__(self, u: Array) -> Array:
        """Nanomaggies, shape (band,), of terms of shape (P,)."""
        return self.forward.fluxes(galaxy_of(self.graph.values(self.forward, u)))


class Residuals(eqx.Module):
    """Standardised residuals of one observation: its bands, then its redshift."""

    observed: Array
    error: Array
    seen: Array
    redshift: Array
    redshift_error: Array
    floor: float
    graph: Graph = eqx.field(static=True)

    def __call__(self, fluxes: Array, u: Array) -> tuple[Array, Array]:
        """Residuals and logarithms of their scales, shape (band + 1,) each."""
        place = self.graph.names.index("redshift")
        redshift = self.graph.mechanisms["redshift"].value(u[place], {})
        scale = jnp.sqrt(self.error**2 + (self.floor * fluxes) ** 2)
        scale = jnp.where(self.seen, scale, 1.0)
        left = jnp.where(self.seen, self.observed - fluxes, 0.0) / scale
        of_redshift = (self.redshift - redshift) / self.redshift_error
        return jnp.append(left, of_redshift), jnp.append(
            jnp.log(scale), jnp.log(self.redshift_error)
        )


def standard_normal(size: int) -> Prior:
    """Prior of the exogenous terms, which are their own standard coordinates."""
    return Prior(size, lambda z: z, lambda theta: theta)


class Abduction:
    """Learns and infers exogenous terms.

    Args:
        graph: The causal model.
        forward: The physics.
        noise: As in `config.yaml`.
        bands: Their names.
        effective: Their wavelengths, Å, shape (band,).
    """

    def __init__(
        self,
        graph: Graph,
        forward: Forward,
        noise: dict,
        bands: tuple[str, ...],
        effective: np.ndarray,
    ):
        self.graph, self.noise, self.bands, self.effective = graph, noise, bands, effective
        self.light = Light(forward, graph)
        self.depth = np.array([noise["depth"][band] for band in bands])
        self.flow: AmortisedPosterior | None = None

    def fluxes(self, u: np.ndarray) -> np.ndarray:
        """Of terms of shape (..., P): shape (..., band)."""
        rows = np.asarray(u, np.float32).reshape(-1, u.shape[-1])
        return map_chunks(simulated, self.light, rows).reshape(*u.shape[:-1], -1)

    def features(self, cases: Cases[Photometry]) -> np.ndarray:
        """What the network sees of observations, shape (case, 2 band + 2)."""
        seen, detail = cases.mask, cases.detail
        flux = np.where(seen, np.arcsinh(cases.observed / (2 * self.depth)), 0.0)
        error = np.where(seen, np.log(detail.error / self.depth), _HIDDEN)
        own = self.graph.mechanisms["redshift"]
        inside = np.clip(detail.redshift, own.low + 1e-3, own.high - 1e-3)
        place = np.asarray(own.exogenous(jnp.asarray(inside), {}))
        return np.column_stack([flux, error, place, np.log(detail.redshift_error)])

    # Learning -------------------------------------------------------------------------------------

    def learn(self, u: np.ndarray, cases: Cases[Photometry], key: Array, sizes: dict) -> None:
        """Train the flow on simulated cases; `sizes` are those of `amortised.learn`."""
        prior = standard_normal(u.shape[1])
        self.flow = amortised.learn(
            jnp.asarray(u), jnp.asarray(self.features(cases)), prior, key=key, **sizes
        )

    def save(self, file: Path) -> None:
        """Write the flow."""
        eqx.tree_serialise_leaves(file, self.flow)

    def load(self, file: Path, width: int, depth: int, n_losses: int) -> None:
        """Read a flow of a width and depth."""
        size = len(self.graph.names)
        blank = AmortisedPosterior.untrained(
            jnp.zeros((2, 2 * len(self.depth) + 2)), standard_normal(size), 0.0, 0.0, width, depth,
            jax.random.key(0),
        )  # fmt: skip
        blank = eqx.tree_at(lambda flow: flow.losses, blank, jnp.zeros(n_losses))
        self.flow = eqx.tree_deserialise_leaves(file, blank)

    # Inference ------------------------------------------------------------------------------------

    def propose(self, cases: Cases[Photometry], key: Array, n_draws: int, n_steps: int):
        """Draws of the flow, shape (case, draw, P)."""
        keys = jax.random.split(key, len(cases.kind))
        sample = partial(_sample, self.flow, n_draws, n_steps)
        return map_batches(sample, jax.random.key_data(keys), self.features(cases), batch_size=64)

    def problem(self, cases: Cases[Photometry], case: int) -> Problem:
        """The exact posterior of one case."""
        detail = cases.detail
        arrays = cases.observed, detail.error, cases.mask, detail.redshift, detail.redshift_error
        own = (jnp.asarray(array[case]) for array in arrays)
        residuals = Residuals(*own, floor=self.noise["floor"], graph=self.graph)
        everything = np.arange(len(self.graph.names))
        return Problem((Factor(everything, self.light, residuals),), heavy=everything)

    def infer(
        self, cases: Cases[Photometry], rng: np.random.Generator, budget: dict, label: str | None
    ) -> Posterior:
        """Posterior of each case.

        Args:
            cases: The cases.
            rng: For all randomness.
            budget: `n_draws` of the posterior, `n_steps` of the flow, and `reweight`, the sizes of
                `importance.reweight` and the `n_runs` of `importance.agree`.
            label: Of the progress bar.
        """
        sizes = dict(budget["reweight"])
        n_runs = sizes.pop("n_runs")
        key = jax.random.key(rng.integers(2**32))
        starts = self.propose(cases, key, _STARTS * n_runs, budget["n_steps"])
        seeds = rng.integers(2**63, size=len(starts))

        def of_case(case: int):
            problem, own = self.problem(cases, case), np.random.default_rng(seeds[case])

            def run(number: int) -> importance.Reweighted:
                first = starts[case, number * _STARTS : (number + 1) * _STARTS]
                return importance.reweight(problem, first, own, **sizes)

            pooled = importance.agree(run, n_runs)
            kept = pooled.z[psis.resample(pooled.weight, budget["n_draws"])]
            figures = pooled.effective, pooled.k_hat, pooled.disagreement, pooled.k_threshold
            return kept, np.array([*figures, pooled.log_evidence])

        u, figures = map_batches(
            lambda index: _stacked(map(of_case, index)),
            np.arange(len(starts)), batch_size=1, label=label,
        )  # fmt: skip
        effective, k_hat, disagreement, threshold, evidence = figures.T
        computation = Computation(
            {"k_hat": k_hat, "effective_draws": effective, "disagreement": disagreement},
            {"k_hat": threshold, "disagreement": np.full(len(u), importance.AGREEMENT)},
            {"effective_draws": np.full(len(u), float(_ENOUGH_DRAWS))},
        )
        return self._posterior(cases, u, evidence, computation)

    def _posterior(self, cases, u, evidence, computation) -> Posterior:
        n, n_draws, size = u.shape
        return Posterior(
            {f"u_{name}": u[..., k] for k, name in enumerate(self.graph.names)},
            np.full((n, n_draws), 1 / n_draws),
            np.zeros((n, size)),
            np.ones((n, size)),
            normal_cdf(u.mean(1)),
            self._predict(cases, u),
            evidence,
            computation,
        )

    def _predict(self, cases: Cases[Photometry], u: np.ndarray) -> Prediction:
        """What draws say of a new observation in each band."""
        flux = self.fluxes(u).astype(float)
        noise = np.sqrt(cases.detail.error[:, None] ** 2 + (self.noise["floor"] * flux) ** 2)
        score = (cases.observed[:, None] - flux) / noise
        mean, typical = flux.mean(1), np.sqrt((noise**2).mean(1))
        density = logsumexp(-0.5 * score**2 - np.log(noise), axis=1) - np.log(flux.shape[1])
        # The data pull the posterior to themselves: of residuals in units of the noise, theory
        # leaves the variance 1 - V, with V that of the posterior's fluxes (of a linear model).
        unit = (flux - mean[:, None]) / typical[:, None]
        pulled = unit.mT @ unit / flux.shape[1]
        value, vector = np.linalg.eigh(np.eye(flux.shape[2]) - pulled)
        whiten = (vector / np.sqrt(np.maximum(value, _LEAST))[:, None]) @ vector.mT
        left = np.where(cases.mask, (cases.observed - mean) / typical, 0.0)
        return Prediction(
            mean,
            np.sqrt(flux.var(1) + typical**2),
            normal_cdf(score).mean(1),
            density + np.log(typical) - 0.5 * np.log(2 * np.pi),
            (whiten @ left[..., None])[..., 0],
        )


def _stacked(results):
    return tuple(np.stack(column) for column in zip(*results, strict=True))


@eqx.filter_jit
def _sample(posterior, n_draws: int, n_steps: int, key_data: Array, features: Array) -> Array:
    keys = jax.random.wrap_key_data(key_data)
    return jax.vmap(lambda key, x: posterior.sample(key, x, n_draws, n_steps=n_steps))(
        keys, features.astype(jnp.float32)
    )
