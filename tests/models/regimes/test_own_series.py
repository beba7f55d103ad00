"""Series of one's own through the workflow, in place of those that come with the package."""

import hashlib
import json

import numpy as np
import pytest
import yaml
from tiny_run import planned, project, said, snakemake

from touchstone.io import results
from touchstone.io.settings import recipe_of
from touchstone.models.regimes import series, synthetic


@pytest.fixture
def folder(tmp_path):
    """A project, with a CSV of series and the YAML beside it, whose treatment has two values."""
    rng = np.random.default_rng(3)
    table = synthetic.draw(rng, 200).table
    values = table.values.copy()
    values[:, 1] = values[:, 1] > 0
    series.write_csv(tmp_path / "my series.csv", table._replace(values=values))
    series.write_recipe(tmp_path / "my series.yaml", synthetic.RECIPE, "simulated")
    return project(tmp_path / "a run", "regimes")


def test_a_csv_takes_the_place_of_the_simulation(folder):
    given = str(folder.parent / "my series.csv")
    jobs = planned(folder, REGIMES_DATASET=given)
    assert "simulate chunk 0" not in " ".join(jobs)
    assert any(job.endswith("train the model") for job in jobs)


def test_the_file_that_says_what_the_series_are_is_an_input_of_the_training(folder):
    """The workflow misses the one that is named before anything runs."""
    given, file = folder.parent / "my series.csv", folder / "config/test.yaml"
    assert recipe_of({"meta": None}, given) == folder.parent / "my series.yaml"
    assert recipe_of({}, given) is None  # of a model that takes none
    settings = yaml.safe_load(file.read_text())
    settings["regimes"]["train"]["meta"] = "nowhere.yaml"
    file.write_text(yaml.safe_dump(settings))
    run = snakemake(folder, "--dry-run", REGIMES_DATASET=str(given))
    assert run.returncode != 0
    assert "Missing input files for rule train" in said(run)
    assert "nowhere.yaml" in said(run)


@pytest.mark.nightly
def test_a_csv_is_learnt_from_shown_and_hashed(folder, monkeypatch):
    given = str(folder.parent / "my series.csv")
    run = snakemake(folder, REGIMES_DATASET=given)
    assert run.returncode == 0, said(run)[-4000:]
    monkeypatch.setenv("REGIMES_DATASET", given)
    place = folder / results.folder("regimes")
    report = json.loads((place / "reports/train_report.json").read_text())
    names = [row["name"] for row in report["tables"][0]["rows"]]
    assert names == ["average", "calm", "turbulent", "average, doubly robust"]
    assert report["lineage"]["override"] == given
    recipe = folder.parent / "my series.yaml"
    digest = hashlib.sha256(recipe.read_bytes()).hexdigest()
    assert report["lineage"]["inputs"]["meta"] == {"path": str(recipe), "sha256": digest}
    for drawing in report["drawings"]:
        assert (place / f"figures/{drawing['name']}.png").stat().st_size > 5000
    page = (folder / "results/report.html").read_text()
    assert "Refused of the dates held out" in page
    assert page.count("data:image/png") >= len(report["drawings"])
