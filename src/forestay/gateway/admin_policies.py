"""Who may name which policy: specs at deploy, and tenants that want a stricter one than models have.

It decides that a name which no policy in force bears is refused at once, with the names that are: otherwise a typing
error would show as content that nobody can judge. A tenant's policy judges beside the model's, so it can only add.
Mounted below `/admin/safety`; `check_policy` is also called at deploy.
"""

import msgspec

from forestay.errors import UsageError
from forestay.fleet.keys import is_tenant_id
from forestay.gateway.admin_reading import Act, NotThere, Problem, plain_text
from forestay.gateway.ports import SafetyDesk
from forestay.gateway.responses import Reply, json_reply
from forestay.ids import TenantId
from forestay.safety.policy import UNGUARDED
from forestay.safety.policy_file import STANDARD


class _TenantPolicy(msgspec.Struct, forbid_unknown_fields=True):
    policy_id: str | None  # null: the models' own policies alone
    reason: str


async def get_tenant_policies(act: Act) -> Reply:
    """List the tenants that have a policy of their own."""
    found = (await _desk(act).store.state()).tenants
    return json_reply(200, {"tenants": found})


async def put_tenant_policy(act: Act) -> Reply:
    """Have a policy judge whatever a tenant calls, beside that of each model; null ends it."""
    text, wanted = act.path("tenant_id"), await act.json(_TenantPolicy)
    reason = plain_text("reason", wanted.reason, empty=False)
    tenant_id = TenantId(text)
    if not is_tenant_id(text) or await act.ports.key_store.tenant(tenant_id) is None:
        raise NotThere(f"no tenant {text[:60]!r}; `forestay tenant list` shows those that exist")
    if wanted.policy_id is not None:
        if wanted.policy_id == UNGUARDED.policy_id:
            raise UsageError("policy_id", f"{UNGUARDED.policy_id} names no check; give null to end a tenant's policy")
        await check_policy(act, "policy_id", wanted.policy_id)
    changed = await _desk(act).store.strengthen(tenant_id, wanted.policy_id, actor=act.actor, reason=reason)
    return json_reply(200, {"tenant_id": text, "policy_id": wanted.policy_id, "changed": changed})


async def check_policy(act: Act, field: str, policy_id: str) -> None:
    """Raise UsageError unless a policy of this name has a version in force."""
    if policy_id in {UNGUARDED.policy_id, STANDARD} or act.ports.safety is None:
        return
    stages = (await act.ports.safety.store.state()).stages
    in_force = {STANDARD, *(stage.policy_id for stage in stages if stage.live)}
    if policy_id in in_force:
        return
    known = ", ".join([*sorted(in_force), UNGUARDED.policy_id])
    if any(stage.policy_id == policy_id for stage in stages):
        mend = f"stage it with `forestay safety policy stage {policy_id} 100`"
        raise UsageError(field, f"no version of policy {policy_id} is in force yet; {mend}, or name one of {known}")
    raise UsageError(field, f"nobody has set a policy {policy_id[:60]!r}; name one of {known}")


def _desk(act: Act) -> SafetyDesk:
    if act.ports.safety is None:
        raise Problem(503, "no guard runs in this gateway", "guard")
    return act.ports.safety
