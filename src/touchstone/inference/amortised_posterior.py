"""A posterior that takes any observation: a flow of what a linear regression does not explain.

The network, its training and its sampling are those of `flow` and `flow_training`, which the models
of the workflow use too. Here they get what any simulator has: the standardised entries of an
observation as context, and as targets the residuals of a linear regression of the parameters on it.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from touchstone.inference import flow
from touchstone.inference.flow_training import Example
from touchstone.inference.priors import Prior


class AmortisedPosterior(eqx.Module):
    """A posterior that takes any observation; from `amortise` or `learn`.

    Attributes:
        net: Flow of the residuals of the regression, in units of `residual_sd`.
        location, scale: Mean and standard deviation of the observations, shape (N,).
        slope: Of the regression of the standard coordinates on the context, shape (2 (N + P), P).
        residual_sd: Standard deviation of its residuals, shape (P,).
        losses: Of the steps of the training; about 1 where the regression says it all.
        prior: The prior.
        missing: Largest part of an observation that was hidden in training.
        known: Largest part of the parameters that was told in training.
    """

    net: flow.VectorFieldNet
    location: Array
    scale: Array
    slope: Array
    residual_sd: Array
    losses: Array
    prior: Prior = eqx.field(static=True)
    missing: float = eqx.field(static=True)
    known: float = eqx.field(static=True)

    @classmethod
    def untrained(
        cls,
        y: Array,
        prior: Prior,
        missing: float,
        known: float,
        width: int,
        depth: int,
        key: Array,
    ) -> "AmortisedPosterior":
        """The prior, whatever is observed.

        Args:
            y: Observations, of which location and scale are taken, shape (n, N).
            prior, missing, known, width, depth: As for `learn`.
            key: For the weights of the network.
        """
        size = 2 * (y.shape[1] + prior.size)
        spread = y.std(0)
        return cls(
            flow.VectorFieldNet(prior.size, size, width, width, depth, 1.0, key=key),
            location=y.mean(0),
            scale=jnp.where(spread > 0, spread, 1.0),
            slope=jnp.zeros((size, prior.size)),
            residual_sd=jnp.ones(prior.size),
            losses=jnp.zeros(0),
            prior=prior,
            missing=missing,
            known=known,
        )

    @eqx.filter_jit
    def sample(
        self,
        key: Array,
        observation: Array,
        n_draws: int,
        known: Array | None = None,
        n_steps: int = 64,
    ) -> Array:
        """Draws of the parameters given one observation; `jax.vmap` takes many.

        Args:
            key: For the draws.
            observation: As simulated; NaN where it is missing.
            n_draws: Number of draws.
            known: Parameters that are known, NaN where they are not, shape (P,); none if not given.
            n_steps: Steps of the flow.

        Returns:
            Shape (n_draws, P); known parameters at their values.

        Raises:
            EquinoxRuntimeError: If something is missing or known that never was in training, or
                is known to be what the prior rules out.
        """
        context, unknown, known, z_known = self._question(observation, known)
        residual = flow.sample(self.net, context, unknown, n_draws, n_steps, key)
        z = jnp.where(unknown, context @ self.slope + self.residual_sd * residual, z_known)
        return jnp.where(unknown, jax.vmap(self.prior.natural)(z), known)

    @eqx.filter_jit
    def log_density(
        self,
        observation: Array,
        theta: Array,
        known: Array | None = None,
        n_steps: int = 64,
    ) -> Array:
        """Log density of parameters given one observation; -inf beyond the bounds of the prior.

        Args:
            observation: As simulated; NaN where it is missing.
            theta: Parameters, shape (n, P); known entries do not count.
            known: As for `sample`: the density is over the other parameters.
            n_steps: Steps of the flow.

        Returns:
            Shape (n,).
        """
        context, unknown, known, _ = self._question(observation, known)
        z = jax.vmap(self.prior.standard)(jnp.where(unknown, theta, known))
        inside = jnp.isfinite(z).all(1)
        z = jnp.where(inside[:, None], z, 0.0)
        residual = (z - context @ self.slope) / self.residual_sd
        value = flow.log_density(self.net, context, unknown, residual, n_steps)
        value = value - jnp.where(unknown, jnp.log(self.residual_sd), 0.0).sum()

        def log_stretch(z):
            jacobian = jax.jacfwd(self.prior.natural)(z)
            jacobian = jnp.where(unknown[:, None] & unknown, jacobian, jnp.eye(len(z)))
            return jnp.linalg.slogdet(jacobian).logabsdet

        return jnp.where(inside, value - jax.vmap(log_stretch)(z), -jnp.inf)

    def example(self, key: Array, row: tuple[Array, Array]) -> Example:
        """A simulation to learn from, a part of it hidden and a part of its parameters told.

        Args:
            key: For the parts.
            row: Standard coordinates, shape (P,), and observation, shape (N,).
        """
        z, y = row
        y_key, z_key = jax.random.split(key)
        unknown = ~_some(z_key, self.known, z.shape)
        y = jnp.where(_some(y_key, self.missing, y.shape), jnp.nan, y)
        context = self._context(y, jnp.where(unknown, jnp.nan, z))
        return Example((z - context @ self.slope) / self.residual_sd, unknown, context)

    def _question(self, observation: Array, known: Array | None) -> tuple[Array, ...]:
        """Context, which parameters are unknown, the others, and their standard coordinates."""
        y = jnp.ravel(observation)
        known = jnp.full(self.prior.size, jnp.nan) if known is None else known
        unknown = jnp.isnan(known)
        z = jnp.where(unknown, jnp.nan, self.prior.standard(known))
        z = eqx.error_if(
            z, jnp.isinf(z) | (jnp.isnan(z) & ~unknown), "a known parameter is outside its prior"
        )
        if not self.missing:
            y = eqx.error_if(y, jnp.isnan(y), "not trained with missing entries")
        if not self.known:
            z = eqx.error_if(z, ~unknown, "not trained with known parameters")
        return self._context(y, z), unknown, known, z

    def _context(self, y: Array, z: Array) -> Array:
        """Standardised entries and which they are, of an observation and known coordinates."""
        y = (y - self.location) / self.scale
        there = [~jnp.isnan(values) for values in (y, z)]
        return jnp.concatenate([jnp.nan_to_num(y), jnp.nan_to_num(z), *there]).astype(jnp.float32)


def _some(key: Array, most: float, shape: tuple[int, ...]) -> Array:
    """Entries at random, a part of them that is uniform up to `most`."""
    part_key, key = jax.random.split(key)
    return jax.random.bernoulli(key, most * jax.random.uniform(part_key), shape)
