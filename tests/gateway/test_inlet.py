"""Hearing a caller out: an early answer must not cost it the connection."""

import asyncio
from collections.abc import Sequence

import pytest
from starlette.types import Message

from forestay.gateway import inlet as heard
from forestay.gateway.inlet import HEARD_OUT_BYTES, Inlet


class Caller:
    """Sends the given pieces of a body, then nothing more."""

    def __init__(self, pieces: Sequence[bytes], *, ends: bool = True) -> None:
        self.left = list(pieces)
        self._ends = ends

    async def receive(self) -> Message:
        """Give the next piece, or nothing for ever."""
        if not self.left:
            await asyncio.Event().wait()
        piece = self.left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self.left) or not self._ends}


async def test_what_was_not_read_is_taken_before_the_answer() -> None:
    """Whatever a refusal left unread is off the wire when it is sent."""
    caller = Caller([b"{", b"}"])
    assert await Inlet(caller.receive, {b"content-length": b"2"}).hear_out()
    assert not caller.left


@pytest.mark.parametrize("headers", [{}, {b"content-length": b"0"}, {b"content-length": b"nonsense"}])
async def test_a_call_without_a_body_is_answered_at_once(headers: dict[bytes, bytes]) -> None:
    """Nothing was said to come, so nothing is waited for."""
    assert await Inlet(Caller([]).receive, headers).hear_out()


async def test_a_body_that_was_read_is_not_waited_for() -> None:
    """By its end, or by its length where the server has not yet said that it ended."""
    for ends in (True, False):
        inlet = Inlet(Caller([b"{}"], ends=ends).receive, {b"content-length": b"2"})
        await inlet()
        assert await inlet.hear_out()


async def test_much_that_is_left_is_not_read() -> None:
    """A declared length beyond the limit is not begun; an undeclared body is followed up to the limit."""
    caller = Caller([b"x"])
    declared = b"%d" % (HEARD_OUT_BYTES + 1)
    assert not await Inlet(caller.receive, {b"content-length": declared}).hear_out()
    assert caller.left
    endless = Caller([b"x" * HEARD_OUT_BYTES] * 4)
    assert not await Inlet(endless.receive, {b"transfer-encoding": b"chunked"}).hear_out()
    assert len(endless.left) >= 2


async def test_a_slow_caller_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the patience is spent the answer goes out all the same."""
    monkeypatch.setattr(heard, "HEARD_OUT_SECONDS", 0.01)
    assert not await Inlet(Caller([]).receive, {b"content-length": b"2"}).hear_out()
