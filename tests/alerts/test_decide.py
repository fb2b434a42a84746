"""Who is told of what, and when: tables for each rule, and what holds of every history."""

import dataclasses
import datetime as dt

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.alerts.scenes import ON_CALL, RULES, START, Scene, condition

from forestay.alerts.actions import Notify, Open, Suppress, applied
from forestay.alerts.decide import MAX_ITEMS, decide_alerts, hold_seconds
from forestay.alerts.model import AlertState, Condition, Observed, Severity, State
from forestay.alerts.rules import Inhibition, Matcher, Route, Rules, Silence

PAGE, TICKET = Severity.PAGE, Severity.TICKET
CAT = condition()
DOG = condition(subject="model:acme/dog")


def test_a_page_is_told_at_once_and_once() -> None:
    """The same look opens it and tells it; the next ones say nothing new."""
    scene = Scene()
    scene.look(CAT)
    scene.run(600, CAT)
    assert scene.told("phone") == [("model:acme/cat", "opened")]


def test_two_slos_of_one_model_are_two_alerts() -> None:
    """Slow and failing at once: neither stands for the other, and each ends by itself."""
    slow, failing = (condition("slo_burns", source="slo", part=name) for name in ("cat-latency", "cat-availability"))
    scene = Scene()
    scene.run(30, slow, failing)
    assert len(scene.firing()) == 2
    scene.run(600, slow)
    assert [alert.condition.part for alert in scene.firing()] == ["cat-latency"]


def test_tickets_of_one_owner_that_open_together_are_one_notification() -> None:
    """The group waits ten seconds for others."""
    scene = Scene()
    cat, dog = condition(severity=TICKET), condition(subject="model:acme/dog", severity=TICKET)
    scene.look(cat)
    scene.run(30, cat, dog)
    assert [len(sent.items) for sent in scene.sent] == [2]


def test_what_is_gone_for_a_minute_is_over_and_its_end_is_told_once() -> None:
    """An end is news like a beginning; nothing follows it."""
    scene = Scene()
    scene.look(CAT)
    scene.run(1_000)
    assert scene.told() == [("model:acme/cat", "opened"), ("model:acme/cat", "resolved")]
    assert scene.firing() == []


def test_a_condition_that_flaps_is_one_alert_with_one_beginning_and_one_end() -> None:
    """Gone for half a minute, back, gone: nobody hears of it until it stays away."""
    scene = Scene()
    for _ in range(20):
        scene.run(30, CAT)
        scene.run(30)
    scene.run(1_000)
    assert [word for _, word in scene.told()] == ["opened", "resolved"]


def test_each_return_within_the_flap_window_doubles_the_wait_for_the_end() -> None:
    """Five returns are told less and less often."""
    assert [hold_seconds(RULES, flaps) for flaps in (0, 1, 2, 3, 10)] == [60.0, 120.0, 240.0, 480.0, 1_800.0]
    scene = Scene()
    for _ in range(10):
        scene.run(60, CAT)
        scene.run(150)
    assert len(scene.told()) <= 4


def test_an_acknowledged_alert_is_not_told_again_until_it_worsens() -> None:
    """A ticket in hand is silent for days, and becoming a page spends the acknowledgement."""
    scene = Scene()
    ticket, page = condition(severity=TICKET), condition(severity=PAGE)
    scene.run(60, ticket)
    scene.acknowledge(scene.firing()[0])
    scene.run(2 * 86_400, ticket, every=600.0)
    assert [word for _, word in scene.told()] == ["opened"]
    scene.run(30, page)
    assert [word for _, word in scene.told()] == ["opened", "worsened-2"]
    scene.run(600, page)
    assert scene.told("boss") == [("model:acme/cat", "escalated-1")]


def test_an_unacknowledged_alert_is_repeated_and_escalated() -> None:
    """After ten minutes the next in line is told, after four hours everybody again."""
    scene = Scene()
    scene.look(CAT)
    scene.run(5 * 3_600, CAT, every=60.0)
    assert [word for _, word in scene.told("boss")] == ["escalated-1", "repeated-3"]
    assert [word for _, word in scene.told("phone")] == ["opened", "repeated-3"]


def test_an_acknowledgement_stops_repeats_and_escalation() -> None:
    """Somebody has it in hand."""
    scene = Scene()
    scene.look(CAT)
    scene.acknowledge(scene.firing()[0])
    scene.run(2 * 86_400, CAT, every=600.0)
    assert scene.told("boss") == []
    assert len(scene.told("phone")) == 1


def test_whoever_was_told_by_escalation_hears_of_the_end() -> None:
    """Nobody is left believing that it still burns."""
    scene = Scene()
    scene.look(CAT)
    scene.run(700, CAT)
    scene.run(1_000)
    assert [word for _, word in scene.told("boss")] == ["escalated-1", "resolved"]


def test_a_doubled_magnitude_is_a_worsening() -> None:
    """From three dead letters to six, told with the number."""
    scene = Scene()
    scene.look(condition(magnitude=3.0))
    scene.run(120, condition(magnitude=5.0))
    assert len(scene.told()) == 1
    scene.run(120, condition(magnitude=6.0))
    assert [word for _, word in scene.told()] == ["opened", "worsened-2"]


def test_a_silence_holds_back_and_what_still_fires_after_it_is_told() -> None:
    """The reason names who silenced it and why."""
    scene = Scene()
    scene.silence(Matcher("subject", "model:acme/*"), seconds=300)
    held = [action for action in scene.look(CAT) if isinstance(action, Suppress)]
    assert "by ann: planned" in held[0].reason
    scene.run(290, CAT)
    assert scene.told() == []
    scene.run(60, CAT)
    assert scene.told() == [("model:acme/cat", "opened")]


def test_a_silence_never_hides_an_end() -> None:
    """It was told before the silence began."""
    scene = Scene()
    scene.look(CAT)
    scene.silence(Matcher("name", "*"), seconds=86_400)
    scene.run(1_000)
    assert [word for _, word in scene.told()] == ["opened", "resolved"]


def test_what_came_and_went_under_a_silence_is_told_to_nobody() -> None:
    """Nobody knew of it."""
    scene = Scene()
    scene.silence(Matcher("name", "*"), seconds=600)
    scene.run(60, CAT)
    scene.run(1_000)
    assert scene.told() == []


def test_an_outage_of_the_platform_is_one_page() -> None:
    """Models, tenants and workers stay behind it, before it and after it."""
    scene = Scene()
    outage = condition("fleet_lost", "platform", labels={"wide": "platform"})
    scene.run(60, outage, CAT, DOG)
    scene.run(300)
    assert {subject for subject, _ in scene.told()} == {"platform"}


def test_two_rules_never_hold_two_alerts_back_by_each_other() -> None:
    """What may stand over others is never held back by them."""
    crossed = (
        Inhibition((Matcher("name", "a"),), (Matcher("name", "b"),)),
        Inhibition((Matcher("name", "b"),), (Matcher("name", "a"),)),
    )
    scene = Scene(dataclasses.replace(RULES, inhibitions=crossed))
    scene.run(60, condition("a"), condition("b"))
    assert len(scene.told()) == 2


def burns(slo_id: str, subject: str, hurting: str, **more: object) -> Condition:
    """An SLO that burns."""
    labels = {"slo": slo_id, **({"hurting": hurting} if hurting else {})}
    return condition("slo_burns", subject, source="slo", labels=labels, part=slo_id, **more)  # type: ignore[arg-type]


PART = burns("cat-up", "model:acme/cat", "cat-up")
WHOLE = burns("all-up", "composite", "cat-up")


def test_a_composite_and_the_part_that_hurts_it_are_one_page() -> None:
    """The part is told; the composite is held back behind it, and its end is nobody's news."""
    scene = Scene()
    scene.run(120, PART, WHOLE)
    [held] = [alert for alert in scene.firing() if alert.held_back]
    assert held.condition.subject == "composite"
    assert "behind slo_burns of model:acme/cat" in held.held_back
    scene.run(600)
    assert scene.told() == [("model:acme/cat", "opened"), ("model:acme/cat", "resolved")]


def test_a_composite_that_burns_on_without_its_part_is_told() -> None:
    """Also where no part asks for as much of people as the whole does."""
    scene = Scene()
    scene.run(60, PART, WHOLE)
    scene.run(180, burns("all-up", "composite", ""))
    assert ("composite", "opened") in scene.told()
    alone = Scene()
    ticket = burns("cat-up", "model:acme/cat", "cat-up", severity=Severity.TICKET)
    alone.run(60, ticket, burns("all-up", "composite", ""))
    assert ("composite", "opened") in alone.told()


def test_an_outage_of_the_platform_is_one_page_where_parts_and_composites_burn_too() -> None:
    """A part stands over its composite, and is held back all the same."""
    scene = Scene()
    scene.run(60, condition("fleet_lost", "platform", labels={"wide": "platform"}), PART, WHOLE)
    assert {subject for subject, _ in scene.told()} == {"platform"}


def test_a_circle_of_rules_holds_back_all_but_one() -> None:
    """The one that stands first among the rules is heard, and what it stands over is not."""
    circle = tuple(Inhibition((Matcher("name", by),), (Matcher("name", over),)) for by, over in ("ab", "bc", "ca"))
    scene = Scene(dataclasses.replace(RULES, inhibitions=circle))
    scene.run(60, condition("a"), condition("b"), condition("c"))
    assert {item.alert.condition.name for item in scene.items("phone")} == {"a"}


@given(
    pairs=st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("abcde")), min_size=1, max_size=6),
    seen=st.sets(st.sampled_from("abcde"), min_size=1),
)
def test_whatever_inhibitions_say_somebody_hears_of_something(pairs: list[tuple[str, str]], seen: set[str]) -> None:
    """No circle of rules holds back everything that is seen."""
    rules = tuple(Inhibition((Matcher("name", by),), (Matcher("name", over),)) for by, over in pairs)
    scene = Scene(dataclasses.replace(RULES, inhibitions=rules))
    scene.run(60, *(condition(name) for name in sorted(seen)))
    assert scene.told()


def test_a_source_that_cannot_be_asked_ends_nothing() -> None:
    """A database that is away has not healed a model."""
    scene = Scene()
    scene.look(CAT)
    for _ in range(100):
        scene.look(after=60.0, silent=["platform"])
    assert [word for _, word in scene.told()] == ["opened", *[w for _, w in scene.told()[1:]]]
    assert "resolved" not in [word for _, word in scene.told()]
    assert len(scene.firing()) == 1


def test_alerts_go_to_their_owners_route() -> None:
    """The first route that matches."""
    media = Route("media", ("media-chat",), (Matcher("owner", "media"),))
    scene = Scene(Rules(routes=(media, ON_CALL)))
    scene.run(60, condition(owner="media"), condition(subject="model:acme/dog", owner="sound"))
    assert scene.told("media-chat") == [("model:acme/cat", "opened")]
    assert scene.told("phone") == [("model:acme/dog", "opened")]


def test_an_alert_without_a_route_is_kept_and_told_as_soon_as_there_is_one() -> None:
    """The list shows why nobody was told."""
    scene = Scene(Rules())
    scene.run(60, CAT)
    assert "no route" in scene.firing()[0].held_back
    scene.look(CAT, after=5.0, rules=RULES)
    scene.run(30, CAT)
    assert scene.told() == [("model:acme/cat", "opened")]


def test_a_route_that_is_taken_away_loses_no_end() -> None:
    """Receivers that were told hear of the end by name."""
    scene = Scene()
    scene.look(CAT)
    other = Rules(routes=(Route("other", ("mail",)),))
    scene.look(CAT, after=5.0, rules=other)
    scene.run(1_000)
    assert scene.told("phone")[-1] == ("model:acme/cat", "resolved")


def test_a_storm_of_one_group_is_told_in_pieces_of_bounded_size() -> None:
    """A thousand pages are ten notifications, none of them lost."""
    scene = Scene()
    storm = [condition(subject=f"model:acme/m{number}") for number in range(1_000)]
    scene.look(*storm)
    assert [len(sent.items) for sent in scene.sent] == [MAX_ITEMS] * 10
    assert len({subject for subject, _ in scene.told()}) == 1_000


def test_a_receiver_that_wants_no_ends_hears_of_none() -> None:
    """`send_resolved: false`."""
    scene = Scene(dataclasses.replace(RULES, quiet_receivers=frozenset({"phone"})))
    scene.look(CAT)
    scene.run(1_000)
    assert [word for _, word in scene.told()] == ["opened"]


# What holds of every history --------------------------------------------------------------------------------------

_NAMES = ("queue_age", "worker_lost", "fleet_lost")
_SUBJECTS = ("model:acme/cat", "model:acme/dog", "platform")
conditions = st.builds(
    lambda name, subject, severity, magnitude: condition(
        name, subject, severity=severity, magnitude=magnitude,
        labels={"wide": "platform"} if name == "fleet_lost" else {},
    ),
    st.sampled_from(_NAMES), st.sampled_from(_SUBJECTS), st.sampled_from(list(Severity)),
    st.sampled_from([0.0, 1.0, 2.5, 9.0]),
)  # fmt: skip
step = st.tuples(
    st.sampled_from([0.0, 1.0, 5.0, 20.0, 61.0, 400.0, 4_000.0, 20_000.0]),
    st.lists(conditions, max_size=4),
    st.sampled_from(["", "", "", "silence", "ack", "source silent"]),
)
histories = st.lists(step, min_size=1, max_size=40)


def play(scene: Scene, history: list[tuple[float, list[Condition], str]]) -> None:
    """Run a history, checking at each look what must hold of it."""
    for after, seen, what in history:
        if what == "ack" and scene.firing():
            scene.acknowledge(scene.firing()[0])
        if what == "silence":
            scene.silence(Matcher("subject", "model:*"), seconds=900.0)
        scene.look(*seen, after=after, silent=["platform"] if what == "source silent" else [])
        prints = [alert.fingerprint for alert in scene.firing()]
        assert len(prints) == len(set(prints)), "two open alerts of one fingerprint"
        observed = Observed(tuple(seen), frozenset(["platform"] if what == "source silent" else []))
        again = decide_alerts(scene.state, observed, scene.silences, scene.rules, scene.now)
        assert again == [], "a second look at the same moment did something"


@settings(max_examples=60, deadline=None)
@given(histories)
def test_nothing_is_told_twice_and_every_beginning_gets_its_end(
    history: list[tuple[float, list[Condition], str]],
) -> None:
    """Whoever heard of an alert hears of its end, whatever silences say, and each transition once."""
    scene = Scene()
    play(scene, history)
    for _ in range(20):
        scene.look(after=2_000.0)
    assert scene.doubles() == []
    assert scene.state.alerts == {}
    assert scene.state.groups == {}
    for receiver in ("phone", "boss"):
        began = {item.alert.alert_id for item in scene.items(receiver) if item.transition != "resolved"}
        ended = {item.alert.alert_id for item in scene.items(receiver) if item.transition == "resolved"}
        assert began <= ended


@settings(max_examples=60, deadline=None)
@given(histories)
def test_what_stays_is_told(history: list[tuple[float, list[Condition], str]]) -> None:
    """After any history a condition that stays, once nothing stands against it, is known to receivers as it is."""
    scene = Scene()
    play(scene, history)
    scene.silences.clear()
    stays = condition("worker_lost", "model:acme/cat", severity=PAGE, magnitude=9.0)
    for _ in range(12):
        scene.look(stays, after=310.0)
    [alert] = scene.firing()
    assert alert.told is not None
    assert alert.told.severity is PAGE
    items = [item for item in scene.items("phone") if item.alert.alert_id == alert.alert_id]
    assert [item for item in items if item.alert.condition.severity is PAGE]


@settings(max_examples=25, deadline=None)
@given(histories, st.randoms(use_true_random=False))
def test_the_order_in_which_sources_answer_changes_nothing(
    history: list[tuple[float, list[Condition], str]], shuffler: object
) -> None:
    """The same facts give the same actions."""
    one, two = Scene(), Scene()
    for after, seen, _ in history:
        mixed = list(seen)
        shuffler.shuffle(mixed)  # type: ignore[attr-defined]
        assert one.look(*seen, after=after) == two.look(*mixed, after=after)
    assert one.state == two.state


def test_actions_alone_lead_to_the_next_state() -> None:
    """Whoever stores actions decides nothing: an opening and its telling are there, and nothing else."""
    actions = decide_alerts(State(), Observed((CAT,)), (), RULES, START)
    assert [type(action) for action in actions] == [Open, Notify]
    [alert] = applied(State(), actions).alerts.values()
    assert alert.state is AlertState.FIRING
    assert alert.told is not None
    assert alert.told.to == ("phone",)


def test_a_silence_holds_from_its_beginning_to_its_end() -> None:
    """Half-open, and ended early by a person."""
    until = START + dt.timedelta(hours=1)
    silence = Silence("si", (Matcher("name", "*"),), until, "ann", "why", START)
    assert silence.in_force(START)
    assert not silence.in_force(until)
    ended = dataclasses.replace(silence, ended_at=START + dt.timedelta(minutes=1))
    assert not ended.in_force(START + dt.timedelta(minutes=1))
