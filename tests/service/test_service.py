"""The service as programs meet it: real processes, real HTTP, and what it withstands."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import MODEL, inside, serving, trained
from typer.testing import CliRunner

from touchstone import registry
from touchstone.cli import app
from touchstone.io import reports

ASKED = {"model_id": MODEL, "inputs": {"level": 1.5}}
_count = itertools.count(1)


def fresh():
    """A question that was not asked before, whose answer no memory has."""
    return {"model_id": MODEL, "inputs": {"level": next(_count) / 1024}}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def server(project):
    """A service that makes a job of what takes some seconds; the last test kills it."""
    with serving(project, "--deadline", "4", "--queue", "20") as running:
        yield running


@pytest.fixture(scope="module")
def record(project):
    """The question that is a record."""
    data, meta = (project / f"example.{suffix}" for suffix in ("csv", "yaml"))
    files = {"name": data.name, "data": data.read_text(), "meta": meta.read_text()}
    return {"model_id": MODEL, "record": files}


def command(project, *arguments):
    """What the command line prints as JSON."""
    with inside(project):
        done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code in (0, 3), done.stderr
    return json.loads(done.stdout)


def strict(response):
    """The JSON of a response, which has neither NaN nor Infinity."""
    return json.loads(response.text, parse_constant=pytest.fail)


def assert_problem(response, status, *words):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert strict(response)["status"] == status
    assert all(word in response.text for word in words), response.text
    assert "Traceback" not in response.text


def wait_for(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def done(client, job):
    """The content of a job once it is finished."""

    def content():
        found = strict(client.get(f"/jobs/{job}"))
        return found if found["status"] != "waiting" else None

    return wait_for(content)


def answer(client, question=ASKED):
    """The report, also where it takes so long that it becomes a job."""
    content = strict(client.post("/predict", json=question))
    return done(client, content["job"])["report"] if "job" in content else content


# Answers ------------------------------------------------------------------------------------------


def test_the_server_computes_nothing_itself():
    code = (
        "import sys, touchstone.service.app\n"
        "assert {'jax', 'pymc', 'pandas', 'scipy', 'matplotlib'}.isdisjoint(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_form_is_answered_as_on_the_command_line(server, project):
    report = answer(server.client)
    reports.validate(report)
    said = command(project, "predict", MODEL, "level=1.5")
    assert reports.reproducible(report) == reports.reproducible(said)


def test_a_record_is_answered_as_on_the_command_line(server, project, record):
    report = answer(server.client, record)
    reports.validate(report)
    said = command(project, "infer", "example.csv", "--model", MODEL)
    assert reports.reproducible(report) == reports.reproducible(said)


def test_a_question_gets_the_same_bits_alone_and_among_others(server, record):
    levels = [round(-3 + 0.4 * k, 1) for k in range(15)]
    asked = [{"model_id": MODEL, "inputs": {"level": level}} for level in levels] + [record]

    def asking(question):
        return reports.reproducible(answer(server.client, question))

    alone = [asking(question) for question in asked]
    with ThreadPoolExecutor(8) as threads:
        among = list(threads.map(asking, asked + asked[::-1]))
    assert among == alone + alone[::-1]
    assert len({each["sha256"] for each in alone}) == len(asked)


def test_models_are_listed_with_their_state_and_their_form(server):
    listed = {each["model_id"]: each for each in strict(server.client.get("/models"))["models"]}
    assert listed.keys() >= {MODEL, "interface"}
    assert listed[MODEL]["ready"]
    assert listed[MODEL]["is_trained"]
    assert listed[MODEL]["status"] == "beta"
    assert "trained here on" in listed[MODEL]["artefact"]
    assert not listed["interface"]["served"]
    about = strict(server.client.get(f"/models/{MODEL}"))
    (field,) = about["fields"]
    assert (field["name"], field["type"], field["max_value"]) == ("level", "float", 10.0)
    assert about["parameters"]["level"]["unit"] == "V"


def test_a_monitor_reads_latencies_verdicts_and_the_queue(server):
    server.client.post("/predict", json=ASKED)
    text = server.client.get("/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    label = f'{{model="{MODEL}"}}'
    assert float(values[f"touchstone_inference_latency_seconds_count{label}"]) > 0
    assert float(values[f'touchstone_verdicts_total{{model="{MODEL}",verdict="accept"}}']) > 0
    assert values[f"touchstone_queue_length{label}"] == "0.0"
    assert values[f"touchstone_workers_ready{label}"] == "1.0"


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ('{"model_id": "M", "inputs": {"level": NaN}}', 422, ["inputs.level: expected a finite"]),
        ('{"model_id": "M", "inputs": {"level": -Infinity}}', 422, ["expected a finite number"]),
        ('{"model_id": "M", "inputs": {"level": 1e999}}', 422, ["expected a finite number"]),
        ('{"model_id": "M", "inputs": {"level": [1]}}', 422, ["[1] is no float"]),
        ('{"model_id": "M", "inputs": {"level": [1, null]}}', 422, ["a list of finite numbers"]),
        ('{"model_id": "M", "inputs": {"level": %s}}' % ("9" * 400), 422, ["a finite number"]),
        ('{"model_id": "M", "inputs": {"level": 11, "x": 1}}', 422, ["is above", "x: is unknown"]),
        ('{"model_id": "M", "inputs": {"level": "1"}}', 422, ["level: '1' is no float"]),
        ('{"model_id": "M", "inputs": {"level": "\\ud800"}}', 422, ["Invalid JSON"]),
        ('{"model_id": "M", "inputs": {}, "path": "/etc/passwd"}', 422, ["path: Extra inputs"]),
        ('{"model_id": "M"}', 422, ["either inputs, the values of the form, or a record"]),
        ('{"model_id": "../M", "inputs": {}}', 422, ["model_id: String should match"]),
        ('{"model_id": "alchemy", "inputs": {}}', 404, ["is none of"]),
        ('{"model_id": "interface", "inputs": {}}', 409, ["is not served"]),
        ("[" * 100_000, 422, ["recursion limit"]),
        ("", 422, ["Invalid JSON"]),
        (b"\xff\xfe", 422, ["Invalid JSON"]),
    ],
)
def test_what_is_no_question_is_refused_with_the_reason(server, body, status, words):
    content = body.replace('"M"', f'"{MODEL}"').encode() if isinstance(body, str) else body
    kind = {"content-type": "application/json"}
    response = server.client.post("/predict", content=content, headers=kind)
    assert_problem(response, status, *words)


@pytest.mark.parametrize(
    "name", ["../mine.csv", "/etc/passwd", "a/b.csv", "..", ".csv", "mine", "mine.yaml", "a\\b.csv"]
)
def test_a_record_has_the_name_of_a_file_and_no_path(server, record, name):
    files = record["record"] | {"name": name}
    response = server.client.post("/predict", json={"model_id": MODEL, "record": files})
    assert_problem(response, 422, "record")


@pytest.mark.parametrize("data", ["nonsense", "a,b\n1,2\n", "\x00"])
def test_a_record_that_cannot_be_read_is_the_askers_mistake(server, record, data):
    files = record["record"] | {"data": data}
    response = server.client.post("/predict", json={"model_id": MODEL, "record": files})
    assert_problem(response, 422, "example.csv")
    assert "/tmp" not in response.text


def test_a_body_is_json_and_not_too_long(server):
    assert_problem(server.client.post("/predict", data={"level": "1"}), 415)
    files = {"name": "long.csv", "data": "1" * (9 * 2**20)}
    response = server.client.post("/predict", json={"model_id": MODEL, "record": files})
    assert_problem(response, 413, "bytes")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("get", "/models/..%2f..%2fetc", 404),
        ("get", "/models/Served-Model", 422),
        ("get", "/models/alchemy", 404),
        ("get", "/jobs/0", 422),
        ("get", "/jobs/" + "0" * 32, 404),
        ("get", "/predict", 405),
        ("get", "/nothing", 404),
    ],
)
def test_other_mistakes_are_problems_too(server, method, path, status):
    assert_problem(server.client.request(method, path), status)


def test_a_page_of_another_site_cannot_ask_under_its_own_name(server):
    response = server.client.get("/models", headers={"host": "example.org"})
    assert response.status_code == 400


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(inputs=st.dictionaries(st.just("level") | st.text(max_size=3), VALUES, max_size=3))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_value_of_a_form_makes_the_service_fail(server, inputs):
    content = json.dumps({"model_id": MODEL, "inputs": inputs}).encode()
    headers = {"content-type": "application/json"}
    response = server.client.post("/predict", content=content, headers=headers)
    level = inputs.get("level")
    number = isinstance(level, int | float) and not isinstance(level, bool)
    allowed = set(inputs) <= {"level"} and (level is None or (number and abs(level) <= 10))
    assert response.status_code == (200 if allowed else 422), response.text
    strict(response)


# Queue, deadline and jobs -------------------------------------------------------------------------


def test_a_question_that_takes_long_becomes_a_job_with_the_same_answer(server):
    asked = fresh()
    (pid,) = server.workers()
    os.kill(pid, signal.SIGSTOP)
    response = server.client.post("/predict", json=asked)
    assert response.status_code == 202
    where = response.headers["location"]
    assert strict(server.client.get(where))["status"] == "waiting"
    assert server.client.get("/health").status_code == 200
    os.kill(pid, signal.SIGCONT)
    found = done(server.client, strict(response)["job"])
    assert found["status"] == "done"
    direct = strict(server.client.post("/predict", json=asked))
    assert reports.reproducible(found["report"]) == reports.reproducible(direct)


def test_a_job_says_why_it_was_refused(server, record):
    files = record["record"] | {"data": "nonsense"}
    question = {"model_id": MODEL, "record": files}
    response = server.client.post("/jobs", json=question)
    assert response.status_code == 202
    found = done(server.client, strict(response)["job"])
    assert (found["status"], "example.csv" in found["detail"]) == ("refused", True)


def test_a_full_queue_says_when_to_ask_again(server):
    (pid,) = server.workers()
    os.kill(pid, signal.SIGSTOP)
    accepted = [server.client.post("/jobs", json=fresh()) for _ in range(21)]  # one is worked on
    assert [each.status_code for each in accepted] == [202] * 21
    response = server.client.post("/predict", json=fresh())
    assert_problem(response, 503, "the queue is full")
    assert 1 <= int(response.headers["retry-after"]) <= 600
    os.kill(pid, signal.SIGCONT)
    for each in accepted:
        assert done(server.client, strict(each)["job"])["status"] == "done"


# Dying --------------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_seen_at_once_and_its_questions_are_answered_by_the_next(server):
    asked = fresh()
    (pid,) = server.workers()
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


def test_the_versions_of_a_model_are_listed(server, project):
    assert strict(server.client.get(f"/models/{MODEL}/versions"))["versions"] == []
    with inside(project):
        done = CliRunner().invoke(app, ["versions", "add", MODEL, "--why", "to be looked at"])
    assert done.exit_code == 0, done.stderr
    found = strict(server.client.get(f"/models/{MODEL}/versions"))
    (version,) = found["versions"]
    assert (version["stage"], version["why"]) == ("None", "to be looked at")
    assert version.pop("etag") == '"1"'
    assert (found["history"], found["aliases"]) == ([version], {})


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
    (pid,) = server.workers()
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
        started = time.monotonic()
        second.process.terminate()
        second.process.wait(10)
        assert time.monotonic() - started < 10
        assert not alive(pid)
        with pytest.raises(httpx.TransportError):
            second.client.get("/health")
