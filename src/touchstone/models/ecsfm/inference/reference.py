"""The no-U-turn sampler on the exact simulator, where posteriors are straight."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from touchstone.inference import nuts
from touchstone.models.ecsfm.inference.records import Record, Simulation, inferred
from touchstone.models.ecsfm.inference.straight import Straight
from touchstone.models.ecsfm.physics.experiment import Kind, Records
from touchstone.models.ecsfm.physics.prior import Prior
from touchstone.models.ecsfm.physics.waveforms import Waveform

if TYPE_CHECKING:
    import xarray as xr

_CHAINS = 4


def chains(
    prior: Prior,
    case: Records,
    waveform: Waveform,
    draws: np.ndarray,
    *,
    n_tune: int,
    n_draws: int,
    seed: int,
    kept: "xr.DataTree | None",
) -> "xr.DataTree":
    """Chains of one case, without the baseline; see `Ecsfm.reference`."""
    at = np.concatenate(inferred(prior, case.known[0]))
    kind = Kind.of(case.experiment)
    case, waveform = jax.tree.map(_wide, (case, waveform))
    simulation = Simulation(prior, kind, case.experiment, waveform, case.experiment)
    record = Record(prior, case)
    names = [prior.names[k] for k in at]

    def whole(values):
        return jnp.asarray(case.z).at[at].set(values)

    def log_likelihood(values):
        z = whole(values)
        residual, log_scale = record.residuals(simulation(z), z)
        return -(0.5 * residual**2 + log_scale).sum()

    if kept is not None and nuts.are_of(kept, log_likelihood, names):
        return kept
    ours = np.unique(draws[:, at].astype(float), axis=0)
    again = len(ours) < _CHAINS - 1
    others = np.random.default_rng(seed).choice(len(ours), _CHAINS - 1, replace=again)
    # Where E0 and k0 are known only together, the posterior is bent.
    straight = Straight.of(prior, case.experiment, case.observed, case.mask)
    coordinates = nuts.Bijection(
        lambda z: straight.opened(whole(z))[at], lambda v: straight.closed(whole(v))[at]
    )
    with jax.enable_x64(True):
        opened = np.asarray(jax.jit(jax.vmap(coordinates.to))(ours))
    spread = np.cov(opened.T) if len(ours) > len(at) else np.eye(len(at))
    return nuts.sample(
        log_likelihood,
        np.concatenate([case.z[None, at], ours[others]]),
        np.linalg.cholesky(spread + 1e-9 * np.eye(len(at))),
        names=names,
        n_tune=n_tune,
        n_draws=n_draws,
        seed=seed,
        coordinates=coordinates,
    )


def _wide(array: np.ndarray) -> np.ndarray:
    """The only row of an array, real numbers in float64."""
    row = np.asarray(array)[0]
    return row.astype(np.float64) if row.dtype == np.float32 else row
