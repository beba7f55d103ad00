"""What turns a voltammogram into draws of its parameters: flow, re-weighting, CEM and NUTS."""

import json
from collections.abc import Callable
from functools import cached_property, partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array
from jax.scipy.special import ndtr
from jax.scipy.stats import norm

from touchstone.inference import flow, importance, nuts
from touchstone.inference.cem import cross_entropy
from touchstone.inference.problem import Coordinates, Problem
from touchstone.models.ecsfm.inference import networks
from touchstone.models.ecsfm.inference.checkpoint import Checkpoint
from touchstone.models.ecsfm.inference.straight import Straight
from touchstone.models.ecsfm.physics.experiment import Experiment, Kind
from touchstone.models.ecsfm.physics.experiment import Records as Cases
from touchstone.models.ecsfm.physics.observation import Filtered
from touchstone.models.ecsfm.physics.prior import Prior
from touchstone.models.ecsfm.physics.waveforms import Waveform

_CHAINS = 4
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
    """Samplers of the posterior, compiled once for a budget and what is known; what draws predict.

    Args:
        prior: Of the model.
        simulate: Noise-free current, A, of (natural coordinates, experiment, waveform, and the
            kind of the experiment where it is known).
    """

    def __init__(self, prior: Prior, simulate: Callable):
        self.prior, self.simulate = prior, simulate
        self._samplers = {}
        self._correlation = prior.names.index("correlation")

    def current(
        self, z: Array, experiment: Experiment, waveform: Waveform, kind: Kind | None = None
    ) -> Array:
        """Noise-free current, A, shape (N,)."""
        return self.simulate(self.prior.natural(z, experiment), experiment, waveform, kind)

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
        name = json.dumps([method, budget])
        if name not in self._samplers:
            make = self._reweighted if method in MARGINAL else getattr(self, f"_{method}")
            self._samplers[name] = make(**budget)
        return self._samplers[name]

    def _inferred(self, known: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Entries to draw that the simulation depends on, and those that it does not.

        The baseline is among neither: it is marginalised exactly. Where the simulation is known,
        the others count as if it depended on them: something has to be proposed with it.
        """
        inferred = ~(known | self.prior.baseline)
        record = self.prior.record
        heavy, light = (
            tuple(np.flatnonzero(inferred & which).tolist()) for which in (~record, record)
        )
        return (heavy, light) if heavy else (light, ())

    # The flow ---------------------------------------------------------------------------------

    def _flow(self, **budget) -> Callable:
        draw = _each(partial(self._flow_draws, **budget))

        def sampler(checkpoint: Checkpoint, *arguments):
            return Draws.unweighted(draw(checkpoint.posterior, checkpoint.normaliser, *arguments))

        return sampler

    def _flow_draws(self, net, normaliser, key, case: Cases, waveform, *, n_draws, n_steps):
        active = self.prior.active(case.experiment.present)
        context = networks.posterior_context(
            case.observed, case.mask, case.experiment, case.z, case.known, active, normaliser
        )
        z = flow.sample(net, context, ~case.known, n_draws, n_steps, key)
        return jnp.where(case.known, case.z, z)

    # Exact re-weighting -----------------------------------------------------------------------

    def _reweighted(self, *, n_draws: int, n_steps: int, reweight: dict) -> Callable:
        """Of one system: its couples, then the instrument and noise of each of its records.

        Couples are shared in natural coordinates: the window of E0 is that of the first record.
        """
        shared = np.flatnonzero(self.prior.shared)
        own = np.flatnonzero(~self.prior.shared & ~self.prior.baseline)

        def apart(x, cases):
            """Standard and natural coordinates of each record, (n, P) each."""
            n = len(cases.z)
            z = cases.z.at[:, own].set(x[len(shared) :].reshape(n, len(own)))
            z = z.at[:, shared].set(x[: len(shared)])
            natural = jax.vmap(self.prior.natural)(z, cases.experiment)
            return z, natural.at[:, shared].set(natural[0, shared])

        n_runs = reweight["n_runs"]
        sizes = {name: size for name, size in reweight.items() if name != "n_runs"}

        def propose(net, normaliser, key, index, number, cases: Cases, waveform, entries, kind):
            cases = jax.tree.map(jnp.asarray, cases)
            n = len(cases.z)
            keys = jax.random.split(jax.random.fold_in(key, index[0]), 3)[:2]
            flow_key, weight_key = (jax.random.fold_in(key, number) for key in keys)

            def alone(key, case, waveform):
                z = self._flow_draws(
                    net, normaliser, key, case, waveform, n_draws=n_draws, n_steps=n_steps
                )
                # A discrepancy of long memory would absorb a wrong start at little cost, and the
                # climb would stay there.
                return jnp.where(case.known, z, z.at[:, self._correlation].set(_BRIEF))

            z = jax.vmap(alone)(jax.random.split(flow_key, n), cases, waveform)
            # The couples of a start are those of one record, each in its turn.
            couples = z[jnp.arange(n_draws) % n, jnp.arange(n_draws)][:, shared]
            # What is known is so in the window of the first.
            couples = jnp.where(cases.known[0, shared], cases.z[0, shared], couples)
            rest = jnp.moveaxis(z[:, :, own], 0, 1).reshape(n_draws, -1)

            def simulate(x):
                _, natural = apart(x, cases)
                simulate = partial(self.simulate, kind=kind)
                return jax.vmap(simulate)(natural, cases.experiment, waveform)

            def residuals(currents, x):
                each = jax.vmap(self.residuals)(cases, currents, apart(x, cases)[0])
                return tuple(part.ravel() for part in each)

            def places(entries):
                """Of entries of a record in the vector of all."""
                couples = [int(np.flatnonzero(shared == k)[0]) for k in entries if k in shared]
                each = [int(np.flatnonzero(own == k)[0]) for k in entries if k in own]
                first = len(shared) + len(own) * np.arange(n)
                return (*couples, *(int(f) + k for f in first for k in each))

            first = jax.tree.map(lambda a: a[0], cases)
            straight = Straight.of(self.prior, first.experiment, first.observed, first.mask)

            def couples_of(x):
                return jnp.zeros(self.prior.size).at[shared].set(x[: len(shared)])

            def log_prior(x, free):
                of_couples = straight.log_prior(couples_of(x), couples_of(free) > 0)
                return of_couples + (free * norm.logpdf(x))[len(shared) :].sum()

            coordinates = Coordinates(
                lambda z: z.at[: len(shared)].set(straight.warp(couples_of(z))[shared]),
                lambda x: x.at[: len(shared)].set(straight.unwarp(couples_of(x))[shared]),
                log_prior,
            )
            free = ~cases.known
            problem = Problem(
                simulate,
                residuals,
                jnp.concatenate([free[0, shared], free[:, own].ravel()]),
                *map(places, entries),
                coordinates,
            )
            return importance.reweight(
                problem, jnp.concatenate([couples, rest], axis=1), weight_key, **sizes
            )

        def each_record(x, cases: Cases):
            """Standard coordinates of each record, in its own window of E0, (n, draws, P)."""

            def one(x):
                z, natural = apart(x, cases)
                in_own_window = jax.vmap(self.prior.standard)(natural, cases.experiment)
                z = z.at[1:, shared].set(in_own_window[1:, shared])
                return jnp.where(cases.known, cases.z, z)

            return jnp.moveaxis(jax.vmap(one)(x), 0, 1)

        propose, each_record = eqx.filter_jit(propose), jax.jit(each_record)

        def sampler(checkpoint: Checkpoint, key, index, cases, waveform):
            entries = self._inferred(cases.known.all(0))
            kind = Kind.of(cases.experiment)

            def run(number: int) -> importance.Reweighted:
                return propose(
                    checkpoint.posterior,
                    checkpoint.normaliser,
                    key,
                    index,
                    np.asarray(number),
                    cases,
                    waveform,
                    entries,
                    kind,
                )

            exact = importance.agree(run, n_runs)
            chosen = importance.resample(exact.weight, n_draws)
            z = each_record(exact.z[chosen], jax.tree.map(jnp.asarray, cases))
            n_simulations = exact.n_simulations + n_draws  # those of `predict` are the last
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

        return sampler

    # Prediction -------------------------------------------------------------------------------

    @cached_property
    def predict(self) -> Callable:
        """What weighted draws say of a new observation, by the exact simulator.

        Its arguments are: whether the baseline was marginalised, in which case each draw gets one
        given the rest; the key of the sampler; then of each case its index, draws (n, draws, P),
        weights, the case itself and its waveform.

        Returns:
            The draws; the mean and standard deviation of a new observation, (n, N) each; the
            standard deviation of its white noise, (n,); and the probability of less than each
            observed sample, given those before it, (n, N).
        """

        def of_case(z, weight, key, case: Cases, waveform, *, marginal):
            def of_draw(z, key):
                current = self.current(z, case.experiment, waveform)
                natural = self.prior.natural(z, case.experiment)
                observation = self.prior.observation(natural, current, case.experiment)
                if marginal:
                    filtered = self._filtered(case, current, z)
                    # What is known has no variance, which a Cholesky factor would divide by.
                    regular = filtered.covariance + jnp.diag(1.0 * case.known[self.prior.baseline])
                    baseline = jax.random.multivariate_normal(key, filtered.baseline, regular)
                    z = jnp.where(case.known, z, z.at[self.prior.baseline].set(baseline))
                observation = observation.with_baseline(z[self.prior.baseline])
                pit = ndtr(observation.filter(case.observed, case.mask).residual)
                return z, observation.mean, observation.sd, observation.white, pit

            z, fit, sd, white, pit = jax.vmap(of_draw)(z, jax.random.split(key, len(z)))
            mean = weight @ fit
            sd = jnp.sqrt(weight @ (fit - mean) ** 2 + weight @ sd**2)
            return z, mean, sd, jnp.sqrt(weight @ white**2), weight @ pit

        def of_cases(marginal, key, index, z, weight, cases, waveform):
            keys = jax.vmap(lambda k: jax.random.split(jax.random.fold_in(key, k), 3)[2])(index)
            each = jax.vmap(partial(of_case, marginal=marginal))
            return each(z, weight, keys, cases, waveform)

        return eqx.filter_jit(of_cases)

    def residuals(self, case: Cases, current: Array, z: Array) -> tuple[Array, Array]:
        """Residuals of one case about a simulated current, and the logarithms of their scales.

        The scales are in units of the rms of what was observed, so that the evidence does not
        depend on the unit of the current.
        """
        filtered = self._filtered(case, current, z)
        seen = case.mask.astype(case.observed.dtype)
        unit = jnp.sqrt((seen * case.observed**2).sum() / seen.sum())
        return filtered.residual, filtered.log_scale - seen * jnp.log(unit)

    def _filtered(self, case: Cases, current: Array, z: Array) -> Filtered:
        natural = self.prior.natural(z, case.experiment)
        observation = self.prior.observation(natural, current, case.experiment)
        baseline = self.prior.baseline
        return observation.filter(case.observed, case.mask, case.z[baseline], case.known[baseline])

    # The no-U-turn sampler ------------------------------------------------------------------

    def nuts(
        self,
        case: Cases,
        waveform,
        draws: np.ndarray,
        *,
        n_tune: int,
        n_draws: int,
        seed: int,
        kept: xr.DataTree | None,
    ) -> xr.DataTree:
        """Chains of one case, without the baseline; see `Ecsfm.reference`."""
        heavy, light = self._inferred(case.known[0])
        at = np.array([*heavy, *light])
        kind = Kind.of(case.experiment)

        def wide(a):
            a = np.asarray(a)[0]
            return a.astype(np.float64) if a.dtype == np.float32 else a

        case, waveform = jax.tree.map(wide, (case, waveform))
        names = [self.prior.names[k] for k in at]

        def whole(values):
            return jnp.asarray(case.z).at[at].set(values)

        def log_likelihood(values):
            z = whole(values)
            current = self.current(z, case.experiment, waveform, kind)
            residual, log_scale = self.residuals(case, current, z)
            return -(0.5 * residual**2 + log_scale).sum()

        if kept is not None and nuts.are_of(kept, log_likelihood, names):
            return kept
        ours = np.unique(draws[:, at].astype(float), axis=0)
        again = len(ours) < _CHAINS - 1
        others = np.random.default_rng(seed).choice(len(ours), _CHAINS - 1, replace=again)
        # Where E0 and k0 are known only together, the posterior is bent.
        straight = Straight.of(self.prior, case.experiment, case.observed, case.mask)
        coordinates = nuts.Bijection(
            lambda z: straight.opened(whole(z))[at], lambda v: straight.closed(whole(v))[at]
        )
        with jax.enable_x64(True):
            opened = np.asarray(jax.jit(jax.vmap(coordinates.to))(ours))
        spread = np.cov(opened.T) if len(ours) > len(at) else np.eye(len(at))
        return nuts.sample(
            log_likelihood,
            np.concatenate([case.z[None, at], ours[others]]),
            np.linalg.cholesky(spread + 1e-9 * np.eye(len(at))),
            names=names,
            n_tune=n_tune,
            n_draws=n_draws,
            seed=seed,
            coordinates=coordinates,
        )

    # The cross-entropy method -----------------------------------------------------------------

    def _cem(self, **budget) -> Callable:
        draw = _each(partial(self._cem_draws, **budget))

        def sampler(checkpoint: Checkpoint, *arguments):
            z, weight = draw(checkpoint.surrogate, checkpoint.normaliser, *arguments)
            return Draws.unweighted(z)._replace(
                weight=np.asarray(weight), effective=1 / np.square(weight).sum(1)
            )

        return sampler

    def _cem_draws(
        self,
        net,
        normaliser,
        key,
        case: Cases,
        waveform,
        *,
        n_particles: int,
        n_iterations: int,
        elite_fraction: float,
        n_mc: int,
        n_steps: int,
    ):
        active = self.prior.active(case.experiment.present)

        def log_likelihood(z, key):
            natural = self.prior.natural(z, case.experiment)
            context = networks.surrogate_context(z, case.experiment, active, normaliser)
            everything = jnp.ones(case.observed.shape[0] + 1, bool)
            targets = flow.sample(net, context, everything, n_mc, n_steps, key)

            # The scatter of the surrogate's draws is its own doubt about the trace: without it the
            # likelihood, at a noise far below that doubt, would pick particles by chance.
            currents = jax.vmap(
                lambda target: networks.surrogate_current(target, case.experiment, normaliser)
            )(targets)
            observation = self.prior.observation(natural, currents.mean(0), case.experiment)
            doubt = currents.var(0).mean() * (n_mc + 1) / max(n_mc - 1, 1)
            doubtful = observation._replace(white=jnp.sqrt(observation.white**2 + doubt))
            doubtful = doubtful.with_baseline(z[self.prior.baseline])
            filtered = doubtful.filter(case.observed, case.mask)
            return -(0.5 * filtered.residual**2 + filtered.log_scale).sum()

        def of_particles(z, key):
            return jax.vmap(log_likelihood)(z, jax.random.split(key, z.shape[0]))

        return cross_entropy(
            of_particles,
            case.z,
            case.known,
            key,
            n_particles=n_particles,
            n_iterations=n_iterations,
            elite_fraction=elite_fraction,
        )


def _each(draw: Callable) -> Callable:
    """`draw` of a batch of cases, compiled, each case with a key of its own."""

    def batch(net, normaliser, key, index, cases, waveform):
        keys = jax.vmap(partial(jax.random.fold_in, key))(index)
        each = jax.vmap(draw, in_axes=(None, None, 0, 0, 0))
        return each(net, normaliser, keys, cases, waveform)

    return eqx.filter_jit(batch)
