"""Effects, regimes and answers of regimes against truths that are known, and beside others.

    make bench BENCH=regimes ARGS="WHAT [--series 500]"

WHAT is one of
    coverage   intervals of an effect in dependent series, beside those of theory and of an oracle
    rivals     the same beside DoubleML, econml and tsdml, which run in an environment of their own
    linear     the partially linear score, independent rows, n = 500, p = 20
    effects    effects by regime, T = 480, 30 % and 70 % of the dates, beside hard labels
    responses  intervals and joint bands of responses by horizon and regime
    states     filtered probabilities of the regime, beside statsmodels and hmmlearn
    one_step   log scores of the next date of three real series, beside statsmodels and hmmlearn
    outcome    intervals of the outcome of dates held out, one step ahead, of the released artefact
    guarantee  false alarms of a rule where the dates, and the windows, depend on each other
    speed      an answer of `predict`, one row and a batch

Rates have 95 % intervals (Wilson); differences of scores, of the series (bootstrap).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm
from scipy.signal import lfilter
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler

from touchstone import load
from touchstone.contract import folders, load_model
from touchstone.models.regimes import (
    amortised,
    economy,
    effects,
    responses,
    series,
    switching,
    training,
)
from touchstone.models.regimes.economy import Parameters
from touchstone.models.regimes.effects import Pivots
from touchstone.models.regimes.series import Recipe, Table
from touchstone.reliability import decision
from touchstone.reliability.guardrail import wilson

GRID = (0.0, 0.2, 0.4, 0.6, 0.75, 0.85)  # of the calibration: none of them is tested but 0
TESTED = (0.0, 0.3, 0.5, 0.7, 0.8)


def rate(inside: np.ndarray) -> str:
    """Part of true values, with its interval."""
    found = wilson(float(np.mean(inside)), len(inside))
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def coverage(n_series: int, rng: np.random.Generator) -> None:
    """For each dependence, coverage and width of 90 % intervals of an effect."""
    n, p = 240, 20
    learner, plan = effects.ridge(), effects.folds(n, "full")
    pivots = effects.linear_calibration(n, p, learner, plan, GRID, 2 * n_series, rng)
    print(f"{n} dates, {p} controls, {n_series} series each")
    for rho in TESTED:
        inside, width = [], []
        for _ in range(n_series):
            y, d, x = effects.simulate_linear(n, p, rho, rng, effect=0.5)
            found = effects.partially_linear(y, d, x, learner, plan)
            slope = 1 / np.arange(1, p + 1)
            oracle = effects.solve(y - 1.5 * x @ slope, d - x @ slope, np.ones((n, 1)))
            estimate, se = float(found.estimate[0]), float(found.se[0])
            half = 1.645 * float(found.se_iid[0])
            ends = [
                (estimate - half, estimate + half),
                effects.asymptotic(estimate, se, n),
                pivots.interval(estimate, se, effects.measured_dependence(found)),
                effects.asymptotic(float(oracle.estimate[0]), float(oracle.se[0]), n),
            ]
            inside.append([low <= 0.5 <= high for low, high in ends])
            width.append([high - low for low, high in ends])
        names = ("independent", "cosines", "calibrated", "oracle")
        rows = zip(names, np.array(inside).T, np.mean(width, axis=0), strict=True)
        text = [f"{name} {rate(part)} width {wide:.3f}" for name, part, wide in rows]
        print(f"rho {rho}: " + "; ".join(text), flush=True)


def rivals(n_series: int, rng: np.random.Generator) -> None:
    """Coverage and width of 90 % intervals in the series of `coverage`, ours and those of others,
    all with the same ridge regressions."""
    n, p, truth = 240, 20, 0.5
    learner, plan = effects.ridge(), effects.folds(n, "full")
    pivots = effects.linear_calibration(n, p, learner, plan, GRID, 2 * n_series, rng)
    print(f"{n} dates, {p} controls, {n_series} series each")
    for rho in (0.0, 0.5, 0.8):
        simulated = [effects.simulate_linear(n, p, rho, rng, truth) for _ in range(n_series)]
        ours = []
        for y, d, x in simulated:
            found = effects.partially_linear(y, d, x, learner, plan)
            estimate, se = float(found.estimate[0]), float(found.se[0])
            dependence = effects.measured_dependence(found)
            ours.append([estimate, *pivots.interval(estimate, se, dependence)])
        ends = {"ours": np.array(ours)} | by_others(*map(np.array, zip(*simulated, strict=True)))
        for name, (estimate, low, high) in ((k, v.T) for k, v in ends.items()):
            inside = (low <= truth) & (truth <= high)
            off = estimate - truth
            print(
                f"rho {rho}: {name}: coverage {rate(inside)}, off by {inside.mean() - 0.9:+.3f}; "
                f"width {np.mean(high - low):.3f}; bias {off.mean():+.4f}, sd {off.std():.3f}",
                flush=True,
            )


def by_others(y: np.ndarray, d: np.ndarray, x: np.ndarray) -> dict[str, np.ndarray]:
    """Estimate, low and high by method, see `regimes_rivals.py`; none where it does not run."""
    script = Path(__file__).with_name("regimes_rivals.py").absolute()
    wheels = ("doubleml==0.11.4", "econml==0.17.0", "tsdml==0.1.0")
    command = [os.environ.get("UV", "uv"), "run", "--no-project", "--python"]
    command += [str(Path(sys.base_prefix) / "bin/python3.12")]
    command += [part for wheel in wheels for part in ("--with", wheel)]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(source, y=y, d=d, x=x)
        command += ["python", str(script), str(source), str(target)]
        try:
            subprocess.run(command, check=True, cwd=folder, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"the others did not run: {error} {getattr(error, 'stderr', '')[-500:]}")
            return {}
        return dict(np.load(target))


def linear(n_series: int, rng: np.random.Generator) -> None:
    """Coverage and bias where rows are independent (design of Chernozhukov et al. 2018)."""
    n, p, truth = 500, 20, 0.5
    root = np.linalg.cholesky(0.7 ** np.abs(np.subtract.outer(np.arange(p), np.arange(p))))
    splines = make_pipeline(StandardScaler(), SplineTransformer(n_knots=4), Ridge(alpha=3.0))
    found = []
    for _ in range(n_series):
        x = rng.standard_normal((n, p)) @ root.T
        bent = 1 / (1 + np.exp(-x))
        d = x[:, 0] + 0.25 * bent[:, 2] + rng.standard_normal(n)
        y = truth * d + bent[:, 0] + 0.25 * x[:, 2] + rng.standard_normal(n)
        plan = effects.folds(n, "random", 5, seed=int(rng.integers(2**31)))
        got = effects.partially_linear(y, d, x, splines, plan)
        found.append((got.estimate[0], got.se_iid[0]))
    # Pivots of other series: linear ones, of `simulate_linear`.
    plan = effects.folds(n, "random", 5)
    pivots = effects.linear_calibration(n, p, splines, plan, (0.0, 0.2), n_series, rng)
    estimate, se = np.array(found).T
    half = se * pivots.quantile(0.95, 0.0)
    off, sd = estimate.mean() - truth, estimate.std()
    inside = np.abs(estimate - truth) < 1.645 * se
    print(
        f"{n} rows, {p} controls, {n_series} repetitions: coverage {rate(inside)}, "
        f"calibrated {rate(np.abs(estimate - truth) < half)}; bias {off:+.4f} "
        f"± {1.96 * sd / np.sqrt(n_series):.4f}, {off / sd:+.2f} of the sd of the estimates; "
        f"standard error {se.mean():.4f}, sd {sd:.4f}. DoubleML finds the same on the same folds."
    )


def two_regimes(rng: np.random.Generator, truth: np.ndarray, n: int = 480):
    """Outcome, treatment, controls and regimes, of which 70 % are calm."""
    stay, sd = np.array([0.97, 0.93]), np.array([0.6, 1.5])
    state = np.zeros(n, int)
    state[0] = rng.random() < 0.3
    for t in range(1, n):
        state[t] = state[t - 1] if rng.random() < stay[state[t - 1]] else 1 - state[t - 1]
    x = rng.standard_normal((n, 3))
    d = x @ [0.5, -0.3, 0.2] + rng.standard_normal(n)
    y = truth[state] * d + x @ [0.3, 0.3, 0.0] + sd[state] * rng.standard_normal(n)
    return y, d, x, state


def by_regime(y: np.ndarray, d: np.ndarray, x: np.ndarray, rng: np.random.Generator):
    """Effects as the training finds them; and with labels of the same date."""
    design = np.column_stack([d, x])
    fitted = training.fit_regimes(load_model("regimes").config, y, design, rng, n_starts=1)
    plan = effects.folds(len(y), "full")
    soft = training.by_regime(y, d, x, fitted, 0, plan)
    label = np.eye(2)[np.asarray(fitted.states(y, design).smoothed).argmax(1)]
    features = np.column_stack([x, label[:, 1], x * label[:, 1:]])
    return soft, effects.partially_linear(y, d, features, effects.ridge(), plan, label)


def effects_by_regime(n_series: int, rng: np.random.Generator) -> None:
    """Bias and coverage of effects by regime; the pivots are those of other effects."""
    pivots = []
    for _ in range(n_series):
        truth = 0.35 * rng.standard_normal(2)
        soft, _ = by_regime(*two_regimes(rng, truth)[:3], rng)
        pivots.append((soft.estimate - truth) / soft.se)
    truth, rows = np.array([0.2, 0.8]), []
    for _ in range(n_series):
        soft, hard = by_regime(*two_regimes(rng, truth)[:3], rng)
        rows.append([*soft.estimate, *soft.se, *hard.estimate])
    rows = np.array(rows)
    for k, name in enumerate(economy.REGIMES):
        off = rows[:, k] - truth[k]
        alone = Pivots(np.zeros(1), np.array(pivots).T[k : k + 1])
        ends = np.array(
            [alone.interval(e, s, 0.0) for e, s in zip(rows[:, k], rows[:, 2 + k], strict=True)]
        )
        inside = (ends[:, 0] <= truth[k]) & (truth[k] <= ends[:, 1])
        theory = effects.asymptotic(0.0, 1.0, 480)[1]
        hard = rows[:, 4 + k] - truth[k]
        print(
            f"{name}: bias {off.mean():+.3f} ± {1.96 * off.std() / np.sqrt(n_series):.3f} sd of y, "
            f"coverage {rate(inside)}, of theory {rate(np.abs(off) < theory * rows[:, 2 + k])}; "
            f"hard labels bias {hard.mean():+.3f} ± {1.96 * hard.std() / np.sqrt(n_series):.3f}",
            flush=True,
        )


def responses_by_horizon(n_series: int, rng: np.random.Generator) -> None:
    """Sums of an outcome since a shock that has acted on the next date, by regime: coverage of
    single intervals and of joint bands."""
    truth, n, n_horizons = np.array([0.2, 0.8]), 340, 13
    inside = np.zeros((n_series, 3, 2))
    for k in range(n_series):
        y, d, x, _ = two_regimes(rng, truth, n)
        dates = np.datetime64("1970-01") + np.arange(n)
        table = Table(dates.astype("datetime64[D]"), ("y", "d"), np.column_stack([y, d]))
        recipe = Recipe("date", "y", "d", (), {}, 0, (), True)
        fitted = training.fit_regimes(
            load_model("regimes").config, y, np.column_stack([d, x]), rng, n_starts=1
        )
        states = fitted.states(y, np.column_stack([d, x]))
        weight = fitted.ahead(np.asarray(states.filtered), 1)
        rows = responses.Rows(table.dates, d, x, weight, fitted.variance)
        of_all = responses.by_horizon(table, recipe, rows, n_horizons, (0.0, 0.5), 100, rng)
        found = of_all.numbers[0]
        # Controls and shocks are independent from date to date, so that the sum stays what it was;
        # on average it lies between those of the regimes, by how much of the treatment is in each.
        for g, known in ((1, truth[0]), (2, truth[1]), (3, truth[1] - truth[0])):
            _, low, high, joint_low, joint_high = found[g].T
            inside[k, g - 1, 0] = np.mean((low <= known) & (known <= high))
            inside[k, g - 1, 1] = np.all((joint_low <= known) & (known <= joint_high))
    for g, name in enumerate(responses.GROUPS[1:]):
        single, joint = inside[:, g].T
        error = 1.96 * single.std() / np.sqrt(n_series)
        print(
            f"{name}: intervals hold {single.mean():.3f} ± {error:.3f} (mean over {n_horizons} "
            f"horizons), joint bands {rate(joint)}; {n_series} series"
        )


# Regimes ------------------------------------------------------------------------------------------


def family() -> economy.Prior:
    """The prior of the model, for an outcome whose errors have a variance of one."""
    return economy.prior_of(load_model("regimes").config, 1.0, 1.0)


def draw(prior: economy.Prior, rng: np.random.Generator, n: int) -> Parameters:
    """Parameters of the prior, with no controls."""
    fields = dict.fromkeys(economy.Economy.__dataclass_fields__, np.zeros(0))
    bare = economy.Economy(**fields | {"treatment_slope": np.zeros(1)})
    return economy.draw_parameters(prior, bare, rng, n)


def outlying(u: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Which economies have at least half of their coordinates outside the central half."""
    low, high = np.quantile(pool, [0.25, 0.75], axis=0)
    return ((u < low) | (u > high)).mean(1) >= 0.625


def series_of(u: np.ndarray, rng: np.random.Generator, n_dates: int):
    """Outcome, treatment and regimes of an economy with given coordinates."""
    key = jax.random.key(int(rng.integers(2**31)))
    return (np.asarray(a, float) for a in amortised.simulate(u, key, n_dates, 1.0))


def by_statsmodels(y: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Filtered probability of the regime of the larger variance, by maximum likelihood."""
    from statsmodels.tsa.regime_switching.markov_regression import MarkovRegression

    model = MarkovRegression(y, 2, exog=d[:, None], switching_variance=True)
    fitted = model.fit(search_reps=5, disp=False)
    sizes = fitted.params[-2:]
    return np.asarray(fitted.filtered_marginal_probabilities)[:, int(np.argmax(sizes))]


def by_hmmlearn(y: np.ndarray, d: np.ndarray) -> np.ndarray:
    """The same of the outcome less its regression on the treatment, by a normal hidden Markov
    model; its parameters, our filter."""
    full = np.column_stack([np.ones_like(d), d])
    left = y - full @ np.linalg.lstsq(full, y)[0]
    fitted = normal_states(left)
    return np.exp(fitted.states(left, np.zeros((len(y), 0))).filtered[:, 1])


def normal_states(left: np.ndarray) -> switching.Switching:
    """Two normal regimes by hmmlearn, the one of the larger variance last."""
    from hmmlearn.hmm import GaussianHMM

    fits = [GaussianHMM(2, n_iter=100, random_state=k).fit(left[:, None]) for k in range(3)]
    best = max(fits, key=lambda each: each.score(left[:, None]))
    order = np.argsort(best.covars_.ravel())
    return switching.Switching(
        best.means_.ravel()[order], np.zeros(0), best.covars_.ravel()[order],
        np.clip(best.transmat_[np.ix_(order, order)], 1e-6, 1), 0.0, 0.0,
    )  # fmt: skip


def calibration_error(p: np.ndarray, state: np.ndarray, n_bins: int = 10) -> float:
    """Mean distance, over dates, of the part that is turbulent from the probability that was said,
    in bins of equally many dates."""
    bins = np.array_split(np.argsort(p), n_bins)
    return sum(len(b) * abs(p[b].mean() - state[b].mean()) for b in bins) / len(p)


def states(n_series: int, rng: np.random.Generator) -> None:
    """Brier scores of filtered probabilities, in the prior and in its outer part; and how far
    these are from the part of the dates that is turbulent."""
    prior, n_dates = family(), 160
    pool = amortised.coordinates(draw(prior, rng, 20_000))
    started = time.perf_counter()
    learnt = amortised.train(lambda n: draw(prior, rng, n), 100, 400, rng)
    print(f"trained in {time.perf_counter() - started:.0f} s", flush=True)
    far = outlying(pool, pool)
    for name, chosen in (("prior", pool[~far | far]), ("outer part of the prior", pool[far])):
        scores: dict[str, list[float]] = {}
        n_failed, said_of, known = 0, [], []
        for u in chosen[rng.choice(len(chosen), n_series, replace=False)]:
            y, d, state = series_of(u, rng, n_dates)
            try:
                theirs = by_statsmodels(y, d)
            except (RuntimeError, np.linalg.LinAlgError):  # its search left what it allows
                n_failed += 1
                continue
            found = amortised.posterior(learnt.net, prior, y, d, int(rng.integers(2**31)))
            said: dict[str, Callable] = {
                "network alone": lambda found=found: found.network,
                "re-weighted": lambda found=found: found.filtered,
                "statsmodels": lambda theirs=theirs: theirs,
                "hmmlearn": lambda y=y, d=d: by_hmmlearn(y, d),
                "truth's own": lambda u=u, y=y, d=d: np.exp(
                    np.asarray(amortised.run_filter(u, y, d)[0])[:, 1]
                ),
            }
            for method, ask in said.items():
                scores.setdefault(method, []).append(float(np.mean((ask() - state) ** 2)))
            scores.setdefault("effective part of the draws", []).append(found.effective)
            said_of.append(found.filtered)
            known.append(state)
        table = np.array([scores[k] for k in ("re-weighted", "statsmodels", "hmmlearn")])
        n = table.shape[1]
        again = table[:, rng.integers(n, size=(2000, n))].mean(2)
        ratio = again[0] / again[1:].min(0)
        means = "; ".join(f"{k} {np.mean(v):.4f}" for k, v in scores.items())
        print(f"{name}, {n} series of {n_dates} dates: {means}")
        print(f"  left out, since statsmodels failed: {n_failed}")
        p, turbulent = np.array(said_of), np.array(known)
        ours = calibration_error(p.ravel(), turbulent.ravel())
        resampled = []
        for _ in range(500):
            k = rng.integers(n, size=n)
            resampled.append(calibration_error(p[k].ravel(), turbulent[k].ravel()))
        low, high = np.quantile(resampled, [0.025, 0.975])
        print(f"  calibration error of the re-weighted {ours:.4f} [{low:.4f}, {high:.4f}]")
        low, high = np.quantile(ratio, [0.025, 0.975])
        print(
            f"  re-weighted over the better of the others: "
            f"{table[0].mean() / table[1:].mean(1).min():.3f} [{low:.3f}, {high:.3f}]",
            flush=True,
        )


def real_series() -> dict[str, np.ndarray]:
    """Series of the United States, in per cent."""
    from statsmodels.datasets import macrodata

    table, _ = series.monthly()
    output = macrodata.load_pandas().data["realgdp"].to_numpy(float)
    return {
        "growth of industrial production, monthly": table.column("fred_INDPRO_growth"),
        "growth of core prices, monthly": table.column("fred_CPILFESL_growth"),
        "growth of output, quarterly": 100 * np.diff(np.log(output)),
    }


def densities(u: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Log density of each date given those before it, for economies of coordinates u."""
    found = amortised.parameters(u)

    def of_economy(effect, intercept, variance, stay):
        density = norm.logpdf(y[:, None], intercept + d[:, None] * effect, jnp.sqrt(variance))
        transition = jnp.log(jnp.array([[stay[0], 1 - stay[0]], [1 - stay[1], stay[1]]]))
        predicted, _, _ = switching.forward(density, transition, jnp.log(jnp.full(2, 0.5)))
        return logsumexp(predicted + density, axis=1)

    return np.asarray(jax.vmap(of_economy)(*found), float)


def one_step(n_series: int, rng: np.random.Generator) -> None:
    """Log score of each date of the second half given those before it; parameters know the first
    half alone. Two regimes of mean, error and dependence on the date before: ours by weighted
    draws, statsmodels by maximum likelihood, hmmlearn after a regression. n_series resamples."""
    from statsmodels.tsa.regime_switching.markov_regression import MarkovRegression

    prior = family()
    learnt = amortised.train(lambda n: draw(prior, rng, n), 100, 400, rng)
    for name, values in real_series().items():
        half = len(values) // 2
        standard = (values - values[:half].mean()) / values[:half].std()
        y, d = standard[1:], standard[:-1]
        seed, none = jax.random.key(int(rng.integers(2**31))), np.zeros((half, 0))
        found = amortised.judge(
            learnt.net, prior, none[0], y[:half], d[:half], none, seed, amortised.N_DRAWS
        )
        weight = np.asarray(found.log_weight, float)
        weight -= np.logaddexp.reduce(weight)
        each = densities(np.asarray(found.u, float), y, d)
        ours = np.logaddexp.reduce(weight[:, None] + each, axis=0)

        model = {"k_regimes": 2, "switching_variance": True}
        first = MarkovRegression(y[:half], exog=d[:half, None], **model)
        whole, theirs = MarkovRegression(y, exog=d[:, None], **model), {}
        for n_starts in (5, 0):  # its search may leave what it allows
            try:
                fitted = first.fit(search_reps=n_starts, disp=False)
                theirs["statsmodels"] = whole.filter(fitted.params).llf_obs
                break
            except (RuntimeError, np.linalg.LinAlgError):
                continue

        full = np.column_stack([np.ones_like(d), d])
        left = y - full @ np.linalg.lstsq(full[:half], y[:half])[0]
        normal = normal_states(left[:half])
        states = normal.states(left, np.zeros((len(left), 0)))
        density = np.exp(norm.logpdf(left[:, None], normal.intercept, np.sqrt(normal.variance)))
        theirs["hmmlearn"] = np.log((np.exp(states.predicted) * density).sum(1))

        means = {"ours": ours[half:].mean()} | {k: v[half:].mean() for k, v in theirs.items()}
        better = max(theirs, key=means.__getitem__)
        gain = (ours - theirs[better])[half:]
        starts = rng.integers(len(gain) - 11, size=(n_series, -(-len(gain) // 12), 1))
        low, high = np.quantile(gain[starts + np.arange(12)].mean((1, 2)), [0.025, 0.975])
        text = ", ".join(f"{k} {v:.4f}" for k, v in means.items())
        print(
            f"{name}, {len(gain)} dates: {text}; ours less {better} {gain.mean():+.4f} "
            f"[{low:+.4f}, {high:+.4f}]",
            flush=True,
        )


# The rule and the answers -------------------------------------------------------------------------


def outcome(n_series: int, rng: np.random.Generator) -> None:
    """Intervals of the outcome one step ahead, on the dates that the training of the released
    artefact held out, and on those of economies of its posterior."""
    model = load_model("regimes")
    model.load(folders()["regimes"] / "pretrained")
    learnt = model.economy
    own = learnt.window(series.design(*series.monthly()))
    n_dates = own.outcome.shape[1]
    chosen = rng.integers(len(learnt.draws), size=n_series)
    parameters = Parameters(*(values[chosen] for values in learnt.parameters))
    drawn = economy.draw(learnt, parameters, n_dates, rng, rng)
    of_series = [
        training.outcome_ahead(learnt, economy.Window(*(a[k : k + 1] for a in drawn)))[1].rows
        for k in range(n_series)
    ]
    for number, row in enumerate(training.outcome_ahead(learnt, own)[1].rows):
        parts = np.array([rows[number]["coverage"] for rows in of_series])
        error = 1.96 * parts.std() / np.sqrt(n_series)
        print(
            f"{row['name']}: {row['coverage']:.3f} [{row['low']:.3f}, {row['high']:.3f}] of "
            f"{row['n']} dates; {parts.mean():.3f} ± {error:.3f} in {n_series} simulated series",
            flush=True,
        )


def guarantee(n_series: int, rng: np.random.Generator) -> None:
    """False alarms at 5 % of a rule that was calibrated on earlier windows of the same series,
    which are exchangeable but for their edges; and on windows of independent dates."""
    n_dates, n_windows = 160, 200

    def signs_of(rho: float, n: int) -> dict[str, np.ndarray]:
        z = lfilter([np.sqrt(1 - rho**2)], [1, -rho], rng.standard_normal(n * n_dates + 500))[500:]
        z = z.reshape(n, n_dates)
        local = np.abs(z.reshape(n, -1, 8).sum(2)).max(1)
        return {"spread": (z**2).mean(1), "largest": np.abs(z).max(1), "local": local}

    def half(signs: dict[str, np.ndarray], part: slice) -> dict[str, np.ndarray]:
        return {name: values[part] for name, values in signs.items()}

    for rho in TESTED:
        alarms = {"same dependence": [], "independent dates": []}
        for _ in range(n_series):
            series = signs_of(rho, n_windows + 1)
            calm = signs_of(0.0, n_windows)
            last = half(series, slice(n_windows, None))
            for name, known in (("same dependence", series), ("independent dates", calm)):
                first, second = slice(n_windows // 2), slice(n_windows // 2, n_windows)
                rule = decision.calibrate(half(known, first), half(known, second), 0.05, 0.5)
                alarms[name].append(bool(rule.score(last)[0] > rule.threshold))
        text = "; ".join(f"calibrated on {k} {rate(np.array(v))}" for k, v in alarms.items())
        print(f"rho {rho}: {text}", flush=True)


def speed(n_series: int, rng: np.random.Generator) -> None:
    """Seconds of warm answers of the artefact that answers here: by the model alone, and as the
    whole report that is checked against its schema, with its lineage."""
    asked = load("regimes")
    model = asked.model
    names = model.economy.controls
    raw = model.economy.mean[2:] + model.economy.sd[2:] * rng.standard_normal((1000, len(names)))
    columns = (",".join(f"{v:.6g}" for v in column) for column in raw.T)
    batch = {
        "treatment": rng.standard_normal(1000).tolist(),
        "turbulent": rng.random(1000).tolist(),
        "features": " ".join(f"{k}={v}" for k, v in zip(names, columns, strict=True)),
    }
    one = {"treatment": [1.0], "turbulent": [0.3]}
    ways: dict[str, Callable[[dict], object]] = {
        "model": lambda values: model.predict(values, rng),
        "report": lambda values: asked.predict(
            **{k: v if isinstance(v, str) else ",".join(map(str, v)) for k, v in values.items()}
        ),
    }
    for way, predict in ways.items():
        for n, values in ((1, one), (1000, batch)):
            predict(values)
            taken = []
            for _ in range(n_series):
                started = time.perf_counter()
                predict(values)
                taken.append(time.perf_counter() - started)
            low, middle, high = np.quantile(taken, [0.05, 0.5, 0.95])
            print(
                f"{way}, rows: {n}; ms: {1000 * middle:.2f} [{1000 * low:.2f}, {1000 * high:.2f}]; "
                f"rows a second: {n / middle:,.0f}",
                flush=True,
            )


TASKS = {
    "coverage": coverage,
    "rivals": rivals,
    "linear": linear,
    "effects": effects_by_regime,
    "responses": responses_by_horizon,
    "states": states,
    "one_step": one_step,
    "outcome": outcome,
    "guarantee": guarantee,
    "speed": speed,
}


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=TASKS)
    parser.add_argument("--series", type=int, default=500)
    size = parser.parse_args()
    warnings.filterwarnings("ignore")  # of fits by others that did not converge
    TASKS[size.what](size.series, np.random.default_rng(2026))


if __name__ == "__main__":
    main()
