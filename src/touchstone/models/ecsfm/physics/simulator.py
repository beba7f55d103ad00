"""The forward model: waveform, couples, cell and fouling in; current out.

One scalar equation a step, for the interfacial potential that all couples share, and a handful of
memories that carry the diffusion history: no spatial grid and no linear solve. Everything is a
`lax.scan` over time that works under `jit`, `vmap` and `grad`, in float32 and float64.

Couples and memories are Python tuples of scalars, not axes of arrays: all arithmetic of a step is
then on one shape, that of the `vmap`, and the compiler makes a few vectorised loops of it. With
axes of length two and thirty inside, the same takes three times as long.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from touchstone.models.ecsfm.physics import transport
from touchstone.models.ecsfm.physics.arrays import Number
from touchstone.models.ecsfm.physics.fouling import Fouling, advance_coverage
from touchstone.models.ecsfm.physics.instrument import Charging, Instrument
from touchstone.models.ecsfm.physics.kinetics import FARADAY, Couples, flux, inverse_thermal_voltage
from touchstone.models.ecsfm.physics.waveforms import Waveform

# The root search ends when the last correction, in units of RT/F, is below this; one more step,
# the differentiable one, then leaves about its square.
_ROOT_TOLERANCE = 1e-3
_ROOT_MAX = 60
_LARGE_DROP = 0.1  # V: rounding of the potentials is then below 1e-6 of the ohmic drop


class Electrode(NamedTuple):
    """Geometry and surroundings of the electrode.

    Attributes:
        area: Geometric area, cm^2.
        temperature: K.
        curvature: 1/radius of a sphere or disc, 1/cm; None or 0 for a plane (None is faster).
        edge: 1 for a disc in a plane, over whose edge more diffuses; 0 for a sphere.
    """

    area: Number
    temperature: Number = 298.15
    curvature: Number | None = None
    edge: Number = 0.0


class Response(NamedTuple):
    """What the experiment gives.

    Attributes:
        current: Total current at the samples, A, oxidation positive.
        flux: Flux of each couple at the end of every step, mol/(cm^2 s).
        coverage: Fouled fraction of the electrode at the samples.
        potential: Interfacial potential at the samples, V.
    """

    current: Float[Array, " sample"]
    flux: Float[Array, "step couple"]
    coverage: Float[Array, " sample"]
    potential: Float[Array, " sample"]


class _Side(NamedTuple):
    """One form of a couple."""

    sign: int  # of what a flux adds to its concentration
    bulk: Array  # mol/cm^3
    root_d: Array  # sqrt(D duration), cm
    bend: Array | None  # that over the radius of a sphere or disc
    weights: Sequence[Array]  # of the memories in sqrt(D) K


class _State(NamedTuple):
    memories: tuple[tuple[Array, ...], ...]  # of the flux, of each couple
    flux: tuple[Array, ...]  # of each couple, mol/(cm^2 duration)
    drive: Array  # applied potential less the ohmic drop of I_F + I_ads, V
    interface: Array  # interfacial potential E, V
    lag: Array  # drive - E = R C dE/dt, V
    coverage: Array
    growth: Array  # of the coverage, 1/duration
    loss: Array


def simulate(
    waveform: Waveform,
    couples: Couples,
    electrode: Electrode,
    instrument: Instrument | None = None,
    fouling: Fouling | None = None,
) -> Response:
    """Current of an experiment that starts from uniform bulk concentrations.

    With an instrument the interfacial potential obeys R C dE/dt = E_app - R (I_F + I_ads) - E,
    integrated exactly over each step for a right-hand side linear in time, so that R = 0 and
    C = 0 are limits and not cases.

    Args:
        waveform: The applied potential and the times at which the current is read.
        couples: One to several redox couples.
        electrode: Its area, temperature and curvature.
        instrument: Uncompensated resistance and double layer; None for an ideal potentiostat.
        fouling: Biofouling by couple 0; None for a clean electrode.

    Returns:
        Current, flux, coverage and interfacial potential.
    """
    steps, potential, duration = (
        jnp.asarray(a) for a in (waveform.step, waveform.potential, waveform.duration)
    )
    area, dtype = electrode.area, potential.dtype
    zero = jnp.zeros((), dtype)
    f = jnp.asarray(inverse_thermal_voltage(electrode.temperature), dtype)
    memory = transport.memory(waveform.shortest)
    rates = jnp.asarray(memory.rates, dtype)
    amperes = FARADAY * area / duration
    # Time is counted in durations: D, k and the flux scale with it, concentrations do not.
    each = [jax.tree.map(lambda a, s=s: a[s], couples) for s in range(couples.e0.shape[0])]

    edge = jnp.asarray(electrode.edge, dtype)
    own = transport.Own.of(edge)

    def side(sign: int, bulk: Float[Array, ""], d: Float[Array, ""]) -> _Side:
        root_d = jnp.sqrt(d * duration)
        bend = None if electrode.curvature is None else root_d * electrode.curvature
        weights = memory.kernel_weights(zero if bend is None else bend, edge)
        return _Side(sign, bulk, root_d, bend, tuple(weights))

    sides = [(side(1, c.c_ox, c.d_ox), side(-1, c.c_red, c.d_red)) for c in each]
    # What needs no state is worked out before the loop, which would do it again for each use.
    hats = jax.vmap(transport.hat_integrals, in_axes=(None, 0))(rates, steps)

    def advance(state: _State, inputs: tuple[Array, Array, tuple[Array, Array, Array]]):
        step, applied, (decay, start, end) = inputs
        faded = [
            [m * d for m, d in zip(memories, decay, strict=True)] for memories in state.memories
        ]

        def surface(
            side: _Side, faded: Sequence[Float[Array, ""]], flux: Float[Array, ""]
        ) -> tuple[Float[Array, ""], Float[Array, ""]]:
            """Concentration without the new flux, and its response to it."""
            if side.bend is None:
                own_start, own_end = transport.own_weights_of_plane(step)
            else:
                own_start, own_end = own.weights(step, side.bend)
            past = sum(w * m for w, m in zip(side.weights, faded, strict=True))
            past = past + own_start * flux
            return side.bulk + side.sign * past / side.root_d, own_end / side.root_d

        surfaces = [
            tuple(surface(side, memories, flux) for side in pair)
            for pair, memories, flux in zip(sides, faded, state.flux, strict=True)
        ]

        speed, film, capacitance = duration, zero, jnp.ones((), dtype)
        coverage, adsorption, loss = zero, zero, zero
        if fouling is not None:
            loss = duration * fouling.loss(applied)
            coverage = advance_coverage(state.coverage, state.growth, loss, step)
            speed = speed * fouling.rate_factor(coverage)
            film = fouling.film_resistance(coverage) / area
            capacitance = fouling.capacitance_factor((state.coverage + coverage) / 2)
            adsorption = _adsorption(fouling, coverage, state.growth, loss, duration) * area

        def faradaic(interface):
            """Flux of each couple, and its slope by the potential in RT/F."""
            return zip(
                *(
                    flux(f * (interface - c.e0), speed * c.k0, c.transfer_coefficient, *surface)
                    for c, surface in zip(each, surfaces, strict=True)
                ),
                strict=True,
            )

        if instrument is None and fouling is None:
            j, _ = faradaic(applied)
            drive = interface = applied
            lag, current = zero, amperes * sum(j)
        else:
            resistance, double_layer = film, zero
            if instrument is not None:
                resistance = instrument.resistance + film
                double_layer = area * instrument.capacitance * capacitance
            charging = Charging.over(step, resistance * double_layer / duration)
            rest = charging.old * state.drive + charging.kept * state.interface
            rest = rest + charging.new * (applied - resistance * adsorption)
            ohmic = charging.new * resistance * amperes
            interface, j = _interfacial_potential(faradaic, rest, ohmic, f, state.flux, surfaces)

        growth = zero
        if fouling is not None:
            (held_ox, response_ox), (held_red, response_red) = surfaces[0]
            present = held_ox + held_red + (response_ox - response_red) * j[0]
            growth = duration * fouling.growth(present, amperes * sum(j) / area)
            mean = (state.growth + growth) / 2
            coverage = advance_coverage(state.coverage, mean, loss, step)
            # The root was that of the film expected; Kirchhoff's law holds with the film there is.
            thicker = fouling.film_resistance(coverage) / area - film
            adsorbing = _adsorption(fouling, coverage, growth, loss, duration) * area
            lost = thicker * (amperes * sum(j) + adsorbing) + resistance * (adsorbing - adsorption)
            interface = interface - charging.new * lost
            resistance, adsorption = resistance + thicker, adsorbing
        if instrument is not None or fouling is not None:
            drive = applied - resistance * (amperes * sum(j) + adsorption)
            lag, slope = charging.lag(state.lag, drive, state.drive)
            current = amperes * sum(j) + adsorption + double_layer * slope / duration
            # Where the double layer feeds the couples, their sum is less than the rounding of each.
            large = jnp.abs(applied - interface) > _LARGE_DROP
            by_ohm = (applied - interface) / jnp.where(large, resistance, 1.0)
            current = jnp.where(large, by_ohm, current)

        memories = tuple(
            tuple(m + a * old + b * new for m, a, b in zip(fade, start, end, strict=True))
            for fade, old, new in zip(faded, state.flux, j, strict=True)
        )
        new_state = _State(memories, j, drive, interface, lag, coverage, growth, loss)
        return new_state, (current, jnp.stack(j) / duration, coverage, interface)

    at_rest = drive = potential[0]
    coverage = growth = zero
    if fouling is not None:
        coverage = jnp.asarray(fouling.initial_coverage, dtype)
        growth = duration * fouling.growth((couples.c_ox + couples.c_red)[0], zero)
        resistance = fouling.film_resistance(coverage) / area
        if instrument is not None:
            resistance = resistance + instrument.resistance
        drive = at_rest - resistance * area * _adsorption(fouling, coverage, growth, zero, duration)
    initial = _State(
        memories=((zero,) * rates.size,) * len(each),
        flux=(zero,) * len(each),
        drive=drive,
        interface=at_rest,
        lag=drive - at_rest,
        coverage=coverage,
        growth=growth,
        loss=zero,
    )
    _, (current, j, theta, interface) = lax.scan(advance, initial, (steps, potential[1:], hats))
    read = waveform.sample - 1
    return Response(current[read], j, theta[read], interface[read])


def _adsorption(fouling: Fouling, coverage, growth, loss, duration) -> Array:
    """Current density of the adsorption, A/cm^2, from rates in 1/duration."""
    return fouling.adsorption_current((growth * (1 - coverage) - loss * coverage) / duration)


def _interfacial_potential(faradaic, rest, ohmic, f, last_flux, surfaces):
    """Root E of E + ohmic * sum j(E) = rest, and the flux there.

    The left side increases with E and the flux is bounded by its two diffusion limits, which
    bracket the root: Newton, with bisection where Newton would leave the bracket. The iterations
    carry no gradient; the last Newton step does, which makes it exact (implicit function theorem).
    """
    highest, lowest = (
        rest + sign * ohmic * sum(held / response for held, response in form)
        for sign, form in zip((1, -1), zip(*surfaces, strict=True), strict=True)
    )

    def residual(interface):
        j, slope = faradaic(interface)
        return interface + ohmic * sum(j) - rest, 1 + ohmic * f * sum(slope), j, slope

    def improve(search):
        interface, low, high, _, n = search
        value, slope, _, _ = residual(interface)
        low, high = jnp.where(value < 0, interface, low), jnp.where(value > 0, interface, high)
        newton = interface - value / slope
        inside = (newton >= low) & (newton <= high)
        better = jnp.where(inside, newton, (low + high) / 2)
        return better, low, high, jnp.abs(better - interface), n + 1

    def unfinished(search):
        return (search[3] * f > _ROOT_TOLERANCE) & (search[4] < _ROOT_MAX)

    guess = jnp.clip(rest - ohmic * sum(last_flux), lowest, highest)
    search = (guess, lowest, highest, jnp.full_like(guess, jnp.inf), 0)
    root, *_ = lax.while_loop(unfinished, improve, search)
    root = lax.stop_gradient(root)
    value, steepness, j, slope = residual(root)
    correction = -value / lax.stop_gradient(steepness)
    return root + correction, tuple(a + f * b * correction for a, b in zip(j, slope, strict=True))
