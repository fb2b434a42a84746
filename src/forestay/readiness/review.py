"""From facts and waivers to a score card, and whether a waiver may be given. Pure.

A waiver counts for its item alone, until its day; it never turns a finding into a pass: the card goes on saying what is
wrong, and who has accepted it until when.
"""

import datetime as dt
from collections.abc import Sequence

from forestay.errors import UsageError
from forestay.readiness.items import ITEMS
from forestay.readiness.model import Answer, Card, Facts, Row, Waiver

ITEM_NAMES = tuple(check.__name__.removeprefix("check_").replace("_", " ") for check in ITEMS)
LONGEST_WAIVER = dt.timedelta(days=180)
_MOST_REASON = 500


def review(facts: Facts, waivers: Sequence[Waiver]) -> Card:
    """Return the score card of a model."""
    today = facts.now.date()
    in_force = {waiver.item: waiver for waiver in waivers if waiver.until >= today}
    rows: list[Row] = []
    for check in ITEMS:
        finding = check(facts)
        waived = None if finding.answer is Answer.PASS else in_force.get(finding.item)
        rows.append(Row(finding, waived))
    return Card(facts.model_id, facts.revision.revision_id, facts.now, tuple(rows))


def checked_waiver(waiver: Waiver, items: Sequence[str], today: dt.date) -> Waiver:
    """Return the waiver; raises UsageError naming what is wrong with it."""
    if waiver.item not in items:
        raise UsageError("item", f"{waiver.item[:80]!r} is no item of the review; expected one of {', '.join(items)}")
    if not waiver.reason.strip() or len(waiver.reason) > _MOST_REASON:
        raise UsageError("reason", f"say why, in at most {_MOST_REASON} characters")
    if not waiver.owner.strip():
        raise UsageError("owner", "say who answers for it")
    if not today <= waiver.until <= today + LONGEST_WAIVER:
        latest = today + LONGEST_WAIVER
        raise UsageError(
            "until", f"must be a day from {today} to {latest}: what is accepted for ever belongs in the spec"
        )
    return waiver
