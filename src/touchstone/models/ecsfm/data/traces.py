"""From the file of a record to a trace in SI units, with what was read and assumed, in words."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from touchstone.io.artifacts import ArtifactError
from touchstone.models.ecsfm.data.columns import Columns, find_columns
from touchstone.models.ecsfm.data.cycles import Cycle, find_cycles, read_cycles, sweep_turns
from touchstone.models.ecsfm.data.files import read_table
from touchstone.models.ecsfm.data.plausibility import check_time, check_values
from touchstone.models.ecsfm.data.times import sample_times, scan_rate


@dataclass(frozen=True)
class Trace:
    """A record in SI units, IUPAC sign (oxidation positive).

    Attributes:
        time: s from the start of the experiment to each sample, ascending, shape (n,).
        potential: V against the reference electrode, shape (n,).
        current: A, shape (n,).
        notes: What was read and what was assumed, in words.
        current_unit: In which the current was read, as in "uA".
    """

    time: np.ndarray
    potential: np.ndarray
    current: np.ndarray
    notes: tuple[str, ...]
    current_unit: str = "A"


def read_trace(path: Path | str, meta: dict) -> Trace:
    """Read a record: text (CSV and such), a workbook, Gamry .DTA, EC-Lab .mpt or .mpr.

    The n-th sample is the current at the end of the n-th interval: a record whose time starts at
    zero, or has no time, is taken to have started one interval before its first sample.

    Args:
        path: Of the file.
        meta: As from `read_meta`: columns, sheet, curve, cycle, scan rate, sign and reference
            electrode count here.

    Raises:
        ArtifactError: If the file cannot be read, or what is in it is no experiment.
    """
    with _named(path):
        columns, cycles, rate = _read_columns(Path(path), meta)
        return _to_trace(columns, cycles, rate, meta)


def describe(path: Path | str, meta: dict | None = None) -> list[tuple[str, str]]:
    """What is understood of the file of a record, without metadata as far as it goes.

    Args:
        path: Of the file.
        meta: As from `read_meta`, or only some of its keys; None for none.

    Returns:
        Rows of a table: what, and what was understood.

    Raises:
        ArtifactError: As `read_trace` does, but not for a time that is missing.
    """
    meta = meta or {}
    with _named(path):
        columns, cycles, rate = _read_columns(Path(path), meta)
        if "time" in columns.values or rate is not None:
            trace = _to_trace(columns, cycles, rate, meta)
        else:
            part = _of_cycle(columns, cycles, meta.get("cycle", "last"))
            check_values(part.values, part.headings)
            note = "no time in the file: state scan_rate_V_s, e.g. scan_rate_V_s: 0.1"
            values = part.values["potential"], part.values["current"]
            trace = Trace(np.zeros(0), *values, (*part.notes, note))
    return [("file", Path(path).name), *_column_rows(columns), *_trace_rows(trace, cycles)]


@contextmanager
def _named(path: Path | str) -> Generator[None]:
    """Sentences about a file begin with its path."""
    try:
        yield
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}") from None


def _to_trace(columns: Columns, cycles: list[Cycle], rate: float | None, meta: dict) -> Trace:
    """The trace of the cycle that is meant.

    Raises:
        ValueError: If it is no experiment.
    """
    columns = _of_cycle(columns, cycles, meta.get("cycle", "last"))
    check_values(columns.values, columns.headings)
    time = sample_times(columns, rate)
    check_time(time, columns.places)
    potential, current = columns.values["potential"], columns.values["current"]
    notes = columns.notes
    if meta.get("current_sign") == "reduction_positive":
        current = -current
        notes.append("sign of the current turned, so that oxidation is positive")
    if "reference" in meta:
        notes.append(f"potentials against {meta['reference']}")
    time = time - time[0] + np.median(np.diff(time))
    return Trace(time, potential, current, tuple(notes), columns.units["current"])


def _column_rows(columns: Columns) -> list[tuple[str, str]]:
    """Which column holds what, in which unit."""
    rows = []
    for quantity, heading in columns.headings.items():
        unit = columns.units[quantity].replace("u", "µ")
        assumed = " (assumed)" if quantity == "time" and columns.assumed_unit else ""
        said = f"{heading!r} in {unit}{assumed}" if unit else repr(heading)
        rows.append((f"column of the {quantity}", said))
    return rows


def _trace_rows(trace: Trace, cycles: list[Cycle]) -> list[tuple[str, str]]:
    """What a record shows; its time may be empty where it is unknown."""
    time, potential, current = trace.time, trace.potential, trace.current
    duration = rate = "unknown"
    if len(time):
        duration, rate = f"{time[-1]:.6g} s", "no sweep"
        if sweep_turns(potential, time):
            path = np.abs(np.diff(potential)).sum()
            rate = f"{path / (time[-1] - time[0]):.4g} V/s"
    complete = sum(cycle.complete for cycle in cycles)
    return [
        ("samples", str(len(potential))),
        ("duration", duration),
        ("scan rate", rate),
        ("window", f"{potential.min():.4g} to {potential.max():.4g} V"),
        ("start and end", f"{potential[0]:.4g} and {potential[-1]:.4g} V"),
        ("current", f"{current.min():.4g} to {current.max():.4g} A"),
        ("cycles", f"{len(cycles)}, of which {complete} complete" if cycles else "none found"),
        *(("note", note) for note in trace.notes),
    ]


def _read_columns(path: Path, meta: dict) -> tuple[Columns, list[Cycle], float | None]:
    """Columns of a file, their cycles, and the scan rate (V/s) where it is stated.

    Raises:
        ValueError: If the file cannot be read, or a value is not finite.
    """
    if not path.is_file():
        raise ValueError("no such file")
    try:
        table = read_table(path, meta.get("sheet"))
    except ValueError as error:
        if type(error) is ValueError:  # a sentence of the reader, not the bare error of a library
            raise
        raise ValueError(f"cannot be read ({type(error).__name__}: {error})") from None
    except Exception as error:  # a damaged file can fail anywhere in the libraries that read it
        raise ValueError(f"cannot be read ({type(error).__name__}: {error})") from None
    columns = find_columns(table, meta)
    _assert_finite(columns)
    return columns, _cycles(columns), scan_rate(columns, table, meta)


def _assert_finite(columns: Columns) -> None:
    for quantity in ("time", "potential", "current"):
        bad = np.flatnonzero(~np.isfinite(columns.values.get(quantity, np.zeros(1))))
        if len(bad):
            k = int(bad[0])
            cell = columns.cells[quantity][k] if quantity in columns.cells else "no number"
            raise ValueError(
                f"{quantity} of sample {k + 1} is not a finite number: {columns.places[k]}, column "
                f"{columns.headings[quantity]!r}, holds {cell or 'nothing'!r}; expected e.g. 0.25"
            )


def _cycles(columns: Columns) -> list[Cycle]:
    """Cycles by their column, or by the potential; none if there is no voltammogram."""
    potential = columns.values["potential"]
    if "cycle" in columns.values:
        numbered = read_cycles(columns.values["cycle"], potential)
        if len(numbered) > 1:
            return numbered
    clock = columns.values.get("time", np.zeros(1))
    if len(clock) < len(potential) or (np.diff(clock) <= 0).any():
        clock = np.arange(len(potential), dtype=float)
    return find_cycles(potential, clock)


def _of_cycle(columns: Columns, cycles: list[Cycle], wanted: int | str) -> Columns:
    """The columns within the cycle that is meant; `last` is the last of several complete ones."""
    complete = [cycle for cycle in cycles if cycle.complete]
    if wanted == "all":
        note = f"all {len(cycles)} cycles as one record" if len(cycles) > 1 else None
        return _part(columns, slice(None), note)
    if wanted == "last":
        if len(complete) < 2:
            return columns
        chosen = complete[-1]
        why = f", the last complete one of {len(cycles)} (cycle: all reads them as one record)"
    else:
        labels = [cycle.label for cycle in cycles]
        if wanted not in labels:
            raise ValueError(f"cycle is {wanted}, expected one of {labels or 'none'}, or all")
        chosen, why = cycles[labels.index(wanted)], f" of {len(cycles)}"
    return _part(columns, slice(chosen.start, chosen.stop), f"cycle {chosen.label}{why}")


def _part(columns: Columns, rows: slice, note: str | None) -> Columns:
    return replace(
        columns,
        values={quantity: values[rows] for quantity, values in columns.values.items()},
        cells={quantity: cells[rows] for quantity, cells in columns.cells.items()},
        places=columns.places[rows],
        notes=[*columns.notes, *([note] if note else [])],
    )
