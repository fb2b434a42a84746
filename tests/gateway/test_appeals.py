"""Appeals at the gateway: whose are heard, what reviewers may do, and what a successful one makes."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.gateway.world import Reply, World, a_world, drive, request_id_of
from tests.safety.doubles import MARKER, POLICY

from forestay.queue.model import State
from forestay.safety.review import loop
from forestay.safety.review.desk import ReviewDesk
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database

GUARDED = "/queue/acme/guarded"
KEPT = POLICY + "review: {release_needs: 1, keep_refused: true}\n"
PASSWORD = "correct horse battery"


@pytest.fixture
async def world(objects: ObjectStore, database: Database) -> AsyncIterator[World]:
    """A gateway whose policy keeps what it refuses, with a real store of reviews."""
    async with a_world(objects, database=database) as made:
        made.safety.store.put("strict", KEPT)
        await made.safety.policies.refresh()
        yield made


def desk_of(world: World) -> ReviewDesk:
    """Where people look again."""
    assert world.ports.safety is not None
    assert world.ports.safety.review is not None
    return world.ports.safety.review


async def refused(world: World, body: object = None, **headers: str) -> str:
    """Submit what is refused; returns its request id."""
    reply = await world.call("POST", GUARDED, body or {"prompt": MARKER}, headers)
    assert reply.status == 422, reply.body
    return reply.headers["x-fal-request-id"]


async def appeal(world: World, request_id: str, words: str = "a film title", key: str = "") -> Reply:
    """Appeal as a caller."""
    return await world.call("POST", f"/appeals/{request_id}", {"reason": words}, key=key)


async def signed_in(world: World, name: str, role: str = "analyst") -> str:
    """Add a person and sign them in; returns the Authorization of their session."""
    who = {"email": f"{name}@example.org", "password": PASSWORD}
    added = await world.call("POST", "/admin/people", {**who, "role": role}, key=world.admin_key)
    assert added.status == 201, added.body
    signed = await world.call("POST", "/admin/sign-in", who, key=None)
    assert signed.status == 201, signed.body
    return f"Bearer {signed.field('token')}"


async def as_person(world: World, who: str, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Call the admin API as a person."""
    sent = world.request(method, f"/admin/safety/review{path}", body, {"authorization": who})
    reply = await drive(world.gateway, sent)
    return reply.status, json.loads(reply.body)


async def released_by_two(world: World, request_id: str) -> Any:
    """Two people release it; returns the item as the second one saw it."""
    for name in ("ann", "bob"):
        who = await signed_in(world, name)
        said = {"vote": "release", "reason": f"{name} looked at it"}
        status, item = await as_person(world, who, "POST", f"/{request_id}/vote", said)
        assert status == 200, item
    return item


async def test_a_refused_prompt_is_appealed_and_two_people_release_it(world: World) -> None:
    """One is not enough, the same one twice is not, a key is not; the second person makes a linked request."""
    request_id = await refused(world)
    made = await appeal(world, request_id)
    assert (made.status, made.field("state"), made.field("linked_request_id")) == (201, "open", None)
    ann, bob = await signed_in(world, "ann"), await signed_in(world, "bob")
    said = {"vote": "release", "reason": "it is a film title"}
    for _ in range(2):
        status, item = await as_person(world, ann, "POST", f"/{request_id}/vote", said)
        assert (status, item["has"], item["needs"], item["state"]) == (200, 1, 2, "open")
    by_key = await world.call("POST", f"/admin/safety/review/{request_id}/vote", said, key=world.admin_key)
    assert (by_key.status, "each signed in" in by_key.body.decode()) == (409, True)
    status, item = await as_person(world, bob, "POST", f"/{request_id}/vote", said)
    assert (status, item["outcome"], item["has"]) == (200, "released", 2)
    shown = await world.call("GET", f"/appeals/{request_id}")
    linked = str(shown.field("linked_request_id"))
    assert (shown.field("outcome"), linked != request_id) == ("released", True)
    assert (await world.call("GET", f"/appeals/{linked}")).field("request_id") == request_id
    assert (await world.call("GET", f"{GUARDED}/requests/{linked}/status")).field("status") == "IN_QUEUE"
    lease = await world.claim(linked, alias="guarded")
    assert (json.loads(lease.body), lease.tenant_id, lease.options.waived) == ({"prompt": MARKER}, "acme", ())
    assert lease.options.risk == 1.0
    assert (await world.call("GET", f"{GUARDED}/requests/{request_id}")).status == 422
    digest = f"sha256:{hashlib.sha256(lease.body).hexdigest()}"
    [record] = [record for record in world.safety.verdicts.records if str(record.request_id) == linked]
    assert (record.verdict, record.policy_id, record.judged) == ("allow", "person", [digest])


@pytest.mark.threat("API1:2023")
async def test_an_appeal_is_heard_from_the_key_that_asked_and_from_its_tenants_admin(world: World) -> None:
    """For everybody else the request does not exist, with or without a reason."""
    request_id = await refused(world)
    sibling = await world.issue()
    for key in (sibling, world.other_key):
        assert (await appeal(world, request_id, key=key)).status == 404
        assert (await world.call("GET", f"/appeals/{request_id}", key=key)).status == 404
    assert (await appeal(world, request_id, key=world.admin_key)).status == 201
    for key in (sibling, world.other_key):
        assert (await world.call("GET", f"/appeals/{request_id}", key=key)).status == 404
        assert (await world.call("GET", "/appeals", key=key)).field("appeals") == []
    [mine] = (await world.call("GET", "/appeals")).field("appeals")  # type: ignore[misc]
    assert mine["request_id"] == request_id  # type: ignore[index]


async def test_each_fault_of_an_appeal_is_named(world: World) -> None:
    """Unknown, too long, twice, not blocked, not kept."""
    request_id = await refused(world)
    assert (await appeal(world, "no-id")).status == 404
    assert (await appeal(world, "0199d0c2-1111-7000-8000-000000000000")).status == 404
    wrong: tuple[object, ...] = ({"reason": ""}, {"reason": "x" * 2001}, {"why": "x"}, {"reason": 7}, [], {})
    for body in wrong:
        assert (await world.call("POST", f"/appeals/{request_id}", body)).status == 422, body
    assert (await world.call("POST", f"/appeals/{request_id}", {"reason": "x"}, key=None)).status == 401
    assert (await world.call("DELETE", f"/appeals/{request_id}")).status == 405
    assert (await appeal(world, request_id)).status == 201
    assert (await appeal(world, request_id)).status == 409
    fine = await world.call("POST", GUARDED, {"prompt": "calm"})
    said = await appeal(world, str(fine.field("request_id")))
    assert (said.status, "queued" in said.body.decode()) == (409, True)


async def test_what_its_caller_did_not_want_kept_is_appealed_by_words_and_makes_no_request(world: World) -> None:
    """People decide by the record and the reason; nobody can run what nobody has."""
    request_id = await refused(world, **{"x-fal-store-io": "0"})
    assert (await appeal(world, request_id)).status == 201
    item = await released_by_two(world, request_id)
    assert (item["outcome"], item["linked_request_id"]) == ("released", None)
    shown = await world.call("GET", f"/appeals/{request_id}")
    assert (shown.field("outcome"), shown.field("linked_request_id")) == ("released", None)


async def test_appeals_count_as_calls(objects: ObjectStore, database: Database) -> None:
    """Here a caller may have no direct call in flight, and an appeal is one."""
    async with a_world(objects, database=database, direct_limit=0) as world:
        world.safety.store.put("strict", KEPT)
        await world.safety.policies.refresh()
        request_id = await refused(world)
        assert (await appeal(world, request_id)).status == 429


async def test_what_a_policy_does_not_keep_cannot_be_appealed(world: World, database: Database) -> None:
    """And nothing of it is stored."""
    world.safety.store.put("strict", POLICY)
    await world.safety.policies.refresh()
    said = await appeal(world, await refused(world))
    assert (said.status, "not kept" in said.body.decode()) == (409, True)
    assert await database.fetch("SELECT FROM reviews") == []
    assert await database.fetch("SELECT FROM sealed") == []


async def test_one_person_upholds_and_the_appeal_says_so(world: World) -> None:
    """No request is made, and the item takes no more votes."""
    request_id = await refused(world)
    await appeal(world, request_id)
    ann = await signed_in(world, "ann")
    status, item = await as_person(world, ann, "POST", f"/{request_id}/vote", {"vote": "block", "reason": "as it says"})
    assert (status, item["outcome"]) == (200, "upheld")
    shown = await world.call("GET", f"/appeals/{request_id}")
    assert (shown.field("outcome"), shown.field("linked_request_id")) == ("upheld", None)
    status, _ = await as_person(world, ann, "POST", f"/{request_id}/vote", {"vote": "release", "reason": "no"})
    assert status == 409


async def test_what_was_upheld_unasked_is_looked_at_anew_when_its_caller_appeals(world: World) -> None:
    """Earlier votes count no more; it happens once."""
    request_id = await refused(world)
    ann = await signed_in(world, "ann")
    await as_person(world, ann, "POST", f"/{request_id}/vote", {"vote": "block", "reason": "at a glance"})
    assert (await appeal(world, request_id)).field("state") == "open"
    _, item = await as_person(world, ann, "GET", f"/{request_id}")
    assert (item["state"], item["round"], item["has"]) == ("open", 2, 0)
    item = await released_by_two_more(world, request_id, ann)
    assert item["outcome"] == "released"
    assert (await world.call("GET", f"/appeals/{request_id}")).field("linked_request_id") is not None


async def released_by_two_more(world: World, request_id: str, first: str) -> Any:
    """The same person and another one release it."""
    said = {"vote": "release", "reason": "on second thoughts"}
    await as_person(world, first, "POST", f"/{request_id}/vote", said)
    _, item = await as_person(world, await signed_in(world, "cy"), "POST", f"/{request_id}/vote", said)
    return item


async def test_what_was_released_unasked_makes_its_request_when_it_is_appealed(world: World) -> None:
    """Nobody waited for it before."""
    request_id = await refused(world)
    item = await released_by_two(world, request_id)
    assert (item["outcome"], item["linked_request_id"]) == ("released", None)
    assert (await appeal(world, request_id)).field("linked_request_id") is not None


async def test_a_claim_keeps_others_from_having_to_look(world: World) -> None:
    """Until it has run out or its holder has voted."""
    request_id = await refused(world)
    ann, bob = await signed_in(world, "ann"), await signed_in(world, "bob")
    status, item = await as_person(world, ann, "POST", f"/{request_id}/claim", {})
    assert (status, item["state"]) == (200, "claimed")
    said = {"vote": "release", "reason": "fine"}
    status, answer = await as_person(world, bob, "POST", f"/{request_id}/vote", said)
    assert (status, "looks at it until" in str(answer)) == (409, True)
    status, item = await as_person(world, ann, "POST", f"/{request_id}/vote", said)
    assert (status, item["state"]) == (200, "open")
    assert (await as_person(world, bob, "POST", f"/{request_id}/vote", said))[1]["outcome"] == "released"


@pytest.mark.threat("API9:2023")
async def test_reading_content_takes_a_reason_and_is_on_record_before(world: World, database: Database) -> None:
    """Who, which, why; the marker stands in no row, and lists show none of it."""
    request_id = await refused(world)
    ann = await signed_in(world, "ann")
    assert (await as_person(world, ann, "GET", f"/{request_id}/content"))[0] == 422
    status, shown = await as_person(world, ann, "GET", f"/{request_id}/content?reason=an%20appeal")
    assert (status, shown["body"]) == (200, {"prompt": MARKER})
    _, log = await as_person(world, ann, "GET", f"/access?item={request_id}")
    assert [(row["how"], row["reason"]) for row in log["readings"]] == [("text", "an appeal")]
    assert log["readings"][0]["actor"].startswith("human:")
    with pytest.raises(Exception, match="append-only"):
        await database.execute("DELETE FROM sealed_reads")
    _, listed = await as_person(world, ann, "GET", "?state=waiting")
    assert MARKER not in json.dumps(listed)
    for table in ("sealed", "reviews", "sealed_reads", "audit_log"):
        assert MARKER not in str(await database.fetch(f"SELECT {table}::text FROM {table}"))  # noqa: S608 - our own names


async def test_reviews_are_for_those_who_judge_content(world: World) -> None:
    """An operator sees how the queue stands, and nothing of it."""
    request_id = await refused(world)
    operator = await signed_in(world, "olga", role="operator")
    for method, path in (("GET", ""), ("GET", f"/{request_id}"), ("GET", f"/{request_id}/content?reason=x")):
        assert (await as_person(world, operator, method, path))[0] == 403
    status, stats = await as_person(world, operator, "GET", "/stats")
    assert (status, stats["waiting"], stats["overturn_rate"]) == (200, 1, None)


async def test_all_who_carry_a_release_out_make_the_same_request(world: World) -> None:
    """The gateway that took the vote, and the loop as often as it likes."""
    request_id = await refused(world)
    await appeal(world, request_id)
    desk = desk_of(world)
    item = await released_by_two(world, request_id)
    found = await desk.reviews.find(request_id)
    assert found is not None
    await asyncio.gather(*(desk.carrier.carry(found.item) for _ in range(3)))
    assert await loop.run_once(desk, world.ports.clock, world.ports.metrics) == 0
    waiting = [row for row in world.queue._rows.values() if row.state is State.QUEUED]
    assert [str(row.submission.request_id) for row in waiting] == [item["linked_request_id"]]
    assert request_id_of(request_id) not in world.queue._rows
