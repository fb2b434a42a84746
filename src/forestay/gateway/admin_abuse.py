"""Admin routes of standings and appeals: reading them, setting one by hand, lifting one, turning an appeal down.

Whoever made an appeal does not decide it, and no key lifts its own standing: the decision is another person's. What is
set or lifted goes through `fleet/apply` with its audit row. Mounted below `/admin/abuse`.
"""

import datetime as dt

import msgspec

from forestay.errors import UsageError
from forestay.fleet.actions import Action, Effect, LiftStanding, Origin, SetStanding
from forestay.fleet.apply import ALREADY_SO
from forestay.fleet.standing import Standing, StandingKind, key_subject, standing_id_of, wrong_subject
from forestay.gateway.admin_reading import Act, NotThere, Problem, plain_text
from forestay.gateway.responses import Reply, json_reply
from forestay.gateway.standing_routes import MAX_WORDS
from forestay.ids import KeyId

BY_HAND = "by_hand"
MAX_SECONDS = 366 * 86_400.0
_STATES = ("open", "granted", "denied", "moot")


class _NewStanding(msgspec.Struct, forbid_unknown_fields=True):
    subject: str
    kind: StandingKind
    reason: str
    for_seconds: float
    code: str = BY_HAND
    factor: float = 0.1
    freeze_results: bool = False


class _Lift(msgspec.Struct, forbid_unknown_fields=True):
    subject: str
    reason: str
    pardon_seconds: float = 7 * 86_400.0


class _Appeal(msgspec.Struct, forbid_unknown_fields=True):
    standing_id: str
    words: str


class _Denial(msgspec.Struct, forbid_unknown_fields=True):
    reason: str


async def get_standings(act: Act) -> Reply:
    """List standings, newest first; `ended=1` shows those that are over too."""
    subject, ended = act.query("subject"), act.query("ended") in {"1", "true"}
    rows = await act.ports.standing_store.rows(subject=subject, ended=ended, limit=act.limit(100, 1_000))
    return json_reply(200, {"standings": rows})


async def get_standing(act: Act) -> Reply:
    """Show one standing with its evidence and its appeals."""
    standing_id = act.path("standing_id")
    row = await act.ports.standing_store.find(standing_id)
    if row is None:
        raise _no_standing(standing_id)
    appeals = await act.ports.standing_store.appeals(state=None, standing_id=standing_id, limit=100)
    return json_reply(200, {"standing": row.standing, "ending": row.ending, "appeals": appeals})


async def get_advised(act: Act) -> Reply:
    """List what the abuse loop wanted and was not let do, newest first."""
    return json_reply(200, {"advised": await act.ports.standing_store.advised(limit=act.limit(100, 1_000))})


async def post_standing(act: Act) -> Reply:
    """Set a standing by hand."""
    wanted = await act.json(_NewStanding)
    if not 1 <= wanted.for_seconds <= MAX_SECONDS:
        raise UsageError("for_seconds", f"must be 1 to {MAX_SECONDS:g}: every standing ends")
    await _check_subject(act, wanted.subject)
    now = act.ports.clock.now()
    standing = Standing(
        standing_id=standing_id_of(wanted.subject, BY_HAND, now),
        subject=wanted.subject,
        kind=wanted.kind,
        code=wanted.code,
        rule=BY_HAND,
        reason=plain_text("reason", wanted.reason, empty=False),
        since=now,
        expires_at=now + dt.timedelta(seconds=wanted.for_seconds),
        factor=wanted.factor if wanted.kind is StandingKind.THROTTLE else 1.0,
        freeze_results=wanted.freeze_results and wanted.kind is StandingKind.SUSPEND,
    )
    await _apply(act, SetStanding(standing))
    [row] = await act.ports.standing_store.rows(subject=wanted.subject, ended=False, limit=1)
    return json_reply(201, {"standing": row.standing, "ending": row.ending})


async def post_lift(act: Act) -> Reply:
    """End a standing before its time, which grants the appeal against it."""
    wanted = await act.json(_Lift)
    if not 0 <= wanted.pardon_seconds <= MAX_SECONDS:
        raise UsageError("pardon_seconds", f"must be 0 to {MAX_SECONDS:g}")
    rows = await act.ports.standing_store.rows(subject=wanted.subject, ended=False, limit=1)
    if not rows:
        raise NotThere(f"{wanted.subject[:80]} has no standing; `forestay abuse list` shows those that are in force")
    await _check_decider(act, rows[0].standing)
    now = act.ports.clock.now()
    until = now + dt.timedelta(seconds=wanted.pardon_seconds) if wanted.pardon_seconds else None
    await _apply(act, LiftStanding(wanted.subject, plain_text("reason", wanted.reason, empty=False), until))
    row = await act.ports.standing_store.find(rows[0].standing.standing_id)
    return json_reply(200, {"standing": rows[0].standing, "ending": None if row is None else row.ending})


async def get_appeals(act: Act) -> Reply:
    """List appeals, newest first."""
    state = act.query("state")
    if state is not None and state not in _STATES:
        raise UsageError("state", f"use one of {', '.join(_STATES)}")
    found = await act.ports.standing_store.appeals(state=state, standing_id=None, limit=act.limit(100, 1_000))
    return json_reply(200, {"appeals": found})


async def post_appeal(act: Act) -> Reply:
    """Make an appeal for a caller who asked a person to."""
    wanted = await act.json(_Appeal)
    words = plain_text("words", wanted.words, MAX_WORDS, empty=False)
    made = await act.ports.standing_store.appeal(wanted.standing_id, words, actor=act.actor)
    if made is None:
        raise _no_standing(wanted.standing_id)
    return json_reply(201, made)


async def post_denial(act: Act) -> Reply:
    """Turn an open appeal down; the standing stays."""
    wanted = await act.json(_Denial)
    appeal_id = act.path("appeal_id")
    waiting = await act.ports.standing_store.appeals(state="open", standing_id=None, limit=10_000)
    if any(item.appeal_id == appeal_id and item.made_by == act.actor for item in waiting):
        raise Problem(409, "you made this appeal; another person decides it", "own_appeal")
    decision = plain_text("reason", wanted.reason, empty=False)
    denied = await act.ports.standing_store.deny(appeal_id, decision, actor=act.actor)
    if denied is None:
        raise NotThere(f"no open appeal {appeal_id[:60]!r}; `forestay abuse appeals` shows those that wait")
    return json_reply(200, denied)


async def _check_subject(act: Act, subject: str) -> None:
    wrong = wrong_subject(subject)
    if wrong:
        raise UsageError("subject", wrong)
    kind, _, name = subject.partition(":")
    if kind == "key" and await act.ports.key_store.find(KeyId(name)) is None:
        raise UsageError("subject", f"no key {name!r}; `forestay key list` shows those that exist")
    if kind == "tenant" and all(item.tenant_id != name for item in await act.ports.key_store.tenants()):
        raise UsageError("subject", f"no tenant {name!r}; `forestay tenant list` shows those that exist")
    if subject == _own(act):
        raise Problem(409, f"{subject} is the key that you are using", "own_key")


async def _check_decider(act: Act, standing: Standing) -> None:
    if standing.subject == _own(act):
        raise Problem(409, "a key does not lift its own standing; another person decides", "own_key")
    waiting = await act.ports.standing_store.appeals(state="open", standing_id=standing.standing_id, limit=1)
    if any(item.made_by == act.actor for item in waiting):
        raise Problem(409, "you made the appeal against it; another person decides it", "own_appeal")


def _own(act: Act) -> str:
    """Return the subject that the one who acts is, empty for a person without a key."""
    return "" if act.who.key_id is None else key_subject(act.who.key_id)


async def _apply(act: Act, action: Action) -> None:
    [decided] = await act.ports.fleet.apply([action], origin=Origin.HUMAN, actor=act.actor)
    if decided.effect is not Effect.APPLIED:
        raise UsageError("standing", decided.why)
    if decided.why == ALREADY_SO:
        raise Problem(409, "that is so already, for at least as long", "already_so")


def _no_standing(standing_id: str) -> NotThere:
    return NotThere(f"no standing {standing_id[:60]!r} in force; `forestay abuse list --ended` shows all")
