"""What is counted of a potential programme, on programmes whose counts are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from touchstone.contract import load_model
from touchstone.models.ecsfm.data import excitation, family

CONFIG = load_model("ecsfm").config
N = 256


def triangle(cycles, n, start, end):
    part = np.arange(1, n + 1) / n * 2 * cycles % 2
    return start + (end - start) * (1 - np.abs(1 - part))


@given(
    cycles=st.sampled_from([0.5, 1, 1.5, 2, 3, 4, 6, 9]),
    start=st.floats(-1, 1),
    width=st.sampled_from([-1.2, -0.3, 0.5]),
    noise=st.floats(0, 3e-4),
    seed=st.integers(0, 99),
)
def test_cycles_and_scan_rate_of_a_triangle(cycles, start, width, noise, seed):
    potential = triangle(cycles, 20 * N, start, start + width)
    potential += noise * np.random.default_rng(seed).standard_normal(len(potential))
    found = excitation.of_potential(potential[19::20], duration=10.0)
    assert found.cycles == cycles
    assert found.scan_rate == pytest.approx(2 * cycles * abs(width) / 10.0, rel=0.05)
    assert (found.steps, found.periods) == (0, 0)


@given(
    periods=st.integers(4, 16),
    amplitude=st.floats(0.005, 0.1),
    ramp=st.sampled_from([0.0, 0.3, -1.0]),
    duration=st.floats(1e-3, 1e3),
)
def test_periods_and_frequency_of_a_tone_on_a_ramp(periods, amplitude, ramp, duration):
    time = np.arange(1, N + 1) / N
    wave = amplitude * np.sin(2 * np.pi * periods * time)
    slow = abs(ramp) < 2 * np.pi * periods * amplitude / 2  # else the ramp hides the tone
    found = excitation.of_potential(wave + (ramp * time if slow else 0.0), duration)
    assert found.periods == pytest.approx(periods, abs=1)
    assert found.frequency == pytest.approx(found.periods / duration)
    assert found.cycles == 0


def test_all_of_the_training_family_is_inside_and_what_it_lacks_is_outside():
    drawn = family.draw(np.random.default_rng(0), CONFIG, 2000, N, 19, {"frontier": 1.0})

    def said(potential, duration):
        return excitation.outside(excitation.of_potential(potential, duration), CONFIG, N)

    for potential, duration in zip(
        drawn.experiment.potential, drawn.experiment.duration, strict=True
    ):
        assert said(potential, float(duration)) == []
    (cycles,) = said(triangle(9, N, 0.0, 0.5), 9.0)
    assert "number of cycles is 9, trained from 0.5 to 4" in cycles
    (rate,) = said(triangle(1, N, 0.0, 0.5), 0.01)
    assert "scan rate is 100 V/s, trained from 0.005 to 5" in rate
    time = np.arange(1, N + 1) / N
    (frequency,) = said(0.01 * np.sin(2 * np.pi * 8 * time), 8000.0)
    assert "frequency is 0.001 Hz" in frequency
    (periods,) = said(0.01 * np.sin(2 * np.pi * 34 * time), 34.0)
    assert "number of periods is 34, trained from 4 to 32" in periods
    (steps,) = said(np.repeat([0.0, 0.3, -0.2, 0.1], N // 4), 1.0)
    assert "steps 3 times, trained with 1" in steps


@pytest.mark.parametrize("kind", ["tone", "pulses"])
def test_a_record_is_refused_that_would_be_thinned_below_what_its_oscillation_needs(kind):
    def written(periods, per_period):
        phase = np.arange(1, periods * per_period + 1) / per_period
        wave = np.sin(2 * np.pi * phase) if kind == "tone" else np.where(phase % 1 < 0.5, 1.0, -1.0)
        potential = -0.2 + 0.4 * phase / periods + 0.05 * wave
        return excitation.assert_resolved(potential, N)

    written(12, 40)  # 21 samples of a period are kept
    written(32, 8)  # as many readings as samples: nothing is thinned
    with pytest.raises(ValueError, match=r"oscillates 60 times in 2,400 readings.*4\.\d* a period"):
        written(60, 40)
