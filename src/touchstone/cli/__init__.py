"""The command line, thin over the stages.

What takes long to import is imported in the commands, so that `--help` answers at once. Exit codes:
0 both verdicts accept, 3 one of them does not, 2 bad input.
"""

from touchstone.cli import measurements, models, serving, tracking
from touchstone.cli.common import app

__all__ = ["app", "measurements", "models", "serving", "tracking"]
