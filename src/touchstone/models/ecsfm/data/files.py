"""Files on disk: the bytes of each format as rows of cells, and the table in them.

Readers of others, where they are better than reading the text here: `gamry-parser` knows the
tables, units and decimal commas of .DTA, `galvani` the binary .mpr (GPL, so an extra), and calamine
the workbooks. `ixdat` takes an unreadable number of an .mpt for 0 and prints as it reads, and
`yadg` must be told the type, locale and encoding of each file: their formats are text tables, which
are read here with the line of every cell, so that an error can name it.
"""

import csv
import re
from pathlib import Path

import numpy as np

from touchstone.models.ecsfm.data.numerals import normalised
from touchstone.models.ecsfm.data.tables import EXAMPLE, Table, longest_run, to_table

_SEPARATORS = ("\t", ";", "|", ",", None)  # None: any blanks
_WORKBOOKS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")


def read_table(path: Path, sheet: str | None = None) -> Table:
    """The table in a file: text, Gamry .DTA, EC-Lab .mpr, or a workbook.

    Args:
        path: Of the file.
        sheet: Of a workbook; by default the only sheet with a table of numbers.

    Raises:
        ValueError: If the file holds no table, or more than one.
    """
    suffix = path.suffix.lower()
    if suffix == ".dta":
        return _read_gamry(path)
    if suffix == ".mpr":
        return _read_ec_lab_binary(path)
    if suffix in _WORKBOOKS:
        return _read_workbook(path, sheet)
    return _read_text(_decode(path.read_bytes()))


def _read_gamry(path: Path) -> Table:
    """All curves of a Gamry file, one after another; a curve is a cycle."""
    import gamry_parser

    curves = gamry_parser.read(path).curves
    if not curves:
        raise ValueError("holds no curve")
    headings = {"T": "time/s", "Vf": "Vf/V", "Im": "Im/A"}
    columns = [
        np.concatenate([curve[name].to_numpy().astype(float) for curve in curves])
        for name in headings
    ]
    cycle = np.repeat(np.arange(1.0, len(curves) + 1), [len(curve) for curve in curves])
    places = [f"curve {k}, row {n}" for k, c in enumerate(curves, 1) for n in range(1, len(c) + 1)]
    return Table(((*headings.values(), "cycle number"),), (*columns, cycle), places)


def _read_ec_lab_binary(path: Path) -> Table:
    try:
        from galvani import BioLogic  # ty: ignore[import-not-found] an extra
    except ImportError:
        raise ValueError(
            "a binary .mpr needs the extra 'biologic' (uv sync --extra biologic); "
            "EC-Lab also exports text (.mpt)"
        ) from None
    data = BioLogic.MPRfile(str(path)).data
    names = data.dtype.names
    columns = tuple(np.asarray(data[name], float) for name in names)
    return Table((tuple(names),), columns, [f"row {n + 1}" for n in range(len(data))])


def _read_workbook(path: Path, sheet: str | None) -> Table:
    from python_calamine import CalamineWorkbook

    with CalamineWorkbook.from_path(path) as book:
        names = book.sheet_names
        if sheet is not None and sheet not in names:
            listed = ", ".join(map(repr, names))
            raise ValueError(f"sheet is {sheet!r}, which is none of {listed}")
        found, complaint = {}, "holds no sheet"
        for name in names if sheet is None else [sheet]:
            cells = book.get_sheet_by_name(name).to_python(skip_empty_area=False)
            rows = [[normalised(str(cell)) for cell in row] for row in cells]
            try:
                found[name] = to_table(rows, "row", "")
            except ValueError as error:
                complaint = f"sheet {name!r}: {error}"
    if not found:
        raise ValueError(complaint)
    if len(found) > 1:
        listed = ", ".join(map(repr, found))
        raise ValueError(
            f"the sheets {listed} hold tables; name one in the metadata, e.g. "
            f"sheet: {next(iter(found))}"
        )
    name, table = next(iter(found.items()))
    return table._replace(notes=(f"sheet {name!r}", *table.notes)) if len(names) > 1 else table


def _decode(content: bytes) -> str:
    """Text of a file: UTF-16 or UTF-8, marked or not, else the Windows code page."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", errors="replace")
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if content[first::2].count(0) > 0.4 * len(content) / 2:
            return content.decode(encoding, errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _read_text(text: str) -> Table:
    """The table in a text, by the separator that makes most rows of numbers below each other."""
    lines = text.splitlines()
    best, most = None, 0
    for separator in _SEPARATORS:
        if separator is not None and separator not in text:
            continue
        rows = [_split(line, separator) for line in lines]
        n_rows = longest_run(rows)
        if n_rows > most:
            best, most = (separator, rows), n_rows
        if most > len(lines) / 2:
            break
    if best is None:
        raise ValueError(_no_table(lines))
    cut = bool(text) and not text.endswith(("\n", "\r"))
    return to_table(best[1], "line", best[0], lines, cut)


def _no_table(lines: list[str]) -> str:
    """A sentence on a text without rows of numbers."""
    digits = next((n for n, line in enumerate(lines, 1) if re.match(r"\s*[+-]?\d", line)), None)
    seen = "" if digits is None else f"; line {digits} is {lines[digits - 1][:60]!r}"
    return f"holds no table of numbers, e.g. the row 0.1,0.25,1.5e-6 below {EXAMPLE}{seen}"


def _split(line: str, separator: str | None) -> list[str]:
    """Cells of a line, normalised."""
    if separator is None:
        return [normalised(cell.strip('"')) for cell in line.split()]
    if '"' in line:
        cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    else:
        cells = line.split(separator)
    return [normalised(cell) for cell in cells]
