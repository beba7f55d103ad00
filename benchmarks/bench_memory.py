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

import jax
import numpy as np
import yaml

from touchstone.contract import load_model

N = 256
CONFIG = yaml.safe_load((Path(__file__).parents[1] / "config/config.yaml").read_text("utf-8"))
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


def read(model, records: list[Path], part: float, known: tuple[str, ...], folder: Path):
    """Cases of some records, with some parameters known: they are at the centre of the prior."""
    cases = []
    for record in records:
        meta = {**META, "scan_rate_V_s": float(record.stem)}
        (folder / "meta.yaml").write_text(yaml.safe_dump(meta), "utf-8")
        cases.append(model.read(cut(record, part, folder), folder / "meta.yaml", N)[0])
    cases = jax.tree.map(lambda *arrays: np.concatenate(arrays), *cases)
    names = [parameter.name for parameter in model.parameters]
    return cases._replace(known=cases.known | np.isin(names, known))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("records", type=Path)
    parser.add_argument("--inferences", type=int, default=30)
    arguments = parser.parse_args()
    budget = {name: CONFIG["infer"][name] for name in ("n_draws", "n_steps", "reweight")}
    records = sorted(arguments.records.glob("*.csv"), key=lambda path: float(path.stem))
    kinds = itertools.cycle(itertools.product(PARTS, KNOWN, N_RECORDS))
    for number, (part, known, n_records) in zip(range(arguments.inferences), kinds, strict=False):
        model = load_model("ecsfm")
        first = number % (len(records) - n_records + 1)
        with tempfile.TemporaryDirectory() as folder:
            chosen = records[first : first + n_records]
            cases = read(model, chosen, part, known, Path(folder))
        start = time.perf_counter()
        method = "joint" if n_records > 1 else "reweighted"
        checkpoint = model.load_checkpoint(arguments.checkpoint)
        posterior = model.infer(checkpoint, cases, jax.random.key(number), method=method, **budget)
        took = time.perf_counter() - start
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{number + 1:3d}  {n_records} records, {part:.0%}, known {', '.join(known) or '-'}: "
            f"{took:.1f} s, {memory:.2f} GB, k-hat {posterior.k_hat[0]:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
