"""The structural causal model: nodes, their mechanisms, and what an action does to them.

A node with a mechanism is low + (high - low) Phi(shift + scale u). Its exogenous term u is standard
normal, and shift is linear in its parents: so the mechanism is increasing in u, and every value
inside of its bounds has exactly one u. A node without one follows from its parents by physics.
"""

import re
import textwrap
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import ndtr, ndtri

from touchstone.io.artifacts import ArtifactError
from touchstone.models.galaxy.physics import Forward, Galaxy

TOTAL, DIRECT = "total", "direct"
# What users may name besides the nodes: node, factor of its power of ten, unit.
ALIASES = {
    "mass": ("log_mass", 1.0, "solar masses"),
    "tau": ("log_tau", 1.0, "Gyr"),
    "metallicity": ("log_metallicity", 0.02, "mass fraction"),
}
# Nodes that follow from their parents, and the noise, which is no property of the galaxy.
_PHYSICS = (
    "age", "log_ssfr", "surviving_mass", "returned_mass", "intrinsic", "spectrum", "attenuated",
    "infrared", "budget", "fluxes", "noise", "photometry", "S",
)  # fmt: skip
_ROUNDING = 1e-6  # of a bound: values are of single precision, and some bounds are logarithms
_LETTERS = 18  # of a line in a drawing
_ACTION = re.compile(
    r"^\s*([A-Za-z_]\w*)\s*(=|\+|-)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(x?)\s*$"
)


class GraphError(ValueError):
    """A graph that is no structural causal model; the message names the node."""


class Mechanism(NamedTuple):
    """How a node follows from its parents and its exogenous term.

    Attributes:
        low, high: Its bounds.
        base, scale: Of the argument of the normal distribution function.
        slopes: Slope and centre of each parent, by its name.
    """

    low: float
    high: float
    base: float
    scale: float
    slopes: dict[str, tuple[float, float]]

    def shift(self, parents: dict[str, Array]) -> Array:
        """What the parents add to the argument."""
        moved = (slope * (parents[name] - at) for name, (slope, at) in self.slopes.items())
        return self.base + sum(moved, start=jnp.zeros(()))

    def value(self, u: Array, parents: dict[str, Array]) -> Array:
        """Of the node."""
        return self.low + (self.high - self.low) * ndtr(self.shift(parents) + self.scale * u)

    def exogenous(self, value: Array, parents: dict[str, Array]) -> Array:
        """The term that gives a value; not finite at the bounds and beyond."""
        place = (value - self.low) / (self.high - self.low)
        return (ndtri(place) - self.shift(parents)) / self.scale


class Action(NamedTuple):
    """What is done to a node.

    Attributes:
        node: Its name.
        value: What the node is set to, or what is added to it.
        relative: Whether it is added.
        words: As it was said.
    """

    node: str
    value: float
    relative: bool
    words: str

    def __call__(self, factual: Array) -> Array:
        """Value of the node after the action."""
        return factual + self.value if self.relative else jnp.full_like(factual, self.value)


class Graph:
    """The graph of a configuration.

    Args:
        nodes: By name, as in `config.yaml`.

    Raises:
        GraphError: If there is a circle, a parent that is no node, an effect before its cause is
            known, a mechanism that cannot be inverted, or physics without a formula.
    """

    def __init__(self, nodes: dict[str, dict[str, Any]]):
        self.nodes = nodes
        self.parents = {name: tuple(entry["parents"]) for name, entry in nodes.items()}
        for name, parents in self.parents.items():
            if unknown := [parent for parent in parents if parent not in nodes]:
                raise GraphError(f"nodes.{name}.parents: {', '.join(unknown)} is no node")
        try:
            self.order = tuple(TopologicalSorter(self.parents).static_order())
        except CycleError as error:
            circle = " -> ".join(reversed(error.args[1]))
            raise GraphError(f"nodes: {circle} is a circle, no cause comes first") from None
        self.mechanisms = {
            name: _mechanism(name, entry) for name, entry in nodes.items() if "scale" in entry
        }
        for name in nodes.keys() - self.mechanisms:
            if name not in _PHYSICS:
                raise GraphError(f"nodes.{name}: has neither a mechanism nor physics")

    @property
    def names(self) -> tuple[str, ...]:
        """Nodes with an exogenous term, in the order of the configuration."""
        return tuple(self.mechanisms)

    def descendants(self, name: str) -> set[str]:
        """Nodes that a node has an effect on, itself not among them."""
        found = {name}
        for node in self.order:
            if found & set(self.parents[node]):
                found.add(node)
        return found - {name}

    def described(self, name: str, *more: str) -> str:
        """A node in a drawing: its name, its meaning in short lines, and more lines."""
        meaning = self.nodes[name]["meaning"].split(",")[0]
        return "\n".join([name, *textwrap.wrap(meaning, _LETTERS), *more])

    def values(self, forward: Forward, u: Array) -> dict[str, Array]:
        """What a galaxy is, of exogenous terms u, shape (P,): all nodes but its parts and light."""
        return self.twin(forward, u, None, (), TOTAL)

    def exogenous(self, values: dict[str, Array]) -> Array:
        """Abduction without noise: the terms that give the values of all nodes, shape (P,)."""
        return jnp.stack([m.exogenous(values[n], values) for n, m in self.mechanisms.items()])

    def twin(
        self,
        forward: Forward,
        u: Array,
        factual: dict[str, Array] | None,
        actions: tuple[Action, ...],
        mode: str,
    ) -> dict[str, Array]:
        """Nodes of one galaxy after actions, each of which cuts its node from its parents.

        Args:
            forward: The physics.
            u: Its exogenous terms, shape (P,).
            factual: Its nodes before; not needed where nothing is done.
            actions: What is done, all at once.
            mode: In `total`, every descendant responds by its mechanism, with its own term; in
                `direct`, nodes that have a mechanism stay as they were, and physics follows.
        """
        done, values = {action.node: action for action in actions}, {}
        term = dict(zip(self.mechanisms, u, strict=True))
        for name in self.order:
            if name in done and factual is not None:
                values[name] = done[name](factual[name])
            elif name in self.mechanisms:
                stays = mode == DIRECT and factual is not None
                own = self.mechanisms[name]
                values[name] = factual[name] if stays else own.value(term[name], values)
            elif name == "age":
                values[name] = values["formation"] * forward.cosmology.age(values["redshift"])
            elif name == "log_ssfr":
                values[name] = forward.log_specific_rate(values["log_tau"], values["age"])
        return values

    def actions(self, text: str) -> tuple[Action, ...]:
        """Actions from words such as "mass=2x, A_V=0, log_metallicity+0.3".

        Raises:
            ArtifactError: Naming what is not understood, what there is not, and what lies outside
                of the bounds of a node.
        """
        found = tuple(self._action(words.strip()) for words in text.split(",") if words.strip())
        names = [action.node for action in found]
        if not found:
            raise ArtifactError("do: nothing is done, expected such as mass=2x or A_V=0")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ArtifactError(f"do: {', '.join(twice)} is set twice")
        return found

    def _action(self, words: str) -> Action:
        match = _ACTION.match(words)
        if match is None:
            raise ArtifactError(
                f"do: {words!r} is not understood, expected name=value, name=2x, name+value or "
                "name-value"
            )
        name, sign, digits, factor = match.groups()
        node, unit, of = ALIASES.get(name, (name, None, ""))
        if node not in self.mechanisms:
            allowed = ", ".join([*self.mechanisms, *ALIASES])
            raise ArtifactError(f"do: {name} can not be set, allowed are {allowed}")
        number, low, high = float(digits), *self.mechanisms[node][:2]
        if not np.isfinite(number):
            raise ArtifactError(f"do: {words}: {digits} is too large for a number")
        if sign != "=":
            if unit is not None or factor:
                raise ArtifactError(f"do: {words}: add to {node} in dex, or multiply, as {name}=2x")
            return Action(node, number if sign == "+" else -number, True, words)
        if unit is not None and number <= 0:
            raise ArtifactError(f"do: {words}: {name} is above zero")
        if factor:
            if unit is None:
                raise ArtifactError(f"do: {words}: only {', '.join(ALIASES)} can be multiplied")
            return Action(node, float(np.log10(number)), True, words)
        value = number if unit is None else float(np.log10(number / unit))
        if not low - _ROUNDING <= value <= high + _ROUNDING:
            ends = (low, high) if unit is None else (unit * 10.0**low, unit * 10.0**high)
            said = f"do: {words}: {name} is from {ends[0]:.4g} to {ends[1]:.4g}"
            if unit is not None:  # where a factor may have been meant
                said += f" {of}; {name}={digits}x multiplies it"
            raise ArtifactError(said)
        return Action(node, float(np.clip(value, low, high)), False, words)

    def beyond(
        self, values: dict[str, np.ndarray], actions: tuple[Action, ...]
    ) -> dict[str, np.ndarray]:
        """Galaxies that an action takes beyond the bounds of its node, shape (n,), by its words."""
        found = {}
        for action in actions:
            low, high = self.mechanisms[action.node][:2]
            value = np.asarray(values[action.node])
            found[action.words] = (value < low - _ROUNDING) | (value > high + _ROUNDING)
        return found

    def separated(self, one: str, other: str, given: set[str]) -> bool:
        """Whether two nodes are independent given others, by d-separation.

        In the moral graph of all ancestors, no path avoids what is given (Lauritzen et al. 1990).
        """
        among = {one, other, *given}
        for name in reversed(self.order):
            if name in among:
                among |= set(self.parents[name])
        edges = {name: set() for name in among}
        for name in among:
            family = [name, *self.parents[name]]
            for a in family:
                edges[a] |= set(family) - {a}
        reached, front = {one}, [one]
        while front:
            new = edges[front.pop()] - reached - given
            reached |= new
            front += new
        return other not in reached

    def implied(self) -> list[tuple[str, str, set[str]]]:
        """Pairs of nodes with mechanisms and no edge between them, and the parents of both, given
        which they are independent."""
        found = []
        for k, one in enumerate(self.names):
            for other in self.names[k + 1 :]:
                given = (set(self.parents[one]) | set(self.parents[other])) - {one, other}
                if self.separated(one, other, given):
                    found.append((one, other, given))
        return found


def galaxy_of(values: dict[str, Array]) -> Galaxy:
    """What the forward model takes, from the nodes."""
    return Galaxy(**{name: values[name] for name in Galaxy._fields})


def _mechanism(name: str, entry: dict[str, Any]) -> Mechanism:
    slopes = {p: (float(e["slope"]), float(e["centre"])) for p, e in entry["parents"].items()}
    if name in _PHYSICS:
        raise GraphError(f"nodes.{name}: follows from its parents, and has no exogenous term")
    found = Mechanism(*(float(entry[key]) for key in ("low", "high", "base", "scale")), slopes)
    if not found.low < found.high:
        raise GraphError(f"nodes.{name}: low {found.low:g} is not below high {found.high:g}")
    if not found.scale > 0:
        raise GraphError(f"nodes.{name}.scale: {found.scale:g}, so that no value tells its term")
    return found
