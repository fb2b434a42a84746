"""Which prompts get a meaning, and that nothing else of them is left."""

import dataclasses
import uuid
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.world import World

from forestay.abuse.meaning import SIZE, Vectors
from forestay.clock import SystemClock
from forestay.gateway.call_notes import CallNotes
from forestay.gateway.prompt_meanings import Hashed, decide_taken
from forestay.settings import Gateway
from forestay.telemetry.call_facts import CallFact
from forestay.telemetry.metrics import MEANINGS

REFUSAL = "content_policy_violation"


class LengthEmbedder:
    """An embedder that knows how long a text is; `away` makes it fail as the real one does."""

    def __init__(self) -> None:
        self.away = False
        self.seen: list[str] = []

    async def embed(self, texts: Sequence[str]) -> Vectors | None:
        """Return vectors, or None."""
        self.seen += texts
        if self.away:
            return None
        return np.array([[len(text)] * SIZE for text in texts], dtype=np.float32)


def hashed(key: str, cause: str = "", text: str = "x") -> Hashed:
    """A call of a key."""
    fact = CallFact(
        SystemClock().now(), uuid.UUID(int=1), "acme", key, "acme/echo", "direct", "run", "", "", not cause, cause,
        200, 1.0,
    )  # fmt: skip
    return Hashed(fact, text)


def notes_of(world: World, per_second: float = 100.0) -> tuple[CallNotes, LengthEmbedder]:
    """Notes of the world's gateway that hash meanings."""
    embedder = LengthEmbedder()
    settings = dataclasses.replace(world.ports.settings, gateway=Gateway(meanings_per_second=per_second))
    notes = CallNotes(dataclasses.replace(world.ports, embedder=embedder, settings=settings))
    world.gateway.notes = notes  # type: ignore[misc]
    return notes, embedder


async def test_a_prompt_gets_its_meaning_and_is_forgotten(world: World) -> None:
    """Thirty-two bytes; neither the text nor the vector is left anywhere."""
    notes, embedder = notes_of(world)
    await world.call("POST", "/queue/acme/echo", {"prompt": "a lighthouse in a storm"})
    await notes.flush()
    [fact] = world.calls.kept
    assert embedder.seen == ["a lighthouse in a storm"]
    assert fact.meaning is not None
    assert len(fact.meaning) == 32
    assert "lighthouse" not in repr(world.calls.kept)
    assert "lighthouse" not in repr(vars(notes))


async def test_without_an_embedder_that_works_calls_are_noted_all_the_same(world: World) -> None:
    """The meaning is missing, nothing else is; what is left out is counted."""
    notes, embedder = notes_of(world)
    embedder.away = True
    await world.call("POST", "/queue/acme/echo", {"prompt": "a lighthouse"})
    await notes.flush()
    [fact] = world.calls.kept
    assert fact.meaning is None
    assert fact.prompt is not None
    assert world.ports.metrics.value(MEANINGS, "left_out") == 1


async def test_a_round_embeds_no_more_than_its_budget(world: World) -> None:
    """Four calls, room for one; at the end of a gateway's life there is none."""
    notes, embedder = notes_of(world, per_second=2.0)
    for number in range(4):
        await world.call("POST", "/queue/acme/echo", {"prompt": f"lighthouse {number}"})
    await notes.flush()
    assert len(embedder.seen) == 1
    await world.call("POST", "/queue/acme/echo", {"prompt": "a last lighthouse"})
    await notes.flush(last=True)
    assert len(embedder.seen) == 1
    assert len(world.calls.kept) == 5


def test_refused_prompts_go_first_and_nobody_crowds_others_out() -> None:
    """One of each key before a second of any."""
    batch = [*(hashed("loud") for _ in range(5)), hashed("quiet"), hashed("loud", REFUSAL), hashed("quiet", text="")]
    assert decide_taken(batch, 3) == [6, 0, 5]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=40), st.integers(0, 20))
def test_taken_are_only_calls_with_text_once_each_and_within_the_budget(
    calls: list[tuple[str, bool, bool]], budget: int
) -> None:
    """And a refused one is left out only when the budget is spent on refused ones."""
    batch = [hashed(key, REFUSAL if refused else "", "x" if text else "") for key, refused, text in calls]
    taken = decide_taken(batch, budget)
    assert len(taken) == len(set(taken)) == min(budget, sum(text for _, _, text in calls))
    assert all(batch[place].text for place in taken)
    refused = [place for place, (_, wrong, text) in enumerate(calls) if wrong and text]
    if set(refused) - set(taken):
        assert set(taken) <= set(refused)
