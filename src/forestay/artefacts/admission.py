"""Admission of bundles: has one been examined, do its signatures hold, and may it be loaded today?

The shell around `decide`: it fetches a bundle once and has it examined by the limited child, keeps the report, and asks
for the decision anew at each deploy and each load. It decides nothing itself. Called by the gateway (deploy) and the
worker (load).
"""

import asyncio
import hashlib
import pathlib
import tempfile

from forestay.artefacts import limited
from forestay.artefacts.decide import Admit, Policy, Refuse, decide_admission
from forestay.artefacts.report import READER, Report
from forestay.artefacts.store import ArtefactStore
from forestay.clock import Clock
from forestay.errors import Refused
from forestay.fleet.bundle import bundle_key
from forestay.fleet.spec import ArtefactSpec
from forestay.storage.objects import ObjectStore

AT_A_TIME = 2  # examinations of one process: each is a child with a processor of its own


class Admission:
    """Examines and decides, over the stores of one process."""

    def __init__(
        self, store: ArtefactStore, objects: ObjectStore, clock: Clock, *, signatures_required: bool = False
    ) -> None:
        self.store = store
        self._objects = objects
        self._clock = clock
        self._signatures_required = signatures_required
        self._turns = asyncio.Semaphore(AT_A_TIME)

    async def examine(self, digest: str, asked: tuple[str, ...] = ()) -> Report:
        """Return the report on a stored bundle, made now if need be; a second reader is asked about the files `asked`.

        Raises ExaminationFailed when the bundle cannot be examined, Refused when its bytes are not those of its name.
        """
        known = await self.store.report(digest)
        if known is not None and known.reader == READER and set(asked) <= known.opinions.keys():
            return known
        async with self._turns:
            with tempfile.TemporaryDirectory(prefix="forestay-examine-") as folder:
                path = pathlib.Path(folder) / "bundle.tar"
                await self._download(digest, path)
                report = await limited.examine(path, tar=True, opinions=asked)
        await self.store.save_report(digest, report)
        return report

    async def decide(self, report: Report, asked: ArtefactSpec) -> Admit | Refuse:
        """Return whether the files of a report may be loaded today, by what the spec and the operator ask."""
        keys = tuple(stored.key for stored in await self.store.trusted_keys()) if report.signatures else ()
        signatures = await limited.verify(report, keys)
        waived = asked.allow_pickle.files if asked.allow_pickle else ()
        policy = Policy(asked, self._signatures_required)
        today = self._clock.now().date()
        return decide_admission(report.files, report.findings_with(waived), signatures, policy, today)

    async def _download(self, digest: str, path: pathlib.Path) -> None:
        key = bundle_key(digest)
        size = await self._objects.size(key) or 0
        seen = hashlib.sha256()
        with path.open("wb") as target:
            async for piece in self._objects.stream(key, 0, size):
                seen.update(piece)
                await asyncio.to_thread(target.write, piece)
        if seen.hexdigest() != digest:
            raise Refused(f"bundle {digest} is damaged in the object store; deploy the model again")
