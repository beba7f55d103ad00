"""After an escalation: fouled records under the simulator with a film, and what to measure next.

Records of a released or trained artefact's family, fouled, clean, or under another mismatch, go the
way that `touchstone infer --escalate` takes. Parts:

resolved     growing films: the part of the escalated records that is resolved, the coverage beside
             its 90 % interval, and the bias of ln k0 before and after
control      clean records, all of them inferred with a film whatever their verdict: none is to be
             resolved, and most are to be within the rule under the simulator that holds them, too
others       other mismatches: the part that a film is wrongly held for
proposals    whether the proposed protocol narrows the posterior more than the median one of the
             menu does, when all are simulated from the truth and inferred together with the first
static       recall of static films where k0, the resistance and the double layer are known or not
"""

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from touchstone import contract
from touchstone.io.results import Results, folder
from touchstone.models.ecsfm.inference import protocols
from touchstone.models.ecsfm.physics.experiment import Records
from touchstone.reliability.decision import Decision
from touchstone.reliability.guardrail import wilson
from touchstone.stages import escalation, infer
from touchstone.stages.cases import evidence
from touchstone.vocabulary import Cases

PARTS = ("resolved", "control", "others", "proposals", "static")
SWEEPS = ("cv_reversible", "kinetics_limited", "diffusion_limited", "cv_multispecies")
OTHERS = ("rate", "background", "second_couple", "resistance", "adsorbed")
LEAST_SEVERITY = 0.5
KNOWN = ("k0_1", "k0_2", "resistivity", "C_dl")  # in the second row of `static`
SHARED = ("D_ox", "D_ratio", "E0", "k0", "alpha")  # blocks whose entropy is compared
BUDGET = {
    "n_draws": 400,
    "n_steps": 10,
    "reweight": {
        "n_runs": 8,
        "n_starts": 8,
        "n_improve": 15,
        "n_rounds": 24,
        "n_draws": 24,
        "n_effective": 20,
    },
}


SMALL = BUDGET | {  # of two records, started from the posterior of the first
    "reweight": {
        "n_runs": 2,
        "n_starts": 2,
        "n_improve": 6,
        "n_rounds": 8,
        "n_draws": 24,
        "n_effective": 10,
    }
}


class Bench(NamedTuple):
    """What all parts use.

    Attributes:
        model: The loaded model.
        decision: The rule of its artefact.
        seed: For all randomness.
    """

    model: contract.Model
    decision: Decision
    seed: int

    def sweeps(self, n: int, number: int, stress: str | None, severity: float) -> Cases:
        """Cyclic voltammograms under a mismatch; the same records but for noise and mismatch."""
        rngs = (np.random.default_rng([self.seed, number, k]) for k in range(2))
        cases = self.model.cases(4 * n, *rngs, {}, stress, severity)
        chosen = np.flatnonzero(np.isin(cases.kind, SWEEPS))[:n]
        assert len(chosen) == n
        return cases.take(chosen)

    def infer(self, cases: Cases):
        """Posterior of each case, and which of them the rule escalates."""
        rng = np.random.default_rng([self.seed, 9])
        posterior = self.model.infer(cases, rng, method="reweighted", budget=BUDGET)
        score = self.decision.score(evidence(self.model, cases, posterior))
        return posterior, score > self.decision.threshold

    def resolve(self, case: Cases, posterior, number: int) -> escalation.Resolution:
        """One case under the simulator with a film."""
        rng = np.random.default_rng([self.seed, 8, number])
        return escalation.resolve(self.model, case, posterior, [[]], self.decision, rng, BUDGET)


def shown(hits: list[bool] | np.ndarray) -> str:
    """A rate with its 95 % interval."""
    if not len(hits):
        return "none"
    rate = wilson(float(np.mean(hits)), len(hits))
    return f"{rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}] of {rate.n}"


def resolved(bench: Bench, n: int, deadline: float) -> dict:
    """Growing films at severities from `LEAST_SEVERITY` to 1, each record at one of its own."""
    rows = []
    levels = np.linspace(LEAST_SEVERITY, 1, 3)
    for number, severity in enumerate(levels):
        cases = bench.sweeps(n // len(levels), number, "dynamic", float(severity))
        posterior, flagged = bench.infer(cases)
        print(f"severity {severity:.2f}: escalated {shown(flagged)}", flush=True)
        for k in np.flatnonzero(flagged):
            if time.monotonic() > deadline:
                break
            one, its = cases.take([k]), posterior.take([k])
            found = bench.resolve(one, its, k)
            rows.append(row_of(bench, one, its, found, float(severity)))
    report_resolved(rows)
    return {"rows": rows}


def row_of(bench: Bench, case: Cases, first, found: escalation.Resolution, severity: float):
    """Truth and both posteriors of a fouled case."""
    k0 = bench.model.prior_of_parameters.names.index("k0_1")
    truth = case.truth[0, k0]
    again = found.escalated.posterior
    (size,) = [r for r in found.escalated.table if r["quantity"] == found.escalated.size[0]]

    def of_k0(posterior):
        x, weight = np.log(posterior.draws["k0_1"][0]), posterior.weight[0]
        inside = 0.05 <= weight @ (x < truth) <= 0.95
        return (
            float(weight @ x - truth) / np.log(10),
            float(np.sqrt(np.cov(x, aweights=weight)) / np.log(10)),
            bool(inside),
        )

    coverage = true_coverage(bench, case, severity)
    return {
        "severity": severity,
        "resolved": found.resolved,
        "faults": found.faults,
        "gain": found.gain,
        "score": found.judged.score,
        "sound": found.sound,
        "coverage": coverage,
        "coverage_90": size["interval_90"],
        "before": of_k0(first),
        "after": of_k0(again),
    }


def true_coverage(bench: Bench, case: Cases, severity: float) -> float:
    """Fouled fraction at the end of the record that was simulated."""
    from touchstone.models.ecsfm.data.mismatch import Scene, happen

    model, experiment = bench.model, case.detail.experiment
    entry = {k: v for k, v in model.config["stresses"]["dynamic"].items() if k != "group"}
    clean = np.zeros_like(case.observed)
    scene = Scene(model.forward, case.truth, experiment, clean, np.random.default_rng(0))
    film = happen(scene, "dynamic", entry, severity).fouling
    row = jax.tree.map(
        lambda a: np.asarray(a)[0],
        (case.truth.astype(np.float32), experiment, model.forward.waveforms(experiment), film),
    )
    return float(_coverage(model.forward, *row))


def _coverage(forward, *row):
    if forward not in _PROGRAMS:
        _PROGRAMS[forward] = jax.jit(lambda *each: forward.response(*each).coverage[-1])
    return _PROGRAMS[forward](*row)


_PROGRAMS: dict = {}


def report_resolved(rows: list[dict]) -> None:
    hit = [row for row in rows if row["resolved"]]
    inside = [r["coverage_90"][0] <= r["coverage"] <= r["coverage_90"][1] for r in hit]
    print(f"resolved, of those escalated: {shown([row['resolved'] for row in rows])}")
    print(f"coverage inside its 90 % interval, of those resolved: {shown(inside)}")
    for name in ("before", "after"):
        bias = np.array([row[name][0] for row in hit])
        if len(bias) > 1:
            error = bias.std(ddof=1) / np.sqrt(len(bias))
            print(
                f"bias of log10 k0 {name}: mean {bias.mean():+.2f} ± {error:.2f}, median "
                f"{np.median(bias):+.2f}; k0 in its 90 %: {shown([r[name][2] for r in hit])}"
            )
    for row in rows:
        if not row["resolved"]:
            print(
                f"  not resolved (severity {row['severity']:.2f}): {'; '.join(row['faults'])[:160]}"
            )


def control(bench: Bench, n: int, deadline: float) -> dict:
    """Severity 0, through the same code, whatever the verdict."""
    cases = bench.sweeps(n, 20, "dynamic", 0.0)
    posterior, flagged = bench.infer(cases)
    called, gains, within = [], [], []
    for k in range(n):
        if time.monotonic() > deadline:
            break
        found = bench.resolve(cases.take([k]), posterior.take([k]), k)
        called.append(found.resolved)
        gains.append(found.gain)
        within.append(found.judged.verdict.decision == "accept")
    print(f"clean records escalated at first: {shown(flagged)}")
    print(f"clean records called fouled, whatever their verdict: {shown(called)}")
    both = np.logical_and(called, flagged[: len(called)])
    print(f"clean records escalated and called fouled: {shown(both)}")
    print(f"clean records within the rule under the simulator with a film: {shown(within)}")
    print(f"gain in log evidence: median {np.median(gains):+.1f}, highest {np.max(gains):+.1f}")
    return {"called": called, "gains": gains, "within": within}


def others(bench: Bench, n: int, deadline: float) -> dict:
    """Other mismatches at full severity: a film is not what they are."""
    rows = {}
    for number, name in enumerate(OTHERS):
        cases = bench.sweeps(n, 30 + number, name, 1.0)
        posterior, flagged = bench.infer(cases)
        called = []
        for k in np.flatnonzero(flagged):
            if time.monotonic() > deadline:
                break
            called.append(bench.resolve(cases.take([k]), posterior.take([k]), k).resolved)
        rows[name] = called
        print(
            f"{name}: escalated {shown(flagged)}; of these called fouled {shown(called)}",
            flush=True,
        )
    return rows


def static(bench: Bench, n: int, deadline: float) -> dict:
    """Static films, k0, resistance and double layer free or known."""
    del deadline
    found = {}
    names = bench.model.prior_of_parameters.names
    which = np.isin(names, KNOWN)
    for severity in (0.0, 0.5, 1.0):
        cases = bench.sweeps(n, 40, "static", severity)
        known = cases.known | which
        # What is known is known as it is: truth and standard coordinates are those of the record.
        informed = cases._replace(known=known, detail=cases.detail._replace(known=known))
        for label, each in (("free", cases), ("known", informed)):
            _, flagged = bench.infer(each)
            found[f"{label} {severity}"] = flagged.tolist()
            print(f"static, severity {severity:g}, {label}: escalated {shown(flagged)}", flush=True)
    return found


def proposals(bench: Bench, n: int, deadline: float) -> dict:
    """Records that leave a watched quantity open: all of the menu, simulated from the truth."""
    rows = []
    cases = bench.sweeps(2 * n, 50, None, 0.0)
    posterior, _ = bench.infer(cases)
    for k in range(2 * n):
        if time.monotonic() > deadline or len(rows) == n:
            break
        one, its = cases.take([k]), posterior.take([k])
        rng = np.random.default_rng([bench.seed, 7, k])
        if not escalation.uninformed(bench.model, bench.model.table(one, its, rng)):
            continue
        ranked = escalation.next_measurements(bench.model, bench.model.quantities, one, its, rng)
        before = entropy(bench, one, its)
        fallen = {
            row["protocol"]: before - after(bench, one, its, row["protocol"], k) for row in ranked
        }
        best = fallen[ranked[0]["protocol"]]
        rows.append(
            {
                "expected": {row["protocol"]: (row["gain"], row["error"]) for row in ranked},
                "fallen": fallen,
                "better": bool(best > np.median(list(fallen.values()))),
                "best": bool(best >= max(fallen.values())),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    print(f"proposed better than the median of the menu: {shown([r['better'] for r in rows])}")
    print(f"proposed the best of the menu: {shown([r['best'] for r in rows])}")
    return {"rows": rows}


def entropy(bench: Bench, case: Cases, posterior) -> float:
    """Of the couples' unknown parameters, in nats, as if Gaussian in their coordinates."""
    quantities = bench.model.quantities
    blocks = bench.model.prior_of_parameters.blocks
    chosen = [k for k in range(len(quantities)) if blocks[k] in SHARED and not case.known[0, k]]
    z = np.stack(
        [quantities[k].coordinate(posterior.draws[quantities[k].name][0]) for k in chosen], 0
    )
    return 0.5 * float(np.linalg.slogdet(np.cov(z, aweights=posterior.weight[0]))[1])


def after(bench: Bench, case: Cases, start, name: str, number: int) -> float:
    """Entropy after the record and one more, simulated by a protocol from the truth."""
    model, first = bench.model, case.detail
    protocol = protocols.menu(first.experiment, fouled=False)[name]
    natural = case.truth.astype(np.float32)
    experiment = protocol.experiment
    current = model.forward.currents_of_natural(
        natural, experiment, model.forward.waveforms(experiment)
    )
    row = jax.tree.map(lambda a: np.asarray(a)[0], experiment)
    z = np.asarray(jax.vmap(model.prior_of_parameters.standard)(natural, experiment))
    key = jax.random.key(1000 * number + len(name))
    baseline_key, noise_key = jax.random.split(key)
    observation = model.prior_of_parameters.observation(natural[0], current[0], row)
    observation = observation.with_baseline(jax.random.normal(baseline_key, (2,)))
    observed = np.asarray(observation.draw(noise_key))[None]
    second = Records.without_belief(observed, np.ones_like(first.mask), experiment, z, first.known)
    both = jax.tree.map(lambda *a: np.concatenate([np.asarray(x) for x in a]), first, second)
    pair = Cases(
        both.observed,
        both.mask,
        np.repeat(case.truth, 2, 0),
        both.known,
        np.repeat(case.kind, 2),
        np.zeros(2, int),
        both,
    )
    key = jax.random.key(number)
    posterior = model.inferrer.again(pair, start.take([0, 0]), key, SMALL)
    return entropy(bench, pair.take([0]), posterior.take([0]))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--n", type=int, default=50, help="records of each part")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--minutes", type=float, default=10.0, help="at most, of each part")
    parser.add_argument("--out", type=Path, help="JSON of all rows")
    arguments = parser.parse_args()
    model = contract.load_model("ecsfm")
    judge = infer.prepare(model, Results(Path(folder("ecsfm"))))
    print(judge.artefact.words)
    bench = Bench(model, Decision.from_json(judge.guardrail["decision"]), arguments.seed)
    found = {}
    for part in arguments.parts:
        started = time.monotonic()
        print(f"\n{part}", flush=True)
        found[part] = globals()[part](bench, arguments.n, started + 60 * arguments.minutes)
        print(f"{time.monotonic() - started:.0f} s")
    if arguments.out:
        arguments.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
