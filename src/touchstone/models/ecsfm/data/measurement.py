"""Measurements from disk: what a potentiostat wrote, and what the experimenter says about it."""

import math
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import yaml

from touchstone.io.artifacts import ArtifactError, atomic, files
from touchstone.models.ecsfm.data import beliefs
from touchstone.models.ecsfm.data.excitation import assert_resolved
from touchstone.models.ecsfm.data.metadata import read_meta
from touchstone.models.ecsfm.data.plausibility import check_current, current_bounds
from touchstone.models.ecsfm.data.sampling import to_record, unsettled
from touchstone.models.ecsfm.data.traces import Trace, describe, read_trace
from touchstone.models.ecsfm.physics.experiment import AREAS, SHAPES, SPREADS, Experiment, Records
from touchstone.models.ecsfm.physics.prior import Prior

_SAME_WINDOW = 0.1  # part of its width by which the windows of one system may differ
_NO_BELIEF = beliefs.Belief(0.0, math.inf)
_LONGEST_HOLD = 1.0  # in durations of the scan: the samples of a record are as many as ever


def records(path: Path | str, meta_path: Path | str) -> list[tuple[Path, list[Path]]]:
    """Files of a measurement: of each record, and of its metadata, what is of it alone last.

    In a folder, every file that is neither hidden nor YAML is a record, and a YAML of the name of
    a record is of that record alone.

    Raises:
        ArtifactError: If a folder holds no record, two of one name, or a YAML of none.
    """
    path, meta_path = Path(path), Path(meta_path)
    if not path.is_dir():
        return [(path, [meta_path])]
    own, found = {}, {}
    for file in files(path):
        if file.resolve() == meta_path.resolve():
            continue
        kind = own if file.suffix.lower() in (".yaml", ".yml") else found
        if file.stem in kind:
            raise ArtifactError(f"{file}: {kind[file.stem].name} has the same name")
        kind[file.stem] = file
    if not found:
        raise ArtifactError(f"{path}: holds no record")
    if lost := own.keys() - found.keys():
        raise ArtifactError(f"{own[min(lost)]}: there is no record of this name")
    return [
        (file, [meta_path, own[stem]] if stem in own else [meta_path])
        for stem, file in found.items()
    ]


def read(
    path: Path | str, meta_path: Path | str, prior: Prior, n_samples: int
) -> tuple[Records, list[str]]:
    """A measurement as records of one system, and what was read and assumed, in words.

    Args:
        path: File of a record, or a folder of records of one system over one window of potentials.
        meta_path: YAML that holds for all of them.
        prior: Of the model.
        n_samples: N.

    Raises:
        ArtifactError: If a file is missing or wrong, or the records are of different systems.
    """
    found, notes = [], []
    files = records(path, meta_path)
    for number, (record, meta_paths) in enumerate(files, 1):
        meta = read_meta(*meta_paths)
        trace = read_trace(record, meta)
        try:
            assert_resolved(trace.potential, n_samples)
        except ValueError as error:
            raise ArtifactError(f"{record}: {error}") from None
        try:
            found.append(to_records(trace, meta, prior, n_samples))
        except ValueError as error:
            raise ArtifactError(f"{' with '.join(map(str, meta_paths))}: {error}") from None
        if number > 1:  # what is believed of the couples counts once
            found[-1].trust[:, prior.shared] = 0.0
        try:
            _check_current(trace, meta, found[-1].experiment, prior)
        except ValueError as error:
            raise ArtifactError(f"{record}: {error}") from None
        which = f"record {number}, {record.name}: " if len(files) > 1 else ""
        own = [f"metadata from {path.name}, too" for path in meta_paths[1:]]
        notes += [which + note for note in (*trace.notes, *own, *_said(trace, meta, found[-1]))]
        window = np.sort(trace.potential)[[0, -1]]
        if number == 1:
            couples, first_window, first = meta["couples"], window, record.name
        elif meta["couples"] != couples:
            raise ArtifactError(
                f"{meta_paths[-1]}: couples: {first} has others, but the records of a folder have "
                "them in common"
            )
        elif np.abs(window - first_window).max() > _SAME_WINDOW * np.ptp(first_window):
            raise ArtifactError(
                f"{record}: its potentials are others than the {first_window[0]:.3g} to "
                f"{first_window[1]:.3g} V of {first}; infer it alone"
            )
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *found), notes


def describe_all(path: Path, meta_path: Path | None) -> list[str]:
    """What is understood of a record, or of each record of a folder, in words.

    Args:
        path: As in `read`.
        meta_path: As in `read`; None where there is none.

    Raises:
        ArtifactError: As `read` does, but not for what only metadata can tell.
    """
    told = []
    for record, meta_paths in records(path, meta_path or path):
        meta = read_meta(*meta_paths) if meta_path else _own_meta(meta_paths[1:])
        told += [f"{what}: {said}" for what, said in describe(record, meta)]
    return told


def _own_meta(paths: list[Path]) -> dict:
    """What the YAML of a record alone says, where there is none for all records."""
    return read_meta(*paths, whole=False) if paths else {}


def _check_current(trace: Trace, meta: dict, experiments: Experiment, prior: Prior) -> None:
    """Raise an error if the electrode of the one experiment cannot carry the current."""
    experiment = jax.tree.map(lambda array: array[0], experiments)
    bounds = current_bounds(trace.time, trace.potential, meta, experiment, prior)
    check_current(float(np.abs(trace.current).max()), bounds, trace.current_unit)


def _said(trace: Trace, meta: dict, record: Records) -> list[str]:
    """What is to be known of the time before the scan, and of samples that do not count."""
    hold, longest = meta.get("hold"), _LONGEST_HOLD * float(trace.time[-1])
    said = ["before the scan the solution is as in the bulk (say otherwise under hold)"]
    if hold is not None:
        said = [f"held at {hold['potential_V']:g} V for {hold['seconds']:g} s before the scan"]
        if hold["seconds"] > longest:
            said[0] += f", of which the last {longest:.3g} s are simulated"
    left_out = np.count_nonzero(~record.mask & (record.observed != 0))
    if left_out:
        said.append(
            f"{left_out} of {record.mask.size} samples do not count: after the start and the "
            "reversals of a scan the double layer settles, or no reading is near"
        )
    return said


def to_records(trace: Trace, meta: dict, prior: Prior, n_samples: int) -> Records:
    """A trace with its metadata as one record (leading axis of length one).

    Raises:
        ValueError: If the metadata does not describe an experiment of the prior.
    """
    couples = meta["couples"]
    if len(couples) > prior.max_couples:
        raise ValueError(f"couples: {len(couples)} given, at most {prior.max_couples} are modelled")
    shape, radius = _electrode(meta["electrode"])
    present = np.zeros((prior.max_couples, 2), bool)
    for k, couple in enumerate(couples):
        present[k] = couple["C_ox_mM"] != 0, couple["C_red_mM"] != 0
    given, believed = beliefs.stated(meta, SPREADS[shape] * radius)
    potential, current, mask, duration = _after_hold(trace, meta.get("hold"), n_samples)
    temperature = meta.get("temperature_C", 25.0) + 273.15
    potential, duration, radius, temperature = (
        np.asarray(value, np.float32) for value in (potential, duration, radius, temperature)
    )
    experiment = Experiment(potential, duration, radius, np.asarray(shape), temperature, present)
    mean, _ = prior.moments(experiment)
    is_given = np.isin(prior.names, list(given))
    natural = np.array([given.get(n, m) for n, m in zip(prior.names, mean, strict=True)])
    z = prior.standard(natural.astype(np.float32), experiment)
    known = is_given | ~np.asarray(prior.active(present))
    belief = np.array([believed.get(name, _NO_BELIEF).mean for name in prior.names], np.float32)
    trust = np.array([1 / believed.get(name, _NO_BELIEF).sd for name in prior.names], np.float32)
    observed = np.asarray(current, np.float32)
    record = Records(observed, mask, experiment, np.asarray(z), known, belief, trust)
    return jax.tree.map(lambda a: np.asarray(a)[None], record)


def _electrode(electrode: dict) -> tuple[int, float]:
    """Index of the shape, and the radius in cm, which may follow from the area."""
    shape = SHAPES.index(electrode.get("shape", "disc"))
    if "radius_mm" in electrode:
        return shape, 0.1 * electrode["radius_mm"]
    return shape, 0.1 * math.sqrt(electrode["area_mm2"] / (math.pi * AREAS[shape]))


def _after_hold(
    trace: Trace, hold: dict | None, n_samples: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """As `to_record`, after a time at one potential of which nothing was recorded."""
    scan = float(trace.time[-1])
    held = min(hold["seconds"], _LONGEST_HOLD * scan) if hold else 0.0
    n_held = round(n_samples * held / (held + scan))
    potential, current, mask, duration = to_record(trace, n_samples - n_held)
    mask &= ~unsettled(trace, n_samples - n_held)
    before = np.zeros(n_held)
    return (
        np.concatenate([before + (hold["potential_V"] if hold else 0.0), potential]),
        np.concatenate([before, current]),
        np.concatenate([before > 0, mask]),
        duration * n_samples / (n_samples - n_held),
    )


def write(
    trace_path: Path, meta_path: Path, current: np.ndarray, experiment: Experiment, truth: dict
) -> None:
    """Write a simulated record and its metadata, with what it was simulated with."""
    n = len(current)
    time = float(experiment.duration) * np.arange(1, n + 1) / n
    table = pd.DataFrame(
        {"time/s": time, "potential/V": experiment.potential, "current/uA": 1e6 * current}
    )
    with atomic(trace_path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write("# synthetic: simulated, not measured\n")
        table.to_csv(stream, index=False, float_format="%.9g")
    count = int(experiment.present.any(-1).sum())
    meta = {
        "synthetic": True,
        "cycle": "all",
        "electrode": {
            "radius_mm": 10 * float(experiment.radius),
            "shape": SHAPES[int(experiment.shape)],
        },
        "temperature_C": float(experiment.temperature) - 273.15,
        "couples": [
            {f"{name}_mM": truth[f"{name}_{k + 1}"] for name in ("C_ox", "C_red")}
            for k in range(count)
        ],
        "truth": truth,
    }
    with atomic(meta_path) as temporary:
        temporary.write_text(yaml.safe_dump(meta, sort_keys=False), encoding="utf-8")
