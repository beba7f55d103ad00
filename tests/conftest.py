"""What all tests share: checked shapes, kept compilations, and who runs which test."""

import os
from pathlib import Path

from hypothesis import settings
from jaxtyping import install_import_hook

# What took long to compile is kept for other tests, their processes and the next run.
os.environ |= {
    "JAX_COMPILATION_CACHE_DIR": str(Path(__file__).parents[1] / ".pytest_cache/jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
}
# No test fails on a time: the machine may be busy.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# The models beside the tests, and those that whoever runs them has elsewhere.
_MODELS = [str(Path(__file__).parent / "models"), os.environ.get("TOUCHSTONE_MODELS", "")]
os.environ["TOUCHSTONE_MODELS"] = os.pathsep.join(dict.fromkeys(filter(None, _MODELS)))

# Rooms whose annotations are checked at every call, shapes of arrays included; an int is a float.
# Named tuples with a type parameter, which beartype does not know, count as tuples.
install_import_hook(
    ["touchstone.reliability", "touchstone.models.ecsfm.physics"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True, hint_overrides="
    "beartype.FrozenDict({__import__('touchstone.vocabulary').vocabulary.Cases: tuple})))",
)

# The slowest files, slowest first: what starts last should be short.
SLOWEST = ("test_workflow.py", "test_posteriors.py", "test_simulator.py")


def pytest_collection_modifyitems(items):
    """Slow files first; a worker runs a whole file."""
    items.sort(key=lambda item: (*SLOWEST, item.path.name).index(item.path.name))
