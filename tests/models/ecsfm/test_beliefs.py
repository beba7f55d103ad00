"""What is known and believed from elsewhere, and what a record cannot tell."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from touchstone.models.ecsfm.data import beliefs

COUPLE = {"C_ox_mM": 1.0, "C_red_mM": 0}
META = {"electrode": {"radius_mm": 1.0}, "couples": [COUPLE]}


def stated(couple=None, electrode=None, **more):
    changed = {
        "electrode": META["electrode"] | (electrode or {}),
        "couples": [COUPLE | (couple or {})],
        **more,
    }
    return beliefs.stated(changed, spread=0.4)


def assert_holds_90_per_cent(belief, median, factor):
    ends = norm.ppf([0.05, 0.5, 0.95], belief.mean, belief.sd)
    np.testing.assert_allclose(np.exp(ends), [median / factor, median, median * factor])


def test_a_number_is_known():
    given, believed = stated({"D_ox_cm2_s": 8e-6}, resistance_ohm=100)
    assert given == pytest.approx(
        {"C_ox_1": 0.0, "D_ox_1": math.log(8e-6), "resistivity": math.log(40)}
    )
    assert believed == {}


def test_a_factor_is_believed():
    value = {"median": 8e-6, "factor": 1.5}
    given, believed = stated({"D_ox_cm2_s": value}, resistance_ohm={"median": 100, "factor": 2})
    assert set(given) == {"C_ox_1"}
    assert_holds_90_per_cent(believed["D_ox_1"], 8e-6, 1.5)
    assert_holds_90_per_cent(believed["resistivity"], 40, 2)


def test_doubt_about_the_radius_is_twice_the_doubt_about_the_concentration():
    given, believed = stated(electrode={"radius_factor": 1.01})
    assert given == {}
    assert_holds_90_per_cent(believed["C_ox_1"], 1.0, 1.01**2)


def test_doubts_add_as_independent_ones_do():
    both = stated({"C_ox_mM": {"median": 1.0, "factor": 1.1}}, {"radius_factor": 1.1})[1]
    one = stated({"C_ox_mM": {"median": 1.0, "factor": 1.1}})[1]
    two = stated(electrode={"radius_factor": 1.1})[1]
    name = "C_ox_1"
    assert both[name].sd == pytest.approx(math.hypot(one[name].sd, two[name].sd))


def test_a_species_brings_what_is_published_and_gives_way_to_what_is_said():
    _, believed = stated({"species": "RuHex"})
    assert_holds_90_per_cent(believed["D_ox_1"], 8.4e-6, 1.3)
    given, believed = stated({"species": "RuHex", "D_ox_cm2_s": 9e-6})
    assert believed == {}
    assert given["D_ox_1"] == pytest.approx(math.log(9e-6))


def test_an_unknown_species_is_named_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"species is 'unobtainium', which is none of Ru"):
        stated({"species": "unobtainium"})


@pytest.mark.parametrize("name", list(beliefs.species()))
def test_every_species_has_a_source_and_a_belief(name):
    entry = beliefs.species()[name]
    belief = beliefs.of_value(entry["D_ox_cm2_s"])
    assert 1e-6 < math.exp(belief.mean) < 1e-4
    assert 0.02 < belief.sd < 0.5
    assert entry["source"]
