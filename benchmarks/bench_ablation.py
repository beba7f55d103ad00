"""What each method of inference costs and gets, at three budgets and under three kinds of mask.

    python benchmarks/bench_ablation.py [--model ID] [--cases N] [--nuts N] [--checkpoint DIR]

The same simulated cases, every nuisance free, for all methods. Error is that of the posterior mean
in prior standard deviations; calibration is the part of all unknown parameters that their 90 %
intervals hold. Seconds are of one case among the others, on all cores, after compilation. `--nuts`
is how many of the first cases NUTS samples, too: its errors are of those alone. Its seconds include
what is compiled for each case, and longer chains where the first do not agree, and not the draws
that it starts from. The cross-entropy method has the particles and rounds of its historical
budgets, and at least two predictions of each particle: their scatter is the surrogate's doubt. The
figure is `figures/ablation.png` of the model.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from touchstone.contract import Model, load_model
from touchstone.io.results import Results
from touchstone.reliability.calibration import coverage, fractional_ranks
from touchstone.reliability.scores import coordinates, parameter_nrmse, posterior_mean
from touchstone.stages import checkpoints, randomness
from touchstone.vocabulary import Cases, Posterior

SEED = 20
MASKS = ("dense", "random", "transitions")
LEVELS = ("fast", "balanced", "robust")
WEIGHING = ("n_runs", "n_starts", "n_improve", "n_rounds", "n_draws", "n_effective")
BUDGETS = {
    "cem": [
        {"n_particles": n, "n_iterations": i, "elite_fraction": 0.25, "n_mc": m, "n_steps": s}
        for n, i, m, s in ((32, 3, 2, 8), (64, 4, 2, 8), (96, 6, 3, 8))
    ],
    "flow": [{"n_draws": n, "n_steps": s} for n, s in ((60, 5), (120, 20), (500, 40))],
    "reweighted": [
        {"n_draws": n, "n_steps": 20, "reweight": dict(zip(WEIGHING, sizes, strict=True))}
        for n, sizes in (
            (60, (2, 4, 15, 12, 16, 10)),
            (120, (6, 8, 15, 24, 24, 30)),
            (500, (6, 16, 40, 12, 72, 100)),
        )
    ],
}
NUTS = [{"n_tune": n, "n_draws": m} for n, m in ((100, 100), (250, 500), (500, 1500))]
COLOURS = {"cem": "#ee7733", "flow": "#228833", "reweighted": "#4477aa", "nuts": "#aa3377"}


def score(model: Model, cases: Cases, posterior: Posterior, seconds: float) -> dict[str, float]:
    """Error and coverage of weighted draws, and seconds of one case."""
    unknown, weight = ~cases.known, posterior.weight
    estimate = posterior_mean(model.quantities, posterior)
    draws = coordinates(model.quantities, posterior.draws)
    rng = np.random.default_rng(0)
    if np.ptp(weight) > 0:  # ranks are of draws of equal weights
        chosen = [rng.choice(len(w), 200, p=np.float64(w) / np.float64(w).sum()) for w in weight]
        draws = np.stack([a[i] for a, i in zip(draws, chosen, strict=True)])
    ranks = fractional_ranks(draws, cases.truth, rng)
    return {
        "seconds": seconds / len(draws),
        "n_cases": len(draws),
        "param_nrmse": parameter_nrmse(estimate, cases.truth, posterior.prior_sd, unknown).mean(),
        "coverage_90": coverage(ranks, unknown, np.array([0.9]))[0],
    }


def by_nuts(model: Model, cases: Cases, start: Posterior, budget: dict) -> tuple[Posterior, float]:
    """Posterior by NUTS, and the seconds that its chains took."""
    with TemporaryDirectory() as folder:
        posterior = model.reference(
            cases, start, np.random.default_rng(SEED), budget=budget, folder=Path(folder)
        )
    return posterior, posterior.computation.figures["seconds"].sum()


def ablation(model: Model, n_cases: int, n_nuts: int) -> pd.DataFrame:
    """A row for each mask, method and budget."""
    rows = []

    def note(mask, method, level, found):
        rows.append({"mask": mask, "method": method, "budget": level, **found})
        print(rows[-1], flush=True)

    for number, mask in enumerate(MASKS):
        noise = randomness.generator(SEED, "stress", number)
        settings = {"observed": mask, "noise": None}
        cases = model.cases(n_cases, np.random.default_rng(SEED), noise, settings)

        def infer(method, budget, cases=cases):
            return model.infer(cases, np.random.default_rng(SEED), method=method, budget=budget)

        for method, budgets in BUDGETS.items():
            for level, budget in zip(LEVELS, budgets, strict=True):
                infer(method, budget)  # compiles
                start = time.perf_counter()
                posterior = infer(method, budget)
                seconds = time.perf_counter() - start
                note(mask, method, level, score(model, cases, posterior, seconds))
            surest = posterior  # of the last: re-weighted, robust
        if n_nuts:
            few, start = cases.take(slice(n_nuts)), surest.take(slice(n_nuts))
            for level, budget in zip(LEVELS, NUTS, strict=True):
                posterior, seconds = by_nuts(model, few, start, budget)
                if np.isnan(seconds):
                    print(f"nuts, {mask}, {level}: a case cannot be sampled", flush=True)
                    continue
                note(mask, "nuts", level, score(model, few, posterior, seconds))
    return pd.DataFrame(rows)


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Error and coverage against seconds; what is lower left, or nearest the line, is better."""
    fig, axes = plt.subplots(
        2, len(MASKS), figsize=(13, 7), sharex=True, sharey="row", layout="constrained"
    )
    for column, mask in zip(axes.T, MASKS, strict=True):
        for method, ours in rows[rows["mask"] == mask].groupby("method", sort=False):
            style = {"color": COLOURS[method], "label": f"{method}, n = {ours['n_cases'].iloc[0]}"}
            column[0].plot(ours["seconds"], ours["param_nrmse"], "o-", **style)
            column[1].plot(ours["seconds"], ours["coverage_90"], "o-", **style)
        column[0].set(xscale="log", title=f"{mask} observation")
        column[1].axhline(0.9, color="black", lw=0.8)
        column[1].set_xlabel("Seconds a case (fast, balanced, robust)")
    axes[0, 0].set_ylabel("Parameter error (prior sd)")
    axes[1, 0].set_ylabel("Truths inside 90 % intervals")
    axes[0, 0].legend(fontsize=8)
    fig.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ecsfm")
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--nuts", type=int, default=4)
    parser.add_argument("--checkpoint", type=Path)
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    results = Results(Path("results") / arguments.model)
    checkpoints.load(model, results, arguments.checkpoint or "")
    rows = ablation(model, arguments.cases, arguments.nuts)
    print(rows.round(3).to_string(index=False))
    figure = results.figure("ablation")
    draw(rows, figure)
    print(f"drawn in {figure}")


if __name__ == "__main__":
    main()
