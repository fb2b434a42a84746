"""`forestay quality evidence`, through HTTP to the real sealed store: what is kept, who saw it, what is left out."""

import dataclasses
import json
import pathlib
import types
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

import pytest
from tests.cli.conftest import Platform, Ran
from tests.quality import making
from tests.quality.streams import fact, on

from forestay.chance import SystemChance
from forestay.ids import BUCKETS, KeyId, ModelId, ReplicaId, RequestId, RevisionId, TenantId, WorkerId
from forestay.quality.evidence import told_of
from forestay.quality.evidence_loop import run_once
from forestay.quality.findings import Finding, Source, Where
from forestay.quality.postgres_evidence import PostgresEvidence
from forestay.quality.postgres_findings import PostgresFindings
from forestay.queue.listing import PostgresRequestList
from forestay.queue.model import Answer, AttemptReport, Finish, Options, Outcome, State, Submission
from forestay.queue.store import Offer
from forestay.settings import Secrets, Settings
from forestay.startup import sealing
from forestay.telemetry.output_facts import PostgresOutputs
from forestay.worker.evidence_sealing import EvidenceSealer

if TYPE_CHECKING:
    from forestay.startup import Process, Stores

Forestay = Callable[..., Awaitable[Ran]]
PICTURE = making.packed(making.flat((0, 0, 0)))
WISH = b'{"prompt": "a wish that stays under seal"}'
WHERE = Where(ModelId("acme/cat"), RevisionId("r1"), WorkerId("w1"), ReplicaId("a"))
RETENTION = 3_600.0


def request(number: int) -> RequestId:
    """The id of a request."""
    return RequestId(uuid.UUID(f"01a2192b-9e96-7000-8000-{number:012x}"))


async def made(platform: Platform, number: int, *, store_io: bool = True) -> RequestId:
    """An ended request with a picture that was released to nobody."""
    ports, request_id, now = platform.ports, request(number), platform.ports.clock.now()
    who = (TenantId("acme"), KeyId("key"), WHERE.model_id)
    await ports.queue.submit([Submission(request_id, *who, "/", WISH, now, Options(store_io=store_io))], {})
    offer = Offer(ReplicaId("a"), RevisionId("r1"), WHERE.model_id, ((0, BUCKETS),), 1, idle=True)
    [lease] = await ports.queue.claim(WorkerId("w1"), [offer], 15.0)
    report = AttemptReport(Outcome.BROKEN_OUTPUT, now, now, now, 0.1)
    assert await ports.queue.finish([Finish(lease, State.FAILED, Answer(502, {}, b"{}"), report)])
    await ports.media.save(
        PICTURE, tenant_id=TenantId("acme"), file_name="a.png", content_type="image/png", request_id=request_id,
        attempt=1, lifetime_seconds=None, state="quarantine",
    )  # fmt: skip
    return request_id


def sealer_of(platform: Platform, retention: float = RETENTION) -> EvidenceSealer:
    """What seals, over the platform's own stores."""
    assert platform.ports.safety is not None
    assert platform.ports.safety.review is not None
    requests = PostgresRequestList(platform.database)
    return EvidenceSealer(platform.ports.safety.review.sealed, platform.ports.media, requests, retention)


async def found(platform: Platform) -> Finding:
    """A finding with its evidence: one request that may be kept, and one that may not."""
    now = platform.ports.clock.now()
    finding = Finding("black pictures of replica a", 1, WHERE, {"failed": 3.0}, now, Source.CONTRACT)
    await PostgresFindings(platform.database).keep([finding], now)
    requests = [await made(platform, 1), await made(platform, 2, store_io=False)]
    copies = await sealer_of(platform).seal(finding.finding_id, requests)
    assert copies == await sealer_of(platform).seal(finding.finding_id, requests)  # twice is harmless
    await PostgresEvidence(platform.database).keep(told_of(finding, [], copies, now))
    return finding


@pytest.mark.threat("API9:2023", "API5:2023")
async def test_evidence_is_explained_shown_and_every_reading_noted(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """The picture and the input come out of the seal, with an audit row for each; without a reason nothing does."""
    finding = await found(platform)
    told = (await forestay("quality", "explain", "acme/cat")).out
    assert f"forestay quality evidence show {finding.finding_id}" in told
    listed = json.loads((await forestay("quality", "evidence", "show", finding.finding_id, "--json")).out)
    assert [copy["what"] for copy in listed["copies"]] == ["image/png", "input"]
    assert {copy["request_id"] for copy in listed["copies"]} == {str(request(1))}
    out = tmp_path / "seen"
    refused = await forestay("quality", "evidence", "show", finding.finding_id, "--out", str(out))
    assert refused.status == 2
    assert "--reason" in refused.err
    shown = await forestay(
        "quality", "evidence", "show", finding.finding_id, "--out", str(out), "--reason", "black pictures"
    )
    assert shown.status == 0, shown.err
    assert sorted(path.read_bytes() for path in out.iterdir()) == sorted([PICTURE, WISH])
    rows = json.loads((await forestay("audit", "list", "--json")).out)
    read = [row for row in rows if row["action"] == "read_sealed"]
    assert len(read) == 2
    assert {row["reason"] for row in read} == {"black pictures"}
    access = json.loads((await forestay("safety", "review", "access", "--json")).out)
    assert {row["item_id"] for row in access} == {f"finding:{finding.finding_id}"}


@pytest.mark.threat("API9:2023", "API5:2023")
async def test_content_is_nowhere_but_under_seal(platform: Platform) -> None:
    """The rows of evidence hold ids; the sealed bytes show neither picture nor words."""
    finding = await found(platform)
    kept = (await PostgresEvidence(platform.database).of([finding.finding_id]))[finding.finding_id]
    assert b"wish" not in repr(dataclasses.asdict(kept)).encode()
    rows = await platform.database.fetch("SELECT data FROM sealed WHERE data IS NOT NULL")
    assert rows
    assert not any(b"wish" in bytes(row["data"]) or PICTURE in bytes(row["data"]) for row in rows)


async def test_where_the_sealed_store_keeps_nothing_there_is_no_evidence(platform: Platform) -> None:
    """Nor of requests that nobody knows, as direct calls are."""
    request_id = await made(platform, 3)
    assert await sealer_of(platform, retention=0.0).seal("f", [request_id]) == []
    assert await sealer_of(platform).seal("f", [request(9)]) == []


async def test_a_copy_that_was_forgotten_says_so(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """By the setting that keeps copies; an unknown finding names the list."""
    finding = await found(platform)
    assert platform.ports.safety is not None
    assert platform.ports.safety.review is not None
    assert await platform.ports.safety.review.sealed.forget(-60.0, 100) == 2
    gone = await forestay(
        "quality", "evidence", "show", finding.finding_id, "--out", str(tmp_path / "x"), "--reason", "late"
    )
    assert gone.status != 0
    assert "FORESTAY_SEALED_RETENTION" in gone.err
    assert "quality findings" in (await forestay("quality", "evidence", "show", "nothing")).err


async def test_the_controllers_loop_seals_what_a_finding_is_about(platform: Platform) -> None:
    """Over real stores, as the controller puts them together: the broken output's file and input, once."""
    ports, now = platform.ports, platform.ports.clock.now()
    finding = Finding("black pictures of replica a", 1, WHERE, {"failed": 3.0}, now, Source.CONTRACT)
    await PostgresFindings(platform.database).keep([finding], now)
    request_id = await made(platform, 5)
    noted = fact(0, (), at=now, request_id=request_id, failed="black", revision_id="r1", **on("a"))
    await PostgresOutputs(platform.database).write([noted])
    process = types.SimpleNamespace(
        settings=Settings(secrets=Secrets(internal_key="a long random text")), clock=ports.clock,
        chance=SystemChance(), metrics=ports.metrics,
    )  # fmt: skip
    stores = types.SimpleNamespace(
        database=platform.database, facts_database=platform.database, objects=ports.objects, queue=ports.queue,
        media=ports.media, wakeups=ports.wakeups,
    )  # fmt: skip
    shown = sealing(cast("Process", process), cast("Stores", stores))
    assert await run_once(shown) == 1
    assert await run_once(shown) == 0
    kept = (await PostgresEvidence(platform.database).of([finding.finding_id]))[finding.finding_id]
    assert [(copy.what, copy.replica_id) for copy in kept.copies] == [("image/png", "a"), ("input", "a")]
    assert {copy.request_id for copy in kept.copies} == {str(request_id)}
