"""Watches the devices of one worker: reads them, keeps what the driver notes, tells metrics, findings and the fleet.

It decides nothing: `quality/device_health` says what readings mean, `device_sharing` which device a replica gets. Where
there is no device to read, it does nothing and says nothing. Errors are waited for with a time-out, so that one is told
within a second; all else is read every READ_SECONDS. Run by `worker/process`.
"""

import asyncio
import dataclasses
import datetime as dt
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.fleet.devices import DeviceSource, DeviceState, DeviceStore, Identity, Reading, Slowdown, XidEvent
from forestay.ids import WorkerId
from forestay.quality.device_health import Evidence, decide_evidence, findings_of
from forestay.quality.findings import Finding, Where
from forestay.quality.xids import label_of
from forestay.telemetry import metrics as names
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import Metrics
from forestay.worker.device_sharing import decide_devices, owned_by
from forestay.worker.memory_watch import LocalHost
from forestay.worker.replica import Replica

READ_SECONDS = 10.0
WAIT_SECONDS = 1.0  # for errors, at a time: so long the end of the worker may wait for the thread that waits
STORE_SECONDS = 5.0
TOLD_AGAIN_SECONDS = 60.0
KEPT_READINGS = 100  # more than the time for which a rise stands
KEPT_EVENTS = 64
log = logger("worker")


@dataclasses.dataclass(frozen=True, slots=True)
class DevicePorts:
    """What watching devices may use of the world."""

    source: DeviceSource | None  # None: there is nothing to read
    store: DeviceStore | None
    found: Callable[[Sequence[Finding]], None]
    replicas: Callable[[], Sequence[Replica]]
    clock: Clock
    metrics: Metrics


class DeviceWatch:
    """The devices of one worker, and what runs on them."""

    def __init__(self, worker_id: WorkerId, pool: str, visible: str | None, ports: DevicePorts) -> None:
        """`visible` is CUDA_VISIBLE_DEVICES of the worker's own environment."""
        self._worker_id = worker_id
        self._ports = ports
        devices = ports.source.identities() if ports.source is not None else ()
        self.owned: Sequence[Identity] = owned_by(pool, devices, visible)
        self._readings: dict[str, deque[Reading]] = {item.uuid: deque(maxlen=KEPT_READINGS) for item in self.owned}
        self._events: dict[str, deque[XidEvent]] = {item.uuid: deque(maxlen=KEPT_EVENTS) for item in self.owned}
        self._told: dict[str, float] = {}
        self._held: Mapping[int, int] = {}  # bytes by process

    def choose(self, wanted: int) -> tuple[str, ...] | None:
        """Return the devices of a new replica; None where this worker has none to hand out."""
        if not self.owned:
            return None
        used = Counter(uuid for replica in self._ports.replicas() for uuid in replica.devices or ())
        return decide_devices(self.owned, used, wanted)

    def bytes_of(self, pids: Sequence[int]) -> int | None:
        """Return the memory of devices that processes hold, as last read; None where no device is ours."""
        return sum(self._held.get(pid, 0) for pid in pids) if self.owned else None

    async def run(self) -> None:
        """Watch until cancelled; returns at once where there is nothing to watch."""
        source = self._ports.source
        if source is None:
            return
        try:
            for item in self.owned:
                log.info("device.owned", device=item.uuid, name=item.name, index=item.index, driver=item.driver)
            while self.owned:
                await self.look(await asyncio.to_thread(source.read, self._ports.clock.now()))
                await self._listen(source)
        finally:
            source.close()

    async def _listen(self, source: DeviceSource) -> None:
        """Wait for errors until the next reading is due, or until there is one."""
        clock = self._ports.clock
        due = clock.monotonic() + READ_SECONDS
        while (left := due - clock.monotonic()) > 0:
            began = clock.monotonic()
            if self.note(await asyncio.to_thread(source.wait, min(WAIT_SECONDS, left), clock.now())):
                return
            if clock.monotonic() - began < 0.5 * min(WAIT_SECONDS, left):  # a source that cannot wait
                await clock.sleep(min(WAIT_SECONDS, left))

    def note(self, events: Sequence[XidEvent]) -> bool:
        """Take errors that the driver noted; tells whether any was of a device of ours."""
        own = [item for item in events if item.uuid in self._events]
        for item in own:
            self._events[item.uuid].append(item)
            self._ports.metrics.add(names.DEVICE_XIDS, item.uuid, label_of(item.xid))
            log.warning("device.xid", device=item.uuid, xid=item.xid)
        return bool(own)

    async def look(self, readings: Sequence[Reading]) -> None:
        """Take readings of all devices of the machine: measure, find, store those of our own."""
        now, states = self._ports.clock.now(), list[DeviceState]()
        for reading in readings:
            uuid = reading.device.uuid
            if uuid not in self._readings:
                continue
            self._readings[uuid].append(reading)
            evidence = decide_evidence(list(self._readings[uuid]), list(self._events[uuid]), now)
            here = [item for item in self._ports.replicas() if uuid in (item.devices or ())]
            self._measure(reading)
            self._tell(uuid, evidence, here, now)
            told = tuple(item.what for item in evidence)
            states.append(DeviceState(self._worker_id, reading, told, tuple(item.replica_id for item in here)))
        self._measure_models(readings)
        await self._store(states)

    def _tell(self, uuid: str, evidence: Sequence[Evidence], here: Sequence[Replica], now: dt.datetime) -> None:
        """Hand findings on, the same one once in a while."""
        places = [
            Where(item.revision.model_id, item.revision.revision_id, self._worker_id, item.replica_id) for item in here
        ]
        found, moment = findings_of(uuid, evidence, places, now), self._ports.clock.monotonic()
        due = [item for item in found if moment - self._told.get(item.finding_id, -1e9) >= TOLD_AGAIN_SECONDS]
        ids = {item.finding_id for item in found}
        of_others = {name: at for name, at in self._told.items() if moment - at < TOLD_AGAIN_SECONDS or name in ids}
        self._told = {**of_others, **{item.finding_id: moment for item in due}}
        self._ports.found(due)

    def _measure(self, reading: Reading) -> None:
        uuid, metrics = reading.device.uuid, self._ports.metrics
        gauges = (
            (names.DEVICE_MEMORY_BYTES, reading.memory_used_bytes, ("used",)),
            (names.DEVICE_MEMORY_BYTES, reading.memory_total_bytes, ("total",)),
            (names.DEVICE_TEMPERATURE, reading.temperature_celsius, ()),
            (names.DEVICE_POWER_WATTS, reading.power_watts, ()),
            (names.DEVICE_BUSY_RATIO, reading.utilisation_ratio, ()),
            (names.DEVICE_CLOCK_MHZ, reading.sm_clock_mhz, ("sm",)),
            (names.DEVICE_CLOCK_MHZ, reading.memory_clock_mhz, ("memory",)),
            (names.DEVICE_ECC_ERRORS, reading.ecc.corrected_since_boot, ("corrected", "boot")),
            (names.DEVICE_ECC_ERRORS, reading.ecc.uncorrected_since_boot, ("uncorrected", "boot")),
            (names.DEVICE_ECC_ERRORS, reading.ecc.corrected_ever, ("corrected", "ever")),
            (names.DEVICE_ECC_ERRORS, reading.ecc.uncorrected_ever, ("uncorrected", "ever")),
            (names.DEVICE_ROWS_PENDING, reading.rows_pending, ()),
            (names.DEVICE_LOST, reading.lost, ()),
        )
        for metric, value, labels in gauges:
            if value is not None:
                metrics.set(metric, float(value), uuid, *labels)
        for reason in Slowdown:
            metrics.set(names.DEVICE_SLOWED, float(reason in reading.slowed), uuid, reason.value)

    def _measure_models(self, readings: Sequence[Reading]) -> None:
        """Tell how much memory of devices the replicas of each model hold, as far as the driver names processes."""
        held: Mapping[int, int] = Counter[int]()
        for reading in readings:
            held = Counter(held) + Counter(reading.processes)
        self._held = held
        sums: dict[str, int] = {}
        for replica in self._ports.replicas() if self.owned else ():
            if isinstance(replica.host, LocalHost):
                own = sum(held.get(pid, 0) for pid in replica.host.processes())
                sums[replica.revision.model_id] = sums.get(replica.revision.model_id, 0) + own
        for model_id, size in sums.items():
            self._ports.metrics.set(names.DEVICE_MODEL_MEMORY_BYTES, float(size), model_id)

    async def _store(self, states: Sequence[DeviceState]) -> None:
        if self._ports.store is None:
            return
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await self._ports.store.keep(self._worker_id, states)
        except (Unavailable, TimeoutError) as error:
            log.warning("devices.not_kept", reason=str(error))
