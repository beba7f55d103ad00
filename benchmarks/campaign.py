"""What the service withstands: kills under load, a long soak, a fuzz of its schema, and attacks.

    python benchmarks/campaign.py [kill | soak | fuzz | attacks] [--rounds N] [--requests N]

Each part serves the released artefact of `interface` in a folder of its own. Without a name, all
parts run with small numbers. What was found is printed beside what is wanted; the exit code is 1
where an answer was lost, doubled or wrong, memory grew, or a request failed.
"""

import argparse
import itertools
import os
import random
import re
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.client import HTTPResponse
from pathlib import Path

import httpx
import numpy as np

from touchstone import contract
from touchstone.io import artifacts, reports
from touchstone.stages import checkpoints, scaffold

MODEL, OTHER = "interface", "galaxy"
TRAINED = "campaign_model"  # new, and as it is scaffolded: it learns in seconds
ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
TOUCHSTONE = Path(sys.executable).with_name("touchstone")
# What a model takes of values and interventions is not said by the schema, and 501 is an answer.
BY_MODEL = ("/predict", "/predict/{model_id}", "/jobs", "/api/inference/counterfactual")
_numbers = itertools.count()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=[*PARTS, "all"], default="all")
    parser.add_argument("--rounds", type=int, default=6, help="kills")
    parser.add_argument("--requests", type=int, default=1000, help="of the soak and the fuzz")
    arguments = parser.parse_args()
    chosen = PARTS if arguments.part == "all" else {arguments.part: PARTS[arguments.part]}
    bad = []
    for name, part in chosen.items():
        print(f"\n{name}")
        with tempfile.TemporaryDirectory(prefix="touchstone-campaign-") as folder:
            bad += part(arguments, Path(folder))
    print("\n" + ("\n".join(f"WRONG: {each}" for each in bad) or "nothing went wrong"))
    return 1 if bad else 0


@contextmanager
def serving(
    folder: Path, *more: str, model: str = MODEL, models: str = ""
) -> Generator[httpx.Client]:
    """A running service, and a client of it.

    Args:
        folder: It works there.
        more: Options.
        model: That is served.
        models: Folder of further models.
    """
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    command = [str(TOUCHSTONE), "serve", "--model", model, "--port", str(port), *more]
    with (folder / "serve.log").open("a") as log:
        known = os.environ | ({"TOUCHSTONE_MODELS": models} if models else {})
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=known)
    try:
        with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=120) as client:
            print(f"  ready after {seconds_to_ready(client):.1f} s")
            yield client
    finally:
        process.terminate()
        process.wait(20)


def seconds_to_ready(client: httpx.Client) -> float:
    """Wait until the workers answer."""
    started = time.monotonic()
    while time.monotonic() - started < 300:
        with suppress(httpx.TransportError):
            if client.get("/ready").status_code == 200:
                return time.monotonic() - started
        time.sleep(0.05)
    raise SystemExit("the service is not ready after 300 s")


def question() -> dict:
    """One that was not asked before."""
    return {"model_id": MODEL, "inputs": {"film": "film 3", "Tg_num": 400 + next(_numbers) / 1000}}


def processes(client: httpx.Client) -> dict[str, int]:
    """Those that may be killed."""
    (worker,) = client.get("/ready").json()["models"][MODEL]["workers"]
    return {"worker": worker, "service": client.get("/health").json()["process"]}


def kill(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """Kill workers, serving processes and trainings while clients send jobs.

    No job is lost, none doubled.
    """
    accepted: dict[str, tuple[dict, str]] = {}  # by token: what was asked, and the job
    stop = threading.Event()

    def sending(base: str) -> None:
        with httpx.Client(base_url=base, timeout=20) as client:
            while not stop.is_set():
                asked, token = question(), uuid.uuid4().hex
                while True:  # a client that hears nothing sends the same again
                    with suppress(httpx.TransportError):
                        sent = client.post("/jobs", json=asked, headers={"Idempotency-Key": token})
                        if sent.status_code == 202:
                            accepted[token] = asked, sent.json()["job"]
                            break
                    time.sleep(0.05)
                time.sleep(0.2)

    recovery, bad, trainings = [], [], []
    models = _project(folder)
    with (
        serving(folder, "--queue", "100000", models=models) as client,
        ThreadPoolExecutor(4) as threads,
    ):
        for _ in range(4):
            threads.submit(sending, str(client.base_url))
        try:
            for number in range(arguments.rounds):
                time.sleep(random.uniform(0.5, 1.5))
                name = ("worker", "service", "job")[number % 3]
                if name == "job":
                    trainings.append(_killed_training(client, folder))
                    continue
                os.kill(processes(client)[name], signal.SIGKILL)
                started = time.monotonic()
                while not _answers(client):
                    time.sleep(0.02)
                recovery.append(time.monotonic() - started)
        finally:
            stop.set()
        threads.shutdown()
        end = time.monotonic() + 600
        for asked, job in accepted.values():
            found = client.get(f"/jobs/{job}").json()
            while found["status"] == "waiting" and time.monotonic() < end:
                time.sleep(0.1)
                found = client.get(f"/jobs/{job}").json()
            if found["status"] != "done":
                bad.append(f"job {job} is {found['status']}")
                continue
            again = report_of(client, asked)
            if reports.reproducible(again) != reports.reproducible(found["report"]):
                bad.append(f"job {job} has another answer than the same question now")
        for job in trainings:
            bad += _trained(client, job, end)
        with closing(sqlite3.connect(folder / "results/registry/store.sqlite")) as store:
            (kept,) = store.execute("select count(*) from jobs").fetchone()
    jobs = {job for _, job in accepted.values()} | {*trainings}
    count = len(accepted) + len(trainings)
    if len(jobs) != count:
        bad.append("two tokens have one job")
    if kept != count:
        bad.append(f"{kept} jobs are kept of {count} that were accepted")
    slowest = max(recovery)
    print(
        f"  {arguments.rounds} kills, {len(accepted)} questions and {len(trainings)} trainings "
        f"accepted, {len(bad)} lost or wrong"
    )
    print(f"  ready again after {np.median(recovery):.1f} s, at most {slowest:.1f} s (wanted: 10)")
    return bad


def _project(folder: Path) -> str:
    """Make a folder one in which a new model can be trained; returns the folder of the model."""
    for name in (
        "Snakefile",
        "config",
        "environment.yml",
        "notebooks",
        "profiles",
        "src",
        "workflow",
    ):
        (folder / name).symlink_to(ROOT / name)
    models = folder / "models"
    models.mkdir()
    scaffold.write(TRAINED, models)
    return str(models)


def _killed_training(client: httpx.Client, folder: Path) -> str:
    """Start a training, and kill its processes once they are at work."""
    asked = {"kind": "train", "model_id": TRAINED}
    job = client.post("/jobs", json=asked).json()["job"]
    leader = folder / "results/registry/.jobs" / job / "run.pid"
    end = time.monotonic() + 600
    while not leader.exists() and time.monotonic() < end:  # one after the other is trained
        time.sleep(0.1)
    time.sleep(random.uniform(0.5, 3.0))
    with suppress(ProcessLookupError):  # it may have ended
        os.killpg(int(leader.read_text()), signal.SIGKILL)
    return job


def _trained(client: httpx.Client, job: str, end: float) -> list[str]:
    """What is wrong with a training whose processes were killed: it was to come to one end."""
    while (found := client.get(f"/jobs/{job}").json())["status"] in ("waiting", "running"):
        if time.monotonic() > end:
            break
        time.sleep(0.5)
    if found["status"] != "done":
        return [f"training {job} is {found['status']}"]
    told = client.get(f"/jobs/{job}/events").text
    starts, ends = (told.count(f"event: {name}\n") for name in ("start", "end"))
    print(f"  a training whose processes were killed was started {starts} times, and is done")
    return [] if ends == 1 else [f"training {job} came to {ends} ends"]


def report_of(client: httpx.Client, asked: dict) -> dict:
    """What a question is answered now, that of its job where it takes long."""
    content = client.post("/predict", json=asked).json()
    while "job" in content and "report" not in content:
        time.sleep(0.1)
        content = client.get(f"/jobs/{content['job']}").json()
    return content.get("report", content)


def _answers(client: httpx.Client) -> bool:
    """Whether every worker is there and has answered its canary."""
    with suppress(httpx.TransportError):
        return client.get("/ready").status_code == 200
    return False


def soak(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """Mixed requests: no error, and no memory that grows."""
    known = question()

    def requests(client: httpx.Client):
        yield client.post("/predict", json=question()), 200
        yield client.post("/predict", json=known), 200
        yield client.post("/predict", json={"model_id": MODEL, "inputs": {"x": 1}}), 422
        several = [question()["inputs"] for _ in range(3)]
        yield client.post("/predict", json={"model_id": MODEL, "inputs": several}), 200
        yield client.post("/jobs", json=question()), 202
        yield client.get("/models"), 200
        yield client.get(f"/models/{MODEL}/versions"), 200
        yield client.get("/metrics"), 200
        yield client.get("/"), 200
        yield client.get("/nothing"), 404

    bad, sizes = [], []
    with serving(folder, "--cache", "1") as client:  # which is full before memory is measured
        for number in range(0, arguments.requests, 10):
            for response, wanted in requests(client):
                if response.status_code != wanted:
                    bad.append(f"{response.request.url.path}: {response.status_code}")
            if number % max(10, arguments.requests // 20 // 10 * 10) == 0:
                sizes.append(sum(_resident(pid) for pid in processes(client).values()))
    # The first fifth warms up: caches that have a bound are filled.
    start, end = np.mean(sizes[4:7]), np.mean(sizes[-3:])
    growth = end / start - 1
    print(f"  {arguments.requests} requests, {len(bad)} unexpected answers")
    print(f"  memory {start / 2**20:.0f} to {end / 2**20:.0f} MiB: {growth:+.1%} (wanted: < 5 %)")
    return bad + ([f"memory grew by {growth:.1%}"] if growth >= 0.05 else [])


def _resident(pid: int) -> int:
    """Bytes of memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def fuzz(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """Requests that schemathesis makes from the served schema, and many that break it."""
    uvx = shutil.which("uvx") or shutil.which("uvx", path=str(Path(".uv/bin").absolute()))
    if uvx is None:
        print("  not run: uvx is not there, which fetches schemathesis")
        return []
    bad, total = [], 0
    with serving(folder) as client:
        # Of streams and uploads the framework of the fuzz knows no valid example.
        by_model = "|".join(re.escape(path) for path in BY_MODEL)
        for chosen in (
            ["--exclude-path-regex", f"/events$|^({by_model})$"],
            ["--include-path-regex", f"^({by_model})$", "--exclude-checks",
             "positive_data_acceptance,not_a_server_error"],
        ):  # fmt: skip
            share = max(1, arguments.requests // 40)
            command = [uvx, "schemathesis", "run", f"{client.base_url}/openapi.json"]
            command += ["-n", str(share), "--seed", "1", "--continue-on-failure", "--no-color"]
            done = subprocess.run([*command, *chosen], cwd=folder, capture_output=True, text=True)
            said = re.search(r"(\d+) generated", done.stdout)
            total += int(said[1]) if said else 0
            bad += re.findall(r"❌ (ST.*)", done.stdout)
            if done.returncode not in (0, 1) or said is None:
                bad.append(f"schemathesis ended with {done.returncode}: {done.stderr[-300:]}")
    failures = (folder / "serve.log").read_text().count("a request failed")
    bad += [f"{failures} requests failed with 500"] if failures else []
    print(f"  {total} cases, {len(bad)} kinds of violation, {failures} failures of the service")
    return bad


def attacks(_: argparse.Namespace, folder: Path) -> list[str]:
    """What is meant to break in, and what answers it."""
    bad = []
    with serving(folder) as client:
        versions = f"/models/{MODEL}/versions"
        while len(client.get(versions).json()["history"]) < 3:  # the release registers itself
            time.sleep(0.1)
        for what, method, path, more, wanted in _attacks(versions):
            bad += _refused(what, client.request(method, path, **more), wanted)
        for what, files in _artefacts(folder).items():
            bad += _refused(what, _sent(client, versions, files), (422,))
        bad += _refused("promoted without a control", *_without_control(client, versions, folder))
        bad += _row("a body of 5 GB, announced", *_announced(client, 5 * 2**30), (413,))
        bad += _row("a body of 5 GB, in chunks", *_in_chunks(client, "/predict", 5 * 2**30), (413,))
        bad += _row(
            "an artefact of 5 GB, in chunks", *_in_chunks(client, versions, 5 * 2**30), (413,)
        )
        bad += _row("a body that comes slowly", *_slow(client), (408,))
    bad += _row("a link for a file", *_linked(folder), (2,))
    for each in ("elsewhere", "guarded"):
        (folder / each).mkdir()
    command = [str(TOUCHSTONE), "serve", "--host", "0.0.0.0", "--port", "0", "--model", MODEL]
    said = _said(command, folder / "elsewhere")
    bad += _row("others reach it, and there is no key", *said, (2,))
    return bad + _keys(folder / "guarded")


def _said(command: list[str], folder: Path, **variables: str) -> tuple[int, str]:
    """Exit code of a command, and its complaint."""
    known = os.environ | variables
    done = subprocess.run(command, cwd=folder, env=known, capture_output=True, text=True)
    return done.returncode, done.stderr


def _refused(what: str, response: httpx.Response, wanted: tuple[int, ...]) -> list[str]:
    detail = response.text
    with suppress(ValueError, KeyError):
        content = response.json()
        detail = "; ".join([content["detail"], *content.get("problems", [])])
    return _row(what, response.status_code, detail, wanted)


def _sent(client: httpx.Client, versions: str, folder: Path) -> httpx.Response:
    """Upload the files of a folder as an artefact."""
    files = [("files", (file.name, file.read_bytes())) for file in folder.iterdir()]
    return client.post(versions, files=files)


def _released(place: Path, model_id: str = MODEL) -> Path:
    """A copy of a released artefact."""
    return shutil.copytree(contract.folders()[model_id] / checkpoints.PRETRAINED, place)


def _resigned(folder: Path) -> Path:
    """Make the manifest of an artefact that of its files, as whoever changed them can."""
    manifest = artifacts.read_json(folder / artifacts.MANIFEST)
    artifacts.write_manifest(
        folder, [*manifest["files"]], manifest["settings"], manifest["lineage"]
    )
    return folder


def _artefacts(folder: Path) -> dict[str, Path]:
    """Artefacts that are none, by what was done to them."""
    names = ("a byte that was flipped", "a pickle", "of another model", "files of another model",
             "of an earlier release")  # fmt: skip
    flipped, pickled, other, mixed, old = (folder / f"attack_{k}" for k in range(len(names)))
    data = next(_released(flipped).glob("*.npz"))
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    (_released(pickled) / data.name).write_bytes(b"\x80\x04N.")
    _resigned(pickled)
    _released(other, OTHER)
    shutil.copyfile(other / checkpoints.GUARDRAIL, _released(mixed) / checkpoints.GUARDRAIL)
    _resigned(mixed)
    rule = _released(old) / checkpoints.GUARDRAIL
    artifacts.write_json(rule, artifacts.read_json(rule) | {"schema_version": 0})
    _resigned(old)
    return dict(zip(names, (flipped, pickled, other, mixed, old), strict=True))


def _without_control(
    client: httpx.Client, versions: str, folder: Path
) -> tuple[httpx.Response, tuple[int, ...]]:
    """Ask for Production with a certificate whose controls are gone, well signed."""
    place = _released(folder / "attack_control")
    file = place / checkpoints.CERTIFICATE
    said = artifacts.read_json(file)
    said["control"] |= {"stress": {"passed": True, "tests": []}, "guardrail": []}
    own = ("schema_version", "kind", "lineage", "timing", "sha256")
    body = {name: value for name, value in said.items() if name not in own}
    artifacts.write_json(file, reports.make("certificate", body, said["lineage"], said["timing"]))
    moved = _sent(client, versions, _resigned(place))
    where = f"{moved.headers['location']}/stage"
    for stage in ("Staging", "Production"):
        tag = {"If-Match": moved.headers["etag"]}
        moved = client.post(where, json={"stage": stage, "why": "x"}, headers=tag)
    return moved, (409,)


def _linked(folder: Path) -> tuple[int, str]:
    """Add an artefact, one of whose files is a link to a file of somebody else."""
    place = _released(folder / "attack_link")
    data = next(place.glob("*.npz"))
    data.rename(folder / data.name)
    data.symlink_to(folder / data.name)
    command = [str(TOUCHSTONE), "versions", "add", MODEL]
    return _said(command, folder, **{f"{MODEL.upper()}_CHECKPOINT": str(place)})


def _keys(folder: Path) -> list[str]:
    """Ask a service that others reach with keys that open nothing, or not this."""
    made = [str(TOUCHSTONE), "keys", "add", "somebody", "--scope", "read"]
    keys = [subprocess.check_output(made, cwd=folder, text=True).strip() for _ in range(2)]
    subprocess.run(
        [str(TOUCHSTONE), "keys", "revoke", keys[1].split("_")[1]], cwd=folder, check=True
    )
    train, versions = {"kind": "train", "model_id": MODEL}, f"/models/{MODEL}/versions"
    rows = [
        ("no key", None, "GET", "/models", None, 401),
        ("a key with another end", f"{keys[0]}x", "GET", "/models", None, 401),
        ("a key that was revoked", keys[1], "GET", "/models", None, 401),
        ("a key that may read, for a question", keys[0], "POST", "/predict", question(), 403),
        ("a key that may read, for a training", keys[0], "POST", "/jobs", train, 403),
        ("a key that may read, for a version", keys[0], "POST", versions, {}, 403),
    ]  # fmt: skip
    bad = []
    with serving(folder, "--host", "0.0.0.0", "--rate", "5") as client:
        for what, key, method, path, body, wanted in rows:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            response = client.request(method, path, json=body, headers=headers)
            bad += _refused(what, response, (wanted,))
        tried = [client.get("/models", headers={"Authorization": f"Bearer {k}"}) for k in range(60)]
        return bad + _refused("sixty keys, one after the other", tried[-1], (429,))


def _row(what: str, status: int, detail: str, wanted: tuple[int, ...]) -> list[str]:
    print(f"  {what:40} {status:3}  {' '.join(detail.split())[:90]}")
    return [] if status in wanted else [f"{what}: {status}, expected {wanted}"]


def _attacks(versions: str):
    """Name, method, path, what is sent, and the answers that refuse it."""
    form = {"Content-Type": "application/json"}

    def asked(content: bytes):
        return {"content": content, "headers": form}

    def files(*sent):
        return {"files": [("files", each) for each in sent]}

    def moved(stage: str, **headers: str):
        return {"json": {"stage": stage, "why": "x"}, "headers": headers}

    rule, listing = ("guardrail.json", b"{}"), b'{"files": {"/etc/passwd": {"sha256": ""}}}'
    record = {"model_id": MODEL, "record": {"name": "../x.csv", "data": "1"}}
    command = {"kind": "train", "model_id": MODEL, "settings": {"data": "$(id)"}}
    elsewhere = {"Origin": "https://example.org"}
    zipped = ("manifest.json", b"PK\x03\x04" + bytes(99))
    return [
        ("a path as the name of a model", "GET", "/models/..%2f..%2fetc", {}, (404, 422)),
        ("a path as the name of a record", "POST", "/predict", {"json": record}, (422,)),
        ("a path as the name of a file", "POST", versions, files(("../../x.json", b"{}")), (422,)),
        ("a hidden file", "POST", versions, files((".netrc", b"")), (422,)),
        ("an artefact without a manifest", "POST", versions, files(rule), (422,)),
        ("an archive for an artefact", "POST", versions, files(zipped, rule), (422,)),
        ("a manifest that lists a path", "POST", versions,
         files(("manifest.json", listing), rule), (422,)),
        ("a body of 9 MB", "POST", "/predict", asked(b" " * (9 * 2**20)), (413,)),
        ("NaN", "POST", "/predict",
         asked(b'{"model_id": "interface", "inputs": {"Tg_num": NaN}}'), (422,)),
        ("a hundred thousand brackets", "POST", "/predict", asked(b"[" * 100_000), (422,)),
        ("a form of another site", "POST", "/predict", {"json": {}, "headers": elsewhere}, (403,)),
        ("another name for this machine", "GET", "/models",
         {"headers": {"Host": "example.org"}}, (400,)),
        ("a move without If-Match", "POST", f"{versions}/1/stage", moved("Archived"), (428,)),
        ("a move of what was moved meanwhile", "POST", f"{versions}/1/stage",
         moved("Archived", **{"If-Match": '"1"'}), (412,)),
        ("a move that was not earned", "POST", f"{versions}/1/stage",
         moved("Staging", **{"If-Match": '"3"'}), (409,)),
        ("a command in a setting", "POST", "/jobs", {"json": command}, (422,)),
        ("a path as the number of a job", "GET", "/jobs/..%2fstore.sqlite", {}, (404, 422)),
    ]  # fmt: skip


def _announced(client: httpx.Client, size: int) -> tuple[int, str]:
    """What answers a body that is announced, and never sent."""
    lines = [
        f"POST /models/{MODEL}/versions HTTP/1.1",
        f"Host: {HOST}",
        f"Content-Length: {size}",
        "Content-Type: multipart/form-data; boundary=x",
    ]
    with socket.create_connection((HOST, client.base_url.port), timeout=30) as wire:
        wire.sendall("\r\n".join([*lines, "", ""]).encode())
        return _answer(wire)


def _in_chunks(client: httpx.Client, path: str, size: int) -> tuple[int, str]:
    """What answers a body whose length is not announced, and after how much of it."""
    kind = {"/predict": "application/json"}.get(path, "multipart/form-data; boundary=x")
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {kind}\r\n"
    first = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.npz"\r\n\r\n'
    part = b" " * 2**20
    with socket.create_connection((HOST, client.base_url.port), timeout=60) as wire:
        wire.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        sent = 0
        with suppress(ConnectionError):
            wire.sendall(f"{len(first):x}\r\n".encode() + first + b"\r\n")
            while sent < size and not select.select([wire], [], [], 0)[0]:
                wire.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                sent += len(part)
        status, text = _answer(wire)
    return status, f"after {sent / 2**20:.0f} MiB: {text}"


def _slow(client: httpx.Client) -> tuple[int, str]:
    """What answers a body of which a byte comes every second."""
    head = f"POST /predict HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((HOST, client.base_url.port), timeout=60) as wire:
        wire.sendall(f"{head}Content-Length: 1000\r\n\r\n".encode())
        while not select.select([wire], [], [], 1)[0]:
            wire.sendall(b" ")
        return _answer(wire)


def _answer(wire: socket.socket) -> tuple[int, str]:
    response = HTTPResponse(wire)
    response.begin()
    return response.status, response.read().decode()


PARTS = {"attacks": attacks, "kill": kill, "soak": soak, "fuzz": fuzz}

if __name__ == "__main__":
    raise SystemExit(main())
