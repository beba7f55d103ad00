"""How close fast posteriors come to NUTS on the exact simulator.

    python benchmarks/bench_reference.py [--model ID] [--cases N] [--checkpoint DIR]

Cases are drawn from the prior predictive with every nuisance free and every kind of mask of the
training; the budget is that of `make infer` in config/config.yaml. The chains are kept under
`traces/bench`, those of few unknowns, which take minutes, before those of many: a run that was
stopped goes on. Targets are printed, never asserted.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from touchstone import contract
from touchstone.io import settings
from touchstone.io.results import Results
from touchstone.reliability import comparison
from touchstone.stages import checkpoints, randomness

SEED = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ecsfm")
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--tune", type=int, default=300)
    parser.add_argument("--draws", type=int, default=1000)
    arguments = parser.parse_args()
    model = contract.load_model(arguments.model)
    results = Results(Path("results") / arguments.model)
    checkpoints.load(model, results, arguments.checkpoint or "")
    cases = model.cases(
        arguments.cases,
        np.random.default_rng(SEED),
        randomness.generator(SEED, "stress"),
        {"observed": None, "noise": None},
    )
    cases = cases.take(np.argsort((~cases.known).sum(1), kind="stable"))
    config = settings.load(contract.folders())
    sizes = settings.of_stage(config, arguments.model, "infer")["infer"]
    budgets = {"reweighted": sizes, "flow": {name: sizes[name] for name in ("n_draws", "n_steps")}}
    posteriors = {
        method: model.infer(
            cases, np.random.default_rng(SEED), method=method, budget=budget, label=method
        )
        for method, budget in budgets.items()
    }
    reference = model.reference(
        cases,
        posteriors["reweighted"],
        np.random.default_rng(SEED),
        budget={"n_tune": arguments.tune, "n_draws": arguments.draws},
        folder=results.traces / "bench",
        label="NUTS",
    )
    rows = comparison.beside_reference(model.quantities, cases, posteriors, reference)
    pd.set_option("display.width", 250, "display.max_columns", 30, "display.max_rows", 200)
    print(rows.round(3).to_string())
    print(pd.DataFrame(comparison.summary(rows)).round(3).T.to_string())
    print(f"seconds a case of NUTS, median: {rows['reference_seconds'].median():.0f}")
    print("targets: c2st_median 0.55, c2st_90 0.62, param_nrmse within 3 % of NUTS, width 1.1,")
    print("180 s a case")


if __name__ == "__main__":
    main()
