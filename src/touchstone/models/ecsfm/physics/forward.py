"""From parameters to the current of an experiment: what inference and simulation call."""

from functools import cached_property

import jax
import numpy as np
from jax import Array

from touchstone.models.ecsfm.physics.experiment import Experiment, Kind
from touchstone.models.ecsfm.physics.fouling import Fouling
from touchstone.models.ecsfm.physics.prior import Prior
from touchstone.models.ecsfm.physics.simulator import Response, simulate
from touchstone.models.ecsfm.physics.waveforms import Waveform, resolve

_NODES_PER_SAMPLE = 2.5  # solver steps: room for the graded steps of every technique


class Forward:
    """The simulator over the parameters of a prior.

    Args:
        prior: Of the model.
    """

    def __init__(self, prior: Prior):
        self.prior = prior

    def current(
        self,
        natural: Array,
        experiment: Experiment,
        waveform: Waveform,
        kind: Kind | None = None,
    ) -> Array:
        """Noise-free current without baseline, A, shape (N,), at natural coordinates (P,)."""
        fouling = self.prior.fouling(natural, experiment)
        return self.response(natural, experiment, waveform, fouling, kind).current

    def response(
        self,
        natural: Array,
        experiment: Experiment,
        waveform: Waveform,
        fouling: Fouling | None = None,
        kind: Kind | None = None,
    ) -> Response:
        """What the simulator gives of one experiment at natural coordinates, shape (P,)."""
        couples = self.prior.couples(natural, experiment)
        electrode = experiment.electrode
        if kind is not None:
            couples = jax.tree.map(lambda a: a[: kind.n_couples], couples)
            electrode = electrode._replace(curvature=None) if kind.planar else electrode
        instrument = self.prior.instrument(natural, experiment)
        return simulate(waveform, couples, electrode, instrument, fouling)

    @cached_property
    def natural(self):
        """Natural coordinates of a batch of standard ones, shape (n, P)."""
        return jax.jit(jax.vmap(self.prior.natural))

    @cached_property
    def currents(self):
        """Noise-free currents of a batch: standard coordinates, experiments, waveforms."""
        return jax.jit(jax.vmap(lambda z, e, w: self.current(self.prior.natural(z, e), e, w)))

    @cached_property
    def currents_of_natural(self):
        """As `currents`, of natural coordinates."""
        return jax.jit(jax.vmap(self.current))

    @staticmethod
    def waveforms(experiment: Experiment) -> Waveform:
        """The waveforms of a batch of experiments (numpy arrays), as the solver takes them."""
        n_nodes = int(_NODES_PER_SAMPLE * experiment.potential.shape[1])
        return resolve(np.asarray(experiment.potential), np.asarray(experiment.duration), n_nodes)
