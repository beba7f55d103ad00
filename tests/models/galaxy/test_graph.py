"""The causal graph: mechanisms invert, actions obey their identities, wrong graphs are caught."""

import copy
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from galaxies import CONFIG, budgets, draw, fluxes, forward, galaxy
from scipy.stats import norm

from touchstone.io.artifacts import ArtifactError
from touchstone.models.galaxy.graph import DIRECT, TOTAL, Graph, GraphError, galaxy_of

GRAPH, NODES = Graph(CONFIG["nodes"]), CONFIG["nodes"]
PARTS = Graph(CONFIG["nodes"] | CONFIG["parts"])  # with what follows by physics, and S
N = 200


@pytest.fixture(scope="module")
def wide():
    """A forward model in float64, exogenous terms and their galaxies."""
    with jax.enable_x64(True):
        model = forward()
        u = jnp.asarray(np.random.default_rng(0).standard_normal((N, len(GRAPH.names))))
        yield model, u, values_of(model, u)


def values_of(model, u):
    return jax.vmap(lambda u: GRAPH.values(model, u))(u)


def after(model, u, factual, text, mode):
    actions = GRAPH.actions(text)
    return jax.vmap(lambda u, f: GRAPH.twin(model, u, f, actions, mode))(u, factual)


def fluxes_of(model, values):
    return np.asarray(jax.jit(jax.vmap(lambda v: model.fluxes(galaxy_of(v))))(values))


def test_mechanisms_are_inverted(wide):
    _, u, values = wide
    np.testing.assert_allclose(jax.vmap(GRAPH.exogenous)(values), u, atol=1e-12)


@pytest.mark.parametrize("mode", [TOTAL, DIRECT])
def test_doing_what_is_the_case_changes_nothing(wide, mode):
    model, u, values = wide
    for name in GRAPH.names:
        twin = after(model, u, values, f"{name}+0.0", mode)
        for node in values:
            np.testing.assert_allclose(twin[node], values[node], rtol=1e-12)


@pytest.mark.parametrize("mode", [TOTAL, DIRECT])
def test_setting_what_is_the_case_changes_neither_nodes_nor_fluxes(wide, mode):
    model, u, values = wide
    u, values = u[:1], _few(values, 1)
    once = fluxes_of(model, values)
    for name in (*GRAPH.names, "mass", "tau"):
        own = float(values[name][0]) if name in values else 10 ** float(values[f"log_{name}"][0])
        twin = after(model, u, values, f"{name}={own!r}", mode)
        for node in values:
            np.testing.assert_allclose(twin[node], values[node], rtol=1e-12)
        np.testing.assert_allclose(fluxes_of(model, twin), once, rtol=1e-12)


@pytest.mark.parametrize("mode", [TOTAL, DIRECT])
def test_an_action_changes_its_node_and_descendants_only(wide, mode):
    model, u, values = wide
    for name in GRAPH.names:
        twin = after(model, u, values, f"{name}-0.001", mode)
        changed = {node for node in values if not np.array_equal(twin[node], values[node])}
        expected = {name} | (GRAPH.descendants(name) & set(values))
        if mode == DIRECT:  # what physics alone leads to
            physics = {"log_tau": {"log_ssfr"}, "formation": {"age", "log_ssfr"}}
            physics["redshift"] = physics["formation"]
            expected = {name} | physics.get(name, set())
        assert changed == expected


@pytest.mark.parametrize("mode", [TOTAL, DIRECT])
def test_two_actions_are_composed_and_one_is_reversed(wide, mode):
    model, u, values = wide
    both = after(model, u, values, "log_mass+0.2, A_V=0.5", mode)
    first = after(model, u, values, "log_mass+0.2", mode)
    # The second acts on a galaxy in which the first has become the case.
    then = after(model, jax.vmap(GRAPH.exogenous)(first), first, "A_V=0.5", mode)
    back = after(model, jax.vmap(GRAPH.exogenous)(first), first, "log_mass-0.2", mode)
    for node in values:
        np.testing.assert_allclose(then[node], both[node], rtol=1e-12)
        np.testing.assert_allclose(back[node], values[node], rtol=1e-12)
    fluxes = [fluxes_of(model, _few(each)) for each in (both, then, values, back)]
    np.testing.assert_allclose(fluxes[1], fluxes[0], rtol=1e-12)
    np.testing.assert_allclose(fluxes[3], fluxes[2], rtol=1e-6)
    assert np.abs(fluxes[0] / fluxes[2] - 1).min() > 1e-3


def _few(values, n=20):
    return {name: column[:n] for name, column in values.items()}


def test_twice_the_mass_directly_is_twice_every_flux_and_totally_is_not(wide):
    model, u, values = wide
    u, values = u[:20], _few(values)
    once = fluxes_of(model, values)
    direct = fluxes_of(model, after(model, u, values, "mass=2x", DIRECT))
    total = fluxes_of(model, after(model, u, values, "mass=2x", TOTAL))
    np.testing.assert_allclose(direct, 2 * once, rtol=1e-12)
    assert (np.abs(total / once - 2).max(1) > 0.01).all()


# What the graph says is independent -----------------------------------------------------------


def probits(values) -> dict[str, np.ndarray]:
    """Nodes on scales on which the mechanisms are linear."""
    found = {"log_ssfr": np.asarray(values["log_ssfr"]), "age": np.asarray(values["age"])}
    for name, each in GRAPH.mechanisms.items():
        found[name] = norm.ppf((np.asarray(values[name]) - each.low) / (each.high - each.low))
    return found


def correlation(columns, values, one: str, other: str, given) -> float:
    """Of what a regression of two nodes on what is given leaves; parents enter as they are."""
    n = len(columns[one])
    known = [values[name] for name in sorted(given)]
    x = np.column_stack([np.ones(n), *known]) if known else np.ones((n, 1))

    def rest(y):
        return y - x @ np.linalg.lstsq(x, y)[0]

    return float(np.corrcoef(rest(columns[one]), rest(columns[other]))[0, 1])


def population(seed: int, n: int = 20_000, graph: Graph = GRAPH):
    model = forward()
    u = np.random.default_rng(seed).standard_normal((n, len(graph.names))).astype(np.float32)
    values = jax.jit(jax.vmap(lambda u: graph.values(model, u)))(u)
    return {name: np.asarray(column, float) for name, column in values.items()}


def test_implied_independences_hold_in_simulated_galaxies_and_edges_show():
    values = population(1)
    columns, n = probits(values), len(values["log_mass"])
    implied = GRAPH.implied()
    assert {frozenset(pair[:2]) for pair in implied} >= {
        frozenset(("redshift", "log_mass")),
        frozenset(("log_tau", "log_metallicity")),
        frozenset(("A_V", "log_metallicity")),
    }
    limit = norm.isf(0.001 / len(implied) / 2) / np.sqrt(n)
    for one, other, given in implied:
        assert abs(correlation(columns, values, one, other, given)) < limit, (one, other)
    for name, each in GRAPH.mechanisms.items():
        for parent in each.slopes:
            others = set(each.slopes) - {parent}
            assert abs(correlation(columns, values, name, parent, others)) > limit, (name, parent)


@pytest.fixture(scope="module")
def simulated():
    """Galaxies of the graph, and their nodes on scales on which the mechanisms are linear."""
    values = population(2)
    return values, probits(values)


@pytest.mark.parametrize(
    ("effect", "cause"),
    [(name, parent) for name, each in GRAPH.mechanisms.items() for parent in each.slopes
     if parent in GRAPH.mechanisms],
)  # fmt: skip
def test_an_edge_that_the_graph_leaves_out_is_caught(simulated, effect, cause):
    """Six graphs that are broken on purpose: each implies an independence that does not hold."""
    nodes, (values, columns) = copy.deepcopy(NODES), simulated
    del nodes[effect]["parents"][cause]
    given = set(nodes[effect]["parents"])
    assert Graph(nodes).separated(effect, cause, given)
    found = correlation(columns, values, effect, cause, given)
    assert abs(found) > norm.isf(0.001 / 6 / 2) / np.sqrt(len(values["log_mass"]))


def test_selection_by_brightness_opens_a_path():
    nodes = {**NODES, "selected": {"parents": ["fluxes", "redshift"]}}
    with pytest.raises(GraphError, match=r"nodes.selected: has neither a mechanism nor physics"):
        Graph(nodes)
    values, model = population(3, 4000), forward()
    flux = fluxes_of(model, values)[:, 2]
    bright = flux > 10 ** (0.4 * (22.5 - 17.77))
    assert 0.1 < bright.mean() < 0.9
    everyone = np.corrcoef(values["redshift"], values["log_mass"])[0, 1]
    chosen = np.corrcoef(values["redshift"][bright], values["log_mass"][bright])[0, 1]
    assert abs(everyone) < 0.06
    assert chosen > 0.3
    assert GRAPH.separated("redshift", "log_mass", set())
    assert not GRAPH.separated("redshift", "log_mass", {"fluxes"})


def test_parts_and_selection_change_nothing_about_causes():
    assert PARTS.names == GRAPH.names
    assert PARTS.implied() == GRAPH.implied()


def test_selection_is_a_node_that_depends_on_everything_once_it_is_known():
    """As d-separation says it, and as galaxies show it whose r is off by a magnitude."""
    assert PARTS.parents["S"] == ("photometry", "redshift")
    for name in GRAPH.names:
        assert PARTS.separated("noise", name, set())
        assert not PARTS.separated("noise", name, {"S"})
        others = {"photometry", "redshift"} - {name}
        assert PARTS.separated("S", name, others) == (name != "redshift")
    assert PARTS.separated("redshift", "log_mass", set())
    assert not PARTS.separated("redshift", "log_mass", {"S"})
    assert not PARTS.separated("redshift", "log_mass", {"photometry"})
    values, model = population(4, 4000), forward()
    noise = np.random.default_rng(5).standard_normal(4000)
    observed = 22.5 - 2.5 * np.log10(fluxes_of(model, values)[:, 2]) + noise
    seen = observed < 17.77
    assert abs(np.corrcoef(noise, values["log_mass"])[0, 1]) < 0.06
    assert np.corrcoef(noise[seen], values["log_mass"][seen])[0, 1] > 0.08  # of 2000: 0.02
    assert np.corrcoef(noise[seen], values["redshift"][seen])[0, 1] < -0.2
    assert np.corrcoef(values["redshift"][seen], values["log_mass"][seen])[0, 1] > 0.2


def test_masses_and_luminosities_depend_on_what_the_graph_says_and_on_nothing_else():
    model, values = forward(), draw(np.random.default_rng(6), 8)

    def parts(values):
        found = budgets(model, galaxy(values))._asdict()
        return {
            "surviving_mass": found["surviving"], "returned_mass": found["returned"],
            "intrinsic": found["intrinsic"], "attenuated": found["attenuated"],
            "infrared": found["infrared"], "fluxes": fluxes(model, galaxy(values)),
        }  # fmt: skip

    before = parts(values)
    for name in values:
        after = parts(values | {name: 0.97 * values[name]})
        changed = {part for part in before if not np.allclose(after[part], before[part], rtol=1e-4)}
        reached = {name}
        for part in PARTS.order:
            if part in CONFIG["parts"] and reached & set(PARTS.parents[part]):
                reached.add(part)
        assert changed == reached & before.keys(), name
    assert PARTS.separated("A_V", "infrared", {"intrinsic", "attenuated"})
    assert PARTS.separated("A_V", "surviving_mass", {"log_mass", "log_tau", "age"})
    assert PARTS.separated("log_tau", "fluxes", {"spectrum", "redshift"})
    assert not PARTS.separated("A_V", "fluxes", {"redshift"})


def test_separation_is_that_of_paths():
    """Beside a search over all paths with the rules of Pearl 1988."""
    names = GRAPH.order
    children = {name: {n for n in names if name in GRAPH.parents[n]} for name in names}

    def blocked(path, given):
        for a, b, c in zip(path, path[1:], path[2:], strict=False):
            collider = b in children[a] and b in children[c]
            if collider and not ({b} | GRAPH.descendants(b)) & given:
                return True
            if not collider and b in given:
                return True
        return False

    def paths(path, to):
        if path[-1] == to:
            yield path
            return
        for near in children[path[-1]] | set(GRAPH.parents[path[-1]]):
            if near not in path:
                yield from paths([*path, near], to)

    some = ("redshift", "log_mass", "log_tau", "log_metallicity", "A_V", "fluxes")
    for one, other in combinations(some, 2):
        rest = [name for name in names if name not in (one, other, "budget")]
        for given in [set(), *({name} for name in rest), {"log_mass", "log_ssfr"}, {"log_mass"}]:
            given = given - {one, other}
            expected = all(blocked(path, given) for path in paths([one], other))
            assert GRAPH.separated(one, other, given) == expected, (one, other, given)


BROKEN = {
    "circle": ({"log_mass": {"parents": {"A_V": {"slope": 1, "centre": 0}}}}, "is a circle"),
    "stranger": ({"A_V": {"parents": {"halo": {"slope": 1, "centre": 0}}}}, "halo is no node"),
    "own cause": ({"redshift": {"parents": {"redshift": {"slope": 1, "centre": 0}}}}, "a circle"),
    "flat": ({"A_V": {"scale": 0.0}}, r"A_V.scale: 0, so that no value tells its term"),
    "no room": ({"log_tau": {"high": -1.0}}, "low -1 is not below high -1"),
    "noisy physics": ({"age": NODES["redshift"]}, "age: follows from its parents"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_graph_is_caught(what):
    change, words = BROKEN[what]
    nodes = {name: {**entry, **change.get(name, {})} for name, entry in NODES.items()}
    with pytest.raises(GraphError, match=words):
        Graph(nodes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("halo=3", "halo can not be set, allowed are redshift"),
        ("fluxes=3", "fluxes can not be set"),
        ("mass=-1", "mass is above zero"),
        ("metallicity=0.2", "metallicity is from 0.0001002 to 0.05"),
        ("A_V=2x", "only mass, tau, metallicity can be multiplied"),
        ("mass+1", "add to log_mass in dex"),
        ("mass", "'mass' is not understood"),
        ("mass=1..2", "'mass=1..2' is not understood"),
        ("A_V=.", "'A_V=.' is not understood"),
        ("mass=1e400x", "mass=1e400x: 1e400 is too large"),
        ("mass=2x, log_mass=11", "log_mass is set twice"),
        (" ", "nothing is done"),
    ],
)
def test_an_action_that_makes_no_sense_is_refused_with_what_would(text, words):
    with pytest.raises(ArtifactError, match=words):
        GRAPH.actions(text)
