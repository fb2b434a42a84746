"""What becomes of lines that model code prints: by which rules they are judged, and as which texts."""

import dataclasses
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.safety.doubles import MARKER, POLICY, GuardWorld, guard_world

from forestay.ids import KeyId, ModelId, RequestId, RevisionId, TenantId
from forestay.safety.guard import Subject
from forestay.safety.lines import LINES_SECONDS, OVERLAP_CHARS, PIECE_CHARS, for_lines, mode_of, pieces_of
from forestay.safety.model import Text, Trouble
from forestay.safety.policy import UNGUARDED, Action, Policy
from forestay.safety.policy_file import read_policy, standard_policy
from forestay.safety.records import Point
from forestay.safety.taxonomy import Modality

LINE = st.text(alphabet="ab \n", max_size=PIECE_CHARS + 200)


def policy(text: str = POLICY) -> Policy:
    """A policy as it is read."""
    return read_policy(text, "strict", 1)


@pytest.fixture
async def world() -> GuardWorld:
    """A guard under `strict`."""
    return await guard_world()


def subject(policy_id: str = "strict") -> Subject:
    """Whose lines they are."""
    return Subject(
        request_id=RequestId(uuid.UUID(int=7)),
        attempt=1,
        point=Point.LINES,
        tenant_id=TenantId("acme"),
        key_id=KeyId(""),
        model_id=ModelId("acme/film"),
        revision_id=RevisionId("film-1"),
        policy_id=policy_id,
    )


def test_a_policy_that_judges_text_judges_lines_unless_it_says_otherwise() -> None:
    """One without a rule for text lets them pass; of two the stricter holds; one that cannot be read withholds."""
    judges, withholds, passes = (policy(f"{POLICY}logs: {mode}\n") for mode in ("judge", "withhold", "pass"))
    pictures = dataclasses.replace(judges, rules=tuple(judges.rules_for(Modality.IMAGE)))
    assert mode_of([standard_policy()]) == mode_of([policy()]) == "judge"
    assert mode_of([UNGUARDED]) == mode_of([pictures]) == mode_of([passes]) == mode_of([]) == "pass"
    assert mode_of([UNGUARDED, judges]) == mode_of([passes, judges]) == "judge"
    assert mode_of([judges, withholds]) == mode_of([judges, None]) == "withhold"


def test_lines_are_judged_by_the_cheaper_detector_that_a_rule_names_for_overload() -> None:
    """By its own where it names none; text alone, and within a second."""
    assert [rule.detectors for rule in for_lines(standard_policy()).rules] == [("text-linear@1",)]
    assert [rule.detectors for rule in for_lines(policy()).rules] == [("words@1",)]
    assert for_lines(standard_policy()).deadline_seconds == LINES_SECONDS
    assert for_lines(policy(f"{POLICY}logs: pass\n")).rules == ()
    for before, after in zip(
        standard_policy().rules_for(Modality.TEXT), for_lines(standard_policy()).rules, strict=True
    ):
        assert (before.bands, before.categories, before.on) == (after.bands, after.categories, after.on)


@given(lines=st.lists(LINE, max_size=12), before=st.text(alphabet="xyz", max_size=OVERLAP_CHARS))
def test_every_line_is_in_one_text_and_every_joint_is_seen_whole(lines: list[str], before: str) -> None:
    """In their order; what stands around any joint of two lines, 200 characters before it, is in one text."""
    pieces = pieces_of(lines, before)
    assert [number for piece in pieces for number in range(piece.first, piece.last)] == list(range(len(lines)))
    for piece in pieces:
        assert piece.text.endswith("\n".join(lines[piece.first : piece.last]))
        so_far = "\n".join(lines[: piece.first]) if piece.first else before
        own_start = pieces[pieces.index(piece) - 1].first if piece.first else 0
        tail = "\n".join(lines[own_start : piece.first])[-OVERLAP_CHARS:] if piece.first else so_far
        assert piece.text.startswith(tail)
        assert len(piece.text) <= PIECE_CHARS + OVERLAP_CHARS + 1 or piece.last - piece.first == 1


async def test_lines_are_recorded_where_they_say_more_than_they_may(world: GuardWorld) -> None:
    """Allowed ones leave no record, or every quarter of a second would; the record names no word of them."""
    calm = await world.guard.judge_lines(subject(), [Text("logs[0]", "step 1 of 20")])
    found = await world.guard.judge_lines(subject(), [Text("logs[0]", "calm"), Text("logs[1]", MARKER)])
    await world.guard.flush()
    assert (calm.action, found.action, found.places_of(Action.BLOCK)) == (Action.ALLOW, Action.BLOCK, {"logs[1]"})
    [record] = world.verdicts.records
    assert (record.point, record.action, record.place, record.shadow) == ("lines", "block", "logs[1]", False)
    assert MARKER not in repr(record)


@pytest.mark.parametrize("trouble", list(Trouble))
async def test_lines_that_nobody_can_judge_are_not_let_go(world: GuardWorld, trouble: Trouble) -> None:
    """Whatever the trouble, and also where the policy cannot be read."""
    world.detectors.trouble |= dict.fromkeys(("words@1", "spare@1"), trouble)
    assert not (await world.guard.judge_lines(subject(), [Text("logs[0]", "calm")])).releases
    assert not (await world.guard.judge_lines(subject("nobody-set-it"), [Text("logs[0]", "calm")])).releases
    assert world.guard.lines(subject("nobody-set-it")) == "withhold"
