"""The words that rooms exchange: rows of cases and posteriors, and what vouches for draws."""

from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from touchstone.vocabulary import Cases, Check, Computation, Posterior, Prediction


class Detail(NamedTuple):
    """What a model may keep of its cases: a tree of arrays, with branches that are empty."""

    number: np.ndarray
    of_branch: dict
    nothing: None = None


def cases_of(n):
    """Cases whose every array tells its case by its first entry."""
    first = np.arange(n)
    wide = first[:, None] + np.zeros((n, 3))
    return Cases(
        wide, wide > 0, wide[:, :2], wide[:, :2] > 0, first.astype(str), first, Detail(
            first, {"a": wide}
        )
    )  # fmt: skip


def posterior_of(n):
    """A posterior whose every array tells its case by its first entry."""
    first = np.arange(n)
    wide = first[:, None] + np.zeros((n, 3))
    computation = Computation({"k_hat": first}, {"k_hat": first}, {"k_hat": first})
    return Posterior(
        {"q": wide}, wide, wide, wide, wide, Prediction(*[wide] * 5), first, computation
    )  # fmt: skip


def leaves(tree):
    """All arrays of a tree of tuples and dictionaries, by their place in it."""
    if isinstance(tree, np.ndarray):
        return {(): tree}
    branches = tree if isinstance(tree, dict) else getattr(tree, "_asdict", dict)()
    return {
        (name, *place): leaf
        for name, branch in branches.items()
        for place, leaf in leaves(branch).items()
    }


@st.composite
def rows(draw):
    """A number of cases, and an index of some of them: a list, a mask or a slice."""
    n = draw(st.integers(1, 6))
    chosen = draw(st.lists(st.integers(0, n - 1), max_size=8))
    mask = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    index = st.sampled_from([np.array(chosen, int), np.array(mask), draw(st.slices(n))])
    return n, draw(index)


@given(rows())
def test_some_of_the_cases_have_the_rows_of_every_array(given):
    n, index = given
    for whole in (cases_of(n), posterior_of(n)):
        some = whole.take(index)
        assert type(some) is type(whole)
        before, after = leaves(whole), leaves(some)
        assert before.keys() == after.keys()
        for place, leaf in before.items():
            np.testing.assert_array_equal(after[place], leaf[index], err_msg=str(place))


@given(rows(), st.data())
def test_some_of_some_are_some(given, data):
    n, index = given
    cases = cases_of(n)
    few = cases.take(index)
    then = np.array(data.draw(st.permutations(range(len(few.kind)))), int)
    np.testing.assert_array_equal(few.take(then).system, cases.system[index][then])


def test_the_detail_of_a_model_keeps_its_type_and_its_empty_branches():
    some = cases_of(3).take([2, 0])
    assert type(some.detail) is Detail
    assert some.detail.nothing is None
    assert cases_of(3)._replace(detail=None).take([0]).detail is None


# Computations -------------------------------------------------------------------------------------

MEASURED = Computation(
    {"k_hat": np.array([0.5, 0.7, 0.9, np.nan, 0.5]), "effective": np.array([9, 5, 9, 9, np.nan])},
    largest={"k_hat": np.full(5, 0.7)},
    smallest={"effective": np.full(5, 5.0)},
)


def test_a_computation_is_sound_where_all_limits_are_kept_and_nan_keeps_none():
    assert MEASURED.passed["k_hat"].tolist() == [True, True, False, False, True]
    assert MEASURED.passed["effective"].tolist() == [True, True, True, True, False]
    assert MEASURED.sound(5).tolist() == [True, True, False, False, False]


def test_nothing_vouches_for_draws_without_a_limit():
    measured = Computation({"effective": np.array([900.0])}, {}, {})
    for computation in (measured, Computation.unchecked()):
        assert computation.passed == {}
        assert computation.sound(1).tolist() == [False]
        assert "nothing that could vouch" in computation.reason(0)


def test_the_reason_puts_every_figure_that_has_a_limit_beside_it():
    measured = MEASURED._replace(figures={**MEASURED.figures, "seconds": np.zeros(5)})
    assert measured.reason(2) == "k hat is 0.9 (at most 0.7), effective is 9 (at least 5)"
    assert measured.reason(3) == "k hat is nan (at most 0.7), effective is 9 (at least 5)"


def test_a_check_passes_up_to_its_tolerance_and_nan_never_does():
    obtained = (1.0, 1.25, 0.75, 1.26, np.nan)
    passed = [Check("x", 1.0, value, 0.25, "definition").passed for value in obtained]
    assert passed == [True, True, True, False, False]
