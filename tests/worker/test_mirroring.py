"""What a worker offers to a rollout's shadow: nothing that slows its caller, and nothing that may not be kept."""

import dataclasses
import uuid
from collections.abc import MutableMapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.fleet_values import revision_of
from tests.conformance.memory_fleet import EPOCH

from forestay.fleet.model import Revision
from forestay.fleet.spec import EndpointSpec
from forestay.ids import RequestId, TenantId
from forestay.queue.model import Answer, Options
from forestay.rollouts.shadow.model import Offered
from forestay.worker.mirroring import (
    MOST_BYTES,
    AnswerCopy,
    DirectAnswer,
    callable_path,
    last_event,
    may_keep,
    offered_of,
)
from forestay.worker.replica import Running

Message = MutableMapping[str, object]


def model(*endpoints: EndpointSpec) -> Revision:
    """A revision with these endpoints, without a declared interface."""
    made = revision_of()
    spec = dataclasses.replace(made.spec, endpoints=endpoints or (EndpointSpec("/"),))
    return dataclasses.replace(made, spec=spec)


async def sent(pieces: list[bytes], status: int = 200, *, ends: bool = True) -> tuple[list[Message], Answer | None]:
    """Send an answer in pieces; returns what went out, and the copy."""
    out: list[Message] = []

    async def send(message: Message) -> None:
        out.append(message)

    copy = AnswerCopy(send)
    headers = [(b"content-type", b"application/json")]
    await copy.send({"type": "http.response.start", "status": status, "headers": headers})
    for piece in pieces:
        await copy.send({"type": "http.response.body", "body": piece, "more_body": True})
    if ends:
        await copy.send({"type": "http.response.body", "body": b"", "more_body": False})
    return out, copy.answer()


async def test_an_answer_goes_out_as_it_came_and_is_copied_only_when_whole_small_and_good() -> None:
    """What the caller gets does not depend on the copy."""
    out, answer = await sent([b'{"a":', b"1}"])
    assert [message.get("body") for message in out] == [None, b'{"a":', b"1}", b""]
    assert answer is not None
    assert (answer.body, answer.headers["content-type"]) == (b'{"a":1}', "application/json")
    for copied in (
        await sent([b"{}"], status=422),
        await sent([b"{}"], ends=False),
        await sent([bytes(MOST_BYTES), b"more"]),
    ):
        assert copied[1] is None
    assert len((await sent([bytes(MOST_BYTES), b"more"]))[0]) == 4


@pytest.mark.parametrize(
    ("path", "endpoint"), [("/", "/"), ("/stream", "/"), ("/edit/stream", None), ("/edit", "/edit"), ("/live", None)]
)
def test_a_stream_is_asked_again_through_the_call_of_the_same_input(path: str, endpoint: str | None) -> None:
    """As fal's apps have it: `/stream` beside `/`; where there is no such call, it is not mirrored."""
    revision = model(EndpointSpec("/"), EndpointSpec("/stream", "stream"), EndpointSpec("/live", "stream"))
    assert callable_path(revision, path) == endpoint


def offer(body: bytes, answer: bytes, kind: str = "application/json", path: str = "/") -> DirectAnswer:
    """A direct call and its answer."""
    running = Running(RequestId(uuid.UUID(int=7)), 0, TenantId("acme"), endpoint=path)
    revision = model(EndpointSpec("/"), EndpointSpec("/stream", "stream"))
    return DirectAnswer(running, revision, body, Answer(200, {"content-type": kind}, answer), 1.5, EPOCH)


async def test_a_direct_call_is_offered_under_its_size() -> None:
    """Read from its input as the queue's requests are."""
    found = await offered_of(offer(b'{"image_size":{"width":1024,"height":1000},"seed":3}', b'{"images":[]}'))
    assert isinstance(found, Offered)
    assert (found.endpoint, found.stratum, found.device_seconds) == ("/", "/ about 1024x1024 pixels", 1.5)


async def test_a_stream_is_offered_by_what_it_made_in_the_end() -> None:
    """Comments and names between its events say nothing."""
    events = b'data: {"step":1}\n\n: alive\n\nevent: done\ndata: {"images":["x"]}\n\n: bye\n\n'
    assert await last_event(events) == b'{"images":["x"]}'
    found = await offered_of(offer(b'{"seed":1}', events, "text/event-stream; charset=utf-8", "/stream"))
    assert found is not None
    assert (found.endpoint, found.answer) == ("/", b'{"images":["x"]}')


@given(st.binary(max_size=60), st.binary(max_size=60), st.sampled_from(["application/json", "text/event-stream"]))
async def test_whatever_a_call_says_it_is_an_object_or_no_offer(body: bytes, answer: bytes, kind: str) -> None:
    """Nothing breaks, and nothing that is no JSON object is asked again."""
    found = await offered_of(offer(body, answer, kind))
    assert found is None or (found.body.strip()[:1], found.answer.strip()[:1]) == (b"{", b"{")


def test_what_its_caller_wants_forgotten_or_keeps_elsewhere_is_not_kept() -> None:
    """Nor what is too large to be kept cheaply."""
    assert may_keep(Options(store_io=True), b"{}")
    assert not may_keep(Options(store_io=False), b"{}")
    assert not may_keep(Options(store_io=True, upload_policy="p"), b"{}")
    assert not may_keep(Options(store_io=True), bytes(MOST_BYTES + 1))
