"""A twin that others have made: how far it is from obeying the laws, and the closest one that does.

All laws but one are linear once the redshift is known, so the closest twin is a projection onto a
cone: the linear equalities, and nothing below zero. The distance is that of `Metric`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from touchstone.io import plain_yaml
from touchstone.io.artifacts import ArtifactError
from touchstone.models.galaxy.conservation import LIMIT
from touchstone.models.galaxy.cosmology import Cosmology
from touchstone.models.galaxy.physics import Forward

# Of what a twin may consist beside fluxes in the bands (nanomaggies) and a spectrum: units.
PARTS = {
    "formed": "solar masses",
    "surviving": "solar masses",
    "returned": "solar masses",
    "intrinsic": "solar luminosities",
    "attenuated": "solar luminosities",
    "infrared": "solar luminosities",
}
PLACES = {"redshift": "", "age": "Gyr"}
SPECTRUM = "spectrum"
_SUMS = {
    "mass: formed = surviving + returned": {"formed": 1.0, "surviving": -1.0, "returned": -1.0},
    "energy: light of stars = light that leaves + infrared": {
        "intrinsic": 1.0, "attenuated": -1.0, "infrared": -1.0,
    },
}  # fmt: skip
_SMALL = 1e-6  # of the largest of its kind: below, a number has the scale of that
_N_STEPS, _EXACT = 100, 1e-14
type Metric = Literal["noise", "relative"]


class Law(NamedTuple):
    """A linear equality: the sum of coefficients times entries is zero.

    Attributes:
        words: The law.
        coefficients: By the name of the entry; of the spectrum one for each wavelength.
    """

    words: str
    coefficients: dict[str, Any]


class Projected(NamedTuple):
    """The closest twin.

    Attributes:
        x: Its entries.
        distance: Root of the sum of squares of changes over their scales.
    """

    x: Float[np.ndarray, " entry"]
    distance: float


def project(
    x: Float[np.ndarray, " entry"],
    scale: Float[np.ndarray, " entry"],
    equalities: Float[np.ndarray, "law entry"],
) -> Projected:
    """The closest point that is nowhere below zero and whose equalities sum to zero.

    The dual problem has as many unknowns as there are laws, and its gradient is piecewise linear:
    Newton's method ends at the exact point after finitely many steps (Qi & Sun 1993).

    Args:
        x: A point.
        scale: Of each entry in the distance, above zero.
        equalities: Coefficients.

    Raises:
        ArtifactError: If it is not found.
    """
    rows = equalities * scale
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    point, multiplier = x / scale, np.zeros(len(rows))
    size = np.linalg.norm(point)

    def primal(multiplier):
        return np.maximum(point + multiplier @ rows, 0.0)

    here = primal(multiplier)
    for _ in range(_N_STEPS):
        gradient = rows @ here
        if np.abs(gradient).max(initial=0.0) <= _EXACT * size:
            return Projected(here * scale, float(np.linalg.norm(here - point)))
        free = rows[:, here > 0]
        step = -np.linalg.lstsq(free @ free.T, gradient)[0]
        length = 1.0
        while length > 1e-10:  # the dual function, half the square of the primal point, falls
            there = primal(multiplier + length * step)
            if there @ there < here @ here + 1e-4 * length * 2 * (gradient @ step):
                break
            length /= 2
        else:  # at the precision of the numbers
            there = primal(multiplier + step)
            if np.abs(rows @ there).max() >= np.abs(gradient).max():
                break
            length = 1.0
        multiplier, here = multiplier + length * step, there
    if np.abs(rows @ here).max(initial=0.0) <= 100 * _EXACT * size:
        return Projected(here * scale, float(np.linalg.norm(here - point)))
    raise ArtifactError("twin: no closest point that obeys the laws is found")


class Judge:
    """Laws that twins are held to.

    Args:
        forward: Whose grid of wavelengths, filters and cosmology they are of.
        bands: Names of the bands.
        redshifts: The lowest and the highest of the model.
    """

    def __init__(self, forward: Forward, bands: tuple[str, ...], redshifts: tuple[float, float]):
        self.bands, self.redshifts = bands, redshifts
        self.cosmology: Cosmology = forward.cosmology
        self.wavelength = np.asarray(forward.wavelength, float)
        self._node, self._through = (
            np.asarray(a, float) for a in (forward.node, forward.throughput)
        )

    def __call__(self, twin: Mapping[str, Any], *, strict: bool) -> dict:
        """Violations of a twin, and where asked for the closest twin without any.

        Args:
            twin: Numbers by the names of `PARTS`, `PLACES` and the bands; `spectrum`, solar
                luminosities per Å that leave the dust, at the wavelengths of the model (at rest);
                `errors`, standard deviations by the same names: with those of all entries the
                metric is that of the noise, without any it is relative.
            strict: Whether to project.

        Returns:
            As `Model.external_twin`.

        Raises:
            ArtifactError: If the twin makes no sense; the message names the key.
        """
        entries, places, errors = self._read(twin)
        laws = self._laws(entries, places)
        metric: Metric = "noise" if errors else "relative"
        found = {"violations": self._rows(laws, entries, places, LIMIT), "metric": metric}
        if not strict:
            return found
        names = list(entries)
        ends = np.cumsum([0, *(np.size(entries[name]) for name in names)])
        x = np.concatenate([np.atleast_1d(entries[name]) for name in names])
        scale = np.concatenate([_scale(name, entries, errors, self.bands) for name in names])
        rows = np.zeros((len(laws), len(x)))
        for row, law in zip(rows, laws, strict=True):
            for name, coefficient in law.coefficients.items():
                k = names.index(name)
                row[ends[k] : ends[k + 1]] = coefficient
        moved = project(x, scale, rows)
        closest = {
            name: moved.x[ends[k] : ends[k + 1]] if name == SPECTRUM else float(moved.x[ends[k]])
            for k, name in enumerate(names)
        }
        held = dict(places)
        if self._too_old(places) > 0:
            held["age"] = self._universe(places["redshift"])
        change = float((np.abs(moved.x - x) / np.maximum(np.abs(x), scale * _SMALL)).max())
        return found | {
            "distance": moved.distance,
            "largest_change": change,
            "left": self._rows(laws, closest, held, 1e-12),
            "twin": {**held, **closest},
        }

    def read(self, file: Path) -> dict[str, Any]:
        """A twin of a YAML file, whose `spectrum` is the name of a CSV beside it with columns
        `wavelength` (Å at rest), `luminosity` and, where there are errors, `error`.

        Raises:
            ArtifactError: If a file is not there or not readable, or is of other wavelengths.
        """
        if not file.is_file():
            raise ArtifactError(f"{file}: no such file")
        twin = plain_yaml.load(file)
        if not isinstance(twin, dict):
            raise ArtifactError(f"{file}: expected keys and values, such as `formed: 2.0e+10`")
        if not isinstance(twin.get(SPECTRUM), str):
            return twin
        table = file.parent / twin[SPECTRUM]
        try:
            rows = np.genfromtxt(table, delimiter=",", names=True, ndmin=1)
            wavelength, luminosity = rows["wavelength"], rows["luminosity"]
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"{table}: expected a CSV with the columns wavelength and luminosity ({error})"
            ) from None
        own = self.wavelength
        if wavelength.shape != own.shape or not np.allclose(wavelength, own, rtol=1e-6):
            raise ArtifactError(
                f"{table}: wavelength: {len(wavelength)} rows, expected the {len(own)} of the "
                f"model from {own[0]:g} to {own[-1]:g} Å, at rest"
            )
        twin[SPECTRUM] = luminosity
        if "error" in (rows.dtype.names or ()):
            twin["errors"] = {**(twin.get("errors") or {}), SPECTRUM: rows["error"]}
        return twin

    def _read(self, twin: Mapping[str, Any]) -> tuple[dict, dict[str, float], dict]:
        """Entries, places and errors."""
        known = [*PLACES, *PARTS, *self.bands, SPECTRUM]
        given = {name: value for name, value in twin.items() if name != "errors"}
        errors = dict(twin.get("errors") or {})
        if unknown := sorted({*given, *errors} - set(known)):
            raise ArtifactError(
                f"twin: {', '.join(unknown)}: unknown, allowed are {', '.join(known)} and errors"
            )
        places = {name: float(self._numbers(name, given[name])) for name in PLACES if name in given}
        entries = {
            name: self._numbers(name, given[name]) for name in known
            if name in given and name not in PLACES
        }  # fmt: skip
        if not entries:
            raise ArtifactError(f"twin: is empty, expected some of {', '.join(known)}")
        low, high = self.redshifts
        if "redshift" in places and not low <= places["redshift"] <= high:
            raise ArtifactError(
                f"twin: redshift: {places['redshift']:g}, the model is of {low:g} to {high:g}"
            )
        errors = {name: self._numbers(f"errors.{name}", value) for name, value in errors.items()}
        if errors and (missing := sorted(entries.keys() - errors)):
            raise ArtifactError(
                f"twin: errors.{missing[0]}: is missing, expected of all or of none"
            )
        for name, error in errors.items():
            if not (error > 0).all():
                raise ArtifactError(f"twin: errors.{name}: expected above zero")
        return entries, places, errors

    def _numbers(self, name: str, value: Any) -> np.ndarray:
        try:
            numbers = np.asarray(value, float)
        except (TypeError, ValueError):
            raise ArtifactError(f"twin: {name}: {value!r} is no number") from None
        whole = name.removeprefix("errors.") == SPECTRUM
        wanted = self.wavelength.shape if whole else ()
        if numbers.shape != wanted and not (whole and name != SPECTRUM and numbers.shape == ()):
            expected = (
                f"{len(self.wavelength)} numbers, at the wavelengths of the model from "
                f"{self.wavelength[0]:g} to {self.wavelength[-1]:g} Å" if whole else "one number"
            )  # fmt: skip
            raise ArtifactError(f"twin: {name}: has the shape {numbers.shape}, expected {expected}")
        if not np.isfinite(numbers).all():
            raise ArtifactError(f"twin: {name}: holds what is no finite number")
        return np.broadcast_to(numbers, wanted) if whole else numbers

    def _laws(self, entries: dict, places: dict[str, float]) -> list[Law]:
        """Those whose entries are all given."""
        laws = [Law(words, dict(sums)) for words, sums in _SUMS.items()]
        widths = np.diff(self.wavelength)
        area = (np.append(widths, 0.0) + np.append(0.0, widths)) / 2
        laws.append(
            Law("bolometric sum: luminosity = integral of the spectrum",
                {"attenuated": 1.0, SPECTRUM: -area})
        )  # fmt: skip
        if "redshift" in places:
            laws += [
                Law(f"flux in {band} = luminosity / (4 pi distance²)", {band: 1.0, SPECTRUM: -row})
                for band, row in zip(self.bands, self._responses(places["redshift"]), strict=True)
            ]
        return [law for law in laws if law.coefficients.keys() <= entries.keys()]

    def _responses(self, redshift: float) -> np.ndarray:
        """Nanomaggies in each band for a solar luminosity per Å at each wavelength."""
        import jax.numpy as jnp

        rest = self._node / (1 + redshift)
        k = np.clip(
            np.searchsorted(self.wavelength, rest, side="right") - 1, 0, len(self.wavelength) - 2
        )
        part = (rest - self.wavelength[k]) / (self.wavelength[k + 1] - self.wavelength[k])
        distance = float(self.cosmology.luminosity_distance(jnp.asarray(redshift)))
        size = len(self.wavelength)
        rows = [
            np.bincount(k, each * (1 - part), size) + np.bincount(k + 1, each * part, size)
            for each in self._through
        ]
        return np.array(rows) / distance**2 / (1 + redshift)

    def _universe(self, redshift: float) -> float:
        import jax.numpy as jnp

        return float(self.cosmology.age(jnp.asarray(redshift)))

    def _too_old(self, places: dict[str, float]) -> float:
        if not {"age", "redshift"} <= places.keys():
            return 0.0
        return max(places["age"] / self._universe(places["redshift"]) - 1, 0.0)

    def _rows(self, laws: list[Law], entries: dict, places: dict, limit: float) -> list[dict]:
        sums = []
        for law in laws:
            terms = [np.sum(np.multiply(c, entries[n])) for n, c in law.coefficients.items()]
            size = max(map(abs, terms))
            sums.append((law.words, abs(sum(terms)) / size if size else 0.0))
        below = [
            float(np.max(np.maximum(-np.asarray(v), 0) / max(np.abs(v).max(), 1e-300)))
            for v in entries.values()
        ]
        sums.append(("no mass, luminosity or flux is below zero", max(below)))
        if {"age", "redshift"} <= places.keys():
            sums.append(("no star is older than the universe", self._too_old(places)))
        return [
            {
                "law": law, "status": "kept" if size <= limit else "violated",
                "largest": float(size), "limit": limit, "n": 1, "how": "sums of the numbers given",
            }
            for law, size in sums
        ]  # fmt: skip


def _scale(name: str, entries: dict, errors: dict, bands: tuple[str, ...]) -> np.ndarray:
    """What changes of an entry are measured in: its error, or its own size."""
    if errors:
        return np.atleast_1d(errors[name]).astype(float)
    kinds = (("formed", "surviving", "returned"), ("intrinsic", "attenuated", "infrared"), bands)
    kind = next((kind for kind in kinds if name in kind), (name,))
    largest = max(float(np.abs(entries[each]).max()) for each in kind if each in entries)
    return np.maximum(np.abs(np.atleast_1d(entries[name])), _SMALL * max(largest, 1e-300))
