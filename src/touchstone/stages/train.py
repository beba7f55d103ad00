"""Train a model, and see whether its posteriors are right on average."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from touchstone.contract import Fit, Model
from touchstone.io import artifacts, reports
from touchstone.io.artifacts import ArtifactError
from touchstone.io.results import Results, override
from touchstone.io.settings import recipe_of
from touchstone.reliability.calibration import Assessment, assess
from touchstone.stages import randomness, structure
from touchstone.vocabulary import Cases, Posterior, Quantity


class Training(NamedTuple):
    """What came of the stage.

    Attributes:
        report: As written.
        fit: What the training says of itself.
        assessments: Of the posteriors of simulated cases, by method, with what was unknown in
            them, shape (case, quantity).
    """

    report: dict
    fit: Fit
    assessments: dict[str, tuple[Assessment, np.ndarray]]


def run(
    model: Model, settings: dict, results: Results, data: list[Path], audits: list[Path]
) -> Training:
    """Train on data, write the checkpoint, draw the model, and calibrate the methods asked for.

    Args:
        model: The model.
        settings: `seed`; `train`, the model's own; `calibration`, with `n_cases` by method; and
            `budgets` by method.
        results: Where the checkpoint and the report go.
        data: Files to train on; empty takes the override, what the settings of `train` name under
            `data`, or all chunks that are there.
        audits: Reports of how the data were made, for the lineage.
    """
    given = override(model.model_id, "DATASET_CHUNK")
    named = given or settings["train"].get("data")
    data = data or ([Path(named)] if named else results.chunks())
    if not data:
        raise ArtifactError(f"{results.folder / 'datasets'}: holds no data to train on")
    inputs = {f"chunk_{number}": path for number, path in enumerate(data)}
    inputs |= {f"audit_{number}": path for number, path in enumerate(audits)}
    if (recipe := recipe_of(settings["train"], data[0])) is not None:
        inputs["meta"] = recipe
    seed = settings["seed"]
    own = {name: settings[name] for name in ("train", "calibration", "budgets")}
    lineage = reports.lineage(
        {**own, "model": model.config}, seed, inputs, override=str(given) if given else None
    )
    started = time.perf_counter()
    rng = randomness.generator(seed, "train")
    fit = model.fit(data, settings["train"], rng, results.checkpoint, lineage)
    timing = {"train_s": time.perf_counter() - started}
    assert all(np.isfinite(losses).all() for losses in fit.losses.values())
    verified = model.load(results.checkpoint)
    assert verified, f"{results.checkpoint}: was written without a manifest"
    structure.write(model, settings["train"], results)
    assessments, rows = calibrate(model, settings, timing)
    report = reports.write(
        results.report("train_report"),
        "train_report",
        {
            "model_id": model.model_id,
            "n_rows": fit.n_rows,
            "n_held_out": fit.n_held_out,
            "final_loss": {name: losses[-100:].mean() for name, losses in fit.losses.items()},
            "held_out": [comparison._asdict() for comparison in fit.comparisons],
            "findings": list(fit.findings),
            "tables": [table._asdict() for table in fit.tables],
            "drawings": _draw(fit, results),
            "calibration": rows,
        },
        {**lineage, "assumed": fit.assumed},
        timing,
    )
    _write_tables(results, report)
    return Training(report, fit, assessments)


def _draw(fit: Fit, results: Results) -> list[dict]:
    """Draw what was learnt; the name of each figure and its caption."""
    for drawing in fit.drawings:
        drawing.save(results.figure(drawing.name))
    return [{"name": drawing.name, "caption": drawing.caption} for drawing in fit.drawings]


def _write_tables(results: Results, report: dict) -> None:
    """Write what was learnt and how right it is as CSV, too."""
    learnt = [
        {"table": table["title"], "name": row["name"], "column": column, "value": value}
        for table in (*report["held_out"], *report["tables"])
        for row in table["rows"]
        for column, value in row.items()
        if column != "name"
    ]
    artifacts.write_csv(results.table("train_tables"), learnt)
    calibrated = [
        {"method": row["method"], "n_cases": row["n_cases"], **parameter}
        for row in report["calibration"]
        for parameter in row["parameters"]
    ]
    artifacts.write_csv(results.table("train_calibration"), calibrated)


def calibrate(
    model: Model, settings: dict, timing: dict
) -> tuple[dict[str, tuple[Assessment, np.ndarray]], list[dict]]:
    """Infer cases drawn from the prior, and rank their truths among the draws.

    Args:
        model: A loaded model.
        settings: As in `run`.
        timing: Gets the seconds of each method.

    Returns:
        The assessment and what was unknown, by method; and a row of the report for each method.
    """
    seed, sizes = settings["seed"], settings["calibration"]["n_cases"]
    cases = model.cases(
        max(sizes.values()),
        randomness.generator(seed, "train", 1),
        randomness.generator(seed, "train", 2),
        {},
    )
    ties = randomness.generator(seed, "train", 3)
    assessments, rows = {}, []
    for number, (method, n_cases) in enumerate(sizes.items()):
        ours = cases.take(slice(n_cases))
        started = time.perf_counter()
        posterior = model.infer(
            ours,
            randomness.generator(seed, "train", 4, number),
            method=method,
            budget=settings["budgets"][method],
            label=method,
        )
        timing[f"calibrate_{method}_s"] = time.perf_counter() - started
        assessment = _assess(model.quantities, ours, posterior, ties)
        assessments[method] = assessment, ~ours.known
        rows.append({"method": method, "n_cases": n_cases, **_row(assessment, posterior)})
    return assessments, rows


def _assess(
    quantities: list[Quantity], cases: Cases, posterior: Posterior, rng: np.random.Generator
) -> Assessment:
    """Ranks of the truths, with every coordinate counted in standard deviations of its prior."""
    weighted = not np.allclose(posterior.weight, posterior.weight[:, :1])
    assert not weighted, "ranks are of equally weighted draws"
    mean, sd = posterior.prior_mean, np.where(cases.known, 1.0, posterior.prior_sd)
    draws = np.stack([q.coordinate(posterior.draws[q.name]) for q in quantities], axis=-1)
    names = [quantity.name for quantity in quantities]
    standard = (draws - mean[:, None]) / sd[:, None]
    return assess(standard, (cases.truth - mean) / sd, ~cases.known, names, rng)


def _row(assessment: Assessment, posterior: Posterior) -> dict:
    computation = posterior.computation
    return {
        "coverage_90": assessment.coverage_90,
        "passed": {name: within.mean() for name, within in computation.passed.items()},
        "medians": {name: np.median(values) for name, values in computation.figures.items()},
        "regions": assessment.regions._asdict(),
        "parameters": assessment.parameters,
    }
