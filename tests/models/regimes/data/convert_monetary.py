"""Write monthly.csv of the package from data of wheels, once.

    python convert_monetary.py arch-8.0.0-cp312-*.whl

Shocks are those of romer_2004.csv, see convert_romer.py; industrial production is that of two tests
of statsmodels (Filardo 1994 until April 1991, then the vintage of July 2016 of the nowcast of the
Federal Reserve Bank of New York); core consumer prices and yields are those that arch holds (NCSA
licence) of FRED. Values of agencies of the United States are in the public domain.
"""

import gzip
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import statsmodels

FIRST, LAST = "1967-01-01", "1999-12-01"
STATSMODELS = Path(statsmodels.__file__).parent / "tsa"
TARGET = Path(__file__).parents[4] / "src/touchstone/models/regimes/data/monthly.csv"


def growth_of_industrial_production() -> pd.Series:
    """Percent a month."""
    early = pd.read_csv(STATSMODELS / "regime_switching/tests/results/mar_filardo.csv")["dlip"]
    early.index = pd.date_range("1948-02-01", periods=len(early), freq="MS")
    folder = STATSMODELS / "statespace/tests/results/frbny_nowcast/Nowcasting/data/US"
    late = pd.read_csv(folder / "2016-07-29.csv", usecols=["Date", "INDPRO"])
    late = late.set_index(pd.to_datetime(late["Date"], format="%m/%d/%y"))["INDPRO"]
    return pd.concat([early, 100 * np.log(late).diff()["1991-05-01":]])


def shocks_by_month() -> pd.Series:
    """Percentage points; months without a meeting have none."""
    file = Path(__file__).with_name("romer_2004.csv")
    shocks = pd.read_csv(file, parse_dates=["meeting"]).set_index("meeting")["shock"]
    shocks = shocks.groupby(shocks.index.to_period("M").to_timestamp()).sum()
    return shocks.reindex(pd.date_range("1969-03-01", "1996-12-01", freq="MS"), fill_value=0.0)


if __name__ == "__main__":
    with zipfile.ZipFile(sys.argv[1]) as archive:
        prices, yields = (
            pd.read_csv(io.BytesIO(gzip.decompress(archive.read(f"arch/data/{name}.csv.gz"))))
            for name in ("core_cpi/core-cpi", "default/default")
        )
    for table in (prices, yields):
        table.index = pd.to_datetime(table["Date"], format="%m/%d/%Y")
    months = pd.date_range(FIRST, LAST, freq="MS")
    columns = {
        "fred_INDPRO_growth": growth_of_industrial_production(),
        "fred_CPILFESL_growth": 100 * np.log(prices["CPILFESL"]).diff(),
        "fred_BAA_less_AAA": yields["BAA"] - yields["AAA"],
        "romer_shock": shocks_by_month(),
    }
    found = pd.DataFrame({name: column.reindex(months) for name, column in columns.items()})
    # A value is dated at the first day after its month: no day before has seen all of it.
    found.index = found.index + pd.offsets.MonthBegin()
    found.rename_axis("date").to_csv(TARGET, float_format="%.6f", date_format="%Y-%m-%d")
