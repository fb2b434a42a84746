"""What is said of an SLO, and why: the ladder of the decision."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.slo.objectives import slo

from forestay.slo.burn_rules import Severity, pairs_for
from forestay.slo.decide import Kind, Opened, SloState, Sums, decide_slo, recovered, stake_left
from forestay.slo.model import Alerting, Minute

NOW = Minute(100_000)
LENGTHS = (1, 5, 30, 60, 120, 360, 1440, 4320)


def state(bad: int, hourly: int, *, evidence: float = 0.0, opened: Opened | None = None) -> SloState:
    """Return a state of even traffic with `bad` bad requests, all in the last minute."""
    windows = {
        minutes: Sums(min(bad, max(1, hourly * minutes // 60)), max(1, hourly * minutes // 60)) for minutes in LENGTHS
    }
    return SloState(slo(), windows, evidence, opened=opened or Opened(), last_seen=NOW)


def kinds(found: SloState) -> list[Kind]:
    """Return the kinds of what is found."""
    return [finding.kind for finding in decide_slo(found, NOW).findings]


def test_calm_says_nothing() -> None:
    """No bad request, no finding."""
    assert kinds(state(0, 3_000)) == []


def test_busy_traffic_that_burns_pages_by_the_workbook() -> None:
    """200 bad of 3,000 in an hour are more than 1.44 %; at this traffic that is no accident."""
    [page, *_] = decide_slo(state(200, 3_000), NOW).findings
    assert (page.kind, page.rules) == (Kind.PAGE, ("fast", "slow"))


def test_thin_traffic_holds_the_workbook_and_says_so() -> None:
    """One bad request of 30 starts the fast rule; it is noted, and nobody is woken."""
    [held] = decide_slo(state(1, 30, evidence=0.02), NOW).findings
    assert held.kind is Kind.HELD
    assert "1 of 30 requests" in held.reason
    assert "2.0%" in held.reason


def test_thin_traffic_with_evidence_pages() -> None:
    """When the evidence is at its goal, traffic does not matter."""
    [page] = decide_slo(state(3, 30, evidence=1.0), NOW).findings
    assert (page.kind, page.rules) == (Kind.PAGE, ("evidence",))
    assert "wrong at most 0.1 times in 30 days" in page.reason


def test_a_page_by_evidence_stays_open_until_the_slo_has_recovered() -> None:
    """Evidence begins at 0 after it spoke; the page stays while bad requests come, and ends after."""
    opened = Opened(evidence=True)
    assert decide_slo(state(2, 60, opened=opened), NOW).opened.evidence
    assert not decide_slo(state(0, 60, opened=opened), NOW).opened.evidence


def test_a_rule_does_not_begin_in_a_minute_without_a_bad_request() -> None:
    """A window may come to burn because good requests leave it; that is no news."""
    found = state(100, 3_000)
    windows = {**found.windows, 1: Sums(0, 50)}
    decision = decide_slo(dataclasses.replace(found, windows=windows), NOW)
    assert Kind.PAGE not in [finding.kind for finding in decision.findings]
    kept = dataclasses.replace(found, windows=windows, opened=Opened(pairs=frozenset({"fast"})))
    assert Kind.PAGE in [finding.kind for finding in decide_slo(kept, NOW).findings]


def test_silence_is_no_data_and_closes_what_was_open() -> None:
    """After an hour without a request nothing is claimed, but that."""
    found = dataclasses.replace(state(0, 30), last_seen=Minute(NOW - 60), opened=Opened(evidence=True))
    decision = decide_slo(found, NOW)
    assert [finding.kind for finding in decision.findings] == [Kind.NO_DATA]
    assert not decision.opened.evidence


def test_what_is_turned_off_wakes_nobody() -> None:
    """An SLO that shall not page does not, however sure the evidence is."""
    quiet = dataclasses.replace(state(3, 30, evidence=1.0), slo=slo(alerting=Alerting(page=False)))
    assert Kind.PAGE not in kinds(quiet)


def test_probes_are_named_as_probes() -> None:
    """A reader sees how many of the requests were ours."""
    found = state(3, 30, evidence=1.0)
    windows = {minutes: dataclasses.replace(sums, probes=20) for minutes, sums in found.windows.items()}
    [page] = decide_slo(dataclasses.replace(found, windows=windows), NOW).findings
    assert "(20 of them probes)" in page.reason


def test_recovery_waits_for_enough_requests() -> None:
    """At thin traffic 30 quiet minutes prove nothing; six hours are looked at."""
    windows = {30: Sums(0, 5), 60: Sums(0, 10), 360: Sums(3, 60)}
    assert not recovered(windows, 0.001, Severity.PAGE)
    assert recovered({**windows, 30: Sums(0, 20)}, 0.001, Severity.PAGE)


@given(
    bad=st.integers(0, 5_000),
    hourly=st.sampled_from((1, 12, 30, 300, 400, 3_000)),
    evidence=st.floats(0.0, 2.0),
    open_evidence=st.booleans(),
)
def test_a_decision_is_repeatable_and_every_finding_has_a_reason(
    bad: int, hourly: int, evidence: float, open_evidence: bool
) -> None:
    """The same state gives the same decision; reasons name the SLO; a page never stands beside a held rule."""
    found = state(bad, hourly, evidence=evidence, opened=Opened(evidence=open_evidence))
    decision = decide_slo(found, NOW)
    assert decision == decide_slo(found, NOW)
    assert all("digits" in finding.reason and finding.reason.endswith(".") for finding in decision.findings)
    assert not {Kind.PAGE, Kind.HELD} <= {finding.kind for finding in decision.findings}


@pytest.mark.parametrize("hourly", [1, 30, 300, 360, 500, 3_000, 300_000])
def test_rules_and_evidence_share_one_rate(hourly: int) -> None:
    """What evidence may stake is never below 0, and is all of it while every rule is held."""
    pairs = pairs_for(0.001, 43_200)
    windows = {minutes: Sums(0, hourly * minutes // 60) for minutes in LENGTHS}
    left = stake_left(pairs, windows, Severity.PAGE)
    assert 0.0 <= left <= 1.0
    assert hourly > 200 or left == 1.0
