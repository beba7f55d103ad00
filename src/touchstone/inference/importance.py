"""Exact re-weighting: draws of an amortised posterior, carried to where the exact model puts them.

From the best draws Fisher scoring climbs to the modes, which with their curvatures make a mixture
of Student-t proposals. Each round of importance sampling draws from it and refits it to the
weighted draws, until enough of them count. The draws of all rounds are used, each weighted by
prior x likelihood / (mean of all proposals), as in adaptive multiple importance sampling (Cornuet
et al. 2012), but in two halves, each proposed by what the other has learnt. A mixture fitted to a
draw of high weight is high at that draw and would take the weight away again: posteriors come out
too narrow, and k-hat is content, since the tails weigh least.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from touchstone.inference.batches import CHUNK
from touchstone.inference.problem import Problem, log_normal
from touchstone.inference.proposals import Mixture, Modes, climb, log_densities, log_sum
from touchstone.inference.psis import k_threshold, smooth

# Two runs agree whose log evidences differ by less: chance makes 0.1 of 200 effective draws in
# each, and a mode that only one has seen is then a quarter of the posterior at most.
AGREEMENT = 0.3
_STARTS_PER_MODE = 3  # climbs that start, for each that arrives: a mode that none enters is lost
_REFIT_DRAWS = 2  # effective draws for each free parameter, at least, that a refit is made of
_LIGHT_DRAWS = 4  # of the light entries, for each simulation
_LEAST_ROUNDS = 3  # before the number of effective draws is believed


class Reweighted(NamedTuple):
    """Weighted draws of one case.

    Attributes:
        z: Draws, shape (n, P); known entries at their values.
        log_weight: Unnormalised, shape (n,); the mean of its exponential is the evidence.
        n_simulations: Of the case; a derivative along one entry counts as one.
    """

    z: np.ndarray
    log_weight: np.ndarray
    n_simulations: int


def reweight(
    problem: Problem,
    draws: np.ndarray,
    rng: np.random.Generator,
    *,
    n_starts: int,
    n_improve: int,
    n_rounds: int,
    n_draws: int,
    n_effective: int,
) -> Reweighted:
    """Posterior of a problem.

    Simulations are what costs. Each is weighed under several draws of the light entries, and
    keeps one (Rao-Blackwell).

    Args:
        problem: The problem.
        draws: Where to start: of an amortised posterior, known entries at their values, (n, P).
        rng: For all randomness.
        n_starts: Climbs that arrive, of `_STARTS_PER_MODE` times as many that start: at the best
            draws of as many groups.
        n_improve: Steps of Fisher scoring, at most.
        n_rounds: Rounds of importance sampling, at most.
        n_draws: Draws of a round for each free entry, at least: a covariance is learnt from them.
            Few large rounds narrow a bent posterior less than many small ones do.
        n_effective: Effective draws for each free entry that are enough to end the rounds.

    Returns:
        The weighted draws of all rounds.
    """
    target, n_free = _Target(problem, draws[0]), len(problem.free)
    n_starts = min(n_starts, len(draws))
    starts, n_looked = _best_of_groups(target, draws, min(_STARTS_PER_MODE * n_starts, len(draws)))
    modes = climb(problem, starts, n_improve=n_improve, n_modes=n_starts)
    first = [_Proposal.about(target, modes, rng) for _ in range(2)]
    halves = [_Half(target, proposal) for proposal in first]
    # All rows of a chunk cost the same, so they are all drawn.
    n_half = -(-n_draws * n_free // CHUNK) * CHUNK // 2
    for number in range(1, n_rounds + 1):
        _sample(target, halves, n_half, rng)
        log_weight = np.concatenate([half.log_weight for half in halves])
        if number >= _LEAST_ROUNDS and _effective(log_weight) >= n_effective * n_free:
            break
        # Each half's next proposal is moved to where the other half's draws weigh.
        learnt = [half.learnt(rng) for half in halves]
        for half, of_other in zip(halves, reversed(learnt), strict=True):
            half.proposal = half.proposal.refitted(*of_other)
    z = np.concatenate([half.chosen(rng) for half in halves])
    n_climbed = modes.n_steps * (1 + len(problem.heavy))
    return Reweighted(z, log_weight, n_looked + n_climbed + len(z))


class _Target:
    """The log posterior at many points, by their coordinates.

    Attributes:
        problem: The problem.
        given: A point with the known entries at their values, shape (P,).
        x: Its coordinates, shape (P,).
    """

    def __init__(self, problem: Problem, given: np.ndarray):
        self.problem, self.given = problem, np.asarray(given, float)
        self.x = problem.coordinates.to(self.given[None])[0][0]

    def __call__(self, heavy: np.ndarray, light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """At heavy entries (n, H), each with some draws of the light ones (n, I, L).

        Returns:
            z of all, shape (n, I, P), and the log posterior, shape (n, I).
        """
        problem = self.problem
        x = np.tile(self.x, (len(heavy), 1))
        x[:, problem.heavy] = heavy
        back, prior = problem.coordinates.back(x, problem.heavy)
        # What is known is at its own value, whatever its bounds.
        z = np.tile(self.given, (len(heavy), 1))
        z[:, problem.heavy] = back[:, problem.heavy]
        variants = np.repeat(z[:, None], light.shape[1], axis=1)
        variants[..., problem.light] = light
        value = prior[:, None] + log_normal(light).sum(2)
        value = value + problem.log_likelihood(z, variants)
        return variants, np.where(np.isfinite(value), value, -np.inf)


def _best_of_groups(target: _Target, draws: np.ndarray, n: int) -> tuple[np.ndarray, int]:
    """The best draw of each of n equal groups, shape (n, P), and of how many draws in all."""
    problem, n_looked = target.problem, len(draws) // n * n
    draws = np.asarray(draws[:n_looked], float)
    heavy = problem.coordinates.to(draws)[0][:, problem.heavy]
    _, value = target(heavy, draws[:, None, problem.light])
    best = value.reshape(n, -1).argmax(1)
    return draws.reshape(n, -1, draws.shape[1])[np.arange(n), best], n_looked


class _Proposal(NamedTuple):
    """What the draws of a round are made from.

    What scales the residuals hangs together with what shifts them only weakly: the information of
    the two is zero in a Gaussian model. So they are proposed apart, and the former, of which each
    simulation has several draws, about the best mode alone.
    """

    heavy: Mixture
    light: Mixture

    @classmethod
    def about(cls, target: _Target, modes: Modes, rng: np.random.Generator) -> "_Proposal":
        """Proposal about the modes, in the coordinates of proposals."""
        free, n_heavy = target.problem.free, len(target.problem.heavy)
        centre, slopes = target.problem.coordinates.to(modes.z)
        slopes = slopes[:, free[:, None], free]  # what is known does not vary
        covariance = slopes @ modes.covariance @ slopes.mT
        centre, best = centre[:, free], modes.log_posterior.argmax()[None]
        heavy, light = slice(n_heavy), slice(n_heavy, None)
        values = modes.log_posterior
        return cls(
            Mixture.about(centre[:, heavy], values, covariance[:, heavy, heavy], rng),
            Mixture.about(centre[best, light], values[best], covariance[best, light, light], rng),
        )

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Heavy entries (n, H), and some draws of the light ones for each (n, I, L)."""
        n_light = self.light.centre.shape[1]
        inner = _LIGHT_DRAWS if n_light else 1
        return self.heavy.draw(rng, n), self.light.draw(rng, n * inner).reshape(n, inner, n_light)

    def refitted(self, heavy: np.ndarray, light: np.ndarray, weight: np.ndarray) -> "_Proposal":
        """The proposal, moved to where draws weigh: (n, H), (n, L) and (n,)."""
        # Draws of a Gaussian in d dimensions lie sqrt(d) deviations out: propose one farther. Not
        # so the light ones, whose posteriors are not bent.
        widen = 1 + 1 / np.sqrt(heavy.shape[1] + light.shape[1])
        return _Proposal(
            self.heavy.refitted(heavy, weight, widen), self.light.refitted(light, weight, 1.0)
        )


def _log_density(proposals: list[_Proposal], heavy: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Of the sum of proposals, at what they draw: heavy (n, H), light (n, I, L), shape (n, I)."""
    n, inner, n_light = light.shape
    of_heavy = log_densities([each.heavy for each in proposals], heavy)
    of_light = log_densities([each.light for each in proposals], light.reshape(n * inner, n_light))
    return log_sum(of_heavy[..., None] + of_light.reshape(len(proposals), n, inner), axis=0)


class _Half:
    """The draws of one half of a run, from proposals that the other half has taught.

    Attributes:
        target: The log posterior.
        proposal: Of the next round.
        used: Proposals of all rounds so far.
        heavy: Draws in the coordinates of proposals, shape (n, H).
        light: Some for each, shape (n, I, L).
        z: All of them as points, shape (n, I, P).
        value: Log posterior, shape (n, I).
        log_density: Of the sum of all proposals used, shape (n, I).
    """

    def __init__(self, target: _Target, proposal: _Proposal):
        self.target, self.proposal, self.used = target, proposal, []
        self.heavy, self.light = proposal.draw(np.random.default_rng(0), 0)
        self.value = np.zeros(self.light.shape[:2])
        self.z, self.log_density = np.zeros((*self.value.shape, len(target.x))), self.value

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw from the proposal; the draws are the last, yet without a value."""
        self.used.append(self.proposal)
        heavy, light = self.proposal.draw(rng, n)
        # Old draws under the new proposal, fresh draws under all.
        old = _log_density([self.proposal], self.heavy, self.light)
        old = np.logaddexp(self.log_density, old)
        fresh = _log_density(self.used, heavy, light)
        self.log_density = np.concatenate([old, fresh])
        self.heavy = np.concatenate([self.heavy, heavy])
        self.light = np.concatenate([self.light, light])
        return heavy, light

    def add(self, z: np.ndarray, value: np.ndarray) -> None:
        """Points of the last draws, shape (n, I, P), and their log posterior, shape (n, I)."""
        self.z, self.value = np.concatenate([self.z, z]), np.concatenate([self.value, value])

    @property
    def log_weights(self) -> np.ndarray:
        """Against the mean of all proposals, shape (n, I)."""
        return self.value - (self.log_density - np.log(len(self.used)))

    @property
    def log_weight(self) -> np.ndarray:
        """The same of each simulation, the mean of its draws, shape (n,)."""
        return log_sum(self.log_weights, axis=1) - np.log(self.value.shape[1])

    def learnt(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draws and weights for a refit: heavy (n, H), one light each (n, L), and (n,)."""
        enough = _REFIT_DRAWS * len(self.target.problem.free)
        light = self.light[np.arange(len(self.light)), _pick(self.log_weights, rng)]
        return self.heavy, light, _tempered(self.log_weight, enough)

    def chosen(self, rng: np.random.Generator) -> np.ndarray:
        """z of each simulation, with one of its light draws by their weights, shape (n, P)."""
        return self.z[np.arange(len(self.z)), _pick(self.log_weights, rng)]


def _sample(target: _Target, halves: list[_Half], n: int, rng: np.random.Generator) -> None:
    """A round: n draws of each half, all simulated together."""
    drawn = [half.draw(rng, n) for half in halves]
    z, value = target(*(np.concatenate(each) for each in zip(*drawn, strict=True)))
    for half, *values in zip(halves, np.split(z, 2), np.split(value, 2), strict=True):
        half.add(*values)


def _effective(log_weight: np.ndarray) -> float:
    """Effective number of draws (Kish); none where no draw is possible."""
    if not np.isfinite(log_weight).any():
        return 0.0
    return 1 / (softmax(log_weight) ** 2).sum()


class Pooled(NamedTuple):
    """Weighted draws of all runs of one case, and how far to trust them.

    Attributes:
        z: Shape (n, P).
        weight: Pareto-smoothed, shape (n,), sums to one.
        effective: Effective number of draws (Kish).
        k_hat: Shape of the Pareto tail of the weights, at most `psis.WORST_K_HAT`.
        k_threshold: Largest k-hat at which so many draws can be trusted.
        log_evidence: Of the observation.
        disagreement: Log evidence of the best run less that of the next.
        n_simulations: Of all runs.
    """

    z: np.ndarray
    weight: np.ndarray
    effective: float
    k_hat: float
    k_threshold: float
    log_evidence: float
    disagreement: float
    n_simulations: int

    @property
    def trusted(self) -> bool:
        """Whether nothing objects to the draws."""
        return self.k_hat <= self.k_threshold and self.disagreement <= AGREEMENT


def agree(run: Callable[[int], Reweighted], n_runs: int) -> Pooled:
    """Run independently until two runs agree and the tail of all weights is light; pool all.

    k-hat sees only what some proposal visits; a mode that one run found and another missed shows
    in their evidences. Their mean is the evidence of all draws together.

    Args:
        run: Of the case, by its number.
        n_runs: At most, and at least two.
    """
    runs = [run(0)]
    pooled = None
    while len(runs) < n_runs and not (pooled and pooled.trusted):
        runs.append(run(len(runs)))
        pooled = pool(runs)
    return pooled


def pool(runs: list[Reweighted]) -> Pooled:
    """All runs of a case as one, each weighted by its evidence."""
    z = np.concatenate([run.z for run in runs])
    log_weight = np.concatenate([run.log_weight - np.log(len(run.z)) for run in runs])
    weight, k_hat = smooth(log_weight)
    return Pooled(
        z,
        weight,
        1 / (weight**2).sum(),
        k_hat,
        k_threshold(len(weight)),
        _log_sum(log_weight) - np.log(len(runs)),
        _disagreement(runs),
        sum(run.n_simulations for run in runs),
    )


def _disagreement(runs: list[Reweighted]) -> float:
    """Log evidence of the best run less that of the next."""
    evidence = [_log_sum(run.log_weight) - np.log(len(run.z)) for run in runs]
    next_best, best = np.sort(evidence)[-2:]
    return float(best - next_best) if np.isfinite(best) else np.inf


def _log_sum(values: np.ndarray) -> float:
    top = values.max()
    return float(top + np.log(np.exp(values.astype(float) - top).sum())) if top > -np.inf else top


def _tempered(log_weight: np.ndarray, enough: float) -> np.ndarray:
    """Normalised weights, flattened until `enough` draws count (for the refit only)."""
    if not np.isfinite(log_weight).any():
        return np.zeros(len(log_weight))
    powers = np.linspace(0.05, 1.0, 20)[:, None]
    weights = softmax(powers * log_weight, axis=1)
    sufficient = 1 / (weights**2).sum(1) > enough
    return weights[max(np.count_nonzero(sufficient) - 1, 0)]


def _pick(log_weight: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each row of weights, shape (n, I), a place by chance in proportion, shape (n,)."""
    return (log_weight + rng.gumbel(size=log_weight.shape)).argmax(1)
