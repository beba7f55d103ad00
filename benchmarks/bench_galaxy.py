"""What the answers of `galaxy` are worth: coverage of twins, effective draws, speed, real galaxies.

    make bench BENCH=galaxy [ARGS="--twins 200 --real 200"]

Rests on the artefact that answers (`make MODEL=galaxy`, or a checkpoint named by --checkpoint).
Prints: speed; the part of simulated twins whose 90 % intervals hold the known truth, with 95 %
intervals, in both modes; effective draws; the bias of an average effect among selected galaxies;
and of real galaxies (the sample in the wheel of kcorrect) flaws of the data, verdicts, and
K-corrections and masses beside those of kcorrect, which runs in an environment of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy.special import softmax
from scipy.stats import chi2

from touchstone import contract
from touchstone.inference import nuts, population, psis, selection
from touchstone.io import artifacts, results, settings
from touchstone.io.artifacts import ArtifactError
from touchstone.models.galaxy import conservation, counterfactual, observation, tables
from touchstone.models.galaxy import population as galaxies
from touchstone.models.galaxy.abduction import Residuals, known
from touchstone.models.galaxy.observation import Photometry
from touchstone.reliability.decision import Decision
from touchstone.reliability.guardrail import wilson
from touchstone.reliability.signs import NAMES, signs
from touchstone.stages import checkpoints

SPECTRUM = (3800.0, 4500.0, 5500.0, 6800.0, 8500.0)  # Å observed, where twins are compared
DO = "mass=2x, A_V=0.3"


def main() -> None:
    """Print everything that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--twins", type=int, default=200)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--nuts", type=int, default=3)
    parser.add_argument("--real", type=int, default=200)
    parser.add_argument("--stressed", type=int, default=200)
    parser.add_argument("--dowhy", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--checkpoint", default="")
    asked = parser.parse_args()
    model = contract.load_model("galaxy")
    found = results.Results(results.folder("galaxy"))
    checkpoints.load(model, found, asked.checkpoint)
    config = settings.found(contract.folders(), "galaxy")
    budget = config["galaxy"]["budgets"]["reweighted"]
    speed(model)
    if asked.twins:
        twins(model, budget, asked.twins)
    if asked.nuts:
        beside_nuts(model, budget, asked.nuts)
    if asked.repetitions:
        average_effects(model, asked.repetitions)
    if asked.stressed:
        detectable(model, asked.stressed)
    if asked.dowhy:
        beside_dowhy(model)
    if asked.real:
        real(model, found, budget, asked.real)


def rate(inside) -> str:
    """A part with its 95 % interval and its n."""
    inside = np.asarray(inside, float).ravel()
    found = wilson(float(inside.mean()), len(inside))
    return f"{inside.mean():.3f} [{found.low:.3f}, {found.high:.3f}] (n = {len(inside)})"


def speed(model) -> None:
    """Rates on this machine: by the clock, and by seconds of its cores."""
    rng = np.random.default_rng(0)
    u = rng.standard_normal((4096, len(model.quantities))).astype(np.float32)
    light, graph, actions = model.abduction.light, model.graph, model.graph.actions(DO)

    @jax.jit
    def pairs(light, u):
        def one(u):
            factual = graph.values(light.forward, u)
            twin = graph.twin(light.forward, u, factual, actions, "total")
            fluxes = light.fluxes(counterfactual.galaxy_of(factual))
            return fluxes, light.fluxes(counterfactual.galaxy_of(twin))

        return jax.vmap(one)(u)

    values, _ = counterfactual.twins(graph, model.forward, u, (), "total")
    _, budget = counterfactual.readings(model.forward, values, model.bands)
    cases = model.cases(64, rng, rng, {})

    def answers(cases):
        drawn = model.abduction.propose(cases, jax.random.key(0), 128, 8)
        jax.block_until_ready(pairs(light, drawn.reshape(-1, drawn.shape[-1])))

    def slices():
        for first in range(0, len(u), 256):
            jax.block_until_ready(pairs(light, u[first : first + 256]))

    cosmology = model.config["cosmology"]
    timed("twin pairs, photometry", slices, len(u))
    timed("balances of mass, energy, age and sign",
          lambda: conservation.balances(values, budget, **cosmology), len(u))  # fmt: skip
    timed("answers of 128 draws by the flow alone", lambda: answers(cases), len(cases.kind))


def timed(what: str, function, n: int) -> None:
    """Print how many a second, warm."""
    function()
    wall, cpu = time.perf_counter(), time.process_time()
    repeats = 3
    for _ in range(repeats):
        function()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{what}: {repeats * n / wall:,.0f} /s by the clock, "
          f"{repeats * n / cpu:,.0f} per second of a core", flush=True)  # fmt: skip


def twins(model, budget: dict, n: int) -> None:
    """Coverage of 90 % intervals of twins with known truth, and of effective draws."""
    streams = (np.random.default_rng(seed) for seed in (11, 12))
    cases = model.cases(n, *streams, {})
    wall, cpu = time.perf_counter(), time.process_time()
    posterior = model.infer(cases, np.random.default_rng(13), method="reweighted", budget=budget)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    effective = posterior.computation.figures["effective_draws"]
    sound = posterior.computation.sound(n)
    print(f"{n} posteriors: {n / wall:.1f} /s by the clock, {cpu / n:.3f} s of a core each; "
          f"effective draws {np.quantile(effective, [0.05, 0.5]).round()} (5 %, median)"
    )  # fmt: skip
    print(f"effective draws >= 100: {rate(effective >= 100)}; sound: {rate(sound)}")
    draws = np.stack([posterior.draws[q.name] for q in model.quantities], axis=-1)
    for mode in ("total", "direct"):
        actions, inside = model.graph.actions(DO), {}
        for k in range(n):
            both = np.concatenate([cases.truth[k][None], draws[k]]).astype(np.float32)
            _, after = counterfactual.twins(model.graph, model.forward, both, actions, mode)
            read, _ = counterfactual.readings(model.forward, after, model.bands)
            spectra = counterfactual.shown(model.forward, after, np.array(SPECTRUM))
            columns = {"mass": read["log_mass_surviving"]}
            columns |= {f"{x:g} Å": spectra[:, i] for i, x in enumerate(SPECTRUM)}
            columns |= {f"{band} band": read[band] for band in model.bands}
            for name, column in columns.items():
                low, high = np.quantile(column[1:], [0.05, 0.95])
                inside.setdefault(name, []).append(low <= column[0] <= high)
        print(f"do({DO}), {mode}: 90 % intervals hold the truth")
        for name, held in inside.items():
            print(f"  {name}: {rate(held)}; of sound ones {rate(np.array(held)[sound])}")


def beside_nuts(model, budget: dict, n: int) -> None:
    """Means and spreads of exogenous terms beside those of NUTS, in posterior deviations."""
    cases = model.cases(n, *(np.random.default_rng(seed) for seed in (41, 42)), {})
    posterior = model.infer(cases, np.random.default_rng(43), method="reweighted", budget=budget)
    names = [quantity.name for quantity in model.quantities]
    draws = np.stack([posterior.draws[name] for name in names], axis=-1).astype(float)
    residuals = Residuals(model.abduction.light, model.config["noise"]["floor"], model.graph)
    for k in range(n):
        case = known(cases.take([k]))
        case = jax.tree.map(lambda leaf: leaf[0], case)

        def log_likelihood(u, case=case):
            left, log_scale = residuals(case, u)
            return -(0.5 * left**2 + log_scale).sum()

        factor = np.linalg.cholesky(np.cov(draws[k].T) + 1e-12 * np.eye(len(names)))
        starts = draws[k][:: len(draws[k]) // 2][:2]
        chains = nuts.sample(log_likelihood, starts, factor, names=names, n_tune=300,
                             n_draws=1000, seed=k)  # fmt: skip
        theirs = chains["posterior"].dataset["z"].values.reshape(-1, len(names))
        faults = nuts.diagnose(chains).faults
        spread = theirs.std(0)
        shift = np.abs(draws[k].mean(0) - theirs.mean(0)) / spread
        ratio = draws[k].std(0) / spread
        print(f"case {k}: means differ from NUTS by {shift.max():.2f} sd at most, spreads are "
              f"{ratio.min():.2f} to {ratio.max():.2f} of theirs; sound: "
              f"{bool(posterior.computation.sound(n)[k])}; NUTS: "
              f"{'; '.join(faults) or 'converged'}", flush=True)  # fmt: skip


def average_effects(model, repetitions: int, n: int = 2000) -> None:
    """Average effect of doubling the mass on the colour g - r in the population: from all galaxies,
    from selected ones, weighted by the inverse of their probability to be selected, and by the
    likelihood of selected galaxies. The population is not that of the simulations."""
    rng, seen = np.random.default_rng(21), galaxies.Selection()
    terms = {"log_mass": (0.3, 0.9), "formation": (-0.3, 0.8)}
    among = galaxies.Population(
        model.graph, model.forward, model.bands, model.graph.actions("mass=2x"), "total", "g-r",
        seen.band,
    )  # fmt: skip
    simulated, everyone = among.draw(20_000, rng), among.draw(100_000, rng, terms)
    truth = float((everyone.after - everyone.before).mean())
    names = ("everyone", "selected", "weighted", "corrected")
    held, means = ({name: [] for name in names} for _ in range(2))
    for _ in range(repetitions):
        drawn = among.draw(n, rng, terms)
        found = among.effect(drawn, simulated, rng, seen)
        chance = drawn.chance(seen)
        chosen = rng.random(len(chance)) < chance
        x, w = (drawn.after - drawn.before)[chosen], 1 / np.maximum(chance[chosen], 1e-12)
        w /= w.sum()
        mean = float(w @ x)
        weighted = selection.Average(mean, float(np.sqrt((w**2 * (x - mean) ** 2).sum())))
        for name in names:
            each = weighted if name == "weighted" else getattr(found, name)
            held[name].append(abs(each.value - truth) <= contract.REACH * each.error)
            means[name].append(each.value)
    print(f"average effect of do(mass=2x), total, on g - r: {truth:+.4f} mag "
          f"({repetitions} samples of {n} galaxies, r < {seen.limit})")  # fmt: skip
    for name, inside in held.items():
        bias = np.mean(means[name]) - truth
        print(f"  {name}: bias {bias:+.4f}, 90 % intervals hold it {rate(inside)}", flush=True)


def detectable(model, n: int = 200) -> None:
    """Mean power of the best test against every stress at severity 1; no posterior is needed."""
    print(f"power of the best test at a level of 5 %, mean of {n} galaxies:")
    for stress, group in model.stresses.items():
        streams = (np.random.default_rng(seed) for seed in (63, 64))
        power = model.detection_power(n, *streams, {}, stress, 1.0)
        print(f"  {stress} ({group}): {power.mean():.3f}", flush=True)


class NodeResiduals(eqx.Module):
    """Residuals of nodes that are measured with errors: what the shared engine takes."""

    forward: Any
    graph: Any = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, known, u):
        observed, error = known
        values = self.graph.values(self.forward, u)
        left = (observed - jnp.stack([values[name] for name in self.names])) / error
        return left, jnp.log(error)


def beside_dowhy(
    model, n: int = 300, n_train: int = 2000, noise: float = 0.2, few: int = 40
) -> None:
    """Twins of do(mass=2x), total, of known truth, beside those of DoWhy on the same graph.

    Errors are of the nodes that respond, in their standard deviations among galaxies. In the linear
    case every sign of every noise is there in the training, so that least squares are exact.
    """
    graph, rng, added = model.graph, np.random.default_rng(51), float(np.log10(2))
    names, mechanisms = graph.names, graph.mechanisms
    responds = [name for name in names if name in graph.descendants("log_mass")]
    edges = [[p, name] for name in names for p in mechanisms[name].slopes if p in names]

    def linear(noises, mass=0.0):
        values = {}
        for name in [each for each in graph.order if each in names]:
            own = mechanisms[name]._replace(
                slopes={p: s for p, s in mechanisms[name].slopes.items() if p in names}
            )
            values[name] = np.asarray(own.shift(values)) + own.scale * noises[name]
            if name == "log_mass":
                values[name] = values[name] + mass
        return values

    with jax.enable_x64(True):
        base = {name: rng.standard_normal(300) for name in names}
        inner = [name for name in names if mechanisms[name].slopes]
        signs = list(product((1.0, -1.0), repeat=len(inner)))
        every = {
            name: np.concatenate([
                base[name] * (sign[inner.index(name)] if name in inner else 1) for sign in signs
            ]) for name in names
        }  # fmt: skip
        new = {name: rng.standard_normal(n) for name in names}
        straight = {"train": linear(every), "observed": linear(new)}, linear(new, added)

    def nodes(u, actions=()):
        before, after = counterfactual.twins(graph, model.forward, u, actions, "total")
        return {k: np.asarray(v, float) for k, v in (after if actions else before).items()}

    action = graph.actions(f"log_mass+{added}")
    u = rng.standard_normal((n_train, len(names))).astype(np.float32)
    test = rng.standard_normal((n, len(names))).astype(np.float32)
    test[:, names.index("log_mass")] *= 0.7  # twins stay within the bounds of the mass
    train, factual, truth = nodes(u), nodes(test), nodes(test, action)
    spread = {name: column.std() for name, column in train.items()}
    noisy = {
        name: column + noise * spread[name] * rng.standard_normal(n)
        for name, column in factual.items()
    }
    whole = [[p, name] for name in train for p in graph.parents[name]]
    tasks = [{"kind": "linear", "edges": edges, **straight[0]}]
    tasks += [
        {"kind": kind, "edges": whole, "train": train, "observed": seen}
        for seen in (factual, noisy) for kind in ("linear", "boosted")
    ]  # fmt: skip
    theirs = _by_dowhy([task | {"action": ["log_mass", added]} for task in tasks])
    if theirs is None:
        return
    exact = straight[1]
    off = max(np.abs(theirs[0][name] - exact[name]).max() for name in names)
    print(f"DoWhy, linear graph: largest difference to our twins {off:.1e}")

    def error(found, rows=slice(None)):
        return {
            name: float(np.sqrt(np.mean((found[name] - truth[name][rows]) ** 2)) / spread[name])
            for name in responds if name in truth
        }  # fmt: skip

    # Without noise: the terms that the nodes have, then the action.
    with jax.enable_x64(True):
        own = np.asarray(jax.vmap(graph.exogenous)({k: jnp.asarray(v) for k, v in factual.items()}))
    _said("ours, nodes known exactly", error(nodes(own.astype(np.float32), action)))
    for found, what in zip(theirs[1:], ("linear, exact", "boosted, exact", "linear, noisy",
                                        "boosted, noisy"), strict=True):  # fmt: skip
        _said(f"DoWhy {what}", error(found))
    measured = tuple(name for name in names if name in noisy)
    known_ = tuple(
        np.stack(columns, axis=1).astype(np.float32)[:few]
        for columns in ([noisy[m] for m in measured],
                        [np.full(n, noise * spread[m]) for m in measured])
    )  # fmt: skip
    starts = rng.standard_normal((few, 128, len(names)))
    drawn = population.sample(
        NodeResiduals(model.forward, graph, measured), known_, starts, jax.random.key(52),
        n_centres=64, n_round=256, n_rounds=2, n_last=1024,
    )  # fmt: skip
    z, weight = (np.asarray(a).reshape(few, -1, *a.shape[3:]) for a in drawn)
    mean, inside = {name: [] for name in responds}, []
    for k in range(few):
        picked = z[k][psis.resample(softmax(weight[k].astype(float)), 400)]
        after = nodes(picked.astype(np.float32), action)
        for name in responds:
            mean[name].append(after[name].mean())
            low, high = np.quantile(after[name], [0.05, 0.95])
            inside.append(low <= truth[name][k] <= high)
    _said(f"ours, noise of {noise:g} sd", error({k: np.array(v) for k, v in mean.items()},
                                                slice(few)))  # fmt: skip
    print(f"  90 % intervals of ours hold the twin {rate(inside)}; DoWhy has none")


def _said(who: str, errors: dict) -> None:
    numbers = ", ".join(f"{name} {x:.3f}" for name, x in errors.items())
    total = np.sqrt(np.mean(np.square(list(errors.values()))))
    print(f"  {who}: RMSE {total:.3f} ({numbers})", flush=True)


def _by_dowhy(tasks: list[dict]) -> list[dict] | None:
    """Columns of the twins of each task, by name; None where it does not run."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.json", Path(folder) / "out.json"
        source.write_text(json.dumps(tasks, default=lambda a: np.asarray(a).tolist()), "utf-8")
        script = Path(__file__).parent / "galaxy_dowhy.py"
        uv = [os.environ.get("UV", "uv"), "run", "--no-project", "--isolated"]
        own = ["--python", sys.executable, "--with", "dowhy==0.14"]
        command = [*uv, *own, "python", script, source, target]
        try:
            # Few data: threads would only wait for one another.
            one = os.environ | {"OMP_NUM_THREADS": "1"}
            subprocess.run(command, check=True, cwd=folder, capture_output=True, env=one)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"DoWhy did not run: {error} {getattr(error, 'stderr', b'')[-500:]}")
            return None
        found = json.loads(target.read_text("utf-8"))
    return [{name: np.array(column) for name, column in each.items()} for each in found]


MOST = 20  # of the most rejected galaxies, on their page
SAMPLE = {
    "distribution": "kcorrect",
    "version": "5.1.9",
    "file": "kcorrect/data/test/gst_tests_small.fits",
    "sha256": "d7e87e8abc45167e48889a0e824870760a2e6dde20650a6e41a72164859bf578",
}
# From SDSS to AB magnitudes: Eisenstein, as kcorrect has it.
TO_AB = np.array([-0.036, 0.012, 0.010, 0.028, 0.040])


def real(model, found, budget: dict, n: int) -> None:
    """Real galaxies: flaws, verdicts, reasons, and kcorrect's numbers beside ours."""
    from astropy.table import Table

    table = Table.read(tables.path(**SAMPLE))
    flux, ivar = (np.asarray(table[name], float) for name in ("MODELFLUX", "MODELFLUX_IVAR"))
    redshift = np.asarray(table["Z"], float)
    same = np.column_stack([table["RA"], table["DEC"], redshift])
    _, first = np.unique(same.round(4), axis=0, return_index=True)
    twice = np.setdiff1d(np.arange(len(table)), first)
    flawed = (~(flux > 0)).any(1)
    print(f"{len(table)} galaxies: {int((~(flux > 0)).sum())} fluxes are not positive, in "
          f"{int(flawed.sum())} galaxies; {len(twice)} stand there twice (row {twice.tolist()}); "
          f"redshifts {redshift.min():.3f} to {redshift.max():.3f}")  # fmt: skip
    clear = 10 ** (0.4 * (np.asarray(table["EXTINCTION"], float) - TO_AB))
    flux, error = flux * clear, clear / np.sqrt(ivar)
    low, high = model.graph.mechanisms["redshift"][:2]
    usable = np.flatnonzero((redshift > low) & (redshift < high))
    usable = np.setdiff1d(usable, twice)
    some = np.random.default_rng(31).choice(usable, min(n, len(usable)), replace=False)
    detail = Photometry(error[some], redshift[some], np.full(len(some), 3e-4))
    seen = np.isfinite(flux[some]) & np.isfinite(error[some])
    unknown = np.zeros((len(some), len(model.quantities)))
    cases = model._cases(unknown, (flux[some], seen, detail), "measurement")
    posterior = model.infer(cases, np.random.default_rng(32), method="reweighted", budget=budget)
    verdicts(model, found, cases, posterior, some)
    beside_kcorrect(model, cases, posterior)


def verdicts(model, found, cases, posterior, rows) -> None:
    """Shares of the verdicts, and a page of the most rejected with the reason."""
    n, sound = len(rows), posterior.computation.sound(len(rows))
    outside = np.array([bool(each) for each in model.outside_training(cases)])
    try:
        fitted = checkpoints.guardrail_of(checkpoints.find("galaxy", found))
        decision = Decision.from_json(fitted["decision"])
    except ArtifactError:
        decision = None
    unusual = signs(model.quantities, model.config["edges"], cases, posterior, model.novelty(cases))
    left = np.where(cases.mask, posterior.prediction.innovation, 0.0)
    if decision is None:
        misfit = (left**2).sum(1)
        names, score, limit = {"misfit": misfit}, misfit, float(chi2.isf(0.1, 5))
        print("no guardrail is fitted here: the score is the whitened misfit, limit of 10 %")
    else:
        names, score, limit = decision.unusual(unusual), decision.score(unusual), decision.threshold
    misfits = score > limit
    print(f"of real galaxies: computation sound: {rate(sound)}; outside of the training: "
          f"{rate(outside)}; misfit beyond the limit: {rate(misfits)}; accepted: "
          f"{rate(~misfits & sound & ~outside)}")  # fmt: skip
    worst = np.argsort(-score)[:MOST]
    magnitudes = observation.magnitude(np.maximum(cases.observed[worst], 1e-3)).round(2)
    strangest = [max(names, key=lambda name: names[name][k]) for k in worst]
    table = pd.DataFrame(
        {
            "row of the sample": rows[worst],
            "redshift": cases.detail.redshift[worst].round(4),
            **dict(zip(model.bands, magnitudes.T, strict=True)),
            "score": score[worst].round(2),
            "sign": [NAMES.get(name, name) for name in strangest],
            "worst band": [model.bands[int(np.abs(left[k]).argmax())] for k in worst],
            "by (sd)": [left[k][np.abs(left[k]).argmax()].round(1) for k in worst],
            "verdict": [
                "; ".join(
                    ["misfit"] * bool(misfits[k]) + ["not sound"] * bool(~sound[k])
                    + model.outside_training(cases.take([k]))[0]
                ) or "accept"
                for k in worst
            ],
        }
    )  # fmt: skip
    print(table.to_string(index=False, max_colwidth=60))
    page = found.folder / "reports" / "real_galaxies.html"
    shares = "".join(
        f"<li>{what}: {rate(each)}</li>"
        for what, each in (("accepted", ~misfits & sound & ~outside), ("misfit", misfits),
                           ("computation sound", sound), ("outside of the training", outside))
    )  # fmt: skip
    with artifacts.atomic(page) as temporary:
        temporary.write_text(
            f"<!doctype html><html lang=en><meta charset=utf-8><title>Real galaxies</title>"
            f"<body style='font: 16px sans-serif; margin: 2em'><h1>{n} real galaxies of SDSS</h1>"
            f"<p>Drawn by chance from the sample of kcorrect. Shares with 95 % intervals:</p>"
            f"<ul>{shares}</ul><h2>The {len(worst)} of the highest score</h2><p>The limit of the "
            f"score is {limit:.2f}. <i>sign</i> is the most unusual one; <i>worst band</i> "
            f"is the band that is furthest from what the posterior predicts, in standard "
            f"deviations.</p>{table.to_html(index=False, border=0)}</body></html>",
            encoding="utf-8",
        )  # fmt: skip
    print(f"page of the most rejected: {page}", flush=True)


def beside_kcorrect(model, cases, posterior) -> None:
    """K-corrections and masses, median absolute deviations."""
    k, mass = [], []
    for draws in zip(*(posterior.draws[q.name] for q in model.quantities), strict=True):
        u = np.stack(draws, axis=1)[:40].astype(np.float32)
        values, _ = counterfactual.twins(model.graph, model.forward, u, (), "total")
        read, _ = counterfactual.readings(model.forward, values, model.bands)
        rest = counterfactual.rest_magnitudes(model.forward, values)
        apparent = np.stack([read[band] for band in model.bands], axis=1)
        k.append(np.median(apparent - rest, axis=0))
        mass.append(np.median(read["log_mass_surviving"]))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.npz", Path(folder) / "out.npz"
        seen = cases.mask
        error = np.hypot(cases.detail.error, 0.02 * cases.observed)
        ivar = np.where(seen, 1e18 / error**2, 0.0)
        maggies, redshift = cases.observed * 1e-9, cases.detail.redshift
        np.savez(source, maggies=maggies, ivar=ivar, redshift=redshift)
        script = Path(__file__).parent / "galaxy_kcorrect.py"
        with_ = ["--with", f"{SAMPLE['distribution']}=={SAMPLE['version']}"]
        command = [
            os.environ.get("UV", "uv"),
            "run",
            "--no-project",
            *with_,
            "python",
            script,
            source,
            target,
        ]
        try:
            subprocess.run(command, check=True, cwd=folder, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"kcorrect did not run: {error}")
            return
        theirs = dict(np.load(target))
    off = np.array(k) - theirs["k"]
    found = np.median(np.abs(off), axis=0)
    print("K-corrections beside kcorrect, median absolute deviation (mag): "
          + ", ".join(f"{b} {x:.3f}" for b, x in zip(model.bands, found, strict=True))
          + f" (n = {len(off)}); medians of the difference "
          + ", ".join(f"{x:+.3f}" for x in np.median(off, axis=0)))  # fmt: skip
    off = np.array(mass) - theirs["log_mass"]
    offset = np.median(off)
    print(f"surviving mass beside kcorrect: offset {offset:+.3f} dex (their initial mass function "
          f"and templates are others), median absolute deviation about it "
          f"{np.median(np.abs(off - offset)):.3f} dex", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
