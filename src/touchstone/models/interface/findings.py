"""What a training has learnt and what it cannot tell, as tables and in sentences."""

from typing import NamedTuple

import numpy as np

from touchstone.contract import REACH
from touchstone.models.interface.frozen import Frozen
from touchstone.models.interface.regression import Diagnosis, Loo

_INFORMED = 0.8  # of the prior standard deviation, below which the data have said something
_APART = 2.0  # standard errors, beyond which a difference is one
_MOST_HIGH = 0.05  # of the rows with a high Pareto k, beyond which elpd is not compared
_SAME = 1e-6  # range of a stimulus, in its standard deviations, that is rounding
_MANY = 100  # rows, below which a standard error of LOO is itself a guess (Sivula et al. 2020)


class Compared(NamedTuple):
    """A regression that was sampled.

    Attributes:
        name: Its errors and its prior, in words.
        loo: Leave-one-out cross-validation.
        diagnosis: Of its chains.
    """

    name: str
    loo: Loo
    diagnosis: Diagnosis

    def less(self, first: "Compared") -> tuple[float, float]:
        """Difference of elpd to another regression of the same rows, and its standard error."""
        apart = self.loo.pointwise - first.loo.pointwise
        return float(apart.sum()), float(np.sqrt(len(apart)) * apart.std(ddof=1))


def effects(
    frozen: Frozen, names: tuple[tuple[str, ...], tuple[str, ...]], sizes: dict[str, float]
) -> list[dict]:
    """A row for each main effect, stimuli first: its 90 % interval, on that of its prior.

    Args:
        frozen: The regression.
        names: Of its descriptors and of the stimuli.
        sizes: Standard deviations of the priors.
    """
    rows = []
    for labels, draws, size in (
        (names[1], frozen.stimulus, sizes["stimulus"]),
        (names[0], frozen.morphology, sizes["morphology"]),
    ):
        for label, values in zip(labels, draws.T, strict=True):
            low, median, high = np.quantile(values, [0.05, 0.5, 0.95])
            rows.append(
                {
                    "name": label,
                    "n": int(frozen.counts.sum()),
                    "median": float(median),
                    "low": float(low),
                    "high": float(high),
                    "prior low": -REACH * size,
                    "prior high": REACH * size,
                    "sd over prior sd": float(values.std() / size),
                }
            )
    return rows


def comparison(regressions: list[Compared]) -> list[dict]:
    """A row for each regression; elpd beside that of the first, which was frozen."""
    rows = []
    for each in regressions:
        loo, chains = each.loo, each.diagnosis
        apart, error = each.less(regressions[0]) if rows else (None, None)
        numbers = {
            "elpd": loo.elpd,
            "standard error": loo.se,
            "difference": apart,
            "its standard error": error,
            "effective parameters": loo.p,
            "high Pareto k": loo.k_high,
            "R-hat": chains.r_hat,
            "effective draws": chains.ess,
            "divergent": chains.divergent,
        }
        rows.append({"name": each.name, "n": len(loo.pointwise), **numbers})
    return rows


def about_stimuli(
    frozen: Frozen, rows: list[dict], units: dict[str, str], target: dict
) -> list[str]:
    """The effect of each stimulus in the unit of the area, and what it is not.

    Args:
        frozen: The regression.
        rows: As from `effects`.
        units: Of each stimulus, by its name.
        target: Name and unit of the area, as in the model's `config.yaml`.
    """
    scale, n = frozen.sd[-1], len(frozen.kept)
    said = []
    for row, sd, width in zip(rows, frozen.sd[n:-1], np.ptp(frozen.combinations, 0), strict=False):
        if width < _SAME:
            said.append(
                f"{row['name']} was the same in all measurements, which say nothing of its effect."
            )
            continue
        low, median, high = (scale * row[end] for end in ("low", "median", "high"))
        sign = "its sign is known" if low > 0 or high < 0 else "its sign is open"
        said.append(
            f"{row['name']} higher by {sd:.3g} {units[row['name']]} (one standard deviation) goes "
            f"with {target['name']} {median:+.2g} {target['unit']}, 90 % interval {low:+.2g} to "
            f"{high:+.2g}: {sign}."
        )
    said.append(
        "These are effects at mean morphology, with the other columns held. They are causes only "
        "if nothing that was not measured moved with the stimulus."
    )
    return said


def about_coefficients(frozen: Frozen, rows: list[dict], sizes: dict[str, float]) -> list[str]:
    """Which coefficients the data inform, and which keep their prior.

    Args:
        frozen: The regression.
        rows: As from `effects`.
        sizes: Standard deviations of the priors.
    """
    rule = f"posterior standard deviation below {_INFORMED:g} of the prior's"
    known = [row["name"] for row in rows if row["sd over prior sd"] < _INFORMED]
    others = [row["name"] for row in rows if row["sd over prior sd"] >= _INFORMED]
    said = [
        f"The {frozen.counts.sum()} measurements inform {len(known)} of {len(rows)} effects "
        f"({rule}){_listed(known)}."
    ]
    if others:
        said.append(
            f"They say little of {len(others)}{_listed(others)}. The interval of such an effect is "
            "mostly that of its prior: it is an assumption and no finding."
        )
    signed = [row["name"] for row in rows if row["low"] > 0 or row["high"] < 0]
    said.append(
        f"The 90 % interval leaves out zero for {len(signed)} of {len(rows)} effects"
        f"{_listed(signed)}. The sign of any other effect is open, informed or not."
    )
    n, n_main = int(frozen.counts.sum()), 1 + len(rows)
    if n < n_main:
        said.append(
            f"{n} measurements cannot inform {n_main} coefficients: {n_main - n} combinations of "
            "them keep the prior whatever was measured."
        )
    if frozen.product.any():
        narrow = frozen.product.std(0) < _INFORMED * sizes["product"]
        said.append(
            f"Of {narrow.size} products of a descriptor and a stimulus they inform "
            f"{np.count_nonzero(narrow)} by the same rule."
        )
    return said


def about_films_held_out(row: dict) -> str:
    """Whether the regression predicts films that it did not learn from better than their mean."""
    ours, theirs = row["regression"], row["mean of the training"]
    verdict = "no better than" if ours >= theirs else "better than"
    return (
        f"The regression predicts the {row['n']} measurements of films held out {verdict} the mean "
        f"of the training does: its error is {ours:.2f} standard deviations, that of the mean "
        f"{theirs:.2f}."
    )


def about_loo(regressions: list[Compared], film_effects: bool) -> list[str]:
    """What leaving one measurement out can tell, and what it cannot."""
    ours, *others = regressions
    n = len(ours.loo.pointwise)
    said = [
        f"Leaving one of {n} measurements out, the log predictive density (elpd) of the regression "
        f"with {ours.name} is {ours.loo.elpd:.1f}, with a standard error of {ours.loo.se:.1f}."
    ]
    if film_effects:
        said.append(
            "The film of the measurement that is left out stays known by its other measurements: "
            "this is about new measurements of these films, not about new films."
        )
    said += [_of_k(each) for each in regressions if each.loo.k_high]
    for each in others:
        apart, error = each.less(ours)
        verdict = "prefers it" if apart > 0 else "prefers the first"
        if max(each.loo.high.mean(), ours.loo.high.mean()) > _MOST_HIGH:
            verdict = "cannot tell the two apart, because Pareto k is high too often"
        elif abs(apart) <= _APART * error:
            verdict = "cannot tell the two apart"
        said.append(
            f"With {each.name} elpd differs by {apart:+.1f}, with a standard error of {error:.1f}: "
            f"leaving one out {verdict}."
        )
        if each.diagnosis.fault:
            said.append(f"Its chains did not converge, though: {each.diagnosis.fault}.")
    if others and n < _MANY:
        said.append(
            f"With {n} measurements, fewer than {_MANY}, these standard errors are themselves "
            "rough, and mostly too small."
        )
    return said


def _of_k(each: Compared) -> str:
    n, high = len(each.loo.pointwise), each.loo.k_high
    return (
        f"With {each.name}, Pareto k is above its limit for {high} of {n} measurements: what is "
        "left out changes the posterior so much there that their part of elpd may be wrong."
    )


def _listed(names: list[str]) -> str:
    return f": {', '.join(names)}" if names else ""
