"""The last readings of devices in Postgres. Decides nothing; the port is in `devices`."""

from collections.abc import Sequence
from typing import cast

import msgspec

from forestay.fleet.devices import DeviceState
from forestay.ids import WorkerId
from forestay.storage.postgres import Database, load_queries

MAX_DEVICES = 10_000
_SQL = load_queries("forestay.fleet", "sql/devices.sql")


class PostgresDevices:
    """DeviceStore over the table `worker_devices`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, worker_id: WorkerId, devices: Sequence[DeviceState]) -> None:
        """Replace what is known of a worker's devices."""
        await self._database.execute(_SQL["keep"], worker_id, msgspec.json.encode(devices).decode())

    async def devices(self) -> list[DeviceState]:
        """Read those of workers that the fleet knows, by worker and index."""
        rows = await self._database.fetch(_SQL["devices"], MAX_DEVICES)
        return [msgspec.json.decode(cast("str", row["state"]), type=DeviceState) for row in rows]
