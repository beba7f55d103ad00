"""Measurements that could come next at the same electrode, and what draws let expect of them."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import ndtr, ndtri

from touchstone.inference.batches import map_chunks
from touchstone.inference.problem import simulated
from touchstone.models.ecsfm.inference.fouled import Fouled
from touchstone.models.ecsfm.inference.inferrer import Inferrer
from touchstone.models.ecsfm.inference.records import Simulation
from touchstone.models.ecsfm.physics.arrays import AnyArray
from touchstone.models.ecsfm.physics.experiment import Experiment, Kind, Records
from touchstone.models.ecsfm.physics.fouling import Fouling
from touchstone.models.ecsfm.physics.observation import Observation
from touchstone.models.ecsfm.physics.prior import Prior
from touchstone.models.ecsfm.physics.waveforms import is_sweep
from touchstone.vocabulary import Cases, Posterior

_FACTOR = 10.0  # by which the time of the next record is longer or shorter
_WIDER = 1.5  # times the window, about its centre
_REST = 1 / 8  # part of the record before a step
_EDGE = 1e-6  # of a uniform prior, left out at either end
_CLEANING = 60.0  # s at a potential that cleans


class Protocol(NamedTuple):
    """A measurement that could come next.

    Attributes:
        experiment: What would be done, a batch of one.
        removed: Part of the film that is taken off before.
    """

    experiment: Experiment
    removed: float = 0.0


def menu(experiment: Experiment, fouled: bool) -> dict[str, Protocol]:
    """Protocols by what to do, for the experiment that was made (a batch of one)."""
    potential, duration = np.asarray(experiment.potential), np.asarray(experiment.duration)
    again = "sweep" if is_sweep(potential[0]) else "record"

    def other(**changes: AnyArray) -> Protocol:
        return Protocol(experiment._replace(**changes))

    found = {
        f"the same {again} again": Protocol(experiment),
        f"the same {again}, {_FACTOR:g} times slower": other(
            duration=np.float32(_FACTOR) * duration
        ),
        f"the same {again}, {_FACTOR:g} times faster": other(
            duration=duration / np.float32(_FACTOR)
        ),
    }
    if is_sweep(potential[0]):
        found |= {
            f"a window {_WIDER:g} times as wide at the same scan rate": other(
                potential=_widened(potential), duration=np.float32(_WIDER) * duration
            ),
            "a step of the potential to the end of the window": other(potential=_step(potential)),
        }
    if fouled:
        left = np.exp(-_CLEANING * (Fouling().k_des + Fouling().k_clean))
        found |= {
            f"{_CLEANING:g} s of cleaning at {Fouling().clean_above:g} V or above, then the same "
            f"{again}": Protocol(experiment, 1 - float(left)),
            f"a polish of the electrode, then the same {again}": Protocol(experiment, 1.0),
        }
    return found


def _widened(potential: np.ndarray) -> np.ndarray:
    """Potentials farther from the centre of their window, shape (1, N)."""
    centre = (potential.min() + potential.max()) / 2
    return (centre + _WIDER * (potential - centre)).astype(np.float32)


def _step(potential: np.ndarray) -> np.ndarray:
    """A rest at the first potential, then a step to the one that is farthest, shape (1, N)."""
    n = potential.shape[1]
    farthest = potential[0, np.abs(potential[0] - potential[0, 0]).argmax()]
    return np.where(np.arange(n) < round(_REST * n), potential[:, :1], farthest)


def expectations(
    inferrer: Inferrer, fouled: Fouled, cases: Cases[Records], posterior: Posterior
) -> Iterator[tuple[str, np.ndarray]]:
    """What each draw lets expect of each protocol, whitened, shape (draw, sample), by what to do.

    The noise of the next record is that of the first as the posterior has it on average, in parts
    of the signal, and its baseline is another one. A film is as thick at its start as at the end of
    the first, less what is removed.

    Args:
        inferrer: Of the posterior: with a clean electrode, or one with a film.
        fouled: Inference with a film.
        cases: The records, of which the first is made again.
        posterior: Theirs.
    """
    prior, has_film = inferrer.prior, inferrer.prior == fouled.prior
    first = jax.tree.map(lambda a: np.asarray(a)[:1], cases.detail.experiment)
    points, own = inferrer.points(cases, posterior)[0], _row(first)
    final = fouled.final_coverage(cases, posterior.draws, 0) if has_film else None
    weight = posterior.weight[0]
    columns = [q.coordinate(posterior.draws[q.name][0]) for q in prior.parameters]
    mean = (np.stack(columns, axis=1).T @ weight).astype(np.float32)
    for name, protocol in menu(first, has_film).items():
        z = points if final is None else after(prior, points, final, first, protocol)
        waveform = _row(inferrer.forward.waveforms(protocol.experiment))
        kind = Kind.of(protocol.experiment)
        simulation = Simulation(prior, kind, _row(protocol.experiment), waveform, own)
        current = map_chunks(simulated, simulation, z)
        signal = float(np.sqrt((current**2).mean(1)) @ weight)
        noise = prior.observation(
            mean, np.zeros(current.shape[1]), _row(protocol.experiment), signal
        )
        yield name, whitened(current, noise)


def after(
    prior: Prior, z: np.ndarray, final: np.ndarray, first: Experiment, protocol: Protocol
) -> np.ndarray:
    """Standard coordinates for the next record, shape (draw, P): its film at the start, and growth
    in its time. What would be beyond a bound of the prior is put near it.

    Args:
        prior: With a film.
        z: Standard coordinates of the first record.
        final: Coverage at its end, shape (draw,).
        first: What was done, a batch of one.
        protocol: What would be done next.
    """
    changed = z.copy()
    left = np.maximum((1 - protocol.removed) * final, 1e-6)
    longer = np.asarray(protocol.experiment.duration)[0] / np.asarray(first.duration)[0]
    coverage, growth = (prior.names.index(name) for name in ("coverage", "growth"))
    of_coverage, of_growth = (prior.parameters[k] for k in (coverage, growth))
    before = of_growth.location + of_growth.scale * (2 * ndtr(z[:, growth]) - 1)
    for k, quantity, value in (
        (coverage, of_coverage, np.log(left)),
        (growth, of_growth, before + np.log(longer)),
    ):
        part = ((value - quantity.location) / quantity.scale + 1) / 2
        changed[:, k] = ndtri(np.clip(part, _EDGE, 1 - _EDGE))
    return changed


def _row(tree):
    return jax.tree.map(lambda a: np.asarray(a)[0], tree)


def whitened(current: np.ndarray, noise: Observation) -> np.ndarray:
    """Currents, shape (draw, sample), in coordinates in which the noise is standard normal.

    Its covariance is that of the white noise, of the Matérn process, and of the unknown baseline.
    """
    n = current.shape[1]
    lag = np.sqrt(3) * np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    lag = lag / (n * float(noise.correlation))
    covariance = float(noise.discrepancy) ** 2 * (1 + lag) * np.exp(-lag)
    shapes = np.asarray(noise.sizes * noise.shapes.T, float)
    covariance += shapes @ shapes.T + float(noise.white) ** 2 * np.eye(n)
    factor = np.linalg.cholesky(covariance)
    return solve_triangular(factor, current.T.astype(float), lower=True).T
