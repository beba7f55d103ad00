"""Published measurements, with right and with wrong settings: verdicts, and what absorbs an error.

Needs the records of a folder, `voltammetry/` of which holds the files named below (from
nmerovingian/FreeSim; they are not part of this project), and an artefact: what was trained here, or
the released one.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import yaml

from touchstone import contract
from touchstone.io import settings
from touchstone.io.results import Results, folder
from touchstone.stages import infer, records

GLASSY = "voltammetry/ruhex_gc_scan_rates"
GOLD = "voltammetry/ruhex_au_0.98mM_0.4Vs.csv"
RATES = ("2.50E-02", "5.00E-02", "1.00E-01", "2.00E-01", "4.00E-01")
RUHEX = ["couples.0.species=RuHex"]
WRONG = {  # settings, and what else is said of the current's unit
    "rate x 4": lambda rate: [f"scan_rate_V_s={4 * rate}"],
    "rate / 4": lambda rate: [f"scan_rate_V_s={rate / 4}"],
    "radius x 2": lambda rate: ["electrode.radius_mm=3.0"],
    "concentration x 4": lambda rate: ["couples.0.C_ox_mM=4.0"],
    "sign turned": lambda rate: ["current_sign=reduction_positive"],
    "current / 1,000": lambda rate: ["columns.current={name: 'Current, A', unit: mA}"],
    "a second couple": lambda rate: [
        "couples=[{C_ox_mM: 1.0, C_red_mM: 0}, {C_ox_mM: 1.0, C_red_mM: 0}]"
    ],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="that holds voltammetry/")
    parser.add_argument("--quick", action="store_true", help="right settings only")
    arguments = parser.parse_args()
    model = contract.load_model("ecsfm")
    judge = infer.prepare(model, Results(Path(folder("ecsfm"))))
    print(judge.artefact.words)
    config = settings.load(contract.folders())
    asked = settings.of_stage(config, "ecsfm", "infer")

    def answer(name, files, meta, changes=()):
        with records.prepared(files, meta, list(changes)) as source:
            report = infer.answer(model, asked, judge, source).report
        row = {row["quantity"]: row for row in report["posterior"] if row["record"] in (None, 1)}
        d = row["D_ox_1"]
        unusual = max((value, sign) for record in report["signs"] for sign, value in record.items())
        print(
            f"{name:34} {report['verdict']:9}{report['computation']['verdict']:9}"
            f"{min(report['score'], 99):6.2f} ({report['threshold']:.2f}) {unusual[1]:18}"
            f"D {d['median']:.3g} [{d['interval_90'][0]:.3g}, {d['interval_90'][1]:.3g}]"
            f"  ln evidence {report['computation']['log_evidence']:.1f}"
            + ("  caution" if report["cautions"] else "")
            + (f"  outside: {report['outside_training']}" if report["outside_training"] else ""),
            flush=True,
        )
        return report

    with tempfile.TemporaryDirectory() as place:
        meta = Path(place) / "meta.yaml"
        glassy = {"electrode": {"radius_mm": 1.5}, "couples": [{"C_ox_mM": 1.0, "C_red_mM": 0}]}
        meta.write_text(yaml.safe_dump(glassy))
        for name in (*RATES, "5.00E-03", "1.00E-02"):
            file = arguments.folder / GLASSY / f"{name}.csv"
            answer(f"glassy carbon, {name} V/s", [file], meta, [f"scan_rate_V_s={float(name)}"])
        gold = ["electrode.radius_mm=1.1", "couples.0.C_ox_mM=0.98", "scan_rate_V_s=0.4"]
        answer("gold", [arguments.folder / GOLD], meta, gold)
        if arguments.quick:
            return
        for name in RATES:
            file, rate = arguments.folder / GLASSY / f"{name}.csv", float(name)
            for wrong, changes in WRONG.items():
                said = {change.split("=")[0] for change in changes(rate)}
                rest = [] if "scan_rate_V_s" in said else [f"scan_rate_V_s={rate}"]
                answer(f"{name}: {wrong}", [file], meta, [*changes(rate), *rest])
                if not said & {"couples", "current_sign", "columns.current"}:
                    answer(f"{name}: {wrong}, RuHex", [file], meta, [*changes(rate), *rest, *RUHEX])
        for factor in (1.0, 4.0):
            series = Path(place) / f"series {factor}"
            series.mkdir()
            for name in RATES:
                rate = float(name) * (factor if name == "1.00E-01" else 1.0)
                text = (arguments.folder / GLASSY / f"{name}.csv").read_text()
                (series / f"{name}.csv").write_text(text)
                (series / f"{name}.yaml").write_text(yaml.safe_dump({"scan_rate_V_s": rate}))
            answer(f"all five, one rate x {factor:g}", [series], meta)


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
