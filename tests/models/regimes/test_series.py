"""Tables of dated series: what is refused, and what could be known at a date."""

import numpy as np
import pytest

from touchstone.io.artifacts import ArtifactError
from touchstone.models.regimes import series
from touchstone.models.regimes.series import LookAheadError, Recipe

RECIPE = Recipe(
    "date", "ip", "shock", ("ip_lag_62d", "fred_CPI_lag_31d"), {"ip": 45, "fred_CPI": 14}
)


def table_text(n=80, change=lambda rows: rows):
    months = np.arange("2000-01", n, dtype="datetime64[M]").astype("datetime64[D]")
    rng = np.random.default_rng(0)
    rows = [[str(d), *(f"{v:.4f}" for v in rng.standard_normal(3))] for d in months]
    rows = change([["date", "ip", "shock", "fred_CPI"], *rows])
    return "\n".join(",".join(row) for row in rows)


def written(tmp_path, text):
    file = tmp_path / "series.csv"
    file.write_text(text, encoding="utf-8")
    return file


def months(n):
    return (np.datetime64("2000-01") + np.arange(n)).astype("datetime64[D]")


def test_a_feature_has_the_last_value_that_is_old_enough():
    table = series.Table(months(6), ("gdp",), np.arange(6.0)[:, None])
    # From 1 March, 31 days back is 30 January: the value of January. February has 29 days here.
    np.testing.assert_array_equal(series.feature(table, "gdp_lag_31d"), [np.nan, 0, 0, 2, 2, 4])
    np.testing.assert_array_equal(series.feature(table, "gdp_lag_0d"), np.arange(6.0))


@pytest.mark.parametrize("days", [0, 1, 30, 31, 32, 59, 95, 200])
def test_no_feature_changes_with_a_value_that_is_not_old_enough(days):
    rng = np.random.default_rng(days)
    values = rng.standard_normal((40, 1))
    table = series.Table(months(40), ("gdp",), values)
    before = series.feature(table, f"gdp_lag_{days}d")
    for changed in range(40):
        other = values.copy()
        other[changed] += 1
        after = series.feature(table._replace(values=other), f"gdp_lag_{days}d")
        moved = np.flatnonzero(before != after)
        moved = moved[np.isfinite(before[moved])]
        assert (table.dates[moved] - table.dates[changed] >= np.timedelta64(days, "D")).all()


def test_a_name_may_hold_what_names_of_series_hold():
    given = {"date": "date", "outcome": "y", "treatment": "d", "publication_lags": {}}
    names = ["fred_GDP_lag_30d", "yahoo_^GSPC_Close", "GDP growth, real_lag_90d"]
    recipe = Recipe.of({**given, "controls": names}, "a")
    assert [series.parts(name) for name in recipe.controls] == [
        ("fred_GDP", 30), ("yahoo_^GSPC_Close", 0), ("GDP growth, real", 90),
    ]  # fmt: skip
    with pytest.raises(ArtifactError, match="controls: a=b: a name may not hold `=`"):
        Recipe.of({**given, "controls": ["a=b", "c"]}, "a")


def test_a_feature_that_could_not_be_known_is_refused_by_its_name(tmp_path):
    recipe = RECIPE._replace(controls=("ip_lag_31d", "fred_CPI_lag_31d", "fred_CPI", "shock"))
    table = series.read_csv(written(tmp_path, table_text()), recipe)
    with pytest.raises(LookAheadError) as error:
        series.design(table, recipe)
    said = str(error.value)
    assert "ip_lag_31d: lies 31 days back, but ip is published 45 days" in said
    assert "fred_CPI: lies 0 days back" in said
    assert "shock: publication_lags has no entry for shock" in said
    assert "fred_CPI_lag_31d" not in said


def test_the_outcome_is_that_of_the_horizon(tmp_path):
    table = series.read_csv(written(tmp_path, table_text()), RECIPE)
    found = series.design(table, RECIPE._replace(horizon=2))
    ip, dates = table.column("ip"), list(table.dates)
    for k in (0, 5, len(found.dates) - 1):
        assert found.outcome[k] == ip[dates.index(found.dates[k]) + 2]
    assert found.dates[-1] == table.dates[-3]


def test_every_problem_of_a_table_is_said_at_once(tmp_path):
    def spoil(rows):
        rows[3][1], rows[5][2], rows[9][3] = "high", "", "inf"
        del rows[20]
        return rows

    with pytest.raises(ArtifactError) as error:
        series.read_csv(written(tmp_path, table_text(change=spoil)), RECIPE)
    said = str(error.value)
    for words in (
        "series.csv", "ip: 'high' in row 4 is no number", "shock: 1 values are missing",
        "fred_CPI: 'inf' in row 10", "date: dates are missing between 2001-07-01",
    ):  # fmt: skip
        assert words in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: [row[:3] for row in r], "fred_CPI: no such column"),
        (lambda r: [r[0], *r[:0:-1]], "is not after the date above"),
        (lambda r: [r[0], ["May", "1", "2", "3"], *r[1:]], "date: 'May' in row 2 is no date"),
        (lambda r: r[:30], "dates are complete, expected 60"),
        (lambda r: [r[0], *([*row[:2], "1", row[3]] for row in r[1:])], "shock: is the same"),
    ],
)
def test_a_table_that_cannot_be_learnt_from_is_refused(change, said, tmp_path):
    with pytest.raises(ArtifactError, match=said):
        series.design(series.read_csv(written(tmp_path, table_text(change=change)), RECIPE), RECIPE)


def test_every_problem_of_a_recipe_is_said_at_once(tmp_path):
    file = tmp_path / "series.yaml"
    text = "date: date\noutcome: 3\ncontrols: x\nhorizon: -1\nlag: 2\ncumulative: 1\n"
    file.write_text(text + "further_outcomes: [1]\n", encoding="utf-8")
    with pytest.raises(ArtifactError) as error:
        series.read_recipe(file)
    for key in (
        "outcome: 3", "treatment: None", "controls: 'x'", "horizon: -1", "lag: is unknown",
        "cumulative: 1", "further_outcomes: [1]",
    ):  # fmt: skip
        assert key in str(error.value)


def test_the_monthly_series_are_dated_after_their_month():
    table, recipe = series.monthly()
    found = series.design(table, recipe)
    assert (str(found.dates[0]), str(found.dates[-1])) == ("1969-04-01", "1997-01-01")
    # Of December 1974: the deepest fall of the recession, while core prices rose by 0.8 %.
    k = list(table.dates.astype(str)).index("1975-01-01")
    assert table.column("fred_INDPRO_growth").argmin() == k
    assert table.column("fred_CPILFESL_growth")[k] == pytest.approx(0.77, abs=0.05)
    # Months have 28 to 31 days: features lie one, two and three of them back.
    growth, first = table.column("fred_INDPRO_growth"), list(table.dates).index(found.dates[0])
    for row, lag in ((0, 1), (1, 2), (2, 3)):
        before = growth[first - lag : first - lag + len(found.dates)]
        np.testing.assert_array_equal(found.controls[:, row], before)
