"""Dated series, when each was published, and the features that could be known at a date.

A feature is named after its series and the days that it lies back, as in `infl_lag_120d`: at a date
it has the last value of the series that is dated at least so many days earlier. A feature that lies
back less than its series takes to be published could not have been known: it is an error.
"""

import csv
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import yaml
from jaxtyping import Float

from touchstone.io import artifacts, plain_yaml
from touchstone.io.artifacts import ArtifactError

_FEATURE = re.compile(r"(?P<series>.+)_lag_(?P<days>\d+)d")
_TOGETHER = 8  # dates of a simulated series whose innovations are those of as many of the table
_PERIODS = {  # days, for which the median distance of dates is called by a name
    "day": (1, 1), "week": (7, 7), "month": (28, 31), "quarter": (90, 92), "year": (365, 366),
}  # fmt: skip
_LEAST_DATES = 60  # of a table to learn from
_MOST_GAP = 1.6  # times the median distance of dates, beyond which dates are missing


class LookAheadError(ArtifactError):
    """Features that could not be known at the date they stand at; the message names them."""


class Recipe(NamedTuple):
    """What is asked of a table of series.

    Attributes:
        date: Name of the column of dates.
        outcome: Series that is explained, `horizon` rows later.
        treatment: Series whose effect is asked for.
        controls: Features that are held fixed.
        publication_lags: Days after its date at which a value of a series is known.
        horizon: Rows from the treatment to the outcome.
        further_outcomes: Series whose responses to the treatment are shown beside the outcome's.
        cumulative: Whether outcomes are changes, such as growth, whose sums since the treatment are
            what is asked about by horizon.
    """

    date: str
    outcome: str
    treatment: str
    controls: tuple[str, ...]
    publication_lags: dict[str, int]
    horizon: int = 0
    further_outcomes: tuple[str, ...] = ()
    cumulative: bool = False

    @property
    def outcomes(self) -> tuple[str, ...]:
        """All outcomes, that of the regimes first."""
        return (self.outcome, *self.further_outcomes)

    @classmethod
    def of(cls, content: object, source: str) -> "Recipe":
        """From the content of a YAML file.

        Raises:
            ArtifactError: With every problem of the content.
        """
        if not isinstance(content, dict):
            raise ArtifactError(f"{source}: expected keys and values, such as `outcome: growth`")
        problems = [f"{key}: is unknown" for key in content if key not in cls._fields]
        for key in ("date", "outcome", "treatment"):
            if not isinstance(content.get(key), str):
                problems.append(f"{key}: {content.get(key)!r}, expected the name of a column")
        lists = {"controls": "features", "further_outcomes": "columns"}
        for key, what in lists.items():
            given = content.get(key, [] if key in cls._field_defaults else None)
            if not isinstance(given, list) or not all(isinstance(c, str) for c in given):
                problems.append(f"{key}: {given!r}, expected a list of {what}")
            elif unreadable := [name for name in given if "=" in name]:
                problems.append(f"{key}: {', '.join(unreadable)}: a name may not hold `=`")
        lags = content.get("publication_lags", {})
        if not isinstance(lags, dict) or not all(
            type(days) is int and days >= 0 for days in lags.values()
        ):
            problems.append(f"publication_lags: {lags!r}, expected days by series, none negative")
        horizon = content.get("horizon", 0)
        if type(horizon) is not int or not 0 <= horizon <= 24:
            problems.append(f"horizon: {horizon!r}, expected a whole number of rows, 0 to 24")
        cumulative = content.get("cumulative", False)
        if not isinstance(cumulative, bool):
            problems.append(f"cumulative: {cumulative!r}, expected true or false")
        if problems:
            raise ArtifactError(f"{source}: {'; '.join(problems)}")
        names = (content[key] for key in ("date", "outcome", "treatment"))
        controls, further = (tuple(content.get(key, [])) for key in lists)
        return cls(*names, controls, lags, horizon, further, cumulative)


class Table(NamedTuple):
    """Series by date.

    Attributes:
        dates: In days, ascending, shape (T,).
        names: Of the series.
        values: NaN where there is none, shape (T, series).
    """

    dates: np.ndarray
    names: tuple[str, ...]
    values: Float[np.ndarray, "date series"]

    def column(self, name: str) -> Float[np.ndarray, " date"]:
        """One of the series."""
        return self.values[:, self.names.index(name)]


class Design(NamedTuple):
    """What a recipe makes of a table; rows with a gap are left out.

    Attributes:
        dates: Of the treatment, shape (row,).
        outcome: `horizon` rows later, shape (row,).
        treatment: Shape (row,).
        controls: Shape (row, J).
        names: Of the controls.
    """

    dates: np.ndarray
    outcome: Float[np.ndarray, " row"]
    treatment: Float[np.ndarray, " row"]
    controls: Float[np.ndarray, "row control"]
    names: tuple[str, ...]

    def take(self, rows: np.ndarray | slice) -> "Design":
        """Some of the rows."""
        return Design(
            self.dates[rows],
            self.outcome[rows],
            self.treatment[rows],
            self.controls[rows],
            self.names,
        )


def read_csv(file: Path, recipe: Recipe) -> Table:
    """A table of the series that a recipe names.

    Raises:
        ArtifactError: If the file is missing or no table; else with every problem of it.
    """
    try:
        frame = pd.read_csv(file, sep=None, engine="python", encoding="utf-8-sig", dtype=str)
    except FileNotFoundError:
        raise ArtifactError(f"{file}: no such file") from None
    except (OSError, ValueError, csv.Error) as error:
        raise ArtifactError(f"{file}: not a table of comma-separated values ({error})") from None
    frame.columns = [str(name).strip() for name in frame.columns]
    series = _series_of(recipe)
    needed = [recipe.date, *series]
    problems = [f"{name}: no such column" for name in needed if name not in frame.columns]
    problems += [
        f"{name}: stands there twice" for name in needed if list(frame.columns).count(name) > 1
    ]
    if problems:
        raise ArtifactError(f"{file}: {'; '.join(problems)}")
    dates = pd.to_datetime(frame[recipe.date].str.strip(), errors="coerce", format="ISO8601")
    stamps = dates.to_numpy("datetime64[D]")
    problems += _problems_of_dates(recipe.date, frame[recipe.date], stamps)
    columns = []
    for name in series:
        text = frame[name].str.strip()
        blank = text.isna() | text.str.lower().isin(["", "nan", "na", "n/a", ".", "-"])
        values = pd.to_numeric(text.where(~blank), errors="coerce").to_numpy(float)
        wrong = np.flatnonzero(~blank & ~np.isfinite(values))
        problems += [f"{name}: {text.iloc[k]!r} in row {k + 2} is no number" for k in wrong[:3]]
        inside = np.flatnonzero(np.isfinite(values))
        if not len(inside):
            problems.append(f"{name}: has no number")
        elif gaps := int((~np.isfinite(values[inside[0] : inside[-1] + 1])).sum()):
            problems.append(f"{name}: {gaps} values are missing between others")
        columns.append(values)
    if problems:
        raise ArtifactError(f"{file}: {'; '.join(problems)}")
    return Table(stamps, series, np.stack(columns, axis=1))


def _problems_of_dates(name: str, text: pd.Series, stamps: np.ndarray) -> list[str]:
    unread = np.flatnonzero(np.isnat(stamps))
    if len(unread):
        return [
            f"{name}: {text.iloc[k]!r} in row {k + 2} is no date such as 1999-12-31"
            for k in unread[:3]
        ]
    if len(stamps) < 2:
        return [f"{name}: {len(stamps)} dates, expected at least {_LEAST_DATES}"]
    steps = np.diff(stamps).astype(int)
    back = np.flatnonzero(steps <= 0)
    if len(back):
        return [f"{name}: {stamps[back[0] + 1]} in row {back[0] + 3} is not after the date above"]
    wide = np.flatnonzero(steps > _MOST_GAP * np.median(steps))
    return [f"{name}: dates are missing between {stamps[k]} and {stamps[k + 1]}" for k in wide[:3]]


def read_recipe(file: Path) -> Recipe:
    """A recipe from a YAML file; errors as in `Recipe.of`."""
    return Recipe.of(plain_yaml.load(file), str(file))


def parts(feature: str) -> tuple[str, int]:
    """Series of a feature, and the days that it lies back; 0 where the name says none."""
    found = _FEATURE.fullmatch(feature)
    return (found["series"], int(found["days"])) if found else (feature, 0)


def _series_of(recipe: Recipe) -> tuple[str, ...]:
    """All series that a recipe needs, each once."""
    controls = (parts(feature)[0] for feature in recipe.controls)
    return tuple(dict.fromkeys([*recipe.outcomes, recipe.treatment, *controls]))


def assert_known(recipe: Recipe) -> None:
    """Refuse features that could not have been known.

    Raises:
        LookAheadError: Naming each feature, its lag and the publication lag of its series.
    """
    problems = [
        problem
        for feature in recipe.controls
        for problem in look_ahead(feature, recipe.publication_lags)
    ]
    if problems:
        raise LookAheadError("; ".join(problems))


def look_ahead(feature: str, publication_lags: dict[str, int]) -> list[str]:
    """Why a feature could not have been known at its date, in words; empty where it could."""
    series, days = parts(feature)
    if series not in publication_lags:
        return [f"{feature}: publication_lags has no entry for {series}"]
    if days < publication_lags[series]:
        return [
            f"{feature}: lies {days} days back, but {series} is published "
            f"{publication_lags[series]} days after its date: a look-ahead"
        ]
    return []


def feature(table: Table, name: str) -> Float[np.ndarray, " date"]:
    """At each date, the last value of the series dated so many days earlier; NaN before any."""
    series, days = parts(name)
    at = np.searchsorted(table.dates, table.dates - np.timedelta64(days, "D"), side="right") - 1
    values = np.append(table.column(series), np.nan)
    return values[at]


def design(table: Table, recipe: Recipe) -> Design:
    """Outcome, treatment and controls of every date that has them all.

    Raises:
        LookAheadError: As in `assert_known`.
        ArtifactError: If too few dates are left, or a column never varies.
    """
    assert_known(recipe)
    h = recipe.horizon
    outcome = np.append(table.column(recipe.outcome), np.full(h, np.nan))[h:]
    treatment = table.column(recipe.treatment)
    controls = np.stack([feature(table, name) for name in recipe.controls], axis=1)
    rows = np.isfinite(np.column_stack([outcome, treatment, controls])).all(1)
    found = Design(table.dates, outcome, treatment, controls, recipe.controls).take(rows)
    problems = [
        f"{name}: is the same at all dates"
        for name, values in zip(
            (recipe.outcome, recipe.treatment, *recipe.controls),
            (found.outcome, found.treatment, *found.controls.T),
            strict=True,
        )
        if len(values) and np.ptp(values) == 0
    ]
    if len(found.dates) < _LEAST_DATES:
        problems.append(f"{len(found.dates)} dates are complete, expected {_LEAST_DATES}")
    if problems:
        raise ArtifactError("; ".join(problems))
    return found


def period(table: Table) -> str:
    """Distance of the dates of a table, in a word: "row" where there is none for it."""
    days = float(np.median(np.diff(table.dates).astype(int)))
    return next((name for name, (low, high) in _PERIODS.items() if low <= days <= high), "row")


# What comes with the package ----------------------------------------------------------------------

MONTHLY = Path(__file__).with_name("data") / "monthly.csv"


def monthly() -> tuple[Table, Recipe]:
    """Monetary shocks, industrial production and prices of the United States, by month."""
    recipe = read_recipe(MONTHLY.with_suffix(".yaml"))
    return read_csv(MONTHLY, recipe), recipe


def imitate(table: Table, treatment: str, rng: np.random.Generator, n_dates: int) -> Table:
    """Dates that are simulated in the manner of a table, as far apart as its own, after its last.

    All series follow their vector autoregression, with stretches of its innovations, so that calm
    and turbulent years stay together; innovations of the treatment are normal.
    """
    values = table.values[np.isfinite(table.values).all(1)]
    full = np.column_stack([np.ones(len(values) - 1), values[:-1]])
    slope = np.linalg.lstsq(full, values[1:])[0]
    errors = values[1:] - full @ slope
    starts = rng.integers(len(errors) - _TOGETHER + 1, size=(-(-n_dates // _TOGETHER), 1))
    stretches = errors[(starts + np.arange(_TOGETHER)).ravel()[:n_dates]]
    which = table.names.index(treatment)
    stretches[:, which] = errors[:, which].std() * rng.standard_normal(n_dates)
    now, rows = values.mean(0), []
    for error in stretches:
        now = np.clip(np.r_[1.0, now] @ slope + error, values.min(0), values.max(0))
        rows.append(now)
    months = table.dates.astype("datetime64[M]")
    step = int(np.median(np.diff(months).astype(int)))
    dates = months[-1] + step * np.arange(1, n_dates + 1)
    return Table(dates.astype("datetime64[D]"), table.names, np.array(rows))


def write_recipe(file: Path, recipe: Recipe, note: str) -> None:
    """Write a recipe as YAML, below a line that says what it is."""
    content = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in recipe._asdict().items()
        if value != Recipe._field_defaults.get(key)
    }
    with artifacts.atomic(file) as temporary:
        text = f"# {note}\n" + yaml.safe_dump(content, sort_keys=False)
        temporary.write_text(text, encoding="utf-8")


def write_csv(file: Path, table: Table, date: str = "date") -> None:
    """Write a table as CSV."""
    frame = pd.DataFrame(table.values, columns=list(table.names))
    frame.insert(0, date, table.dates.astype(str))
    with artifacts.atomic(file) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g")
