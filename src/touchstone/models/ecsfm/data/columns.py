"""Columns of an electrochemical table: which hold what, and which belong to one curve."""

import re
from dataclasses import dataclass, field

import numpy as np

from touchstone.models.ecsfm.data.headings import (
    NAMES,
    UNITS,
    Heading,
    read_headings,
    unit_symbol,
)
from touchstone.models.ecsfm.data.numerals import is_clock
from touchstone.models.ecsfm.data.tables import Table

_SAME = 1e-3  # part of the largest value by which a current in two units may differ


@dataclass
class Columns:
    """Quantities of one curve.

    Attributes:
        values: SI values by quantity, shape (n,) each; a quantity that is missing is not there.
        places: Where each row stands in the file, n.
        headings: Heading by quantity.
        units: Unit by quantity, as read.
        notes: What was read and assumed, in words.
        cells: Text of the cells by quantity, where the file is text.
        assumed_unit: Whether the unit of the time is an assumption.
    """

    values: dict[str, np.ndarray]
    places: list[str]
    headings: dict[str, str]
    units: dict[str, str]
    notes: list[str]
    cells: dict[str, list] = field(default_factory=dict)
    assumed_unit: bool = False


def find_columns(table: Table, meta: dict) -> Columns:
    """The columns of the curve that is meant.

    Args:
        table: The table.
        meta: `columns` and `curve` count here.

    Raises:
        ValueError: If the potential or the current is not there, or there are several.
    """
    headings = read_headings(table)
    stated = {name: _named(headings, name, spec) for name, spec in meta.get("columns", {}).items()}
    found = {q: stated.get(q) or _candidates(headings, q, table) for q in NAMES}
    for quantity in ("potential", "current"):
        if not found[quantity]:
            raise ValueError(_not_found(headings, quantity))
    curve, note = _choose_curve(found, headings, meta.get("curve"))
    out = Columns({}, list(table.places), {}, {}, [*table.notes, *note])
    named = "current" in stated
    for quantity, places in found.items():
        if places:
            if quantity != "current" and len(places) != len(found["current"]):
                places = _distinct(places, headings, quantity, table)
            column = _of_curve(places, found["current"], curve, quantity, headings, named)
            _take(out, table, headings[column], column, quantity, stated)
    _drop_blank_rows(out)
    return out


def _named(headings: list[Heading], quantity: str, spec: str | dict) -> list[int]:
    """Columns that the metadata name for a quantity, with their units."""
    name, unit = (spec, None) if isinstance(spec, str) else (spec["name"], spec.get("unit"))
    places = [k for k, h in enumerate(headings) if h.text == name]
    places = places or [k for k, h in enumerate(headings) if h.text.lower() == name.lower()]
    if not places:
        listed = ", ".join(repr(h.text) for h in headings if h.text)
        raise ValueError(f"columns.{quantity} is {name!r}, which is none of {listed}")
    units = UNITS[quantity]
    for k in places:
        symbol = unit_symbol(unit) if unit else headings[k].unit
        if symbol not in units:
            raise ValueError(
                f"the heading {name!r} states none of the units {', '.join(units)}; state it, "
                f"e.g. columns: {{{quantity}: {{name: {name!r}, unit: {next(iter(units))}}}}}"
            )
        headings[k] = headings[k]._replace(unit=symbol)
    return places


def _candidates(headings: list[Heading], quantity: str, table: Table) -> list[int]:
    """Columns that may be a quantity: of the preferred name, each but once."""
    needs_unit = quantity in ("potential", "current", "scan rate")
    places = [
        k for k, h in enumerate(headings) if h.quantity == quantity and (h.unit or not needs_unit)
    ]
    if quantity != "current" and places:
        best = min(headings[k].rank for k in places)
        places = [k for k in places if headings[k].rank == best]
    averaged = [k for k in places if "<" in headings[k].text]
    places = averaged or places  # EC-Lab: <I> is the mean over the interval, I its last reading
    return _distinct(places, headings, quantity, table) if quantity == "current" else places


def _distinct(places: list[int], headings: list[Heading], quantity: str, table: Table) -> list[int]:
    """Columns but for those that hold what another does, be it in another unit."""
    kept = []
    for k in places:
        values = _si(table, k, headings[k], quantity)
        for j in kept:
            rounded = _SAME if headings[j].unit != headings[k].unit else 0.0
            other = _si(table, j, headings[j], quantity)
            atol = rounded * np.abs(np.nan_to_num(other)).max()
            if np.allclose(values, other, rtol=0, atol=atol, equal_nan=True):
                break
        else:
            kept.append(k)
    return kept


def _si(table: Table, column: int, heading: Heading, quantity: str) -> np.ndarray:
    """Values of a column in SI units; clock times are in s whatever the heading says."""
    cells = table.columns[column]
    if quantity == "time" and not isinstance(cells, np.ndarray) and is_clock(cells):
        return table.numbers(column)
    factor = UNITS.get(quantity, {}).get(heading.unit or "", 1.0)
    try:
        return factor * table.numbers(column)
    except ValueError as error:
        raise ValueError(f"column {heading.text!r}: {error}") from None


def _not_found(headings: list[Heading], quantity: str) -> str:
    listed = ", ".join(repr(h.text) for h in headings if h.text)
    unit = next(iter(UNITS[quantity]))
    bare = next((h.text for h in headings if h.quantity == quantity), None)
    name = bare or f"my {quantity}"
    lacks = f" ({bare!r} states no unit)" if bare else ""
    return (
        f"no column is recognised as the {quantity} among {listed}{lacks}; name it under "
        f"columns.{quantity} in the metadata, with a unit of {', '.join(UNITS[quantity])}, "
        f"e.g. columns: {{{quantity}: {{name: {name!r}, unit: {unit}}}}}"
    )


def _choose_curve(
    found: dict[str, list[int]], headings: list[Heading], wanted: int | str | None
) -> tuple[int, list[str]]:
    """Which of the current columns is meant (from 0), and a note on it."""
    currents = found["current"]
    if len(currents) == 1 and wanted is None:
        return 0, []
    if wanted is None and _are_electrodes(currents, found["potential"], headings):
        others = ", ".join(repr(headings[k].text) for k in currents[1:])
        return 0, [f"current of the first working electrode; {others} left aside (curve: 2)"]
    labels = [headings[k].curve or headings[k].text for k in currents]
    if wanted is None:
        listed = ", ".join(f"{k} ({label!r})" for k, label in enumerate(labels, 1))
        raise ValueError(
            f"holds {len(currents)} columns of the current: {listed}; say which in the metadata, "
            f"e.g. curve: 1, or columns: {{current: {headings[currents[0]].text!r}}}"
        )
    matches = [k for k, label in enumerate(labels, 1) if wanted in (k, label)]
    if len(matches) != 1:
        listed = ", ".join(f"{k} ({label!r})" for k, label in enumerate(labels, 1))
        raise ValueError(f"curve is {wanted!r}, expected one of {listed}, e.g. curve: 1")
    return matches[0] - 1, [f"curve {matches[0]} of {len(currents)}, {labels[matches[0] - 1]!r}"]


def _are_electrodes(currents: list[int], potentials: list[int], headings: list[Heading]) -> bool:
    """Whether currents are of several working electrodes, as in "E/V, i1/A, i2/A"."""
    names = [re.match(r"i\d\b", headings[k].text, re.IGNORECASE) for k in currents]
    return len(potentials) == 1 and all(names) and headings[currents[0]].number == 1


def _of_curve(
    places: list[int],
    currents: list[int],
    curve: int,
    quantity: str,
    headings: list[Heading],
    named: bool,
) -> int:
    """The column of a quantity that belongs to a curve; of a named current, the one before it."""
    if quantity == "current" or len(places) == len(currents):
        return places[curve]
    before = [k for k in places if k < currents[curve]]
    if len(places) == 1 or (named and before):
        return places[0] if len(places) == 1 else before[-1]
    listed = ", ".join(f"{headings[k].text!r} (column {k + 1})" for k in places)
    raise ValueError(
        f"holds {len(places)} columns of the {quantity}: {listed}; name one in the metadata, "
        f"e.g. columns: {{{quantity}: {headings[places[0]].text!r}}}"
    )


def _take(
    out: Columns, table: Table, heading: Heading, column: int, quantity: str, stated: dict
) -> None:
    """Add a column to those that were found, with a note on what was assumed."""
    cells = table.columns[column]
    clock = quantity == "time" and not isinstance(cells, np.ndarray) and is_clock(cells)
    out.values[quantity] = _si(table, column, heading, quantity)
    out.headings[quantity] = heading.text
    out.units[quantity] = (
        "h:min:s" if clock else heading.unit or ("s" if quantity == "time" else "")
    )
    if not isinstance(cells, np.ndarray):
        out.cells[quantity] = list(cells)
    if quantity == "cycle":
        return
    if quantity == "time" and not heading.unit and not clock:
        out.assumed_unit = True
        out.notes.append(f"time from the column {heading.text!r}, assumed to be in s")
    else:
        unit = f", in {out.units[quantity]}" if quantity in stated or clock else ""
        out.notes.append(f"{quantity} from the column {heading.text!r}{unit}")


def _drop_blank_rows(columns: Columns) -> None:
    """Leave out the rows below the end of a curve that is shorter than the table."""
    filled = [
        np.array([bool(cell) for cell in columns.cells[q]])
        if q in columns.cells
        else np.isfinite(columns.values[q])
        for q in ("potential", "current")
    ]
    there = np.flatnonzero(filled[0] | filled[1])
    stop = there[-1] + 1 if len(there) else 0
    columns.values = {q: values[:stop] for q, values in columns.values.items()}
    columns.cells = {q: cells[:stop] for q, cells in columns.cells.items()}
    columns.places = columns.places[:stop]
