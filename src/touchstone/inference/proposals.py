"""Proposals for importance sampling: modes of a posterior, and mixtures about them."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln, log_softmax, softmax

from touchstone.inference.batches import CHUNK
from touchstone.inference.problem import Problem

_FIRST_DAMPING, _DAMPING = 0.1, (1e-4, 1e6)  # of Fisher scoring, relative to the information
_LEAST_GAIN, _MOST_IDLE = 0.1, 3  # a smaller gain of log density is none; so many end a climb
_TRIAL = 3  # points that every climb sees, before only the highest go on
_LONGEST_STEP = 1.0  # of Fisher scoring, in prior standard deviations
_FREEDOM = 5  # of the Student-t distributions: heavy tails, finite variance
_APART = 0.5  # standard deviations between components that start from one mode
_ROUGH = 0.1  # prior standard deviations: scale of a component where the curvature is no use
_LEAST_MASS = 1e-3  # part of the draws, with less of which a component stays as it is


class Modes(NamedTuple):
    """Where climbs ended.

    Attributes:
        z: Shape (n, P).
        log_posterior: There, shape (n,).
        covariance: Of the free entries, inverse of the information there, shape (n, F, F).
        n_steps: Points that were simulated, with their derivatives, by all climbs.
    """

    z: np.ndarray
    log_posterior: np.ndarray
    covariance: np.ndarray
    n_steps: int


def climb(problem: Problem, start: np.ndarray, *, n_improve: int, n_modes: int) -> Modes:
    """Fisher scoring from many points, with Marquardt's damping: a race of which few see the end.

    After a few steps of all, only the highest go on, until none is higher than those that have
    arrived. The prior is centred at the start, not at zero: what the observation leaves open stays
    as it was, so that draws that start along a ridge end along it (randomised maximum likelihood).

    Args:
        problem: The problem.
        start: Shape (n, P).
        n_improve: Steps of each, at most.
        n_modes: How many climb at a time, and arrive; at most n.
    """
    climbs = _Climbs(problem, start, n_improve)
    everyone = np.arange(len(start))
    while climbs.unfinished[climbs.highest(everyone, n_modes)].any():
        # All rows of a chunk cost the same: as long as there are trials, they fill it.
        width = max(n_modes, CHUNK // len(problem.heavy)) if climbs.untried.any() else n_modes
        climbs.step(climbs.highest(np.flatnonzero(climbs.unfinished), width))
    highest = climbs.highest(everyone, n_modes)
    z, offset = climbs.best[highest], climbs.offset(climbs.best, highest)
    prior = -0.5 * (z[:, problem.free] ** 2).sum(1)
    log_posterior = climbs.value[highest] + 0.5 * (offset**2).sum(1) + prior
    covariance = np.linalg.inv(climbs.information[highest])
    return Modes(z, log_posterior, covariance, int(climbs.n_steps.sum()))


class _Climbs:
    """Climbs under way, one from each start.

    Attributes:
        n_steps: Steps taken.
        idle: Steps in a row that gained nothing.
        best: The highest point seen, shape (n, P).
        value, score, information: There: log density with the prior centred at the start, its
            gradient and the expected information, by the free entries.
        trial: The point to look at next, shape (n, P).
        damping: Relative to the information.
    """

    def __init__(self, problem: Problem, start: np.ndarray, n_improve: int):
        n, n_free = len(start), len(problem.free)
        self._problem, self._start, self._n_improve = problem, start, n_improve
        self.n_steps, self.idle = np.zeros(n, int), np.zeros(n, int)
        self.best, self.trial = start.copy(), start.copy()
        self.value, self.score = np.full(n, -np.inf), np.zeros((n, n_free))
        self.information = np.tile(np.eye(n_free), (n, 1, 1))
        self.damping = np.full(n, _FIRST_DAMPING)

    @property
    def unfinished(self) -> np.ndarray:
        """Which climbs may go on."""
        return (self.n_steps <= self._n_improve) & (self.idle < _MOST_IDLE)

    @property
    def untried(self) -> np.ndarray:
        """Which climbs have not yet seen as many points as every climb does."""
        return self.n_steps < min(_TRIAL, self._n_improve + 1)

    def highest(self, among: np.ndarray, n: int) -> np.ndarray:
        """The n highest of some climbs; those untried come first."""
        value = np.where(self.untried[among], np.inf, self.value[among])
        return among[np.argsort(-value, kind="stable")[:n]]

    def offset(self, z: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Free entries of some climbs' points less those of their starts."""
        return (z - self._start)[np.ix_(chosen, self._problem.free)]

    def step(self, chosen: np.ndarray) -> None:
        """Look at the next points of some climbs, and choose those after."""
        value, score, information = self._look(chosen)
        better = value > self.value[chosen]
        gained = value > self.value[chosen] + _LEAST_GAIN
        self.idle[chosen] = np.where(gained, 0, self.idle[chosen] + 1)
        self.n_steps[chosen] += 1
        risen = chosen[better]
        self.best[risen], self.value[risen] = self.trial[risen], value[better]
        self.score[risen], self.information[risen] = score[better], information[better]
        damping = self.damping[chosen] * np.where(better, 0.1, 10.0)
        self.damping[chosen] = np.clip(damping, *_DAMPING)
        damped = self.information[chosen].copy()
        diagonal = np.einsum("nff->nf", damped)
        diagonal *= 1 + self.damping[chosen, None]
        step = np.linalg.solve(damped, self.score[chosen, :, None])[..., 0]
        step = np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
        self.trial[chosen] = self.best[chosen]
        self.trial[np.ix_(chosen, self._problem.free)] += step

    def _look(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log target, its gradient, and the expected information of likelihood and prior."""
        free, z = self._problem.free, self.trial[chosen]
        offset = self.offset(self.trial, chosen)
        value, score = -0.5 * (offset**2).sum(1), -offset
        information = np.tile(np.eye(len(free)), (len(chosen), 1, 1))
        for factor in self._problem.factors:
            *arrays, along = factor.sensitivities(z, self._problem.heavy, self._problem.light)
            residual, log_scale, d_residual, d_log_scale = (a.astype(float) for a in arrays)
            value = value - (0.5 * residual**2 + log_scale).sum(1)
            place = np.nonzero(along[:, None] == free)[1]
            score[:, place] -= (d_residual @ residual[..., None])[..., 0] + d_log_scale.sum(2)
            # The shift of an innovation, in units of its scale.
            shift = d_residual + residual[:, None] * d_log_scale
            part = shift @ shift.mT + 2 * d_log_scale @ d_log_scale.mT
            information[np.ix_(range(len(z)), place, place)] += part
        possible = (
            np.isfinite(value) & np.isfinite(score).all(1) & np.isfinite(information).all((1, 2))
        )
        return np.where(possible, value, -np.inf), score, information


@dataclass(frozen=True)
class Mixture:
    """Student-t distributions in d dimensions.

    Attributes:
        log_weight: Shape (K,).
        centre: Shape (K, d).
        factor: Cholesky factors of the scale matrices, shape (K, d, d).
    """

    log_weight: np.ndarray
    centre: np.ndarray
    factor: np.ndarray

    @classmethod
    def about(
        cls,
        modes: np.ndarray,
        values: np.ndarray,
        covariances: np.ndarray,
        rng: np.random.Generator,
    ) -> "Mixture":
        """One component about each mode, (K, d), weighted by Laplace's evidence."""
        factor = _cholesky(covariances)
        sound = np.isfinite(factor).all((1, 2), keepdims=True)
        factor = np.where(sound, factor, _ROUGH * np.eye(modes.shape[1]))
        apart = _APART * rng.standard_normal(modes.shape)
        centre = modes + np.einsum("kpq,kq->kp", factor, apart)
        evidence = values + np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(1)
        evidence = np.where(np.isfinite(evidence), evidence, -1e30)
        # Softened: a mode may be wider than its curvature says.
        return cls(log_softmax(0.5 * evidence), centre, factor)

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draws, shape (n, d)."""
        which = rng.choice(len(self.log_weight), n, p=softmax(self.log_weight))
        normal = rng.standard_normal((n, self.centre.shape[1]))
        spread = (self.factor[which] @ normal[..., None])[..., 0]
        return self.centre[which] + spread * np.sqrt(_FREEDOM / rng.chisquare(_FREEDOM, (n, 1)))

    @cached_property
    def _standard(self) -> tuple[np.ndarray, np.ndarray]:
        """Affine maps to standard points, (d, K, d + 1), and the log densities there, (K,)."""
        dimension = self.centre.shape[1]
        inverse = np.linalg.inv(self.factor)
        affine = np.concatenate([inverse, -inverse @ self.centre[..., None]], axis=2)
        power = (_FREEDOM + dimension) / 2
        constant = gammaln(power) - gammaln(_FREEDOM / 2)
        constant = constant - dimension / 2 * np.log(_FREEDOM * np.pi)
        log_scale = np.log(np.diagonal(self.factor, axis1=1, axis2=2)).sum(1)
        return affine.swapaxes(0, 1), constant - log_scale + self.log_weight

    def refitted(self, z: np.ndarray, weight: np.ndarray, widen: float) -> "Mixture":
        """One step of expectation-maximisation, on draws whose weights sum to one.

        Args:
            z: Draws, shape (n, d).
            weight: Shape (n,).
            widen: What the scales are multiplied by.
        """
        share = softmax(_log_components([self], z)[0], axis=0) * weight
        mass = share.sum(1)
        part = share / np.maximum(mass, 1e-12)[:, None]
        mean = part @ z
        offset = z - mean[:, None]
        scatter = (part[..., None] * offset).mT @ offset
        # Where few draws count, the scatter of all components, and what was before, step in.
        rows = 2 * z.shape[1]
        enough = 1 / (1 + rows * (weight**2).sum())
        own = 1 / (1 + rows * (part**2).sum(1))[:, None, None]
        pooled = np.einsum("k,kpq->pq", mass, scatter)
        # A t distribution is wider than its scale matrix.
        shrunk = (own * scatter + (1 - own) * pooled) * (_FREEDOM - 2) / _FREEDOM
        old = self.factor @ self.factor.mT
        scale = enough * widen**2 * shrunk + (1 - enough) * old + 1e-9 * np.eye(z.shape[1])
        factor = _cholesky(scale)
        fits = (mass > _LEAST_MASS) & np.isfinite(factor).all((1, 2))
        return Mixture(
            log_softmax(np.log(np.maximum(mass, _LEAST_MASS))),
            np.where(fits[:, None], mean, self.centre),
            np.where(fits[:, None, None], factor, self.factor),
        )


def log_densities(mixtures: list[Mixture], z: np.ndarray) -> np.ndarray:
    """Log densities of mixtures of equally many components at points (n, d), shape (R, n)."""
    return log_sum(_log_components(mixtures, z), axis=1)


def _log_components(mixtures: list[Mixture], z: np.ndarray) -> np.ndarray:
    """Log densities of all components times their weights, shape (R, K, n): one product for all."""
    n, dimension = z.shape
    affine = np.concatenate([mixture._standard[0] for mixture in mixtures], axis=1)
    constant = np.array([mixture._standard[1] for mixture in mixtures])[..., None]
    ones = np.concatenate([z, np.ones((n, 1))], axis=1)
    standard = affine.reshape(-1, dimension + 1) @ ones.T
    square = np.square(standard, out=standard).reshape(dimension, *constant.shape[:2], n).sum(0)
    return constant - (_FREEDOM + dimension) / 2 * np.log1p(square / _FREEDOM)


def log_sum(values: np.ndarray, axis: int) -> np.ndarray:
    """Logarithm of the sum of exponentials; SciPy's is several times slower on small arrays."""
    top = values.max(axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(values - top).sum(axis)) + top.squeeze(axis)


def _cholesky(matrices: np.ndarray) -> np.ndarray:
    """Cholesky factors, NaN of a matrix that has none; shape (K, d, d)."""
    factors = np.full_like(matrices, np.nan)
    for factor, matrix in zip(factors, matrices, strict=True):
        try:
            factor[:] = np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            continue
    return factors
