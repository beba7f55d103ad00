"""A form is answered as soon as the process has started, without what only training needs."""

import os
import subprocess
import sys
from pathlib import Path

from regressions import COLUMNS, FROZEN

from touchstone.io.results import Results

HEAVY = {"jax", "pymc", "pytensor", "arviz", "pandas", "xarray", "matplotlib", "scipy"}


def test_a_form_is_answered_without_what_only_training_needs(tmp_path):
    results = Results(Path("results/interface"))
    FROZEN.save(tmp_path / results.checkpoint, COLUMNS, {}, {"date": "2026-01-01"})
    rule = tmp_path / results.report("posterior_failure_mode_report")
    rule.parent.mkdir(parents=True)
    rule.touch()  # a form that describes no measurement is not judged by the rule
    arguments = ["predict", "interface", f"film={FROZEN.labels[2]}", "Tg_num=410"]
    code = (
        "import sys, time\nfrom touchstone.cli import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit as end:\n    assert end.code in (0, 3)\n"
        f"assert {HEAVY!r}.isdisjoint(sys.modules), {HEAVY!r} & set(sys.modules)\n"
        "assert time.process_time() < 3"  # about 0.6 s where nothing else runs
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "adds to the mean of the training" in done.stdout
    assert "trained here on 2026-01-01" in done.stdout
