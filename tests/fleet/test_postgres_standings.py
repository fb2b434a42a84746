"""Appeals, endings and what was advised, in the real store."""

import datetime as dt

import pytest

from forestay.chance import SeededChance
from forestay.fleet.actions import LiftStanding, Origin, SetStanding
from forestay.fleet.apply import Mode
from forestay.fleet.postgres_standings import PostgresStandings
from forestay.fleet.postgres_store import PostgresFleetStore
from forestay.fleet.standing import Standing, StandingKind, standing_id_of
from forestay.storage.postgres import Database
from forestay.storage.valkey import LocalWakeups


@pytest.fixture
def fleet(database: Database) -> PostgresFleetStore:
    """The fleet, where standings are set."""
    return PostgresFleetStore(database, LocalWakeups())


@pytest.fixture
def standings(database: Database) -> PostgresStandings:
    """Standings as people read them."""
    return PostgresStandings(database, LocalWakeups(), SeededChance(1))


async def suspend(fleet: PostgresFleetStore, subject: str = "key:k1", origin: Origin = Origin.HUMAN) -> Standing:
    """Suspend a subject for an hour and return the standing."""
    now = (await fleet.load()).now
    standing = Standing(
        standing_id_of(subject, "leak", now), subject, StandingKind.SUSPEND, "key_leak", "leak", "nine networks",
        now, now + dt.timedelta(hours=1), evidence={"networks": 9, "facts": ["a", "b"]},
    )  # fmt: skip
    await fleet.apply([SetStanding(standing)], origin=origin, actor=f"{origin.name.lower()}:x")
    return standing


async def test_evidence_is_kept_and_shown(fleet: PostgresFleetStore, standings: PostgresStandings) -> None:
    """Numbers and ids of facts come back as they were given."""
    made = await suspend(fleet)
    row = await standings.find(made.standing_id)
    assert row is not None
    assert row.standing.evidence == {"networks": 9, "facts": ["a", "b"]}
    assert row.ending is None
    assert await standings.find("st_none") is None


async def test_an_appeal_is_made_once_and_granted_by_the_lift(
    fleet: PostgresFleetStore, standings: PostgresStandings
) -> None:
    """A caller who asks twice has one appeal; lifting answers it; against what is over there is none."""
    made = await suspend(fleet)
    first = await standings.appeal(made.standing_id, "we moved", actor="caller:k1")
    second = await standings.appeal(made.standing_id, "we moved, again", actor="caller:k1")
    assert first is not None
    assert first == second
    assert (first.state, first.subject, first.words) == ("open", "key:k1", "we moved")
    await fleet.apply([LiftStanding("key:k1", "true")], origin=Origin.HUMAN, actor="human:analyst")
    [granted] = await standings.appeals(state="granted", standing_id=made.standing_id, limit=10)
    assert (granted.decided_by, granted.decision) == ("human:analyst", "true")
    assert await standings.appeal(made.standing_id, "again", actor="caller:k1") is None
    row = await standings.find(made.standing_id)
    assert row is not None
    assert row.ending is not None
    assert (row.ending.how, row.ending.by, row.ending.why) == ("lifted", "human:analyst", "true")


async def test_a_denied_appeal_leaves_the_standing_and_may_be_made_anew(
    fleet: PostgresFleetStore, standings: PostgresStandings
) -> None:
    """The audit chain tells both."""
    made = await suspend(fleet)
    appeal = await standings.appeal(made.standing_id, "we moved", actor="caller:k1")
    assert appeal is not None
    denied = await standings.deny(appeal.appeal_id, "no", actor="human:analyst")
    assert denied is not None
    assert denied.state == "denied"
    assert await standings.deny(appeal.appeal_id, "no", actor="human:analyst") is None
    assert set((await fleet.load()).standings) == {"key:k1"}
    again = await standings.appeal(made.standing_id, "please", actor="caller:k1")
    assert again is not None
    assert again.appeal_id != appeal.appeal_id
    actions = [row.entry.action for row in await fleet.audit_rows(subject="standing:key:k1", before=None, limit=10)]
    assert sorted(actions) == ["appeal", "appeal", "deny_appeal", "set_standing"]
    assert await fleet.audit_faults() == []


async def test_what_is_over_ends_by_itself(
    fleet: PostgresFleetStore, standings: PostgresStandings, database: Database
) -> None:
    """It leaves the fleet at once, and the loop closes the row, the appeal and the story; once."""
    made = await suspend(fleet)
    await standings.appeal(made.standing_id, "we moved", actor="caller:k1")
    await database.execute("UPDATE standings SET expires_at = now() - interval '1 s'")
    assert (await fleet.load()).standings == {}
    version = await fleet.version()
    assert await standings.expire() == 1
    assert await standings.expire() == 0
    assert await fleet.version() > version
    [row] = await standings.rows(subject=None, ended=True, limit=10)
    assert row.ending is not None
    assert row.ending.how == "expired"
    assert await standings.rows(subject=None, ended=False, limit=10) == []
    [appeal] = await standings.appeals(state=None, standing_id=None, limit=10)
    assert appeal.state == "moot"


async def test_what_automation_only_advised_is_listed(fleet: PostgresFleetStore, standings: PostgresStandings) -> None:
    """Until somebody lets it act, its wishes can be read, with their evidence."""
    await suspend(fleet, origin=Origin.ABUSE)
    [advised] = await standings.advised(limit=10)
    assert (advised["subject"], advised["effect"]) == ("standing:key:k1", "advised")
    assert (await fleet.load()).standings == {}
    await fleet.set_mode("abuse", None, Mode.ACT, actor="human:x")
    await suspend(fleet, origin=Origin.ABUSE)
    assert set((await fleet.load()).standings) == {"key:k1"}
