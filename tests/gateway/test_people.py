"""People at the admin API: signing in, roles, sessions, cookies, and what none of them betrays."""

import datetime as dt
from collections.abc import Mapping
from typing import cast

import pytest
from tests.conformance.memory_people import MemoryPeopleStore
from tests.gateway.world import Reply, World, drive

from forestay.fleet.passwords import proves
from forestay.fleet.people import Person, PersonId, hash_token
from forestay.fleet.roles import Permission, Role, allows
from forestay.fleet.sign_in import ACCOUNT
from forestay.gateway import admin
from forestay.gateway.password_desk import MAX_WAITING, PasswordDesk
from forestay.telemetry.metrics import REFUSED, SIGN_INS

EMAIL, PASSWORD = "olga@example.com", "correct horse battery"
ORIGIN = {"origin": "http://gateway.test"}


async def a_person(world: World, role: Role = Role.OPERATOR, email: str = EMAIL) -> Person:
    """Add a person with a password of their own."""
    person = await world.ports.people.add(email, role, await world.ports.desk.hash(PASSWORD), None, actor="human:test")
    assert person is not None
    return person


async def sign_in(
    world: World, email: str = EMAIL, password: str = PASSWORD, *, client: str = "192.0.2.1", **more: object
) -> Reply:
    """Try to sign in."""
    body = {"email": email, "password": password, **more}
    request = world.request("POST", "/admin/sign-in", body, ORIGIN if more.get("cookie") else {}, key=None)
    request.client = client
    return await drive(world.gateway, request)


async def bearer(world: World, email: str = EMAIL) -> dict[str, str]:
    """Sign in as the command line does."""
    reply = await sign_in(world, email)
    assert reply.status == 201, reply.body
    return {"authorization": f"Bearer {reply.field('token')}"}


async def as_person(world: World, role: Role) -> dict[str, str]:
    """Return the headers of a signed-in person of this role."""
    await a_person(world, role, f"{role}@example.com")
    return await bearer(world, f"{role}@example.com")


async def test_a_person_signs_in_works_and_signs_out(world: World) -> None:
    """The token of the answer opens the admin API as the person's role, until it is given back."""
    person = await a_person(world)
    reply = await sign_in(world)
    assert reply.status == 201
    assert (reply.field("person_id"), reply.field("role")) == (person.person_id, "operator")
    assert reply.headers["cache-control"] == "no-store"
    headers = {"authorization": f"Bearer {reply.field('token')}"}
    who = await world.call("GET", "/admin/whoami", headers=headers)
    assert (who.field("email"), who.field("role"), who.field("key_id")) == (EMAIL, "operator", None)
    assert (await world.call("GET", "/admin/fleet", headers=headers)).status == 200
    assert (await world.call("POST", "/admin/sign-out", {}, headers)).field("sessions_ended") == 1
    assert (await world.call("GET", "/admin/whoami", headers=headers)).status == 401


@pytest.mark.threat("API2:2023")
async def test_whatever_is_wrong_looks_alike(world: World) -> None:
    """Unknown, wrong, disabled, no password, expired one-time password: one answer, one hash each."""
    person = await a_person(world)
    disabled = await a_person(world, email="disabled@example.com")
    await world.ports.people.set_enabled(disabled.person_id, False, actor="human:test", reason="left")
    past = world.ports.clock.now() - dt.timedelta(seconds=1)
    late = await world.ports.desk.hash(PASSWORD)
    assert await world.ports.people.add("late@example.com", Role.ADMIN, late, past, actor="human:test")
    checked: list[str | None] = []
    desk = world.ports.desk
    honest = desk.proves

    async def watched(password: str, stored: str | None) -> bool:
        checked.append(stored)
        return await honest(password, stored)

    object.__setattr__(world.ports, "desk", _Watched(desk, watched))
    said = set()
    for number, (email, password) in enumerate(
        [
            (EMAIL, "wrong"),
            ("nobody@example.com", PASSWORD),
            ("disabled@example.com", PASSWORD),
            ("late@example.com", PASSWORD),
            ("not an address", PASSWORD),
        ]
    ):
        reply = await sign_in(world, email, password, client=f"192.0.2.{number + 1}")
        said.add((reply.status, reply.body, tuple(sorted(set(reply.headers) - {"x-fal-request-id"}))))
    assert len(said) == 1
    assert said.pop()[0] == 401
    assert len(checked) == 5
    assert checked.count(None) == 4
    assert world.ports.metrics.value(SIGN_INS, "password", "refused") == 5
    assert person.signed_in_at is None


class _Watched:
    """A desk whose checks are seen."""

    def __init__(self, desk: PasswordDesk, proves_: object) -> None:
        self._desk = desk
        self.proves = proves_

    def __getattr__(self, name: str) -> object:
        return getattr(self._desk, name)


@pytest.mark.threat("API2:2023")
async def test_guessing_waits_longer_each_time_known_or_not(world: World) -> None:
    """429 with Retry-After, also for the right password, and alike for an account that does not exist."""
    await a_person(world)
    for email in (EMAIL, "nobody@example.com"):
        for number in range(ACCOUNT.free + 1):
            assert (await sign_in(world, email, "wrong", client=f"192.0.2.{number}")).status == 401
        reply = await sign_in(world, email, client="198.51.100.1")
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
    assert world.ports.metrics.value(SIGN_INS, "password", "wait") == 2


async def test_one_network_cannot_try_account_after_account(world: World) -> None:
    """The network waits; others do not."""
    await a_person(world)
    replies = [await sign_in(world, f"p{number}@example.com", "wrong") for number in range(22)]
    assert [reply.status for reply in replies].count(429) == 1
    assert (await sign_in(world)).status == 429
    assert (await sign_in(world, client="198.51.100.1")).status == 201


async def test_a_crowd_of_sign_ins_is_turned_away_before_it_takes_the_machine(world: World) -> None:
    """Few wait at the desk; the rest is told to come again."""
    import asyncio  # noqa: PLC0415

    await a_person(world)
    replies = await asyncio.gather(
        *(sign_in(world, f"p{n}@example.com", client=f"198.51.100.{n}") for n in range(MAX_WAITING * 3))
    )
    statuses = {reply.status for reply in replies}
    assert statuses <= {401, 503}
    assert (await sign_in(world)).status == 201


@pytest.mark.threat("API5:2023")
async def test_every_admin_route_asks_for_a_permission_and_every_role_is_held_to_it(world: World) -> None:
    """403 exactly where the table of roles says so: no route lacks a permission."""
    headers = {role: await as_person(world, role) for role in Role}
    assert len(admin.table()) > 30
    for method, path, permission in admin.table():
        assert isinstance(permission, Permission)
        if path in {"/sign-out", "/password"}:
            continue  # they would end the session that asks
        for role in Role:
            reply = await world.call(method, f"/admin{path.replace('{', 'x').replace('}', 'x')}", headers=headers[role])
            lacks = b"lacks the permission" in reply.body
            assert lacks is not allows(role, permission), (method, path, role, reply.body)
            assert reply.status != 401
            assert (reply.status == 403) is lacks
    assert (await world.call("GET", "/admin/fleet", key=None)).status == 401


async def test_a_key_that_may_administer_is_an_admin(world: World) -> None:
    """As before there were people."""
    who = await world.call("GET", "/admin/whoami", key=world.admin_key)
    assert (who.field("role"), who.field("key_id")) == ("admin", world.admin_key[:16])
    assert (await world.call("POST", "/admin/sign-out", {}, key=world.admin_key)).status == 409
    assert (
        await world.call("POST", "/admin/password", {"current": "a", "new": "b"}, key=world.admin_key)
    ).status == 409


async def test_a_changed_role_and_a_disabled_person_are_felt_at_once(world: World) -> None:
    """By a session that is open."""
    person = await a_person(world, Role.ADMIN)
    headers = await bearer(world)
    await world.call("POST", f"/admin/people/{person.person_id}/role", {"role": "viewer"}, key=world.admin_key)
    assert (await world.call("GET", "/admin/people", headers=headers)).status == 403
    await world.call("POST", f"/admin/people/{person.person_id}/disable", {}, key=world.admin_key)
    assert (await world.call("GET", "/admin/fleet", headers=headers)).status == 401
    assert (await sign_in(world)).status == 401
    await world.call("POST", f"/admin/people/{person.person_id}/enable", {}, key=world.admin_key)
    assert (await sign_in(world)).status == 201


async def test_a_handed_out_password_opens_nothing_but_choosing_another(world: World) -> None:
    """Shown once to who adds the person; until they chose their own, every other route is 403."""
    made = await world.call("POST", "/admin/people", {"email": EMAIL, "role": "admin"}, key=world.admin_key)
    assert made.status == 201
    handed_out = str(made.field("one_time_password"))
    opened = await sign_in(world, password=handed_out)
    assert opened.field("must_choose_password") is True
    headers = {"authorization": f"Bearer {opened.field('token')}"}
    assert (await world.call("GET", "/admin/fleet", headers=headers)).status == 403
    assert (await world.call("GET", "/admin/whoami", headers=headers)).status == 200
    weak = await world.call("POST", "/admin/password", {"current": handed_out, "new": "short"}, headers)
    assert weak.status == 422
    wrong = await world.call("POST", "/admin/password", {"current": "not it", "new": PASSWORD}, headers)
    assert wrong.status == 403
    chosen = await world.call("POST", "/admin/password", {"current": handed_out, "new": PASSWORD}, headers)
    assert chosen.status == 200
    assert (await world.call("GET", "/admin/fleet", headers=headers)).status == 200
    assert (await sign_in(world, password=handed_out)).status == 401
    assert (await sign_in(world)).field("must_choose_password") is False


async def test_a_reset_ends_sessions_and_hands_out_another_password(world: World) -> None:
    """For who lost theirs."""
    person = await a_person(world)
    headers = await bearer(world)
    reset = await world.call("POST", f"/admin/people/{person.person_id}/reset", {}, key=world.admin_key)
    assert (await world.call("GET", "/admin/whoami", headers=headers)).status == 401
    assert (await sign_in(world)).status == 401
    assert (await sign_in(world, password=str(reset.field("one_time_password")))).status == 201


async def test_nobody_changes_their_own_role_or_keeps_themselves_out(world: World) -> None:
    """By accident the last one could."""
    person = await a_person(world, Role.ADMIN)
    headers = await bearer(world)
    for path, body in (("role", {"role": "viewer"}), ("disable", {}), ("reset", {})):
        reply = await world.call("POST", f"/admin/people/{person.person_id}/{path}", body, headers)
        assert reply.status == 409, path
    assert (await world.call("POST", "/admin/people/p-none/disable", {}, headers)).status == 404


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"email": "no address", "role": "viewer"}, "email"),
        ({"email": "a@b.c", "role": "king"}, "role"),
        ({"email": "a@b.c", "role": "viewer", "password": "short"}, "password"),
        ({"email": "a@b.c"}, "role"),
    ],
)
async def test_a_person_that_cannot_be_added_is_named_by_field(
    world: World, body: Mapping[str, str], named: str
) -> None:
    """422."""
    reply = await world.call("POST", "/admin/people", body, key=world.admin_key)
    assert reply.status == 422
    assert named.encode() in reply.body


async def test_acts_are_recorded_under_the_persons_id(world: World) -> None:
    """Not under a shared key."""
    await a_person(world)
    headers = await bearer(world)
    assert (await world.call("POST", "/admin/freeze", {"frozen": True, "reason": "drill"}, headers)).status == 200
    rows = await world.fleet.audit_rows(subject=None, before=None, limit=1)
    me = (await world.call("GET", "/admin/whoami", headers=headers)).field("person_id")
    assert rows[0].entry.actor == f"human:{me}"
    people = cast("MemoryPeopleStore", world.ports.people)
    assert (f"human:{me}", "sign_in", me) in people.acts


def cookie_in(reply: Reply) -> str:
    """Return what a browser would send back."""
    return reply.headers["set-cookie"].partition(";")[0]


async def test_a_browsers_session_is_out_of_its_scripts_reach(world: World) -> None:
    """HttpOnly, SameSite=Strict, no token in the body; on TLS Secure and of this very host."""
    await a_person(world)
    plain = await sign_in(world, cookie=True)
    assert plain.status == 201
    assert b"fs_" not in plain.body
    flags = plain.headers["set-cookie"].split("; ")
    assert flags[0].startswith("forestay-session=fs_")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(flags)
    assert "Secure" not in flags
    request = world.request(
        "POST", "/admin/sign-in", {"email": EMAIL, "password": PASSWORD, "cookie": True},
        {"origin": "https://gateway.test"}, key=None,
    )  # fmt: skip
    request.scheme = "https"
    secured = await drive(world.gateway, request)
    flags = secured.headers["set-cookie"].split("; ")
    assert flags[0].startswith("__Host-forestay-session=fs_")
    assert {"Secure", "HttpOnly", "SameSite=Strict", "Path=/"} <= set(flags)


@pytest.mark.threat("API8:2023")
async def test_another_site_cannot_act_with_a_browsers_session(world: World) -> None:
    """A cookie reads; it changes something only with the header, or from our own origin."""
    await a_person(world)
    cookie = {"cookie": cookie_in(await sign_in(world, cookie=True))}
    freeze = {"frozen": False, "reason": "x"}
    assert (await world.call("GET", "/admin/fleet", headers=cookie, key=None)).status == 200
    for headers, status in (
        ({}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://gateway.test.evil.example"}, 403),
        ({"x-forestay-csrf": ""}, 403),
        ({"x-forestay-csrf": "1"}, 200),
        (ORIGIN, 200),
    ):
        reply = await world.call("POST", "/admin/freeze", freeze, {**cookie, **headers}, key=None)
        assert reply.status == status, headers
    assert world.ports.metrics.value(REFUSED, "csrf") == 5


async def test_another_site_cannot_sign_a_browser_in(world: World) -> None:
    """Nor plant a session of its own choosing."""
    await a_person(world)
    body = {"email": EMAIL, "password": PASSWORD, "cookie": True}
    for headers in ({}, {"origin": "https://evil.example"}):
        reply = await world.call("POST", "/admin/sign-in", body, headers, key=None)
        assert reply.status == 403
        assert "set-cookie" not in reply.headers


async def test_signing_out_takes_the_cookie_back(world: World) -> None:
    """Everywhere, if asked."""
    await a_person(world)
    cookies = [cookie_in(await sign_in(world, cookie=True)) for _ in range(2)]
    headers = {"cookie": cookies[0], "x-forestay-csrf": "1"}
    reply = await world.call("POST", "/admin/sign-out", {"everywhere": True}, headers, key=None)
    assert reply.field("sessions_ended") == 2
    assert "Max-Age=0" in reply.headers["set-cookie"]
    for cookie in cookies:
        assert (await world.call("GET", "/admin/whoami", headers={"cookie": cookie}, key=None)).status == 401


@pytest.mark.parametrize("token", ["fs_", "fs_" + "A" * 43, "fs_" + "A" * 500, "fs_é" + "A" * 50])
async def test_a_made_up_session_is_refused(world: World, token: str) -> None:
    """As Bearer and as cookie."""
    for headers in ({"authorization": f"Bearer {token}"}, {"cookie": f"forestay-session={token}"}):
        assert (await world.call("GET", "/admin/whoami", headers=headers, key=None)).status == 401


async def test_a_session_calls_no_model(world: World) -> None:
    """It opens the admin API alone."""
    await a_person(world)
    headers = await bearer(world)
    assert (await world.call("POST", "/run/acme/echo", {"prompt": "a"}, headers)).status == 401
    cookie = {"cookie": cookie_in(await sign_in(world, cookie=True))}
    assert (await world.call("POST", "/run/acme/echo", {"prompt": "a"}, cookie, key=None)).status == 401


async def test_a_hash_of_an_older_cost_is_made_anew_at_sign_in(world: World) -> None:
    """So that the cost can be raised."""
    from forestay.chance import SystemChance  # noqa: PLC0415
    from forestay.fleet.passwords import Cost, hash_password  # noqa: PLC0415

    old = hash_password(PASSWORD, SystemChance(), Cost(log2_n=3, r=1, p=1))
    person = await world.ports.people.add(EMAIL, Role.VIEWER, old, None, actor="human:test")
    assert person is not None
    assert (await sign_in(world)).status == 201
    stored = await world.ports.people.find(PersonId(person.person_id))
    assert stored is not None
    assert stored.password is not None
    assert stored.password.startswith("scrypt$4$")
    assert proves(PASSWORD, stored.password)


async def test_only_the_hash_of_a_session_is_kept(world: World) -> None:
    """Whoever reads the table has no session."""
    await a_person(world)
    token = str((await sign_in(world)).field("token"))
    digest = hash_token(token)
    assert digest is not None
    assert await world.ports.people.use_session(digest, 60.0) is not None
    people = cast("MemoryPeopleStore", world.ports.people)
    assert token not in repr(people._sessions)


async def test_a_person_names_the_tenant_where_there_are_several(world: World) -> None:
    """They have none of their own; the only one there is would do."""
    headers = await as_person(world, Role.ADMIN)
    object.__setattr__(world.ports.settings.secrets, "key_pepper", "p" * 32)
    unnamed = await world.call("POST", "/admin/keys", {"name": "n"}, headers)
    assert unnamed.status == 422
    assert b"tenant_id" in unnamed.body
    assert (await world.call("POST", "/admin/keys", {"name": "n", "tenant_id": "other"}, headers)).status == 201
