"""What a person sees of a run: a line for each stage, warnings, errors as sentences, the verdicts.

A stage is a job that runs a notebook; jobs that only render pages are shown while they run.
What the workflow engine says itself is written to `results/logs/snakemake.log`. A dry run and
`--verbose` show the engine's own output instead.
"""

import logging
import sys
from pathlib import Path
from time import time

from rich.console import Console
from rich.live import Live
from rich.text import Text
from snakemake.common import NOTHING_TO_BE_DONE_MSG
from snakemake.logging import DefaultFormatter
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from .job import Job

ENGINE_LOG = Path("results/logs/snakemake.log")
CLOSING_WORDS = "closing_words"  # the event under which the Snakefile logs the verdicts

# How the engine says that a local run starts, and that it was interrupted.
_STARTING = "Assuming unrestricted shared filesystem usage."
_INTERRUPTED = "Terminating processes on user request"


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

    def _running_jobs(self) -> Text:
        """A line for each running job: elapsed time, title, and what fits of its progress."""
        jobs = list(self._running.values())
        width = max((len(job.title) for job in jobs), default=0)
        lines = [
            f"{job.elapsed(time()):>12}  {job.title:{width}}  {job.progress()}" for job in jobs
        ]
        return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")

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
