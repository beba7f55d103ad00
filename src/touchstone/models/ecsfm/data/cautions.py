"""What a voltammogram can not tell: errors of the metadata that a parameter absorbs, and what an
answer owes to its prior."""

import numpy as np

from touchstone.contract import REACH
from touchstone.models.ecsfm.physics.experiment import Records
from touchstone.models.ecsfm.physics.prior import Prior
from touchstone.vocabulary import Cases, Posterior

_STEADY = 0.3  # of sqrt(D T) / r: beyond it the edge tells D and the radius apart
_KNOWN_WITHIN = 0.3  # standard deviation of ln D: a belief as narrow sees a factor of two
_FAR = 2.0  # standard deviations of a belief that are remarkable
_MOSTLY = 0.5  # of a variance


def of_records(prior: Prior, cases: Cases[Records], posterior: Posterior) -> list[str]:
    """Sentences on the records of one system.

    Args:
        prior: Of the model.
        cases: The records.
        posterior: Theirs.
    """
    return [
        *_degenerate(prior, cases, posterior),
        *_unlike_beliefs(prior, cases.detail, posterior),
        *_owed_to_ratio(prior, cases, posterior),
    ]


def _degenerate(prior: Prior, cases: Cases[Records], posterior: Posterior) -> list[str]:
    """What D would be if something else were wrong.

    The current of diffusion to a plane goes with area x concentration x sqrt(D x scan rate)
    (Randles and Sevcik), so that D takes over whatever is wrong in the others: squared, and of the
    radius to the fourth power.
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


def _unlike_beliefs(prior: Prior, records: Records, posterior: Posterior) -> list[str]:
    """Estimates that are far from what was believed: by the user, or in the literature."""
    said = []
    for k, name in enumerate(prior.names):
        trust, belief = float(records.trust[0, k]), float(records.belief[0, k])
        if not trust or not prior.parameters[k].logarithmic:
            continue
        values, weight = posterior.draws[name][0], posterior.weight[0]
        found = float(weight @ np.log(values))
        if trust * abs(found - belief) > _FAR:
            unit = prior.parameters[k].unit
            said.append(
                f"{name} is {np.exp(found - belief):.2g} times the {np.exp(belief):.3g} {unit} "
                f"that is believed of it (within a factor of {np.exp(REACH / trust):.2g}): "
                "concentration, radius or scan rate may be wrong, or it is another species."
            )
    return said


def _owed_to_ratio(prior: Prior, cases: Cases[Records], posterior: Posterior) -> list[str]:
    """How much of the width of D_red is that of the prior on D_red / D_ox.

    It is by which part the variance of ln D_red would grow with that of the prior, if all were
    Gaussian: the part that goes with the ratio, times how little of the ratio's prior the record
    takes away.
    """
    names, said = prior.names, []
    active = np.asarray(prior.active(cases.detail.experiment.present))[0]
    for number in range(1, prior.max_couples + 1):
        ratio, d = (names.index(f"{name}_{number}") for name in ("D_ratio", "D_ox"))
        stated = cases.known[0, ratio] or cases.detail.trust[0, ratio] > 0
        if not active[ratio] or stated:
            continue
        weight = posterior.weight[0]
        logs = [np.log(posterior.draws[names[k]][0]) for k in (ratio, d)]
        (own, shared), (_, rest) = np.cov(logs, aweights=weight, ddof=0)
        before = posterior.prior_sd[0, ratio]
        width = own + rest + 2 * shared
        if not width > 0:  # a single draw has all the weight: the computation is escalated
            continue
        share = (own + shared) / width * min(own / before**2, 1.0)
        if share > _MOSTLY:
            ends = np.exp(posterior.prior_mean[0, ratio] + REACH * before * np.array([-1, 1]))
            said.append(
                f"{100 * share:.0f} % of the width of D_red_{number} is that of the prior on "
                f"D_red/D_ox ({ends[0]:.2g} to {ends[1]:.2g}), which the record hardly narrows."
            )
    return said
