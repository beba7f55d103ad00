"""What each date adds to those before it: coefficients that no later date has told of.

The recursive residuals of Brown, Durbin and Evans (1975) for a regression whose intercept, effect
and error variance depend on a Markov state. Coefficients have the prior of the family, and are
updated date by date under either state; both are merged after each date by their moments (Kim
1994). Error variances and transitions are given. So a change of level or effect shows where it
happens, which a posterior of all dates would absorb.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp, ndtri
from scipy.special import ndtr as normal_cdf
from scipy.stats import norm

from touchstone.models.regimes.economy import Economy, Prior, Window

_FINEST = 1e-6  # probability of a date, beyond which it is just unheard of


class Known(NamedTuple):
    """What is given of each case.

    Attributes:
        variance: Of the outcome's errors in each regime, shape (case, 2).
        stay: Probability of staying in each regime, shape (case, 2).
        treatment_variance: Shape (case,).
    """

    variance: Float[np.ndarray, "case regime"]
    stay: Float[np.ndarray, "case regime"]
    treatment_variance: Float[np.ndarray, " case"]


class Innovations(NamedTuple):
    """Of outcome and treatment, given the dates before.

    Attributes:
        outcome, treatment: Standard normal where the family is right, shape (case, date).
        log_evidence: Log density of all outcomes and treatments, date by date, shape (case,).
    """

    outcome: Float[np.ndarray, "case date"]
    treatment: Float[np.ndarray, "case date"]
    log_evidence: Float[np.ndarray, " case"]


class _Belief(NamedTuple):
    """Mean, shape (case, K), and covariance, shape (case, K, K), of coefficients."""

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of_prior(cls, n: int, mean: np.ndarray, sd: np.ndarray) -> "_Belief":
        return cls(np.tile(mean, (n, 1)), np.tile(np.diag(sd**2), (n, 1, 1)))

    def expects(self, row: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, ...]:
        """Mean and variance of what a row of regressors explains, and the gain."""
        spread = np.einsum("nkl,nl->nk", self.covariance, row)
        variance = (spread * row).sum(1) + noise
        return (self.mean * row).sum(1), variance, spread / variance[:, None]

    def updated(self, error: np.ndarray, variance: np.ndarray, gain: np.ndarray) -> "_Belief":
        outer = gain[:, :, None] * gain[:, None] * variance[:, None, None]
        return _Belief(self.mean + gain * error[:, None], self.covariance - outer)


def innovations(economy: Economy, prior: Prior, window: Window, known: Known) -> Innovations:
    """Innovations of each case.

    Args:
        economy: That slopes are centred at.
        prior: Of the coefficients.
        window: The cases.
        known: Of each.
    """
    y, d, x = window.outcome, window.treatment, window.controls
    n, n_dates, j = x.shape
    ones = np.ones((n, n_dates, 1))
    slope = np.full(j, prior.slope)
    of_d = _Belief.of_prior(n, economy.treatment_slope, np.append(prior.slope, slope))
    t_z, t_log = np.empty((n, n_dates)), np.empty((n, n_dates))
    rows = np.concatenate([ones, x], axis=2)
    for t in range(n_dates):
        mean, variance, gain = of_d.expects(rows[:, t], known.treatment_variance)
        error = d[:, t] - mean
        t_z[:, t] = error / np.sqrt(variance)
        t_log[:, t] = norm.logpdf(error, 0, np.sqrt(variance))
        of_d = of_d.updated(error, variance, gain)

    sizes = np.r_[np.repeat([prior.intercept, prior.effect], 2), slope]
    of_y = _Belief.of_prior(n, np.r_[np.zeros(4), economy.slope], sizes)
    leaves = 1 - known.stay
    z, log = np.empty((n, n_dates)), np.empty((n, n_dates))
    predicted = np.full((n, 2), 0.5)
    for t in range(n_dates):
        cdf, density, beliefs = np.empty((n, 2)), np.empty((n, 2)), []
        for s in (0, 1):
            inside = np.eye(2)[s] * ones[:, 0]
            row = np.concatenate([inside, inside * d[:, t, None], x[:, t]], axis=1)
            mean, variance, gain = of_y.expects(row, known.variance[:, s])
            error, sd = y[:, t] - mean, np.sqrt(variance)
            cdf[:, s], density[:, s] = normal_cdf(error / sd), norm.logpdf(error, 0, sd)
            beliefs.append(of_y.updated(error, variance, gain))
        z[:, t] = (predicted * cdf).sum(1)
        joint = np.log(predicted) + density
        log[:, t] = logsumexp(joint, axis=1)
        filtered = np.exp(joint - log[:, t, None])
        of_y = _merged(filtered, beliefs)
        predicted = np.stack(
            [
                filtered[:, 0] * known.stay[:, 0] + filtered[:, 1] * leaves[:, 1],
                filtered[:, 0] * leaves[:, 0] + filtered[:, 1] * known.stay[:, 1],
            ],
            axis=1,
        )
    outcome = ndtri(np.clip(z, _FINEST, 1 - _FINEST))
    furthest = ndtri(1 - _FINEST)
    return Innovations(outcome, np.clip(t_z, -furthest, furthest), log.sum(1) + t_log.sum(1))


def _merged(weight: np.ndarray, beliefs: list[_Belief]) -> _Belief:
    """The normal distribution of the moments of a mixture."""
    means = np.stack([each.mean for each in beliefs], axis=1)
    mean = np.einsum("ns,nsk->nk", weight, means)
    apart = means - mean[:, None]
    spread = np.stack([each.covariance for each in beliefs], axis=1)
    spread = spread + apart[..., None] * apart[..., None, :]
    return _Belief(mean, np.einsum("ns,nskl->nkl", weight, spread))
