"""Tables that the forward model reads: simple stellar populations, and transmissions of filters."""

from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.interpolate import RegularGridInterpolator

from touchstone.io import artifacts
from touchstone.io.artifacts import ArtifactError


class Populations(NamedTuple):
    """Spectra of simple stellar populations, of one solar mass formed at once.

    Attributes:
        metallicity: Mass fraction of metals, increasing, shape (metallicity,).
        age: Years, increasing from zero, shape (age,).
        wavelength: Å, whole numbers, increasing, shape (wavelength,).
        luminosity: Solar luminosities per Å, shape (metallicity, age, wavelength).
    """

    metallicity: Float[np.ndarray, " metallicity"]
    age: Float[np.ndarray, " age"]
    wavelength: Float[np.ndarray, " wavelength"]
    luminosity: Float[np.ndarray, "metallicity age wavelength"]


def path(distribution: str, version: str, file: str, sha256: str) -> Path:
    """A file of an installed distribution, of which nothing is imported; see `populations`."""
    wanted = f"galaxy: needs {Path(file).name} of {distribution} {version}"
    how = "run `uv sync` in the project's folder, or `make setup`"
    try:
        found = Path(str(metadata.distribution(distribution).locate_file(file)))
    except metadata.PackageNotFoundError:
        raise ArtifactError(f"{wanted}, which is not installed; {how}") from None
    if not found.is_file():
        raise ArtifactError(f"{wanted}, and {found} is not there; {how}")
    if artifacts.sha256(found) != sha256:
        raise ArtifactError(f"{wanted}, and {found} is another table: its sha256 differs")
    return found


@cache
def populations(distribution: str, version: str, file: str, sha256: str) -> Populations:
    """The table in an installed distribution, of which nothing is imported.

    Args:
        distribution, version: Of the distribution.
        file: Path in it.
        sha256: Of the file.

    Raises:
        ArtifactError: If the table is not there, or is another one.
    """
    found = path(distribution, version, file, sha256)
    import h5py  # here, since a model is listed without it

    with h5py.File(found) as table:
        log_age = table["age"][:]
        return Populations(
            table["metallicity"][:],
            # The table begins at log10 of zero, of one year: the birth.
            np.where(log_age > 0, 10.0**log_age, 0.0),
            table["wavelength"][:].astype(float),
            table["flux"][:],
        )


@cache
def popstar(distribution: str, version: str, file: str, sha256: str) -> Populations:
    """Templates of Mollá et al. 2009 (stars alone, initial mass function of Chabrier), likewise.

    Raises:
        ArtifactError: If the table is not there, or is another one.
    """
    found = path(distribution, version, file, sha256)
    from astropy.io import fits  # here, since it takes a second to import

    with fits.open(found) as table:
        wavelength = np.asarray(table["WAVELENGTH"].data["wavelength"], float)
        wavelength, first = np.unique(wavelength, return_index=True)  # some stand there twice
        spectra = [each for each in table if each.name.startswith("SED_Z_")]
        names = [name for name in spectra[0].columns.names if name.endswith("_stellar")]
        luminosity = [[each.data[name][first].astype(float) for name in names] for each in spectra]
    ages = 10 ** np.array([float(name.split("_")[2]) for name in names])
    metallicity = np.array([float(each.name.removeprefix("SED_Z_")) for each in spectra])
    return Populations(metallicity, ages, wavelength, np.array(luminosity))


def resampled(
    populations: Populations,
    log_metallicity: Float[np.ndarray, " metallicity"],
    age: Float[np.ndarray, " age"],
    wavelength: Float[np.ndarray, " wavelength"],
) -> Float[np.ndarray, "metallicity age wavelength"]:
    """Luminosities on another grid, linear in log metallicity, age (Gyr) and wavelength (Å);
    beyond its ends as at its ends."""
    own = np.log10(populations.metallicity / 0.02), populations.age / 1e9, populations.wavelength
    ends = (np.clip(a, b[0], b[-1]) for a, b in zip((log_metallicity, age, wavelength), own,
                                                    strict=True))  # fmt: skip
    points = np.meshgrid(*ends, indexing="ij", sparse=True)
    return RegularGridInterpolator(own, populations.luminosity)(tuple(points))


class Filter(NamedTuple):
    """Transmission of a filter, of photons, linear between its nodes.

    Attributes:
        wavelength: Å, shape (node,).
        transmission: Shape (node,).
    """

    wavelength: Float[np.ndarray, " node"]
    transmission: Float[np.ndarray, " node"]

    @property
    def effective(self) -> float:
        """Mean wavelength of its photons of a flat spectrum in wavelength, in Å."""
        weight = self.transmission * self.wavelength
        return float(np.trapezoid(weight * self.wavelength, self.wavelength)
                     / np.trapezoid(weight, self.wavelength))  # fmt: skip


@cache
def filters(names: tuple[str, ...]) -> tuple[Filter, ...]:
    """Filters of sedpy by their names there."""
    from sedpy.observate import load_filters  # here, since a model is listed without it

    return tuple(Filter(each.wavelength, each.transmission) for each in load_filters(list(names)))
