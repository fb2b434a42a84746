"""Admin routes of SLOs: how each stands, what budgets demand, and minutes that people take out of budgets.

It decides the bounds of an adjustment. How SLOs stand and what follows, the loop that watches them has written down.
"""

import dataclasses
import datetime as dt

import msgspec

from forestay.errors import UsageError
from forestay.fleet.audit import AuditEntry
from forestay.gateway.admin_reading import Act, NotThere, Problem, plain_text
from forestay.gateway.admin_safety_audit import estimate_about
from forestay.gateway.responses import Reply, json_reply
from forestay.safety.audit import words_of
from forestay.slo.budget import Adjustment
from forestay.slo.model import Measure, Minute, SloId
from forestay.slo.postgres_store import Kept

_MOST = 1_000
_MOST_EVENTS = 1_000_000_000
_LONGEST, _AHEAD = dt.timedelta(days=31), dt.timedelta(days=31)
_MINUTE_SECONDS = 60


class _Adjust(msgspec.Struct, forbid_unknown_fields=True):
    first: dt.datetime
    until: dt.datetime
    reason: str


class _GiveBack(msgspec.Struct, forbid_unknown_fields=True):
    events: int
    reason: str


class _Withdraw(msgspec.Struct, forbid_unknown_fields=True):
    reason: str


async def get_slos(act: Act) -> Reply:
    """List how every SLO stands, what wakes somebody first."""
    kept = await act.ports.admin.slos.all()
    order = {"page": 0, "ticket": 1, "held": 2, "kept": 3, "no_data": 4}
    rows = sorted(kept, key=lambda one: (order.get(one.standing.word, 5), one.standing.slo_id))
    files = [dataclasses.asdict(file) for file in await act.ports.admin.slos.files()]
    return json_reply(200, {"slos": [await _told(act, one) for one in rows], "files": files})


async def get_slo(act: Act) -> Reply:
    """Show one SLO."""
    name = act.path("slo_id")
    found = await act.ports.admin.slos.one(name)
    if found is None:
        raise NotThere(f"no SLO {name[:100]!r}; `forestay slo status` lists those that are watched")
    return json_reply(200, await _told(act, found))


async def post_adjustment(act: Act) -> Reply:
    """Take a stretch of time out of an SLO's budget: what happened in it counts as neither good nor bad."""
    name, now = act.path("slo_id"), act.ports.clock.now()
    wanted = _adjustment(await act.json(_Adjust), SloId(name), act.actor, now)
    await _check_watched(act, name)
    detail = {"first_minute": wanted.first, "minutes": wanted.until - wanted.first}
    audit = AuditEntry(now, act.actor, "adjust_slo", f"slo:{name}", detail, wanted.reason)
    number = await act.ports.admin.budgets.adjust(wanted, audit)
    if number is None:
        raise Problem(409, f"those minutes are out of the budget of {name} already", "refused")
    return json_reply(201, {"number": number, "slo_id": name, "minutes": wanted.until - wanted.first})


async def post_give_back(act: Act) -> Reply:
    """Give bad events back to an SLO's budget: so many of those of its window count no more."""
    name, now, asked = act.path("slo_id"), act.ports.clock.now(), await act.json(_GiveBack)
    if not 1 <= asked.events <= _MOST_EVENTS:
        raise UsageError("events", f"must be a number of bad events from 1 to {_MOST_EVENTS:,}")
    reason, minute = plain_text("reason", asked.reason, empty=False), Minute(int(now.timestamp()) // _MINUTE_SECONDS)
    await _check_watched(act, name)
    wanted = Adjustment(SloId(name), minute, Minute(minute + 1), act.actor, reason, minute, asked.events)
    audit = AuditEntry(now, act.actor, "give_back_slo", f"slo:{name}", {"events": asked.events}, reason)
    number = await act.ports.admin.budgets.adjust(wanted, audit)
    if number is None:
        raise Problem(409, f"something was given back to {name} within this minute; try again in the next", "refused")
    return json_reply(201, {"number": number, "slo_id": name, "events": asked.events})


async def _check_watched(act: Act, name: str) -> None:
    if await act.ports.admin.slos.one(name) is None:
        raise NotThere(f"no SLO {name[:100]!r}; `forestay slo status` lists those that are watched")


def _adjustment(asked: _Adjust, slo_id: SloId, actor: str, now: dt.datetime) -> Adjustment:
    """Check the bounds; minutes are whole ones, the first and last included."""
    for field, moment in (("first", asked.first), ("until", asked.until)):
        if moment.tzinfo is None:
            raise UsageError(field, "names no time zone; write it as 2026-11-25T14:00:00Z")
    if not dt.timedelta(0) < asked.until - asked.first <= _LONGEST:
        raise UsageError("until", f"must lie after `first`, by at most {_LONGEST.days} days")
    if asked.until > now + _AHEAD:
        raise UsageError("until", f"must lie at most {_AHEAD.days} days ahead")
    first = int(asked.first.timestamp()) // _MINUTE_SECONDS
    until = -(-int(asked.until.timestamp()) // _MINUTE_SECONDS)
    reason = plain_text("reason", asked.reason, empty=False)
    return Adjustment(slo_id, Minute(first), Minute(until), actor, reason, Minute(int(now.timestamp()) // 60))


async def get_adjustments(act: Act) -> Reply:
    """List adjustments, newest first, withdrawn ones too."""
    found = await act.ports.admin.budgets.adjustments(act.query("slo"), act.limit(100, _MOST))
    return json_reply(200, {"adjustments": [dataclasses.asdict(one) for one in found]})


async def post_withdraw(act: Act) -> Reply:
    """Put the minutes of an adjustment back into the budget."""
    reason = plain_text("reason", (await act.json(_Withdraw)).reason, empty=False)
    text = act.path("number")
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
    audit = AuditEntry(act.ports.clock.now(), act.actor, "withdraw_adjustment", "slo:", {"number": number}, reason)
    slo_id = await act.ports.admin.budgets.withdraw(number, audit)
    if slo_id is None:
        raise NotThere(f"no adjustment {text[:20]!r} is in force; `forestay slo adjustments` lists them")
    return json_reply(200, {"number": number, "slo_id": slo_id})


async def get_decisions(act: Act) -> Reply:
    """List what budgets demanded, newest first."""
    found = await act.ports.admin.budgets.decisions(act.query("slo"), act.limit(100, _MOST))
    return json_reply(200, {"decisions": [dataclasses.asdict(one) for one in found]})


async def _told(act: Act, kept: Kept) -> dict[str, object]:
    """Tell how an SLO stands; one on safety also what a sample of releases says, which no count of verdicts can."""
    standing = kept.standing
    told: dict[str, object] = {**msgspec.to_builtins(standing), "word": standing.word, "kept_at": kept.kept_at}
    if standing.measure == Measure.SAFETY:
        since = act.ports.clock.now() - dt.timedelta(minutes=standing.window_minutes)
        estimate = await estimate_about(act, standing.subject, since)
        told["sampled"] = None if estimate is None else dataclasses.asdict(estimate)
        told["says"] = [*standing.says, words_of(estimate)]
    return told
