"""Admin routes of evidence: which copies were sealed for a finding, and one of them, on record before it is given out.

It decides nothing: `quality/evidence` chose them, the sealed store notes who reads, and refuses whom it cannot note.
"""

from forestay.errors import UsageError
from forestay.gateway.admin_reading import Act, NotThere, plain_text
from forestay.gateway.admin_safety_review import desk_of
from forestay.gateway.responses import Reply, json_reply
from forestay.quality.evidence import Evidence
from forestay.safety.review.sealed import Reader


async def get_evidence(act: Act) -> Reply:
    """List the copies that were sealed for a finding; not what they show."""
    return json_reply(200, await _evidence(act))


async def get_copy(act: Act) -> Reply:
    """Give out one copy by its number, from 0; `reason` says why, and stands in the audit log."""
    reason, number = plain_text("reason", act.query("reason") or "", empty=False), act.path("number")
    found = await _evidence(act)
    if not (number.isascii() and number.isdigit() and len(number) < 6):
        raise UsageError("number", "must be the number of a copy, from 0")
    if int(number) >= len(found.copies):
        raise NotThere(f"finding {found.finding_id} has {len(found.copies)} copies, counted from 0")
    copy = found.copies[int(number)]
    reader = Reader(act.actor, "clear", reason, f"finding:{found.finding_id}")
    data = await desk_of(act).sealed.read(copy.sealed_id, reader)
    if data is None:
        raise NotThere("the copy was forgotten: its time in the sealed store is over (FORESTAY_SEALED_RETENTION)")
    # What a model or a caller wrote: bytes to be saved, whatever they say they are.
    headers = ((b"content-type", b"application/octet-stream"), (b"cache-control", b"no-store"))
    return Reply(200, data, headers)


async def _evidence(act: Act) -> Evidence:
    finding_id, store = act.path("finding_id"), act.ports.admin.evidence
    found = (await store.of([finding_id])).get(finding_id) if store is not None else None
    if found is None:
        raise NotThere(f"no evidence of finding {finding_id[:32]!r}; `forestay quality findings` lists findings")
    return found
