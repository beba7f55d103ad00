"""Cases of the training family, drawn for one purpose and inferred; what a rule sees of cases."""

import numpy as np

from touchstone.contract import Model
from touchstone.reliability.decision import OUTSIDE
from touchstone.reliability.judgeable import obstacles
from touchstone.reliability.scores import posterior_mean
from touchstone.reliability.signs import signs
from touchstone.stages import randomness
from touchstone.vocabulary import Cases, Posterior, Quantity


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
    method = model.methods[0]
    cases = observed_in_family(model, settings["seed"], n, stage, first)
    posterior = model.infer(
        cases,
        randomness.generator(settings["seed"], stage, first + 2),
        method=method,
        budget=settings["budgets"][method],
        label=f"{method} {label}",
    )
    return cases, posterior


def observed_in_family(model: Model, seed: int, n: int, stage: str, first: int) -> Cases:
    """The cases of `in_family`, which are not inferred."""
    truths, noise = (randomness.generator(seed, stage, first + number) for number in range(2))
    return model.cases(n, truths, noise, {})


def diagnostics(model: Model, cases: Cases, posterior: Posterior) -> dict[str, np.ndarray]:
    """What the model says of each case besides, by the names of the columns of a score table."""
    own = model.diagnostics(cases, posterior)
    return {f"diagnostic_{name}": values for name, values in own.items()}


def evidence(
    model: Model,
    cases: Cases,
    posterior: Posterior,
    quantities: list[Quantity] | None = None,
) -> dict[str, np.ndarray]:
    """What the rule that decides looks at, by the names of the columns of a score table.

    Args:
        model: The model.
        cases: The observations.
        posterior: Theirs.
        quantities: Of the cases, where they are not the model's own.

    Returns:
        The signs of each case, NaN where the observation cannot be judged, so that no rule accepts
        it; whether it lies outside of the training; and the posterior means that its `conditions`
        compare. Shape (case,) each.
    """
    config, novelty = model.config, model.novelty(cases)
    quantities = quantities or model.quantities
    unjudged = np.array([bool(words) for words in obstacles(cases)])
    found = {
        name: np.where(unjudged, np.nan, values)
        for name, values in signs(quantities, config["edges"], cases, posterior, novelty).items()
    }
    found[OUTSIDE] = np.array([float(bool(words)) for words in model.outside_training(cases)])
    names = [quantity.name for quantity in quantities]
    means = dict(zip(names, posterior_mean(quantities, posterior).T, strict=True))
    for one, other in config.get("conditions", []):
        found[f"condition_{one} less {other}"] = means[one] - means[other]
    return found
