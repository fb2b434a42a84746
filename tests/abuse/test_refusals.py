"""Refusals of queued requests: from the model, through the facts of the queue, to the call that they belong to."""

import dataclasses
import uuid

import pytest
from tests.conformance.queue_harness import Harness, finish, offer, postgres_harness, submission

from forestay.abuse import refusals
from forestay.abuse.refusals import LateRefusals
from forestay.clock import SystemClock
from forestay.ids import WorkerId
from forestay.queue.model import Answer, State, Submission
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database
from forestay.telemetry.call_facts import LATEST, REFUSED_LATER, CallFact, PostgresCalls
from forestay.telemetry.facts import ship

REFUSAL = "content_policy_violation"


def noted(item: Submission) -> CallFact:
    """What the gateway noted of the submit."""
    return CallFact(
        item.submitted_at, uuid.UUID(str(item.request_id)), item.tenant_id, item.key_id, item.model_id, "queue",
        "submit", "203.0.113.0/24", "a1", accepted=True, cause="", status_code=200, predicted_seconds=1.0, prompt=-7,
        raw=5,
    )  # fmt: skip


async def ended(harness: Harness, *error_types: str | None) -> list[Submission]:
    """One request each, failed by its model with that word."""
    items = [submission(harness) for _ in error_types]
    await harness.store.submit(items, {})
    words = {item.request_id: word for item, word in zip(items, error_types, strict=True)}
    leases = await harness.store.claim(WorkerId("w"), [offer(len(items))], 15)
    assert len(leases) == len(items)
    done = [finish(lease, State.FAILED) for lease in leases]
    await harness.store.finish(
        [
            dataclasses.replace(
                item,
                answer=dataclasses.replace(item.answer, status_code=422, error_type=words[item.lease.request_id]),
            )
            for item in done
        ]
    )
    return items


async def test_a_queued_prompt_that_its_model_refuses_is_noted_again_as_refused(
    database: Database, objects: ObjectStore
) -> None:
    """With the bits of its prompt, at the moment of its end, once; other failures are not refusals."""
    calls = PostgresCalls(database)
    settle = LateRefusals(calls, SystemClock()).settle
    async with postgres_harness(database, objects) as harness:
        items = await ended(harness, REFUSAL, "model_error", None)
    await calls.write([noted(item) for item in items])
    for _ in range(2):
        await ship(database, database, (settle,))
    found = await calls.after(0, items[0].submitted_at - LATEST, 10)
    [late] = [fact for fact in found if fact.verb == REFUSED_LATER]
    assert len(found) == 4
    assert (str(late.call_id), late.cause, late.accepted, late.status_code) == (
        str(items[0].request_id), REFUSAL, False, 422,
    )  # fmt: skip
    assert (late.prompt, late.raw, late.key_id, late.predicted_seconds) == (-7, 5, "key-1", 0.0)
    assert late.at >= items[0].submitted_at


async def test_a_call_that_is_written_after_its_refusal_is_found_all_the_same(
    database: Database, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a while, and only so many: then it is given up."""
    monkeypatch.setattr(refusals, "MAX_WAITING", 2)
    calls = PostgresCalls(database)
    settle = LateRefusals(calls, SystemClock()).settle
    async with postgres_harness(database, objects) as harness:
        items = await ended(harness, REFUSAL, REFUSAL, REFUSAL)
    await ship(database, database, (settle,))
    await calls.write([noted(item) for item in items])
    await ship(database, database, (settle,))
    found = await calls.after(0, items[0].submitted_at - LATEST, 10)
    assert sum(fact.verb == REFUSED_LATER for fact in found) == 2


async def test_a_prompt_that_was_refused_at_submit_is_not_noted_twice(database: Database, objects: ObjectStore) -> None:
    """Its gateway has noted the refusal: counted again, it would look like probing."""
    calls = PostgresCalls(database)
    async with postgres_harness(database, objects) as harness:
        item = submission(harness)
        await harness.store.refuse(item, Answer(422, {}, b"{}", "refused", REFUSAL))
    await calls.write([noted(item)])
    await ship(database, database, (LateRefusals(calls, SystemClock()).settle,))
    assert await database.fetchval("SELECT count(*) FROM call_facts") == 1
