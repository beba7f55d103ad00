"""Who may ask a service that others reach, how often, and what is kept of their keys."""

import base64
import sqlite3
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from touchstone.cli import app
from touchstone.io.artifacts import ArtifactError
from touchstone.service import Settings
from touchstone.service.routes import create
from touchstone.service.store import ReusedError, Store


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project without results."""
    monkeypatch.chdir(tmp_path)
    return Path("results/registry")


def call(*arguments):
    return CliRunner().invoke(app, ["keys", *arguments], catch_exceptions=False)


def asking(**settings):
    """Sends requests to the application of a service, none of whose workers is started."""
    made = create(Settings(("interface",), **settings))
    transport = httpx.ASGITransport(made, raise_app_exceptions=False)

    async def send(method, path, **more):
        async with httpx.AsyncClient(transport=transport, base_url="http://lab:8080") as client:
            return await client.request(method, path, **more)

    import asyncio

    return lambda *arguments, **more: asyncio.run(send(*arguments, **more))


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def test_a_key_opens_what_its_scopes_say_until_it_is_revoked(folder):
    reader = call("add", "a reader", "--scope", "read").stdout.strip()
    everything = call("add", "an engineer").stdout.strip()
    ask = asking(host="0.0.0.0", folder=folder)
    assert ask("GET", "/health").status_code == 200
    assert ask("GET", "/models", headers=bearer(reader)).status_code == 200
    password = base64.b64encode(f"anybody:{reader}".encode()).decode()
    basic = {"Authorization": f"Basic {password}"}
    assert ask("GET", "/models", headers=basic).status_code == 200
    for wrong in ({}, bearer(reader + "x"), bearer("touchstone_0_x"), {"Authorization": "Basic x"}):
        refused = ask("GET", "/models", headers=wrong)
        assert refused.status_code == 401
        assert "Bearer" in refused.headers["www-authenticate"]
    training = {"kind": "train", "model_id": "interface"}
    for path, body in (("/predict", {}), ("/jobs", training), ("/models/interface/versions", {})):
        refused = ask("POST", path, json=body, headers=bearer(reader))
        assert (refused.status_code, "the key may read" in refused.text) == (403, True)
    asker = call("add", "an asker", "--scope", "infer").stdout.strip()
    assert ask("POST", "/predict", json={}, headers=bearer(asker)).status_code == 422
    assert ask("POST", "/jobs", json=training, headers=bearer(asker)).status_code == 403
    number = reader.split("_")[1]
    assert call("revoke", number).exit_code == 0
    assert call("revoke", number).exit_code == 2
    assert ask("GET", "/models", headers=bearer(reader)).status_code == 401
    assert ask("GET", "/models", headers=bearer(everything)).status_code == 200
    listed = call("list").stdout
    assert "a reader: read" in listed
    assert "revoked" in listed


def test_no_key_is_kept_that_could_be_used(folder):
    key = call("add", "a person").stdout.strip()
    secret = key.split("_", 2)[2]
    assert len(secret) >= 43  # 256 bits
    dump = "\n".join(sqlite3.connect(folder / "store.sqlite").iterdump())
    assert "a person" in dump
    assert secret not in dump
    assert call("add", "x", "--scope", "all").exit_code == 2


def test_who_asks_too_often_is_told_when_to_ask_again(folder):
    ask = asking(rate=5.0, folder=folder)
    here = {"Host": "127.0.0.1"}
    found = [ask("GET", "/models/none", headers=here).status_code for _ in range(40)]
    assert found[:20] == [404] * 20
    assert found.count(429) >= 15  # 5 a second come back
    refused = next(
        each for each in iter(lambda: ask("GET", "/models/x", headers=here), None)
        if each.status_code == 429
    )  # fmt: skip
    assert int(refused.headers["retry-after"]) == 1
    assert ask("GET", "/health", headers=here).status_code == 200


def test_who_tries_keys_is_stopped_like_everybody(folder):
    key = call("add", "a person").stdout.strip()
    ask = asking(host="0.0.0.0", rate=5.0, folder=folder)
    found = [ask("GET", "/models/x", headers=bearer(f"{key}{k}")).status_code for k in range(40)]
    assert found[:20] == [401] * 20
    assert found.count(429) >= 15
    assert ask("GET", "/models/x", headers=bearer(key)).status_code == 404  # who has one goes on


def test_metrics_have_their_historical_names_where_they_are_wanted(folder):
    here = {"Host": "127.0.0.1"}
    assert "acie_" not in asking(folder=folder)("GET", "/metrics", headers=here).text
    both = asking(folder=folder, historical=True)("GET", "/metrics", headers=here).text
    families = {family.name: family for family in text_string_to_metric_families(both)}
    added = {name.replace("acie_", "touchstone_") for name in families if "acie_" in name}
    assert added == {name for name in families if "touchstone_" in name}
    assert {"acie_inference_latency_seconds", "acie_physics_violations"} <= families.keys()
    (ready,) = families["acie_workers_ready"].samples
    assert (ready.labels, ready.value) == ({"model": "interface"}, 0.0)


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://example.org"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_a_page_of_another_site_changes_nothing(folder, headers):
    ask = asking(folder=folder)
    here = {"Host": "127.0.0.1:8080"}
    for path in ("/predict", "/models/interface/versions", "/jobs"):
        response = ask("POST", path, json={}, headers=here | headers)
        assert (response.status_code, "another site" in response.text) == (403, True)
    own = {"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-origin"}
    assert ask("POST", "/predict", json={}, headers=here | own).status_code == 422


def test_a_job_is_accepted_once_for_one_token(folder):
    store = Store.at(folder)
    first = store.accept({"kind": "predict", "model_id": "a"}, "a token")
    assert store.accept({"model_id": "a", "kind": "predict"}, "a token") == first
    with pytest.raises(ReusedError):
        store.accept({"kind": "predict", "model_id": "b"}, "a token")
    assert store.accept({"kind": "predict", "model_id": "a"}).id != first.id
    assert store.finish(first.id, "done", "{}")
    assert not store.finish(first.id, "failed", "")
    store.close()
    again = Store.at(folder)
    assert (again.find(first.id).status, len(again.unfinished())) == ("done", 1)
    again.close()


def test_a_database_that_is_not_there_is_named_without_its_password(folder):
    with pytest.raises(ArtifactError, match="DATABASE_URL") as error:
        Store.at(folder, "nonsense://user:secret@nowhere/x")
    assert "secret" not in str(error.value)
