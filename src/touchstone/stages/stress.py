"""Base cases put under every stress of a model at every severity, inferred and judged."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from touchstone.contract import Model
from touchstone.io import reports
from touchstone.io.results import Results, override
from touchstone.io.settings import SettingsError
from touchstone.reliability import comparison, control
from touchstone.reliability.novelty import Reference
from touchstone.reliability.scores import judge
from touchstone.stages import randomness
from touchstone.stages.cases import diagnostics, evidence, in_family
from touchstone.stages.checkpoints import load
from touchstone.vocabulary import Cases, Posterior

_N_FAMILIAR = 1000  # cases whose summaries say what is familiar
SCORES = {"reliability_score": -1, "pred_calibration_error": 1, "max_abs_observed": -1}


class Variant(NamedTuple):
    """One way in which all base cases are observed.

    Attributes:
        split: "in_distribution", "control" (a stress of severity 0), "stress_" and its group, or
            "calibration": the training family again, other cases, for the guardrail alone.
        family: Name of the stress; None in distribution.
        severity: In [0, 1].
    """

    split: str
    family: str | None
    severity: float


class Outcome(NamedTuple):
    """What came of one variant: the observations, their posterior, and a row of metrics a case."""

    variant: Variant
    cases: Cases
    posterior: Posterior
    runs: pd.DataFrame


class Stress(NamedTuple):
    """What came of the stage.

    Attributes:
        report: As written.
        outcomes: Of every variant but the calibration, by the model's first method.
        runs: All rows of `outcomes`.
        by_method: Rows of the compared cases in distribution, of every method.
        reference: Posterior of the first cases by the reference; None if not asked for.
        beside_reference: Rows of the comparison with it.
        detection: Rows of what could be detected at all, of the first cases under every stress;
            empty if not asked for, or where the model does not say.
    """

    report: dict
    outcomes: list[Outcome]
    runs: pd.DataFrame
    by_method: pd.DataFrame
    reference: Posterior | None
    beside_reference: pd.DataFrame
    detection: pd.DataFrame

    @property
    def worst(self) -> tuple[Outcome, int]:
        """The stressed case of the lowest reliability."""
        stressed = [each for each in self.outcomes if each.variant.split.startswith("stress_")]
        outcome = min(stressed, key=lambda each: each.runs["reliability_score"].min())
        return outcome, int(outcome.runs["reliability_score"].argmin())


def variants(
    model: Model, severities: list[float], families: Sequence[str] | None = None
) -> list[Variant]:
    """The training family itself, then each stress at each severity; 0 is the control.

    Raises:
        SettingsError: If a family is none of the model's.
    """
    groups = model.stresses
    for family in families or ():
        if family not in groups:
            raise SettingsError(
                f"{model.model_id}.stress.families: {family!r} is none of {', '.join(groups)}"
            )
    stressed = [
        Variant(f"stress_{groups[family]}" if severity else "control", family, float(severity))
        for family in families or groups
        for severity in severities
    ]
    return [Variant("in_distribution", None, 0.0), *stressed]


def run(model: Model, settings: dict, results: Results, checkpoint: str | Path = "") -> Stress:
    """Infer every variant of the base cases, compare the methods, and test the control.

    Args:
        model: The model.
        settings: `seed`; `stress` with `n_cases`, `severities`, `families` (all if not stated),
            `cases` (how they are observed), `n_calibration` (further cases of the training family,
            observed as in the training), `n_compared` (first cases that all methods infer) and
            `n_reference` (of these, those that the reference infers) and `n_oracle` (first cases of
            which it is said what could be detected at all); `budgets` by method.
        results: Where the report and the chains go.
        checkpoint: Folder; empty as in `checkpoints.load`.
    """
    loaded = load(model, results, checkpoint)
    ours, sizes, timing = model.methods[0], settings["stress"], {}

    def inferred(method: str, n: int) -> list[Outcome]:
        started = time.perf_counter()
        outcomes = infer_variants(model, settings, method, n)
        timing[f"{method}_s"] = time.perf_counter() - started
        return outcomes

    started = time.perf_counter()
    # Numbered after the base cases.
    calibration = _judged(
        model,
        Variant("calibration", None, 0.0),
        *in_family(model, settings, sizes["n_calibration"], "stress", 4, "calibration"),
        sizes["n_cases"],
    )
    timing["calibration_s"] = time.perf_counter() - started
    outcomes = inferred(ours, sizes["n_cases"])
    _add_distances(model, settings, [*outcomes, calibration])
    runs = _rows(outcomes)
    n_compared = min(sizes["n_compared"], sizes["n_cases"])
    others = {method: inferred(method, n_compared) for method in model.methods[1:]}
    first = {ours: outcomes[0].posterior, **{m: each[0].posterior for m, each in others.items()}}
    started = time.perf_counter()
    detection = _detection(model, settings)
    timing["oracle_s"] = time.perf_counter() - started
    reference, beside = _beside_reference(model, settings, results, outcomes[0].cases, first)
    config = {
        "checkpoint": str(loaded.folder),
        "dataset_chunk": _dataset_chunk(model.model_id),
        "case_indices": list(range(sizes["n_cases"])),
        "eval_noise_std": sizes["cases"].get("noise"),
        "inference_config": {"method": ours, **settings["budgets"][ours]},
    }
    body = {
        "model_id": model.model_id,
        "config": config,
        "split_summary": summary(runs),
        "control": control.paired(runs),
        "separation": control.separation(runs, SCORES),
        "runs": _rows([*outcomes, calibration]).to_dict("records"),
        "others": [_other(method, _rows(each)) for method, each in others.items()],
        "detection": detection.to_dict("records"),
        "reference": {
            "cases": beside.drop(columns="reference_seconds", errors="ignore").to_dict("records"),
            "summary": comparison.summary(beside) if len(beside) else [],
        },
    }
    used = {**{k: settings[k] for k in ("stress", "budgets")}, "model": model.config}
    lineage = reports.lineage(used, settings["seed"], loaded.inputs, **loaded.facts)
    report = reports.write(results.report("stress_report"), "stress_report", body, lineage, timing)
    rows = {ours: runs[runs["case_index"] < n_compared]} | {m: _rows(o) for m, o in others.items()}
    by_method = pd.concat(
        [r[r["split"] == "in_distribution"].assign(method=name) for name, r in rows.items()]
    )
    return Stress(report, outcomes, runs, by_method, reference, beside, detection)


def infer_variants(model: Model, settings: dict, method: str, n: int) -> list[Outcome]:
    """Observe, infer and judge every variant of the first base cases.

    The noise and the draws of each variant are its own; nothing else differs between them but
    the stress.
    """
    outcomes = []
    for number, variant, cases in observe_variants(model, settings, n):
        posterior = model.infer(
            cases,
            randomness.generator(settings["seed"], "stress", 2, number),
            method=method,
            budget=settings["budgets"][method],
            label=f"{method} {variant.family or variant.split} {variant.severity:g}",
        )
        outcomes.append(_judged(model, variant, cases, posterior, 0))
    return outcomes


def observe_variants(model: Model, settings: dict, n: int) -> Iterator[tuple[int, Variant, Cases]]:
    """Number, name and observations of every variant of the first base cases."""
    seed, sizes = settings["seed"], settings["stress"]
    for number, variant in enumerate(variants(model, sizes["severities"], sizes.get("families"))):
        cases = model.cases(
            sizes["n_cases"],
            randomness.generator(seed, "stress", 0),
            randomness.generator(seed, "stress", 1, number),
            sizes["cases"],
            variant.family,
            variant.severity,
        )
        yield number, variant, cases.take(slice(n))


def _judged(
    model: Model, variant: Variant, cases: Cases, posterior: Posterior, first: int
) -> Outcome:
    """An outcome, whose cases are numbered from `first`."""
    index = range(first, first + len(cases.kind))
    who = {"case_index": index, "kind": cases.kind, **variant._asdict()}
    runs = judge(model.quantities, model.config["watched"], cases, posterior)
    runs["condition_samples"] = cases.mask.sum(1).astype(float)
    found = evidence(model, cases, posterior)
    found |= diagnostics(model, cases, posterior)
    return Outcome(variant, cases, posterior, pd.DataFrame(who | dict(runs) | found))


def _add_distances(model: Model, settings: dict, outcomes: list[Outcome]) -> None:
    """Distances of the model's summaries from those of cases that serve for nothing else."""
    try:
        summaries = [model.summaries(outcome.cases) for outcome in outcomes]
    except NotImplementedError:
        return
    rng, noise = (randomness.generator(settings["seed"], "stress", number) for number in (7, 8))
    reference = Reference.fit(model.summaries(model.cases(_N_FAMILIAR, rng, noise, {})))
    for outcome, ours in zip(outcomes, summaries, strict=True):
        outcome.runs["summary_mahalanobis"] = reference.mahalanobis(ours)
        outcome.runs["summary_mmd"] = reference.mmd(ours)


def _detection(model: Model, settings: dict) -> pd.DataFrame:
    """Power of the best test on the first base cases under every stress; see `oracle`."""
    seed, sizes = settings["seed"], settings["stress"]
    references, rows = model.config.get("references", []), []
    n = min(sizes.get("n_oracle", 0), sizes["n_cases"])
    for number, variant in enumerate(variants(model, sizes["severities"], sizes.get("families"))):
        if not n or not variant.severity:
            continue

        def power(known: Sequence[str], number: int = number, variant: Variant = variant):
            return model.detection_power(
                sizes["n_cases"],
                randomness.generator(seed, "stress", 0),
                randomness.generator(seed, "stress", 1, number),
                sizes["cases"],
                variant.family or "",
                variant.severity,
                known,
                n,
            )

        try:
            plain = power([])
            known = power(references) if references else np.full(n, np.nan)
        except NotImplementedError:
            return pd.DataFrame()
        columns = {"case_index": range(n), "power": plain, "power_if_known": known}
        rows.append(pd.DataFrame({**variant._asdict(), **columns}).drop(columns="split"))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def _rows(outcomes: list[Outcome]) -> pd.DataFrame:
    return pd.concat([outcome.runs for outcome in outcomes], ignore_index=True)


def _beside_reference(
    model: Model, settings: dict, results: Results, cases: Cases, first: dict[str, Posterior]
) -> tuple[Posterior | None, pd.DataFrame]:
    """The reference of the first cases, and every equally weighted posterior beside it."""
    n = min(settings["stress"]["n_reference"], settings["stress"]["n_compared"])
    if not n:
        return None, pd.DataFrame()
    few, first = cases.take(slice(n)), {m: each.take(slice(n)) for m, each in first.items()}
    reference = model.reference(
        few,
        first[model.methods[0]],
        randomness.generator(settings["seed"], "stress", 3),
        budget=settings["budgets"]["reference"],
        folder=results.traces,
        label="reference",
    )
    equal = {m: each for m, each in first.items() if (each.weight == each.weight[:, :1]).all()}
    return reference, comparison.beside_reference(model.quantities, few, equal, reference)


def _other(method: str, runs: pd.DataFrame) -> dict:
    return {
        "method": method,
        "n_cases": int(runs["case_index"].nunique()),
        "split_summary": summary(runs),
        "separation": control.separation(runs, SCORES),
    }


def _dataset_chunk(model_id: str) -> str | None:
    """The chunk that the checkpoint was trained on, where the environment names it."""
    given = None if override(model_id, "CHECKPOINT") else override(model_id, "DATASET_CHUNK")
    return str(given) if given else None


def summary(runs: pd.DataFrame) -> list[dict]:
    """Number of cases and mean of each metric for each variant, in the order they were run."""
    keys = ["split", "family", "severity"]
    groups = runs.drop(columns=["kind", "case_index"]).groupby(keys, dropna=False, sort=False)
    table = groups.mean().reset_index()
    table.insert(3, "n_cases", groups.size().to_numpy())
    return table.to_dict("records")
