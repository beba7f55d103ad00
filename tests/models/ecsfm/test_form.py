"""The form: values in their place in the metadata, held against its bounds, and every problem."""

import pytest
import yaml

from touchstone import registry
from touchstone.contract import load_model
from touchstone.models.ecsfm.data.metadata import SCHEMA, read_meta
from touchstone.stages import predict

RECORD = {"E_V": [-0.1, 0.0, 0.1], "i_A": "1e-6, 2e-6 3e-6", "scan_rate_V_s": 0.1, "radius_mm": 1.5}
FIELDS = {field.name: field for field in registry.get_inference_form_fields("ecsfm")}


def problems_of(**changes):
    values, problems = registry.validate_inference_params("ecsfm", RECORD | changes)
    return problems + load_model("ecsfm").form_problems(values)


def test_every_field_has_its_place_in_the_metadata_and_the_bounds_of_its_key(tmp_path):
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))["properties"]
    keys = {
        **schema,
        **schema["electrode"]["properties"],
        **{f"hold_{key}": entry for key, entry in schema["hold"]["properties"].items()},
        **{
            f"{key}_{number}": entry
            for key, entry in schema["couples"]["items"]["properties"].items()
            for number in (1, 2)
        },
    }
    keys["hold_s"] = keys.pop("hold_seconds")
    for name in FIELDS.keys() - {"E_V", "i_A", "t_s"}:  # the record
        field, entry = FIELDS[name], keys[name]
        ends = [entry, *entry.get("oneOf", [])]
        low = [each[key] for each in ends for key in ("minimum", "exclusiveMinimum") if key in each]
        high = [
            each[key] for each in ends for key in ("maximum", "exclusiveMaximum") if key in each
        ]
        assert field.max_value == next(iter(high), None), name
        if field.type == "float" and name != "radius_factor":  # which is above 1
            assert field.min_value == next(iter(low), None), name
        assert field.options == entry.get("enum", []), name
    given = {
        name: field.default or ("x" if field.type == "string" else field.max_value or 1.5)
        for name, field in FIELDS.items()
    }
    given |= {"E_V": [0.0], "i_A": [0.0], "t_s": None, "area_mm2": None, "cycle": "2"}
    given |= {"alpha_1": 0.5, "alpha_2": 0.5}
    data, meta = tmp_path / "a.csv", tmp_path / "a.yaml"
    load_model("ecsfm").record(given, data, meta)
    said = read_meta(meta)
    assert said["hold"] == {"potential_V": 10, "seconds": 1.0e6}
    assert (said["cycle"], said["couples"][1]["species"]) == (2, "x")
    assert sum(map(len, said["couples"])) == sum(name[-2:] in ("_1", "_2") for name in given)


def test_what_a_couple_leaves_empty_is_inferred_and_a_second_couple_has_a_field_given(tmp_path):
    data, meta = tmp_path / "a.csv", tmp_path / "a.yaml"
    values, problems = registry.validate_inference_params("ecsfm", RECORD | {"E0_V_2": 0.2})
    assert problems == []
    load_model("ecsfm").record(values, data, meta)
    first, second = read_meta(meta)["couples"]
    assert first == {"C_ox_mM": "unknown", "C_red_mM": "unknown"}
    assert second == {**first, "E0_V": 0.2}
    assert data.read_text(encoding="utf-8").splitlines() == [
        "potential/V,current/A", "-0.1,1e-06", "0.0,2e-06", "0.1,3e-06"
    ]  # fmt: skip


def test_every_problem_is_said_at_once_with_its_field():
    assert problems_of() == []
    said = problems_of(
        E_V="0.1, x", i_A=[1e-6, float("nan"), True], radius_mm=900.0, area_mm2=2.0, hold_s=1.0,
        scan_rate_V_s=None, shape="cube", temperature_C="warm", colour="red",
    )  # fmt: skip
    names = [each.split(":")[0] for each in said]
    assert names == [
        "E_V", "i_A", "radius_mm", "shape", "temperature_C", "colour", "radius_mm", "t_s", "hold_s"
    ]  # fmt: skip
    assert problems_of(i_A=[1e-6]) == [
        "E_V: all columns of a record have as many numbers, but E_V has 3, i_A has 1"
    ]
    assert problems_of(E_V=[0.0, 99.0, -99.0]) == ["E_V: number 2: 99.0 is above 20 (and 1 more)"]
    with pytest.raises(predict.FormError, match=r"ecsfm: E_V: is missing.*i_A: is missing"):
        judge = None  # values are refused before an artefact is asked
        predict.run(load_model("ecsfm"), judge, {}, {"radius_mm": 1.0, "t_s": [1.0]})
