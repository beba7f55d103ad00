"""What users of the package call, and the examples of it on the pages."""

import ast
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import touchstone
from touchstone.inference.amortised import amortise

ROOT = Path(__file__).parents[1]
SMALL = {"n_simulations": 2000, "n_steps": 100, "width": 16, "show_progress": False}


def python(page: str) -> str:
    """The Python of a page, one block after another; tests/service has what asks a service."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return "\n".join(block for block in blocks if "touchstone.client" not in block)


@pytest.mark.parametrize("name", touchstone.__all__)
def test_what_is_listed_is_there_under_its_own_name(name):
    assert getattr(touchstone, name).__name__ == name
    assert getattr(touchstone, name).__doc__
    assert name in dir(touchstone)


def test_what_is_not_listed_is_refused():
    with pytest.raises(AttributeError, match="'touchstone' has no attribute 'alchemy'"):
        _ = touchstone.alchemy


def test_the_import_is_cheap():
    code = (
        "import sys, time; start = time.perf_counter(); import touchstone; "
        "assert time.perf_counter() - start < 0.1; "
        "assert {'jax', 'numpy', 'scipy', 'yaml'}.isdisjoint(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_listed_name_has_an_example_that_runs():
    code = python("docs/api.md")
    imported = {
        alias.name
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and node.module == "touchstone"
        for alias in node.names
    }
    assert imported == set(touchstone.__all__)
    exec(compile(code, "docs/api.md", "exec"), {})


def test_the_lines_of_the_readme_run(monkeypatch):
    monkeypatch.setattr(touchstone, "amortise", partial(amortise, **SMALL), raising=False)
    found = {}
    exec(compile(python("README.md"), "README.md", "exec"), found)
    draws = np.asarray(found["draws"])
    assert draws.shape == (1000, 2)
    assert ((draws >= [0.0, 0.1]) & (draws <= [1.0, 3.0])).all()  # the bounds of the prior
    assert np.isfinite(found["log_density"]).all()
