"""What a reader wants to know of a voltammogram, in the units of a laboratory."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from touchstone.models.ecsfm.physics.experiment import Experiment
from touchstone.models.ecsfm.physics.prior import RECORD, Prior
from touchstone.vocabulary import Cases, Posterior

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
_N_PRIOR = 4000  # draws of the prior, for its intervals


def table(prior: Prior, posterior: Posterior, cases: Cases, rng: np.random.Generator) -> list[dict]:
    """Posterior of a measurement beside its prior.

    Args:
        prior: Of the model.
        posterior: Of the cases: one, or records of a system with couples in common.
        cases: The cases.
        rng: For draws of the prior.

    Returns:
        A row for each quantity that inference did not know: name, record, unit, mean, median, 90 %
        interval, and 90 % interval of the prior. The record counts from 1; it is None where there
        is one only, and for couples, which are listed once.
    """
    rows, n_records = [], len(cases.observed)
    for k in range(n_records):
        one = jax.tree.map(lambda a, k=k: np.asarray(a)[k], (posterior, cases))
        names = present(one[1].experiment)
        if k:
            names = [name for name in names if not _is_of_couple(name)]
        for row in _rows(prior, *one, names, rng):
            own = n_records > 1 and not _is_of_couple(row["quantity"])
            rows.append({**row, "record": k + 1 if own else None})
    return rows


def _is_of_couple(name: str) -> bool:
    return name[:-2] in _OF_COUPLE


def _rows(
    prior: Prior, posterior: Posterior, case: Cases, names: list[str], rng: np.random.Generator
) -> list[dict]:
    """Some quantities of one record; the arrays have no axis of the cases."""
    z_prior = rng.standard_normal((_N_PRIOR, prior.size)).astype(np.float32)
    z_prior = np.where(case.known, case.z, z_prior)
    signal = np.sqrt((posterior.mean**2).mean())

    def values(z):
        natural = jax.vmap(prior.natural, in_axes=(0, None))(z, case.experiment)
        columns = jax.vmap(lambda one: of(prior, one, case.experiment, signal))(natural)
        return {name: np.asarray(column) for name, column in columns.items()}

    ours, before = values(posterior.z), values(z_prior)
    rows = []
    for name in names:
        if np.ptp(before[name]) <= 1e-5 * np.abs(before[name]).max():
            continue  # given, not inferred
        column, weight = ours[name], posterior.weight
        low, median, high = np.quantile(
            column, [0.05, 0.5, 0.95], weights=weight, method="inverted_cdf"
        )
        ends = np.quantile(before[name], [0.05, 0.95])
        rows.append(
            {
                "quantity": name,
                "unit": _UNITS[name[:-2] if _is_of_couple(name) else name],
                "mean": float(weight @ column),
                "median": float(median),
                "interval_90": [float(low), float(high)],
                "prior_interval_90": [float(end) for end in ends],
            }
        )
    return rows


def present(experiment: Experiment) -> list[str]:
    """Names of the quantities of one experiment: those of couples that are in the cell, and all
    of the record."""
    n_couples = int(experiment.present.any(-1).sum())
    couples = [f"{name}_{k + 1}" for k in range(n_couples) for name in _OF_COUPLE]
    return couples + [name for name in _UNITS if name not in _OF_COUPLE]


def of(prior: Prior, natural: Array, experiment: Experiment, signal: Array) -> dict[str, Array]:
    """All quantities of one point, in the units of `_UNITS`; the signal is in A."""
    couples = prior.couples(natural, experiment)
    instrument = prior.instrument(natural, experiment)
    quantities = {}
    for k in range(prior.max_couples):
        quantities |= {
            f"D_ox_{k + 1}": couples.d_ox[k],
            f"D_red_{k + 1}": couples.d_red[k],
            f"C_ox_{k + 1}": 1e6 * couples.c_ox[k],
            f"C_red_{k + 1}": 1e6 * couples.c_red[k],
            f"E0_{k + 1}": couples.e0[k],
            f"k0_{k + 1}": couples.k0[k],
            f"alpha_{k + 1}": couples.transfer_coefficient[k],
        }
    _, half = experiment.window
    record = dict(zip(RECORD, natural[-len(RECORD) :], strict=True))
    return quantities | {
        "R_u": instrument.resistance,
        "C_dl": 1e6 * instrument.capacitance,
        "offset": 1e6 * signal * record["offset"],
        "slope": 1e6 * signal * record["slope"] / half,
        "discrepancy": 1e6 * signal * jnp.exp(record["discrepancy"]),
        "correlation": experiment.duration * jnp.exp(record["correlation"]),
        "noise": 1e6 * signal * jnp.exp(record["noise"]),
    }
