"""The cross-entropy method over the likelihood of the surrogate network."""

import jax
import jax.numpy as jnp
from jax import Array

from touchstone.inference import flow
from touchstone.inference.cem import CemResult, cross_entropy
from touchstone.models.ecsfm.inference import networks
from touchstone.models.ecsfm.inference.networks import Normaliser
from touchstone.models.ecsfm.physics.experiment import Records
from touchstone.models.ecsfm.physics.prior import Prior


def log_likelihood(
    prior: Prior,
    net: flow.VectorFieldNet,
    normaliser: Normaliser,
    case: Records,
    z: Array,
    key: Array,
    *,
    n_mc: int,
    n_steps: int,
) -> Array:
    """Log likelihood of one point by the surrogate.

    The scatter of the surrogate's draws is its own doubt about the trace: without it the
    likelihood, at a noise far below that doubt, would pick particles by chance.

    Args:
        prior: Of the model.
        net: The surrogate.
        normaliser: Of the checkpoint.
        case: The record, without the axis of cases.
        z: Standard coordinates, shape (P,).
        key: For the draws of the surrogate.
        n_mc: How many.
        n_steps: Steps of the flow.
    """
    active = prior.active(case.experiment.present)
    natural = prior.natural(z, case.experiment)
    context = networks.surrogate_context(z, case.experiment, active, normaliser)
    everything = jnp.ones(case.observed.shape[0] + 1, bool)
    targets = flow.sample(net, context, everything, n_mc, n_steps, key)
    currents = jax.vmap(
        lambda target: networks.surrogate_current(target, case.experiment, normaliser)
    )(targets)
    observation = prior.observation(natural, currents.mean(0), case.experiment)
    doubt = currents.var(0).mean() * (n_mc + 1) / max(n_mc - 1, 1)
    doubtful = observation._replace(white=jnp.sqrt(observation.white**2 + doubt))
    doubtful = doubtful.with_baseline(z[prior.baseline])
    filtered = doubtful.filter(case.observed, case.mask)
    return -(0.5 * filtered.residual**2 + filtered.log_scale).sum()


def posterior(
    prior: Prior,
    net: flow.VectorFieldNet,
    normaliser: Normaliser,
    key: Array,
    case: Records,
    *,
    n_particles: int,
    n_iterations: int,
    elite_fraction: float,
    n_mc: int,
    n_steps: int,
) -> CemResult:
    """Weighted draws of one case; sizes as in `log_likelihood` and `cross_entropy`."""

    def of_particles(z, key):
        def of_particle(z, key):
            return log_likelihood(prior, net, normaliser, case, z, key, n_mc=n_mc, n_steps=n_steps)

        return jax.vmap(of_particle)(z, jax.random.split(key, z.shape[0]))

    return cross_entropy(
        of_particles,
        case.z,
        case.known,
        key,
        n_particles=n_particles,
        n_iterations=n_iterations,
        elite_fraction=elite_fraction,
    )
