"""Action and prediction: what a galaxy would be, had something about it been otherwise."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from touchstone.contract import summary_of
from touchstone.models.galaxy.graph import Action, Graph, galaxy_of
from touchstone.models.galaxy.observation import magnitude
from touchstone.models.galaxy.physics import Budget, Forward

BEYOND = 0.05  # largest part of the posterior that an action may take beyond the bounds of a node
VIOLATION = 1e-4  # largest relative violation of a law of conservation
# What is reported: unit and meaning, in the order of the report.
READINGS = {
    "log_mass_formed": ("dex", "log10 of the mass ever formed, in solar masses"),
    "log_mass_surviving": ("dex", "log10 of the mass in stars now, in solar masses"),
    "log_sfr": ("dex", "log10 of the rate of star formation, in solar masses per year"),
    "age": ("Gyr", "since star formation began"),
    "log_metallicity": ("dex", "log10 of the mass fraction of metals over 0.02"),
    "A_V": ("mag", "attenuation at 5500 Å"),
    "log_infrared": ("dex", "log10 of the luminosity that dust absorbs and shines, in solar ones"),
}


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


def readings(
    forward: Forward, values: dict[str, np.ndarray], bands: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], Budget]:
    """What is reported of galaxies, by name, and their budgets; shape (n,) each."""
    budget, fluxes = jax.tree.map(
        np.asarray, _observables(forward, jax.tree.map(jnp.asarray, values))
    )
    with np.errstate(divide="ignore"):
        infrared = np.log10(budget.infrared)
    found = {
        "log_mass_formed": values["log_mass"],
        "log_mass_surviving": np.log10(budget.surviving),
        "log_sfr": values["log_mass"] + values["log_ssfr"],
        "age": values["age"],
        "log_metallicity": values["log_metallicity"],
        "A_V": values["A_V"],
        "log_infrared": np.maximum(infrared, 0.0),  # below a solar luminosity there is none
        **dict(zip(bands, magnitude(fluxes).T, strict=True)),
    }
    return {name: np.asarray(column, float) for name, column in found.items()}, budget


def violations(values: dict[str, np.ndarray], budget: Budget, forward: Forward) -> dict[str, float]:
    """Largest relative violation of each law among galaxies; see `quadrature` for their check."""
    mass = budget.surviving + budget.returned
    light = budget.attenuated + budget.infrared
    universe = np.asarray(forward.cosmology.age(jnp.asarray(values["redshift"])))
    return {
        "mass": float(np.abs(mass / budget.formed - 1).max()),
        "energy": float(np.abs(light / budget.intrinsic - 1).max()),
        "age": float(np.maximum(values["age"] / universe - 1, 0).max()),
    }


def answer(
    graph: Graph,
    forward: Forward,
    bands: tuple[str, ...],
    draws: tuple[np.ndarray, np.ndarray],
    actions: tuple[Action, ...],
    mode: str,
) -> tuple[list[dict], list[str]]:
    """Rows of the factual galaxy and of its twin, and every reason not to say more.

    Args:
        graph: The causal model.
        forward: The physics.
        bands: Names of the bands.
        draws: Exogenous terms of the posterior and of the prior at the same redshift, (n, P) each.
        actions: What is done.
        mode: `total` or `direct`.

    Returns:
        Rows as in `Model.predict`, and the reasons to refuse: an action that leads out of the
        bounds, a law that is violated, or a quantity of which the data say nothing.
    """
    before, after = twins(graph, forward, draws[0], actions, mode)
    refused = [
        f"do({words}): takes {part:.0%} of the posterior beyond the bounds of its node"
        for words, part in graph.outside(after, actions).items()
        if part > BEYOND
    ]
    sides = {"as it is": before}
    if not refused:
        sides[f"after do({', '.join(action.words for action in actions)}), {mode}"] = after
    prior_before, prior_after = twins(graph, forward, draws[1], actions, mode)
    rows = []
    for (meaning, values), prior_values in zip(
        sides.items(), (prior_before, prior_after), strict=False
    ):
        ours, budget = readings(forward, values, bands)
        prior, _ = readings(forward, prior_values, bands)
        refused += [
            f"{meaning}: {law} is violated by {size:.1e}"
            for law, size in violations(values, budget, forward).items()
            if size > VIOLATION
        ]
        for name, column in ours.items():
            unit, what = READINGS.get(name, ("mag", f"AB magnitude in {name}"))
            found = summary_of(column, np.full(len(column), 1 / len(column)), prior[name])
            low, high = found["interval_90"]
            # What an action has set is known, whatever the data say.
            if np.ptp(column) > 1e-6 and found["remark"] == "not informed":
                refused.append(f"{name}, {meaning}: the data say no more than the prior")
                continue
            ends = {"median": found["median"], "low": low, "high": high}
            rows.append({"name": name, "unit": unit, "meaning": f"{what}, {meaning}", **ends})
    return rows, refused
