"""Batches over cases, and chunks of rows, on all cores."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import jax
import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm


def map_batches(
    function: Callable, *arguments: Any, batch_size: int = 256, label: str | None = None
) -> Any:
    """Apply a jitted function of batches to many cases, batch by batch, one thread a core.

    The last batch is filled up with its first case, so that one compilation serves all; compiled
    code holds no lock, so threads are enough.

    Args:
        function: Takes and returns pytrees of arrays whose leading axis is the batch.
        arguments: Pytrees of arrays with the same leading axis.
        batch_size: Cases a call.
        label: Shows a progress bar under this name.

    Returns:
        What `function` returns, as numpy arrays over all cases.
    """
    n_cases = len(jax.tree.leaves(arguments)[0])
    batch_size = min(batch_size, n_cases)

    def run(first: int):
        index = np.arange(first, first + batch_size)
        index = np.where(index < n_cases, index, first)
        batch = jax.tree.map(lambda a: np.asarray(a)[index], arguments)
        result = jax.tree.map(np.asarray, function(*batch))
        return jax.tree.map(lambda a: a[: n_cases - first], result)

    # The cores are taken: threads of BLAS would only wait for one another.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        starts = range(0, n_cases, batch_size)
        parts = list(
            tqdm(pool.map(run, starts), total=len(starts), desc=label, disable=label is None)
        )
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


CHUNK = 128  # rows of a program: a few vectors of numbers for each step, and few of them padding


def map_chunks(function: Callable, common: Any, *rows: Any) -> Any:
    """Apply a jitted function of `CHUNK` rows to any number of rows, chunk by chunk on all cores.

    The last chunk is filled up with its first row: one compilation serves all numbers of rows.

    Args:
        function: Takes `common` and pytrees of arrays whose leading axis is the chunk; returns such
            a pytree.
        common: What is the same for all rows.
        rows: Pytrees of arrays with the same leading axis.

    Returns:
        What `function` returns, as numpy arrays over all rows.
    """
    n_rows = len(jax.tree.leaves(rows)[0])

    def run(first: int):
        index = np.arange(first, first + CHUNK)
        index = np.where(index < n_rows, index, first)
        result = function(common, *jax.tree.map(lambda a: np.asarray(a)[index], rows))
        return jax.tree.map(lambda a: np.asarray(a)[: n_rows - first], result)

    starts = range(0, n_rows, CHUNK)
    parts = list(_threads().map(run, starts)) if len(starts) > 1 else [run(0)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


@cache
def _threads() -> ThreadPoolExecutor:
    """The threads of all chunks; those that wait for them are others."""
    return ThreadPoolExecutor(os.cpu_count())
