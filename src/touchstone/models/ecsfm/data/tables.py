"""Tables in rows of cells: where they begin and end, and what stands above them."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from touchstone.models.ecsfm.data.numerals import decimal_mark, is_number, is_row, to_floats

EXAMPLE = "time/s,potential/V,current/A"
_ABOVE = 3  # rows above the table that may be headings, units, and names of curves
_SECOND_TABLE = 24  # rows that make another run of rows another table
# A heading between blanks that holds blanks itself: "Current (A)", "Elapsed Time [s]".
_RULE = re.compile(r"[-=+:_ ]*")  # a line between headings and numbers, or nothing
_BRACKETED = re.compile(r"[^\s(\[]+(?:\s[^\s(\[]+)*?\s?[(\[][^)\]]*[)\]]|\S+")


class Table(NamedTuple):
    """Columns of cells.

    Attributes:
        head: Up to three rows of cells above the table, the nearest first, as wide as the table.
        columns: Cells of each column, as text or numbers, n each.
        places: Where each row stands in the file, in words, n.
        above: The text above the table.
        mark: The decimal mark of the file.
        notes: What was assumed, in words.
    """

    head: tuple[tuple[str, ...], ...]
    columns: tuple[Sequence[str] | np.ndarray, ...]
    places: Sequence[str]
    above: str = ""
    mark: str = "."
    notes: tuple[str, ...] = ()

    def numbers(self, column: int) -> np.ndarray:
        """Numbers of a column, NaN where there is none, shape (n,)."""
        cells = self.columns[column]
        return cells if isinstance(cells, np.ndarray) else to_floats(cells, self.mark)


def to_table(
    rows: list[list[str]],
    place: str,
    separator: str | None,
    lines: list[str] | None = None,
    cut: bool = False,
) -> Table:
    """The table in rows of cells.

    Args:
        rows: Normalised cells of every line of the file.
        place: What a row is called in the file.
        separator: Of the cells.
        lines: The lines as they are, of a text.
        cut: Whether the file ends without the end of a line.
    """
    numbers, notes = _without_cut_end(rows, _rows_of_table(rows, place), place, cut)
    first, places = numbers[0], [f"{place} {n + 1}" for n in numbers]
    body = [rows[n] for n in numbers]
    above = [n for n in range(first - 1, -1, -1) if not _RULE.fullmatch("".join(rows[n]))][:_ABOVE]
    width = max(map(len, map(_stripped, body)))
    head = [_heading_cells(rows[n], separator, lines[n] if lines else None, width) for n in above]
    if not head or sum(map(bool, head[0])) < 2:
        raise ValueError(f"the columns have no headings; begin with a line such as {EXAMPLE}")
    body, head, shift = _align(body, head, places, separator)
    width = len(head[0])
    head, body = ([(*row, *[""] * (width - len(row)))[:width] for row in r] for r in (head, body))
    columns = tuple(zip(*body, strict=True))
    return Table(
        tuple(head),
        columns,
        places,
        "\n".join((lines or [])[:first]),
        decimal_mark(cell for column in columns for cell in column),
        (*notes, *shift),
    )


def longest_run(rows: list[list[str]]) -> int:
    """Number of rows of the longest table of numbers in rows of normalised cells."""
    return max(map(len, _runs(rows)), default=0)


def _runs(rows: list[list[str]]) -> list[list[int]]:
    """Numbers (from 0) of the rows of each table; blank rows do not end one."""
    runs, is_open = [], False
    for n, row in enumerate(rows):
        if is_row(row):
            if not is_open:
                runs.append([])
            runs[-1].append(n)
            is_open = True
        elif any(row):
            is_open = False
    return runs


def _rows_of_table(rows: list[list[str]], place: str) -> list[int]:
    """Numbers (from 0) of the rows of the table.

    Raises:
        ValueError: If there is no table, or another one that is not small beside it.
    """
    runs = _runs(rows)
    if not runs:
        raise ValueError(f"holds no table of numbers below headings such as {EXAMPLE}")
    longest = max(runs, key=len)
    for run in runs:
        if run is longest:
            continue
        earlier, later = sorted([run, longest])
        between = next(n for n in range(earlier[-1] + 1, later[0]) if any(rows[n]))
        if len(run) >= min(_SECOND_TABLE, len(longest) / 2) or _is_broken(rows[between]):
            raise ValueError(_interrupted(rows, between, place))
    return longest


def _without_cut_end(
    rows: list[list[str]], numbers: list[int], place: str, cut: bool
) -> tuple[list[int], list[str]]:
    """Numbers of the rows of the table but for one that the end of the file cuts, and a note.

    Raises:
        ValueError: If a broken row ends the table, and not the file.
    """
    last = numbers[-1]
    after = next((n for n in range(last + 1, len(rows)) if any(rows[n])), None)
    if after is None:
        if not (cut and _is_cut([rows[n] for n in numbers])):
            return numbers, []
        numbers, after = numbers[:-1], last
    elif not _is_broken(rows[after]):
        return numbers, []
    elif not cut or after < len(rows) - 1:
        raise ValueError(_interrupted(rows, after, place))
    return numbers, [f"{place} {after + 1} left out: the file ends inside it"]


def _interrupted(rows: list[list[str]], n: int, place: str) -> str:
    shown = " ".join(filter(None, rows[n]))[:60]
    return (
        f"{place} {n + 1} ({shown!r}) interrupts the table of numbers; expected one table of rows "
        "such as 0.1,0.25,1.5e-6"
    )


def _is_broken(row: list[str]) -> bool:
    """Whether a line that is no row of a table begins as one does."""
    return len(_stripped(row)) >= 2 and is_number(row[0] or row[1])


def _stripped(row: list[str]) -> list[str]:
    """A row without the blank cells at its end."""
    n = len(row)
    while n and not row[n - 1]:
        n -= 1
    return row[:n]


def _is_cut(body: list[list[str]]) -> bool:
    """Whether the last row is shorter, in cells or in its last number, than all before it."""
    *before, last = map(_stripped, body)
    if not before:
        return False
    fewest = min(map(len, before))
    if len(last) < fewest:
        return True
    return len(last) == fewest and len(last[-1]) < min(len(row[fewest - 1]) for row in before)


def _heading_cells(
    cells: list[str], separator: str | None, line: str | None, width: int
) -> list[str]:
    """Cells of a row above the table; between blanks, headings may hold blanks themselves."""
    if cells and cells[0][:1] in ("#", "%") and len(cells[0]) > 1:
        cells = [cells[0].lstrip("#% "), *cells[1:]]
    if separator is not None or line is None:
        return _stripped(cells)
    line = line.strip().lstrip("#% ")
    for split in (line.split(), re.split(r"\s{2,}|\t", line), _BRACKETED.findall(line)):
        if len(split) == width:
            return split
    return line.split()


def _align(
    body: list[list[str]], head: list[list[str]], places: list[str], separator: str | None
) -> tuple[list[list[str]], list[list[str]], list[str]]:
    """Rows under their headings: an index column without a heading gets a blank one.

    Raises:
        ValueError: If rows hold more cells than there are headings.
    """
    rows = [_stripped(row) for row in body]
    width = len(head[0])
    if all(len(row) == width + 1 for row in rows) and _counts(row[0] for row in rows):
        note = "the first column, without a heading, taken for a row number"
        return rows, [["", *row] for row in head], [note]
    for row, place in zip(rows, places, strict=True):
        if len(row) > width:
            hint = ""
            if separator == ",":
                hint = "; with decimal commas, part the columns by semicolons, e.g. 0,1;0,25;1,5e-6"
            raise ValueError(f"{place} has {len(row)} values below {width} headings{hint}")
    return rows, head, []


def _counts(cells: Iterable[str]) -> bool:
    """Whether cells are consecutive whole numbers."""
    cells = list(cells)
    return all(cell.isdigit() for cell in cells) and all(
        int(b) - int(a) == 1 for a, b in pairwise(cells)
    )
