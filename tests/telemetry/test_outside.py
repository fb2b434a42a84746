"""Facts from outside: read within bounds, named by field where they are wrong, the same fact kept once."""

import datetime as dt
import json
from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.errors import UsageError
from forestay.telemetry.access_logs import parse_envoy, parse_nginx, parser_of
from forestay.telemetry.facts import RequestFact
from forestay.telemetry.measures import Measure, durations, valid, work_done
from forestay.telemetry.outside import Batch, Fault, read_batch

NOW = dt.datetime(2026, 5, 4, 3, 2, tzinfo=dt.UTC)
RETENTION = 90 * 86_400.0
GOOD = {"model": "acme/pictures", "status": 200, "finished_at": "2026-05-04T03:01:00Z", "seconds": 4.5}
NGINX = (
    '203.0.113.7 - acme [04/May/2026:03:01:00 +0000] "POST /acme/pictures/edit?key=secret HTTP/1.1" 200 512 "-" '
    '"curl/8.1" rt=4.500 uct=0.500 uht=1.000 id=9f3c'
)
ENVOY = (
    '[2026-05-04T03:00:55.500Z] "POST /acme/pictures HTTP/1.1" 503 UF 12 91 4500 - "203.0.113.7" "curl/8.1" '
    '"4f7c0e9e-0000-4000-8000-000000000001" "models.example" "10.0.0.5:8000"'
)
ISTIO = (
    '[2026-05-04T03:00:55.500Z] "POST /acme/pictures HTTP/1.1" 200 - via_upstream - "-" 12 91 4500 4490 "-" "curl" '
    '"id-1" "models.example" "10.0.0.5:8000" outbound|80||models.svc 10.0.0.9:1 10.0.0.1:80 10.0.0.7:2 - default'
)


def read(*facts: object, source: str = "edge") -> tuple[list[RequestFact], list[Fault]]:
    """Read facts as the API gets them."""
    return read_batch(Batch(source, [msgspec.Raw(json.dumps(fact).encode()) for fact in facts]), NOW, RETENTION)


def test_a_fact_from_outside_is_a_fact_like_any_other() -> None:
    """Stages, work, cause and validity are read as of our own requests; it says who saw it."""
    said = {**GOOD, "wait_seconds": 1.5, "work": {"video_seconds": 6}, "tenant": "one", "valid": False, "worker": "w7"}
    [fact], faults = read(said)
    assert not faults
    values = {name: getattr(fact, name) for name in RequestFact.__struct_fields__}
    assert durations(values)[Measure.LATENCY_PER_WORK] == pytest.approx(0.5)
    assert work_done(fact.work) == {"video_seconds": 6.0}
    assert valid(values) is False
    assert (fact.lane, fact.source, fact.tenant_id, fact.worker_id, fact.cause) == (
        "outside",
        "edge",
        "one",
        "w7",
        None,
    )
    [failed], _ = read({**GOOD, "status": 503})
    assert (failed.outcome, failed.cause) == ("upstream", "upstream")


def test_the_same_fact_is_kept_once_and_another_s_is_another() -> None:
    """By its own id, else by all that it says; two sources never mean the same one."""
    ids = [
        fact.request_id
        for source in ("edge", "core")
        for fact in read(GOOD, GOOD, {**GOOD, "seconds": 5}, {**GOOD, "id": "a"}, source=source)[0]
    ]
    assert [ids.index(one) for one in ids] == [0, 0, 2, 3, 4, 4, 6, 7]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"status": "200"}, "status"),
        ({"status": 20}, "status"),
        ({"model": ""}, "model"),
        ({"model": "a\nb"}, "model"),
        ({"seconds": -1}, "seconds"),
        ({"seconds": 1e9}, "seconds"),
        ({"wait_seconds": 9}, "wait_seconds"),
        ({"finished_at": "2027-01-01T00:00:00Z"}, "finished_at"),
        ({"finished_at": "1999-01-01T00:00:00Z"}, "finished_at"),
        ({"finished_at": "yesterday"}, "finished_at"),
        ({"outcome": "broken"}, "outcome"),
        ({"traffic": "mine"}, "traffic"),
        ({"work": {"miles": 1}}, "work"),
        ({"traceparent": "no"}, "traceparent"),
        ({"prompt": "hidden"}, "prompt"),
    ],
)
def test_what_is_wrong_is_named_by_its_field_and_the_rest_goes_on(change: Mapping[str, object], field: str) -> None:
    """The second of three is wrong; the other two are kept."""
    kept, faults = read(GOOD, {**GOOD, **change}, {**GOOD, "id": "x"})
    assert len(kept) == 2
    assert [(fault.number, fault.field) for fault in faults] == [(1, field)]


def test_a_batch_without_a_proper_source_or_too_long_is_refused_whole() -> None:
    """By the name of the field."""
    with pytest.raises(UsageError, match="source"):
        read(GOOD, source="Edge EU")
    with pytest.raises(UsageError, match="facts"):
        read(*[GOOD] * 5_001)


@given(
    st.lists(st.recursive(st.none() | st.booleans() | st.floats() | st.text() | st.integers(), st.lists), max_size=3)
)
def test_nothing_that_is_sent_breaks_the_reading(values: list[object]) -> None:
    """Whatever stands in the fields: kept or named."""
    facts = [dict(zip(GOOD, [value] * 4, strict=True)) for value in values] + [{"model": value} for value in values]
    kept, faults = read(*facts)
    assert len(kept) + len(faults) == len(facts)


def test_a_line_of_nginx_is_read_without_query_address_or_client() -> None:
    """The user is the tenant; connect time is the wait, header time the first byte."""
    assert parse_nginx(NGINX) == {
        "model": "acme/pictures",
        "endpoint": "/edit",
        "status": 200,
        "finished_at": "2026-05-04T03:01:00+00:00",
        "seconds": 4.5,
        "tenant": "acme",
        "wait_seconds": 0.5,
        "first_byte_seconds": 1.0,
        "id": "9f3c",
    }
    [fact], faults = read(parse_nginx(NGINX))
    assert (fact.endpoint, faults) == ("/edit", [])


def test_lines_of_envoy_and_of_istio_are_read_with_their_flags() -> None:
    """When it began and how long it took give when it ended; a flag says more than the status."""
    read_line = parse_envoy(ENVOY)
    assert (read_line["finished_at"], read_line["seconds"]) == ("2026-05-04T03:01:00+00:00", 4.5)
    assert (read_line["outcome"], read_line["worker"]) == ("upstream", "10.0.0.5:8000")
    assert (parse_envoy(ISTIO)["id"], parse_envoy(ISTIO)["status"]) == ("id-1", 200)
    gone = parse_envoy(ENVOY.replace(" 503 UF ", " 0 DC "))
    assert (gone["status"], gone["outcome"]) == (499, "cancelled")


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("nonsense", "line"),
        (NGINX.replace(" rt=4.500", ""), "request_time"),
        (NGINX.replace("rt=4.500", "rt=soon"), "request_time"),
        (NGINX.replace("04/May", "34/May"), "time_local"),
        (NGINX.replace('" 200 ', '" - '), "status"),
        (NGINX.replace("/acme/pictures/edit", "/"), "request"),
        (NGINX.replace("POST /acme/pictures/edit?key=secret HTTP/1.1", "\\x16\\x03"), "request"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_by_its_field(line: str, field: str) -> None:
    """As its log calls it."""
    with pytest.raises(UsageError) as told:
        parse_nginx(line)
    assert told.value.field == field


@given(st.sampled_from(["nginx", "envoy", "jsonl"]), st.text(max_size=300) | st.sampled_from([NGINX, ENVOY]), st.data())
def test_no_line_breaks_a_parser(kind: str, line: str, data: st.DataObject) -> None:
    """Cut anywhere, or nothing like a log at all: read, or refused by field."""
    cut = data.draw(st.integers(0, len(line)))
    for text in (line, line[:cut], line[cut:]):
        try:
            found = parser_of(kind, "")(text)
        except UsageError:
            continue
        assert isinstance(found, dict)
