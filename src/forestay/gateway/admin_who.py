"""Who acts on the admin API: a key with the scope ADMIN, which acts as `admin`.

Decides nothing about what a role may do (`fleet/roles`). Called by `admin` before anything else.
"""

import dataclasses

from starlette.types import Scope

from forestay.fleet.keys import Scope as KeyScope
from forestay.fleet.roles import Role
from forestay.gateway.auth import authenticate
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.responses import Reply
from forestay.ids import KeyId, TenantId


@dataclasses.dataclass(frozen=True, slots=True)
class Who:
    """Someone proven."""

    name: str  # a key's or a person's id
    role: Role
    tenant_id: TenantId | None = None  # a key's; a person has none
    key_id: KeyId | None = None

    @property
    def actor(self) -> str:
        """Return who acts, as the audit log names them."""
        return f"human:{self.name}"


async def identify(scope: Scope, ports: GatewayPorts) -> Who | Reply:
    """Prove who acts."""
    caller = await authenticate(scope, ports, KeyScope.ADMIN)
    if isinstance(caller, Reply):
        return caller
    return Who(caller.key_id, Role.ADMIN, caller.tenant_id, caller.key_id)
