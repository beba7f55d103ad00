"""Intervals of an effect by DoubleML, econml and tsdml; run by bench_regimes.py in an environment
of its own.

Arguments: an .npz of `y` and `d`, shape (series, T), and `x`, shape (series, T, J); and one to
write: estimate, low and high of 90 % intervals by the name of each method, shape (series, 3). All
have the same ridge regressions as nuisances, and everything else as it comes.
"""

import sys
import warnings
from importlib.metadata import version

import numpy as np
from doubleml import DoubleMLData, DoubleMLPLR
from econml.dml import LinearDML
from sklearn.linear_model import Ridge
from tsdml import ReverseCrossFitting

warnings.filterwarnings("ignore")
LEVEL = 0.9


def by_doubleml(y: np.ndarray, d: np.ndarray, x: np.ndarray) -> list[float]:
    """Random folds, independent rows."""
    model = DoubleMLPLR(DoubleMLData.from_arrays(x, y, d), Ridge(), Ridge(), n_folds=5)
    model.fit()
    return [float(model.coef[0]), *map(float, model.confint(level=LEVEL).to_numpy()[0])]


def by_econml(y: np.ndarray, d: np.ndarray, x: np.ndarray) -> list[float]:
    """Random folds, heteroskedastic errors."""
    model = LinearDML(model_y=Ridge(), model_t=Ridge(), cv=5, random_state=0)
    model.fit(y, d, W=x)
    low, high = model.const_marginal_ate_interval(alpha=1 - LEVEL)
    return [float(np.ravel(v)[0]) for v in (model.const_marginal_ate(), low, high)]


def by_tsdml(y: np.ndarray, d: np.ndarray, x: np.ndarray) -> list[float]:
    """Reverse cross-fitting, HAC errors with fixed-b critical values."""
    model = ReverseCrossFitting(
        Ridge(), Ridge(), estimation_method="full", confidence_level=LEVEL,
        use_fixed_b_critical=True,
    )  # fmt: skip
    model.fit(x, y, d)
    found = model.results_
    return [float(model.theta_), float(found["ci_lower"]), float(found["ci_upper"])]


given = np.load(sys.argv[1])
rows = list(zip(given["y"], given["d"], given["x"], strict=True))
methods = {"DoubleML": by_doubleml, "econml": by_econml, "tsdml": by_tsdml}
found = {
    f"{name} {version(name.lower())}": np.array([method(*row) for row in rows])
    for name, method in methods.items()
}
np.savez(sys.argv[2], **found)
