"""What each mismatch does, against what physics says it has to do."""

import jax
import numpy as np
import pytest
from scipy.stats import binom

from touchstone import contract
from touchstone.models.ecsfm.data.mismatch import Scene, happen
from touchstone.models.ecsfm.physics.kinetics import FARADAY

MODEL = contract.load_model("ecsfm")
NAMES = MODEL.prior_of_parameters.names
N = 256


def base_cases(n=40):
    return MODEL.simulation.base_cases(
        n, np.random.default_rng(4), {"observed": "dense", "noise": 0.0003}, N
    )


BASE = base_cases()


def scene(base=BASE):
    natural = np.array(MODEL.forward.natural(base.records.z, base.records.experiment))
    rng = np.random.default_rng(0)
    return Scene(MODEL.forward, natural, base.records.experiment, base.clean, rng)


def happened(name, severity):
    entry = {k: v for k, v in MODEL.config["stresses"][name].items() if k != "group"}
    return happen(scene(), name, entry, severity)


def currents(happened):
    """Noise-free currents of what happened, with no film."""
    experiment = happened.experiment
    clean = MODEL.forward.currents_of_natural(
        happened.natural.astype(np.float32), experiment, MODEL.forward.waveforms(experiment)
    )
    return happened.gain * np.asarray(clean) + happened.added


@pytest.mark.parametrize("name", MODEL.stresses)
def test_at_severity_zero_nothing_is_amiss(name):
    key = jax.random.key(3)
    theirs = MODEL.simulation.observe(BASE, key, name, 0.0).observed
    assert np.allclose(
        theirs, MODEL.simulation.observe(BASE, key).observed, rtol=1e-5, atol=1e-5 * BASE.signal[0]
    )


@pytest.mark.parametrize("name", MODEL.stresses)
def test_the_settings_that_are_stated_stay(name):
    records = MODEL.simulation.observe(BASE, jax.random.key(3), name, 1.0)
    assert np.isfinite(records.observed).all()
    stated = zip(records.experiment, BASE.records.experiment, strict=True)
    assert all(np.array_equal(ours, theirs) for ours, theirs in stated)
    assert np.array_equal(records.z, BASE.records.z)


def test_a_more_concentrated_solution_gives_more_current_in_proportion():
    """But for what the resistance and the double layer do to it."""
    plain = scene()
    ideal = plain.natural.copy()
    ideal[:, NAMES.index("resistivity")] = np.log(1e-6)
    ideal[:, NAMES.index("C_dl")] = np.log(1e-9)
    entry = {"factor": 4.0}
    ours = happen(plain._replace(natural=ideal), "concentration", entry, 0.5)
    theirs = currents(plain._replace(natural=ideal).as_stated)
    assert np.allclose(
        currents(ours), 2 * theirs, rtol=2e-3, atol=2e-3 * np.abs(theirs).max(1, keepdims=True)
    )


def test_a_faster_scan_of_a_plane_gives_the_root_of_the_rate_more_current():
    """Randles and Ševčík: sqrt(4) of a peak that is reversible, on a plane, without resistance."""
    base = base_cases(400)
    plain = scene(base)
    sweeps = np.flatnonzero((base.task == "cv_reversible") & (base.records.experiment.shape == 0))
    chosen = jax.tree.map(lambda a: np.asarray(a)[sweeps], base.records.experiment)
    natural = plain.natural[sweeps]
    for name, value in {"k0_1": 1e3, "resistivity": 1e-6, "C_dl": 1e-9}.items():
        natural[:, NAMES.index(name)] = np.log(value)
    few = plain._replace(natural=natural, experiment=chosen, clean=base.clean[sweeps])
    ours, theirs = currents(happen(few, "rate", {"factor": 4.0}, 1.0)), currents(few.as_stated)
    assert len(sweeps) > 1
    assert np.abs(ours).max(1) == pytest.approx(2 * np.abs(theirs).max(1), rel=1e-3)


def test_the_charge_of_a_layer_is_that_of_its_molecules():
    """Faraday's law: what is added, summed over a record, is F A Gamma times what was turned."""
    plain = scene()
    added = happened("adsorbed", 1.0).added
    step = np.asarray(plain.experiment.duration, float) / N
    charge = np.abs(np.cumsum(added, axis=1)).max(1) * step
    twice = np.abs(np.cumsum(happened("adsorbed", 0.5).added, axis=1)).max(1) * step * 2
    assert charge == pytest.approx(twice, rel=1e-6)
    couples = jax.vmap(MODEL.prior_of_parameters.couples)(plain.natural, plain.experiment)
    reactant = np.asarray(couples.c_ox + couples.c_red)[:, 0]
    travelled = np.abs(np.diff(plain.experiment.potential, axis=1)).sum(1)
    rate = np.maximum(travelled / (np.asarray(plain.experiment.duration) * (N - 1) / N), 1e-6)
    thermal = 8.314462618 * np.asarray(plain.experiment.temperature) / FARADAY
    layer = 2 * reactant * np.sqrt(np.asarray(couples.d_ox)[:, 0] * thermal / rate)
    most = FARADAY * np.asarray(plain.experiment.area) * layer
    assert (charge <= most * 1.001).all()
    swept = (plain.experiment.potential.min(1) < couples.e0[:, 0] - 0.2) & (
        plain.experiment.potential.max(1) > couples.e0[:, 0] + 0.2
    )
    assert swept.any()
    assert charge[swept] == pytest.approx(most[swept], rel=0.02)


def test_a_saturated_amplifier_gives_no_more_than_its_limit():
    records = MODEL.simulation.observe(BASE, jax.random.key(1), "saturation", 1.0)
    peak = np.abs(BASE.clean).max(1)
    assert np.abs(records.observed).max(1) == pytest.approx(peak / 2, rel=1e-5)


def test_hum_has_the_frequency_of_the_mains_folded_by_the_sampling():
    added = happened("hum", 1.0).added
    duration = np.asarray(BASE.records.experiment.duration, float)
    found = np.abs(np.fft.rfft(added * np.hanning(N), axis=1)).argmax(1)
    sampling = N / duration
    folded = np.abs(50.0 - sampling * np.round(50.0 / sampling))
    inside = (folded * duration > 3) & (folded * duration < N / 2 - 3)
    assert inside.sum() > 5
    assert found[inside] == pytest.approx((folded * duration)[inside], abs=1)


def test_a_drift_ends_at_the_stated_shift_and_begins_at_none():
    shift = happened("drift", 0.5).experiment.potential - BASE.records.experiment.potential
    assert shift[:, -1] == pytest.approx(0.5 * 0.03, rel=1e-3)
    assert shift[:, 0] == pytest.approx(0.5 * 0.03 / N, abs=1e-5)


def test_a_larger_electrode_has_the_stated_area():
    ours, theirs = (
        np.asarray(e.area) for e in (happened("area", 1.0).experiment, scene().experiment)
    )
    assert ours == pytest.approx(4 * theirs, rel=1e-5)


def test_an_undeclared_couple_adds_half_a_wave_where_it_reacts():
    """A couple alone, without resistance, at half the concentration: half the peak of the first."""
    base = base_cases(400)
    plain = scene(base)
    sweeps = np.flatnonzero((base.task == "cv_reversible") & (base.records.experiment.shape == 0))
    natural = plain.natural[sweeps]
    for name, value in {"k0_1": 1e3, "resistivity": 1e-6, "C_dl": 1e-9}.items():
        natural[:, NAMES.index(name)] = np.log(value)
    chosen = jax.tree.map(lambda a: np.asarray(a)[sweeps], base.records.experiment)
    few = plain._replace(natural=natural, experiment=chosen, clean=base.clean[sweeps])
    entry = {"part": 0.5, "apart": 0.0}
    added = happen(few, "second_couple", entry, 1.0).added
    alone = currents(few.as_stated)
    assert added == pytest.approx(alone / 2, rel=1e-3, abs=1e-3 * float(np.abs(alone).max()))


def test_a_background_is_a_parabola_of_the_stated_size():
    added, plain = happened("background", 1.0).added / scene().peak, scene()
    low, high = plain.experiment.potential.min(1), plain.experiment.potential.max(1)
    apart = np.abs(plain.experiment.potential - ((low + high) / 2)[:, None])
    middle = apart.argmin(1)
    # A narrow window is counted in its least half-width, and a step is never in the middle.
    wide = (high - low > 0.4) & (apart.min(1) < 0.02)
    at_end = plain.experiment.potential.argmax(1)
    rows = np.arange(len(added))
    assert added[rows, middle][wide] == pytest.approx(0.0, abs=0.01)
    # E0 may be in the middle four fifths of the window: its ends are at 1.25 half-widths.
    assert added[rows, at_end][wide] == pytest.approx(0.2 * 1.25**2, rel=0.02)


def test_spikes_are_as_many_and_as_high_as_stated():
    added = happened("spikes", 1.0).added / scene().peak
    hit = added != 0
    assert np.abs(added[hit]) == pytest.approx(0.5, rel=1e-5)
    assert binom.ppf(5e-4, hit.size, 0.01) <= hit.sum() <= binom.ppf(1 - 5e-4, hit.size, 0.01)


def test_a_bubble_takes_half_the_current_for_a_tenth_of_the_record():
    gain = happened("bubble", 1.0).gain
    assert set(np.unique(gain)) == {0.5, 1.0}
    assert (gain == 0.5).mean(1) == pytest.approx(0.1, abs=1.5 / N)
    assert (np.abs(np.diff(gain, axis=1)) > 0).sum(1).max() <= 2


def test_resistance_costs_the_stated_potential_beyond_the_prior():
    plain, ours = scene(), happened("resistance", 1.0)
    spread = np.asarray(plain.experiment.spread)
    more = np.exp(ours.natural[:, NAMES.index("resistivity")]) - 200.0  # its upper bound, ohm cm
    assert plain.peak[:, 0] * more / spread == pytest.approx(0.15, rel=1e-3)


def test_noise_is_correlated_over_the_stated_time():
    added = happened("correlated", 1.0).added
    sd = np.exp(scene().parameter("noise")) * np.sqrt((BASE.clean**2).mean(1))
    standard = added / sd[:, None]
    assert standard.var() == pytest.approx(1.0, abs=0.2)
    lag = round(0.05 * N)
    assert (standard[:, lag:] * standard[:, :-lag]).mean() == pytest.approx(np.exp(-1), abs=0.12)
