"""Regressions of films that need no sampling: draws about a truth."""

import numpy as np

from touchstone.contract import load_model
from touchstone.models.interface import cohort, table
from touchstone.models.interface.frozen import Frozen, Scaler

MODEL = load_model("interface")
COLUMNS = table.Columns.of(MODEL.config)


def frozen_about_the_truth(n_draws, spread=0.05, seed=0, change=lambda films: films):
    """A regression whose draws scatter about the truth of the cohort, and the cohort's films."""
    rng = np.random.default_rng(seed)
    found = change(cohort.draw(rng, MODEL.config, 30))
    kept = np.arange(len(COLUMNS.morphology) - 1)
    scaler = Scaler.fit(found, kept)
    j, k = len(kept), len(COLUMNS.stimuli)

    def around(values):
        return values + spread * rng.standard_normal((n_draws, *np.shape(values)))

    draws = {
        "intercept": around(0.0),
        "morphology": around(np.linspace(-0.4, 0.4, j)),
        "stimulus": around(np.array([-0.3, 0.4, 0.1])),
        "product": around(np.full((j, k), 0.05)),
        "film_sd": np.abs(around(0.4)),
        "scatter": np.abs(around(0.25)) + 0.01,
    }
    effect = draws["film_sd"][:, None] * rng.standard_normal((n_draws, 30))
    labels = np.array(list(dict.fromkeys(found.film.tolist())))
    return Frozen.of(draws, scaler, scaler.design(found), effect, labels)


FROZEN = frozen_about_the_truth(400)
NAMES = COLUMNS.morphology[:-1]
