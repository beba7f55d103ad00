"""Headings of an electrochemical table: names and units in their usual spellings."""

import re
from typing import NamedTuple

from touchstone.models.ecsfm.data.tables import Table

# Names of headings in the order in which they are preferred, without brackets and in lower case.
NAMES = {
    "time": ("time", "t", "elapsed time", "corrected time", "zeit"),
    "potential": (
        *("ewe", "vf", "potential", "e", "voltage", "working electrode potential"),
        *("we(1).potential", "we potential", "potential applied", "applied potential", "u"),
    ),
    "current": (
        *("i", "im", "current", "working electrode current", "we(1).current", "we current"),
    ),
    "scan rate": ("scan rate", "scanrate", "sweep rate", "column 3"),
    "cycle": ("cycle number", "cycle", "cycle no", "cycle index", "scan", "scan number"),
}
UNITS = {
    "time": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0, "h": 3600.0},
    "potential": {"V": 1.0, "mV": 1e-3, "uV": 1e-6},
    "current": {"A": 1.0, "mA": 1e-3, "uA": 1e-6, "nA": 1e-9, "pA": 1e-12, "fA": 1e-15},
    "scan rate": {"V/s": 1.0, "mV/s": 1e-3},
}
_WORDS = {
    **{"s": ("sec", "second"), "ms": ("msec", "millisecond")},
    **{"min": ("min", "minute"), "h": ("hr", "hour")},
    **{"V": ("volt",), "mV": ("millivolt",), "V/s": ("v/sec",), "mV/s": ("mv/sec",)},
    **{"A": ("amp", "ampere"), "mA": ("milliamp", "milliampere")},
    **{"uA": ("microa", "microamp", "microampere"), "nA": ("nanoamp", "nanoampere")},
}
_SPELLINGS = {
    f"{w}{end}": unit for unit, words in _WORDS.items() for w in words for end in ("", "s")
}
_SYMBOLS = {symbol.lower(): symbol for units in UNITS.values() for symbol in units}
# A heading such as "Potential, V", "<I>/mA", "Time (s)" or "current_uA": a name, then a unit.
_HEADING = re.compile(
    r"\s*(?P<name>.*?)\s*(?:[/,:;(\[{_|=-]|\bin\b|\s)\s*[(\[{]?"
    r"(?P<unit>m?V\s?/\s?s(?:ec)?|[^\s/,()\[\]{}_|:;=]+)\s*[)\]}]?\s*"
)
# "E (V vs. Ag/AgCl)" is in V, and so is "E vs. Ag/AgCl / V".
_REFERENCE = re.compile(
    r"[\s_]*\(\s*vs\b[^()]*\)"
    r"|[\s_]+vs[\s_.]+.*?(?=\s*[\])\[(]|\s*,\s*m?V\b|\s*/\s*m?V\s*$|$)",
    re.IGNORECASE,
)
_CLOCK = re.compile(r"[\s_]*[(\[]?\bh+:m+:s+(\.\w+)?\b[)\]]?", re.IGNORECASE)
_REMARK = re.compile(r"\s*\([^()]*\)$")  # such as "(sat. KCl)" after a reference
_NUMBERED = re.compile(r"(?P<name>.*?[^\d\s_.#-])[\s_.#-]*(?P<number>\d+)")


class Heading(NamedTuple):
    """A heading, understood.

    Attributes:
        text: As it stands in the file.
        quantity: A key of `NAMES`, or "".
        rank: Place of the name among those of the quantity.
        unit: Symbol in `UNITS`; "" where none is stated, None where it is another.
        number: Of the electrode or the curve, such as 2 in "i2/A"; 0 if none is stated.
        curve: What stands above the heading, such as the name of a curve.
    """

    text: str
    quantity: str
    rank: int
    unit: str | None
    number: int = 0
    curve: str = ""


def read_headings(table: Table) -> list[Heading]:
    """Headings of a table, from the rows above it: names, units, and the names of curves."""
    first, *others = table.head
    curves = None
    if _are_units(first) and others and _is_full(others[0], first):
        first = tuple(
            f"{name} ({unit})" if unit else name
            for name, unit in zip(others[0], first, strict=True)
        )
        others = others[1:]
    if others and _names_curves(others[0], first):
        curves = others[0]
    headings, label = [], ""
    for k, text in enumerate(first):
        label = (curves[k] if curves else "") or label
        headings.append(parse_heading(text)._replace(curve=label))
    return headings


def unit_symbol(text: str) -> str | None:
    """Symbol of a unit in any usual spelling; None if it is not one of `UNITS`."""
    text = _REFERENCE.sub("", text).strip(" .()[]{}<>").replace("µ", "u").replace("μ", "u")
    text = re.sub(r"\s*/\s*", "/", text)
    if any(text in units for units in UNITS.values()):
        return text
    return _SPELLINGS.get(text.lower()) or _SYMBOLS.get(text.lower())


def parse_heading(text: str) -> Heading:
    """What a heading means."""
    plain = _CLOCK.sub("", _REFERENCE.sub("", text))
    whole = unit_symbol(plain)
    if whole is not None and plain.strip(" ()[]") not in ("h", "a", "v"):
        return Heading(text, _quantity_of(whole), 99, whole)
    parts = _HEADING.fullmatch(plain)
    unit = unit_symbol(parts["unit"]) if parts else None
    name = parts["name"] if parts and unit else plain
    name = _REMARK.sub("", re.sub(r"[\s_]+", " ", name)).strip(" <>:").lower()
    numbered = _NUMBERED.fullmatch(name)
    bases = [(name, 0)]
    if numbered:
        bases.append((numbered["name"], int(numbered["number"])))
    for base, number in bases:
        for quantity, names in NAMES.items():
            if base not in names or (unit and unit not in UNITS.get(quantity, {})):
                continue
            return Heading(text, quantity, names.index(base), unit or "", number)
    return Heading(text, "", 99, unit)


def _quantity_of(unit: str) -> str:
    return next(quantity for quantity, units in UNITS.items() if unit in units)


def _are_units(row: tuple[str, ...]) -> bool:
    """Whether a row of cells holds units, such as those under the names."""
    filled = [cell for cell in row if cell]
    known = [unit_symbol(cell) is not None or cell in ("#", "bits", "C", "-") for cell in filled]
    return (
        len(filled) >= 2
        and sum(known) >= 2
        and all(ok or len(cell) <= 6 for ok, cell in zip(known, filled, strict=True))
        and not any(_HEADING.fullmatch(cell) and unit_symbol(cell) is None for cell in filled)
    )


def _is_full(names: tuple[str, ...], units: tuple[str, ...]) -> bool:
    """Whether there is a name above every unit."""
    return all(name or not unit for name, unit in zip(names, units, strict=True))


def _names_curves(row: tuple[str, ...], below: tuple[str, ...]) -> bool:
    """Whether a row has a name above the first column of each curve, and blanks between."""
    filled = [k for k, cell in enumerate(row) if cell]
    n_below = sum(map(bool, below))
    return len(filled) >= 2 and filled[0] <= 1 and len(filled) <= n_below / 2
