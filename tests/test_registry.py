"""The registry: healthy and broken folders, forms and their values, and what was made."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

import touchstone.models
from touchstone import registry
from touchstone.cli import app
from touchstone.contract import ModelsError, folders
from touchstone.io import artifacts, settings
from touchstone.io.results import Results
from touchstone.registry import FormField
from touchstone.stages import guardrail, infer, predict, scaffold, simulate, stress, train

ROOT = Path(__file__).parents[1]


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder of models that are found, with one in it that was just written."""
    own = tmp_path / "models"
    packages = [place for place in touchstone.models.__path__ if Path(place).is_relative_to(ROOT)]
    monkeypatch.setattr(touchstone.models, "__path__", [packages[0], str(own)])
    monkeypatch.setenv("TOUCHSTONE_MODELS", str(own))
    monkeypatch.chdir(tmp_path)
    own.mkdir()
    scaffold.write("fresh_model", own)
    yield own
    for name in [name for name in sys.modules if name.startswith("touchstone.models.fresh_model")]:
        del sys.modules[name]


def changed(folder, change):
    file = folder / "fresh_model/config.yaml"
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(yaml.safe_dump(content), encoding="utf-8")


def test_every_model_says_what_it_is():
    registered = registry.get_registry()
    assert registered.broken == {}
    assert {"ecsfm", "interface"} <= registered.models.keys()
    for about in registered.models.values():
        assert about.description.strip().endswith((".", "here."))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.pop("version"), "version: Field required"),
        (lambda c: c.update(status="finished"), "status: Input should be 'active'"),
        (lambda c: c.update(version=1.0), "version: Input should be a valid string (given: 1.0)"),
        (lambda c: c["parameters"]["level"].pop("unit"), "parameters.level.unit: Field required"),
        (lambda c: c.update(stresses={}), "stresses: Dictionary should have at least 1 item"),
        (lambda c: c["inference_params"][0].update(max_value=-20.0), "is above max_value -20.0"),
        (lambda c: c["inference_params"][0].update(default=99.0), "default: 99.0 is above 10.0"),
        (
            lambda c: c["inference_params"].append(c["inference_params"][0]),
            "level stands there twice",
        ),
        (lambda c: c["inference_params"][0].update(kind="x"), "inference_params.0.kind: Extra"),
    ],
)
def test_a_broken_folder_is_reported_with_file_and_key_and_hides_no_other(change, said, models):
    changed(models, change)
    registered = registry.get_registry()
    assert "ecsfm" in registered.models
    assert list(registered.broken) == ["fresh_model"]
    assert str(models / "fresh_model/config.yaml") in registered.broken["fresh_model"]
    assert said in registered.broken["fresh_model"]
    with pytest.raises(ModelsError, match=r"config\.yaml"):
        registry.get_model_metadata("fresh_model")


def test_a_module_that_does_not_import_is_reported_with_its_file(models):
    (models / "fresh_model/model.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    with pytest.raises(ModelsError, match=r"model\.py: ModuleNotFoundError: .*nothing_of_this"):
        registry.load_model_instance("fresh_model")
    (models / "fresh_model/model.py").unlink()
    assert "model.py: no such file" in registry.get_registry().broken["fresh_model"]
    (models / "fresh_model/config.yaml").write_text("a: [", encoding="utf-8")
    assert "not valid YAML" in registry.get_registry().broken["fresh_model"]


def test_lists_show_beta_and_hide_what_is_deprecated(models):
    assert ("fresh_model", "Fresh model (v0.1) [BETA]") in registry.get_model_for_dropdown()
    assert list(registry.get_all_models("new")) == ["fresh_model"]
    changed(models, lambda content: content.update(status="deprecated"))
    assert "fresh_model" not in dict(registry.get_model_for_dropdown())
    assert "fresh_model" not in command("models").output
    assert registry.get_model_status("fresh_model")["status"] == "deprecated"


FIELDS = {
    "integer": FormField(
        name="n", type="integer", label="n", min_value=1, max_value=9, required=True
    ),
    "float": FormField(name="x", type="float", label="x", min_value=-1.0, max_value=1.0),
    "string": FormField(name="s", type="string", label="s"),
    "select": FormField(name="c", type="select", label="c", options=["a", "b"]),
    "boolean": FormField(name="b", type="boolean", label="b"),
    "numbers": FormField(name="l", type="string", label="l", numbers=True, max_value=1.0),
}
ALLOWED = {
    "integer": lambda v: type(v) is int and 1 <= v <= 9,
    "float": lambda v: type(v) in (int, float) and math.isfinite(v) and -1 <= v <= 1,
    "string": lambda v: isinstance(v, str),
    "select": lambda v: v in ("a", "b"),
    "boolean": lambda v: isinstance(v, bool),
    "numbers": lambda v: (
        (isinstance(v, list) and len(v) > 0 and all(map(ALLOWED["list"], v)))
        or (isinstance(v, str) and v in ("0.5", "0.5, -2;0 1e-3"))
        or ALLOWED["list"](v)
    ),
    "list": lambda v: type(v) in (int, float) and math.isfinite(v) and v <= 1,
}
ONE = st.one_of(
    st.integers(-20, 20), st.floats(), st.text("abx, ", max_size=2), st.booleans(),
    st.sampled_from(["a", "0.5", "0.5, -2;0 1e-3"]),
)  # fmt: skip
VALUES = ONE | st.lists(ONE, max_size=3)


@given(kind=st.sampled_from(sorted(FIELDS)), value=VALUES)
def test_a_value_is_refused_if_and_only_if_the_field_does_not_allow_it(kind, value):
    assert bool(FIELDS[kind].problem(value)) != bool(ALLOWED[kind](value))


def test_every_problem_with_a_form_is_said_at_once():
    given = {"Tg_num": True, "Efield_num": math.nan, "d_pi": "wide", "quantile": 1.5, "Tg": 400}
    _, problems = registry.validate_inference_params("interface", given)
    assert [each.split(":")[0] for each in problems] == [
        "Efield_num", "Tg_num", "d_pi", "quantile", "Tg"
    ]  # fmt: skip
    values, problems = registry.validate_inference_params("interface", {"Tg_num": 400})
    assert problems == []
    assert (values["Tg_num"], values["quantile"], values["film"]) == (400.0, 0.8, None)


def test_the_defaults_of_a_training_are_those_that_a_run_takes():
    about, block = registry.get_model_metadata("interface"), settings.found(folders(), "interface")
    assert about.training["draws"] == block["interface"]["train"]["draws"]
    assert {"chains", "warmup", "target_accept"} <= about.training.keys()
    assert about.device == "cpu"


def test_a_field_without_sense_is_refused():
    with pytest.raises(ValidationError, match="a select has some"):
        FormField(name="c", type="select", label="c")
    with pytest.raises(ValidationError, match="no other type has any"):
        FormField(name="x", type="float", label="x", options=["1"])


def test_a_new_model_goes_through_all_stages_and_answers_its_form(models):
    model = registry.load_model_instance("fresh_model")
    results = Results(Path("results/fresh_model"))
    shared = settings.defaults(settings.schema())
    config = settings.complete({**shared, "models": ["fresh_model"]}, registry.contract.folders())

    def of_stage(stage):
        return settings.of_stage(config, "fresh_model", stage)

    assert not registry.has_trained_model("fresh_model")
    simulate.run(model, of_stage("simulate"), results, 0)
    report = train.run(model, of_stage("train"), results, [], []).report
    assert report["calibration"][0]["regions"]["p_value"] > 1e-3
    stress.run(model, of_stage("stress"), results)
    rule = guardrail.run(of_stage("guardrail"), results)
    severe = [
        row["flagged"]["value"] for row in rule.report["by_variant"] if row["severity"] == 1.0
    ]
    assert min(severe) > 0.8
    found = infer.run(model, of_stage("infer"), results, "x", *infer.example(model, 1, results))
    assert found.report["computation"]["verdict"] == "accept"
    judge = infer.prepare(model, results)
    answer = predict.run(model, judge, of_stage("infer"), {"level": 2.0})
    assert json.loads(command("predict", "fresh_model", "level=2.0", "--json").stdout)["estimates"]
    assert "ACCEPT" in command("predict", "fresh_model", "level=2.0").stdout
    assert "holds no chains" in command("ppc", "fresh_model").stderr
    (row,) = answer["estimates"]
    assert row["low"] < 2.0 < row["high"]
    with pytest.raises(artifacts.ArtifactError, match=r"level: 11.0 is above 10.0; .*unknown"):
        predict.run(model, judge, of_stage("infer"), {"level": 11.0, "lvel": 1})
    status = registry.get_model_status("fresh_model")
    assert status["is_trained"]
    assert not status["has_trace"]
    assert Path(status["output_dir"]) == registry.get_output_paths("fresh_model")["output"]


def test_what_a_model_has_made_is_found_where_the_stages_write_it(models):
    paths, results = registry.get_output_paths("fresh_model"), Results(Path("results/fresh_model"))
    assert paths == {
        "output": results.folder,
        "traces": results.traces,
        "reports": results.report("x").parent,
        "diagrams": results.figure("x").parent,
        "checkpoints": results.checkpoint.parent,
    }
    assert registry.get_latest_trace("fresh_model") is None
    paths["traces"].mkdir()
    for name, seconds in (("b.nc", 100), ("a.nc", 200), ("c.txt", 300)):
        (paths["traces"] / name).touch()
        os.utime(paths["traces"] / name, (seconds, seconds))
    assert registry.get_latest_trace("fresh_model") == paths["traces"] / "a.nc"
    everything = {each["model_id"]: each for each in registry.get_all_models_with_status()}
    assert everything.keys() == registry.get_all_models().keys()
    ours = everything["fresh_model"]
    assert (ours["has_trace"], ours["is_trained"], ours["last_trained"]) == (True, False, None)
    assert {"name", "version", "status", "output_dir"} <= ours.keys()
    assert not everything["interface"]["has_trace"]
    tagged = registry.get_all_models_with_status("scattering")
    assert [each["model_id"] for each in tagged] == ["interface"]


def test_a_new_model_passes_the_tests_of_the_contract(models):
    environment = {
        **os.environ,
        "TOUCHSTONE_MODELS": str(models),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0"]
    command += ["tests/test_contract.py", "-k", "fresh_model"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "7 passed" in done.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [("ecsfm", "there is a model of this name"), ("class", "no name"), ("My-Model", "no name")],
)
def test_a_name_that_cannot_be_a_model_is_refused(name, said, models):
    with pytest.raises(artifacts.ArtifactError, match=said):
        scaffold.write(name, models)


# The command line ---------------------------------------------------------------------------------


def command(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_a_list_of_models_has_the_broken_ones_with_the_reason(models):
    assert "fresh_model: Fresh model (v0.1) [BETA]" in command("models").output
    changed(models, lambda content: content.pop("author"))
    found = command("models")
    assert found.exit_code == 0
    assert "ecsfm: Electrochemical sensing" in found.stdout
    assert "fresh_model: BROKEN" in found.stderr
    assert "author: Field required" in found.stderr
    for refused in (command("info", "fresh_model"), command("predict", "fresh_model")):
        assert refused.exit_code == 2
        assert "author: Field required" in refused.stderr


def test_information_on_a_model_has_its_quantities_its_form_and_what_it_made(models):
    said = command("info", "fresh_model").output
    for words in ("level of the signal", "level to predict a sample at", "not trained"):
        assert words in said
    assert max(map(len, said.splitlines())) <= 80
    content = json.loads(command("info", "fresh_model", "--json").stdout)
    assert content["inference_params"][0]["max_value"] == 10.0
    assert content["here"]["is_trained"] is False
    assert "D_ox_1" in command("info", "ecsfm").output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "fresh_model"), "Snakefile: no such file"),
        (("train", "alchemy"), "'alchemy' is none of"),
        (("ppc", "fresh_model"), "nothing was trained"),
        (("predict", "fresh_model", "level"), "expected KEY=VALUE"),
        (("predict", "fresh_model", "level=1", "level=2"), "level is given twice"),
        (("new-model", "fresh_model"), "there is a model of this name"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(arguments, said, models):
    found = command(*arguments)
    assert found.exit_code == 2
    assert said in found.stderr
    assert "Traceback" not in found.output


def test_settings_that_a_model_does_not_have_are_refused(models):
    Path("Snakefile").touch()
    found = command("train", "fresh_model", "--draws", "10")
    assert found.exit_code == 2
    assert "--draws: fresh_model has no such setting, only held_out" in found.stderr
    for arguments, said in [
        (("--data", "none.csv"), "--data: none.csv: no such file"),
        (("--warmup", "1"), "interface.train.warmup is 1; allowed: "),
        (("--gpu",), "--gpu: interface is sampled on the CPU"),
        (("--gpu",), "--gpu: JAX finds none"),
    ]:
        if "JAX" in said and jax.default_backend() != "cpu":
            continue
        found = command("train", "ecsfm" if "JAX" in said else "interface", *arguments)
        assert (found.exit_code, found.stderr.count("\n")) == (2, 1)
        assert said in found.stderr
