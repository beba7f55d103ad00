"""What HTTP costs, beside the stage in one process, a bare echo, and two servers of models.

    python benchmarks/bench_serving.py [--requests 300] [--alone]

The released artefact of `interface` is asked by its form: in this process, by `touchstone serve`,
by LitServe and by MLServer, each of the two in an environment of its own that is made for the run
(`--alone` leaves both out). Calls of every kind take turns, so that whatever else the machine does
meets all of them; the time of processors says what a call costs where nothing else runs.
"""

import argparse
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
from campaign import HOST, MODEL, processes, question, serving

from touchstone.stages import answers

ROOT = Path(__file__).parents[1]
_WARM, _SECONDS = 10, 3.0  # calls before any is counted; how long calls follow each other at once
_ECHO = """
import sys
import fastapi, pydantic, uvicorn

class Asked(pydantic.BaseModel):
    model_id: str
    inputs: dict[str, float | str]

app = fastapi.FastAPI()

@app.post("/predict")
async def echo(asked: Asked) -> Asked:
    return asked

uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level="warning")
"""
_LITSERVE = f"""
import sys
import litserve
from touchstone.stages import answers

class Api(litserve.LitAPI):
    def setup(self, device):
        self.model = answers.load({MODEL!r})

    def decode_request(self, request):
        return request["inputs"]

    def predict(self, inputs):
        return self.model.predict(**inputs).report

    def encode_response(self, report):
        return report

if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
"""
_MLSERVER = f"""
import json
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceResponse
from touchstone.stages import answers

class Runtime(MLModel):
    async def load(self):
        self.model = answers.load({MODEL!r})
        return True

    async def predict(self, payload):
        (text,) = StringCodec.decode_input(payload.inputs[0])
        report = json.dumps(self.model.predict(**json.loads(text)).report)
        return InferenceResponse(
            model_name=self.name, outputs=[StringCodec.encode_output("report", [report])]
        )
"""


class Kind(NamedTuple):
    """A way to ask: what is called, and the processes that work for it."""

    name: str
    call: Callable[[], object]
    pids: Callable[[], list[int]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=300, help="of every kind")
    parser.add_argument("--alone", action="store_true", help="leave the other servers out")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="touchstone-serving-") as name,
        ExitStack() as servers,
    ):
        kinds = _ours(Path(name), servers)
        if not arguments.alone:
            kinds += _others(Path(name), servers)
        _show(kinds, *_measured(kinds, arguments.requests))
    return 0


def _ours(folder: Path, servers: ExitStack) -> list[Kind]:
    """The stage, the service with questions that are new and with one that is known, the echo."""
    here = Path.cwd()
    os.chdir(folder)
    local = answers.load(MODEL)
    os.chdir(here)
    client, known = servers.enter_context(serving(folder)), question()
    ours = [os.getpid(), *processes(client).values()]
    bare, process = servers.enter_context(_started([sys.executable, "-c", _ECHO], folder))
    return [
        Kind("stage", lambda: local.predict(**question()["inputs"]), lambda: ours[:1]),
        Kind("touchstone, new", lambda: _asked(client, question()), lambda: ours),
        Kind("touchstone, known", lambda: _asked(client, known), lambda: ours),
        Kind("bare echo", lambda: _asked(bare, known), lambda: [os.getpid(), *_family(process)]),
    ]


def _others(folder: Path, servers: ExitStack) -> list[Kind]:
    """LitServe, and MLServer with its memory of answers on."""
    uv = shutil.which("uv") or str(ROOT / ".uv/bin/uv")
    lit = _environment(uv, folder / "litserve", "litserve")
    # MLServer wants an older framework, which answers nothing here: the model alone is imported.
    ml = _environment(uv, folder / "mlserver", "mlserver", "fastapi<0.116")
    (folder / "lit.py").write_text(_LITSERVE)
    lit_client, lit_process = servers.enter_context(_started([str(lit), "lit.py"], folder))
    place = folder / "served"
    place.mkdir()
    (place / "runtime.py").write_text(_MLSERVER)
    about = {"name": MODEL, "implementation": "runtime.Runtime", "cache_enabled": True}
    (place / "model-settings.json").write_text(json.dumps(about))

    def settings(port: int) -> list[str]:
        said = {"http_port": port, "grpc_port": _free(), "metrics_port": _free(), "host": HOST}
        said |= {"cache_enabled": True, "cache_size": 100, "parallel_workers": 1, "debug": False}
        (place / "settings.json").write_text(json.dumps(said))
        return []

    command = [str(ml.with_name("mlserver")), "start", "."]
    ml_client, ml_process = servers.enter_context(_started(command, place, settings))
    known = question()["inputs"]

    def asked(inputs: dict) -> None:
        one = {"name": "x", "shape": [1], "datatype": "BYTES", "data": [json.dumps(inputs)]}
        _asked(ml_client, {"inputs": [one]}, f"/v2/models/{MODEL}/infer")

    def of_ml() -> list[int]:
        return [os.getpid(), *_family(ml_process)]

    return [
        Kind(
            "LitServe, new",
            lambda: _asked(lit_client, question()),
            lambda: [os.getpid(), *_family(lit_process)],
        ),
        Kind("MLServer, new", lambda: asked(question()["inputs"]), of_ml),
        Kind("MLServer, known", lambda: asked(known), of_ml),
    ]


def _environment(uv: str, folder: Path, package: str, *overrides: str) -> Path:
    """The Python of an environment with a server and this project."""
    print(f"  an environment with {package} ...", flush=True)
    python = folder / "bin/python"
    said = folder.with_suffix(".txt")
    said.write_text("\n".join(overrides))
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    command = [uv, "pip", "install", "--quiet", "--python", python, "--override", said]
    subprocess.run([*command, package, "--editable", ROOT], check=True)
    return python


@contextmanager
def _started(
    command: list[str], folder: Path, prepare: Callable[[int], list[str]] = lambda port: [str(port)]
) -> Generator[tuple[httpx.Client, subprocess.Popen]]:
    """A server that answers at a port of its own, and a client of it."""
    port = _free()
    with (folder / "server.log").open("a") as log:
        process = subprocess.Popen([*command, *prepare(port)], cwd=folder, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=120) as client:
            end = time.monotonic() + 240
            while True:
                with suppress(httpx.TransportError):
                    client.get("/")
                    break
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit((folder / "server.log").read_text()[-3000:])
                time.sleep(0.1)
            yield client, process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def _free() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return free.getsockname()[1]


def _asked(client: httpx.Client, content: dict, path: str = "/predict") -> httpx.Response:
    """An answer; one that is none ends the run, but while a server loads its model."""
    response = client.post(path, json=content)
    for _ in range(600):
        if response.status_code not in (404, 503):
            break
        time.sleep(0.1)
        response = client.post(path, json=content)
    if response.status_code != 200:
        raise SystemExit(f"{path}: {response.status_code} {response.text[:500]}")
    return response


def _family(process: subprocess.Popen) -> list[int]:
    """A process and all that it started."""
    found = [process.pid]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def _worked(pids: list[int]) -> float:
    """Seconds that processes have had a processor for."""
    tasks = itertools.chain.from_iterable(Path(f"/proc/{pid}/task").iterdir() for pid in pids)
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _measured(kinds: list[Kind], count: int) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Seconds and processor seconds of calls, shape (kind, call), and calls in a second."""
    seconds, work = np.zeros((2, len(kinds), count))
    for kind in kinds:
        for _ in range(_WARM):
            kind.call()
    for number in range(count):
        for k, kind in enumerate(kinds):
            pids = kind.pids()
            before, started = _worked(pids), time.perf_counter()
            kind.call()
            seconds[k, number] = time.perf_counter() - started
            work[k, number] = _worked(pids) - before
    in_turn = []
    for kind in kinds:
        started, n = time.perf_counter(), 0
        while time.perf_counter() - started < _SECONDS:
            kind.call()
            n += 1
        in_turn.append(n / (time.perf_counter() - started))
    return seconds, work, in_turn


def _show(kinds: list[Kind], seconds: np.ndarray, work: np.ndarray, in_turn: list[float]) -> None:
    rng, count = np.random.default_rng(0), seconds.shape[1]
    print(f"\n  {count} calls of every kind, in ms; a second: calls one after the other")
    heads = f"{'p50':>7} {'p99':>7} {'processors':>10} {'a second':>9}"
    print(f"  {'':18} {heads} {'added p50 (95 %)':>22}")
    for k, kind in enumerate(kinds):
        p50, p99 = 1000 * np.quantile(seconds[k], [0.5, 0.99])
        paired = 1000 * (seconds[k] - seconds[0])
        medians = np.median(rng.choice(paired, (1000, count)), axis=1)
        low, high = np.quantile(medians, [0.025, 0.975])
        added = f"{np.median(paired):.1f} ({low:.1f} to {high:.1f})" if k else ""
        print(
            f"  {kind.name:18} {p50:7.2f} {p99:7.1f} {1000 * work[k].mean():10.2f} "
            f"{in_turn[k]:9.1f} {added:>22}"
        )
    rate = dict(zip((kind.name for kind in kinds), in_turn, strict=True))
    cost = dict(zip((kind.name for kind in kinds), work.mean(axis=1), strict=True))
    wanted = {
        ("touchstone, new", "stage"): 0.95,
        ("touchstone, known", "bare echo"): 0.5,
        ("touchstone, new", "LitServe, new"): 1,
        ("touchstone, new", "MLServer, new"): 1,
        ("touchstone, known", "LitServe, new"): 1,
        ("touchstone, known", "MLServer, known"): 1,
    }
    print("\n  calls in a second, and calls in a second of a processor, as ratios")
    for (ours, other), least in wanted.items():
        if other in rate:
            ratios = rate[ours] / rate[other], cost[other] / cost[ours]
            print(f"  {ours} / {other}: {ratios[0]:.2f}, {ratios[1]:.2f} (wanted: {least})")
    p99 = np.quantile(seconds[1], 0.99) - np.quantile(seconds[0], 0.99)
    print(f"  added to the stage at p99: {1000 * p99:.1f} ms (wanted: 20); at p50 wanted: 5")


if __name__ == "__main__":
    raise SystemExit(main())
