"""The training family: tasks, curriculum levels, and the experiments drawn from them."""

from typing import NamedTuple

import numpy as np

from touchstone.models.ecsfm.physics.experiment import SHAPES, Experiment
from touchstone.models.ecsfm.physics.prior import BLOCKS

_EDGE = 1e-7  # a quantile nearer to 0 or 1 has no finite standard coordinate in float32
_MOST_AFTER_HOLD = 2  # cycles


class Draws(NamedTuple):
    """Experiments with the fractions at which to draw their parameters.

    Attributes:
        experiment: Batch of experiments.
        quantile: Quantiles of all parameters in their priors, shape (n, P).
        task: Index of the task, shape (n,).
        level: Index of the curriculum level, shape (n,).
    """

    experiment: Experiment
    quantile: np.ndarray
    task: np.ndarray
    level: np.ndarray


def draw(
    rng: np.random.Generator,
    config: dict,
    n: int,
    n_samples: int,
    n_parameters: int,
    levels: dict[str, float],
) -> Draws:
    """Draw experiments of the training family.

    Args:
        rng: Source of randomness.
        config: The model's `config.yaml`.
        n: Number of experiments.
        n_samples: Samples of each record.
        n_parameters: Length of the parameter vector.
        levels: Share of each curriculum level, by name.

    Returns:
        The experiments and the quantiles of their parameters.
    """
    tasks, masses = config["tasks"], config["levels"]
    weight = np.array([t["weight"] for t in tasks.values()], float)
    share = np.array([levels.get(name, 0.0) for name in masses], float)
    task = rng.choice(len(tasks), n, p=weight / weight.sum())
    level = rng.choice(len(masses), n, p=share / share.sum())
    spread = np.array(list(masses.values()))[level]

    def central(shape=()):
        """Uniform over the central part that the level covers."""
        return 0.5 + spread.reshape(-1, *[1] * len(shape)) * (rng.random((n, *shape)) - 0.5)

    max_couples = config["max_couples"]
    quantile = central((n_parameters,))
    n_couples = np.ones(n, int)
    for index, entry in enumerate(tasks.values()):
        chosen = np.flatnonzero(task == index)
        n_couples[chosen] = rng.choice(entry["couples"], len(chosen))
    present = _composition(rng, n_couples, max_couples)
    potential, duration = np.zeros((n, n_samples)), np.zeros(n)
    for index, entry in enumerate(tasks.values()):
        chosen = np.flatnonzero(task == index)
        for block, (low, high) in entry.get("box", {}).items():
            columns = BLOCKS.index(block) * max_couples + np.arange(max_couples)
            box = np.ix_(chosen, columns)
            inner = (quantile[box] - 0.5) / spread[chosen, None] + 0.5
            inner = low + (high - low) * inner
            quantile[box] = 0.5 + spread[chosen, None] * (inner - 0.5)
        if len(chosen):
            technique = entry["technique"]
            settings = _Settings(
                rng, config["techniques"][technique], spread[chosen], _quiet_side(present[chosen])
            )
            potential[chosen], duration[chosen] = _TECHNIQUES[technique](settings, n_samples)
    potential += _range(config["centre"], central())[:, None]
    experiment = Experiment(
        np.asarray(potential, np.float32),
        np.asarray(duration, np.float32),
        np.asarray(_range(config["settings"]["radius"], central()), np.float32),
        rng.choice(len(SHAPES), n, p=[config["shapes"][name] for name in SHAPES]),
        np.asarray(_range(config["settings"]["temperature"], central()), np.float32),
        present,
    )
    return Draws(experiment, np.clip(quantile, _EDGE, 1 - _EDGE), task, level)


class _Settings:
    """Draws the settings of a technique for a batch, at the spread of each curriculum level."""

    def __init__(self, rng: np.random.Generator, ranges: dict, spread, quiet_side):
        self.rng, self.ranges, self.spread, self.quiet_side = rng, ranges, spread, quiet_side

    def __len__(self):
        return len(self.spread)

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self.ranges[name]
        if isinstance(entry, list):
            return self.rng.choice(entry, len(self))
        if not isinstance(entry, dict):
            return np.full(len(self), entry)
        return _range(entry, 0.5 + self.spread * (self.rng.random(len(self)) - 0.5))

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """First and other end of a window of the drawn width about 0.

        Four in five start where nothing reacts, as an experimenter would.
        """
        side = self.rng.choice([-1.0, 1.0], len(self))
        quiet = (self.quiet_side != 0) & (self.rng.random(len(self)) < 0.8)
        half = self["width"] / 2 * np.where(quiet, self.quiet_side, side)
        return half, -half


def _range(entry: dict, quantile: np.ndarray) -> np.ndarray:
    low, high = float(entry["low"]), float(entry["high"])
    if entry.get("log") or entry.get("prior") == "loguniform":
        return low * (high / low) ** quantile
    return low + (high - low) * quantile


def _composition(rng: np.random.Generator, n_couples: np.ndarray, max_couples: int) -> np.ndarray:
    """Which forms are in the cell: O only, R only, or both, for each couple that there is."""
    options = np.array([[True, False], [False, True], [True, True]])
    forms = options[rng.choice(3, (len(n_couples), max_couples), p=[0.4, 0.3, 0.3])]
    there = np.arange(max_couples) < n_couples[:, None]
    return forms & there[:, :, None]


def _quiet_side(present: np.ndarray) -> np.ndarray:
    """Side of the window where nothing reacts: +1 with O only, -1 with R only, 0 with both."""
    return present[:, :, 0].any(1) * 1.0 - present[:, :, 1].any(1) * 1.0


def _times(n_samples: int) -> np.ndarray:
    return np.arange(1, n_samples + 1) / n_samples


def _cv(draw: _Settings, n_samples: int):
    start, other = draw.ends()
    cycles = draw["cycles"]
    # A sweep of many cycles would have too few samples left beside a hold.
    part = np.where(cycles <= _MOST_AFTER_HOLD, draw["hold"], 0.0)
    held = np.round(part * n_samples)[:, None] / n_samples
    phase = np.maximum(_times(n_samples) - held, 0) / (1 - held) * 2 * cycles[:, None] % 2
    potential = start[:, None] + (other - start)[:, None] * (1 - np.abs(1 - phase))
    # One in two holds where the scan starts; the others convert the solution there first.
    at = np.where(draw.rng.random(len(draw)) < 0.5, start, other)[:, None]
    potential = np.where(_times(n_samples) <= held, at, potential)
    return potential, 2 * cycles * np.abs(other - start) / draw["scan_rate"] / (1 - held[:, 0])


def _ca(draw: _Settings, n_samples: int):
    rest, stepped = draw.ends()
    before = np.round(draw["rest"] * n_samples)[:, None]
    after = np.arange(1, n_samples + 1) > before
    return np.where(after, stepped[:, None], rest[:, None]), draw["duration"]


def _swv(draw: _Settings, n_samples: int):
    start, end = draw.ends()
    per_period = int(draw.ranges["samples_per_period"])
    index = np.arange(n_samples)
    n_periods = n_samples // per_period
    staircase = start[:, None] + (end - start)[:, None] * (index // per_period) / n_periods
    forward = np.where(index % per_period < per_period // 2, 1.0, -1.0)
    pulse = (draw["amplitude"] * np.sign(end - start))[:, None] * forward
    return staircase + pulse, n_samples / per_period / draw["frequency"]


def _tone(draw: _Settings, n_samples: int):
    periods = draw["periods"]
    wave = np.sin(2 * np.pi * periods[:, None] * _times(n_samples))
    return draw["amplitude"][:, None] * wave, periods / draw["frequency"]


def _acv(draw: _Settings, n_samples: int):
    start, end = draw.ends()
    time = _times(n_samples)
    wave = np.sin(2 * np.pi * draw["periods"][:, None] * time)
    ramp = start[:, None] + (end - start)[:, None] * time
    return ramp + draw["amplitude"][:, None] * wave, np.abs(end - start) / draw["scan_rate"]


_TECHNIQUES = {
    "cv": _cv,
    "ca": _ca,
    "swv": _swv,
    "eis_low": _tone,
    "eis_high": _tone,
    "acv": _acv,
}
