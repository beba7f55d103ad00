"""What a voltammogram can not tell: errors of the metadata that a parameter absorbs."""

import numpy as np

from touchstone.models.ecsfm.physics.experiment import Records
from touchstone.models.ecsfm.physics.prior import Prior
from touchstone.vocabulary import Cases, Posterior

_STEADY = 0.3  # of sqrt(D T) / r: beyond it the edge tells D and the radius apart
_KNOWN_WITHIN = 0.3  # standard deviation of ln D: a belief as narrow sees a factor of two


def of_records(prior: Prior, cases: Cases[Records], posterior: Posterior) -> list[str]:
    """Sentences on the records of one system.

    The current of diffusion to a plane goes with area x concentration x sqrt(D x scan rate)
    (Randles and Sevcik), so that D takes over whatever is wrong in the others: squared, and of the
    radius to the fourth power.

    Args:
        prior: Of the model.
        cases: The records.
        posterior: Theirs.
    """
    names, records = prior.names, cases.detail
    said = []
    for number in range(1, prior.max_couples + 1):
        d, *forms = (names.index(f"{name}_{number}") for name in ("D_ox", "C_ox", "C_red"))
        active = np.asarray(prior.active(records.experiment.present))[0]
        if not active[d] or cases.known[0, d]:
            continue
        stated = [k for k in forms if active[k] and (cases.known[0, k] or records.trust[0, k] > 0)]
        values, weight = posterior.draws[names[d]], posterior.weight
        layer = np.sqrt((weight * values).sum(1) * np.asarray(records.experiment.duration))
        flat = (layer * np.asarray(records.experiment.curvature) < _STEADY).all()
        believed = 0 < 1 / np.maximum(records.trust[0, d], 1e-9) < _KNOWN_WITHIN
        if not stated or not flat or believed:
            continue
        several = len(np.unique(records.experiment.duration)) > 1
        rate = "" if several else ", or by 2 if the scan rate were"
        said.append(
            f"D_ox_{number} holds for the concentration, radius and scan rate as stated: no record "
            f"at such an electrode can tell them from it. It would be off by a factor of 4 if the "
            f"concentration were off by 2, by 16 if the radius were{rate}. To see such an error "
            f"state what is known of D (`species`, or `D_ox_cm2_s: {{median: …, factor: …}}`) or "
            f"of the double layer (`capacitance_uF_cm2`)"
            + ("." if several else ", or add records at other scan rates.")
        )
    return said
