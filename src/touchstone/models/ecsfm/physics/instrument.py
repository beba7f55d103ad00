"""The cell as a circuit: uncompensated resistance and double layer."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from touchstone.models.ecsfm.physics.arrays import Number
from touchstone.models.ecsfm.physics.transport import phi_functions


class Instrument(NamedTuple):
    """Uncompensated resistance and double layer.

    Attributes:
        resistance: ohm.
        capacitance: F/cm^2.
    """

    resistance: Number
    capacitance: Number


class Charging(NamedTuple):
    """Exact response over a step of R C dE/dt = V - E to a drive V linear in time.

    Attributes:
        time_constant: R C.
        new, old: Weights in E of the drive at the end and at the start of the step.
        kept: Weight of what E and its slope were.
        gone: One less `kept`, to full precision where it is small.
        step: Length of the step.
    """

    time_constant: Float[Array, ""]
    new: Float[Array, ""]
    old: Float[Array, ""]
    kept: Float[Array, ""]
    gone: Float[Array, ""]
    step: Float[Array, ""]

    @classmethod
    def over(cls, step: Float[Array, ""], time_constant: Float[Array, ""]) -> "Charging":
        """Weights for a step and R C, in the same unit; R C = 0 is a limit, not a case."""
        # The bound keeps x finite where R C = 0, and its effect is below rounding.
        time_constant = jnp.maximum(time_constant, 1e-9 * step)
        x = step / time_constant
        phi1, phi2 = phi_functions(x)
        return cls(time_constant, x * phi2, x * (phi1 - phi2), 1 - x * phi1, x * phi1, step)

    def lag(
        self,
        old_lag: Float[Array, ""],
        new_drive: Float[Array, ""],
        old_drive: Float[Array, ""],
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """R C dE/dt at the end of the step, and dE/dt; E is then the drive less the former.

        Carried as the lag and not as dE/dt, which jumps where R C changes between steps.
        """
        slope = self.gone * (new_drive - old_drive) / self.step
        slope = slope + self.kept * old_lag / self.time_constant
        return self.time_constant * slope, slope
