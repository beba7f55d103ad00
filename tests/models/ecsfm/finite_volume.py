"""The whole forward problem solved the straightforward way: finite volumes, float64, one trace.

Fick's second law on an expanding grid, Butler-Volmer kinetics, the cell (R_u, film, double layer)
and the coverage, all implicit, with the two-stage L-stable Runge-Kutta method of Alexander (1977).
Plain numbers go in and arrays come out. It knows nothing of the package, so that what the two have
in common is the physics.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_banded
from scipy.optimize import brentq

F, R = 96485.33212, 8.314462618
STAGE = 1 - 2**-0.5  # makes the method second order and L-stable

# Biofouling at its reference values; `r_max` belongs to the electrode area of 0.01 cm^2.
REFERENCE_FOULING = {
    "theta": 0.0,
    "k_ads": 4200.0,
    "k_des": 8e-5,
    "k_clean": 0.02,
    "k_reaction": 0.004,
    "gamma": 2e-9,
    "n": 1.0,
    "r_0": 0.0,
    "r_max": 1800.0,
    "q": 1.2,
    "a_min": 0.09,
    "p": 1.0,
    "c": 2.8,
    "d": 0.82,
    "floor": 0.25,
    "threshold": 0.75,
}


class Trace(NamedTuple):
    """At the end of each sampling interval: current (A), theta, interfacial potential (V)."""

    current: np.ndarray
    coverage: np.ndarray
    interface: np.ndarray


class Grid(NamedTuple):
    """Cells of one diffusing form: C' = (three bands) C + source * (flux at the electrode)."""

    bands: np.ndarray  # as `solve_banded` takes them, shape (3, cells)
    source: float  # electrode area over volume of the first cell, 1/cm
    half: float  # distance from the electrode to the first cell's centre over D, s/cm


def expanding_grid(d: float, duration: float, radius: float | None, growth: float) -> Grid:
    """Cells that grow away from the electrode, to where nothing arrives within the duration."""
    reach = 8 * np.sqrt(d * duration)
    first = 0.02 * (growth - 1) * min(np.sqrt(d * duration), radius or np.inf)
    n = int(np.log1p(reach / first * (growth - 1)) / np.log(growth)) + 1
    edges = first * (growth ** np.arange(n + 1) - 1) / (growth - 1)
    centres = (edges[1:] + edges[:-1]) / 2
    if radius is None:
        face, volume = np.ones(n + 1), np.diff(edges)
    else:
        face = (1 + edges / radius) ** 2
        volume = np.diff((radius + edges) ** 3) / (3 * radius**2)
    exchange = d * face[1:-1] / np.diff(centres)
    bands = np.zeros((3, n))
    bands[0, 1:] = exchange / volume[:-1]
    bands[2, :-1] = exchange / volume[1:]
    bands[1, :-1] -= exchange / volume[:-1]
    bands[1, 1:] -= exchange / volume[1:]
    return Grid(bands, 1 / volume[0], centres[0] / d)


def simulate(
    segments: list[np.ndarray],
    interval: float,
    couples: list[dict[str, float]],
    *,
    area: float,
    temperature: float = 298.15,
    radius: float | None = None,
    resistance: float = 0.0,
    capacitance: float = 0.0,
    fouling: dict[str, float] | None = None,
    growth: float = 1.05,
    substeps: int = 4,
) -> Trace:
    """One experiment that starts from uniform bulk concentrations.

    Args:
        segments: Applied potential, V, at equally spaced instants, linear in between. The first
            of each segment is what the potential jumps to where the last segment ends.
        interval: Between those instants, s.
        couples: Each with d_ox, d_red, c_ox, c_red (mol/cm^3), e0, k0 and alpha.
        area: cm^2.
        temperature: K.
        radius: Of a sphere, cm; None for a plane.
        resistance: ohm.
        capacitance: F/cm^2.
        fouling: As `REFERENCE_FOULING`, couple 0 fouls; None for a clean electrode.
        growth: Ratio of neighbouring cells.
        substeps: Time steps to a sampling interval; more where a segment begins.

    Returns:
        One value for each interval.
    """
    duration = interval * sum(len(s) - 1 for s in segments)
    e0, k0, alpha = (np.array([c[name] for c in couples]) for name in ("e0", "k0", "alpha"))
    c_ox, c_red = (np.array([c[name] for c in couples]) for name in ("c_ox", "c_red"))
    grids = [
        expanding_grid(c[d], duration, radius, growth) for d in ("d_ox", "d_red") for c in couples
    ]
    bands = np.concatenate([g.bands for g in grids], axis=1)
    first = np.cumsum([0] + [g.bands.shape[1] for g in grids[:-1]])
    half = np.array([g.half for g in grids])
    source = np.zeros(bands.shape[1])
    source[first] = [g.source for g in grids]
    f = F / (R * temperature)
    film = fouling or {**REFERENCE_FOULING, "gamma": 0.0, "k_ads": 0.0, "k_reaction": 0.0}
    film_scale = 0.01 / area

    def stage(old, h, applied):
        """Solve y = old + h y'(y) for concentrations, interfacial potential and coverage."""
        old_c, old_e, old_theta = old
        matrix = -h * bands
        matrix[1] += 1
        # what each form keeps at the electrode, and what a unit of flux adds to it
        solved = solve_banded((1, 1), matrix, np.column_stack([old_c, h * source]))
        kept_ox, kept_red = np.split(solved[first, 0], 2)
        gain_ox, gain_red = np.split(solved[first, 1] + half, 2)
        kept_ox, kept_red = kept_ox + c_ox, kept_red + c_red
        cleaning = film["k_des"] + film["k_clean"] * (applied >= film["threshold"])

        def settle(e, theta):
            """Potential, flux, current and new coverage where the coverage acts as `theta`."""
            bare = film["a_min"] + (1 - film["a_min"]) * (1 - theta) ** film["p"]
            k = bare * k0 * np.exp(-film["c"] * theta)
            ohms = resistance + film_scale * (film["r_0"] + film["r_max"] * theta ** film["q"])
            farads = max((1 - film["d"] * theta) * bare, film["floor"]) * capacitance * area
            adsorption = area * film["n"] * F * film["gamma"] * (theta - old_theta) / h

            def flux(e):
                forward = k * np.exp(-alpha * f * (e - e0))
                backward = k * np.exp((1 - alpha) * f * (e - e0))
                drag = 1 + backward * gain_red + forward * gain_ox
                return (backward * kept_red - forward * kept_ox) / drag

            def current(e):
                return F * area * flux(e).sum() + farads * (e - old_e) / h + adsorption

            def loop(e):
                return e + ohms * current(e) - applied

            if ohms == 0:
                e = applied
            elif (excess := loop(e)) != 0:
                # the left side rises at least as fast as e, which brackets the root
                e = brentq(loop, *sorted([e, e - 1.001 * excess]), xtol=1e-12)
            j = flux(e)
            present = kept_ox[0] + kept_red[0] + (gain_ox[0] - gain_red[0]) * j[0]
            gaining = film["k_ads"] * present + film["k_reaction"] * abs(F * j.sum())
            covered = (old_theta + h * gaining) / (1 + h * (gaining + cleaning))
            return e, j, current(e), covered

        e, theta, change = old_e, old_theta, 1.0
        while change > 1e-9:
            e, j, total, covered = settle(e, theta)
            theta, change = covered, abs(covered - theta)
        flow = np.repeat([1, -1], len(couples)) * np.tile(j, 2)
        c = solved[:, 0] + solved[:, 1] * np.repeat(flow, np.diff([*first, len(old_c)]))
        return (c, e, theta), total

    state = (np.zeros(bands.shape[1]), segments[0][0], film["theta"])
    record = []
    for segment in segments:
        for i, (start, end) in enumerate(pairwise(segment)):
            if i == 0:
                times = np.append(0.0, np.geomspace(1e-4, 1.0, 16 * substeps))
            else:
                times = np.linspace(0.0, 1.0, substeps + 1 + 6 * substeps // i)
            for t, dt in zip(times[:-1], np.diff(times), strict=True):
                h = STAGE * dt * interval
                middle, _ = stage(state, h, start + (end - start) * (t + STAGE * dt))
                base = tuple(
                    y + (1 / STAGE - 1) * (m - y) for y, m in zip(state, middle, strict=True)
                )
                state, current = stage(base, h, start + (end - start) * (t + dt))
            record.append((current, state[2], state[1]))
    return Trace(*np.array(record).T)
