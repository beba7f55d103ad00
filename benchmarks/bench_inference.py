"""How close amortised posteriors come to exact ones, on two tasks of a public benchmark.

    python benchmarks/bench_inference.py [--references WHEEL] [--tasks NAME ...] [--observations N]

The tasks are those of sbibm (Lueckmann et al. 2021), stated here anew: 100,000 simulations, one
setting for both, and the classifier two-sample test between 10,000 draws and as many of the exact
posterior; 0.5 is indistinguishable. `--references` is the wheel of sbibm 1.1.0, whose observations
and reference draws are then used; otherwise, observations are simulated here. The last columns are
free of a classifier: the accuracy of the best there is, half of one and the total variation, and
the relative entropy, from the density that the posterior itself gives. Targets are printed, never
asserted. The ten-dimensional test takes minutes an observation: `--observations 2` is a short look.
"""

import argparse
import os
import time
import zipfile
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from bench_simulator import table
from scipy.stats import norm

from touchstone.inference import amortised, priors
from touchstone.reliability.calibration import c2st

N_SIMULATIONS, N_DRAWS, N_OBSERVATIONS = 100_000, 10_000, 10
OFFSET, RADIUS, RADIUS_SD = 0.25, 0.1, 0.01  # of the crescents
VARIANCE, SIZE = 0.1, 10  # of prior and noise alike
HALF = 0.5**0.5


def crescent(key, theta):
    """Two moons: a point of a crescent, moved by the parameters."""
    angle_key, radius_key = jax.random.split(key)
    angle = jax.random.uniform(angle_key, minval=-jnp.pi / 2, maxval=jnp.pi / 2)
    radius = RADIUS + RADIUS_SD * jax.random.normal(radius_key)
    point = jnp.array([OFFSET + radius * jnp.cos(angle), radius * jnp.sin(angle)])
    return point + HALF * jnp.array([-jnp.abs(theta[0] + theta[1]), theta[1] - theta[0]])


def crescent_candidates(rng, y, n):
    """Parameters that move a point of the crescent here, from either side, and which are right."""
    angle = rng.uniform(-np.pi / 2, np.pi / 2, n)
    radius = RADIUS + RADIUS_SD * rng.standard_normal(n)
    along = OFFSET + radius * np.cos(angle) - y[0]
    across = y[1] - radius * np.sin(angle)
    side = rng.choice([-1, 1], n) * along
    theta = HALF * np.column_stack([side - across, side + across])
    return theta, (along >= 0) & (np.abs(theta) < 1).all(1)


def crescent_posterior(rng, y, n):
    """Exact draws."""
    theta, right = crescent_candidates(rng, y, 20 * n)
    return theta[right][:n]


def crescent_log_density(y, theta):
    """Log density of the posterior, at parameters inside the prior's bounds."""
    along = y[0] - OFFSET + HALF * np.abs(theta[:, 0] + theta[:, 1])
    radius = np.hypot(along, y[1] - HALF * (theta[:, 1] - theta[:, 0]))
    _, right = crescent_candidates(np.random.default_rng(0), y, 100_000)
    two_sides = np.log(2 * np.pi * radius) + np.log(right.mean())
    return norm.logpdf(radius, RADIUS, RADIUS_SD) - two_sides


def noisy(key, theta):
    """Gaussian linear: the parameters themselves, with noise."""
    return theta + VARIANCE**0.5 * jax.random.normal(key, theta.shape)


def noisy_posterior(rng, y, n):
    """Exact draws: prior and observation count alike."""
    return y / 2 + (VARIANCE / 2) ** 0.5 * rng.standard_normal((n, SIZE))


def noisy_log_density(y, theta):
    """Log density of the posterior."""
    return norm.logpdf(theta, y / 2, (VARIANCE / 2) ** 0.5).sum(1)


class Task(NamedTuple):
    """A simulator whose posterior is known.

    Attributes:
        simulate, prior: As `amortise` takes them.
        posterior: Exact draws, `posterior(rng, observation, n)`.
        log_density: Of the exact posterior, `log_density(observation, theta)`.
        target: The mean C2ST that is aimed at.
        published: That of neural posterior estimation in the benchmark, at 100,000 simulations.
    """

    simulate: Callable
    prior: priors.Prior
    posterior: Callable
    log_density: Callable
    target: float
    published: float


TASKS = {
    "two_moons": Task(
        crescent,
        priors.uniform([-1.0, -1.0], [1.0, 1.0]),
        crescent_posterior,
        crescent_log_density,
        0.53,
        0.542,
    ),
    "gaussian_linear": Task(
        noisy,
        priors.normal(np.zeros(SIZE), np.full(SIZE, VARIANCE**0.5)),
        noisy_posterior,
        noisy_log_density,
        0.52,
        0.506,
    ),
}


def published_cases(wheel: str, name: str, n: int):
    """Observations and reference draws of the benchmark."""
    with zipfile.ZipFile(wheel) as archive:
        for k in range(1, n + 1):
            folder = f"sbibm/tasks/{name}/files/num_observation_{k}"
            with archive.open(f"{folder}/observation.csv") as file:
                observation = pd.read_csv(file).to_numpy()[0]
            with archive.open(f"{folder}/reference_posterior_samples.csv.bz2") as file:
                yield observation, pd.read_csv(file, compression="bz2").to_numpy()[:N_DRAWS]


def own_cases(task: Task, rng: np.random.Generator, n: int):
    """Simulated observations and exact draws."""
    for k in range(n):
        z_key, noise_key = jax.random.split(jax.random.fold_in(jax.random.key(1), k))
        theta = task.prior.natural(jax.random.normal(z_key, (task.prior.size,)))
        observation = np.asarray(task.simulate(noise_key, theta), float)
        yield observation, task.posterior(rng, observation, N_DRAWS)


def run(name: str, references: str | None, n_observations: int) -> tuple[list[str], list[str]]:
    """C2ST of every observation, and a row of the summary."""
    task, rng = TASKS[name], np.random.default_rng(0)
    start = time.perf_counter()
    posterior = amortised.amortise(
        task.simulate, task.prior, key=jax.random.key(0), n_simulations=N_SIMULATIONS
    )
    jax.block_until_ready(posterior)
    training = time.perf_counter() - start
    cases = (
        published_cases(references, name, n_observations)
        if references
        else own_cases(task, rng, n_observations)
    )
    ours, sampling, best, entropy = [], [], [], []
    for k, (observation, reference) in enumerate(cases):
        start = time.perf_counter()
        draws = posterior.sample(jax.random.key(k), jnp.float32(observation), N_DRAWS)
        draws = np.asarray(draws, float)
        sampling.append(time.perf_counter() - start)
        ours.append(c2st(reference, draws))
        if k == 0:  # the statement of the task, and what the test says of equal distributions
            exact = c2st(reference, task.posterior(rng, observation, N_DRAWS))
        few = reference[:1000]
        log_density = posterior.log_density(jnp.float32(observation), jnp.float32(few))
        excess = np.asarray(log_density, float) - task.log_density(observation, few)
        best.append(0.5 + 0.5 * np.maximum(0.0, 1 - np.exp(excess)).mean())
        entropy.append(-excess.mean())
        print(f"{name}, observation {k + 1}: {ours[-1]:.3f}", flush=True)
    mean = float(np.mean(ours))
    summary = [
        name,
        f"{mean:.4f}",
        f"{exact:.4f}",
        f"{task.target}",
        "met" if mean <= task.target else "missed",
        f"{task.published}",
        f"{training:.0f}",
        f"{min(sampling):.1f}",
        f"{np.mean(best):.3f}",
        f"{np.mean(entropy):.4f}",
    ]
    return [name, *(f"{value:.3f}" for value in ours)], summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--references", help="wheel of sbibm 1.1.0")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--observations", type=int, default=N_OBSERVATIONS)
    arguments = parser.parse_args()
    found = [run(name, arguments.references, arguments.observations) for name in arguments.tasks]
    each, summary = zip(*found, strict=True)
    source = "the benchmark's reference draws" if arguments.references else "exact draws"
    table(
        f"C2ST of each observation, against {source}",
        ["task", *(str(k + 1) for k in range(arguments.observations))],
        each,
    )
    header = ["task", "mean C2ST", "exact draws, first", "target", "", "NPE, published"]
    table(
        f"{N_SIMULATIONS:,} simulations, {N_DRAWS:,} draws, {os.cpu_count()} threads",
        [*header, "training s", "sampling s", "best accuracy", "relative entropy"],
        summary,
    )


if __name__ == "__main__":
    main()
