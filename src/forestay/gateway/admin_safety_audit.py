"""Admin routes of the sample of released outputs: what is due to be looked at, what was found, what it says of all.

It decides the bounds of time and that nobody labels what is not in the sample: a label of one's own choosing would
bend the estimate. Called by the admin API; `admin_slo` shows the estimate beside SLOs on safety, and
`admin_customer_report` that of a tenant's month.
"""

import dataclasses
import datetime as dt
from collections.abc import Mapping

import msgspec

from forestay.fleet.audit import AuditEntry
from forestay.gateway.admin_reading import Act, NotThere, Problem, plain_text
from forestay.gateway.responses import Reply, json_reply
from forestay.safety.audit import Estimate, estimate_of, words_of
from forestay.safety.audit_store import Label, Sampling

DUE_DAYS, LONGEST_DAYS = 7, 31
_ESTIMATE_DAYS = 30


class _Label(msgspec.Struct, forbid_unknown_fields=True):
    wrong: bool
    reason: str


async def get_due(act: Act) -> Reply:
    """List sampled outputs that nobody has looked at, of the last week or since `since`, in the order of the sample."""
    now = act.ports.clock.now()
    since = max(act.moment("since") or now - dt.timedelta(days=DUE_DAYS), now - dt.timedelta(days=LONGEST_DAYS))
    found = await act.ports.admin.audits.due(sampling_of(act), since, now, act.limit(20, 200))
    return json_reply(200, {"due": [dataclasses.asdict(one) for one in found]})


async def post_label(act: Act) -> Reply:
    """Keep what was found in one sampled output: that it should have gone out, or should not."""
    request_id, said = act.request_id(), await act.json(_Label)
    reason, now = plain_text("reason", said.reason, empty=False), act.ports.clock.now()
    audits = act.ports.admin.audits
    released = await audits.find(sampling_of(act), request_id, now - dt.timedelta(days=LONGEST_DAYS))
    if released is None:
        raise NotThere(
            f"request {request_id} is not in the sample of outputs released in the last {LONGEST_DAYS} days; "
            "`forestay safety audit list` says which are due"
        )
    entry = AuditEntry(now, act.actor, "audit_release", f"request:{request_id}", {"wrong": said.wrong}, reason)
    if not await audits.label(Label(released, said.wrong, act.actor, reason), entry):
        raise Problem(409, f"request {request_id} was looked at already; a label is never edited", "refused")
    return json_reply(201, {"request_id": request_id, "wrong": said.wrong})


async def get_estimate(act: Act) -> Reply:
    """Tell what the labels say of all releases since `since` (30 days), of one model or tenant or all."""
    since = act.moment("since") or act.ports.clock.now() - dt.timedelta(days=_ESTIMATE_DAYS)
    labels = await act.ports.admin.audits.labels(since, act.query("model"), act.query("tenant"))
    estimate = estimate_of(labels)
    told = None if estimate is None else dataclasses.asdict(estimate)
    return json_reply(200, {"since": since, "estimate": told, "words": words_of(estimate)})


def sampling_of(act: Act) -> Sampling:
    """Return which outputs are looked at, as the settings say."""
    observe = act.ports.settings.observe
    return Sampling(observe.audit_seed, observe.audit_ratio)


async def estimate_about(
    act: Act, subject: str, since: dt.datetime, until: dt.datetime | None = None
) -> Estimate | None:
    """Return what the labels tell of a subject as SLOs name it: `model:owner/alias`, `tenant:acme`, `platform`."""
    kind, _, name = subject.partition(":")
    named: Mapping[str, str] = {kind: name} if name else {}
    return estimate_of(await act.ports.admin.audits.labels(since, named.get("model"), named.get("tenant"), until))
