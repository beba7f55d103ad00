"""Measurements from disk: what a potentiostat wrote, and what the experimenter says about it."""

import json
import math
import re
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import yaml

from touchstone.io.artifacts import ArtifactError, atomic, files
from touchstone.models.ecsfm.data import beliefs
from touchstone.models.ecsfm.physics.experiment import AREAS, SHAPES, SPREADS, Experiment, Records
from touchstone.models.ecsfm.physics.prior import Prior
from touchstone.models.ecsfm.physics.waveforms import find_jumps, is_sweep

_META_SCHEMA = Path(__file__).with_name("measurement.schema.yaml")
_SAME_WINDOW = 0.1  # part of its width by which the windows of one system may differ
_FEWEST = 24  # samples that a measurement must have
_COARSE = 64  # readings among which the turns of a scan are looked for
_CORNER = 1.5  # sampling intervals about a reversal within which readings are not averaged
_SETTLES, _ROUNDED = 0.09, 0.02  # parts of a sweep, after its start and before its reversal
_NO_BELIEF = beliefs.Belief(0.0, math.inf)
_LONGEST_HOLD = 1.0  # in durations of the scan: the samples of a record are as many as ever
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)
# A heading such as "Potential, V", "<I>/mA", "Time (s)" or "current_uA": a name, then a unit.
_HEADING = re.compile(r"\s*(?P<name>.+?)\s*[/,(\[_ ]\s*(?P<unit>[^\s/,()\[\]_]+(/s)?)\s*[)\]]?\s*")
_REFERENCE = re.compile(r"\s+vs\b[^()\[\]]*", re.IGNORECASE)  # "E (V vs. Ag/AgCl)" is in V
_NAMES = {
    "time": ("time", "t", "elapsed time"),
    "potential": ("ewe", "vf", "potential", "e", "voltage", "working electrode potential"),
    "current": ("<i>", "i", "im", "i1", "current", "working electrode current"),
    "scan rate": ("scan rate", "column 3"),
}
_UNITS = {
    "time": {"s": 1.0, "sec": 1.0, "ms": 1e-3, "min": 60.0},
    "potential": {"V": 1.0, "mV": 1e-3},
    "current": {"A": 1.0, "mA": 1e-3, "µA": 1e-6, "μA": 1e-6, "uA": 1e-6, "nA": 1e-9, "pA": 1e-12},
    "scan rate": {"V/s": 1.0, "mV/s": 1e-3},
}


@dataclass(frozen=True)
class Trace:
    """A record in SI units, IUPAC sign (oxidation positive).

    Attributes:
        time: s from the start of the experiment to each sample, ascending, shape (n,).
        potential: V against the reference electrode, shape (n,).
        current: A, shape (n,).
        notes: What was read and what was assumed, in words.
    """

    time: np.ndarray
    potential: np.ndarray
    current: np.ndarray
    notes: tuple[str, ...]


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
            found.append(to_records(trace, meta, prior, n_samples))
        except ValueError as error:
            raise ArtifactError(f"{' with '.join(map(str, meta_paths))}: {error}") from None
        if number > 1:  # what is believed of the couples counts once
            found[-1].trust[:, prior.shared] = 0.0
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


def read_meta(*paths: Path | str) -> dict:
    """Metadata of a measurement; `measurement.schema.yaml` says what the YAML may hold.

    Args:
        paths: Of the YAML; where there are several, the last has the last word on a key.

    Raises:
        ArtifactError: If a file is missing or says something that the schema does not allow.
    """
    meta = {}
    for path in paths:
        try:
            said = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            json.dumps(said, allow_nan=False, default=str)
        except FileNotFoundError:
            raise ArtifactError(f"{path}: no such file") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ArtifactError(f"{path}: not valid YAML ({error})") from None
        except ValueError:
            raise ArtifactError(f"{path}: holds a number that is not finite") from None
        if not isinstance(said, dict):
            raise ArtifactError(f"{path}: metadata: {said!r} is not of type 'object'")
        meta |= said
    import jsonschema  # here, since it takes a second to import

    try:
        jsonschema.validate(meta, yaml.safe_load(_META_SCHEMA.read_text(encoding="utf-8")))
    except jsonschema.ValidationError as error:
        where = ".".join(str(part) for part in error.absolute_path) or "metadata"
        of = " with ".join(map(str, paths))
        raise ArtifactError(f"{of}: {where}: {error.message}") from None
    return meta


def read_trace(path: Path | str, meta: dict) -> Trace:
    """Read a record: CSV or other text, Gamry .DTA, EC-Lab .mpt or .mpr, CH Instruments .txt.

    The n-th sample is the current at the end of the n-th interval: a record whose time starts at
    zero, or has no time, is taken to have started one interval before its first sample.

    Args:
        path: Of the file.
        meta: As from `read_meta`: columns, scan rate, sign and reference electrode count here.

    Raises:
        ArtifactError: If the file cannot be read, or what is in it is no experiment.
    """
    path = Path(path)
    table = _read_table(path)
    columns, notes = {}, []
    for quantity in _NAMES:
        wanted = meta.get("columns", {}).get(quantity)
        heading, factor = _find_column(table, quantity, wanted, path)
        if heading is not None:
            values = pd.to_numeric(table[heading], errors="coerce").to_numpy(float)
            columns[quantity] = factor * values
            notes.append(f"{quantity} from the column {heading!r}")
    for quantity in ("potential", "current"):
        if quantity not in columns:
            raise ArtifactError(
                f"{path}: no column is recognised as the {quantity} among "
                f"{', '.join(map(repr, table.columns))}; name it under columns.{quantity} in the "
                f"metadata, with a unit of {', '.join(_UNITS[quantity])} in its heading"
            )
    potential, current = columns["potential"], columns["current"]
    if meta.get("current_sign") == "reduction_positive":
        current = -current
        notes.append("sign of the current turned, so that oxidation is positive")
    if "reference" in meta:
        notes.append(f"potentials against {meta['reference']}")
    if "time" in columns:
        time = columns["time"]
    else:
        stated = columns.get("scan rate", np.full(1, np.nan))[0]
        rate = meta.get("scan_rate_V_s", None if np.isnan(stated) else stated)
        if rate is None:
            raise ArtifactError(f"{path}: has no time; give scan_rate_V_s in the metadata")
        time = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(potential)))]) / rate
        notes.append(f"time from the potential at {rate:g} V/s")
    _check(time, potential, current, path)
    time = time - time[0] + np.median(np.diff(time))
    return Trace(time, potential, current, tuple(notes))


def _check(time: np.ndarray, potential: np.ndarray, current: np.ndarray, path: Path) -> None:
    """Raise an error that names what keeps a record from being an experiment."""
    for name, values in (("time", time), ("potential", potential), ("current", current)):
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise ArtifactError(f"{path}: {name} of sample {bad[0] + 1} is not a finite number")
    if len(time) < _FEWEST:
        raise ArtifactError(f"{path}: {len(time)} samples, at least {_FEWEST} are needed")
    back = np.flatnonzero(np.diff(time) <= 0)
    if len(back):
        raise ArtifactError(f"{path}: time does not increase after sample {back[0] + 1}")
    for name, values in (("potential", potential), ("current", current)):
        if np.ptp(values) == 0:
            raise ArtifactError(f"{path}: the {name} is the same throughout")


def _read_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file")
    try:
        if path.suffix.lower() == ".dta":
            return _read_gamry(path)
        if path.suffix.lower() == ".mpr":
            return _read_ec_lab_binary(path)
        return _read_text(path)
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error


def _read_gamry(path: Path) -> pd.DataFrame:
    """All cycles of a Gamry file, one after another."""
    import gamry_parser

    curves = gamry_parser.read(path).curves
    units = {"T": "time/s", "Vf": "Vf/V", "Im": "Im/A"}
    return pd.DataFrame(
        {
            heading: np.concatenate([curve[name].to_numpy() for curve in curves])
            for name, heading in units.items()
        }
    )


def _read_ec_lab_binary(path: Path) -> pd.DataFrame:
    try:
        from galvani import BioLogic  # ty: ignore[import-not-found] an extra
    except ImportError:
        raise ArtifactError(
            f"{path}: a binary .mpr needs the extra 'biologic' (uv sync --extra biologic); "
            "EC-Lab also exports text (.mpt)"
        ) from None
    return pd.DataFrame(BioLogic.MPRfile(str(path)).data)


def _read_text(path: Path) -> pd.DataFrame:
    """A table in a text file, below whatever the instrument wrote before it."""
    content = path.read_bytes()
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        lines = content.decode("latin-1").splitlines()
    for separator in ("\t", ";", ",", None):
        first = next((n for n, line in enumerate(lines) if _is_row(line, separator)), None)
        if first is not None:
            break
    else:
        raise ArtifactError(f"{path}: holds no table of numbers")
    heading = next((n for n in range(first - 1, -1, -1) if lines[n].strip()), None)
    if heading is None:
        raise ArtifactError(f"{path}: the columns have no headings")
    body = [line for line in lines[first:] if line.strip()]
    decimal = "," if separator != "," and any("," in line for line in body) else "."
    return pd.read_csv(
        StringIO("\n".join([lines[heading], *body])),
        sep=separator or r"\s+",
        decimal=decimal,
        skipinitialspace=True,
        index_col=False,
    )


def _is_row(line: str, separator: str | None) -> bool:
    """Whether a line holds at least two numbers and nothing but numbers and blanks."""
    fields = [field.strip() for field in line.rstrip("\t ").split(separator)]
    filled = [field for field in fields if field]
    return len(filled) >= 2 and all(_NUMBER.fullmatch(field) for field in filled)


def _find_column(table: pd.DataFrame, quantity: str, wanted: str | None, path: Path):
    """Heading of the column of a quantity and the factor to SI; (None, 1) if there is none."""
    if wanted is not None and wanted not in table.columns:
        raise ArtifactError(
            f"{path}: columns.{quantity} is {wanted!r}, which is none of "
            f"{', '.join(map(repr, table.columns))}"
        )
    for name in _NAMES[quantity]:
        for heading in [wanted] if wanted else table.columns:
            parts = _HEADING.fullmatch(_REFERENCE.sub("", str(heading)))
            if parts and (wanted or parts["name"].strip(" <>").lower() == name.strip("<>")):
                factor = _UNITS[quantity].get(parts["unit"])
                if factor is not None:
                    return heading, factor
    if wanted is not None:
        raise ArtifactError(
            f"{path}: the heading {wanted!r} states none of the units {', '.join(_UNITS[quantity])}"
        )
    return None, 1.0


def to_record(trace: Trace, n_samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """A trace at the ends of N equal intervals.

    Each sample is the mean of the readings within half an interval of it, moved along the slope
    there from their mean time to its own, for current and potential alike; it is interpolated if
    the potential jumps, at a reversal of the scan, or if the readings are too few.

    Args:
        trace: The trace.
        n_samples: N.

    Returns:
        Potential (V), current (A) and whether there was a reading near, shape (N,) each; and the
        duration, s.
    """
    duration = float(trace.time[-1])
    interval = duration / n_samples
    times = interval * np.arange(1, n_samples + 1)
    first = np.searchsorted(trace.time, times - interval / 2)
    last = np.searchsorted(trace.time, times + interval / 2)
    count = last - first
    after = np.clip(np.searchsorted(trace.time, times), 1, len(trace.time) - 1)
    nearest = np.minimum(*(np.abs(trace.time[after - back] - times) for back in (0, 1)))
    mask = nearest <= max(interval / 2, np.median(np.diff(trace.time)))
    averaged = (count >= 2) & (not find_jumps(trace.potential))
    start, end = (np.clip(times + h * interval, trace.time[0], duration) for h in (-0.5, 0.5))
    width = np.where(averaged, end - start, 1.0)

    def mean(values):
        total = np.concatenate([[0.0], np.cumsum(values)])
        return (total[last] - total[first]) / np.maximum(count, 1)

    turns = trace.time[_turns(trace)]
    averaged &= ~(np.abs(times[:, None] - turns) < _CORNER * interval).any(1)
    out = []
    for values in (trace.potential, trace.current):
        rise = np.interp(end, trace.time, values) - np.interp(start, trace.time, values)
        moved = mean(values) + rise / width * (times - mean(trace.time))
        out.append(np.where(averaged, moved, np.interp(times, trace.time, values)))
    return *out, mask, duration


def _turns(trace: Trace) -> np.ndarray:
    """Readings at which the scan of a voltammogram is reversed; none of any other record."""
    coarse = trace.potential[np.linspace(0, len(trace.potential) - 1, _COARSE).astype(int)]
    if not is_sweep(coarse):
        return np.zeros(0, int)
    low, high = coarse.min(), coarse.max()
    outer = np.abs(trace.potential - (low + high) / 2) > 0.25 * (high - low)
    parts = np.split(np.arange(len(outer)), np.flatnonzero(np.diff(outer)) + 1)
    extremes = [
        part[np.argmax(np.abs(trace.potential[part] - (low + high) / 2))]
        for part in parts
        if outer[part[0]]
    ]
    return np.array([k for k in extremes if 0 < k < len(outer) - 1], int)


def _unsettled(trace: Trace, n_samples: int) -> np.ndarray:
    """Samples of a voltammogram that do not count, shape (N,): the double layer settles.

    No electrode charges as quite one capacitor does, and there is little else to be seen after
    the start of a sweep and at its end.
    """
    turns, duration = _turns(trace), trace.time[-1]
    if not len(turns):
        return np.zeros(n_samples, bool)
    times = duration * np.arange(1, n_samples + 1) / n_samples
    ends = np.concatenate([[0.0], trace.time[turns], [duration]])
    length = np.diff(ends)[:, None]
    begun, left = times - ends[:-1, None], ends[1:, None] - times
    last = np.arange(len(length))[:, None] == len(length) - 1
    early = (begun > -1e-9 * length) & (begun <= _SETTLES * length)
    late = (left >= 0) & (left < _ROUNDED * length) & ~last
    return (early | late).any(0)


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
    mask &= ~_unsettled(trace, n_samples - n_held)
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
