"""Write romer_2004.csv from the wheel greenbook-shocks 0.0.2 (MIT licence), once.

    python convert_romer.py greenbook_shocks-0.0.2-py3-none-any.whl

The wheel holds the data appendix of Romer and Romer (2004) as a pickle of a table. It is read by an
unpickler that makes nothing but tables and arrays, and no test and no part of the package reads it.
"""

import gzip
import hashlib
import io
import pickle
import sys
import zipfile
from pathlib import Path

import pandas as pd

SHA256 = "0214f64b24d5c1bcb570d05e0abf5681e6238e301351cc9c5e4c5a812b147a4e"
ALLOWED = {
    "builtins": {"slice"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct"},
    "numpy.core.numeric": {"_frombuffer"},
    "pandas.core.arrays.datetimes": {"DatetimeArray"},
    "pandas.core.frame": {"DataFrame"},
    "pandas.core.indexes.base": {"Index", "_new_Index"},
    "pandas.core.indexes.datetimes": {"DatetimeIndex", "_new_DatetimeIndex"},
    "pandas.core.internals.managers": {"BlockManager"},
}


class TableUnpickler(pickle.Unpickler):
    """Of tables and arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> object:
        if name not in ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a table")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


wheel = Path(sys.argv[1]).read_bytes()
assert hashlib.sha256(wheel).hexdigest() == SHA256, f"{sys.argv[1]}: is another file"
with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
    content = gzip.decompress(archive.read("rrgb/data/rr.pkl.gz"))
table: pd.DataFrame = TableUnpickler(io.BytesIO(content)).load()  # type: ignore
shocks = table["RESID"].dropna().rename("shock").rename_axis("meeting")
shocks.to_csv(Path(__file__).with_name("romer_2004.csv"), float_format="%.6f")
