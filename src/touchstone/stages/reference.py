"""Fast posteriors beside the reference: the same simulated cases, sampled at length by NUTS."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from tqdm import tqdm

from touchstone.contract import Model
from touchstone.io import artifacts
from touchstone.reliability.calibration import c2st
from touchstone.reliability.scores import parameter_nrmse
from touchstone.vocabulary import Cases, Posterior

_COLUMNS = (
    *("case_index", "task", "n_unknown", "posterior", "converged", "r_hat", "ess", "n_divergent"),
    *("nuts_s", "n_distinct", "c2st", "param_nrmse", "nuts_param_nrmse", "width", "tail"),
)
_LENGTHS = (1, 2, 4)  # of chains, in turn, until they agree
_HOPE = 0.5  # of the effective draws needed: if longer chains can expect so many, they are run
_FEWEST = 10  # distinct draws that a classifier can be trained on
_FAR = 5.0  # standard deviations of the reference: draws beyond are the tail


def compare(
    model: Model,
    base: Any,
    cases: Cases,
    posteriors: dict[str, Posterior],
    *,
    n_tune: int,
    n_draws: int,
    seed: int,
    folder: Path,
    label: str | None = None,
) -> pd.DataFrame:
    """Sample cases by NUTS, keep the chains, and compare posteriors with them.

    One chain starts at the truth, which is an exact draw of the posterior, the others at draws of
    the posterior named "reweighted": chains that agree vouch for both. Where they do not, they are
    run again from their own draws, twice and then four times as long, unless even then they are
    expected to hold less than half of the effective draws needed; a case that cannot be sampled
    counts as one where they do not. Chains that are kept, and are of the same posterior, are not
    sampled again: a change to the fast posteriors is compared within minutes.

    Args:
        model: The model.
        base: Its base cases, for the names of the tasks.
        cases: What was observed of them.
        posteriors: To compare, by name; unweighted.
        n_tune: Draws of each chain that are dropped.
        n_draws: Draws of each chain that are kept.
        seed: For all randomness.
        folder: Where the chains are kept, as `nuts_<case>.nc`.
        label: Shows a progress bar under this name.

    Returns:
        A row for each case and posterior: `case_index`, `task`, `n_unknown`, `posterior`,
        `converged`, `r_hat`, `ess`, `n_divergent`, `nuts_s`, `n_distinct`, `c2st`, `param_nrmse`,
        `nuts_param_nrmse`, `width` (mean ratio of the 90 % intervals to those of NUTS) and `tail`
        (part of the draws beyond five standard deviations of NUTS in any parameter).
    """
    # Not for every user of this module: its import takes as long as a short stage.
    from touchstone.inference.nuts import UnfitStartError

    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for k in tqdm(range(len(cases.observed)), desc=label, disable=label is None):
        one = cases.take(slice(k, k + 1))
        unknown = ~one.known[0]
        try:
            chains, diagnosis = _chains(
                model,
                one,
                posteriors["reweighted"].z[k],
                folder / f"nuts_{k}.nc",
                {"n_tune": n_tune, "n_draws": n_draws},
                seed + k,
            )
        except UnfitStartError as error:
            tqdm.write(f"case {k} cannot be sampled: {error}")
            (folder / f"nuts_{k}.nc").unlink(missing_ok=True)  # if any, of another case
            chains, quality = None, {"converged": False}
        else:
            quality = {
                "converged": not diagnosis.faults,
                "r_hat": max(diagnosis.r_hat.values()),
                "ess": diagnosis.least_ess,
                "n_divergent": diagnosis.n_divergent,
                "nuts_s": chains.attrs["seconds"],
            }
        for name, posterior in posteriors.items():
            row = {
                "case_index": k,
                "task": str(base.task[k]),
                "n_unknown": int(unknown.sum()),
                "posterior": name,
                **quality,
            }
            if chains is not None:
                row |= _beside(model, one, posterior.z[k], draws(chains), unknown)
            rows.append(row)
    return pd.DataFrame(rows, columns=_COLUMNS)


def _chains(
    model: Model, case: Cases, start: np.ndarray, path: Path, sizes: dict[str, int], seed: int
) -> tuple[xr.DataTree, Any]:
    """Chains of a case, those kept at the path if they are what is asked for; their diagnosis."""
    from touchstone.inference import nuts

    asked = json.dumps({**sizes, "seed": seed})
    old = kept(path)
    if old is not None and old.attrs.get("asked") != asked:
        old = None
    began = time.perf_counter()
    for length in _LENGTHS:
        longer = {name: length * size for name, size in sizes.items()}
        chains = model.reference(case, start, seed=seed, kept=old, **longer)
        diagnosis = nuts.diagnose(chains)
        if chains is old:
            return chains, diagnosis
        expected = _LENGTHS[-1] / length * diagnosis.least_ess
        if not diagnosis.faults or not expected >= _HOPE * nuts.LEAST_ESS:
            break
        start, old = draws(chains), None
    chains.attrs |= {"asked": asked, "seconds": time.perf_counter() - began}
    with artifacts.atomic(path) as temporary:
        chains.to_netcdf(temporary, engine="h5netcdf")
    return chains, diagnosis


def kept(path: Path) -> xr.DataTree | None:
    """Chains that `compare` has kept; None if there are none, or they are damaged."""
    try:
        return xr.load_datatree(path, engine="h5netcdf")
    except (OSError, ValueError, KeyError, RuntimeError):
        return None


def draws(chains: xr.DataTree) -> np.ndarray:
    """Draws of all chains one after the other, with the known parameters, (draws, P)."""
    whole = chains["posterior"]["standard"].values
    return whole.reshape(-1, whole.shape[-1])


def _beside(
    model: Model, case: Cases, ours: np.ndarray, reference: np.ndarray, unknown: np.ndarray
) -> dict[str, float]:
    """Draws of one case, shape (draws, P), beside those of the reference."""
    # Copies differ in what was integrated out and drawn anew, and in nothing else.
    first = min((np.unique(z, return_index=True)[1] for z in ours[:, unknown].T), key=len)
    distinct = ours[np.random.default_rng(0).permutation(first)]
    n = min(len(distinct), len(reference))
    thinned = reference[np.linspace(0, len(reference) - 1, n).astype(int)]
    mean, sd = reference[:, unknown].mean(0), reference[:, unknown].std(0)
    far = np.abs(ours[:, unknown] - mean) > _FAR * sd

    def width(z):
        return np.subtract(*np.quantile(z[:, unknown], [0.95, 0.05], axis=0))

    _, prior_sd = model.prior_moments(case)
    truth = model.natural(case.z[:, None], case)[:, 0]

    def error(z):
        estimate = model.natural(z[None], case).mean(1)
        return float(parameter_nrmse(estimate, truth, prior_sd, unknown[None])[0])

    return {
        "n_distinct": n,
        "c2st": np.nan if n < _FEWEST else c2st(thinned[:, unknown], distinct[:n][:, unknown]),
        "param_nrmse": error(ours),
        "nuts_param_nrmse": error(reference),
        "width": float((width(ours) / width(reference)).mean()),
        "tail": float(far.any(1).mean()),
    }


def summary(rows: pd.DataFrame) -> list[dict]:
    """One row for each posterior, over the cases whose chains agree."""
    table = []
    for name, ours in rows.groupby("posterior", sort=False):
        good = ours[ours["converged"]]
        table.append(
            {
                "posterior": name,
                "n_cases": len(ours),
                "n_converged": len(good),
                "c2st_median": good["c2st"].median(),
                "c2st_90": good["c2st"].quantile(0.9),
                "param_nrmse": good["param_nrmse"].mean(),
                "nuts_param_nrmse": good["nuts_param_nrmse"].mean(),
                "width": good["width"].mean(),
                "tail": good["tail"].mean(),
            }
        )
    return table
