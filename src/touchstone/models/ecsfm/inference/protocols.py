"""Measurements that could come next at the same electrode, and what draws let expect of them."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from scipy.linalg import solve_triangular

from touchstone.inference.batches import map_chunks
from touchstone.models.ecsfm.inference.fouled import Fouled
from touchstone.models.ecsfm.physics.arrays import AnyArray
from touchstone.models.ecsfm.physics.experiment import Experiment, Records
from touchstone.models.ecsfm.physics.forward import Forward
from touchstone.models.ecsfm.physics.fouling import Fouling
from touchstone.models.ecsfm.physics.observation import Observation
from touchstone.models.ecsfm.physics.prior import Prior
from touchstone.models.ecsfm.physics.waveforms import is_sweep
from touchstone.vocabulary import Cases, Posterior

_FACTOR = 10.0  # by which the time of the next record is longer or shorter
_WIDER = 1.5  # times the window, about its centre
_REST = 1 / 8  # part of the record before a step
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
    fouled: Fouled, prior: Prior, cases: Cases[Records], posterior: Posterior
) -> Iterator[tuple[str, np.ndarray]]:
    """What each draw lets expect of each protocol, whitened, shape (draw, sample), by what to do.

    The noise of the next record is that of the first as the posterior has it on average, in parts
    of the signal, and its baseline is another one. A film is as thick at its start as at the end of
    the first, less what is removed.

    Args:
        fouled: Inference with a film.
        prior: Of the posterior: that of a clean electrode, or of one with a film.
        cases: The records, of which the first is made again.
        posterior: Theirs.
    """
    forward = Forward(prior)
    columns = [q.coordinate(posterior.draws[q.name][0]) for q in prior.parameters]
    natural = np.stack(columns, axis=1).astype(np.float32)
    experiment = jax.tree.map(lambda a: np.asarray(a)[:1], cases.detail.experiment)
    has_film = prior == fouled.prior
    if has_film:
        final = fouled.final_coverage(cases, posterior.draws, 0)
    mean = posterior.weight[0] @ natural
    for name, protocol in menu(experiment, has_film).items():
        next_natural = natural.copy()
        if has_film:
            next_natural = after(prior, natural, final, experiment, protocol)
        own = jax.tree.map(
            lambda a: np.asarray(a)[0],
            (protocol.experiment, forward.waveforms(protocol.experiment)),
        )
        program = partial(_currents, prior)
        current = map_chunks(program, own, next_natural)
        signal = float(np.sqrt((current**2).mean(1)) @ posterior.weight[0])
        noise = prior.observation(mean, np.zeros(current.shape[1]), own[0], signal)
        yield name, whitened(current, noise)


def after(
    prior: Prior, natural: np.ndarray, final: np.ndarray, first: Experiment, protocol: Protocol
) -> np.ndarray:
    """Natural coordinates for the next record: its film at the start, and growth in its time."""
    changed = natural.copy()
    left = np.maximum((1 - protocol.removed) * final, 1e-6)
    changed[:, prior.names.index("coverage")] = np.log(left)
    longer = np.asarray(protocol.experiment.duration)[0] / np.asarray(first.duration)[0]
    changed[:, prior.names.index("growth")] += np.log(longer)
    return changed


@partial(jax.jit, static_argnums=0)
def _currents(prior: Prior, own: tuple, natural: Array) -> Array:
    experiment, waveform = own
    forward = Forward(prior)
    return jax.vmap(lambda point: forward.current(point, experiment, waveform))(natural)


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
