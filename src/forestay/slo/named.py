"""The SLOs that hold on a running platform: reads the files that the operator names, and the fleet's own specs.

It decides nothing (`sources` decides, `slo_folder` reads) and tells what is wrong with files: kept for `forestay slo
status`, counted in a metric, and logged once with file and line. Run by the loop that watches SLOs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from forestay.fleet.model import ModelEntry
from forestay.ids import ModelId
from forestay.slo.model import Slo
from forestay.slo.slo_folder import FileRead, SloFolder
from forestay.slo.sources import decide_slos
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import SLO_FILES_BROKEN, Metrics

Models = Callable[[], Awaitable[Mapping[ModelId, ModelEntry]]]
Signs = Callable[[], Awaitable[bool]]  # whether some policy in force asks for signed manifests
_log = logger("slo")


class SloFilesTold(Protocol):
    """Where people read what is wrong with files of SLOs (`postgres_store`)."""

    async def tell_files(self, files: Sequence[FileRead]) -> None:
        """Replace what is told of files."""
        ...


class NamedSlos:
    """The SLOs that hold; `path` may be empty: no files."""

    def __init__(
        self, path: str, models: Models, told: SloFilesTold, metrics: Metrics, signs: Signs | None = None
    ) -> None:
        self._folder = SloFolder(path) if path else None
        self._models = models
        self._signs = signs
        self._told = told
        self._metrics = metrics
        self._reads: tuple[FileRead, ...] = ()
        self._untold = True

    async def slos(self) -> tuple[Slo, ...]:
        """Return the SLOs that hold now, after a look at the files."""
        if self._folder is not None and await asyncio.to_thread(self._folder.follow):
            self._reads, self._untold = self._folder.reads(), True
            for file in self._reads:
                for fault in file.faults:
                    _log.warning("slo.file_broken", fault=fault, still_held=len(file.slos))
        if self._untold:
            self._metrics.set(SLO_FILES_BROKEN, sum(1 for file in self._reads if file.faults))
            await self._told.tell_files(self._reads)
            self._untold = False
        signs = self._signs is not None and await self._signs()
        return decide_slos([slo for file in self._reads for slo in file.slos], await self._models(), signs=signs)
