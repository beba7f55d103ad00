"""What each method of inference costs and gets, at three budgets and under three kinds of mask.

    python benchmarks/bench_ablation.py [--model ID] [--cases N] [--nuts N] [--checkpoint DIR]

The same simulated cases, every nuisance free, for all methods. Error is that of the posterior mean
in prior standard deviations; calibration is the part of all unknown parameters that their 90 %
intervals hold. Seconds are of one case among the others, on all cores, after compilation. `--nuts`
is how many of the first cases NUTS samples, too: its errors are of those alone, its seconds include
what is compiled for each case, and not the draws that it starts from. The cross-entropy method has
the particles and rounds of its historical budgets, and at least two predictions of each particle:
their scatter is the surrogate's doubt. The figure is `figures/ablation.png` of the model.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from touchstone.contract import load_model
from touchstone.inference.nuts import UnfitStartError
from touchstone.io import artifacts
from touchstone.reliability.calibration import coverage, fractional_ranks
from touchstone.reliability.scores import parameter_nrmse
from touchstone.stages import randomness, reference

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


def score(model, cases, z, weight, seconds: float) -> dict[str, float]:
    """Error and coverage of draws (n, draws, P) with their weights."""
    unknown = ~cases.known
    _, sd = model.prior_moments(cases)
    truth = model.natural(cases.z[:, None], cases)[:, 0]
    estimate = np.einsum("nd,ndp->np", weight, model.natural(z, cases))
    rng = np.random.default_rng(0)
    if np.ptp(weight) > 0:  # ranks are of draws of equal weights
        chosen = [rng.choice(len(w), 200, p=np.float64(w) / np.float64(w).sum()) for w in weight]
        z = np.stack([a[i] for a, i in zip(z, chosen, strict=True)])
    ranks = fractional_ranks(z, cases.z, rng)
    return {
        "seconds": seconds / len(z),
        "n_cases": len(z),
        "param_nrmse": parameter_nrmse(estimate, truth, sd, unknown).mean(),
        "coverage_90": coverage(ranks, unknown, np.array([0.9]))[0],
    }


def by_nuts(model, cases, starts, budget: dict) -> tuple[np.ndarray, float]:
    """Draws of NUTS, (n, draws, P), and the seconds they took."""
    start = time.perf_counter()
    each = [
        reference.draws(model.reference(cases.take(slice(k, k + 1)), starts[k], seed=k, **budget))
        for k in range(len(starts))
    ]
    return np.stack(each), time.perf_counter() - start


def ablation(model, checkpoint, n_cases: int, n_nuts: int) -> pd.DataFrame:
    """A row for each mask, method and budget."""
    rows = []

    def note(mask, method, level, found):
        rows.append({"mask": mask, "method": method, "budget": level, **found})
        print(rows[-1], flush=True)

    for number, mask in enumerate(MASKS):
        settings = {"n_cases": n_cases, "observed": mask, "noise": None}
        base = model.base_cases(np.random.default_rng(20), settings, checkpoint.meta["n_points"])
        cases = model.variant(base, randomness.key(20, "stress", number))
        for method, budgets in BUDGETS.items():
            for level, budget in zip(LEVELS, budgets, strict=True):
                infer = partial(
                    model.infer, checkpoint, key=jax.random.key(20), method=method, **budget
                )
                infer(cases)  # compiles
                start = time.perf_counter()
                posterior = infer(cases)
                seconds = time.perf_counter() - start
                found = score(model, cases, posterior.z, posterior.weight, seconds)
                note(mask, method, level, found)
            surest = posterior.z  # of the last: re-weighted, robust
        if n_nuts:
            few, starts = cases.take(slice(n_nuts)), surest[:n_nuts]
            for level, budget in zip(LEVELS, NUTS, strict=True):
                try:
                    z, seconds = by_nuts(model, few, starts, budget)
                except UnfitStartError as error:
                    print(f"nuts, {mask}, {level}: {error}", flush=True)
                    continue
                weight = np.full(z.shape[:2], 1 / z.shape[1])
                note(mask, "nuts", level, score(model, few, z, weight, seconds))
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
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ecsfm")
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--nuts", type=int, default=4)
    parser.add_argument("--checkpoint", type=Path)
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    results = Path("results") / arguments.model
    folder = arguments.checkpoint or artifacts.newest_checkpoint(results / "checkpoints")
    rows = ablation(model, model.load_checkpoint(Path(folder)), arguments.cases, arguments.nuts)
    print(rows.round(3).to_string(index=False))
    figure = results / "figures" / "ablation.png"
    draw(rows, figure)
    print(f"drawn in {figure}")


if __name__ == "__main__":
    main()
