"""Inputs of a guarded model at the gateway: judged after admission, before anything is queued or called."""

import asyncio
import json

import pytest
from tests.gateway.world import Socket, World
from tests.safety.doubles import MARKER, POLICY

from forestay.abuse.calls import CONTENT, category_of
from forestay.ids import TenantId, parse_request_id
from forestay.queue.model import State
from forestay.safety.model import Text, Trouble

GUARDED = "/queue/acme/guarded"


@pytest.mark.threat("ML01:2023", "AML.T0054")
@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"prompt": MARKER}, ["body", "prompt"]),
        ({"prompt": "calm", "negative_prompt": MARKER}, ["body", "negative_prompt"]),
        ({"prompt": "calm", "turns": [{"role": "user", "text": MARKER}]}, ["body", "turns", 0, "text"]),
    ],
)
async def test_a_blocked_input_is_refused_and_kept_as_blocked(
    world: World, body: dict[str, object], place: list[str | int]
) -> None:
    """Every string of the body counts; the answer has an id, and the request of that id is BLOCKED for ever."""
    reply = await world.call("POST", GUARDED, body)
    assert reply.status == 422
    [detail] = json.loads(reply.body)["detail"]
    assert (detail["loc"], detail["type"]) == (place, "content_policy_violation")
    assert detail["ctx"]["codes"] == {"ailuminate": "vcr", "openai": "violence", "azure": "Violence"}
    assert MARKER not in reply.body.decode()
    request_id = reply.headers["x-fal-request-id"]
    status = await world.call("GET", f"{GUARDED}/requests/{request_id}/status")
    assert (status.status, status.field("status"), status.field("error_type")) == (
        200, "COMPLETED", "content_policy_violation",
    )  # fmt: skip
    assert (await world.call("GET", f"{GUARDED}/requests/{request_id}")).status == 422
    assert (await world.call("PUT", f"{GUARDED}/requests/{request_id}/cancel")).status == 400


async def test_a_name_that_stands_twice_does_not_hide_the_first(world: World) -> None:
    """The model may read the other one."""
    raw = b'{"prompt": "%s", "prompt": "calm"}' % MARKER.encode()
    assert (await world.call("POST", GUARDED, raw=raw)).status == 422


async def test_a_harmless_input_is_queued(world: World) -> None:
    """And its verdict is recorded soon."""
    reply = await world.call("POST", GUARDED, {"prompt": "a lighthouse"})
    assert reply.status == 200
    await world.safety.guard.flush()
    assert [record.point for record in world.safety.verdicts.records] == ["input"]
    assert str(world.safety.verdicts.records[0].request_id) == reply.field("request_id")


async def test_the_direct_lane_is_judged_alike(world: World) -> None:
    """Body and query; nothing reached the model."""
    assert (await world.call("POST", "/run/acme/guarded", {"prompt": MARKER})).status == 422
    before = len(world.model.calls)
    assert (await world.call("GET", f"/run/acme/guarded?prompt={MARKER}")).status == 422
    assert (await world.call("GET", f"/run/acme/guarded?say+{MARKER}")).status == 422
    assert len(world.model.calls) == before


async def test_an_input_that_nobody_can_judge_is_refused_for_now(world: World) -> None:
    """503 with a time, since nothing is said about the content; nothing is queued."""
    world.safety.detectors.trouble |= {"words@1": Trouble.CRASH, "spare@1": Trouble.CRASH}
    reply = await world.call("POST", GUARDED, {"prompt": "a lighthouse"})
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    assert all(row.state is not State.QUEUED for row in world.queue._rows.values())


async def test_a_model_without_a_guard_is_not_judged(world: World) -> None:
    """Its spec names no policy: no detector is asked."""
    assert (await world.call("POST", "/queue/acme/echo", {"prompt": MARKER})).status == 200
    assert world.safety.detectors.asked == []


@pytest.mark.threat("ML01:2023", "AML.T0054")
async def test_a_tenants_own_policy_judges_models_that_name_none(world: World) -> None:
    """Its text is judged at the gateway; where no worker could judge the rest of a direct call, there is none."""
    key = world.other_key
    world.safety.store.tenants[TenantId("other")] = "strict"
    await world.safety.policies.refresh()
    assert (await world.call("POST", "/queue/acme/echo", {"prompt": MARKER}, key=key)).status == 422
    assert (await world.call("POST", "/queue/acme/echo", {"prompt": "calm"}, key=key)).status == 200
    before = len(world.model.calls)
    refused = await world.call("POST", "/run/acme/echo", {"prompt": "calm"}, key=key)
    assert (refused.status, "submit to its queue" in str(refused.field("detail"))) == (400, True)
    headers = {"host": "gateway.test", "authorization": f"Key {key}"}
    socket = Socket(world.gateway, "/run/acme/echo/realtime", headers)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(socket.run())
        assert (await socket.hear())["type"] == "websocket.accept"
        assert "submit to its queue" in str((await socket.hear())["text"])
        assert (await socket.hear())["code"] == 1008
    assert len(world.model.calls) == before
    assert (await world.call("POST", "/run/acme/echo", {"prompt": MARKER})).status == 200


REWRITING = POLICY.replace(
    "review_at: 0.6\n    block_at: 0.9", f"rewrite_at: 0.8\n    rewrite_with: a calm sea\n    phrases: [{MARKER}]"
)


async def test_an_input_goes_on_in_the_policys_words(world: World) -> None:
    """The model gets the other text, the caller is told what was changed, and the request's log keeps it."""
    world.safety.store.put("strict", REWRITING)
    await world.safety.policies.refresh()
    body = {"prompt": f"two of {MARKER.lower()}, please", "turns": [{"text": f"and {MARKER}"}]}
    world.safety.detectors.score = lambda item: float(isinstance(item, Text) and MARKER in item.text.upper())
    reply = await world.call("POST", GUARDED, body)
    assert reply.status == 200, reply.body
    told = json.loads(reply.headers["x-forestay-rewritten"])
    assert [(item["field"], item["was"], item["now"]) for item in told] == [
        ("prompt", [MARKER.lower()], "a calm sea"),
        ("turns[0].text", [MARKER], "a calm sea"),
    ]
    request_id = parse_request_id(str(reply.field("request_id")))
    assert request_id is not None
    [row] = [item for item in world.queue._rows.values() if item.submission.request_id == request_id]
    assert json.loads(row.submission.body) == {
        "prompt": "two of a calm sea, please", "turns": [{"text": "and a calm sea"}],
    }  # fmt: skip
    lines = [line.message for _, line in await world.queue.logs(request_id, 0)]
    assert lines[0] == f"the content policy rewrote prompt: {MARKER.lower()} -> a calm sea"
    await world.safety.guard.flush()
    assert [record.action for record in world.safety.verdicts.records] == ["rewrite", "allow"]


@pytest.mark.threat("ML01:2023", "AML.T0054")
async def test_what_is_not_better_in_other_words_is_blocked(world: World) -> None:
    """A disguised word does not give way, so the text that hides it does not go on; nor does a query."""
    world.safety.store.put("strict", REWRITING)
    await world.safety.policies.refresh()
    world.safety.detectors.score = lambda item: float(isinstance(item, Text) and MARKER[::-1] in item.text)
    assert (await world.call("POST", GUARDED, {"prompt": MARKER[::-1]})).status == 422
    world.safety.detectors.score = None
    before = len(world.model.calls)
    assert (await world.call("GET", f"/run/acme/guarded?prompt={MARKER}")).status == 422
    assert len(world.model.calls) == before


async def test_a_throttled_input_goes_on_and_counts_like_a_refused_one(world: World) -> None:
    """The judges of misuse see a refusal for its content; the caller sees none."""
    world.safety.store.put("strict", POLICY.replace("review_at: 0.6\n    block_at: 0.9", "throttle_at: 0.8"))
    await world.safety.policies.refresh()
    for prompt in (MARKER, "calm"):
        assert (await world.call("POST", GUARDED, {"prompt": prompt})).status == 200
    await world.gateway.notes.flush()
    facts = [(fact.accepted, fact.cause, fact.status_code) for fact in world.calls.kept]
    assert facts == [(False, "content_throttled", 200), (True, "", 200)]
    assert category_of("content_throttled") == CONTENT
