"""Whether a certificate holds what it says, decided anew from its numbers.

The process that serves asks this, and imports no package of statistics.
"""

import math
from statistics import NormalDist
from typing import Any

_LEVEL = 0.01  # of a test; of several controls the least p-value, for their number
_BAND = 0.95  # of intervals, and of the band that a calibration promises
_FEWEST = 100  # cases of which ranks tell much
_ROUNDING = 1e-6


def certified(certificate: dict[str, Any], rule: dict[str, Any] | None = None) -> list[str]:
    """What speaks against a certificate.

    Every p-value, interval and rank that follows from other numbers of it is computed from them,
    and has to be what is written.

    Args:
        certificate: As `make release` writes it.
        rule: The report of the rule that lies beside it. Where that has the rows of scores, the
            joint test of the control is made anew.
    """
    try:
        against = [
            *_of_control(certificate["control"]["stress"]),
            *_of_rule(certificate["control"]["guardrail"]),
            *_of_calibration(certificate["calibration"]),
            *_of_false_alarms(certificate["false_alarms"], certificate["decision"]),
        ]
        return against if rule is None else against + _of_another(certificate, rule)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        said = f"{type(error).__name__}: {error}"
        return [f"the certificate is not as `make release` writes one ({said:.100})"]


def _of_control(stress: dict[str, Any]) -> list[str]:
    """Severity 0 against the training family."""
    tests = stress["tests"]
    if not tests:
        return ["control: severity 0 was not held against the training family"]
    adjusted = holm([test["p_value"] for test in tests])
    if not _alike(adjusted, [test["p_adjusted"] for test in tests]):
        return ["control: the adjusted p-values of severity 0 are not those of its tests"]
    for p_value in (min(adjusted), stress.get("p_value", 1.0)):
        if not p_value > _LEVEL:  # which NaN is not either
            return [f"control: severity 0 differs from the training family (p {p_value:.2g})"]
    return []


def _of_rule(tests: list[dict[str, Any]]) -> list[str]:
    """The rule at severity 0 against itself in the training family."""
    if not tests:
        return ["control: the rule was not held against severity 0"]
    exact = [sign_p_value(test["only_control"], test["only_reference"]) for test in tests]
    if not _alike(exact, [test["p_value"] for test in tests]):
        return ["control: the p-values of the rule are not those of its counts"]
    least = min(1.0, min(exact) * len(exact))
    if least <= _LEVEL:
        return [f"control: the rule escalates severity 0 at another rate (p {least:.2g})"]
    return []


def _of_calibration(entries: list[dict[str, Any]]) -> list[str]:
    """Ranks of the truths in random regions of the posteriors."""
    against = [] if entries else ["calibration: the ranks of no truths were tested"]
    for entry in entries:
        n, deviation, p_value = (entry["regions"][key] for key in ("n", "deviation", "p_value"))
        # The bound of Dvoretzky, Kiefer, Wolfowitz and Massart (1990), whatever p is written.
        most = 2 * math.exp(-2 * n * deviation**2)
        if n < _FEWEST:
            said = f"are of {n} cases, expected {_FEWEST} or more"
        elif not (p_value > _LEVEL and most > _LEVEL):
            said = f"are not uniform (p {min(p_value, most):.2g} on {n} cases)"
        else:
            continue
        against.append(f"calibration: ranks of the truths by {entry['method']} {said}")
    return against


def _of_false_alarms(found: dict[str, Any], decision: dict[str, Any]) -> list[str]:
    """The rate on fresh cases, and what the calibration promises of it."""
    rate, alpha, delta = found["rate"], decision["alpha"], decision["delta"]
    value, n, against = rate["value"], rate["n"], []
    if value is None or wilson(2 * alpha, n)[0] <= alpha:
        against.append(
            f"false alarms: {n} fresh cases are too few to tell a rate of {2 * alpha:g} from "
            f"{alpha:g}"
        )
    else:
        low, high = wilson(value, n)
        whole = abs(value * n - round(value * n)) <= _ROUNDING * n
        if low > alpha:
            against.append(
                f"false alarms: {value:.3f} [{low:.3f}, {high:.3f}] on {n} cases, more than "
                f"{alpha:g}"
            )
        elif not whole or not _alike([low, high], [rate["low"], rate["high"]]):
            against.append(f"false alarms: the rate or its interval is none of {n} cases")
    promised, calibrated = found["promised"], decision["n_calibrated"]
    rank = promised["rank"]
    tails = [(1 - _BAND) / 2, (1 + _BAND) / 2]
    ends = [at_least(rank, calibrated, promised[end]) for end in ("low", "high")]
    chance = at_least(rank, calibrated, alpha)
    better = at_least(rank + 1, calibrated, alpha)  # of a lower threshold, which is not to hold
    if (
        not _alike([*ends, chance], [*tails, found["chance_of_rate_below_alpha"]])
        or chance < 1 - delta - _ROUNDING
        or better >= 1 - delta + _ROUNDING
    ):
        against.append(f"false alarms: what is promised is not what {calibrated} cases give")
    return against


def _of_another(certificate: dict[str, Any], rule: dict[str, Any]) -> list[str]:
    """A certificate of another rule, or a control that its own rows refute."""
    if any(certificate[name] != rule[name] for name in ("model_id", "decision", "control")):
        return ["the certificate is that of another rule"]
    if not rule["runs"]:
        return []
    import pandas as pd  # here: few rules keep their rows, and these packages are large

    from touchstone.reliability import control

    p_value = control.joint(pd.DataFrame(rule["runs"]))
    if p_value <= _LEVEL:
        return [f"control: the rows of severity 0 differ from the training family (p {p_value:g})"]
    return []


def wilson(part: float, n: int) -> tuple[float, float]:
    """Ends of the 95 % interval of a rate (Wilson 1927) from n independent trials."""
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + _BAND) / 2)
    centre = (part + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(max(0.0, part * (1 - part)) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def at_least(k: int, n: int, chance: float) -> float:
    """Chance of k or more successes of n; also that a Beta(k, n + 1 - k) is below the chance."""
    if not 0 < chance < 1:
        return float(k <= 0 or chance >= 1)
    logs = math.log(chance), math.log1p(-chance)
    terms = (_choose(n, j) + j * logs[0] + (n - j) * logs[1] for j in range(max(k, 0), n + 1))
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def _choose(n: int, k: int) -> float:
    """Logarithm of a binomial coefficient."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def sign_p_value(only_first: int, only_second: int) -> float:
    """Two-sided p-value that two rules flag paired runs alike (exact McNemar test)."""
    n = only_first + only_second
    return min(1.0, 2 * at_least(max(only_first, only_second), n, 0.5))


def holm(p_values: list[float]) -> list[float]:
    """p-values adjusted for being several (Holm 1979)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for k, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, (len(p_values) - k) * p_values[place])
        adjusted[place] = min(1.0, largest)
    return adjusted


def _alike(ours: list[float], theirs: list[float]) -> bool:
    return all(abs(a - b) <= _ROUNDING for a, b in zip(ours, theirs, strict=True))
