"""What inference needs of a training, and nothing else: draws of the regression, and its films."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from touchstone.io import artifacts
from touchstone.io.artifacts import ArtifactError
from touchstone.models.interface.regression import Design
from touchstone.models.interface.table import Columns, Table, is_constant

DRAWS, META = "regression.npz", "model_meta.json"
VERSION = 1
_SHRINK = 0.1  # of a covariance of few films towards its diagonal
_BEYOND = 1.2  # times the farthest film of the training: farther out lies what it says nothing of
_LEEWAY = 0.05  # of the range of a stimulus, and of the distance of the farthest combination
_ROUNDING = 1e-6  # of a value, which is kept in single precision


@dataclass(frozen=True)
class Scaler:
    """Moments of the films that were trained on.

    Attributes:
        kept: Places of the descriptors of use among all, shape (J,).
        mean, sd: Of those descriptors, then of the stimuli, then of the target, shape (J + K + 1,).
    """

    kept: Int[np.ndarray, " descriptor"]
    mean: Float[np.ndarray, " column"]
    sd: Float[np.ndarray, " column"]

    @classmethod
    def fit(cls, table: Table, kept: np.ndarray) -> "Scaler":
        """Of the rows of a table; what a row lacks does not count.

        A stimulus that is the same in all rows has its own size for a standard deviation: any other
        value of it is then finite, and outside of the training.
        """
        values = cls._values(table, kept)
        mean, sd = np.nanmean(values, 0), np.nanstd(values, 0)
        same = np.array([is_constant(column[np.isfinite(column)]) for column in values.T])
        return cls(kept, mean, np.where(same, np.where(mean == 0, 1.0, np.abs(mean)), sd))

    def design(self, table: Table) -> Design:
        """A table in standard deviations; a descriptor that a row lacks is at its mean."""
        standard = (self._values(table, self.kept) - self.mean) / self.sd
        standard = np.nan_to_num(standard)
        j = len(self.kept)
        return Design(table.number, standard[:, :j], standard[:, j:-1], standard[:, -1])

    @staticmethod
    def _values(table: Table, kept: np.ndarray) -> np.ndarray:
        values = np.column_stack([table.morphology[:, kept], table.stimuli, table.target])
        return np.where(np.isfinite(values), values, np.nan)


@dataclass(frozen=True)
class Frozen:
    """Draws of the regression, in standard deviations, and the films it learnt from.

    Attributes:
        intercept, film_sd, scatter: Shape (draw,).
        morphology: Shape (draw, J).
        stimulus: Shape (draw, K).
        product: Shape (draw, J, K).
        kept, mean, sd: Of the scaler.
        films: Mean descriptors of each film, standardised, shape (film, J).
        residuals: Of each of its measurements about them, shape (film, N, J).
        series: Its stimuli, shape (film, N, K).
        counts: Number of its measurements, shape (film,).
        effect: Film effects, shape (draw, film).
        labels: Names of the films, shape (film,).
        areas: Their measurements, standardised, shape (row,).
    """

    intercept: Float[np.ndarray, " draw"]
    morphology: Float[np.ndarray, "draw descriptor"]
    stimulus: Float[np.ndarray, "draw stimulus"]
    product: Float[np.ndarray, "draw descriptor stimulus"]
    film_sd: Float[np.ndarray, " draw"]
    scatter: Float[np.ndarray, " draw"]
    kept: Int[np.ndarray, " descriptor"]
    mean: Float[np.ndarray, " column"]
    sd: Float[np.ndarray, " column"]
    films: Float[np.ndarray, "film descriptor"]
    residuals: Float[np.ndarray, "film measurement descriptor"]
    series: Float[np.ndarray, "film measurement stimulus"]
    counts: Int[np.ndarray, " film"]
    effect: Float[np.ndarray, "draw film"]
    labels: np.ndarray
    areas: Float[np.ndarray, " row"]

    @classmethod
    def of(
        cls,
        draws: dict[str, np.ndarray],
        scaler: Scaler,
        design: Design,
        effect: np.ndarray,
        labels: np.ndarray,
    ) -> "Frozen":
        """From draws by the names of the regression, the standardised data, and their films."""
        n_films, counts = int(design.film.max()) + 1, np.bincount(design.film)
        shape = n_films, int(counts.max())
        films = np.stack([design.morphology[design.film == f].mean(0) for f in range(n_films)])
        residuals = np.zeros((*shape, films.shape[1]))
        series = np.zeros((*shape, design.stimuli.shape[1]))
        for f, count in enumerate(counts):
            residuals[f, :count] = design.morphology[design.film == f] - films[f]
            series[f, :count] = design.stimuli[design.film == f]
        return cls(
            **draws, kept=scaler.kept, mean=scaler.mean, sd=scaler.sd,
            films=films, residuals=residuals, series=series, counts=counts, effect=effect,
            labels=labels, areas=design.target,
        )  # fmt: skip

    @property
    def scaler(self) -> Scaler:
        """Of the films that were trained on."""
        return Scaler(self.kept, self.mean, self.sd)

    def location(
        self, morphology: np.ndarray, stimuli: np.ndarray
    ) -> Float[np.ndarray, "draw measurement"]:
        """Mean of each draw without the film effect, at (N, J) and (N, K)."""
        products = np.einsum("nj,djk,nk->dn", morphology, self.product, stimuli, optimize=True)
        linear = self.morphology @ morphology.T + self.stimulus @ stimuli.T
        return self.intercept[:, None] + linear + products

    def effects(self, morphology: np.ndarray) -> Float[np.ndarray, "draw stimulus"]:
        """Effect of each stimulus on a film of mean descriptors (J,), by each draw."""
        return self.stimulus + np.einsum("j,djk->dk", morphology, self.product)

    def draw_films(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, ...]:
        """New films like those of the training: a smoothed bootstrap.

        Returns:
            Descriptors (n, N, J), stimuli (n, N, K), and which measurements there are (n, N).
        """
        n_films, j = self.films.shape
        which, of_residuals, of_series = rng.integers(n_films, size=(3, n))
        width = n_films ** (-1 / (j + 4))  # Silverman's rule
        kernel = np.linalg.cholesky(self.covariance)
        centre = self.films.mean(0)
        # Shrunk towards the centre, so that the smoothing does not widen the family.
        smooth = (self.films[which] - centre) + width * rng.standard_normal((n, j)) @ kernel.T
        films = centre + smooth / np.sqrt(1 + width**2)
        count = np.minimum(self.counts[of_series], self.counts[of_residuals])
        mask = np.arange(self.series.shape[1]) < count[:, None]
        return films[:, None] + self.residuals[of_residuals], self.series[of_series], mask

    @property
    def covariance(self) -> Float[np.ndarray, "descriptor descriptor"]:
        """Of the films' mean descriptors, shrunk towards its diagonal."""
        return _covariance(self.films)

    def novelty(self, morphology: np.ndarray, stimuli: np.ndarray) -> float:
        """How far a film lies from those of the training; up to 1 is inside.

        The larger of its Mahalanobis distance from them, beside that of the farthest of them, and
        of its stimuli's distances from mid-range, in half-ranges.

        Args:
            morphology: Its mean descriptors, shape (J,).
            stimuli: Shape (N, K).
        """
        ours, farthest = _distances(morphology[None], self.films)
        low, high = self.ranges()
        place = np.abs(stimuli - (low + high) / 2)
        place /= np.maximum((high - low) / 2, self._rounding())
        return float(max(ours / farthest, place.max()))

    def _rounding(self) -> Float[np.ndarray, " stimulus"]:
        """How far apart stimuli are called the same, standardised."""
        stimuli = slice(len(self.kept), -1)
        return np.maximum(_ROUNDING * np.abs(self.mean[stimuli]) / self.sd[stimuli], 1e-9)

    @property
    def combinations(self) -> Float[np.ndarray, "row stimulus"]:
        """Stimuli of all measurements of the training."""
        return self.series[np.arange(self.series.shape[1]) < self.counts[:, None]]

    def ranges(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest of each stimulus of the training, shape (K,) each."""
        return self.combinations.min(0), self.combinations.max(0)

    def outside(
        self, morphology: np.ndarray, stimuli: np.ndarray, names: tuple[str, ...]
    ) -> list[str]:
        """What of a film lies outside of the training, in words.

        Args:
            morphology: Its mean descriptors, shape (J,).
            stimuli: Shape (N, K).
            names: Of the stimuli.
        """
        distance, farthest = _distances(morphology[None], self.films)
        limit = _BEYOND * farthest
        said = []
        if distance > limit:
            said.append(
                f"the morphology is {distance:.1f} standard deviations from the films of the "
                f"training, at most {limit:.1f} is near any of them"
            )
        j, inside = len(self.kept), len(said)
        rounding = self._rounding()
        for k, (name, low, high) in enumerate(zip(names, *self.ranges(), strict=True)):
            mean, sd = self.mean[j + k], self.sd[j + k]
            leeway = _LEEWAY * (high - low) + rounding[k]
            if (stimuli[:, k] < low - leeway).any() or (stimuli[:, k] > high + leeway).any():
                ends = mean + sd * np.unique([stimuli[:, k].min(), stimuli[:, k].max()])
                value = " to ".join(f"{end:.4g}" for end in ends)
                said.append(
                    f"{name} is {value}, trained from {mean + sd * low:.4g} "
                    f"to {mean + sd * high:.4g}"
                )
        distance, farthest = _distances(stimuli, self.combinations)
        if len(said) == inside and distance > (limit := (1 + _LEEWAY) * farthest):
            said.append(
                f"the combination of {', '.join(names)} was not tried: it is {distance:.1f} "
                f"standard deviations from those of the training, of which none is more than "
                f"{limit:.1f}"
            )
        return said

    def save(self, folder: Path, columns: Columns, settings: dict, lineage: dict) -> None:
        """Write the artefact, its manifest last."""
        arrays = {
            field.name: np.asarray(getattr(self, field.name), _precision(getattr(self, field.name)))
            for field in fields(self)
        }
        artifacts.save_arrays(folder / DRAWS, arrays)
        kept = [columns.morphology[j] for j in self.kept]
        meta = {
            "schema_version": VERSION,
            "model_id": "interface",
            "columns": {**columns._asdict(), "kept": kept},
            "settings": settings,
        }
        artifacts.write_json(folder / META, meta)
        artifacts.write_manifest(folder, [DRAWS, META], settings, lineage)

    @classmethod
    def load(cls, path: Path, columns: Columns) -> tuple["Frozen", bool]:
        """Read an artefact, and whether a manifest vouches for it.

        Raises:
            ArtifactError: If a file is missing, altered, or of another version.
        """
        folder = path if path.is_dir() else path.parent
        if not path.exists():
            raise ArtifactError(f"{path}: no such checkpoint")
        verified = artifacts.verify(folder, [DRAWS, META])
        meta, arrays = artifacts.read_json(folder / META), artifacts.load_arrays(folder / DRAWS)
        if (version := meta.get("schema_version")) != VERSION:
            raise ArtifactError(
                f"{folder / META}: schema_version {version}, expected {VERSION}; train anew"
            )
        try:
            frozen = cls(**{field.name: arrays[field.name] for field in fields(cls)})
            names = meta["columns"]["kept"], meta["columns"]["stimuli"]
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{folder}: not a checkpoint of this model ({error})") from None
        if names != ([columns.morphology[j] for j in frozen.kept], list(columns.stimuli)):
            raise ArtifactError(
                f"{folder / META}: columns: are others than the model's; train anew"
            )
        for field in fields(cls):
            if field.name != "labels" and not np.isfinite(arrays[field.name]).all():
                raise ArtifactError(
                    f"{folder / DRAWS}: {field.name} holds values that are not finite"
                )
        return frozen, verified


def _covariance(cloud: Float[np.ndarray, "point column"]) -> Float[np.ndarray, "column column"]:
    """Of few points, shrunk towards its diagonal."""
    found = np.atleast_2d(np.cov(cloud.T))
    return (1 - _SHRINK) * found + _SHRINK * np.diag(np.diag(found)) + 1e-6 * np.eye(len(found))


def _distances(
    points: Float[np.ndarray, "n column"], cloud: Float[np.ndarray, "point column"]
) -> tuple[float, float]:
    """Mahalanobis distances from the centre of a cloud: the largest of points, and of its own."""
    inverse = np.linalg.inv(_covariance(cloud))
    apart = np.vstack([points, cloud]) - cloud.mean(0)
    found = np.sqrt(np.einsum("fj,jk,fk->f", apart, inverse, apart))
    return float(found[: len(points)].max()), float(found[len(points) :].max())


def _precision(values: np.ndarray) -> type:
    kind = np.asarray(values).dtype.kind
    return np.int32 if kind in "iu" else str if kind in "UO" else np.float32
