"""Drawings of models: layers that respect what depends on what, and text that stays text."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from touchstone import contract
from touchstone.contract import load_model
from touchstone.figures.structure import layered
from touchstone.io.results import Results
from touchstone.stages import structure
from touchstone.vocabulary import Structure

GRAPHS = st.integers(2, 7).flatmap(
    lambda n: st.lists(
        st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(
            lambda edge: edge[0] < edge[1]
        ),
        unique=True,
    ).map(lambda edges: (n, edges))
)


@given(GRAPHS)
def test_every_edge_goes_from_a_layer_to_a_later_one_through_all_between(graph):
    n, edges = graph
    names = [f"n{k}" for k in range(n)]
    named = [(names[a], names[b]) for a, b in edges]
    layers = layered(Structure(dict.fromkeys(names, "x"), dict.fromkeys(names, "given"), named))
    depth = {point: number for number, layer in enumerate(layers) for point in layer}
    assert set(names) <= depth.keys()
    for a, b in named:
        passed = list(range(depth[a] + 1, depth[b]))
        assert depth[a] < depth[b]
        assert [depth[a, b, number] for number in passed] == passed
    assert len(depth) == sum(map(len, layers))


def test_a_circle_is_refused():
    with pytest.raises(ValueError, match="cycle"):
        layered(Structure({"a": "", "b": ""}, {}, [("a", "b"), ("b", "a")]))


@pytest.mark.parametrize("model_id", sorted(contract.folders()))
def test_the_data_flow_of_every_model_reads_as_text_and_ends_in_the_verdicts(model_id, tmp_path):
    model, results = load_model(model_id), Results(tmp_path)
    flow = structure.data_flow(model)
    later = {a for a, _ in flow.edges}
    assert [name for name in flow.nodes if name not in later] == ["verdicts"]
    structure.save(results, flow)
    once = results.structure.read_bytes()
    structure.save(results, flow)
    assert results.structure.read_bytes() == once
    texts = [
        each.text for each in ElementTree.fromstring(once).iter("{http://www.w3.org/2000/svg}text")
    ]
    for text in flow.nodes.values():
        assert set(text.split("\n")) <= set(texts)
    assert set(re.findall(rb'href="(.)', once)) <= {b"#"}  # nothing to fetch
