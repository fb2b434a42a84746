"""SLOs from YAML: what is read, what comes back, and what each fault is told as."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forestay.fleet.spec_yaml import SpecError
from forestay.slo.model import (
    Alerting,
    BudgetAction,
    BudgetStep,
    CalendarUnit,
    CreditBand,
    Measure,
    Series,
    Sli,
    SliKind,
    Slo,
    SloId,
    Subject,
    SubjectKind,
    Window,
)
from forestay.slo.slo_file import json_schema, read_slos
from forestay.slo.slo_text import render_slos

FILE = """\
version: 1
slos:
  - id: digits-available
    description: Pictures of digits are made when asked for
    subject: {model: acme/digits}
    objective: 99.9
    sli:
      kind: ratio
      measure: availability
      series:
        total: 'requests_total{model="digits"}'
        bad: 'requests_total{model="digits",outcome="failed"}'
    owner: {team: vision, contact: "#vision"}
  - id: digits-fast
    subject: {model: acme/digits}
    objective: 95
    sli: {kind: threshold, measure: latency, threshold_seconds: 2.5}
    window: {calendar: month, time_zone: Europe/Berlin}
    owner: {team: vision}
    policy: {steps: [{left: 10, action: freeze}], thaw_margin: 5}
  - id: digits-well
    parts: [{slo: digits-available, weight: 3}, {slo: digits-fast}]
    objective: 99
    owner: {team: vision}
"""


def faults_of(text: str) -> str:
    """Every fault of a file, as it is told."""
    with pytest.raises(SpecError) as caught:
        read_slos(text, "slos.yaml")
    return "\n".join(caught.value.faults)


def test_an_slo_is_read_as_it_is_written() -> None:
    """Subjects, indicators, windows, policies and parts."""
    available, fast, well = read_slos(FILE, "slos.yaml")
    assert (available.objective, available.window, available.subject.name) == (0.999, Window(), "acme/digits")
    assert available.sli.series is not None
    assert (fast.window.calendar, fast.window.time_zone) == (CalendarUnit.MONTH, "Europe/Berlin")
    assert fast.policy == (BudgetStep(0.1, BudgetAction.FREEZE),)
    assert [(part.slo_id, part.weight) for part in well.parts] == [("digits-available", 3.0), ("digits-fast", 1.0)]


def test_a_file_reads_back_as_the_same_slos() -> None:
    """Written and read again, nothing changes."""
    slos = read_slos(FILE, "slos.yaml")
    assert read_slos(render_slos(slos), "again.yaml") == slos


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("objective: 99.9", "objective: 100", "slos.yaml:6: slos.0.objective: input should be less than 100"),
        ("objective: 99.9", "objectiv: 99.9", "did you mean `objective`?"),
        ("measure: latency,", "measure: speed,", "slos.yaml:17: slos.1.sli.measure: input should be 'availability'"),
        ("threshold_seconds: 2.5", "slice: 5m", "latency needs `threshold_seconds`"),
        ("Europe/Berlin", "Europe/Atlantis", "no time zone is called Europe/Atlantis"),
        ("slo: digits-fast}", "slo: digits-slow}", "has the part digits-slow, which is no plain SLO"),
        ("id: digits-fast", "id: digits-available", "id digits-available is used twice"),
        ("subject: {model: acme/digits}", "subject: {}", "name exactly one of platform, model and tenant"),
        ("kind: ratio", "kind: time_slice", "time_slice needs `slice` and `slice_objective`"),
        ("total: 'requests_total{model=\"digits\"}'", "total: rate(x[5m])", "without functions"),
        ("action: freeze}", "action: freeze}, {left: 5, action: slow_rollouts}", "stronger action"),
        (
            "{kind: threshold, measure: latency, threshold_seconds: 2.5}",
            "{kind: ratio, measure: status}",
            "platform: true",
        ),
        ("version: 1", "version: 2", "slos.yaml:1: version: input should be 1"),
    ],
)
def test_a_fault_names_line_field_and_mend(before: str, after: str, told: str) -> None:
    """One change in a good file, one fault that says what to write instead."""
    assert told in faults_of(FILE.replace(before, after, 1))


TENANTS = """\
version: 1
slos:
  - id: gold-up
    subject: {tenant: gold}
    objective: 99.9
    sli: {kind: ratio, measure: availability}
    owner: {team: sales}
    credits:
      - {below: 99.9, credit: 5}
      - {below: 99, credit: 50}
"""


def test_a_credit_table_is_read_and_written_as_it_is() -> None:
    """An empty one gives nothing back, which is something else than none."""
    [gold] = read_slos(TENANTS, "slos.yaml")
    assert gold.credits == (CreditBand(0.999, 0.05), CreditBand(0.99, 0.5))
    assert read_slos(render_slos([gold]), "again.yaml") == (gold,)
    [nothing] = read_slos(TENANTS.partition("    credits:")[0] + "    credits: []\n", "slos.yaml")
    assert nothing.credits == ()
    assert read_slos(render_slos([nothing]), "again.yaml") == (nothing,)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("{tenant: gold}", "{model: acme/digits}", "`credits` go with `subject: {tenant: ...}`"),
        ("measure: availability", "measure: validity", "`sli: {kind: ratio, measure: availability}`"),
        ("{below: 99, credit: 50}", "{below: 99.9, credit: 50}", "must lie lower and give back more; below 99.9"),
        ("{below: 99, credit: 50}", "{below: 99, credit: 5}", "must lie lower and give back more; below 99 "),
        ("credit: 50", "credit: 101", "slos.yaml:10: slos.0.credits.1.credit: input should be less than"),
        ("credit: 50", "back: 50", "known: below, credit"),
    ],
)
def test_a_fault_of_a_credit_table_names_line_field_and_mend(before: str, after: str, told: str) -> None:
    """It is of a tenant's availability alone, and falls band by band."""
    assert told in faults_of(TENANTS.replace(before, after, 1))


def test_what_yaml_hides_is_refused() -> None:
    """Anchors and twins are no way to write an SLO."""
    assert "anchors" in faults_of("version: 1\nslos: &all []\n")
    assert "written twice" in faults_of("version: 1\nversion: 1\nslos: []\n")
    assert "must hold" in faults_of("[]")


def test_the_published_schema_takes_the_example() -> None:
    """The schema is draft 2020-12, and knows every field of the file."""
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert all(name in json.dumps(schema) for name in ("slice_objective", "thaw_margin", "probes_total"))


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
WINDOWS = st.one_of(
    st.builds(Window, minutes=st.integers(60, 366 * 1440)),
    st.builds(Window, calendar=st.sampled_from(CalendarUnit), time_zone=st.sampled_from(["UTC", "Asia/Kathmandu"])),
)
SLIS = st.one_of(
    st.just(Sli(SliKind.RATIO, Measure.VALIDITY, series=Series("a_total", good="b_total"))),
    st.floats(0.001, 900).map(lambda seconds: Sli(SliKind.THRESHOLD, Measure.QUEUE_WAIT, seconds)),
    st.builds(
        Sli,
        kind=st.just(SliKind.TIME_SLICE),
        measure=st.just(Measure.AVAILABILITY),
        slice_minutes=st.integers(1, 600),
        slice_objective=st.integers(1, 10_000).map(lambda share: round(share / 10_000, 14)),
    ),
    st.floats(0.01, 900).map(
        lambda rate: Sli(SliKind.TIME_SLICE, Measure.THROUGHPUT, 90.0, 5, slice_objective=0.95, per_second=rate)
    ),
)
SLOS = st.builds(
    Slo,
    slo_id=NAMES.map(SloId),
    subject=st.sampled_from([Subject(SubjectKind.PLATFORM), Subject(SubjectKind.TENANT, "acme")]),
    objective=st.integers(1, 99_999).map(lambda share: round(share / 100_000, 14)),
    sli=SLIS,
    owner_team=NAMES,
    window=WINDOWS,
    alerting=st.builds(Alerting, page=st.booleans(), false_pages_per_30_days=st.floats(0.001, 9)),
    labels=st.dictionaries(NAMES, NAMES, max_size=3).map(lambda labels: tuple(sorted(labels.items()))),
)


@settings(deadline=None)  # YAML in pure Python, on a busy machine
@given(slo=SLOS)
def test_every_slo_survives_being_written_and_read(slo: Slo) -> None:
    """Whatever an SLO says, our format can say it, to the last digit."""
    assert read_slos(render_slos([slo]), "slos.yaml") == (slo,)
