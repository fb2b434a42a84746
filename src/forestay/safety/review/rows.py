"""How items and votes look as rows, as JSON for people, and back. Pure. Called by the store and the admin API."""

import datetime as dt
from collections.abc import Mapping
from typing import cast

import msgspec

from forestay.ids import KeyId, ModelId, RequestId, TenantId
from forestay.safety.policy import ReviewRules
from forestay.safety.records import Point
from forestay.safety.review.model import (
    Appeal,
    Ballot,
    Claim,
    Decided,
    Item,
    ItemState,
    NewItem,
    Outcome,
    Vote,
)
from forestay.safety.taxonomy import Category
from forestay.storage.postgres import Record
from forestay.verdicts import Verdict


def new_row(item: NewItem, now: dt.datetime) -> tuple[object, ...]:
    """Return the seventeen values of a new item."""
    return (
        item.item_id, item.request_id, item.attempt, item.point, item.tenant_id, item.key_id, item.model_id,
        item.endpoint, item.policy_id, item.policy_version, item.verdict, item.category, item.place, item.reason,
        msgspec.json.encode(item.rules, order="deterministic").decode(), item.sealed_id, now,
    )  # fmt: skip


def state_row(item: Item, now: dt.datetime) -> tuple[object, ...]:
    """Return the sixteen values of what an item has become."""
    claim, decided, appeal = item.claim, item.decided, item.appeal
    return (
        item.opened.item_id, item.state, item.escalated, item.round,
        claim and claim.by, claim and claim.until,
        decided and decided.outcome, decided and decided.at, decided and list(decided.by), decided and decided.reason,
        appeal and appeal.at, appeal and appeal.by, appeal and appeal.words,
        item.linked_id, item.done_at, now,
    )  # fmt: skip


def item_of(row: Record) -> Item:
    """Read an item."""
    found = cast("Mapping[str, object]", dict(row))
    category = cast("str | None", found["category"])
    opened = NewItem(
        request_id=RequestId(row["request_id"]),
        attempt=int(row["attempt"]),
        point=Point(str(row["point"])),
        tenant_id=TenantId(str(row["tenant_id"])),
        key_id=KeyId(str(row["key_id"])),
        model_id=ModelId(str(row["model_id"])),
        endpoint=str(row["endpoint"]),
        policy_id=str(row["policy_id"]),
        policy_version=int(row["policy_version"]),
        verdict=Verdict(str(row["verdict"])),
        category=None if category is None else Category(category),
        place=str(row["place"]),
        reason=str(row["reason"]),
        rules=msgspec.convert(found["rules"], ReviewRules),
        sealed_id=str(row["sealed_id"]),
    )
    return Item(
        opened=opened,
        opened_at=row["opened_at"],
        state=ItemState(str(row["state"])),
        escalated=bool(row["escalated"]),
        round=int(row["round"]),
        reportable=bool(row["reportable"]),
        claim=None if row["claimed_by"] is None else Claim(str(row["claimed_by"]), row["claimed_until"]),
        decided=_decided(row),
        appeal=None
        if row["appealed_at"] is None
        else Appeal(row["appealed_at"], str(row["appealed_by"]), str(row["appeal_words"])),
        linked_id=None if row["linked_id"] is None else RequestId(row["linked_id"]),
        done_at=row["done_at"],
    )


def vote_of(row: Record) -> tuple[int, Vote]:
    """Read a vote with its round."""
    vote = Vote(str(row["voter"]), bool(row["is_person"]), Ballot(str(row["ballot"])), str(row["reason"]), row["at"])
    return int(row["round"]), vote


def shown_new(item: NewItem) -> dict[str, object]:
    """Return what anyone may be told of what was stopped: ids and words, never content."""
    return {
        "item_id": item.item_id,
        "request_id": str(item.request_id),
        "point": item.point.value,
        "tenant_id": item.tenant_id,
        "key_id": item.key_id,
        "model_id": item.model_id,
        "endpoint": item.endpoint,
        "policy_id": item.policy_id,
        "policy_version": item.policy_version,
        "verdict": item.verdict.value,
        "category": None if item.category is None else item.category.value,
        "place": item.place,
        "reason": item.reason,
    }


def shown_item(item: Item) -> dict[str, object]:
    """Return an item as analysts see it in a list: without the caller's words, which may hold content."""
    decided, claim = item.decided, item.claim
    return {
        **shown_new(item.opened),
        "opened_at": item.opened_at,
        "state": item.state.value,
        "escalated": item.escalated,
        "round": item.round,
        "reportable": item.reportable,
        "content_kept": bool(item.opened.sealed_id),
        "claimed_by": claim and claim.by,
        "claimed_until": claim and claim.until,
        "outcome": decided and decided.outcome.value,
        "decided_at": decided and decided.at,
        "decided_by": decided and list(decided.by),
        "decided_reason": decided and decided.reason,
        "appealed_at": item.appeal and item.appeal.at,
        "linked_request_id": item.linked_id and str(item.linked_id),
        "done_at": item.done_at,
    }


def shown_vote(number: int, vote: Vote) -> dict[str, object]:
    """Return a vote as analysts see it."""
    return {
        "round": number,
        "voter": vote.voter,
        "is_person": vote.is_person,
        "vote": vote.ballot.value,
        "reason": vote.reason,
        "at": vote.at,
    }


def _decided(row: Record) -> Decided | None:
    if row["outcome"] is None:
        return None
    by = tuple(str(name) for name in cast("list[object]", row["decided_by"] or []))
    return Decided(Outcome(str(row["outcome"])), row["decided_at"], by, str(row["decided_reason"]))
