"""What to expect of a family of failures that is not among those that were tried.

A hierarchical logistic regression: a family has an effect of its own on each detector, drawn from a
law that all families share; a new family is another draw from it. Recall is no straight line in the
severity, so that counts scatter about the regression more than binomial ones: they are
beta-binomial (Skellam 1948), and the excess is inferred for each detector. What is said of a new
family includes it. It rests on the new family being of their kind.
"""

import warnings

import numpy as np
import pandas as pd

_WORST_R_HAT, _LEAST_ESS, _MOST_DIVERGENT = 1.01, 400.0, 0.001
_LEAST = 1e-4  # part of cases that may be flagged, and that may be missed, of any cell
_FEWEST = 3  # families, from which anything can be said of another


def expect(counts: pd.DataFrame, seed: int) -> dict | None:
    """Recall on an unseen family at severity 1, by detector.

    Args:
        counts: Rows of `detector`, `family`, `severity`, `flagged` and `n`.
        seed: Of the chains.

    Returns:
        `n_families`; `detectors`, rows of `detector`, `median`, `low` and `high` of the recall on
        another family (90 %), None where the chains did not converge; `r_hat`, `ess`, `divergent`;
        `p_value`, of the spread of the counts about the regression in replications of them; and
        `cells`, rows of `family`, `severity`, the part `flagged` by the first detector, and `low`
        and `high` of replications of that part (90 %). None where there are too few families.
    """
    detectors, families = (list(dict.fromkeys(counts[k])) for k in ("detector", "family"))
    if len(families) < _FEWEST:
        return None
    import arviz as az
    import pymc as pm

    of_detector = counts["detector"].map(detectors.index).to_numpy()
    of_family = counts["family"].map(families.index).to_numpy()
    n, flagged = counts["n"].to_numpy(int), counts["flagged"].to_numpy(int)
    less = counts["severity"].to_numpy(float) - 1.0
    shape = len(families), len(detectors)
    with pm.Model(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of is judged below
        mean = pm.Normal("mean", 0, 2, shape=shape[1])
        slope = pm.Normal("slope", 2, 2, shape=shape[1])
        spread = pm.HalfNormal("spread", 2, shape=shape[1])
        own = pm.Normal("own", 0, 1, shape=shape)
        logit = mean[of_detector] + slope[of_detector] * less
        logit = logit + spread[of_detector] * own[of_family, of_detector]
        part = _LEAST + (1 - 2 * _LEAST) * pm.math.sigmoid(logit)
        # Correlation of the cases of a cell: 0 would be binomial, 1 all or none.
        excess = pm.Beta("excess", 1, 5, shape=shape[1])
        size = (1 / excess - 1)[of_detector]
        pm.BetaBinomial("flagged", alpha=part * size, beta=(1 - part) * size, n=n, observed=flagged)
        tree = pm.sample(
            2000, tune=1000, chains=4, cores=2, nuts_sampler="nutpie", target_accept=0.95,
            random_seed=seed, progressbar=False,
        )  # fmt: skip
    posterior = tree["posterior"]
    names = ["mean", "slope", "spread", "own", "excess"]
    r_hat = max(float(az.rhat(tree, var_names=names)[name].max()) for name in names)
    ess = min(float(az.ess(tree, var_names=names)[name].min()) for name in names)
    divergent = float(np.mean(np.asarray(tree["sample_stats"]["diverging"])))
    converged = r_hat <= _WORST_R_HAT and ess >= _LEAST_ESS and divergent <= _MOST_DIVERGENT
    mean, slope, spread, own, excess = (
        np.asarray(posterior[name]).reshape(-1, *posterior[name].shape[2:]) for name in names
    )
    rng = np.random.default_rng(seed)
    new = _part_of(mean + spread * rng.standard_normal(mean.shape), excess, rng)
    rows = []
    for k, detector in enumerate(detectors):
        ends = np.quantile(new[:, k], [0.5, 0.05, 0.95]).tolist() if converged else [None] * 3
        rows.append(
            {"detector": detector, **dict(zip(("median", "low", "high"), ends, strict=True))}
        )
    logit = mean[:, of_detector] + slope[:, of_detector] * less
    logit = logit + spread[:, of_detector] * own[:, of_family, of_detector]
    part, more = _expit(logit), excess[:, of_detector]
    replications = rng.binomial(n, _part_of(logit, more, rng))
    replicated = _spread(replications, n, part, more)
    cells = counts[["family", "severity"]].assign(
        flagged=flagged / n,
        low=np.quantile(replications, 0.05, axis=0) / n,
        high=np.quantile(replications, 0.95, axis=0) / n,
    )
    return {
        "n_families": len(families),
        "detectors": rows,
        "r_hat": r_hat,
        "ess": ess,
        "divergent": divergent,
        "p_value": float((replicated >= _spread(flagged, n, part, more)).mean()),
        "cells": cells[of_detector == 0].to_dict("records"),
    }


def _expit(x: np.ndarray) -> np.ndarray:
    """Expected parts, which are neither none nor all."""
    return _LEAST + (1 - 2 * _LEAST) / (1 + np.exp(-x))


def _part_of(logit: np.ndarray, excess: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Parts that are flagged of whole cells, which scatter about what is expected of them."""
    part, size = _expit(logit), 1 / excess - 1
    return rng.beta(part * size, (1 - part) * size)


def _spread(flagged: np.ndarray, n: np.ndarray, part: np.ndarray, excess: np.ndarray) -> np.ndarray:
    """Pearson's chi-square of beta-binomial counts about expected parts, for each draw."""
    variance = n * part * (1 - part) * (1 + (n - 1) * excess)
    return ((flagged - n * part) ** 2 / variance).sum(-1)
