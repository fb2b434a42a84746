"""Events of a stream (WHATWG, server-sent events): where one ends, and what its data are. Pure; it judges nothing."""

from collections.abc import AsyncIterator

MAX_EVENT_BYTES = 64 * 1024 * 1024


class StreamTooLarge(ConnectionError):
    """An event or an answer is larger than may be judged; the connection ends."""


async def whole_events(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Put a stream's pieces together to events, each with the empty line that ends it (WHATWG, server-sent events)."""
    held = bytearray()
    async for piece in pieces:
        held += piece
        while (end := _end_of_event(held)) > 0:
            yield bytes(held[:end])
            del held[:end]
        if len(held) > MAX_EVENT_BYTES:
            raise StreamTooLarge(f"an event is larger than {MAX_EVENT_BYTES} bytes")
    if held.strip():
        yield bytes(held)


def _end_of_event(held: bytearray) -> int:
    """Return where the first event ends, after its empty line; 0 while it is not whole."""
    ends = [place + len(mark) for mark in (b"\n\n", b"\r\n\r\n", b"\r\r") if (place := held.find(mark)) >= 0]
    return min(ends, default=0)


def lines_of(event: bytes) -> list[tuple[bytes, bytes]]:
    """Return an event's lines as names and values."""
    lines = event.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    parts = [line.partition(b":") for line in lines]
    return [(name, value.removeprefix(b" ")) for name, _, value in parts]


def data_of(event: bytes) -> bytes | None:
    """Return an event's data, its lines joined; None when it has none."""
    lines = [value for name, value in lines_of(event) if name == b"data"]
    return b"\n".join(lines) if lines else None
