"""Records in the dialects of laboratories are read as what they are."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import voltammograms
from dialects import as_workbook, cycle, records, texts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from touchstone.io.artifacts import ArtifactError
from touchstone.models.ecsfm.data.measurement import describe_all
from touchstone.models.ecsfm.data.traces import describe, read_trace

RECORD = cycle()
many = settings(
    max_examples=80,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def assert_holds(trace, record, rtol=1e-6):
    scale = np.abs(record.current).max()
    np.testing.assert_allclose(trace.time, record.time, rtol=rtol)
    np.testing.assert_allclose(trace.potential, record.potential, rtol=rtol, atol=1e-8)
    np.testing.assert_allclose(trace.current, record.current, rtol=rtol, atol=1e-7 * scale)


def rows_of(record, **units):
    """Rows of a table of a record: time (s), potential (V), current (A)."""
    columns = (record.time, record.potential, record.current)
    return [list(map(float, row)) for row in zip(*columns, strict=True)]


def as_text(headings, rows, separator=","):
    return "\n".join(separator.join(map(str, row)) for row in [headings, *rows]) + "\n"


def read(folder, content, name="trace.csv", **meta):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_trace(path, meta)


# Dialects -----------------------------------------------------------------------------------------


@many
@given(data=st.data())
def test_a_text_in_any_dialect_is_the_record_that_was_written(tmp_path, data):
    record = data.draw(records())
    content, meta = data.draw(texts(record))
    assert_holds(read(tmp_path, content, "my trace.csv", **meta), record)


@many
@given(record=records(), writer=st.sampled_from(list(voltammograms.FORMATS.items())))
def test_a_file_of_an_instrument_is_the_record_that_was_written(tmp_path, record, writer):
    suffix, write = writer
    steps = record.potential.round(3) if suffix == ".txt" else record.potential
    text = write(record.time, steps, record.current)
    trace = read(tmp_path, text.encode("cp1252"), f"trace{suffix}")
    np.testing.assert_allclose(trace.time, record.time, rtol=1e-5)
    np.testing.assert_allclose(trace.potential, steps, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trace.current, record.current, rtol=1e-6, atol=1e-15)


@settings(many, max_examples=20)
@given(
    record=records(),
    above=st.sampled_from([[], [["Instrument X"], []], [["A", "note"], ["on", 3]]]),
    units=st.sampled_from([("s", "V", "A"), ("ms", "mV", "uA"), ("min", "V", "µA")]),
    beside=st.booleans(),
    shift=st.integers(0, 2),
)
def test_a_workbook_is_the_record_that_was_written(tmp_path, record, above, units, beside, shift):
    factors = {"s": 1, "ms": 1e3, "min": 1 / 60, "V": 1, "mV": 1e3, "A": 1, "uA": 1e6, "µA": 1e6}
    names = [f"{name} ({unit})" for name, unit in zip(("Time", "E", "I"), units, strict=True)]
    scale = [factors[unit] for unit in units]
    rows = [[f * v for f, v in zip(scale, row, strict=True)] for row in rows_of(record)]
    blanks = [None] * shift
    sheet = [*above, [*blanks, *names], *([*blanks, *row] for row in rows), [], [None, None]]
    more = {"Notes": [["measured on a Friday"]], "Empty": []} if beside else {}
    path = tmp_path / "trace.xlsx"
    as_workbook(path, {"Data": sheet, **more})
    assert_holds(read_trace(path, {}), record)


@pytest.mark.parametrize("minus", ["−", "–", "-"])
@pytest.mark.parametrize("pad", ["", ",,,", " , "])
def test_minus_signs_and_blank_cells_do_not_matter(tmp_path, minus, pad):
    text = as_text(["t/s", "E/V", "I/A"], rows_of(RECORD)).replace("-", minus)
    text = text.replace(f"e{minus}", "e-").replace("\n", f"{pad}\n") + ",,,,\n,,,,\n"
    assert_holds(read(tmp_path, text), RECORD)


def test_a_ruled_table_is_read(tmp_path):
    rows = [f"| {t!r} | {e!r} | {i!r} |" for t, e, i in rows_of(RECORD)]
    text = "\n".join(["| t/s | E/V | I/A |", "|-----|-----|-----|", *rows, ""])
    assert_holds(read(tmp_path, text), RECORD)


def test_thousands_separators_beside_decimal_points_are_read(tmp_path):
    record = cycle(peak=2e-5)
    rows = [[t, e, f'"{1e9 * i:,.3f}"'] for t, e, i in rows_of(record)]
    trace = read(tmp_path, as_text(["t/s", "E/V", "I/nA"], rows))
    np.testing.assert_allclose(trace.current, record.current, atol=1e-12)


def test_an_index_column_without_a_heading_shifts_nothing(tmp_path):
    rows = [[k, *row] for k, row in enumerate(rows_of(RECORD))]
    trace = read(tmp_path, as_text(["t/s", "E/V", "I/A"], rows))
    assert_holds(trace, RECORD)
    assert any("row number" in note for note in trace.notes)


def test_headings_that_are_units_only_are_read_with_the_curves_above_them(tmp_path):
    other = cycle(peak=3e-5)
    rows = [
        [e, 1e6 * i, e2, 1e6 * i2]
        for (_, e, i), (_, e2, i2) in zip(rows_of(RECORD), rows_of(other), strict=True)
    ]
    text = "Date:,today\nCV first,,CV second,\n" + as_text(["V", "µA", "V", "µA"], rows)
    path = tmp_path / "trace.csv"
    path.write_bytes(text.encode("utf-16"))
    meta = {"scan_rate_V_s": 0.1}
    assert_holds(read_trace(path, {**meta, "curve": 1}), RECORD)
    assert_holds(read_trace(path, {**meta, "curve": "CV second"}), other)
    with pytest.raises(
        ArtifactError, match=r"trace\.csv: holds 2 columns .* 1 \('CV first'\), 2 \('CV second'\)"
    ):
        read_trace(path, meta)


def test_curves_side_by_side_may_differ_in_length(tmp_path):
    short, long = cycle(n=40), cycle(n=60, peak=3e-5)
    rows = [
        [*(["", "", ""] if k >= 40 else rows_of(short)[k]), *row]
        for k, row in enumerate(rows_of(long))
    ]
    text = as_text(["t1/s", "E1/V", "I1/A", "t2/s", "E2/V", "I2/A"], rows)
    assert_holds(read(tmp_path, text, curve=1), short)
    assert_holds(read(tmp_path, text, curve=2), long)


def test_the_name_and_unit_of_a_column_may_be_stated(tmp_path):
    rows = [[t, 1e3 * e, 1e6 * i] for t, e, i in rows_of(RECORD)]
    text = as_text(["clock", "level", "signal"], rows)
    columns = {
        "time": {"name": "clock", "unit": "s"},
        "potential": {"name": "level", "unit": "mV"},
        "current": {"name": "signal", "unit": "µA"},
    }
    assert_holds(read(tmp_path, text, columns=columns), RECORD)


@pytest.mark.parametrize("heading", ["time", "Time", "t"])
def test_a_time_without_a_unit_is_taken_for_seconds_and_said(tmp_path, heading):
    trace = read(tmp_path, as_text([heading, "E/V", "I/A"], rows_of(RECORD)), scan_rate_V_s=0.1)
    assert_holds(trace, RECORD)
    assert any("assumed to be in s" in note for note in trace.notes)


def test_a_vertex_that_was_read_twice_is_no_standstill(tmp_path):
    once = cycle()
    turn = int(np.argmin(once.potential))
    rows = rows_of(once)
    rows.insert(turn, rows[turn])
    text = as_text(["E/V", "I/A"], [row[1:] for row in rows])
    trace = read(tmp_path, text, scan_rate_V_s=0.1)
    step = once.time[1] - once.time[0]
    np.testing.assert_allclose(np.diff(trace.time), step, rtol=1e-6)


def test_a_potential_that_is_rounded_is_no_standstill(tmp_path):
    record = cycle(n=600)
    text = as_text(["E/V", "I/A"], [[round(e, 2), i] for _, e, i in rows_of(record)])
    trace = read(tmp_path, text, scan_rate_V_s=0.1)
    np.testing.assert_allclose(trace.time, record.time, rtol=0.02)


def test_a_current_that_is_named_brings_its_potential(tmp_path):
    other = cycle(start=0.5, peak=3e-5)
    rows = [[*a, *b] for a, b in zip(rows_of(RECORD), rows_of(other), strict=True)]
    text = as_text(["t/s", "E/V", "I gold/A", "t/s", "E/V", "I lead/A"], rows)
    assert_holds(read(tmp_path, text, columns={"current": "I gold/A"}), RECORD)
    assert_holds(read(tmp_path, text, columns={"current": "I lead/A"}), other)


def test_a_binary_file_of_ec_lab_is_read_through_its_reader(tmp_path, monkeypatch):
    names = ["time/s", "Ewe/V", "<I>/mA", "cycle number"]
    columns = [RECORD.time, RECORD.potential, 1e3 * RECORD.current, np.ones(len(RECORD.time))]
    data = np.rec.fromarrays(columns, names=names)
    reader = SimpleNamespace(MPRfile=lambda path: SimpleNamespace(data=data))
    monkeypatch.setitem(sys.modules, "galvani", SimpleNamespace(BioLogic=reader))
    assert_holds(read(tmp_path, b"BIO-LOGIC MODULAR FILE", "trace.mpr"), RECORD)


def test_a_scan_rate_above_the_table_is_read(tmp_path):
    text = "Scan Rate (V/s) = 0.1\n\n" + as_text(["E/V", "I/A"], [r[1:] for r in rows_of(RECORD)])
    assert_holds(read(tmp_path, text), RECORD)


# Cycles -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0.0, 0.3, 0.5])  # part of a cycle at which the record starts
@pytest.mark.parametrize("column", [False, True])
def test_the_last_complete_cycle_is_read_and_said(tmp_path, start, column):
    n, n_cycles = 60, 3.4
    phase = np.arange(1, round(n_cycles * n) + 1) / n
    potential = 0.3 - 0.6 * (1 - np.abs(1 - 2 * ((phase + start) % 1)))
    columns = {"t/s": 12 * phase, "E/V": potential, "I/A": 1e-6 * phase}
    if column:
        columns["cycle number"] = np.ceil(phase - 1e-9)
    text = as_text(list(columns), np.transpose(list(columns.values())).tolist())
    last = read(tmp_path, text)
    assert len(last.time) == pytest.approx(n, abs=1)
    np.testing.assert_allclose(last.current[[0, -1]], [2e-6, 3e-6], atol=2e-8)
    assert any("cycle 3, the last complete one of 4" in note for note in last.notes)
    first = read(tmp_path, text, cycle=1)
    np.testing.assert_allclose(first.current[-1], 1e-6, atol=2e-8)
    assert len(read(tmp_path, text, cycle="all").time) == len(phase)
    with pytest.raises(ArtifactError, match=r"cycle is 9, expected one of \[1, 2, 3, 4\], or all"):
        read(tmp_path, text, cycle=9)


@pytest.mark.parametrize("n_cycles", [1, 2, 3])
def test_the_sample_that_closes_a_cycle_is_no_cycle_of_its_own(tmp_path, n_cycles):
    record = cycle(n_cycles=n_cycles)
    rows = [[0.0, 0.3, 1e-7], *rows_of(record)]  # begins and ends at the same potential
    path = tmp_path / "trace.csv"
    path.write_text(as_text(["t/s", "E/V", "I/A"], rows))
    assert dict(describe(path))["cycles"] == f"{n_cycles}, of which {n_cycles} complete"
    np.testing.assert_allclose(read_trace(path, {}).current[-60:], record.current[-60:])


@pytest.mark.parametrize(
    "potential",
    [
        np.sin(np.linspace(0, 50, 400)),  # a sine
        np.where(np.arange(400) % 20 < 10, 0.3, -0.3),  # square waves
        0.3 * (np.arange(400) > 100),  # a step
        np.linspace(0.5, -0.5, 400),  # one sweep
        np.linspace(0.5, -0.5, 400) + 0.05 * np.sin(np.arange(400)),  # a sweep with a sine
        np.linspace(0.5, -0.5, 400) + 0.02 * (-1) ** np.arange(400),  # a staircase of pulses
        0.1 - 0.5 * np.abs(np.linspace(-1, 1, 400)),  # one cycle
    ],
)
def test_what_is_no_series_of_cycles_is_read_whole(tmp_path, potential):
    rows = [[0.01 * k, e, 1e-6 * np.cos(k / 50)] for k, e in enumerate(potential.tolist(), 1)]
    assert len(read(tmp_path, as_text(["t/s", "E/V", "I/A"], rows)).time) == 400


# What was understood ------------------------------------------------------------------------------


def test_what_was_understood_is_told_without_metadata(tmp_path):
    record = cycle(n_cycles=3)
    rows = [[t, 1e3 * e, 1e6 * i] for t, e, i in rows_of(record)]
    path = tmp_path / "trace.csv"
    path.write_text(as_text(["Time", "E/mV", "I (µA)"], rows))
    told = dict(describe(path))
    assert told["column of the potential"] == "'E/mV' in mV"
    assert told["column of the current"] == "'I (µA)' in µA"
    assert told["column of the time"] == "'Time' in s (assumed)"
    assert told["cycles"] == "3, of which 3 complete"
    assert told["samples"] == "60"
    assert told["duration"] == "12 s"
    assert told["scan rate"] == "0.1 V/s"
    assert told["window"] == "-0.3 to 0.3 V"


def test_each_record_of_a_folder_is_told_with_what_stands_beside_it(tmp_path):
    for rate in (0.1, 0.2):
        record = tmp_path / f"{rate}.csv"
        record.write_text(as_text(["E/V", "I/A"], [row[1:] for row in rows_of(RECORD)]))
        record.with_suffix(".yaml").write_text(f"scan_rate_V_s: {rate}")
    told = describe_all(tmp_path, None)
    assert [line for line in told if line.startswith(("file", "duration"))] == [
        "file: 0.1.csv", "duration: 12 s", "file: 0.2.csv", "duration: 6 s",
    ]  # fmt: skip


def test_a_time_that_is_missing_is_told(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(as_text(["E/V", "I/A"], [row[1:] for row in rows_of(RECORD)]))
    told = describe(path)
    assert ("duration", "unknown") in told
    assert any("scan_rate_V_s" in said for _, said in told)
    assert ("duration", "12 s") in describe(path, {"scan_rate_V_s": 0.1})
