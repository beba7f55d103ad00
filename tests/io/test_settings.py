"""Settings: one schema, and whatever repeats it agrees with it."""

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

from touchstone.io.settings import ConfigError, check_config

ROOT = Path(__file__).parents[2]
SCHEMA_FILE = ROOT / "workflow/schemas/config.schema.yaml"
SCHEMA = yaml.safe_load(SCHEMA_FILE.read_text(encoding="utf-8"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


def load(name: str) -> dict:
    return yaml.safe_load((ROOT / "config" / name).read_text(encoding="utf-8"))


CONFIG = load("config.yaml")


def resolved(node: dict) -> dict:
    """A node of the schema with what it refers to."""
    name = node.get("$ref", "").removeprefix("#/$defs/")
    return SCHEMA["$defs"][name] | node if name else node


def leaves(node: dict, key: str = "") -> Iterator[tuple[str, dict]]:
    """Each setting and its schema, by dotted key."""
    for name, child in resolved(node).get("properties", {}).items():
        path = f"{key}.{name}".lstrip(".")
        if "properties" in resolved(child):
            yield from leaves(child, path)
        else:
            yield path, child


def defaults(node: dict):
    """What the schema says a setting is by default."""
    if "default" in node:
        return node["default"]
    return {name: defaults(child) for name, child in node["properties"].items()}


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


LEAVES = dict(leaves(SCHEMA))
BOUNDED = [(key, bound) for key, leaf in LEAVES.items() for bound in BOUNDS if bound in leaf]
NUMBERS = [key for key, leaf in LEAVES.items() if leaf.get("type") == "number"]


# Schema, configurations and words -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.yaml", "test.yaml", "paper.yaml"])
def test_every_configuration_is_what_the_schema_allows_and_complete(name):
    check_config(load(name), SCHEMA_FILE)
    assert set(flat(load(name))) == set(LEAVES)


@pytest.mark.parametrize("key", LEAVES)
def test_every_setting_is_described(key):
    assert LEAVES[key]["description"].strip()


def test_the_defaults_of_the_schema_are_the_values_of_the_configuration():
    assert defaults(SCHEMA) == CONFIG


def test_the_readme_names_every_setting_with_its_default():
    told = {}
    for section in (ROOT / "config/README.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        heading, *lines = section.splitlines()
        prefixes = [f"{name}." for name in re.findall(r"`([\w.]+)`", heading)] or [""]
        for line in lines:
            if line.startswith("| `"):
                name, *values, unit, meaning = (cell.strip(" `") for cell in line[1:-1].split("|"))
                assert unit and meaning, name
                for prefix, value in zip(prefixes, values, strict=True):
                    told[prefix + name] = yaml.safe_load(value)
    assert told == flat(CONFIG)


# What is refused ----------------------------------------------------------------------------------


def assert_refused(key: str, value, *allowed: str):
    """A ConfigError names the setting, its value and what is allowed."""
    config = copy.deepcopy(CONFIG)
    section_of(config, key)[key.rpartition(".")[2]] = value
    with pytest.raises(ConfigError) as error:
        check_config(config, SCHEMA_FILE)
    for words in (key, repr(value), *allowed):
        assert words in str(error.value)


@pytest.mark.parametrize("key", LEAVES)
def test_a_value_of_the_wrong_type_is_refused(key):
    kind = "enum" if "enum" in LEAVES[key] else "type"
    assert_refused(key, {"not": "this"}, f"{kind} {LEAVES[key][kind]}")


@pytest.mark.parametrize(("key", "bound"), BOUNDED)
@settings(max_examples=5, deadline=None)
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
        ("stress.posterior", "nuts", "enum ['flow', 'reweighted', 'cem']"),
        ("simulate.n_chunks", 4.0, "type integer"),
        ("models", [], "minItems 1"),
        ("models", ["ecsfm", "ecsfm"], "uniqueItems True"),
        ("stress.severities", [0.0], "minItems 2"),
        ("stress.severities", [0.5, 1.0], "contains {'const': 0}"),
    ],
)
def test_a_refusal_names_the_very_thing_that_is_wrong(key, value, allowed):
    assert_refused(key, value, allowed)


@pytest.mark.parametrize("key", LEAVES)
def test_a_misspelt_key_is_refused_with_a_list_of_those_that_exist(key):
    config = copy.deepcopy(CONFIG)
    section, name = section_of(config, key), key.rpartition(".")[2]
    known = ", ".join(section)
    section[f"{name}_"] = section.pop(name)
    with pytest.raises(ConfigError) as error:
        check_config(config, SCHEMA_FILE)
    place = key.rpartition(".")[0] or "(top level)"
    assert f"{place}: unknown key {name}_; allowed are {known}" in str(error.value)
    assert f"{place}: lacks {name}" in str(error.value)


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
    one_chunk.write_text("simulate: {n_chunks: 1}", encoding="utf-8")
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
    commands = map(shlex.split, re.findall(r"papermill (.*?) 2>&1", run.stdout))
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
        # what is empty by default is found when the notebook runs by itself
        assert value in (given[name], "", []), name
