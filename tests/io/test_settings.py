"""Settings: shared keys and a block for each model, and whatever repeats them agrees with them."""

import ast
import copy
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from touchstone import contract
from touchstone.io import settings as settings_
from touchstone.io.settings import SettingsError

ROOT = Path(__file__).parents[2]
FOLDERS = contract.folders()
MODEL_ID = "ecsfm"
OWN = settings_.schema(FOLDERS[MODEL_ID] / "settings.schema.yaml")
SHARED = settings_.schema()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
STAGES = ("simulate", "train", "stress", "guardrail", "infer")


def load(name: str) -> dict:
    return yaml.safe_load((ROOT / "config" / name).read_text(encoding="utf-8"))


CONFIG = load("config.yaml")


def resolved(node: dict, schema: dict) -> dict:
    """A node of the schema with what it refers to."""
    name = node.get("$ref", "").removeprefix("#/$defs/")
    return schema["$defs"][name] | node if name else node


def leaves(node: dict, schema: dict, key: str) -> Iterator[tuple[str, dict]]:
    """Each setting and its schema, by dotted key."""
    for name, child in resolved(node, schema).get("properties", {}).items():
        path, child = f"{key}.{name}".lstrip("."), resolved(child, schema)
        if "properties" in child:
            yield from leaves(child, schema, path)
        else:
            yield path, child


def flat(config: dict, key: str = "") -> dict:
    """Settings by dotted key."""
    if not isinstance(config, dict):
        return {key: config}
    entries = (flat(value, f"{key}.{name}".lstrip(".")) for name, value in config.items())
    return {name: value for entry in entries for name, value in entry.items()}


def section_of(config: dict, key: str) -> dict:
    """The section that a dotted key stands in."""
    return reduce(dict.__getitem__, key.split(".")[:-1], config)


def beyond(leaf: dict, bound: str) -> st.SearchStrategy:
    """Values on the wrong side of a bound."""
    side = "max" if "inimum" in bound else "min"
    if leaf["type"] == "integer":
        return st.integers(**{f"{side}_value": leaf[bound] + (1 if side == "min" else -1)})
    limit = {f"{side}_value": leaf[bound], f"exclude_{side}": not bound.startswith("exclusive")}
    return st.floats(**limit, allow_nan=False, allow_infinity=False)


LEAVES = dict(leaves(SHARED, SHARED, "")) | dict(leaves(OWN, OWN, MODEL_ID))
BOUNDED = [(key, bound) for key, leaf in LEAVES.items() for bound in BOUNDS if bound in leaf]
NUMBERS = [key for key, leaf in LEAVES.items() if leaf.get("type") == "number"]


# Schema, configurations and words -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.yaml", "test.yaml", "paper.yaml"])
def test_every_configuration_is_what_the_schemas_allow_and_complete(name):
    config = load(name)
    # A block is checked whether its model is among those that run or not.
    config["models"] = [model_id for model_id in FOLDERS if model_id in config]
    complete = settings_.complete(config, FOLDERS)
    others = set(config["models"]) - {MODEL_ID}
    for key in config.keys() - others:
        assert complete[key] == config[key]
    assert {key for key in flat(config) if key.split(".")[0] not in others} == set(LEAVES)
    # The blocks of the other models say what differs from their schemas, if anything.
    for model_id in others:
        of_block = flat(complete[model_id])
        assert all(of_block[key] == value for key, value in flat(config[model_id]).items())


@pytest.mark.parametrize("key", LEAVES)
def test_every_setting_is_described(key):
    assert LEAVES[key]["description"].strip()


def test_the_defaults_of_the_schema_are_the_values_of_the_configuration():
    assert settings_.defaults(OWN) == CONFIG[MODEL_ID]


def test_what_a_configuration_leaves_out_of_a_block_is_the_default():
    config = {**CONFIG, MODEL_ID: {"stress": {"n_cases": 7}}}
    block = settings_.complete(config, FOLDERS)[MODEL_ID]
    assert block["stress"] == {**CONFIG[MODEL_ID]["stress"], "n_cases": 7}
    assert block["train"] == CONFIG[MODEL_ID]["train"]


def test_a_model_of_ones_own_needs_no_block():
    config = {**CONFIG, "models": ["example_decay"]}
    del config[MODEL_ID]
    assert settings_.complete(config, FOLDERS)["example_decay"]["stress"]["n_cases"] == 40


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_sees_the_seed_and_nothing_of_other_stages(stage):
    changed = copy.deepcopy(CONFIG)
    for other in {"simulate", "stress", "infer"} - {stage}:
        changed[MODEL_ID][other] = {"n_chunks": 1, "changed": True}
    before, after = (settings_.of_stage(c, MODEL_ID, stage) for c in (CONFIG, changed))
    assert before == after
    assert before["seed"] == CONFIG["seed"]


# What is refused ----------------------------------------------------------------------------------


def assert_refused(key: str, value, *allowed: str):
    """A SettingsError names the setting, its value and what is allowed."""
    config = copy.deepcopy(CONFIG)
    section_of(config, key)[key.rpartition(".")[2]] = value
    with pytest.raises(SettingsError) as error:
        settings_.complete(config, FOLDERS)
    for words in (key, repr(value), *allowed):
        assert words in str(error.value)


@pytest.mark.parametrize("key", LEAVES)
def test_a_value_of_the_wrong_type_is_refused(key):
    kind = "enum" if "enum" in LEAVES[key] else "type"
    assert_refused(key, {"not": "this"}, f"{kind} {LEAVES[key][kind]}")


@pytest.mark.parametrize(("key", "bound"), BOUNDED)
@settings(max_examples=5)
@given(data=st.data())
def test_a_value_out_of_range_is_refused(key, bound, data):
    value = data.draw(beyond(LEAVES[key], bound))
    assert_refused(key, value, f"{bound} {LEAVES[key][bound]}")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_that_is_not_finite_is_refused(key, value):
    assert_refused(key, value)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("ecsfm.simulate.n_chunks", 4.0, "type integer"),
        ("models", [], "minItems 1"),
        ("models", ["ecsfm", "ecsfm"], "uniqueItems True"),
        ("ecsfm.stress.severities", [0.0], "minItems 2"),
        ("ecsfm.stress.severities", [0.5, 1.0], "contains {'const': 0}"),
    ],
)
def test_a_refusal_names_the_very_thing_that_is_wrong(key, value, allowed):
    assert_refused(key, value, allowed)


def test_a_model_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(SettingsError, match=r"models: alchemy is none of .*ecsfm"):
        settings_.complete({**CONFIG, "models": ["alchemy"]}, FOLDERS)


@pytest.mark.parametrize("key", LEAVES)
def test_a_misspelt_key_is_refused_with_a_list_of_those_that_exist(key):
    config = copy.deepcopy(CONFIG)
    section, name = section_of(config, key), key.rpartition(".")[2]
    known = ", ".join(section)
    section[f"{name}_"] = section[name]
    with pytest.raises(SettingsError) as error:
        settings_.complete(config, FOLDERS)
    place = key.rpartition(".")[0] or "configuration"
    assert f"{place}: unknown key {name}_; allowed are " in str(error.value)
    assert all(word in str(error.value) for word in known.split(", "))


# Notebooks ----------------------------------------------------------------------------------------

LINE = re.compile(r"(?P<name>\w+): (?P<type>str|int|float|bool|list|dict) = (?P<value>.+?)  # \S.*")


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def parameter_lines(path: Path) -> list[str]:
    """Lines of the cell that papermill overrides."""
    (cell,) = (c for c in cells(path) if "parameters" in c["metadata"].get("tags", ()))
    return "".join(cell["source"]).splitlines()


def parameters(path: Path) -> dict:
    """Defaults of a notebook's parameters."""
    matches = map(LINE.fullmatch, parameter_lines(path))
    return {match["name"]: ast.literal_eval(match["value"]) for match in matches}


@pytest.fixture(scope="module")
def passed(tmp_path_factory):
    """Parameters that the workflow gives each notebook, read from the commands it would run."""
    one_chunk = tmp_path_factory.mktemp("config") / "one_chunk.yaml"
    one_chunk.write_text("{models: [ecsfm], ecsfm: {simulate: {n_chunks: 1}}}", encoding="utf-8")
    overrides = ("_CHECKPOINT", "_DATASET_CHUNK")
    run = subprocess.run(
        [sys.executable, "-m", "snakemake", "-nFp", "--configfile", str(one_chunk)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.endswith(overrides)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    commands = map(shlex.split, re.findall(r"papermill (.*?) > ", run.stdout))
    return {next(w for w in words if w.endswith(".ipynb")): given_by(words) for words in commands}


def given_by(words: list[str]) -> dict:
    """Parameters among the words of a papermill command: -r as text, -p and -y as values."""
    found = {}
    for option, first, second in zip(words, words[1:], [*words[2:], ""], strict=False):
        if option == "-r":
            found[first] = second
        elif option == "-p":
            found[first] = ast.literal_eval(second)
        elif option == "-y":
            found |= yaml.safe_load(first)
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_its_results(path):
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_parameter_has_a_type_a_default_and_a_comment(path):
    for line in parameter_lines(path):
        match = LINE.fullmatch(line)
        assert match, line
        assert type(ast.literal_eval(match["value"])).__name__ == match["type"], line


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_parameters_of_a_notebook_are_what_the_workflow_passes(path, passed):
    given = passed[str(path.relative_to(ROOT))]
    defaults = parameters(path)
    assert set(defaults) == set(given)
    for name, value in defaults.items():
        assert type(value) is type(given[name]), name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_workflow_passes_a_notebook_the_settings_of_its_stage(path, passed):
    given = passed[str(path.relative_to(ROOT))]["settings"]
    stage = path.stem.partition("_")[2]
    assert given == settings_.of_stage(CONFIG, MODEL_ID, stage)
