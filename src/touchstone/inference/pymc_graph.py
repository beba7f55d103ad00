"""The graph of a PyMC model, as PyMC finds it, in the words of the project."""

from typing import TYPE_CHECKING

from touchstone.vocabulary import Structure

if TYPE_CHECKING:
    import pymc as pm

_KINDS = {
    "DATA": "given",
    "FREE_RV": "inferred",
    "OBSERVED_RV": "observed",
    "DETERMINISTIC": "computed",
    "POTENTIAL": "computed",
}


def of(model: "pm.Model") -> Structure:
    """Variables with their distributions and sizes, and what depends on what."""
    from pymc import model_graph

    graph = model_graph.ModelGraph(model)
    nodes, kinds = {}, {}
    for plate in graph.get_plates():
        sizes = zip(plate.dim_info.names, plate.dim_info.lengths, strict=True)
        size = " × ".join(f"{name} ({n})" if name else str(n) for name, n in sizes)
        for each in plate.variables:
            heading, kind = str(each.var.name), each.node_type.name
            if kind in ("FREE_RV", "OBSERVED_RV"):
                heading += f" ~ {type(each.var.owner.op).__name__.removesuffix('RV')}"
            nodes[str(each.var.name)] = f"{heading}\n{size}" if size else heading
            kinds[str(each.var.name)] = _KINDS[kind]
    order = [name for name in model.named_vars if name in nodes]  # PyMC's own is of sets
    edges = sorted(
        ((str(a), str(b)) for b, a in graph.edges()), key=lambda edge: order.index(edge[0])
    )
    return Structure({name: nodes[name] for name in order}, kinds, edges)
