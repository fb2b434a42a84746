"""Replay: two sets of rules on the same calls, and how right each was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.abuse.callers import DAY, START, call_of

from forestay.abuse.calls import Call
from forestay.abuse.replay import Replay, by_appeals, interval, score
from forestay.abuse.rules import Rules
from forestay.abuse.rules_file import read_rules
from forestay.fleet.standing import StandingKind

REFUSED = {"cause": "content_policy_violation"}


def rules_of(at_least: int, standing: str = "suspend", count: int = 1_000) -> Rules:
    """One rule about refusals, one about calls in an hour."""
    return read_rules(
        f"""\
version: 1
counters:
  - {{id: calls_hour, per: tenant, count: calls, window: 1h}}
rules:
  - id: probing
    code: probing
    per: key
    when: {{signal: probing.refused, at_least: {at_least}}}
    then: {{standing: {standing}, for: 1h, reason: "{{probing.refused}} refused"}}
  - id: busy
    code: busy
    per: tenant
    when: {{counter: calls_hour, at_least: {count}}}
    then: {{standing: watch, for: 1h, reason: "{{calls_hour}} calls"}}
""",
        "rules.yaml",
    )


def refused(key: str, count: int, start: float = 0.0) -> list[Call]:
    """Distinct refused prompts of a key, a second apart."""
    return [
        call_of(start + step, key=key, tenant=f"t-{key}", prompt=(step + 1) * 0x0F0F_1234_5678, raw=step + 1, **REFUSED)
        for step in range(count)
    ]


def replayed(before: Rules, after: Rules, *calls: list[Call], judged_from: float = 0.0) -> Replay:
    """Everything replayed."""
    replay = Replay(before, after, START + judged_from)
    for call in sorted((call for some in calls for call in some), key=lambda call: call.at):
        replay.take(call)
    return replay


def test_stricter_rules_show_whom_they_would_have_caught_and_when() -> None:
    """New ones first, with the numbers of the moment; who stands the same is only counted."""
    replay = replayed(rules_of(6), rules_of(3), refused("k1", 4), refused("k2", 8))
    [new] = [change for change in replay.changes() if change.before is None]
    assert new.subject == "key:k1"
    assert new.after is not None
    assert (new.after.kind, new.after.reason) == (StandingKind.SUSPEND, "3 refused")
    assert new.after.since.timestamp() == START + 2
    assert len(replay.changes()) == 1
    assert replay.unchanged() == 1


def test_milder_rules_show_whom_they_would_have_let_go() -> None:
    """Set free, and another kind for who stays."""
    replay = replayed(rules_of(3), rules_of(6, "watch"), refused("k1", 4), refused("k2", 8))
    found = {change.subject: (change.before is not None, change.after) for change in replay.changes()}
    assert found["key:k1"] == (True, None)
    kept = found["key:k2"][1]
    assert kept is not None
    assert kept.kind is StandingKind.WATCH


def test_counters_belong_to_the_rules_that_declare_them() -> None:
    """The same name in both sets counts for each alone, and over the calls that only teach as well."""
    replay = replayed(rules_of(90, count=9), rules_of(90, count=3), refused("k1", 4), judged_from=3)
    [new] = replay.changes()
    assert new.after is not None
    assert (new.subject, new.after.reason) == ("tenant:t-k1", "4 calls")
    assert (replay.taught, replay.judged) == (3, 1)


def test_what_came_before_teaches_and_is_not_judged() -> None:
    """A refusal of last week is known, and nobody is suspended for it today."""
    replay = replayed(rules_of(3), rules_of(3), refused("k1", 5), refused("k2", 1, DAY), judged_from=DAY)
    assert replay.after.gravest == {}


def test_the_same_rules_change_nothing() -> None:
    """Whatever was called."""
    assert replayed(rules_of(3), rules_of(3), refused("k1", 5), refused("k2", 9)).changes() == []


def test_precision_and_recall_count_a_key_with_its_tenant() -> None:
    """A label of a tenant is met by any of its keys, one of a key by its tenant."""
    replay = replayed(rules_of(90), rules_of(3), refused("k1", 4), refused("k2", 4), refused("k3", 1))
    truth = {"tenant:t-k1": True, "key:k2": False, "key:k3": True, "tenant:t-k9": False}
    found = score(replay.after, truth, replay.tenant_of)
    assert (found.caught, found.wrong, found.missed, found.passed) == (1, 1, 1, 1)
    assert (found.precision, found.recall) == (0.5, 0.5)
    none = score(replay.before, truth, replay.tenant_of)
    assert (none.precision, none.recall) == (None, 0.0)


def test_a_watched_caller_is_not_restricted() -> None:
    """Watching takes nothing from anybody, so it is no catch."""
    replay = replayed(rules_of(3, "watch"), rules_of(3), refused("k1", 4))
    assert score(replay.before, {"key:k1": True}, replay.tenant_of).caught == 0
    assert score(replay.after, {"key:k1": True}, replay.tenant_of).caught == 1


def test_the_newest_decision_about_an_appeal_counts() -> None:
    """Upheld once, overturned later: honest."""
    assert by_appeals([("key:a", True), ("key:b", True), ("key:a", False)]) == {"key:a": False, "key:b": True}


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"), [(0, 10, 0.0, 0.278), (5, 10, 0.237, 0.763), (10, 10, 0.722, 1.0)]
)
def test_an_interval_is_wilsons(hits: int, of: int, low: float, high: float) -> None:
    """Against values worked out by hand."""
    assert interval(hits, of) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))
    assert interval(0, 0) is None


@given(st.integers(0, 400), st.integers(1, 400))
def test_an_interval_holds_its_share_and_stays_within_bounds(hits: int, of: int) -> None:
    """For every count."""
    hits = min(hits, of)
    bounds = interval(hits, of)
    assert bounds is not None
    assert 0 <= bounds[0] <= hits / of + 1e-12
    assert hits / of - 1e-12 <= bounds[1] <= 1
