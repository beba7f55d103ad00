"""What the pages name exists. The site itself is built by `make docs`."""

import re
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from touchstone.contract import Model

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "results/README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}


def matches(pattern: str) -> list[tuple[str, str]]:
    """Every page beside what it says after a pattern."""
    found = {(page, each) for page, text in TEXTS.items() for each in re.findall(pattern, text)}
    return sorted(found)


def entries(nav: list[dict]) -> list[str]:
    """Files of a navigation, nested or not."""
    values = [value for entry in nav for value in entry.values()]
    return [file for v in values for file in (entries(v) if isinstance(v, list) else [v])]


def test_every_page_is_in_the_navigation():
    config = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    notebooks = {f"notebooks/{file.stem}.md" for file in (ROOT / "notebooks").glob("*.ipynb")}
    listed = entries(config["project"]["nav"])
    assert len(set(listed)) == len(listed)
    assert set(listed) == pages | notebooks


@pytest.mark.parametrize(("page", "target"), matches(r"\bmake ([a-z][a-z-]*)"))
def test_a_make_target_exists(page, target):
    assert f"\n{target}: " in (ROOT / "Makefile").read_text(encoding="utf-8")


FOLDERS = "src|tests|config|workflow|profiles|docs|benchmarks"


@pytest.mark.parametrize(("page", "path"), matches(rf"[`\"(]((?:{FOLDERS})/[\w./-]+)[`\")]"))
def test_a_path_exists(page, path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("page", "name"), matches(r"(?m)^::: ([\w.]+)$"))
def test_a_documented_name_exists(page, name):
    module, _, attribute = name.rpartition(".")
    in_package = module != "touchstone" and find_spec(module).submodule_search_locations
    assert find_spec(name) if in_package else hasattr(import_module(module), attribute)


def test_the_page_on_models_includes_every_file_of_the_example():
    folder = ROOT / "tests/models/example_decay"
    files = {str(p.relative_to(ROOT)) for p in folder.glob("*.*") if p.stat().st_size}
    included = re.findall(r'^--8<-- "(.*)"$', TEXTS["docs/new-model.md"], re.MULTILINE)
    assert sorted(included) == sorted(files)


def test_the_page_on_models_says_what_each_member_of_the_contract_is_for():
    needed, besides = re.findall(r"(?:^\| .*\n)+", TEXTS["docs/new-model.md"], re.MULTILINE)[1:3]
    members = {name for name in vars(Model) if not name.startswith("_")}
    rows = [set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) for table in (needed, besides)]
    assert rows[0] == Model.__abstractmethods__
    assert rows[0] | rows[1] == members - {"model_id", "stresses"}  # as config.yaml says
