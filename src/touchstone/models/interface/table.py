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
        morphology: NaN where nothing was measured, shape (row, J).
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

    try:
        frame = pd.read_csv(file, sep=None, engine="python", encoding="utf-8-sig", dtype=str)
    except FileNotFoundError:
        raise ArtifactError(f"{file}: no such file") from None
    except (OSError, ValueError, csv.Error) as error:
        raise ArtifactError(f"{file}: not a table of comma-separated values ({error})") from None
    frame.columns = [str(name).strip() for name in frame.columns]
    needed = (columns.film, *columns.stimuli, columns.target)
    if absent := [name for name in needed if name not in frame.columns]:
        raise ArtifactError(
            f"{file}: has no column {', '.join(absent)}; expected {', '.join(needed)} and any of "
            f"{', '.join(columns.morphology)}"
        )
    if twice := sorted({name for name in needed if list(frame.columns).count(name) > 1}):
        raise ArtifactError(f"{file}: has two columns {', '.join(twice)}")
    film = frame[columns.film].astype(str).str.strip().to_numpy()
    numbers = [
        np.stack([_numbers(file, frame, name) for name in names], axis=1)
        for names in (columns.morphology, columns.stimuli, (columns.target,))
    ]
    for name, values in zip(needed[1:], np.concatenate(numbers[1:], axis=1).T, strict=True):
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ArtifactError(f"{file}: {name} has no value in row {row + 2}")
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


def _numbers(file: Path, frame: "pd.DataFrame", name: str) -> np.ndarray:
    """A column as numbers, NaN where it has none; all NaN where it is absent."""
    import pandas as pd

    if name not in frame.columns:
        return np.full(len(frame), np.nan)
    column = frame[name]
    text = (column.iloc[:, 0] if isinstance(column, pd.DataFrame) else column).str.strip()
    blank = text.isna() | text.str.lower().isin(["", "nan", "na", "n/a", "-"])
    values = pd.to_numeric(text.where(~blank), errors="coerce").to_numpy(float)
    wrong = np.flatnonzero(~blank & ~np.isfinite(values))
    if len(wrong):
        raise ArtifactError(
            f"{file}: {name} is {text.iloc[wrong[0]]!r} in row {wrong[0] + 2}, expected a number"
        )
    return values


def assert_enough(table: Table, file: Path) -> None:
    """Refuse a table that is too small to learn from.

    Raises:
        ArtifactError: Naming the file and both counts.
    """
    films = len(set(table.film))
    if len(table.target) < _LEAST_ROWS or films < _LEAST_FILMS:
        raise ArtifactError(
            f"{file}: {len(table.target)} measurements of {films} films, expected at least "
            f"{_LEAST_ROWS} of {_LEAST_FILMS}"
        )


def of_use(table: Table, columns: Columns, rules: dict[str, str]) -> tuple[np.ndarray, list[str]]:
    """Descriptors to keep, as places among `columns.morphology`, and what was found, in words.

    Args:
        table: The table.
        columns: Its columns.
        rules: "drop" or "keep" for a column that is `constant`, `missing`, `duplicated`, or
            `defining`: nearly the target itself.
    """
    kept: list[int] = []
    said = []
    for j, name in enumerate(columns.morphology):
        values = table.morphology[:, j]
        what, why = _fault(values, table, kept, columns)
        # What was never measured, and what never varies, no rule can keep.
        hopeless = not np.isfinite(values).any() or np.nanstd(values) == 0
        dropped = bool(what) and (rules[what] == "drop" or hopeless)
        if what:
            said.append(f"{name} {why}: {'dropped' if dropped else 'kept'}")
        if not dropped:
            kept.append(j)
    return np.array(kept, int), said


def _fault(values: np.ndarray, table: Table, kept: list[int], columns: Columns) -> tuple[str, str]:
    """What is wrong with a descriptor, and in words; empty if nothing is."""
    missing = np.count_nonzero(~np.isfinite(values))
    if missing:
        return "missing", f"is missing in {missing} of {len(values)} measurements"
    if np.ptp(values) <= 1e-9 * np.abs(values).max():
        return "constant", "is the same in all measurements"
    for other in kept:
        if abs(np.corrcoef(values, np.nan_to_num(table.morphology[:, other]))[0, 1]) > _COPY:
            return "duplicated", f"says the same as {columns.morphology[other]}"
    logs = np.log(np.abs(values) + 1e-300), np.log(table.target)
    correlation = abs(np.corrcoef(*logs)[0, 1])
    if correlation > _DEFINES:
        return "defining", f"nearly defines {columns.target} (correlation {correlation:.2f})"
    return "", ""


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
