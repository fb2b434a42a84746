"""What follows from votes: two different people, one who blocks, and what nobody releases."""

import dataclasses
import datetime as dt
import itertools
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.ids import KeyId, ModelId, RequestId, TenantId
from forestay.queue.model import State
from forestay.safety.policy import ReviewRules
from forestay.safety.records import Point
from forestay.safety.review.carrying import Nothing, PublishLinked, Resolve, SubmitLinked, decide_carry
from forestay.safety.review.decide import Decide, Escalate, Wait, decide_review, needed, why_refused
from forestay.safety.review.model import (
    TRANSITIONS,
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
from forestay.verdicts import Verdict

NOW = dt.datetime(2026, 11, 26, 9, tzinfo=dt.UTC)
REQUEST = RequestId(uuid.UUID(int=7 << 76 | 0b10 << 62))


def item(**changes: object) -> Item:
    """A blocked input that waits, with changes."""
    opened = NewItem(
        request_id=REQUEST,
        attempt=0,
        point=Point.INPUT,
        tenant_id=TenantId("acme"),
        key_id=KeyId("k1"),
        model_id=ModelId("acme/echo"),
        endpoint="/",
        policy_id="standard",
        policy_version=0,
        verdict=Verdict.BLOCK,
        category=Category.VIOLENCE,
        place="prompt",
        reason="a score",
        rules=ReviewRules(),
        sealed_id="sealed_1",
    )
    fields = {field.name for field in dataclasses.fields(NewItem)}
    inner = {name: value for name, value in changes.items() if name in fields}
    outer = {name: value for name, value in changes.items() if name not in fields}
    waiting = Item(dataclasses.replace(opened, **inner), NOW, ItemState.OPEN)  # type: ignore[arg-type]
    return dataclasses.replace(waiting, **outer)  # type: ignore[arg-type]


def vote(voter: str, ballot: Ballot, *, person: bool = True, minute: int = 0) -> Vote:
    """One vote."""
    return Vote(f"human:{voter}", person, ballot, "looked at it", NOW + dt.timedelta(minutes=minute))


VOTES = st.lists(
    st.builds(
        vote,
        st.sampled_from(["ann", "bob", "cy"]),
        st.sampled_from(list(Ballot)),
        person=st.booleans(),
        minute=st.integers(0, 50),
    ),
    max_size=8,
)
ITEMS = st.builds(
    item,
    verdict=st.sampled_from([Verdict.BLOCK, Verdict.INCONCLUSIVE]),
    category=st.sampled_from([None, *Category]),
    reportable=st.booleans(),
    escalated=st.booleans(),
    claim=st.sampled_from([None, Claim("human:ann", NOW), Claim("human:ann", NOW + dt.timedelta(hours=2))]),
)
RULES = st.builds(ReviewRules, st.integers(1, 2), st.frozensets(st.sampled_from(list(Category)), max_size=3))


def outcome(found: Item, votes: list[Vote], rules: ReviewRules) -> Outcome | None:
    """What the votes decide, None for nothing."""
    actions = decide_review(found, votes, rules, NOW + dt.timedelta(hours=1))
    decided = [one for one in actions if isinstance(one, Decide)]
    return decided[0].outcome if decided else None


@given(ITEMS, VOTES, RULES)
def test_nothing_is_released_by_fewer_people_than_it_takes(found: Item, votes: list[Vote], rules: ReviewRules) -> None:
    """Two means two different people, each by a session of their own; their last word counts."""
    if outcome(found, votes, rules) is not Outcome.RELEASED:
        return
    last = {one.voter: one for one in sorted(votes, key=lambda one: one.at)}
    agreed = {name for name, one in last.items() if one.ballot is Ballot.RELEASE}
    people = {name for name in agreed if last[name].is_person}
    blocked = found.opened.verdict is Verdict.BLOCK or found.opened.category in rules.two_people
    if blocked or found.escalated or rules.release_needs == 2 or any(one.ballot is Ballot.ESCALATE for one in votes):
        assert len(people) >= 2
    assert agreed
    assert not any(one.ballot is Ballot.BLOCK for one in votes)


@given(ITEMS, VOTES, RULES)
def test_what_concerns_minors_or_the_law_is_never_released(found: Item, votes: list[Vote], rules: ReviewRules) -> None:
    """Whatever is voted, by however many."""
    for changed in (
        dataclasses.replace(found, reportable=True),
        dataclasses.replace(found, opened=dataclasses.replace(found.opened, category=Category.MINORS)),
    ):
        assert outcome(changed, votes, rules) is not Outcome.RELEASED


@given(ITEMS, VOTES, RULES)
def test_one_vote_to_block_upholds(found: Item, votes: list[Vote], rules: ReviewRules) -> None:
    """However many would release it."""
    assert outcome(found, [*votes, vote("dan", Ballot.BLOCK, minute=55)], rules) is Outcome.UPHELD


@given(ITEMS, VOTES, RULES, st.randoms(use_true_random=False))
def test_the_order_in_which_votes_are_read_changes_nothing(
    found: Item, votes: list[Vote], rules: ReviewRules, chance: st.DataObject
) -> None:
    """Only their times count; votes of one voter have distinct ones."""
    votes = [dataclasses.replace(one, at=NOW + dt.timedelta(seconds=place)) for place, one in enumerate(votes)]
    shuffled = list(votes)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert outcome(found, shuffled, rules) is outcome(found, votes, rules)


@given(ITEMS, VOTES, RULES)
def test_saying_it_twice_counts_once(found: Item, votes: list[Vote], rules: ReviewRules) -> None:
    """Votes repeated later decide what they decided."""
    later = [dataclasses.replace(one, at=one.at + dt.timedelta(hours=1)) for one in votes]
    assert outcome(found, [*votes, *later], rules) is outcome(found, votes, rules)


@given(ITEMS, RULES)
def test_keys_alone_never_release_what_takes_two(found: Item, rules: ReviewRules) -> None:
    """A key is nobody in particular: ten of them are not two people."""
    keys = [vote(f"key{number}", Ballot.RELEASE, person=False) for number in range(10)]
    if needed(found, rules) == 2:
        assert outcome(found, keys, rules) is None


@given(ITEMS, VOTES, RULES)
def test_a_decided_item_stays_decided(found: Item, votes: list[Vote], rules: ReviewRules) -> None:
    """Running it again changes nothing."""
    assert decide_review(dataclasses.replace(found, state=ItemState.DECIDED), votes, rules, NOW) == []


def test_one_of_two_is_said() -> None:
    """The first release waits for the second person."""
    assert decide_review(item(), [vote("ann", Ballot.RELEASE)], ReviewRules(), NOW) == [
        Wait(1, 2, "1 of 2 people have released it")
    ]


def test_whoever_cannot_say_makes_it_two() -> None:
    """What one person could have released takes two from then on."""
    undecided = item(verdict=Verdict.INCONCLUSIVE, category=None)
    assert needed(undecided, ReviewRules()) == 1
    first, second = decide_review(undecided, [vote("ann", Ballot.ESCALATE)], ReviewRules(), NOW)
    assert isinstance(first, Escalate)
    assert isinstance(second, Wait)
    assert second.needs == 2


@pytest.mark.parametrize(
    ("changes", "voter", "person", "words"),
    [
        ({"claim": Claim("human:bob", NOW + dt.timedelta(minutes=5))}, "ann", True, "human:bob looks at it until"),
        ({"claim": Claim("human:bob", NOW)}, "ann", True, ""),
        ({"claim": Claim("human:ann", NOW + dt.timedelta(minutes=5))}, "ann", True, ""),
        ({"appeal": Appeal(NOW, "caller:k1", "why")}, "k1", True, "whoever made the appeal does not decide it"),
        ({"state": ItemState.DECIDED}, "ann", True, "it is decided already"),
        ({}, "k1", False, "two people must release it"),
        ({"verdict": Verdict.INCONCLUSIVE}, "k1", False, ""),
        ({"category": Category.MINORS}, "ann", True, "never released by votes"),
    ],
)
def test_a_vote_that_is_not_taken_says_why(changes: dict[str, object], voter: str, person: bool, words: str) -> None:
    """Claims of others, one's own appeal, keys where people are needed."""
    said = why_refused(item(**changes), vote(voter, Ballot.RELEASE, person=person), NOW)
    assert (words in said) if words else said == ""


def test_the_table_is_walked_by_what_decides() -> None:
    """Every state is reached from `open`, and only an appeal leaves `decided`."""
    reached = {ItemState.OPEN}
    for _ in ItemState:
        reached |= set(itertools.chain.from_iterable(TRANSITIONS[state] for state in reached))
    assert reached == set(ItemState)
    assert TRANSITIONS[ItemState.DECIDED] == {ItemState.OPEN}


@pytest.mark.parametrize(
    ("point", "released", "appealed", "state", "kind"),
    [
        (Point.INPUT, True, True, State.BLOCKED, SubmitLinked),
        (Point.INPUT, True, False, State.BLOCKED, Nothing),
        (Point.INPUT, False, True, State.BLOCKED, Nothing),
        (Point.INPUT, True, True, None, SubmitLinked),
        (Point.OUTPUT, True, False, State.WITHHELD, Resolve),
        (Point.OUTPUT, False, False, State.WITHHELD, Resolve),
        (Point.OUTPUT, True, True, State.BLOCKED, PublishLinked),
        (Point.OUTPUT, True, False, State.BLOCKED, Nothing),
        (Point.OUTPUT, False, True, State.BLOCKED, Nothing),
    ],
)
def test_what_an_outcome_means(
    point: Point, released: bool, appealed: bool, state: State | None, kind: type[object]
) -> None:
    """Only an appeal makes a request; a withheld output waits for either word."""
    said = Outcome.RELEASED if released else Outcome.UPHELD
    decided = item(
        point=point,
        state=ItemState.DECIDED,
        decided=Decided(said, NOW, ("human:ann", "human:bob"), "fine"),
        appeal=Appeal(NOW, "caller:k1", "why") if appealed else None,
        linked_id=REQUEST if appealed and released else None,
    )
    assert isinstance(decide_carry(decided, state), kind)
