"""Whether the regression could have made its areas, and what they come from by it."""

from pathlib import Path

import numpy as np
import xarray as xr

from touchstone.contract import Comparison
from touchstone.io.artifacts import ArtifactError
from touchstone.models.interface import gibbs, regression
from touchstone.models.interface.frozen import Frozen
from touchstone.models.interface.prediction import Background, attribution
from touchstone.models.interface.regression import Design

_STATISTICS = {
    "mean": lambda y: y.mean(-1),
    "standard deviation": lambda y: y.std(-1),
    "smallest": lambda y: y.min(-1),
    "largest": lambda y: y.max(-1),
    "excess kurtosis": lambda y: (
        ((y - y.mean(-1, keepdims=True)) ** 4).mean(-1) / y.var(-1) ** 2 - 3
    ),
    "median distance from the median": lambda y: np.median(
        np.abs(y - np.median(y, axis=-1, keepdims=True)), axis=-1
    ),
}
_MASS = [0.05, 0.5, 0.95]
_HIGH = 0.8  # quantile of the areas, above which one is high
_MOST_REFITS = 10  # rows of high Pareto k, of which the highest are left out in earnest


class Checked:
    """A regression beside its data.

    Args:
        frozen: The regression.
        trace: NetCDF of its chains.
        names: Of its descriptors, then of the stimuli.
        sizes: Standard deviations of the priors.
        rng: For replicated areas, and for chains without a row.

    Attributes:
        observed: Standardised areas, shape (row,).
        replicated: Areas that the regression makes for the same films, shape (draw, row).
        high: Posterior probability that the area of each row, without its error, is above a
            quantile of those observed, shape (row,).
        high_film: That of the mean of each film's rows, shape (film,).
        residual: Observed less the posterior mean of each row's location, shape (row,).
        location: That mean, shape (row,).
        loo: Leave-one-out cross-validation, exact where the regression was sampled without the row.
        refitted: Those rows.
        not_refitted: Why others of high Pareto k were not, in words; empty if there are none.
        pit: Of each row, given all others, shape (row,).
        energy: Of the chains, shape (chain, draw).
    """

    def __init__(
        self,
        frozen: Frozen,
        trace: Path,
        names: tuple[str, ...],
        sizes: dict[str, float],
        rng: np.random.Generator,
    ):
        try:
            tree = xr.open_datatree(trace, engine="h5netcdf")
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{trace}: not the chains of a regression ({error})") from None
        self._frozen, self._names = frozen, names
        self._background = Background.of(frozen)
        self._film = film = np.repeat(np.arange(len(frozen.counts)), frozen.counts)
        location = frozen.location(*self._background) + frozen.effect[:, film]
        scatter = frozen.scatter[:, None]
        self.observed = frozen.areas
        # The artefact holds some of the draws of the chains that it was made from, and no others'.
        intercepts = np.asarray(tree["posterior"]["intercept"])
        kept = regression.thinned(intercepts, len(frozen.intercept))
        alike = kept.shape == frozen.intercept.shape and np.allclose(kept, frozen.intercept)
        if tree["observed_data"]["target"].shape != self.observed.shape or not alike:
            raise ArtifactError(f"{trace}: of another training than the checkpoint; train again")
        limit = np.quantile(self.observed, _HIGH)
        self.high = (location > limit).mean(0)
        of_film = [location[:, film == f].mean(1) for f in range(len(frozen.counts))]
        self.high_film = np.array([(mean > limit).mean() for mean in of_film])
        self.replicated = location + rng.laplace(0, 1, location.shape) * scatter
        self.location = location.mean(0)
        self.residual = self.observed - self.location
        # Weighted by what leaving the row out does to each draw (Gelfand 1992).
        off = (self.observed - location) / scatter
        log_weight = np.abs(off) + np.log(scatter)
        weight = np.exp(log_weight - log_weight.max(0))
        below = np.where(off < 0, 0.5 * np.exp(-np.abs(off)), 1 - 0.5 * np.exp(-np.abs(off)))
        self.pit = (weight * below).sum(0) / weight.sum(0)
        self._leave_one_out(tree, Design(film, *self._background, self.observed), sizes, rng)
        self.energy = np.asarray(tree["sample_stats"]["energy"])

    def _leave_one_out(self, tree, design: Design, sizes: dict[str, float], rng) -> None:
        """Smoothed importance sampling, and chains without the row where that cannot be trusted."""
        self.loo = regression.leave_one_out(tree)
        high = np.flatnonzero(self.loo.high)
        self.refitted, self.not_refitted = high[np.argsort(-self.loo.k[high])][:_MOST_REFITS], ""
        if "tau" in tree["posterior"]:
            self.refitted = high[:0]
            self.not_refitted = "it has the horseshoe prior, of which there are no quick chains"
        elif len(high) > _MOST_REFITS:
            self.not_refitted = f"no more than {_MOST_REFITS}, those of the highest k, are"
        if len(self.refitted):
            terms = self._frozen.product.any(), self._frozen.film_sd.any()
            exact = gibbs.refit(design, *map(bool, terms), self.refitted, sizes, rng)
            self.loo = self.loo.replaced(self.refitted, exact.log_density)
            self.pit[self.refitted] = exact.pit

    def tables(self) -> list[Comparison]:
        """What was checked, to be read: statistics, leaving one out, and attributions."""
        unit, mean = self._frozen.sd[-1], self._frozen.mean[-1]
        statistics = []
        for name, statistic in _STATISTICS.items():
            ours, theirs = statistic(self.observed), statistic(self.replicated)
            low, median, high = np.quantile(theirs, _MASS)
            statistics.append(
                {
                    "name": name,
                    "n": len(self.observed),
                    "observed": float(ours),
                    "median": float(median),
                    "low": float(low),
                    "high": float(high),
                    "part of replications below": float((theirs < ours).mean()),
                }
            )
        loo = {
            "name": "leaving one measurement out",
            "n": len(self.observed),
            "elpd": self.loo.elpd,
            "standard error": self.loo.se,
            "effective parameters": self.loo.p,
            "sampled without the row": len(self.refitted),
            "high Pareto k among the others": self.loo.k_high,
            "largest distance of its PIT": _distance(self.pit),
            "limit of 95 %": 1.358 / np.sqrt(len(self.pit)),
        }
        shares = unit * attribution(self._frozen, self._background, *self._background)
        area = mean + unit * np.quantile(self.observed, _HIGH)
        return [
            Comparison(
                "Statistics of the areas (sd), and of areas that the regression makes", statistics
            ),
            Comparison(self._title_of_loo(), [loo]),
            Comparison(
                f"Probability that the mean area of a film is above {area:.4g}, the {_HIGH:g} "
                "quantile of all measurements",
                self._high_films(),
            ),
            Comparison("Mean size of what each predictor adds", self._shares(np.abs(shares))),
            Comparison(
                f"What each adds where the area is above {area:.4g}, by the probability that it is",
                self._shares(shares, self.high),
            ),
        ]

    def _high_films(self) -> list[dict]:
        """Films, those that are most probably of a high area first."""
        centre, unit = self._frozen.mean[-1], self._frozen.sd[-1]
        rows = [
            {
                "name": str(label),
                "n": int(self._frozen.counts[film]),
                "observed mean": float(centre + unit * self.observed[self._film == film].mean()),
                "probability": float(p),
            }
            for film, (label, p) in enumerate(zip(self._frozen.labels, self.high_film, strict=True))
        ]
        return sorted(rows, key=lambda row: -row["probability"])

    def _title_of_loo(self) -> str:
        title = "Cross-validation"
        if len(self.refitted):
            title += ", exact where Pareto k was high"
        if self.not_refitted:
            title += (
                f"; {self.loo.k_high} more measurements of high Pareto k were not left out in "
                f"earnest, because {self.not_refitted}: their part of elpd may be wrong"
            )
        return title

    def _shares(self, shares: np.ndarray, weight: np.ndarray | None = None) -> list[dict]:
        """Means over rows, weighted if a weight is given, as intervals over draws, the largest
        first."""
        mean = np.average(shares, axis=0, weights=weight)
        low, median, high = np.quantile(mean, _MASS, axis=0)
        return [
            {
                "name": self._names[k],
                "n": len(shares),
                "median": float(median[k]),
                "low": float(low[k]),
                "high": float(high[k]),
            }
            for k in np.argsort(-np.abs(median))
        ]

    def draw(self, axes) -> None:
        """Draw replications, PIT, energy and residuals on four axes."""
        replications, pit, energy, residuals = axes
        levels = np.linspace(0, 1, 200)
        for row in self.replicated[:: max(1, len(self.replicated) // 50)]:
            replications.plot(np.quantile(row, levels), levels, color="0.8", lw=0.6)
        replications.plot(np.quantile(self.observed, levels), levels, color="C0", label="observed")
        replications.set(xlabel="Area (sd)", ylabel="Part of the measurements below")
        replications.legend(fontsize=9)
        n = len(self.pit)
        ordered = np.sort(self.pit)
        pit.axhspan(-1.358, 1.358, color="0.9")
        pit.plot(ordered, (np.arange(1, n + 1) / n - ordered) * n**0.5)
        pit.set(xlabel="PIT of a measurement left out", ylabel="(part below − PIT) √n")
        centred = self.energy - self.energy.mean()
        energy.hist(centred.ravel(), 40, density=True, alpha=0.5, label="energy")
        change = np.diff(self.energy, axis=1).ravel()
        energy.hist(change, 40, density=True, alpha=0.5, label="change in a step")
        energy.set(xlabel="Energy of the chains", ylabel="Density")
        energy.legend(fontsize=9)
        residuals.plot(self.location, self.residual, ".", ms=4)
        residuals.axhline(0, color="black", lw=0.8)
        residuals.set(xlabel="Area by the regression (sd)", ylabel="Observed less that (sd)")


def _distance(values: np.ndarray) -> float:
    """Kolmogorov's distance from uniform."""
    ordered, n = np.sort(values), len(values)
    steps = np.arange(n + 1) / n
    return float(max(np.abs(ordered - steps[1:]).max(), np.abs(ordered - steps[:-1]).max()))
