"""Admin routes of cases that the law asks to report: reading them, and telling an undelivered one anew.

It decides nothing: a case's way is `safety/hashes/report`'s. Mounted below `/admin/safety`.
"""

import msgspec

from forestay.errors import UsageError
from forestay.gateway.admin_reading import Act, NotThere, plain_text
from forestay.gateway.responses import Reply, json_reply
from forestay.safety.hashes.report import CaseState


class _Reason(msgspec.Struct, forbid_unknown_fields=True):
    reason: str


async def get_cases(act: Act) -> Reply:
    """List cases, newest first; `state` shows those of one state."""
    state = act.query("state")
    if state is not None and state not in set(CaseState):
        raise UsageError("state", f"use one of {', '.join(CaseState)}")
    kept = await act.ports.reports.cases(None if state is None else CaseState(state), act.limit(100, 1_000))
    rows = [
        {
            **msgspec.to_builtins(item.case.opened),
            "state": item.case.state,
            "sealed_id": item.case.sealed_id,
            "tries": item.case.tries,
            "due_at": item.case.due_at,
            "proof": item.proof,
            "problem": item.problem,
        }
        for item in kept
    ]
    return json_reply(200, {"cases": rows})


async def post_retry(act: Act) -> Reply:
    """Tell the receiver of an undelivered case anew."""
    wanted = await act.json(_Reason)
    case_id, reason = act.path("case_id"), plain_text("reason", wanted.reason, empty=False)
    if not await act.ports.reports.try_again(case_id, actor=act.actor, reason=reason):
        raise NotThere(f"no undelivered case {case_id[:60]!r}; `forestay safety report list` shows those that exist")
    return json_reply(200, {"case_id": case_id, "state": CaseState.PRESERVED})
