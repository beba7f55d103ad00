"""What a reader wants to know of a voltammogram, in the units of a laboratory."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from touchstone.models.ecsfm.physics.arrays import AnyArray, Number
from touchstone.models.ecsfm.physics.experiment import Experiment
from touchstone.models.ecsfm.physics.prior import RECORD, Prior

_OF_COUPLE = ("D_ox", "D_red", "C_ox", "C_red", "E0", "k0", "alpha")
_UNITS = {
    "D_ox": "cm²/s",
    "D_red": "cm²/s",
    "C_ox": "mM",
    "C_red": "mM",
    "E0": "V",
    "k0": "cm/s",
    "alpha": "",
    "R_u": "Ω",
    "C_dl": "µF/cm²",
    "offset": "µA",
    "slope": "µA/V",
    "discrepancy": "µA",
    "correlation": "s",
    "noise": "µA",
}


def is_of_couple(name: str) -> bool:
    """Whether a reading is of a couple, which all records of one system have in common."""
    return name[:-2] in _OF_COUPLE


def unit(name: str) -> str:
    """Unit of a reading."""
    return _UNITS[name[:-2] if is_of_couple(name) else name]


def readable(experiment: Experiment) -> list[str]:
    """Names of the readings of one experiment: of the couples in the cell, and of the record."""
    n_couples = int(experiment.present.any(-1).sum())
    couples = [f"{name}_{k + 1}" for k in range(n_couples) for name in _OF_COUPLE]
    return couples + [name for name in _UNITS if name not in _OF_COUPLE]


def readings(
    prior: Prior, natural: Float[AnyArray, " parameter"], experiment: Experiment, signal: Number
) -> dict[str, Array]:
    """All readings of one point, by name.

    Args:
        prior: Of the model.
        natural: Natural coordinates.
        experiment: The experiment.
        signal: Root mean square of the current, A.
    """
    couples = prior.couples(natural, experiment)
    instrument = prior.instrument(natural, experiment)
    found: dict[str, Array] = {}
    for k in range(prior.max_couples):
        found |= {
            f"D_ox_{k + 1}": couples.d_ox[k],
            f"D_red_{k + 1}": couples.d_red[k],
            f"C_ox_{k + 1}": 1e6 * couples.c_ox[k],
            f"C_red_{k + 1}": 1e6 * couples.c_red[k],
            f"E0_{k + 1}": couples.e0[k],
            f"k0_{k + 1}": couples.k0[k],
            f"alpha_{k + 1}": couples.transfer_coefficient[k],
        }
    _, half = experiment.window
    record = dict(zip(RECORD, jnp.asarray(natural)[-len(RECORD) :], strict=True))
    return found | {
        "R_u": jnp.asarray(instrument.resistance),
        "C_dl": 1e6 * jnp.asarray(instrument.capacitance),
        "offset": 1e6 * signal * record["offset"],
        "slope": 1e6 * signal * record["slope"] / half,
        "discrepancy": 1e6 * signal * jnp.exp(record["discrepancy"]),
        "correlation": jnp.asarray(experiment.duration) * jnp.exp(record["correlation"]),
        "noise": 1e6 * signal * jnp.exp(record["noise"]),
    }
