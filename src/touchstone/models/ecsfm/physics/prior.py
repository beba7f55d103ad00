"""From standard coordinates, whose prior is N(0, 1), to couples and an instrument, and back."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Bool, Float, Int

from touchstone.models.ecsfm.physics.arrays import AnyArray, Number
from touchstone.models.ecsfm.physics.experiment import Experiment
from touchstone.models.ecsfm.physics.fouling import Fouling
from touchstone.models.ecsfm.physics.instrument import Instrument
from touchstone.models.ecsfm.physics.kinetics import Couples
from touchstone.models.ecsfm.physics.observation import Observation
from touchstone.vocabulary import Quantity

BLOCKS = ("D_ox", "D_ratio", "C_ox", "C_red", "E0", "k0", "alpha")
# The record's: they do not enter the simulation of the current.
BASELINE = ("offset", "slope")  # linear, with normal priors about zero: marginalised exactly
RECORD = (*BASELINE, "discrepancy", "correlation", "noise")
NUISANCES = ("resistivity", "C_dl", *RECORD)
FILM = ("coverage", "growth", "site_density")  # of an electrode that may be fouled
_MM = 1e-6  # mol/cm^3 in 1 mM


class Prior:
    """The prior of all parameters of an experiment with up to S couples.

    The parameter vector has the seven blocks of `BLOCKS`, each S wide, then `NUISANCES`.

    Args:
        config: The model's `config.yaml`.
        max_couples: S.
    """

    nuisances: tuple[str, ...] = NUISANCES

    def __init__(self, config: dict, max_couples: int):
        self.max_couples = max_couples
        entries = self._entries(config)
        self.parameters = [
            Quantity.from_config(f"{block}_{s + 1}", config["couple_parameters"][block])
            for block in BLOCKS
            for s in range(max_couples)
        ] + [Quantity.from_config(name, entries[name]) for name in self.nuisances]
        self.names = [p.name for p in self.parameters]
        self.blocks = [b for b in BLOCKS for _ in range(max_couples)] + list(self.nuisances)
        self.size = len(self.names)
        self._place = {name: k for k, name in enumerate(self.names)}
        self.baseline, self.record = np.isin(self.names, BASELINE), np.isin(self.names, RECORD)
        self.shared = np.isin(self.blocks, BLOCKS)  # by all records of one system
        self._location = jnp.array([p.location for p in self.parameters])
        self._scale = jnp.array([p.scale for p in self.parameters])
        self._bounded = jnp.array([p.bounded for p in self.parameters])

    def _entries(self, config: dict) -> dict:
        """Of the configuration: what is not of a couple."""
        return config["nuisances"]

    # Priors of one content are equal: what was compiled for one serves the other.

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prior) and self.parameters == other.parameters

    def __hash__(self) -> int:
        return hash(tuple(self.parameters))

    def block(self, name: str) -> slice:
        """Places of the entries of a block."""
        first = BLOCKS.index(name) * self.max_couples
        return slice(first, first + self.max_couples)

    def active(self, present: Bool[AnyArray, "*batch couple 2"]) -> Bool[Array, "*batch parameter"]:
        """Parameters that exist, given which forms are in the cell."""
        ox, red = present[..., 0], present[..., 1]
        couple = ox | red
        blocks = [couple, couple, ox, red, couple, couple, couple]
        nuisances = jnp.ones((*couple.shape[:-1], len(self.nuisances)), bool)
        return jnp.concatenate([*blocks, nuisances], axis=-1)

    def natural(
        self, z: Float[AnyArray, " parameter"], experiment: Experiment
    ) -> Float[Array, " parameter"]:
        """Natural coordinates (logarithms for log-priors) of standard ones."""
        spread = jnp.where(self._bounded, 2 * ndtr(z) - 1, z)
        e0 = self.block("E0")
        order = _ordered(ndtr(z[e0]), _count(experiment))
        centre, half = experiment.window
        natural = self._location + self._scale * spread
        return natural.at[e0].set(centre + half * (2 * order - 1))

    def standard(
        self, natural: Float[AnyArray, " parameter"], experiment: Experiment
    ) -> Float[Array, " parameter"]:
        """Standard coordinates of natural ones; values beyond a bound land near it."""
        quantile = jnp.clip(self.quantile(natural, experiment), 1e-6, 1 - 1e-6)
        unit = (natural - self._location) / self._scale
        return jnp.where(self._bounded, ndtri(quantile), unit)

    def quantile(
        self, natural: Float[AnyArray, " parameter"], experiment: Experiment
    ) -> Float[Array, " parameter"]:
        """Place of bounded ones between their bounds, 0 to 1; of an E0 above that before it."""
        between = ((natural - self._location) / self._scale + 1) / 2
        e0 = self.block("E0")
        centre, half = experiment.window
        order = ((natural[e0] - centre) / half + 1) / 2
        return between.at[e0].set(_unordered(order, _count(experiment)))

    def moments(
        self, experiment: Experiment
    ) -> tuple[Float[Array, " parameter"], Float[Array, " parameter"]]:
        """Prior mean and standard deviation of the natural coordinates."""
        centre, half = experiment.window
        location, scale = (jnp.asarray(a, centre.dtype) for a in (self._location, self._scale))
        sd = scale / jnp.where(self._bounded, 3**0.5, 1.0)
        n = _count(experiment)
        rank = jnp.arange(1, self.max_couples + 1)
        e0 = self.block("E0")
        order_mean = rank / (n + 1)
        order_sd = jnp.sqrt(jnp.maximum(rank * (n + 1 - rank), 0) / (n + 2)) / (n + 1)
        mean = location.at[e0].set(centre + half * (2 * order_mean - 1))
        return mean, sd.at[e0].set(2 * half * order_sd)

    def couples(self, natural: Float[AnyArray, " parameter"], experiment: Experiment) -> Couples:
        """Couples in the simulator's units; forms that are not present have no concentration."""
        block = {name: jnp.asarray(natural)[self.block(name)] for name in BLOCKS}
        ox, red = experiment.present[:, 0], experiment.present[:, 1]
        return Couples(
            d_ox=jnp.exp(block["D_ox"]),
            d_red=jnp.exp(block["D_ox"] + block["D_ratio"]),
            c_ox=jnp.where(ox, _MM * jnp.exp(block["C_ox"]), 0.0),
            c_red=jnp.where(red, _MM * jnp.exp(block["C_red"]), 0.0),
            e0=block["E0"],
            k0=jnp.exp(block["k0"]),
            transfer_coefficient=block["alpha"],
        )

    def instrument(
        self, natural: Float[AnyArray, " parameter"], experiment: Experiment
    ) -> Instrument:
        """Uncompensated resistance of the electrode in its electrolyte, and double layer."""
        resistivity, c_dl = self._take(natural, "resistivity", "C_dl")
        return Instrument(jnp.exp(resistivity) / experiment.spread, 1e-6 * jnp.exp(c_dl))

    def fouling(
        self, natural: Float[AnyArray, " parameter"], experiment: Experiment
    ) -> Fouling | None:
        """What grows on the electrode; None where it is clean."""
        return None

    def log_rate_factor(self, natural: Float[AnyArray, " parameter"]) -> Number:
        """Logarithm of what a film leaves of all rates at the start of a record."""
        return 0.0

    def observation(
        self,
        natural: Float[AnyArray, " parameter"],
        current: Float[AnyArray, " sample"],
        experiment: Experiment,
        signal: Number | None = None,
    ) -> Observation:
        """What is recorded of a noise-free current, the baseline yet unknown.

        Args:
            natural: Natural coordinates.
            current: A.
            experiment: The experiment.
            signal: Unit of the baseline and of all noise, A; the rms of the current by default.
        """
        discrepancy, correlation, white = self._take(natural, "discrepancy", "correlation", "noise")
        centre, half = experiment.window
        if signal is None:
            signal = jnp.sqrt((current**2).mean())
        shape = (experiment.potential - centre) / half
        return Observation(
            jnp.asarray(current),
            jnp.stack([jnp.ones_like(shape), shape]),
            signal * jnp.stack(self._take(self._scale, *BASELINE)),
            signal * jnp.exp(white),
            signal * jnp.exp(discrepancy),
            jnp.exp(correlation),
        )

    def _take(self, natural: Float[AnyArray, " parameter"], *names: str) -> list[Float[Array, ""]]:
        return [jnp.asarray(natural)[self._place[name]] for name in names]


class FouledPrior(Prior):
    """The prior of an electrode that may be fouled: three parameters more, those of `FILM`.

    A film leaves less of the signal that all noise is counted in, so that their priors are wider.
    What else a film does has the reference values of `Fouling`, and its growth by the charge passed
    keeps the reference ratio to that by adsorption. At no coverage and no growth nothing fouls.
    """

    nuisances = (*NUISANCES[: -len(RECORD)], *FILM, *RECORD)

    def _entries(self, config: dict) -> dict:
        return config["nuisances"] | config["fouling"]

    def fouling(
        self, natural: Float[AnyArray, " parameter"], experiment: Experiment
    ) -> Fouling | None:
        """The film, whose growth is counted in the time and concentration of the experiment."""
        coverage, growth, site_density = (jnp.exp(each) for each in self._take(natural, *FILM))
        fouling = Fouling()
        k_ads = growth / (self.present(natural, experiment) * experiment.duration)
        return fouling._replace(
            initial_coverage=coverage,
            k_ads=k_ads,
            k_reaction=fouling.k_reaction / fouling.k_ads * k_ads,
            site_density=site_density,
        )

    def log_rate_factor(self, natural: Float[AnyArray, " parameter"]) -> Number:
        """Logarithm of what a film leaves of all rates at the start of a record."""
        (coverage,) = self._take(natural, "coverage")
        return jnp.log(Fouling().rate_factor(jnp.exp(coverage)))

    def present(
        self, natural: Float[AnyArray, " parameter"], experiment: Experiment
    ) -> Float[Array, ""]:
        """Concentration in the bulk of both forms of the fouling couple, mol/cm^3."""
        couples = self.couples(natural, experiment)
        return (couples.c_ox + couples.c_red)[0]


def _count(experiment: Experiment) -> Int[Array, ""]:
    """Number of couples that are in the cell."""
    return jnp.any(experiment.present, -1).sum()


def _ordered(fractions: Float[Array, " couple"], n: Int[Array, ""]) -> Float[Array, " couple"]:
    """Order statistics of n uniforms from independent uniforms (Rosenblatt), one after another."""
    values, last = [], 0.0
    for k in range(fractions.shape[-1]):
        left = jnp.maximum(n - k, 1)
        last = last + (1 - last) * (1 - (1 - fractions[k]) ** (1 / left))
        values.append(last)
    return jnp.stack(values)


def _unordered(values: Float[Array, " couple"], n: Int[Array, ""]) -> Float[Array, " couple"]:
    """Inverse of `_ordered`."""
    fractions, last = [], 0.0
    for k in range(values.shape[-1]):
        left = jnp.maximum(n - k, 1)
        room = jnp.maximum(1 - last, 1e-6)
        fractions.append(1 - jnp.clip(1 - (values[k] - last) / room, 0.0, 1.0) ** left)
        last = values[k]
    return jnp.stack(fractions)
