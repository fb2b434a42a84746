"""Standings: what may be set by whom, by table and by property."""

import dataclasses
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.memory_fleet import EPOCH
from tests.fleet.test_apply import ACT, fleet_of, situation

from forestay.fleet.actions import Decided, Effect, LiftStanding, Origin, SetStanding
from forestay.fleet.apply import ALREADY_SO, Brakes, Mode, Proposal, Recent, Situation, decide_effects
from forestay.fleet.model import Fleet
from forestay.fleet.standing import SEVERITY, Standing, StandingKind, restricts, standing_id_of, wrong_subject


def standing_of(subject: str = "key:k1", kind: StandingKind = StandingKind.SUSPEND, *, origin: str = "") -> Standing:
    """A standing for an hour."""
    ends = EPOCH + dt.timedelta(hours=1)
    name = standing_id_of(subject, "leak", EPOCH)
    return Standing(name, subject, kind, "key_leak", "leak", "used from nine networks", EPOCH, ends, origin=origin)


def fleet_with(*standings: Standing, pardons: dict[str, dt.datetime] | None = None) -> Fleet:
    """A fleet in which these are in force."""
    return dataclasses.replace(fleet_of(), standings={item.subject: item for item in standings}, pardons=pardons or {})


def decide(
    action: SetStanding | LiftStanding, origin: Origin = Origin.ABUSE, where: Situation | None = None
) -> Decided:
    """Decide one."""
    [decided] = decide_effects([Proposal(action, origin)], where or situation())
    return decided


def test_automation_that_nobody_switched_on_only_advises() -> None:
    """Suspending callers is a person's decision until they say otherwise."""
    assert decide(SetStanding(standing_of()), where=situation(modes={})).effect is Effect.ADVISED
    assert decide(SetStanding(standing_of())).effect is Effect.APPLIED
    assert decide(SetStanding(standing_of()), Origin.HUMAN, situation(modes={})).effect is Effect.APPLIED


@pytest.mark.parametrize(
    "wrong",
    [
        {"subject": "k1"},
        {"subject": "key:"},
        {"subject": "user:k1"},
        {"subject": "network:nowhere"},
        {"subject": "network:203.0.113.7/24"},
        {"expires_at": EPOCH},
        {"expires_at": EPOCH + dt.timedelta(days=367)},
        {"factor": 0.0},
        {"factor": 1.5},
        {"code": "Key leak"},
        {"reason": " "},
    ],
    ids=str,
)
def test_a_standing_without_sense_is_refused_whoever_asks(wrong: dict[str, object]) -> None:
    """No end, no reason, no subject: refused, with the fault named."""
    decided = decide(SetStanding(dataclasses.replace(standing_of(), **wrong)), Origin.HUMAN)
    assert decided.effect is Effect.REFUSED
    assert decided.why


@pytest.mark.parametrize("subject", ["key:k1", "tenant:acme", "network:203.0.113.0/24", "network:2001:db8:1::/48"])
def test_keys_tenants_and_networks_may_have_one(subject: str) -> None:
    """Nothing else has a standing."""
    assert wrong_subject(subject) == ""


def test_the_same_standing_again_changes_nothing_and_a_longer_one_renews_it() -> None:
    """A loop may say the same thing each second."""
    where = situation(fleet_with(standing_of(origin="abuse")))
    assert decide(SetStanding(standing_of()), where=where).why == ALREADY_SO
    longer = dataclasses.replace(standing_of(), expires_at=EPOCH + dt.timedelta(hours=2))
    assert decide(SetStanding(longer), where=where).why == longer.reason


def test_what_a_person_set_or_pardoned_stands_against_automation() -> None:
    """Long after the window in which a higher origin goes first."""
    by_hand = situation(fleet_with(standing_of(kind=StandingKind.WATCH, origin="human")))
    assert "person" in decide(SetStanding(standing_of()), where=by_hand).why
    assert decide(LiftStanding("key:k1", "calm"), where=by_hand).effect is Effect.REFUSED
    assert decide(LiftStanding("key:k1", "calm"), Origin.HUMAN, by_hand).effect is Effect.APPLIED
    pardoned = situation(fleet_with(pardons={"key:k1": EPOCH + dt.timedelta(days=1)}))
    assert "pardons" in decide(SetStanding(standing_of()), where=pardoned).why
    assert decide(SetStanding(standing_of()), Origin.HUMAN, pardoned).effect is Effect.APPLIED


def test_automation_never_softens_what_stands() -> None:
    """A graver standing is not replaced by a milder one; the other way round it is."""
    suspended = situation(fleet_with(standing_of(origin="abuse")))
    assert decide(SetStanding(standing_of(kind=StandingKind.THROTTLE)), where=suspended).effect is Effect.REFUSED
    slowed = situation(fleet_with(standing_of(kind=StandingKind.THROTTLE, origin="abuse")))
    assert decide(SetStanding(standing_of()), where=slowed).effect is Effect.APPLIED


def test_automation_restricts_at_most_its_cap_of_callers_in_a_window() -> None:
    """A rule gone wrong suspends twenty callers and not two thousand; people and mild standings are not counted."""
    batch = [Proposal(SetStanding(standing_of(f"key:k{number}")), Origin.ABUSE) for number in range(30)]
    decided = decide_effects(batch, situation())
    assert [item.effect for item in decided].count(Effect.APPLIED) == Brakes().standing_cap
    assert "cap" in decided[-1].why
    spent = tuple(
        Recent(EPOCH, Origin.ABUSE, f"standing:key:x{number}", Effect.APPLIED, restricted=1) for number in range(20)
    )
    full = situation(recent=spent)
    assert decide(SetStanding(standing_of()), where=full).effect is Effect.REFUSED
    assert decide(SetStanding(standing_of()), Origin.HUMAN, full).effect is Effect.APPLIED
    assert decide(SetStanding(standing_of(kind=StandingKind.REFER)), where=full).effect is Effect.APPLIED
    graver = situation(fleet_with(standing_of(kind=StandingKind.THROTTLE, origin="abuse")), recent=spent)
    assert decide(SetStanding(standing_of()), where=graver).effect is Effect.APPLIED


_KINDS = st.sampled_from(list(StandingKind))
_ACTIONS = st.one_of(
    st.builds(lambda number, kind: SetStanding(standing_of(f"key:k{number}", kind)), st.integers(0, 4), _KINDS),
    st.builds(lambda number: LiftStanding(f"key:k{number}", "test"), st.integers(0, 4)),
)


@given(
    st.lists(st.tuples(_ACTIONS, st.sampled_from([Origin.HUMAN, Origin.SAFETY, Origin.ABUSE])), max_size=12),
    st.lists(st.tuples(st.integers(0, 4), _KINDS, st.sampled_from(["human", "abuse"])), max_size=4),
    st.integers(0, 3),
    st.sampled_from(list(Mode)),
)
def test_automation_never_passes_its_cap_nor_overrides_people(
    wanted: list[tuple[SetStanding | LiftStanding, Origin]],
    held: list[tuple[int, StandingKind, str]],
    cap: int,
    mode: Mode,
) -> None:
    """Whatever is asked, in whatever order: at most the cap of restrictions, and nothing a person set is touched."""
    fleet = fleet_with(*(standing_of(f"key:k{number}", kind, origin=origin) for number, kind, origin in held))
    modes = {**ACT, ("abuse", ""): mode}
    batch = [Proposal(action, origin) for action, origin in wanted]
    decided = decide_effects(batch, situation(fleet, modes=modes, brakes=Brakes(standing_cap=cap)))
    done = [
        item.action
        for item, proposal in zip(decided, batch, strict=True)
        if proposal.origin is not Origin.HUMAN and item.effect is Effect.APPLIED and item.why != ALREADY_SO
    ]
    restricted = [
        action
        for action in done
        if isinstance(action, SetStanding) and restricts(action.standing, fleet.standings.get(action.standing.subject))
    ]
    assert len(restricted) <= cap
    for action in done:
        assert isinstance(action, SetStanding | LiftStanding)
        before = fleet.standings.get(action.standing.subject if isinstance(action, SetStanding) else action.subject)
        assert before is None or before.origin != "human"
        if isinstance(action, SetStanding) and before is not None:
            assert SEVERITY[action.standing.kind] >= SEVERITY[before.kind]
