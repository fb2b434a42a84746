"""Admin routes of people: add, list, change their role, keep them out, hand out a one-time password."""

import dataclasses
import datetime as dt

import msgspec

from forestay.fleet.passwords import check_new
from forestay.fleet.people import Person, PersonId, clean_email, new_password
from forestay.fleet.roles import Role
from forestay.gateway.admin_reading import Act, NotThere, Problem, plain_text
from forestay.gateway.responses import Header, Reply, json_reply

ONE_TIME = dt.timedelta(hours=72)
_NO_STORE: Header = (b"cache-control", b"no-store")


class _NewPerson(msgspec.Struct, forbid_unknown_fields=True):
    email: str
    role: Role
    password: str | None = None  # null: a one-time password is made, and shown in the answer


class _NewRole(msgspec.Struct, forbid_unknown_fields=True):
    role: Role


class _Reason(msgspec.Struct, forbid_unknown_fields=True):
    reason: str = "asked for"


async def post_person(act: Act) -> Reply:
    """Add a person who signs in here."""
    wanted = await act.json(_NewPerson)
    email = clean_email(wanted.email)
    handed_out = None
    if wanted.password is None:
        handed_out = new_password(act.ports.chance)
    else:
        check_new(wanted.password, email)
    until = None if handed_out is None else act.ports.clock.now() + ONE_TIME
    hashed = await act.ports.desk.hash(handed_out or wanted.password or "")
    person = await act.ports.people.add(email, wanted.role, hashed, until, actor=act.actor)
    if person is None:
        raise Problem(409, f"{email} is known already; `forestay person list` shows them", "person_exists")
    return json_reply(201, {**view(person), "one_time_password": handed_out}, _NO_STORE)


async def get_people(act: Act) -> Reply:
    """List people."""
    return json_reply(200, {"people": [view(person) for person in await act.ports.people.people()]})


async def post_role(act: Act) -> Reply:
    """Change a person's role."""
    wanted = await act.json(_NewRole)
    person = await _found(act)
    if not person.is_local:
        mend = "change their groups there, or FORESTAY_OIDC_ROLE_MAP"
        raise Problem(409, f"the role of {person.email} comes from {person.issuer}; {mend}", "role_of_issuer")
    changed = await act.ports.people.set_role(person.person_id, wanted.role, actor=act.actor)
    return json_reply(200, view(changed or person))


async def post_disable(act: Act) -> Reply:
    """Keep a person out, and end their sessions."""
    reason = plain_text("reason", (await act.json(_Reason)).reason)
    person = await _found(act)
    changed = await act.ports.people.set_enabled(person.person_id, False, actor=act.actor, reason=reason)
    return json_reply(200, view(changed or person))


async def post_enable(act: Act) -> Reply:
    """Let a person in again."""
    reason = plain_text("reason", (await act.json(_Reason)).reason)
    person = await _found(act)
    changed = await act.ports.people.set_enabled(person.person_id, True, actor=act.actor, reason=reason)
    return json_reply(200, view(changed or person))


async def post_reset(act: Act) -> Reply:
    """Hand out a one-time password for who lost theirs; their sessions end."""
    person = await _found(act)
    if not person.is_local:
        raise Problem(409, f"{person.email} signs in at {person.issuer} and has no password here", "no_password")
    handed_out = new_password(act.ports.chance)
    until = act.ports.clock.now() + ONE_TIME
    hashed = await act.ports.desk.hash(handed_out)
    changed = await act.ports.people.set_password(person.person_id, hashed, until, actor=act.actor)
    return json_reply(200, {**view(changed or person), "one_time_password": handed_out}, _NO_STORE)


async def _found(act: Act) -> Person:
    """Return the person in the path; nobody changes themselves by accident."""
    text = act.path("person_id")
    stored = None if "\x00" in text else await act.ports.people.find(PersonId(text))
    if stored is None:
        raise NotThere(f"no person {text[:60]!r}; `forestay person list` shows them")
    if stored.person.person_id == act.who.person_id:
        raise Problem(409, "that is yourself; let another administrator, or an ADMIN key, do it", "own_person")
    return stored.person


def view(person: Person) -> dict[str, object]:
    """Return a person as they are shown."""
    return dataclasses.asdict(person)
