"""The service as programs meet it: real processes, real HTTP, and what it withstands."""

import asyncio
import csv
import gzip
import hashlib
import io
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import MODEL, TWIN, inside, serving, trained
from typer.testing import CliRunner

import touchstone
from touchstone import contract, registry
from touchstone.answer import Answer
from touchstone.cli import app
from touchstone.client import AsyncClient, Client, ServiceError
from touchstone.io import artifacts, reports
from touchstone.io.results import Results, folder_of_experiment
from touchstone.service.versions import Versions
from touchstone.stages import checkpoints, infer
from touchstone.stages.training_run import Run

ROOT = Path(__file__).parents[2]
ASKED = {"model_id": MODEL, "inputs": {"level": 1.5}}
_count = itertools.count(1)


def fresh():
    """A question that was not asked before, whose answer no memory has."""
    return {"model_id": MODEL, "inputs": {"level": next(_count) / 1024}}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return trained(tmp_path_factory)


@pytest.fixture(scope="module")
def server(project):
    """A service that makes a job of what takes some seconds; the last test kills it."""
    with serving(project, "--deadline", "4", "--queue", "20", "--model", TWIN) as running:
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
        "import sys, touchstone.service.routes\n"
        "assert {'jax', 'pymc', 'pandas', 'scipy', 'matplotlib'}.isdisjoint(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_form_is_answered_as_on_the_command_line(server, project):
    report = answer(server.client)
    reports.validate(report)
    said = command(project, "predict", MODEL, "level=1.5")
    assert reports.reproducible(report) == reports.reproducible(said)


def test_every_door_gives_the_same_answer_to_a_record(server, project):
    """The notebook calls `infer.run`, and shows what it gives."""
    names = [f"same_{number}.csv" for number in range(3)]
    with inside(project):
        local, own = touchstone.load(MODEL), Results(Path("results") / MODEL)
        for number, name in enumerate(names):
            files = Path(name), Path(name).with_suffix(".yaml")
            local.model.example(np.random.default_rng(number), *files)
        of_notebook = [
            infer.run(local.model, local.settings, own, Path(name).stem, name).report
            for name in names
        ]
        in_python = [local.infer(name).report for name in names]
        with Client(str(server.client.base_url)) as client:
            of_client = [client.infer(MODEL, record=name).report for name in names]
        over_http = []
        for name in names:
            meta = Path(name).with_suffix(".yaml").read_text()
            record = {"name": name, "data": Path(name).read_text(), "meta": meta}
            over_http.append(answer(server.client, {"model_id": MODEL, "record": record}))
    said = command(project, "infer", *names, "--model", MODEL)
    for found in (in_python, of_client, said, over_http):
        assert reports.reproducible(found) == reports.reproducible(of_notebook)
    for report in over_http:
        reports.validate(report)
    assert len({report["sha256"] for report in said}) == len(names)


def test_a_record_is_answered_by_its_bytes_at_every_door(server, project):
    """A text whose lines end as on Windows, and a file that is no text at all."""
    content = (project / "example.csv").read_bytes().replace(b"\n", b"\r\n")
    meta = "# Größe\r\n".encode() + (project / "example.yaml").read_bytes()
    files = {"windows.csv": content, "packed.csv.gz": gzip.compress(content, mtime=0)}
    for name, data in files.items():
        file = project / name
        file.write_bytes(data)
        file.with_suffix(".yaml").write_bytes(meta)
        said = command(project, "infer", name, "--model", MODEL)
        assert said["lineage"]["inputs"]["data"]["sha256"] == hashlib.sha256(data).hexdigest()
        sent = {"data": (name, data), "meta": ("m.yaml", meta)}
        found = [strict(server.client.post(f"/predict/{MODEL}", files=sent))]
        with inside(project), Client(str(server.client.base_url)) as client:
            found.append(client.infer(MODEL, record=name).report)
        if name == "windows.csv":
            record = {"name": name, "data": data.decode(), "meta": meta.decode()}
            asked = {"record": record}
            found.append(strict(server.client.post(f"/predict/{MODEL}", json=asked)))
        for report in found:
            assert reports.reproducible(report) == reports.reproducible(said)


def test_the_path_may_name_the_model(server):
    asked = fresh()
    inputs = {"inputs": asked["inputs"]}
    where = f"/predict/{MODEL}"
    assert strict(server.client.post(where, json=inputs)) == answer(server.client, asked)
    assert_problem(server.client.post(where, json=asked), 422, "model_id: Extra inputs")
    assert_problem(server.client.post("/predict/alchemy", json=inputs), 404, "is none of")
    assert_problem(server.client.post(where, params={"version": "99"}, json=inputs), 404, "99")
    for files in ({"data": ("../x.csv", b"1")}, {"meta": ("x.yaml", b"")}, {"x": ("x.csv", b"1")}):
        assert_problem(server.client.post(where, files=files), 422)
    both = {"name": "x.csv", "data": "%", "encoding": "base64"}
    assert_problem(server.client.post(where, json={"record": both}), 422, "data: is no base64")
    most = {"data": ("long.csv", b"1" * (9 * 2**20))}
    assert_problem(server.client.post(where, files=most), 413, "bytes")


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
    assert about["certificate"] is None
    released = strict(server.client.get("/models/interface/info"))["certificate"]
    kept = artifacts.read_json(contract.folders()["interface"] / "pretrained/certificate.json")
    assert released["false_alarms"] == kept["false_alarms"]
    assert released["against"] == []


def test_the_api_is_described_by_a_page_that_fetches_nothing_from_elsewhere(server):
    page, schema = server.client.get("/docs").text, strict(server.client.get("/openapi.json"))
    for path in schema["paths"]:
        assert f"{path}</code></h2>" in page
    for name in schema["components"]["schemas"]:
        assert f'id="{name}"' in page
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page


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
    pid = server.of(MODEL)
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
    pid = server.of(MODEL)
    os.kill(pid, signal.SIGSTOP)
    asked, token = fresh(), {"Idempotency-Key": "of a full queue"}
    accepted = [server.client.post("/jobs", json=asked, headers=token)]
    accepted += [server.client.post("/jobs", json=fresh()) for _ in range(20)]  # one is worked on
    assert [each.status_code for each in accepted] == [202] * 21
    response = server.client.post("/predict", json=fresh())
    assert_problem(response, 503, "the queue is full")
    assert 1 <= int(response.headers["retry-after"]) <= 600
    for path in ("/jobs", "/predict"):  # what was accepted takes no place again
        again = server.client.post(path, json=asked, headers=token)
        assert strict(again)["job"] == strict(accepted[0])["job"]
    os.kill(pid, signal.SIGCONT)
    for each in accepted:
        assert done(server.client, strict(each)["job"])["status"] == "done"


# Several at once, draws, and what would have been -------------------------------------------------


def test_several_inputs_get_the_reports_that_each_gets_alone(server):
    asked = [fresh()["inputs"] for _ in range(3)]
    together = strict(server.client.post("/predict", json={"model_id": MODEL, "inputs": asked}))
    alone = [answer(server.client, {"model_id": MODEL, "inputs": each}) for each in asked]
    assert reports.reproducible(together["reports"]) == reports.reproducible(alone)
    bad = [*asked, {"level": 99.0}, {"x": 1}]
    response = server.client.post("/predict", json={"model_id": MODEL, "inputs": bad})
    assert_problem(response, 422, "inputs.3.level: 99.0 is above", "inputs.4.x: is unknown")
    for count in (0, 257):
        many = {"model_id": MODEL, "inputs": [{}] * count}
        assert_problem(server.client.post("/predict", json=many), 422, "inputs: List should have")


def test_draws_are_those_of_the_posterior(server, record):
    question = record | {"model_id": MODEL}
    found = strict(server.client.post("/predict", params={"draws": 10_000}, json=question))
    report = answer(server.client, record)
    assert reports.reproducible(found["report"]) == reports.reproducible(report)
    (draws,) = found["draws"]
    (row,) = report["posterior"]
    low, high = row["interval_90"]
    inside = sum(low <= each <= high for each in draws["level"]) / 10_000
    assert abs(inside - 0.9) < 0.02  # 10,000 of 2,000 draws: 0.007 is one standard deviation
    again = strict(server.client.post("/predict", params={"draws": 10_000}, json=question))
    assert again["draws"] == found["draws"]
    form = server.client.post("/predict", params={"draws": 5}, json=fresh())
    assert_problem(form, 422, "keeps none of a form")
    assert_problem(server.client.post("/predict", params={"draws": -1}, json=fresh()), 422)


def test_a_counterfactual_is_answered_by_a_model_that_can(server, record):
    asked = {
        "model_id": TWIN,
        "observation": record["record"],
        "intervention": {"shift": 1.5},
        "mode": "total",
    }
    where = "/api/inference/counterfactual"
    report = strict(server.client.post(where, json=asked))
    reports.validate(report)
    (row,) = report["counterfactual"]
    assert row["median"] == report["posterior"][0]["median"] + 1.5
    text = server.client.get("/metrics").text
    counted = f'touchstone_physics_violations_total{{law="levels stay",model="{TWIN}"}} 1.0'
    assert counted in text
    only = {name: value for name, value in asked.items() if name != "model_id"}
    assert strict(server.client.post(where, json=only))["model_id"] == TWIN
    other = server.client.post(where, json=asked | {"model_id": MODEL})
    assert_problem(other, 501, f"those that do: {TWIN}")
    assert_problem(server.client.post(where, json=asked | {"mode": "x"}), 422, "total")
    for wrong in ({"strategy": "none"}, {"intervention": {}}, {"intervention": {"a": True}}):
        assert_problem(server.client.post(where, json=asked | wrong), 422, *wrong)


def test_an_answer_from_memory_is_the_same_and_is_counted(server):
    asked = fresh()
    names = (
        f'touchstone_cached_answers_total{{model="{MODEL}",where="memory"}}',
        f'touchstone_inference_latency_seconds_count{{model="{MODEL}"}}',
        f'touchstone_verdicts_total{{model="{MODEL}",verdict="accept"}}',
    )

    def counted():
        lines = server.client.get("/metrics").text.splitlines()
        values = dict(each.rsplit(" ", 1) for each in lines)
        return [float(values.get(name, 0)) for name in names]

    before = counted()
    first = server.client.post("/predict", json=asked)
    second = server.client.post("/predict", json=asked)
    assert first.content == second.content
    assert [b - a for a, b in zip(before, counted(), strict=True)] == [1, 2, 2]


# Clients ------------------------------------------------------------------------------------------


def test_a_client_gives_what_a_local_model_gives(server, project):
    url = str(server.client.base_url)
    code = "import sys, touchstone.client; assert {'jax', 'numpy'}.isdisjoint(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with inside(project), Client(url) as client:
        local = touchstone.load(MODEL)
        pairs = [
            (client.infer(MODEL, inputs={"level": 1.5}), local.predict(level=1.5)),
            (client.infer(MODEL, record="example.csv"), local.infer("example.csv")),
        ]
        for remote, here in pairs:
            assert type(remote) is type(here)
            assert reports.reproducible(remote.report) == reports.reproducible(here.report)
            assert remote.confidence == here.confidence
            assert remote.confidence.level == remote.report["level"]
        assert [each.verdict for each in client.infer_many(MODEL, [{"level": 1}])] == ["accept"]
        twin = client.infer(TWIN, observation="example.csv", intervention="shift=1", mode="total")
        assert twin.counterfactual[0]["change"]["median"] == 1
        with pytest.raises(ValueError, match="mode: is missing, expected how effects respond"):
            client.infer(TWIN, observation="example.csv", intervention={"shift": 1})
        with pytest.raises(ServiceError, match=r"level: 99 is above.*x: is unknown") as error:
            client.infer(MODEL, inputs={"level": 99, "x": 1})
        assert (error.value.status, len(error.value.problems)) == (422, 2)

    async def twice():
        async with AsyncClient(url) as other:
            return await asyncio.gather(*(other.infer(MODEL, inputs={"level": 1.5}),) * 2)

    first, second = asyncio.run(twice())
    assert first.report == second.report == pairs[0][0].report


def test_a_report_that_states_no_level_has_no_confidence():
    with pytest.raises(ValueError, match="level"):
        _ = Answer({"kind": "infer", "verdict": "accept", "reason": ""}).confidence


def test_a_client_asks_again_under_one_key_and_no_longer_than_it_may(server):
    seen = []

    def unreliable(request):
        seen.append(request.headers.get("idempotency-key"))
        if len(seen) == 1:
            raise httpx.ConnectError("refused")
        if len(seen) == 2:
            return httpx.Response(503, headers={"Retry-After": "0"}, json={"detail": "full"})
        request.url = request.url.copy_with(port=server.client.base_url.port)
        return inner.handle_request(request)

    inner = httpx.HTTPTransport()
    transport = httpx.MockTransport(unreliable)
    with inner, Client("http://127.0.0.1:1", transport=transport) as client:
        assert client.infer(MODEL, inputs={"level": 1.5}).verdict == "accept"
    assert len(seen) == 3
    assert len(set(seen)) == 1
    with Client("http://127.0.0.1:1", attempts=2) as client, pytest.raises(ServiceError):
        client.infer(MODEL, inputs={"level": 1.5})
    with Client(str(server.client.base_url), timeout=0.5) as client:
        pid = server.of(MODEL)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(ServiceError):
            client.infer(MODEL, inputs=fresh()["inputs"])
        os.kill(pid, signal.SIGCONT)


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
