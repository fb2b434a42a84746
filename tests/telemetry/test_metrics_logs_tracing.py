"""Metrics stay bounded, logs keep secrets, traces keep their id."""

import datetime as dt
import io
import json
import threading
import uuid
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from forestay.chance import SeededChance
from forestay.ids import RequestId, new_request_id
from forestay.telemetry import tracing
from forestay.telemetry.logs import HIDDEN, configure, logger, tap, wide_line
from forestay.telemetry.metrics import FOLD_AT, HTTP_REQUESTS, HTTP_SECONDS, OTHER, STATUS_WATCHED, Metrics, table

REQUEST_ID = RequestId(uuid.UUID("01980f5e-7c1a-7000-8000-0123456789ab"))
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def lines() -> Iterator[io.BytesIO]:
    """What is logged, as a process would write it."""
    before, stream = structlog.get_config(), io.BytesIO()
    configure("tests", stream=stream)
    yield stream
    configure("tests", level="warning", stream=io.BytesIO())
    structlog.configure(**before)


def test_labels_are_bounded() -> None:
    """Beyond the limit everything counts under other."""
    metrics = Metrics()
    for number in range(HTTP_REQUESTS.limit + 50):
        metrics.add(HTTP_REQUESTS, f"route-{number}", "200")
    assert metrics.value(HTTP_REQUESTS, OTHER, OTHER) == 50
    assert metrics.value(HTTP_REQUESTS, "route-1", "200") == 1


def test_what_threads_count_together_is_counted_once_each() -> None:
    """Notes of many threads, more than wait at a time, are all there, by bucket as well."""
    metrics = Metrics()
    each = FOLD_AT + 7

    def count() -> None:
        for _ in range(each):
            metrics.add(HTTP_REQUESTS, "run", "200")
            metrics.observe(HTTP_SECONDS, 0.05, "run")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    page = metrics.exposition().decode().splitlines()
    assert metrics.value(HTTP_REQUESTS, "run", "200") == 4 * each
    assert 'forestay_http_seconds_bucket{le="0.01",route="run"} 0.0' in page
    assert f'forestay_http_seconds_bucket{{le="0.05",route="run"}} {4 * each}.0' in page  # a bound holds its own value
    assert f'forestay_http_seconds_bucket{{le="+Inf",route="run"}} {4 * each}.0' in page
    assert f'forestay_http_seconds_count{{route="run"}} {4 * each}.0' in page


def test_a_wrong_number_of_labels_is_told_to_whoever_counts() -> None:
    """Not to whoever reads the page."""
    metrics = Metrics()
    with pytest.raises(ValueError, match="labels"):
        metrics.add(HTTP_REQUESTS, "run")
    with pytest.raises(ValueError, match="back"):
        metrics.add(HTTP_REQUESTS, "run", "200", amount=-1)
    assert b"forestay_http_requests" not in metrics.exposition()


@given(st.lists(st.tuples(st.sampled_from(["add", "set"]), st.integers(-5, 5)), max_size=30))
def test_a_gauge_is_what_was_done_to_it_in_order(steps: list[tuple[str, int]]) -> None:
    """Adding is noted and setting is not, and still each comes in its turn."""
    metrics, expected = Metrics(), 0.0
    for verb, number in steps:
        if verb == "add":
            metrics.add(STATUS_WATCHED, amount=number)
            expected += number
        else:
            metrics.set(STATUS_WATCHED, number)
            expected = number
    assert metrics.value(STATUS_WATCHED) == expected


def test_each_kind_refuses_the_others_verb() -> None:
    """A histogram is observed, a gauge is set."""
    metrics = Metrics()
    with pytest.raises(TypeError):
        metrics.add(HTTP_SECONDS, "run")
    with pytest.raises(TypeError):
        metrics.set(HTTP_REQUESTS, 1, "run", "200")
    with pytest.raises(TypeError):
        metrics.observe(STATUS_WATCHED, 1)


def test_every_declared_metric_can_be_exported() -> None:
    """Names are unique and well formed."""
    metrics = Metrics()
    names = [metric.name for metric in table()]
    assert len(names) == len(set(names))
    for metric in table():
        labels = ["x"] * len(metric.labels)
        (metrics.observe(metric, 1, *labels) if metric.kind == "histogram" else metrics.add(metric, *labels))
    page = metrics.exposition().decode()
    assert all(name.removesuffix("_total") in page for name in names)


def test_a_line_is_json_with_its_action(lines: io.BytesIO) -> None:
    """One object a line."""
    logger("gateway").info("gateway.thing", request_id="r")
    wide_line("gateway", "gateway.call", dt.datetime(2030, 1, 1, tzinfo=dt.UTC), {"request_id": "r"})
    first, second = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert (first["action"], first["process"], first["domain"], first["level"]) == (
        "gateway.thing",
        "tests",
        "gateway",
        "info",
    )
    assert first.keys() == second.keys()


def test_secrets_and_content_never_appear(lines: io.BytesIO) -> None:
    """Whoever put them in."""
    for name in ("authorization", "secret", "prompt", "body", "token"):
        logger("x").warning("x.y", **{name: "hush"})
        wide_line("x", "x.y", dt.datetime(2030, 1, 1, tzinfo=dt.UTC), {name: "hush"})
    assert b"hush" not in lines.getvalue()
    assert HIDDEN.encode() in lines.getvalue()


def test_wide_lines_stand_among_others_in_their_order(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Written a little later, hidden fields hidden, and one that JSON cannot hold is shown in ASCII, not lost."""
    before = structlog.get_config()
    told: list[bytes] = []
    try:
        configure("tests")
        tap(told.append)
        at = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
        logger("x").info("x.first")
        wide_line("x", "x.second", at, {"prompt": "hush"})
        wide_line("x", "x.third", at, {"name": "\ud800"})
        logger("x").error("x.fourth")  # an error does not wait
    finally:
        configure("tests", level="warning", stream=io.BytesIO())
        structlog.configure(**before)
    found = [json.loads(line) for line in b"".join(told).splitlines()]
    names = [line.get("action", line.get("'action'")) for line in found]
    assert names == ["x.first", "x.second", "'x.third'", "x.fourth"]
    assert found[1]["prompt"] == HIDDEN
    assert found[1]["at"] == "2030-01-01T00:00:00Z"
    assert capfdbinary.readouterr().err == b"".join(told)


def test_long_texts_are_cut(lines: io.BytesIO) -> None:
    """A line stays a line."""
    logger("x").info("x.y", reason="r" * 10_000)
    assert len(lines.getvalue()) < 3_000


def test_a_trace_keeps_its_id_and_gets_a_span() -> None:
    """The caller's context goes on as it is; the model is told a parent of its own, the same each time it is asked."""
    accepted = tracing.accept(PARENT, REQUEST_ID, 1.0)
    assert accepted == PARENT
    told = tracing.for_model(accepted, REQUEST_ID, 1)
    assert tracing.trace_id(told) == "0af7651916cd43dd8448eb211c80319c"
    assert told == tracing.for_model(accepted, REQUEST_ID, 1)
    assert len({told, tracing.for_model(accepted, REQUEST_ID, 2), accepted}) == 3


@given(st.none() | st.text(max_size=60) | st.just(PARENT), st.floats(0, 1))
def test_whatever_comes_a_valid_context_goes_on(header: str | None, ratio: float) -> None:
    """W3C's form, never all zeros; a fresh trace's id is the request's."""
    accepted = tracing.accept(header, REQUEST_ID, ratio)
    assert tracing.trace_id(accepted) in {REQUEST_ID.hex, tracing.trace_id(PARENT)}
    assert tracing.read(tracing.for_model(accepted, REQUEST_ID, 1)) is not None


def test_the_share_of_fresh_traces_that_is_recorded_is_what_was_asked_for() -> None:
    """None, about a quarter, all; a caller's own word goes before it."""
    chance = SeededChance(7)
    ids = [new_request_id(dt.datetime(2026, 1, 2, tzinfo=dt.UTC), 0, chance) for _ in range(2_000)]

    def recorded(ratio: float) -> int:
        contexts = [tracing.read(tracing.accept(None, request_id, ratio)) for request_id in ids]
        return sum(context is not None and context.sampled for context in contexts)

    assert recorded(0.0) == 0
    assert 400 < recorded(0.25) < 600
    assert recorded(1.0) == len(ids)
    assert tracing.accept(PARENT, ids[0], 0.0) == PARENT
