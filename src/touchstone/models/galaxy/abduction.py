"""Abduction: the posterior of the exogenous terms of a galaxy, given its photometry.

An amortised flow proposes, exact re-weighting with the likelihood of the forward model corrects.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import logsumexp
from scipy.special import ndtr as normal_cdf

from touchstone.inference import amortised, importance, population, psis
from touchstone.inference.amortised_posterior import AmortisedPosterior
from touchstone.inference.batches import map_batches, map_chunks
from touchstone.inference.priors import Prior
from touchstone.inference.problem import simulated
from touchstone.models.galaxy.graph import Graph, galaxy_of
from touchstone.models.galaxy.observation import Photometry
from touchstone.models.galaxy.photometer import Photometer
from touchstone.models.galaxy.physics import Forward, Galaxy
from touchstone.vocabulary import Cases, Computation, Posterior, Prediction

_ENOUGH_DRAWS = 100  # effective ones: the ends of a 90 % interval then rest on five draws each
_SIZES = ("n_centres", "n_round", "n_rounds", "n_last")  # of `population.sample`
_MORE = 4  # times as many draws, beside those that there are, of a case that is not sound
_COVERED = 0.99  # part of a filter that a spectrum has to cover
_LEAST = 0.02  # part of a band's variance that its own datum can not explain, at least
_HIDDEN = 4.0  # log of the error of a missing band over the typical one, as the network sees it


class Light(eqx.Module):
    """Fluxes of exogenous terms: the costly part of the likelihood."""

    forward: Forward
    fluxes: Callable[[Galaxy], Array]
    graph: Graph = eqx.field(static=True)

    def __call__(self, u: Array) -> Array:
        """Nanomaggies, shape (band,), of terms of shape (P,)."""
        return self.fluxes(galaxy_of(self.graph.values(self.forward, u)))

    def at(self, u: Array, wavelength: Array) -> Array:
        """The same at observed wavelengths (Å) in place of bands."""
        return self.forward.density(galaxy_of(self.graph.values(self.forward, u)), wavelength)


class Known(NamedTuple):
    """What is known of one observation, or of many: shapes (band,) and (), or (case, ...)."""

    observed: Array | np.ndarray
    error: Array | np.ndarray
    seen: Array | np.ndarray
    redshift: Array | np.ndarray
    redshift_error: Array | np.ndarray
    wavelength: Any


class Residuals(eqx.Module):
    """Standardised residuals of one observation: its bands, then its redshift."""

    light: Light
    floor: float
    graph: Graph = eqx.field(static=True)

    def __call__(self, known: Known, u: Array) -> tuple[Array, Array]:
        """Residuals at terms of shape (P,) and logarithms of their scales, (band + 1,) each."""
        pixels = known.wavelength
        fluxes = self.light(u) if pixels is None else self.light.at(u, pixels)
        place = self.graph.names.index("redshift")
        redshift = self.graph.mechanisms["redshift"].value(u[place], {})
        scale = jnp.sqrt(known.error**2 + (self.floor * fluxes) ** 2)
        scale = jnp.where(known.seen, scale, 1.0)
        left = jnp.where(known.seen, known.observed - fluxes, 0.0) / scale
        of_redshift = (known.redshift - redshift) / known.redshift_error
        return (
            jnp.append(left, of_redshift),
            jnp.append(jnp.log(scale), jnp.log(known.redshift_error)),
        )


def known(cases: Cases[Photometry]) -> Known:
    """What is known of cases, in single precision."""
    detail = cases.detail
    arrays = cases.observed, detail.error, detail.redshift, detail.redshift_error
    flux, error, redshift, redshift_error = (a.astype(np.float32) for a in arrays)
    pixels = None if detail.wavelength is None else detail.wavelength.astype(np.float32)
    return Known(flux, error, cases.mask, redshift, redshift_error, pixels)


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
        self.light = Light(forward, Photometer(forward, _bounds(graph, forward)), graph)
        self.depth = np.array([noise["depth"][band] for band in bands])
        self.flow: AmortisedPosterior | None = None

    def fluxes(self, u: np.ndarray) -> np.ndarray:
        """Of terms of shape (..., P): shape (..., band)."""
        rows = np.asarray(u, np.float32).reshape(-1, u.shape[-1])
        return map_chunks(simulated, self.light, rows).reshape(*u.shape[:-1], -1)

    def expected(self, cases: Cases[Photometry], u: np.ndarray) -> np.ndarray:
        """Fluxes of draws of each case as it was observed, (case, draw, band or pixel)."""
        pixels = cases.detail.wavelength
        if pixels is None:
            return self.fluxes(u)
        given = (np.asarray(a, np.float32) for a in (pixels, u))
        return np.stack([
            map_chunks(_spectra, (self.light, own), draws)
            for own, draws in zip(*given, strict=True)
        ])  # fmt: skip

    def in_bands(self, cases: Cases[Photometry]) -> Cases[Photometry]:
        """Spectra as photometry, as far as they cover the bands: for the network alone."""
        pixels, forward = cases.detail.wavelength, self.light.forward
        if pixels is None:
            return cases
        node, through = (np.asarray(a, float) for a in (forward.node, forward.throughput))
        weight = through / node**2  # of flux per frequency
        weight /= weight.sum(1, keepdims=True)
        rows = []
        for k, seen in enumerate(cases.mask):
            own, flux, error = pixels[k, seen], cases.observed[k, seen], cases.detail.error[k, seen]
            covered = ((node >= own[0]) & (node <= own[-1])) @ weight.T > _COVERED
            rows.append((*(weight @ np.interp(node, own, a) for a in (flux, error)), covered))
        flux, error, covered = (np.stack(column) for column in zip(*rows, strict=True))
        detail = cases.detail._replace(error=error, wavelength=None)
        return cases._replace(observed=flux, mask=covered, detail=detail)

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
        features = self.features(self.in_bands(cases))
        return map_batches(sample, jax.random.key_data(keys), features, batch_size=64)

    def infer(
        self, cases: Cases[Photometry], rng: np.random.Generator, budget: dict, label: str | None
    ) -> Posterior:
        """Posterior of each case.

        Args:
            cases: The cases.
            rng: For all randomness.
            budget: `n_draws` of the posterior, `n_steps` of the flow, the sizes of
                `population.sample`, and `n_passes`: a case that one leaves unsound gets more draws
                in the next.
            label: Of the progress bar.
        """
        left = np.arange(len(cases.kind))
        halves: list[list[importance.Reweighted]] = [[] for _ in left]
        pooled: dict[int, importance.Pooled] = {}
        for number in range(budget["n_passes"]):
            again = np.repeat(left, _MORE if number else 1)
            for case, found in zip(
                again, self._halves(cases.take(again), rng, budget, label), strict=True
            ):
                halves[case] += found
            pooled |= {int(case): importance.pool(halves[case]) for case in left}
            left = np.array([case for case in left if not _sound(pooled[int(case)])], int)
            if not len(left):
                break
        runs = [pooled[case] for case in range(len(cases.kind))]
        u = np.stack([run.z[psis.resample(run.weight, budget["n_draws"])] for run in runs])
        figures = np.array(
            [(r.effective, r.k_hat, r.disagreement, r.k_threshold, r.log_evidence) for r in runs]
        )
        effective, k_hat, disagreement, threshold, evidence = figures.T
        computation = Computation(
            {"k_hat": k_hat, "effective_draws": effective, "disagreement": disagreement},
            {"k_hat": threshold, "disagreement": np.full(len(u), importance.AGREEMENT)},
            {"effective_draws": np.full(len(u), float(_ENOUGH_DRAWS))},
        )
        return self._posterior(cases, u, evidence, computation)

    def _halves(
        self, cases: Cases[Photometry], rng: np.random.Generator, budget: dict, label: str | None
    ) -> list[list[importance.Reweighted]]:
        """Weighted draws of each case, in two halves that are two runs."""
        first, second = jax.random.split(jax.random.key(rng.integers(2**32)))
        sizes = {name: budget[name] for name in _SIZES}
        starts = self.propose(cases, first, 2 * sizes["n_centres"], budget["n_steps"])
        residuals = Residuals(self.light, self.noise["floor"], self.graph)
        found = population.sample(residuals, known(cases), starts, second, **sizes, label=label)
        return [
            [
                importance.Reweighted(z.astype(float), weight.astype(float), len(z))
                for z, weight in zip(*both, strict=True)
            ]
            for both in zip(*found, strict=True)
        ]

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
        flux = self.expected(cases, u).astype(float)
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


def _bounds(graph: Graph, forward: Forward) -> dict[str, tuple[float, float]]:
    """Between which values of the graph's nodes are."""
    named = {name: graph.mechanisms[name] for name in ("redshift", "log_tau", "A_V", "formation")}
    ends = {name: (each.low, each.high) for name, each in named.items()}
    part = ends.pop("formation")
    universe = np.asarray(forward.cosmology.age(jnp.asarray(ends["redshift"][::-1])), float)
    return ends | {"age": (part[0] * float(universe[0]), part[1] * float(universe[1]))}


def _sound(run: importance.Pooled) -> bool:
    return run.trusted and run.effective >= _ENOUGH_DRAWS


@eqx.filter_jit
def _spectra(common: tuple[Light, Array], u: Array) -> Array:
    light, pixels = common
    return jax.vmap(lambda each: light.at(each, pixels))(u)


@eqx.filter_jit
def _sample(posterior, n_draws: int, n_steps: int, key_data: Array, features: Array) -> Array:
    keys = jax.random.wrap_key_data(key_data)
    return jax.vmap(lambda key, x: posterior.sample(key, x, n_draws, n_steps=n_steps))(
        keys, features.astype(jnp.float32)
    )
