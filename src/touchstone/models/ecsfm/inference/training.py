"""Training of the two networks on chunks of simulated experiments."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from touchstone.contract import Comparison
from touchstone.inference import flow, flow_training
from touchstone.inference.batches import map_batches
from touchstone.io import artifacts
from touchstone.models.ecsfm.data.dataset import Chunk, natural_coordinates
from touchstone.models.ecsfm.inference import networks
from touchstone.models.ecsfm.inference.checkpoint import Checkpoint
from touchstone.models.ecsfm.inference.networks import Normaliser
from touchstone.models.ecsfm.physics.arrays import AnyArray
from touchstone.models.ecsfm.physics.experiment import Experiment
from touchstone.models.ecsfm.physics.prior import Prior

NETWORKS = ("surrogate", "posterior")
LEVELS = ("foundation", "bridge", "frontier")
_EVALUATION_STEPS, _EVALUATION_DRAWS = 20, 64  # of the flow on the rows held out
_CLAIM = ".claim.state"
_FARTHEST = 5.0  # standard coordinates beyond this are no training targets
# Until these parts of the training, a batch is drawn from the first levels up to this one; after
# the last, from the frontier alone, whose distribution is the prior.
_CURRICULUM = ((0.1, 0), (0.2, 1), (0.5, 2))


class Rows(NamedTuple):
    """Noise-free experiments as the networks learn them.

    Attributes:
        z: Standard coordinates of the parameters, shape (n, P).
        experiment: The experiments.
        current: Noise-free current without baseline, A, shape (n, N).
    """

    z: AnyArray
    experiment: Experiment
    current: AnyArray

    @classmethod
    def of(cls, chunk: Chunk, prior: Prior) -> "Rows":
        """Rows of a chunk."""
        experiment = chunk.experiment
        natural = natural_coordinates(prior, chunk)
        z = np.asarray(jax.jit(jax.vmap(prior.standard))(natural, experiment))
        current = np.asarray(1e-3 * chunk.current, np.float32)
        return cls(np.clip(z, -_FARTHEST, _FARTHEST), experiment, current)

    def take(self, index: np.ndarray) -> "Rows":
        """Some of the rows."""
        return jax.tree.map(lambda a: a[index], self)


class Trained(NamedTuple):
    """What training gives.

    Attributes:
        checkpoint: The two networks.
        losses: Loss of each step, by network.
        held_out: Rows that were not trained on.
        task: Name of the task of each of them.
        n_rows: Number of rows trained on.
    """

    checkpoint: Checkpoint
    losses: dict[str, np.ndarray]
    held_out: Rows
    task: np.ndarray
    n_rows: int

    @property
    def n_held_out(self) -> int:
        """Number of rows that were not trained on."""
        return len(self.task)


def train(
    chunks: list[Chunk],
    prior: Prior,
    by_design: np.ndarray,
    settings: dict,
    key: Array,
    folder: Path,
    lineage: dict,
) -> Trained:
    """Train the surrogate and the posterior, and write the checkpoint.

    Args:
        chunks: At least one, all of one record length.
        prior: Of the model.
        by_design: Parameters that an experimenter knows, shape (P,).
        settings: The train section of the configuration, without the calibration.
        key: For all randomness.
        folder: Of the checkpoint. If it holds the state of a training with the same settings, seed
            and data, interrupted or complete, training goes on from there, so that a run that is
            killed while it calibrates need not train again; the state of any other is deleted.
        lineage: Where the training comes from, for the manifest.
    """
    split_key, init_key, *train_keys = jax.random.split(key, 2 + len(NETWORKS))
    rows = jax.tree.map(lambda *a: np.concatenate(a), *(Rows.of(chunk, prior) for chunk in chunks))
    level = np.concatenate([_by_name(c.stage, c.stage_names, LEVELS) for c in chunks])
    fit, held_out = _split(chunks, settings["held_out"], split_key)
    fit = fit[np.argsort(level[fit], kind="stable")]
    ends = [int(np.searchsorted(level[fit], k, side="right")) for k in range(len(LEVELS))]
    training = rows.take(fit)
    normaliser = Normaliser.fit(training.current, training.experiment)
    makers = {
        "surrogate": lambda key, row: networks.surrogate_example(row, prior, normaliser),
        "posterior": lambda key, row: networks.posterior_example(
            key, row, prior, jnp.asarray(by_design), normaliser
        ),
    }
    meta = _meta(training, makers, settings, prior)
    blank = Checkpoint.untrained(meta, normaliser, init_key)
    _claim(folder, settings, key, (training, ends, by_design))
    data = jax.tree.map(jnp.asarray, training)
    nets, losses = {}, {}
    for name, net_key in zip(NETWORKS, train_keys, strict=True):
        budget = settings[name]
        nets[name], loss = flow_training.train(
            getattr(blank, name),
            makers[name],
            data,
            **{k: budget[k] for k in ("batch_size", "n_steps", "paths", "learning_rate")},
            key=net_key,
            span=_curriculum(ends, budget["n_steps"]),
            state_file=folder / f".{name}.state",
            label=f"train {name}",
        )
        losses[name] = np.asarray(loss)
    checkpoint = Checkpoint(**nets, normaliser=normaliser, meta=meta, verified=True)
    checkpoint.save(folder, lineage)
    task = np.concatenate([np.array(c.task_names)[c.task] for c in chunks])
    return Trained(checkpoint, losses, rows.take(held_out), task[held_out], len(fit))


def _by_name(index: np.ndarray, names: tuple[str, ...], wanted: tuple[str, ...]) -> np.ndarray:
    """Indices into `wanted` of labels given as indices into `names`; the last if not there."""
    place = [wanted.index(name) if name in wanted else len(wanted) - 1 for name in names]
    return np.array(place)[index]


def _split(chunks: list[Chunk], part: float, key: Array) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows held out, with the variants of one experiment on one side."""
    sizes = np.cumsum([0, *(chunk.group.max() + 1 for chunk in chunks)])
    group = np.concatenate([c.group + start for c, start in zip(chunks, sizes, strict=False)])
    distinct = np.unique(group)
    chance = np.asarray(jax.random.uniform(key, (len(distinct),)))
    held = np.isin(group, distinct[chance <= max(part, chance.min())])  # at least one
    return np.flatnonzero(~held), np.flatnonzero(held)


def _curriculum(ends: list[int], n_steps: int) -> Callable[[Array], tuple[Array, Array]]:
    """Function of a step that gives the first row of its phase and the one after the last.

    The rows are in the order of their levels, of which `ends` has the ends.
    """
    phase_ends = np.array([part * n_steps for part, _ in _CURRICULUM])
    spans = [(0, ends[level]) for _, level in _CURRICULUM] + [(ends[-2], ends[-1])]
    spans = np.array([span if span[1] > span[0] else (0, ends[-1]) for span in spans])

    def span(step: Array) -> tuple[Array, Array]:
        first, end = jnp.asarray(spans)[(step >= jnp.asarray(phase_ends)).sum()]
        return first, end

    return span


def _meta(rows: Rows, makers: dict, settings: dict, prior: Prior) -> dict:
    """Sizes, settings and the range of the training, for `model_meta.json`."""
    first = jax.tree.map(lambda a: jnp.asarray(a[0]), rows)
    sizes = {}
    for name, make in makers.items():
        example = jax.eval_shape(make, jax.random.key(0), first)
        sizes[name] = {
            "target_size": example.target.shape[0],
            "context_size": example.context.shape[0],
            **{k: settings[name][k] for k in ("encoder_width", "width", "depth", "spread")},
        }
    numbers = np.asarray(jax.vmap(networks.settings)(rows.experiment))[:, : len(networks.SETTINGS)]
    return {
        "schema_version": networks.VERSION,
        "model_id": "ecsfm",
        "n_points": rows.current.shape[1],
        "max_couples": prior.max_couples,
        "parameters": prior.names,
        "networks": sizes,
        "trained_range": {
            name: [float(low), float(high)]
            for name, low, high in zip(
                networks.SETTINGS, numbers.min(0), numbers.max(0), strict=True
            )
        },
        "settings": settings,
    }


def _claim(folder: Path, settings: dict, key: Array, data: Any) -> None:
    """Note whose training the folder holds, and delete the state of any other.

    A network that went on under another seed would have learnt from rows that are held out there.
    """
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(data):
        digest.update(np.ascontiguousarray(leaf))
    ours = {
        "settings": settings,
        "seed": jax.random.key_data(key).tolist(),
        "data": digest.hexdigest(),
        "contexts": networks.VERSION,
        "packages": artifacts.versions(),
    }
    if (folder / _CLAIM).exists() and artifacts.read_json(folder / _CLAIM) == ours:
        return
    for name in NETWORKS:
        (folder / f".{name}.state").unlink(missing_ok=True)
    artifacts.write_json(folder / _CLAIM, ours)


def evaluate(trained: Trained, prior: Prior, by_design: np.ndarray, key: Array) -> list[Comparison]:
    """How the networks do on held-out rows, beside answers that need no training.

    The surrogate draws one current for each row; its error is the rms difference over the rms
    current, beside those of always answering zero, and the mean of all their shapes. The
    posterior sees each row whole, with what is known by design, and its parameter error is beside
    that of the prior mean.

    Args:
        trained: As from `train`.
        prior: Of the model.
        by_design: Parameters that an experimenter knows, shape (P,).
        key: For noise and draws.

    Returns:
        Errors by task of the surrogate and of the posterior, and of the posterior by parameter.
    """
    error, of_mean_shape = _surrogate_errors(trained, prior, key)
    ours, of_prior_mean, unknown = _posterior_errors(trained, prior, by_design, key)

    def root_mean_square(values, where):
        return float(np.sqrt((values**2)[where].mean())) if where.any() else None

    def errors(where):
        return {
            "posterior mean": root_mean_square(ours, where),
            "prior mean": root_mean_square(of_prior_mean, where),
        }

    of_surrogate, of_posterior = [], []
    for name in np.unique(trained.task):
        rows = trained.task == name
        of = {"name": str(name), "n": int(rows.sum())}
        medians = {"surrogate": error, "mean shape": of_mean_shape}
        of_surrogate.append(
            of | {k: float(np.median(v[rows])) for k, v in medians.items()} | {"zero": 1.0}
        )
        of_posterior.append(of | errors(unknown & rows[:, None]))
    of_parameters = [
        {
            "name": name,
            "n": int(which.sum()),
            **errors(which[:, None] & (np.arange(prior.size) == k)),
        }
        for k, (name, which) in enumerate(zip(prior.names, unknown.T, strict=True))
        if which.any()
    ]
    return [
        Comparison("Median error of the surrogate (rms of the record)", of_surrogate),
        Comparison("Error of the posterior by task (prior sd)", of_posterior),
        Comparison("Error of the posterior by parameter (prior sd)", of_parameters),
    ]


def _surrogate_errors(trained: Trained, prior: Prior, key: Array) -> tuple[np.ndarray, np.ndarray]:
    """Errors of one draw for each held-out row, and of the mean of all shapes, shape (n,) each."""
    checkpoint, normaliser = trained.checkpoint, trained.checkpoint.normaliser

    def one(index, row):
        example = networks.surrogate_example(row, prior, normaliser)
        drawn = flow.sample(
            checkpoint.surrogate,
            example.context,
            example.unknown,
            1,
            _EVALUATION_STEPS,
            jax.random.fold_in(key, index),
        )[0]
        current = networks.surrogate_current(drawn, row.experiment, normaliser)
        rms = jnp.sqrt((row.current**2).mean())
        return jnp.sqrt(((current - row.current) ** 2).mean()) / rms, row.current / rms

    index = np.arange(len(trained.task))
    error, shape = map_batches(
        jax.jit(jax.vmap(one)), index, trained.held_out, label="held out, surrogate"
    )
    return error, np.sqrt(((shape - shape.mean(0)) ** 2).mean(1))


def _posterior_errors(
    trained: Trained, prior: Prior, by_design: np.ndarray, key: Array
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors of posterior and prior mean in prior sd, and what was unknown, shape (n, P) each."""
    checkpoint, normaliser = trained.checkpoint, trained.checkpoint.normaliser

    def one(index, row):
        example_key, sample_key = jax.random.split(jax.random.fold_in(key, index))
        example = networks.posterior_example(
            example_key, row, prior, jnp.asarray(by_design), normaliser, training=False
        )
        z = flow.sample(
            checkpoint.posterior,
            example.context,
            example.unknown,
            _EVALUATION_DRAWS,
            _EVALUATION_STEPS,
            sample_key,
        )
        natural = jax.vmap(prior.natural, in_axes=(0, None))(z, row.experiment)
        mean, sd = prior.moments(row.experiment)
        truth = prior.natural(example.target, row.experiment)
        return (natural.mean(0) - truth) / sd, (mean - truth) / sd, example.unknown

    return map_batches(
        jax.jit(jax.vmap(one)),
        np.arange(len(trained.task)),
        trained.held_out,
        batch_size=64,
        label="held out, posterior",
    )
