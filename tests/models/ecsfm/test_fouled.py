"""The simulator with a film: beside that without, beside the mismatch, and what could come next."""

import jax
import numpy as np
import pytest

from touchstone import contract
from touchstone.models.ecsfm.data.mismatch import Scene, happen
from touchstone.models.ecsfm.inference import protocols
from touchstone.models.ecsfm.physics.fouling import Fouling
from touchstone.models.ecsfm.physics.prior import FILM, RECORD
from touchstone.vocabulary import Posterior

MODEL = contract.load_model("ecsfm")
FOULED, CLEAN = MODEL.fouled.prior, MODEL.prior_of_parameters
N = 64
BASE = MODEL.simulation.base_cases(6, np.random.default_rng(4), {"observed": 1.0}, N)
EXPERIMENT, N_CASES = BASE.records.experiment, len(BASE.task)
NATURAL = np.array(MODEL.forward.natural(BASE.records.z, EXPERIMENT))
SHARED = np.isin(FOULED.names, CLEAN.names)


def with_film(coverage, growth, site_density):
    """Natural coordinates of the base cases, on an electrode with a film."""
    natural = np.zeros((N_CASES, FOULED.size), np.float32)
    natural[:, SHARED] = NATURAL
    for name, value in zip(FILM, (coverage, growth, site_density), strict=True):
        natural[:, FOULED.names.index(name)] = np.log(value)
    return natural


def currents(natural):
    waveform = MODEL.forward.waveforms(EXPERIMENT)
    return np.asarray(MODEL.fouled.forward.currents_of_natural(natural, EXPERIMENT, waveform))


def test_the_chemistry_and_the_cell_of_a_clean_electrode_keep_their_priors():
    noise = {*FILM, *RECORD}
    assert [q for q in FOULED.parameters if q.name not in noise] == [
        q for q in CLEAN.parameters if q.name not in RECORD
    ]
    assert [q.name for q in FOULED.parameters if q.name not in FILM] == CLEAN.names


def test_without_a_film_the_current_is_that_of_a_clean_electrode():
    rms = np.sqrt((BASE.clean**2).mean(1, keepdims=True))
    np.testing.assert_allclose(
        currents(with_film(1e-9, 1e-9, 1e-20)) / rms, BASE.clean / rms, atol=2e-4
    )


def test_a_film_is_that_of_the_mismatch_of_its_name():
    entry = {k: v for k, v in MODEL.config["stresses"]["dynamic"].items() if k != "group"}
    scene = Scene(MODEL.forward, NATURAL, EXPERIMENT, BASE.clean, np.random.default_rng(0))
    severity = 0.7
    theirs = happen(scene, "dynamic", entry, severity).fouling
    growth = severity * -np.log(1 - entry["final_coverage"])
    natural = with_film(1e-9, growth, severity * Fouling().site_density)
    ours = jax.vmap(FOULED.fouling)(natural, EXPERIMENT)
    for name, value in ours._asdict().items():
        assert np.broadcast_to(value, N_CASES) == pytest.approx(
            getattr(theirs, name), rel=1e-4, abs=1e-8
        ), name


def test_what_is_known_of_records_stays_known_with_a_film():
    cases = MODEL._cases(BASE.records, BASE.task)
    wider = MODEL.fouled.cases(cases)
    assert not wider.known[:, ~SHARED].any()
    for ours, theirs in (
        (wider.known, cases.known),
        (wider.truth, cases.truth),
        (wider.detail.z, cases.detail.z),
    ):
        np.testing.assert_array_equal(ours[:, SHARED], theirs)


def test_a_whitened_record_has_noise_that_is_standard_normal():
    """Records by the state-space form of the noise, whitened by its covariance matrix."""
    experiment = jax.tree.map(lambda a: np.asarray(a)[0], EXPERIMENT)
    natural = NATURAL[0].copy()
    for name, value in {"discrepancy": 0.1, "correlation": 0.2, "noise": 0.02}.items():
        natural[CLEAN.names.index(name)] = np.log(value)
    noise = CLEAN.observation(natural, np.zeros(N), experiment, 1.0)

    def record(key):
        baseline_key, key = jax.random.split(key)
        return noise.with_baseline(jax.random.normal(baseline_key, (2,))).draw(key)

    records = np.asarray(jax.jit(jax.vmap(record))(jax.random.split(jax.random.key(1), 4000)))
    white = protocols.whitened(records, noise)
    covariance = np.cov(white.T)
    assert np.diag(covariance) == pytest.approx(1.0, abs=0.15)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 0.1


def sweep():
    """One sweep of the base cases, as a batch of one."""
    potential = np.linspace(0.3, -0.3, N, dtype=np.float32)[None]
    one = jax.tree.map(lambda a: np.asarray(a)[:1], EXPERIMENT)
    return one._replace(potential=potential, duration=np.float32([6.0]))


def rate(experiment):
    return np.abs(np.diff(experiment.potential[0])).max() * N / experiment.duration[0]


def test_the_menu_does_what_it_says():
    first, menu = sweep(), protocols.menu(sweep(), fouled=True)
    assert set(protocols.menu(first, fouled=False)) < set(menu)
    (slower,) = (p for name, p in menu.items() if "slower" in name)
    (faster,) = (p for name, p in menu.items() if "faster" in name)
    (wider,) = (p for name, p in menu.items() if "wide" in name)
    assert rate(slower.experiment) == pytest.approx(rate(first) / 10, rel=1e-4)
    assert rate(faster.experiment) == pytest.approx(rate(first) * 10, rel=1e-4)
    assert rate(wider.experiment) == pytest.approx(rate(first), rel=1e-4)
    assert np.ptp(wider.experiment.potential) == pytest.approx(1.5 * 0.6, rel=1e-4)
    (step,) = (p for name, p in menu.items() if "step" in name)
    assert set(np.unique(step.experiment.potential)) == {np.float32(0.3), np.float32(-0.3)}
    removed = {name: protocol.removed for name, protocol in menu.items() if protocol.removed}
    cleaning, polish = sorted(removed.values())
    assert polish == 1.0
    assert cleaning == pytest.approx(1 - np.exp(-60 * (0.02 + 8e-5)))  # as PHYSICS has the rates


def test_an_electrode_that_was_polished_starts_the_next_record_clean():
    """And grows its film at the same rate: in ten times the time, ten times as much."""
    menu = protocols.menu(sweep(), fouled=True)
    natural, final = with_film(0.3, 0.5, 1e-9), np.full(N_CASES, 0.6, np.float32)
    one = jax.tree.map(lambda a: a[0], sweep())
    standard, back = (
        jax.jit(jax.vmap(each, in_axes=(0, None))) for each in (FOULED.standard, FOULED.natural)
    )
    z = np.asarray(standard(natural, one))
    coverage, growth = (FOULED.names.index(name) for name in ("coverage", "growth"))
    others = np.setdiff1d(np.arange(FOULED.size), [coverage, growth])
    for name, protocol in menu.items():
        after = protocols.after(FOULED, z, final, sweep(), protocol)
        np.testing.assert_array_equal(after[:, others], z[:, others])
        film = np.exp(np.asarray(back(after, one)))
        least = MODEL.config["fouling"]["coverage"]["low"]  # of the prior
        left = max(0.6 * (1 - protocol.removed), least)
        assert film[:, coverage] == pytest.approx(left, rel=1e-3), name
        longer = protocol.experiment.duration[0] / 6.0
        assert film[:, growth] == pytest.approx(0.5 * longer, rel=1e-3), name


@pytest.mark.nightly
def test_a_polish_changes_what_is_expected_only_of_an_electrode_with_a_film():
    """Next measurements of draws with a film, and of the same draws with hardly any."""
    cases = MODEL.fouled.cases(MODEL._cases(BASE.records, BASE.task))
    sweeps = [k for k in range(N_CASES) if BASE.task[k].startswith(("cv", "kin", "diff"))]
    one = cases.take(sweeps[:1])
    draws = MODEL.fouled.draws_of_prior(one, 20, np.random.default_rng(2))
    blank = Posterior(draws, np.full((1, 20), 1 / 20), *[None] * 6)
    found = {}
    for film, values in (("thick", (0.5, 1.0)), ("none", (1e-3, 1e-2))):
        fouled = dict(
            zip(("coverage", "growth"), (np.full((1, 20), v) for v in values), strict=True)
        )
        found[film] = MODEL.protocols(one, blank._replace(draws={**draws, **fouled}))
    polish, again = (
        next(name for name in found["none"] if word in name) for word in ("polish", "again")
    )

    def change(film):
        moved = found[film][polish] - found[film][again]
        return np.sqrt((moved**2).sum(1) / (found[film][again] ** 2).sum(1))

    assert np.median(change("none")) < 0.02
    assert np.median(change("thick")) > 0.2
    assert all(np.isfinite(each).all() for each in found["thick"].values())
