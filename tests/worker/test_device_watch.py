"""A worker that watches its devices: what it measures, finds, stores and hands out, and its silence without any."""

import asyncio
import dataclasses
import datetime as dt
from collections.abc import Sequence

from tests.conformance.memory_devices import GIB, MemoryDevices, MemoryDeviceStore
from tests.conformance.memory_fleet import ManualClock
from tests.worker.harness import WORKER, spec_of

from forestay.clock import SystemClock
from forestay.errors import Unavailable
from forestay.fleet.devices import DeviceState, Slowdown, XidEvent
from forestay.fleet.model import Revision
from forestay.ids import ReplicaId, RevisionId, WorkerId
from forestay.quality.findings import Finding, Source
from forestay.settings import Worker
from forestay.telemetry.metrics import Metrics
from forestay.worker.device_watch import READ_SECONDS, TOLD_AGAIN_SECONDS, DevicePorts, DeviceWatch
from forestay.worker.replica import Replica

NOW = dt.datetime(2026, 11, 26, tzinfo=dt.UTC)


class Watched:
    """A watch over devices in memory, and what it told whom."""

    def __init__(self, count: int, *, pool: str = "gpu", visible: str | None = None) -> None:
        self.clock = ManualClock(NOW)
        self.source, self.store, self.metrics = MemoryDevices(count), MemoryDeviceStore(), Metrics()
        self.replicas: list[Replica] = []
        self.found: list[Finding] = []
        ports = DevicePorts(self.source, self.store, self.found.extend, lambda: self.replicas, self.clock, self.metrics)
        self.watch = DeviceWatch(WORKER, pool, visible, ports)

    def start(self, name: str) -> Replica:
        """Start a replica as the keeper does."""
        revision = Revision(RevisionId("probe-1"), spec_of().model_id, "probe-1", spec_of(), None, None, NOW)
        replica = Replica((ReplicaId(name), WORKER), revision, Worker(device_name="rack 7"), self.clock)
        replica.devices = self.watch.choose(1)
        self.replicas.append(replica)
        return replica

    async def look(self) -> None:
        """Look once, when the next reading is due."""
        self.clock.advance(READ_SECONDS)
        await self.watch.look(self.source.read(self.clock.now()))

    @property
    def text(self) -> str:
        """What a scrape reads."""
        return self.metrics.exposition().decode()


async def test_each_replica_gets_a_device_of_its_own_and_facts_call_it_by_its_uuid() -> None:
    """Two on two devices; the place of one that ended is filled again; a third shares with the first."""
    world = Watched(2)
    one, two = world.start("r1"), world.start("r2")
    assert [one.device, two.device] == [item.uuid for item in world.source.devices]
    world.replicas.remove(one)
    assert world.start("r3").devices == one.devices
    assert world.start("r4").devices == one.devices


async def test_an_error_of_a_device_is_told_against_the_replica_that_runs_there_once_in_a_while() -> None:
    """Xid 95 of the second device accuses the second replica, is counted, stored in words, and not told every look."""
    world = Watched(2)
    world.start("r1")
    world.start("r2")
    uuid = world.source.devices[1].uuid
    assert world.watch.note([XidEvent(uuid, 95, world.clock.now())])
    for _ in range(3):
        await world.look()
    assert [(item.source, item.where.replica_id, item.where.device) for item in world.found] == [
        (Source.DEVICE, "r2", uuid)
    ]
    world.clock.advance(TOLD_AGAIN_SECONDS)
    await world.look()
    assert len({item.finding_id for item in world.found}) == 1
    assert len(world.found) == 2
    assert f'forestay_device_xids_total{{device="{uuid}",xid="95"}} 1.0' in world.text
    states = await world.store.devices()
    assert [(len(item.told), item.replicas) for item in states] == [(0, ("r1",)), (1, ("r2",))]


async def test_what_a_device_reads_is_measured_and_what_it_does_not_tell_is_not() -> None:
    """Numbers by UUID; a device without a power reading has no power in the metrics."""
    world = Watched(1)
    uuid = world.source.devices[0].uuid
    world.source.changes[uuid] = {"slowed": frozenset({Slowdown.THERMAL}), "power_watts": None}
    await world.look()
    assert f'forestay_device_memory_bytes{{device="{uuid}",what="total"}} 8.589934592e+10' in world.text
    assert f'forestay_device_temperature_celsius{{device="{uuid}"}} 55.0' in world.text
    assert f'forestay_device_slowed{{device="{uuid}",why="thermal"}} 1.0' in world.text
    assert f'forestay_device_slowed{{device="{uuid}",why="power_cap"}} 0.0' in world.text
    assert f'forestay_device_power_watts{{device="{uuid}"}}' not in world.text


async def test_memory_of_devices_is_told_by_model_as_far_as_processes_are_named() -> None:
    """What the driver says of a replica's processes is summed over its model; other processes are nobody's."""

    @dataclasses.dataclass
    class Local:
        pids: Sequence[int]

        def processes(self) -> Sequence[int]:
            return self.pids

    world = Watched(1)
    for number, name in enumerate(("r1", "r2")):
        world.start(name).host = Local([100 + number])  # type: ignore[assignment] - nothing else is asked of it
    world.source.changes[world.source.devices[0].uuid] = {"processes": {100: 3 * GIB, 101: 2 * GIB, 7: GIB}}
    await world.look()
    assert f'forestay_device_model_memory_bytes{{model="{spec_of().model_id}"}} 5.36870912e+09' in world.text


async def test_a_worker_watches_and_hands_out_its_own_devices_alone() -> None:
    """Two workers on one machine, each with half of the devices: neither speaks of the other's."""
    world = Watched(4, visible="2,3")
    assert {world.start(name).device for name in ("r1", "r2", "r3", "r4")} == {
        item.uuid for item in world.source.devices[2:]
    }
    assert not world.watch.note([XidEvent(world.source.devices[0].uuid, 79, NOW)])
    await world.look()
    assert [item.reading.device.index for item in await world.store.devices()] == [2, 3]
    assert world.source.devices[0].uuid not in world.text


async def test_without_devices_nothing_is_handed_out_measured_or_stored_and_the_watch_ends_at_once() -> None:
    """A worker of a CPU pool on a machine with GPUs, and one without a driver: replicas see what there is."""
    world = Watched(2, pool="cpu")
    assert world.start("r1").devices is None
    assert world.replicas[0].device == "rack 7"
    async with asyncio.timeout(5):
        await world.watch.run()
    assert world.source.closed
    assert "forestay_device_memory_bytes{" not in world.text
    ports = DevicePorts(None, None, world.found.extend, list, world.clock, Metrics())
    async with asyncio.timeout(5):
        await DeviceWatch(WORKER, "gpu", None, ports).run()
    assert world.found == []


async def test_an_error_is_told_before_the_next_reading_is_due() -> None:
    """The watch waits for errors between readings: it looks again as soon as there is one."""
    seen = asyncio.Event()

    class Told(MemoryDeviceStore):
        async def keep(self, worker_id: WorkerId, devices: Sequence[DeviceState]) -> None:
            await super().keep(worker_id, devices)
            if any(item.told for item in devices):
                seen.set()

    source = MemoryDevices(1)
    source.events = [XidEvent(source.devices[0].uuid, 79, SystemClock().now())]
    ports = DevicePorts(source, Told(), lambda _: None, list, SystemClock(), Metrics())
    async with asyncio.timeout(READ_SECONDS / 2), asyncio.TaskGroup() as group:
        task = group.create_task(DeviceWatch(WORKER, "gpu", None, ports).run())
        await seen.wait()
        task.cancel()
    assert source.closed


async def test_a_database_that_is_away_costs_no_reading() -> None:
    """Metrics and findings go on; the next look stores what is then."""

    class Away(MemoryDeviceStore):
        async def keep(self, worker_id: WorkerId, devices: Sequence[DeviceState]) -> None:
            del worker_id, devices
            raise Unavailable("the database is away")

    world = Watched(1)
    ports = dataclasses.replace(world.watch._ports, store=Away())
    watch = DeviceWatch(WORKER, "gpu", None, ports)
    await watch.look(world.source.read(NOW))
    assert "forestay_device_temperature_celsius{" in world.text
