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
_REDSHIFT_ERROR = 5e-4  # where none is given
_PLAUSIBLE = 0.0, 35.0  # AB magnitudes, of whatever may be a galaxy
_MOST_EXTINCTION = 10.0  # mag
_DUST_BEGINS = 1200.0  # Å at rest: below, the dust has no law
_MARGIN = 5.0  # errors of the redshift
_FEWEST, _PAD = 10, 128  # pixels of a spectrum; its length is filled up to a multiple of the latter


class Photometry(NamedTuple):
    """What is known of observations beside their fluxes.

    Attributes:
        error: Standard deviation of each flux, nanomaggies, shape (case, band).
        redshift: As measured, shape (case,).
        redshift_error: Its standard deviation, shape (case,).
        wavelength: Of spectra, which have pixels in place of bands, Å; None of photometry.
    """

    error: Float[np.ndarray, "case band"]
    redshift: Float[np.ndarray, " case"]
    redshift_error: Float[np.ndarray, " case"]
    wavelength: Float[np.ndarray, "case band"] | None = None


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
        ArtifactError: If no band is there, an error is not above zero, a flux is none of a galaxy,
            or the unit is unknown.
    """
    if unit not in UNITS:
        raise ArtifactError(f"{source}: unit: {unit!r} is none of {', '.join(UNITS)}")
    found, (brightest, faintest) = [], _PLAUSIBLE
    for band, usual in depth.items():
        value, error = (_number(values, name, source) for name in (band, f"{band}_error"))
        if value is None:
            found.append((0.0, usual, False))
            continue
        if error is not None and not error > 0:
            raise ArtifactError(f"{source}: {band}_error: {error:g}, expected above zero")
        said = f"{source}: {band}: {value:g} {unit}"
        if unit == MAG and not brightest <= value <= faintest:
            raise ArtifactError(f"{said}, expected {brightest:g} to {faintest:g}")
        if unit != MAG and abs(value) * FACTORS[unit] > 10 ** (0.4 * (_ZERO - brightest)):
            raise ArtifactError(f"{said} is brighter than {brightest:g} mag, and no galaxy")
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


class Spectrum(NamedTuple):
    """A spectrum, in nanomaggies at each pixel, shape (pixel,) each; padded with unseen pixels.

    Attributes:
        wavelength: As observed, Å.
        fluxes: And which pixels there are.
        beyond: How many fluxes are left out, since the model has no light there.
    """

    wavelength: Float[np.ndarray, " pixel"]
    fluxes: Fluxes
    beyond: int


def spectrum(table: Any, unit: str, source: str, modelled: tuple[float, float]) -> Spectrum:
    """The spectrum of a table with columns `wavelength` (Å), `flux` and `error`.

    Args:
        table: Of astropy.
        unit: One of `UNITS` that are no logarithms.
        source: Of the table, for messages.
        modelled: Lowest and highest wavelength, Å as observed; other pixels are no data.

    Raises:
        ArtifactError: If a column is missing or unknown, wavelengths do not increase, an error is
            not above zero where there is a flux, or fewer than `_FEWEST` pixels are left.
    """
    wanted = ("wavelength", "flux", "error")
    if set(table.colnames) != set(wanted):
        raise ArtifactError(
            f"{source}: a spectrum has the columns {', '.join(wanted)}, found "
            f"{', '.join(table.colnames)}"
        )
    if unit not in FACTORS:
        raise ArtifactError(f"{source}: unit: {unit!r} is none of {', '.join(FACTORS)}")
    try:
        columns = [np.ma.filled(np.ma.asarray(table[name], float), np.nan) for name in wanted]
    except ValueError as error:
        raise ArtifactError(f"{source}: a column of the spectrum is no numbers ({error})") from None
    wavelength, flux, error = columns
    if not (np.diff(wavelength) > 0).all():
        raise ArtifactError(f"{source}: wavelength: does not increase from row to row")
    seen = np.isfinite(flux) & np.isfinite(error)
    if (error[seen] <= 0).any():
        raise ArtifactError(f"{source}: error: {error[seen].min():g}, expected above zero")
    beyond = seen & ~((wavelength >= modelled[0]) & (wavelength <= modelled[1]))
    seen = seen & ~beyond
    if seen.sum() < _FEWEST:
        raise ArtifactError(
            f"{source}: {seen.sum()} pixels, expected {_FEWEST} at least; wavelength is "
            f"{wavelength[0]:g} to {wavelength[-1]:g}, and the model has {modelled[0]:.0f} to "
            f"{modelled[1]:.0f} Å at this redshift"
        )
    more = (0, -len(flux) % _PAD)  # spectra of like lengths share a program
    flux, error = (np.where(seen, a * FACTORS[unit], 1.0) for a in (flux, error))
    padded = Fluxes(np.pad(flux, more), np.pad(error, more, constant_values=1), np.pad(seen, more))
    return Spectrum(np.pad(wavelength, more, mode="edge"), padded, int(beyond.sum()))


def _table(data: Path) -> Any:
    """A CSV or FITS table."""
    from astropy.table import Table  # here, since it takes a second to import

    kind = "fits" if data.suffix.lower() in (".fits", ".fit") else "ascii.csv"
    try:
        return Table.read(data, format=kind)
    except Exception as error:  # astropy fails in many ways on what is no table
        raise ArtifactError(f"{data}: not a readable table ({error})") from None


def read(
    data: Path,
    said: dict[str, Any],
    depth: dict[str, float],
    redshifts: tuple[float, float],
    table_end: float,
) -> tuple[Fluxes | Spectrum, float, float]:
    """The only galaxy of a CSV or FITS table: fluxes, redshift, and error of the redshift.

    Columns are the bands, such as `u` and `u_error`, `redshift` and `redshift_error`; where there
    are columns such as `u_extinction`, in magnitudes, the fluxes are corrected. A table with a
    column `wavelength` is a spectrum, whose redshift `said` has.

    Args:
        data: The table.
        said: What the YAML file says: `unit`, and of a spectrum `redshift`, `redshift_error`.
        depth: Typical error of each band, nanomaggies: where none is given.
        redshifts: Lowest and highest of the model.
        table_end: Where the spectra of the model end, Å at rest.

    Raises:
        ArtifactError: If there is no such table, not one galaxy in it, or something that is said of
            it makes no sense; the message names the file and the column or key.
    """
    table, source = _table(data), str(data)
    beside = f"{data}, in its YAML file"
    spectral = "wavelength" in table.colnames
    allowed = ("unit", "synthetic", *(("redshift", "redshift_error") if spectral else ()))
    if unknown := [str(key) for key in said if key not in allowed]:
        raise ArtifactError(
            f"{beside}: {', '.join(unknown)}: unknown, allowed are {', '.join(allowed)}"
        )
    if "unit" not in said:
        units = ", ".join(FACTORS if spectral else UNITS)
        raise ArtifactError(f"{beside}: unit: is missing, expected one of {units}")
    unit = str(said["unit"])
    if spectral:
        redshift, error = _place(said, beside, redshifts)
        modelled = (
            _DUST_BEGINS * (1 + redshift + _MARGIN * error),
            table_end * (1 + redshift - _MARGIN * error),
        )
        return spectrum(table, unit, source, modelled), redshift, error
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
    redshift, error = _place(row, source, redshifts)
    fluxes = nanomaggies(row, depth, unit, source)
    lost = [_number(row, f"{band}_extinction", source) or 0.0 for band in depth]
    for band, each in zip(depth, lost, strict=True):
        if not 0 <= each <= _MOST_EXTINCTION:
            raise ArtifactError(
                f"{data}: {band}_extinction: {each:g} mag, expected 0 to {_MOST_EXTINCTION:g}"
            )
    clear = 10 ** (0.4 * np.array(lost))
    corrected = fluxes._replace(flux=fluxes.flux * clear, error=fluxes.error * clear)
    return corrected, redshift, error


def _place(
    values: dict[str, Any], source: str, redshifts: tuple[float, float]
) -> tuple[float, float]:
    """Redshift and its error, of columns of a file or of its keys."""
    redshift, error = (_number(values, name, source) for name in ("redshift", "redshift_error"))
    if redshift is None:
        raise ArtifactError(f"{source}: redshift: is missing")
    low, high = redshifts
    if not low <= redshift <= high:
        raise ArtifactError(
            f"{source}: redshift: {redshift:g}, the model is of {low:g} to {high:g}"
        )
    if error is not None and not error > 0:
        raise ArtifactError(f"{source}: redshift_error: {error:g}, expected above zero")
    return redshift, error or _REDSHIFT_ERROR


def _number(values: dict[str, Any], name: str, source: str) -> float | None:
    """The number of a name; None where there is none."""
    value = values.get(name)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ArtifactError(f"{source}: {name}: {str(value)!r} is no number") from None
    return number if np.isfinite(number) else None
