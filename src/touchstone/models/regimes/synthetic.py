"""A monthly economy whose effects in both regimes are known, in the form of a table of series."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from touchstone.io import artifacts
from touchstone.io.artifacts import ArtifactError
from touchstone.models.regimes.series import Recipe, Table

# The shortest month has 28 days: a feature of so many is always one month back.
RECIPE = Recipe(
    "date",
    "output",
    "shock",
    ("activity_lag_28d", "prices_lag_28d", "spread_lag_28d"),
    {"activity": 20, "prices": 15, "spread": 1},
)
EFFECT = np.array([-0.2, -0.8])  # of one unit of the shock on output: calm, turbulent
_STAY = np.array([0.97, 0.93])
_SD = np.array([0.6, 1.5])
_LEVEL = np.array([0.2, -0.4])
_MEMORY = np.array([0.8, 0.6, 0.4])
_ON_OUTPUT, _ON_SHOCK = np.array([0.4, -0.2, -0.3]), np.array([0.3, 0.3, 0.0])


class Synthetic(NamedTuple):
    """A table of series and what is known of it.

    Attributes:
        table: The series.
        state: Regime of each date, shape (T,).
    """

    table: Table
    state: np.ndarray


def draw(rng: np.random.Generator, n_dates: int) -> Synthetic:
    """An economy of n months from 1960 on."""
    x = np.zeros((n_dates + 30, 3))
    for t in range(1, len(x)):
        x[t] = _MEMORY * x[t - 1] + np.sqrt(1 - _MEMORY**2) * rng.standard_normal(3)
    x = x[30:]
    state = np.zeros(n_dates, int)
    for t in range(1, n_dates):
        stays = rng.random() < _STAY[state[t - 1]]
        state[t] = state[t - 1] if stays else 1 - state[t - 1]
    known = np.vstack([np.zeros(3), x[:-1]])
    shock = known @ _ON_SHOCK + rng.standard_normal(n_dates)
    output = _LEVEL[state] + EFFECT[state] * shock + known @ _ON_OUTPUT
    output = output + _SD[state] * rng.standard_normal(n_dates)
    dates = (np.datetime64("1960-01") + np.arange(n_dates)).astype("datetime64[D]")
    names = ("output", "shock", "activity", "prices", "spread")
    return Synthetic(Table(dates, names, np.column_stack([output, shock, x])), state)


def save(file: Path, drawn: Synthetic) -> None:
    """Write an economy as a chunk."""
    days = drawn.table.dates.astype("datetime64[D]").astype(int)
    values, names = drawn.table.values, np.array(drawn.table.names)
    artifacts.save_arrays(
        file, {"days": days, "names": names, "values": values, "state": drawn.state}
    )


def load(file: Path) -> Synthetic:
    """Read a chunk.

    Raises:
        ArtifactError: If the file is missing, or is no such chunk.
    """
    arrays = artifacts.load_arrays(file)
    try:
        dates = arrays["days"].astype("datetime64[D]")
        table = Table(dates, tuple(arrays["names"].tolist()), arrays["values"])
        return Synthetic(table, arrays["state"])
    except KeyError as error:
        raise ArtifactError(f"{file}: holds no {error.args[0]}; it is no economy") from None
