"""Whether the regression of `interface` is right on average: truths from its prior.

    python benchmarks/bench_interface.py [--fits N] [--nuts N]

Films of one small design are given areas by regressions that are drawn from the prior, and each is
fitted by the package's Gibbs sampler. If the posteriors are right, the ranks of the truths are
uniform and 90 % intervals hold 90 % of them. NUTS, as in the training, fits some of them, too.
Targets are printed, never asserted.
"""

import argparse
import time

import arviz as az
import numpy as np
import pandas as pd
from scipy.stats import binomtest

from touchstone.contract import load_model
from touchstone.models.interface import gibbs, regression
from touchstone.models.interface.regression import Design
from touchstone.reliability import calibration

SEED = 21
N_FILMS, N_EACH, N_DESCRIPTORS, N_STIMULI = 8, 5, 3, 2
N_DRAWS, N_WARMUP, N_RANKED = 6000, 500, 200
NUTS = {"chains": 4, "warmup": 1000, "draws": 1000, "target_accept": 0.95}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fits", type=int, default=600)
    parser.add_argument("--nuts", type=int, default=20)
    arguments = parser.parse_args()
    sizes, rng = load_model("interface").config["regression"], np.random.default_rng(SEED)
    film = np.repeat(np.arange(N_FILMS), N_EACH)
    morphology = rng.standard_normal((len(film), N_DESCRIPTORS))
    stimuli = rng.standard_normal((len(film), N_STIMULI))
    assert Design(film, morphology, stimuli, np.zeros(len(film))).has_products
    x, sd = gibbs.columns(morphology, stimuli, sizes, True)
    truth = np.column_stack(
        [
            sd * rng.standard_normal((arguments.fits, len(sd))),
            sizes["film"] * np.abs(rng.standard_normal(arguments.fits)),
            sizes["scatter"] * np.abs(rng.standard_cauchy(arguments.fits)),
        ]
    )
    effect = truth[:, -2:-1] * rng.standard_normal((arguments.fits, N_FILMS))
    target = truth[:, :-2] @ x.T + effect[:, film]
    target += truth[:, -1:] * rng.laplace(size=target.shape)
    started = time.perf_counter()
    weight = np.ones(target.shape)
    found = gibbs.sample(x, sd, film, target, weight, sizes, N_DRAWS, N_WARMUP, rng)
    seconds = time.perf_counter() - started
    draws = np.concatenate(
        [found.coefficients, found.film_sd[..., None], found.scatter[..., None]], axis=2
    )
    names = _names()
    print(f"{arguments.fits} fits of {len(film)} rows by Gibbs sampling: {seconds:.0f} s")
    _print_calibration(names, draws[:, :: N_DRAWS // N_RANKED], truth, rng)
    rows = []
    for number in range(min(arguments.nuts, arguments.fits)):
        design = Design(film, morphology, stimuli, target[number])
        rows.append(_beside_nuts(design, sizes, draws[number], number))
        print(f"NUTS {number}: {rows[-1]}", flush=True)
    _print_agreement(pd.DataFrame(rows), len(names))


def _names() -> list[str]:
    products = [f"product {j} {k}" for j in range(N_DESCRIPTORS) for k in range(N_STIMULI)]
    mains = [f"morphology {j}" for j in range(N_DESCRIPTORS)]
    stimuli = [f"stimulus {k}" for k in range(N_STIMULI)]
    return ["intercept", *mains, *stimuli, *products, "film_sd", "scatter"]


def _print_calibration(names, draws, truth, rng) -> None:
    ranks = calibration.fractional_ranks(draws, truth, rng)
    found, level = calibration.calibration(ranks), np.array([0.9])
    rows = []
    for k, name in enumerate(names):
        inside = int(np.count_nonzero(np.abs(2 * ranks[:, k] - 1) <= 0.9))
        low, high = binomtest(inside, len(ranks)).proportion_ci(method="wilson")
        rows.append(
            {
                "coefficient": name, "coverage_90": inside / len(ranks), "low": low, "high": high,
                "p_value": found.p_value[k], "inside": found.inside[k],
            }
        )  # fmt: skip
    print(pd.DataFrame(rows).round(3).to_string(index=False))
    of_all = calibration.coverage(ranks, levels=level)[0]
    print(f"coverage of all 90 % intervals: {100 * of_all:.1f} % (target 90 +- 3)")
    print(f"ranks inside the simultaneous 95 % band: {found.inside.sum()} of {len(names)}")


def _beside_nuts(design: Design, sizes: dict, ours: np.ndarray, seed: int) -> dict:
    """Means in Monte Carlo standard errors, and standard deviations, of both samplers."""
    labels = (
        tuple(f"d{j}" for j in range(N_DESCRIPTORS)), tuple(f"s{k}" for k in range(N_STIMULI))
    )  # fmt: skip
    tree = regression.sample(regression.build(design, sizes, labels), NUTS, seed)
    posterior = tree["posterior"]
    shape = NUTS["chains"], NUTS["draws"]
    order = ("intercept", "morphology", "stimulus", "product", "film_sd", "scatter")
    theirs = np.concatenate([posterior[n].values.reshape(*shape, -1) for n in order], axis=2)
    # The heavy tail of the scatter has no mean worth comparing.
    ours, theirs = ours.copy(), theirs.copy()
    ours[..., -1], theirs[..., -1] = np.log(ours[..., -1]), np.log(theirs[..., -1])
    chains = ours.reshape(4, -1, ours.shape[1])
    errors = np.hypot(_error(chains), _error(theirs))
    z = (ours.mean(0) - theirs.mean((0, 1))) / errors
    ratio = ours.std(0) / theirs.std((0, 1))
    return {
        "fault": regression.diagnose(tree).fault,
        "rms_z": float(np.sqrt(np.mean(z**2))),
        "max_z": float(np.abs(z).max()),
        "sd_ratio_low": float(ratio.min()),
        "sd_ratio_high": float(ratio.max()),
    }


def _error(chains: np.ndarray) -> np.ndarray:
    """Monte Carlo standard error of the mean of each entry."""
    return np.array([float(az.mcse(chains[..., k])) for k in range(chains.shape[2])])


def _print_agreement(rows: pd.DataFrame, n: int) -> None:
    sound = rows[rows["fault"] == ""]
    print(f"NUTS converged in {len(sound)} of {len(rows)} fits, of {n} coefficients each; there")
    print(
        f"differences of means are {np.sqrt((sound['rms_z'] ** 2).mean()):.2f} Monte Carlo errors"
    )
    print(f"(root mean square; target 1), at most {sound['max_z'].max():.1f}; standard deviations")
    print(f"are {sound['sd_ratio_low'].min():.2f} to {sound['sd_ratio_high'].max():.2f} of NUTS's")


if __name__ == "__main__":
    main()
