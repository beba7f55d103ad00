"""Voltammograms as instruments write them, of no instrument: by finite volumes, with known truth.

A couple like hexaammineruthenium on a glassy carbon disc, at a few scan rates, with a cell, white
noise and a baseline linear in the potential. The solver knows nothing of the package, so that what
the package infers from these records is held against something independent.

`python tests/models/ecsfm/voltammograms.py` writes `tests/data/voltammograms/` anew.
"""

from pathlib import Path

import finite_volume
import numpy as np

FOLDER = Path(__file__).parents[2] / "data/voltammograms"
RATES = (0.05, 0.1, 0.2)  # V/s
D_OX, E0 = 7.2e-6, -0.171  # cm^2/s, V
START, TURN, STEP = 0.15, -0.5, 2e-3  # V
COUPLE = {
    "d_ox": D_OX,
    "d_red": 8.3e-6,
    "c_ox": 1e-6,
    "c_red": 0.0,
    "e0": E0,
    "k0": 0.08,
    "alpha": 0.5,
}
CELL = {"area": np.pi * 0.15**2, "resistance": 90.0, "capacitance": 22e-6}
# The solver has no edge.
ELECTRODE = {"radius_mm": 1.5, "shape": "planar"}
META = {"electrode": ELECTRODE, "couples": [{"C_ox_mM": 1.0, "C_red_mM": 0}]}
NOISE, OFFSET, SLOPE = 0.004, 0.01, 0.02  # of the largest current; the slope from end to end


def record(rate):
    """Time (s), potential (V) and current (A) of one cycle at a scan rate, reduction first."""
    n = round((START - TURN) / STEP)
    forth, back = np.linspace(START, TURN, n + 1), np.linspace(TURN, START, n + 1)
    potential = np.concatenate([forth, back[1:]])
    trace = finite_volume.simulate([potential], STEP / rate, [COUPLE], **CELL)
    largest = np.abs(trace.current).max()
    potential = potential[1:]
    line = OFFSET + SLOPE * (potential - TURN) / (START - TURN)
    noise = NOISE * np.random.default_rng(round(1e3 * rate)).standard_normal(2 * n)
    time = STEP / rate * np.arange(1, 2 * n + 1)
    return time, potential, trace.current + largest * (line + noise)


def rows(pattern, *columns):
    """Lines of numbers."""
    return [pattern % row for row in zip(*columns, strict=True)]


def as_csv(time, potential, current):
    """A plain table without time, as of an experimenter who knows the scan rate."""
    lines = ["# synthetic: by finite volumes, not measured", '"Potential, V","Current, A"']
    return "\n".join([*lines, *rows("%.6g,%.7g", potential, current), ""])


def as_ec_lab(time, potential, current):
    """Text of EC-Lab with decimal commas, current in mA."""
    header = [
        "EC-Lab ASCII FILE",
        "Nb header lines : 8                          ",
        "",
        "Cyclic Voltammetry",
        "",
        "Comments : synthetic, by finite volumes",
        "",
        "mode\tox/red\terror\ttime/s\tcontrol/V\tEwe/V\t<I>/mA\tcycle number\t",
    ]
    columns = (time, potential, potential, 1e3 * current)
    table = rows("2\t0\t0\t%.9E\t%.7E\t%.7E\t%.12E\t1.0E+000\t", *columns)
    return "\n".join([*header, *(line.replace(".", ",") for line in table), ""])


def as_ch_instruments(time, potential, current):
    """Text of CH Instruments with two working electrodes, the second of which is silent."""
    header = [
        "Nov. 28, 2026   10:00:00",
        "Cyclic Voltammetry",
        "Data Source:  synthetic, by finite volumes",
        "",
        f"Init E (V) = {START}",
        f"Low E (V) = {TURN}",
        f"Scan Rate (V/s) = {STEP / (time[1] - time[0]):.4g}",
        "Segment = 2",
        "",
        "Potential/V, i1/A, i2/A, Time/s",
        "",
    ]
    table = rows("%.3f, %.7e, %.7e, %.7e", potential, current, 0 * current, time)
    return "\n".join([*header, *table, ""])


def as_gamry(time, potential, current):
    """A .DTA file of one curve."""
    header = [
        "EXPLAIN",
        "TAG\tCV",
        "TITLE\tLABEL\tSynthetic, by finite volumes\tTest &Identifier",
        "DATE\tLABEL\t11/28/2026\tDate",
        "TIME\tLABEL\t10:00:00\tTime",
        f"VINIT\tPOTEN\t{START:.5E}\tF\tInitial &E (V)",
        f"SCANRATE\tQUANT\t{1e3 * STEP / (time[1] - time[0]):.5E}\t&Scan Rate (mV/s)",
        "CURVE1\tTABLE",
        "\tPt\tT\tVf\tIm\tVu\tSig\tAch\tIERange\tOver",
        "\t#\ts\tV vs. Ref.\tA\tV\tV\tV\t#\tbits",
    ]
    pattern = "\t%d\t%.7g\t%.5E\t%.7E\t0.00000E+000\t0.00000E+000\t0.00000E+000\t10\t..........."
    return "\n".join([*header, *rows(pattern, range(len(time)), time, potential, current), ""])


FORMATS = {".mpt": as_ec_lab, ".txt": as_ch_instruments, ".DTA": as_gamry}
IN_FORMATS = 0.1  # V/s, of the record that is there in every format


def main(folder=FOLDER):
    """Write a folder of records by scan rate, and one record in every format."""
    (folder / "scan_rates").mkdir(parents=True, exist_ok=True)
    for rate in RATES:
        made = record(rate)
        (folder / "scan_rates" / f"{rate}.csv").write_text(as_csv(*made), encoding="utf-8")
        if rate == IN_FORMATS:
            for suffix, write in FORMATS.items():
                (folder / f"{rate}{suffix}").write_text(write(*made), encoding="latin-1")


if __name__ == "__main__":
    main()
