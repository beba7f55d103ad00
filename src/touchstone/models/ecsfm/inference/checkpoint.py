"""A trained pair of networks on disk: surrogate, posterior, normalisers, facts, manifest."""

from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax
import numpy as np

from touchstone.inference.flow import VectorFieldNet
from touchstone.io import artifacts
from touchstone.io.artifacts import ArtifactError
from touchstone.models.ecsfm.inference.networks import VERSION, Normaliser

SURROGATE, POSTERIOR = "surrogate_model.eqx", "posterior_model.eqx"
NORMALIZERS, META = "normalizers.npz", "model_meta.json"
FILES = (SURROGATE, POSTERIOR, NORMALIZERS, META)


@dataclass(frozen=True)
class Checkpoint:
    """What inference needs.

    Attributes:
        surrogate: Parameters and waveform to current.
        posterior: Observed current and waveform to parameters.
        normaliser: Of what both see.
        meta: Sizes, settings and the range of the training, as in `model_meta.json`.
        verified: Whether the files matched a manifest.
    """

    surrogate: VectorFieldNet
    posterior: VectorFieldNet
    normaliser: Normaliser
    meta: dict
    verified: bool

    @classmethod
    def untrained(cls, meta: dict, normaliser: Normaliser, key: jax.Array) -> "Checkpoint":
        """Networks of the sizes in `meta`, with fresh weights."""
        keys = jax.random.split(key)
        nets = {
            name: VectorFieldNet(**meta["networks"][name], key=key)
            for name, key in zip(("surrogate", "posterior"), keys, strict=True)
        }
        return cls(**nets, normaliser=normaliser, meta=meta, verified=True)

    def save(self, folder: Path, lineage: dict) -> None:
        """Write all files, the manifest with the lineage of the training last."""
        for name, net in ((SURROGATE, self.surrogate), (POSTERIOR, self.posterior)):
            with artifacts.atomic(folder / name) as temporary:
                eqx.tree_serialise_leaves(temporary, net)
        artifacts.save_arrays(folder / NORMALIZERS, self.normaliser._asdict())
        artifacts.write_json(folder / META, self.meta)
        artifacts.write_manifest(folder, list(FILES), self.meta["settings"], lineage)

    @classmethod
    def load(cls, path: Path | str) -> "Checkpoint":
        """Read a checkpoint folder, or the folder of a file in it.

        Raises:
            ArtifactError: If a file is missing, damaged, or not what the manifest says.
        """
        path = Path(path)
        folder = path if path.is_dir() else path.parent
        if not path.exists():
            raise ArtifactError(f"{path}: no such checkpoint")
        verified = artifacts.verify(folder, list(FILES))
        meta = artifacts.read_json(folder / META)
        arrays = artifacts.load_arrays(folder / NORMALIZERS)
        try:
            version = meta["schema_version"]
            normaliser = Normaliser(**{name: arrays[name] for name in Normaliser._fields})
            blank = cls.untrained(meta, normaliser, jax.random.key(0))
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{folder}: not a checkpoint of this model ({error})") from None
        if version != VERSION:
            raise ArtifactError(
                f"{folder / META}: schema_version {version}, expected {VERSION}: its networks "
                "learnt from other contexts; train anew"
            )
        if not all(np.isfinite(value).all() for value in normaliser):
            raise ArtifactError(f"{folder / NORMALIZERS}: holds values that are not finite")
        nets = {}
        for name, file in (("surrogate", SURROGATE), ("posterior", POSTERIOR)):
            try:
                net = eqx.tree_deserialise_leaves(folder / file, getattr(blank, name))
            except (RuntimeError, ValueError, EOFError, OSError) as error:
                message = f"{folder / file}: not the network of {META} ({error})"
                raise ArtifactError(message) from None
            weights = jax.tree.leaves(eqx.filter(net, eqx.is_array))
            if not all(np.isfinite(leaf).all() for leaf in weights):
                raise ArtifactError(f"{folder / file}: holds weights that are not finite")
            nets[name] = net
        return cls(**nets, normaliser=normaliser, meta=meta, verified=verified)
