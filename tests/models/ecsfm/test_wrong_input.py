"""What is wrong on disk becomes right, or a sentence with the file, the place and an example."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from dialects import as_workbook, cycle

from touchstone.contract import load_model
from touchstone.io.artifacts import ArtifactError
from touchstone.models.ecsfm.data import measurement
from touchstone.models.ecsfm.data.metadata import read_meta
from touchstone.models.ecsfm.data.traces import describe, read_trace

DATA = Path(__file__).parents[4] / "shared" / "data"
PRIOR = load_model("ecsfm").prior_of_parameters
META = {"electrode": {"radius_mm": 1.5}, "couples": [{"C_ox_mM": 1.0, "C_red_mM": 0}]}
RECORD = cycle()
ROWS = np.transpose([RECORD.time, RECORD.potential, RECORD.current]).tolist()


def as_text(headings, rows, separator=","):
    return "\n".join(separator.join(map(str, row)) for row in [headings, *rows]) + "\n"


def plain(headings="t/s,E/V,I/A", scale=(1, 1, 1), rows=ROWS):
    scaled = [[f * v for f, v in zip(scale, row, strict=True)] for row in rows]
    return as_text(headings.split(","), scaled)


def read(folder, content, **meta):
    path = folder / "my trace.csv"
    path.write_text(content, encoding="utf-8")
    return read_trace(path, meta)


def infer_with(folder, content, **meta):
    """Records of a file with metadata, as an inference takes them."""
    (folder / "my trace.csv").write_text(content, encoding="utf-8")
    (folder / "my meta.yaml").write_text(yaml.safe_dump({**META, **meta}), encoding="utf-8")
    return measurement.read(folder / "my trace.csv", folder / "my meta.yaml", PRIOR, 64)


def spoiled(k, column, value, rows=ROWS):
    return [[value if (n, c) == (k, column) else v for c, v in enumerate(row)]
            for n, row in enumerate(rows)]  # fmt: skip


def german(rows):
    return as_text(
        ["t/s", "E/V", "I/nA"], [[str(v).replace(".", ",") for v in r] for r in rows], ";"
    )


# Records ------------------------------------------------------------------------------------------


THOUSANDS = [[t, e, -4.014 if k % 2 else -987] for k, (t, e, _) in enumerate(ROWS)]
GAP = [[t + (1000 if k > 30 else 0), e, i] for k, (t, e, i) in enumerate(ROWS)]
RATES = [[e, i, 0.1 if k < 30 else 0.2] for k, (_, e, i) in enumerate(ROWS)]
TWO = [[*row, 2 * row[2]] for row in ROWS]
HELD = [[e, i] for _, e, i in [*ROWS[:30], *[ROWS[30]] * 20, *ROWS[30:]]]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (german(THOUSANDS), r"'-4,014'.*'-987'.* thousands or a decimal mark.* e\.g\. -4014"),
        (as_text(["E/V", "I/A", "scan rate (V/s)"], RATES),
         r"scan rate changes from 0\.1 to 0\.2 V/s at line 32.*split the file"),
        (plain(scale=(1, 1e3, 1)), r"-300 to 300 V.* mV read as V\?.*name: 'E/V', unit: mV"),
        (plain("t/s,E/mV,I/A"), r"V read as mV\?.*name: 'E/mV', unit: V"),
        (plain("t/s,I/A,E/V"), r"'I/A' runs straight.*exchanged\?.*name: 'I/A', unit: V"),
        (plain(rows=GAP), r"no reading between 6\.2 and 1006\.4 s \(line 32\), a gap of 1000 s"),
        (plain(scale=(1, 1, 1e40)), r"current reaches 1\.\d+e\+35 A, expected 1e-17 to 1000 A"),
        (plain(scale=(1, 1, 1e-40)), r"current reaches 1\.\d+e-45 A, expected"),
        (plain(scale=(1e9, 1, 1)), r"record takes 1\.2e\+10 s.* unit of the time wrong"),
        (as_text(["t/s", "E/V", "I/A", "Current (A)"], TWO),
         r"2 columns of the current: 1 \('I/A'\), 2 \('Current \(A\)'\); .* curve: 1, or columns"),
        (as_text(["t/s", "E/V", "I/A"], [[str(v).replace(".", ",") for v in r] for r in ROWS]),
         r"line 2 has \d values below 3 headings; with decimal commas, .* 0,1;0,25;1,5e-6"),
        (plain("time,E/V,I/A", scale=(1 / 60, 1, 1)),
         r"'time' states no unit, and in s .* 6 V/s where 0\.1 V/s .* unit: min"),
        (as_text(["E/V", "I/A"], HELD), r"stays at -0\.28 V over 21 readings from line \d+ on"),
        (as_text(["t/s", "E/V", "I/A"], spoiled(7, 2, "overload")),
         r"current of sample 8 .* line 9, column 'I/A', holds 'overload'; expected e\.g\. 0\.25"),
        (as_text(["t/s", "E/V", "I/A"], spoiled(7, 1, "")), r"sample 8 .* holds 'nothing'"),
        (as_text(["t/s", "E/V", "I/A"], spoiled(7, 0, 0.2)),
         r"time does not increase after sample 7 \(line 8\): 1\.4 s, then 0\.2 s"),
        ("a\n0,1 V\n", r"no table of numbers, e\.g\. the row .* line 2 is '0,1 V'"),
        (as_text(["t/s", "E/V", "I/A"], spoiled(5, 1, "0.1x")),
         r"line 7 \('1\.2 0\.1x .*interrupts"),
        (as_text(["t/s", "E/V", "I/A"], spoiled(59, 2, "1.5e")), r"line 61 \('11\.99.*interrupts"),
        (plain() + "\nsecond\n" + plain(), r"line 63 \('second'\) interrupts the table"),
        (plain("t/s,potential,I/A"),
         r"potential among .*'potential' states no unit.*name: 'potential', unit: V"),
    ],
)  # fmt: skip
def test_a_wrong_record_is_refused_in_a_sentence(tmp_path, content, sentence):
    meta = {"scan_rate_V_s": 0.1} if "time,E" in content or content.startswith("E/V,I/A\n") else {}
    with pytest.raises(ArtifactError, match=rf"my trace\.csv: [^\n]*{sentence}[^\n]*$"):
        read(tmp_path, content, **meta)


@pytest.mark.parametrize("cut", [1, 3, 5, 9])
def test_a_number_cut_short_at_the_end_of_the_file_is_left_out_and_said(tmp_path, cut):
    rows = [f"{t:.6f},{e:.6f},{i:.6e}" for t, e, i in ROWS]
    trace = read(tmp_path, "\n".join(["t/s,E/V,I/A", *rows])[:-cut])
    np.testing.assert_allclose(trace.current, [i for _, _, i in ROWS[:-1]], atol=1e-11)
    assert any("line 61 left out: the file ends inside it" in note for note in trace.notes)


def test_a_file_that_lacks_only_the_last_line_end_is_whole(tmp_path):
    rows = [f"{t:.6f},{e:.6f},{i:+.6e}" for t, e, i in ROWS]
    assert len(read(tmp_path, "\n".join(["t/s,E/V,I/A", *rows])).time) == len(ROWS)


@pytest.mark.parametrize("heading", ["time/h", "time (h)", "Time [hours]"])
def test_a_time_in_hours_counts_where_a_rate_is_given(tmp_path, heading):
    content = plain(f"{heading},E/V,I/A", scale=(1 / 3600, 1, 1))
    np.testing.assert_allclose(read(tmp_path, content, scan_rate_V_s=5).time, RECORD.time)


def test_the_same_current_in_two_units_is_no_question(tmp_path):
    rows = [[*row, 1e6 * row[2]] for row in ROWS]
    trace = read(tmp_path, as_text(["t/s", "E/V", "I/A", "I/uA"], rows))
    np.testing.assert_allclose(trace.current, RECORD.current)


# Workbooks ----------------------------------------------------------------------------------------


def test_a_sheet_is_named_where_there_are_several(tmp_path):
    path = tmp_path / "my book.xlsx"
    other = [[t, e, 2 * i] for t, e, i in ROWS]
    headings = ["t/s", "E/V", "I/A"]
    as_workbook(path, {"gold": [headings, *ROWS], "carbon": [headings, *other]})
    np.testing.assert_allclose(read_trace(path, {"sheet": "gold"}).current, RECORD.current)
    np.testing.assert_allclose(read_trace(path, {"sheet": "carbon"}).current, 2 * RECORD.current)
    with pytest.raises(ArtifactError, match=r"my book\.xlsx: .*'gold', 'carbon' .* sheet: gold"):
        read_trace(path, {})
    with pytest.raises(ArtifactError, match="sheet is 'lead', which is none of 'gold', 'carbon'"):
        read_trace(path, {"sheet": "lead"})


def test_a_damaged_workbook_is_named(tmp_path):
    (tmp_path / "my book.xlsx").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ArtifactError, match=r"my book\.xlsx: cannot be read"):
        read_trace(tmp_path / "my book.xlsx", {})


# The electrode ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "scale", "question"),
    [("A", 1e6, "µA read as A"), ("µA", 1e12, "pA read as µA"),
     ("pA", 1e6, "µA read as pA"), ("uA", 1.0, "A read as µA")],
)  # fmt: skip
def test_a_current_that_the_electrode_cannot_carry_is_asked_about(tmp_path, unit, scale, question):
    content = plain(f"t/s,E/V,I/{unit}", scale=(1, 1, scale))
    with pytest.raises(
        ArtifactError, match=rf"my trace\.csv: the current reaches .*: {question}\?"
    ):
        infer_with(tmp_path, content)


@pytest.mark.parametrize("factor", [0.01, 0.1, 1, 10, 100])
def test_a_current_within_a_factor_of_100_is_never_asked_about(tmp_path, factor):
    records, _ = infer_with(tmp_path, plain(scale=(1, 1, factor)))
    assert np.abs(records.observed).max() == pytest.approx(
        factor * np.abs(RECORD.current).max(), rel=0.1
    )


@pytest.mark.parametrize("stated", ["unknown", {"median": 1.0, "factor": 1.1}])
def test_a_concentration_in_doubt_bounds_the_current_too(tmp_path, stated):
    couples = [{"C_ox_mM": stated, "C_red_mM": 0}]
    infer_with(tmp_path, plain(), couples=couples)
    with pytest.raises(ArtifactError, match="µA read as A"):
        infer_with(tmp_path, plain(scale=(1, 1, 1e6)), couples=couples)


def test_no_example_of_the_model_is_asked_about(tmp_path):
    model = load_model("ecsfm")
    for seed in range(3):
        paths = tmp_path / f"{seed}.csv", tmp_path / f"{seed}.yaml"
        model.example(np.random.default_rng(seed), *paths)
        records, _ = measurement.read(*paths, PRIOR, 200)
        written = np.loadtxt(paths[0], delimiter=",", skiprows=2)
        assert records.experiment.duration[0] == pytest.approx(written[-1, 0])


@pytest.mark.skipif(not DATA.is_dir(), reason="the measured data are not here")
def test_every_measured_record_is_read_and_described_without_a_warning(tmp_path):
    files = [*sorted((DATA / "formats").iterdir()), *sorted((DATA / "voltammetry").rglob("*.csv"))]
    assert len(files) >= 11
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for file in files:
            stated = float(file.stem) if file.parent.name.startswith("ruhex_gc") else None
            rate = {} if stated is None else {"scan_rate_V_s": stated}
            assert ("file", file.name) in describe(file)
            trace = read_trace(file, rate)
            assert len(trace.time) >= 50
            meta = {"electrode": {"radius_mm": 1.1}, "couples": META["couples"], **rate}
            if file.parent.name != "formats":
                meta_path = tmp_path / "meta.yaml"
                meta_path.write_text(yaml.safe_dump(meta), encoding="utf-8")
                measurement.read(file, meta_path, PRIOR, 128)


# Metadata -----------------------------------------------------------------------------------------


def meta_of(folder, text):
    path = folder / "my meta.yaml"
    path.write_text(text, encoding="utf-8")
    return read_meta(path)


ELECTRODE = "electrode: {radius_mm: 1.5}\n"
COUPLES = "couples: [{C_ox_mM: 1.0, C_red_mM: 0}]\n"


@pytest.mark.parametrize("number", ["8e-6", "8.0e-6", "8E-06", "0.000008", ".8e-5", "+8e-6"])
def test_numbers_are_written_as_people_write_them(tmp_path, number):
    meta = meta_of(
        tmp_path, f"{ELECTRODE}couples: [{{C_ox_mM: 1, C_red_mM: 0, D_ox_cm2_s: {number}}}]"
    )
    assert meta["couples"][0]["D_ox_cm2_s"] == pytest.approx(8e-6)
    assert meta["couples"][0]["C_ox_mM"] == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (ELECTRODE + COUPLES + "electrode: {radius_mm: 3}\n", r"electrode is there twice .*line 3"),
        ("electrode: {radius_mm: 1.5, radius_mm: 2}\n" + COUPLES, r"radius_mm is there twice"),
        ("electrode: {radius_mm: 010}\n" + COUPLES, r"radius_mm is 010 \(line 1\).*e\.g\. 10"),
        (ELECTRODE + COUPLES + "temperature_C: 1:30\n", r"temperature_C is 1:30 \(line 3\)"),
        (ELECTRODE + COUPLES + "scan_rate_V_s: 0x10\n", "scan_rate_V_s is 0x10"),
        (ELECTRODE + COUPLES + "scan_rate_V_s: 1_000\n", "scan_rate_V_s is 1_000"),
        (ELECTRODE + COUPLES + "scan_rate_V_s: 0,1\n", r"scan_rate_V_s is '0,1', .*e\.g\. 0\.1"),
        ("electrode: {radius_mm: 1e9}\n" + COUPLES, r"electrode\.radius_mm is 1000000000\.0, expect"
         r"ed the radius .* in mm from 0\.0001 to 50, e\.g\. 1\.5"),
        ("electrode: {radius_mm: 1e-9}\n" + COUPLES, r"electrode\.radius_mm is 1e-09, .*0\.0001"),
        (ELECTRODE + "couples: [{C_ox_mM: 1e9, C_red_mM: 0}]\n",
         r"couples\.0\.C_ox_mM is 1000000000\.0, expected .* in mM, .* to 10000, e\.g\. 1\.0"),
        (ELECTRODE + "couples: [{C_ox_mM: 1, C_red_mM: 0, D_ox_cm2_s: 1}]\n",
         r"D_ox_cm2_s is 1, expected .* cm²/s, .* from 1e-09 to 0\.001, e\.g\. 8\.0e-06"),
        (ELECTRODE + "couples: [{C_ox_mM: 1, C_red_mM: 0, D_ox_cm2_s: {median: 1, factor: 2}}]\n",
         r"D_ox_cm2_s\.median is 1, expected a median in cm²/s from 1e-09 to 0\.001"),
        (ELECTRODE + "couples: [{C_ox_mM: {median: 1}, C_red_mM: 0}]\n",
         r"C_ox_mM is \{'median': 1\}, expected .*believed as \{median: 1\.0, factor: 1\.1\}"),
        (ELECTRODE + "couples: [{C_ox_mM: 1, C_red_mM: 0, E0_V: 5}]\n",
         r"E0_V is 5, expected .* in V .* from -4\.5 to 4\.5, e\.g\. -0\.18"),
        (ELECTRODE + COUPLES + "columns: {current: 3}\n",
         r"columns\.current is 3, expected the heading .* e\.g\. \{name: my heading, unit: uA\}"),
        (ELECTRODE + COUPLES + "cycle: second\n", r"cycle is 'second', expected the number .*last"),
        ("electrode: &a [*a]\n", r"not valid YAML \(a part of it holds itself\)"),
        ("electrode: !!python/name:os.system x\n", "not valid YAML"),
        ("? [1, 2]\n: 3\n", "not valid YAML|is no key here"),
        (ELECTRODE + COUPLES + "scan_rate_V_s:\n",
         r"scan_rate_V_s is None, expected .*e\.g\. 0\.1"),
        (ELECTRODE + COUPLES + "hold: {potential_V: 0.2}\n", r"hold: seconds is missing: .* in s"),
        ("electrode: {radius_mm: 1, area_mm2: 3}\n" + COUPLES,
         "either its radius_mm or its area_mm"),
        (ELECTRODE + COUPLES + "curve: []\n", r"curve is \[\], expected the number .* e\.g\. 1"),
        (ELECTRODE + COUPLES + "radius_mm: 3\n", "'radius_mm' is no key here, expected some of"),
        (ELECTRODE, r"couples is missing: a list of the redox couples .*C_ox_mM: 1\.0"),
    ],
)  # fmt: skip
def test_wrong_metadata_are_refused_in_a_sentence(tmp_path, text, sentence):
    with pytest.raises(ArtifactError, match=rf"my meta\.yaml: [^\n]*{sentence}[^\n]*$"):
        meta_of(tmp_path, text)


def test_a_unit_that_is_none_is_refused_by_its_heading(tmp_path):
    with pytest.raises(ArtifactError, match=r"'I/A' states none of the units A, mA.*unit: A"):
        read(tmp_path, plain(), columns={"current": {"name": "I/A", "unit": "furlong"}})
