"""Experiments that the simulator is held against finite volumes in, and the stored solutions.

The solutions take minutes, so that `tests/data/finite_volume.npz` keeps them, with what they are
the solutions of: numbers of the experiments, and the sha256 of the solver's source. Where either
has changed, `python tests/models/ecsfm/experiments.py` solves all anew.
"""

from hashlib import sha256
from pathlib import Path

import finite_volume
import jax
import numpy as np
import yaml
from finite_volume import Trace
from scipy.special import ndtri

import touchstone.models.ecsfm as ecsfm
from touchstone.models.ecsfm.data import family
from touchstone.models.ecsfm.physics.experiment import SHAPES
from touchstone.models.ecsfm.physics.prior import Prior
from touchstone.models.ecsfm.physics.waveforms import find_jumps

FILE = Path(__file__).parents[2] / "data/finite_volume.npz"
CONFIG = yaml.safe_load((Path(ecsfm.__file__).parent / "config.yaml").read_text(encoding="utf-8"))
AREA, ROOM = 0.07, 298.15  # cm^2, K
N = 512


def couple(**changes):
    """One reversible couple, O alone at 1 mM, in plain numbers."""
    reversible = {"d_ox": 1e-5, "d_red": 1e-5, "c_ox": 1e-6, "c_red": 0.0, "e0": 0.0, "k0": 1e3}
    return {**reversible, "alpha": 0.5, **changes}


def sweep(start, end, n=N):
    """Record of one linear sweep."""
    return np.linspace(start, end, n + 1)[1:]


def there_and_back(start, other, n=N):
    """Record of one cycle."""
    return np.concatenate([sweep(start, other, n // 2), sweep(other, start, n // 2)])


def segments(record):
    """The same record as finite volumes take it: cut where it jumps, constant after a jump."""
    jumps = find_jumps(record)
    start = record[0] if 1 in jumps else 2 * record[0] - record[1]
    pieces = np.split(record, jumps)
    starts = [start, *(piece[0] for piece in pieces[1:])]
    return [np.append(first, piece) for first, piece in zip(starts, pieces, strict=True)]


# By hand ------------------------------------------------------------------------------------------

QUASI = couple(c_red=0.3e-6, d_red=0.7e-5, k0=2e-3, alpha=0.4)
THREE = [
    couple(e0=-0.25, k0=5e-3, alpha=0.6),
    couple(e0=0.0, k0=1e-4, c_ox=0.4e-6, d_ox=6e-6),
    couple(e0=0.3, k0=3e-2, c_ox=0.0, c_red=0.7e-6, d_red=2e-5),
]
GROWING = {**finite_volume.REFERENCE_FOULING, "k_ads": 2e5, "k_reaction": 0.2}
COVERED = {**finite_volume.REFERENCE_FOULING, "theta": 0.78, "k_ads": 0.0, "k_reaction": 0.0}
CYCLE, SPREAD = there_and_back(0.5, -0.5), there_and_back(0.6, -0.6)
CLEANED = np.concatenate([there_and_back(0.5, -0.5, N // 2), np.full(N // 8, 0.9)])
CLEANED = np.concatenate([CLEANED, there_and_back(0.5, -0.5, N - len(CLEANED))])
SLOW_CELL = {"resistance": 2e3, "capacitance": 500e-6}
CELL = {"resistance": 100.0, "capacitance": 20e-6}

WHOLE = {  # record, duration, couples, and what else differs from a plane in an ideal cell
    "reversible": (CYCLE, 10.0, [couple()], {}),
    "quasi-reversible": (CYCLE, 10.0, [QUASI], {}),
    "sphere": (CYCLE, 10.0, [QUASI], {"radius": 5e-3}),
    "cell": (CYCLE, 2.0, [QUASI], {"resistance": 800.0, "capacitance": 40e-6}),
    "stiff cell": (CYCLE, 0.5, [couple()], {"resistance": 5e3, "capacitance": 100e-6}),
    "slow cell": (SPREAD, 1.0, [QUASI], SLOW_CELL),
    "fouling slow cell": (
        SPREAD,
        1.0,
        [QUASI],
        {**SLOW_CELL, "fouling": {**GROWING, "k_ads": 2e6}},
    ),
    "three couples": (SPREAD, 6.0, THREE, {"resistance": 300.0, "capacitance": 20e-6}),
    "covered": (CYCLE, 5.0, [QUASI], {**CELL, "fouling": COVERED}),
    "growing": (CYCLE, 5.0, [QUASI], {**CELL, "fouling": GROWING}),
    "cleaned": (CLEANED, 9.0, [QUASI], {"fouling": {**GROWING, "k_clean": 2.0}}),
    "everything": (
        SPREAD,
        6.0,
        THREE,
        {"radius": 2e-2, "resistance": 300.0, "capacitance": 20e-6, "fouling": GROWING},
    ),
}
FINE = ("stiff cell", "covered", "growing", "everything")  # solved on a finer grid, too


# Of the training family ---------------------------------------------------------------------------


class Family:
    """Experiments of the training family, half of them at corners of the prior."""

    n_samples, n_nodes = 256, 640  # as data sets are made

    def __init__(self, n=240, seed=7):
        rng = np.random.default_rng(seed)
        prior = Prior(CONFIG, CONFIG["max_couples"])
        draws = family.draw(rng, CONFIG, n, self.n_samples, prior.size, {"frontier": 1.0})
        corner = rng.choice([1e-4, 1 - 1e-4], draws.quantile.shape)
        quantile = np.where(np.arange(n)[:, None] % 2, corner, draws.quantile)
        z = ndtri(quantile).astype(np.float32)
        # Finite volumes have one dimension: a disc is solved as the plane that it nearly is.
        planar, disc = (SHAPES.index(name) for name in ("planar", "disc"))
        shape = np.where(draws.experiment.shape == disc, planar, draws.experiment.shape)
        self.experiment, self.task = draws.experiment._replace(shape=shape), draws.task

        @jax.jit
        @jax.vmap
        def of_prior(z, experiment):
            natural = prior.natural(z, experiment)
            cell = prior.instrument(natural, experiment)
            return prior.couples(natural, experiment), cell, experiment.electrode

        self.couples, self.cell, self.electrode = of_prior(z, self.experiment)

    def first(self, task):
        """Index of the first experiment of a task that is not at a corner."""
        chosen = np.flatnonzero(self.task == list(CONFIG["tasks"]).index(task))
        return chosen[chosen % 2 == 0][0]

    def as_plain_numbers(self, index):
        """An experiment as finite volumes take it."""
        species, electrode, cell = jax.tree.map(
            lambda a: np.asarray(a, float)[index], (self.couples, self.electrode, self.cell)
        )
        columns = dict(zip(couple(), species, strict=True))
        record = self.experiment.potential[index].astype(float)
        return {
            "segments": segments(record),
            "interval": float(self.experiment.duration[index]) / len(record),
            "couples": [{name: column[k] for name, column in columns.items()} for k in range(2)],
            "area": electrode.area,
            "temperature": electrode.temperature,
            "radius": 1 / electrode.curvature if electrode.curvature > 0 else None,
            "resistance": cell.resistance,
            "capacitance": cell.capacitance,
            # After a jump the double layer charges in a small part of an interval.
            "substeps": 64 if find_jumps(record) else 6,
        }


# Solutions ----------------------------------------------------------------------------------------


def by_name(drawn=None):
    """Arguments of the solver for every experiment, by its name."""
    drawn = drawn or Family()
    experiments = {}
    for name, (record, duration, rows, settings) in WHOLE.items():
        experiments[name] = {
            "segments": segments(record),
            "interval": duration / len(record),
            "couples": rows,
            "area": AREA,
            "temperature": ROOM,
            **settings,
        }
    for name in FINE:
        experiments[f"fine {name}"] = {**experiments[name], "growth": 1.03, "substeps": 8}
    for task in CONFIG["tasks"]:
        experiments[f"task {task}"] = drawn.as_plain_numbers(drawn.first(task))
    return experiments


def solve(experiment):
    """What finite volumes give, to the precision that is stored."""
    return Trace(*(np.float32(values) for values in finite_volume.simulate(**experiment)))


def stored(name, experiment):
    """The solution that is stored for an experiment."""
    with np.load(FILE) as file:
        if str(file["solver"]) != _solver():
            raise ValueError(f"{FILE.name} is by another finite_volume.py: {__doc__}")
        there = file[f"{name}: numbers"]
        np.testing.assert_allclose(_numbers(experiment), there, rtol=1e-5, err_msg=__doc__)
        return Trace(*file[f"{name}: solution"])


def _numbers(experiment):
    """All numbers of an experiment, potentials moved away from zero, so that all compare alike."""
    moved = [10.0 + segment for segment in experiment["segments"]]
    leaves = jax.tree.leaves({**experiment, "segments": moved})
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


def _solver():
    return sha256(Path(finite_volume.__file__).read_bytes()).hexdigest()


def main():
    """Solve all experiments and store them."""
    arrays = {"solver": np.array(_solver())}
    for name, experiment in by_name().items():
        arrays[f"{name}: numbers"] = _numbers(experiment)
        arrays[f"{name}: solution"] = np.stack(solve(experiment))
        print(name)
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
