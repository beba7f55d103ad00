"""How fast and how exact the simulator is, beside a straightforward finite-volume solution.

    python benchmarks/bench_simulator.py [--peer PATH]

Everything is measured in the same run, in float32, in batches of 128 on all cores; compilation is
counted apart. *Equal steps* are one to a point and shared by the batch; *own steps* belong to each
trace and are finer after jumps, as in data sets, so that the decay of every memory over a step is
worked out for each trace anew. Targets are for equal steps; they are printed, never asserted.
With `--peer`, a checkout of github.com/sutyum/ECSFM, the generator of that project is timed too.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import yaml
from scipy.interpolate import CubicSpline
from scipy.special import ndtri

import touchstone.models.ecsfm as ecsfm
from touchstone.inference.batches import map_batches
from touchstone.models.ecsfm.data import family
from touchstone.models.ecsfm.physics.fouling import Fouling
from touchstone.models.ecsfm.physics.instrument import Instrument
from touchstone.models.ecsfm.physics.kinetics import Couples
from touchstone.models.ecsfm.physics.prior import Prior
from touchstone.models.ecsfm.physics.simulator import Electrode, simulate
from touchstone.models.ecsfm.physics.waveforms import Waveform, resolve

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/models/ecsfm"))
import finite_volume

F, R, T = 96485.33212, 8.314462618, 298.15
AREA, RATE, BATCH, N_POINTS = 0.07, 0.1, 128, 512
COUPLE = ("d_ox", "d_red", "c_ox", "c_red", "e0", "k0", "alpha")
EXACT_PEAK = 0.4462947

PEER = """
import json, time
import jax, numpy as np
from ecsfm.data import generate
from ecsfm.sim import multiphysics, multiphysics_benchmarks

found = {}

def dataset(n):
    start = time.perf_counter()
    jax.block_until_ready(generate.generate_multi_species_dataset(
        n, jax.random.key(0), max_species=1, backend="gpu_batch", progress=False,
        stage_proportions=(1.0, 0.0, 0.0), include_invariant_pairs=False))
    return time.perf_counter() - start

dataset(128)
found["traces"] = 256 / dataset(256)

n, one = 512, np.ones((1, 1), np.float32)
there = np.linspace(0.5, -0.5, n // 2, dtype=np.float32)
record = np.concatenate([there, there[::-1]])[None]
flux = generate._simulate_batch_fixed_steps(
    record, np.float32([20.0]), 1e-5 * one, 1e-5 * one, one, 0 * one, 0 * one, 0.3 * one, 0.5 * one,
    nx=50, sim_steps=n)[2]
found["peak"] = float(-np.asarray(flux).min())

plan = multiphysics.build_biofouling_protocol(n_cycles=1, foul_duration_s=6.0, probe_duration_s=1.0)
start = time.perf_counter()
multiphysics.simulate_multiphysics_electrochem(
    plan["E_array"], t_max=plan["t_max"], cleaning_mask=plan["cleaning_mask"], nx=24,
    **multiphysics_benchmarks._default_species())
found["fouling"] = 1 / (time.perf_counter() - start)
print(json.dumps(found))
"""


def table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print one aligned table."""
    columns = zip(header, *rows, strict=True)
    widths = [max(len(cell) for cell in column) for column in columns]
    print(f"\n{title}\n")
    for row in (header, ["-" * w for w in widths], *rows):
        print("  " + "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)))
    sys.stdout.flush()


def seconds(action, repeats: int = 3) -> float:
    """Shortest time of a few runs: the one that was disturbed least."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def experiments(n: int, n_couples: int, cell: bool, fouled: bool, n_points: int = N_POINTS):
    """Cyclic voltammograms of drawn couples: records with t = 0, and what `simulate` takes."""
    rng = np.random.default_rng(0)
    half = np.linspace(0.5, -0.5, n_points // 2 + 1, dtype=np.float32)
    records = np.tile(np.concatenate([half, half[-2::-1]]), (n, 1))

    def draw(low, high, shape=(n, n_couples)):
        return np.exp(rng.uniform(np.log(low), np.log(high), shape)).astype(np.float32)

    couples = Couples(
        d_ox=draw(1e-6, 3e-5),
        d_red=draw(1e-6, 3e-5),
        c_ox=draw(1e-7, 5e-6),
        c_red=draw(1e-7, 5e-6),
        e0=np.sort(rng.uniform(-0.35, 0.35, (n, n_couples)), axis=1).astype(np.float32),
        k0=draw(1e-5, 1.0),
        transfer_coefficient=rng.uniform(0.3, 0.7, (n, n_couples)).astype(np.float32),
    )
    electrode = Electrode(np.full(n, AREA, np.float32), np.full(n, T, np.float32))
    instrument = fouling = None
    if cell:
        instrument = Instrument(draw(30.0, 1e3, n), draw(5e-6, 1e-4, n))
    if fouled:
        fouling = Fouling(k_ads=draw(1e4, 1e5, n))
        fouling = jax.tree.map(lambda a: np.broadcast_to(np.float32(a), (n,)), fouling)
    return records, couples, electrode, instrument, fouling


def finite_volume_rate(arguments, n_traces: int = 3) -> float:
    """Traces a second of the straightforward implementation, for the first of the experiments."""
    records, couples, electrode, instrument, fouling = arguments
    record = records[0].astype(float)
    start = time.perf_counter()
    for i in range(n_traces):
        columns = [np.asarray(column[i], float) for column in couples]
        rows = [dict(zip(COUPLE, values, strict=True)) for values in zip(*columns, strict=True)]
        settings = {"area": float(electrode.area[i])}
        if instrument is not None:
            settings |= {"resistance": float(instrument.resistance[i])}
            settings |= {"capacitance": float(instrument.capacitance[i])}
        if fouling is not None:
            k_ads = float(fouling.k_ads[i])
            settings |= {"fouling": {**finite_volume.REFERENCE_FOULING, "k_ads": k_ads}}
        interval = 2.0 / RATE / (len(record) - 1)
        finite_volume.simulate([record], interval, rows, **settings)
    return n_traces / (time.perf_counter() - start)


def reversible_peak_error(current: np.ndarray, potential: np.ndarray) -> float:
    """Error in % of the peak of a cathodic sweep of O at 1 mM, D = 1e-5 cm^2/s."""
    spline = CubicSpline(-potential, -np.asarray(current, float))
    height = max(spline(p) for p in spline.derivative().roots(extrapolate=False))
    scale = F * AREA * 1e-6 * np.sqrt(1e-5 * F / (R * T) * RATE)
    return 100 * (height / scale / EXACT_PEAK - 1)


def equal_steps(record, duration: float) -> Waveform:
    """One step to a point; the record begins with the potential at t = 0."""
    n = len(record) - 1
    return Waveform(jnp.full(n, 1 / n), record, jnp.arange(1, n + 1), jnp.float32(duration), 1 / n)


def current_at_equal_steps(record, *arguments):
    """Current of a cycle in equal steps; batches share them."""
    return simulate(equal_steps(record, 2.0 / RATE), *arguments).current


def current_at_own_steps(waveform, *arguments):
    """Current at the steps that the waveform brings."""
    return simulate(waveform, *arguments).current


def own_steps(records: np.ndarray) -> Waveform:
    """Waveforms of one record, as data sets have them."""
    waveform = resolve(records[:1, 1:], np.array([2.0 / RATE]))
    return jax.tree.map(lambda a: np.repeat(a, len(records), axis=0), waveform)


def our_peak_error(n_points: int) -> float:
    """Of the simulator at a number of points."""
    record = jnp.linspace(0.5, -0.5, n_points + 1)
    values = (1e-5, 1e-5, 1e-6, 0.0, 0.0, 1e3, 0.5)
    couples = Couples(*(jnp.array([value], jnp.float32) for value in values))
    electrode = Electrode(jnp.float32(AREA), jnp.float32(T))
    current = jax.jit(simulate)(equal_steps(record, 1.0 / RATE), couples, electrode).current
    return reversible_peak_error(current, np.asarray(record[1:], float))


def finite_volume_peak_error() -> float:
    """Of the straightforward implementation at the default number of points."""
    record = np.linspace(0.5, -0.5, N_POINTS + 1)
    row = dict(zip(COUPLE, (1e-5, 1e-5, 1e-6, 0.0, 0.0, 1e3, 0.5), strict=True))
    trace = finite_volume.simulate([record], 1.0 / RATE / N_POINTS, [row], area=AREA)
    return reversible_peak_error(trace.current, record[1:])


def rate_of(arguments, batch: int = BATCH, current=current_at_equal_steps) -> tuple[float, float]:
    """Traces a second, and seconds that compiling took."""
    run = jax.jit(jax.vmap(current))
    n = len(arguments[1].e0)
    first = jax.tree.map(lambda a: a[:batch], arguments)
    start = time.perf_counter()
    jax.block_until_ready(run(*first))
    compiling = time.perf_counter() - start
    return n / seconds(lambda: map_batches(run, *arguments, batch_size=batch)), compiling


def gradient_cost(arguments) -> float:
    """Time of the gradient of a misfit by all parameters, in forward runs."""

    def misfit(couples, instrument, fouling, record, electrode):
        current = current_at_equal_steps(record, couples, electrode, instrument, fouling)
        return jnp.sum((1e5 * current) ** 2)

    records, couples, electrode, instrument, fouling = arguments
    ordered = (couples, instrument, fouling, records, electrode)
    times = []
    for function in (misfit, jax.grad(misfit, argnums=(0, 1, 2))):
        run = jax.jit(jax.vmap(function))
        map_batches(run, *jax.tree.map(lambda a: a[:BATCH], ordered), batch_size=BATCH)
        times.append(seconds(lambda run=run: map_batches(run, *ordered, batch_size=BATCH)))
    return times[1] / times[0]


def speed() -> None:
    """The targets: three workloads, their gradients, and the finite volumes beside them."""
    cases = {
        "one couple": (1, False, False, 100_000),
        "one couple, R_u, C_dl, fouling": (1, True, True, 40_000),
        "two couples": (2, False, False, 10_000),
    }
    rows, gradients = [], []
    for name, (n_couples, cell, fouled, target) in cases.items():
        arguments = experiments(64 * BATCH, n_couples, cell, fouled)
        rate, compiling = rate_of(arguments)
        few = jax.tree.map(lambda a: a[: 16 * BATCH], arguments)
        own, _ = rate_of((own_steps(few[0]), *few[1:]), current=current_at_own_steps)
        slow = finite_volume_rate(arguments)
        aim = f"{target:,}", "met" if rate >= target else "missed"
        times = f"{compiling:.1f}", f"{rate:,.0f}"
        rows.append([name, *times, *aim, f"{own:,.0f}", f"{slow:.2f}", f"{rate / slow:,.0f}"])
        cost = gradient_cost(few)
        gradients.append([name, f"{cost:.1f}", "50", "met" if cost <= 50 else "missed"])
    header = ["workload", "compile s", "equal steps, traces/s", "target", "", "own steps, traces/s"]
    table(
        f"Cyclic voltammograms of {N_POINTS} points, batches of {BATCH}, {os.cpu_count()} threads",
        [*header, "finite volumes, traces/s", "times as fast"],
        rows,
    )
    table(
        "Gradient by all parameters, in forward runs",
        ["workload", "cost", "at most", ""],
        gradients,
    )
    table(
        f"Reversible peak at {N_POINTS} points, error in % of the exact one",
        ["simulator, float32", "finite volumes, float64"],
        [[f"{our_peak_error(N_POINTS):+.4f}", f"{finite_volume_peak_error():+.4f}"]],
    )


def scaling() -> None:
    """Cost against points, couples and batch."""
    rows = []
    for n_points in (128, 256, 512, 1024, 2048):
        rate, _ = rate_of(experiments(16 * BATCH, 1, False, False, n_points))
        rows.append([str(n_points), f"{rate:,.0f}", f"{our_peak_error(n_points):+.4f}"])
    table("One couple against points", ["points", "traces/s", "peak error %"], rows)
    rows = []
    for n_couples in range(1, 6):
        clean, _ = rate_of(experiments(16 * BATCH, n_couples, False, False))
        whole, _ = rate_of(experiments(8 * BATCH, n_couples, True, True))
        rows.append([str(n_couples), f"{clean:,.0f}", f"{whole:,.0f}"])
    header = ["couples", "traces/s", "with R_u, C_dl, fouling"]
    table(f"Against couples, {N_POINTS} points", header, rows)
    rows = []
    for batch in (1, 4, 16, 64, 128, 256, 1024):
        rate, _ = rate_of(experiments(max(2 * batch, min(64 * batch, 2048)), 1, True, True), batch)
        rows.append([str(batch), f"{rate:,.0f}"])
    table("One couple, R_u, C_dl, fouling against batch", ["batch", "traces/s"], rows)


def whole_family() -> None:
    """A data set of all techniques at one shape: how often it compiles, and how fast it is."""
    path = Path(ecsfm.__file__).parent / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    prior = Prior(config, config["max_couples"])
    rng = np.random.default_rng(0)
    n = 16 * BATCH
    draws = family.draw(rng, config, n, N_POINTS, prior.size, {"frontier": 1.0})
    experiment = draws.experiment
    start = time.perf_counter()
    waveform = resolve(experiment.potential, experiment.duration, int(2.5 * N_POINTS))
    resolving = time.perf_counter() - start

    def one(z, experiment, waveform):
        natural = prior.natural(z, experiment)
        couples = prior.couples(natural, experiment)
        cell = prior.instrument(natural, experiment)
        return simulate(waveform, couples, experiment.electrode, cell).current

    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    run = jax.jit(jax.vmap(one))
    z = ndtri(draws.quantile).astype(np.float32)
    map_batches(run, z, experiment, waveform, batch_size=BATCH)
    compilations = len(compiled)
    rate = n / seconds(lambda: map_batches(run, z, experiment, waveform, batch_size=BATCH), 2)
    table(
        f"The whole training family, {len(config['tasks'])} tasks, two couples, R_u and C_dl",
        ["traces", "steps", "compilations", "traces/s", "laying out the steps, traces/s"],
        [
            [
                f"{n}",
                f"{waveform.step.shape[1]}",
                f"{compilations}",
                f"{rate:,.0f}",
                f"{n / resolving:,.0f}",
            ]
        ],
    )


def peer(path: Path) -> None:
    """The batched generator, the reversible peak and a fouling simulation of another project."""
    environment = {**os.environ, "PYTHONPATH": str(path / "src")}
    done = subprocess.run(
        [sys.executable, "-c", PEER], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"\nThe peer cannot run: {reason}")
        return
    found = json.loads(done.stdout.strip().splitlines()[-1])
    exact = 1e3 * EXACT_PEAK * F * 1e-6 * np.sqrt(1e-5 * F / (R * T) * RATE)
    table(
        "Peer: its batched generator with one couple, and one protocol of its fouling simulation",
        ["traces/s", "reversible peak / exact", "fouling simulations/s"],
        [[f"{found['traces']:,.0f}", f"{found['peak'] / exact:.1f}", f"{found['fouling']:.2f}"]],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, help="checkout of github.com/sutyum/ECSFM")
    arguments = parser.parse_args()
    print(f"JAX {jax.__version__} on {jax.devices()[0].device_kind}, {os.cpu_count()} cores")
    speed()
    whole_family()
    scaling()
    if arguments.peer:
        peer(arguments.peer)


if __name__ == "__main__":
    main()
