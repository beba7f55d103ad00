"""Measurements: what instruments write, what people type, and what must not pass for either."""

import math
from pathlib import Path

import jax
import numpy as np
import pytest
import voltammograms
import yaml
from hypothesis import given
from hypothesis import strategies as st

from touchstone.contract import load_model
from touchstone.io.artifacts import ArtifactError
from touchstone.models.ecsfm.data import measurement
from touchstone.models.ecsfm.data.measurement import to_records
from touchstone.models.ecsfm.data.metadata import read_meta
from touchstone.models.ecsfm.data.sampling import to_record
from touchstone.models.ecsfm.data.traces import Trace, read_trace

DATA = Path(__file__).parents[4] / "shared" / "data"
measured = pytest.mark.skipif(not DATA.is_dir(), reason="the measured data are not here")
MODEL = load_model("ecsfm")
PRIOR = MODEL.prior_of_parameters
META = {"electrode": {"radius_mm": 1.5}, "couples": [{"C_ox_mM": 1.0, "C_red_mM": 0}]}

N = 60
TIME = 0.1 * np.arange(1, N + 1)
POTENTIAL = 0.2 - 0.25 * np.abs(np.linspace(-1, 1, N))
CURRENT = 1e-6 * (np.sin(4 * TIME) + 0.2)


def table(headings, columns, separator=",", decimal="."):
    """Text of a file with columns of numbers below their headings."""
    rows = np.char.replace(np.char.mod("%.9e", np.transpose(columns)), ".", decimal)
    return "".join(separator.join(row) + "\n" for row in [headings, *rows])


def plain(**changed):
    """Text of a plain record, some of whose columns are changed."""
    columns = {"time/s": TIME, "potential/V": POTENTIAL, "current/A": CURRENT, **changed}
    return table(columns, list(columns.values()))


def read(folder, content, name="trace.csv", **meta):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_trace(path, meta)


def assert_is_the_record(trace, rtol=1e-6):
    np.testing.assert_allclose(trace.time, TIME, rtol=rtol)
    np.testing.assert_allclose(trace.potential, POTENTIAL, rtol=rtol)
    np.testing.assert_allclose(trace.current, CURRENT, rtol=rtol)


# What instruments wrote ---------------------------------------------------------------------------

RUHEX, GLASSY = "voltammetry/ruhex_au_0.98mM_0.4Vs.csv", "voltammetry/ruhex_gc_scan_rates"
GAMRY, EC_LAB = "formats/FCA_0.1M_NaCl_100mVs.DTA", "formats/Pt_poly_cv_CUT.mpt"
CHI = "formats/50uM_PYO_soak_GC_1.txt"
OWN = voltammograms.FOLDER  # of no instrument, but written as instruments write


def on_disk(file, *about):
    """Arguments of a test of a measured record."""
    return pytest.param(DATA / file, *about, marks=measured)


@pytest.mark.parametrize(
    ("file", "above", "separator", "potential", "current", "unit", "n"),
    [  # lines above the first row, columns of the potential and the current, unit of the current
        on_disk(RUHEX, 1, ",", 0, 1, 1.0, 584),
        on_disk(f"{GLASSY}/1.00E-01.csv", 1, ",", 0, 1, 1.0, 1600),
        on_disk(GAMRY, 64, "\t", 3, 4, 1.0, 3202),
        on_disk(EC_LAB, 73, "\t", 8, 9, 1e-3, 223),
        on_disk(CHI, 22, ",", 0, 1, 1.0, 1200),
        (OWN / "scan_rates/0.1.csv", 2, ",", 0, 1, 1.0, 650),
        (OWN / "0.1.DTA", 10, "\t", 3, 4, 1.0, 650),
        (OWN / "0.1.mpt", 8, "\t", 5, 6, 1e-3, 650),
        (OWN / "0.1.txt", 11, ",", 0, 1, 1.0, 650),
    ],
)
def test_readings_are_those_in_the_file(file, above, separator, potential, current, unit, n):
    trace = read_trace(file, {"scan_rate_V_s": 0.1, "cycle": "all"})
    text = file.read_text(encoding="latin-1")
    lines = (text.replace(",", ".") if file.suffix == ".mpt" else text).splitlines()
    assert len(trace.time) == len(trace.potential) == len(trace.current) == n
    for row in (0, 1, 2, 50, 100, 200, 222):
        fields = lines[above + row].split(separator)
        assert trace.potential[row] == pytest.approx(float(fields[potential]), rel=1e-9)
        assert trace.current[row] == pytest.approx(unit * float(fields[current]), rel=1e-9)


@pytest.mark.parametrize("suffix", voltammograms.FORMATS)
def test_a_record_is_the_same_in_whatever_format_it_was_written(suffix):
    plain = read_trace(OWN / "scan_rates/0.1.csv", {"scan_rate_V_s": 0.1})
    trace = read_trace(OWN / f"0.1{suffix}", {})
    for name in ("time", "potential", "current"):
        np.testing.assert_allclose(getattr(trace, name), getattr(plain, name), rtol=1e-6)


@pytest.mark.nightly
def test_the_records_of_no_instrument_are_what_their_script_makes(tmp_path):
    voltammograms.main(tmp_path)
    for file in (path for path in OWN.rglob("*") if path.is_file()):
        meta = {"scan_rate_V_s": 0.1}
        made, there = (
            read_trace(folder / file.relative_to(OWN), meta) for folder in (tmp_path, OWN)
        )
        np.testing.assert_allclose(made.potential, there.potential)
        np.testing.assert_allclose(made.current, there.current, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
    ("file", "rate", "duration", "range_of_potential"),
    [
        on_disk(RUHEX, 0.4, 2 * 0.7 / 0.4, (-0.6, 0.1)),
        on_disk(GAMRY, 0.1, 2 * 0.8 / 0.1, (-0.8, 0.0)),
        on_disk(CHI, 0.003, 2 * 0.6 / 0.003, (-0.5, 0.1)),
        *(
            (OWN / f"0.1{suffix}", 0.1, 2 * 0.65 / 0.1, (-0.5, 0.15))
            for suffix in voltammograms.FORMATS
        ),
    ],
)
def test_scan_rate_and_duration_are_those_that_the_file_declares(
    file, rate, duration, range_of_potential
):
    trace = read_trace(file, {})
    assert trace.time[-1] == pytest.approx(duration, rel=0.02)
    path = np.abs(np.diff(trace.potential)).sum()
    assert path / (trace.time[-1] - trace.time[0]) == pytest.approx(rate, rel=0.02)
    assert (trace.potential.min(), trace.potential.max()) == pytest.approx(
        range_of_potential, abs=0.01
    )


@pytest.mark.parametrize(
    "file",
    [*sorted(DATA.glob(f"{GLASSY}/*.csv")), *sorted(OWN.glob("scan_rates/*.csv"))],
    ids=lambda file: file.stem,
)
def test_a_series_of_scan_rates_shows_reduction_first_and_takes_its_time_from_the_rate(file):
    rate = float(file.stem)
    with pytest.raises(ArtifactError, match=r"has no time; give scan_rate_V_s"):
        read_trace(file, {})
    trace = read_trace(file, {"scan_rate_V_s": rate})
    width = 0.65 if OWN in file.parents else 0.8  # V
    assert trace.time[-1] == pytest.approx(2 * width / rate, rel=0.01)
    lowest, highest = np.argmin(trace.current), np.argmax(trace.current)
    assert lowest < len(trace.current) / 2 < highest  # Ru(III) is reduced, then oxidised back
    assert trace.current[lowest] < 0 < trace.current[highest]
    assert trace.potential[lowest] < -0.1765 < trace.potential[highest]  # E0 against SCE


@measured
def test_the_current_of_a_decimal_comma_file_is_in_milliampere():
    trace = read_trace(DATA / EC_LAB, {"cycle": "all"})
    assert trace.current[0] == pytest.approx(-2.604324994466466e-6)
    assert trace.potential[0] == pytest.approx(0.87869531)
    assert np.diff(trace.time)[0] == pytest.approx(0.666, abs=2e-3)


# What people export -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headings", "units"),
    [  # how much of the unit is one second, volt, ampere
        (("time/s", "potential/V", "current/A"), (1, 1, 1)),
        (("Time (s)", "Potential (V)", "Current (A)"), (1, 1, 1)),
        (("time_ms", "voltage_mV", "current_uA"), (1e3, 1e3, 1e6)),
        (("t [min]", "E [mV]", "i [nA]"), (1 / 60, 1e3, 1e9)),
        (("Elapsed Time s", "Ewe/V", "<I>/mA"), (1, 1, 1e3)),
        (("T/s", "Vf/V", "Im/A"), (1, 1, 1)),
        (("time/sec", "E/V", "i1/A"), (1, 1, 1)),
        (("Time (s)", "E (V vs. Ag/AgCl)", "I (µA)"), (1, 1, 1e6)),
        (("t/s", "Potential vs. SCE (V)", "I/μA"), (1, 1, 1e6)),
        (("t/s", "E/V vs Ag/AgCl", "I/pA"), (1, 1, 1e12)),
    ],
)
@pytest.mark.parametrize(
    ("separator", "decimal"), [("\t", ","), (";", ","), ("\t", "."), (";", ".")]
)
def test_headings_and_units_are_recognised(tmp_path, headings, units, separator, decimal):
    columns = [n * values for n, values in zip(units, (TIME, POTENTIAL, CURRENT), strict=True)]
    assert_is_the_record(read(tmp_path, table(headings, columns, separator, decimal)))


@pytest.mark.parametrize("separator", [",", ", ", ";", "\t", " ", "   "])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("above", ["", "# a comment\n", "Instrument X\nDate: 1, 2\n\n"])
def test_separators_line_ends_and_text_above_the_table_do_not_matter(
    tmp_path, separator, end, above
):
    content = above + table(("t/s", "E/V", "I/A"), (TIME, POTENTIAL, CURRENT), separator)
    assert_is_the_record(read(tmp_path, content.replace("\n", end), "trace.txt"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_encodings_and_paths_with_spaces_do_not_matter(tmp_path, encoding):
    content = table(("time/s", "E/V", "I/µA"), (TIME, POTENTIAL, 1e6 * CURRENT))
    assert_is_the_record(read(tmp_path, content.encode(encoding), "my gold électrode 1.csv"))


def test_other_columns_in_any_order_do_not_matter(tmp_path):
    columns = {
        "index": np.arange(N),
        "control/V": 0 * TIME,
        "I/mA": 1e3 * CURRENT,
        "Q/C": CURRENT,
        "E/V": POTENTIAL,
        "time/s": TIME,
    }
    assert_is_the_record(read(tmp_path, table(columns, list(columns.values()))))


def test_whole_numbers_before_the_first_decimal_comma_do_not_matter(tmp_path):
    rows = [f"{k + 1};{-0.05 * k:g};{k % 7}".replace(".", ",") for k in range(N)]
    trace = read(tmp_path, "\n".join(["t/s;E/V;I/mA", *rows]))
    np.testing.assert_allclose(trace.potential, -0.05 * np.arange(N), atol=1e-12)


@pytest.mark.parametrize("wanted", ["WE(1).Current (A)", "Current (A vs nothing)"])
def test_columns_may_be_named_in_the_metadata(tmp_path, wanted):
    content = table(("time/s", "E/V", "I/A", wanted), (TIME, POTENTIAL, 2 * CURRENT, CURRENT))
    assert_is_the_record(read(tmp_path, content, columns={"current": wanted}))


def test_a_current_density_is_not_taken_for_a_current(tmp_path):
    content = table(("t/s", "E/V", "Current (mA/cm2)"), (TIME, POTENTIAL, CURRENT))
    with pytest.raises(ArtifactError, match=r"trace\.csv: no column is recognised as the current"):
        read(tmp_path, content)


@pytest.mark.parametrize("meta", [{}, {"scan_rate_V_s": 0.5}])
def test_time_comes_from_the_scan_rate_where_it_is_missing(tmp_path, meta):
    sweep = np.concatenate([np.linspace(0.5, -0.5, N // 2 + 1), np.linspace(-0.5, 0.5, N // 2)[1:]])
    columns = (sweep, CURRENT, np.full(N, 200.0))
    trace = read(tmp_path, table(("E/V", "I/A", "Scan rate (mV/s)"), columns), **meta)
    rate = meta.get("scan_rate_V_s", 0.2)  # the metadata have the last word
    step = 1 / (N // 2)
    np.testing.assert_allclose(np.diff(trace.time), np.abs(np.diff(sweep)) / rate)
    assert trace.time[0] == pytest.approx(step / rate, rel=0.05)  # one interval after the start


def test_the_sign_is_turned_where_reduction_is_written_positive(tmp_path):
    iupac = read(tmp_path, plain(), current_sign="oxidation_positive")
    turned = read(tmp_path, plain(), current_sign="reduction_positive")
    assert_is_the_record(iupac)
    np.testing.assert_array_equal(turned.current, -iupac.current)
    assert any("sign" in note for note in turned.notes)


def test_the_reference_electrode_is_named(tmp_path):
    assert "potentials against SCE" in read(tmp_path, plain(), reference="SCE").notes
    assert not any("against" in note for note in read(tmp_path, plain()).notes)


def test_a_record_that_starts_at_zero_started_one_interval_before(tmp_path):
    shifted = read(tmp_path, plain(**{"time/s": TIME - TIME[0]}))
    assert_is_the_record(shifted)


# What is no measurement ---------------------------------------------------------------------------


def spoiled(values, index, value):
    return np.array([*values[:index], value, *values[index + 1 :]])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "holds no table of numbers"),
        ("nothing\nto see, here\n", "holds no table of numbers"),
        ("time/s,potential/V,current/A\n", "holds no table of numbers"),
        ("1,2,3\n2,3,4\n", "the columns have no headings"),
        ("time/s,potential/V,current/A\n1,2,3\n", "1 samples, at least 24 are needed"),
        ("\n".join(plain().splitlines()[:20]), "19 samples, at least 24"),
        (
            plain(**{"current/A": spoiled(CURRENT, 6, np.nan)}),
            "current of sample 7 is not a finite",
        ),
        (plain(**{"time/s": spoiled(TIME, 6, np.inf)}), "time of sample 7 is not a finite"),
        (plain() + "1.0,oops,2.0\n", "potential of sample 61 is not a finite"),
        (plain(**{"time/s": spoiled(TIME, 6, TIME[5])}), "time does not increase after sample 6"),
        (plain(**{"time/s": TIME[::-1]}), "time does not increase after sample 1"),
        (plain(**{"current/A": 0 * CURRENT}), "the current is the same throughout"),
        (plain(**{"potential/V": 0 * CURRENT + 0.1}), "the potential is the same throughout"),
        (
            plain().replace("current/A", "current"),
            "recognised as the current among .*name it under",
        ),
        (plain().replace("potential/V", "potential/K"), "recognised as the potential among"),
        (plain().replace("time/s", "index"), "has no time; give scan_rate_V_s in the metadata"),
        (plain() + "1,2,3,4,5,6\n", "line 62 has 6 values below 3 headings"),
        (b"\x00\x01\x02\xff" * 50, "holds no table of numbers"),
    ],
)
def test_what_is_no_experiment_is_refused_with_the_file_and_the_reason(
    tmp_path, content, complaint
):
    with pytest.raises(ArtifactError, match=rf"my trace\.csv: .*{complaint}"):
        read(tmp_path, content, "my trace.csv")


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"current": "I"}, "columns.current is 'I', which is none of 'time/s', 'potential/V'"),
        ({"current": "time/s"}, "the heading 'time/s' states none of the units A, mA"),
    ],
)
def test_a_column_that_the_metadata_name_must_be_there_and_have_a_unit(
    tmp_path, columns, complaint
):
    with pytest.raises(ArtifactError, match=rf"trace\.csv: {complaint}"):
        read(tmp_path, plain(), columns=columns)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("trace.dta", "EXPLAIN\nTAG\tCV\n", "holds no curve"),
        ("trace.mpr", "BIO-LOGIC MODULAR FILE", r"needs the extra 'biologic'|cannot be read"),
    ],
)
def test_a_damaged_instrument_file_is_refused_by_name(tmp_path, name, content, complaint):
    with pytest.raises(ArtifactError, match=rf"{name}: .*({complaint})"):
        read(tmp_path, content, name)


@pytest.mark.parametrize("reader", [read_meta, lambda path: read_trace(path, {})])
def test_a_missing_file_is_named(tmp_path, reader):
    with pytest.raises(ArtifactError, match=r"not here\.csv: no such file"):
        reader(tmp_path / "not here.csv")


# Series -------------------------------------------------------------------------------------------


@pytest.fixture
def series(tmp_path):
    """Three records of one couple without time, whose scan rates stand beside them."""
    folder = tmp_path / "scans"
    folder.mkdir()
    sweep = np.concatenate([np.linspace(0.3, -0.3, 60), np.linspace(-0.29, 0.3, 60)])
    for number, rate in enumerate((0.05, 0.1, 0.2)):
        rows = [f"{e:.6f},{np.sin(5 * e) * rate**0.5:.6f}" for e in sweep]
        record = folder / f"scan {number}.csv"
        record.write_text("\n".join(["potential/V,current/uA", *rows]))
        record.with_suffix(".yaml").write_text(f"scan_rate_V_s: {rate}")
    (folder / ".hidden").write_text("not a record")
    meta = tmp_path / "scans.yaml"
    couples = [{"C_ox_mM": 1.0, "C_red_mM": 0}]
    meta.write_text(yaml.safe_dump({"electrode": {"radius_mm": 1.5}, "couples": couples}))
    return folder, meta


def test_a_folder_is_a_series_and_what_is_said_of_one_record_counts_for_it(series):
    cases, notes = measurement.read(*series, PRIOR, 64)
    assert cases.observed.shape == (3, 64)
    np.testing.assert_allclose(cases.experiment.duration, [24.0, 12.0, 6.0], rtol=0.02)
    np.testing.assert_allclose(cases.experiment.radius, 0.15)
    assert [note for note in notes if note.startswith("record 2, scan 1.csv: time from")]


def test_a_series_has_its_couples_in_common(series):
    folder, meta = series
    own = folder / "scan 1.yaml"
    own.write_text("scan_rate_V_s: 0.1\ncouples: [{C_ox_mM: 2.0, C_red_mM: 0}]")
    with pytest.raises(
        ArtifactError, match=r"scan 1\.yaml: couples: scan 0\.csv has others, .* in common"
    ):
        measurement.read(folder, meta, PRIOR, 64)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("scan 4.yml", "scan_rate_V_s: 1", r"scan 4\.yml: there is no record of this name"),
        ("scan 1.YML", "scan_rate_V_s: 1", r"scan 1.*: scan 1.* has the same name"),
        ("scan 1.txt", "E/V,i/A", r"scan 1\.txt: scan 1\.csv has the same name"),
        ("scan 3.csv", "E/V,i/uA,t/s\n" + "".join(f"{k / 9},{k % 7},{k}\n" for k in range(30)),
         r"scan 3\.csv: its potentials are others than the -0\.3 to 0\.3 V of scan 0\.csv"),
    ],
)  # fmt: skip
def test_a_series_with_a_file_that_does_not_belong_is_refused(series, name, content, complaint):
    folder, meta = series
    (folder / name).write_text(content)
    with pytest.raises(ArtifactError, match=complaint):
        measurement.read(folder, meta, PRIOR, 64)


def test_metadata_within_the_folder_are_of_all(series):
    folder, meta = series
    inside = meta.rename(folder / "all.yaml")
    assert len(measurement.read(folder, inside, PRIOR, 64)[0].observed) == 3


def test_a_series_without_records_is_named(series):
    folder, meta = series
    for file in folder.glob("scan*"):
        file.unlink()
    with pytest.raises(ArtifactError, match="scans: holds no record"):
        measurement.read(folder, meta, PRIOR, 64)


@pytest.mark.parametrize("said", ["3", "- 1", ""])
def test_metadata_that_are_no_mapping_are_refused(tmp_path, said):
    with pytest.raises(
        ArtifactError, match=r"meta\.yaml: metadata: .* is no mapping of keys to values"
    ):
        meta_of(tmp_path, said)


# Metadata -----------------------------------------------------------------------------------------


def meta_of(folder, content):
    path = folder / "meta.yaml"
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    path.write_text(text, encoding="utf-8")
    return read_meta(path)


def test_metadata_of_only_an_electrode_and_a_couple_are_enough(tmp_path):
    assert meta_of(tmp_path, META) == META


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "metadata: None is no mapping of keys"),
        ("a: [1", "not valid YAML"),
        ({"couples": META["couples"]}, "metadata: electrode is missing: .*radius_mm: 1.5"),
        ({**META, "scanrate": 0.1}, "'scanrate' is no key here, .*scan_rate_V_s is meant"),
        (
            {**META, "electrode": {"radius_mm": "1.5 mm"}},
            r"electrode\.radius_mm is '1.5 mm', .* in mm",
        ),
        ({**META, "electrode": {"radius_mm": 0}}, r"electrode\.radius_mm is 0, .* 0\.0001 to 50"),
        ({**META, "electrode": {"radius_mm": True}}, r"electrode\.radius_mm is True, expected"),
        (
            {**META, "electrode": {"radius_mm": math.nan}},
            "radius_mm holds a number that is not",
        ),
        (
            {**META, "electrode": {"radius_mm": 1, "shape": "cube"}},
            r"electrode\.shape is 'cube', expected disc or",
        ),
        ({**META, "couples": []}, r"couples is \[\], expected a list"),
        ({**META, "couples": [{"C_ox_mM": 1}]}, r"couples\.0: C_red_mM is missing"),
        (
            {**META, "couples": [{"C_ox_mM": -1, "C_red_mM": 0}]},
            r"couples\.0\.C_ox_mM is -1, .* unknown",
        ),
        (
            {**META, "couples": [{"C_ox_mM": "1 mM", "C_red_mM": 0}]},
            r"couples\.0\.C_ox_mM is '1 mM'",
        ),
        (
            {**META, "couples": [{"C_ox_mM": 1, "C_red_mM": 0, "alpha": 1}]},
            r"couples\.0\.alpha is 1",
        ),
        ({**META, "temperature_C": 298.15}, "temperature_C is 298.15, .* to 100"),
        ({**META, "current_sign": "up"}, "current_sign is 'up', expected oxidation_positive or"),
        ({**META, "columns": {"volts": "E"}}, "columns: 'volts' is no key here"),
    ],
)
def test_metadata_that_say_what_they_may_not_are_refused_with_the_entry(
    tmp_path, content, complaint
):
    with pytest.raises(ArtifactError, match=rf"meta\.yaml: .*{complaint}"):
        meta_of(tmp_path, content)


def case_of(couples, **more):
    trace = Trace(TIME, POTENTIAL, CURRENT, ())
    case = to_records(trace, {**META, "couples": couples, **more}, PRIOR, N)
    one = jax.tree.map(lambda a: a[0], case)
    natural = PRIOR.natural(one.z, one.experiment)
    active = np.asarray(PRIOR.active(one.experiment.present))
    known = dict(zip(PRIOR.names, one.known & active, strict=True))
    return one, dict(zip(PRIOR.names, np.asarray(natural, float), strict=True)), known


def test_what_the_metadata_state_is_known_and_nothing_else():
    stated = {"D_ox_cm2_s": 7.86e-6, "D_ratio": 1.1, "E0_V": 0.12, "k0_cm_s": 0.02, "alpha": 0.45}
    couple = {"C_ox_mM": 0.98, "C_red_mM": "unknown", **stated}
    case, natural, known = case_of([couple], resistance_ohm=120.0, capacitance_uF_cm2=25.0)
    expected = {
        "C_ox_1": math.log(0.98),
        "D_ox_1": math.log(7.86e-6),
        "D_ratio_1": math.log(1.1),
        "E0_1": 0.12,
        "k0_1": math.log(0.02),
        "alpha_1": 0.45,
        "resistivity": math.log(4 * 0.15 * 120),
        "C_dl": math.log(25),
    }
    assert {name for name, is_known in known.items() if is_known} == set(expected)
    assert {name: natural[name] for name in expected} == pytest.approx(expected, abs=1e-3)
    np.testing.assert_array_equal(case.experiment.present, [[True, True], [False, False]])
    np.testing.assert_allclose(case.observed, CURRENT, rtol=1e-6)
    assert case.mask.mean() > 0.85  # but for where the double layer settles


def test_a_formal_potential_of_zero_volt_is_known():
    _, natural, known = case_of([{"C_ox_mM": 1.0, "C_red_mM": 0, "E0_V": 0.0}])
    assert known["E0_1"]
    assert natural["E0_1"] == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(
    ("shape", "area", "curvature"),
    [
        ("planar", math.pi, 0),
        ("disc", math.pi, 1 / 0.15),
        ("hemisphere", 2 * math.pi, 1 / 0.15),
        ("sphere", 4 * math.pi, 1 / 0.15),
    ],
)
def test_the_electrode_is_what_the_metadata_say(shape, area, curvature):
    by_radius = {"radius_mm": 1.5, "shape": shape}
    by_area = {"area_mm2": area * 1.5**2, "shape": shape}
    case, other = (
        case_of(META["couples"], electrode=electrode, temperature_C=30)[0]
        for electrode in (by_radius, by_area)
    )
    assert float(other.experiment.radius) == pytest.approx(0.15, rel=1e-5)
    assert float(case.experiment.area) == pytest.approx(area * 0.15**2, rel=1e-5)
    assert case.experiment.curvature == pytest.approx(curvature)
    assert case.experiment.temperature == pytest.approx(303.15)
    assert case.experiment.duration == pytest.approx(TIME[-1])


PAIR = {"C_ox_mM": 1.0, "C_red_mM": 1.0}


@pytest.mark.parametrize(
    ("couples", "complaint"),
    [
        ([PAIR] * 3, "3 given, at most 2 are modelled"),
        ([PAIR, {"C_ox_mM": 0, "C_red_mM": 0}], "neither form of couple 2"),
        ([{**PAIR, "E0_V": 0.2}, {**PAIR, "E0_V": 0.1}], "E0_V must ascend"),
        ([PAIR, {**PAIR, "E0_V": 0.1}], "needs that of the couples before"),
    ],
)
def test_couples_that_are_not_of_the_prior_are_refused_by_the_metadata_file(
    tmp_path, couples, complaint
):
    (tmp_path / "trace.csv").write_text(plain())
    (tmp_path / "meta.yaml").write_text(yaml.safe_dump({**META, "couples": couples}))
    with pytest.raises(ArtifactError, match=rf"meta\.yaml: .*{complaint}"):
        measurement.read(tmp_path / "trace.csv", tmp_path / "meta.yaml", PRIOR, N)


# The record ---------------------------------------------------------------------------------------


@given(
    n=st.integers(24, 3000),
    n_samples=st.integers(8, 300),
    duration=st.floats(1e-3, 1e3),
    slopes=st.tuples(*[st.sampled_from([-2.0, -0.3, 0.0, 1.0])] * 2),
)
def test_a_straight_line_stays_straight(n, n_samples, duration, slopes):
    time = duration * np.arange(1, n + 1) / n
    lines = [slope * time / duration + 0.1 for slope in slopes]
    *records, mask, length = to_record(Trace(time, *lines, ()), n_samples)
    at = np.arange(1, n_samples + 1) / n_samples
    inside = at >= 1 / n  # no reading is before the first
    for record, slope in zip(records, slopes, strict=True):
        np.testing.assert_allclose(record[inside], slope * at[inside] + 0.1, atol=1e-9)
    assert mask.all()
    assert length == pytest.approx(duration)


def test_a_record_of_the_wanted_length_is_left_alone():
    rng = np.random.default_rng(0)
    current = rng.standard_normal(N)
    potential, record, mask, _ = to_record(Trace(TIME, POTENTIAL, current, ()), N)
    np.testing.assert_allclose(potential, POTENTIAL)
    np.testing.assert_allclose(record, current)
    assert mask.all()


def test_samples_at_the_start_and_the_reversals_do_not_count():
    case, _, _ = case_of(META["couples"])
    out = np.flatnonzero(~case.mask)
    turn = int(np.argmax(np.abs(POTENTIAL - POTENTIAL[0])))
    assert 0 in out and turn in out
    sweep = N // 2
    assert all(k < 0.1 * sweep or -0.03 * sweep < k - turn < 0.1 * sweep for k in out)


def test_a_hold_before_the_scan_is_a_part_of_the_record_that_nobody_saw():
    hold = {"potential_V": 0.6, "seconds": TIME[-1] / 3}
    case, _, _ = case_of(META["couples"], hold=hold)
    n_held = N // 4
    assert not case.mask[:n_held].any()
    np.testing.assert_allclose(case.experiment.potential[:n_held], 0.6, rtol=1e-6)
    assert case.experiment.duration == pytest.approx(TIME[-1] * 4 / 3, rel=1e-2)
    np.testing.assert_allclose(case.experiment.potential[-1], POTENTIAL[-1], rtol=1e-5)


def test_readings_are_averaged_so_that_their_noise_shrinks():
    n, n_samples = 64_000, 640
    time = np.arange(1, n + 1) / n
    noise = np.random.default_rng(0).standard_normal(n)
    _, current, _, _ = to_record(Trace(time, np.sin(7 * time), noise, ()), n_samples)
    usual = 1.4826 * np.median(np.abs(current))  # the scan turns twice, where they are not
    assert usual == pytest.approx(0.1, rel=0.15)  # 100 readings a sample


@pytest.mark.parametrize("n", [1600, 1583, 3200])
def test_samples_differ_smoothly_however_many_readings_fall_to_each(n):
    """A mean of six readings here and seven there would look like noise where a curve bends."""
    n_samples = 256
    time = np.arange(1, n + 1) / n
    _, current, _, _ = to_record(Trace(time, time - 0.5, time**2, ()), n_samples)
    bend = np.diff(current, 2)[2:-2] * n_samples**2
    np.testing.assert_allclose(bend, 2.0, rtol=1e-3)


def test_a_jump_of_the_potential_is_not_averaged_away():
    n, n_samples = 1000, 100
    time = np.arange(1, n + 1) / n
    potential = np.where(time > 0.5, 0.4, -0.2)
    record, current, _, _ = to_record(Trace(time, potential, 1 / time, ()), n_samples)
    np.testing.assert_allclose(record, np.where(np.arange(n_samples) < 50, -0.2, 0.4))
    np.testing.assert_allclose(current, n_samples / np.arange(1, n_samples + 1))


@pytest.mark.parametrize(("n", "n_samples"), [(400, 100), (100, 100), (100, 400)])
def test_the_mask_marks_the_gaps_in_a_record(n, n_samples):
    time = np.arange(1, n + 1) / n
    there = (time < 0.3) | (time > 0.5)
    trace = Trace(time[there], time[there] - 0.5, 2 * time[there], ())
    _, current, mask, _ = to_record(trace, n_samples)
    at = np.arange(1, n_samples + 1) / n_samples
    near = 1.5 / min(n, n_samples)
    assert mask[(at < 0.3 - near) | (at > 0.5 + near)].all()
    assert not mask[(at > 0.3 + near) & (at < 0.5 - near)].any()
    np.testing.assert_allclose(current[at >= time[0]], 2 * at[at >= time[0]], atol=1e-9)


# The example --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """Trace and metadata that the model wrote, as files."""
    folder = tmp_path_factory.mktemp("an example")
    MODEL.example(np.random.default_rng(3), folder / "trace.csv", folder / "meta.yaml")
    return folder / "trace.csv", folder / "meta.yaml"


def test_the_example_reads_back_as_it_was_written(example):
    trace_path, meta_path = example
    rows = [line.split(",") for line in trace_path.read_text().splitlines()[2:]]
    time, potential, microampere = np.array(rows, float).T
    cases, notes = measurement.read(trace_path, meta_path, PRIOR, len(rows))
    case = jax.tree.map(lambda a: a[0], cases)
    current = 1e-6 * microampere
    np.testing.assert_allclose(case.observed, current, atol=1e-6 * np.abs(current).max())
    np.testing.assert_allclose(case.experiment.potential, potential, atol=1e-6)
    assert case.experiment.duration == pytest.approx(time[-1])
    assert any("current/uA" in note for note in notes)


def test_the_example_says_that_it_is_simulated_and_with_what(example):
    trace_path, meta_path = example
    assert "synthetic" in trace_path.read_text().splitlines()[0]
    meta = read_meta(meta_path)
    assert meta["synthetic"] is True
    cases, _ = measurement.read(trace_path, meta_path, PRIOR, 256)
    case = jax.tree.map(lambda a: a[0], cases)
    known = np.array(PRIOR.names)[case.known & PRIOR.active(case.experiment.present)]
    assert {"C_ox_1", "C_red_1"} >= set(known)
    assert meta["truth"]["C_ox_1"] == meta["couples"][0]["C_ox_mM"]
    assert np.ptp(case.experiment.potential) > 0.3
    low, high = case.experiment.potential.min(), case.experiment.potential.max()
    assert low < meta["truth"]["E0_1"] < high


def test_the_noise_of_the_example_is_what_its_truth_says(example):
    trace_path, meta_path = example
    rows = [line.split(",") for line in trace_path.read_text().splitlines()[2:]]
    bend = np.diff([float(row[2]) for row in rows], 2)  # of white noise: sd times sqrt(6)
    sd = 1.4826 * np.median(np.abs(bend)) / np.sqrt(6)
    assert read_meta(meta_path)["truth"]["noise"] == pytest.approx(sd, rel=0.2)
