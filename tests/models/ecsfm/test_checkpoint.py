"""A checkpoint comes back as it was saved, or not at all."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from touchstone.inference import flow
from touchstone.io.artifacts import ArtifactError, read_json, save_arrays, write_json
from touchstone.models.ecsfm.inference.checkpoint import FILES, Checkpoint
from touchstone.models.ecsfm.inference.networks import VERSION, Normaliser

SIZES = {"encoder_width": 4, "width": 4, "depth": 1, "spread": 1.0}
META = {
    "schema_version": VERSION,
    "networks": {
        "surrogate": {"target_size": 3, "context_size": 5, **SIZES},
        "posterior": {"target_size": 2, "context_size": 4, **SIZES},
    },
    "settings": {"seed": 1},
}


def some_checkpoint(seed=0):
    """One whose weights are all drawn, so that each of them shows in what it predicts."""
    rng = np.random.default_rng(seed)
    normaliser = Normaliser(*(rng.random(2).astype(np.float32) for _ in Normaliser._fields))
    checkpoint = Checkpoint.untrained(META, normaliser, jax.random.key(seed))

    def drawn(net):
        arrays, rest = eqx.partition(net, eqx.is_array)
        arrays = jax.tree.map(
            lambda a: jnp.asarray(rng.standard_normal(a.shape), jnp.float32), arrays
        )
        return eqx.combine(arrays, rest)

    nets = {name: drawn(getattr(checkpoint, name)) for name in META["networks"]}
    return Checkpoint(**nets, normaliser=normaliser, meta=META, verified=True)


SAVED = some_checkpoint()


@pytest.fixture
def folder(tmp_path):
    """A folder with a saved checkpoint."""
    SAVED.save(tmp_path / "my checkpoint", {"revision": "abc"})
    return tmp_path / "my checkpoint"


sample = jax.jit(flow.sample, static_argnames=("n_draws", "n_steps"))


def predictions(checkpoint):
    """What both networks draw for a context."""
    drawn = []
    for name, sizes in checkpoint.meta["networks"].items():
        context = jnp.linspace(-1, 1, sizes["context_size"])
        unknown = jnp.ones(sizes["target_size"], bool)
        net = getattr(checkpoint, name)
        drawn.append(sample(net, context, unknown, 5, 4, jax.random.key(0)))
    return drawn


def assert_the_same(checkpoint):
    jax.tree.map(np.testing.assert_array_equal, predictions(checkpoint), predictions(SAVED))
    jax.tree.map(np.testing.assert_array_equal, checkpoint.normaliser, SAVED.normaliser)
    assert checkpoint.meta == META


def test_a_checkpoint_predicts_as_it_did_before_it_was_saved(folder):
    loaded = Checkpoint.load(folder)
    assert_the_same(loaded)
    assert loaded.verified
    other = predictions(some_checkpoint(1))
    assert all((a != b).all() for a, b in zip(predictions(loaded), other, strict=True))


def test_the_manifest_tells_where_a_checkpoint_comes_from(folder):
    manifest = read_json(folder / "manifest.json")
    assert set(manifest["files"]) == set(FILES)
    assert manifest["settings"] == {"seed": 1}
    assert manifest["lineage"] == {"revision": "abc"}


def test_nothing_but_the_checkpoint_is_left_in_its_folder(folder):
    assert {path.name for path in folder.iterdir()} == {
        "surrogate_model.eqx",
        "posterior_model.eqx",
        "normalizers.npz",
        "model_meta.json",
        "manifest.json",
    }


@pytest.mark.parametrize("file", [*FILES, "manifest.json"])
def test_a_file_in_the_folder_stands_for_the_folder(folder, file):
    assert_the_same(Checkpoint.load(folder / file))
    assert_the_same(Checkpoint.load(str(folder / file)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=st.sampled_from(FILES), position=st.floats(0, 1), bit=st.integers(0, 7))
def test_a_flipped_bit_in_any_file_is_refused_by_name(folder, file, position, bit):
    path = folder / file
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[int(position * (len(whole) - 1))] ^= 1 << bit
    path.write_bytes(damaged)
    with pytest.raises(ArtifactError, match=f"{file}: differs from its sha256"):
        Checkpoint.load(folder)
    path.write_bytes(whole)


@pytest.mark.parametrize("manifest", [True, False])
@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(folder, file, manifest):
    (folder / file).unlink()
    if not manifest:
        (folder / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=f"my checkpoint: holds no {file}"):
        Checkpoint.load(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="nowhere: no such checkpoint"):
        Checkpoint.load(tmp_path / "nowhere")


# Without a manifest: checkpoints by others --------------------------------------------------------


@pytest.fixture
def unverified(folder):
    """A folder without its manifest."""
    (folder / "manifest.json").unlink()
    return folder


def refused(folder, complaint):
    """Loading warns that nothing was verified, and then refuses."""
    with (
        pytest.warns(UserWarning, match="not verified"),
        pytest.raises(ArtifactError, match=f"my checkpoint.*{complaint}"),
    ):
        Checkpoint.load(folder)


def test_without_a_manifest_it_loads_unverified_with_a_warning(unverified):
    with pytest.warns(UserWarning, match=r"no manifest\.json, so its files are not verified"):
        loaded = Checkpoint.load(unverified)
    assert_the_same(loaded)
    assert loaded.verified is False


@pytest.mark.parametrize("network", ["surrogate", "posterior"])
@pytest.mark.parametrize("size", ["target_size", "context_size", "encoder_width", "width", "depth"])
def test_networks_of_other_sizes_than_stated_are_refused_by_name(unverified, network, size):
    sizes = META["networks"][network]
    wrong = {**META["networks"], network: {**sizes, size: sizes[size] + 1}}
    write_json(unverified / "model_meta.json", {**META, "networks": wrong})
    refused(unverified, rf"{network}_model\.eqx: not the network of model_meta\.json")


@pytest.mark.parametrize(
    "networks",
    [
        {},
        [],
        {"surrogate": META["networks"]["surrogate"]},
        {name: {**sizes, "heads": 2} for name, sizes in META["networks"].items()},
        {name: {**sizes, "width": "wide"} for name, sizes in META["networks"].items()},
    ],
)
def test_sizes_that_are_none_are_refused(unverified, networks):
    write_json(unverified / "model_meta.json", {**META, "networks": networks})
    refused(unverified, "not a checkpoint of this model")


def test_networks_that_learnt_from_other_contexts_are_refused(unverified):
    write_json(unverified / "model_meta.json", {**META, "schema_version": VERSION - 1})
    refused(unverified, rf"model_meta\.json: schema_version {VERSION - 1}, expected {VERSION}")


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("network", ["surrogate", "posterior"])
def test_weights_that_are_not_finite_are_refused_by_name(unverified, network, value):
    net = getattr(SAVED, network)
    net = eqx.tree_at(lambda n: n.lift.bias, net, net.lift.bias.at[0].set(value))
    eqx.tree_serialise_leaves(unverified / f"{network}_model.eqx", net)
    refused(unverified, rf"{network}_model\.eqx: holds weights that are not finite")


def test_a_normaliser_that_is_not_finite_or_not_whole_is_refused(unverified):
    arrays = SAVED.normaliser._asdict()
    save_arrays(unverified / "normalizers.npz", {**arrays, "size_sd": np.float32(np.nan)})
    refused(unverified, r"normalizers\.npz: holds values that are not finite")
    del arrays["size_sd"]
    save_arrays(unverified / "normalizers.npz", arrays)
    refused(unverified, "not a checkpoint of this model .*size_sd")


@pytest.mark.parametrize("file", FILES)
def test_a_file_cut_short_is_refused_by_name(unverified, file):
    whole = (unverified / file).read_bytes()
    for part in (0.0, 0.3, 0.9):
        (unverified / file).write_bytes(whole[: int(part * len(whole))])
        refused(unverified, f"{file}: not")
