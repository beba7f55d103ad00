"""The records of one system as a problem of exact re-weighting."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from touchstone.inference.batches import map_chunks
from touchstone.inference.problem import Coordinates, Factor, Problem
from touchstone.models.ecsfm.inference.straight import Straight
from touchstone.models.ecsfm.physics.arrays import AnyArray
from touchstone.models.ecsfm.physics.experiment import Experiment, Kind, Records
from touchstone.models.ecsfm.physics.forward import Forward
from touchstone.models.ecsfm.physics.observation import HALF_LOG_2PI, Filtered
from touchstone.models.ecsfm.physics.prior import Prior
from touchstone.models.ecsfm.physics.waveforms import Waveform


class Simulation(eqx.Module):
    """The noise-free current of a record, by its standard coordinates.

    Attributes:
        prior: Of the model.
        kind: Of the experiment: what it is compiled for.
        experiment: Of the record.
        waveform: The same, for the solver.
        first: Experiment of the first record of the system, in whose window E0 is counted.
    """

    prior: Prior = eqx.field(static=True)
    kind: Kind = eqx.field(static=True)
    experiment: Experiment
    waveform: Waveform
    first: Experiment

    def __call__(self, z: Array) -> Array:
        """Current, A, shape (N,), at standard coordinates, shape (P,)."""
        natural = self.prior.natural(z, self.first)
        forward = Forward(self.prior)
        return forward.current(natural, self.experiment, self.waveform, self.kind)


class Record(eqx.Module):
    """What was recorded, and what it says of a simulated current.

    Attributes:
        prior: Of the model.
        case: The record, without the axis of cases.
    """

    prior: Prior = eqx.field(static=True)
    case: Records

    def residuals(self, current: Array, z: Array) -> tuple[Array, Array]:
        """Residuals about a simulated current, and the logarithms of their scales, (N + P,) each.

        After the samples come the parameters, about what is believed of them.

        The scales are in units of the rms of what was observed, so that the evidence does not
        depend on the unit of the current.
        """
        filtered = self.filtered(current, z)
        seen = self.case.mask.astype(self.case.observed.dtype)
        unit = jnp.sqrt((seen * self.case.observed**2).sum() / seen.sum())
        log_scale = filtered.log_scale - seen * jnp.log(unit)
        of_belief, its_log_scale = self._believed(z)
        return (
            jnp.concatenate([filtered.residual, of_belief]),
            jnp.concatenate([log_scale, its_log_scale]),
        )

    def _believed(self, z: Array) -> tuple[Array, Array]:
        """The same of what is believed of the parameters from elsewhere, (P,) each."""
        case, trust = self.case, jnp.asarray(self.case.trust)
        natural = self.prior.natural(z, case.experiment)
        log_scale = HALF_LOG_2PI - jnp.log(jnp.where(trust > 0, trust, 1.0))
        return trust * (natural - case.belief), jnp.where(trust > 0, log_scale, 0.0)

    def filtered(self, current: Array, z: Array) -> Filtered:
        """The record about a simulated current, the baseline marginalised where not known."""
        case, baseline = self.case, self.prior.baseline
        natural = self.prior.natural(z, case.experiment)
        observation = self.prior.observation(natural, current, case.experiment)
        return observation.filter(case.observed, case.mask, case.z[baseline], case.known[baseline])


class System:
    """Records of one system: couples in common, each with an instrument and noise of its own.

    A point of the system has the entries of the couples, then the other entries of each record in
    turn. Couples are shared in natural coordinates: the window of E0 is that of the first record.
    Entries of the baseline are there but never inferred: it is marginalised.

    Args:
        prior: Of the model.
        cases: The records, with a leading axis.
        waveform: The same, for the solver.
    """

    def __init__(self, prior: Prior, cases: Records, waveform: Waveform):
        self._prior, self._cases = prior, cases
        kind, self._n_common = Kind.of(cases.experiment), np.count_nonzero(prior.shared)
        each = range(len(cases.z))
        self._records = [Record(prior, _row(cases, k)) for k in each]
        first = self._records[0].case.experiment
        self._simulations = [
            Simulation(prior, kind, record.case.experiment, _row(waveform, k), first)
            for k, record in enumerate(self._records)
        ]

    @property
    def problem(self) -> Problem:
        """The problem of inferring a point of the system."""
        heavy, light = inferred(self._prior, self._cases.known.all(0))
        factors = [
            Factor(self._entries(k), simulation, record.residuals)
            for k, (simulation, record) in enumerate(
                zip(self._simulations, self._records, strict=True)
            )
        ]
        case = self._records[0].case
        straight = Straight.of(self._prior, case.experiment, case.observed, case.mask)
        return Problem(
            tuple(factors),
            self._places(heavy),
            self._places(light),
            Coordinates(self._entries(0), straight.warp, straight.unwarp, straight.log_prior),
        )

    def points(self, z: np.ndarray) -> np.ndarray:
        """Points of the system from draws of each record alone, shape (n, draws, P).

        The couples of a draw are those of one record, each in its turn.
        """
        case, turn, common = self._records[0].case, np.arange(z.shape[1]), self._n_common
        couples = z[turn % len(z), turn, :common]
        # What is known of the couples is known in the window of the first record.
        couples = np.where(case.known[:common], case.z[:common], couples)
        others = np.moveaxis(z[:, :, common:], 0, 1).reshape(len(turn), -1)
        return np.concatenate([couples, others], axis=1)

    def draws(self, points: np.ndarray) -> np.ndarray:
        """Standard coordinates of each record, in its own window of E0, shape (n, draws, P)."""
        found, common = [], self._n_common
        for k, (simulation, record) in enumerate(
            zip(self._simulations, self._records, strict=True)
        ):
            z = points[:, self._entries(k)]
            if k:
                z[:, :common] = map_chunks(_in_own_window, simulation, z)[:, :common]
            found.append(np.where(record.case.known, record.case.z, z))
        return np.stack(found).astype(np.float32)

    def _entries(self, number: int) -> np.ndarray:
        """Places, in a point of the system, of the entries of a record, shape (P,)."""
        common, own = self._n_common, self._prior.size - self._n_common
        return np.concatenate([np.arange(common), common + number * own + np.arange(own)])

    def _places(self, which: np.ndarray) -> np.ndarray:
        """Places of some entries of a record where they are not known, of all records."""
        known = np.where(self._prior.shared, self._cases.known[:1], self._cases.known)
        return np.unique(
            np.concatenate([self._entries(k)[which[~row[which]]] for k, row in enumerate(known)])
        )


def inferred(prior: Prior, known: AnyArray) -> tuple[np.ndarray, np.ndarray]:
    """Entries to draw that the simulation depends on, and those that it does not.

    The baseline is among neither: it is marginalised exactly. Where the simulation is known, the
    others count as if it depended on them: something has to be proposed with it.

    Args:
        prior: Of the model.
        known: Which parameters are known, shape (P,).
    """
    unknown = ~(known | prior.baseline)
    heavy, light = (np.flatnonzero(unknown & which) for which in (~prior.record, prior.record))
    return (heavy, light) if len(heavy) else (light, heavy)


def _row(tree, number: int):
    return jax.tree.map(lambda a: np.asarray(a)[number], tree)


@jax.jit
def _in_own_window(simulation: Simulation, z: Array) -> Array:
    """Standard coordinates in the window of the record, of those in the first's."""

    def one(z):
        natural = simulation.prior.natural(z, simulation.first)
        return simulation.prior.standard(natural, simulation.experiment)

    return jax.vmap(one)(z)
