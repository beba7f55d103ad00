"""Chunks of experiments: on disk and back, by others, and the family that they are drawn from."""

from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

import touchstone.models.ecsfm as ecsfm
from touchstone.io.artifacts import ArtifactError, save_arrays
from touchstone.models.ecsfm.data import family
from touchstone.models.ecsfm.data.dataset import (
    Chunk,
    load_chunk,
    natural_coordinates,
    parameter_rows,
)
from touchstone.models.ecsfm.inference import training
from touchstone.models.ecsfm.physics.experiment import SHAPES, Experiment
from touchstone.models.ecsfm.physics.prior import RECORD, Prior

CONFIG = yaml.safe_load((Path(ecsfm.__file__).parent / "config.yaml").read_text(encoding="utf-8"))
PRIOR = Prior(CONFIG, 2)
TASKS, LEVELS = list(CONFIG["tasks"]), list(CONFIG["levels"])
N, SAMPLES = 6, 40
TIME = np.arange(1, SAMPLES + 1) / SAMPLES  # samples are at the ends of equal intervals

natural = jax.jit(PRIOR.natural)
standard = jax.jit(PRIOR.standard)


def by_others(n_species=2, n_samples=SAMPLES, **more):
    """A chunk with the keys that others write, and whatever else is given."""
    time = np.arange(1, n_samples + 1) / n_samples
    couple = np.array([-11.0, -11.1, 1.0, 0.0, 0.0, -5.0, 0.5])
    blocks = np.repeat(couple[:, None], n_species, axis=1)
    blocks[4] = np.arange(n_species)
    return {
        "i": np.outer(np.arange(N) + 1.0, time),
        "e": np.tile(time, (N, 1)),
        "p": np.tile(blocks.ravel(), (N, 1)),
        "task_id": np.zeros(N, int),
        "stage_id": np.arange(N) % 2,
        "task_names": np.array(["their own task"]),
        "stage_names": np.array(["foundation", "their own level"]),
        **more,
    }


def load(folder, arrays, n_samples=SAMPLES, max_couples=2):
    save_arrays(folder / "chunk.npz", arrays)
    return load_chunk(folder / "chunk.npz", n_samples, max_couples)


# On disk and back ---------------------------------------------------------------------------------


COMPOSITIONS = [
    [[1, 0], [0, 0]],
    [[0, 1], [0, 0]],
    [[1, 1], [0, 0]],
    [[1, 0], [0, 1]],
    [[1, 1], [1, 1]],
]  # which of (O, R) of each couple are in the cell


def chunk_of(z, present, shape="planar"):
    """One experiment with these standard coordinates, its natural ones, and a chunk of it."""
    numbers = {
        "duration": np.float32(3.0),
        "radius": np.float32(0.2),
        "shape": np.array(SHAPES.index(shape)),
        "temperature": np.float32(300.0),
    }
    potential, present = np.sin(7 * TIME).astype(np.float32), np.array(present, bool)
    experiment = Experiment(potential, *numbers.values(), present)
    values = np.asarray(natural(z, experiment))
    cell = PRIOR.instrument(values, experiment)
    capacitance = 1e6 * cell.capacitance
    stated = {"resistance": cell.resistance, "capacitance": capacitance, "noise_std": 0.1}
    chunk = Chunk(
        current=np.cos(TIME)[None].astype(np.float32),
        potential=potential[None],
        parameters=parameter_rows(PRIOR, values[None], present[None]),
        task=np.array([3]),
        stage=np.array([1]),
        task_names=tuple(TASKS),
        stage_names=tuple(LEVELS),
        settings={k: np.array([v], np.float32) for k, v in {**numbers, **stated}.items()},
        group=np.arange(1),
        assumed=(),
    )
    return experiment, values, chunk


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    z=hnp.arrays(np.float32, PRIOR.size, elements=st.floats(-3, 3, width=32)),
    present=st.sampled_from(COMPOSITIONS),
    shape=st.sampled_from(SHAPES),
)
def test_parameters_come_back_from_a_chunk_on_disk(tmp_path, z, present, shape):
    experiment, values, chunk = chunk_of(z, present, shape)
    loaded = load(tmp_path, chunk.arrays({"seed": 1}))
    there = jax.tree.map(lambda a: a[0], loaded.experiment)
    jax.tree.map(np.testing.assert_array_equal, there, experiment)
    simulated = np.array(PRIOR.active(experiment.present))
    simulated[-len(RECORD) :] = False  # the record is drawn afresh, and no part of a chunk
    back = natural_coordinates(PRIOR, loaded)[0]
    np.testing.assert_allclose(back[simulated], values[simulated], rtol=1e-5, atol=1e-5)
    again = standard(back, experiment)
    np.testing.assert_allclose(again[simulated], z[simulated], atol=0.02)
    np.testing.assert_allclose(natural(again, experiment)[simulated], values[simulated], atol=1e-4)


def test_all_else_comes_back_from_a_chunk_on_disk(tmp_path):
    _, _, chunk = chunk_of(np.zeros(PRIOR.size, np.float32), COMPOSITIONS[0])
    loaded = load(tmp_path, chunk.arrays({"seed": 1}))
    assert loaded.assumed == ()
    assert (loaded.task_names, loaded.stage_names) == (tuple(TASKS), tuple(LEVELS))
    assert (loaded.task, loaded.stage) == ([3], [1])
    np.testing.assert_array_equal(loaded.current, chunk.current)
    assert {k: v[0] for k, v in loaded.settings.items()} == pytest.approx(
        {k: v[0] for k, v in chunk.settings.items()}
    )


@pytest.mark.parametrize("present", COMPOSITIONS)
def test_rows_of_a_file_hold_what_the_design_says(present):
    z = np.linspace(-1, 1, PRIOR.size, dtype=np.float32)
    experiment, values, chunk = chunk_of(z, present)
    there = PRIOR.couples(values, experiment)
    blocks = [  # cm^2/s, mM (1e-6 mol/cm^3), V, cm/s
        np.log(there.d_ox),
        np.log(there.d_red),
        1e6 * there.c_ox,
        1e6 * there.c_red,
        there.e0,
        np.log(there.k0),
        there.transfer_coefficient,
    ]
    np.testing.assert_allclose(chunk.arrays({})["p"][0], np.concatenate(blocks), rtol=1e-5)


def test_a_chunk_by_others_loads_with_the_documented_defaults_marked_assumed(tmp_path):
    chunk = load(tmp_path, by_others())
    assert len(chunk) == N
    geometry, cell = ("radius", "shape"), ("resistance", "capacitance")
    assert set(chunk.assumed) == {"duration", "temperature", *geometry, *cell}
    experiment = chunk.experiment
    np.testing.assert_allclose(experiment.duration, 8.0)
    np.testing.assert_allclose(experiment.area, 0.01, rtol=1e-6)
    np.testing.assert_allclose(experiment.temperature, 298.15)
    assert chunk.task_names == ("their own task",)
    rows = training.Rows.of(chunk, PRIOR)
    assert np.isfinite(rows.z).all()
    np.testing.assert_allclose(rows.current, 1e-3 * by_others()["i"], rtol=1e-6)  # mA to A


def test_what_a_chunk_states_is_not_assumed(tmp_path):
    chunk = load(tmp_path, by_others(duration=np.full(N, 2.0), temperature=np.full(N, 310.0)))
    assert not {"duration", "temperature"} & set(chunk.assumed)
    np.testing.assert_allclose(chunk.experiment.duration, 2.0)


# What is no data ----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", by_others())
def test_a_missing_key_is_named(tmp_path, key):
    arrays = by_others()
    del arrays[key]
    with pytest.raises(ArtifactError, match=rf"chunk\.npz: lacks the keys {key}$"):
        load(tmp_path, arrays)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("i", np.float64(1.0)),
        ("i", np.zeros(N)),
        ("i", np.zeros((0, SAMPLES))),
        ("i", np.zeros((N, 0))),
        ("e", np.zeros((N, SAMPLES + 1))),
        ("p", np.zeros((N, 13))),
        ("p", np.zeros((N, 0))),
        ("p", np.zeros((N - 1, 14))),
        ("task_id", np.zeros(N - 1, int)),
        ("task_id", np.full(N, 1)),
        ("task_id", np.full(N, 0.5)),
        ("stage_id", np.full(N, -1)),
        ("stage_id", np.array(["foundation"] * N)),
        ("aug_id", np.zeros(N + 1, int)),
        ("i", np.full((N, SAMPLES), "x")),
        ("i", np.full((N, SAMPLES), np.nan)),
        ("e", np.full((N, SAMPLES), np.inf)),
        ("p", np.full((N, 14), np.nan)),
        ("noise_std", np.full(N, np.nan)),
        ("duration", np.float64(8.0)),
        ("duration", np.zeros(N)),
        ("radius", np.full(N, -1.0)),
        ("temperature", np.full(N, np.nan)),
    ],
)
def test_what_is_no_data_is_refused_and_the_key_named(tmp_path, key, value):
    with pytest.raises(ArtifactError, match=rf"chunk\.npz: (i .* and )?{key} "):
        load(tmp_path, by_others(**{key: value}))


def with_block(block, value, n_species=2):
    """Parameters of a chunk by others, one block of which is changed in case 3."""
    rows = by_others(n_species)["p"]
    rows.reshape(N, 7, n_species)[3, block] = value
    return rows


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        (
            "p",
            with_block(6, 5.0),
            r"p: alpha is 5 in case 3, expected between 0 and 1, e\.g\. 0\.5",
        ),
        ("p", with_block(6, 0.0), r"p: alpha is 0 in case 3"),
        ("p", with_block(6, 1.0), r"p: alpha is 1 in case 3"),
        ("p", with_block(2, -1.0), r"p: a concentration is -1 in case 3"),
        ("p", with_block(0, 1e-5), r"p: ln D_ox is 1e-05 in case 3, expected -30 to 0"),
        ("p", with_block(1, 8.0), r"p: ln D_red is 8 in case 3"),
        ("p", with_block(4, 250.0), r"p: E0 is 250 in case 3, expected -20 to 20 V"),
        ("resistance", np.full(N, -100.0), r"resistance is -100 in case 0, .* ohm"),
        ("resistance", np.zeros(N), r"resistance is 0 in case 0"),
        ("capacitance", np.zeros(N), r"capacitance is 0 in case 0"),
        ("temperature", np.full(N, 25.0), r"temperature is 25 in case 0, expected 200 to 500 K"),
        ("temperature", np.full(N, -1.0), r"temperature is -1 in case 0"),
        ("duration", np.full(N, -8.0), r"duration is -8 in case 0, .* s"),
        ("radius", np.zeros(N), r"radius is 0 in case 0, .* cm"),
        ("shape", np.full(N, 9), r"shape must be indices into planar, disc, hemisphere, sphere"),
        ("noise_std", np.full(N, -1.0), r"noise_std is -1 in case 0"),
        ("i", np.outer(np.arange(N) != 2, TIME), r"i is zero at every sample of case 2"),
        ("i", np.full((N, SAMPLES), 1e39), r"i reaches 1e\+39 in case 0"),
        ("e", np.full((N, SAMPLES), 300.0), r"e reaches 300 in case 0, expected ±20 V; .* mV"),
    ],
)
def test_absurd_content_is_refused_with_its_key(tmp_path, key, value, sentence):
    with pytest.raises(ArtifactError, match=rf"chunk\.npz: {sentence}"):
        load(tmp_path, by_others(**{key: value}))


def test_what_stands_for_a_couple_that_is_absent_does_not_matter(tmp_path):
    rows = by_others()["p"]
    rows.reshape(N, 7, 2)[:, :, 1] = 0.0
    assert len(load(tmp_path, by_others(p=rows))) == N


def test_a_truncated_chunk_is_refused_by_name(tmp_path):
    path = tmp_path / "cut.npz"
    save_arrays(path, by_others())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=r"cut\.npz"):
        load_chunk(path, SAMPLES, 2)


# Other sizes and orders ---------------------------------------------------------------------------


@pytest.mark.parametrize("n_samples", [10, 37, SAMPLES, 160])
def test_records_of_another_length_are_read_on_their_own_time_axis(tmp_path, n_samples):
    chunk = load(tmp_path, by_others(), n_samples)
    time = np.arange(1, n_samples + 1) / n_samples
    inside = time >= TIME[0]
    assert chunk.current.shape == (N, n_samples)
    expected = np.outer(np.arange(N) + 1.0, time)  # straight lines stay straight
    np.testing.assert_allclose(chunk.current[:, inside], expected[:, inside])
    np.testing.assert_allclose(chunk.potential[:, inside], np.tile(time, (N, 1))[:, inside])


@pytest.mark.parametrize("n_species", [1, 2, 3, 5])
def test_other_numbers_of_species_are_cut_or_widened(tmp_path, n_species):
    arrays = by_others(n_species)
    arrays["p"].reshape(N, 7, n_species)[:, 2, 1:] = 0  # one couple is there, wherever it stands
    arrays["p"] = arrays["p"].reshape(N, 7, n_species)[:, :, ::-1].reshape(N, -1)
    chunk = load(tmp_path, arrays)
    expected = [[-11.0, 0], [-11.1, 0], [1, 0], [0, 0], [0, 0], [-5, 0], [0.5, 0]]
    np.testing.assert_allclose(chunk.parameters, np.tile(np.ravel(expected), (N, 1)))
    np.testing.assert_array_equal(chunk.present[0], [[True, False], [False, False]])


def test_experiments_with_too_many_couples_or_none_are_left_out(tmp_path):
    arrays = by_others(3)
    concentration = arrays["p"].reshape(N, 7, 3)[:, 2]
    concentration[1, 0] = 0  # two couples left
    concentration[4] = 0, 5, 0  # one
    concentration[5] = 0  # none
    chunk = load(tmp_path, arrays)
    np.testing.assert_allclose(chunk.current[:, -1], [2.0, 5.0])  # rows 1 and 4
    assert len(chunk.group) == len(chunk.task) == len(chunk.settings["duration"]) == 2
    concentration[:] = 1
    with pytest.raises(ArtifactError, match="more than 2 couples"):
        load(tmp_path, arrays)


def test_couples_are_brought_into_the_order_of_their_formal_potentials(tmp_path):
    first, second = [-11, -11.5, 1, 2, 0.3, -5, 0.4], [-12, -12.5, 3, 4, -0.2, -6, 0.6]
    chunk = load(tmp_path, by_others(p=np.tile(np.transpose([first, second]).ravel(), (N, 1))))
    expected = np.transpose([second, first]).ravel()
    np.testing.assert_allclose(chunk.parameters, np.tile(expected, (N, 1)))


# The split ----------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    variants=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=8), min_size=1, max_size=3),
    seed=st.integers(0, 2**31),
    part=st.floats(0.01, 0.9),
)
def test_twins_never_straddle_the_split(tmp_path, variants, seed, part):
    chunks, original = [], []
    for number, counts in enumerate(variants):
        n = sum(counts)
        rows = {key: np.repeat(by_others()[key][:1], n, axis=0) for key in ("i", "e", "p")}
        ids = {"task_id": np.zeros(n, int), "stage_id": np.zeros(n, int)}
        twin = np.concatenate([np.arange(count) for count in counts])  # 0 is the experiment itself
        chunks.append(load(tmp_path, by_others(**rows, **ids, aug_id=twin)))
        original += [(number, k) for k, count in enumerate(counts) for _ in range(count)]
    fit, held_out = training._split(chunks, part, jax.random.key(seed))
    assert sorted([*fit, *held_out]) == list(range(len(original)))
    assert len(held_out) > 0
    assert not {original[row] for row in fit} & {original[row] for row in held_out}


# The family ---------------------------------------------------------------------------------------

N_DRAWS, N_SAMPLES = 8000, 64


@cache
def draws(level):
    """Experiments of one curriculum level, always of the same seed."""
    rng = np.random.default_rng(11)
    return family.draw(rng, CONFIG, N_DRAWS, N_SAMPLES, PRIOR.size, {level: 1.0})


def position(values, entry, log):
    """Where values are in their range: 0 at its low end, 1 at its high end."""
    low, high = float(entry["low"]), float(entry["high"])
    if log:
        return np.log(values / low) / np.log(high / low)
    return (values - low) / (high - low)


@pytest.mark.parametrize(
    ("level", "part"), [("foundation", 0.5), ("bridge", 0.75), ("frontier", 1.0)]
)
def test_a_level_fills_the_central_part_of_every_range_and_no_more(level, part):
    drawn = draws(level)
    entries = CONFIG["settings"]
    filled = {
        "radius": position(drawn.experiment.radius, entries["radius"], log=True),
        "temperature": position(drawn.experiment.temperature, entries["temperature"], log=False),
        **dict(zip(PRIOR.names, drawn.quantile.T, strict=True)),
    }
    assert (drawn.level == LEVELS.index(level)).all()
    for name, values in filled.items():
        reach = 2 * np.abs(values - 0.5).max()
        assert 0.995 * part < reach < part + 1e-4, name


@pytest.mark.parametrize(
    ("technique", "swing", "duration"),
    [  # peak to peak in V, and s; 64 samples of square waves are 8 periods
        ("cv", (0.4, 1.6), (2 * 0.4 / 5, 2 * 4 * 2 * 1.6 / 0.005)),  # a hold is as long as the scan
        ("ca", (0.3, 1.2), (0.1, 100)),
        ("swv", (0.3, 1.0 + 2 * 0.08), (8 / 100, 8 / 2)),
        ("eis_low", (2 * 0.005, 2 * 0.08), (4 / 10, 16 / 0.05)),
        ("eis_high", (2 * 0.005, 2 * 0.05), (4 / 10_000, 16 / 10)),
        ("acv", (0.3, 1.0 + 2 * 0.08), (0.3 / 0.5, 1.0 / 0.005)),
    ],
)
def test_waveforms_stay_in_their_documented_ranges(technique, swing, duration):
    drawn = draws("frontier")
    of_technique = [
        i for i, t in enumerate(CONFIG["tasks"].values()) if t["technique"] == technique
    ]
    rows = np.isin(drawn.task, of_technique)
    potential = drawn.experiment.potential[rows]
    stepped = np.ptp(potential, axis=1) > 0  # a step without rest before it is constant
    assert stepped.all() or technique == "ca"
    swings = np.ptp(potential[stepped], axis=1)
    assert (swings <= swing[1] + 1e-5).all()
    assert (swings >= 0.8 * swing[0]).all()  # 64 samples need not meet the ends
    assert swings.max() > 0.7 * swing[1]
    assert np.abs(potential).max() <= 0.4 + swing[1] / 2 + 1e-5
    durations = drawn.experiment.duration[rows]
    assert (durations >= duration[0] * (1 - 1e-5)).all()
    assert (durations <= duration[1] * (1 + 1e-5)).all()


def test_a_cell_holds_as_many_couples_as_its_task_says():
    drawn = draws("frontier")
    n_couples = drawn.experiment.present.any(-1).sum(1)
    for index, entry in enumerate(CONFIG["tasks"].values()):
        assert set(n_couples[drawn.task == index]) == set(entry["couples"])
    first = drawn.experiment.present.any(-1)[:, 0]
    assert first.all()  # absent couples are the last


def test_tasks_are_drawn_by_their_weights():
    weights = np.array([task["weight"] for task in CONFIG["tasks"].values()])
    expected = N_DRAWS * weights / weights.sum()
    counts = np.bincount(draws("frontier").task, minlength=len(TASKS))
    assert stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize("level", LEVELS)
def test_the_tasks_of_single_couple_voltammetry_are_together_the_prior(level):
    drawn = draws(level)
    single = ("cv_reversible", "kinetics_limited", "diffusion_limited")
    rows = np.isin(drawn.task, [TASKS.index(name) for name in single])
    part = CONFIG["levels"][level]
    inner = (drawn.quantile[rows] - 0.5) / part + 0.5
    pair = inner[:, [PRIOR.names.index("k0_1"), PRIOR.names.index("D_ox_1")]]
    counts, _ = np.histogramdd(pair, bins=4, range=[(0, 1), (0, 1)])
    expected = len(pair) / 16
    # each of 16 cells within four standard deviations of a binomial count
    assert np.abs(counts - expected).max() < 4 * np.sqrt(expected * 15 / 16)
    boxes = {
        "kinetics_limited": counts[:2],
        "diffusion_limited": counts[2:, :2],
        "cv_reversible": counts[2:, 2:],
    }
    for name, box in boxes.items():
        assert (drawn.task == TASKS.index(name)).sum() == box.sum()


def test_the_union_of_all_tasks_covers_the_prior():
    limit = 1.95 / np.sqrt(N_DRAWS)  # Kolmogorov-Smirnov, exceeded by one in a thousand
    for name, quantiles in zip(PRIOR.names, draws("frontier").quantile.T, strict=True):
        assert stats.kstest(quantiles, "uniform").statistic < limit, name
