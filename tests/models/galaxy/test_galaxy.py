"""The model through its contract: learn, abduct, act, predict, refuse."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy.table import Table
from galaxies import CONFIG
from matplotlib.figure import Figure
from scipy.special import softmax
from scipy.stats import wilcoxon

from touchstone.contract import load_model
from touchstone.inference import nuts, population
from touchstone.io.artifacts import ArtifactError
from touchstone.models.galaxy import conservation, counterfactual, observation
from touchstone.models.galaxy.abduction import Residuals, known
from touchstone.stages import records
from touchstone.stages.counterfactual import measured

SIZES = {"batch_size": 64, "paths": 1, "learning_rate": 4e-3, "width": 16, "depth": 1}
BUDGET = {
    "n_draws": 200, "n_steps": 4, "n_centres": 32, "n_round": 256, "n_rounds": 3, "n_last": 1024,
    "n_passes": 1,
}  # fmt: skip
FORM = {
    **dict.fromkeys(["u", *(f"{band}_error" for band in "ugriz")]), "g": 17.9, "r": 17.2,
    "i": 16.9, "z": 16.7, "unit": "AB mag", "redshift": 0.08, "redshift_error": 5e-4,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model that learnt a little, and what it said."""
    folder, model = tmp_path_factory.mktemp("galaxy"), load_model("galaxy")
    rng = np.random.default_rng(0)
    model.simulate({"n_rows": 1000}, rng, folder / "chunk.npz", {})
    settings = {**SIZES, "held_out": 0.1, "n_steps": 100}
    fit = model.fit([folder / "chunk.npz"], settings, rng, folder / "trained", {})
    return model, fit, folder


def test_a_training_says_how_far_off_it_is_and_loads_again(trained):
    model, fit, folder = trained
    (comparison,) = fit.comparisons
    rows = {row["name"]: row for row in comparison.rows}
    assert rows["u_redshift"]["regression"] < 0.2 * rows["u_redshift"]["prior mean"]
    again = load_model("galaxy")
    with pytest.raises(ArtifactError, match="no checkpoint is loaded"):
        again.infer(None, None, method="reweighted", budget={})
    assert again.load(folder / "trained")
    flow, other = model.abduction.flow, again.abduction.flow
    np.testing.assert_array_equal(other.slope, flow.slope)
    np.testing.assert_array_equal(other.net.out.weight, flow.net.out.weight)


def test_posteriors_cover_the_truth_and_a_wrong_band_stands_out(trained):
    model, _, _ = trained
    rng = np.random.default_rng(4)
    cases = model.cases(10, rng, rng, {})
    posterior = model.infer(cases, rng, method="reweighted", budget=BUDGET)
    draws = np.stack([posterior.draws[q.name] for q in model.quantities], axis=-1)
    below = (draws < cases.truth[:, None]).mean(1)
    inside = np.abs(below - 0.5) < 0.45
    assert 0.8 < inside.mean() <= 0.98  # 10 galaxies, 6 terms each
    np.testing.assert_allclose(posterior.weight.sum(1), 1)
    assert np.isfinite(posterior.log_evidence).all()
    # A band that is off by 0.5 mag is further from what the others let expect, galaxy by galaxy.
    pairs = {
        severity: model.cases(24, *map(np.random.default_rng, (4, 5)), {}, "zero_point_u", severity)
        for severity in (0.0, 1.0)
    }
    np.testing.assert_array_equal(pairs[0.0].truth, pairs[1.0].truth)
    right, off = (
        (
            model.infer(c, rng, method="reweighted", budget=BUDGET).prediction.innovation ** 2
            * c.mask
        ).sum(1)
        for c in pairs.values()
    )
    assert wilcoxon(off, right, alternative="greater").pvalue < 0.01


def asked(model, do, mode="direct", strategy="strict_physics", seed=6, **values):
    """The answer of a model to a question about the galaxy of the form."""
    answer = model.counterfactual(do, mode=mode, strategy=strategy)
    with measured(model, FORM | values) as source:
        cases, _ = records.read(model, source)
    rng = np.random.default_rng(seed)
    posterior = model.infer(cases, rng, method="reweighted", budget=BUDGET)
    return answer(cases, posterior, rng)


def test_an_answer_doubles_the_mass_and_keeps_what_is_conserved(trained):
    model, _, _ = trained
    answer = asked(model, "mass=2x")
    before, after = (
        {row["name"]: row for row in answer[side]} for side in ("posterior", "counterfactual")
    )
    for end in ("low", "median", "high"):
        moved = after["log_mass_formed"][end] - before["log_mass_formed"][end]
        assert moved == pytest.approx(np.log10(2), abs=1e-4)
        assert after["log_mass_formed"]["change"][end] == pytest.approx(np.log10(2), abs=1e-4)
        brighter = after["r"][end] - before["r"][end]
        assert brighter == pytest.approx(-2.5 * np.log10(2), abs=1e-4)
    assert before["r"]["low"] < FORM["r"] + 0.1
    assert before["r"]["high"] > FORM["r"] - 0.1
    status = {row["law"]: row["status"] for row in answer["violations"]}
    assert status.pop("momentum") == "not_applicable"
    assert set(status.values()) == {"kept"}
    assert after["age"]["why"] == "kept: nothing that changed is a cause of it"
    cut = {tuple(edge) for edge in answer["structure"]["cut"]}
    assert cut == {("log_mass", n) for n in ("log_tau", "formation", "log_metallicity", "A_V")}


def test_the_bracket_of_unknown_noise_holds_the_twin_of_shared_noise(trained):
    model, _, _ = trained
    wider = 0
    for row in asked(model, "mass=2x", "total")["counterfactual"]:
        if row["median"] is not None:
            assert row["bracket"]["low"] <= row["low"] <= row["high"] <= row["bracket"]["high"]
            wider += row["bracket"]["high"] - row["bracket"]["low"] > row["high"] - row["low"]
    assert wider > 5


@pytest.fixture(scope="module")
def abducted():
    """Exogenous terms such as an abduction gives, narrow about a galaxy near no bound."""
    return (0.2 * np.random.default_rng(20).standard_normal((200, 6))).astype(np.float32)


def test_the_bracket_holds_the_twin_of_every_single_flip(trained, abducted):
    """Each noise turned around alone, and all of them: written out here, with the mechanisms."""
    model, graph = trained[0], trained[0].graph
    question = model.question("mass=2x", mode="total", strategy="strict_physics")
    rows = {row["name"]: row["bracket"]
            for row in question(abducted, np.random.default_rng(0))["counterfactual"]}  # fmt: skip
    before, _ = counterfactual.twins(graph, model.forward, abducted, (), "total")
    nodes = ("log_tau", "formation", "log_metallicity", "A_V")
    outside = 0
    for flipped in [*((name,) for name in nodes), nodes]:
        noise = abducted.copy()
        for name in flipped:
            noise[:, graph.names.index(name)] *= -1
        # A galaxy of these noises and of twice the mass, whose own mass has no mechanism.
        mass = graph.mechanisms["log_mass"]
        heavy = jnp.asarray(before["log_mass"] + np.log10(2))
        noise[:, graph.names.index("log_mass")] = mass.exogenous(heavy, {})
        values, _ = counterfactual.twins(graph, model.forward, noise, (), "total")
        found, _ = counterfactual.readings(model.forward, values, model.bands)
        for name, column in found.items():
            low, high = np.quantile(column, [0.05, 0.95], method="inverted_cdf")
            assert rows[name]["low"] - 1e-4 <= low <= high <= rows[name]["high"] + 1e-4, name
            shared = np.quantile(found[name], [0.05, 0.95])
            outside += shared[0] > rows[name]["low"] + 0.01
    assert outside


@pytest.mark.parametrize(
    ("do", "node"), [("A_V-0.2", "A_V"), ("log_metallicity+0.45", "log_metallicity")]
)
def test_no_draw_goes_beyond_the_bounds_of_its_node(trained, abducted, do, node):
    """Refused where physics is strict, and else left out, which the answer says."""
    model, rng = trained[0], np.random.default_rng
    before, _ = counterfactual.twins(model.graph, model.forward, abducted, (), "direct")
    moved = before[node] + model.graph.actions(do)[0].value
    low, high = model.graph.mechanisms[node][:2]
    beyond = (moved < low) | (moved > high)
    assert 0 < beyond.sum() < len(beyond) / 2
    words = f"do({do}): takes {beyond.sum()} of 200 draws of the posterior beyond the bounds"
    strict = model.question(do, mode="direct", strategy="strict_physics")(abducted, rng(0))
    assert strict["refusals"][0].startswith(words)
    assert strict["counterfactual"] == []
    told = model.question(do, mode="direct", strategy="report_only")(abducted, rng(0))
    assert told["refusals"] == []
    assert told["remarks"][0].startswith(words)
    assert "left out" in told["remarks"][0]
    rows = {row["name"]: row for row in told["counterfactual"]}
    expected = np.quantile(moved[~beyond], [0.05, 0.5, 0.95], method="inverted_cdf")
    np.testing.assert_allclose(
        [rows[node][end] for end in counterfactual.ENDS], expected, rtol=1e-5
    )
    for row in rows.values():
        for entry in (row, row["change"], row["bracket"]):
            numbers = [x for x in entry.values() if isinstance(x, float)]
            assert np.isfinite(numbers).all(), row["name"]


def test_a_node_is_set_to_its_bounds_and_no_dust_shines_nothing(trained, abducted):
    model = trained[0]
    question = model.question("metallicity=0.05, A_V=0", mode="direct", strategy="strict_physics")
    answer = question(abducted, np.random.default_rng(0))
    assert answer["refusals"] == []
    rows = {row["name"]: row["median"] for row in answer["counterfactual"]}
    assert (rows["A_V"], rows["log_infrared"]) == (0.0, 0.0)
    assert rows["log_metallicity"] == pytest.approx(np.log10(0.05 / 0.02), abs=1e-6)


def test_what_the_data_cannot_say_is_refused(trained):
    model, _, _ = trained
    answer = asked(model, "log_mass+2.5")
    assert any("beyond the bounds" in reason for reason in answer["refusals"])
    assert answer["counterfactual"] == []
    for text, words in (("halo=1", "halo can not be set"), ("metallicity=0.2", "from 0.0001")):
        with pytest.raises(ArtifactError, match=words):
            model.counterfactual(text, mode="direct", strategy="strict_physics")
    with pytest.raises(ArtifactError, match="mode: 'some' is none of total, direct"):
        model.counterfactual("mass=2x", mode="some", strategy="strict_physics")


def test_quantities_of_which_the_data_say_no_more_than_the_prior_have_no_numbers(trained):
    model, _, _ = trained
    rng = np.random.default_rng(9)
    u = rng.standard_normal((2000, 6)).astype(np.float32)
    u[:, model.graph.names.index("log_mass")] *= 0.05  # all that the data said
    answer = model.question("A_V=0.5", mode="direct", strategy="strict_physics")(u, rng)
    told = {
        (row["name"], side)
        for side in ("posterior", "counterfactual")
        for row in answer[side]
        if row["median"] is not None
    }
    assert {("log_mass_formed", "posterior"), ("A_V", "counterfactual")} <= told
    assert not told & {("A_V", "posterior"), ("age", "posterior"), ("age", "counterfactual")}


def test_a_law_that_is_broken_is_seen_and_refused_or_reported(trained):
    model, _, _ = trained
    u = np.random.default_rng(10).standard_normal((5, 6)).astype(np.float32)
    values, _ = counterfactual.twins(model.graph, model.forward, u, (), "total")
    found, budget = counterfactual.readings(model.forward, values, model.bands)
    fluxes = observation.nanomaggies_of(np.stack([found[band] for band in model.bands], axis=1))
    broken = {
        "mass": (values, budget._replace(returned=budget.returned * 1.01), fluxes),
        "energy": (values, budget._replace(infrared=0.9 * budget.infrared), fluxes),
        "bolometric": (values, budget._replace(attenuated=1.001 * budget.attenuated), fluxes),
        "flux": (values, budget, 1.01 * fluxes),
        "no star": ({**values, "age": values["age"] + 14}, budget, fluxes),
        "no mass": (values, budget._replace(returned=-budget.returned), fluxes),
    }
    for law, side in broken.items():
        rows = conservation.report({"one": side}, model.sources, model.config["cosmology"])
        (row,) = (row for row in rows if row["law"].startswith(law))
        assert row["status"] == "violated", law
    question = model.question("mass=2x", mode="direct", strategy="strict_physics")
    leaking = [{"law": "energy", "status": "violated", "largest": 0.1}]
    for strict in (True, False):
        answer = replace(question, check=lambda sides: leaking, strict=strict)(
            u, np.random.default_rng(0)
        )
        said = answer["refusals" if strict else "remarks"]
        assert said == ["energy is violated by 1.0e-01"]
        assert bool(answer["counterfactual"]) == (not strict)


def test_the_example_is_read_back(trained, tmp_path):
    model, _, _ = trained
    data, meta = tmp_path / "a.csv", tmp_path / "a.yaml"
    model.example(np.random.default_rng(11), data, meta)
    cases, notes = model.read(data, meta)
    assert cases.observed.shape == (1, 5)
    assert notes == [f"{cases.mask.sum()} bands of one galaxy from a.csv"]
    assert model.outside_training(cases) == [[]]
    far = cases._replace(detail=cases.detail._replace(redshift=np.array([8.0])))
    assert model.outside_training(far) == [["redshift is 8, trained from 0.01 to 0.6"]]
    data.write_text("r,redshift\n10,8\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"redshift: 8, the model is of 0\.01 to 0\.6"):
        model.read(data, meta)


def spectrum_of(model, file, n, u):
    """A spectrum of n pixels with errors of a fifth of the flux, written; its truth."""
    rng = np.random.default_rng(12)
    values, _ = counterfactual.twins(model.graph, model.forward, u[None], (), "total")
    wavelength = np.linspace(3700.0, 9000.0, n)
    clean = counterfactual.shown(model.forward, values, wavelength)[0].astype(float)
    error = 0.2 * clean
    flux = clean + error * rng.standard_normal(n)
    flux[3] = np.nan  # a pixel that is missing
    rows = "\n".join(",".join(map(str, row)) for row in zip(wavelength, flux, error, strict=True))
    file.write_text(f"wavelength,flux,error\n{rows}\n", encoding="utf-8")
    redshift = float(values["redshift"][0])
    file.with_suffix(".yaml").write_text(f"redshift: {redshift}\nunit: nanomaggies\n")


@pytest.mark.nightly
def test_a_spectrum_of_any_length_is_abducted(trained, tmp_path):
    model, _, _ = trained
    truth = np.array([0.3, 0.5, -0.2, 0.1, 0.0, 0.4], np.float32)
    answer = model.counterfactual("mass=2x", mode="direct", strategy="strict_physics")
    file = tmp_path / "a.csv"
    spectrum_of(model, file, 60, truth)
    cases, notes = model.read(file, file.with_suffix(".yaml"))
    assert notes[0] == "59 pixels of one galaxy from a.csv"
    assert cases.observed.shape == (1, 128)
    rng = np.random.default_rng(13)
    posterior = model.infer(cases, rng, method="reweighted", budget=BUDGET)
    assert posterior.computation.figures["effective_draws"][0] > 20
    found = answer(cases, posterior, rng)
    values, _ = counterfactual.twins(model.graph, model.forward, truth[None], (), "total")
    (mass,) = (row for row in found["posterior"] if row["name"] == "log_mass_formed")
    assert mass["low"] - 0.1 < values["log_mass"][0] < mass["high"] + 0.1
    assert mass["high"] - mass["low"] < 1.0  # of a prior of 2 dex
    assert len(found["curves"]["observed"]) == 59
    assert "photometry alone" in model.outside_training(cases)[0][0]


def read(file, said):
    """As the model reads it: of its redshifts, with spectra that end at 1.975 µm."""
    return observation.read(file, said, CONFIG["noise"]["depth"], (0.01, 0.6), 19750.0)


def rows_of(first, last, n=20):
    return "wavelength,flux,error\n" + "\n".join(f"{x},1,1" for x in np.linspace(first, last, n))


PHOTOMETRY, SPECTRUM = "g,r,redshift\n17.9,17.2,0.1", rows_of(4000.0, 6000.0)
MAG, AT = {"unit": "AB mag"}, {"unit": "nanomaggies", "redshift": 0.1}
TRAPS = {
    "no unit": (PHOTOMETRY, {}, "unit: is missing, expected one of AB mag, maggies"),
    "misspelt key": (PHOTOMETRY, {"unti": "AB mag"}, "unti: unknown, allowed are unit"),
    "redshift of photometry": (PHOTOMETRY, AT, "redshift: unknown, allowed are unit"),
    "word": ("g,redshift\nabc,0.1", MAG, r"a.csv: g: 'abc' is no number"),
    "too bright": ("g,redshift\n-500,0.1", MAG, "g: -500 AB mag, expected 0 to 35"),
    "too faint": ("g,redshift\n1000,0.1", MAG, "g: 1000 AB mag, expected 0 to 35"),
    "magnitudes as maggies": (
        PHOTOMETRY, {"unit": "maggies"}, "g: 17.9 maggies is brighter than 0 mag"
    ),
    "negative extinction": (
        "g,g_extinction,redshift\n17,-0.3,0.1", MAG, "g_extinction: -0.3 mag, expected 0 to 10"
    ),
    "much extinction": (
        "g,g_extinction,redshift\n17,40,0.1", MAG, "g_extinction: 40 mag, expected 0 to 10"
    ),
    "redshift of 8": ("g,redshift\n17,8", MAG, r"redshift: 8, the model is of 0.01 to 0.6"),
    "negative error of redshift": (
        "g,redshift,redshift_error\n17,0.1,-1", MAG, "redshift_error: -1, expected above zero"
    ),
    "the same of a spectrum": (
        SPECTRUM, AT | {"redshift_error": -1}, "redshift_error: -1, expected above zero"
    ),
    "no redshift of a spectrum": (SPECTRUM, {"unit": "maggies"}, "redshift: is missing"),
    "spectrum in micrometres": (
        rows_of(0.4, 0.6), AT, r"wavelength is 0.4 to 0.6, and the model has 1323 to 21676 Å"
    ),
    "spectrum in nanometres": (rows_of(400, 600), AT, "0 pixels, expected 10 at least"),
    "pixels beyond the table": (rows_of(9e4, 1e5), AT, "0 pixels, expected 10 at least"),
    "no error": (
        "wavelength,flux\n4000,1", AT, "columns wavelength, flux, error, found wavelength, flux"
    ),
    "twice": ("wavelength,flux,error\n4000,1,1\n4000,1,1", AT, "does not increase"),
    "negative error": (
        "wavelength,flux,error\n4000,1,-1\n4001,1,1", AT, "error: -1, expected above zero"
    ),
    "two pixels": (
        "wavelength,flux,error\n4000,1,1\n4001,1,1", AT, "2 pixels, expected 10 at least"
    ),
    "words in a spectrum": ("wavelength,flux,error\n4000,a,1\n4001,1,1", AT, "is no numbers"),
    "two galaxies": ("r,redshift\n10,0.1\n11,0.1", MAG, "holds 2 galaxies, expected one row"),
    "stranger": ("r,y,redshift\n10,3,0.1", MAG, "y: no such column"),
    "unknown unit": (PHOTOMETRY, {"unit": "Jansky"}, "unit: 'Jansky' is none of AB mag"),
    "negative error of a flux": (
        "r,r_error,redshift\n10,-1,0.1", MAG, "r_error: -1, expected above zero"
    ),
    "no redshift": ("r\n10", MAG, "redshift: is missing"),
    "no band": ("u,redshift\n,0.1", MAG, "no band has a value"),
}  # fmt: skip


@pytest.mark.parametrize("trap", TRAPS)
def test_an_observation_that_makes_no_sense_is_refused_in_one_sentence(tmp_path, trap):
    text, said, words = TRAPS[trap]
    file = tmp_path / "a.csv"
    file.write_text(text + "\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match=words) as raised:
        read(file, said)
    assert str(raised.value).startswith(str(file))


def test_pixels_where_the_model_has_no_light_are_no_data(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text(rows_of(20000.0, 23000.0, 31) + "\n", encoding="utf-8")
    found, redshift, _ = read(file, {"unit": "nanomaggies", "redshift": 0.1})
    left = found.wavelength[found.fluxes.seen]
    assert left.max() <= 19750 * (1 + redshift) < left.max() + 200
    assert len(left) + found.beyond == 31


@pytest.mark.parametrize(
    ("unit", "value", "error"),
    [
        ("nanomaggies", 100.0, 1.0),
        ("maggies", 1e-7, 1e-9),
        ("µJy", 363.1, 3.631),
        ("AB mag", 17.5, 0.0108574),
    ],
)
def test_units_are_those_of_one_flux(unit, value, error):
    depth = CONFIG["noise"]["depth"]
    found = observation.nanomaggies({"r": value, "r_error": error}, depth, unit, "here")
    assert found.seen.tolist() == [False, False, True, False, False]
    assert found.flux[2] == pytest.approx(100.0)
    assert found.error[2] == pytest.approx(1.0, rel=1e-4)


def test_extinction_is_corrected(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("r,r_error,r_extinction,redshift\n10,1,0.75257,0.1\n", encoding="utf-8")
    fluxes, redshift, error = read(file, {"unit": "nanomaggies"})
    np.testing.assert_allclose([fluxes.flux[2], fluxes.error[2]], [20.0, 2.0], rtol=1e-5)
    assert (redshift, error) == (0.1, 5e-4)


def test_an_average_of_bright_galaxies_is_biased_and_corrected(trained):
    """Beside the average of other galaxies of the population, far more, by the fast photometer."""
    model, rng = load_model("galaxy"), np.random.default_rng(30)
    graph, terms = model.graph, {"log_mass": (0.3, 0.9), "formation": (-0.3, 0.8)}
    found = model.population_effect(
        "mass=2x", mode="total", rng=rng, terms=terms, n=2000, n_simulated=4000
    )
    u = rng.standard_normal((20_000, 6))
    for name, (mean, spread) in terms.items():
        u[:, graph.names.index(name)] = mean + spread * u[:, graph.names.index(name)]
    _, after = counterfactual.twins(
        graph, model.forward, u.astype(np.float32), graph.actions("mass=2x"), "total"
    )
    twin = np.asarray(jax.vmap(graph.exogenous)(after))  # of the twins, as galaxies of their own
    inside = ~graph.beyond(after, graph.actions("mass=2x"))["mass=2x"]
    inside &= np.isfinite(twin).all(1)
    colours = [
        -2.5 * np.log10(fluxes[:, 1] / fluxes[:, 2])
        for fluxes in map(trained[0].abduction.fluxes, (u[inside], twin[inside]))
    ]
    truth, spread = np.mean(colours[1] - colours[0]), np.std(colours[1] - colours[0])
    assert abs(found.everyone.value - truth) < 4 * spread / np.sqrt(2000)
    assert abs(found.corrected.value - truth) < 4 * found.corrected.error
    assert abs(found.selected.value - truth) > 4 * found.selected.error
    assert 500 < found.n_selected < 1900
    expected = np.quantile(colours[1], [0.05, 0.5, 0.95])
    ours = [found.after[end] for end in counterfactual.ENDS]
    np.testing.assert_allclose(ours, expected, atol=0.03)
    assert "of: halo is no reading" in _said(model, of="halo")
    assert "terms: age has no exogenous term" in _said(model, terms={"age": (0, 1)})
    assert "takes" in _said(model, do="log_mass+4", n=100)


def _said(model, do="mass=2x", **asked):
    with pytest.raises(ArtifactError) as raised:
        model.population_effect(do, mode="total", rng=np.random.default_rng(0), **asked)
    return str(raised.value)


def test_a_training_shows_the_bias_by_selection(trained):
    _, fit, _ = trained
    (drawing,), (finding,) = fit.drawings, fit.findings
    figure = Figure()
    drawing.draw(figure)
    points = figure.axes[0].containers
    assert [each.get_label() for each in points] == ["selected galaxies", "selected, corrected"]
    assert "which is biased" in finding


def test_a_table_in_fits_is_read_as_one_in_csv(tmp_path):
    photometry = {"g": [17.9], "g_error": [0.02], "r": [17.2], "g_extinction": [0.1],
                  "redshift": [0.08], "redshift_error": [3e-4]}  # fmt: skip
    x = np.linspace(3800.0, 9000.0, 40)
    spectrum = {"wavelength": x, "flux": 1e-3 * x, "error": np.full(40, 0.1)}
    for columns, said in ((photometry, MAG), (spectrum, AT)):
        found = []
        for name, kind in (("a.csv", "ascii.csv"), ("a.fits", "fits")):
            Table(columns).write(tmp_path / name, format=kind, overwrite=True)
            found.append(read(tmp_path / name, said))
        (ours, *place), (theirs, *their_place) = found
        assert place == their_place
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


class _Of(eqx.Module):
    """Residuals of some exogenous terms, where the others are known."""

    residuals: Residuals
    others: jax.Array
    free: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, known, u):
        return self.residuals(known, self.others.at[jnp.array(self.free)].set(u))


def test_a_posterior_of_two_terms_is_that_of_a_grid(trained):
    """The likelihood by the exact forward model and NumPy, at every point of a grid."""
    model, rng = trained[0], np.random.default_rng(40)
    abduction, floor = model.abduction, CONFIG["noise"]["floor"]
    cases = model.cases(1, rng, rng, {})
    free = tuple(model.graph.names.index(name) for name in ("log_tau", "A_V"))
    truth = cases.truth[0].astype(np.float32)
    of = _Of(Residuals(abduction.light, floor, model.graph), jnp.asarray(truth), free)
    starts = rng.standard_normal((1, 64, 2)).astype(np.float32)
    z, weight = population.sample(
        of, known(cases), starts, jax.random.key(0), n_centres=32, n_round=256, n_rounds=3,
        n_last=2048,
    )  # fmt: skip
    z, weight = (np.asarray(a, float).reshape(-1, *a.shape[3:]) for a in (z, weight))
    weight = softmax(weight)
    mean = weight @ z
    spread = np.sqrt(weight @ (z - mean) ** 2)
    axis = np.linspace(-5, 5, 45)
    grid = (mean + spread * np.stack(np.meshgrid(axis, axis), axis=-1)).reshape(-1, 2)
    u = np.tile(truth, (len(grid), 1))
    u[:, free] = grid
    values, _ = counterfactual.twins(model.graph, model.forward, u, (), "total")
    found, _ = counterfactual.readings(model.forward, values, model.bands)
    fluxes = observation.nanomaggies_of(np.stack([found[b] for b in model.bands], axis=1))
    scale = np.sqrt(cases.detail.error**2 + (floor * fluxes) ** 2)
    left = ((cases.observed - fluxes) / scale) ** 2 + 2 * np.log(scale)
    exact = softmax(-0.5 * (left * cases.mask).sum(1) - 0.5 * (grid**2).sum(1))
    expected = exact @ grid
    deviation = np.sqrt(exact @ (grid - expected) ** 2)
    assert (np.abs(mean - expected) < 0.1 * deviation).all()
    np.testing.assert_allclose(spread, deviation, rtol=0.1)
    assert (spread < 0.7).all()  # the data say something


@pytest.mark.nightly
def test_a_posterior_is_that_of_nuts(trained):
    model, rng = trained[0], np.random.default_rng(41)
    several = model.cases(4, rng, rng, {})
    budget = BUDGET | {"n_draws": 1000, "n_centres": 128, "n_last": 4096, "n_passes": 2}
    posterior = model.infer(several, rng, method="reweighted", budget=budget)
    first = int(np.flatnonzero(posterior.computation.sound(4))[0])
    cases, names = several.take([first]), [quantity.name for quantity in model.quantities]
    draws = np.stack([posterior.draws[name][first] for name in names], axis=1).astype(float)
    residuals = Residuals(model.abduction.light, CONFIG["noise"]["floor"], model.graph)
    case = jax.tree.map(lambda leaf: leaf[0], known(cases))

    def log_likelihood(u):
        left, log_scale = residuals(case, u)
        return -(0.5 * left**2 + log_scale).sum()

    factor = np.linalg.cholesky(np.cov(draws.T))
    chains = nuts.sample(
        log_likelihood, draws[:2], factor, names=names, n_tune=300, n_draws=1000, seed=0
    )
    theirs = chains["posterior"].dataset["z"].values.reshape(-1, len(names))
    assert (np.abs(draws.mean(0) - theirs.mean(0)) < 0.3 * theirs.std(0)).all()
    np.testing.assert_allclose(draws.std(0), theirs.std(0), rtol=0.25)
