"""Admin routes of one's own session: sign in by password, sign out, who am I, choose a password.

Signing in needs no permission; everything that can fail in it fails alike. The session's token goes to the command line
in the answer, or to a browser in a cookie that its scripts cannot read. Mounted by `admin`.
"""

import msgspec
from starlette.requests import Request

from forestay.errors import UsageError
from forestay.fleet.passwords import check_new
from forestay.fleet.roles import PERMISSIONS
from forestay.fleet.sign_in import subjects_of
from forestay.gateway.admin_reading import Act, Problem, read_body
from forestay.gateway.caller_address import address_of_call
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.responses import Header, Reply, json_reply, not_authenticated, plain_error
from forestay.gateway.session_cookie import clear_cookie, is_ours, set_cookie
from forestay.gateway.sign_in import SignedIn, Wait, sign_in

MAX_OPEN_BODY = 64 * 1024  # of who is not proven yet
_NO_STORE: Header = (b"cache-control", b"no-store")


class _Credentials(msgspec.Struct, forbid_unknown_fields=True):
    email: str
    password: str
    cookie: bool = False  # a browser: hand the session over in a cookie


class _SignOut(msgspec.Struct, forbid_unknown_fields=True):
    everywhere: bool = False


class _NewPassword(msgspec.Struct, forbid_unknown_fields=True):
    current: str
    new: str


async def post_sign_in(request: Request, ports: GatewayPorts) -> Reply:
    """Sign in by e-mail address and password."""
    asked = await read_body(request, ports, _Credentials, MAX_OPEN_BODY)
    if len(asked.email) > 320 or len(asked.password) > 1024:
        raise UsageError("password", "is too long")
    if asked.cookie and not is_ours(request.scope, ports.settings.gateway.public_url):
        return plain_error(403, "Signing in a browser needs the header X-Forestay-CSRF, or our own Origin", "csrf")
    address = address_of_call(request.scope, ports.settings.gateway.trusted_proxies, ports.tunnels)
    outcome = await sign_in(ports, asked.email, asked.password, address)
    match outcome:
        case SignedIn():
            return signed_in_reply(request, outcome, cookie=asked.cookie)
        case Wait():
            seconds = max(1, round(outcome.seconds))
            detail = f"Too many tries; wait {seconds} s"
            return plain_error(429, detail, "sign_in_wait", (b"retry-after", b"%d" % seconds))
        case None:
            return not_authenticated("Wrong e-mail address or password")


async def post_sign_out(act: Act) -> Reply:
    """End one's own session, or all of them."""
    asked = await act.json(_SignOut)
    if act.who.person_id is None:
        raise Problem(409, "a key has no session; revoke it with `forestay key revoke`", "no_session")
    session_id = None if asked.everywhere else act.who.session_id
    ended = await act.ports.people.close_sessions(act.who.person_id, session_id, actor=act.actor)
    return json_reply(200, {"sessions_ended": ended}, clear_cookie(act.request.scope))


async def get_whoami(act: Act) -> Reply:
    """Say who asks, and what they may do."""
    who = act.who
    return json_reply(
        200,
        {
            "key_id": who.key_id,
            "person_id": who.person_id,
            "email": who.email,
            "role": who.role,
            "permissions": sorted(PERMISSIONS[who.role]),
            "must_choose_password": who.one_time,
        },
        _NO_STORE,
    )


async def post_password(act: Act) -> Reply:
    """Choose a password of one's own; every other session of the person ends."""
    asked = await act.json(_NewPassword)
    stored = None if act.who.person_id is None else await act.ports.people.find(act.who.person_id)
    if stored is None or not stored.person.is_local:
        raise Problem(409, "only people who sign in here by password have one to change", "no_password")
    check_new(asked.new, stored.person.email)
    if asked.new == asked.current:
        raise UsageError("new", "must differ from the current one")
    subjects = subjects_of(stored.person.email, None)[:1]
    wait = await act.ports.sign_ins.begin(subjects)
    if wait > 0:
        raise Problem(429, f"too many tries; wait {max(1, round(wait))} s", "sign_in_wait")
    if not await act.ports.desk.proves(asked.current, stored.password):
        raise Problem(403, "the current password is wrong", "wrong_password")
    await act.ports.sign_ins.succeeded(subjects)
    hashed = await act.ports.desk.hash(asked.new)
    keep, person_id = act.who.session_id, stored.person.person_id
    await act.ports.people.set_password(person_id, hashed, None, actor=act.actor, keep=keep)
    return json_reply(200, {"person_id": person_id}, _NO_STORE)


def signed_in_reply(request: Request, signed: SignedIn, *, cookie: bool) -> Reply:
    """Answer a sign-in with its session."""
    session, person = signed.opened.session, signed.person
    told: dict[str, object] = {
        "session_id": session.session_id,
        "person_id": person.person_id,
        "email": person.email,
        "role": person.role,
        "expires_at": session.expires_at,
        "must_choose_password": person.is_local and person.one_time_until is not None,
    }
    if not cookie:
        return json_reply(201, {**told, "token": signed.opened.token}, _NO_STORE)
    life_seconds = (session.expires_at - session.created_at).total_seconds()
    return json_reply(201, told, _NO_STORE, set_cookie(request.scope, signed.opened.token, life_seconds))
