"""Whether the numbers of an answer obey the laws of conservation.

Everything here is NumPy and SciPy on the numbers that are reported: no line is shared with the
forward model that made them.
"""

from typing import Any

import numpy as np
from numpy.polynomial.legendre import leggauss

from touchstone.models.galaxy import quadrature
from touchstone.models.galaxy.tables import Filter, Populations

LIMIT = 1e-4  # largest relative violation
_N_EXACT = 3  # galaxies of a side that are integrated anew, slowly
_NODES, _WEIGHTS = leggauss(40)
_FIELDS = ("redshift", "log_mass", "log_tau", "age", "log_metallicity", "A_V")
_HOW = "sums of the reported numbers"
_EXACT = "adaptive quadrature beside the reported numbers"


def balances(values: dict[str, Any], budget: Any, hubble: float, matter: float) -> dict[str, float]:
    """Largest relative violation among many galaxies of what needs no spectrum.

    Args:
        values: Nodes by name, shape (n,) each.
        budget: Masses and luminosities, shape (n,) each.
        hubble, matter: Of the universe.
    """
    formed, light = np.asarray(budget.formed, float), np.asarray(budget.intrinsic, float)
    parts = np.asarray(budget.surviving, float) + budget.returned
    shone = np.asarray(budget.attenuated, float) + budget.infrared
    every = np.stack([np.asarray(each, float) for each in budget])
    universe = _age(np.asarray(values["redshift"], float), hubble, matter)
    return {
        "mass": float(np.abs(parts / formed - 1).max()),
        "energy": float(np.abs(shone / light - 1).max()),
        "age": float(np.maximum(np.asarray(values["age"], float) / universe - 1, 0).max()),
        "sign": float(np.maximum(-every / every.max(0), 0).max()),
    }


def _age(redshift: np.ndarray, hubble: float, matter: float) -> np.ndarray:
    """Of a flat universe, Gyr: the integral of da / (a H) by a Gauss rule, a from 0."""
    root = np.sqrt(1 / (1 + redshift))[:, None] * (_NODES + 1) / 2  # a = root²: smooth at zero
    rate = np.sqrt(matter * root**-6 + 1 - matter)
    total = (2 / (root * rate)) @ _WEIGHTS * np.sqrt(1 / (1 + redshift)) / 2
    return total * 977.7922216807891 / hubble


def report(
    sides: dict[str, tuple[dict[str, np.ndarray], Any, np.ndarray]],
    sources: tuple[Populations, tuple[Filter, ...]],
    cosmology: dict[str, float],
) -> list[dict]:
    """How far each law is violated, at worst among all galaxies of all sides.

    Args:
        sides: By name: nodes, budgets and fluxes (n, band) of galaxies.
        sources: The tables.
        cosmology: `hubble` and `matter`.

    Returns:
        Rows of `law`, `status`, `largest`, `limit`, `n` and `how`.
    """
    worst: dict[str, float] = {}
    n = sum(len(fluxes) for *_, fluxes in sides.values())
    n_exact = 0
    for values, budget, fluxes in sides.values():
        found = balances(values, budget, **cosmology)
        found["sign"] = max(found["sign"], float((~(fluxes >= 0)).any()))
        few = np.argsort(values["log_mass"])[:: max(1, len(fluxes) // _N_EXACT)][:_N_EXACT]
        n_exact += len(few)
        for k in few:
            one = {name: float(values[name][k]) for name in _FIELDS}
            exact = quadrature.sums(one, *sources, **cosmology)
            mass = float(budget.surviving[k]) + exact.returned
            light = float(budget.infrared[k]) + exact.attenuated
            found |= {
                "mass": max(found["mass"], abs(mass / exact.formed - 1)),
                "energy": max(found["energy"], abs(light / exact.intrinsic - 1)),
                "bolometric sum": max(
                    found.get("bolometric sum", 0.0),
                    abs(float(budget.attenuated[k]) / exact.attenuated - 1),
                ),
                "distance": max(
                    found.get("distance", 0.0), float(np.abs(fluxes[k] / exact.fluxes - 1).max())
                ),
            }
        worst = {law: max(size, worst.get(law, 0.0)) for law, size in found.items()}
    said = {
        "mass": ("mass: formed = surviving + returned", _EXACT),
        "energy": ("energy: light of stars = light that leaves + infrared", _EXACT),
        "bolometric sum": ("bolometric sum: luminosity = integral of the spectrum", _EXACT),
        "distance": ("flux = luminosity / (4 pi distance²) in each band", _EXACT),
        "age": ("no star is older than the universe", _HOW),
        "sign": ("no mass, luminosity or flux is below zero", _HOW),
    }
    # Fluxes are sums over filters, whose grids differ: 1e-3 is what a magnitude of 0.001 is.
    limits = {"distance": 1e-3}
    rows = []
    for law, (words, how) in said.items():
        limit = limits.get(law, LIMIT)
        count = n_exact if law in ("bolometric sum", "distance") else n
        if how == _EXACT and law in ("mass", "energy"):
            how = f"{_HOW}, and of {n_exact} by adaptive quadrature"
        status = "kept" if worst[law] <= limit else "violated"
        rows.append(_row(words, status, worst[law], limit, count, how))
    rows.append(_row("momentum", "not_applicable", None, None, 0, "nothing moves in this model"))
    return rows


def _row(law: str, status: str, largest: float | None, limit: float | None, n: int, how: str):
    return {"law": law, "status": status, "largest": largest, "limit": limit, "n": n, "how": how}
