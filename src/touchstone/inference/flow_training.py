"""Training of a flow by flow matching: one loop for any network, any rows and any examples.

The network learns the mean velocity of straight paths from noise to the targets of the examples
(Lipman et al. 2023, eq. 22). The randomness of a step depends on the key and the step's number
only, so that an interrupted training that goes on ends where an undisturbed one would.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from tqdm import tqdm

from touchstone.inference.flow import VectorFieldNet, path_variance
from touchstone.io import artifacts

_STEPS_PER_CALL = 100  # between updates of the progress bar
_CALLS_PER_STATE = 10  # between writings of the state


class Example(NamedTuple):
    """One thing to learn from.

    Attributes:
        target: Shape (target_size,).
        unknown: Which entries are to be learnt; the others are in the context.
        context: Shape (context_size,).
    """

    target: Array
    unknown: Array
    context: Array


class FlowMatchingLoss(eqx.Module):
    """Mean squared error of the velocity over the unknown entries of a batch of examples.

    It is weighted by the variance of the path, so that all times count alike for what the network
    has to learn; without training it is about 1.

    Attributes:
        paths: Times and noises drawn for each example; they share its encoding.
    """

    paths: int = eqx.field(static=True)

    def __call__(self, net: VectorFieldNet, batch: Example, key: Array) -> Array:
        """Loss of a batch with leading axis B."""
        keys = jax.random.split(key, batch.target.shape[0])
        squares, counts = jax.vmap(self._one, in_axes=(None, 0, 0))(net, batch, keys)
        return squares.sum() / jnp.maximum(counts.sum(), 1)

    def _one(self, net: VectorFieldNet, example: Example, key: Array):
        code = net.encode(example.context)
        unknown = example.unknown.astype(example.target.dtype)

        def path(key):
            time_key, noise_key = jax.random.split(key)
            t = jax.random.uniform(time_key)
            noise = jax.random.normal(noise_key, example.target.shape)
            x = ((1 - t) * noise + t * example.target) * unknown
            velocity = net(t, x, code)
            weight = path_variance(t, net.spread)
            return weight * (unknown * (velocity - (example.target - noise)) ** 2).sum()

        squares = jax.vmap(path)(jax.random.split(key, self.paths))
        return squares.sum(), self.paths * unknown.sum()


class TrainState(NamedTuple):
    """Everything that training continues from.

    Attributes:
        net: The network.
        optimiser: State of the optimiser.
        step: Steps done.
        losses: Of all steps, shape (n_steps,); zero for those to come.
        program: SHA-256 of the compiled steps that made it, shape (32,).
    """

    net: VectorFieldNet
    optimiser: optax.OptState
    step: Array
    losses: Array
    program: Array


def train(
    net: VectorFieldNet,
    make_example: Callable[[Array, Any], Example],
    rows: Any,
    *,
    batch_size: int,
    n_steps: int,
    paths: int,
    learning_rate: float,
    key: Array,
    span: Callable[[Array], tuple[Array, Array]] | None = None,
    state_file: Path | None = None,
    label: str = "training",
    show_progress: bool = True,
) -> tuple[VectorFieldNet, Array]:
    """Train a network by flow matching: Adam, clipped gradients, warm-up and cosine decay.

    Args:
        net: The network to start from.
        make_example: `make_example(key, row)` gives an example of a row of the data.
        rows: Pytree of arrays with the same leading axis.
        batch_size: Rows of a step, drawn with replacement.
        n_steps: Number of steps.
        paths: Times and noises for each example.
        learning_rate: At its highest.
        key: For all randomness.
        span: `span(step)` gives the first row that the step may draw and the one after the last;
            without it, every step draws from all rows.
        state_file: Where the state is kept, that of the end included; None keeps none. If it is
            there, and of a program of the same steps, training goes on from it: whoever calls sees
            to it that it is of the same rows, key and number of steps.
        label: Of the progress bar.
        show_progress: Whether to show it.

    Returns:
        The network and the loss of every step, shape (n_steps,).
    """
    optimiser = _adam(learning_rate, n_steps)
    state = _first_state(net, optimiser, n_steps)
    draw_batch = partial(_draw_batch, make_example, span or _all_of(rows), batch_size)
    advance = _compiled_steps(draw_batch, FlowMatchingLoss(paths), optimiser)
    if state_file is not None:
        # Another program, of changed code, would have learnt something else by the same settings.
        lowered = advance.lower(state, jnp.asarray(0), rows, key)  # ty: ignore[missing-attribute]
        text = lowered.as_text()
        digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
        state = _kept(state_file, state._replace(program=jnp.asarray(digest)))
    done = int(state.step)
    progress = {"desc": label, "unit": "step", "disable": not show_progress}
    with tqdm(total=n_steps, initial=done, **progress) as bar:
        while done < n_steps:
            until = min(n_steps, done + _STEPS_PER_CALL)
            state = advance(state, jnp.asarray(until), rows, key)
            recent = float(state.losses[done:until].mean())
            bar.set_postfix(loss=f"{recent:.3f}", refresh=False)
            bar.update(until - done)
            done = until
            due = done % (_CALLS_PER_STATE * _STEPS_PER_CALL) == 0
            if state_file is not None and (due or done == n_steps):
                with artifacts.atomic(state_file) as temporary:
                    eqx.tree_serialise_leaves(temporary, state)
    return state.net, state.losses


def _adam(learning_rate: float, n_steps: int) -> optax.GradientTransformation:
    warm_up = max(1, min(500, n_steps // 10))
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warm_up, n_steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def _first_state(
    net: VectorFieldNet, optimiser: optax.GradientTransformation, n_steps: int
) -> TrainState:
    weights = eqx.filter(net, eqx.is_array)
    step, losses = jnp.zeros((), jnp.int32), jnp.zeros(n_steps)
    return TrainState(net, optimiser.init(weights), step, losses, jnp.zeros(32, jnp.uint8))


def _kept(state_file: Path, first: TrainState) -> TrainState:
    """The state of a file, if it was made by the program of the first state; else that one."""
    if not state_file.exists():
        return first
    state = eqx.tree_deserialise_leaves(state_file, first)
    return state if (state.program == first.program).all() else first


def _all_of(rows: Any) -> Callable[[Array], tuple[int, int]]:
    n_rows = len(jax.tree.leaves(rows)[0])
    return lambda step: (0, n_rows)


def _draw_batch(
    make_example: Callable, span: Callable, batch_size: int, key: Array, step: Array, rows: Any
) -> Example:
    """Examples of rows drawn at random from the span of the step; leading axis `batch_size`."""
    row_key, example_key = jax.random.split(key)
    index = jax.random.randint(row_key, (batch_size,), *span(step))
    keys = jax.random.split(example_key, batch_size)
    return jax.vmap(make_example)(keys, jax.tree.map(lambda a: a[index], rows))


def _compiled_steps(
    draw_batch: Callable, loss: FlowMatchingLoss, optimiser: optax.GradientTransformation
) -> Callable[[TrainState, Array, Any, Array], TrainState]:
    """Compiled function of a state, a step to reach, the rows and the key: the state there."""

    @eqx.filter_jit
    def advance(state: TrainState, until: Array, rows: Any, key: Array) -> TrainState:
        arrays, static = eqx.partition(state.net, eqx.is_array)

        def one_step(carry):
            arrays, opt_state, step, losses = carry
            draw_key, loss_key = jax.random.split(jax.random.fold_in(key, step))
            batch = draw_batch(draw_key, step, rows)
            value, gradient = eqx.filter_value_and_grad(
                lambda arrays: loss(eqx.combine(arrays, static), batch, loss_key)
            )(arrays)
            update, opt_state = optimiser.update(gradient, opt_state)
            arrays = eqx.apply_updates(arrays, update)
            return arrays, opt_state, step + 1, losses.at[step].set(value)

        carry = arrays, state.optimiser, state.step, state.losses
        arrays, opt_state, step, losses = jax.lax.while_loop(
            lambda carry: carry[2] < until, one_step, carry
        )
        return TrainState(eqx.combine(arrays, static), opt_state, step, losses, state.program)

    return advance
