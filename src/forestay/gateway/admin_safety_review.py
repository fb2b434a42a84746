"""Admin routes of reviews: the queue, claims, votes, the content itself, who read it, how it all stands.

Who reads content says why, and that is on record before they see it. Pictures come blurred unless clear ones are
asked for. It decides no outcome: `safety/review/decide` does, inside the store. Mounted below `/admin/safety/review`.
"""

import base64
import datetime as dt
from typing import cast

import msgspec

from forestay.errors import Refused, UsageError
from forestay.gateway.admin_reading import Act, NotThere, Problem, plain_text
from forestay.gateway.responses import Reply, json_reply
from forestay.safety.records import Point
from forestay.safety.review.desk import ReviewDesk
from forestay.safety.review.events import EventState
from forestay.safety.review.kept import KeptInput, KeptOutput, unpacked
from forestay.safety.review.model import INPUTS, Ballot, Item, ItemState, Vote
from forestay.safety.review.postgres_store import Filter, Standing
from forestay.safety.review.rows import shown_item, shown_vote
from forestay.safety.review.sealed import Reader
from forestay.safety.taxonomy import Category
from forestay.telemetry.metrics import REVIEW_DECIDED

MAX_ITEMS = 500
MAX_LABELS = 5_000
STATS_DAYS = 30
_STATES = ("waiting", *ItemState)
_POINTS = (Point.INPUT, Point.INPUT_MEDIA, Point.OUTPUT)


class _Vote(msgspec.Struct, forbid_unknown_fields=True):
    vote: Ballot
    reason: str


class _Reason(msgspec.Struct, forbid_unknown_fields=True):
    reason: str


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


async def get_items(act: Act) -> Reply:
    """List items, the oldest first; `after` is the last position of the page before."""
    appealed = act.query("appealed")
    wanted = Filter(
        state=_one_of(act, "state", _STATES),
        point=_one_of(act, "point", _POINTS),
        model_id=act.query("model"),
        tenant_id=act.query("tenant"),
        category=_one_of(act, "category", tuple(Category)),
        appealed=None if appealed is None else appealed in {"1", "true"},
    )
    found = await desk_of(act).reviews.listed(wanted, _position(act, "after"), act.limit(100, MAX_ITEMS))
    rows = [{**shown_item(one.item), "position": one.position, "problem": one.problem} for one in found]
    return json_reply(200, {"items": rows})


async def get_item(act: Act) -> Reply:
    """Show an item with its votes and the appeal's words; never its content."""
    desk = desk_of(act)
    standing = await _standing(act)
    votes = await desk.reviews.votes(standing.item.opened.item_id)
    return json_reply(200, {**_shown(standing), "votes": [shown_vote(number, vote) for number, vote in votes]})


async def post_claim(act: Act) -> Reply:
    """Keep an item for oneself for a while, so that nobody else has to look at it too."""
    await act.json(_Nothing)
    seconds = act.ports.settings.safety.review_claim_seconds
    try:
        standing = await desk_of(act).reviews.claim(act.path("item_id"), act.actor, seconds)
    except Refused as error:
        raise Problem(409, str(error), "review") from None
    if standing is None:
        raise _unknown(act)
    return json_reply(200, _shown(standing))


async def post_vote(act: Act) -> Reply:
    """Say what one has found; the answer tells how many more people it takes."""
    wanted = await act.json(_Vote)
    reason = plain_text("reason", wanted.reason, empty=False)
    standing = await cast_vote(act, act.path("item_id"), wanted.vote, reason)
    if standing is None:
        raise _unknown(act)
    return json_reply(200, _shown(standing))


async def get_content(act: Act) -> Reply:
    """Give out the text of a sealed copy, on record first; files of it come one by one (`media`)."""
    standing, reason = await _standing(act), _reason(act)
    opened = standing.item.opened
    data = await _read(act, standing.item, Reader(act.actor, "text", reason, opened.item_id))
    if opened.point in INPUTS:
        kept = unpacked(data, KeptInput)
        return json_reply(200, {"point": opened.point, "body": _json_or_text(kept.body)})
    output = unpacked(data, KeptOutput)
    shown = {"status_code": output.status_code, "body": _json_or_text(output.body), "files": len(output.media_ids)}
    return json_reply(200, {"point": opened.point, **shown})


async def get_readings(act: Act) -> Reply:
    """Read who looked at what, newest first; `item` shows those of one item, `before` pages."""
    item_id = act.query("item")
    if item_id is not None:
        found = await desk_of(act).reviews.find(item_id)
        item_id = item_id if found is None else found.item.opened.item_id
    readings = await desk_of(act).sealed.readings(item_id, _position(act, "before"), act.limit(100, MAX_ITEMS))
    return json_reply(200, {"readings": readings})


async def get_stats(act: Act) -> Reply:
    """Tell how the queue stands and how it was decided since `since` (30 days)."""
    now = act.ports.clock.now()
    since = act.moment("since") or now - dt.timedelta(days=STATS_DAYS)
    stats = await desk_of(act).reviews.stats(since)
    decided = stats.released + stats.upheld
    oldest = None if stats.oldest_at is None else max(0.0, (now - stats.oldest_at).total_seconds())
    said = {
        "waiting": stats.waiting,
        "waiting_appeals": stats.waiting_appeals,
        "oldest_seconds": oldest,
        "since": since,
        "released": stats.released,
        "upheld": stats.upheld,
        "lapsed": stats.lapsed,
        "median_decision_seconds": stats.median_seconds,
        "overturn_rate": stats.released / decided if decided else None,
    }
    return json_reply(200, said)


async def get_labels(act: Act) -> Reply:
    """Read what people found, in order; `after` is the last position of the page before."""
    found = await desk_of(act).reviews.labels(_position(act, "after"), act.limit(MAX_LABELS, MAX_LABELS))
    return json_reply(200, {"labels": found})


async def get_events(act: Act) -> Reply:
    """List what is told to FORESTAY_REVIEW_URL: `state` is dead (unless said otherwise), pending or delivered."""
    state = cast("EventState", _one_of(act, "state", ("dead", "pending", "delivered")) or "dead")
    return json_reply(200, {"events": await desk_of(act).events.listed(state, act.limit(100, MAX_ITEMS))})


async def post_event_retry(act: Act) -> Reply:
    """Tell a dead event anew."""
    reason = plain_text("reason", (await act.json(_Reason)).reason, empty=False)
    event_id = act.path("event_id")
    if not await desk_of(act).events.revive(event_id):
        raise NotThere(f"no dead event {event_id[:60]!r}; `forestay safety review events` shows those that exist")
    await act.record("retry_review_event", f"event:{event_id}", {}, reason)
    return json_reply(200, {"event_id": event_id, "state": "pending"})


async def cast_vote(act: Act, name: str, ballot: Ballot, reason: str) -> Standing | None:
    """Take a vote of whoever acts, and carry out at once what it decides; None without such an item."""
    desk, now = desk_of(act), act.ports.clock.now()
    vote = Vote(act.actor, act.who.person_id is not None, ballot, reason, now)
    try:
        standing = await desk.reviews.vote(name, vote)
    except Refused as error:
        raise Problem(409, str(error), "review") from None
    if standing is not None and standing.item.decided is not None:
        act.ports.metrics.add(REVIEW_DECIDED, standing.item.opened.point.value, standing.item.decided.outcome.value)
        await desk.carry(standing.item, act.actor)
        return await desk.reviews.find(standing.item.opened.item_id)
    return standing


def desk_of(act: Act) -> ReviewDesk:
    """Return where people look again; raises Problem where no guard runs."""
    if act.ports.safety is None or act.ports.safety.review is None:
        raise Problem(503, "no guard runs in this gateway", "guard")
    return act.ports.safety.review


async def _standing(act: Act) -> Standing:
    found = await desk_of(act).reviews.find(act.path("item_id"))
    if found is None:
        raise _unknown(act)
    return found


async def _read(act: Act, item: Item, reader: Reader) -> bytes:
    data = await desk_of(act).sealed.read(item.opened.sealed_id, reader)
    if data is None:
        raise NotThere("no copy was kept, or it has been forgotten")
    return data


def _unknown(act: Act) -> NotThere:
    return NotThere(f"no item {act.path('item_id')[:60]!r}; `forestay safety review list` shows those that exist")


def _shown(standing: Standing) -> dict[str, object]:
    item = standing.item
    words = item.appeal and item.appeal.words
    return {**shown_item(item), "appeal_words": words, "has": standing.has, "needs": standing.needs}


def _reason(act: Act) -> str:
    return plain_text("reason", act.query("reason") or "", empty=False)


def _one_of(act: Act, name: str, words: tuple[str, ...]) -> str | None:
    text = act.query(name)
    if text is not None and text not in words:
        raise UsageError(name, f"use one of {', '.join(words)}")
    return text


def _position(act: Act, name: str) -> int:
    text = act.query(name) or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise UsageError(name, "must be the position of the last row of the page before, or 0")
    return int(text)


def _json_or_text(body: bytes) -> object:
    """Return a body as JSON where it is some, else as text, else as base64."""
    try:
        return cast("object", msgspec.json.decode(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return body.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}
