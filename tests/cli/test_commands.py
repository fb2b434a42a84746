"""The commands that speak to a running platform, each through HTTP to real stores and back."""

import asyncio
import datetime as dt
import hashlib
import http.client
import json
import pathlib
import urllib.parse
import uuid
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from tests.cli.conftest import MAX_UPLOAD, Platform, Ran

from forestay.capacity.costs import StoredModel
from forestay.capacity.predict import cold_model
from forestay.capacity.regress import Observation, learn
from forestay.chance import SystemChance
from forestay.cli.client import PlatformClient, Profile
from forestay.cli.model import load_fleet
from forestay.clock import SystemClock
from forestay.errors import UsageError
from forestay.gateway.admin_reading import MAX_JSON
from forestay.ids import BUCKETS, KeyId, ModelId, ReplicaId, RequestId, RevisionId, TenantId, WorkerId, new_request_id
from forestay.queue.model import Options, Submission
from forestay.queue.store import Offer
from forestay.telemetry.cost_facts import first_cursor
from forestay.telemetry.facts import FactWriter, RequestFact, ship

Forestay = Callable[..., Awaitable[Ran]]
SPEC = """\
version: 0
model: acme/echo
description: Echoes.
owner: {team: tests, contact: tests@acme.invalid}
licence: Apache-2.0
host:
  kind: fal_app
  app: app.py::Echo
endpoints:
  - {path: /}
"""
APP = """\
import fal
from pydantic import BaseModel


class Input(BaseModel):
    text: str


class Echo(fal.App):
    @fal.endpoint("/")
    def run(self, input: Input) -> dict[str, str]:
        return {"text": input.text}
"""


@pytest.fixture
def model(tmp_path: pathlib.Path) -> pathlib.Path:
    """The spec of a small real fal.App."""
    folder = tmp_path / "models" / "echo"
    folder.mkdir(parents=True)
    (folder / "app.py").write_text(APP)
    (folder / "model.yaml").write_text(SPEC)
    return folder / "model.yaml"


def server_model(tmp_path: pathlib.Path, name: str = "acme/server") -> pathlib.Path:
    """The spec of a server that does not run."""
    file = tmp_path / f"{name.partition('/')[2]}.yaml"
    host = "host:\n  kind: http_server\n  url: http://127.0.0.1:9\n"
    file.write_text(SPEC.replace("acme/echo", name).replace("host:\n  kind: fal_app\n  app: app.py::Echo\n", host))
    return file


async def call(
    platform: Platform, method: str, path: str, *, body: bytes | None = None, key: str | None = None
) -> tuple[int, dict[str, object]]:
    """Send one plain request."""

    def send() -> tuple[int, dict[str, object]]:
        parts = urllib.parse.urlsplit(platform.url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
        headers = {"authorization": f"Key {platform.admin_key if key is None else key}"} if key != "" else {}
        connection.request(method, f"/admin{path}", body=body, headers=headers)
        answer = connection.getresponse()
        status, text = answer.status, answer.read()
        connection.close()
        return status, cast("dict[str, object]", json.loads(text) if text else {})

    return await asyncio.to_thread(send)


async def submit(platform: Platform, model_id: str = "acme/echo") -> RequestId:
    """Put a request into the queue."""
    now = SystemClock().now()
    request_id = new_request_id(now, 0, SystemChance())
    item = Submission(
        request_id, TenantId("acme"), KeyId(platform.api_key[:16]), ModelId(model_id), "/", b'{"text":"x"}', now
    )
    await platform.ports.queue.submit([item], {})
    return request_id


async def test_a_fal_app_is_deployed_once_and_then_unchanged(
    forestay: Forestay, platform: Platform, model: pathlib.Path
) -> None:
    """The revision id is printed; the interface, the bundle and the route are there; doing it again changes nothing."""
    first = await forestay("model", "deploy", model)
    assert first.status == 0, first.err
    revision_id = first.out.strip()
    fleet = await platform.ports.fleet.load()
    revision = next(iter(fleet.revisions.values()))
    assert revision.revision_id == revision_id
    assert revision.bundle_key is not None
    assert await platform.ports.objects.size(revision.bundle_key)
    assert revision.openapi is not None
    assert "/" in cast("dict[str, object]", revision.openapi["paths"])
    assert fleet.routed(ModelId("acme/echo"), 0) == revision_id
    again = await forestay("deploy", model, "--json")
    assert again.json()["unchanged"] is True
    assert (await platform.ports.fleet.load()).version == fleet.version


async def test_a_changed_app_becomes_a_new_revision(
    forestay: Forestay, platform: Platform, model: pathlib.Path
) -> None:
    """All traffic goes to it; the old one stays known."""
    first = (await forestay("deploy", model)).out.strip()
    (model.parent / "app.py").write_text(APP + "# changed\n")
    second = (await forestay("deploy", model)).out.strip()
    fleet = await platform.ports.fleet.load()
    assert {first, second} == set(fleet.revisions)
    assert fleet.routed(ModelId("acme/echo"), 0) == second


async def test_a_model_is_deployed_under_another_name(forestay: Forestay, model: pathlib.Path) -> None:
    """An alias replaces the alias alone."""
    await forestay("deploy", model, "--name", "echo-two")
    listed = await forestay("model", "list")
    assert "acme/echo-two" in listed.out
    shown = await forestay("model", "show", "acme/echo-two", "--json")
    assert shown.json()["visibility"] == "shared"


async def test_an_app_that_does_not_load_is_told_before_anything_is_sent(
    forestay: Forestay, platform: Platform, model: pathlib.Path
) -> None:
    """The reason is the app's own."""
    (model.parent / "app.py").write_text("import no_such_module_anywhere\n")
    ran = await forestay("deploy", model)
    assert ran.status == 1
    assert "no_such_module_anywhere" in ran.err
    assert (await platform.ports.fleet.load()).models == {}


async def test_a_fleet_is_loaded_whole_or_told_what_is_wrong(platform: Platform, tmp_path: pathlib.Path) -> None:
    """Every spec is read before anything is sent; a second load skips what is unchanged."""
    for name in ("acme/one", "acme/two"):
        server_model(tmp_path, name)
    fleet_file = tmp_path / "fleet.yaml"
    fleet_file.write_text("models:\n  - one.yaml\n  - two.yaml\n")
    client, said = PlatformClient(Profile(platform.url, platform.admin_key)), list[str]()
    await asyncio.to_thread(load_fleet, client, fleet_file, said.append)
    assert set((await platform.ports.fleet.load()).models) == {"acme/one", "acme/two"}
    await asyncio.to_thread(load_fleet, client, fleet_file, said.append)
    assert sum("unchanged" in line for line in said) == 2
    fleet_file.write_text("models:\n  - one.yaml\n  - one.yaml\n")
    with pytest.raises(UsageError, match="two specs"):
        await asyncio.to_thread(load_fleet, client, fleet_file, said.append)


async def test_a_bad_spec_exits_2_and_names_the_line(forestay: Forestay, model: pathlib.Path) -> None:
    """`model check` and `deploy` tell the same."""
    model.write_text(SPEC.replace("licence", "license"))  # noqa: ASYNC240 - a small file of a test
    for words in (("model", "check", model), ("deploy", model)):
        ran = await forestay(*words)
        assert ran.status == 2
        assert "did you mean `licence`?" in ran.err


async def test_a_key_lives_and_dies(forestay: Forestay, platform: Platform) -> None:
    """Created, shown without its secret, used, revoked, refused."""
    made = (await forestay("key", "create", "--name", "n", "--scope", "ADMIN", "--expires-in", "1h", "--json")).json()
    key, key_id = str(made["key"]), str(made["key_id"])
    assert (await call(platform, "GET", "/fleet", key=key))[0] == 200
    listed = await forestay("key", "list")
    assert key_id in listed.out
    assert key.partition(":")[2] not in listed.out
    assert (await forestay("key", "revoke", key_id, "--reason", "leaked")).status == 0
    assert (await call(platform, "GET", "/fleet", key=key))[0] == 401
    assert "leaked" in (await forestay("audit", "list")).out
    assert "revoked" in (await forestay("key", "list")).out


async def test_the_key_in_use_cannot_revoke_itself(forestay: Forestay, platform: Platform) -> None:
    """Nobody locks themselves out by a slip."""
    ran = await forestay("key", "revoke", platform.admin_key[:16])
    assert ran.status == 1
    assert "another ADMIN key" in ran.err


async def test_tenants_are_created_once(forestay: Forestay) -> None:
    """A second one of the same id is a conflict."""
    assert (await forestay("tenant", "create", "beta")).status == 0
    again = await forestay("tenant", "create", "beta")
    assert again.status == 1
    assert "409" in again.err
    assert "beta" in (await forestay("tenant", "list")).out
    assert (await forestay("tenant", "create", "Not A Tenant")).status == 1


async def test_a_tenant_gets_another_share_of_busy_pools(forestay: Forestay, platform: Platform) -> None:
    """The share is kept, the act is in the audit log, and nonsense is refused by name."""
    assert (await forestay("tenant", "weight", "acme", "3")).status == 0
    await submit(platform)
    offer = Offer(ReplicaId("r"), RevisionId("v"), ModelId("acme/echo"), ((0, BUCKETS),), 1, idle=True)
    assert await platform.ports.queue.claim(WorkerId("w"), [offer], 15.0)
    [account] = cast("list[dict[str, object]]", json.loads((await forestay("tenant", "turns", "--json")).out))
    assert (account["tenant_id"], account["weight"]) == ("acme", 3.0)
    assert "set_weight" in (await forestay("audit", "list")).out
    refused = await forestay("tenant", "weight", "acme", "0")
    assert (refused.status, "weight" in refused.err) == (1, True)
    assert "no tenant" in (await forestay("tenant", "weight", "nobody", "2")).err


async def test_a_request_is_shown_listed_and_cancelled(forestay: Forestay, platform: Platform) -> None:
    """Its answer is then the cancellation, and it cannot be cancelled twice."""
    request_id = str(await submit(platform))
    assert "queued" in (await forestay("request", "show", request_id)).out
    assert request_id in (await forestay("request", "list", "--model", "acme/echo", "--state", "queued")).out
    early = await forestay("request", "result", request_id)
    assert (early.status, "no result yet" in early.err) == (1, True)
    assert (await forestay("request", "cancel", request_id)).status == 0
    shown = (await forestay("request", "show", request_id, "--json")).json()
    assert (shown["state"], shown["status_code"]) == ("cancelled", 499)
    assert (await forestay("request", "cancel", request_id)).status == 1
    assert "cancel" in (await forestay("request", "result", request_id)).out.lower()
    drawn = await forestay("request", "trace", request_id)
    assert [line.split()[0] for line in drawn.out.splitlines()] == ["trace", "request"]
    assert "not ended or not written yet" in drawn.out
    await ship(platform.database, platform.database)
    told = (await forestay("request", "trace", request_id, "--json")).json()
    assert told["ended"] is True
    unknown = await forestay("request", "trace", "ffffffff-ffff-7fff-bfff-ffffffffffff")
    assert (unknown.status, "no request" in unknown.err) == (1, True)
    rows = await platform.ports.fleet.audit_rows(subject=f"request:{request_id}", before=None, limit=5)
    assert [row.entry.actor for row in rows] == [f"human:{platform.admin_key[:16]}"]


async def test_requests_are_found_by_their_tags_while_they_live_and_after(
    forestay: Forestay, platform: Platform
) -> None:
    """All tags asked for must be there; what is not a tag is told as such."""
    await submit(platform)
    now, chance = SystemClock().now(), SystemChance()
    tagged = new_request_id(now, 0, chance)
    options = Options(tags={"team": "ads", "order": "17"})
    owner = TenantId("acme"), KeyId(platform.api_key[:16]), ModelId("acme/echo")
    await platform.ports.queue.submit([Submission(tagged, *owner, "/", b"{}", now, options)], {})

    async def found(*tags: str) -> list[str]:
        words = [word for tag in tags for word in ("--tag", tag)]
        ran = await forestay("request", "list", *words, "--json")
        return [str(item["request_id"]) for item in cast("list[dict[str, object]]", json.loads(ran.out))]

    for _ in ("live", "finished"):
        assert await found("team=ads") == [str(tagged)]
        assert await found("order=17", "team=ads") == [str(tagged)]
        assert await found("team=ads", "order=18") == []
        await forestay("request", "cancel", tagged)
    outbox = await platform.database.fetchval("SELECT facts::text FROM fact_outbox")
    [fact] = json.loads(str(outbox))
    assert fact["tags"] == {"team": "ads", "order": "17"}
    wrong = await forestay("request", "list", "--tag", "nonsense")
    assert wrong.status == 1
    assert "is not key=value" in wrong.err


async def test_an_unknown_request_is_told_as_such(forestay: Forestay) -> None:
    """A wrong form is wrong usage; a right form that names nothing is not there."""
    assert (await forestay("request", "show", "nonsense")).status == 2
    unknown = new_request_id(dt.datetime(2030, 1, 1, tzinfo=dt.UTC), 0, SystemChance())
    ran = await forestay("request", "show", str(unknown))
    assert ran.status == 1
    assert "404" in ran.err


async def test_a_direct_call_is_shown_by_its_fact(forestay: Forestay, platform: Platform) -> None:
    """Its state, cause, revision, worker and times; before the fact is written it is not there."""
    now = SystemClock().now()
    call = RequestFact(
        request_id=new_request_id(now, 0, SystemChance()),
        lane="direct",
        tenant_id=TenantId("acme"),
        key_id=KeyId(platform.api_key[:16]),
        model_id=ModelId("acme/echo"),
        endpoint="/",
        revision_id=RevisionId("echo-1"),
        replica_id=ReplicaId("r"),
        attempts=1,
        state="failed",
        outcome="model_error",
        status_code=500,
        error_type="internal_error",
        submitted_at=now,
        started_at=now,
        finished_at=now,
        device_seconds=0.0,
        worker_id=WorkerId("w2"),
    )
    early = await forestay("request", "show", str(call.request_id))
    assert (early.status, "its facts are not written yet" in early.err) == (1, True)
    await FactWriter(platform.database).write([call])
    told = (await forestay("request", "show", str(call.request_id), "--json")).json()
    names = ("state", "lane", "outcome", "revision_id", "worker_id", "status_code", "attempt")
    assert [told[name] for name in names] == ["failed", "direct", "model_error", "echo-1", "w2", 500, 1]
    assert dt.datetime.fromisoformat(str(told["finished_at"])) == now
    shown = (await forestay("request", "show", str(call.request_id))).out
    assert "direct: model_error (500)" in shown
    assert "revision echo-1 on w2" in shown


async def test_the_fleet_is_shown_frozen_and_thawed(forestay: Forestay, tmp_path: pathlib.Path) -> None:
    """Whoever looks reads who froze it and why."""
    await forestay("deploy", server_model(tmp_path))
    assert (await forestay("fleet", "freeze", "incident 7")).status == 0
    status = (await forestay("fleet", "status")).out
    assert "FROZEN" in status
    assert "incident 7" in status
    assert "acme/server" in status
    assert (await forestay("fleet", "unfreeze")).status == 0
    assert "FROZEN" not in (await forestay("fleet", "status")).out
    assert (await forestay("fleet", "mode", "capacity", "advise")).status == 0
    assert (await forestay("fleet", "mode", "capacity", "maybe")).status == 1


async def test_the_audit_log_is_verified(forestay: Forestay, platform: Platform) -> None:
    """An altered row makes the command fail."""
    await forestay("tenant", "create", "beta")
    assert (await forestay("audit", "verify")).status == 0
    await platform.database.execute("ALTER TABLE audit_log DISABLE TRIGGER audit_log_append_only")
    await platform.database.execute("UPDATE audit_log SET actor = 'human:nobody' WHERE action = 'create_tenant'")
    ran = await forestay("audit", "verify")
    assert ran.status == 1
    assert "not what was sealed" in ran.out


async def test_a_dead_webhook_is_listed_and_tried_again(platform: Platform) -> None:
    """Once revived it is no longer dead."""
    request_id = await submit(platform)
    await platform.database.execute(
        "INSERT INTO webhooks (request_id, tenant_id, url, state, tries) VALUES ($1, 'acme', 'http://x/', 'dead', 31)",
        request_id,
    )
    status, listed = await call(platform, "GET", "/webhooks?state=dead")
    assert (status, len(cast("list[object]", listed["webhooks"]))) == (200, 1)
    assert (await call(platform, "POST", f"/webhooks/{request_id}/retry"))[0] == 200
    assert (await call(platform, "POST", f"/webhooks/{request_id}/retry"))[0] == 409


# The admin API alone ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/fleet"), ("GET", "/models"), ("POST", "/keys"), ("GET", "/audit"), ("PUT", "/bundles/x")],
)
async def test_only_admin_keys_open_the_admin_api(platform: Platform, method: str, path: str) -> None:
    """401 without a key or with a wrong one, 403 with a key that lacks the scope."""
    assert (await call(platform, method, path, key=""))[0] == 401
    assert (await call(platform, method, path, key="0" * 16 + ":no"))[0] == 401
    assert (await call(platform, method, path, key=platform.api_key))[0] == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "/bundles/abc", b"", 422),
        ("PUT", f"/bundles/{'0' * 64}", b"x", 422),
        ("PUT", f"/bundles/{'0' * 64}", b"x" * (MAX_UPLOAD + 1), 413),
        ("GET", f"/bundles/{'0' * 64}", None, 404),
        ("POST", "/models", b"{", 422),
        ("POST", "/models", b" " * (MAX_JSON + 1), 413),
        ("POST", "/models", b"[" * 100_000, 422),
        ("POST", "/models", b'{"spec": {}}', 422),
        ("POST", "/models", b'{"spec": 1}', 422),
        ("GET", "/models/a/b", None, 404),
        ("POST", "/keys", b'{"scopes": []}', 422),
        ("POST", "/keys", b'{"scopes": ["ROOT"]}', 422),
        ("POST", "/keys", b'{"tenant_id": "nobody"}', 422),
        ("POST", "/keys", b'{"expires_in_seconds": -1}', 422),
        ("POST", "/keys", b'{"name": "a\\u0000b"}', 422),
        ("POST", "/keys", b'{"nmae": "a"}', 422),
        ("DELETE", "/keys/0000000000000000", None, 404),
        ("DELETE", "/keys/%00", None, 404),
        ("POST", "/tenants", b'{"tenant_id": ""}', 422),
        ("POST", "/freeze", b'{"frozen": true, "reason": ""}', 422),
        ("POST", "/freeze", b'{"frozen": true, "reason": "a\\u0000"}', 422),
        ("POST", "/modes", b'{"loop": "x", "mode": "act"}', 422),
        ("GET", "/audit?limit=0", None, 422),
        ("GET", "/audit?limit=99999999999999999999", None, 422),
        ("GET", "/audit?before=yesterday", None, 422),
        ("GET", "/audit?subject=%00", None, 422),
        ("GET", "/requests?state=lost", None, 422),
        ("GET", "/requests/1", None, 404),
        ("GET", f"/requests/{uuid.UUID(int=1)}", None, 404),
        ("GET", "/webhooks?state=x", None, 422),
    ],
)
async def test_wrong_calls_get_their_own_answer(
    platform: Platform, method: str, path: str, body: bytes | None, status: int
) -> None:
    """A precise 4xx with a sentence, and nothing changed."""
    version = await platform.ports.fleet.version()
    answered, told = await call(platform, method, path, body=body)
    assert answered == status, told
    assert told["detail"]
    assert await platform.ports.fleet.version() == version


async def test_bytes_of_another_digest_are_not_kept(platform: Platform) -> None:
    """The store never holds an object whose name lies."""
    digest = hashlib.sha256(b"other").hexdigest()
    assert (await call(platform, "PUT", f"/bundles/{digest}", body=b"these"))[0] == 422
    assert await platform.ports.objects.size(f"bundles/{digest}.tar") is None
    assert (await call(platform, "PUT", f"/bundles/{digest}", body=b"other"))[0] == 201
    assert (await call(platform, "PUT", f"/bundles/{digest}", body=b"other"))[0] == 200


async def test_a_model_of_another_tenant_is_a_conflict(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """The sentence says whose it is not."""
    await forestay("deploy", server_model(tmp_path))
    await forestay("tenant", "create", "beta")
    made = (await forestay("key", "create", "--tenant", "beta", "--scope", "ADMIN", "--json")).json()
    spec = {"version": 0, "model": "acme/server", "description": "d", "owner": {"team": "t", "contact": "c"}}
    spec |= {"licence": "x", "host": {"kind": "http_server", "url": "http://h"}, "endpoints": [{"path": "/"}]}
    body = json.dumps({"spec": spec}).encode()
    status, told = await call(platform, "POST", "/models", body=body, key=str(made["key"]))
    assert status == 409
    assert "another tenant" in str(told["detail"])


CAPACITY = "capacity: {gpu_seconds: 2, scales_with: [steps], price_per_gpu_second: 0.5}\n"


async def test_a_cost_is_predicted_without_running_anything(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """Seconds, interval, what it is known from, and the price; wrong JSON and an unknown model are told as such."""
    file = server_model(tmp_path)
    file.write_text(file.read_text() + CAPACITY)
    assert (await forestay("deploy", file)).status == 0
    asked = ("capacity", "predict", "acme/server", "--input", '{"steps": 60}')
    told = (await forestay(*asked, "--json")).json()
    assert told["predicted_seconds"] == pytest.approx(4.0)
    assert told["features"] == {"steps": 60.0}
    assert told["price"] == pytest.approx(2.0)
    ran = await forestay(*asked)
    assert "4 device-seconds; nine in ten between" in ran.out
    assert "known from: the spec's gpu_seconds" in ran.out
    wrong = await forestay("capacity", "predict", "acme/server", "--input", "{steps")
    assert (wrong.status, "--input" in wrong.err, "is not JSON" in wrong.err) == (2, True, True)
    unknown = await forestay("capacity", "predict", "acme/nothing")
    assert (unknown.status, "no routed model" in unknown.err) == (1, True)
    assert (await platform.ports.queue.backlog()) == {}


async def test_what_has_been_learned_is_listed(forestay: Forestay, platform: Platform) -> None:
    """A line a revision and endpoint; before the first success it says what is missing."""
    assert "some requests must succeed first" in (await forestay("capacity", "models")).out
    model = learn(cold_model({"steps": 28.0}, 4.0, ()), [Observation({"steps": 28.0}, 4.0)])
    item = StoredModel(ModelId("acme/echo"), RevisionId("echo-1"), "/", model)
    await platform.ports.costs.save([item], None, first_cursor(SystemClock().now()))
    [row] = cast("list[dict[str, object]]", json.loads((await forestay("capacity", "models", "--json")).out))
    assert (row["model_id"], row["learned_from"], row["features"]) == ("acme/echo", 1, ["steps"])
    assert "acme/echo" in (await forestay("capacity", "models")).out


async def test_a_wrong_question_about_capacity_names_its_field(platform: Platform) -> None:
    """Unknown fields and wrong types are 422, not 500."""
    for body in (b"{}", b'{"model": 3}', b'{"model": "a/b", "inputs": {}}', b'{"model": "a/b", "endpoint": ""}'):
        status, answer = await call(platform, "POST", "/capacity/predict", body=body)
        assert status == 422, answer
