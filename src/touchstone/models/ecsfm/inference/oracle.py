"""What of a mismatch the parameters of the model do not absorb: the best fit to a noise-free trace.

The fit is a nonlinear least-squares problem in standard coordinates, solved by the steps of
Levenberg and Marquardt for many traces at once. Residuals are innovations: whitened by the true
noise and the true discrepancy, the baseline marginalised. Slopes are central differences, since the
simulator compiled for one trace serves them too; the residuals, which decide, are exact.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from touchstone.inference.batches import map_batches
from touchstone.models.ecsfm.physics.experiment import Experiment, Records
from touchstone.models.ecsfm.physics.forward import Forward
from touchstone.models.ecsfm.physics.prior import Prior

_N_STEPS = 12  # of Levenberg and Marquardt
_LONGEST, _FARTHEST = 1.5, 4.5  # standard coordinates: of a step, and from the middle of the prior
_DIFFERENCE = 0.03  # of standard coordinates, for slopes
_ENOUGH = 1.0  # fits that leave less than this part of a standard deviation are good enough
_BATCH = 64
# Where a second search starts from, besides the truth: slow kinetics at a resistive electrode.
_ELSEWHERE = {"k0": -1.5, "resistivity": 1.0}


class Fits:
    """Best in-family fits to noise-free traces of some experiments.

    Args:
        forward: The simulator.
        records: The experiments, with their true parameters and masks.
        signal: Root mean square of the noise-free currents, A: the unit of the noise, shape (n,).
    """

    def __init__(self, forward: Forward, records: Records, signal: np.ndarray):
        self._forward, self._prior, self._records = forward, forward.prior, records
        self._waveforms = forward.waveforms(records.experiment)
        self._signal = np.asarray(signal, np.float32)
        self._natural = np.asarray(forward.natural(records.z, records.experiment))
        self._normal = np.array([not q.bounded for q in self._prior.parameters])

    def distances(
        self,
        quiet: Float[np.ndarray, "case sample"],
        known: Bool[np.ndarray, "case parameter"],
    ) -> Float[np.ndarray, " case"]:
        """Sizes of what the best fits leave, in standard deviations.

        Args:
            quiet: Noise-free currents under a mismatch, A.
            known: Parameters that a fit may not change.
        """
        records = self._records
        active = np.asarray(self._prior.active(records.experiment.present))
        free = ~(known | self._prior.record) & active
        moved = np.array([_ELSEWHERE.get(block, 0.0) for block in self._prior.blocks])
        starts = [np.array(records.z, float), records.z + moved * free]
        best = np.full(len(quiet), np.inf)
        for start in starts:
            best = np.fmin(best, self._search(quiet, start, free))
        return np.sqrt(best)

    def _search(self, quiet: np.ndarray, z: np.ndarray, free: np.ndarray) -> np.ndarray:
        """Squared size of what the best fit of each trace leaves, searched from a start."""
        z = np.clip(z, -_FARTHEST, _FARTHEST)
        columns = np.flatnonzero(free.any(0))
        left = self._residuals(quiet, z, free, np.arange(len(z)))
        cost, damping = (left**2).sum(1), np.full(len(z), 1e-2)
        for _ in range(_N_STEPS):
            todo = np.flatnonzero(cost > _ENOUGH)
            if not len(todo):
                break
            slope = self._slopes(quiet, z, free, columns, todo)
            square = np.einsum("nip,niq->npq", slope, slope)
            size = np.einsum("npp->np", square)
            ridge = damping[todo, None] * size + 1e-6 * size.sum(1, keepdims=True) + 1e-9
            square += ridge[:, None] * np.eye(len(columns))
            toward = np.einsum("nip,ni->np", slope, left[todo])
            change = np.linalg.solve(square, toward[..., None])[..., 0]
            longest = np.abs(change).max(1, keepdims=True)
            tried = z.copy()
            tried[np.ix_(todo, columns)] -= change / np.maximum(1.0, longest / _LONGEST)
            tried = np.where(free, np.clip(tried, -_FARTHEST, _FARTHEST), z)
            its_left = self._residuals(quiet, tried, free, todo)
            better = (its_left**2).sum(1) < cost[todo]  # False where it is no number
            good = todo[better]
            z[good], left[good] = tried[good], its_left[better]
            cost[good] = (left[good] ** 2).sum(1)
            damping[todo] = np.clip(np.where(better, 0.2, 4.0) * damping[todo], 1e-6, 1e6)
        return cost

    def _slopes(self, quiet, z, free, columns, which) -> Float[np.ndarray, "case residual column"]:
        steps = _DIFFERENCE * np.eye(z.shape[1])[columns]
        moved = z[which, None] + np.concatenate([steps, -steps])
        shape = moved.shape[:2]
        each = np.repeat(which, shape[1])
        stacked = moved.reshape(-1, z.shape[1])
        left = self._residuals(quiet, stacked, free, each, stacked=True).reshape(*shape, -1)
        up, down = np.split(left, 2, axis=1)
        return np.moveaxis(up - down, 1, 2) / (2 * _DIFFERENCE) * free[which][:, None, columns]

    def _residuals(self, quiet, z, free, which, stacked: bool = False):
        """Whitened samples, then changes of parameters by the sd of priors without bounds.

        A shift that such a parameter takes up is a shift of it: as if it were marginalised.
        """
        of_each = z if stacked else z[which]
        n = len(which)
        if n < _BATCH:  # filled up, so that one compilation serves all numbers
            filled = np.resize(np.arange(n), _BATCH)
            which, of_each = which[filled], of_each[filled]
        records = self._records
        experiment, waveforms = (
            jax.tree.map(lambda a: np.asarray(a)[which], tree)
            for tree in (records.experiment, self._waveforms)
        )
        current = map_batches(
            self._forward.currents,
            of_each.astype(np.float32),
            experiment,
            waveforms,
            batch_size=_BATCH,
        )
        whitened = map_batches(
            partial(_whitened, self._prior),
            (quiet[which] - current).astype(np.float32),
            records.mask[which],
            self._natural[which],
            experiment,
            self._signal[which],
            batch_size=_BATCH,
        )
        own = np.where(self._normal & free[which], of_each - records.z[which], 0.0)
        return np.concatenate([whitened.astype(float), own], axis=1)[:n]


@partial(jax.jit, static_argnums=0)
def _whitened(prior: Prior, left, mask, natural, experiment, signal) -> Array:
    """Innovations of residuals, in standard deviations, shape (n, N)."""
    return jax.vmap(partial(_innovations, prior))(left, mask, natural, experiment, signal)


def _innovations(prior: Prior, left, mask, natural, experiment: Experiment, signal) -> Array:
    observation = prior.observation(natural, jnp.zeros_like(left), experiment, signal)
    return observation.filter(left, mask).residual


@partial(jax.jit, static_argnums=0)
def _whitening(prior: Prior, mask, natural, experiment, signal) -> Array:
    """Matrices that whiten records, shape (n, N, N)."""

    def one(mask, natural, experiment, signal):
        # In units of the signal, which rounding prefers.
        unit = signal * jnp.eye(mask.shape[0], dtype=jnp.float32)
        columns = jax.vmap(lambda e: _innovations(prior, e, mask, natural, experiment, signal))
        return columns(unit).T / signal

    return jax.vmap(one)(mask, natural, experiment, signal)


def covariance_ratios(
    forward: Forward,
    records: Records,
    signal: Float[np.ndarray, " case"],
    entry: dict,
    severity: float,
) -> Float[np.ndarray, "case sample"]:
    """Eigenvalues of the covariance with correlated noise, whitened by that without it.

    Args:
        forward: The simulator, for its prior.
        records: The experiments, with their true parameters and masks.
        signal: Root mean square of the noise-free currents, A, shape (n,).
        entry: Of the mismatch: `time`, over which its noise is correlated, in records.
        severity: Of the mismatch: its noise has that part of the standard deviation of the white.
    """
    prior = forward.prior
    n_samples = records.mask.shape[1]
    natural = np.asarray(forward.natural(records.z, records.experiment))
    of = records.mask, natural, records.experiment, np.asarray(signal, np.float32)
    matrix = map_batches(partial(_whitening, prior), *of, batch_size=8).astype(float)
    apart = np.abs(np.subtract.outer(np.arange(n_samples), np.arange(n_samples)))
    correlated = np.exp(-apart / (n_samples * max(severity * entry["time"], 1e-9)))
    sd = severity * signal * np.exp(natural[:, prior.names.index("noise")])
    more = (sd**2)[:, None, None] * (matrix @ correlated @ np.swapaxes(matrix, 1, 2))
    return 1 + np.maximum(np.linalg.eigvalsh(more), 0.0)
