"""Tables of films: what is in a file, and which of its columns are of use."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from touchstone.io import artifacts
from touchstone.io.artifacts import ArtifactError

if TYPE_CHECKING:
    import pandas as pd

_COPY = 0.9999  # correlation with another column of one that says the same
_DEFINES = 0.9  # correlation of the logarithms with the target's, of a column that is nearly it
_LEAST_ROWS, _LEAST_FILMS = 12, 4  # of a table to learn from


class Columns(NamedTuple):
    """Names of the columns of a table, in their order.

    Attributes:
        film: That names the film of a row.
        morphology: Descriptors.
        stimuli: What the films were exposed to.
        target: What is explained.
    """

    film: str
    morphology: tuple[str, ...]
    stimuli: tuple[str, ...]
    target: str

    @classmethod
    def of(cls, config: dict) -> "Columns":
        """Of a model's `config.yaml`."""
        stimuli, morphology = tuple(config["stimuli"]), tuple(config["morphology"])
        return cls(config["film"], morphology, stimuli, config["target"]["name"])


class Table(NamedTuple):
    """Measurements, one a row, those of a film after one another.

    Attributes:
        film: Name of the film of each row, shape (row,).
        morphology: NaN where nothing was measured, infinite where what stands there is no number,
            shape (row, J).
        stimuli: Shape (row, K).
        target: Shape (row,).
    """

    film: np.ndarray
    morphology: Float[np.ndarray, "row descriptor"]
    stimuli: Float[np.ndarray, "row stimulus"]
    target: Float[np.ndarray, " row"]

    @property
    def number(self) -> np.ndarray:
        """Number of the film of each row, counted in the order in which films appear."""
        return _first_seen(self.film)

    def take(self, rows: np.ndarray) -> "Table":
        """Some of the rows."""
        return Table(*(np.asarray(values)[rows] for values in self))

    def arrays(self) -> dict[str, np.ndarray]:
        """As `save_arrays` writes it."""
        return self._asdict() | {"film": np.asarray(self.film, str)}


def read(file: Path, columns: Columns) -> Table:
    """A table from a CSV of the user's, or from what `simulate` wrote.

    Args:
        file: CSV with a row of headings, in any order, or `.npz`.
        columns: That are looked for. A descriptor may be missing; film, stimuli and target not.

    Raises:
        ArtifactError: If the file is missing or is no such table; the message names the column and
            the row.
    """
    if file.suffix == ".npz":
        arrays = artifacts.load_arrays(file)
        try:
            return Table(**{name: arrays[name] for name in Table._fields})
        except KeyError as error:
            raise ArtifactError(
                f"{file}: holds no {error.args[0]}; it is no table of films"
            ) from None
    import pandas as pd  # here, as below, since a form is answered without it

    try:  # headings as a row of the table, since pandas renames those that stand there twice
        frame = pd.read_csv(
            file, sep=None, engine="python", encoding="utf-8-sig", dtype=str, header=None
        )
    except FileNotFoundError:
        raise ArtifactError(f"{file}: no such file") from None
    except (OSError, ValueError, csv.Error) as error:
        raise ArtifactError(f"{file}: not a table of comma-separated values ({error})") from None
    headings = [str(name).strip() for name in frame.iloc[0]]
    frame = frame.iloc[1:].set_axis(headings, axis=1)
    needed = (columns.film, *columns.stimuli, columns.target)
    if absent := [name for name in needed if name not in headings]:
        raise ArtifactError(
            f"{file}: has no column {', '.join(absent)}; expected {', '.join(needed)} and any of "
            f"{', '.join(columns.morphology)}"
        )
    known = (*needed, *columns.morphology)
    if twice := [name for name in known if headings.count(name) > 1]:
        raise ArtifactError(f"{file}: has two columns {', '.join(twice)}")
    film = frame[columns.film].astype(str).str.strip().to_numpy()
    numbers = [
        np.stack([_numbers(frame, name) for name in names], axis=1)
        for names in (columns.morphology, columns.stimuli, (columns.target,))
    ]
    for name, values in zip(needed[1:], np.concatenate(numbers[1:], axis=1).T, strict=True):
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            said = "has no value in" if np.isnan(values[row]) else "is no number in"
            raise ArtifactError(f"{file}: {name} {said} row {row + 2}")
    morphology, stimuli, target = numbers
    if (target <= 0).any():
        row = int(np.flatnonzero(target <= 0)[0])
        raise ArtifactError(
            f"{file}: {columns.target} is {target[row, 0]:g} in row {row + 2}: an area is positive"
        )
    order = np.argsort(_first_seen(film), kind="stable")
    return Table(film, morphology, stimuli, target[:, 0]).take(order)


def _first_seen(labels: np.ndarray) -> np.ndarray:
    """Number of each label, counted in the order in which labels appear."""
    _, first, number = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]


def _numbers(frame: "pd.DataFrame", name: str) -> np.ndarray:
    """A column as numbers, NaN where it has none, infinite where it has something else; all NaN
    where it is absent."""
    import pandas as pd

    if name not in frame.columns:
        return np.full(len(frame), np.nan)
    text = frame[name].str.strip()
    blank = (text.isna() | text.str.lower().isin(["", "nan", "na", "n/a", "-"])).to_numpy()
    values = pd.to_numeric(text, errors="coerce").to_numpy(float)
    return np.where(blank, np.nan, np.where(np.isfinite(values), values, np.inf))


def assert_enough(table: Table, file: Path) -> None:
    """Refuse a table that is too small to learn from, or in which there is nothing to explain.

    Raises:
        ArtifactError: Naming the file and both counts, or what is the same everywhere.
    """
    films = len(set(table.film))
    if len(table.target) < _LEAST_ROWS or films < _LEAST_FILMS:
        raise ArtifactError(
            f"{file}: {len(table.target)} measurements of {films} films, expected at least "
            f"{_LEAST_ROWS} of {_LEAST_FILMS}"
        )
    if is_constant(table.target):
        raise ArtifactError(f"{file}: the area is {table.target[0]:g} in all measurements")


def of_use(table: Table, columns: Columns, rules: dict[str, str]) -> tuple[np.ndarray, list[str]]:
    """Descriptors to keep, as places among `columns.morphology`, and what was found, in words.

    Stimuli are what is asked about: what is wrong with one is said, and it is kept.

    Args:
        table: The table.
        columns: Its columns.
        rules: "drop" or "keep" for a column that is `constant`, `missing`, `non_numeric`,
            `duplicated`, or `defining`: nearly the target itself.
    """
    kept: list[int] = []
    said = []
    before: dict[str, np.ndarray] = {}
    for name, values in zip(columns.stimuli, table.stimuli.T, strict=True):
        faults = _faults(values, before, table.target, columns.target)
        before[name] = values
        if faults:
            rest = (
                "and its effect is what the prior says" if "constant" in faults else "all the same"
            )
            said.append(f"{name} {' and '.join(faults.values())}: kept, {rest}")
    for j, name in enumerate(columns.morphology):
        values = table.morphology[:, j]
        faults = _faults(values, before, table.target, columns.target)
        # What was never measured, and what never varies, no rule can keep.
        hopeless = "constant" in faults or not np.isfinite(values).any()
        dropped = hopeless or any(rules[fault] == "drop" for fault in faults)
        if faults:
            said.append(
                f"{name} {' and '.join(faults.values())}: {'dropped' if dropped else 'kept'}"
            )
        if not dropped:
            kept.append(j)
            before[name] = values
    return np.array(kept, int), said


def _faults(
    values: np.ndarray, before: dict[str, np.ndarray], target: np.ndarray, named: str
) -> dict[str, str]:
    """What is wrong with a column, in words by the name of its rule; empty if nothing is.

    Args:
        values: Of the column.
        before: Of the columns that it may be a copy of.
        target: What is explained.
        named: Name of the target.
    """
    faults, n = {}, len(values)
    if texts := np.count_nonzero(np.isinf(values)):
        faults["non_numeric"] = f"is no number in {texts} of {n} measurements"
    if missing := np.count_nonzero(np.isnan(values)):
        faults["missing"] = f"is missing in {missing} of {n} measurements"
    there = np.isfinite(values)
    if is_constant(values[there]):
        if there.any():
            faults["constant"] = "is the same in all measurements"
        return faults
    for name, other in before.items():
        both = there & np.isfinite(other)
        if both.sum() > n / 2 and _correlation(values[both], other[both]) > _COPY:
            faults["duplicated"] = f"says the same as {name}"
            break
    correlation = _likeness(values[there], target[there])
    if there.sum() > n / 2 and correlation > _DEFINES:
        faults["defining"] = f"nearly defines {named} (correlation {correlation:.2f})"
    return faults


def is_constant(values: np.ndarray) -> bool:
    """Whether numbers are the same but for rounding; no numbers are, too."""
    return not len(values) or bool(np.ptp(values) <= 1e-9 * np.abs(values).max())


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Size of the correlation; zero where one of the two is constant."""
    return 0.0 if is_constant(a) or is_constant(b) else abs(float(np.corrcoef(a, b)[0, 1]))


def _likeness(values: np.ndarray, target: np.ndarray) -> float:
    """How closely a column follows the target: the larger of the correlations of logarithms, which
    finds a power of it, and of ranks, which a zero or a wrong value cannot hide it from."""
    some = values != 0
    of_logs = _correlation(np.log(np.abs(values[some])), np.log(target[some]))
    return max(of_logs, _correlation(_ranks(values), _ranks(target)))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Place of each value in their order; equal values have one place."""
    return np.unique(values, return_inverse=True)[1].astype(float)


def write_csv(file: Path, table: Table, columns: Columns, note: str = "") -> None:
    """Write a table as CSV, below a line that says what it is."""
    import pandas as pd

    frame = pd.DataFrame({columns.film: table.film})
    for names, values in (
        (columns.morphology, table.morphology),
        (columns.stimuli, table.stimuli),
        ((columns.target,), table.target[:, None]),
    ):
        frame[list(names)] = values
    with artifacts.atomic(file) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g")
