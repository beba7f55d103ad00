"""Files that outlive a run: whole or not there, held against their digests, nothing executable."""

import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from touchstone.io import artifacts
from touchstone.io.artifacts import ArtifactError

SHARED_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), finite, st.text()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


# Writing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_whole_and_nothing_beside_it(tmp_path, error):
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(error), artifacts.atomic(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_takes_its_name_only_once_it_is_complete(tmp_path):
    path = tmp_path / "folder that is not there yet" / "result.txt"
    with artifacts.atomic(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@SHARED_FOLDER
@given(st.dictionaries(st.text(), json_values))
def test_json_comes_back_as_it_was_written(tmp_path, content):
    artifacts.write_json(tmp_path / "x.json", content)
    assert artifacts.read_json(tmp_path / "x.json") == content


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_json_takes_no_number_that_is_not_finite(tmp_path, number):
    path = tmp_path / "x.json"
    artifacts.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifacts.write_json(path, {"a": [number]})
    assert artifacts.read_json(path) == {"a": 1}


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe", b"[1, 2]", b"null"])
def test_what_is_no_json_object_is_refused_by_name(tmp_path, content):
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"report\.json: not"):
        artifacts.read_json(path)


@pytest.mark.parametrize("read", [artifacts.read_json, artifacts.load_arrays])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(ArtifactError, match="nowhere: no such file"):
        read(tmp_path / "nowhere")


# Arrays -------------------------------------------------------------------------------------------


def test_arrays_come_back_and_their_file_carries_no_date(tmp_path):
    arrays = {"current": np.linspace(-1, 1, 7, dtype=np.float32), "names": np.array(["a", "µ"])}
    artifacts.save_arrays(tmp_path / "x.npz", arrays)
    loaded = artifacts.load_arrays(tmp_path / "x.npz")
    assert loaded.keys() == arrays.keys()
    for name, values in arrays.items():
        assert loaded[name].dtype == values.dtype
        np.testing.assert_array_equal(loaded[name], values)
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_not_run(tmp_path):
    sprung = tmp_path / "sprung"
    np.savez(tmp_path / "x.npz", i=np.zeros(3), p=np.array([Trap(sprung)], object))
    with pytest.raises(ArtifactError, match=r"x\.npz: not a readable"):
        artifacts.load_arrays(tmp_path / "x.npz")
    assert not sprung.exists()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_cut_short_anywhere_is_refused_by_name(tmp_path, save):
    path = tmp_path / "chunk.npz"
    save(path, i=np.arange(12.0), names=np.array(["a", "b"]))
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match=r"chunk\.npz"):
            artifacts.load_arrays(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_bit_never_changes_the_numbers_of_an_archive(tmp_path, save):
    path = tmp_path / "chunk.npz"
    numbers = np.arange(12.0)
    save(path, i=numbers)
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            loaded = artifacts.load_arrays(path)
        except ArtifactError as error:
            assert str(path) in str(error)
        else:
            np.testing.assert_array_equal(loaded.get("i", numbers), numbers)


def test_an_npy_under_the_name_of_an_archive_is_refused(tmp_path):
    with (tmp_path / "x.npz").open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(ArtifactError, match=r"x\.npz: not a readable"):
        artifacts.load_arrays(tmp_path / "x.npz")


# Manifests ----------------------------------------------------------------------------------------


@pytest.fixture
def artefact(tmp_path):
    """A folder with two files and their manifest."""
    (tmp_path / "weights").write_bytes(bytes(range(100)))
    (tmp_path / "meta").write_text("µ")
    artifacts.write_manifest(tmp_path, ["weights", "meta"], {"seed": 1}, {"from": "there"})
    return tmp_path


def test_a_digest_is_that_of_the_standard(tmp_path):
    (tmp_path / "abc").write_text("abc")  # FIPS 180-4, example of one block
    assert artifacts.sha256(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_manifest_says_what_it_stands_for(artefact):
    manifest = artifacts.read_json(artefact / "manifest.json")
    assert manifest["schema_version"] == 1
    assert manifest["settings"] == {"seed": 1}
    assert manifest["lineage"] == {"from": "there"}
    assert manifest["versions"]["numpy"] == np.__version__
    assert {name: entry["size"] for name, entry in manifest["files"].items()} == {
        "meta": 2,
        "weights": 100,
    }
    assert artifacts.verify(artefact, ["weights", "meta"]) is True


@SHARED_FOLDER
@given(name=st.sampled_from(["weights", "meta"]), position=st.floats(0, 1), bit=st.integers(0, 7))
def test_one_flipped_bit_is_refused_and_the_file_named(artefact, name, position, bit):
    path = artefact / name
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[int(position * (len(whole) - 1))] ^= 1 << bit
    path.write_bytes(damaged)
    with pytest.raises(ArtifactError, match=f"{name}: differs from its sha256"):
        artifacts.verify(artefact, ["weights"])
    path.write_bytes(whole)
    assert artifacts.verify(artefact, ["weights"])


def test_without_a_manifest_a_folder_is_unverified_with_a_warning(artefact):
    (artefact / "manifest.json").unlink()
    with pytest.warns(UserWarning, match="not verified"):
        assert artifacts.verify(artefact, ["weights"]) is False


def test_a_file_that_is_needed_but_gone_is_named(artefact):
    (artefact / "meta").unlink()
    with pytest.raises(ArtifactError, match="holds no meta"):
        artifacts.verify(artefact, ["weights", "meta"])
    with pytest.raises(ArtifactError, match="meta: differs"):
        artifacts.verify(artefact, ["weights"])


def test_a_file_that_the_manifest_does_not_list_is_named(artefact):
    (artefact / "extra").touch()
    with pytest.raises(ArtifactError, match="does not list extra"):
        artifacts.verify(artefact, ["weights", "extra"])


@pytest.mark.parametrize(
    "content",
    ["", "{}", '{"files": []}', '{"files": {"weights": 3}}', '{"files": {"weights": {}}}'],
)
def test_a_damaged_manifest_is_refused_by_name(artefact, content):
    (artefact / "manifest.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json: not"):
        artifacts.verify(artefact, ["weights"])
