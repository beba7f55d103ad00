"""What keeps an observation from being judged: a limit of the instrument, and no samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from touchstone.reliability.judgeable import obstacles, saturated
from touchstone.vocabulary import Cases


def wave(seed, n=200, noise=0.01):
    """A smooth record with noise, whose peak is near 1 in size."""
    rng = np.random.default_rng(seed)
    phase = np.linspace(0, 4 * np.pi, n) + rng.uniform(0, 2 * np.pi)
    return np.sin(phase) + noise * rng.standard_normal(n)


def cases_of(*observed, mask=None):
    observed = np.array(observed, float)
    n = len(observed)
    mask = np.ones(observed.shape, bool) if mask is None else mask
    nothing = np.zeros((n, 1))
    return Cases(observed, mask, nothing, nothing > 0, np.full(n, "wave"), np.arange(n), None)


@given(seed=st.integers(0, 2**32 - 1), limit=st.floats(0.3, 0.9), side=st.sampled_from([-1, 1]))
def test_a_record_that_is_cut_off_cannot_be_judged_and_a_whole_one_can(seed, limit, side):
    whole = wave(seed)
    cut = side * np.minimum(whole, limit)
    (words,), of_whole = obstacles(cases_of(cut)), obstacles(cases_of(whole))
    assert of_whole == [[]]
    assert f"the {'largest' if side > 0 else 'smallest'} value of the record" in words[0]


@pytest.mark.parametrize("resolution", [0.2, 0.05, 0.01, 0.001])
def test_a_coarse_resolution_is_no_limit(resolution):
    for seed in range(20):
        coarse = np.round(wave(seed, noise=0.0) / resolution) * resolution
        assert saturated(coarse) == 0, seed


def test_a_limit_shows_through_a_coarse_resolution():
    coarse = np.round(np.clip(wave(0), -2, 0.5) / 0.001) * 0.001
    assert saturated(coarse) > 20


def test_a_decay_to_a_steady_value_is_no_limit():
    decay = np.round(np.exp(-np.linspace(0, 4, 200)) / 0.001) * 0.001
    assert saturated(-decay) == saturated(decay) == 0


def test_what_is_not_observed_does_not_count():
    cut = np.minimum(wave(1), 0.5)
    mask = np.array([cut < 0.5])
    assert obstacles(cases_of(cut, mask=mask)) == [[]]


def test_no_samples_and_samples_that_are_no_numbers_are_told():
    broken = wave(2)
    broken[[3, 8]] = np.nan, np.inf
    mask = np.ones((2, 200), bool)
    mask[1] = False
    first, second = obstacles(cases_of(broken, wave(3), mask=mask))
    assert first == ["2 of 200 samples are not numbers"]
    assert second == ["no sample was observed"]
    assert obstacles(cases_of(np.full(9, np.nan))) == [["no sample was observed"]]


def test_a_constant_record_reaches_no_limit():
    assert saturated(np.full(50, 3.0)) == 0
