"""`X-App-Fal-Upload-Policy` at the gateway: taken, told why not, and never a word of it to a model."""

import dataclasses
import json

import pytest
from tests.gateway.world import Socket, World, deploy, replica_of, revision_of

from forestay.fleet.grants import Privilege
from forestay.fleet.spec import HostKind, HostSpec
from forestay.handshake import POLICY_HEADER
from forestay.ids import ModelId, RevisionId

HEADER = "x-app-fal-upload-policy"
FIELDS = {"key": "out/${filename}", "policy": "signed"}
POLICY = json.dumps({"url": "https://bucket.s3.eu-central-1.amazonaws.com/", "fields": FIELDS})


async def hosted(world: World) -> None:
    """Deploy a model whose files the platform stores."""
    revision = revision_of("hosted-1", "acme/hosted")
    host = HostSpec(HostKind.FAL_APP, app="app.py::App")
    spec = dataclasses.replace(revision.spec, host=host)
    await deploy(world.fleet, dataclasses.replace(revision, spec=spec), "acme", "shared")
    await world.gateway.fleet.look_again()


async def test_a_policy_is_kept_with_the_request_and_not_among_the_models_headers(world: World) -> None:
    """It needs no privilege; with every privilege it is still not for the model."""
    await hosted(world)
    for privileges in (frozenset[Privilege](), frozenset(Privilege)):
        key = await world.issue(privileges=privileges)
        reply = await world.call("POST", "/queue/acme/hosted", {"prompt": "a"}, {HEADER: POLICY}, key=key)
        assert reply.status == 200, reply.body
        options = (await world.claim(alias="hosted")).options
        assert (options.upload_policy, HEADER in options.forward_headers) == (POLICY, False)


@pytest.mark.threat("API7:2023", "AML.T0049")
@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("p", "must be a JSON object"),
        (json.dumps({"url": "https://169.254.169.254/", "fields": FIELDS}), "cannot be called"),
        (json.dumps({"url": "https://2130706433/", "fields": FIELDS}), "cannot be called"),
        (json.dumps({"url": "http://bucket.example/", "fields": FIELDS}), "https"),
        (json.dumps({"url": "https://bucket.example/", "fields": {"key": "same"}}), "${filename}"),
    ],
)
async def test_a_policy_that_cannot_be_honoured_is_refused_before_anything_is_queued(
    world: World, policy: str, words: str
) -> None:
    """A caller who wants their own bucket must not silently get ours."""
    await hosted(world)
    for path in ("/queue/acme/hosted", "/run/acme/hosted"):
        reply = await world.call("POST", path, {"prompt": "a"}, {HEADER: policy})
        assert (reply.status, reply.field("error_type")) == (400, "bad_request")
        assert words in str(reply.field("detail"))


async def test_a_policy_is_refused_where_files_are_not_ours_to_store(world: World) -> None:
    """A server that somebody else runs answers with its own URLs."""
    reply = await world.call("POST", "/queue/acme/echo", {"prompt": "a"}, {HEADER: POLICY})
    assert reply.status == 400
    assert "not the platform's to store" in str(reply.field("detail"))


async def test_a_policy_is_refused_in_a_realtime_session(world: World) -> None:
    """In the handshake, as fal's own runtime does: nothing in a session could honour it."""
    await hosted(world)
    headers = {"host": "gateway.test", "authorization": f"Key {world.key}", HEADER: POLICY}
    socket = Socket(world.gateway, "/run/acme/hosted/realtime", headers)
    await socket.say(type="websocket.connect")
    await socket.say(type="websocket.disconnect", code=1000)
    await socket.run()
    assert (await socket.hear()).get("status") == 400


async def test_a_direct_call_hands_the_policy_to_our_worker_alone(world: World) -> None:
    """Under a name of ours, which no worker passes on to a model."""
    await hosted(world)
    replica = dataclasses.replace(replica_of(None), model_id=ModelId("acme/hosted"), revision_id=RevisionId("hosted-1"))
    await world.set_replica(replica)
    reply = await world.call("POST", "/run/acme/hosted", {"prompt": "a"}, {HEADER: POLICY})
    assert reply.status == 200, reply.body
    sent = world.model.calls[-1][1]
    assert (sent[POLICY_HEADER], HEADER in sent) == (POLICY, False)
