"""Base cases put under every stress of a model at every severity, inferred and judged."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from touchstone.contract import Model
from touchstone.reliability import guardrail
from touchstone.reliability.scores import parameter_nrmse, predictive_metrics
from touchstone.vocabulary import Cases, Posterior

_COMPUTATION = ("effective", "efficiency", "k_hat", "log_evidence", "disagreement")


class Variant(NamedTuple):
    """One way in which all base cases are observed.

    Attributes:
        split: "in_distribution", "control" (a stress of severity 0) or "stress_" and its group.
        family: Name of the stress; None in distribution.
        severity: In [0, 1].
    """

    split: str
    family: str | None
    severity: float


class Outcome(NamedTuple):
    """What came of one variant.

    Attributes:
        variant: Which.
        cases: The observations.
        posterior: What was inferred from them.
        runs: One row a case: who it is, and its metrics.
    """

    variant: Variant
    cases: Cases
    posterior: Posterior
    runs: pd.DataFrame


def variants(model: Model, severities: list[float]) -> list[Variant]:
    """The training family itself, then each stress at each severity; 0 is the control."""
    stressed = [
        Variant(f"stress_{entry['group']}" if severity else "control", family, float(severity))
        for family, entry in model.config["stresses"].items()
        for severity in severities
    ]
    return [Variant("in_distribution", None, 0.0), *stressed]


def run(
    model: Model,
    checkpoint: Any,
    base: Any,
    severities: list[float],
    key: jax.Array,
    *,
    method: str,
    budget: dict,
    label: str,
) -> list[Outcome]:
    """Observe, infer and judge every variant of some base cases.

    The noise and the draws of each variant are its own; nothing else differs between them but
    the stress.

    Args:
        model: The model.
        checkpoint: Of the model.
        base: Its base cases.
        severities: Of each stress.
        key: For noise and inference.
        method: Of inference.
        budget: Of that method.
        label: Of the progress bars.

    Returns:
        One outcome for each variant.
    """
    outcomes = []
    for number, variant in enumerate(variants(model, severities)):
        noise_key, draw_key = jax.random.split(jax.random.fold_in(key, number))
        cases = model.variant(base, noise_key, variant.family, variant.severity)
        name = f"{label} {variant.family or variant.split} {variant.severity:g}"
        posterior = model.infer(checkpoint, cases, draw_key, method=method, label=name, **budget)
        runs = judge(model, cases, posterior)
        for column, value in zip(("severity", "family", "split"), variant[::-1], strict=True):
            runs.insert(0, column, value)
        runs.insert(0, "task", base.task)
        runs.insert(0, "case_index", np.arange(len(runs)))
        outcomes.append(Outcome(variant, cases, posterior, runs))
    return outcomes


def judge(model: Model, cases: Cases, posterior: Posterior) -> pd.DataFrame:
    """Metrics of simulated cases, whose truth is known, one row each.

    Beside the error of the posterior mean stands that of the prior mean; the watched parameters of
    the model have the bias of their posterior mean, in their natural coordinate.
    """
    mean, sd = model.prior_moments(cases)
    truth = model.natural(cases.z[:, None], cases)[:, 0]
    draws = model.natural(posterior.z, cases)
    estimate = np.einsum("nd,ndp->np", posterior.weight, draws)
    unknown = ~cases.known
    metrics = predictive_metrics(
        cases.observed, cases.mask, posterior.mean, posterior.sd, posterior.noise
    )
    runs = pd.DataFrame(
        {
            "param_nrmse": parameter_nrmse(estimate, truth, sd, unknown),
            "prior_mean_nrmse": parameter_nrmse(mean, truth, sd, unknown),
            **metrics,
            **{name: getattr(posterior, name) for name in _COMPUTATION},
            "k_hat_ok": np.where(
                np.isnan(posterior.k_hat), np.nan, posterior.k_hat <= posterior.k_threshold
            ),
        }
    )
    names = [parameter.name for parameter in model.parameters]
    for watched in model.config["watched"]:
        k = names.index(watched)
        bias = np.where(unknown[:, k], estimate[:, k] - truth[:, k], np.nan)
        logarithmic = model.parameters[k].logarithmic
        runs[f"bias_{watched}"] = bias / np.log(10) if logarithmic else bias
    return runs


def summary(runs: pd.DataFrame) -> list[dict]:
    """Number of cases and mean of each metric for each variant, in the order they were run."""
    keys = ["split", "family", "severity"]
    groups = runs.drop(columns=["task", "case_index"]).groupby(keys, dropna=False, sort=False)
    table = groups.mean().reset_index()
    table.insert(3, "n_cases", groups.size().to_numpy())
    return table.to_dict("records")


def separation(runs: pd.DataFrame, scores: dict[str, int]) -> list[dict]:
    """How well single numbers tell each stressed variant from the training family.

    Args:
        runs: As from `run`, of one method.
        scores: Columns, with the sign that makes a suspicious case score high.

    Returns:
        A row for each family and severity: the chance that a stressed case scores higher.
    """
    reference = runs[runs["split"] == "in_distribution"]
    rows = []
    groups = runs.dropna(subset=["family"]).groupby(["family", "severity"], sort=False)
    for (family, severity), stressed in groups:
        is_stressed = np.repeat([False, True], [len(reference), len(stressed)])
        areas = {
            name: guardrail.separation(
                sign * np.concatenate([reference[name], stressed[name]]), is_stressed
            )
            for name, sign in scores.items()
        }
        rows.append({"family": family, "severity": severity, "n": len(stressed), **areas})
    return rows
