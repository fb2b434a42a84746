"""Standings: what a caller may do while doubts about it last, and the sense and the brakes of setting one.

A standing is of one subject (`key:<id>`, `tenant:<id>` or `network:<prefix>`), has a reason and an end, and never
grows by itself. Pure: values, and the rules that `fleet/apply` asks: does it make sense, does it change anything, does
what stands already go first. It does not decide who deserves one (`abuse/decide`), and does not refuse calls
(`gateway/standing`).
"""

import dataclasses
import datetime as dt
import enum
import hashlib
import ipaddress
import re
from collections.abc import Mapping

from forestay.ids import KeyId, TenantId

LONGEST = dt.timedelta(days=366)
_SUBJECT = re.compile(r"(key|tenant|network):(\S{1,64})")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}")


class StandingKind(enum.StrEnum):
    """What follows, from the mildest on; each includes nothing of the others."""

    WATCH = "watch"  # recorded
    REFER = "refer"  # recorded, and a person shall look
    THROTTLE = "throttle"  # limits times `factor`
    STEP_UP = "step_up"  # calls are refused until the key is issued anew
    SUSPEND = "suspend"  # calls are refused


SEVERITY: Mapping[StandingKind, int] = {kind: number for number, kind in enumerate(StandingKind)}
RESTRICTING = frozenset({StandingKind.THROTTLE, StandingKind.STEP_UP, StandingKind.SUSPEND})


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """One subject's standing. `factor` is read for THROTTLE only, `freeze_results` for SUSPEND only."""

    standing_id: str
    subject: str
    kind: StandingKind
    code: str  # what the caller is told: a word of few, `key_leak`
    rule: str  # which rule set it; "by_hand" when a person did
    reason: str  # for the operator
    since: dt.datetime
    expires_at: dt.datetime
    factor: float = 1.0
    freeze_results: bool = False  # results of accepted requests are kept back too
    origin: str = ""  # who set it: human, abuse, ...; filled by the store
    evidence: Mapping[str, object] = dataclasses.field(default_factory=dict[str, object])  # numbers and ids of facts


def key_subject(key_id: KeyId) -> str:
    """Return the subject that a key is."""
    return f"key:{key_id}"


def tenant_subject(tenant_id: TenantId) -> str:
    """Return the subject that a tenant is."""
    return f"tenant:{tenant_id}"


def network_subject(network: str) -> str:
    """Return the subject that a network is; `network` as facts write it, `203.0.113.0/24`."""
    return f"network:{network}"


def standing_id_of(subject: str, rule: str, since: dt.datetime) -> str:
    """Return the id of the standing that `rule` gives `subject` at `since`: the same inputs, the same id."""
    text = f"{subject}\n{rule}\n{since.astimezone(dt.UTC).isoformat()}"
    return f"st_{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"


def wrong_subject(subject: str) -> str:
    """Return why `subject` names nothing that may have a standing; empty when it may."""
    match = _SUBJECT.fullmatch(subject)
    if match is None:
        return f"{subject[:80]!r} is no subject; write key:<id>, tenant:<id> or network:<address>/<bits>"
    if match[1] == "network":
        try:
            ipaddress.ip_network(match[2])
        except ValueError:
            return f"{match[2]!r} is no network such as 203.0.113.0/24"
    return ""


def wrong_standing(standing: Standing, now: dt.datetime) -> str:
    """Return why this standing makes no sense, whoever wants it; empty when it does."""
    wrong = wrong_subject(standing.subject)
    if wrong:
        return wrong
    if standing.expires_at <= now:
        return "a standing must end after now"
    if standing.expires_at - now > LONGEST:
        return f"a standing may last at most {LONGEST.days} days"
    if not 0.0 < standing.factor <= 1.0:
        return f"factor {standing.factor:g} is outside 0 (excluded) to 1"
    if not _CODE.fullmatch(standing.code):
        return f"code {standing.code[:80]!r} must be lower-case letters, digits and _, at most 40"
    return "" if standing.reason.strip() else "a standing needs a reason"


def is_so_already(wanted: Standing, current: Standing | None) -> bool:
    """Tell whether `current` does what is wanted, for at least as long."""
    if current is None:
        return False
    return _what(current) == _what(wanted) and current.expires_at >= wanted.expires_at


def renews(wanted: Standing, current: Standing | None) -> bool:
    """Tell whether the wanted standing is the current one with another end, reason or evidence."""
    return current is not None and _what(current) == _what(wanted)


def goes_first(wanted: Standing, current: Standing | None) -> str:
    """Return why what stands goes before what automation wants; empty when it does not."""
    if current is None:
        return ""
    if current.origin == "human":
        return f"a person set {current.kind} on {current.subject}; only a person changes it"
    if SEVERITY[current.kind] > SEVERITY[wanted.kind]:
        return f"{current.subject} stands under {current.kind} already, which goes further"
    return ""


def restricts(wanted: Standing, current: Standing | None) -> bool:
    """Tell whether setting it takes something from a caller that nothing took before."""
    return wanted.kind in RESTRICTING and (current is None or current.kind not in RESTRICTING)


def _what(standing: Standing) -> tuple[object, ...]:
    return (standing.subject, standing.kind, standing.rule, standing.code, standing.factor, standing.freeze_results)
