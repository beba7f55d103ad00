"""Whether the control is a control: over many seeds its joint p-value is uniform.

    make bench BENCH=control ARGS="--model interface --seeds 40"

Severity 0 of every stress goes through the same code as the training family. For each seed base
cases are drawn anew, observed in every way, inferred and judged, as the stress stage does; nothing
else of that stage is run. The joint p-value of all families and metrics is then held against the
uniform law (Kolmogorov and Smirnov). Beside it stands the part of all controls that the
artefact's rule escalates, with an interval that counts base cases: its promise is for the budget
and the observations of its own calibration, so that with others, as those of config/test.yaml that
are taken unless stated, the part says nothing of it.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import kstest

from touchstone import contract
from touchstone.io import settings
from touchstone.io.results import Results, folder
from touchstone.reliability import control, rivals
from touchstone.reliability.decision import Decision
from touchstone.reliability.guardrail import wilson
from touchstone.stages import checkpoints, stress


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="interface")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--cases", type=int, help="base cases of a seed")
    parser.add_argument("--config", type=Path, default=Path("config/test.yaml"))
    arguments = parser.parse_args()
    model = contract.load_model(arguments.model)
    judge = checkpoints.prepare(model, Results(Path(folder(arguments.model))))
    decision = Decision.from_json(judge.guardrail["decision"])
    config = settings.load(contract.folders(), arguments.config)
    asked = settings.of_stage(config, arguments.model, "stress")
    sizes = {**asked["stress"], "severities": [0.0]}
    sizes["n_cases"] = n = arguments.cases or sizes["n_cases"]
    print(f"{arguments.model}: {judge.artefact.words}; {n} base cases a seed")
    p_values, smallest, flags, started = [], [], [], time.perf_counter()
    for seed in range(1, arguments.seeds + 1):
        outcomes = stress.infer_variants(
            model, {**asked, "stress": sizes, "seed": seed}, model.methods[0], n
        )
        runs = pd.concat([outcome.runs for outcome in outcomes], ignore_index=True)
        found = control.paired(runs)
        p_values.append(found["p_value"])
        smallest.append(min(test["p_adjusted"] for test in found["tests"]))
        controls = runs[runs["split"] == "control"]
        score = rivals.score(decision, controls)
        flags.append((score > decision.threshold).mean())
        print(
            f"seed {seed:3}  joint p {p_values[-1]:.3f}  smallest after Holm {smallest[-1]:.3f}  "
            f"escalated {flags[-1]:.3f}  {time.perf_counter() - started:.0f} s",
            flush=True,
        )
    test = kstest(p_values, "uniform")
    print(f"joint p-value uniform: KS distance {test.statistic:.3f}, p {test.pvalue:.3f}")
    low = float(np.mean(np.array(smallest) <= 0.05))
    print(f"smallest p-value after Holm at most .05 in {low:.3f} of the seeds")
    rate = wilson(float(np.mean(flags)), n * len(flags))
    print(
        f"controls escalated: {rate.value:.4f} [{rate.low:.4f}, {rate.high:.4f}] of {rate.n} base "
        f"cases; as it was calibrated the rule promises at most {decision.alpha:g}"
    )


if __name__ == "__main__":
    main()
