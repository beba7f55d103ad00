"""Training by NUTS: the truth of the cohort is found, and what did not converge leaves nothing."""

import re
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from regressions import COLUMNS
from scipy.stats import kstest, laplace, norm, t

from touchstone.contract import load_model
from touchstone.io import artifacts
from touchstone.io.artifacts import ArtifactError
from touchstone.models.interface import cohort, findings, regression, table
from touchstone.models.interface.checking import Checked
from touchstone.models.interface.findings import Compared
from touchstone.models.interface.regression import Design, Diagnosis, Loo, NotConvergedError

SETTINGS = {
    "data": None, "held_out": 0.1, "prior": "normal", "chains": 2,
    "warmup": 800, "draws": 1000, "target_accept": 0.9, "n_frozen": 500, "compared": [],
    "columns": dict.fromkeys(
        ("constant", "missing", "non_numeric", "duplicated", "defining"), "drop"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model that learnt from a CSV of the cohort's films, which is gone, and what it said."""
    folder, model = tmp_path_factory.mktemp("run"), load_model("interface")
    films = cohort.draw(np.random.default_rng(3), model.config, 40)
    data = folder / "films.csv"
    table.write_csv(data, films, COLUMNS)
    checkpoint = folder / "checkpoints/trained"
    fit = model.fit([data], SETTINGS, np.random.default_rng(0), checkpoint, {})
    data.unlink()
    return model, fit, checkpoint


def test_the_effects_of_the_cohort_are_inside_their_intervals(trained):
    model, fit, _ = trained
    truth = model.config["cohort"]
    effects = truth["morphology"] | truth["stimulus"]
    of_errors, _ = fit.comparisons
    coefficients, of_loo = fit.tables
    assert fit.assumed == ["Porod_prefactor nearly defines S_V_porod (correlation 1.00): dropped"]
    rows = {row["name"]: row for row in coefficients.rows}
    assert rows.keys() == {*COLUMNS.stimuli, *COLUMNS.morphology[:-1]}
    # The cohort counts in its own standard deviations, the regression in those of its films.
    ratio = np.median([rows[name]["median"] / value for name, value in effects.items()])
    errors = []
    for name, row in rows.items():
        sd = (row["high"] - row["low"]) / 3.29
        errors.append((row["median"] - ratio * effects.get(name, 0.0)) / sd)
    assert 0.8 < ratio < 1.6
    assert np.abs(errors).max() < 4
    assert np.sqrt(np.mean(np.square(errors))) < 1.6
    (row,) = of_errors.rows
    assert row["regression"] < 0.8 * row["mean of the training"]
    assert of_loo.rows[0]["R-hat"] <= 1.01
    # What is said of a stimulus is in its unit: the area of the cohort per standard deviation.
    for name, effect in truth["stimulus"].items():
        (said,) = (sentence for sentence in fit.findings if sentence.startswith(f"{name} higher"))
        low, high = map(float, re.search(r"interval ([-+]\S+) to ([-+.e\d]+\d):", said).groups())
        per_sd = model.config["target"]["sd"] * effect
        width = high - low
        assert low - width < per_sd < high + width, said


def test_what_was_frozen_answers_the_same_without_the_data(trained):
    model, _, checkpoint = trained
    again = load_model("interface")
    assert again.load(checkpoint)
    streams = [np.random.default_rng(5).spawn(3) for _ in range(2)]
    ours, theirs = (
        m.infer(m.cases(5, a, b, {}), c, method="importance", budget={"n_draws": 50})
        for m, (a, b, c) in zip((model, again), streams, strict=True)
    )
    np.testing.assert_array_equal(ours.log_evidence, theirs.log_evidence)
    for name, draws in ours.draws.items():
        np.testing.assert_array_equal(draws, theirs.draws[name])
    assert list((checkpoint.parents[1] / "traces").glob("regression_*Z.nc"))


def test_chains_that_did_not_converge_leave_no_checkpoint_and_say_what_to_change(tmp_path):
    model = load_model("interface")
    data = tmp_path / "chunk.npz"
    films = cohort.draw(np.random.default_rng(3), model.config, 8)
    artifacts.save_arrays(data, films.arrays())
    settings = {**SETTINGS, "warmup": 100, "draws": 100}
    with pytest.raises(NotConvergedError, match=r"interface\.train: .*: raise (draws|warmup)"):
        model.fit([data], settings, np.random.default_rng(0), tmp_path / "a/trained", {})
    assert not (tmp_path / "a").exists()


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A model that learnt from 13 films, each measured once, and what it said."""
    folder, model = tmp_path_factory.mktemp("original"), load_model("interface")
    films = cohort.draw(np.random.default_rng(3), model.config, 13)
    data = folder / "films.csv"
    table.write_csv(data, films.take(6 * np.arange(13) + np.arange(13) % 6), COLUMNS)
    settings = SETTINGS | {"chains": 4}
    fit = model.fit([data], settings, np.random.default_rng(0), folder / "checkpoints/trained", {})
    return model, fit


def test_thirteen_films_measured_once_converge_and_say_what_they_cannot_tell(original):
    model, fit = original
    frozen = model.frozen
    assert fit.n_rows == 12
    products, films = fit.assumed[-2:]
    assert products.startswith("products of descriptors and stimuli are left out, because 12 ")
    assert films.startswith("film effects are left out, because no film was measured twice")
    assert not frozen.film_sd.any()
    assert not frozen.product.any()
    rows = {row["name"]: row for row in fit.tables[0].rows}
    *of_stimuli, _, uninformed, of_sign, directions, held_out, _, of_k = fit.findings
    assert len(of_stimuli) == len(COLUMNS.stimuli) + 1
    assert directions.startswith("12 measurements cannot inform 18 coefficients: 6 combinations")
    named = set(uninformed.split(": ")[1].split(". The interval")[0].split(", "))
    # Each has a posterior that is nearly its prior: sd .5.
    draws = dict(zip(model.names, frozen.morphology.T, strict=True))
    draws |= dict(zip(COLUMNS.stimuli, frozen.stimulus.T, strict=True))
    assert named == {name for name, values in draws.items() if values.std() >= 0.8 * 0.5}
    # 12 rows leave at least 6 of 18 directions as the prior has them, however large their errors.
    kept = np.square([row["sd over prior sd"] for row in rows.values()]).sum()
    assert kept + frozen.intercept.var() > 5.7
    signed = [name for name, row in rows.items() if row["low"] > 0 or row["high"] < 0]
    assert of_sign.startswith(f"The 90 % interval leaves out zero for {len(signed)} of 17 effects")
    (errors,) = fit.comparisons[0].rows
    worse = errors["regression"] >= errors["mean of the training"]
    assert ("no better than the mean" in held_out) == worse
    assert "Pareto k is above its limit for" in of_k
    posterior = model.infer(
        model.cases(4, np.random.default_rng(1), np.random.default_rng(2), {}),
        np.random.default_rng(3), method="importance", budget={"n_draws": 50},
    )  # fmt: skip
    assert np.isfinite(posterior.draws["S_V_mean"]).all()


def test_leaving_one_out_tells_regressions_apart_only_beyond_their_errors():
    sound = Diagnosis(1.0, 1000.0, 0.0, 1.0)

    def compared(name, pointwise, high=0):
        loo = Loo(pointwise.sum(), 1.0, 5.0, pointwise, 0 * pointwise, np.arange(200) < high)
        return Compared(name, loo, sound)

    noise = np.random.default_rng(0).normal(0, 1, 200)
    first = compared("a", np.zeros(200))
    better, alike = compared("b", 0.5 + noise), compared("c", noise - noise.mean())
    doubtful = compared("d", 0.5 + noise, high=20)
    apart, error = better.less(first)
    assert apart == pytest.approx(100 + noise.sum())
    assert error == pytest.approx(200**0.5, rel=0.1)
    said = findings.about_loo([first, better, alike, doubtful], False)[-3:]
    assert said[0].endswith("leaving one out prefers it.")
    assert said[1].endswith("leaving one out cannot tell the two apart.")
    assert said[2].endswith("because Pareto k is high too often.")


@pytest.mark.nightly
def test_thirteen_films_measured_six_times_converge(tmp_path):
    model, data = load_model("interface"), tmp_path / "chunk.npz"
    for seed in (3, 4, 5):
        films = cohort.draw(np.random.default_rng(seed), model.config, 13)
        artifacts.save_arrays(data, films.arrays())
        folder = tmp_path / f"{seed}/checkpoints/trained"
        settings = SETTINGS | {"chains": 4, "target_accept": 0.95, "held_out": 0.15}
        fit = model.fit([data], settings, np.random.default_rng(seed), folder, {})
        assert fit.assumed[-1].startswith("products of descriptors and stimuli are left out")
        assert model.frozen.film_sd.min() > 0


def test_a_regression_could_have_made_the_areas_of_its_cohort_and_not_others(trained, tmp_path):
    model, _, checkpoint = trained
    (trace,) = (checkpoint.parents[1] / "traces").glob("regression_*Z.nc")
    names = (*model.names, *COLUMNS.stimuli)

    def checked(frozen):
        return Checked(frozen, trace, names, model.config["regression"], np.random.default_rng(0))

    ours = checked(model.frozen)
    statistics, loo, of_films, size, in_high = ours.tables()
    assert all(0.005 < row["part of replications below"] < 0.995 for row in statistics.rows)
    assert kstest(ours.pit, "uniform").pvalue > 0.01
    assert loo.rows[0]["largest distance of its PIT"] == pytest.approx(
        kstest(ours.pit, "uniform").statistic
    )
    assert loo.rows[0]["sampled without the row"] == len(ours.refitted)
    assert loo.rows[0]["high Pareto k among the others"] == 0
    assert {row["name"] for row in size.rows} == {row["name"] for row in in_high.rows} == set(names)
    assert size.rows[0]["low"] > 0
    assert sum(row["median"] for row in in_high.rows) > 0  # what is high was made high
    # By counting draws: of a film without its errors, beside a quantile of the measurements.
    tree = xr.open_datatree(trace, engine="h5netcdf")
    chains = tree["posterior"].to_dataset().stack(draw_of=("chain", "draw"))
    frozen, limit = model.frozen, np.quantile(model.frozen.areas, 0.8)
    film_z = chains["film_z"].transpose("draw_of", "film").values
    effect = chains["film_sd"].values[:, None] * film_z
    for row in (of_films.rows[0], of_films.rows[-1]):
        f = frozen.labels.tolist().index(row["name"])
        n = frozen.counts[f]
        x, s = frozen.films[f] + frozen.residuals[f, :n], frozen.series[f, :n]
        area = chains["intercept"].values[:, None] + effect[:, [f]]
        area = area + chains["morphology"].transpose("draw_of", ...).values @ x.T
        area += chains["stimulus"].transpose("draw_of", ...).values @ s.T
        area += np.einsum("nj,djk,nk->dn", x, chains["product"].transpose("draw_of", ...).values, s)
        assert row["probability"] == pytest.approx((area.mean(1) > limit).mean(), abs=0.05)
    assert of_films.rows[0]["probability"] > 0.9 > 0.1 > of_films.rows[-1]["probability"]
    # Areas with errors three times as large are none that it could have made.
    wider = model.frozen.areas + 2 * ours.residual
    others = checked(replace(model.frozen, areas=wider.astype(np.float32)))
    assert kstest(others.pit, "uniform").pvalue < 1e-4
    assert others.tables()[0].rows[1]["part of replications below"] > 0.995
    ours.draw(plt.figure().subplots(4, 1))
    plt.close("all")
    with pytest.raises(ArtifactError, match="of another training"):
        checked(replace(model.frozen, areas=model.frozen.areas[1:]))
    # Nor is a regression of as many rows that has other draws.
    with pytest.raises(ArtifactError, match="of another training"):
        checked(replace(model.frozen, intercept=model.frozen.intercept[::-1]))


@pytest.mark.parametrize(
    ("likelihood", "density"),
    [("laplace", laplace.logpdf), ("normal", norm.logpdf), ("student", partial(t.logpdf, df=4))],
)
@pytest.mark.parametrize("prior", ["normal", "horseshoe"])
def test_errors_have_the_density_that_they_are_called_by(prior, likelihood, density):
    rng = np.random.default_rng(0)
    x, s, y = rng.standard_normal((6, 2)), rng.standard_normal((6, 1)), rng.standard_normal(6)
    sizes = load_model("interface").config["regression"]
    names = ("a", "b"), ("s",)
    model = regression.build(Design(np.arange(6) // 2, x, s, y), sizes, names, prior, likelihood)
    # At the initial point all coefficients are zero; the scatter is what PyMC starts from.
    scatter = np.exp(model.initial_point()["scatter_log__"])
    found = model.point_logps(round_vals=6)["target"]
    assert found == pytest.approx(density(y, scale=scatter).sum(), abs=1e-4)


def test_a_gaussian_regression_has_the_posterior_that_algebra_gives():
    """One descriptor without effect of stimuli or film: conjugate but for the scatter."""
    rng, n = np.random.default_rng(0), 400
    x = rng.standard_normal((n, 1))
    y = 0.3 + 0.5 * x[:, 0] + 0.4 * rng.standard_normal(n)
    design = Design(np.zeros(n, int), x, np.zeros((n, 1)), y)
    sizes = {"intercept": 1.0, "morphology": 0.5, "stimulus": 0.5, "product": 0.25}
    sizes |= {"film": 1e-3, "scatter": 0.7}
    model = regression.build(design, sizes, (("x",), ("s",)), "normal", "normal")
    chains = {"chains": 2, "warmup": 500, "draws": 1000, "target_accept": 0.9}
    tree = regression.sample(model, chains, 1)
    columns = np.column_stack([np.ones(n), x])
    scatter = float(tree["posterior"]["scatter"].mean())
    precision = columns.T @ columns / scatter**2 + np.diag([1 / 1.0**2, 1 / 0.5**2])
    mean = np.linalg.solve(precision, columns.T @ y / scatter**2)
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    for name, expected, width in zip(("intercept", "morphology"), mean, sd, strict=True):
        draws = np.ravel(tree["posterior"][name])
        assert draws.mean() == pytest.approx(expected, abs=0.15 * width)
        assert draws.std() == pytest.approx(width, rel=0.1)
    found = regression.leave_one_out(regression.with_log_likelihood(model, tree))
    # Of two coefficients and a scatter, which costs about one more than where it is known.
    assert found.p == pytest.approx(3, abs=0.8)
    residual = y - columns @ mean
    leverage = np.einsum("ij,jk,ik->i", columns, np.linalg.inv(precision), columns) / scatter**2
    exact = -0.5 * np.log(2 * np.pi * scatter**2 / (1 - leverage))
    exact -= 0.5 * (residual / scatter) ** 2 / (1 - leverage)
    assert exact.sum() - 2 < found.elpd < exact.sum()


@pytest.mark.parametrize(("prior", "n_edges"), [("normal", 9), ("horseshoe", 17)])
def test_its_structure_is_the_graph_that_pymc_finds(trained, prior, n_edges):
    model, *_ = trained
    found = model.structure(SETTINGS | {"prior": prior})
    assert found.nodes["target"].startswith("target ~ Laplace\nrow (")
    assert found.kinds["target"] == "observed"
    assert {found.kinds[name] for name in ("x", "s")} == {"given"}
    into_target = {a for a, b in found.edges if b == "target"}
    coefficients = set(regression.COEFFICIENTS)
    assert into_target == {"x", "s", "film_z"} | coefficients
    assert len(found.edges) == n_edges
    assert found == model.structure(SETTINGS | {"prior": prior})
