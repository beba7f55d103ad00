"""Time of the samples: of its column, or from the potential and the scan rate."""

import re

import numpy as np

from touchstone.models.ecsfm.data.columns import Columns
from touchstone.models.ecsfm.data.tables import Table

_SAME_RATE = 1e-3  # part by which the values of a column of the scan rate may differ
_LIKE_RATE = 1.5  # factor by which a scan rate may differ from that of a time without a unit
_STILL = 3  # readings at one potential that tell, without a time, that the potential is held
# "Scan Rate (V/s) = 0.1", as CH Instruments writes it above the table.
_STATED_RATE = re.compile(r"scan ?rate\s*[(\[]?(m?V)/s[)\]]?\s*[=:]\s*([\d.]+(?:e[+-]?\d+)?)", re.I)


def scan_rate(columns: Columns, table: Table, meta: dict) -> float | None:
    """Scan rate in V/s: of the metadata, of a column, or of the text above the table."""
    if "scan_rate_V_s" in meta:
        return meta["scan_rate_V_s"]
    stated = columns.values.get("scan rate", np.zeros(0))
    there = np.flatnonzero(np.isfinite(stated))
    if len(there):
        first = stated[there[0]]
        others = np.abs(stated[there] - first) > _SAME_RATE * abs(first)
        if others.any() and "time" not in columns.values:
            k = there[np.argmax(others)]
            place = columns.places[k]
            raise ValueError(
                f"the scan rate changes from {first:g} to {stated[k]:g} V/s at {place}; "
                "expected one rate a record: split the file there, or add a column time/s"
            )
        if first > 0:
            return float(first)
    header = _STATED_RATE.search(table.above)
    if header is None:
        return None
    rate = float(header[2]) * (1e-3 if header[1].startswith("m") else 1.0)
    return rate if rate > 0 else None


def sample_times(columns: Columns, rate: float | None) -> np.ndarray:
    """Time of the samples in s, shape (n,): of its column, else from potential and scan rate.

    Raises:
        ValueError: If there is neither, or the time cannot be in the unit that is assumed.
    """
    potential = columns.values["potential"]
    path = float(np.abs(np.diff(potential)).sum())
    if "time" in columns.values:
        time = columns.values["time"]
        if rate is not None and columns.assumed_unit:
            _check_assumed_unit(path / max(time[-1] - time[0], 1e-300), rate, columns)
        return time
    if rate is None:
        raise ValueError(
            "has no time; give scan_rate_V_s in the metadata, e.g. scan_rate_V_s: 0.1, or name the "
            "column under columns.time"
        )
    steps = np.abs(np.diff(potential))
    note = f"time from the potential at {rate:g} V/s"
    if (steps == 0).any():
        steps = _steps_of_repeats(steps, potential, columns.places)
        note += "; readings at one potential taken as one interval apart"
    columns.notes.append(note)
    return np.concatenate([[0.0], np.cumsum(steps)]) / rate


def _steps_of_repeats(steps: np.ndarray, potential: np.ndarray, places: list[str]) -> np.ndarray:
    """Steps of the potential (V) where some are 0: a vertex read twice, or a rounded potential."""
    still = np.flatnonzero(steps == 0)
    longest = max(map(len, np.split(still, np.flatnonzero(np.diff(still) > 1) + 1)))
    if longest >= _STILL and longest > 2 * len(still) / max(1, len(steps) - len(still)) + _STILL:
        raise ValueError(
            f"the potential stays at {potential[still[0]]:g} V over {longest + 1} readings from "
            f"{places[still[0]]} on, and without a time none can tell for how long; add a column "
            "time/s, or leave the readings out"
        )
    turns = np.sign(np.diff(potential, prepend=potential[0]))
    at_turns = all(turns[k] != turns[min(k + 2, len(turns) - 1)] for k in still)
    if at_turns:
        return np.where(steps == 0, np.median(steps[steps > 0]), steps)
    return np.full(len(steps), steps.sum() / len(steps))  # rounded: the samples are evenly apart


def _check_assumed_unit(read: float, stated: float, columns: Columns) -> None:
    if not 1 / _LIKE_RATE < read / stated < _LIKE_RATE:
        heading = columns.headings["time"]
        raise ValueError(
            f"the column {heading!r} states no unit, and in s it makes a scan rate of {read:.3g} "
            f"V/s where {stated:g} V/s is stated; state the unit, e.g. columns: "
            f"{{time: {{name: {heading!r}, unit: min}}}}"
        )
