"""The structure of a model, drawn once it is trained."""

import textwrap

from touchstone.contract import Model
from touchstone.io import artifacts
from touchstone.io.results import Results
from touchstone.vocabulary import Structure

_WIDTH = 36  # letters of a line


def write(model: Model, settings: dict, results: Results) -> None:
    """Draw a loaded model: its own structure, or the flow of its data.

    Args:
        model: The model.
        settings: Of its training.
        results: Where the drawing goes.
    """
    try:
        found = model.structure(settings)
    except NotImplementedError:
        found = data_flow(model)
    save(results, found)


def save(results: Results, found: Structure) -> None:
    """Write the drawing of a structure."""
    from touchstone.figures.structure import save_structure  # here, since it imports slowly

    with artifacts.atomic(results.structure) as temporary:
        save_structure(temporary, found)


def data_flow(model: Model) -> Structure:
    """From parameters to a verdict, through the five stages."""
    simulates = type(model).simulate is not Model.simulate
    texts = {
        "parameters": ("given", ", ".join(quantity.name for quantity in model.quantities)),
        "1 simulate": ("computed", "observations of parameters drawn from their priors"),
        "data": ("given", "of the configuration or the user"),
        "2 train": ("computed", f"what {', '.join(model.methods)} rest on"),
        "3 stress": ("computed", f"scores under {', '.join(model.stresses)}"),
        "4 guardrail": ("computed", "threshold of the score, with its false-alarm rate"),
        "measurement": ("observed", "a record, and what is known about it"),
        "5 infer": ("inferred", f"posterior of the parameters by {model.methods[0]}"),
        "verdicts": ("computed", "is the computation right, is the model right"),
    }
    del texts["data" if simulates else "1 simulate"]
    source = "1 simulate" if simulates else "data"
    edges = [
        ("parameters", source), (source, "2 train"), ("2 train", "3 stress"),
        ("3 stress", "4 guardrail"), ("2 train", "5 infer"), ("measurement", "5 infer"),
        ("5 infer", "verdicts"), ("4 guardrail", "verdicts"),
    ]  # fmt: skip
    nodes = {
        name: "\n".join([name, *textwrap.wrap(text, _WIDTH)]) for name, (_, text) in texts.items()
    }
    return Structure(nodes, {name: kind for name, (kind, _) in texts.items()}, edges)
