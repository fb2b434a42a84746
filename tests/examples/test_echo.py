"""The echo app over HTTP: echoes, streams, realtime, cancellation and each way of failing."""

import msgpack
import pytest
from websockets.sync.client import connect

from .conftest import Hosted, httpx, picture_of


def test_it_echoes_with_the_platforms_request_id(echo: Hosted) -> None:
    """The text comes back, and the id it was called with."""
    answer = echo.call("/", {"text": "good morning"}, request_id="r-1")
    assert answer.json() == {"text": "good morning", "slept_seconds": 0.0, "request_id": "r-1", "image": None}
    assert answer.headers["x-fal-runner-hints"] == "echo"


def test_it_can_return_a_picture(echo: Hosted) -> None:
    """A small real picture through the toolkit."""
    made = echo.made("/", {"text": "hello", "image": True})
    assert picture_of(made["image"]).size == (64, 64)


@pytest.mark.parametrize(
    ("fail", "status"), [("422", 422), ("500", 500), ("503", 503), ("504", 504), ("content", 422), ("triton", 503)]
)
def test_it_fails_with_the_status_asked_for(echo: Hosted, fail: str, status: int) -> None:
    """`triton` is a plain mistake that the SDK takes for a broken GPU."""
    assert echo.call("/", {"fail": fail}).status_code == status


def test_it_survives_writing_garbage_to_stdout(echo: Hosted) -> None:
    """Bytes that are no text reach the log, and the request is answered."""
    assert echo.call("/", {"fail": "garbage"}).status_code == 200
    assert b"\x00\xff\xfe" in (echo.folder / "log.txt").read_bytes()


@pytest.mark.parametrize("fail", ["crash", "exit"])
def test_it_dies_in_the_middle_of_a_request_when_asked(fresh_echo: Hosted, fail: str) -> None:
    """The connection breaks without an answer."""
    with pytest.raises(httpx.TransportError):
        fresh_echo.call("/", {"fail": fail})


def test_a_sleeping_request_can_be_cancelled(echo: Hosted) -> None:
    """It wakes up to say so."""
    assert echo.cancelled_while_running("/", {"sleep_seconds": 30}).status_code == 499


def test_it_logs_as_many_lines_as_asked(echo: Hosted) -> None:
    """Odd lines go to stdout and even ones to stderr; both arrive."""
    echo.call("/", {"log_lines": 7})
    assert [f"echo line {n}/7" in echo.log() for n in range(1, 8)] == [True] * 7


def test_the_stream_has_as_many_events_as_asked(echo: Hosted) -> None:
    """Numbered JSON events, the last one marked."""
    events = echo.events("/stream", {"events": 4, "text": "tick"})
    assert [event["number"] for event in events] == [1, 2, 3, 4]
    assert [event["last"] for event in events] == [False, False, False, True]


def test_a_stream_can_be_cancelled(echo: Hosted) -> None:
    """The last event says why it is the last."""
    events = echo.events(
        "/stream",
        {"events": 1000, "interval_seconds": 0.02},
        request_id="stream-to-cancel",
        on_event=lambda event: (
            event.get("number") == 1 and echo.call("/stream/cancel", request_id="stream-to-cancel") and None
        ),
    )
    assert events[-1]["error"]["status"] == 499
    assert len(events) < 1000


def test_realtime_messages_are_echoed(echo: Hosted) -> None:
    """Two msgpack messages on one connection."""
    with connect(echo.url.replace("http", "ws") + "/realtime") as session:
        for text in ("one", "two"):
            session.send(msgpack.packb({"text": text}) or b"")
            assert msgpack.unpackb(session.recv())["text"] == text
