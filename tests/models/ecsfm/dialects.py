"""A record written as people and instruments write it, in any dialect, and what it holds.

The writers know nothing of the readers: each takes the same record in SI units.
"""

import csv
import io
from dataclasses import dataclass

import numpy as np
import openpyxl
from hypothesis import strategies as st

UNITS = {
    "time": {"s": 1.0, "sec": 1.0, "ms": 1e3, "min": 1 / 60, "h": 1 / 3600, "seconds": 1.0},
    "potential": {"V": 1.0, "mV": 1e3, "V vs. Ag/AgCl": 1.0, "volts": 1.0},
    "current": {"A": 1.0, "mA": 1e3, "uA": 1e6, "µA": 1e6, "μA": 1e6, "nA": 1e9, "microamps": 1e6},
}
NAMES = {
    "time": ("time", "Time", "t", "Elapsed Time"),
    "potential": ("potential", "E", "Ewe", "Voltage", "WE(1).Potential"),
    "current": ("current", "I", "i", "<I>", "WE(1).Current"),
}
HEADINGS = ("{0}/{1}", "{0} ({1})", "{0} [{1}]", "{0}, {1}", "{0} / {1}", "{0}_{1}", "{0} in {1}")


@dataclass(frozen=True)
class Record:
    """One cycle: time (s), potential (V), current (A), and the scan rate (V/s)."""

    time: np.ndarray
    potential: np.ndarray
    current: np.ndarray
    rate: float


def cycle(n=60, rate=0.1, start=0.3, width=0.6, peak=1e-5, n_cycles=1):
    """A record of cycles from a start down and back up; the current tells the cycles apart."""
    phase = np.arange(1, n_cycles * n + 1) / n
    potential = start - width * (1 - np.abs(1 - 2 * (phase % 1)))
    time = 2 * width / rate * phase
    return Record(time, potential, peak * (np.sin(7 * phase) + 0.3 * phase + 0.1), rate)


@st.composite
def records(draw):
    """Records over the range of laboratories."""
    return cycle(
        n=2 * draw(st.integers(15, 60)),
        rate=10.0 ** draw(st.integers(-3, 1)),
        start=draw(st.sampled_from([-0.2, 0.0, 0.35])),
        width=draw(st.sampled_from([0.4, 0.8, 1.5])),
        peak=10.0 ** draw(st.integers(-9, -3)),
    )


@st.composite
def texts(draw, record):
    """Bytes of a text file with a record, and the metadata that its reader needs."""
    separator = draw(st.sampled_from([",", ";", "\t", "|", "  ", ", ", " ; "]))
    comma = separator.strip() not in (",", "") and draw(st.booleans())
    heading = draw(st.sampled_from(HEADINGS))
    if heading == "{0}, {1}" and "," in separator:
        heading = "{0}/{1}"
    columns, meta = _columns(draw, record, heading)
    order = draw(st.permutations(list(columns)))
    rows = [[_number(draw, value, comma) for value in columns[name]] for name in order]
    rows = [list(row) for row in zip(*rows, strict=True)]
    head = [list(order)]
    if separator not in ("  ",) and draw(st.booleans()) and "Scan rate (mV/s)" not in order:
        head = [[name.split("\0")[0] for name in order], [name.split("\0")[1] for name in order]]
    else:
        head = [[heading.format(*name.split("\0")) if "\0" in name else name for name in order]]
    if separator.strip() and draw(st.booleans()):  # a row number without a heading
        rows = [[str(n), *row] for n, row in enumerate(rows, 1)]
        head = [["", *row] if draw(st.booleans()) and len(head) == 1 else row for row in head]
    if separator.strip() in (",", ";") and draw(st.booleans()):
        rows = [[*row, ""] for row in rows]  # a separator at the end of every line
    quote = separator in (",", ";") and draw(st.booleans())
    lines = [_line(row, separator, quote) for row in [*head, *rows]]
    above = draw(st.sampled_from([[], ["# a comment"], ["Instrument X", "Date: 1, 2", ""]]))
    below = draw(st.sampled_from([[], ["", ""]]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    text = end.join([*above, *lines, *below, ""])
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"]))
    try:
        return text.encode(encoding), meta
    except UnicodeEncodeError:
        return text.encode(), meta


def _columns(draw, record, heading):
    """Columns by "name NUL unit" in their units, and the metadata that they need."""
    columns, meta = {}, {}
    for quantity in ("time", "potential", "current"):
        unit = draw(st.sampled_from(list(UNITS[quantity])))
        if " vs" in unit and "(" not in heading and "[" not in heading:
            unit = "V"
        name = draw(st.sampled_from(NAMES[quantity]))
        columns[f"{name}\0{unit}"] = UNITS[quantity][unit] * getattr(record, quantity)
    time = draw(st.sampled_from(["column", "rate", "rate column", "clock", "bare"]))
    key = next(iter(columns))
    if time in ("rate", "rate column", "clock", "bare"):
        del columns[key]
    if time == "rate":
        meta["scan_rate_V_s"] = record.rate
    elif time == "rate column":
        columns["Scan rate (mV/s)"] = np.full(len(record.time), 1e3 * record.rate)
    elif time == "clock":
        columns["Time\0s"] = [_clock(value) for value in record.time]
    elif time == "bare":
        columns["Time"] = record.time
    if time == "bare":  # cannot stand above a row of units
        columns = {(name if "\0" in name else "Time\0s"): v for name, v in columns.items()}
    return columns, meta


def _clock(seconds):
    hours, rest = divmod(seconds, 3600)
    return f"{int(hours):02d}:{int(rest // 60):02d}:{rest % 60:012.9f}"


def _number(draw, value, comma):
    if isinstance(value, str):
        return value.replace(".", ",") if comma else value
    text = f"{value:.9e}"
    return text.replace(".", ",") if comma else text


def _line(row, separator, quote):
    if quote:
        stream = io.StringIO()
        csv.writer(stream, delimiter=separator, quoting=csv.QUOTE_ALL).writerow(row)
        return stream.getvalue().rstrip("\r\n")
    return separator.join(row)


def as_workbook(path, sheets):
    """Write a workbook: rows of cells by the name of their sheet."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
