"""Coverage of intervals of an effect in simulated series, by length of theory and by simulation.

    make bench BENCH=regimes [ARGS="--series 500 --dates 240 --controls 20"]

Prints, for each dependence, the part of series whose 90 % interval holds the true effect, with a
95 % interval, and the mean width beside that of an oracle that knows both nuisances.
"""

import argparse

import numpy as np

from touchstone.models.regimes import effects
from touchstone.reliability.guardrail import wilson

GRID = (0.0, 0.2, 0.4, 0.6, 0.75, 0.85)  # of the calibration: none of them is tested but 0
TESTED = (0.0, 0.3, 0.5, 0.7, 0.8)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=500)
    parser.add_argument("--dates", type=int, default=240)
    parser.add_argument("--controls", type=int, default=20)
    parser.add_argument("--calibration", type=int, default=1000)
    parser.add_argument("--plan", default="full", choices=effects.PLANS)
    size = parser.parse_args()
    n, p, rng = size.dates, size.controls, np.random.default_rng(2026)
    learner, plan = effects.ridge(), effects.folds(n, size.plan, embargo=4)
    pivots = effects.linear_calibration(n, p, learner, plan, GRID, size.calibration, rng)
    print(f"{n} dates, {p} controls, {size.series} series each, plan {size.plan}")
    for rho in TESTED:
        inside, width = [], []
        for _ in range(size.series):
            y, d, x = effects.simulate_linear(n, p, rho, rng, effect=0.5)
            found = effects.partially_linear(y, d, x, learner, plan)
            slope = 1 / np.arange(1, p + 1)
            oracle = effects.solve(y - 1.5 * x @ slope, d - x @ slope, np.ones((n, 1)))
            estimate, se = float(found.estimate[0]), float(found.se[0])
            half = 1.645 * float(found.se_iid[0])
            ends = [
                (estimate - half, estimate + half),
                effects.asymptotic(estimate, se, n),
                pivots.interval(estimate, se, effects.measured_dependence(found)),
                effects.asymptotic(float(oracle.estimate[0]), float(oracle.se[0]), n),
            ]
            inside.append([low <= 0.5 <= high for low, high in ends])
            width.append([high - low for low, high in ends])
        names = ("independent", "cosines", "calibrated", "oracle")
        rows = zip(names, np.mean(inside, axis=0), np.mean(width, axis=0), strict=True)
        text = []
        for name, part, wide in rows:
            rate = wilson(float(part), size.series)
            text.append(f"{name} {part:.3f} [{rate.low:.3f}, {rate.high:.3f}] width {wide:.3f}")
        print(f"rho {rho}: " + "; ".join(text), flush=True)


if __name__ == "__main__":
    main()
