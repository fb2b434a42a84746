"""Holds an output against its contract before it is a success: opens its files and asks `quality` about the numbers.

It decides nothing about a file. It decides which files are looked at (those of ours and data: URIs that say they are
media and do not repeat the input), and that what cannot be looked at goes on: a decoder that is down, or a format that
is not opened, is no fault of the model. That is counted. Links of a provider are the provider's own and are not fetched
for this. Called by `attempt` and by the direct lane.
"""

import asyncio
import dataclasses
import functools
import hashlib
import pathlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import IO

from forestay.clock import Clock
from forestay.errors import ForestayError
from forestay.fleet.spec import ModelSpec
from forestay.ids import ReplicaId, RequestId, TenantId
from forestay.media.decode import MediaRefused, open_scratch
from forestay.media.store import MediaStore
from forestay.media.urls import SCHEME
from forestay.quality.asked import asked_of, served_of
from forestay.quality.contracts import File, Row, Standing, check_output
from forestay.quality.decide import decide_aside, decide_whole
from forestay.quality.findings import Finding, Where
from forestay.quality.fingerprints import check_forbidden, fingerprint_of
from forestay.quality.noting import content_digest, note_outputs
from forestay.quality.probes import check_report, read_report
from forestay.queue.model import Answer, Lease
from forestay.queue.retry import Retry
from forestay.safety.leaves import Leaf
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import OUTPUT_CHECK_SECONDS, OUTPUT_CHECKS, OUTPUTS_UNCHECKED, Metrics
from forestay.worker.answer_files import bring, declared_type, files_of, parsed_or_none, value_of
from forestay.worker.looks import Looks
from forestay.worker.output_notes import Made, OutputNotes
from forestay.worker.scoring import Scored

AT_A_TIME = 4
MAX_FILES = 64  # of one answer; a longer list is counted, and its first files are opened
MAX_FILE_BYTES = 256 * 1024 * 1024
MAX_REMEMBERED = 1_000  # requests whose output a replica of this worker broke
_MEDIA = ("image/", "video/", "audio/")
log = logger("worker")


@dataclasses.dataclass(frozen=True, slots=True)
class QualityPorts:
    """What looking at outputs may use of the world."""

    media: MediaStore
    looks: Looks
    folder: pathlib.Path  # for scratch files
    clock: Clock
    metrics: Metrics
    file_seconds: float  # to bring and open one file
    found: Callable[[Sequence[Finding]], None]  # takes findings; never waits
    guard_looks: Callable[[str, TenantId, RequestId], bool]  # whether the guard will look at files of this request
    notes: OutputNotes  # for those who follow many outputs
    score: Callable[[Scored], None]  # offers outputs to scorers; never waits
    key: bytes = b"no key"  # of the digests in notes


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """One answer, and the request that it is for."""

    request_id: RequestId
    tenant_id: TenantId
    spec: ModelSpec
    answer: Answer
    said: bytes  # the caller's own input
    risk: float  # of the input: how closely the guard will look at the files
    where: Where | None = None  # which replica made it
    probe: str | None = None  # what the probes in its pipeline say
    made: Made | None = None  # by which attempt; None: nobody takes notes of it


class OutputQuality:
    """Looks at the outputs of one worker."""

    def __init__(self, ports: QualityPorts) -> None:
        self._ports = ports
        self._broke: OrderedDict[RequestId, tuple[ReplicaId, int]] = OrderedDict()

    def concerns(self, spec: ModelSpec) -> bool:
        """Tell whether outputs of the model are looked at."""
        return spec.quality.looks

    async def broken_by(self, output: Output) -> Row | None:
        """Return the check by which the output fails; None: it may go on."""
        if not output.spec.quality.looks:
            return None
        started = self._ports.clock.monotonic()
        probed = self._probed(output)
        rows = [*probed, *await self._rows(output, probed)]
        model = str(output.spec.model_id)
        for row in rows:
            if row.standing is not Standing.PASSED:
                self._ports.metrics.add(OUTPUT_CHECKS, model, row.check.value, row.standing.value)
                log.info("output.check", request=str(output.request_id), model=model, check=row.check.value,
                         standing=row.standing.value, where=row.where, found=row.found, limit=row.limit)  # fmt: skip
        self._ports.metrics.observe(OUTPUT_CHECK_SECONDS, self._ports.clock.monotonic() - started)
        return decide_whole(rows, output.spec.quality)

    def _probed(self, output: Output) -> list[Row]:
        """Take note of what the probes saw; returns the check that fails by it, if it is made."""
        report = read_report(output.probe)
        if report is None:
            return []
        where = output.where or Where(output.spec.model_id)
        seen = check_report(report, parsed_or_none(output.said), where, self._ports.clock.now())
        forbidden = check_forbidden(report, output.spec.quality.forbidden, where, self._ports.clock.now())
        self._ports.found([*seen.findings, *forbidden])
        skipped = seen.broken is None or seen.broken.check in output.spec.quality.skip
        return [] if skipped or seen.broken is None else [seen.broken]

    def broke(self, lease: Lease) -> None:
        """Remember that a replica of this worker broke an output of this request."""
        self._broke[lease.request_id] = (lease.replica_id, 0)
        while len(self._broke) > MAX_REMEMBERED:
            self._broke.popitem(last=False)

    def aside(self, lease: Lease) -> Retry | None:
        """Return how a lease is given back to reach another replica; None when this one is to run it."""
        replica_id, times = self._broke.get(lease.request_id, ("", 0))
        if replica_id != lease.replica_id:
            return None
        self._broke[lease.request_id] = (lease.replica_id, times + 1)
        return decide_aside(times)

    async def _rows(self, output: Output, probed: Sequence[Row]) -> list[Row]:
        value = value_of(output.answer)
        said = parsed_or_none(output.said)
        leaves = files_of(value, output.answer, said)
        looks = self._ports.guard_looks(output.spec.safety.policy, output.tenant_id, output.request_id)
        prompt_score = output.risk if looks else None
        gate = asyncio.Semaphore(AT_A_TIME)

        async def one(leaf: Leaf) -> tuple[Leaf, File] | None:
            async with gate:
                file = await self._open(output, leaf, declared_type(value, leaf), prompt_score)
                return None if file is None else (leaf, file)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(leaf)) for leaf in leaves[:MAX_FILES]]
        found = [pair for task in tasks if (pair := task.result()) is not None]
        files = [file for _, file in found]
        rows = check_output(files, asked_of(said), served_of(value), output.spec.quality)
        if output.made is not None and output.where is not None and files:
            noted = note_outputs(said, files, [*probed, *rows], self._ports.key)
            report = read_report(output.probe)
            printed = fingerprint_of(report) if report is not None else None
            made = dataclasses.replace(output.made, fingerprint=printed)
            ids = (output.request_id, output.tenant_id)
            self._ports.notes.note(ids, output.where, made, noted)
            whole = [(leaf, note) for (leaf, _), note in zip(found, noted, strict=True) if not note.failed]
            self._ports.score(Scored(ids, output.where, made, said, output.spec.quality.scorers, whole))
        return rows

    async def _open(self, output: Output, leaf: Leaf, declared: str, prompt_score: float | None) -> File | None:
        """Return a file with its numbers; None where nothing can be said of it."""
        index = next((part for part in leaf.path if isinstance(part, int)), None)
        try:
            async with asyncio.timeout(self._ports.file_seconds):
                with open_scratch(self._ports.folder) as file:
                    kind = await bring(self._ports.media, leaf, file)
                    if not (declared or kind).startswith(_MEDIA):
                        return None
                    measured = await self._ports.looks.measure(file, leaf.where, prompt_score)
                    content = await asyncio.to_thread(self._digest, file)
                    return File(leaf.where, index, measured, declared=declared, content=content)
        except MediaRefused as error:
            if error.fault == "broken":
                return File(leaf.where, index, None, error.message, declared)
            reason = error.fault
        except (ForestayError, OSError, TimeoutError, ValueError) as error:
            reason = type(error).__name__
        self._ports.metrics.add(OUTPUTS_UNCHECKED, reason)
        log.info("output.unchecked", request=str(output.request_id), where=leaf.where, reason=reason)
        return None

    def _digest(self, file: IO[bytes]) -> int:
        file.seek(0)
        keyed = functools.partial(hashlib.blake2b, digest_size=8, key=self._ports.key)
        found = hashlib.file_digest(file, keyed)  # pyright: ignore[reportArgumentType, reportUnknownVariableType]
        return content_digest(found.digest())


def has_files(answer: Answer) -> bool:
    """Tell quickly whether an answer may hold files at all: most of a text model's do not."""
    kind = answer.headers.get("content-type", "")
    return kind.startswith(_MEDIA) or SCHEME.encode() in answer.body or b"data:" in answer.body
