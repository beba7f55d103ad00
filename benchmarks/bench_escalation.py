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

Rows are appended to the file of --out, and the figures are of all its rows: those of several runs,
each with another seed.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from touchstone import contract
from touchstone.io.results import Results, folder
from touchstone.models.ecsfm.data.mismatch import Scene, happen
from touchstone.models.ecsfm.inference import protocols
from touchstone.models.ecsfm.physics.experiment import Records
from touchstone.reliability.decision import Decision
from touchstone.reliability.guardrail import wilson
from touchstone.stages import escalation, infer
from touchstone.stages.cases import evidence
from touchstone.vocabulary import Cases, Posterior

SWEEPS = ("cv_reversible", "kinetics_limited", "diffusion_limited", "cv_multispecies")
OTHERS = ("rate", "background", "second_couple", "resistance", "adsorbed")
LEAST_SEVERITY = 0.5
KNOWN = ("k0_1", "k0_2", "resistivity", "C_dl")  # in the second row of `static`
SHARED = ("D_ox", "D_ratio", "E0", "k0", "alpha")  # blocks whose entropy is compared
BUDGET = {
    "n_draws": 400,
    "n_steps": 10,
    "reweight": {
        "n_runs": 6,
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

    def sweeps(self, n: int, number: int, stress: str | None, severity: float) -> Iterator[Cases]:
        """Cyclic voltammograms under a mismatch, one by one; others for each number."""
        rngs = (np.random.default_rng([self.seed, number, k]) for k in range(2))
        cases = self.model.cases(4 * n + 8, *rngs, {}, stress, severity)
        chosen = np.flatnonzero(np.isin(cases.kind, SWEEPS))[:n]
        assert len(chosen) == n
        for k in chosen:
            yield cases.take([k])

    def infer(self, case: Cases) -> tuple[Posterior, bool]:
        """Posterior of a case, and whether the rule escalates it."""
        rng = np.random.default_rng([self.seed, 9])
        posterior = self.model.infer(case, rng, method="reweighted", budget=BUDGET)
        score = self.decision.score(evidence(self.model, case, posterior))
        return posterior, bool(score[0] > self.decision.threshold)

    def resolve(self, case: Cases, posterior: Posterior) -> escalation.Resolution:
        """A case under the simulator with a film."""
        rng = np.random.default_rng([self.seed, 8])
        return escalation.resolve(self.model, case, posterior, [[]], self.decision, rng, BUDGET)


def shown(hits: list[bool] | np.ndarray) -> str:
    """A rate with its 95 % interval."""
    if not len(hits):
        return "none"
    rate = wilson(float(np.mean(hits)), len(hits))
    return f"{rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}] of {rate.n}"


# Parts: rows of each, then what is said of them ---------------------------------------------------


def resolved(bench: Bench, n: int) -> Iterator[dict]:
    """Growing films at severities from `LEAST_SEVERITY` to 1."""
    model = bench.model
    levels = np.linspace(LEAST_SEVERITY, 1, 3)
    streams = [
        (float(severity), bench.sweeps(-(-n // len(levels)), number, "dynamic", float(severity)))
        for number, severity in enumerate(levels)
    ]
    k0 = model.prior_of_parameters.names.index("k0_1")
    for turn in range(n):
        severity, cases = streams[turn % len(levels)]
        case = next(cases)
        first, flagged = bench.infer(case)
        row = {"severity": severity, "escalated": flagged}
        if flagged:
            found = bench.resolve(case, first)
            (size,) = [r for r in found.escalated.table if r["quantity"] == found.escalated.size[0]]
            row |= {
                "resolved": found.resolved,
                "faults": found.faults,
                "gain": found.gain,
                "coverage": true_coverage(bench, case, severity),
                "coverage_90": size["interval_90"],
                "before": of_k0(first, case.truth[0, k0]),
                "after": of_k0(found.escalated.posterior, case.truth[0, k0]),
            }
        yield row


def of_k0(posterior: Posterior, truth: float) -> dict:
    """Bias of log10 k0, its standard deviation, and whether the truth is in the 90 % interval."""
    x, weight = np.log(posterior.draws["k0_1"][0]), posterior.weight[0]
    mean = float(weight @ x)
    return {
        "bias": (mean - float(truth)) / np.log(10),
        "sd": float(np.sqrt(weight @ (x - mean) ** 2)) / np.log(10),
        "inside": bool(0.05 <= weight @ (x < truth) <= 0.95),
    }


def true_coverage(bench: Bench, case: Cases, severity: float) -> float:
    """Fouled fraction at the end of the record that was simulated."""
    model, experiment = bench.model, case.detail.experiment
    entry = {k: v for k, v in model.config["stresses"]["dynamic"].items() if k != "group"}
    blank, rng = np.zeros_like(case.observed), np.random.default_rng(0)
    scene = Scene(model.forward, case.truth, experiment, blank, rng)
    film = happen(scene, "dynamic", entry, severity).fouling
    truth = np.zeros((1, model.fouled.prior.size), np.float32)
    truth[:, np.isin(model.fouled.prior.names, model.prior_of_parameters.names)] = case.truth
    present = jax.vmap(model.fouled.prior.present)(truth, experiment)
    growth = float(film.k_ads[0] * present[0] * experiment.duration[0])
    names = [q.name for q in model.fouled.prior.parameters]
    for name, value in (
        ("coverage", 1e-9),
        ("growth", growth),
        ("site_density", float(film.site_density[0])),
    ):
        truth[:, names.index(name)] = np.log(value)
    draws = {
        q.name: q.value(truth[:, k : k + 1]) for k, q in enumerate(model.fouled.prior.parameters)
    }
    return float(model.fouled.final_coverage(case, draws, 0)[0])


def say_resolved(rows: list[dict]) -> None:
    print(f"escalated: {shown([row['escalated'] for row in rows])}")
    rows = [row for row in rows if row["escalated"]]
    hit = [row for row in rows if row["resolved"]]
    inside = [r["coverage_90"][0] <= r["coverage"] <= r["coverage_90"][1] for r in hit]
    print(f"resolved, of those escalated: {shown([row['resolved'] for row in rows])}")
    print(f"coverage inside its 90 % interval, of those resolved: {shown(inside)}")
    for name in ("before", "after"):
        bias = np.array([row[name]["bias"] for row in hit])
        if len(bias) > 1:
            error = bias.std(ddof=1) / np.sqrt(len(bias))
            print(
                f"bias of log10 k0 {name}: mean {bias.mean():+.2f} ± {error:.2f} (standard error), "
                f"median {np.median(bias):+.2f}; "
                f"k0 in its 90 % interval: {shown([r[name]['inside'] for r in hit])}"
            )
    for row in rows:
        if not row["resolved"]:
            print(f"  not resolved (severity {row['severity']:.2f}): {row['faults'][0][:150]}")


def control(bench: Bench, n: int) -> Iterator[dict]:
    """Severity 0, through the same code, whatever the verdict."""
    for case in bench.sweeps(n, 20, "dynamic", 0.0):
        posterior, flagged = bench.infer(case)
        found = bench.resolve(case, posterior)
        yield {
            "escalated": flagged,
            "called": found.resolved,
            "gain": found.gain,
            "within": found.judged.verdict.decision == "accept",
        }


def say_control(rows: list[dict]) -> None:
    def rate(condition):
        return shown([bool(condition(row)) for row in rows])

    gains = [row["gain"] for row in rows]
    print(f"clean records escalated at first: {rate(lambda r: r['escalated'])}")
    print(f"clean records called fouled, whatever their verdict: {rate(lambda r: r['called'])}")
    both = rate(lambda r: r["escalated"] and r["called"])
    print(f"clean records escalated and then called fouled: {both}")
    print(f"clean records within the rule with a film, too: {rate(lambda r: r['within'])}")
    print(f"gain in log evidence: median {np.median(gains):+.1f}, highest {np.max(gains):+.1f}")


def others(bench: Bench, n: int) -> Iterator[dict]:
    """Other mismatches at full severity: a film is not what they are."""
    streams = [(s, bench.sweeps(n, 30 + k, s, 1.0)) for k, s in enumerate(OTHERS)]
    for turn in range(n):
        name, cases = streams[turn % len(streams)]
        case = next(cases)
        posterior, flagged = bench.infer(case)
        called = flagged and bench.resolve(case, posterior).resolved
        yield {"mismatch": name, "escalated": flagged, "called": bool(called)}


def say_others(rows: list[dict]) -> None:
    for name in (*OTHERS, "all"):
        ours = [row for row in rows if row["mismatch"] == name or name == "all"]
        flagged = [row["escalated"] for row in ours]
        called = [row["called"] for row in ours if row["escalated"]]
        print(f"{name}: escalated {shown(flagged)}; of these called fouled {shown(called)}")


def static(bench: Bench, n: int) -> Iterator[dict]:
    """Static films, k0, resistance and double layer free or known, on the same records."""
    which = np.isin(bench.model.prior_of_parameters.names, KNOWN)
    severities = (0.0, 0.5, 1.0)
    streams = [bench.sweeps(n, 40, "static", severity) for severity in severities]
    for turn in range(n):
        severity, case = severities[turn % 3], next(streams[turn % 3])
        # What is known is known as it is: truth and standard coordinates are those of the record.
        known = case.known | which
        informed = case._replace(known=known, detail=case.detail._replace(known=known))
        yield {
            "severity": severity,
            "free": bench.infer(case)[1],
            "known": bench.infer(informed)[1],
        }


def say_static(rows: list[dict]) -> None:
    for severity in sorted({row["severity"] for row in rows}):
        ours = [row for row in rows if row["severity"] == severity]
        said = (f"{name} {shown([row[name] for row in ours])}" for name in ("free", "known"))
        print(f"static film of severity {severity:g}, escalated: {'; '.join(said)}")


def proposals(bench: Bench, n: int) -> Iterator[dict]:
    """Records that leave a watched quantity open: all of the menu, simulated from the truth."""
    model = bench.model
    for number, case in enumerate(bench.sweeps(n, 50, None, 0.0)):
        posterior, _ = bench.infer(case)
        rng = np.random.default_rng([bench.seed, 7, number])
        if not escalation.uninformed(model, model.table(case, posterior, rng)):
            continue
        ranked = escalation.next_measurements(model, model.quantities, case, posterior, rng)
        before = entropy(bench, case, posterior)
        fallen = {
            row["protocol"]: before - after(bench, case, posterior, row["protocol"], number)
            for row in ranked
        }
        yield {"expected": {r["protocol"]: [r["gain"], r["error"]] for r in ranked}} | {
            "fallen": fallen
        }


def say_proposals(rows: list[dict]) -> None:
    better, best, expected, seen = [], [], [], []
    for row in rows:
        proposed = max(row["expected"], key=lambda name: row["expected"][name][0])
        fallen = list(row["fallen"].values())
        better.append(row["fallen"][proposed] > np.median(fallen))
        best.append(row["fallen"][proposed] >= max(fallen))
        expected.append(row["expected"][proposed][0])
        seen.append(row["fallen"][proposed] - np.median(fallen))
    print(f"proposed better than the median of the menu: {shown(better)}")
    print(f"proposed the best of the menu: {shown(best)}")
    if rows:
        print(f"expected gain of the proposed: median {np.median(expected):.1f} nats")
        print(f"entropy less than after the median of the menu by: median {np.median(seen):.2f}")


def entropy(bench: Bench, case: Cases, posterior: Posterior) -> float:
    """Of the couples' unknown parameters, in nats, as if Gaussian in their coordinates."""
    quantities = bench.model.quantities
    blocks = bench.model.prior_of_parameters.blocks
    chosen = [k for k in range(len(quantities)) if blocks[k] in SHARED and not case.known[0, k]]
    columns = [quantities[k].coordinate(posterior.draws[quantities[k].name][0]) for k in chosen]
    covariance = np.cov(np.stack(columns), aweights=posterior.weight[0])
    return 0.5 * float(np.linalg.slogdet(covariance)[1])


def after(bench: Bench, case: Cases, start: Posterior, name: str, number: int) -> float:
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


PARTS = {
    "resolved": (resolved, say_resolved),
    "control": (control, say_control),
    "others": (others, say_others),
    "proposals": (proposals, say_proposals),
    "static": (static, say_static),
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--n", type=int, default=50, help="records of each part")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--minutes", type=float, default=10.0, help="at most, of each part")
    parser.add_argument("--out", type=Path, help="file of rows, one a line")
    arguments = parser.parse_args()
    model = contract.load_model("ecsfm")
    judge = infer.prepare(model, Results(Path(folder("ecsfm"))))
    print(judge.artefact.words)
    bench = Bench(model, Decision.from_json(judge.guardrail["decision"]), arguments.seed)
    for part in arguments.parts:
        make, say = PARTS[part]
        started, rows = time.monotonic(), []
        if arguments.out and arguments.out.is_file():
            lines = map(json.loads, arguments.out.read_text().splitlines())
            rows = [line["row"] for line in lines if line["part"] == part]
        for row in make(bench, arguments.n):
            rows.append(row)
            if arguments.out:
                with arguments.out.open("a") as stream:
                    stream.write(json.dumps({"part": part, "row": row}) + "\n")
            if time.monotonic() > started + 60 * arguments.minutes:
                break
        print(f"\n{part} ({time.monotonic() - started:.0f} s)")
        say(rows)


if __name__ == "__main__":
    main()
