"""Sizes of a training as a user says them."""

import pytest

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
    simulate, train = training_run._sized("galaxy", Sizes(10_000, 100, 64))
    assert simulate == {"n_chunks": 1, "n_rows": 10_000}
    assert train["batch_size"] == 64
    assert train["n_steps"] * 64 == pytest.approx(100 * 9800, rel=1e-3)  # 2 % are held out
    assert training_run._sized("galaxy", Sizes()) == ({}, {})


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
