"""Pages as a browser without a network shows them."""

import shutil
import subprocess
from pathlib import Path

import pytest


def shown_offline(file: Path) -> str:
    """What the browser makes of a page, which it loads whole and without complaint."""
    if (chromium := shutil.which("chromium")) is None:
        pytest.skip("no chromium to open it with")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"]
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr"]
    opened = subprocess.run(
        [chromium, *flags, *offline, file.absolute().as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "</body>" in opened.stdout
    assert "CONSOLE" not in opened.stderr
    return opened.stdout
