"""Populations: what an action does to many galaxies, of which only the bright ones are seen.

The average effect among the galaxies that are seen is not that of the population, since what makes
galaxies bright also says how they respond; see `inference.selection` for the correction.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import FigureBase

from touchstone.contract import REACH
from touchstone.inference import selection
from touchstone.inference.selection import Average
from touchstone.io.artifacts import ArtifactError
from touchstone.models.galaxy import counterfactual
from touchstone.models.galaxy.graph import Action, Graph
from touchstone.models.galaxy.physics import Forward

_N_CHUNK = 1000  # galaxies at once: their spectra fill the memory
_LIMITS = (16.5, 17.0, 17.77, 18.5, 19.5)  # of the drawing
_DRAWN = {"log_mass": (0.3, 0.9), "formation": (-0.3, 0.8)}  # its population is not the model's
_N_DRAWN = 3000


class Selection(NamedTuple):
    """Which galaxies are seen: those brighter than a soft limit.

    Attributes:
        band: Name of the band.
        limit: AB magnitude at which half of the galaxies are seen.
        softness: Magnitudes over which the probability falls.
    """

    band: str = "r"
    limit: float = 17.77
    softness: float = 0.3


class Drawn(NamedTuple):
    """Galaxies before and after an action, shape (n,) but for `u`.

    Attributes:
        u: Exogenous terms, shape (n, P).
        before, after: The reading.
        magnitude: In the band of the selection, before.
    """

    u: Float[np.ndarray, "n P"]
    before: Float[np.ndarray, " n"]
    after: Float[np.ndarray, " n"]
    magnitude: Float[np.ndarray, " n"]

    def chance(self, seen: Selection) -> Float[np.ndarray, " n"]:
        """Probability to be seen."""
        return 1 / (1 + np.exp((self.magnitude - seen.limit) / seen.softness))


class Effect(NamedTuple):
    """What an action does to a population.

    Attributes:
        before, after: `low`, `median` and `high` of the reading in the population without and with
            the action, of 90 %.
        everyone: Average effect of all simulated galaxies of the population; their error is that of
            a finite number.
        selected: The average of the selected ones, as if they were everyone.
        corrected: The average of the population, estimated from the selected ones.
        n_selected: Number of galaxies that were selected.
    """

    before: dict[str, float]
    after: dict[str, float]
    everyone: Average
    selected: Average
    corrected: Average
    n_selected: int


class Population:
    """Galaxies under an action.

    Args:
        graph: The causal model.
        forward: The physics.
        bands: Names of the bands.
        actions: What is done.
        mode: `total` or `direct`.
        of: A reading of `counterfactual.READINGS`, a band, or a colour such as "g-r".
        band: That decides what is seen.

    Raises:
        ArtifactError: If there is no such reading or band.
    """

    def __init__(
        self,
        graph: Graph,
        forward: Forward,
        bands: tuple[str, ...],
        actions: tuple[Action, ...],
        mode: str,
        of: str,
        band: str,
    ):
        self.graph, self.forward, self.bands = graph, forward, bands
        self.actions, self.mode, self.of, self.band = actions, mode, of, band
        allowed = (*counterfactual.READINGS, *bands)
        if unknown := [name for name in (*of.split("-"), band) if name not in allowed]:
            raise ArtifactError(
                f"of: {unknown[0]} is no reading, there are {', '.join(allowed)}, and differences "
                "such as g-r"
            )

    def draw(
        self,
        n: int,
        rng: np.random.Generator,
        terms: Mapping[str, tuple[float, float]] | None = None,
    ) -> Drawn:
        """Galaxies of a population whose terms are normal, of mean and standard deviation by the
        name of their node; of others these are 0 and 1.

        Raises:
            ArtifactError: If a node has no term, or an action leads most galaxies out of the
                bounds of its node; the others are left out.
        """
        u = rng.standard_normal((n, len(self.graph.names)))
        for name, (mean, spread) in (terms or {}).items():
            if name not in self.graph.names:
                raise ArtifactError(
                    f"terms: {name} has no exogenous term, those that have are "
                    f"{', '.join(self.graph.names)}"
                )
            place = self.graph.names.index(name)
            u[:, place] = mean + spread * u[:, place]
        return self.read(u)

    def read(self, u: np.ndarray) -> Drawn:
        """The galaxies of exogenous terms, shape (n, P); see `draw`."""
        padded = np.resize(u, (-(-len(u) // _N_CHUNK) * _N_CHUNK, u.shape[1])).astype(np.float32)
        parts = []
        for first in range(0, len(padded), _N_CHUNK):
            chunk = padded[first : first + _N_CHUNK]
            before, after = counterfactual.twins(
                self.graph, self.forward, chunk, self.actions, self.mode
            )
            ours, theirs = (
                counterfactual.readings(self.forward, values, self.bands)[0]
                for values in (before, after)
            )
            beyond = np.any(list(self.graph.beyond(after, self.actions).values()), axis=0)
            parts.append((self._reading(ours), self._reading(theirs), ours[self.band], beyond))
        before, after, magnitude, beyond = (
            np.concatenate(column)[: len(u)] for column in zip(*parts, strict=True)
        )
        if beyond.mean() > counterfactual.BEYOND:
            words = ", ".join(action.words for action in self.actions)
            raise ArtifactError(
                f"do({words}): takes {beyond.sum()} of {len(u)} galaxies beyond the bounds of its "
                "node"
            )
        return Drawn(*(column[~beyond] for column in (u, before, after, magnitude)))

    def _reading(self, found: dict[str, np.ndarray]) -> np.ndarray:
        first, *second = self.of.split("-")
        return found[first] - found[second[0]] if second else found[first]

    def effect(
        self, everyone: Drawn, simulated: Drawn, rng: np.random.Generator, seen: Selection
    ) -> Effect:
        """The average effect in a population of which a part is seen.

        Args:
            everyone: Galaxies of the population.
            simulated: Galaxies of the model's own population, for the correction.
            rng: For which galaxies are seen.
            seen: The selection, whose band is that of this object.

        Raises:
            SelectionError: If the selected galaxies are too far from what is simulated.
        """
        chosen = rng.random(len(everyone.u)) < everyone.chance(seen)
        change = everyone.after - everyone.before
        corrected = selection.average(
            everyone.u[chosen], simulated.u, simulated.after - simulated.before,
            simulated.chance(seen),
        )  # fmt: skip
        return Effect(
            _ends(everyone.before), _ends(everyone.after), _mean(change), _mean(change[chosen]),
            corrected, int(chosen.sum()),
        )  # fmt: skip


def by_limit(
    population: Population, rng: np.random.Generator, n_simulated: int
) -> list[dict[str, Any]]:
    """Average effects of galaxies of one population, seen down to several limits: rows of a table,
    with `limit`, `n`, and `low`, `value` and `high` of each estimate by its name."""
    everyone = population.draw(_N_DRAWN, rng, _DRAWN)
    simulated = population.draw(n_simulated, rng)
    rows = []
    for limit in _LIMITS:
        found = population.effect(everyone, simulated, rng, Selection(population.band, limit))
        row: dict[str, Any] = {"limit": limit, "n": found.n_selected}
        for name in ("everyone", "selected", "corrected"):
            value, error = getattr(found, name)
            row[name] = {"low": value - REACH * error, "value": value,
                         "high": value + REACH * error}  # fmt: skip
        rows.append(row)
    return rows


def draw_limits(figure: FigureBase, rows: list[dict[str, Any]], label: str) -> None:
    """Average effects against the limit, with 90 % intervals; rows as of `by_limit`."""
    ax = figure.subplots()
    truth = rows[0]["everyone"]
    ax.axhspan(truth["low"], truth["high"], color="0.85", label="all galaxies of the population")
    styles = {"selected": ("#cc3311", -0.04), "corrected": ("#4477aa", 0.04)}
    names = {"selected": "selected galaxies", "corrected": "selected, corrected"}
    for name, (colour, aside) in styles.items():
        values = np.array([[row[name][end] for end in ("low", "value", "high")] for row in rows])
        low, value, high = values.T
        x = np.array([row["limit"] for row in rows]) + aside
        ax.errorbar(x, value, [value - low, high - value], fmt="o", ms=4, color=colour,
                    label=names[name])  # fmt: skip
    ax.set(xlabel="Limit of the selection in r (mag)", ylabel=label)
    ax.legend(frameon=False, fontsize=9)


def _mean(x: np.ndarray) -> Average:
    return Average(float(x.mean()), float(x.std() / np.sqrt(len(x))))


def _ends(x: np.ndarray) -> dict[str, float]:
    low, median, high = np.quantile(x, [0.05, 0.5, 0.95])
    return {"low": float(low), "median": float(median), "high": float(high)}
