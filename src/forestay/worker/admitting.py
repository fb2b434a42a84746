"""The last look at a model's files before any of its code runs: are they those that were admitted, and still admitted?

It decides nothing about formats (`artefacts`' word): it measures the unpacked folder as the model will see it, with its
permissions set, compares it with what was recorded at import, verifies the signatures, asks for today's decision, and
measures and examines the data mounts that the spec declares. Whatever differs fails the start and names the file; a
changed folder is set aside, so that the next start unpacks the bundle anew. Called by `worker/loading.py` each time.
"""

import asyncio
import contextlib
import dataclasses
import pathlib
import re
import shutil

from forestay.artefacts import limited
from forestay.artefacts.admission import Admission
from forestay.artefacts.decide import Admit, Policy, Refuse, decide_admission
from forestay.artefacts.findings import Finding, FlawKind
from forestay.artefacts.folder import measure_folder
from forestay.artefacts.limited import ExaminationFailed
from forestay.artefacts.manifest import Manifest, decide_differences
from forestay.artefacts.report import Report
from forestay.artefacts.signatures import Signatures
from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.fleet.model import Revision
from forestay.fleet.spec import ArtefactSpec, MountDigest
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import ARTEFACT_FINDINGS, ARTEFACT_SECONDS, Metrics
from forestay.worker.hosts.host import StartFailed

log = logger("worker")
_DIGEST = re.compile(r"bundles/([0-9a-f]{64})\.tar")
_SET_ASIDE = ".altered"
MAX_MOUNTS = 64  # whose examinations are remembered


class FileCheck:
    """Checks the files of a revision before each start."""

    def __init__(self, admission: Admission, clock: Clock, metrics: Metrics) -> None:
        self._admission = admission
        self._clock = clock
        self._metrics = metrics
        self._mounts: dict[tuple[str, tuple[str, ...]], Report] = {}

    async def check(self, revision: Revision, bundle: pathlib.Path) -> str:
        """Return in words what was found good; StartFailed names the file that is not, and says what to do."""
        began = self._clock.monotonic()
        try:
            seen, admitted = await self._check_bundle(revision, bundle)
            mounted = [
                await self._check_mount(revision, mount) for mount in revision.spec.artefacts.mounts if mount.digest
            ]
        except (ExaminationFailed, Unavailable) as error:
            raise StartFailed(f"the model's files cannot be checked now: {error}") from None
        seconds = self._clock.monotonic() - began
        size = seen.size_bytes + sum(mounted)
        self._metrics.observe(ARTEFACT_SECONDS, seconds)
        log.info("replica.files", revision=revision.revision_id, bytes=size, seconds=round(seconds, 3))
        return f"{size / 1e6:,.1f} MB checked in {seconds:.2f} s ({admitted.reason})"

    async def _check_bundle(self, revision: Revision, bundle: pathlib.Path) -> tuple[Manifest, Admit]:
        match = _DIGEST.fullmatch(revision.bundle_key or "")
        report = await self._admission.store.report(match[1]) if match else None
        if report is None:
            raise StartFailed("the model's files were never examined; deploy the model again")
        seen, findings = await asyncio.to_thread(measure_folder, bundle)
        found = [*findings, *decide_differences(report.manifest, seen)]
        if found:
            await asyncio.to_thread(_set_aside, bundle)
            raise self._failed(revision, found, "the unpacked files are not those that were admitted")
        decided = await self._admission.decide(report, revision.spec.artefacts)
        if isinstance(decided, Refuse):
            raise self._failed(revision, list(decided.findings), "the model's files are not admitted any more")
        return seen, decided

    async def _check_mount(self, revision: Revision, mount: MountDigest) -> int:
        """Compare a data mount with its declared digest, and examine it the first time; returns its size."""
        folder = pathlib.Path(mount.folder)
        try:
            seen, findings = await asyncio.to_thread(measure_folder, folder)
        except OSError as error:
            raise StartFailed(f"data mount {folder}: cannot be read: {error.strerror}") from None
        found = [_placed(item, folder) for item in findings]
        if seen.digest != mount.digest:
            what = f"its files have the digest {seen.digest}, declared is {mount.digest}"
            found.append(Finding(mount.folder, FlawKind.MOUNT, "", what))
        if not found:
            found = await self._examine_mount(revision, folder, mount.digest)
        if found:
            raise self._failed(revision, found, f"data mount {folder} is refused")
        return seen.size_bytes

    async def _examine_mount(self, revision: Revision, folder: pathlib.Path, digest: str) -> list[Finding]:
        """Return what forbids the files of a mount; what was seen once of a digest is remembered."""
        waiver = revision.spec.artefacts.allow_pickle
        prefix = f"{folder}/"
        asked = tuple(name.removeprefix(prefix) for name in (waiver.files if waiver else ()) if name.startswith(prefix))
        report = self._mounts.get((digest, asked))
        if report is None:
            report = await limited.examine(folder, opinions=asked)
            if len(self._mounts) >= MAX_MOUNTS:
                self._mounts.clear()
            self._mounts[digest, asked] = report
        findings = [_placed(item, folder) for item in report.findings_with(asked)]
        files = [dataclasses.replace(file, name=prefix + file.name) for file in report.files]
        policy = Policy(ArtefactSpec(allow_pickle=waiver), signatures_required=False)
        decided = decide_admission(files, findings, Signatures(), policy, self._clock.now().date())
        return list(decided.findings) if isinstance(decided, Refuse) else []

    def _failed(self, revision: Revision, findings: list[Finding], what: str) -> StartFailed:
        for kind in {item.kind for item in findings}:
            self._metrics.add(ARTEFACT_FINDINGS, kind, "load")
        told = [{"file": item.file, "kind": item.kind.value, "what": item.what} for item in findings[:10]]
        log.error("replica.files_refused", revision=revision.revision_id, findings=told)
        return StartFailed("\n".join([f"{what}:", *(str(item) for item in findings[:10])]))


def _placed(item: Finding, folder: pathlib.Path) -> Finding:
    """Name a file of a mount by its whole path."""
    return dataclasses.replace(item, file=f"{folder}/{item.file}")


def _set_aside(bundle: pathlib.Path) -> None:
    """Keep one changed folder for whoever looks into it, out of the way of the next unpacking."""
    aside = bundle.with_name(bundle.name + _SET_ASIDE)
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(OSError):  # gone already: another worker of this machine was faster
        bundle.rename(aside)
