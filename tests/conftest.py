"""The order of the tests, and what they share."""

import os
from pathlib import Path

# What took long to compile is kept for other tests, their processes and the next run.
os.environ |= {
    "JAX_COMPILATION_CACHE_DIR": str(Path(__file__).parents[1] / ".pytest_cache/jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
}


def pytest_collection_modifyitems(items):
    """The longest file first, so that others run beside it, not after it."""
    items.sort(key=lambda item: item.path.name != "test_workflow.py")
