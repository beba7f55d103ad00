"""Mismatches: what a record may hold that the model does not know of.

Each has a dial, its severity: at 0 nothing is amiss, at 1 as much as its entry under `stresses` in
the model's `config.yaml`. The settings that go with the record stay what they would have been.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from scipy.signal import lfilter

from touchstone.models.ecsfm.physics.experiment import Experiment
from touchstone.models.ecsfm.physics.forward import Forward
from touchstone.models.ecsfm.physics.fouling import Fouling
from touchstone.models.ecsfm.physics.kinetics import FARADAY, GAS_CONSTANT

_MAINS = 50.0  # Hz


class Happened(NamedTuple):
    """What is really done and recorded in n experiments, whatever is said of them.

    Attributes:
        natural: Natural coordinates of the parameters, shape (n, P).
        experiment: The experiments.
        fouling: Of the electrodes; None where they stay clean.
        gain: Factor of the noise-free current, shape (n, N).
        added: Current that is added to it, A, shape (n, N).
        limit: Size of the current at which the amplifier saturates, A, shape (n,).
    """

    natural: np.ndarray
    experiment: Experiment
    fouling: Fouling | None
    gain: Float[np.ndarray, "case sample"]
    added: Float[np.ndarray, "case sample"]
    limit: Float[np.ndarray, " case"]


class Scene(NamedTuple):
    """Experiments that a mismatch may change.

    Attributes:
        forward: The simulator.
        natural: Natural coordinates of the true parameters, shape (n, P).
        experiment: What is said of the experiments.
        clean: Noise-free currents, A, shape (n, N).
        rng: For what differs from case to case.
    """

    forward: Forward
    natural: np.ndarray
    experiment: Experiment
    clean: np.ndarray
    rng: np.random.Generator

    @property
    def peak(self) -> Float[np.ndarray, "case 1"]:
        """Largest size of the noise-free current, A."""
        return np.abs(self.clean).max(1, keepdims=True)

    @property
    def part(self) -> Float[np.ndarray, " sample"]:
        """Part of the record that is over at each sample."""
        return np.arange(1, self.clean.shape[1] + 1) / self.clean.shape[1]

    @property
    def as_stated(self) -> Happened:
        """All as it is said to be."""
        n = len(self.clean)
        gain, added = np.ones_like(self.clean), np.zeros_like(self.clean)
        return Happened(self.natural, self.experiment, None, gain, added, np.full(n, np.inf))

    def parameter(self, name: str) -> np.ndarray:
        """Natural coordinates of one parameter, shape (n,)."""
        return self.natural[:, self.forward.prior.names.index(name)]

    def with_parameter(self, name: str, value: np.ndarray) -> np.ndarray:
        """Natural coordinates, one of them another."""
        changed = self.natural.copy()
        changed[:, self.forward.prior.names.index(name)] = value
        return changed


def happen(scene: Scene, name: str, entry: dict, severity: float) -> Happened:
    """What a mismatch of some severity makes of experiments.

    Args:
        scene: The experiments.
        name: Of the mismatch.
        entry: Its entry under `stresses`, without the group.
        severity: In [0, 1].
    """
    return _MISMATCHES[name](scene, severity, **entry)


def _static(scene: Scene, severity: float, **entry: float) -> Happened:
    """A film that is there before the record begins, and hardly changes."""
    return _fouled(scene, severity, Fouling(**entry))


def _dynamic(scene: Scene, severity: float, final_coverage: float, **entry: float) -> Happened:
    """A film that grows: growth constants are raised, in their ratio, until adsorption alone would
    cover that much of the electrode within the record."""
    fouling = Fouling(**entry)
    couples = jax.vmap(scene.forward.prior.couples)(scene.natural, scene.experiment)
    present = np.asarray(couples.c_ox + couples.c_red)[:, 0]
    k_ads = -np.log1p(-final_coverage) / (present * scene.experiment.duration)
    ratio = fouling.k_reaction / fouling.k_ads
    return _fouled(scene, severity, fouling._replace(k_ads=k_ads, k_reaction=ratio * k_ads))


def _fouled(scene: Scene, severity: float, fouling: Fouling) -> Happened:
    scaled = fouling.at_severity(np.float32(severity))
    n = len(scene.clean)
    each = jax.tree.map(lambda a: np.broadcast_to(np.float32(a), n), scaled)
    return scene.as_stated._replace(fouling=each)


def _resistance(scene: Scene, severity: float, drop: float) -> Happened:
    """An uncompensated resistance beyond the prior: at the peak, `drop` V above its upper bound."""
    prior = scene.forward.prior
    bound = prior.parameters[prior.names.index("resistivity")]
    highest = np.exp(bound.location + bound.scale)
    spread = np.asarray(scene.experiment.spread)
    usual = np.exp(scene.parameter("resistivity"))
    worst = highest + drop / scene.peak[:, 0] * spread
    higher = scene.parameter("resistivity") + np.log1p(severity * (worst / usual - 1))
    return scene.as_stated._replace(natural=scene.with_parameter("resistivity", higher))


def _drift(scene: Scene, severity: float, shift: float) -> Happened:
    """A reference electrode that drifts by `shift` V along the record."""
    potential = scene.experiment.potential + np.float32(severity * shift) * scene.part
    experiment = scene.experiment._replace(potential=np.asarray(potential, np.float32))
    # The prior places E0 in the window that is stated; natural coordinates are volts.
    return scene.as_stated._replace(experiment=experiment)


def _rate(scene: Scene, severity: float, factor: float) -> Happened:
    """A scan that ran faster than is stated."""
    duration = scene.experiment.duration * np.float32(factor**-severity)
    return scene.as_stated._replace(experiment=scene.experiment._replace(duration=duration))


def _area(scene: Scene, severity: float, factor: float) -> Happened:
    """An electrode of a larger area than is stated."""
    radius = scene.experiment.radius * np.float32(factor ** (severity / 2))
    return scene.as_stated._replace(experiment=scene.experiment._replace(radius=radius))


def _concentration(scene: Scene, severity: float, factor: float) -> Happened:
    """Concentrations that are higher than is stated."""
    which = np.isin(scene.forward.prior.blocks, ("C_ox", "C_red"))
    return scene.as_stated._replace(natural=scene.natural + severity * np.log(factor) * which)


def _second_couple(scene: Scene, severity: float, part: float, apart: float) -> Happened:
    """A couple that is not declared: like the first, `part` as concentrated, `apart` V away.

    Its current is added; that both share the resistance is left out.
    """
    prior, natural = scene.forward.prior, scene.natural.copy()
    natural[:, np.isin(prior.blocks, ("C_ox", "C_red"))] += np.log(max(severity * part, 1e-9))
    natural[:, prior.names.index("E0_1")] += apart
    only_first = np.array(scene.experiment.present)
    only_first[:, 1:] = False
    experiment = scene.experiment._replace(present=only_first)
    # All but nothing of a double layer, which is there once.
    natural[:, prior.names.index("C_dl")] -= np.log(1e6)
    added = scene.forward.currents_of_natural(
        natural.astype(np.float32), experiment, scene.forward.waveforms(experiment)
    )
    return scene.as_stated._replace(added=np.asarray(added) * (severity > 0))


def _adsorbed(scene: Scene, severity: float, layer: float) -> Happened:
    """Reactant that is bound to the surface and reacts reversibly (Laviron 1979): a layer as dense
    as `layer` times what diffusion brings in the time of a wave, C sqrt(D R T / (F v))."""
    experiment, prior = scene.experiment, scene.forward.prior
    f = 1 / (GAS_CONSTANT / FARADAY * np.asarray(experiment.temperature, float))
    couples = jax.vmap(prior.couples)(scene.natural, experiment)
    reactant = np.asarray(couples.c_ox + couples.c_red)[:, 0]
    potential = np.asarray(experiment.potential, float)
    step = np.asarray(experiment.duration, float) / potential.shape[1]
    # After a step that came before the first sample nothing moves, and the layer is not seen.
    rate = np.maximum(np.abs(np.diff(potential, axis=1)).mean(1) / step, 1e-6)
    density = severity * layer * reactant * np.sqrt(np.asarray(couples.d_ox)[:, 0] / (f * rate))
    oxidised = 1 / (1 + np.exp(-f[:, None] * (potential - np.asarray(couples.e0)[:, :1])))
    change = np.diff(oxidised, axis=1, prepend=oxidised[:, :1]) / step[:, None]
    area = np.asarray(experiment.area, float)
    return scene.as_stated._replace(added=FARADAY * (area * density)[:, None] * change)


def _background(scene: Scene, severity: float, size: float) -> Happened:
    """A curved background, of the square of the potential about mid-window."""
    centre, half = (np.asarray(a, float)[:, None] for a in scene.experiment.window)
    place = (scene.experiment.potential - centre) / half
    return scene.as_stated._replace(added=severity * size * scene.peak * place**2)


def _correlated(scene: Scene, severity: float, time: float) -> Happened:
    """Noise that is correlated over `time` of the record (AR(1)), as large as the white noise."""
    n, n_samples = scene.clean.shape
    keep = np.exp(-1 / (n_samples * max(severity * time, 1e-9)))
    fresh = scene.rng.standard_normal((n, n_samples))
    fresh[:, 0] /= np.sqrt(1 - keep**2)
    noise = lfilter([np.sqrt(1 - keep**2)], [1.0, -keep], fresh, axis=1)
    sd = np.exp(scene.parameter("noise")) * np.sqrt((scene.clean**2).mean(1))
    return scene.as_stated._replace(added=severity * sd[:, None] * noise)


def _spikes(scene: Scene, severity: float, share: float, size: float) -> Happened:
    """Single samples that are off by a part of the peak."""
    hit = scene.rng.random(scene.clean.shape) < severity * share
    sign = scene.rng.choice([-1.0, 1.0], scene.clean.shape)
    return scene.as_stated._replace(added=size * scene.peak * sign * hit)


def _bubble(scene: Scene, severity: float, loss: float, length: float) -> Happened:
    """A bubble that takes a part of the area from the current for a part of the record."""
    start = (1 - length) * scene.rng.random((len(scene.clean), 1))
    inside = (scene.part > start) & (scene.part <= start + length)
    return scene.as_stated._replace(gain=1 - severity * loss * inside)


def _saturation(scene: Scene, severity: float, loss: float) -> Happened:
    """An amplifier that saturates below the peak."""
    limit = (
        (1 - severity * loss) * scene.peak[:, 0] if severity else np.full(len(scene.peak), np.inf)
    )
    return scene.as_stated._replace(limit=limit)


def _hum(scene: Scene, severity: float, size: float) -> Happened:
    """Mains hum, as the sampling folds it."""
    time = np.asarray(scene.experiment.duration, float)[:, None] * scene.part
    phase = 2 * np.pi * scene.rng.random((len(scene.clean), 1))
    wave = np.sin(2 * np.pi * _MAINS * time + phase)
    return scene.as_stated._replace(added=severity * size * scene.peak * wave)


_MISMATCHES: dict[str, Callable[..., Happened]] = {
    "static": _static,
    "dynamic": _dynamic,
    "resistance": _resistance,
    "drift": _drift,
    "rate": _rate,
    "area": _area,
    "concentration": _concentration,
    "second_couple": _second_couple,
    "adsorbed": _adsorbed,
    "background": _background,
    "correlated": _correlated,
    "spikes": _spikes,
    "bubble": _bubble,
    "saturation": _saturation,
    "hum": _hum,
}
