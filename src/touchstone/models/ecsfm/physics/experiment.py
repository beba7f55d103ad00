"""What an experimenter does and knows: the applied potential, the electrode, the solution."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from touchstone.models.ecsfm.physics.arrays import AnyArray
from touchstone.models.ecsfm.physics.simulator import Electrode

# Of the electrode; a plane has no edge over which more diffuses, as a recessed disc has none.
SHAPES = ("planar", "disc", "hemisphere", "sphere")
AREAS = (1.0, 1.0, 2.0, 4.0)  # in pi radius^2
SPREADS = (4.0, 4.0, 2 * np.pi, 4 * np.pi)  # resistivity / (radius x resistance) far from all else


class Experiment(NamedTuple):
    """What was done, all of it known.

    Attributes:
        potential: Applied potential at the samples, V.
        duration: s.
        radius: cm.
        shape: Of the electrode, an index into `SHAPES`.
        temperature: K.
        present: Whether O and R of each couple are in the cell.
    """

    potential: Float[AnyArray, "*batch sample"]
    duration: Float[AnyArray, "*batch"]
    radius: Float[AnyArray, "*batch"]
    shape: Int[AnyArray, "*batch"]
    temperature: Float[AnyArray, "*batch"]
    present: Bool[AnyArray, "*batch couple 2"]

    @property
    def area(self) -> Float[Array, "*batch"]:
        """Geometric area, cm^2."""
        return jnp.pi * jnp.square(self.radius) * self._of_shape(AREAS)

    @property
    def curvature(self) -> Float[Array, "*batch"]:
        """1/cm; 0 for a plane."""
        return self._of_shape((0.0, 1.0, 1.0, 1.0)) / jnp.asarray(self.radius)

    @property
    def spread(self) -> Float[Array, "*batch"]:
        """Resistivity of the electrolyte over the resistance to a far electrode, cm (Newman 1966,
        for the disc)."""
        return jnp.asarray(self.radius) * self._of_shape(SPREADS)

    @property
    def electrode(self) -> Electrode:
        """The electrode, as the simulator takes it."""
        edge = self._of_shape((0.0, 1.0, 0.0, 0.0))
        return Electrode(self.area, jnp.asarray(self.temperature), self.curvature, edge)

    @property
    def window(self) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        """Centre and half-width of the window that E0 is in, V."""
        low, high = jnp.min(self.potential, -1), jnp.max(self.potential, -1)
        return (low + high) / 2, jnp.maximum(0.4 * (high - low), 0.15)

    def _of_shape(self, values: tuple[float, ...]) -> Float[Array, "*batch"]:
        return jnp.asarray(values, jnp.asarray(self.radius).dtype)[self.shape]


class Records(NamedTuple):
    """Observed experiments; n records of N samples, P parameters.

    Attributes:
        observed: Current, A, shape (n, N).
        mask: Which samples were observed, shape (n, N).
        experiment: What was done.
        z: Standard coordinates of the parameters, shape (n, P): the truth where simulated;
            otherwise only the known ones count.
        known: Which parameters are known to inference (or do not exist), shape (n, P).
        belief: What is believed of unknown ones from elsewhere: mean of the natural coordinate,
            shape (n, P).
        trust: One over its standard deviation; 0 where only the prior is believed, shape (n, P).
    """

    observed: AnyArray
    mask: AnyArray
    experiment: Experiment
    z: AnyArray
    known: AnyArray
    belief: AnyArray
    trust: AnyArray

    @classmethod
    def without_belief(
        cls,
        observed: AnyArray,
        mask: AnyArray,
        experiment: Experiment,
        z: AnyArray,
        known: AnyArray,
    ) -> "Records":
        """Records of whose parameters nothing is believed but the prior."""
        nothing = np.zeros(z.shape, np.float32)
        return cls(observed, mask, experiment, z, known, nothing, nothing)

    def take(self, index: Any) -> "Records":
        """Some of the records, by index or slice."""
        return jax.tree.map(lambda a: np.asarray(a)[index], self)


class Kind(NamedTuple):
    """What of an experiment the simulation can be compiled for: what is not there costs nothing.

    Attributes:
        n_couples: How many of the couples are simulated: the first.
        planar: Whether the electrode is a plane.
    """

    n_couples: int
    planar: bool

    @classmethod
    def of(cls, experiments: Experiment) -> "Kind":
        """The least that serves all of a batch of experiments (numpy arrays)."""
        couples = np.flatnonzero(np.any(experiments.present, axis=(0, 2)))
        return cls(int(couples.max()) + 1, not np.any(experiments.shape))
