"""Chains of simulated cases: kept, used again, run longer, and refused where there are none.

A stand-in takes the place of the exact posterior: draws that are independent, or that hardly move.
"""

import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import xarray as xr

from touchstone.inference import nuts
from touchstone.models.ecsfm.inference import chains
from touchstone.models.ecsfm.physics.experiment import Records

NAMES = ["E0", "k0", "offset"]
SAMPLED = NAMES[:2]
BUDGET = {"n_tune": 100, "n_draws": 200}
N_CHAINS = 4


class StandIn:
    """What `sample_each` asks of posteriors, for a posterior that is Gaussian about the truth.

    Args:
        correlation: Of each draw of a chain with the one before it.
    """

    prior = SimpleNamespace(names=NAMES)

    def __init__(self, correlation=0.0):
        self.correlation = correlation
        self.calls = []

    def nuts(self, record, waveform, begin, *, n_tune, n_draws, seed, kept):
        """Draws like those of `Posteriors.nuts`; the same where the kept ones are of the record."""
        if not np.isfinite(record.observed).all():
            raise nuts.UnfitStartError("log posterior not finite, or without a slope, at start [0]")
        self.calls.append((n_draws, np.array(begin)))
        if kept is not None and kept.attrs["observed"] == record.observed.sum():
            return kept
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal((n_draws, N_CHAINS, len(SAMPLED)))
        z = [rng.standard_normal(noise[0].shape)]
        for step in noise[1:]:
            z.append(self.correlation * z[-1] + np.sqrt(1 - self.correlation**2) * step)
        dims = ("chain", "draw", "parameter")
        places = {"parameter": SAMPLED}
        centred = record.z[0, : len(SAMPLED)] + np.swapaxes(z, 0, 1)
        tree = xr.DataTree.from_dict(
            {
                "posterior": xr.Dataset({"z": (dims, centred)}, places),
                "sample_stats": xr.Dataset(
                    {"diverging": (dims[:2], np.zeros(centred.shape[:2], bool))}
                ),
            }
        )
        tree.attrs = {"observed": record.observed.sum(), "n_tune": n_tune}
        return tree


@pytest.fixture
def cases():
    """Two cases, of which only the last quantity is known."""
    rng = np.random.default_rng(0)
    known = np.tile([False, False, True], (2, 1))
    z = rng.standard_normal((2, 3)).astype(np.float32)
    observed = rng.standard_normal((2, 5))
    nothing = np.zeros_like(z)
    seen = np.ones((2, 5), bool)
    return Records(observed, seen, np.arange(2), z, known, nothing, nothing)


def sample(posteriors, cases, folder, budget=BUDGET, seed=1):
    begin = np.tile(cases.z[:, None], (1, 10, 1))
    return chains.sample_each(
        posteriors, cases, np.arange(len(cases.z)), begin, budget, seed, folder, None
    )


def newest(folder, case):
    """The only file of the chains of a case, which is named by the time."""
    (file,) = chains.files_of(folder, case)
    assert re.fullmatch(rf"nuts_{case}_\d{{8}}T\d{{6}}Z\.nc", file.name)
    return file


def test_draws_of_all_chains_are_there_with_what_is_known(cases, tmp_path):
    sampled = sample(StandIn(), cases, tmp_path)
    assert sampled.z.shape == (2, N_CHAINS * BUDGET["n_draws"], 3)
    np.testing.assert_array_equal(sampled.z[..., 2], np.broadcast_to(cases.z[:, 2:], (2, 800)))
    np.testing.assert_allclose(sampled.z.mean(1)[:, :2], cases.z[:, :2], atol=0.15)
    first = chains.kept(newest(tmp_path, 0))["posterior"]["z"]
    np.testing.assert_allclose(sampled.z[0, :, :2], first.values.reshape(-1, 2), rtol=1e-6)


def test_chains_that_agree_are_sound(cases, tmp_path):
    computation = sample(StandIn(), cases, tmp_path).computation
    assert computation.sound(2).all()
    convergence = nuts.diagnose(chains.kept(newest(tmp_path, 1)))
    assert computation.figures["ess"][1] == convergence.least_ess
    assert computation.figures["r_hat"][1] == max(convergence.r_hat.values())
    assert (computation.figures["seconds"] > 0).all()


def test_kept_chains_are_used_again(cases, tmp_path):
    first = sample(StandIn(), cases, tmp_path)
    written = newest(tmp_path, 0).stat().st_mtime_ns
    again = sample(StandIn(), cases, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again, first)  # the seconds of the first, too
    assert newest(tmp_path, 0).stat().st_mtime_ns == written


@pytest.mark.parametrize("change", ["damaged", "another case", "another seed", "another budget"])
def test_kept_chains_are_replaced_where_they_are_not_what_is_asked_for(cases, tmp_path, change):
    sample(StandIn(), cases, tmp_path)
    files = [newest(tmp_path, k) for k in range(2)]
    written = [file.stat().st_mtime_ns for file in files]
    budget, seed = BUDGET, 1
    if change == "damaged":
        files[0].write_bytes(files[0].read_bytes()[:1000])
    elif change == "another case":
        cases = cases._replace(observed=cases.observed * [[1.01], [1.0]])
    elif change == "another seed":
        seed = 2
    else:
        budget = {**BUDGET, "n_draws": 300}
    sampled = sample(StandIn(), cases, tmp_path, budget, seed)
    assert sampled.computation.sound(2).all()
    files = [newest(tmp_path, k) for k in range(2)]
    replaced = [f.stat().st_mtime_ns != w for f, w in zip(files, written, strict=True)]
    assert replaced == [True, change in ("another seed", "another budget")]


@pytest.mark.parametrize(
    ("n_draws", "lengths"),
    # Independent draws: 4 chains of 8 hold 32 effective draws, four times as long still few;
    # of 80, four times as long enough, as they do at twice the length; of 200, at once.
    [(8, [8]), (80, [80, 160]), (200, [200])],
)
def test_chains_are_run_longer_only_where_that_may_do(cases, tmp_path, n_draws, lengths):
    posteriors = StandIn()
    one = jax.tree.map(lambda a: a[:1], cases)
    sample(posteriors, one, tmp_path, {**BUDGET, "n_draws": n_draws})
    assert [n for n, _ in posteriors.calls] == lengths
    assert chains.kept(newest(tmp_path, 0))["posterior"].sizes["draw"] == lengths[-1]


def test_longer_chains_start_at_draws_of_those_before_them(cases, tmp_path):
    posteriors = StandIn()
    one = jax.tree.map(lambda a: a[:1], cases)
    sample(posteriors, one, tmp_path, {**BUDGET, "n_draws": 80})
    (_, first), (_, second) = posteriors.calls
    assert (first == cases.z[0]).all()
    assert second.shape == (N_CHAINS * 80, 3)
    assert (second[:, 2] == cases.z[0, 2]).all()
    assert len(np.unique(second[:, 0])) == N_CHAINS * 80


def test_chains_that_never_agree_are_kept_and_are_not_sound(cases, tmp_path):
    one = jax.tree.map(lambda a: a[:1], cases)
    computation = sample(StandIn(correlation=0.999), one, tmp_path).computation
    assert not computation.sound(1).any()
    assert computation.figures["r_hat"] > nuts.LARGEST_R_HAT
    assert newest(tmp_path, 0).exists()


def test_a_case_that_cannot_be_sampled_is_unsound_and_does_not_keep_the_others_from_it(
    cases, tmp_path, capsys
):
    sample(StandIn(), cases, tmp_path)
    sampled = sample(StandIn(), cases._replace(observed=cases.observed * [[np.inf], [1]]), tmp_path)
    assert sampled.computation.sound(2).tolist() == [False, True]
    assert np.isnan(sampled.z[0]).all()
    assert np.isfinite(sampled.z[1]).all()
    assert not chains.files_of(tmp_path, 0)  # which was of another case
    assert "case 0 cannot be sampled: log posterior not finite" in capsys.readouterr().out


def test_cases_with_chains_of_different_lengths_have_as_many_draws_each(cases, tmp_path):
    """The longer ones are thinned evenly, from the first draw to the last."""
    sample(StandIn(), jax.tree.map(lambda a: a[:1], cases), tmp_path, BUDGET)
    file = newest(tmp_path, 0)
    short = chains.kept(file)
    groups = {
        name: xr.concat([group.dataset] * 2, "draw") for name, group in short.children.items()
    }
    longer = xr.DataTree.from_dict(groups)
    longer.attrs = short.attrs
    longer.to_netcdf(file, engine="h5netcdf")
    z = sample(StandIn(), cases, tmp_path, BUDGET).z
    assert z.shape[1] == N_CHAINS * BUDGET["n_draws"]
    whole = longer["posterior"]["z"].values.reshape(-1, 2)
    np.testing.assert_allclose(z[0][[0, -1], :2], whole[[0, -1]], rtol=1e-6)
