"""The rule beside the checks of sbi, on the cases of a run; and what a verdict costs.

    python benchmarks/bench_guardrail.py [--model ID] [--results DIR] [--parts sbi cost]

sbi     the maximum mean discrepancy and the log density of the package itself, in an environment of
        its own, on the observations of the run's stress stage, simulated again: each check gets a
        threshold from the same calibration cases, for the same promise, as the rule has. Its spaces
        are the learnt summaries of the observation and the observation itself, both turned to their
        principal directions
cost    seconds that the two verdicts add to a posterior, of one case alone and among many

A run is needed that stressed the model (`make`); the rule is that of its guardrail stage.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from touchstone.contract import Model, load_model
from touchstone.io import reports
from touchstone.io.results import Results, folder
from touchstone.reliability.decision import Decision
from touchstone.reliability.novelty import Reference
from touchstone.reliability.rivals import score
from touchstone.stages import checkpoints, guardrail, randomness, stress
from touchstone.stages.cases import evidence, observed_in_family
from touchstone.stages.verdicts import judge_computation, judge_model, places
from touchstone.vocabulary import Cases

N_TRAIN = 4000  # cases of the training family that sbi learns from
SEED = 2026


def beside_sbi(model: Model, settings: dict, table: pd.DataFrame, rule: dict) -> None:
    """Print recall and false alarms of sbi's checks, and what ours gains."""
    seed, n = settings["seed"], settings["stress"]["n_cases"]
    n_calibration = settings["stress"]["n_calibration"]
    asked = [observed_in_family(model, seed, n_calibration, "stress", 4)]
    asked += [cases for *_, cases in stress.observe_variants(model, settings, n)]
    is_calibration = table["split"] == "calibration"
    rows = pd.concat([table[is_calibration], table[~is_calibration]], ignore_index=True)
    # The same observations as those that were inferred, or nothing can be compared.
    largest = [np.where(c.mask, np.abs(c.observed), 0.0).max(1) for c in asked]
    np.testing.assert_allclose(np.concatenate(largest), rows["max_abs_observed"], rtol=1e-5)
    train = model.cases(N_TRAIN, *(np.random.default_rng([SEED, k]) for k in range(2)), {})
    columns = _by_sbi(model, train, asked)
    if columns is None:
        return
    rows = rows.assign(**columns)
    is_calibration = rows["split"] == "calibration"
    rng = randomness.generator(seed, "guardrail")
    usual, calibration = guardrail.parts(rows[is_calibration], rng)
    judged = rows[~is_calibration].reset_index(drop=True)
    decision = Decision.from_json(rule["decision"])
    flagged = score(decision, judged) > decision.threshold
    stressed = judged["split"].str.startswith("stress_")
    judged = judged.assign(flagged=flagged, stressed=stressed)
    promise = rule["decision"]["alpha"], decision.delta
    detectors = {name: (name,) for name in columns}
    theirs = guardrail.scores_of_rivals(judged, usual, calibration, promise, detectors)
    alarms = flagged[judged["split"] == "in_distribution"].mean()
    print(f"\nthe rule: recall {flagged[stressed].mean():.3f}, false alarms {alarms:.3f} of {n}")
    for row in guardrail.gains(judged, theirs, np.random.default_rng(SEED)):
        gain, fpr = row["gain"], row["fpr"]
        print(
            f"sbi, {row['name']}: recall {row['recall']:.3f}, false alarms {fpr['value']:.3f} "
            f"[{fpr['low']:.3f}, {fpr['high']:.3f}]; the rule detects {gain['value']:+.3f} "
            f"[{gain['low']:+.3f}, {gain['high']:+.3f}] more"
        )


def _by_sbi(model: Model, train: Cases, asked: list[Cases]) -> dict[str, np.ndarray] | None:
    """Scores of all cases that are asked, by check; None where sbi does not run."""
    given = {}
    spaces = {"summaries": model.summaries, "samples": lambda c: np.where(c.mask, c.observed, 0.0)}
    for name, of in spaces.items():
        reference = Reference.fit(of(train))
        turned = [(of(c) - reference.centre) @ reference.directions for c in asked]
        given |= {f"{name}_train": reference.points, f"{name}_asked": np.concatenate(turned)}
    with tempfile.TemporaryDirectory() as place:
        source, target = Path(place) / "in.npz", Path(place) / "out.npz"
        np.savez(source, **given)
        script = Path(__file__).parent / "sbi_checks.py"
        uv = [os.environ.get("UV", "uv"), "run", "--no-project", "--isolated"]
        own = ["--python", sys.executable, "--with", "sbi==0.27.0"]
        try:
            command = [*uv, *own, "python", script.resolve(), source, target]
            subprocess.run(command, check=True, cwd=place, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"sbi did not run: {error} {getattr(error, 'stderr', b'')[-500:]}")
            return None
        return dict(np.load(target))


def cost(model: Model, settings: dict, rule: dict) -> None:
    """Print the milliseconds that the verdicts add, after everything is compiled."""
    decision, method = Decision.from_json(rule["decision"]), model.methods[0]
    cases = model.cases(20, *(np.random.default_rng([SEED, k]) for k in range(2)), {})
    budget = settings["budgets"][method]
    posterior = model.infer(cases, np.random.default_rng(SEED), method=method, budget=budget)

    def judge(some: Cases, theirs) -> None:
        found, where = evidence(model, some, theirs), places(model, some, theirs)
        outside = model.outside_training(some)
        judge_computation(theirs)
        judge_model(found, where, outside, decision, [])

    for n in (1, 20):
        some, theirs = cases.take(slice(n)), posterior.take(slice(n))
        judge(some, theirs)
        spent = []
        for _ in range(20):
            started = time.perf_counter()
            judge(some, theirs)
            spent.append(1000 * (time.perf_counter() - started) / n)
        print(
            f"both verdicts of {n} cases at once: {np.median(spent):.1f} ms a case, median of 20; "
            f"{max(spent):.1f} at most"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ecsfm")
    parser.add_argument(
        "--results", type=Path, help="folder of the run; the model's own if not given"
    )
    parser.add_argument("--parts", nargs="+", choices=("sbi", "cost"), default=["sbi", "cost"])
    asked = parser.parse_args()
    model = load_model(asked.model)
    results = Results(asked.results or Path(folder(asked.model)))
    checkpoints.load(model, results, "")
    table = reports.read(results.report("stress_report"), "stress_report")
    kind = "posterior_failure_mode_report"
    rule = reports.read(results.report(kind), kind)
    settings = table["lineage"]["settings"] | {"seed": table["lineage"]["seed"]}
    if "sbi" in asked.parts:
        beside_sbi(model, settings, pd.DataFrame(table["runs"]), rule)
    if "cost" in asked.parts:
        cost(model, settings, rule)


if __name__ == "__main__":
    main()
