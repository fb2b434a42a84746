"""OpenSLO v1, in and out: what is taken over, what is lost, and that the loss is said."""

import dataclasses

import pytest
from hypothesis import given, settings
from tests.slo.objectives import slo
from tests.slo.test_slo_file import FILE, SLOS, TENANTS

from forestay.fleet.spec_yaml import SpecError
from forestay.slo.model import CalendarUnit, Part, SliKind, Slo, SloId, Subject, SubjectKind, Window
from forestay.slo.openslo import import_openslo
from forestay.slo.openslo_export import export_openslo
from forestay.slo.slo_file import read_slos

DOCUMENT = """\
apiVersion: openslo/v1
kind: SLO
metadata:
  name: web
  displayName: The shop
  labels: {tier: one, "Cost.Centre": "7"}
spec:
  service: shop
  indicatorRef: web-errors
  timeWindow:
    - duration: 1M
      calendar: {startTime: "2024-01-01 00:00:00", timeZone: Europe/Berlin}
  budgetingMethod: Occurrences
  objectives:
    - target: 0.995
    - targetPercent: 99.9
  alertPolicies:
    - alertPolicyRef: burn
---
apiVersion: openslo/v1
kind: SLI
metadata: {name: web-errors}
spec:
  ratioMetric:
    counter: true
    bad: {metricSource: {type: Prometheus, spec: {query: 'sum(http_total{code="500"})'}}}
    total: {metricSource: {type: Prometheus, spec: {query: http_total}}}
"""


def faults_of(text: str) -> str:
    """Every fault of a file, as it is told."""
    with pytest.raises(SpecError) as caught:
        import_openslo(text, "open.yaml")
    return "\n".join(caught.value.faults)


def test_an_slo_of_openslo_is_taken_over() -> None:
    """Two objectives become two SLOs; window, counters and labels come along."""
    found = import_openslo(DOCUMENT, "open.yaml").slos
    assert [(item.slo_id, item.objective) for item in found] == [("web-1", 0.995), ("web-2", 0.999)]
    assert found[0].window.calendar is CalendarUnit.MONTH
    assert found[0].window.time_zone == "Europe/Berlin"
    assert found[0].sli.series is not None
    assert found[0].sli.series.bad == 'http_total{code="500"}'
    assert found[0].labels == (("tier", "one"),)


def test_what_is_lost_or_guessed_is_said() -> None:
    """Nothing is left out in silence: owner, subject, measure, alert policies and labels."""
    told = {(loss.slo, loss.field) for loss in import_openslo(DOCUMENT, "open.yaml").losses}
    assert {("web-1", "owner"), ("web-1", "service"), ("web-1", "indicator"), ("web", "alertPolicies")} <= told
    assert ("web-2", "labels.Cost.Centre") in told


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("target: 0.995", "target: 1.5", "open.yaml:15: spec.objectives.0.target: must be above 0 and below 1"),
        ("- target: 0.995", "- value: 3", "give `target` or `targetPercent`"),
        ("indicatorRef: web-errors", "indicatorRef: gone", "open.yaml:9: spec.indicatorRef: names gone"),
        ("Occurrences", "Sometimes", "open.yaml:13: spec.budgetingMethod: must be Occurrences or Timeslices"),
        ("duration: 1M", "duration: 3M", "a calendar window must be"),
        ("kind: SLI", "kind: SLX", "open.yaml:21: needs `apiVersion: openslo/v1` and a kind of"),
        ("openslo/v1\nkind: SLO", "openslo/v1alpha\nkind: SLO", "open.yaml:1: needs `apiVersion: openslo/v1`"),
    ],
)
def test_a_fault_names_line_field_and_mend(before: str, after: str, told: str) -> None:
    """Lines are those of the file, also in its later documents."""
    assert told in faults_of(DOCUMENT.replace(before, after, 1))


def test_a_file_without_an_slo_is_refused() -> None:
    """A service alone is nothing to watch."""
    assert "no document of kind SLO" in faults_of("apiVersion: openslo/v1\nkind: Service\nmetadata: {name: a}\n")


def test_a_threshold_metric_becomes_a_latency() -> None:
    """Values above the threshold are bad; other comparisons can't be taken over, and that is a fault."""
    text = DOCUMENT.replace("    - targetPercent: 99.9\n", "").replace(
        "    - target: 0.995\n", "    - {target: 0.995, op: lte, value: 2.5}\n"
    )
    head, _, _ = text.partition("  ratioMetric:")
    text = head + "  thresholdMetric: {metricSource: {type: Prometheus, spec: {query: latency}}}\n"
    [found] = import_openslo(text, "open.yaml").slos
    assert (found.sli.kind, found.sli.threshold_seconds) == (SliKind.THRESHOLD, 2.5)
    assert "only lt and lte" in faults_of(text.replace("op: lte", "op: gt"))


def test_composites_are_left_out_and_named() -> None:
    """OpenSLO v1 has no word for them."""
    whole = dataclasses.replace(slo(), subject=Subject(SubjectKind.COMPOSITE), parts=(Part(SloId("a")),))
    text, losses = export_openslo([whole])
    assert text == ""
    assert [loss.field for loss in losses] == ["parts"]


def test_what_other_tools_will_not_see_is_listed() -> None:
    """Each annotation of ours, short windows and the evidence test."""
    _, losses = export_openslo(read_slos(FILE, "slos.yaml")[:2])
    assert {"subject", "measure", "owner_team", "policy", "threshold_seconds"} <= {loss.field for loss in losses}
    assert any("short windows" in loss.says for loss in losses)


@settings(deadline=None)  # YAML in pure Python, on a busy machine
@given(made=SLOS)
def test_every_plain_slo_survives_openslo_and_back(made: Slo) -> None:
    """Our own reader finds in the annotations what OpenSLO can't say."""
    text, _ = export_openslo([made])
    [found] = import_openslo(text, "open.yaml").slos
    lossless = dataclasses.replace(found, window=made.window if _same(made.window, found.window) else found.window)
    assert lossless == made


def test_a_credit_table_travels_in_an_annotation() -> None:
    """Out, with the note that other tools do not read it, and back."""
    slos = read_slos(TENANTS, "slos.yaml")
    text, losses = export_openslo(slos)
    assert any(loss.field == "credits" for loss in losses)
    assert import_openslo(text, "open.yaml").slos[0].credits == slos[0].credits


def _same(made: Window, found: Window) -> bool:
    return (made.calendar, made.time_zone, made.minutes) == (found.calendar, found.time_zone, found.minutes)
