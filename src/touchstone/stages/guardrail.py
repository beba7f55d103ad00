"""Calibrate the rule that accepts or escalates, and score it beside others."""

import time
from typing import NamedTuple

import numpy as np
import pandas as pd

from touchstone.io import reports
from touchstone.io.results import Results
from touchstone.reliability import control, guardrail, harm, left_out, oracle, rivals, unseen
from touchstone.reliability.decision import OUTSIDE, Decision
from touchstone.reliability.signs import MEANING
from touchstone.stages import randomness

TRIVIAL = "max_abs_observed"  # the score that needs no thought: how large the observation is
_GROUPS = 4  # of equally many cases, by which false alarms are told apart
_SHARES = np.linspace(0.02, 1.0, 50)  # of the cases, of the risk-coverage curve
_ALARMS = np.linspace(0.01, 0.5, 50)  # rates of false alarms, of the curves of detectors
_N_BOOTSTRAP = 2000
_USUAL_PART = 0.3  # of the calibration cases: they say what is usual, the others set the threshold


class Guarded(NamedTuple):
    """What came of the stage.

    Attributes:
        report: As written.
        decision: The rule that decides.
        historical: The rule of two thresholds that it is compared with.
        scored: Rows that neither has seen, with the `score` of each and whether it is `flagged`.
    """

    report: dict
    decision: Decision
    historical: guardrail.Rule
    scored: pd.DataFrame


def run(settings: dict, results: Results) -> Guarded:
    """Calibrate the rule on the score table of the stress stage, and score it.

    The rule sees only the calibration cases. Those that it is compared with are fitted on some of
    the base cases, and all are scored on the others; all variants of one experiment are on one
    side.

    Args:
        settings: `seed`; `alpha`, the highest false-alarm rate; `delta`, the chance that it is
            exceeded; and `fit_part`, the part of the base cases that others are fitted on.
        results: Where the score table is, and the report goes.
    """
    started = time.perf_counter()
    seed, source = settings["seed"], results.report("stress_report")
    table = reports.read(source, "stress_report")
    runs = pd.DataFrame(table["runs"])
    rng = randomness.generator(seed, "guardrail")
    in_family = runs[runs["split"] == "calibration"]
    usual, calibration = parts(in_family, rng)
    promise = settings["alpha"], settings["delta"]
    seen = (*MEANING, OUTSIDE)
    decision = rivals.calibrated(usual, calibration, seen, *promise, _covariate(in_family))
    runs = runs[runs["split"] != "calibration"]
    fitted_on = guardrail.halves(runs["case_index"].nunique(), settings["fit_part"], rng)
    runs["stressed"] = runs["split"].str.startswith("stress_")
    runs["score"] = rivals.score(decision, runs)
    is_fitted = fitted_on[runs["case_index"]]
    rules = _fit(runs[is_fitted & (runs["split"] != "control")], settings["alpha"])
    # The rule has seen no base case: its rates by variant are of all of them. Beside the others,
    # which were fitted on some, it is scored on the same cases as they.
    judged = runs.assign(flagged=runs["score"] > decision.threshold)
    held, scored = runs[~is_fitted], judged[~is_fitted]
    scores = _score(
        held,
        {"decision": scored["flagged"].to_numpy()}
        | {name: flag(held) for name, flag in rules.items()},
    )
    historical, ours = rules["historical pair"].rule, scores.pop("decision")
    theirs = scores_of_rivals(judged, usual, calibration, promise)
    n_scored = int((~fitted_on).sum())
    of_oracle = _oracle(table, judged)
    body = {
        "model_id": table["model_id"],
        **{name: table[name] for name in ("config", "split_summary", "runs")},
        "decision": decision.to_json(),
        "decision_score": {**ours, "n_scored_cases": n_scored},
        "best_guardrail": {
            **historical._asdict(),
            "alpha": settings["alpha"],
            "n_fitted_cases": int(fitted_on.sum()),
            "n_scored_cases": n_scored,
            **scores.pop("historical pair"),
        },
        "baselines": scores,
        "by_variant": _by_variant(judged),
        "conditional": _conditional(judged),
        "harm": _harm(judged, theirs, rng),
        "rivals": gains(judged, theirs, rng),
        "roc": _curves(judged, theirs),
        "exchangeable": _exchangeable(decision, calibration, judged),
        "left_out": left_out.compare(judged, fitted_on, usual, calibration, decision),
        "oracle": of_oracle,
        "unseen": _unseen(judged, theirs, seed),
        "control": {
            "stress": table["control"],
            "guardrail": control.of_rule(judged),
            "pooled": control.pooled(judged)._asdict(),
        },
    }
    if families := oracle.detectable(of_oracle):
        own = randomness.generator(seed, "guardrail", 1)
        body["harm"]["of_detectable"] = _of_detectable(judged, families, own)
    lineage = reports.lineage(
        {name: settings[name] for name in ("alpha", "delta", "fit_part")}, seed, {"stress": source}
    )
    timing = {"guardrail_s": time.perf_counter() - started}
    name = "posterior_failure_mode_report"
    report = reports.write(results.report(name), name, body, lineage, timing)
    return Guarded(report, decision, historical, scored)


def parts(in_family: pd.DataFrame, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows that say what is usual, and those that set the threshold."""
    is_usual = guardrail.halves(len(in_family), _USUAL_PART, rng)
    return in_family[is_usual], in_family[~is_usual]


def _covariate(rows: pd.DataFrame) -> str:
    """What the score is adjusted for: the first ratio that the model's `conditions` name."""
    ratios = (name for name in rows if name.startswith("condition_") and " less " in name)
    return next(ratios, "")


def _conditional(judged: pd.DataFrame) -> list[dict]:
    """False alarms by what is known of a case: the promise is for all of them together."""
    alarms = judged[judged["split"].isin(["in_distribution", "control"])]
    rows = []
    for by in ("kind", *(name for name in alarms if name.startswith("condition_"))):
        groups = alarms[by]
        if by != "kind":
            groups = pd.qcut(groups, _GROUPS, duplicates="drop")
        for name, group in alarms.groupby(groups, observed=True):
            # The variants of a base case are not independent.
            rate = guardrail.wilson(group["flagged"].mean(), group["case_index"].nunique())
            label = by.removeprefix("condition_")
            rows.append({"by": label, "group": str(name), "flagged": rate._asdict()})
    return rows


class Scored(NamedTuple):
    """A detector on the rows of a score table."""

    score: np.ndarray
    flagged: np.ndarray


def scores_of_rivals(
    judged: pd.DataFrame,
    usual: pd.DataFrame,
    calibration: pd.DataFrame,
    promise: tuple[float, float],
    detectors: dict[str, tuple[str, ...]] | None = None,
) -> dict[str, Scored]:
    """Others' detectors at the same promise, by name; the columns of each may be given."""
    found = {}
    for name, needed in (detectors or rivals.there(calibration)).items():
        rule = rivals.calibrated(usual, calibration, needed, *promise)
        score = rule.score(rivals.columns(judged, needed))
        found[name] = Scored(score, score > rule.threshold)
    return found


def _harm(judged: pd.DataFrame, theirs: dict[str, Scored], rng: np.random.Generator) -> dict:
    """What comes of believing what both verdicts accept, on the stated mix."""
    weight, wrong = harm.mix(judged), judged["wrong"].to_numpy(bool)
    certified = harm.certify(judged, weight, _accepted(judged), rng)
    inside = judged[judged["split"] == "in_distribution"]
    score = judged["score"].to_numpy()
    # What the verdict on the computation escalates comes last, so that the rule is on the curve.
    score = score + np.where(_sound(judged), 0.0, 1.0 + np.ptp(score))
    by_score = harm.curve(score, wrong, weight, _SHARES)
    by_size = harm.curve(theirs[rivals.SIZE].score, wrong, weight, _SHARES)
    rows = zip(_SHARES.tolist(), by_score.tolist(), by_size.tolist(), strict=True)
    return {
        "level": harm.LEVEL,
        **_plain(certified),
        "in_family": guardrail.wilson(inside["wrong"].mean(), len(inside))._asdict(),
        "curve": [{"accepted": s, "wrong": a, "wrong_by_size": b} for s, a, b in rows],
    }


def _of_detectable(judged: pd.DataFrame, families: list[str], rng: np.random.Generator) -> dict:
    """The same certificate where the mismatches of the mix are those that a test could detect."""
    some = judged[(judged["split"] == "in_distribution") | judged["family"].isin(families)]
    some = some[some["split"] != "control"]
    return {
        "families": families,
        **_plain(harm.certify(some, harm.mix(some), _accepted(some), rng)),
    }


def _sound(judged: pd.DataFrame) -> np.ndarray:
    """Whether the verdict on the computation accepts each run."""
    if "computation_sound" not in judged:
        return np.ones(len(judged), bool)
    return judged["computation_sound"].to_numpy() == 1


def _accepted(judged: pd.DataFrame) -> np.ndarray:
    """Whether both verdicts accept each run."""
    return ~judged["flagged"].to_numpy() & _sound(judged)


def _plain(found: harm.Harm) -> dict:
    return {
        name: value._asdict() if isinstance(value, guardrail.Interval) else value
        for name, value in found._asdict().items()
    }


def gains(judged: pd.DataFrame, theirs: dict[str, Scored], rng: np.random.Generator) -> list[dict]:
    """Others' detectors beside ours, on the same cases at the same promise.

    Args:
        judged: Rows of base cases, with whether each is `stressed` and `flagged`.
        theirs: The others.
        rng: Of the bootstrap over base cases.

    Returns:
        `name`, `fpr`, `recall` and `gain` of ours above it, the best first.
    """
    inside = (judged["split"] == "in_distribution").to_numpy()
    stressed = judged["stressed"].to_numpy()
    n = judged["case_index"].nunique()
    draws = rng.multinomial(n, np.full(n, 1 / n), _N_BOOTSTRAP) / n

    def by_case(flags: np.ndarray) -> np.ndarray:
        rows = judged[stressed].assign(flag=flags[stressed].astype(float))
        return rows.groupby("case_index")["flag"].mean().to_numpy()

    ours = by_case(judged["flagged"].to_numpy())
    rows = []
    for name, (_, flags) in theirs.items():
        recall = by_case(flags)
        low, high = np.quantile(draws @ (ours - recall), [0.025, 0.975])
        gain = {"value": float((ours - recall).mean()), "low": low, "high": high, "n": n}
        fpr = guardrail.wilson(flags[inside].mean(), n)._asdict()
        rows.append({"name": name, "fpr": fpr, "recall": float(recall.mean()), "gain": gain})
    return sorted(rows, key=lambda row: -row["recall"])


def _curves(judged: pd.DataFrame, theirs: dict[str, Scored]) -> list[dict]:
    """Recall of each detector, mean over mismatches and severities, at any rate of false alarms."""
    inside = (judged["split"] == "in_distribution").to_numpy()
    stressed = judged["stressed"].to_numpy()
    scores = {"decision": judged["score"].to_numpy()}
    scores |= {name: each.score for name, each in theirs.items()}
    rows = []
    for name, score in scores.items():
        limits = np.quantile(score[inside], 1 - _ALARMS)
        recall = (score[stressed, None] > limits).mean(0)
        rows.append({"name": name, "false_alarms": _ALARMS.tolist(), "recall": recall.tolist()})
    return rows


def _exchangeable(decision: Decision, calibration: pd.DataFrame, judged: pd.DataFrame) -> dict:
    """Whether base cases score as those of the calibration do, which the promise rests on."""
    from scipy.stats import ks_2samp

    ours = judged[judged["split"] == "in_distribution"]["score"].to_numpy()
    theirs = rivals.score(decision, calibration)
    test = ks_2samp(ours, theirs)
    found = {"deviation": float(test.statistic), "p_value": float(test.pvalue)}
    return {"n": len(ours), "n_calibrated": len(theirs), **found}


def _oracle(stress_report: dict, judged: pd.DataFrame) -> list[dict]:
    """What could be detected at all, beside what the rule detects."""
    if not stress_report.get("detection"):
        return []
    watched = [name[5:] for name in judged if name.startswith("bias_")]
    stressed = judged[judged["stressed"]]
    return oracle.table(pd.DataFrame(stress_report["detection"]), stressed, watched)


def _unseen(judged: pd.DataFrame, theirs: dict[str, Scored], seed: int) -> dict | None:
    """What to expect of a family that was not tried, of the rule and of each rival."""
    flags = {"decision": judged["flagged"].to_numpy()}
    flags |= {name: each.flagged for name, each in theirs.items()}
    stressed = judged["stressed"].to_numpy()
    counts = [
        judged[stressed]
        .assign(flag=flag[stressed])
        .groupby(["family", "severity"])["flag"]
        .agg(flagged="sum", n="size")
        .reset_index()
        .assign(detector=name)
        for name, flag in flags.items()
    ]
    return unseen.expect(pd.concat(counts), seed)


class _Flags(NamedTuple):
    """A rule over rows of scores."""

    rule: guardrail.Rule

    def __call__(self, rows: pd.DataFrame) -> np.ndarray:
        return self.rule.flags(
            rows["reliability_score"].to_numpy(), rows["pred_calibration_error"].to_numpy()
        )


def _fit(rows: pd.DataFrame, alpha: float) -> dict:
    """The rule and the rules that need no thought, as functions of rows."""
    stressed = rows["stressed"].to_numpy()
    rule = guardrail.fit(
        rows["reliability_score"].to_numpy(),
        rows["pred_calibration_error"].to_numpy(),
        stressed,
        alpha,
    )
    largest = guardrail.fit_threshold(-rows[TRIVIAL].to_numpy(), stressed, alpha)
    return {
        "historical pair": _Flags(rule),
        TRIVIAL: lambda held: (-held[TRIVIAL] > largest).to_numpy(),
        "flag everything": lambda held: np.ones(len(held), bool),
        "flag nothing": lambda held: np.zeros(len(held), bool),
    }


def _score(held: pd.DataFrame, flags: dict[str, np.ndarray]) -> dict[str, dict]:
    judged = (held["split"] != "control").to_numpy()
    stressed, case = held["stressed"].to_numpy()[judged], held["case_index"].to_numpy()[judged]
    return {name: guardrail.score(flag[judged], stressed, case) for name, flag in flags.items()}


def _by_variant(judged: pd.DataFrame) -> list[dict]:
    """Part flagged of each variant; detected is what lies above the false alarms' interval."""
    alarms = judged[judged["split"] == "in_distribution"]["flagged"]
    highest = guardrail.wilson(alarms.mean(), len(alarms)).high
    rows = []
    keys = ["split", "family", "severity"]
    groups = judged.groupby(keys, dropna=False, sort=False)
    for (split, family, severity), group in groups:  # ty: ignore[not-iterable] keys are triples
        rate = guardrail.wilson(group["flagged"].mean(), len(group))
        rows.append(
            {
                "split": split,
                "family": None if pd.isna(family) else family,
                "severity": severity,
                "flagged": rate._asdict(),
                "detected": bool(rate.low > highest),
            }
        )
    return rows
