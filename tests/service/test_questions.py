"""Questions to the service as programs ask them: real processes, real HTTP."""

import asyncio
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import ASKED, MODEL, TWIN, answer, assert_problem, done, fresh, inside, strict
from typer.testing import CliRunner

import touchstone
from touchstone import contract
from touchstone.answer import Answer
from touchstone.cli import app
from touchstone.client import AsyncClient, Client, ServiceError
from touchstone.io import artifacts, reports
from touchstone.io.results import Results
from touchstone.stages import infer


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
