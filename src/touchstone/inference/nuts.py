"""The reference: Hamiltonian Monte Carlo on the exact posterior, slow and sure of itself.

What a fast posterior says is compared with this one. nutpie runs the no-U-turn sampler (Hoffman &
Gelman 2014) on the log density and its gradient, which JAX computes, and ArviZ says whether the
chains agree (Vehtari et al. 2021). All in float64, whatever the rest of the process uses.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.stats import norm

if TYPE_CHECKING:
    import xarray as xr

# nutpie, ArviZ and xarray import plots, a compiler and tables, which takes longer than everything
# else here: only the functions that use them import them.

LARGEST_R_HAT, LEAST_ESS = 1.01, 400  # Vehtari et al. 2021, sections 4.1 and 4.2
MOST_DIVERGENT = 0.01  # of all transitions
_ACCEPT = 0.9  # target of the step size: at 0.8 the narrow ends of a posterior diverge
_SAME = 1e-3  # log densities that differ by less make no other posterior
_STATS = ("diverging", "n_steps", "step_size", "energy", "logp")


class UnfitStartError(ValueError):
    """At a start of a chain the log posterior is not finite, or its gradient has a zero."""


class NotConvergedError(RuntimeError):
    """The draws are no reference: see `Convergence.faults`."""


class Bijection(NamedTuple):
    """A change of coordinates.

    Attributes:
        to: From z, shape (P,), to coordinates of the same shape in which a posterior is straight.
        back: To z; differentiable.
    """

    to: Callable[[Array], Array]
    back: Callable[[Array], Array]


IDENTITY = Bijection(jnp.asarray, jnp.asarray)


class Convergence(NamedTuple):
    """What the chains say about themselves.

    Attributes:
        r_hat: Rank-normalised split R-hat of each parameter.
        ess_bulk: Effective draws of each parameter, for its centre.
        ess_tail: Effective draws of each parameter, for its 5 % and 95 % quantiles.
        n_draws: Of all chains.
        n_divergent: Of these, made where the energy was lost; where there are many, others are
            missing.
    """

    r_hat: dict[str, float]
    ess_bulk: dict[str, float]
    ess_tail: dict[str, float]
    n_draws: int
    n_divergent: int

    @property
    def least_ess(self) -> float:
        """The fewest effective draws of any parameter, bulk or tail."""
        return min(*self.ess_bulk.values(), *self.ess_tail.values())

    @property
    def faults(self) -> list[str]:
        """Why the draws are no reference, parameter by parameter; empty if they are one."""
        # Asked so that a NaN, of chains that never moved, is a fault.
        mixed = [
            f"R-hat of {name} is {value:.3f}"
            for name, value in self.r_hat.items()
            if not value <= LARGEST_R_HAT
        ]
        few = [
            f"{kind} effective size of {name} is {value:.0f}"
            for kind, sizes in (("bulk", self.ess_bulk), ("tail", self.ess_tail))
            for name, value in sizes.items()
            if not value >= LEAST_ESS
        ]
        if self.n_divergent > MOST_DIVERGENT * self.n_draws:
            return [*mixed, *few, f"{self.n_divergent} of {self.n_draws} draws diverged"]
        return mixed + few


def sample(
    log_likelihood: Callable[[Array], Array],
    start: np.ndarray,
    factor: np.ndarray,
    *,
    names: Sequence[str],
    n_tune: int,
    n_draws: int,
    seed: int,
    coordinates: Bijection = IDENTITY,
) -> "xr.DataTree":
    """Draws of the posterior of z under a standard normal prior, one chain for each start.

    The sampler moves in u, with coordinates.to(z) = factor @ u: exact whatever the two, and fast
    where u is about normal and uncorrelated, as with coordinates in which the posterior is not
    bent, and the Cholesky factor of the covariance of approximate draws there. Chains run beside
    each other on all cores.

    Args:
        log_likelihood: Scalar function of z, shape (P,), float64; differentiable.
        start: Where the chains start, shape (chains, P): draws of about the posterior, or wider.
            R-hat cannot see a mode that no chain enters.
        factor: Invertible, shape (P, P).
        names: Of the P parameters.
        n_tune: Draws of each chain that adapt step size and metric, and are dropped.
        n_draws: Draws of each chain that are kept.
        seed: For all randomness.
        coordinates: In which to sample.

    Returns:
        Groups `posterior` (`z`, dims chain, draw, parameter) and `sample_stats`. It can be kept by
        its `to_netcdf`.

    Raises:
        UnfitStartError: If at a start the log posterior or its gradient is not finite, or the
            gradient has a component that is exactly zero: the sampler takes its first scales from
            it.
    """
    factor, names = np.asarray(factor, float), list(names)
    back = _change_of_coordinates(coordinates, factor)
    density = _compiled(log_likelihood, back)
    with jax.enable_x64(True):
        straight = np.asarray(jax.jit(jax.vmap(coordinates.to))(np.asarray(start, float)))
    starts = np.linalg.solve(factor, straight.T).T.copy()
    # The first call compiles: before there are threads that would all do so.
    unfit = [k for k, u in enumerate(starts) if not _fit(*density(u))]
    if unfit:
        raise UnfitStartError(f"log posterior not finite, or without a slope, at start {unfit}")
    seeds = np.random.SeedSequence(seed).generate_state(len(starts)).tolist()
    running = [
        _launch(density, *chain, names=names, n_tune=n_tune, n_draws=n_draws)
        for chain in zip(starts, seeds, strict=True)
    ]
    tree = _joined([sampler.wait() for sampler in running], back)
    tree.attrs |= {"seed": seed, "n_tune": n_tune}
    return tree


def are_of(
    draws: "xr.DataTree", log_likelihood: Callable[[Array], Array], names: Sequence[str]
) -> bool:
    """Whether kept draws are of this posterior: at the last of each chain, the density is theirs.

    Args:
        draws: As `sample` returned them, at any time.
        log_likelihood, names: As there.
    """
    if draws["posterior"].dataset["parameter"].values.tolist() != list(names):
        return False
    last = draws["posterior"].dataset["z"].values[:, -1]
    theirs = draws["sample_stats"].dataset["logp"].values[:, -1]
    log_posterior = partial(_log_posterior, log_likelihood)
    with jax.enable_x64(True):
        ours = np.asarray(jax.jit(lambda z: jax.lax.map(log_posterior, z))(last))
    return bool(np.allclose(ours, theirs, rtol=0, atol=_SAME))


def diagnose(draws: "xr.DataTree") -> Convergence:
    """Whether draws, as `sample` returns them, are a reference: see `Convergence.faults`."""
    import arviz as az

    z = draws["posterior"].dataset["z"]

    def of_each(values: "xr.DataArray") -> dict[str, float]:
        return dict(zip(z["parameter"].values.tolist(), values.values.tolist(), strict=True))

    return Convergence(
        r_hat=of_each(az.rhat(z)),
        ess_bulk=of_each(az.ess(z, method="bulk")),
        ess_tail=of_each(az.ess(z, method="tail")),
        n_draws=z.sizes["chain"] * z.sizes["draw"],
        n_divergent=int(draws["sample_stats"].dataset["diverging"].sum()),
    )


def assert_converged(draws: "xr.DataTree") -> Convergence:
    """The diagnosis of draws that are a reference.

    Raises:
        NotConvergedError: If they are none; the message says why.
    """
    convergence = diagnose(draws)
    if convergence.faults:
        raise NotConvergedError("; ".join(convergence.faults))
    return convergence


def _log_posterior(log_likelihood: Callable[[Array], Array], z: Array) -> Array:
    """Log density of z, up to the evidence: its prior is standard normal."""
    return norm.logpdf(z).sum() + log_likelihood(z)


def _change_of_coordinates(
    coordinates: Bijection, factor: np.ndarray
) -> Callable[[Array], tuple[Array, Array]]:
    """Function of u that gives z, and the logarithm of the volume of z in that of u."""

    def place(u):
        return coordinates.back(factor @ u)

    return lambda u: (place(u), jnp.linalg.slogdet(jax.jacfwd(place)(u))[1])


def _compiled(
    log_likelihood: Callable[[Array], Array], back: Callable[[Array], tuple[Array, Array]]
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Log density of u, of which `back` gives z, and its gradient; in float64."""

    def log_density(u):
        z, log_volume = back(u)
        return _log_posterior(log_likelihood, z) + log_volume

    compiled = jax.jit(jax.value_and_grad(log_density))

    def density(u: np.ndarray) -> tuple[float, np.ndarray]:
        # The precision is a setting of the thread, and the sampler has threads of its own.
        with jax.enable_x64(True):
            value, gradient = compiled(u)
        return float(value), np.asarray(gradient)

    return density


def _fit(value: float, gradient: np.ndarray) -> bool:
    return bool(np.isfinite(value) and np.isfinite(gradient).all() and gradient.all())


def _launch(
    density: Callable, start: np.ndarray, seed: int, *, names: list[str], n_tune: int, n_draws: int
) -> Any:
    """One running chain, a sampler of its own: within one, chains do not know their starts."""
    import nutpie
    from nutpie.compiled_pyfunc import from_pyfunc

    model = from_pyfunc(
        len(names),
        lambda: density,
        lambda *_: lambda u: {"z": u},
        [np.dtype(float)],
        [(len(names),)],
        ["z"],
        dims={"z": ("parameter",)},
        coords={"parameter": names},
        make_initial_point_fn=lambda _: start,
    )
    return nutpie.sample(
        model,
        tune=n_tune,
        draws=n_draws,
        chains=1,
        cores=1,
        seed=seed,
        adaptation="low_rank",  # mends a factor that is wrong in a few directions
        target_accept=_ACCEPT,
        progress_bar=False,
        blocking=False,
    )


def _joined(
    chains: "list[xr.DataTree]", back: Callable[[Array], tuple[Array, Array]]
) -> "xr.DataTree":
    """The chains beside each other, and z and its density in place of u and the density of u."""
    import nutpie
    import xarray as xr

    def together(group: str, variables: Sequence[str]) -> "xr.Dataset":
        parts = [chain[group].dataset[list(variables)].drop_attrs() for chain in chains]
        return xr.concat(parts, "chain").assign_coords(chain=range(len(parts)))

    stats = together("sample_stats", _STATS)
    warm = together("warmup_sample_stats", ["n_steps"])
    posterior = together("posterior", ["z"])
    with jax.enable_x64(True):
        z, log_volume = jax.jit(jax.vmap(jax.vmap(back)))(posterior["z"].values)
    posterior["z"].values = np.asarray(z)
    stats["logp"] -= np.asarray(log_volume)
    tree = xr.DataTree.from_dict({"posterior": posterior, "sample_stats": stats})
    tree.attrs = {
        "sampler": f"nutpie {nutpie.__version__}",
        "n_gradients": int(warm["n_steps"].sum() + stats["n_steps"].sum()),
    }
    return tree
