"""What a model promises to the workflow, and which way the arrows between the rooms point."""

import ast
import re
import subprocess
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import numpy as np
import pytest
import yaml

import touchstone
from touchstone import contract
from touchstone.contract import Model, load_model
from touchstone.io import settings
from touchstone.vocabulary import Quantity

PACKAGE = Path(touchstone.__file__).parent
ROOT = Path(__file__).parents[1]
FLOORS = [
    ("vocabulary", "answer", "contract", "registry", "inference", "io", "figures"),
    ("models", "reliability"),
    ("stages",),
    ("cli", "client", "service", "__init__"),  # the last is the package's own list of what users call
]
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "templates" not in path.parts  # of new models
}
MODEL_IDS = sorted(contract.folders())


def imported(module: str) -> set[str]:
    """Modules of the package that a module imports, wherever in it."""
    path = MODULES[module]
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return {name for name in names if name in MODULES}


def room(module: str) -> str:
    """Room of a module: the first name below the package."""
    return module.split(".")[1]


def floor(module: str) -> int:
    """Number of the floor that a module stands on, from below."""
    (number,) = (n for n, rooms in enumerate(FLOORS) if room(module) in rooms)
    return number


@pytest.fixture(scope="module", params=MODEL_IDS)
def model(request):
    return load_model(request.param)


# The contract -------------------------------------------------------------------------------------


def test_a_model_needs_ten_members_at_most():
    assert len(Model.__abstractmethods__) <= 10


def test_models_outside_of_the_package_are_found(model):
    assert "example_decay" in MODEL_IDS  # stands beside the tests
    assert not contract.folders()["example_decay"].is_relative_to(PACKAGE)


def test_a_folder_of_models_that_does_not_exist_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TOUCHSTONE_MODELS", str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"TOUCHSTONE_MODELS: .*none is no folder"):
        contract.folders()


def test_a_model_is_made_from_the_config_of_its_folder(model):
    path = contract.folders()[model.model_id] / "config.yaml"
    of_file = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert model.config == {"model_id": model.model_id, **of_file}
    assert model.config["name"]


def test_quantities_have_names_of_their_own_and_words(model):
    names = [quantity.name for quantity in model.quantities]
    assert len(set(names)) == len(names)
    assert all(quantity.meaning and quantity.scale > 0 for quantity in model.quantities)


def test_what_is_watched_is_a_quantity(model):
    assert model.config["watched"]
    assert set(model.config["watched"]) <= {quantity.name for quantity in model.quantities}


def test_every_stress_belongs_to_a_group(model):
    assert model.stresses
    assert all(group.isidentifier() for group in model.stresses.values())


def test_exact_values_are_obtained(model):
    assert [check.name for check in model.checks() if not check.passed] == []


def test_the_settings_of_a_model_are_complete_and_have_a_budget_for_each_method(model):
    config = settings.load(contract.folders(), ROOT / "config/config.yaml")
    block = settings.complete({**config, "models": [model.model_id]}, contract.folders())
    block = block[model.model_id]
    assert set(model.methods) <= set(block["budgets"])
    assert set(block["calibration"]["n_cases"]) <= set(model.methods)


def test_an_unknown_model_is_refused_with_a_list_of_those_that_exist():
    with pytest.raises(KeyError) as error:
        load_model("alchemy")
    assert "'alchemy'" in str(error.value)
    assert all(model_id in str(error.value) for model_id in MODEL_IDS)


# Quantities ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prior", "numbers", "low", "high"),
    [
        ("uniform", {"low": -1.0, "high": 3.0}, -1.0, 3.0),
        ("loguniform", {"low": 0.1, "high": 1000.0}, 0.1, 1000.0),
    ],
)
def test_a_bounded_quantity_reaches_its_bounds(prior, numbers, low, high):
    quantity = Quantity.from_config("q", {"prior": prior, "unit": "", "meaning": "m", **numbers})
    ends = quantity.location + quantity.scale * np.array([-1, 1])
    np.testing.assert_allclose(quantity.value(ends), [low, high])
    np.testing.assert_allclose(quantity.coordinate(quantity.value(ends)), ends)


def test_an_unknown_prior_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match="q: prior 'cauchy' is none of uniform, loguniform"):
        Quantity.from_config("q", {"prior": "cauchy", "unit": "", "meaning": ""})


# Arrows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [name for name in MODULES if "." in name])
def test_imports_point_down(module):
    above = [name for name in imported(module) - {"touchstone.__init__"} if "." in name]
    assert [name for name in above if floor(name) > floor(module)] == []


def test_there_is_no_circle_of_imports():
    tuple(TopologicalSorter({name: imported(name) for name in MODULES}).static_order())


@pytest.mark.parametrize(
    "model_id", sorted(p.parent.name for p in PACKAGE.glob("models/*/config.yaml"))
)
def test_a_model_is_imported_by_nothing_but_itself(model_id):
    folder = f"touchstone.models.{model_id}"
    others = [name for name in MODULES if not f"{name}.".startswith(f"{folder}.")]
    assert [n for n in others if any(f"{m}.".startswith(f"{folder}.") for m in imported(n))] == []


WORDS = re.compile(r"ecsfm|couple|surrogate|(?<!aria-)\bcurrent|volt", re.IGNORECASE)


@pytest.mark.parametrize("place", ["src/touchstone", "workflow", "notebooks"])
def test_shared_rooms_name_nothing_of_one_model(place):
    listed = subprocess.run(
        ["git", "ls-files", place], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    files = [Path(name) for name in listed] or list((ROOT / place).rglob("*"))
    found = []
    for path in files:
        file = ROOT / path
        if "models" in path.parts or file.suffix not in (".py", ".yaml", ".smk", ".ipynb", ".j2"):
            continue
        for line in file.read_text(encoding="utf-8").splitlines():
            if WORDS.search(line) and "example" not in line.lower():
                found.append(f"{path}: {line.strip()}")
    assert found == []
