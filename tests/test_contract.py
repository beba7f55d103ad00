"""What a model promises to the workflow, and which way the arrows between the packages point."""

import ast
import inspect
from importlib.util import resolve_name
from pathlib import Path

import pytest
import yaml

import touchstone
from touchstone.contract import Model, load_model, model_ids

PACKAGE = Path(touchstone.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
CONTRACT = sorted(Model.__abstractmethods__)
MODEL_IDS = sorted(path.parent.name for path in PACKAGE.glob("models/*/config.yaml"))


def imported(module: str) -> set[str]:
    """Full names of all that a module imports, wherever in it."""
    path = MODULES[module]
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def within(name: str, package: str) -> bool:
    """Whether a name is a package or stands in it."""
    return f"{name}.".startswith(f"{package}.")


JUDGES = [
    module
    for module in MODULES
    if within(module, "touchstone.inference") or within(module, "touchstone.reliability")
]


@pytest.fixture(scope="module", params=MODEL_IDS)
def model(request):
    return load_model(request.param)


# The contract -------------------------------------------------------------------------------------


def test_every_folder_with_a_config_is_found():
    assert MODEL_IDS
    assert model_ids() == MODEL_IDS


def test_a_model_is_made_from_the_config_of_its_folder(model):
    path = PACKAGE / "models" / model.config["model_id"] / "config.yaml"
    assert model.config == yaml.safe_load(path.read_text(encoding="utf-8"))
    assert model.config["title"]


@pytest.mark.parametrize("name", CONTRACT)
def test_a_model_fills_the_contract_with_the_arguments_that_it_names(model, name):
    asked, given = getattr(Model, name), getattr(type(model), name)
    assert not getattr(given, "__isabstractmethod__", False)
    if not isinstance(asked, property):
        assert list(inspect.signature(given).parameters) == list(
            inspect.signature(asked).parameters
        )


def test_parameters_have_names_of_their_own_and_words(model):
    names = [parameter.name for parameter in model.parameters]
    assert len(set(names)) == len(names)
    assert all(parameter.meaning and parameter.scale > 0 for parameter in model.parameters)


def test_every_stress_belongs_to_a_group(model):
    assert model.config["stresses"]
    for entry in model.config["stresses"].values():
        assert entry["group"].isidentifier()


def test_what_is_watched_is_a_parameter(model):
    assert model.config["watched"]
    assert set(model.config["watched"]) <= {parameter.name for parameter in model.parameters}


def test_an_unknown_model_is_refused_with_a_list_of_those_that_exist():
    with pytest.raises(KeyError) as error:
        load_model("alchemy")
    assert "'alchemy'" in str(error.value)
    assert all(model_id in str(error.value) for model_id in MODEL_IDS)


# Arrows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", JUDGES)
def test_inference_and_reliability_know_no_model(module):
    assert not [name for name in imported(module) if within(name, "touchstone.models")]


@pytest.mark.parametrize("model_id", MODEL_IDS)
def test_a_model_is_imported_by_nothing_but_itself(model_id):
    folder = f"touchstone.models.{model_id}"
    others = [module for module in MODULES if not within(module, folder)]
    assert not [m for m in others if any(within(name, folder) for name in imported(m))]
