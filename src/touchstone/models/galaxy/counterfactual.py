"""Action and prediction: what a galaxy would be, had something about it been otherwise."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from touchstone.contract import summary_of
from touchstone.models.galaxy.graph import TOTAL, Action, Graph, galaxy_of
from touchstone.models.galaxy.observation import magnitude, nanomaggies_of
from touchstone.models.galaxy.physics import Budget, Forward

BEYOND = 0.5  # largest part of the posterior that an action may take beyond the bounds of a node
ENDS = ("low", "median", "high")
_SHOWN = 3000.0, 11000.0  # Å as observed, of the spectra that are drawn
_N_POINTS, _N_CURVES = 300, 200  # of a curve; draws that its bands are of
_N_COUPLED = 200  # draws of the twins of one coupling of noises, of which there are up to 81
# What is reported: unit and meaning, in the order of the report.
READINGS = {
    "log_mass_formed": ("dex", "log10 of the mass ever formed, in solar masses"),
    "log_mass_surviving": ("dex", "log10 of the mass in stars now, in solar masses"),
    "log_mass_returned": ("dex", "log10 of the mass that stars have given back, in solar masses"),
    "log_sfr": ("dex", "log10 of the rate of star formation, in solar masses per year"),
    "age": ("Gyr", "since star formation began"),
    "log_metallicity": ("dex", "log10 of the mass fraction of metals over 0.02"),
    "A_V": ("mag", "attenuation at 5500 Å"),
    # The table of spectra ends there: what is beyond counts nowhere.
    "log_intrinsic": ("dex", "log10 of the luminosity of the stars up to 1.975 µm, in solar ones"),
    "log_attenuated": (
        "dex",
        "log10 of the luminosity that leaves the dust up to 1.975 µm, in solar ones",
    ),
    "log_infrared": (
        "dex",
        "log10 of the luminosity that dust absorbs and shines, in solar ones; 0 is none",
    ),
}
# The node that each is of; all others are fluxes.
NODES = {
    "log_mass_formed": "log_mass", "log_sfr": "log_ssfr", "age": "age", "A_V": "A_V",
    "log_metallicity": "log_metallicity",
    "log_mass_surviving": "surviving_mass", "log_mass_returned": "returned_mass",
    "log_intrinsic": "intrinsic", "log_attenuated": "attenuated", "log_infrared": "infrared",
}  # fmt: skip


def twins(
    graph: Graph, forward: Forward, u: np.ndarray, actions: tuple[Action, ...], mode: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Nodes of galaxies as they are and after actions, by name, shape (n,) each.

    Args:
        graph: The causal model.
        forward: The physics.
        u: Exogenous terms, shape (n, P); both twins have the same.
        actions: What is done; nothing where there are none.
        mode: `total` or `direct`; see `Graph.twin`.
    """
    found = _twins(forward, jnp.asarray(u), graph, actions, mode)
    return jax.tree.map(np.asarray, found)


@eqx.filter_jit
def _twins(forward: Forward, u: Array, graph: Graph, actions: tuple[Action, ...], mode: str):
    def one(u):
        factual = graph.values(forward, u)
        return factual, graph.twin(forward, u, factual, actions, mode)

    return jax.vmap(one)(u)


@eqx.filter_jit
def _observables(forward: Forward, values: dict[str, Array]) -> tuple[Budget, Array]:
    def one(values):
        galaxy = galaxy_of(values)
        return forward.budget(galaxy), forward.fluxes(galaxy)

    return jax.vmap(one)(values)


def rest_magnitudes(forward: Forward, values: dict[str, np.ndarray]) -> np.ndarray:
    """AB magnitudes of the same galaxies in the bands at rest, at their distance: (n, band)."""
    return magnitude(np.asarray(_at_rest(forward, jax.tree.map(jnp.asarray, values)), float))


@eqx.filter_jit
def _at_rest(forward: Forward, values: dict[str, Array]) -> Array:
    return jax.vmap(lambda each: forward.rest_fluxes(galaxy_of(each)))(values)


def readings(
    forward: Forward, values: dict[str, np.ndarray], bands: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], Budget]:
    """What is reported of galaxies, by name, and their budgets; shape (n,) each."""
    budget, fluxes = jax.tree.map(
        np.asarray, _observables(forward, jax.tree.map(jnp.asarray, values))
    )
    found = {
        "log_mass_formed": values["log_mass"],
        "log_mass_surviving": np.log10(budget.surviving),
        "log_mass_returned": np.log10(budget.returned),
        "log_sfr": values["log_mass"] + values["log_ssfr"],
        "age": values["age"],
        "log_metallicity": values["log_metallicity"],
        "A_V": values["A_V"],
        "log_intrinsic": np.log10(budget.intrinsic),
        "log_attenuated": np.log10(budget.attenuated),
        # Below a solar luminosity there is none.
        "log_infrared": np.log10(np.maximum(budget.infrared, 1.0)),
        **dict(zip(bands, magnitude(fluxes).T, strict=True)),
    }
    return {name: np.asarray(column, float) for name, column in found.items()}, budget


def shown(forward: Forward, values: dict[str, np.ndarray], wavelength: np.ndarray) -> np.ndarray:
    """Spectra as observed at wavelengths (Å), nanomaggies at each, shape (n, wavelength)."""
    given = jax.tree.map(jnp.asarray, values)
    return np.asarray(_spectra(forward, given, jnp.asarray(wavelength, forward.curve.dtype)))


@eqx.filter_jit
def _spectra(forward: Forward, values: dict[str, Array], grid: Array) -> Array:
    return jax.vmap(lambda each: forward.density(galaxy_of(each), grid))(values)


@dataclass(frozen=True)
class Question:
    """An action on galaxies, understood.

    Attributes:
        graph: The causal model.
        forward: The physics.
        bands: Names of the bands.
        effective: Their wavelengths, Å, shape (band,).
        check: Violations of a galaxy's laws; see `conservation.report`.
        actions: What is done.
        mode: `total` or `direct`.
        strict: Whether an answer that violates a law is refused.
    """

    graph: Graph
    forward: Forward
    bands: tuple[str, ...]
    effective: np.ndarray
    check: Callable[..., list[dict]]
    actions: tuple[Action, ...]
    mode: str
    strict: bool

    def __call__(self, u: np.ndarray, rng: np.random.Generator) -> dict:
        """The answer for exogenous terms of a posterior, shape (n, P); see `Model.counterfactual`.

        The prior beside which it is held is that at the same redshift: the galaxy is known to be
        there.
        """
        graph, forward = self.graph, self.forward
        prior = rng.standard_normal(u.shape).astype(np.float32)
        place = graph.names.index("redshift")
        prior[:, place] = u[:, place]
        before, after = twins(graph, forward, u, self.actions, self.mode)
        ours, budget = readings(forward, before, self.bands)
        sides = {"as it is": (before, budget, self._fluxes(ours))}
        expected = self._read(prior, ())
        answer = {
            "do": [action.words for action in self.actions],
            "posterior": [_row(name, column, expected[name]) for name, column in ours.items()],
            "structure": self.structure(),
        }
        kept, too_far = self._inside(after)
        if too_far and (self.strict or kept.mean() < 1 - BEYOND):
            return answer | {
                "counterfactual": [],
                "refusals": too_far,
                "remarks": [],
                "violations": self.check(sides),
                "curves": self.curves(before, None),
            }
        # Rows are chosen last: programs are compiled for a number of galaxies.
        after, theirs, twin_budget = jax.tree.map(
            lambda column: column[kept], (after, *readings(forward, after, self.bands))
        )
        laws = self.check(sides | {"its twin": (after, twin_budget, self._fluxes(theirs))})
        broken = [f"{row['law']} is violated by {row['largest']:.1e}"
                  for row in laws if row["status"] == "violated"]  # fmt: skip
        refusals = broken if self.strict else []
        expected = self._read(prior, self.actions)
        why = self.reasons()
        bracket = self._bracket(u[kept], theirs, rng)
        twin = [
            _row(name, column, expected[name])
            | {"change": _ends(column - ours[name][kept]), "bracket": bracket[name],
               "why": why[name]}
            for name, column in theirs.items()
        ]  # fmt: skip
        left_out = [f"{words}; they are left out of the twin" for words in too_far]
        return answer | {
            "counterfactual": [] if refusals else twin,
            "refusals": refusals,
            "remarks": [] if self.strict else left_out + broken,
            "violations": laws,
            "curves": self.curves(before, after if not refusals else None),
        }

    def _inside(self, after: dict[str, np.ndarray]) -> tuple[np.ndarray, list[str]]:
        """Which twins are inside of the bounds of all nodes, and what actions lead out of them.

        Beyond its bounds a mechanism has no value, and the forward model no table.
        """
        beyond = self.graph.beyond(after, self.actions)
        words = [
            f"do({words}): takes {each.sum()} of {len(each)} draws of the posterior beyond the "
            "bounds of its node"
            for words, each in beyond.items() if each.any()
        ]  # fmt: skip
        return ~np.any(list(beyond.values()), axis=0), words

    def _fluxes(self, found: dict[str, np.ndarray]) -> np.ndarray:
        return nanomaggies_of(np.stack([found[band] for band in self.bands], axis=1))

    def _read(self, u: np.ndarray, actions: tuple[Action, ...]) -> dict[str, np.ndarray]:
        """Readings of galaxies after actions, as far as these lead to a galaxy."""
        _, after = twins(self.graph, self.forward, u, actions, self.mode)
        found, _ = readings(self.forward, after, self.bands)
        beyond = np.any(
            [np.zeros(len(u), bool), *self.graph.beyond(after, actions).values()], axis=0
        )
        return {name: column[~beyond] for name, column in found.items()}

    def _bracket(self, u: np.ndarray, shared: dict, rng: np.random.Generator) -> dict[str, dict]:
        """Lowest and highest ends of the twin over couplings of the noises of both.

        No data can tell them: a galaxy is observed without its twin. The noise of every node that
        responds is that of the galaxy, its opposite, or independent of it, in all combinations.
        """
        respond = self._changed() - {action.node for action in self.actions}
        places = [k for k, name in enumerate(self.graph.names) if name in respond]
        few = u[:_N_COUPLED]
        factual, _ = twins(self.graph, self.forward, few, (), self.mode)
        fresh = rng.standard_normal(few.shape).astype(np.float32)
        ends = [{name: _ends(column) for name, column in shared.items()}]
        for chosen in product(range(3), repeat=len(places)):
            noise = few.copy()
            for place, how in zip(places, chosen, strict=True):
                noise[:, place] = (few, -few, fresh)[how][:, place]
            values = coupled(self.graph, self.forward, noise, factual, self.actions)
            side, _ = readings(self.forward, values, self.bands)
            ends.append({name: _ends(column) for name, column in side.items()})
        return {
            name: {"low": min(each[name]["low"] for each in ends),
                   "high": max(each[name]["high"] for each in ends)}
            for name in shared
        }  # fmt: skip

    def _changed(self) -> set[str]:
        """Nodes that the actions change: themselves, and what responds in this mode."""
        changed = {action.node for action in self.actions}
        for name in self.graph.order:
            free = self.mode == TOTAL or name not in self.graph.mechanisms
            if free and changed & set(self.graph.parents[name]):
                changed.add(name)
        return changed

    def reasons(self) -> dict[str, str]:
        """Why each reading of the twin is what it is, by its name."""
        done = {action.node: action.words for action in self.actions}
        changed, found = self._changed(), {}
        for name in (*READINGS, *self.bands):
            node = NODES.get(name, "fluxes")
            causes = [parent for parent in self.graph.parents[node] if parent in changed]
            if node in done:
                found[name] = f"set by do({done[node]})"
            elif node in changed:
                how = "by its mechanism, with its own noise" if node in self.graph.mechanisms else (
                    "by physics"
                )  # fmt: skip
                found[name] = f"follows {how} from {', '.join(causes)}"
            elif causes:
                found[name] = f"kept: {self.mode} mode, though {', '.join(causes)} is a cause of it"
            else:
                found[name] = "kept: nothing that changed is a cause of it"
        return found

    def structure(self) -> dict:
        """The graph, and what the actions set and cut of it."""
        graph, done = self.graph, {action.node: action.words for action in self.actions}
        edges = [(parent, name) for name in graph.order for parent in graph.parents[name]]
        changed = self._changed()
        cut = [
            (parent, name) for parent, name in edges
            if name in done
            or (self.mode != TOTAL and name in graph.mechanisms and parent in changed)
        ]  # fmt: skip
        kinds = dict.fromkeys(graph.order, "kept") | dict.fromkeys(changed, "responds")
        return {
            "nodes": {n: graph.described(n, *([f"do({done[n]})"] if n in done else []))
                      for n in graph.order},
            "kinds": kinds | dict.fromkeys(done, "set"),
            "edges": edges,
            "cut": cut,
        }  # fmt: skip

    def curves(self, before: dict, after: dict | None) -> dict:
        """Spectra of both with 90 % bands, and fluxes in the bands."""
        some = slice(_N_CURVES)
        wavelength = np.geomspace(*_SHOWN, _N_POINTS)
        sides = {"factual": before} | ({"twin": after} if after is not None else {})
        found: dict = {"x_label": "Wavelength (Å)", "y_label": "Flux (nanomaggies)"}
        found["x"] = _short(wavelength)
        for name, values in sides.items():
            few = {key: column[some] for key, column in values.items()}
            spectra = shown(self.forward, few, wavelength)
            found[name] = {
                end: _short(line)
                for end, line in zip(ENDS, np.quantile(spectra, [0.05, 0.5, 0.95], axis=0),
                                     strict=True)
            }  # fmt: skip
            _, fluxes = _observables(self.forward, jax.tree.map(jnp.asarray, few))
            found[f"{name}_points"] = [
                {"name": band, "x": float(x), **_ends(column)}
                for band, x, column in zip(
                    self.bands, self.effective, np.asarray(fluxes, float).T, strict=True
                )
            ]
        return found


@eqx.filter_jit
def _coupled(forward: Forward, u: Array, factual: dict[str, Array], graph: Graph, actions):
    return jax.vmap(lambda u, f: graph.twin(forward, u, f, actions, TOTAL))(u, factual)


def coupled(graph: Graph, forward: Forward, u: np.ndarray, factual: dict, actions) -> dict:
    """Twins of factual galaxies whose responding nodes have noises u of their own, in `total`."""
    found = _coupled(forward, jnp.asarray(u), jax.tree.map(jnp.asarray, factual), graph, actions)
    return jax.tree.map(np.asarray, found)


def _ends(column: np.ndarray) -> dict[str, float]:
    low, median, high = np.quantile(column, [0.05, 0.5, 0.95], method="inverted_cdf")
    return {"low": float(low), "median": float(median), "high": float(high)}


def _row(name: str, column: np.ndarray, prior: np.ndarray) -> dict:
    unit, what = READINGS.get(name, ("mag", f"AB magnitude in {name}"))
    row = {"name": name, "unit": unit, "meaning": what}
    even = np.full(len(column), 1 / len(column))
    # Of the prior, an action may lead to no galaxy at all.
    told = summary_of(column, even, prior)["remark"] if len(prior) else ""
    # What an action has set is known, whatever the data say.
    if told == "not informed" and np.ptp(column) > 1e-6:
        return row | dict.fromkeys(ENDS) | {"remark": "the data say no more than the prior"}
    return row | _ends(column) | {"remark": ""}


def _short(line: np.ndarray) -> list[float]:
    """Numbers of five digits: what a drawing needs, and no more."""
    return [float(f"{value:.5g}") for value in line]
