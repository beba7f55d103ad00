"""Other readings of a record: what the settings would be if the user had made a usual slip."""

from collections.abc import Iterator

import jax
import numpy as np

from touchstone.models.ecsfm.physics.arrays import AnyArray
from touchstone.models.ecsfm.physics.experiment import SHAPES, Experiment, Records
from touchstone.models.ecsfm.physics.prior import Prior

_FACTOR = 4.0  # by which a scan rate or a concentration is off
_UNIT = 1000.0  # by which a prefix of a unit is


def of_records(records: Records, prior: Prior) -> Iterator[tuple[str, Records]]:
    """Records under other settings, each with a sentence's end that says which.

    Args:
        records: Of one system.
        prior: Of the model.
    """
    experiment, observed = records.experiment, records.observed
    yield "the current had the other sign", records._replace(observed=-observed)
    for words, factor in (("larger", _UNIT), ("smaller", 1 / _UNIT)):
        yield (
            f"the current were {_UNIT:,.0f} times {words} (a prefix of its unit)",
            records._replace(observed=np.float32(factor) * observed),
        )
    for words, factor in (("higher", 1 / _FACTOR), ("lower", _FACTOR)):
        yield (
            f"the scan rate were {_FACTOR:g} times {words}",
            _under(records, prior, duration=np.float32(factor) * experiment.duration),
        )
    for words, factor in (("larger", 2.0), ("smaller", 0.5)):
        yield (
            f"the radius were 2 times {words}",
            _under(records, prior, radius=np.float32(factor) * experiment.radius),
        )
    if (experiment.shape == SHAPES.index("disc")).all():
        yield "the electrode were a hemisphere", _under(records, prior, shape=experiment.shape + 1)
    for words, factor in (("higher", _FACTOR), ("lower", 1 / _FACTOR)):
        yield (
            f"the concentrations were {_FACTOR:g} times {words}",
            _concentrated(records, prior, np.log(factor)),
        )
    if experiment.present[:, 1:].any():
        return
    present = experiment.present.copy()
    present[:, 1] = present[:, 0]
    second = _under(records, prior, present=present)
    active = np.asarray(prior.active(present))
    appeared = active & ~np.asarray(prior.active(experiment.present))
    yield "a second couple reacted", second._replace(known=records.known & ~appeared)


def _under(records: Records, prior: Prior, **changes: AnyArray) -> Records:
    """The records in another experiment; what is known keeps its natural coordinate."""
    experiment: Experiment = records.experiment._replace(**changes)
    natural = jax.vmap(prior.natural)(records.z, records.experiment)
    z = np.asarray(jax.vmap(prior.standard)(natural, experiment))
    return records._replace(experiment=experiment, z=np.where(records.known, z, records.z))


def _concentrated(records: Records, prior: Prior, shift: float) -> Records:
    """The records with other concentrations, where these are known or believed."""
    which = np.isin(prior.blocks, ("C_ox", "C_red"))
    natural = np.asarray(jax.vmap(prior.natural)(records.z, records.experiment))
    moved = (natural + shift * which).astype(np.float32)
    z = np.asarray(jax.vmap(prior.standard)(moved, records.experiment))
    return records._replace(
        z=np.where(records.known & which, z, records.z),
        belief=records.belief + np.float32(shift) * which,
    )
