"""Who should stand under what: the gravest rule, hysteresis, reasons, and that more evidence never decides less."""

import dataclasses
import datetime as dt

from hypothesis import given
from hypothesis import strategies as st
from tests.abuse.callers import START, call_of

from forestay.abuse.counters import Counters
from forestay.abuse.decide import Give, History, decide_standing
from forestay.abuse.rules import Rules
from forestay.abuse.rules_file import default_rules, read_rules
from forestay.abuse.vocabulary import SIGNALS, Per
from forestay.fleet.standing import SEVERITY, Standing, StandingKind

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
RULES = read_rules(
    """\
version: 1
counters:
  - {id: places, per: key, distinct: network, window: 1h}
rules:
  - id: slow
    code: pace
    per: key
    when: {signal: velocity.ratio, at_least: 10}
    then: {standing: throttle, factor: 0.5, for: 1h, reason: "{velocity.ratio} times its peak"}
  - id: stop
    code: leak
    per: key
    when: {all: [{signal: stranger.score, at_least: 7}, {counter: places, at_least: 3}]}
    then: {standing: suspend, for: 4h, label: {name: leaked, for: 30d}, reason: "{places} places"}
  - id: again
    code: leak
    per: key
    when: {all: [{label: leaked}, {signal: stranger.score, at_least: 2}]}
    then: {standing: step_up, for: 2h, reason: "leaked before"}
""",
    "test.yaml",
)


def history(standing: Standing | None = None, labels: tuple[str, ...] = (), **signals: float) -> History:
    """What is known of key k1."""
    values = dict.fromkeys(SIGNALS, 0.0) | {name.replace("__", "."): value for name, value in signals.items()}
    counters = {"places": values.pop("places", 0.0)}
    until = NOW + dt.timedelta(days=1)
    return History("key:k1", Per.KEY, values, counters, dict.fromkeys(labels, until), standing, lambda: ("f1", "f2"))


def standings(found: list[Standing | Give]) -> list[Standing]:
    """The standings among what was decided."""
    return [item for item in found if isinstance(item, Standing)]


def test_nothing_known_is_nothing_decided() -> None:
    """Innocent until shown otherwise."""
    assert decide_standing(history(), RULES, NOW) == []
    assert decide_standing(history(), default_rules(), NOW) == []


def test_the_gravest_rule_that_holds_decides_with_reason_and_evidence() -> None:
    """Numbers and ids of facts, never what was said."""
    [label, standing] = decide_standing(history(velocity__ratio=12, stranger__score=8, places=4), RULES, NOW)
    assert isinstance(label, Give)
    assert (label.label, label.until) == ("leaked", NOW + dt.timedelta(days=30))
    assert isinstance(standing, Standing)
    assert (standing.kind, standing.rule, standing.reason) == (StandingKind.SUSPEND, "stop", "4 places")
    assert standing.evidence == {"stranger.score": 8.0, "places": 4.0, "facts": ["f1", "f2"]}
    assert standing.expires_at == NOW + dt.timedelta(hours=4)


def test_a_standing_is_renewed_late_eased_and_never_softened() -> None:
    """Half of its time passes first; then a little less than the threshold holds it; then it runs out."""
    [held] = standings(decide_standing(history(velocity__ratio=12), RULES, NOW))
    assert decide_standing(history(held, velocity__ratio=12), RULES, NOW) == []
    later = NOW + dt.timedelta(minutes=40)
    [renewed] = standings(decide_standing(history(held, velocity__ratio=9), RULES, later))
    assert renewed.expires_at == later + dt.timedelta(hours=1)
    assert decide_standing(history(held, velocity__ratio=7), RULES, later) == []
    assert decide_standing(history(velocity__ratio=9), RULES, later) == []
    suspended = dataclasses.replace(held, kind=StandingKind.SUSPEND, rule="stop")
    assert decide_standing(history(suspended, velocity__ratio=12), RULES, later) == []


def test_a_label_is_given_once_and_remembered_by_other_rules() -> None:
    """Who was leaked before is stopped sooner."""
    assert decide_standing(history(stranger__score=3), RULES, NOW) == []
    [standing] = standings(decide_standing(history(labels=("leaked",), stranger__score=3), RULES, NOW))
    assert standing.rule == "again"
    found = decide_standing(history(labels=("leaked",), stranger__score=8, places=4), RULES, NOW)
    assert [type(item) for item in found] == [Standing]


def test_an_owner_who_moved_is_referred_and_a_stranger_beside_the_owner_or_in_many_places_is_stopped() -> None:
    """By the rules that come along: one new place after weeks is for a person to look at."""

    def decided(**signals: float) -> list[tuple[StandingKind, str]]:
        found = standings(decide_standing(history(None, (), stranger__calls=6, **signals), default_rules(), NOW))
        return [(item.kind, item.rule) for item in found]

    referred, stopped = [(StandingKind.REFER, "perhaps-moved")], [(StandingKind.STEP_UP, "stranger")]
    assert decided(stranger__score=8, stranger__places=1) == referred
    assert decided(stranger__score=8, stranger__places=2) == stopped
    assert decided(stranger__score=8, stranger__places=1, stranger__parallel=1) == stopped
    assert decided(stranger__score=10, stranger__places=1) == stopped
    assert decided(stranger__score=5, stranger__places=1) == []
    assert decided(stranger__score=5, stranger__places=1, key__idle_days=20) == referred
    woken = decided(stranger__score=5, stranger__places=2, key__idle_days=20)
    assert woken == [(StandingKind.STEP_UP, "dormant-stranger")]


_EVIDENCE = sorted(name for name, signal in SIGNALS.items() if signal.evidence)
_SOME = st.dictionaries(st.sampled_from(_EVIDENCE), st.floats(0, 60), max_size=8)


@given(_SOME, _SOME, st.sampled_from(list(Per)), st.sampled_from([RULES, default_rules()]))
def test_more_evidence_never_decides_less(
    less: dict[str, float], more: dict[str, float], per: Per, rules: Rules
) -> None:
    """Raise any evidence: what follows is at least as grave."""
    values = dict.fromkeys(SIGNALS, 0.0) | less
    raised = {name: max(value, value + more.get(name, 0.0)) for name, value in values.items()}

    def gravest(signals: dict[str, float]) -> int:
        found = decide_standing(History("key:k1", per, signals, {"places": 5.0}, {}), rules, NOW)
        return max((SEVERITY[item.kind] for item in standings(found)), default=-1)

    assert gravest(raised) >= gravest(values)


@given(_SOME, st.sampled_from(list(StandingKind)))
def test_what_stands_is_never_softened(signals: dict[str, float], kind: StandingKind) -> None:
    """Whatever the evidence says now."""
    current = Standing("st_1", "key:k1", kind, "c", "other", "r", NOW, NOW + dt.timedelta(hours=1))
    values = dict.fromkeys(SIGNALS, 0.0) | signals
    found = decide_standing(History("key:k1", Per.KEY, values, {}, {}, current), default_rules(), NOW)
    assert all(SEVERITY[item.kind] > SEVERITY[kind] for item in standings(found))


# Counters -----------------------------------------------------------------------------------------------------------
def test_a_counter_counts_what_it_is_asked_in_its_window_and_forgets() -> None:
    """Distinct networks of a key within an hour."""
    counters = Counters(RULES.counters)
    for step in range(6):
        counters.observe(call_of(step * 60.0, network=f"10.{step % 4}.0.0/24"), {Per.KEY: "key:k1"})
    assert counters.values("key:k1", START + 400)["places"] == 4
    assert counters.values("key:k2", START + 400)["places"] == 0
    assert counters.values("key:k1", START + 2 * 3600)["places"] == 0


@given(st.lists(st.floats(0, 7_200), max_size=60), st.floats(7_200, 9_000))
def test_a_sum_is_exact_to_a_twelfth_of_its_window(moments: list[float], now: float) -> None:
    """Never less than the calls of the window less one slot, never more than those of the window."""
    spec = dataclasses.replace(RULES.counters[0], id="n", measure="calls", of="calls")
    counters = Counters((spec,))
    for at in sorted(moments):
        counters.observe(call_of(at), {Per.KEY: "key:k1"})
    counted = counters.values("key:k1", START + now)["n"]
    slot = spec.window_seconds / 12
    assert sum(now - at <= spec.window_seconds - slot for at in moments) <= counted
    assert counted <= sum(now - at <= spec.window_seconds for at in moments)
