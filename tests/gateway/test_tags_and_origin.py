"""What a call is tagged with, and which replica gave its answer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.world import World, replica_of

from forestay.gateway.options import MAX_TAGS, read_tags
from forestay.queue.model import Answer, State

PLAIN = Answer(200, {"content-type": "application/json", "x-fal-served-from": "forged"}, b"{}")


async def test_a_stored_result_names_the_replica_that_gave_it(world: World) -> None:
    """The platform's word, not the model's own; an answer of ours names none."""
    done = await world.submit()
    await world.finish(await world.claim(done), PLAIN)
    reply = await world.call("GET", f"/queue/acme/echo/requests/{done}")
    assert reply.headers["x-fal-served-from"] == "r1"
    cancelled = await world.submit()
    await world.claim(cancelled)
    await world.call("PUT", f"/queue/acme/echo/requests/{cancelled}/cancel")
    reply = await world.call("GET", f"/queue/acme/echo/requests/{cancelled}")
    assert "x-fal-served-from" not in reply.headers


@pytest.mark.parametrize("path", ["/run/acme/echo", "/run/acme/echo/fail"])
async def test_a_direct_answer_names_its_replica(world: World, path: str) -> None:
    """Also when the model failed: then most of all."""
    await world.set_replica(replica_of(world.model.url))
    reply = await world.call("POST", path, {"prompt": "a"})
    assert reply.headers["x-fal-served-from"] == "r1"


async def test_tags_are_kept_with_the_request_and_stand_in_the_fact(world: World) -> None:
    """Both lanes; whoever bills or debugs by them finds them."""
    await world.set_replica(replica_of(world.model.url))
    said = {"X-Fal-Tags": "team=ads, order=A 17, empty="}
    request_id = await world.submit(**said)
    lease = await world.claim(request_id)
    assert lease.options.tags == {"team": "ads", "order": "A 17", "empty": ""}
    await world.finish(lease, PLAIN, State.SUCCEEDED)
    assert (await world.call("POST", "/run/acme/echo", {"prompt": "a"}, said)).status == 200
    await world.gateway.direct.facts.flush()
    assert [fact.tags for fact in world.facts.kept] == [lease.options.tags]


async def test_a_call_without_tags_says_none(world: World) -> None:
    """Null, not an empty object, in every fact."""
    await world.set_replica(replica_of(world.model.url))
    await world.call("POST", "/run/acme/echo", {"prompt": "a"})
    await world.gateway.direct.facts.flush()
    assert [fact.tags for fact in world.facts.kept] == [None]


@pytest.mark.parametrize(
    ("said", "part"),
    [
        ("noequals", "is not key=value"),
        ("=v", "is not key=value"),
        ("a b=v", "is not key=value"),
        ("k=" + "v" * 129, "is not key=value"),
        ("k=\u00e9", "is not key=value"),
        ("k=1,k=2", "given twice"),
        (",".join(f"k{n}=v" for n in range(11)), "more than 10"),
    ],
)
@pytest.mark.parametrize("lane", ["queue", "run"])
async def test_malformed_tags_are_a_400_that_says_why(world: World, said: str, part: str, lane: str) -> None:
    """Before anything is stored or called."""
    reply = await world.call("POST", f"/{lane}/acme/echo", {"prompt": "a"}, {"X-Fal-Tags": said})
    assert reply.status == 400
    assert "X-Fal-Tags" in str(reply.field("detail"))
    assert part in str(reply.field("detail"))


@given(st.lists(st.text(max_size=200), max_size=15))
def test_tags_are_read_or_refused_never_changed(texts: list[str]) -> None:
    """Whatever is sent, what is kept is what was sent, within its bounds."""
    try:
        tags = read_tags(texts)
    except ValueError:
        return
    assert [f"{key}={value}" for key, value in tags.items()] == texts
    assert len(tags) <= MAX_TAGS
    assert len(json.dumps(tags)) < 4_000
