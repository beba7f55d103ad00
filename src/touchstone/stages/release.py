"""Release what was trained: an artefact that answers where nothing was, and its certificate."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import betainc, betaincinv

from touchstone.contract import Model, folders
from touchstone.io import artifacts, reports
from touchstone.io.results import Results
from touchstone.reliability.decision import Decision, largest_rank
from touchstone.reliability.guardrail import wilson
from touchstone.stages.cases import evidence, in_family
from touchstone.stages.checkpoints import CERTIFICATE, GUARDRAIL, PRETRAINED, find, guardrail_of

_GROUPS = 4  # of equally many fresh cases, in which the rate of false alarms is given
_BAND = 0.95


class Released(NamedTuple):
    """What came of it.

    Attributes:
        folder: Of the artefact.
        certificate: As written.
    """

    folder: Path
    certificate: dict


def run(model: Model, settings: dict, results: Results, n_fresh: int) -> Released:
    """Certify what was trained and write it beside the model.

    Args:
        model: The model.
        settings: `seed` and `budgets`.
        results: Of a run that trained, stressed and calibrated it.
        n_fresh: Cases of the training family, used for nothing else, that the rate of false alarms
            is measured on.

    Raises:
        ArtifactError: If the run is not complete, or a file of it was changed.
    """
    started = time.perf_counter()
    artefact = find(model.model_id, results, results.newest_checkpoint())
    guardrail = guardrail_of(artefact)
    training = reports.read(results.report("train_report"), "train_report")
    model.load(artefact.checkpoint)
    decision = Decision.from_json(guardrail["decision"])
    fresh = _fresh(model, settings, decision, n_fresh)
    inputs = {
        "guardrail": artefact.guardrail,
        "training": results.report("train_report"),
        "checkpoint": artefact.checkpoint / artifacts.MANIFEST,
    }
    lineage = reports.lineage(
        {"n_fresh": n_fresh, "budgets": settings["budgets"], "model": model.config},
        settings["seed"],
        inputs,
    )
    body = {
        "model_id": model.model_id,
        "n_rows": training["n_rows"],
        "calibration": training["calibration"],
        "decision": guardrail["decision"],
        "false_alarms": _false_alarms(model, fresh, decision),
        "decision_score": guardrail["decision_score"],
        **{
            name: guardrail[name]
            for name in ("by_variant", "harm", "rivals", "left_out", "oracle", "unseen")
        },
        "baselines": {"historical pair": _score(guardrail["best_guardrail"])}
        | {name: _score(score) for name, score in guardrail["baselines"].items()},
        "control": guardrail["control"],
    }
    timing = {"release_s": time.perf_counter() - started}
    certificate = reports.make("certificate", body, lineage, timing)
    # The rule needs no rows of scores, which are most of its report.
    kept = {k: v for k, v in guardrail.items() if k not in ("kind", "lineage", "timing", "sha256")}
    kept |= {"schema_version": reports.SCHEMA_VERSION, "runs": []}
    rule = reports.make(guardrail["kind"], kept, guardrail["lineage"], guardrail["timing"])
    folder = folders()[model.model_id] / PRETRAINED
    _write(folder, artefact.checkpoint, rule, certificate)
    return Released(folder, certificate)


def _fresh(model: Model, settings: dict, decision: Decision, n: int) -> pd.DataFrame:
    """Cases that nothing was learnt from: kind, score, truths, and what conditions are told by."""
    cases, posterior = in_family(model, settings, n, "release", 0, "fresh cases")
    found = evidence(model, cases, posterior)
    conditions = {name: values for name, values in found.items() if name.startswith("condition_")}
    truth = {q.name: cases.truth[:, k] for k, q in enumerate(model.quantities)}
    sound = posterior.computation.sound(n)
    return pd.DataFrame(
        {"kind": cases.kind, "score": decision.score(found), "sound": sound} | truth | conditions
    )


def _false_alarms(model: Model, fresh: pd.DataFrame, decision: Decision) -> dict:
    """Rate on fresh cases, beside the band that the calibration promises; and by group."""
    n, calibrated = len(fresh), decision.n_calibrated
    flagged = (fresh["score"] > decision.threshold).to_numpy()
    rank = max(largest_rank(calibrated, decision.alpha, decision.delta), 1)
    ends = betaincinv(rank, calibrated + 1 - rank, [(1 - _BAND) / 2, (1 + _BAND) / 2])
    groups = [_group("kind", str(name), rows, flagged) for name, rows in fresh.groupby("kind")]
    ratios = {
        name.removeprefix("condition_") + ", inferred": fresh[name]
        for name in fresh
        if name.startswith("condition_")
    }
    for first, second in model.config.get("conditions", []):
        ratios[f"ln {first} - ln {second}"] = fresh[first] - fresh[second]
    for by, ratio in ratios.items():
        quarter = pd.qcut(ratio, _GROUPS, duplicates="drop")
        groups += [
            _group(by, str(interval), rows, flagged)
            for interval, rows in fresh.groupby(quarter, observed=True)
        ]
    return {
        "rate": wilson(flagged.mean(), n)._asdict(),
        "promised": {"low": float(ends[0]), "high": float(ends[1]), "rank": rank},
        "chance_of_rate_below_alpha": float(betainc(rank, calibrated + 1 - rank, decision.alpha)),
        "computation_sound": wilson(fresh["sound"].mean(), n)._asdict(),
        "groups": groups,
    }


def _group(by: str, name: str, rows: pd.DataFrame, flagged: np.ndarray) -> dict:
    rate = wilson(flagged[rows.index].mean(), len(rows))
    return {"by": by, "group": name, **rate._asdict()}


def _score(score: dict) -> dict:
    return {name: score[name] for name in ("precision", "recall", "f1", "tpr", "fpr")}


def _write(folder: Path, checkpoint: Path, rule: dict, certificate: dict) -> None:
    """The artefact, complete or not at all: what was there before stays until the manifest is."""
    manifest = artifacts.read_json(checkpoint / artifacts.MANIFEST)
    folder.mkdir(exist_ok=True)
    for name in manifest["files"]:
        with artifacts.atomic(folder / name) as temporary:
            temporary.write_bytes((checkpoint / name).read_bytes())
    artifacts.write_json(folder / GUARDRAIL, rule)
    artifacts.write_json(folder / CERTIFICATE, certificate)
    files = [*manifest["files"], GUARDRAIL, CERTIFICATE]
    artifacts.write_manifest(folder, files, manifest["settings"], manifest["lineage"])
