"""The comparison with NUTS: chains that are kept, and a posterior that is wrong and told so."""

import jax
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from touchstone.contract import load_model
from touchstone.stages import reference
from touchstone.vocabulary import Posterior

MODEL = load_model("ecsfm")
NAMES = [parameter.name for parameter in MODEL.parameters]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A single-couple voltammogram, about which much is known, and draws of a guess."""
    settings = {"n_cases": 24, "observed": "dense", "noise": 0.05}
    base = MODEL.base_cases(np.random.default_rng(3), settings, 64)
    base = base.take(np.flatnonzero(base.task == "kinetics_limited")[:1])
    cases = MODEL.variant(base, jax.random.key(3))
    wanted = np.isin(NAMES, ["E0_1", "k0_1", "offset", "noise"])
    cases = cases._replace(known=cases.known | ~wanted)
    guess = np.random.default_rng(0).standard_normal((400, len(NAMES)))
    guess = np.where(cases.known[:, None], cases.z[:, None], cases.z[:, None] + 0.5 * guess)
    folder = tmp_path_factory.mktemp("traces")

    def compare(cases, n_tune=200, n_draws=400, folder=folder, z=guess):
        n, nothing = z.shape[1], np.full(1, np.nan)
        return reference.compare(
            MODEL,
            base,
            cases,
            {"reweighted": Posterior(z, np.full((1, n), 1 / n), *[nothing] * 10)},
            n_tune=n_tune,
            n_draws=n_draws,
            seed=1,
            folder=folder,
        )

    return compare(cases), cases, folder / "nuts_0.nc", compare


def kept(path):
    return xr.load_datatree(path, engine="h5netcdf")["posterior"]


def test_chains_agree_and_are_kept(compared):
    rows, _, path, _ = compared
    posterior = kept(path)
    assert rows["converged"].all()
    assert (rows["r_hat"] <= 1.01).all()
    assert posterior["z"].shape == (4, 400, 3)  # the baseline is marginalised
    assert set(posterior["parameter"].values) == {"E0_1", "k0_1", "noise"}
    whole = posterior["standard"].sel(all=posterior["parameter"].values)
    assert np.allclose(whole, posterior["z"], atol=1e-5)


def test_the_truth_is_not_far_from_the_draws(compared):
    _, cases, path, _ = compared
    posterior = kept(path)
    draws = posterior["z"].values.reshape(-1, 3)
    truth = cases.z[0, [NAMES.index(name) for name in posterior["parameter"].values]]
    assert (np.abs(truth - draws.mean(0)) < 4 * draws.std(0)).all()


def test_a_guess_is_told_from_the_reference(compared):
    rows, *_ = compared
    assert (rows["c2st"] > 0.6).all()
    assert (rows["width"] > 1.5).all()
    table = reference.summary(rows)
    assert table[0]["n_converged"] == table[0]["n_cases"] == 1


def test_draws_like_the_reference_are_not_told_from_it(compared):
    """So much is known of this case that its posterior is Gaussian."""
    rows, cases, path, compare = compared
    rng = np.random.default_rng(0)
    reference = kept(path)["standard"].values.reshape(-1, len(NAMES))
    z = rng.multivariate_normal(reference.mean(0), np.cov(reference.T), (1, 800))
    (own,) = compare(cases, z=z).to_dict("records")
    assert own["c2st"] == pytest.approx(0.5, abs=0.06)
    assert own["width"] == pytest.approx(1, abs=0.1)
    assert own["tail"] == 0
    assert own["param_nrmse"] == pytest.approx(own["nuts_param_nrmse"], rel=0.1)
    assert rows["param_nrmse"].item() < own["param_nrmse"]  # the guess is about the truth
    # Copies with another baseline are no further draws.
    few = np.repeat(z[:, :200], 4, axis=1)
    baseline = ~cases.known[0] & MODEL.prior.baseline
    few[:, :, baseline] += rng.standard_normal(few[:, :, baseline].shape)
    assert compare(cases, z=few)["n_distinct"].item() == 200


def test_kept_chains_are_used_again_unless_they_are_damaged_or_of_another_case(compared):
    rows, cases, path, compare = compared
    written = path.stat().st_mtime_ns
    pd.testing.assert_frame_equal(compare(cases), rows)
    assert path.stat().st_mtime_ns == written
    path.write_bytes(path.read_bytes()[:1000])
    assert compare(cases)["converged"].all()
    written = path.stat().st_mtime_ns
    compare(cases._replace(observed=1.01 * cases.observed))
    assert path.stat().st_mtime_ns != written


@pytest.mark.parametrize(("n_draws", "longer"), [(8, False), (100, True)])
def test_chains_are_run_longer_only_where_that_may_do(compared, tmp_path, n_draws, longer):
    """Eight draws a chain are too few even at four times the length, a hundred are not."""
    _, cases, _, compare = compared
    compare(cases, 100, n_draws, tmp_path)
    assert (kept(tmp_path / "nuts_0.nc").sizes["draw"] > n_draws) == longer


def test_a_case_that_cannot_be_sampled_does_not_keep_the_others_from_it(compared):
    _, cases, path, compare = compared
    rows = compare(cases._replace(observed=np.inf * cases.observed))
    assert not rows["converged"].any()
    assert rows["c2st"].isna().all()
    assert not path.exists()
