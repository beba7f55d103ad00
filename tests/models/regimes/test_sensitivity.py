"""Robustness values against the published example, and bounds against a cause that is there."""

from dataclasses import replace

import numpy as np
import pytest

from touchstone.models.regimes import findings, sensitivity

# Direct harm and attitudes to peace in Darfur: Cinelli and Hazlett (2020), table 1.
ESTIMATE, SE, DOF = 0.09731582, 0.02325654, 783


def test_the_published_robustness_values_are_obtained():
    t = ESTIMATE / SE
    assert 100 * sensitivity.partial_r2(t, DOF) == pytest.approx(2.187, abs=0.005)
    assert 100 * sensitivity.robustness(t, DOF) == pytest.approx(13.878, abs=0.005)
    assert 100 * sensitivity.robustness(t, DOF, level=0.95) == pytest.approx(7.626, abs=0.005)


def test_the_published_bound_by_the_covariate_female_is_obtained():
    d, y = sensitivity.bound(0.009082, 0.109032)
    assert (d, y) == (pytest.approx(0.009164, abs=2e-5), pytest.approx(0.124641, abs=2e-4))
    assert sensitivity.adjusted(ESTIMATE, SE, DOF, d, y) == pytest.approx(0.07522, abs=2e-4)


def test_a_cause_of_the_robustness_value_leaves_nothing():
    for t in (2.0, -5.0, 30.0):
        rv = sensitivity.robustness(t, 200)
        assert sensitivity.adjusted(0.1 * t, 0.1, 200, rv, rv) == pytest.approx(0, abs=1e-9)
    assert sensitivity.robustness(1.0, 200, level=0.9) == 0.0


def test_the_formula_gives_what_regressing_on_the_omitted_cause_gives():
    rng = np.random.default_rng(0)
    x, cause = rng.standard_normal((400, 2)), rng.standard_normal(400)
    d = x[:, 0] + 0.6 * cause + rng.standard_normal(400)
    y = 1.0 * d + x[:, 1] + 0.8 * cause + rng.standard_normal(400)
    short = sensitivity.regress(y, np.column_stack([d, x]))
    long = sensitivity.regress(y, np.column_stack([d, x, cause]))
    of_d = sensitivity.regress(d, np.column_stack([x, cause]))
    r2 = (
        sensitivity.partial_r2(of_d.slope[-1] / of_d.se[-1], of_d.dof),
        sensitivity.partial_r2(long.slope[-1] / long.se[-1], long.dof),
    )
    found = sensitivity.adjusted(short.slope[0], short.se[0], short.dof, *r2)
    assert found == pytest.approx(long.slope[0], rel=1e-9)


def test_a_cause_as_strong_as_a_control_is_bounded_by_that_control():
    """The cause and the first control act alike, and are independent."""
    rng = np.random.default_rng(1)
    x, cause = rng.standard_normal((20000, 2)), rng.standard_normal(20000)
    d = 0.4 * x[:, 0] + 0.4 * cause + rng.standard_normal(20000)
    y = 1.0 * d + 0.5 * x[:, 0] + 0.5 * cause + 0.3 * x[:, 1] + rng.standard_normal(20000)
    first, second = sensitivity.benchmarks(y, d, x, ("first", "second"))
    assert first.estimate == pytest.approx(1.0, abs=0.03)
    assert second.estimate > first.estimate


def test_controls_that_no_omitted_cause_can_be_as_strong_as_are_named(learnt):
    """The first explains more of the treatment than the others and itself leave."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((300, 3))
    d = 2 * x[:, 0] + 0.3 * x[:, 1] + rng.standard_normal(300)
    y = d + x[:, 1] + rng.standard_normal(300)
    found = findings.omitted_cause(replace(learnt[0], robustness=np.zeros(2)), y, d, x)
    assert found.title.endswith("No omitted cause can be as strong as a, given what these explain.")
    named = [row["name"] for row in found.rows[2:]]
    assert named == ["a cause as strong as b", "a cause as strong as c"]
