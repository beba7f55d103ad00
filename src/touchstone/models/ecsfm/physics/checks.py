"""The simulator beside exact answers, in the precision and at the resolution that it is used in."""

import jax
import jax.numpy as jnp
import numpy as np

from touchstone.models.ecsfm.physics.instrument import Instrument
from touchstone.models.ecsfm.physics.kinetics import FARADAY, Couples, inverse_thermal_voltage
from touchstone.models.ecsfm.physics.simulator import Electrode, simulate
from touchstone.models.ecsfm.physics.waveforms import Waveform, time_steps
from touchstone.vocabulary import Check

_N = 512
_D, _C, _AREA, _T = 1e-5, 1e-6, 0.07, 298.15


def physics_checks() -> list[Check]:
    """Peaks, steps and an RC circuit: what the simulator gives and what is exact."""
    return [*_peaks(), *_steps(), _rc_circuit()]


def _couple(**changes: float) -> Couples:
    values = {"d_ox": _D, "d_red": _D, "c_ox": _C, "c_red": 0.0, "e0": 0.0, "k0": 1e3}
    values = {**values, "transfer_coefficient": 0.5, **changes}
    return Couples(**{name: jnp.array([value], jnp.float32) for name, value in values.items()})


def _sweep(start: float, end: float, duration: float) -> Waveform:
    """One linear sweep in equal steps."""
    return Waveform(
        jnp.full(_N, 1 / _N),
        jnp.linspace(start, end, _N + 1),
        jnp.arange(1, _N + 1),
        jnp.float32(duration),
        1 / _N,
    )


def _peak(waveform: Waveform, couple: Couples) -> tuple[float, float, float]:
    """Height (A), potential and half-height potential (V) of the cathodic peak of a sweep."""
    from scipy.interpolate import CubicSpline  # slow to import, and needed only here

    current = jax.jit(simulate)(waveform, couple, Electrode(_AREA, _T)).current
    x = -np.asarray(waveform.potential[1:], float)
    spline = CubicSpline(x, -np.asarray(current, float))
    peaks = [p for p in spline.derivative().roots(extrapolate=False) if spline(p) > 0]
    peak = max(peaks, key=spline)
    half = [h for h in spline.solve(spline(peak) / 2, extrapolate=False) if h < peak]
    return float(spline(peak)), float(-peak), float(-half[-1])


def _peaks() -> list[Check]:
    f = inverse_thermal_voltage(_T)
    rate = 0.1
    height, peak, half = _peak(_sweep(0.5, -0.5, 1.0 / rate), _couple())
    chi = height / (FARADAY * _AREA * _C * np.sqrt(_D * f * rate))
    book = "Nicholson & Shain 1964"
    table = [
        Check("reversible peak, √π χ", 0.4462947, chi, 0.0005 * 0.446, book),
        Check("reversible E_p − E½ (mV)", -28.492, 1e3 * peak, 0.2, book),
        Check("reversible |E_p − E_p/2| (mV)", 56.584, 1e3 * abs(peak - half), 0.2, book),
    ]
    alpha = 0.5
    slow = _couple(k0=1e-5, transfer_coefficient=alpha)
    height, peak, half = _peak(_sweep(0.3, -0.9, 1.2 / rate), slow)
    chi = height / (FARADAY * _AREA * _C * np.sqrt(_D * alpha * f * rate))
    table += [
        Check("irreversible peak, √π χ(bt)", 0.4957629, chi, 0.0005 * 0.496, book),
        Check("irreversible α|E_p − E_p/2| (mV)", 47.717, 1e3 * alpha * (half - peak), 0.2, book),
    ]
    return table


def _steps() -> list[Check]:
    step, sample = time_steps(_N)
    duration = 10.0
    waveform = Waveform(
        jnp.asarray(step, jnp.float32),
        jnp.full(len(step) + 1, -0.6),
        jnp.asarray(sample),
        jnp.float32(duration),
        float(step.min()),
    )
    late = np.arange(1, _N + 1) > 0.02 * _N
    t = np.arange(1, _N + 1)[late] / _N * duration
    table = []
    cottrell, radius = np.sqrt(_D / (np.pi * t)), 5e-3
    bent = jnp.float32(1 / radius)
    for name, electrode, exact, tolerance, book in (
        ("Cottrell", Electrode(_AREA, _T), cottrell, 5e-3, "Cottrell 1903"),
        (
            "sphere, r = 50 µm",
            Electrode(_AREA, _T, bent),
            cottrell + _D / radius,
            5e-3,
            "Bard & Faulkner eq. 5.2.18",
        ),
        (
            "disc, r = 50 µm",
            Electrode(_AREA, _T, bent, 1.0),
            _disc(t, radius),
            8e-3,  # the kernel of the disc is right to 0.5 %
            "Aoki & Osteryoung 1984",
        ),
    ):
        current = jax.jit(simulate)(waveform, _couple(), electrode).current
        ratio = -np.asarray(current, float)[late] / (FARADAY * _AREA * _C * exact)
        worst = ratio[np.argmax(np.abs(ratio - 1))]
        table.append(
            Check(f"{name} after 2 % of the step, worst i/exact", 1.0, worst, tolerance, book)
        )
    return table


def _disc(t: np.ndarray, radius: float) -> np.ndarray:
    """Limiting flux over the concentration to a disc in a plane, cm/s: two series that meet."""
    tau = 4 * _D * t / radius**2
    soon = np.sqrt(np.pi / (4 * tau)) + np.pi / 4 + 0.094 * np.sqrt(tau)
    late = 1 + 0.71835 / np.sqrt(tau) + 0.05626 * tau**-1.5 - 0.00646 * tau**-2.5
    return 4 / np.pi * _D / radius * np.where(tau < 1.2, soon, late)


def _rc_circuit() -> Check:
    resistance, capacitance, rate = 1e6, 20e-6, 0.1
    waveform = _sweep(0.0, 0.5, 0.5 / rate)
    cell = Instrument(jnp.float32(resistance), jnp.float32(capacitance))
    blank = _couple(c_ox=0.0)
    current = jax.jit(simulate)(waveform, blank, Electrode(_AREA, _T), cell).current
    t = np.arange(1, _N + 1) / _N * 0.5 / rate
    tau = resistance * capacitance * _AREA
    exact = _AREA * capacitance * rate * (1 - np.exp(-t / tau))
    worst = np.argmax(np.abs(np.asarray(current) - exact))
    final = _AREA * capacitance * rate
    return Check(
        "ramp into R and C, worst i/(C v)",
        float(exact[worst] / final),
        float(current[worst] / final),
        1e-3,
        "linear circuit",
    )
