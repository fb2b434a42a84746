"""Wrong credentials: who must wait, who never does, and how little of it is kept."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.memory_fleet import ManualClock
from tests.gateway.test_standing import put
from tests.gateway.world import Reply, World

from forestay.fleet.keys import KeyRequest, Scope
from forestay.fleet.standing import StandingKind
from forestay.gateway import guesses
from forestay.gateway.guesses import Guesses
from forestay.ids import TenantId

BURST = 20
PATHS = ("/queue/acme/echo", "/run/acme/echo", "/admin/keys", "/rest/tokens/")
HOME = ipaddress.ip_address("203.0.113.7")


async def tried(world: World, key: str, path: str = "/queue/acme/echo") -> Reply:
    """Call with a credential."""
    return await world.call("POST", path, {"prompt": "a"}, key=key)


async def guessed(world: World, count: int = BURST) -> list[int]:
    """Distinct credentials that nobody has."""
    return [(await tried(world, f"{number:016x}:guess")).status for number in range(count)]


async def new_key(world: World) -> str:
    """A key that this gateway has not seen yet."""
    issued = await world.keys.create(KeyRequest(TenantId("acme"), "new", frozenset({Scope.API})), actor="human:test")
    assert issued is not None
    return issued.credential


@pytest.mark.threat("API2:2023", "AML.T0012")
async def test_an_address_that_keeps_guessing_is_refused_and_a_right_guess_looks_like_a_wrong_one(world: World) -> None:
    """429 with the time to wait, on every surface, whether or not the next credential would have been good."""
    assert (await tried(world, world.key)).status == 200
    assert set(await guessed(world)) == {401}
    asked = world.keys.lookups
    answers = [await tried(world, key, path) for key in (await new_key(world), "f" * 16 + ":x") for path in PATHS]
    assert {(answer.status, answer.body) for answer in answers} == {(429, answers[0].body)}
    assert int(answers[0].headers["retry-after"]) <= 30
    assert "wrong credentials" in str(answers[0].field("detail"))
    assert world.keys.lookups == asked


async def test_a_key_that_was_proven_here_goes_on_beside_a_guesser(world: World) -> None:
    """Neighbours behind one address; even when the key has to be read again."""
    await tried(world, world.key)
    await guessed(world)
    assert (await tried(world, world.key)).status == 200
    world.ports.keys._known[world.key.partition(":")[0]].until = 0.0
    assert (await tried(world, world.key)).status == 200
    assert (await tried(world, f"{world.key.partition(':')[0]}:other")).status == 429


async def test_a_client_that_repeats_its_mistake_is_told_401_for_ever(world: World) -> None:
    """One forgotten configuration is no guess, and shuts nobody else out."""
    assert {(await tried(world, "0" * 16 + ":old")).status for _ in range(3 * BURST)} == {401}
    assert (await tried(world, await new_key(world))).status == 200


async def test_a_doubted_network_may_try_new_credentials_slowly_only(world: World) -> None:
    """What the abuse loop found out about a whole network holds here too."""
    await tried(world, world.key)
    await put(world, StandingKind.THROTTLE, "network:127.0.0.0/24")
    first, second = await tried(world, await new_key(world)), await tried(world, await new_key(world))
    assert (first.status, second.status) == (200, 429)
    assert second.field("error_type") == "throttled"
    assert (await tried(world, world.key)).status == 200


def test_after_a_pause_one_more_may_be_tried() -> None:
    """A burst, then one a pause; a long rest gives the burst back."""
    clock = ManualClock()
    made = Guesses(clock, 3, 30.0)
    for number in range(3):
        assert made.wait_seconds(HOME) == 0
        made.failed(HOME, f"k{number}:x")
    assert made.wait_seconds(HOME) == pytest.approx(30.0)
    clock.advance(30.0)
    assert made.wait_seconds(HOME) == 0
    made.failed(HOME, "k9:x")
    assert made.wait_seconds(HOME) == pytest.approx(30.0)
    clock.advance(300.0)
    for number in range(20, 23):
        assert made.wait_seconds(HOME) == 0
        made.failed(HOME, f"k{number}:x")
    assert made.wait_seconds(HOME) > 0


def test_neighbours_in_one_ipv6_network_are_one_and_strangers_are_not() -> None:
    """A caller owns a /64; turned off, nobody waits."""
    made, off = Guesses(ManualClock(), 1, 30.0), Guesses(ManualClock(), 0, 30.0)
    for each in (made, off):
        each.failed(ipaddress.ip_address("2001:db8::1"), "a:b")
    assert made.wait_seconds(ipaddress.ip_address("2001:db8::ffff:2")) > 0
    assert made.wait_seconds(ipaddress.ip_address("2001:db8:0:1::1")) == 0
    assert made.wait_seconds(None) == 0
    assert off.wait_seconds(ipaddress.ip_address("2001:db8::1")) == 0


def test_memory_is_bounded_and_holds_no_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that failed longest ago is forgotten first."""
    monkeypatch.setattr(guesses, "MAX_ADDRESSES", 3)
    made = Guesses(ManualClock(), 1, 30.0)
    for number in range(5):
        made.failed(ipaddress.ip_address(number), "key-id:the-secret")
    assert [made.wait_seconds(ipaddress.ip_address(number)) > 0 for number in range(5)] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert "the-secret" not in repr(made._tries)


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 100)), max_size=120), st.integers(1, 10))
def test_no_address_ever_gets_more_tries_than_a_burst_and_one_a_pause(
    tries: list[tuple[int, float]], burst: int
) -> None:
    """However it spreads them over time."""
    clock = ManualClock()
    made = Guesses(clock, burst, 30.0)
    start, looked_at = clock.monotonic(), 0
    for number, (_, rest) in enumerate(tries):
        clock.advance(rest)
        if made.wait_seconds(HOME) == 0:
            looked_at += 1
            made.failed(HOME, f"{number}:x")
    assert looked_at <= burst + (clock.monotonic() - start) / 30.0 + 1e-6
