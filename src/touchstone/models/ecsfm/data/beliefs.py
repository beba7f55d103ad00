"""What is known, or believed, of the parameters from elsewhere: by the user, or in the literature.

A value is known, and held fixed, or it is believed within a factor: `{median: 8.0e-6, factor: 1.5}`
says that 90 % lies between the median over the factor and the median times it, and the logarithm is
normal. A belief counts as one more observation of its parameter.
"""

import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

_SPECIES = Path(__file__).with_name("species.yaml")
_NINETY = 1.6448536269514722  # standard deviations from the median to the end of a 90 % interval

# Entries of a couple in the metadata, the parameter that each is of, and its coordinate.
_OF_COUPLE = (
    ("C_ox_mM", "C_ox", math.log),
    ("C_red_mM", "C_red", math.log),
    ("D_ox_cm2_s", "D_ox", math.log),
    ("D_ratio", "D_ratio", math.log),
    ("E0_V", "E0", float),
    ("k0_cm_s", "k0", math.log),
    ("alpha", "alpha", float),
)


class Belief(NamedTuple):
    """Mean and standard deviation of a natural coordinate."""

    mean: float
    sd: float


@cache
def species() -> dict[str, dict]:
    """Published values of common species, by name."""
    return yaml.safe_load(_SPECIES.read_text(encoding="utf-8"))


def of_value(value: dict) -> Belief:
    """A belief from `median` and `factor`."""
    return Belief(math.log(value["median"]), math.log(value["factor"]) / _NINETY)


def stated(meta: dict, spread: float) -> tuple[dict[str, float], dict[str, Belief]]:
    """Natural coordinates that are known, and beliefs, by the name of the parameter.

    The current of a couple goes with its concentration and the area together, so that doubt about
    the radius is doubt about the concentration: twice as much, of the logarithm.

    Args:
        meta: As from `read_meta`.
        spread: Resistivity over resistance, cm.

    Raises:
        ValueError: If the couples contradict each other.
    """
    given, believed = {}, {}
    for number, couple in enumerate(meta["couples"], 1):
        if couple["C_ox_mM"] == 0 and couple["C_red_mM"] == 0:
            raise ValueError(f"couples: neither form of couple {number} is in the solution")
        for key, name, natural in _OF_COUPLE:
            value = couple.get(key, "unknown")
            if value == "unknown" or (name in ("C_ox", "C_red") and value == 0):
                continue
            if isinstance(value, dict):
                believed[f"{name}_{number}"] = of_value(value)
            else:
                given[f"{name}_{number}"] = natural(value)
        if "species" in couple and "D_ox_cm2_s" not in couple:
            believed[f"D_ox_{number}"] = of_value(_of_species(couple["species"], number))
    e0 = [couple.get("E0_V") for couple in meta["couples"]]
    known = [value for value in e0 if value is not None]
    if known != e0[: len(known)] or known != sorted(known):
        raise ValueError("couples: E0_V must ascend, and needs that of the couples before")
    if factor := meta["electrode"].get("radius_factor"):
        _doubt(given, believed, 2 * math.log(factor) / _NINETY)
    for key, name, scale in (
        ("resistance_ohm", "resistivity", spread),
        ("capacitance_uF_cm2", "C_dl", 1.0),
    ):
        value = meta.get(key)
        if isinstance(value, dict):
            belief = of_value(value)
            believed[name] = belief._replace(mean=belief.mean + math.log(scale))
        elif value is not None:
            given[name] = math.log(scale * value)
    return given, believed


def _of_species(name: str, number: int) -> dict:
    if name not in species():
        raise ValueError(
            f"couples.{number - 1}.species is {name!r}, which is none of {', '.join(species())}"
        )
    return species()[name]["D_ox_cm2_s"]


def _doubt(given: dict[str, float], believed: dict[str, Belief], sd: float) -> None:
    """Make known concentrations believed, and believed ones more doubtful."""
    for name in [name for name in (*given, *believed) if name[:-2] in ("C_ox", "C_red")]:
        belief = believed.get(name) or Belief(given.pop(name), 0.0)
        believed[name] = Belief(belief.mean, math.hypot(belief.sd, sd))
