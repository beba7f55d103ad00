"""An economy that stands for one that was learnt."""

from dataclasses import MISSING, fields

import numpy as np
import pytest

from touchstone.contract import load_model
from touchstone.models.regimes import economy

J = 3


@pytest.fixture(scope="module")
def learnt():
    """An economy that stands for one that was learnt from data, and its prior."""
    memory = np.diag([0.8, 0.5, 0.2])
    needed = [each.name for each in fields(economy.Economy) if each.default is MISSING]
    values = dict.fromkeys(needed, np.zeros(1)) | {
        "names": np.array(["y", "d", "a", "b", "c"]),
        "mean": np.zeros(2 + J),
        "sd": np.ones(2 + J),
        "low": np.full(J, -3.0),
        "high": np.full(J, 3.0),
        "memory": memory,
        "innovations": np.random.default_rng(0).standard_normal((400, J))
        * np.sqrt(1 - np.diag(memory) ** 2),
        "slope": np.array([0.4, 0.0, -0.3]),
        "treatment_slope": np.array([0.0, 0.3, 0.3, 0.0]),
        "treatment_variance": np.float64(0.8),
        "horizon": np.array(0),
    }
    prior = economy.prior_of(load_model("regimes").config, 0.8, 0.8)
    return economy.Economy(**values), prior
