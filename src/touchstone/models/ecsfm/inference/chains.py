"""Chains of the no-U-turn sampler for simulated cases, kept on disk."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from touchstone.inference import nuts
from touchstone.io import artifacts
from touchstone.models.ecsfm.inference.posteriors import Posteriors
from touchstone.models.ecsfm.physics.experiment import Records
from touchstone.models.ecsfm.physics.waveforms import Waveform
from touchstone.vocabulary import Computation

if TYPE_CHECKING:
    import xarray as xr

_LENGTHS = (1, 2, 4)  # of chains, in turn, until they agree
_HOPEFUL = 0.5  # part of the effective draws needed that longer chains must be expected to hold


class Sampled(NamedTuple):
    """Draws of all cases.

    Attributes:
        z: Standard coordinates, all chains one after the other, shape (n, draws, P); NaN where a
            case could not be sampled.
        computation: Whether the chains of each case agree.
    """

    z: np.ndarray
    computation: Computation


def sample_each(
    posteriors: Posteriors,
    records: Records,
    waveform: Waveform,
    begin: np.ndarray,
    budget: dict,
    seed: int,
    folder: Path,
    label: str | None,
) -> Sampled:
    """Sample each of some simulated cases.

    Where chains do not agree they are run again from their own draws, twice and then four times as
    long, unless even then they are expected to hold less than half of the effective draws needed.

    Args:
        posteriors: Of the model.
        records: The cases, with their truths.
        waveform: Of the cases.
        begin: Draws of another posterior, standard coordinates, shape (n, draws, P).
        budget: `n_tune` and `n_draws` of each chain.
        seed: For all randomness.
        folder: Where the chains are kept, as `nuts_<case>_<time>.nc`.
        label: Shows a progress bar under this name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    n = len(records.z)
    figures = {name: np.full(n, np.nan) for name in ("r_hat", "ess", "divergent_part", "seconds")}
    z = []
    for k in tqdm(range(n), desc=label, disable=label is None):
        one, its_waveform = jax.tree.map(
            lambda a, k=k: np.asarray(a)[k : k + 1], (records, waveform)
        )
        try:
            chains, diagnosis = _chains(
                posteriors, one, its_waveform, begin[k], budget, seed + k, folder, k
            )
        except nuts.UnfitStartError as error:
            tqdm.write(f"case {k} cannot be sampled: {error}")
            for file in files_of(folder, k):  # if any, of another case
                file.unlink()
            z.append(None)
            continue
        z.append(_whole(chains, one, posteriors.prior.names))
        figures["r_hat"][k] = max(diagnosis.r_hat.values())
        figures["ess"][k] = diagnosis.least_ess
        figures["divergent_part"][k] = diagnosis.n_divergent / diagnosis.n_draws
        figures["seconds"][k] = chains.attrs["seconds"]
    n_draws = min((len(one) for one in z if one is not None), default=1)
    limits = {"r_hat": nuts.LARGEST_R_HAT, "divergent_part": nuts.MOST_DIVERGENT}
    return Sampled(
        np.stack([_thinned(one, n_draws, records.z.shape[1]) for one in z]),
        Computation(
            figures,
            {name: np.full(n, limit) for name, limit in limits.items()},
            {"ess": np.full(n, float(nuts.LEAST_ESS))},
        ),
    )


def _thinned(z: np.ndarray | None, n_draws: int, size: int) -> np.ndarray:
    if z is None:
        return np.full((n_draws, size), np.nan, np.float32)
    return z[np.linspace(0, len(z) - 1, n_draws).astype(int)]


def _whole(chains: "xr.DataTree", record: Records, names: list[str]) -> np.ndarray:
    """All parameters of all draws, shape (draws, P): what was not sampled is as in the record."""
    sampled = chains["posterior"].dataset["z"]
    places = [names.index(name) for name in sampled["parameter"].values]
    z = np.tile(record.z.astype(np.float32), (sampled[..., 0].size, 1))
    z[:, places] = sampled.values.reshape(len(z), -1)
    return z


def _chains(
    posteriors: Posteriors,
    record: Records,
    waveform: Waveform,
    begin: np.ndarray,
    budget: dict,
    seed: int,
    folder: Path,
    case: int,
):
    """Chains of a case, those kept in the folder if they are what is asked for; their diagnosis."""
    sizes = {name: budget[name] for name in ("n_tune", "n_draws")}
    asked = json.dumps({**sizes, "seed": seed})
    before = files_of(folder, case)
    old = kept(before[-1]) if before else None
    if old is not None and old.attrs.get("asked") != asked:
        old = None
    started = time.perf_counter()
    for length in _LENGTHS:
        longer = {name: length * size for name, size in sizes.items()}
        chains = posteriors.nuts(record, waveform, begin, seed=seed, kept=old, **longer)
        diagnosis = nuts.diagnose(chains)
        if chains is old:
            return chains, diagnosis
        expected = _LENGTHS[-1] / length * diagnosis.least_ess
        if not diagnosis.faults or not expected >= _HOPEFUL * nuts.LEAST_ESS:
            break
        begin, old = _whole(chains, record, posteriors.prior.names), None
    chains.attrs |= {"asked": asked, "seconds": time.perf_counter() - started}
    file = artifacts.stamped(folder, f"nuts_{case}")
    with artifacts.atomic(file) as temporary:
        chains.to_netcdf(temporary, engine="h5netcdf")
    for replaced in set(before) - {file}:
        replaced.unlink()
    return chains, diagnosis


def files_of(folder: Path, case: int) -> list[Path]:
    """Chains of a case that were kept, the newest last."""
    return sorted(folder.glob(f"nuts_{case}_*.nc"))


def kept(file: Path) -> "xr.DataTree | None":
    """Chains that were kept; None if there are none, or they are damaged."""
    import xarray as xr

    try:
        return xr.load_datatree(file, engine="h5netcdf")
    except (OSError, ValueError, KeyError, RuntimeError):
        return None
