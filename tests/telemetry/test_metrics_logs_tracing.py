"""Metrics stay bounded, logs keep secrets, traces keep their id."""

import datetime as dt
import io
import json
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from forestay.chance import SeededChance
from forestay.telemetry import tracing
from forestay.telemetry.logs import HIDDEN, configure, logger, wide_line
from forestay.telemetry.metrics import HTTP_REQUESTS, HTTP_SECONDS, OTHER, STATUS_WATCHED, Metrics, table

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


def test_long_texts_are_cut(lines: io.BytesIO) -> None:
    """A line stays a line."""
    logger("x").info("x.y", reason="r" * 10_000)
    assert len(lines.getvalue()) < 3_000


def test_a_trace_keeps_its_id_and_gets_a_span() -> None:
    """The caller's trace goes on; a malformed one is replaced."""
    chance = SeededChance(1)
    adopted = tracing.adopt(PARENT, chance)
    assert tracing.trace_id(adopted) == "0af7651916cd43dd8448eb211c80319c"
    assert adopted != PARENT
    assert tracing.trace_id(tracing.child(adopted, chance)) == tracing.trace_id(PARENT)


@given(st.none() | st.text(max_size=60) | st.just(PARENT))
def test_whatever_comes_a_valid_context_goes_on(header: str | None) -> None:
    """W3C's form, never all zeros."""
    assert tracing.trace_id(tracing.adopt(header, SeededChance(2))) is not None
