"""The forward model: waveform, couples, cell and fouling in; current out.

One scalar equation a step, for the interfacial potential that all couples share, and a handful of
memories that carry the diffusion history: no spatial grid and no linear solve. Everything is a
`lax.scan` over time that works under `jit`, `vmap` and `grad`, in float32 and float64.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from . import transport
from .fouling import Fouling, advance_coverage
from .instrument import Charging, Instrument
from .kinetics import FARADAY, Couples, flux, inverse_thermal_voltage
from .waveforms import Waveform

# The root search ends when the last correction, in units of RT/F, is below this; one more step,
# the differentiable one, then leaves about its square.
_ROOT_TOLERANCE = 1e-3
_ROOT_MAX = 60
_LARGE_DROP = 0.1  # V: rounding of the potentials is then below 1e-6 of the ohmic drop


class Electrode(NamedTuple):
    """Geometry and surroundings of the electrode; scalars.

    Attributes:
        area: Geometric area, cm^2.
        temperature: K.
        curvature: 1/radius of a sphere, 1/cm; None or 0 for a plane (None is faster).
    """

    area: Array
    temperature: Array = 298.15
    curvature: Array | None = None


class Response(NamedTuple):
    """What the experiment gives.

    Attributes:
        current: Total current at the samples, A, shape (N,), oxidation positive.
        flux: Flux of each couple at every node, mol/(cm^2 s), shape (M, S).
        coverage: Fouled fraction of the electrode at the samples, shape (N,).
        potential: Interfacial potential at the samples, V, shape (N,).
    """

    current: Array
    flux: Array
    coverage: Array
    potential: Array


class _State(NamedTuple):
    memories: Array  # of the flux, shape (K, S)
    flux: Array  # shape (S,), mol/(cm^2 duration)
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
    duration, area = waveform.duration, electrode.area
    dtype = waveform.potential.dtype
    zero = jnp.zeros((), dtype)
    f = jnp.asarray(inverse_thermal_voltage(electrode.temperature), dtype)
    memory = transport.memory(waveform.shortest)
    rates = jnp.asarray(memory.rates, dtype)
    # Time is counted in durations: D, k and the flux scale with it, concentrations do not.
    root_d = {"ox": jnp.sqrt(couples.d_ox * duration), "red": jnp.sqrt(couples.d_red * duration)}
    bend = {
        form: None if electrode.curvature is None else root * electrode.curvature
        for form, root in root_d.items()
    }
    flat = jnp.zeros(1, dtype)
    weights = {form: memory.kernel_weights(flat if a is None else a) for form, a in bend.items()}
    amperes = FARADAY * area / duration

    # What needs no state is worked out before the loop, which would do it again for each use.
    hats = jax.vmap(transport.hat_integrals, in_axes=(None, 0))(rates, waveform.step)
    own_weights = jax.vmap(transport.own_weights, in_axes=(0, None))
    own = {form: own_weights(waveform.step, a) for form, a in bend.items()}

    def advance(state: _State, inputs: tuple[Array, ...]):
        step, applied, (decay, start, end), own = inputs
        faded = state.memories * decay[:, None]
        surface = {}  # concentration = (what the past leaves) + (response) * flux
        for form, sign, bulk in (("ox", 1, couples.c_ox), ("red", -1, couples.c_red)):
            own_start, own_end = own[form]
            past = (weights[form] * faded).sum(0) + own_start * state.flux
            surface[form] = (bulk + sign * past / root_d[form], own_end / root_d[form])

        rate, film, capacitance = couples.k0 * duration, zero, jnp.ones((), dtype)
        coverage, adsorption, loss = zero, zero, zero
        if fouling is not None:
            loss = duration * fouling.loss(applied)
            coverage = advance_coverage(state.coverage, state.growth, loss, step)
            rate = rate * fouling.rate_factor(coverage)
            film = fouling.film_resistance(coverage) / area
            capacitance = fouling.capacitance_factor((state.coverage + coverage) / 2)
            adsorption = _adsorption(fouling, coverage, state.growth, loss, duration) * area

        def faradaic(interface):
            x = f * (interface - couples.e0)
            return flux(x, rate, couples.transfer_coefficient, surface["ox"], surface["red"])

        if instrument is None and fouling is None:
            j, _ = faradaic(applied)
            drive = interface = applied
            lag, current = zero, amperes * j.sum()
        else:
            resistance, double_layer = film, zero
            if instrument is not None:
                resistance = instrument.resistance + film
                double_layer = area * instrument.capacitance * capacitance
            charging = Charging.over(step, resistance * double_layer / duration)
            rest = charging.old * state.drive + charging.kept * state.interface
            rest = rest + charging.new * (applied - resistance * adsorption)
            ohmic = charging.new * resistance * amperes
            interface, j = _interfacial_potential(faradaic, rest, ohmic, f, state.flux, surface)

        growth = zero
        if fouling is not None:
            (held_ox, response_ox), (held_red, response_red) = surface["ox"], surface["red"]
            present = held_ox + held_red + (response_ox - response_red) * j
            growth = duration * fouling.growth(present[0], amperes * j.sum() / area)
            mean = (state.growth + growth) / 2
            coverage = advance_coverage(state.coverage, mean, loss, step)
            # The root was that of the film expected; Kirchhoff's law holds with the film there is.
            thicker = fouling.film_resistance(coverage) / area - film
            adsorbing = _adsorption(fouling, coverage, growth, loss, duration) * area
            lost = thicker * (amperes * j.sum() + adsorbing) + resistance * (adsorbing - adsorption)
            interface = interface - charging.new * lost
            resistance, adsorption = resistance + thicker, adsorbing
        if instrument is not None or fouling is not None:
            drive = applied - resistance * (amperes * j.sum() + adsorption)
            lag, slope = charging.lag(state.lag, drive, state.drive)
            current = amperes * j.sum() + adsorption + double_layer * slope / duration
            # Where the double layer feeds the couples, their sum is less than the rounding of each.
            large = jnp.abs(applied - interface) > _LARGE_DROP
            by_ohm = (applied - interface) / jnp.where(large, resistance, 1.0)
            current = jnp.where(large, by_ohm, current)

        memories = faded + start[:, None] * state.flux + end[:, None] * j
        new_state = _State(memories, j, drive, interface, lag, coverage, growth, loss)
        return new_state, (current, j / duration, coverage, interface)

    at_rest = drive = waveform.potential[0]
    coverage = growth = zero
    if fouling is not None:
        coverage = jnp.asarray(fouling.initial_coverage, dtype)
        growth = duration * fouling.growth((couples.c_ox + couples.c_red)[0], zero)
        resistance = fouling.film_resistance(coverage) / area
        if instrument is not None:
            resistance = resistance + instrument.resistance
        drive = at_rest - resistance * area * _adsorption(fouling, coverage, growth, zero, duration)
    n_couples = couples.e0.shape[0]
    initial = _State(
        memories=jnp.zeros((rates.size, n_couples), dtype),
        flux=jnp.zeros(n_couples, dtype),
        drive=drive,
        interface=at_rest,
        lag=drive - at_rest,
        coverage=coverage,
        growth=growth,
        loss=zero,
    )
    _, (current, j, theta, interface) = lax.scan(
        advance, initial, (waveform.step, waveform.potential[1:], hats, own)
    )
    read = waveform.sample - 1
    return Response(current[read], j, theta[read], interface[read])


def _adsorption(fouling: Fouling, coverage, growth, loss, duration) -> Array:
    """Current density of the adsorption, A/cm^2, from rates in 1/duration."""
    return fouling.adsorption_current((growth * (1 - coverage) - loss * coverage) / duration)


def _interfacial_potential(faradaic, rest, ohmic, f, last_flux, surface):
    """Root E of E + ohmic * sum j(E) = rest, and the flux there.

    The left side increases with E and the flux is bounded by its two diffusion limits, which
    bracket the root: Newton, with bisection where Newton would leave the bracket. The iterations
    carry no gradient; the last Newton step does, which makes it exact (implicit function theorem).
    """
    (held_ox, response_ox), (held_red, response_red) = surface["ox"], surface["red"]
    lowest = rest - ohmic * (held_red / response_red).sum()
    highest = rest + ohmic * (held_ox / response_ox).sum()

    def residual(interface):
        j, slope = faradaic(interface)
        return interface + ohmic * j.sum() - rest, 1 + ohmic * f * slope.sum(), j, slope

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

    guess = jnp.clip(rest - ohmic * last_flux.sum(), lowest, highest)
    search = (guess, lowest, highest, jnp.full_like(guess, jnp.inf), 0)
    root, *_ = lax.while_loop(unfinished, improve, search)
    root = lax.stop_gradient(root)
    value, steepness, j, slope = residual(root)
    correction = -value / lax.stop_gradient(steepness)
    return root + correction, j + f * slope * correction
