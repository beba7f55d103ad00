"""One posterior beside another that is the reference."""

import numpy as np
import pandas as pd

from touchstone.reliability.calibration import c2st
from touchstone.reliability.scores import coordinates, parameter_nrmse, posterior_mean
from touchstone.vocabulary import Cases, Posterior, Quantity

_FEWEST = 10  # distinct draws that a classifier can be trained on
_FAR = 5.0  # standard deviations of the reference: draws beyond are the tail


def beside_reference(
    quantities: list[Quantity],
    cases: Cases,
    posteriors: dict[str, Posterior],
    reference: Posterior,
) -> pd.DataFrame:
    """Compare equally weighted posteriors of simulated cases with a reference.

    Returns:
        A row for each case and posterior: `case_index`, `kind`, `n_unknown`, `method`; whether the
        reference is `sound`, and the figures of its computation as `reference_<name>`; and,
        where it has draws,
        `n_distinct` draws, `c2st`, `param_nrmse`, `reference_param_nrmse`, `width` (mean ratio of
        the 90 % intervals to those of the reference) and `tail` (part of the draws beyond five
        standard deviations of the reference in any quantity).
    """
    sound = reference.computation.sound(len(cases.kind))
    theirs = coordinates(quantities, reference.draws)
    errors = {
        name: parameter_nrmse(
            posterior_mean(quantities, each), cases.truth, each.prior_sd, ~cases.known
        )
        for name, each in {**posteriors, "reference": reference}.items()
    }
    rows = []
    for k in range(len(cases.kind)):
        unknown = ~cases.known[k]
        for name, posterior in posteriors.items():
            row = {
                "case_index": k,
                "kind": str(cases.kind[k]),
                "n_unknown": int(unknown.sum()),
                "method": name,
                "sound": bool(sound[k]),
                **{
                    f"reference_{figure}": values[k]
                    for figure, values in reference.computation.figures.items()
                },
            }
            if np.isfinite(theirs[k]).all():
                ours = coordinates(quantities, posterior.draws)[k]
                row |= _distances(ours[:, unknown], theirs[k][:, unknown])
                row["param_nrmse"] = errors[name][k]
                row["reference_param_nrmse"] = errors["reference"][k]
            rows.append(row)
    return pd.DataFrame(rows)


def _distances(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Draws of one case, shape (draw, quantity), beside those of the reference."""
    # Copies of a draw differ in what was integrated out and drawn anew, and in nothing else.
    first = min((np.unique(x, return_index=True)[1] for x in ours.T), key=len)
    distinct = ours[np.random.default_rng(0).permutation(first)]
    n = min(len(distinct), len(theirs))
    thinned = theirs[np.linspace(0, len(theirs) - 1, n).astype(int)]
    mean, sd = theirs.mean(0), theirs.std(0)

    def width(x):
        return np.subtract(*np.quantile(x, [0.95, 0.05], axis=0))

    return {
        "n_distinct": n,
        "c2st": np.nan if n < _FEWEST else c2st(thinned, distinct[:n]),
        "width": float((width(ours) / width(theirs)).mean()),
        "tail": float((np.abs(ours - mean) > _FAR * sd).any(1).mean()),
    }


def summary(rows: pd.DataFrame) -> list[dict]:
    """One row for each posterior, over the cases whose reference is sound."""
    table = []
    for name, ours in rows.groupby("method", sort=False):
        good = ours[ours["sound"]].reindex(
            columns=["c2st", "param_nrmse", "reference_param_nrmse", "width", "tail"]
        )
        table.append(
            {
                "method": name,
                "n_cases": len(ours),
                "n_sound": len(good),
                "c2st_median": good["c2st"].median(),
                "c2st_90": good["c2st"].quantile(0.9),
                **good.drop(columns="c2st").mean().to_dict(),
            }
        )
    return table
