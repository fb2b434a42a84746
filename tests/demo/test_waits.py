"""The comparison of a tenant's waits: its percentile, its bound, and the picture of it."""

from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from forestay.demo.waits import MOST_RATIO, Comparison, Span, Wait, p99, plot, render_waits, within

SECONDS = st.floats(min_value=0.0, max_value=1_000.0, allow_nan=False)


def waits(*seconds: float) -> tuple[Wait, ...]:
    """Return one wait a second."""
    return tuple(Wait(float(number), wait) for number, wait in enumerate(seconds))


@given(st.lists(SECONDS, min_size=1, max_size=300))
def test_at_most_one_in_a_hundred_waits_longer_than_the_p99(values: list[float]) -> None:
    """It is one of the values, no more than 1 % exceed it, and no smaller value has that property."""
    found = p99(values)
    assert found in values
    assert sum(value > found for value in values) <= len(values) / 100
    smaller = [value for value in values if value < found]
    assert not smaller or sum(value > max(smaller) for value in values) > len(values) / 100


def test_nothing_has_no_wait() -> None:
    """A tenant without requests waited for nothing."""
    assert p99([]) == 0.0


def test_the_bound_is_twice_the_solo_p99() -> None:
    """Where waiting alone takes longer than running, one service time does not count."""
    comparison = Comparison(waits(0.2, 0.4), waits(0.8), service_seconds=0.1)
    assert comparison.most_seconds == MOST_RATIO * 0.4
    assert comparison.kept
    assert not Comparison(waits(0.2, 0.4), waits(0.81), service_seconds=0.1).kept


def test_one_service_time_is_the_least_that_is_compared_with() -> None:
    """On an idle machine a wait of nothing is not doubled into a promise of nothing; the words say so."""
    comparison = Comparison(waits(0.001), waits(0.19), service_seconds=0.1)
    assert comparison.kept
    assert not Comparison(waits(0.001), waits(0.21), service_seconds=0.1).kept
    assert "one service time, 100 ms" in comparison.words()


def test_the_section_shows_numbers_before_and_during_and_a_point_a_request() -> None:
    """The sheet has both p99s, a row an attack, a plot that is well-formed, and no markup from a name."""
    comparison = Comparison(waits(0.01, 0.02), (Wait(2.0, 0.03), Wait(3.0, 0.05)), service_seconds=0.15)
    span = Span("a <b>flood</b>", 2.5, 4.0)
    section = render_waits(comparison, [span])
    assert "<tr><td>alone<td>2<td>10 ms<td>20 ms</tr>" in section
    assert "<tr><td>a &lt;b&gt;flood&lt;/b&gt;<td>1<td>50 ms<td>50 ms</tr>" in section
    drawing = ET.fromstring(plot(comparison, [span]))  # noqa: S314 - our own drawing
    assert len(drawing.findall("circle")) == 4
    assert len(drawing.findall("rect")) == 1


@given(st.lists(st.tuples(SECONDS, SECONDS), max_size=30), st.tuples(SECONDS, SECONDS))
def test_every_point_lies_inside_the_drawing(points: list[tuple[float, float]], ends: tuple[float, float]) -> None:
    """Whatever the waits were."""
    attacked = tuple(Wait(at, wait) for at, wait in points)
    span = Span("attack", min(ends), max(ends))
    drawing = ET.fromstring(plot(Comparison((), attacked, 0.1), [span]))  # noqa: S314
    _, _, width, height = (float(number) for number in drawing.attrib["viewBox"].split())
    for circle in drawing.findall("circle"):
        assert 0 <= float(circle.attrib["cx"]) <= width
        assert 0 <= float(circle.attrib["cy"]) <= height


def test_a_request_belongs_to_the_attack_during_which_it_was_submitted() -> None:
    """Its start counts, its end does not."""
    found = within(waits(0.1, 0.2, 0.3), Span("attack", 1.0, 2.0))
    assert [wait.wait_seconds for wait in found] == [0.2]
