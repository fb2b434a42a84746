"""`forestay quality canary`, through HTTP to a real database and back."""

import dataclasses
import datetime as dt
import json
import pathlib
from collections.abc import Awaitable, Callable

from tests.cli.conftest import Platform, Ran
from tests.conformance.fleet_values import deploy, replica_of, revision_of, worker_of
from tests.quality import making

from forestay.chance import SystemChance
from forestay.fleet.actions import Origin
from forestay.fleet.model import Revision
from forestay.fleet.spec_quality import CanaryInput, CanarySpec, QualitySpec
from forestay.ids import ModelId, ReplicaId, RevisionId, TenantId, new_request_id
from forestay.quality.canary import Look, Standing, look_of
from forestay.quality.canary_store import Ended, PlayedCanary, PlayedRound
from forestay.quality.contracts import File
from forestay.quality.findings import Finding, Source, Where
from forestay.quality.fingerprints import Fingerprint
from forestay.quality.golden import Baseline, Cause, Taught
from forestay.quality.noting import note_outputs
from forestay.quality.postgres_canaries import PostgresCanaries
from forestay.quality.postgres_findings import PostgresFindings
from forestay.telemetry.metrics import Metrics
from forestay.telemetry.output_facts import PostgresOutputs
from forestay.worker.output_notes import Made, OutputNotes

Forestay = Callable[..., Awaitable[Ran]]
MODEL = ModelId("acme/cat")
CANARY = CanaryInput("sitting", '{"prompt": "a cat", "seed": 7}')
OLD, NEW = look_of(making.scene()), look_of(making.scene(shift=9))


async def deployed(platform: Platform, name: str) -> Revision:
    """A revision with one canary and one ready replica."""
    revision = revision_of(name, MODEL)
    quality = QualitySpec(canaries=CanarySpec((CANARY,)))
    revision = dataclasses.replace(revision, spec=dataclasses.replace(revision.spec, quality=quality))
    await platform.database.execute(
        "INSERT INTO tenants (tenant_id, name) VALUES ('acme', 'acme') ON CONFLICT DO NOTHING"
    )
    await platform.ports.fleet.apply(deploy(revision), origin=Origin.HUMAN, actor="tests")
    await platform.ports.fleet.report(worker_of("w1", devices=4), [replica_of(revision, "w1", name=f"of-{name}")])
    return (await platform.ports.fleet.load()).revisions[revision.revision_id]


async def round_of(platform: Platform, revision: Revision, look: Look, standing: Standing | None) -> None:
    """A replica of the revision has drawn this."""
    picture = making.scene() if look == OLD else making.scene(shift=9)
    await platform.ports.objects.put(f"canaries/{look.digest}.png", making.packed(picture))
    levels = 12.5 if standing is Standing.DIFFERS else 0.0
    row = PlayedCanary(CANARY.key, "cpu", standing, levels, look=look, picture_key=f"canaries/{look.digest}.png")
    ended = Ended.FAILED if standing is Standing.DIFFERS else Ended.PASSED
    replica = ReplicaId(f"of-{revision.revision_id}")
    await PostgresCanaries(platform.database).note(PlayedRound(
        MODEL, revision.revision_id, replica, worker_of("w1").worker_id, Cause.START, platform.ports.clock.now(), 0.25,
        ended, f"it {ended.value}", (row,),
    ))  # fmt: skip


async def golden_of(platform: Platform, revision: Revision) -> None:
    """What the revision draws is golden."""
    store, at = PostgresCanaries(platform.database), platform.ports.clock.now()
    await platform.ports.objects.put(f"canaries/{OLD.digest}.png", making.packed(making.scene()))
    await store.begin(Baseline(MODEL, revision.revision_id, revision.created_at, at))
    taught = Taught(CANARY.key, "cpu", ReplicaId("r1"), OLD, f"canaries/{OLD.digest}.png", settled=True)
    await store.teach(MODEL, revision.revision_id, [taught, taught])


async def test_a_revision_that_draws_otherwise_is_shown_beside_the_golden_and_approved(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """A contact sheet with both pictures; then its own looks are golden, and the finding that it differed is closed."""
    first = await deployed(platform, "cat-1")
    await golden_of(platform, first)
    second = await deployed(platform, "cat-2")
    for _ in range(2):
        await round_of(platform, second, NEW, Standing.DIFFERS)
    now = platform.ports.clock.now()
    finding = Finding("2 of 2 differ", 12, Where(MODEL, second.revision_id), {}, now, Source.CANARY)
    await PostgresFindings(platform.database).keep([finding], now)
    sheet = ("--revision", "cat-2", "--sheet", str(tmp_path / "a.html"))
    shown = await forestay("quality", "canary", "show", "acme/cat", *sheet)
    assert shown.status == 0, shown.err
    assert "learned" in shown.out
    page = (tmp_path / "a.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "12.50 levels apart" in page
    why = ("--reason", "the new sampler is wanted")
    done = await forestay("quality", "canary", "approve", "acme/cat", "--revision", "cat-2", *why)
    assert "1 findings are closed" in done.out, done.err
    told = json.loads((await forestay("quality", "canary", "show", "acme/cat", "--json")).out)
    assert {(item["revision_id"], item["state"]) for item in told["goldens"]} == {
        ("cat-1", "learned"),
        ("cat-2", "learned"),
    }
    assert "the new sampler is wanted" in (await forestay("audit", "list", "--json")).out


async def test_a_round_is_asked_for_and_what_differs_fails_the_command(forestay: Forestay, platform: Platform) -> None:
    """Without a round in time the replica is named and the exit is 1; a failed round is exit 1 too."""
    first = await deployed(platform, "cat-1")
    late = await forestay("quality", "canary", "run", "acme/cat", "--wait", "0.1")
    assert (late.status, "not played yet: of-cat-1" in late.out) == (1, True), late.err
    (ask,) = await PostgresCanaries(platform.database).asks(platform.ports.clock.now() - dt.timedelta(hours=1))
    assert (ask.cause, ask.model_id) == (Cause.PERSON, MODEL)
    assert (await forestay("quality", "canary", "run", "acme/cat", "--wait", "0")).status == 0
    await round_of(platform, first, OLD, Standing.SAME)
    told = await forestay("quality", "canary", "show", "acme/cat")
    assert "it passed" in told.out


async def test_what_cannot_be_done_is_said_with_the_mend(forestay: Forestay, platform: Platform) -> None:
    """An unknown model, a revision of another model, nothing played yet, a wait without sense."""
    assert "model list" in (await forestay("quality", "canary", "show", "acme/none")).err
    await deployed(platform, "cat-1")
    assert "no revision" in (await forestay("quality", "canary", "run", "acme/cat", "--revision", "dog-1")).err
    early = await forestay("quality", "canary", "approve", "acme/cat", "--revision", "cat-1", "--reason", "why not")
    assert "no canary of cat-1 was played yet" in early.err
    assert "--wait" in (await forestay("quality", "canary", "run", "acme/cat", "--wait", "-1")).err


async def test_a_request_and_its_model_tell_what_outputs_were_made_with(forestay: Forestay, platform: Platform) -> None:
    """Precision, scheduler, adapters, digests of weights, libraries and device; by request and by model."""
    now = platform.ports.clock.now()
    request_id = new_request_id(now, 0, SystemChance())
    made = Made(1, "/", Fingerprint("ab12" * 4, json.dumps({
        "calls": [{"pipeline": "Tiny", "dtype": "float16", "scheduler": "DDIM", "scheduler_digest": "9f", "adapters":
                   {"noir": 1.0}}],
        "pipelines": [{"parts": {"unet": {"weights": "77aa"}}}], "environment": "cpu AVX2, torch 2.13.0",
    })))  # fmt: skip
    notes = OutputNotes(PostgresOutputs(platform.database), platform.ports.clock, Metrics())
    file = note_outputs({}, [File("a", 0, None)], [], b"key")
    for _ in range(2):
        notes.note((request_id, TenantId("acme")), Where(MODEL, RevisionId("cat-1")), made, file)
    await notes.flush()
    for of in (str(request_id), "acme/cat"):
        told = await forestay("quality", "fingerprint", of, "--json")
        (row,) = json.loads(told.out)
        assert (row["fingerprint"], row["described"]["environment"]) == ("ab12" * 4, "cpu AVX2, torch 2.13.0")
    shown = (await forestay("quality", "fingerprint", "acme/cat")).out.replace("\n", "")
    assert "Tiny float16; DDIM 9f; adapter noir; unet 77aa" in " ".join(shown.split())
    other = new_request_id(now, 1, SystemChance())
    assert "no fingerprint of request" in (await forestay("quality", "fingerprint", str(other))).err
