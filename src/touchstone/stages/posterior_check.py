"""Posterior predictive check: could the model have made the data that it learnt from?"""

from pathlib import Path
from typing import NamedTuple

from touchstone import registry
from touchstone.contract import Comparison, Model
from touchstone.io import artifacts
from touchstone.io.artifacts import ArtifactError
from touchstone.io.results import Results
from touchstone.stages import randomness


class Check(NamedTuple):
    """What came of it.

    Attributes:
        tables: What was checked.
        files: Written: a CSV of each table, and the figure.
    """

    tables: list[Comparison]
    files: list[Path]


def run(model: Model, results: Results, seed: int) -> Check:
    """Check a loaded model by the chains that its training kept last.

    Raises:
        ArtifactError: If there are no chains, or they are not those of the checkpoint.
    """
    trace = registry.get_latest_trace(model.model_id)
    if trace is None:
        raise ArtifactError(
            f"{results.traces}: holds no chains; run `touchstone train {model.model_id}`"
        )
    try:
        tables, draw = model.check_fit(trace, randomness.generator(seed, "predict", 1))
    except NotImplementedError as error:
        raise ArtifactError(str(error)) from None
    files = []
    for number, table in enumerate(tables, 1):
        files.append(results.table(f"ppc_{number}"))
        artifacts.write_csv(files[-1], table.rows)
    files.append(results.figure("ppc"))
    import matplotlib.pyplot as plt  # here, since it takes a second to import

    figure, axes = plt.subplots(2, 2, figsize=(10, 8), layout="constrained")
    draw(axes.ravel().tolist())
    with artifacts.atomic(files[-1]) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)
    return Check(tables, files)
