"""What follows from what people have said of an item. Pure.

It decides how many people must agree and when that is so. What was blocked is released only by two different people,
each proven by a session of their own: a key may be in several hands, and two keys in one. What nobody could judge needs
one, unless the policy says two. One vote to block ends it, because leaving something blocked harms least. What concerns
minors, and whatever the law asks to report, no vote releases. Called by the store, inside the transaction that
writes the vote.
"""

import dataclasses
import datetime as dt
from collections.abc import Sequence

from forestay.safety.policy import ReviewRules
from forestay.safety.review.model import Ballot, Item, ItemState, Outcome, Vote
from forestay.safety.taxonomy import Category
from forestay.verdicts import Verdict

NEVER = frozenset({Category.MINORS})  # categories that no vote releases


@dataclasses.dataclass(frozen=True, slots=True)
class Decide:
    """The item is decided."""

    outcome: Outcome
    by: tuple[str, ...]
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Escalate:
    """From now on two people must agree."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Free:
    """Nobody looks at it any more."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """More people are needed; `has` of `needs` have released it."""

    has: int
    needs: int
    reason: str


Action = Decide | Escalate | Free | Wait


def decide_review(item: Item, votes: Sequence[Vote], rules: ReviewRules, now: dt.datetime) -> list[Action]:
    """Say what an item needs now, given the votes of its round; nothing when it is decided."""
    if item.state is ItemState.DECIDED:
        return []
    last = {vote.voter: vote for vote in sorted(votes, key=lambda vote: vote.at)}  # people may change their minds
    against = [vote for vote in sorted(votes, key=lambda vote: vote.at) if vote.ballot is Ballot.BLOCK]
    if against:
        return [Decide(Outcome.UPHELD, (against[0].voter,), against[0].reason)]
    actions: list[Action] = []
    wants_more = [vote for vote in votes if vote.ballot is Ballot.ESCALATE]
    if wants_more and not item.escalated:
        actions.append(Escalate(f"{wants_more[0].voter} could not say: {wants_more[0].reason}"))
        item = dataclasses.replace(item, escalated=True)
    needs = needed(item, rules)
    agreed = [vote for vote in last.values() if vote.ballot is Ballot.RELEASE and (vote.is_person or needs == 1)]
    barred = why_never(item)
    if not barred and len(agreed) >= needs:
        names = tuple(sorted(vote.voter for vote in agreed))
        return [*actions, Decide(Outcome.RELEASED, names, "; ".join(vote.reason for vote in agreed))]
    if item.claim is not None and item.claim.until <= now:
        actions.append(Free(f"{item.claim.by} looked at it until {item.claim.until:%H:%M} UTC and did not say"))
    return [*actions, Wait(len(agreed), needs, barred or f"{len(agreed)} of {needs} people have released it")]


def needed(item: Item, rules: ReviewRules) -> int:
    """Return how many people must agree to a release: one or two."""
    opened = item.opened
    if opened.verdict is not Verdict.INCONCLUSIVE or item.escalated or opened.category in rules.two_people:
        return 2
    return rules.release_needs


def why_never(item: Item) -> str:
    """Return why no vote can release the item; empty when votes can."""
    if item.opened.category in NEVER:
        return f"what concerns {item.opened.category} is never released by votes"
    return "the law asks to report it: it is never released by votes" if item.reportable else ""


def why_refused(item: Item, vote: Vote, now: dt.datetime) -> str:
    """Return why this vote is not taken; empty when it is."""
    if item.state is ItemState.DECIDED:
        return "it is decided already"
    if item.claim is not None and item.claim.until > now and item.claim.by != vote.voter:
        return f"{item.claim.by} looks at it until {item.claim.until:%Y-%m-%dT%H:%M:%SZ}"
    if item.appeal is not None and item.appeal.by.partition(":")[2] == vote.voter.partition(":")[2]:
        return "whoever made the appeal does not decide it"
    if vote.ballot is not Ballot.RELEASE:
        return ""
    if not vote.is_person and needed(item, item.opened.rules) > 1:
        return (
            "two people must release it, each signed in as themselves (`forestay login`); a key is nobody in particular"
        )
    return why_never(item)
