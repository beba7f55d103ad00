"""Posteriors of records, as the workflow knows them: named draws, predictions, computation."""

from functools import cached_property, partial
from pathlib import Path

import jax
import numpy as np
from jax import Array
from scipy.special import ndtr

from touchstone.inference.batches import map_batches
from touchstone.inference.importance import AGREEMENT
from touchstone.models.ecsfm.inference import chains
from touchstone.models.ecsfm.inference.checkpoint import Checkpoint
from touchstone.models.ecsfm.inference.posteriors import BATCH, MARGINAL, Draws, Posteriors
from touchstone.models.ecsfm.physics.experiment import Records
from touchstone.models.ecsfm.physics.forward import Forward
from touchstone.vocabulary import Cases, Computation, Posterior, Prediction

# Exact re-weighting of the flow's draws; the flow itself; the cross-entropy method.
METHODS = ("reweighted", "flow", "cem")
_ENOUGH_DRAWS = 100  # effective ones: the ends of a 90 % interval then rest on five draws each


class Inferrer:
    """Runs an engine over cases and says what came of it in the shared words.

    Args:
        forward: The simulator.
    """

    def __init__(self, forward: Forward):
        self.prior, self.forward = forward.prior, forward
        self.posteriors = Posteriors(forward.prior)

    def infer(
        self,
        checkpoint: Checkpoint,
        cases: Cases[Records],
        key: Array,
        method: str,
        budget: dict,
        label: str | None = None,
    ) -> Posterior:
        """Posterior of each case; records of one system, re-weighted, have one in common.

        Args:
            checkpoint: The trained networks.
            cases: Observations of the checkpoint's record length.
            key: For all randomness; the draws of a case depend on its place among the cases only.
            method: One of `METHODS`.
            budget: As in `Posteriors.sampler`.
            label: Shows progress bars under this name.

        Raises:
            ValueError: If systems have different numbers of records.
        """
        records, index = cases.detail, np.arange(len(cases.kind))
        engine, batch = method, BATCH[method] or len(index)
        if method == "reweighted":
            (batch,) = set(np.unique(cases.system, return_counts=True)[1].tolist()) or {1}
            engine = "reweighted" if batch == 1 else "joint"
        sampler = self.posteriors.sampler(engine, budget)
        waveform = self.forward.waveforms(records.experiment)
        drawn = map_batches(
            partial(sampler, checkpoint, key),
            index,
            records,
            waveform,
            batch_size=batch,
            label=label and f"{label}: draw",
        )
        marginal = method in MARGINAL
        z, prediction = self._predict(key, records, drawn.z, drawn.weight, marginal, label)
        return self._posterior(records, z, drawn.weight, prediction, drawn.log_evidence, drawn)

    def again(self, cases: Cases[Records], start: Posterior, key: Array, budget: dict) -> Posterior:
        """Posterior of the records of one system, by exact re-weighting from draws of another.

        Args:
            cases: The records.
            start: Their posterior under a prior that has fewer parameters than this one.
            key: For all randomness.
            budget: As in `Posteriors.restarted`.
        """
        records, begin = cases.detail, self.points(cases, start)
        waveform = self.forward.waveforms(records.experiment)
        sampler = self.posteriors.restarted(budget)
        drawn = sampler(key, np.arange(len(records.z)), records, waveform, begin)
        z, prediction = self._predict(key, records, drawn.z, drawn.weight, True, None)
        return self._posterior(records, z, drawn.weight, prediction, drawn.log_evidence, drawn)

    def reference(
        self,
        cases: Cases[Records],
        start: Posterior,
        seed: int,
        budget: dict,
        folder: Path,
        label: str | None = None,
    ) -> Posterior:
        """Posterior of each case by the no-U-turn sampler on the exact simulator.

        One chain starts at the truth, which is an exact draw of the posterior, the others at draws
        of `start`: chains that agree vouch for both. They are kept in the folder, and are not
        sampled again for the same case.

        Args:
            cases: Simulated cases.
            start: Another posterior of theirs.
            seed: For all randomness.
            budget: `n_tune` and `n_draws` of each chain.
            folder: Of the chains.
            label: Of the progress bar.
        """
        records, begin = cases.detail, self.points(cases, start)
        waveform = self.forward.waveforms(records.experiment)
        sampled = chains.sample_each(
            self.posteriors, records, waveform, begin, budget, seed, folder, label
        )
        weight = np.full(sampled.z.shape[:2], 1 / sampled.z.shape[1], np.float32)
        key = jax.random.key(seed)
        z, prediction = self._predict(key, records, sampled.z, weight, True, label)
        nothing = np.full(len(z), np.nan)
        posterior = self._posterior(records, z, weight, prediction, nothing, None)
        return posterior._replace(computation=sampled.computation)

    def points(self, cases: Cases[Records], posterior: Posterior) -> np.ndarray:
        """Standard coordinates of the draws of a posterior, shape (case, draw, P).

        They are NaN where the posterior is of a prior without such a parameter.
        """
        records, missing = cases.detail, np.full(posterior.weight.shape, np.nan, np.float32)
        natural = [
            q.coordinate(posterior.draws[q.name]) if q.name in posterior.draws else missing
            for q in self.prior.parameters
        ]
        z = np.asarray(self._standard(np.stack(natural, -1), records.experiment))
        return np.where(records.known[:, None], records.z[:, None], z)

    def prior_values(self, z: np.ndarray, records: Records) -> dict[str, np.ndarray]:
        """As `values`, of draws of the prior, with what is known and believed of each record."""
        z = np.where(records.known[:, None], records.z[:, None], z)
        natural = np.asarray(self._natural(z, records.experiment))
        trust, believed = records.trust[:, None], records.trust[:, None] > 0
        draws = records.belief[:, None] + z / np.where(believed, trust, 1.0)
        natural = np.where(believed, draws, natural)
        return {q.name: q.value(natural[:, :, k]) for k, q in enumerate(self.prior.parameters)}

    @cached_property
    def _natural(self):
        return jax.jit(jax.vmap(jax.vmap(self.prior.natural, in_axes=(0, None))))

    @cached_property
    def _standard(self):
        return jax.jit(jax.vmap(jax.vmap(self.prior.standard, in_axes=(0, None))))

    @cached_property
    def prior_standard(self):
        """Standard coordinates of natural ones, shape (n, P)."""
        return jax.jit(jax.vmap(self.prior.standard))

    @cached_property
    def _moments(self):
        return jax.jit(jax.vmap(self.prior.moments))

    def _predict(self, key, records: Records, z, weight, marginal: bool, label: str | None):
        """Draws with their baselines, and what they predict, by the exact simulator."""
        z, mean, sd, noise, innovation = map_batches(
            partial(self.posteriors.predict, marginal, key),
            np.arange(len(z)),
            z,
            weight,
            records,
            self.forward.waveforms(records.experiment),
            batch_size=4,
            label=label and f"{label}: predict",
        )
        score = (records.observed - mean) / sd
        log_density = -0.5 * score**2 - np.log(sd / noise[:, None]) - 0.5 * np.log(2 * np.pi)
        return z, Prediction(mean, sd, ndtr(score), log_density, innovation)

    def _posterior(
        self,
        records: Records,
        z: np.ndarray,
        weight: np.ndarray,
        prediction: Prediction,
        log_evidence: np.ndarray,
        drawn: Draws | None,
    ) -> Posterior:
        believed = records.trust > 0
        mean, sd = (np.asarray(moment) for moment in self._moments(records.experiment))
        mean = np.where(believed, records.belief, mean)
        sd = np.where(believed, 1 / np.where(believed, records.trust, 1.0), sd)
        natural = np.asarray(self._natural(z, records.experiment))
        estimate = np.einsum("nd,ndp->np", weight, natural).astype(np.float32)
        standard = np.asarray(self.prior_standard(estimate, records.experiment))
        off = (estimate - mean) / np.where(believed, sd, 1.0)
        place = ndtr(np.where(believed, off, standard))
        draws = {q.name: q.value(natural[:, :, k]) for k, q in enumerate(self.prior.parameters)}
        return Posterior(
            draws,
            weight,
            mean,
            sd,
            place,
            prediction,
            log_evidence,
            Computation.unchecked() if drawn is None else _computation(drawn),
        )


def _computation(drawn: Draws) -> Computation:
    """What importance sampling measures of itself; nothing, of draws that were not weighted."""
    if np.isnan(drawn.effective).all():
        return Computation.unchecked()
    figures = {"effective_draws": drawn.effective}
    if np.isnan(drawn.k_hat).all():
        return Computation(figures, {}, {})
    n = len(drawn.effective)
    return Computation(
        figures
        | {
            "efficiency": drawn.efficiency,
            "k_hat": drawn.k_hat,
            "disagreement": drawn.disagreement,
        },
        largest={"k_hat": drawn.k_threshold, "disagreement": np.full(n, AGREEMENT)},
        smallest={"effective_draws": np.full(n, float(_ENOUGH_DRAWS))},
    )
