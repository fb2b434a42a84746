"""Who acts on the admin API: a person by their session, or a key with the scope ADMIN, which acts as `admin`.

A session comes as `Authorization: Bearer` (the command line) or as a cookie (a browser), and a cookie alone never
changes anything unless the call is our own page's. Decides nothing about what a role may do (`fleet/roles`). Called by
`admin` before anything else.
"""

import dataclasses

from starlette.types import Scope

from forestay.fleet.keys import Scope as KeyScope
from forestay.fleet.people import SESSION_PREFIX, PersonId, hash_token
from forestay.fleet.roles import Role
from forestay.gateway.auth import authenticate
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.responses import Reply, forbidden, not_authenticated
from forestay.gateway.session_cookie import cookie_of, is_ours
from forestay.ids import KeyId, TenantId
from forestay.telemetry.metrics import REFUSED

_BEARER = f"bearer {SESSION_PREFIX}".encode()


@dataclasses.dataclass(frozen=True, slots=True)
class Who:
    """Someone proven."""

    name: str  # a key's or a person's id
    role: Role
    tenant_id: TenantId | None = None  # a key's; a person has none
    key_id: KeyId | None = None
    person_id: PersonId | None = None
    session_id: str = ""
    email: str = ""
    one_time: bool = False  # the password was handed out: nothing is open but choosing one

    @property
    def actor(self) -> str:
        """Return who acts, as the audit log names them."""
        return f"human:{self.name}"


async def identify(scope: Scope, ports: GatewayPorts) -> Who | Reply:
    """Prove who acts."""
    shown = next((value for name, value in scope["headers"] if name == b"authorization"), None)
    if shown is not None and shown[: len(_BEARER)].lower() == _BEARER:
        return await _by_session(shown.partition(b" ")[2].strip().decode("latin-1"), ports)
    cookie = None if shown is not None else cookie_of(scope)
    if cookie is not None:
        if not is_ours(scope, ports.settings.gateway.public_url):
            ports.metrics.add(REFUSED, "csrf")
            return forbidden("A call proven by a cookie needs the header X-Forestay-CSRF, or our own Origin")
        return await _by_session(cookie, ports)
    caller = await authenticate(scope, ports, KeyScope.ADMIN)
    if isinstance(caller, Reply):
        return caller
    return Who(caller.key_id, Role.ADMIN, caller.tenant_id, caller.key_id)


async def _by_session(token: str, ports: GatewayPorts) -> Who | Reply:
    digest = hash_token(token)
    idle_seconds = ports.settings.identity.session_idle_seconds
    found = None if digest is None else await ports.people.use_session(digest, idle_seconds)
    if found is None:
        ports.metrics.add(REFUSED, "session")
        return not_authenticated("The session has ended; sign in again")
    session, person = found
    return Who(
        person.person_id,
        person.role,
        person_id=person.person_id,
        session_id=session.session_id,
        email=person.email,
        one_time=person.is_local and person.one_time_until is not None,
    )
