"""Draw one chunk of the training family, and hold the simulator against exact answers."""

import time
from typing import NamedTuple

from touchstone.contract import Model, Simulated
from touchstone.io import artifacts, reports
from touchstone.io.results import Results
from touchstone.stages import randomness


class Simulation(NamedTuple):
    """What came of the stage: its report, and the chunk's counts and gallery."""

    report: dict
    simulated: Simulated


def run(model: Model, settings: dict, results: Results, chunk: int) -> Simulation:
    """Write a chunk and its audit.

    Args:
        model: The model.
        settings: `seed`, and the model's own for `simulate`.
        results: Where the chunk and its report go.
        chunk: Number of the chunk; no two chunks share a random number.

    Raises:
        AssertionError: If the simulator does not give what theory says; nothing is drawn then.
    """
    started = time.perf_counter()
    checks = [
        {**check._asdict(), "error": check.obtained - check.exact, "passed": check.passed}
        for check in model.checks()
    ]
    failed = [check for check in checks if not check["passed"]]
    assert not failed, f"the simulator disagrees with exact values: {failed}"
    seconds_checks = time.perf_counter() - started
    seed, own = settings["seed"], {k: v for k, v in settings.items() if k != "seed"}
    file = results.chunk(chunk)
    provenance = {"model_id": model.model_id, "seed": seed, "chunk": chunk, **own}
    started = time.perf_counter()
    rng = randomness.generator(seed, "simulate", chunk)
    simulated = model.simulate(own, rng, file, provenance)
    report = reports.write(
        results.report(f"simulate_{chunk}"),
        "simulate",
        {
            "model_id": model.model_id,
            "chunk": chunk,
            "n_rows": simulated.n_rows,
            "chunk_sha256": artifacts.sha256(file),
            "counts": simulated.counts,
            "checks": checks,
        },
        reports.lineage({**own, "model": model.config}, seed, {}, chunk=chunk),
        {"checks_s": seconds_checks, "simulate_s": time.perf_counter() - started},
    )
    return Simulation(report, simulated)
