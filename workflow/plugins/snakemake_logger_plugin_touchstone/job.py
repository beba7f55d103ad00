"""A job of the workflow, as its log tells of it."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

_CELL = re.compile(r"Executing (Cell \d+)-*")
_BAR = re.compile(r".*\d+%\|.*\| .*\[.*\]")  # as tqdm draws it
_ERROR = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception): .*$", re.MULTILINE)
# Warnings about deprecated functions are for the authors of the packages.
_WARNING = re.compile(
    r"^.+:\d+: (?!\w*Deprecation|Future)\w*Warning: (?P<sentence>.+)$", re.MULTILINE
)


@dataclass(frozen=True)
class Job:
    """A job that was started: its title, its log files, and the time at which it started."""

    title: str
    logs: list[Path]
    started: float

    @classmethod
    def from_record(cls, record: logging.LogRecord) -> "Job":
        """The job that a record of the engine describes."""
        title = record.rule_msg or record.rule_name
        return cls(title, [Path(path) for path in record.log], record.created)

    @property
    def notebook(self) -> Path | None:
        """The notebook as far as it was executed; None where the job runs no notebook."""
        return next((path for path in self.logs if path.suffix == ".ipynb"), None)

    @property
    def text(self) -> Path | None:
        """The text that the job wrote to its standard output and standard error."""
        return next((path for path in self.logs if path.suffix != ".ipynb"), None)

    def elapsed(self, now: float) -> str:
        """Time since the start, in minutes and seconds."""
        minutes, seconds = divmod(round(now - self.started), 60)
        return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"

    def progress(self) -> str:
        """The newest progress bar in the log, or the cell that is being executed."""
        for line in reversed(re.split(r"[\r\n]", self._log(last=4096))):
            if bar := _BAR.match(line):
                return bar[0]
            if cell := _CELL.fullmatch(line):
                return cell[1].lower()
        return ""

    def warnings(self) -> list[str]:
        """The sentence of each different warning in the log."""
        return list(dict.fromkeys(_WARNING.findall(self._log())))

    def error(self) -> str:
        """The last line of the log that names an error, or else its last line."""
        log = self._log()
        found = _ERROR.findall(log) or log.split("\n")
        return next((line for line in reversed(found) if line.strip()), "The log is empty.")

    def _log(self, last: int | None = None) -> str:
        """The last bytes of the log, or the whole log; empty where there is none (yet)."""
        if self.text is None:
            return ""
        try:
            with self.text.open("rb") as file:
                if last is not None:
                    file.seek(max(self.text.stat().st_size - last, 0))
                return file.read().decode(errors="replace")
        except FileNotFoundError:  # not begun, or removed for a new attempt
            return ""
