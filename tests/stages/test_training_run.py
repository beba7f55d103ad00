"""Sizes of a training as a user says them."""

import copy

import pytest
import yaml

from touchstone import contract
from touchstone.io import settings
from touchstone.io.artifacts import ArtifactError
from touchstone.stages import training_run
from touchstone.stages.training_run import Sizes, count


@pytest.mark.parametrize(("text", "number"), [("10k", 10_000), ("1.5M", 1_500_000), ("300", 300)])
def test_a_number_may_have_a_suffix(text, number):
    assert count(text) == number


@pytest.mark.parametrize("text", ["ten", "0", "-5", "1.5", "10kk", ""])
def test_what_is_no_number_of_rows_is_refused(text):
    with pytest.raises(ArtifactError, match="is no number such as 10000, 10k or 2M"):
        count(text)


def test_epochs_become_steps_of_batches():
    changes = training_run._sized("galaxy", Sizes(10_000, 100, 64))
    assert training_run.nested(changes)["simulate"] == {"n_chunks": 1, "n_rows": 10_000}
    assert changes["batch_size"] == 64
    assert changes["n_steps"] * 64 == pytest.approx(100 * 9800, rel=1e-3)  # 2 % are held out
    assert training_run._sized("galaxy", Sizes()) == {}


def test_a_setting_is_named_by_its_path_and_the_rest_stays_as_configured(tmp_path):
    changes = {"held_out": 0.1, "train.surrogate.n_steps": 7, "posterior.width": 9}
    changes |= {"stress.cases.noise": 0.01, "simulate.n_traces": 100}
    file = tmp_path / "settings.yaml"
    file.write_text(training_run._configuration("ecsfm", changes))
    folders = contract.folders()
    told = settings.complete(
        {**settings.found(folders, "ecsfm"), **yaml.safe_load(file.read_text())}, folders
    )["ecsfm"]
    usual = settings.defaults(settings.schema(folders["ecsfm"] / "settings.schema.yaml"))
    expected = copy.deepcopy(usual)
    expected["train"]["held_out"] = 0.1
    expected["train"]["surrogate"]["n_steps"] = 7
    expected["train"]["posterior"]["width"] = 9
    expected["stress"]["cases"]["noise"] = 0.01
    expected["simulate"]["n_traces"] = 100
    assert told == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"train.surrogate.x": 1},
            "settings.train.surrogate.x: ecsfm has no such setting, only n_",
        ),
        ({"train.surrogate.n_steps.x": 1}, "has no such setting, only none"),
        ({"train": 1}, "settings.train: ecsfm has no such setting"),
        ({"infer.n_draws": 1}, "settings.infer.n_draws: ecsfm has no such setting"),
        ({"train.": 1}, "settings.train.: ecsfm has no such setting"),
        ({"train.surrogate": 1}, "train.surrogate"),
        ({"train.surrogate.n_steps": -1}, "train.surrogate.n_steps is -1"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        training_run.assert_trainable("ecsfm", changes)


@pytest.mark.parametrize(
    ("model_id", "sizes", "words"),
    [
        ("interface", Sizes(dataset=100), "--dataset-size: interface has no such setting"),
        ("interface", Sizes(batch=10), "--batch-size: interface has no such setting"),
    ],
)
def test_sizes_that_a_model_does_not_have_are_refused(model_id, sizes, words):
    with pytest.raises(ArtifactError, match=words):
        training_run.run(model_id, None, {}, None, sizes)


def test_the_name_of_an_experiment_is_that_of_a_folder():
    with pytest.raises(ArtifactError, match="expected up to 64 letters"):
        training_run.run("galaxy", None, {}, None, experiment="../up")
