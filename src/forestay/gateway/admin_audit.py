"""Admin routes of the audit log: read it, hold it against its chains and its signed checkpoints, sign one now."""

import dataclasses

import msgspec

from forestay.errors import UsageError
from forestay.fleet.anchor import AuditAnchor, LogTampered
from forestay.fleet.audit import AuditRow
from forestay.fleet.checkpoints import SignedCheckpoint
from forestay.gateway.admin_reading import Act, Problem
from forestay.gateway.responses import Reply, json_reply


class _Outside(msgspec.Struct, forbid_unknown_fields=True):
    checkpoint: SignedCheckpoint | None = None  # one that was kept outside


async def get_audit(act: Act) -> Reply:
    """List audit rows, newest first."""
    subject, before = act.query("subject"), act.moment("before")
    rows = await act.ports.fleet.audit_rows(subject=subject, before=before, limit=act.limit(100, 1_000))
    return json_reply(200, {"rows": [_row(row) for row in rows]})


async def get_audit_faults(act: Act) -> Reply:
    """Recompute every chain, and hold the log against its checkpoints."""
    return await _verified(act, None)


async def post_audit_verify(act: Act) -> Reply:
    """Recompute every chain, and hold the log against its checkpoints and one that was kept outside."""
    return await _verified(act, (await act.json(_Outside)).checkpoint)


async def post_audit_anchor(act: Act) -> Reply:
    """Sign a checkpoint of every chain's head and show it, to be kept elsewhere."""
    anchor = act.ports.anchor
    if anchor is None:
        raise _no_key()
    try:
        signed = await anchor.sign_now()
    except LogTampered as error:
        raise Problem(409, str(error), "audit_tampered") from None
    if signed is None:
        raise Problem(409, "the audit log is empty: there is nothing to sign", "audit_empty")
    return json_reply(200, signed)


async def _verified(act: Act, outside: SignedCheckpoint | None) -> Reply:
    anchor: AuditAnchor | None = act.ports.anchor
    if anchor is None and outside is not None:
        raise _no_key()
    faults = [dataclasses.asdict(fault) for fault in await act.ports.fleet.audit_faults()]
    newest = None
    if anchor is not None:
        anchored = await anchor.verify(outside)
        faults += [dataclasses.asdict(fault) for fault in anchored.faults]
        newest = anchored.newest
    told = None if newest is None else {"number": newest.checkpoint.number, "at": newest.checkpoint.at}
    return json_reply(200, {"intact": not faults, "faults": faults, "checkpoint": told})


def _no_key() -> UsageError:
    return UsageError("FORESTAY_SIGNING_KEY_FILE", "is not set on this gateway: no checkpoint can be signed or checked")


def _row(row: AuditRow) -> dict[str, object]:
    entry = row.entry
    return {
        "at": entry.at,
        "writer": row.writer,
        "sequence": row.sequence,
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "effect": entry.effect,
        "reason": entry.reason,
        "detail": entry.detail,
        "hash": row.hash.hex(),
    }
