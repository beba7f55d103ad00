"""One list of dependencies wherever it stands, and what the package may import."""

import ast
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def bounds(requirements: Iterable[str]) -> dict[str, SpecifierSet]:
    """What is asked of each package, by its normalised name."""
    parsed = map(Requirement, requirements)
    return {canonicalize_name(each.name): each.specifier for each in parsed}


DIRECT = bounds(PROJECT["dependencies"])


def imports(node: ast.AST, *, into_functions: bool) -> Iterator[str]:
    """Top-level names of the packages that a module imports."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and not child.level:
            yield child.module.partition(".")[0]
        elif into_functions or not isinstance(child, ast.FunctionDef):
            yield from imports(child, into_functions=into_functions)


# Lists of dependencies ----------------------------------------------------------------------------


def test_conda_users_get_the_same_dependencies_and_bounds():
    *packages, from_pip = CONDA
    python, *packages = packages
    packages.remove("pip")
    assert python.startswith("python=")
    assert bounds(packages + from_pip["pip"]) == DIRECT


def test_every_file_asks_for_the_same_python():
    version = (ROOT / ".python-version").read_text(encoding="utf-8").strip()
    assert PROJECT["requires-python"] == LOCK["requires-python"] == f"=={version}.*"
    assert CONDA[0] == f"python={version}.*"


def test_the_lock_holds_every_direct_dependency_within_its_bounds():
    locked = {package["name"]: package.get("version") for package in LOCK["package"]}
    for name, bound in DIRECT.items():
        assert locked[name] in bound, name


def test_the_lock_was_made_from_these_dependencies():
    (ours,) = (package for package in LOCK["package"] if package["name"] == PROJECT["name"])
    asked = [each for each in ours["metadata"]["requires-dist"] if "marker" not in each]
    assert {each["name"]: SpecifierSet(each["specifier"]) for each in asked} == DIRECT


# Licences -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DIRECT)
def test_no_dependency_that_all_users_get_is_under_the_gpl(name):
    about = metadata.metadata(name)
    stated = [about.get("License-Expression", ""), *about.get_all("Classifier", [])]
    assert not any("GPL" in words or "General Public License" in words for words in stated)


def test_the_gpl_reader_is_only_in_an_extra_of_its_own():
    extras = PROJECT["optional-dependencies"]
    assert "galvani" not in DIRECT
    assert [name for name, asked in extras.items() if "galvani" in bounds(asked)] == ["biologic"]
    assert list(bounds(extras["biologic"])) == ["galvani"]


# Imports of the package ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_a_module_knows_no_workflow_engine_and_loads_no_gpl_reader(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert {"snakemake", "papermill"}.isdisjoint(imports(tree, into_functions=True))
    assert "galvani" not in imports(tree, into_functions=False)
