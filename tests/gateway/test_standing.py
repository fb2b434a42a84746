"""Standings at the gateway: who is refused, how it is told, and what goes on regardless."""

import asyncio
import dataclasses
import datetime as dt
from typing import cast

import pytest
from tests.conformance.memory_fleet import ManualClock
from tests.gateway.world import World

from forestay.fleet.actions import LiftStanding, Origin, SetStanding
from forestay.fleet.keys import Caller, Scope
from forestay.fleet.standing import Standing, StandingKind, standing_id_of
from forestay.gateway.standing import BURST, Standings
from forestay.ids import KeyId, TenantId

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
CALLER = Caller(KeyId("k1"), TenantId("acme"), frozenset({Scope.API}))


def standing_of(
    subject: str, kind: StandingKind, now: dt.datetime = NOW, *, factor: float = 1.0, freeze: bool = False
) -> Standing:
    """A standing for an hour."""
    name, ends = standing_id_of(subject, "leak", now), now + dt.timedelta(hours=1)
    return Standing(name, subject, kind, "key_leak", "leak", "secret reason", now, ends, factor, freeze)


async def put(world: World, kind: StandingKind, subject: str = "", *, factor: float = 1.0, freeze: bool = False) -> str:
    """Give the first tenant's key (or another subject) a standing, and let the gateway see it."""
    now = world.ports.clock.now()
    subject = subject or f"key:{world.key.partition(':')[0]}"
    standing = standing_of(subject, kind, now, factor=factor, freeze=freeze)
    await world.fleet.apply([SetStanding(standing)], origin=Origin.HUMAN, actor="human:test")
    await world.gateway.fleet.refresh()
    return standing.standing_id


@pytest.mark.threat("API6:2023", "AML.T0040")
@pytest.mark.parametrize("path", ["/queue/acme/echo", "/run/acme/echo"])
async def test_a_suspended_key_is_refused_with_a_code_an_id_and_a_way_to_object(world: World, path: str) -> None:
    """The rule and its reason, which would teach an abuser, are not told."""
    standing_id = await put(world, StandingKind.SUSPEND)
    reply = await world.call("POST", path, {"prompt": "a"})
    assert reply.status == 403
    assert reply.headers["x-fal-error-type"] == reply.field("error_type") == "suspended"
    told = cast("dict[str, object]", reply.field("standing"))
    assert (told["id"], told["code"], told["appeal"]) == (standing_id, "key_leak", "POST /standing/appeal")
    assert standing_id in str(reply.field("detail"))
    assert b"secret reason" not in reply.body
    assert world.model.calls == []
    other = await world.call("POST", path, {"prompt": "a"}, key=world.other_key)
    assert other.status == 200


async def test_a_suspended_tenant_has_no_key_that_works(world: World) -> None:
    """Every key of it is refused; another tenant's is not."""
    await put(world, StandingKind.SUSPEND, "tenant:acme")
    assert (await world.call("POST", "/queue/acme/echo", {"prompt": "a"})).status == 403
    assert (await world.call("POST", "/queue/acme/echo", {"prompt": "a"}, key=world.other_key)).status == 200


async def test_a_key_to_be_issued_anew_is_told_so(world: World) -> None:
    """401, since another credential of the same tenant will do."""
    await put(world, StandingKind.STEP_UP)
    reply = await world.call("POST", "/queue/acme/echo", {"prompt": "a"})
    assert (reply.status, reply.field("error_type")) == (401, "step_up_required")
    assert "create a new key" in str(reply.field("detail"))
    assert reply.headers["www-authenticate"] == "Key"


@pytest.mark.threat("API6:2023", "AML.T0040")
async def test_a_throttled_key_goes_on_at_its_own_pace(world: World) -> None:
    """A few calls at once, then 429 with the seconds to wait."""
    await put(world, StandingKind.THROTTLE, factor=0.1)
    replies = [await world.call("POST", "/queue/acme/echo", {"prompt": "a"}) for _ in range(BURST + 1)]
    assert [reply.status for reply in replies] == [200] * BURST + [429]
    assert 1 <= int(replies[-1].headers["retry-after"]) <= 10


@pytest.mark.parametrize("kind", [StandingKind.WATCH, StandingKind.REFER])
async def test_who_is_only_watched_notices_nothing(world: World, kind: StandingKind) -> None:
    """Doubts are recorded, not felt."""
    await put(world, kind)
    assert (await world.call("POST", "/queue/acme/echo", {"prompt": "a"})).status == 200


async def test_results_of_accepted_requests_stay_readable_unless_they_are_frozen(world: World) -> None:
    """What was accepted was promised; only `freeze_results` keeps it back."""
    request_id = await world.submit()
    path = f"/queue/acme/echo/requests/{request_id}/status"
    await put(world, StandingKind.SUSPEND)
    assert (await world.call("GET", path)).status == 202
    await put(world, StandingKind.SUSPEND, freeze=True)
    assert (await world.call("GET", path)).status == 403
    assert (await world.call("GET", f"/queue/acme/echo/requests/{request_id}")).status == 403


async def test_a_suspended_key_gets_no_token_and_no_upload(world: World) -> None:
    """Both lead to new work."""
    await put(world, StandingKind.SUSPEND)
    assert (await world.call("POST", "/rest/tokens/", {"allowed_apps": ["echo"]})).status == 403


async def test_a_lift_is_felt_at_once(world: World) -> None:
    """The next call after the wake-up passes."""
    await put(world, StandingKind.SUSPEND)
    subject = f"key:{world.key.partition(':')[0]}"
    await world.fleet.apply([LiftStanding(subject, "test")], origin=Origin.HUMAN, actor="human:test")
    await world.ports.wakeups.publish("forestay:fleet", "")
    async with asyncio.timeout(5):
        while (await world.call("POST", "/queue/acme/echo", {"prompt": "a"})).status != 200:
            await world.gateway.fleet.wait_change(1.0)


async def test_a_caller_may_ask_what_stands_against_it(world: World) -> None:
    """Also when it is suspended; who has no standing is told so."""
    assert (await world.call("GET", "/standing")).json() == {"standing": None}
    standing_id = await put(world, StandingKind.SUSPEND)
    told = cast("dict[str, object]", (await world.call("GET", "/standing")).field("standing"))
    assert (told["id"], told["kind"]) == (standing_id, "suspend")
    assert (await world.call("GET", "/standing", key=None)).status == 401


def test_the_graver_of_key_and_tenant_counts_and_nothing_counts_after_its_end() -> None:
    """An expired standing is no standing, even before the next load says so."""
    clock = ManualClock(NOW)
    standings = Standings(clock, 1.0)
    slowed = standing_of("key:k1", StandingKind.THROTTLE, factor=0.5)
    barred = dataclasses.replace(
        standing_of("tenant:acme", StandingKind.SUSPEND), expires_at=NOW + dt.timedelta(seconds=60)
    )
    standings.replace({item.subject: item for item in (slowed, barred)})
    assert standings.of(CALLER) == barred
    assert standings.factor(CALLER) == 1.0
    clock.advance(61)
    assert standings.of(CALLER) == slowed
    assert standings.factor(CALLER) == 0.5
    clock.advance(3600)
    assert standings.of(CALLER) is None
    assert standings.refuse_call(CALLER) is None


def test_a_pace_is_an_average_with_a_burst() -> None:
    """After the burst one call an interval; a pause earns the burst again and no more; a reload forgets nothing."""
    clock = ManualClock(NOW)
    standings = Standings(clock, 1.0)
    slowed = {"key:k1": standing_of("key:k1", StandingKind.THROTTLE, factor=0.5)}
    standings.replace(slowed)

    def passed(calls: int) -> int:
        return sum(standings.refuse_call(CALLER) is None for _ in range(calls))

    assert passed(10) == BURST
    standings.replace(dict(slowed))
    assert passed(10) == 0
    clock.advance(2)
    assert passed(10) == 1
    clock.advance(1000)
    assert passed(10) == BURST
