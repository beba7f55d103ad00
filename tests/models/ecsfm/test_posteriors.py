"""Posteriors of voltammograms: measured ones, several at once, and what cannot be known.

The networks here are hardly trained: what is right is so by the exact simulator alone.
"""

import shutil
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
import yaml
from scipy.stats import kstest

from touchstone.contract import load_model
from touchstone.inference import flow_training

DATA = Path(__file__).parents[4] / "shared" / "data" / "voltammetry"
measured = pytest.mark.skipif(not DATA.is_dir(), reason="the measured data are not here")
N = 256
MODEL = load_model("ecsfm")
NAMES = [parameter.name for parameter in MODEL.parameters]
CONFIG = yaml.safe_load((Path(__file__).parents[3] / "config/config.yaml").read_text("utf-8"))
BUDGET = {"n_draws": 400, "n_steps": 4, "reweight": CONFIG["infer"]["reweight"]}
MIDDLE = slice(1, 4)  # of the series, the records that are also inferred together
D_RUHEX, E0_RUHEX = 8.4e-6, -0.1826  # cm²/s, V: least squares over scan rates and electrodes


def chunk_of(n_traces):
    levels = {"foundation": 0.0, "bridge": 0.0, "frontier": 1.0}
    settings = {"n_traces": n_traces, "n_points": N, "levels": levels}
    return MODEL.simulate(np.random.default_rng(0), settings)


def training(n_steps):
    network = {"batch_size": 64, "paths": 1, "encoder_width": 32, "width": 32, "depth": 1}
    return {
        "held_out": 0.05,
        "surrogate": {**network, "n_steps": 2, "learning_rate": 1e-3, "spread": 0.05},
        "posterior": {**network, "n_steps": n_steps, "learning_rate": 2e-3, "spread": 1.0},
    }


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    return MODEL.train([chunk_of(400)], training(300), jax.random.key(0), folder, {}).checkpoint


def test_an_interrupted_training_goes_on_with_its_own_seed_and_data_only(tmp_path, monkeypatch):
    """A network that went on under another seed would have learnt from rows held out there."""
    monkeypatch.setattr(flow_training, "_STEPS_PER_CALL", 1)  # the state is kept every ten steps
    data, goes_on = chunk_of(60), []

    def noting(*arguments, state_file, **options):
        goes_on.append(state_file.exists())
        return trainer["train"](*arguments, state_file=state_file, **options)

    def train(folder, chunk=data, seed=0, **lineage):
        goes_on.clear()
        return MODEL.train([chunk], training(12), jax.random.key(seed), folder, lineage)

    trainer = {"train": flow_training.train}
    monkeypatch.setattr(flow_training, "train", noting)

    def weights(trained):
        return jax.tree.leaves(eqx.filter(trained.checkpoint.posterior, eqx.is_array))

    with pytest.raises(TypeError):  # ends before the checkpoint is there
        train(tmp_path / "same", unwritable=object())
    for other in ("seed", "data"):
        shutil.copytree(tmp_path / "same", tmp_path / other)
    ours = weights(train(tmp_path / "seed", seed=1))
    assert goes_on == [False, False]
    undisturbed = weights(train(tmp_path / "undisturbed", seed=1))
    jax.tree.map(np.testing.assert_array_equal, ours, undisturbed)
    # Whether training would go on is seen before the first step.
    trainer["train"] = lambda net, *_, **__: (net, np.zeros(1))
    train(tmp_path / "data", chunk_of(61))
    assert goes_on == [False, False]
    train(tmp_path / "same")
    assert goes_on == [False, True]  # the surrogate has too few steps for a state
    assert not list((tmp_path / "same").glob(".*"))  # and nothing to go on from is left


def infer(checkpoint, cases, method="reweighted"):
    return MODEL.infer(checkpoint, cases, jax.random.key(1), method=method, **BUDGET)


def draws(posterior, cases, name):
    return MODEL.natural(posterior.z, cases)[:, :, NAMES.index(name)]


def together(cases):
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *cases)


# Measured voltammograms ---------------------------------------------------------------------------


def ruhex(folder, rates):
    """Records on glassy carbon, at scan rates in V/s."""
    cases = []
    for rate in rates:
        meta = {
            "electrode": {"radius_mm": 1.5},
            "scan_rate_V_s": rate,
            "couples": [{"C_ox_mM": 1.0, "C_red_mM": 0}],
        }
        (folder / "meta.yaml").write_text(yaml.safe_dump(meta))
        path = DATA / "ruhex_gc_scan_rates" / f"{rate:.2E}.csv"
        cases.append(MODEL.read(path, folder / "meta.yaml", N)[0])
    return together(cases)


@pytest.fixture(scope="module")
def series(checkpoint, tmp_path_factory):
    cases = ruhex(tmp_path_factory.mktemp("ruhex"), (0.025, 0.05, 0.1, 0.2, 0.4))
    return cases, infer(checkpoint, cases), infer(checkpoint, cases.take(MIDDLE), "joint")


def ends(values):
    return np.quantile(values, [0.05, 0.95], axis=-1)


@measured
def test_a_measured_record_gives_the_known_diffusion_coefficient(series):
    cases, alone, _ = series
    assert (alone.k_hat <= alone.k_threshold).all()
    low, high = np.exp(ends(draws(alone, cases, "D_ox_1")))
    assert (low < D_RUHEX).all()
    assert (high > D_RUHEX).all()
    assert (high / low < 1.15 / 0.85).all()
    low, high = ends(draws(alone, cases, "E0_1"))
    assert (low < E0_RUHEX).all()
    assert (high > E0_RUHEX).all()
    assert (np.abs((low + high) / 2 - E0_RUHEX) < 0.003).all()


@measured
def test_a_series_is_tighter_than_each_record_and_consistent_with_all(series):
    cases, alone, joint = series
    cases, each = cases.take(MIDDLE), draws(alone, cases, "D_ox_1")[MIDDLE]
    assert joint.k_hat[0] <= joint.k_threshold[0]
    (low,), (high,) = np.exp(ends(draws(joint, cases, "D_ox_1")[:1]))
    assert low < D_RUHEX < high
    each_low, each_high = np.exp(ends(each))
    assert high / low < (each_high / each_low).min()
    assert (each_low < high).all()
    assert (each_high > low).all()
    # One system, whichever record it is read from; instruments of their own.
    for name in ("D_ox_1", "E0_1", "k0_1", "alpha_1"):
        np.testing.assert_allclose(np.ptp(draws(joint, cases, name), axis=0), 0, atol=2e-3)
    assert (np.ptp(draws(joint, cases, "C_dl"), axis=0) > 0).all()


@measured
def test_a_record_on_gold_gives_what_its_peak_says(checkpoint, tmp_path):
    """Randles and Sevcik: of the peak above the current before it, and at most of all of it."""
    area, concentration, rate = np.pi * 0.11**2, 0.98e-6, 0.4
    meta = {
        "electrode": {"radius_mm": 1.1},
        "scan_rate_V_s": rate,
        "couples": [{"C_ox_mM": 0.98, "C_red_mM": 0}],
    }
    (tmp_path / "meta.yaml").write_text(yaml.safe_dump(meta))
    path = DATA / "ruhex_au_0.98mM_0.4Vs.csv"
    potential, current = np.genfromtxt(path, delimiter=",", skip_header=1, usecols=(0, 1)).T
    before = current[np.argmax(potential < -0.04)]
    whole, above = -current.min(), before - current.min()
    at_most, expected = ((i / (2.69e5 * area * concentration)) ** 2 / rate for i in (whole, above))
    cases, _ = MODEL.read(path, tmp_path / "meta.yaml", N)
    low, high = np.exp(ends(draws(infer(checkpoint, cases), cases, "D_ox_1")[0]))
    assert low < expected < high < at_most


@measured
def test_a_record_beyond_planar_diffusion_is_not_explained(checkpoint, tmp_path, series):
    """At 5 mV/s convection and edges matter: the simulator has neither."""
    slow = ruhex(tmp_path, (0.005,))
    posterior = infer(checkpoint, slow)
    cases, alone, _ = series

    def covered(cases, posterior):
        return (np.abs(cases.observed - posterior.mean) < 1.645 * posterior.sd).mean(1)

    assert (covered(cases, alone) > 0.8).all()
    assert covered(slow, posterior)[0] < 0.75


# What cannot be known -----------------------------------------------------------------------------


def simulated(changes, observed="dense", noise=0.01, n_cases=1):
    """A reversible couple seen by voltammetry, with some standard coordinates set."""
    settings = {"n_cases": 60, "observed": observed, "noise": noise}
    base = MODEL.base_cases(np.random.default_rng(7), settings, N)
    base = base.take(np.flatnonzero(base.task == "cv_reversible")[:n_cases])
    for name, value in changes.items():
        base.z[:, NAMES.index(name)] = value
    return MODEL.variant(base, jax.random.key(2))


def test_a_reversible_couple_does_not_pretend_to_know_its_rate_constant(checkpoint):
    cases = simulated({"k0_1": 2.5, "D_ox_1": -0.5, "discrepancy": -2.0}, n_cases=6)
    z = infer(checkpoint, cases).z[:, :, NAMES.index("k0_1")]
    prior = np.random.default_rng(0).standard_normal(100_000)
    # Beyond what is fast enough, the prior: on average nothing is preferred among the fast.
    below = []
    for ours in z:
        fast = ours[ours > np.median(ours)]
        expected = np.quantile(prior[prior > np.median(ours)], [0.25, 0.5, 0.75])
        below.append([(fast < value).mean() for value in expected])
    np.testing.assert_allclose(np.mean(below, axis=0), [0.25, 0.5, 0.75], atol=0.12)
    assert z.max() > 2.0


def test_a_case_does_not_pay_for_the_unknowns_of_another(checkpoint):
    settings = {"n_cases": 60, "observed": "dense", "noise": 0.01}
    base = MODEL.base_cases(np.random.default_rng(7), settings, N)
    first = [np.flatnonzero(base.task == task)[0] for task in ("cv_reversible", "cv_multispecies")]
    cases = MODEL.variant(base.take(np.array(first)), jax.random.key(2))
    small = {"n_runs": 2, "n_starts": 2, "n_improve": 2, "n_rounds": 2, "n_draws": 4}
    budget = {"n_draws": 40, "n_steps": 2, "reweight": {**small, "n_effective": 1}}

    def of(cases):
        return MODEL.infer(checkpoint, cases, jax.random.key(1), method="reweighted", **budget)

    alone, beside = of(cases.take(slice(1))), of(cases)
    # The baselines are drawn in one batch, whose size rounds.
    np.testing.assert_allclose(alone.z[0], beside.z[0], atol=1e-3)
    assert alone.efficiency[0] == beside.efficiency[0]


def test_concentration_and_diffusion_coefficient_trade_along_a_ridge(checkpoint):
    """A planar voltammogram knows C sqrt(D), and either alone hardly."""
    cases = simulated({"k0_1": 2.0, "discrepancy": -2.0, "resistivity": -1.0})
    form = "C_ox_1" if cases.experiment.present[0, 0, 0] else "C_red_1"
    flat = cases.experiment._replace(curvature=np.zeros(1, np.float32))
    cases = cases._replace(experiment=flat)
    known = cases.known.copy()
    known[:, NAMES.index(form)] = False
    cases = cases._replace(known=known)
    posterior = infer(checkpoint, cases)
    c, d = (draws(posterior, cases, name)[0] for name in (form, "D_ox_1"))
    assert np.corrcoef(c, d)[0, 1] < -0.9
    assert (c + d / 2).std() < 0.3 * c.std()


def test_sparse_and_noisy_observation_widens_and_does_not_shift(checkpoint):
    changes = {"k0_1": 1.0, "discrepancy": -2.0}
    clean = simulated(changes, "dense", 0.005)
    poor = simulated(changes, 0.15, 0.08)
    for name in ("E0_1", "D_ox_1"):
        (a,), (b,) = (draws(infer(checkpoint, cases), cases, name) for cases in (clean, poor))
        assert b.std() > 2 * a.std()
        truth = MODEL.natural(clean.z[:, None], clean)[0, 0, NAMES.index(name)]
        for values in (a, b):
            assert abs(truth - values.mean()) < 4 * values.std()


def test_where_all_but_the_noise_is_known_its_posterior_is_that_of_a_variance(checkpoint):
    """n independent samples know the logarithm of their scale to 1 / sqrt(2 n)."""
    cases = simulated({"discrepancy": -2.0}, "dense", 0.02)
    cases = cases._replace(known=np.array(NAMES)[None] != "noise")
    posterior = infer(checkpoint, cases)
    (noise,) = draws(posterior, cases, "noise")
    sd = 1 / np.sqrt(2 * N)
    assert noise.std() == pytest.approx(sd, rel=0.15)
    assert abs(noise.mean() - np.log(0.02)) < 4 * sd
    assert posterior.k_hat[0] < 0.5


def test_a_known_baseline_is_believed(checkpoint):
    """One that is wrong by a tenth of the signal is taken for noise: nothing else can give way."""
    cases = simulated({"discrepancy": -2.0}, "dense", 0.02)
    cases = cases._replace(known=np.array(NAMES)[None] != "noise")
    z = cases.z.copy()
    z[:, NAMES.index("offset")] += 2.0  # of 0.05 of the signal
    (noise,) = draws(infer(checkpoint, cases._replace(z=z)), cases, "noise")
    assert np.exp(noise.mean()) > 0.06


# Prediction ---------------------------------------------------------------------------------------


def test_a_posterior_sees_samples_where_those_before_them_let_expect(checkpoint):
    settings = {"n_cases": 60, "observed": 0.5, "noise": None}
    base = MODEL.base_cases(np.random.default_rng(5), settings, N)
    # Of one kind: what else there is would be compiled for a few cases each.
    alike = ~base.experiment.present[:, 1].any(1) & (base.experiment.curvature == 0)
    cases = MODEL.variant(base.take(np.flatnonzero(alike)[:16]), jax.random.key(5))
    unknown = np.isin(NAMES, ("D_ox_1", "offset", "slope", "noise"))
    cases = cases._replace(known=cases.known | ~unknown)
    posterior = infer(checkpoint, cases)
    assert kstest(posterior.pit[cases.mask], "uniform").pvalue > 1e-3


def test_samples_are_where_those_before_them_let_expect_and_nowhere_else(checkpoint):
    settings = {"n_cases": 20, "observed": 0.5, "noise": None}
    base = MODEL.base_cases(np.random.default_rng(4), settings, N)
    cases = MODEL.variant(base, jax.random.key(4))
    louder = cases.z.copy()
    louder[:, NAMES.index("noise")] += 1.0

    def p_value(z):
        known = cases._replace(z=z, known=np.ones_like(cases.known))
        budget = {"n_draws": 2, "n_steps": 1}
        posterior = MODEL.infer(checkpoint, known, jax.random.key(0), method="flow", **budget)
        return kstest(posterior.pit[cases.mask], "uniform").pvalue

    assert p_value(cases.z) > 1e-3
    assert p_value(louder) < 1e-6
