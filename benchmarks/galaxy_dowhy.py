"""Counterfactuals by DoWhy 0.14, for `bench_galaxy.py`, in an environment of its own:

    uv run --no-project --with dowhy==0.14 python benchmarks/galaxy_dowhy.py in.json out.json

`in.json` holds a list of tasks: `edges`; `kind`, of the regressions; `train` and `observed`,
columns of nodes; and `action`, what is added to which node. `out.json` gets the columns of the
twins. DoWhy keeps fitted mechanisms on the graph object, so every task has a graph of its own.
"""

import json
import sys

import networkx as nx
import pandas as pd
from dowhy import gcm

gcm.config.disable_progress_bars()
REGRESSORS = {
    "linear": gcm.ml.create_linear_regressor,
    "boosted": gcm.ml.create_hist_gradient_boost_regressor,
}


def twins(task: dict) -> dict:
    """Columns of the twins of one task."""
    graph = nx.DiGraph([tuple(edge) for edge in task["edges"]])
    model = gcm.InvertibleStructuralCausalModel(graph)
    for node in graph.nodes:
        root = graph.in_degree(node) == 0
        model.set_causal_mechanism(
            node,
            gcm.EmpiricalDistribution()
            if root
            else gcm.AdditiveNoiseModel(REGRESSORS[task["kind"]]()),
        )
    train, observed = (
        pd.DataFrame(task[name])[list(graph.nodes)] for name in ("train", "observed")
    )
    gcm.fit(model, train)
    node, added = task["action"]
    found = gcm.counterfactual_samples(
        model, {node: lambda value: value + added}, observed_data=observed
    )
    return {name: found[name].tolist() for name in graph.nodes}


source, target = sys.argv[1:]
with open(source, encoding="utf-8") as file:  # noqa: PTH123
    tasks = json.load(file)
with open(target, "w", encoding="utf-8") as file:  # noqa: PTH123
    json.dump([twins(task) for task in tasks], file)
