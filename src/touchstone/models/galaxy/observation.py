"""Photometry with a redshift: what it is to inference, and how it is read."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from touchstone.io.artifacts import ArtifactError

# Of each unit, nanomaggies (AB flux, zero at 22.5 mag); magnitudes are logarithms.
FACTORS = {"maggies": 1e9, "nanomaggies": 1.0, "µJy": 1 / 3.631}
MAG = "AB mag"
UNITS = (MAG, *FACTORS)
_ZERO = 22.5


class Photometry(NamedTuple):
    """What is known of observations beside their fluxes.

    Attributes:
        error: Standard deviation of each flux, nanomaggies, shape (case, band).
        redshift: As measured, shape (case,).
        redshift_error: Its standard deviation, shape (case,).
    """

    error: Float[np.ndarray, "case band"]
    redshift: Float[np.ndarray, " case"]
    redshift_error: Float[np.ndarray, " case"]


class Fluxes(NamedTuple):
    """One observation, in nanomaggies, shape (band,) each."""

    flux: Float[np.ndarray, " band"]
    error: Float[np.ndarray, " band"]
    seen: Bool[np.ndarray, " band"]


def magnitude(flux: np.ndarray) -> np.ndarray:
    """AB magnitude of fluxes in nanomaggies."""
    return _ZERO - 2.5 * np.log10(flux)


def nanomaggies_of(magnitude: np.ndarray) -> np.ndarray:
    """Fluxes of AB magnitudes."""
    return 10 ** (0.4 * (_ZERO - magnitude))


def nanomaggies(
    values: dict[str, float | None], depth: dict[str, float], unit: str, source: str
) -> Fluxes:
    """Fluxes of a galaxy.

    Args:
        values: By `band` and `band_error`; None or NaN where there is none.
        depth: Typical error of each band, nanomaggies: where none is given.
        unit: One of `UNITS`.
        source: Of the values, for messages.

    Raises:
        ArtifactError: If no band is there, an error is not above zero, or the unit is unknown.
    """
    if unit not in UNITS:
        raise ArtifactError(f"{source}: unit: {unit!r} is none of {', '.join(UNITS)}")
    found = []
    for band, usual in depth.items():
        value, error = (_number(values.get(name)) for name in (band, f"{band}_error"))
        if value is None:
            found.append((0.0, usual, False))
            continue
        if error is not None and not error > 0:
            raise ArtifactError(f"{source}: {band}_error: {error:g}, expected above zero")
        if unit == MAG:
            flux = 10 ** (0.4 * (_ZERO - value))
            error = usual if error is None else flux * np.log(10) / 2.5 * error
        else:
            flux = value * FACTORS[unit]
            error = usual if error is None else error * FACTORS[unit]
        found.append((flux, error, True))
    flux, error, seen = (np.array(column) for column in zip(*found, strict=True))
    if not seen.any():
        raise ArtifactError(f"{source}: no band has a value, expected of {', '.join(depth)}")
    return Fluxes(flux, error, seen)


def read(data: Path, said: dict[str, Any], depth: dict[str, float]) -> tuple[Fluxes, float, float]:
    """The only galaxy of a CSV or FITS table: fluxes, redshift, and error of the redshift.

    Columns are the bands, such as `u` and `u_error`, `redshift` and `redshift_error`; where there
    are columns such as `u_extinction`, in magnitudes, the fluxes are corrected.

    Raises:
        ArtifactError: If there is no such table, or not one galaxy in it.
    """
    from astropy.table import Table  # here, since it takes a second to import

    kind = "fits" if data.suffix.lower() in (".fits", ".fit") else "ascii.csv"
    try:
        table = Table.read(data, format=kind)
    except Exception as error:  # astropy fails in many ways on what is no table
        raise ArtifactError(f"{data}: not a readable table ({error})") from None
    if len(table) != 1:
        raise ArtifactError(f"{data}: holds {len(table)} galaxies, expected one row")
    row = {}
    for name in table.colnames:
        value = table[name][0]
        row[name] = None if np.ma.is_masked(value) else value
    known = {f"{band}{end}" for band in depth for end in ("", "_error", "_extinction")}
    known |= {"redshift", "redshift_error"}
    if unknown := sorted(row.keys() - known):
        raise ArtifactError(
            f"{data}: {', '.join(unknown)}: no such column, known are the bands "
            f"{', '.join(depth)}, with _error or _extinction, and redshift"
        )
    redshift = _number(row.get("redshift"))
    if redshift is None:
        raise ArtifactError(f"{data}: redshift: is missing, expected a column")
    fluxes = nanomaggies(row, depth, str(said.get("unit", "nanomaggies")), str(data))
    lost = np.array([_number(row.get(f"{band}_extinction")) or 0.0 for band in depth])
    clear = 10 ** (0.4 * lost)
    corrected = fluxes._replace(flux=fluxes.flux * clear, error=fluxes.error * clear)
    return corrected, redshift, _number(row.get("redshift_error")) or 5e-4


def _number(value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ArtifactError(f"{value!r} is no number") from None
    return number if np.isfinite(number) else None
