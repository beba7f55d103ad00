"""Whether a record can be of an experiment: questions on units, exchanged columns and gaps."""

import math

import numpy as np

from touchstone.models.ecsfm.data.cycles import sweep_turns
from touchstone.models.ecsfm.physics.experiment import Experiment
from touchstone.models.ecsfm.physics.prior import Prior

FEWEST = 24  # samples that a measurement must have
_HIGHEST = 10.0  # V, beyond which no potential of a cell is
_NARROWEST = 1e-3  # V, the least window that carries a signal
_LARGEST, _SMALLEST = 1e3, 1e-17  # A, of the largest current of a record
_LONGEST, _SHORTEST = 1e7, 1e-7  # s, of a record
_GAP = (50, 0.25)  # longest gap between readings, in median intervals and as part of the duration
_ROOM = 100.0  # by which a current may pass what the electrode can carry
_TYPICAL = 1e-3  # part of the largest plausible current that most records show
_CAPACITANCE = (1e-6, 1e-4)  # F/cm^2: less than any double layer, and the most of the prior
_FARADAY, _THERMAL = 96485.0, 0.0257  # C/mol; V at 25 °C
_MM = 1e-6  # mol/cm^3
_PREFIXES = {"A": 1.0, "mA": 1e-3, "uA": 1e-6, "nA": 1e-9, "pA": 1e-12, "fA": 1e-15}


def check_values(values: dict[str, np.ndarray], headings: dict[str, str]) -> None:
    """Hold potential and current against what a cell can show.

    Args:
        values: `potential` (V) and `current` (A), shape (n,) each, finite.
        headings: Of their columns.

    Raises:
        ValueError: If they are constant, in a wrong unit, or exchanged.
    """
    potential, current = values["potential"], values["current"]
    if len(potential) < FEWEST:
        raise ValueError(f"{len(potential)} samples, at least {FEWEST} are needed")
    _check_exchange(potential, current, headings)
    for name in ("potential", "current"):
        if np.all(values[name] == values[name][0]):
            raise ValueError(f"the {name} is the same throughout; expected a record that changes")
    heading = headings["potential"]
    low, high = potential.min(), potential.max()
    if max(abs(low), abs(high)) > _HIGHEST:
        raise ValueError(
            f"the potential runs from {low:.4g} to {high:.4g} V, expected at most ±{_HIGHEST:g} V: "
            f"mV read as V? If so, columns: {{potential: {{name: {heading!r}, unit: mV}}}}"
        )
    if high - low < _NARROWEST:
        raise ValueError(
            f"the potential runs over {high - low:.2g} V only, expected {_NARROWEST:g} V or more: "
            f"V read as mV? If so, columns: {{potential: {{name: {heading!r}, unit: V}}}}"
        )
    largest = np.abs(current).max()
    if not _SMALLEST < largest < _LARGEST:
        raise ValueError(
            f"the current reaches {largest:.2g} A, expected {_SMALLEST:g} to {_LARGEST:g} A: is "
            f"its unit wrong? If so, columns: {{current: {{name: {headings['current']!r}, "
            f"unit: uA}}}}"
        )


def _check_exchange(potential: np.ndarray, current: np.ndarray, headings: dict[str, str]) -> None:
    clock = np.arange(len(potential), dtype=float)
    if len(sweep_turns(current, clock)) > 2 and not sweep_turns(potential, clock):
        raise ValueError(
            f"the column {headings['current']!r} runs straight to and fro as a potential does, and "
            f"{headings['potential']!r} does not: current and potential exchanged? If so, name "
            f"them, e.g. columns: {{potential: {{name: {headings['current']!r}, unit: V}}}}"
        )


def check_time(time: np.ndarray, places: list[str]) -> None:
    """Hold the time of a record against what an instrument writes.

    Args:
        time: s, shape (n,), finite.
        places: Where each sample stands in the file, n.

    Raises:
        ValueError: If the time does not increase, has a gap, or is of no experiment.
    """
    steps = np.diff(time)
    back = np.flatnonzero(steps <= 0)
    if len(back):
        k = back[0]
        raise ValueError(
            f"time does not increase after sample {k + 1} ({places[k]}): {time[k]:.10g} s, then "
            f"{time[k + 1]:.10g} s; expected one record with ascending times, e.g. 0.1, 0.2, 0.3"
        )
    duration = time[-1] - time[0]
    if not _SHORTEST < duration < _LONGEST:
        raise ValueError(
            f"the record takes {duration:.2g} s, expected {_SHORTEST:g} to {_LONGEST:g} s: is the "
            "unit of the time wrong? State it, e.g. columns: {time: {name: 'time', unit: ms}}"
        )
    widest = int(np.argmax(steps))
    if steps[widest] > max(_GAP[0] * np.median(steps), _GAP[1] * duration):
        raise ValueError(
            f"no reading between {time[widest]:.6g} and {time[widest + 1]:.6g} s "
            f"({places[widest]}), a gap of {steps[widest]:.4g} s; expected one record without a "
            "pause: split the file there, or correct the time"
        )


def current_bounds(
    time: np.ndarray, potential: np.ndarray, meta: dict, experiment: Experiment, prior: Prior
) -> tuple[float, float]:
    """The least and the largest current (A) that the largest of a record may plausibly be.

    The largest is diffusion of all that is in the solution, with the largest D of the prior, within
    the time in which the fastest sweep of the record passes RT/F (Cottrell 1903), with the steady
    state of a small electrode, 4 F C D r; and the charging of a rough electrode. The least is the
    charging of a smooth electrode by the typical sweep. Both have room of a factor of 100.

    Args:
        time, potential: The record, s and V, shape (n,) each.
        meta: As from `read_meta`: the concentrations count here.
        experiment: For the electrode, without leading axes.
        prior: Of the model.
    """
    area, radius = float(experiment.area), float(experiment.radius)
    rates = np.abs(np.diff(potential) / np.diff(time))
    fastest, typical = float(rates.max()), float(np.median(rates))
    highest = {p.name: math.exp(p.location + p.scale) for p in prior.parameters if p.logarithmic}
    stated = [couple[key] for couple in meta["couples"] for key in ("C_ox_mM", "C_red_mM")]
    concentration = sum(c if isinstance(c, int | float) else highest["C_ox_1"] for c in stated)
    diffusion = highest["D_ox_1"]
    flux = math.sqrt(diffusion * fastest / (math.pi * _THERMAL)) + 4 * diffusion / (
        math.pi * radius
    )
    most = area * (_FARADAY * _MM * concentration * flux + _CAPACITANCE[1] * fastest)
    return area * _CAPACITANCE[0] * typical / _ROOM, _ROOM * most


def check_current(largest: float, bounds: tuple[float, float], unit: str) -> None:
    """Ask about a current that the stated electrode and solution cannot carry.

    Args:
        largest: Magnitude of the largest current, A.
        bounds: As from `current_bounds`.
        unit: In which the current was read, as in "uA".

    Raises:
        ValueError: If the current is out of bounds; it names the likely unit.
    """
    least, most = bounds
    if least <= largest <= most:
        return
    too_large = largest > most
    excess = largest / (_TYPICAL * most)
    read = _PREFIXES[unit]
    others = [u for u, factor in _PREFIXES.items() if (factor < read) == too_large and u != unit]
    likely = min(others, key=lambda u: abs(math.log(_PREFIXES[u] / read * excess)), default="uA")
    raise ValueError(
        f"the current reaches {largest:.2g} A, and the stated electrode and concentrations allow "
        f"{least:.1g} to {most:.1g} A: {_micro(likely)} read as {_micro(unit)}? If so, state it, "
        f"e.g. columns: {{current: {{name: 'I/{unit}', unit: {likely}}}}}; else correct electrode "
        "and couples"
    )


def _micro(unit: str) -> str:
    return unit.replace("u", "µ")
