"""The comparison with NUTS: chains that are kept, and a posterior that is wrong and told so."""

import jax
import numpy as np
import pytest
import xarray as xr

from touchstone import reference
from touchstone.models.base import Posterior
from touchstone.models.registry import load_model

MODEL = load_model("ecsfm")
NAMES = [parameter.name for parameter in MODEL.parameters]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A single-couple voltammogram, about which much is known, and draws of a guess."""
    settings = {"n_cases": 24, "observed": "dense", "noise": 0.05}
    base = MODEL.base_cases(np.random.default_rng(3), settings, 64)
    base = base.take(np.flatnonzero(base.task == "kinetics_limited")[:1])
    cases = MODEL.variant(base, jax.random.key(3))
    wanted = np.isin(NAMES, ["D_ox_1", "offset", "noise"])
    cases = cases._replace(known=cases.known | ~wanted)
    guess = np.random.default_rng(0).standard_normal((400, len(NAMES)))
    z = np.where(cases.known[:, None], cases.z[:, None], cases.z[:, None] + 0.5 * guess)
    nothing = np.full(1, np.nan)
    posterior = Posterior(z, np.full((1, 400), 1 / 400), *[nothing] * 9)
    folder = tmp_path_factory.mktemp("traces")
    rows = reference.compare(
        MODEL,
        base,
        cases,
        {"reweighted": posterior},
        n_tune=200,
        n_draws=400,
        seed=1,
        folder=folder,
    )
    return rows, cases, xr.load_datatree(folder / "nuts_0.nc")["posterior"]


def test_chains_agree_and_are_kept(compared):
    rows, _, kept = compared
    assert rows["converged"].all()
    assert (rows["r_hat"] <= 1.01).all()
    assert kept["z"].shape == (4, 400, 2)  # the baseline is marginalised
    assert set(kept["parameter"].values) == {"D_ox_1", "noise"}


def test_the_truth_is_a_draw_like_the_others(compared):
    _, cases, kept = compared
    draws = kept["z"].values.reshape(-1, 2)
    truth = cases.z[0, [NAMES.index(name) for name in kept["parameter"].values]]
    assert (np.abs(truth - draws.mean(0)) < 4 * draws.std(0)).all()


def test_a_guess_is_told_from_the_reference(compared):
    rows, *_ = compared
    assert (rows["c2st"] > 0.6).all()
    assert (rows["width"] > 1.5).all()
    table = reference.summary(rows)
    assert table[0]["n_converged"] == table[0]["n_cases"] == 1
