"""Chunks of simulated experiments on disk: our own, and those made by others."""

import json
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from touchstone.io.artifacts import ArtifactError, load_arrays
from touchstone.models.ecsfm.data.chunk_checks import check_contents, check_shapes
from touchstone.models.ecsfm.physics.experiment import SHAPES, Experiment, Records
from touchstone.models.ecsfm.physics.prior import BLOCKS, RECORD, Prior

KEYS = ("i", "e", "p", "task_id", "stage_id", "task_names", "stage_names")
# What a chunk by others is taken to be where it does not say: a plane of 0.01 cm^2 and 8 s.
ASSUMED = {
    "duration": 8.0,  # s
    "radius": float(np.sqrt(0.01 / np.pi)),  # cm
    "shape": SHAPES.index("planar"),
    "temperature": 298.15,  # K
    "resistance": 100.0,  # ohm
    "capacitance": 20.0,  # uF/cm^2
}
_SETTINGS = {**ASSUMED, "noise_std": 0.0}  # mA


@dataclass(frozen=True)
class Chunk:
    """Experiments as arrays, each with the leading axis n.

    Attributes:
        current: Noise-free current, mA, shape (n, N).
        potential: Applied potential, V, shape (n, N).
        parameters: Blocks [ln D_ox, ln D_red, C_ox, C_red, E0, ln k0, alpha] of width S; cm^2/s,
            mM, V, cm/s; shape (n, 7 S).
        task, stage: Indices into the names, shape (n,).
        task_names, stage_names: Vocabularies.
        settings: The entries of `ASSUMED` and `noise_std` (mA), shape (n,) each.
        group: Rows of one group are variants of each other, and stay together in any split.
        assumed: Which settings the file did not state.
    """

    current: np.ndarray
    potential: np.ndarray
    parameters: np.ndarray
    task: np.ndarray
    stage: np.ndarray
    task_names: tuple[str, ...]
    stage_names: tuple[str, ...]
    settings: dict[str, np.ndarray]
    group: np.ndarray
    assumed: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.current)

    @property
    def present(self) -> np.ndarray:
        """Forms that are in the cell, shape (n, S, 2)."""
        n_couples = self.parameters.shape[1] // 7
        c_ox = self.parameters[:, 2 * n_couples : 3 * n_couples]
        c_red = self.parameters[:, 3 * n_couples : 4 * n_couples]
        return np.stack([c_ox > 0, c_red > 0], axis=-1)

    @property
    def experiment(self) -> Experiment:
        """The experiments, as a batch."""
        potential, duration, radius, temperature = (
            np.asarray(each, np.float32)
            for each in (
                self.potential,
                *(self.settings[name] for name in ("duration", "radius", "temperature")),
            )
        )
        shape = np.asarray(self.settings["shape"], int)
        return Experiment(potential, duration, radius, shape, temperature, self.present)

    def by_task(self) -> dict[str, np.ndarray]:
        """Rows of each task that there is, those of the widest curriculum level first."""
        order = np.argsort(-self.stage, kind="stable")
        rows = {name: order[self.task[order] == k] for k, name in enumerate(self.task_names)}
        return {name: found for name, found in rows.items() if len(found)}

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of experiments of each task, by curriculum level."""
        return {
            level: {
                task: int(((self.stage == s) & (self.task == t)).sum())
                for t, task in enumerate(self.task_names)
            }
            for s, level in enumerate(self.stage_names)
        }

    def records(self, rows: np.ndarray, prior: Prior) -> Records:
        """Some experiments as records without noise, all of whose parameters are known."""
        experiment = jax.tree.map(lambda a: np.asarray(a)[rows], self.experiment)
        natural = natural_coordinates(prior, self)[rows]
        z = np.asarray(jax.vmap(prior.standard)(natural, experiment))
        current = np.asarray(1e-3 * self.current[rows], np.float32)
        everything = np.ones(current.shape, bool), np.ones(z.shape, bool)
        return Records.without_belief(current, everything[0], experiment, z, everything[1])

    def arrays(self, provenance: dict) -> dict[str, np.ndarray]:
        """Content of the file, with where it comes from as JSON text."""
        return {
            "i": self.current.astype(np.float32),
            "e": self.potential.astype(np.float32),
            "p": self.parameters.astype(np.float32),
            "task_id": self.task.astype(np.int32),
            "stage_id": self.stage.astype(np.int32),
            "task_names": np.array(self.task_names),
            "stage_names": np.array(self.stage_names),
            **{name: value.astype(np.float32) for name, value in self.settings.items()},
            "provenance": np.array(json.dumps(provenance, sort_keys=True)),
        }


def load_chunk(path: Path | str, n_samples: int, max_couples: int) -> Chunk:
    """Read a chunk; one by others may hold only the keys in `KEYS`.

    Records of another length are read at `n_samples` points of their own time axis. Couples are
    brought into the order of their E0, absent ones last.

    Args:
        path: Of the `.npz`.
        n_samples: N.
        max_couples: S.

    Returns:
        The chunk. Experiments with more than S couples are left out.

    Raises:
        ArtifactError: If the file is missing or damaged, lacks a key, or holds what is no data.
    """
    raw = load_arrays(path)
    missing = [key for key in KEYS if key not in raw]
    if missing:
        raise ArtifactError(f"{path}: lacks the keys {', '.join(missing)}")
    try:
        check_shapes(raw)
        check_contents(raw)
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}") from None
    n = len(raw["i"])
    settings = {name: raw.get(name, np.full(n, value)) for name, value in _SETTINGS.items()}
    parameters, fits = _order_couples(raw["p"], max_couples)
    if not fits.any():
        raise ArtifactError(f"{path}: every experiment has none or more than {max_couples} couples")
    twin = raw.get("aug_id", np.zeros(n, int)) > 0
    return Chunk(
        current=_at_samples(raw["i"], n_samples)[fits],
        potential=_at_samples(raw["e"], n_samples)[fits],
        parameters=parameters[fits],
        task=raw["task_id"][fits].astype(int),
        stage=raw["stage_id"][fits].astype(int),
        task_names=tuple(str(name) for name in raw["task_names"].ravel()),
        stage_names=tuple(str(name) for name in raw["stage_names"].ravel()),
        settings={name: value[fits] for name, value in settings.items()},
        group=np.cumsum(~twin)[fits],
        assumed=tuple(name for name in ASSUMED if name not in raw),
    )


def parameter_rows(prior: Prior, natural: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Rows `p` of a chunk: [ln D_ox, ln D_red, C_ox, C_red, E0, ln k0, alpha], mM and V.

    Args:
        prior: Of the model.
        natural: Natural coordinates, shape (n, P).
        present: Forms that are in the cell, shape (n, S, 2).
    """
    block = {name: np.array(natural[:, prior.block(name)]) for name in BLOCKS}
    block["D_ratio"] = block["D_ox"] + block["D_ratio"]
    for name, form in (("C_ox", 0), ("C_red", 1)):
        block[name] = np.where(present[:, :, form], np.exp(block[name]), 0.0)
    return np.concatenate([block[name] for name in BLOCKS], axis=1)


def natural_coordinates(prior: Prior, chunk: Chunk) -> np.ndarray:
    """Natural coordinates of the rows of a chunk; inverse of `parameter_rows`, shape (n, P).

    The record's parameters, which are not in a chunk, get their prior means.
    """
    blocks = chunk.parameters.reshape(len(chunk), len(BLOCKS), prior.max_couples).copy()
    d_ox, d_red, c_ox, c_red = range(4)
    blocks[:, d_red] -= blocks[:, d_ox]
    for form in (c_ox, c_red):
        present = blocks[:, form] > 0
        blocks[:, form] = np.log(np.where(present, blocks[:, form], 1.0))
    resistivity = np.log(np.asarray(chunk.experiment.spread) * chunk.settings["resistance"])
    c_dl = np.log(chunk.settings["capacitance"])
    record = np.array([parameter.location for parameter in prior.parameters[-len(RECORD) :]])
    rest = np.tile(record, (len(chunk), 1))
    flat = blocks.reshape(len(chunk), -1)
    return np.column_stack([flat, resistivity, c_dl, rest]).astype(np.float32)


def _at_samples(records: np.ndarray, n_samples: int) -> np.ndarray:
    n = records.shape[1]
    if n == n_samples:
        return records
    here, there = np.arange(1, n_samples + 1) / n_samples, np.arange(1, n + 1) / n
    return np.stack([np.interp(here, there, record) for record in records])


def _order_couples(parameters: np.ndarray, max_couples: int) -> tuple[np.ndarray, np.ndarray]:
    """Couples by E0 with the absent last, cut or widened to `max_couples`; rows that fit."""
    blocks = parameters.reshape(len(parameters), 7, -1)
    present = (blocks[:, 2] > 0) | (blocks[:, 3] > 0)
    order = np.argsort(np.where(present, blocks[:, 4], np.inf), axis=1, kind="stable")
    blocks = np.take_along_axis(blocks, order[:, None], axis=2)
    n_present = present.sum(1)
    room = max(0, max_couples - blocks.shape[2])
    blocks = np.pad(blocks, ((0, 0), (0, 0), (0, room)))[:, :, :max_couples]
    absent = np.arange(max_couples) >= n_present[:, None]
    blocks = np.where(absent[:, None], 0.0, blocks)
    fits = (n_present > 0) & (n_present <= max_couples)
    return blocks.reshape(len(parameters), -1), fits
