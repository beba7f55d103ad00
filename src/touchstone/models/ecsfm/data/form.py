"""The form of `predict`: a record and its metadata as single values, written as files to be read.

A field has the name that its key has in the metadata (`measurement.schema.yaml`), those of a couple
with the number of the couple behind it. What is left empty of a couple is to be inferred.
"""

from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

from touchstone.io.artifacts import atomic

_COLUMNS = {"t_s": "time/s", "E_V": "potential/V", "i_A": "current/A"}
_ELECTRODE = ("radius_mm", "area_mm2", "radius_factor", "shape")
_COUPLE = ("C_ox_mM", "C_red_mM", "species", "D_ox_cm2_s", "D_ratio", "E0_V", "k0_cm_s", "alpha")
_CONCENTRATIONS = ("C_ox_mM", "C_red_mM")
_HOLD = {"potential_V": "hold_potential_V", "seconds": "hold_s"}
_OTHERS = (
    "temperature_C", "scan_rate_V_s", "resistance_ohm", "capacitance_uF_cm2", "current_sign",
    "reference",
)  # fmt: skip
_N_COUPLES = 2


def problems(values: dict[str, Any]) -> list[str]:
    """What is wrong with values together, where each may be right by itself.

    Args:
        values: By the name of the field, None where nothing was given.
    """
    found = []
    if (values["radius_mm"] is None) == (values["area_mm2"] is None):
        found.append("radius_mm: expected either radius_mm or area_mm2")
    if values["t_s"] is None and values["scan_rate_V_s"] is None:
        found.append("t_s: expected either t_s or, for a sweep, scan_rate_V_s")
    if (values["hold_potential_V"] is None) != (values["hold_s"] is None):
        found.append("hold_s: expected hold_potential_V and hold_s, or neither of them")
    counts = {n: len(values[n]) for n in _COLUMNS if isinstance(values[n], list)}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} has {count}" for name, count in counts.items())
        found.append(f"E_V: all columns of a record have as many numbers, but {said}")
    return found


def write(values: dict[str, Any], data: Path, meta: Path) -> None:
    """Write the record and the metadata that values describe, in the form that a reader takes.

    Args:
        values: By the name of the field, None where nothing was given.
        data: CSV that is written.
        meta: YAML that is written.
    """
    columns = {heading: values[n] for n, heading in _COLUMNS.items() if values[n] is not None}
    rows = [",".join(map(repr, row)) for row in zip_longest(*columns.values())]
    with atomic(data) as temporary:
        temporary.write_text("\n".join([",".join(columns), *rows, ""]), encoding="utf-8")
    with atomic(meta) as temporary:
        temporary.write_text(yaml.safe_dump(metadata(values)), encoding="utf-8")


def metadata(values: dict[str, Any]) -> dict[str, Any]:
    """What values say of a record besides its columns; see `measurement.schema.yaml`."""
    couples = [
        _given(values, {key: f"{key}_{k}" for key in _COUPLE}) for k in range(1, _N_COUPLES + 1)
    ]
    said = {
        "electrode": _given(values, dict(zip(_ELECTRODE, _ELECTRODE, strict=True))),
        "couples": [
            dict.fromkeys(_CONCENTRATIONS, "unknown") | couple
            for number, couple in enumerate(couples)
            if couple or not number
        ],
        **_given(values, dict(zip(_OTHERS, _OTHERS, strict=True))),
    }
    if hold := _given(values, _HOLD):
        said["hold"] = hold
    cycle = values["cycle"]
    if cycle is not None:
        said["cycle"] = int(cycle) if cycle.isdecimal() else cycle
    return said


def _given(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Values that were given, by their key, from the name of the field of each key."""
    return {key: values[name] for key, name in names.items() if values[name] is not None}
