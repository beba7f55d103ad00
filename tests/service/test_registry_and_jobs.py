"""Versions, trainings and jobs over HTTP, and what survives when processes die."""

import base64
import csv
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from serving import (
    MODEL,
    TWIN,
    answer,
    assert_problem,
    done,
    fresh,
    inside,
    serving,
    strict,
    wait_for,
)
from typer.testing import CliRunner

from touchstone import registry
from touchstone.cli import app
from touchstone.io import artifacts
from touchstone.io.results import Results, folder_of_experiment
from touchstone.service.versions import Versions
from touchstone.stages import checkpoints
from touchstone.stages.training_run import Run

ROOT = Path(__file__).parents[2]


# Versions over HTTP -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def artefact(project):
    """The files of a whole artefact, by name."""
    with inside(project):
        found = Versions(project / "aside")
        here = checkpoints.find(MODEL, Results(project / "results" / MODEL))
        folder = found.folder / MODEL / found.store(here, MODEL)
        found.close()
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def uploaded(server, files, **more):
    sent = [("files", (name, content)) for name, content in files.items()]
    return server.client.post(f"/models/{MODEL}/versions", files=sent, **more)


def test_an_uploaded_version_earns_its_stages_and_answers(server, artefact):
    response = uploaded(server, artefact, data={"why": "by hand", "by": "a person"})
    assert response.status_code == 201, response.text
    version = strict(response)
    where = f"{response.headers['location']}/stage"
    assert (version["stage"], version["why"], version["by"]) == ("None", "by hand", "a person")
    assert strict(uploaded(server, artefact))["sequence"] == version["sequence"]
    asked, number = fresh(), str(version["version"])
    found = answer_of_version(server.client, asked, number)
    expected = answer(server.client, asked)
    for report in (found, expected):
        for key in ("lineage", "timing", "sha256", "artefact"):
            del report[key]
    assert found == expected
    tag = {"If-Match": response.headers["etag"]}
    move = {"stage": "Staging", "why": "it answers"}
    assert_problem(server.client.post(where, json=move), 428, "If-Match")
    moved = server.client.post(where, json=move, headers=tag)
    assert strict(moved)["stage"] == "Staging"
    assert_problem(server.client.post(where, json=move, headers=tag), 412, "Staging")
    tag = {"If-Match": moved.headers["etag"]}
    production = {"stage": "Production", "why": "now"}
    refused = server.client.post(where, json=production, headers=tag)
    assert_problem(refused, 409, "there is no certificate")
    assert strict(refused)["problems"]
    latest = answer_of_version(server.client, asked, "latest")
    assert latest["estimates"] == found["estimates"]
    for name, status in (("production", 404), ("77", 404), ("0", 422), ("../1", 422)):
        response = server.client.post("/predict", params={"version": name}, json=asked)
        assert_problem(response, status)
    # What an alias means may change; a request that is sent again is the same all the same.
    later, token = asked | {"version": "latest"}, {"Idempotency-Key": "of an alias"}
    job = strict(server.client.post("/jobs", json=later, headers=token))["job"]
    move = {"stage": "Archived", "why": "another is coming"}
    archived = server.client.post(where, json=move, headers={"If-Match": moved.headers["etag"]})
    assert strict(archived)["stage"] == "Archived"
    assert strict(server.client.post("/jobs", json=later, headers=token))["job"] == job
    assert_problem(server.client.post("/jobs", json=later), 404, "latest")


def answer_of_version(client, asked, name):
    content = strict(client.post("/predict", params={"version": name}, json=asked))
    return done(client, content["job"])["report"] if "job" in content else content


def npz(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


ATTACKS = {
    "a file that differs": ({"learnt.npz": npz(a=np.zeros(3))}, "differs from its sha256"),
    "a file too many": ({"more.json": b"{}"}, "does not list more.json"),
    "a path": ({"../learnt.npz": b""}, "is no name of a file"),
    "a hidden file": ({".profile": b""}, "is no name of a file"),
    "a pickle": ({"learnt.npz": b"\x80\x04N."}, "is a pickle"),
    "an array of objects": ({"learnt.npz": npz(a=np.array([{}]))}, "holds objects"),
    "an archive": ({"guardrail.json": b"PK\x03\x04" + bytes(40)}, "is an archive"),
    "a program": ({"run.py": b"import os"}, "does not list run.py"),
    "a manifest that is none": ({"manifest.json": b"[]"}, "not a JSON object"),
    "a manifest with a path": (
        {"manifest.json": b'{"files": {"../../etc/passwd": {"sha256": ""}}}'},
        "does not list",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_artefact_that_is_none_is_refused_and_leaves_nothing(server, project, artefact, attack):
    files, words = ATTACKS[attack]
    before = sorted((project / "results/registry").rglob("*.json"))
    assert_problem(uploaded(server, artefact | files), 422, words)
    assert sorted((project / "results/registry").rglob("*.json")) == before


def test_what_is_no_form_or_too_large_is_refused(server, artefact):
    assert_problem(server.client.post(f"/models/{MODEL}/versions", json={}), 415)
    assert_problem(uploaded(server, {}), 415)
    huge = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(5 * 2**30)}
    host, port = server.client.base_url.host, server.client.base_url.port
    with socket.create_connection((host, port)) as wire:  # 5 GB are announced, and never sent
        head = "".join(f"{name}: {value}\r\n" for name, value in huge.items())
        wire.sendall(
            f"POST /models/{MODEL}/versions HTTP/1.1\r\nHost: {host}\r\n{head}\r\n".encode()
        )
        assert b" 413 " in wire.recv(100)
    other = uploaded(server, artefact, params={"digest": "0" * 64})
    assert_problem(other, 422, "its digest is")
    twice = [("files", ("a.json", b"{}"))] * 2
    response = server.client.post(f"/models/{MODEL}/versions", files=twice)
    assert_problem(response, 422, "sent twice")


# Trainings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"settings": {"draws": 3}}, ["settings.draws", "only held_out"]),
        ({"settings": {"held_out": 2}}, ["held_out is 2", "maximum 0.5"]),
        ({"settings": {"held_out": [1]}}, ["settings.held_out: expected a finite number"]),
        ({"settings": {"train": {"held_out": 2}}}, ["held_out is 2", "maximum 0.5"]),
        ({"settings": {"train.held_out": 2}}, ["held_out is 2", "maximum 0.5"]),
        ({"settings": {"train": {"x": {"y": 1}}}}, ["settings.train.x.y", "no such setting"]),
        ({"settings": {"stress.n_cases": "ten"}}, ["stress.n_cases is 'ten'"]),
        ({"settings": {"train": {"a": 1}, "train.a": 1}}, ["train.a is said twice"]),
        ({"settings": {"train": {}}}, ["settings.train: expected a finite number"]),
        ({"settings": {"a": {"b": {"c": 1}}}}, ["settings.a.b.c", "no such setting"]),
        ({"until": "infer"}, ["until"]),
        ({"kind": "tune"}, ["expected predict, counterfactual or train"]),
        ({"path": "/"}, ["path: Extra inputs"]),
    ],
)
def test_a_training_that_makes_no_sense_is_refused(server, workflow, changes, words):
    asked = {"kind": "train", "model_id": MODEL} | changes
    assert_problem(server.client.post("/jobs", json=asked), 422, *words)


@pytest.fixture(scope="module")
def workflow(project):
    """The rules of the workflow, in the project."""
    for name in ("Snakefile", "config", "environment.yml", "notebooks", "profiles", "src"):
        (project / name).symlink_to(ROOT / name)
    (project / "workflow").symlink_to(ROOT / "workflow")


def events(client, job, after=0):
    """Events of a job, as a browser that has read some before gets them."""
    found, event = [], {}
    with client.stream("GET", f"/jobs/{job}/events", headers={"Last-Event-ID": str(after)}) as got:
        assert got.headers["content-type"].startswith("text/event-stream")
        for line in got.iter_lines():
            name, _, value = line.partition(": ")
            if line:
                event[name] = value
            elif "event" in event:
                found.append((int(event["id"]), event["event"], json.loads(event["data"])))
                event = {}
                yield found[-1]


def inside_of(folder):
    """Processes that work in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            found += [entry.parent.name] if entry.readlink() == folder else []
    return found


def test_a_training_tells_what_it_does_and_can_be_cancelled(server, project, workflow):
    asked = {"kind": "train", "model_id": MODEL, "settings": {"held_out": 0.3}}
    token = {"Idempotency-Key": "once"}
    response = server.client.post("/jobs", json=asked, headers=token)
    assert response.status_code == 202, response.text
    job = strict(response)["job"]
    assert strict(server.client.post("/jobs", json=asked, headers=token))["job"] == job
    other = asked | {"settings": {"held_out": 0.4}}
    assert_problem(server.client.post("/jobs", json=other, headers=token), 422, "another request")
    run = Run(project / "results/registry/.jobs" / job, MODEL)
    for _, name, content in events(server.client, job):
        if name == "line" and content["label"] == "started":
            break
    listed = strict(server.client.get("/jobs"))["jobs"]
    assert [each["status"] for each in listed if each["job"] == job] == ["running"]
    assert run.lives
    assert strict(server.client.delete(f"/jobs/{job}"))["status"] == "cancelled"
    assert not run.lives
    wait_for(lambda: not inside_of(run.folder), 20)  # the kernel of the notebook, too
    assert_problem(server.client.delete(f"/jobs/{job}"), 409, "cancelled")
    told = list(events(server.client, job))
    assert [number for number, _, _ in told] == list(range(1, len(told) + 1))
    assert (told[0][1], told[-1][1:]) == ("start", ("end", {"status": "cancelled"}))
    assert list(events(server.client, job, told[-2][0])) == told[-1:]


@pytest.mark.nightly
def test_a_training_outlives_its_service_and_becomes_a_version(server, project, workflow):
    asked = {"kind": "train", "model_id": MODEL, "until": "guardrail"}
    job = strict(server.client.post("/jobs", json=asked))["job"]
    for _, name, _ in events(server.client, job):
        if name == "progress":
            break
    process = server.client.get("/health").json()["process"]
    os.kill(process, signal.SIGKILL)
    server.wait_until_ready()
    assert server.client.get("/health").json()["process"] != process
    told = list(events(server.client, job))
    assert [each[2] for each in told if each[1] == "start"] == [{"attempt": 1}]
    found = strict(server.client.get(f"/jobs/{job}"))
    assert found["status"] == "done"
    version = found["result"]["version"]
    assert answer_of_version(server.client, fresh(), str(version))["verdict"] == "accept"
    runs = strict(server.client.get("/runs"))["runs"]
    assert {row["run"] for row in runs} == {MODEL, TWIN, f"registry/.jobs/{job}/results/{MODEL}"}


def test_a_question_that_waits_can_be_cancelled(server):
    pid = server.of(MODEL)
    os.kill(pid, signal.SIGSTOP)
    first, second = (strict(server.client.post("/jobs", json=fresh()))["job"] for _ in range(2))
    assert strict(server.client.delete(f"/jobs/{second}"))["status"] == "cancelled"
    os.kill(pid, signal.SIGCONT)
    assert done(server.client, first)["status"] == "done"
    assert done(server.client, second)["status"] == "cancelled"
    assert_problem(server.client.delete("/jobs/" + "0" * 32), 404)


def test_a_database_that_is_busy_keeps_none_waiting_who_need_none(server, project):
    busy = sqlite3.connect(project / "results/registry/store.sqlite", isolation_level=None)
    with closing(busy), ThreadPoolExecutor(2) as threads:
        busy.execute("begin immediate")
        writing = threads.submit(server.client.post, "/jobs", json=fresh())
        time.sleep(0.3)  # it waits for the writer of before
        for _ in range(3):
            assert answer(server.client, fresh())["verdict"] == "accept"
        assert not writing.done()
        busy.execute("rollback")
        job = strict(writing.result())["job"]
    assert done(server.client, job)["status"] == "done"


def test_the_table_of_runs_is_json_and_csv(server, project):
    rows = strict(server.client.get("/runs", params={"model_id": MODEL}))["runs"]
    report = artifacts.read_json(project / f"results/{MODEL}/reports/train_report.json")
    (row,) = [row for row in rows if row["run"] == MODEL]
    assert json.loads(row["settings"]) == report["lineage"]["settings"]["train"]
    assert (row["seed"], row["n_rows"]) == (report["lineage"]["seed"], report["n_rows"])
    text = server.client.get("/runs", headers={"Accept": "text/csv"}).text
    assert server.client.get("/runs.csv").text == text
    (read,) = [each for each in csv.DictReader(io.StringIO(text)) if each["run"] == MODEL]
    assert float(read["false_alarms"]) == row["false_alarms"]


def test_the_page_of_a_run_has_its_graph_settings_metrics_and_artefact(server, project):
    (row,) = (
        each
        for each in strict(server.client.get("/runs", params={"model_id": MODEL}))["runs"]
        if each["run"] == MODEL
    )
    text = server.client.get("/run", params={"name": MODEL}).text
    drawing = text.partition("data:image/svg+xml;base64,")[2].partition('"')[0]
    results = Results(project / "results" / MODEL)
    assert base64.b64decode(drawing) == results.structure.read_bytes()
    assert all(f'<td class="text">{name}</td>' in text for name in json.loads(row["settings"]))
    assert f"{row['false_alarms_low']:.3f} to {row['false_alarms_high']:.3f}" in text
    for file in results.newest_checkpoint().iterdir():
        if file.name != artifacts.MANIFEST:
            assert hashlib.sha256(file.read_bytes()).hexdigest() in text
    for name in ("none", "..", f"../{project.name}/results/{MODEL}"):
        assert_problem(server.client.get("/run", params={"name": name}), 404, "no such run")


def test_an_experiment_is_a_run_of_its_own(server, project):
    with inside(project):
        own = folder_of_experiment(MODEL, "mine")
    shutil.copytree(project / f"results/{MODEL}/reports", project / own / "reports")
    rows = strict(server.client.get("/runs", params={"model_id": MODEL}))["runs"]
    shutil.rmtree(project / own)
    named = {row["run"]: row for row in rows}
    assert named[f"{MODEL}/experiment_mine"] == named[MODEL] | {"run": f"{MODEL}/experiment_mine"}


# Dying --------------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_seen_at_once_and_its_questions_are_answered_by_the_next(server):
    asked = fresh()
    pid = server.of(MODEL)
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(answer, server.client, asked) for _ in range(4)]
        length = f'touchstone_queue_length{{model="{MODEL}"}} 4.0'
        wait_for(lambda: length in server.client.get("/metrics").text)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: server.client.get("/ready").status_code == 503, 2)
        answers = [each.result() for each in waiting]
    after = answer(server.client, asked)
    assert {each["sha256"] for each in answers} == {after["sha256"]}
    server.wait_until_ready()
    assert pid not in server.workers()
    restarts = f'touchstone_worker_restarts_total{{model="{MODEL}"}} '
    assert restarts in server.client.get("/metrics").text


@pytest.mark.parametrize(
    ("arguments", "word"), [(("--model", "alchemy"), "alchemy"), (("--host", "0.0.0.0"), "--host")]
)
def test_what_cannot_be_served_is_refused_in_a_sentence(project, arguments, word):
    with inside(project):
        refused = CliRunner().invoke(app, ["serve", *arguments])
    assert refused.exit_code == 2
    assert word in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_what_the_command_line_adds_is_listed(server, project):
    with inside(project):
        added = CliRunner().invoke(app, ["versions", "add", MODEL, "--why", "to be looked at"])
    assert added.exit_code == 0, added.stderr
    digest = added.stdout.split()[-1]
    found = strict(server.client.get(f"/models/{MODEL}/versions"))
    (version,) = [each for each in found["versions"] if each["digest"] == digest]
    one = server.client.get(f"/models/{MODEL}/versions/{version['version']}")
    assert (strict(one), one.headers["etag"]) == (version, version["etag"])
    del version["etag"]
    assert version in found["history"]


def test_the_form_of_a_model_is_that_of_the_registry(server):
    fields = strict(server.client.get("/models/interface"))["fields"]
    assert fields == [each.model_dump() for each in registry.get_inference_form_fields("interface")]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_service_finds_every_job_that_it_had_accepted(server, project):
    asked = fresh()
    pid = server.of(MODEL)
    os.kill(pid, signal.SIGSTOP)
    jobs = [strict(server.client.post("/jobs", json=asked))["job"] for _ in range(5)]
    server.process.kill()
    server.process.wait()
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not alive(pid))  # a worker does not outlive its server
    with serving(project) as second:
        found = [done(second.client, job) for job in jobs]
        expected = answer(second.client, asked)["sha256"]
        assert [each["report"]["sha256"] for each in found] == [expected] * 5
        (pid,) = second.workers()
        os.kill(pid, signal.SIGKILL)  # while nobody asks
        wait_for(lambda: second.client.get("/ready").status_code == 503, 2)
        (pid,) = wait_for(second.workers)
        second.wait_until_ready()
        os.kill(pid, signal.SIGSTOP)
        job = strict(second.client.post("/jobs", json=fresh()))["job"]
        with second.client.stream("GET", f"/jobs/{job}/events") as stream:
            started = time.monotonic()
            second.process.terminate()
            assert list(stream.iter_lines()) == []  # it ends in order, and at once
            assert time.monotonic() - started < 2
        second.process.wait(10)
        assert time.monotonic() - started < 5
        assert not alive(pid)
        with pytest.raises(httpx.TransportError):
            second.client.get("/health")
