"""Numbers as people and instruments write them: decimal marks, thousands, clock times."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

_NUMBER = re.compile(
    r"[+-]?(\d+([.,]\d+)*\.?|[.,]\d+)(e[+-]?\d+)?|[+-]?(nan|inf(inity)?)", re.IGNORECASE
)
_CLOCK = re.compile(
    r"(?:\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}[ T]+)?(\d+):(\d\d):(\d\d(?:[.,]\d+)?)(?:\s*[ap]m)?",
    re.IGNORECASE,
)
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b.*")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}([.,])\d{3}(\1\d{3})*")
_WHOLE = re.compile(r"[+-]?\d+")
_SPACES = str.maketrans({"−": "-", "–": "-", "\u00a0": "", "\u202f": "", "\u2009": ""})
_APOSTROPHE = re.compile(r"(?<=\d)['’](?=\d{3})")  # Swiss thousands


def normalised(cell: str) -> str:
    """A cell without blanks around it, with a plain minus and without blank thousands."""
    cell = cell.strip()
    if not cell.isascii():
        cell = cell.translate(_SPACES)
    return _APOSTROPHE.sub("", cell) if "'" in cell or "’" in cell else cell


def is_number(cell: str) -> bool:
    """Whether a normalised cell is a number or a clock time."""
    return bool(_NUMBER.fullmatch(cell) or _CLOCK.fullmatch(cell))


def is_row(cells: Iterable[str]) -> bool:
    """Whether normalised cells are a row of a table: two numbers or more, and no broken one."""
    n_numbers = 0
    for cell in cells:
        if is_number(cell):
            n_numbers += 1
        elif re.match(r"[+.,-]*\d", cell) and not _DATE.fullmatch(cell):
            return False
    return n_numbers >= 2


def decimal_mark(cells: Iterable[str]) -> str:
    """The decimal mark of a file, "." or ",", from all its cells (normalised)."""
    marked = [cell for cell in cells if ("," in cell or "." in cell) and _NUMBER.fullmatch(cell)]
    both = next((cell for cell in marked if "," in cell and "." in cell), None)
    if both is not None:
        return max(",.", key=both.rfind)
    commas = [cell for cell in marked if "," in cell]
    if not commas or any(cell.count(",") > 1 for cell in commas):
        return "."
    if len(commas) < len(marked) and all(_THOUSANDS.fullmatch(cell) for cell in commas):
        return "."  # the decimal mark is the point of the other cells
    return ","


def to_floats(cells: Sequence[str], mark: str) -> np.ndarray:
    """Numbers of a column of normalised cells, shape (n,); clock times are in s.

    Args:
        cells: Of the column; NaN stands for what is no number.
        mark: The decimal mark of the file.

    Raises:
        ValueError: If "4,014" may be either 4014 or 4.014.
    """
    thousands = "," if mark == "." else "."
    _assert_clear(cells, mark)
    return np.array([_to_float(cell, mark, thousands) for cell in cells], float)


def is_clock(cells: Sequence[str]) -> bool:
    """Whether a column holds clock times, such as 00:01:30.5."""
    filled = [cell for cell in cells if cell]
    return bool(filled) and all(_CLOCK.fullmatch(cell) for cell in filled)


def _to_float(cell: str, mark: str, thousands: str) -> float:
    try:
        return float(cell)  # a plain number, the rule
    except ValueError:
        clock = _CLOCK.fullmatch(cell)
    if clock:
        hours, minutes, seconds = (float(part.replace(",", ".")) for part in clock.groups())
        return 3600 * hours + 60 * minutes + seconds
    if not _NUMBER.fullmatch(cell):
        return np.nan
    whole, _, rest = cell.partition(mark)
    if thousands in whole:
        if not _THOUSANDS.fullmatch(whole):
            return np.nan
        whole = whole.replace(thousands, "")
    try:
        return float(f"{whole}.{rest}" if rest else whole or "nan")
    except ValueError:
        return np.nan


def _assert_clear(cells: Sequence[str], mark: str) -> None:
    """Refuse a column whose marks are decimal beside some cells and thousands beside others."""
    if mark == ".":  # a comma is a thousands separator, or the cell is no number
        return
    dots = [cell for cell in cells if "." in cell and "," not in cell]
    if odd := next((cell for cell in dots if _THOUSANDS.fullmatch(cell)), None):
        raise ValueError(f"{odd!r}: is its point a decimal or a thousands mark? Write one mark")
    marked = [cell for cell in cells if "," in cell]
    whole = [cell for cell in cells if _WHOLE.fullmatch(cell) and len(cell.lstrip("+-0")) > 2]
    grouped = marked and all(_THOUSANDS.fullmatch(cell) for cell in marked)
    if grouped and whole and all(len(cell.lstrip("+-")) < 4 for cell in whole):
        raise ValueError(
            f"{marked[0]!r} beside {whole[0]!r}: is the comma a thousands or a decimal mark? Write "
            f"the numbers without thousands separators, e.g. {marked[0].replace(',', '')}"
        )
