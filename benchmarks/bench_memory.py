"""How much memory inferences of many different records take in one process.

    python benchmarks/bench_memory.py CHECKPOINT RECORDS [--inferences 30]

CHECKPOINT is the folder of a checkpoint; RECORDS is one of voltammograms of one reversible couple
at a disc, named by their scan rates in V/s (such as `1.00E-01.csv`). They are cut to different
lengths, taken one by one and several at once, with different parameters known, by a model that is
loaded anew each time. Printed are, after each inference, the time it took and the most memory
that the process has held (resident set). It should be flat after the first few; target: 3 GB.
"""

import argparse
import itertools
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from touchstone import contract
from touchstone.contract import Model, load_model
from touchstone.io import settings
from touchstone.vocabulary import Cases

ROOT = Path(__file__).parents[1]
META = {"electrode": {"radius_mm": 1.5}, "couples": [{"C_ox_mM": 1.0, "C_red_mM": 0}]}
PARTS = (1.0, 0.9, 0.8)  # of a record, from its start
KNOWN = ((), ("resistivity",), ("C_dl", "alpha_1"))
N_RECORDS = (1, 1, 2, 3)


def cut(source: Path, part: float, folder: Path) -> Path:
    """A copy of the first part of a record."""
    header, *rows = source.read_text("utf-8").splitlines()
    path = folder / source.name
    path.write_text("\n".join([header, *rows[: int(part * len(rows))]]), "utf-8")
    return path


def read(model: Model, records: list[Path], part: float, known: tuple[str, ...]) -> Cases:
    """Records of one system, with some parameters known: at the centre of the prior."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "records"
        folder.mkdir()
        for record in records:
            own = cut(record, part, folder).with_suffix(".yaml")
            own.write_text(f"scan_rate_V_s: {float(record.stem)}", "utf-8")
        meta = folder.with_suffix(".yaml")
        meta.write_text(yaml.safe_dump(META), "utf-8")
        cases, _ = model.read(folder, meta)
    is_known = np.isin([quantity.name for quantity in model.quantities], known)
    detail = cases.detail._replace(known=cases.detail.known | is_known)
    return cases._replace(known=cases.known | is_known, detail=detail)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("records", type=Path)
    parser.add_argument("--inferences", type=int, default=30)
    arguments = parser.parse_args()
    budget = settings.load(contract.folders(), ROOT / "config/config.yaml")["ecsfm"]["infer"]
    records = sorted(arguments.records.glob("*.csv"), key=lambda path: float(path.stem))
    kinds = itertools.cycle(itertools.product(PARTS, KNOWN, N_RECORDS))
    for number, (part, known, n_records) in zip(range(arguments.inferences), kinds, strict=False):
        model = load_model("ecsfm")
        model.load(arguments.checkpoint)
        first = number % (len(records) - n_records + 1)
        cases = read(model, records[first : first + n_records], part, known)
        start = time.perf_counter()
        rng = np.random.default_rng(number)
        posterior = model.infer(cases, rng, method=model.methods[0], budget=budget)
        took = time.perf_counter() - start
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{number + 1:3d}  {n_records} records, {part:.0%}, known {', '.join(known) or '-'}: "
            f"{took:.1f} s, {memory:.2f} GB; {posterior.computation.reason(0)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
