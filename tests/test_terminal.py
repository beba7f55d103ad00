"""What a person sees of a run, in a terminal and in a pipe: a workflow of one small notebook."""

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from snakemake_logger_plugin_touchstone.job import Job

ROOT = Path(__file__).parents[1]
CONTROL_CHARACTERS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
BAR = "sample:  50%|█████     | 1/2"
SNAKEFILE = """
rule page:
    input: "notebook.ipynb"
    output: "page"
    log: "page.log"
    message: "Render {output}"
    shell: "cp {input} {output} 2> {log}"

rule sample:
    input: "stage.ipynb"
    output: "notebook.ipynb"
    log: notebook="results/toy/logs/1_sample.ipynb", text="results/toy/logs/1_sample.log"
    params: fails=config.get("fails", 0)
    message: "toy: sample"
    shell:
        "papermill -k python3 --no-progress-bar --log-output {input} {log.notebook} "
        "-p fails {params.fails} > {log.text} 2>&1 && cp {log.notebook} {output}"

onsuccess:
    logger.info("toy: ACCEPT", extra={"event": "closing_words"})
"""
STAGE = """
import time, warnings
from tqdm import tqdm
for _ in tqdm(range(2), desc="sample", mininterval=0):
    time.sleep(1.5)
warnings.warn("the prior is [wide]")
assert not fails, "the chains disagree"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The workflow of one notebook, with the profile of the real one."""
    folder = tmp_path_factory.mktemp("a person's folder")
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    (folder / "Snakefile").write_text(SNAKEFILE)
    parameters = nbformat.v4.new_code_cell("fails = 0", metadata={"tags": ["parameters"]})
    cells = [parameters, nbformat.v4.new_code_cell(STAGE)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "stage.ipynb")
    return folder


def started(folder: Path, *arguments: str, **streams) -> subprocess.Popen:
    """Snakemake, started in a folder as a user starts it."""
    binaries = Path(sys.executable).parent
    variables = {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "TERM": "xterm"}
    variables |= {"JUPYTER_PREFER_ENV_PATH": "1", "COLUMNS": "120"}
    return subprocess.Popen(
        [binaries / "snakemake", "--forceall", *arguments],
        cwd=folder,
        env={**os.environ, **variables},
        text=True,
        **streams,
    )


def in_a_pipe(folder: Path, *arguments: str) -> tuple[str, str]:
    """What a run writes to standard output and standard error when both are pipes."""
    run = started(folder, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return run.communicate(timeout=120)


@pytest.fixture(scope="module")
def succeeded(folder) -> tuple[str, str]:
    return in_a_pipe(folder)


@pytest.fixture(scope="module")
def failed(folder, succeeded) -> str:
    return in_a_pipe(folder, "--config", "fails=1")[1]


def test_a_pipe_gets_a_line_when_a_stage_starts_and_one_with_its_time(succeeded):
    _, said = succeeded
    lines = [line.strip() for line in said.splitlines()[1:]]  # the first names the profile
    assert re.fullmatch(r"(\d+ min )?\d+ s  toy: sample", lines.pop(1))
    assert lines == ["started  toy: sample", "warning  the prior is [wide]"]


def test_a_pipe_gets_no_control_characters(succeeded, failed):
    for said in (*succeeded, failed):
        assert not CONTROL_CHARACTERS.findall(said)


def test_the_verdicts_are_the_standard_output(succeeded):
    verdicts, _ = succeeded
    assert verdicts == "toy: ACCEPT\n"


def test_a_failure_is_told_by_stage_sentence_and_notebook(failed):
    assert re.search(r"failed  toy: sample, after (\d+ min )?\d+ s\n", failed)
    assert "\nAssertionError: the chains disagree\n" in failed
    (notebook,) = re.findall(r"executed notebook: (.*)", failed)
    assert notebook == "results/toy/logs/1_sample.ipynb"
    assert "papermill" not in failed
    assert len(failed.splitlines()) <= 8


def test_a_failed_notebook_is_where_the_failure_says(folder, failed):
    (notebook,) = re.findall(r"executed notebook: (.*)", failed)
    outputs = nbformat.read(folder / notebook, as_version=4).cells[-1].outputs
    assert [each.ename for each in outputs if each.output_type == "error"] == ["AssertionError"]


def test_what_the_engine_says_is_in_its_log(folder, failed):
    log = (folder / "results/logs/snakemake.log").read_text()
    for words in ("Building DAG of jobs", "Job stats:", "papermill", "Exiting because a job"):
        assert words in log
        assert words not in failed


@pytest.mark.parametrize("options", [["--dry-run"], ["--verbose", "--touch"]])
def test_a_dry_run_and_a_verbose_one_show_what_the_engine_says(options, folder, succeeded):
    said = "".join(in_a_pipe(folder, *options))
    assert "Building DAG of jobs" in said
    assert "Job stats:" in said


def test_a_terminal_shows_the_newest_progress_bar_and_then_clears_it(folder):
    terminal, end = pty.openpty()
    run = started(folder, stdin=end, stdout=end, stderr=end)
    os.close(end)
    said = b""
    try:
        while part := os.read(terminal, 4096):
            said += part
    except OSError:  # how a terminal ends under Linux
        pass
    assert run.wait(timeout=60) == 0
    said = said.decode()
    assert BAR in said
    last = said.rindex("sample: ")
    assert "\x1b[2K" in said[last:]  # the line is cleared
    assert re.search(r"\d+ s  toy: sample\r\n", said[last:])
    assert said.endswith("toy: ACCEPT\r\n")


def test_an_interrupted_run_names_the_stage_that_was_running(folder):
    run = started(folder, stderr=subprocess.PIPE, start_new_session=True)
    log = folder / "results/toy/logs/1_sample.log"
    begun = time.time()
    while not (log.exists() and log.stat().st_mtime > begun and BAR in log.read_text()):
        assert run.poll() is None
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGINT)
    _, said = run.communicate(timeout=60)
    *_, last = said.splitlines()
    assert re.fullmatch(r" +stopped  toy: sample, after (\d+ min )?\d+ s", last)


@pytest.mark.parametrize(
    ("log", "newest"),
    [
        (f"\r{BAR} [00:01<00:01]\r{BAR.replace('1/2', '2/2')} [00:02<00:00]  \n\n", "2/2"),
        (f"\r{BAR} [00:01<00:01]\nEnding Cell 6---\nExecuting Cell 7---\n", "cell 7"),
        (f"Executing Cell 7---\n\r{BAR} [00:01<00:01]\nE1128 a slow operation\n", "1/2"),
        ("Input Notebook: stage.ipynb\n", ""),
    ],
)
def test_the_newest_bar_or_cell_of_a_log_is_its_progress(log, newest, tmp_path):
    (tmp_path / "stage.log").write_text(log)
    progress = Job("toy: sample", [tmp_path / "stage.log"], 0.0).progress()
    assert newest in progress
    assert progress == progress.strip()
    assert ("%" in progress) == ("/" in newest)


def test_warnings_about_deprecated_functions_are_for_the_authors_of_packages(tmp_path):
    lines = [
        "/a folder/prior.py:124: UserWarning: the prior is wide",
        "  warnings.warn(...)",
        "/a folder/prior.py:124: UserWarning: the prior is wide",
        "/a folder/engine.py:1: DeprecationWarning: call the other function",
        "/a folder/engine.py:2: FutureWarning: the default changes",
        "[IPKernelApp] WARNING | Kernel is running over TCP without encryption.",
    ]
    (tmp_path / "stage.log").write_text("\n".join(lines))
    warnings = Job("toy: sample", [tmp_path / "stage.log"], 0.0).warnings()
    assert warnings == ["the prior is wide"]
