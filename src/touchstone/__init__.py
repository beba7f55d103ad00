"""Posteriors for measurements, and a verdict on whether each may be trusted.

What users of the package call is listed here, and imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from touchstone.answer import Answer
    from touchstone.contract import Model, load_model
    from touchstone.inference.amortised import amortise
    from touchstone.inference.priors import normal, uniform
    from touchstone.stages.answers import load
    from touchstone.vocabulary import Cases, Computation, Posterior, Quantity, Verdict

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Cases",
    "Computation",
    "Model",
    "Posterior",
    "Quantity",
    "Verdict",
    "amortise",
    "load",
    "load_model",
    "normal",
    "uniform",
]

_MODULES = {
    "Answer": "answer",
    "Model": "contract",
    "load": "stages.answers",
    "load_model": "contract",
    "amortise": "inference.amortised",
    "normal": "inference.priors",
    "uniform": "inference.priors",
}


def __getattr__(name: str) -> Any:
    """What `__all__` lists, from the module that defines it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_MODULES.get(name, 'vocabulary')}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
