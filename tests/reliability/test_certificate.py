"""What a certificate writes is believed only where its own numbers give it."""

import copy
import math

import pytest
from scipy.special import betainc

from touchstone import contract
from touchstone.io import artifacts
from touchstone.reliability import guardrail
from touchstone.reliability.certificate import at_least, certified, holm, sign_p_value, wilson
from touchstone.stages import checkpoints


def released(model_id):
    folder = contract.folders()[model_id] / checkpoints.PRETRAINED
    files = (checkpoints.CERTIFICATE, checkpoints.GUARDRAIL)
    return [artifacts.read_json(folder / name) for name in files]


@pytest.mark.parametrize("model_id", ["ecsfm", "interface", "galaxy", "regimes"])
def test_what_was_released_holds_what_it_says(model_id):
    assert certified(*released(model_id)) == []


@pytest.mark.parametrize(("part", "n"), [(0.0, 5), (0.05, 500), (0.975, 40), (1.0, 3), (0.0, 0)])
def test_intervals_are_those_of_the_guardrail(part, n):
    assert wilson(part, n) == pytest.approx(guardrail.wilson(part, n)[1:3], abs=1e-12)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (22, 19), (0, 12), (300, 410)])
def test_exact_tests_are_those_of_scipy(first, second):
    assert sign_p_value(first, second) == pytest.approx(guardrail.sign_p_value(first, second))


@pytest.mark.parametrize(
    ("k", "n", "chance"), [(38, 980, 0.05), (1, 20, 0.2), (280, 280, 0.9), (3, 9, 1.0), (1, 9, 0.0)]
)
def test_a_chance_is_that_of_a_beta_distribution(k, n, chance):
    assert at_least(k, n, chance) == pytest.approx(betainc(k, n + 1 - k, chance), abs=1e-11)


def test_several_p_values_are_adjusted_as_after_holm():
    p_values = [0.01, 0.4, 0.01, 0.03, 0.9]
    assert holm(p_values) == pytest.approx(guardrail.holm(p_values))


def changed(certificate, path, value):
    *parents, last = path
    place = certificate
    for key in parents:
        place = place[key]
    place[last] = value


FORGERIES = {
    "no control": ([(("control", "stress", "tests"), [])], "severity 0 was not held"),
    "no control of the rule": ([(("control", "guardrail"), [])], "rule was not held"),
    "an adjusted p-value": (
        [(("control", "stress", "tests", 0, "p_value"), 1e-5)], "are not those of its tests"),
    "a joint p-value": ([(("control", "stress", "p_value"), 0.001)], "differs from the training"),
    "no number": ([(("control", "stress", "p_value"), math.nan)], "differs from the training"),
    "a p-value of the rule": (
        [(("control", "guardrail", 0, "only_control"), 15)], "are not those of its counts"),
    "a rule that differs": (
        [(("control", "guardrail", 0), {"only_control": 20, "only_reference": 0,
                                        "p_value": 2**-19})], "at another rate"),
    "no calibration": ([(("calibration",), [])], "no truths were tested"),
    "a calibration of one case": ([(("calibration", 0, "regions", "n"), 1)], "of 1 cases"),
    "a deviation": ([(("calibration", 0, "regions", "deviation"), 0.2)], "not uniform"),
    "one fresh case": (
        [(("false_alarms", "rate"), {"value": 0.0, "low": 0.0, "high": 0.79, "n": 1})], "too few"),
    "no rate": (
        [(("false_alarms", "rate"), {"value": None, "low": 0.0, "high": 1.0, "n": 0})], "too few"),
    "an interval": ([(("false_alarms", "rate", "low"), 0.01)], "none of 2000 cases"),
    "a rate": ([(("false_alarms", "rate", "value"), 0.0401)], "none of 2000 cases"),
    "too many alarms": ([(("false_alarms", "rate", "value"), 0.2)], "more than 0.05"),
    "a promise": ([(("false_alarms", "promised", "high"), 0.03)], "what is promised"),
    "a rank": ([(("false_alarms", "promised", "rank"), 12)], "what is promised"),
    "a chance": ([(("false_alarms", "chance_of_rate_below_alpha"), 0.999)], "what is promised"),
    "another rule": ([(("decision", "threshold"), 1.0)], "of another rule"),
    "another model": ([(("model_id",), "interface")], "of another rule"),
    "entries that are none": ([(("calibration",), [{}])], "not as `make release` writes"),
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_certificate_that_was_changed_is_refused(forgery):
    certificate, rule = released("galaxy")
    changes, words = FORGERIES[forgery]
    forged = copy.deepcopy(certificate)
    for path, value in changes:
        changed(forged, path, value)
    if words != "of another rule":
        rule |= {name: forged[name] for name in ("decision", "control")}
    (against,) = certified(forged, rule)
    assert words in against
