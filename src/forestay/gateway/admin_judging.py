"""Admin routes of how callers are judged: the rules in force, why a subject stands as it does, and calls to replay.

It decides nothing: rules are checked by `abuse/rules_file`, what they mean is worked out by `abuse/explain`. Calls are
what facts hold: hashes and truncated networks, never a prompt. Mounted below `/admin/abuse`.
"""

import asyncio
import datetime as dt

import msgspec

from forestay.abuse.explain import explain, recall
from forestay.abuse.rules import Rules
from forestay.abuse.rules_file import default_rules, default_text, read_rules
from forestay.abuse.store import RuleSet
from forestay.errors import UsageError
from forestay.fleet.spec_yaml import SpecError
from forestay.fleet.standing import wrong_subject
from forestay.gateway.admin_reading import Act
from forestay.gateway.responses import Reply, json_reply

MAX_CALLS = 5_000
FURTHEST = dt.timedelta(days=90)


class _NewRules(msgspec.Struct, forbid_unknown_fields=True):
    text: str


async def get_rules(act: Act) -> Reply:
    """Show the rules in force: as people set them, or those that come along."""
    return json_reply(200, _shown(await act.ports.abuse.store.rules()))


async def put_rules(act: Act) -> Reply:
    """Put rules in force, once they are checked; an empty text goes back to those that come along."""
    wanted = await act.json(_NewRules)
    if wanted.text:
        try:
            await asyncio.to_thread(read_rules, wanted.text, "rules")  # seconds, for the longest text
        except SpecError as error:
            raise UsageError("text", "; ".join(error.faults)) from None
    return json_reply(200, _shown(await act.ports.abuse.store.set_rules(wanted.text, actor=act.actor)))


async def get_explanation(act: Act) -> Reply:
    """Explain one subject: its signals now, each rule and what each of its conditions saw."""
    subject = act.query("subject") or ""
    wrong = wrong_subject(subject)
    if wrong:
        raise UsageError("subject", wrong)
    desk, now = act.ports.abuse, act.ports.clock.now()
    rules = await asyncio.to_thread(_rules_of, await desk.store.rules())
    recalled = await recall(subject, rules, desk.store, desk.calls, now)
    rows = await act.ports.standing_store.rows(subject=subject, ended=False, limit=1)
    return json_reply(200, explain(recalled, subject, rules, rows[0].standing if rows else None, now))


async def get_calls(act: Act) -> Reply:
    """Read a page of call facts between two moments, in order, for a replay; `after` is the last position seen."""
    now = act.ports.clock.now()
    since, until = act.moment("since"), act.moment("until") or now
    if since is None or not now - FURTHEST <= since < until:
        raise UsageError("since", f"must be a time before `until`, at most {FURTHEST.days} days ago")
    after = act.query("after") or "0"
    if not (after.isascii() and after.isdigit() and len(after) <= 18):
        raise UsageError("after", "must be the position of the last call of the page before, or 0")
    limit = act.limit(MAX_CALLS, MAX_CALLS)
    return json_reply(200, {"calls": await act.ports.abuse.calls.between(since, until, int(after), limit)})


def _rules_of(kept: RuleSet) -> Rules:
    """Return the rules by which to explain; those that come along when the kept ones cannot be read here."""
    try:
        return read_rules(kept.text, "rules") if kept.text else default_rules()
    except SpecError:
        return default_rules()


def _shown(kept: RuleSet) -> dict[str, object]:
    return {
        "version": kept.version,
        "text": kept.text or default_text(),
        "brought": not kept.text,
        "set_at": kept.set_at,
        "set_by": kept.set_by,
    }
