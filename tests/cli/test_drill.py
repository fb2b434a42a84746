"""`forestay drill`, through HTTP to a real database and back."""

import json
from collections.abc import Awaitable, Callable

from tests.cli.conftest import Platform, Ran

from forestay.drills.model import IN_FORCE, Sighting
from forestay.drills.store import PostgresDrills
from forestay.fleet.model import WorkerReport
from forestay.ids import ReplicaId, WorkerId

Forestay = Callable[..., Awaitable[Ran]]


async def deployed(platform: Platform) -> None:
    """A worker, and a model with a revision."""
    from tests.worker.harness import spec_of  # noqa: PLC0415 - the harness is large, and one helper of it is enough

    from forestay.fleet.actions import Origin, RegisterRevision  # noqa: PLC0415
    from forestay.fleet.model import Revision  # noqa: PLC0415
    from forestay.ids import RevisionId, TenantId  # noqa: PLC0415

    now = platform.ports.clock.now()
    await platform.ports.fleet.report(WorkerReport(WorkerId("w1"), "cpu", "", 1, 1_000, "ready", now, now), [])
    spec = spec_of()
    revision = Revision(RevisionId("probe-1"), spec.model_id, "probe-1", spec, None, None, now)
    asked = RegisterRevision(revision, TenantId("acme"), "shared", "test")
    await platform.ports.fleet.apply([asked], origin=Origin.HUMAN, actor="test")


async def test_a_drill_is_begun_seen_in_force_and_stopped_all_on_record(forestay: Forestay, platform: Platform) -> None:
    """By whom and why stays in the audit log; where it is in force is told by the workers."""
    await deployed(platform)
    on = ("--model", "acme/probe", "--worker", "w1", "--reason", "game day")
    begun = await forestay("drill", "start", "clip-is-frozen", *on, "--for", "5m", "--json")
    assert begun.status == 0, begun.err
    drill = json.loads(begun.out)
    assert (drill["fault"], drill["running"], drill["replicas"]) == ("clip is frozen", True, {})
    assert "FORESTAY_DRILLS" in (await forestay("drill", "list")).out
    now = platform.ports.clock.now()
    seen = Sighting(drill["drill_id"], ReplicaId("probe-a"), WorkerId("w1"), IN_FORCE, now)
    await PostgresDrills(platform.database).note([seen])
    assert "probe-a: in force" in (await forestay("drill", "list")).out
    stopped = await forestay("drill", "stop", drill["drill_id"], "--reason", "seen enough")
    assert stopped.status == 0
    assert "over" in (await forestay("drill", "list")).out
    assert "no drill" in (await forestay("drill", "stop", drill["drill_id"], "--reason", "again")).err
    audit = (await forestay("audit", "list", "--json")).out
    assert "start_drill" in audit
    assert "stop_drill" in audit
    assert "game day" in audit


async def test_a_drill_on_nothing_or_on_everything_is_refused_by_the_field(
    forestay: Forestay, platform: Platform
) -> None:
    """Each with its mend."""
    await deployed(platform)
    model = ("--model", "acme/probe", "--reason", "x")
    assert "never for a whole model" in (await forestay("drill", "start", "2-steps", *model)).err
    assert "is no worker" in (await forestay("drill", "start", "2-steps", *model, "--worker", "w7")).err
    assert "is no revision" in (await forestay("drill", "start", "2-steps", *model, "--revision", "r7")).err
    assert "drill faults" in (await forestay("drill", "start", "fire", *model, "--worker", "w1")).err
    assert "seconds" in (await forestay("drill", "start", "2-steps", *model, "--worker", "w1", "--for", "2h")).err
    other = ("--model", "acme/no", "--worker", "w1", "--reason", "x")
    assert "is no model" in (await forestay("drill", "start", "2-steps", *other)).err
    assert "2 steps" in (await forestay("drill", "faults")).out
