"""`forestay quality`, through HTTP to a real database and back, and on files alone."""

import json
import pathlib
from collections.abc import Awaitable, Callable

from tests.cli.conftest import Platform, Ran
from tests.conformance.fleet_values import deploy, replica_of, revision_of, worker_of
from tests.quality import making

from forestay.fleet.actions import Origin, Place
from forestay.ids import ModelId, ReplicaId, RevisionId, WorkerId
from forestay.quality.findings import Finding, Source, Where
from forestay.quality.postgres_findings import PostgresFindings
from forestay.quality.watch_store import Hold, PostgresWatch

Forestay = Callable[..., Awaitable[Ran]]
WHERE = Where(ModelId("acme/cat"), RevisionId("r1"), WorkerId("w1"), ReplicaId("a"), "gpu-0")


async def found(platform: Platform) -> Finding:
    """A replica that makes black pictures, and is held back alone."""
    now = platform.ports.clock.now()
    finding = Finding("black pictures of replica a", 1, WHERE, {"failed": 3.0}, now, Source.CONTRACT)
    await PostgresFindings(platform.database).keep([finding], now)
    hold = Hold(WHERE.worker_id, WHERE.revision_id, WHERE.model_id, WHERE.replica_id, finding.finding_id, "black", now,
                alone=True)  # fmt: skip
    await PostgresWatch(platform.database).hold(hold)
    return finding


async def test_what_was_found_is_listed_explained_and_closed(forestay: Forestay, platform: Platform) -> None:
    """With its place, its row of the catalogue and its numbers; a person's word ends it, with an audit row."""
    assert "nothing stands against any model" in (await forestay("quality", "status")).out
    finding = await found(platform)
    told = await forestay("quality", "explain", "acme/cat")
    for words in ("black pictures", "worker w1", "row 1, numbers that are none", "failed 3", "standing: open"):
        assert words in told.out
    rows = json.loads((await forestay("quality", "findings", "acme/cat", "--json")).out)
    assert [row["finding_id"] for row in rows] == [finding.finding_id]
    ended = await forestay("quality", "close", finding.finding_id, "--reason", "it is wanted")
    assert ended.status == 0
    assert json.loads((await forestay("quality", "findings", "--json")).out) == []
    assert "it is wanted" in (await forestay("quality", "explain", "acme/cat")).out
    again = await forestay("quality", "close", finding.finding_id, "--reason", "twice")
    assert again.status != 0
    assert "no open finding" in again.err


async def test_a_scorer_that_is_silent_is_shown_and_names_no_model(forestay: Forestay, platform: Platform) -> None:
    """In the status, by scorer and worker; models have no finding by it."""
    now = platform.ports.clock.now()
    where = Where(ModelId(""), worker_id=WorkerId("w1"), parameter="scorer=judge@1")
    silent = Finding("scorer judge@1 gives no scores on worker w1 (hang)", 0, where, {}, now, Source.SCORER)
    await PostgresFindings(platform.database).keep([silent], now)
    assert "judge@1 gives no scores" in (await forestay("quality", "status")).out
    assert "nothing was found" in (await forestay("quality", "explain", "acme/cat")).out


async def test_what_is_held_back_is_shown_and_released(forestay: Forestay, platform: Platform) -> None:
    """By the worker and the revision; what is not held back is told."""
    await found(platform)
    assert "w1, a alone" in (await forestay("quality", "status")).out
    assert (await forestay("quality", "release", "w1", "r1", "--reason", "a new device")).status == 0
    assert "no worker is held back" in (await forestay("quality", "status")).out
    assert "nothing is held back" in (await forestay("quality", "release", "w1", "r1", "--reason", "again")).err


async def test_a_person_drains_a_replica_and_lets_its_worker_run_one_again(
    forestay: Forestay, platform: Platform
) -> None:
    """The last that serves only when said so, no other twice; its worker runs none in its place until released."""
    revision = revision_of("digits-9")
    await platform.database.execute(
        "INSERT INTO tenants (tenant_id, name) VALUES ('acme', 'acme') ON CONFLICT DO NOTHING"
    )
    await platform.ports.fleet.apply(deploy(revision), origin=Origin.HUMAN, actor="tests")
    await platform.ports.fleet.report(worker_of("w1", devices=4), [replica_of(revision, "w1", name="bad")])
    place = Place(WorkerId("w1"), revision.revision_id, 1, "demand")
    await platform.ports.fleet.apply([place], origin=Origin.CAPACITY, actor="tests")
    drain = ("quality", "drain", "bad", "--reason", "it draws stripes")
    refused = await forestay(*drain)
    assert refused.status != 0
    assert "--last" in refused.err
    told = await forestay(*drain, "--last")
    assert told.status == 0, told.err
    assert "release w1 digits-9" in told.out
    (placed,) = [item for item in (await platform.ports.fleet.load()).placements if item.revision_id == "digits-9"]
    assert (placed.replicas, "it draws stripes" in placed.reason) == (0, True)
    assert "told to end already" in (await forestay(*drain, "--last")).err
    assert "no replica" in (await forestay("quality", "drain", "none", "--reason", "x")).err
    (held,) = json.loads((await forestay("quality", "status", "--json")).out)["holds"]
    assert (held["worker_id"], held["revision_id"], held["finding_id"]) == ("w1", "digits-9", "")
    assert (await forestay("quality", "release", "w1", "digits-9", "--reason", "a new card")).status == 0
    (placed,) = [item for item in (await platform.ports.fleet.load()).placements if item.revision_id == "digits-9"]
    assert placed.replicas == 1
    assert "it draws stripes" in (await forestay("audit", "list", "--json")).out


async def test_files_are_held_against_the_default_contract(forestay: Forestay, tmp_path: pathlib.Path) -> None:
    """Without a platform: numbers of each, exit 1 and the check's name where one is broken."""
    good, black = tmp_path / "good.png", tmp_path / "black.png"
    good.write_bytes(making.packed(making.scene()))
    black.write_bytes(making.packed(making.flat((0, 0, 0))))
    whole = await forestay("quality", "evaluate", str(good), "--json")
    assert whole.status == 0
    (row,) = json.loads(whole.out)
    assert row["features"]["spread"] > 10
    broken = await forestay("quality", "evaluate", str(good), str(black))
    assert broken.status == 1
    assert "black" in broken.out
    gone = await forestay("quality", "evaluate", str(tmp_path / "none.png"))
    assert "cannot be read" in gone.err
