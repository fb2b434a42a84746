"""`forestay fleet devices`, through HTTP to a real database and back."""

import json
from collections.abc import Awaitable, Callable

from tests.cli.conftest import Platform, Ran
from tests.conformance.fleet_values import worker_of
from tests.conformance.memory_devices import GIB, identity_of, reading_of

from forestay.fleet.devices import DeviceState
from forestay.fleet.postgres_devices import PostgresDevices
from forestay.ids import WorkerId

Forestay = Callable[..., Awaitable[Ran]]


async def test_devices_are_shown_with_what_is_wrong_and_what_runs_there(forestay: Forestay, platform: Platform) -> None:
    """A fleet without GPUs says so; one with a hot one names it, its worker and its replica; no process ids go out."""
    assert "no worker tells of a GPU" in (await forestay("fleet", "devices")).out
    assert json.loads((await forestay("fleet", "devices", "--json")).out) == []
    now = platform.ports.clock.now()
    await platform.ports.fleet.report(worker_of("gpu-7"), [])
    reading = reading_of(identity_of(3), now, power_watts=None, memory_used_bytes=3 * GIB, processes={457: GIB})
    state = DeviceState(WorkerId("gpu-7"), reading, ("slowed by heat for 40 s",), ("digits-1",))
    await PostgresDevices(platform.database).keep(WorkerId("gpu-7"), [state])
    shown = await forestay("fleet", "devices")
    for words in ("gpu-7", identity_of(3).uuid, "3 of 80 GiB", "50 %", "55 C", "digits-1", "slowed by heat for 40 s"):
        assert words in shown.out
    (row,) = json.loads((await forestay("fleet", "devices", "--json")).out)
    assert (row["uuid"], row["power_watts"], row["told"]) == (identity_of(3).uuid, None, ["slowed by heat for 40 s"])
    assert "processes" not in row
