"""Print scores of DoubleML as JSON; run by test_effects.py in an environment of its own.

Arguments: an .npz of `x`, `d`, `y`, `treated`, `y_treated` and `fold` (the number of the fold of
each row).
"""

import json
import sys
import warnings

import doubleml
import numpy as np
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

warnings.filterwarnings("ignore")
given = np.load(sys.argv[1])
every = np.arange(len(given["fold"]))
splits = [
    (every[given["fold"] != k], every[given["fold"] == k]) for k in range(given["fold"].max() + 1)
]


def scores(model: object, y: np.ndarray, d: np.ndarray, *nuisances: object) -> list[float]:
    """Estimate and standard error."""
    data = doubleml.DoubleMLData.from_arrays(given["x"], y, d)
    fitted = model(data, *nuisances, n_folds=len(splits), draw_sample_splitting=False)
    fitted.set_sample_splitting(splits)
    fitted.fit()
    return [float(fitted.coef[0]), float(fitted.se[0])]


linear = scores(doubleml.DoubleMLPLR, given["y"], given["d"], Ridge(alpha=1.0), Ridge(alpha=1.0))
treated = given["treated"].astype(float)
logistic = LogisticRegression(tol=1e-10, max_iter=1000)
doubly = scores(doubleml.DoubleMLIRM, given["y_treated"], treated, LinearRegression(), logistic)
print(json.dumps({"version": doubleml.__version__, "linear": linear, "interactive": doubly}))
