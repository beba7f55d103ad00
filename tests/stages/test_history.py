"""Rates of a rule over revisions."""

import copy
import sqlite3

import pytest

from touchstone.io.results import Results
from touchstone.stages import history


def report(revision, false_alarms=0.05, recall=0.6, model_id="a", alpha=0.05, n=100, about=None):
    def rate(value):
        return {"value": value, "low": value - 0.03, "high": value + 0.03, "n": 200}

    return {
        "model_id": model_id,
        "decision_score": {"fpr": rate(false_alarms), "tpr": rate(recall)},
        "harm": {"wrong": rate(0.1)},
        "lineage": {
            "settings": {"alpha": alpha},
            "inputs": {"stress": {"sha256": "0" * 64}},
            "parents": {"stress": {"settings": {"stress": {"n_cases": n}, "model": about or {}}}},
            "revision": revision,
            "date": f"2026-01-{int(revision):02}T00:00:00+00:00",
        },
    }


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results/a")


def test_a_revision_that_is_worse_by_more_than_both_intervals_is_told(results):
    history.append(report("1"), results)
    assert history.warnings(history.append(report("2", recall=0.56), results)) == []
    (said,) = history.warnings(history.append(report("3", recall=0.4), results))
    assert said.startswith("recall: 0.400 [0.370, 0.430], 0.560")
    (said,) = history.warnings(history.append(report("4", false_alarms=0.2, recall=0.5), results))
    assert said.startswith("false alarms: 0.200")


def test_better_is_no_warning(results):
    history.append(report("1"), results)
    rows = history.append(report("2", false_alarms=0.0, recall=0.9), results)
    assert history.warnings(rows) == []


def test_the_same_revision_again_takes_the_place_of_its_row(results):
    history.append(report("1"), results)
    rows = history.append(report("1", recall=0.7), results)
    assert rows["recall_value"].tolist() == [0.7]


def test_other_models_and_other_settings_are_not_compared(results):
    history.append(report("1"), results)
    history.append(report("2", model_id="b", recall=0.1), results)
    rows = history.append(report("3", alpha=0.1, recall=0.1), results)
    assert set(rows["model_id"]) == {"a"}
    assert history.warnings(rows) == []


def test_what_a_model_says_of_itself_may_change_between_revisions_that_are_compared(results):
    history.append(report("1", about={"version": "1.0", "help": "a"}), results)
    worse = report("2", recall=0.2, about={"version": "1.1", "help": "b"})
    worse["lineage"]["inputs"]["stress"]["sha256"] = "1" * 64
    (said,) = history.warnings(history.append(worse, results))
    assert said.endswith("code 1 became 2, score table 0000000000 became 1111111111")
    rows = history.append(report("3", recall=0.1, n=20), results)
    assert history.warnings(rows) == []
    assert history.comparable(rows)["revision"].tolist() == ["3"]


def test_rates_over_revisions_are_drawn(results, tmp_path):
    assert history.rows_of("a", results).empty
    for revision in ("1", "2", "3"):
        history.append(report(revision), results)
    rows = history.rows_of("a", results)
    assert rows["revision"].tolist() == ["1", "2", "3"]
    history.draw(rows, tmp_path / "history.png")
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_dies_while_it_writes_leaves_the_rows_that_were_there(results):
    history.append(report("1"), results)
    broken = copy.deepcopy(report("2"))
    broken["harm"]["wrong"]["value"] = object()
    with pytest.raises(sqlite3.Error):
        history.append(broken, results)
    assert len(history.append(report("3"), results)) == 2
