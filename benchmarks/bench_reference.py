"""How close fast posteriors come to NUTS on the exact simulator.

    python benchmarks/bench_reference.py [--model ID] [--cases N] [--checkpoint DIR]

Cases are drawn from the prior predictive with every nuisance free and every kind of mask of the
training; the budget is that of `make infer` in config/config.yaml. The chains are kept under
`traces/bench`, those of few unknowns, which take minutes, before those of many: a run that was
stopped goes on. Targets are printed, never asserted.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import yaml

from touchstone.contract import load_model
from touchstone.io import artifacts
from touchstone.stages import randomness, reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ecsfm")
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--tune", type=int, default=300)
    parser.add_argument("--draws", type=int, default=1000)
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    results = Path("results") / arguments.model
    folder = arguments.checkpoint or artifacts.newest_checkpoint(results / "checkpoints")
    checkpoint = model.load_checkpoint(Path(folder))
    settings = {"n_cases": arguments.cases, "observed": None, "noise": None}
    rng = np.random.default_rng(20)
    base = model.base_cases(rng, settings, checkpoint.meta["n_points"])
    cases = model.variant(base, randomness.key(20, "stress"))
    order = np.argsort((~cases.known).sum(1), kind="stable")
    base, cases = base.take(order), cases.take(order)
    sizes = yaml.safe_load(Path("config/config.yaml").read_text(encoding="utf-8"))["infer"]
    flow = {name: sizes[name] for name in ("n_draws", "n_steps")}
    budgets = {"reweighted": {**flow, "reweight": sizes["reweight"]}, "flow": flow}
    posteriors = {
        method: model.infer(
            checkpoint, cases, jax.random.key(20), method=method, label=method, **budget
        )
        for method, budget in budgets.items()
    }
    rows = reference.compare(
        model,
        base,
        cases,
        posteriors,
        n_tune=arguments.tune,
        n_draws=arguments.draws,
        seed=20,
        folder=results / "traces" / "bench",
        label="NUTS",
    )
    pd.set_option("display.width", 250, "display.max_columns", 30, "display.max_rows", 200)
    print(rows.round(3).to_string())
    print(pd.DataFrame(reference.summary(rows)).round(3).T.to_string())
    print(f"seconds a case of NUTS, median: {rows['nuts_s'].median():.0f}")
    print("targets: c2st_median 0.55, c2st_90 0.62, param_nrmse within 3 % of NUTS, width 1.1,")
    print("180 s a case")


if __name__ == "__main__":
    main()
