"""What to expect of a family of failures that is not among those that were tried.

A hierarchical logistic regression: a family has an effect of its own on each detector, drawn from a
law that all families share; a new family is another draw from it. What it says rests on the new
family being of their kind.
"""

import warnings

import numpy as np
import pandas as pd

_WORST_R_HAT, _LEAST_ESS, _MOST_DIVERGENT = 1.01, 400.0, 0.001
_FEWEST = 3  # families, from which anything can be said of another


def expect(counts: pd.DataFrame, seed: int) -> dict | None:
    """Recall on an unseen family at severity 1, by detector.

    Args:
        counts: Rows of `detector`, `family`, `severity`, `flagged` and `n`.
        seed: Of the chains.

    Returns:
        `n_families`; `detectors`, rows of `detector`, `median`, `low` and `high` of the recall on
        another family (90 %), None where the chains did not converge; `r_hat`, `ess`, `divergent`;
        and `p_value`, of the spread of the counts about the regression in replications of them.
        None where there are too few families.
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
        pm.Binomial("flagged", n, logit_p=logit, observed=flagged)
        tree = pm.sample(
            2000, tune=1000, chains=4, cores=2, nuts_sampler="nutpie", target_accept=0.95,
            random_seed=seed, progressbar=False,
        )  # fmt: skip
    posterior = tree["posterior"]
    names = ["mean", "slope", "spread", "own"]
    r_hat = max(float(az.rhat(tree, var_names=names)[name].max()) for name in names)
    ess = min(float(az.ess(tree, var_names=names)[name].min()) for name in names)
    divergent = float(np.mean(np.asarray(tree["sample_stats"]["diverging"])))
    converged = r_hat <= _WORST_R_HAT and ess >= _LEAST_ESS and divergent <= _MOST_DIVERGENT
    mean, slope, spread, own = (
        np.asarray(posterior[name]).reshape(-1, *posterior[name].shape[2:])
        for name in ("mean", "slope", "spread", "own")
    )
    rng = np.random.default_rng(seed)
    new = _expit(mean + spread * rng.standard_normal(mean.shape))
    rows = []
    for k, detector in enumerate(detectors):
        ends = np.quantile(new[:, k], [0.5, 0.05, 0.95]).tolist() if converged else [None] * 3
        rows.append(
            {"detector": detector, **dict(zip(("median", "low", "high"), ends, strict=True))}
        )
    logit = mean[:, of_detector] + slope[:, of_detector] * less
    part = _expit(logit + spread[:, of_detector] * own[:, of_family, of_detector])
    replicated = _spread(rng.binomial(n, part), n, part)
    return {
        "n_families": len(families),
        "detectors": rows,
        "r_hat": r_hat,
        "ess": ess,
        "divergent": divergent,
        "p_value": float((replicated >= _spread(flagged, n, part)).mean()),
    }


def _expit(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _spread(flagged: np.ndarray, n: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Pearson's chi-square of counts about expected parts, for each draw."""
    return ((flagged - n * part) ** 2 / np.maximum(n * part * (1 - part), 1e-9)).sum(-1)
