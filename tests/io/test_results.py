"""Where results lie, and what the environment puts in their place."""

import os

import pytest

from touchstone.io import results
from touchstone.io.artifacts import MANIFEST, ArtifactError
from touchstone.io.results import Results


def test_the_environment_names_artefacts_of_one_model(tmp_path, monkeypatch):
    (tmp_path / "my chunk.npz").touch()
    monkeypatch.setenv("ECSFM_DATASET_CHUNK", "my chunk.npz")
    monkeypatch.chdir(tmp_path)
    assert results.overrides("ecsfm") == {"ECSFM_DATASET_CHUNK": tmp_path / "my chunk.npz"}
    assert results.override("ecsfm", "DATASET_CHUNK") == tmp_path / "my chunk.npz"
    assert results.override("ecsfm", "CHECKPOINT") is None
    assert results.overrides("regimes") == {}


def test_a_path_in_the_environment_that_does_not_exist_names_its_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("ECSFM_CHECKPOINT", str(tmp_path / "nothing"))
    with pytest.raises(ArtifactError, match=r"ECSFM_CHECKPOINT: .*nothing does not exist"):
        results.overrides("ecsfm")


def test_results_of_an_override_lie_apart_from_a_models_own(tmp_path, monkeypatch):
    own = results.folder("ecsfm")
    apart = set()
    for name in ("one.npz", "other.npz"):
        (tmp_path / name).touch()
        monkeypatch.setenv("ECSFM_DATASET_CHUNK", str(tmp_path / name))
        apart.add(results.folder("ecsfm"))
        assert results.folder("ecsfm") == results.folder("ecsfm")
        assert results.folder("regimes") == own.with_name("regimes")
    assert len(apart) == 2
    assert all(folder.is_relative_to(own) and folder != own for folder in apart)
    monkeypatch.delenv("ECSFM_DATASET_CHUNK")
    assert results.folder("ecsfm") == own


def test_the_checkpoint_finished_last_is_the_newest(tmp_path):
    for time, name in enumerate(["b", "c", "a"]):
        manifest = tmp_path / "checkpoints" / name / MANIFEST
        manifest.parent.mkdir(parents=True)
        manifest.touch()
        os.utime(manifest, (time, time))
    (tmp_path / "checkpoints/unfinished").mkdir()
    assert Results(tmp_path).newest_checkpoint() == tmp_path / "checkpoints/a"


def test_where_no_checkpoint_is_the_folder_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="checkpoints: holds no checkpoint; train one first"):
        Results(tmp_path).newest_checkpoint()
