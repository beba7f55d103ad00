"""Where one machine is outgrown: real servers, several processes, and servers that are gone."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from serving import MODEL, TOUCHSTONE, environment, inside, serving
from stores import PASSWORD, objects, postgres, redis
from typer.testing import CliRunner

from touchstone.cli import app
from touchstone.io import artifacts, reports
from touchstone.io.artifacts import ArtifactError
from touchstone.io.cache import Shared
from touchstone.io.objects import Bucket
from touchstone.io.results import Results
from touchstone.service.store import Job, ReusedError, Store
from touchstone.service.versions import Versions
from touchstone.stages import checkpoints, runs

WHO = ("a person", "a reason")
NOT_OF_THE_BODY = {"schema_version", "kind", "lineage", "timing", "sha256"}


@pytest.fixture(scope="module")
def server():
    with postgres() as running:
        yield running


@pytest.fixture(scope="module")
def database(server):
    return server.url


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def bucket():
    with objects("artefacts", "gold"):
        yield "artefacts"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def store(request, tmp_path_factory):
    """A store of either kind, and a second process's view of it."""
    url = request.getfixturevalue("database") if request.param == "postgresql" else ""
    folder = tmp_path_factory.mktemp("store")
    pair = [Store.at(folder, url) for _ in range(2)]
    yield pair
    for each in pair:
        each.close()


# Jobs ---------------------------------------------------------------------------------------------


def test_one_token_is_one_job_in_however_many_processes_it_comes_at_once(store):
    token = os.urandom(8).hex()
    with ThreadPoolExecutor(8) as threads:
        accepting = [threads.submit(store[k % 2].accept, {"a": 1}, token) for k in range(16)]
        jobs = {each.result().id for each in accepting}
    assert len(jobs) == 1
    with pytest.raises(ReusedError):
        store[1].accept({"a": 2}, token)


def test_what_two_processes_tell_at_once_is_numbered_without_a_gap(store):
    job = store[0].accept({"kind": "train"})
    with ThreadPoolExecutor(8) as threads:
        telling = [threads.submit(store[k % 2].tell, job.id, "line", {"k": k}) for k in range(24)]
        for each in telling:
            each.result()
    told = store[1].events(job.id, 0)
    assert [each.number for each in told] == list(range(1, 25))
    assert {json.loads(each.content)["k"] for each in told} == set(range(24))


def test_one_process_alone_takes_up_a_job_and_the_first_answer_stays(store):
    job = store[0].accept({"a": 1}, server="gone")
    with ThreadPoolExecutor(8) as threads:
        claims = list(threads.map(lambda k: store[k % 2].claim(job, f"server {k}"), range(8)))
    assert sum(claims) == 1
    assert store[0].unfinished()[job.id] == f"server {claims.index(True)}"
    with ThreadPoolExecutor(4) as threads:
        ends = threads.map(lambda k: store[k % 2].finish(job.id, "done", f'"{k}"'), range(4))
        first = list(ends)
    assert sum(first) == 1
    assert store[1].find(job.id).answer == f'"{first.index(True)}"'
    assert not store[0].claim(store[0].find(job.id), "another")
    store[1].tell(job.id, "line", {})  # after the end, which is the last that is told
    told = [(each.name, each.content) for each in store[0].events(job.id, 0)]
    assert told == [("end", '{"status": "done"}')]


def test_a_job_has_the_time_at_which_it_was_accepted_and_is_found_by_the_other(store):
    before = time.time()
    job = store[0].accept({"a": "ä€😀"})
    assert before <= job.created <= time.time()
    assert store[1].find(job.id) == job
    assert isinstance(job, Job)
    key = store[0].add_key("ada", ["read"])
    assert store[1].key(key).name == "ada"


def test_a_store_of_an_earlier_release_is_taken_over(tmp_path):
    import sqlite3

    old = sqlite3.connect(tmp_path / "store.sqlite")
    old.executescript("""
        create table jobs (id varchar(32) primary key, question text not null,
            created double not null, status varchar(16) not null, answer text, finished double,
            token varchar(64) unique, digest varchar(64));
        create table events (job varchar(32) references jobs(id), number integer not null,
            name varchar(16) not null, content text not null, primary key (job, number));
        insert into jobs values ('a', '{"kind": "train"}', 1.0, 'running', null, null, null, 'b');
        insert into events values ('a', 7, 'line', '{}');
    """)
    old.close()
    store = Store.at(tmp_path)
    assert store.unfinished() == {"a": None}
    assert store.claim(store.find("a"), "me")
    store.tell("a", "line", {})
    assert [each.number for each in store.events("a", 0)] == [7, 8]
    store.close()


# The cache ----------------------------------------------------------------------------------------


def test_an_answer_is_known_to_another_process_and_a_server_that_is_gone_is_done_without(cache):
    async def both():
        first, second = (Shared(cache.url, "test") for _ in range(2))
        await first.put("a", "the answer ä")
        assert await second.get("a") == "the answer ä"
        assert await second.get("b") is None
        cache.kill()
        started = time.monotonic()
        for _ in range(1000):  # it is asked once, and then left alone for a while
            assert await second.get("a") is None
        assert time.monotonic() - started < 1
        assert "cannot be reached" in second.problem
        late = Shared(cache.url, "test")  # a service that starts without it
        assert late.problem
        cache.start()
        second._asleep = late._asleep = 0.0
        await late.put("a", "again")
        assert await second.get("a") == "again"
        assert second.problem == late.problem == ""
        for each in (first, second, late):
            await each.close()

    asyncio.run(both())


# Versions -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def artefact(project):
    with inside(project):
        return checkpoints.find(MODEL, Results(project / "results" / MODEL))


@pytest.fixture(scope="module")
def kept(artefact, tmp_path_factory):
    """Folder of a version that was stored once."""
    aside = Versions(tmp_path_factory.mktemp("aside"))
    folder = aside.folder / MODEL / aside.store(artefact, MODEL)
    aside.close()
    return folder


def registry(place, kept, *arguments, **more):
    """The versions of a folder to which an artefact was brought."""
    shutil.copytree(kept, place / MODEL / kept.name)
    return Versions(place, *arguments, **more)


def test_a_registry_is_rebuilt_from_its_bucket_and_fetches_what_is_asked_for(
    kept, bucket, database, tmp_path
):
    there = Bucket(f"s3://{bucket}/one", "ARTIFACTS_BUCKET")
    first = registry(tmp_path / "first", kept, database, "one", there)
    made = first.add(MODEL, kept.name, "canary", *WHO)
    first.move(MODEL, 1, "Staging", "canary", *WHO)
    elsewhere = Versions(tmp_path / "second", "", "transitions", there)
    assert elsewhere.history(MODEL) == first.history(MODEL)
    assert elsewhere.aliases(MODEL) == first.aliases(MODEL) == {"latest": 1}
    assert not (tmp_path / "second" / MODEL / made.digest).exists()
    place = elsewhere.path(elsewhere.find(MODEL, 1))
    assert artifacts.verify(place, [checkpoints.GUARDRAIL])
    for file in first.path(made).iterdir():
        assert (place / file.name).read_bytes() == file.read_bytes()
    # What one machine writes comes to the other, and neither writes over the other's.
    elsewhere.move(MODEL, 1, "Archived", "", *WHO)
    first.refresh()
    assert first.history(MODEL) == elsewhere.history(MODEL)
    assert [each.stage for each in first.history(MODEL)] == ["None", "Staging", "Archived"]
    for each in (first, elsewhere):
        each.close()


def test_a_version_that_was_changed_in_the_bucket_is_not_used(kept, bucket, tmp_path):
    there = Bucket(f"s3://{bucket}/two", "ARTIFACTS_BUCKET")
    first = registry(tmp_path / "first", kept, bucket=there)
    made = first.add(MODEL, kept.name, "canary", *WHO)
    under = f"{MODEL}/{made.digest}"
    data = next(name for name in there.names(under) if not name.endswith(artifacts.MANIFEST))
    whole = there.read(data)
    manifest = there.read(f"{under}/{artifacts.MANIFEST}")
    other = json.dumps(json.loads(manifest) | {"settings": {"seed": 2}}).encode()
    attacks = {
        data: whole + b" ",
        f"{under}/{artifacts.MANIFEST}": other,
        f"{under}/run.sh": b"#!/bin/sh",
    }
    for number, (name, content) in enumerate(attacks.items()):
        kept = there.read(name) if name in there.names(under) else None
        there.write(name, content)
        elsewhere = Versions(tmp_path / f"other{number}", bucket=there)
        with pytest.raises(ArtifactError):
            elsewhere.path(elsewhere.find(MODEL, 1))
        assert [each.name for each in (elsewhere.folder / MODEL).iterdir()] == ["transitions"]
        elsewhere.close()
        if kept is not None:
            there.write(name, kept)
    first.close()


def test_two_registries_are_not_mixed(kept, bucket, database, tmp_path):
    there = Bucket(f"s3://{bucket}/three", "ARTIFACTS_BUCKET")
    first = registry(tmp_path / "first", kept, database, "three", there)
    first.add(MODEL, kept.name, "canary", *WHO)
    other = registry(tmp_path / "other", kept)
    other.add(MODEL, kept.name, "canary", "another person", "a reason")
    for each in (first, other):
        each.close()
    with pytest.raises(ArtifactError, match="the versions of one registry"):
        Versions(tmp_path / "other", bucket=there)
    with pytest.raises(ArtifactError, match="the versions of one registry"):
        Versions(tmp_path / "other", database, "three")


def test_numbers_of_versions_are_given_once_by_many_writers(kept, database, tmp_path):
    several = [Versions(tmp_path / "shared", database, "four") for _ in range(3)]
    names = [f"{k:064x}" for k in range(7)]
    for name in names:
        shutil.copytree(kept, tmp_path / "shared" / MODEL / name)
    with ThreadPoolExecutor(7) as threads:
        adding = [
            threads.submit(several[k % 3].add, MODEL, name, "canary", *WHO)
            for k, name in enumerate(names)
        ]
        made = [each.result() for each in adding]
    assert sorted(each.version for each in made) == list(range(1, 8))
    assert sorted(each.sequence for each in several[1].history(MODEL)) == list(range(1, 8))
    for each in several:
        each.close()


# Several services --------------------------------------------------------------------------------


def fresh():
    """A question that was not asked before."""
    return {"model_id": MODEL, "inputs": {"level": int.from_bytes(os.urandom(3)) / 2**22}}


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def ended(client, job):
    def content():
        found = client.get(f"/jobs/{job}")
        if found.status_code == 503:  # PostgreSQL is starting
            return None
        return found.json() if found.json()["status"] not in ("waiting", "running") else None

    return wait_for(content)


def metric(client, name):
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


@pytest.fixture(scope="module")
def pair(project, database, cache, bucket):
    """Two services with one database, one cache, one folder and two buckets."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "DATABASE_URL": database,
            "CACHE_URL": cache.url,
            "ARTIFACTS_BUCKET": f"{bucket}/served",
            "GOLD_BUCKET": "gold",
            "MODEL_REGISTRY_TABLE": "served",
            "PIPELINE_EXECUTION_ID": "execution 7",
        }.items():
            patch.setenv(name, value)
        with serving(project) as first, serving(project) as second:
            yield first, second


@pytest.mark.nightly
def test_a_job_that_one_service_accepts_is_seen_by_the_other_and_is_done_once(pair):
    first, second = pair
    token = {"Idempotency-Key": "once"}
    asked = fresh()
    jobs = {each.client.post("/jobs", json=asked, headers=token).json()["job"] for each in pair}
    (job,) = jobs
    found = ended(second.client, job)
    assert found == ended(first.client, job)
    assert found["status"] == "done"
    gold = Bucket("gold", "GOLD_BUCKET")
    name = f"{MODEL}/{job}.json"
    wait_for(lambda: name in gold.names())
    written = json.loads(gold.read(name))
    assert written.pop("execution") == {"id": "execution 7"}
    assert written == found
    ends = [line for line in second.client.get(f"/jobs/{job}/events").text.split("\n\n") if line]
    assert len(ends) == 1
    assert "[execution id execution 7] touchstone serves" in first.log.read_text()


@pytest.mark.nightly
def test_an_answer_of_one_service_is_known_to_the_other_until_the_cache_is_gone(pair, cache):
    first, second = pair
    asked = fresh()
    here = first.client.post("/predict", json=asked)
    wait_for(lambda: second.client.post("/predict", json=asked).content == here.content)
    assert metric(
        second.client, f'touchstone_cached_answers_total{{model="{MODEL}",where="redis"}}'
    )
    verdict = f'touchstone_verdicts_total{{model="{MODEL}",verdict="accept"}}'
    before = metric(second.client, verdict)
    assert second.client.post("/predict", json=asked).content == here.content
    assert metric(second.client, verdict) == before + 1  # wherever it is from, it is counted
    cache.kill()
    started = time.monotonic()
    assert second.client.post("/predict", json=fresh()).status_code == 200
    assert time.monotonic() - started < 5
    wait_for(lambda: second.client.get("/health").json()["stores"]["cache"] == "not reachable")
    assert second.client.get("/ready").status_code == 200
    assert metric(second.client, 'touchstone_store_reachable{store="cache"}') == 0
    assert "cache: not reachable, the service goes on without" in second.log.read_text()
    cache.start()
    wait_for(lambda: second.client.get("/health").json()["stores"]["cache"] == "reachable")
    asked = fresh()
    here = first.client.post("/predict", json=asked)
    wait_for(lambda: second.client.post("/predict", json=asked).content == here.content)


@pytest.mark.nightly
def test_a_job_of_one_service_can_be_cancelled_at_the_other(pair):
    first, second = pair
    pid = first.of(MODEL)
    os.kill(pid, signal.SIGSTOP)
    one, two = (first.client.post("/jobs", json=fresh()).json()["job"] for _ in range(2))
    assert second.client.delete(f"/jobs/{two}").json()["status"] == "cancelled"
    wait_for(lambda: metric(first.client, f'touchstone_queue_length{{model="{MODEL}"}}') >= 1)
    os.kill(pid, signal.SIGCONT)
    assert ended(first.client, one)["status"] == "done"
    assert ended(first.client, two)["status"] == "cancelled"


@pytest.mark.nightly
def test_versions_of_one_service_are_those_of_the_other_and_of_a_machine_elsewhere(
    pair, artefact, bucket, tmp_path
):
    first, second = pair
    aside = Versions(tmp_path / "aside")
    folder = aside.folder / MODEL / aside.store(artefact, MODEL)
    aside.close()
    sent = [("files", (file.name, file.read_bytes())) for file in folder.iterdir()]
    made = first.client.post(f"/models/{MODEL}/versions", files=sent)
    assert made.status_code == 201, made.text
    where = f"{made.headers['location']}/stage"
    tag = {"If-Match": made.headers["etag"]}
    move = {"stage": "Staging", "why": "it answers"}
    moved = second.client.post(where, json=move, headers=tag)
    assert moved.json()["stage"] == "Staging", moved.text
    again = first.client.post(where, json=move, headers=tag)
    assert again.status_code == 412
    history = first.client.get(f"/models/{MODEL}/versions").json()["history"]
    assert second.client.get(f"/models/{MODEL}/versions").json()["history"] == history
    elsewhere = Versions(tmp_path / "there", bucket=Bucket(f"{bucket}/served", "ARTIFACTS_BUCKET"))
    assert [each._asdict() for each in elsewhere.history(MODEL)] == history
    elsewhere.close()


@pytest.mark.nightly
def test_a_database_that_is_gone_for_a_while_costs_no_job(pair, server):
    first, second = pair
    pid = first.of(MODEL)
    os.kill(pid, signal.SIGSTOP)
    jobs = [first.client.post("/jobs", json=fresh()).json()["job"] for _ in range(3)]
    server.kill()
    os.kill(pid, signal.SIGCONT)
    assert second.client.post("/predict", json=fresh()).status_code == 200
    for method, path, body in (("POST", "/jobs", fresh()), ("GET", f"/jobs/{jobs[0]}", None)):
        refused = second.client.request(method, path, json=body)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert "the database cannot be reached" in refused.json()["detail"]
    wait_for(lambda: first.client.get("/health").json()["stores"]["database"] != "reachable")
    server.start()
    assert {ended(second.client, job)["status"] for job in jobs} == {"done"}
    wait_for(lambda: second.client.get("/health").json()["stores"]["database"] == "reachable")


@pytest.mark.nightly
def test_what_a_killed_service_had_accepted_is_done_by_the_other(pair):
    first, second = pair
    pids = [first.client.get("/health").json()["process"], first.of(MODEL)]
    os.kill(pids[1], signal.SIGSTOP)
    jobs = [first.client.post("/jobs", json=fresh()).json()["job"] for _ in range(5)]
    first.process.kill()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    first.process.wait()
    started = time.monotonic()
    assert {ended(second.client, job)["status"] for job in jobs} == {"done"}
    assert time.monotonic() - started < 10


# A step of a pipeline -----------------------------------------------------------------------------

EXECUTION = {
    "PIPELINE_EXECUTION_ID": "arn:aws:states:eu-central-1:1:execution:nightly:7",
    "EXECUTION_START_TIME": "2026-01-02T03:04:05Z",
}
SAID = {"id": EXECUTION["PIPELINE_EXECUTION_ID"], "started": EXECUTION["EXECUTION_START_TIME"]}


def test_a_run_names_the_execution_of_the_pipeline_that_made_it(project, monkeypatch):
    for name, value in EXECUTION.items():
        monkeypatch.setenv(name, value)
    with inside(project):
        results = Results(Path("results") / MODEL)
        file = results.report("posterior_failure_mode_report")
        before = reports.read(file)
        said = {"settings", "seed", "inputs"}
        lineage = {name: before["lineage"][name] for name in said}
        paths = {role: each["path"] for role, each in lineage.pop("inputs").items()}
        body = {name: value for name, value in before.items() if name not in NOT_OF_THE_BODY}
        made = reports.lineage(**lineage, inputs=paths)
        after = reports.write(
            file, before["kind"], body, before["lineage"] | made, before["timing"]
        )
        (row,) = [row for row in runs.rows() if row["run"] == MODEL]
    assert after["lineage"]["execution"] == SAID
    assert (row["execution"], row["execution_started"]) == tuple(SAID.values())
    assert reports.reproducible(after) == reports.reproducible(before)


@pytest.mark.nightly
def test_a_pipeline_asks_whether_the_models_are_ready_and_goes_on(project):
    def asked():
        variables = environment(project) | EXECUTION | {"EXECUTION_MODE": "step-functions"}
        command = [TOUCHSTONE, "serve", "--model", MODEL]
        return subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True)

    done = asked()
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["ready"], said["execution"]) == (True, SAID)
    file = project / f"results/{MODEL}/reports/posterior_failure_mode_report.json"
    whole = file.read_text()
    try:
        file.write_text(whole.replace('"alpha"', '"beta"', 1))
        done = asked()
    finally:
        file.write_text(whole)
    assert done.returncode == 1, done.stderr
    assert not json.loads(done.stdout)["ready"]


# What is wrong at the start -----------------------------------------------------------------------


def refused(project, **variables):
    """What `touchstone serve` says of variables, before anything is started."""
    with inside(project):
        done = CliRunner().invoke(app, ["serve", "--model", MODEL], env=variables)
    assert done.exit_code == 2, done.output
    assert done.stderr.count("\n") == 1, done.stderr
    assert PASSWORD not in done.stderr
    return done.stderr


def test_a_database_that_does_not_let_in_or_is_not_there_ends_the_start(project, database):
    wrong = database.replace(PASSWORD, "wrong")
    assert "password authentication failed" in refused(project, DATABASE_URL=wrong)
    absent = database.replace("/postgres", "/nothing")
    assert 'database "nothing" does not exist' in refused(project, DATABASE_URL=absent)
    for url in (
        "nonsense",
        f"nonsense://a:{PASSWORD}@b/c",
        f"postgresql://a:{PASSWORD}@127.0.0.1:x/c",
    ):
        assert "DATABASE_URL: is no URL" in refused(project, DATABASE_URL=url)
    nobody = f"postgresql://a:{PASSWORD}@127.0.0.1:1/c"
    assert "connection to host 127.0.0.1 and port 1" in refused(project, DATABASE_URL=nobody)
    assert "MODEL_REGISTRY_TABLE" in refused(project, MODEL_REGISTRY_TABLE="jobs; drop table")
    assert "MODEL_REGISTRY_TABLE" in refused(project, MODEL_REGISTRY_TABLE="api_keys")


def test_a_cache_that_does_not_let_in_ends_the_start(project, cache):
    wrong = cache.url.replace(PASSWORD, "wrong")
    assert "CACHE_URL: the server lets nobody in" in refused(project, CACHE_URL=wrong)
    assert "CACHE_URL: is no URL" in refused(project, CACHE_URL=f"http://:{PASSWORD}@127.0.0.1")


def test_a_bucket_that_does_not_let_in_or_is_not_there_ends_the_start(project, bucket):
    for variable in ("ARTIFACTS_BUCKET", "GOLD_BUCKET"):
        said = refused(project, **{variable: "nobody-made-this"})
        assert f"{variable}: s3://nobody-made-this: NoSuchBucket" in said
        assert f"{variable}: '../a' is no bucket" in refused(project, **{variable: "../a"})
    url = os.environ["AWS_ENDPOINT_URL"]
    httpx.post(f"{url}/moto-api/reset-auth", content=b"0").raise_for_status()
    try:
        assert "InvalidAccessKeyId" in refused(project, ARTIFACTS_BUCKET=bucket)
    finally:
        httpx.post(f"{url}/moto-api/reset-auth", content=b"inf").raise_for_status()
    nobody = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "ARTIFACTS_BUCKET": bucket}
    assert "error sending request" in refused(project, **nobody)
