"""What turns a voltammogram into draws of its parameters: flow, re-weighting, CEM and NUTS."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from touchstone.inference import flow, importance, psis
from touchstone.models.ecsfm.inference import networks, prediction, reference, surrogate
from touchstone.models.ecsfm.inference.checkpoint import Checkpoint
from touchstone.models.ecsfm.inference.records import System
from touchstone.models.ecsfm.physics.experiment import Records
from touchstone.models.ecsfm.physics.prior import Prior
from touchstone.models.ecsfm.physics.waveforms import Waveform

if TYPE_CHECKING:
    import xarray as xr

_BRIEF = -2.0  # standard coordinate of the correlation time that climbs start with
BATCH = {"flow": 32, "reweighted": 1, "joint": None, "cem": 4}  # cases of a call; None is all
MARGINAL = ("reweighted", "joint")  # methods whose draws have no baseline yet


class Draws(NamedTuple):
    """Draws of some cases: the fields of `Posterior` that need no prediction."""

    z: np.ndarray
    weight: np.ndarray
    effective: np.ndarray
    efficiency: np.ndarray
    k_hat: np.ndarray
    k_threshold: np.ndarray
    log_evidence: np.ndarray
    disagreement: np.ndarray

    @classmethod
    def unweighted(cls, z: Array) -> "Draws":
        """Draws that all count alike, shape (n, draws, P)."""
        n_cases, n_draws = z.shape[:2]
        nothing = np.full(n_cases, np.nan)
        weight = np.full((n_cases, n_draws), 1 / n_draws, np.float32)
        return cls(np.asarray(z), weight, *[nothing] * 6)


class Posteriors:
    """Samplers of the posterior, and what their draws predict.

    Args:
        prior: Of the model.
    """

    def __init__(self, prior: Prior):
        self.prior = prior

    def sampler(self, method: str, budget: dict) -> Callable:
        """Sampler of a batch of cases.

        Args:
            method: "flow"; "reweighted", the flow's draws carried to the likelihood of the exact
                simulator; "joint", the same, where a batch is of one system, with couples in
                common; or "cem", over the likelihood of the surrogate.
            budget: For flow `n_draws` and `n_steps`; for reweighted and joint also `reweight`, the
                sizes of `importance.reweight` and the `n_runs` of `importance.agree`; for cem
                `n_particles`, `n_iterations`, `elite_fraction`, `n_mc` and `n_steps`.

        Returns:
            A function of (checkpoint, key, index, cases, waveform) that gives `Draws`; those of a
            case depend on its index alone.
        """
        samplers = {"flow": _flow, "reweighted": _reweighted, "joint": _reweighted, "cem": _cem}
        return partial(samplers[method], self.prior, budget)

    def restarted(self, budget: dict) -> Callable:
        """Sampler of one system that starts from draws of it under a simpler prior.

        Args:
            budget: `n_draws` and `reweight`, as in `sampler`.

        Returns:
            A function of (key, index, cases, waveform, draws) that gives `Draws`; draws have shape
            (n, draws, P), NaN where the simpler prior has no such entry.
        """
        return partial(_restarted, self.prior, budget)

    def predict(self, marginal: bool, key: Array, *arguments) -> tuple[np.ndarray, ...]:
        """What weighted draws say of a new observation; see `prediction.predict`."""
        return prediction.predict(self.prior, marginal, key, *arguments)

    def nuts(self, case: Records, waveform: Waveform, draws: np.ndarray, **sizes) -> "xr.DataTree":
        """Chains of one case, without the baseline; see `reference.chains`."""
        return reference.chains(self.prior, case, waveform, draws, **sizes)


def _flow(prior: Prior, budget: dict, checkpoint: Checkpoint, key, index, cases, _) -> Draws:
    keys = jax.vmap(partial(jax.random.fold_in, key))(index)
    return Draws.unweighted(
        _flow_draws(prior, checkpoint.posterior, checkpoint.normaliser, keys, cases, **budget)
    )


@eqx.filter_jit
def summaries(prior: Prior, net, normaliser, cases: Records):
    """What the posterior network has made of each case, shape (n, encoder_width)."""

    def of_case(case: Records):
        active = prior.active(case.experiment.present)
        return net.summary(
            networks.posterior_context(
                case.observed, case.mask, case.experiment, case.z, case.known, active, normaliser
            )
        )

    return jax.vmap(of_case)(cases)


@eqx.filter_jit
def _flow_draws(prior: Prior, net, normaliser, keys, cases: Records, *, n_draws: int, n_steps: int):
    """Draws of the flow, shape (n, draws, P), each case with a key of its own."""

    def of_case(key, case: Records):
        active = prior.active(case.experiment.present)
        context = networks.posterior_context(
            case.observed, case.mask, case.experiment, case.z, case.known, active, normaliser
        )
        z = flow.sample(net, context, ~case.known, n_draws, n_steps, key)
        return jnp.where(case.known, case.z, z)

    return jax.vmap(of_case)(keys, cases)


def _reweighted(
    prior: Prior, budget: dict, checkpoint: Checkpoint, key, index, cases: Records, waveform
) -> Draws:
    """Of one system, started from the flow's draws of each of its records."""

    def start(key):
        return _flow_starts(prior, budget, checkpoint, key, cases)

    return _of_system(prior, budget, start, key, index, cases, waveform)


def _restarted(prior: Prior, budget: dict, key, index, cases: Records, waveform, draws) -> Draws:
    """Of one system, started from given draws, of which each run takes others together."""

    def start(key):
        order_key, fresh_key = jax.random.split(key)
        z = np.asarray(draws)[:, jax.random.permutation(order_key, draws.shape[1])]
        z = np.where(np.isnan(z), jax.random.normal(fresh_key, z.shape), z)
        return _brief(prior, cases, z)

    return _of_system(prior, budget, start, key, index, cases, waveform)


def _of_system(
    prior: Prior,
    budget: dict,
    start_of: Callable[[Array], np.ndarray],
    key,
    index,
    cases: Records,
    waveform,
) -> Draws:
    """Of one system: its couples, then the instrument and noise of each of its records.

    `start_of` a key gives draws of each record to start from, shape (n, draws, P).
    """
    system, n_draws = System(prior, cases, waveform), budget["n_draws"]
    problem = system.problem
    sizes = {name: size for name, size in budget["reweight"].items() if name != "n_runs"}
    start_key, weight_key, _ = jax.random.split(jax.random.fold_in(key, index[0]), 3)

    def run(number: int) -> importance.Reweighted:
        start = start_of(jax.random.fold_in(start_key, number))
        seed = jax.random.key_data(jax.random.fold_in(weight_key, number))
        rng = np.random.default_rng(np.asarray(seed))
        return importance.reweight(problem, system.points(start), rng, **sizes)

    exact = importance.agree(run, budget["reweight"]["n_runs"])
    z = system.draws(exact.z[psis.resample(exact.weight, n_draws)])
    n_simulations = exact.n_simulations + n_draws  # those of the prediction are the last
    computation = {
        "effective": exact.effective,
        "efficiency": exact.effective / n_simulations,
        "k_hat": exact.k_hat,
        "k_threshold": exact.k_threshold,
        "log_evidence": exact.log_evidence,
        "disagreement": exact.disagreement,
    }
    of_each = {name: np.full(len(z), value) for name, value in computation.items()}
    return Draws.unweighted(z)._replace(**of_each)


def _flow_starts(
    prior: Prior, budget: dict, checkpoint: Checkpoint, key, cases: Records
) -> np.ndarray:
    """Draws of the flow for each record, shape (n, draws, P), from which climbs may start."""
    keys = jax.random.split(key, len(cases.z))
    sizes = {name: budget[name] for name in ("n_draws", "n_steps")}
    each = []
    for number in range(len(cases.z)):  # one by one: compiled once for any number of records
        one = slice(number, number + 1)
        each.append(
            _flow_draws(
                prior, checkpoint.posterior, checkpoint.normaliser, keys[one], cases.take(one),
                **sizes,
            )
        )  # fmt: skip
    return _brief(prior, cases, np.array(jnp.concatenate(each)))


def _brief(prior: Prior, cases: Records, z: np.ndarray) -> np.ndarray:
    """Draws whose discrepancy has a short memory: one of long memory would absorb a wrong start at
    little cost, and the climb would stay there."""
    correlation = prior.names.index("correlation")
    z[..., correlation] = np.where(cases.known[:, None, correlation], z[..., correlation], _BRIEF)
    return z


def _cem(prior: Prior, budget: dict, checkpoint: Checkpoint, key, index, cases, _) -> Draws:
    keys = jax.vmap(partial(jax.random.fold_in, key))(index)
    z, weight = _cem_draws(
        prior, checkpoint.surrogate, checkpoint.normaliser, keys, cases, **budget
    )
    weight = np.asarray(weight)
    return Draws.unweighted(z)._replace(weight=weight, effective=1 / np.square(weight).sum(1))


@eqx.filter_jit
def _cem_draws(prior: Prior, net, normaliser, keys, cases: Records, **budget):
    of_case = partial(surrogate.posterior, prior, net, normaliser, **budget)
    return jax.vmap(of_case)(keys, cases)
