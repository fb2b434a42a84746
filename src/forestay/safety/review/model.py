"""What people look at again, and what they say of it, as values: items, votes, appeals.

    open -> claimed -> decided
    open -> escalated -> decided        an appeal opens once more what was upheld without one

An item is one judgement that stopped something: an input that was refused, or an output that was withheld or blocked.
It holds ids, words of the taxonomy and reasons, never content. Pure words and values; `decide` has the rules. Called by
everything in this folder.
"""

import dataclasses
import datetime as dt
import enum
import hashlib
from collections.abc import Mapping

from forestay.ids import KeyId, ModelId, RequestId, TenantId
from forestay.safety.policy import ReviewRules
from forestay.safety.records import Point
from forestay.safety.taxonomy import Category
from forestay.verdicts import Verdict

INPUTS = frozenset({Point.INPUT, Point.INPUT_MEDIA})  # items of these are about what a caller sent


class ItemState(enum.StrEnum):
    """How far an item has come."""

    OPEN = "open"
    CLAIMED = "claimed"  # one person looks at it, for a while
    ESCALATED = "escalated"  # somebody could not say: two people must
    DECIDED = "decided"


TRANSITIONS: Mapping[ItemState, frozenset[ItemState]] = {
    ItemState.OPEN: frozenset({ItemState.CLAIMED, ItemState.ESCALATED, ItemState.DECIDED}),
    ItemState.CLAIMED: frozenset({ItemState.OPEN, ItemState.ESCALATED, ItemState.DECIDED}),
    ItemState.ESCALATED: frozenset({ItemState.CLAIMED, ItemState.DECIDED}),
    ItemState.DECIDED: frozenset({ItemState.OPEN}),  # by an appeal of what was upheld without one
}


class Ballot(enum.StrEnum):
    """What a person says."""

    RELEASE = "release"
    BLOCK = "block"
    ESCALATE = "escalate"


class Outcome(enum.StrEnum):
    """What was decided."""

    RELEASED = "released"
    UPHELD = "upheld"
    LAPSED = "lapsed"  # nobody decided while there was something to decide about


@dataclasses.dataclass(frozen=True, slots=True)
class NewItem:
    """A judgement that stopped something, as an item is opened for it."""

    request_id: RequestId
    attempt: int  # 0 for an input
    point: Point
    tenant_id: TenantId
    key_id: KeyId
    model_id: ModelId
    endpoint: str
    policy_id: str
    policy_version: int
    verdict: Verdict  # BLOCK, or INCONCLUSIVE where nobody could tell
    category: Category | None
    place: str
    reason: str
    rules: ReviewRules
    sealed_id: str = ""  # the copy that people look at; empty: none was kept

    @property
    def item_id(self) -> str:
        """Return the id: one item for each side of a request."""
        return item_id_of(self.request_id, self.point)


@dataclasses.dataclass(frozen=True, slots=True)
class Appeal:
    """What a caller says against it."""

    at: dt.datetime
    by: str  # caller:<key id>
    words: str


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """Who looks at an item now."""

    by: str
    until: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Decided:
    """What was decided, when, by whom and why."""

    outcome: Outcome
    at: dt.datetime
    by: tuple[str, ...]
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """An item as it stands."""

    opened: NewItem
    opened_at: dt.datetime
    state: ItemState
    escalated: bool = False
    round: int = 1  # votes of an earlier one count no more
    reportable: bool = False  # the law asks to report it: no vote releases it
    claim: Claim | None = None
    decided: Decided | None = None
    appeal: Appeal | None = None
    linked_id: RequestId | None = None  # the request that a successful appeal has made
    done_at: dt.datetime | None = None  # when what was decided had been carried out


@dataclasses.dataclass(frozen=True, slots=True)
class Vote:
    """What one voter said."""

    voter: str  # human:<person id>, or human:<key id>
    is_person: bool  # proven by a session of their own; a key may be in several hands
    ballot: Ballot
    reason: str
    at: dt.datetime


def item_id_of(request_id: RequestId, point: Point) -> str:
    """Return the id of a request's item: the same judgement has the same item, however often it is told."""
    return "rev_" + hashlib.sha256(f"{request_id}\n{point}".encode()).hexdigest()[:24]
