"""What a person sees of a run: a line for each stage, warnings, errors as sentences, the verdicts.

A stage is a job that runs a notebook; jobs that only render pages are shown while they run.
What the workflow engine says itself is written to `results/logs/snakemake.log`. A dry run and
`--verbose` show the engine's own output instead.
"""

import logging
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from time import time

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from snakemake.common import NOTHING_TO_BE_DONE_MSG
from snakemake.logging import DefaultFormatter
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

ENGINE_LOG = Path("results/logs/snakemake.log")
CLOSING_WORDS = "closing_words"  # the event under which the Snakefile logs the verdicts

# How the engine says that a local run starts, and that it was interrupted.
_STARTING = "Assuming unrestricted shared filesystem usage."
_INTERRUPTED = "Terminating processes on user request"
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
        """The last bytes of the log, or the whole log."""
        if self.text is None or not self.text.exists():
            return ""
        with self.text.open("rb") as file:
            if last is not None:
                file.seek(max(self.text.stat().st_size - last, 0))
            return file.read().decode(errors="replace")


class LogHandler(LogHandlerBase):
    """Turns the records of the engine into lines for a person, and shows what is running."""

    has_filter = True
    has_formatter = True
    needs_rulegraph = False
    writes_to_file = False

    def __post_init__(self) -> None:
        settings = self.common_settings
        self._engine_speaks = settings.dryrun or settings.verbose or settings.debug_dag
        self._tells_stages = {Quietness.PROGRESS, Quietness.ALL}.isdisjoint(settings.quiet or ())
        self._console = Console(stderr=True, no_color=settings.nocolor or None)
        self._live: Live | None = None
        self._engine_log: logging.Handler | None = None
        self._running: dict[int, Job] = {}
        self._interrupted = False
        self._failed = False
        self._events = {
            LogEvent.WORKFLOW_STARTED: self._start_run,
            LogEvent.JOB_INFO: self._start_job,
            LogEvent.JOB_FINISHED: self._finish_job,
            LogEvent.JOB_ERROR: self._fail_job,
            CLOSING_WORDS: self._close_run,
        }

    @property
    def writes_to_stream(self) -> bool:
        """Whether this handler speaks; the engine speaks where no handler does."""
        return not self._engine_speaks

    def emit(self, record: logging.LogRecord) -> None:
        """Say what the record means to a person, and keep the record in the log of the engine."""
        if self._engine_speaks:
            return
        try:
            event = getattr(record, "event", None)
            if event in self._events:
                self._events[event](record)
            elif record.getMessage().startswith(_INTERRUPTED):
                self._interrupted = True
            elif self._concerns_a_person(record):
                self._print(record.getMessage())
            if self._engine_log is not None:
                self._engine_log.emit(record)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """End the display.

        A job that was not reported as finished was interrupted; but with `--quiet`, the engine
        reports none as finished.
        """
        for job in self._running.values():
            self._print_warnings(job)
            if self._tells_stages:
                self._print_end("stopped", job, time())
        self._running.clear()
        self._hide_running_jobs()
        if self._engine_log is not None:
            self._engine_log.close()
        super().close()

    def _concerns_a_person(self, record: logging.LogRecord) -> bool:
        """Whether a record without a line of its own is shown.

        Before a run starts, or where there is none (`--lint`, `--report`), every record is shown.
        Later only warnings and errors are, and of those not what repeats that a job has failed.
        """
        words = record.getMessage()
        if self._engine_log is None or words == NOTHING_TO_BE_DONE_MSG:
            return words != _STARTING
        repeats = self._failed or "CalledProcessError in file" in words
        return record.levelno >= logging.WARNING and not repeats

    def _start_run(self, record: logging.LogRecord) -> None:
        ENGINE_LOG.parent.mkdir(parents=True, exist_ok=True)
        self._engine_log = logging.FileHandler(ENGINE_LOG, mode="w", encoding="utf-8")
        self._engine_log.setFormatter(DefaultFormatter())

    def _start_job(self, record: logging.LogRecord) -> None:
        job = self._running[record.jobid] = Job.from_record(record)
        if self._tells_stages and self._console.is_interactive:
            self._show_running_jobs()
        elif self._tells_stages and job.notebook:
            self._print_line("started", job.title)

    def _finish_job(self, record: logging.LogRecord) -> None:
        job = self._end_job(record.job_id)
        if job.notebook and self._tells_stages:
            self._print_line(job.elapsed(record.created), job.title)
        self._print_warnings(job)

    def _fail_job(self, record: logging.LogRecord) -> None:
        self._failed = True
        job = self._end_job(record.jobid)
        self._print_warnings(job)
        if self._interrupted:  # what the interrupted process wrote is no error
            self._print_end("stopped", job, record.created)
            return
        self._print_end("failed", job, record.created, "bold red")
        self._print(job.error())
        named = {
            "The executed notebook": job.notebook,
            "The log of the stage": job.text,
            "The log of the workflow engine": ENGINE_LOG,
        }
        for name, path in named.items():
            if path is not None and path.exists():
                self._print(f"{name}: {path}")

    def _end_job(self, number: int) -> Job:
        job = self._running.pop(number)
        if not self._running:
            self._hide_running_jobs()
        return job

    def _show_running_jobs(self) -> None:
        if self._live is None:
            self._live = Live(
                console=self._console,
                get_renderable=self._running_jobs,
                refresh_per_second=2,
                transient=True,
            )
            self._live.start()

    def _hide_running_jobs(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _close_run(self, record: logging.LogRecord) -> None:
        """The verdicts are the result of the run: they go to the standard output."""
        print(record.getMessage(), file=sys.stdout, flush=True)

    def _running_jobs(self) -> Table:
        """A row for each running job: elapsed time, title, progress."""
        table = Table.grid(padding=(0, 2))
        table.add_column(min_width=12, justify="right", no_wrap=True, style="cyan")
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for job in list(self._running.values()):
            table.add_row(job.elapsed(time()), Text(job.title), Text(job.progress()))
        return table

    def _print_warnings(self, job: Job) -> None:
        for sentence in job.warnings():
            self._print_line("warning", sentence, "yellow")

    def _print_end(self, how: str, job: Job, now: float, style: str = "") -> None:
        self._print_line(how, f"{job.title}, after {job.elapsed(now)}", style)

    def _print_line(self, label: str, words: str, style: str = "") -> None:
        self._print(f"{label:>12}  {words}", style)

    def _print(self, words: str, style: str = "") -> None:
        # Lines are not wrapped: paths and messages stay whole in a pipe and when they are copied.
        self._console.print(Text(words), style=style, soft_wrap=True)
