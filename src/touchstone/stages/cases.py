"""Cases of the training family, drawn for one purpose and inferred."""

from touchstone.contract import Model
from touchstone.stages import randomness
from touchstone.vocabulary import Cases, Posterior


def in_family(
    model: Model, settings: dict, n: int, stage: str, first: int, label: str
) -> tuple[Cases, Posterior]:
    """Cases observed as in the training, and their posteriors by the model's first method.

    Args:
        model: A loaded model.
        settings: `seed` and `budgets`.
        n: Number of cases.
        stage: That they are for.
        first: Of the three streams of random numbers of that stage that are used.
        label: Of the progress bar.
    """
    streams = (randomness.generator(settings["seed"], stage, first + number) for number in range(3))
    method = model.methods[0]
    cases = model.cases(n, next(streams), next(streams), {})
    posterior = model.infer(
        cases,
        next(streams),
        method=method,
        budget=settings["budgets"][method],
        label=f"{method} {label}",
    )
    return cases, posterior
