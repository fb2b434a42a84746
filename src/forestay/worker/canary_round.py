"""One round of golden canaries on one replica: draws, learns what has no golden yet, compares, says what it found.

It decides nothing: `quality/golden` says what is learned, `quality/canary` what differs and what that means. A canary
takes a free slot only while neither lane wants one, and gives it back after its input. It goes to the host past the
queue: no request, no fact, no bill, no SLO knows of it; two metrics do. Called by `canaries`.
"""

import dataclasses
import datetime as dt
import hashlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from forestay.chance import Chance
from forestay.clock import Clock
from forestay.fleet.model import ReplicaState
from forestay.fleet.spec_quality import CanaryInput
from forestay.ids import ReplicaId, RevisionId, TenantId, new_request_id
from forestay.quality.canary import Compared, Golden, Round, Standing, compare, decide_round
from forestay.quality.canary_store import CanaryStore, Ended, PlayedCanary, PlayedRound
from forestay.quality.findings import Finding, FindingStore, Source, Where
from forestay.quality.golden import (
    Baseline,
    Cause,
    Learned,
    Taught,
    choose_baseline,
    compare_across,
    learned,
)
from forestay.quality.pipeline_parts import Change, Parts, changes_between, parts_of
from forestay.quality.probes import PROBE_HEADER, asks_adapters, read_report
from forestay.queue.model import Answer
from forestay.storage.objects import ObjectStore
from forestay.telemetry.metrics import CANARY_SECONDS, Metrics
from forestay.worker.answer_files import parsed_or_none
from forestay.worker.attempt import endpoint_of
from forestay.worker.canary_looks import CanaryLooks, Drawn
from forestay.worker.hosts.host import Answered, CallRequest
from forestay.worker.inputs import Inputs
from forestay.worker.replica import Replica, Running

CANARY_TENANT = TenantId("forestay-canaries")  # of files while they are looked at; no tenant has this id
SLOT_LOOK_SECONDS = 0.25
PAUSE_SECONDS = 0.05  # between two canaries, in which whoever waits for the slot takes it
SLOT_SECONDS = 30.0  # a round that gets no free slot for so long is given up, and is due again
HOUR_SECONDS = 3600.0
PEER_ROUNDS = 200  # newest rounds of a model among which those of peers are looked for
UNPROBED = "no pipeline"
PICTURES = "canaries"


@dataclasses.dataclass(frozen=True, slots=True)
class CanaryPorts:
    """What playing canaries may use of the world."""

    store: CanaryStore
    findings: FindingStore | None
    found: Callable[[Sequence[Finding]], None]  # takes findings; never waits
    objects: ObjectStore
    inputs: Inputs
    looks: CanaryLooks
    replicas: Callable[[], Sequence[Replica]]
    placed: Callable[[RevisionId], int]  # replicas of a revision in the whole fleet
    device: str
    clock: Clock
    chance: Chance
    metrics: Metrics


@dataclasses.dataclass(slots=True)
class Known:
    """What is remembered of one replica."""

    played_at: dt.datetime | None = None
    spent: deque[tuple[float, float]] = dataclasses.field(default_factory=deque[tuple[float, float]])  # when, seconds

    def spent_within_hour(self, now: float) -> float:
        """Return the device-seconds that canaries took within the last hour."""
        while self.spent and now - self.spent[0][0] > HOUR_SECONDS:
            self.spent.popleft()
        return sum(seconds for _, seconds in self.spent)


@dataclasses.dataclass(frozen=True, slots=True)
class _Made:
    """What one call made, and of what its pipeline consisted."""

    drawn: Drawn
    environment: str = UNPROBED
    fingerprint: str = ""
    parts: Parts = dataclasses.field(default_factory=dict[str, Mapping[str, str]])


class NoSlot(Exception):
    """No slot was free for long, or the replica serves no more."""


class CanaryRound:
    """One round of one replica."""

    def __init__(self, ports: CanaryPorts, replica: Replica, cause: Cause, known: Known) -> None:
        self._ports = ports
        self._replica = replica
        self._cause = cause
        self._known = known
        self._spec = replica.revision.spec.quality.canaries
        self._baseline: Baseline | None = None
        self._taught: list[Taught] = []
        self._fresh: list[Taught] = []
        self._peers: set[ReplicaId] = set()
        self._parts_before: dict[str, Parts] = {}  # of the pipeline that drew the golden of each canary
        self._seconds = 0.0
        self._disputed: list[str] = []  # canaries whose replicas do not agree

    async def read(self) -> None:
        """Read what is known of the goldens that this revision is held against."""
        revision, store = self._replica.revision, self._ports.store
        baselines = await store.baselines(revision.model_id)
        if not baselines:
            now = self._ports.clock.now()
            await store.begin(Baseline(revision.model_id, revision.revision_id, revision.created_at, now))
            baselines = await store.baselines(revision.model_id)
        self._baseline = choose_baseline(baselines, revision.created_at)
        if self._baseline is not None:
            self._taught = await store.taught(revision.model_id, self._baseline.revision_id)
        newest: dict[ReplicaId, PlayedRound] = {}
        rounds = await store.rounds(revision.model_id, PEER_ROUNDS)
        if self._baseline is not None:
            self._parts_before = _parts_by_canary(rounds, self._baseline.revision_id)
        for item in rounds:
            if item.revision_id == revision.revision_id and item.replica_id != self._replica.replica_id:
                newest.setdefault(item.replica_id, item)
        self._peers = {name for name, item in newest.items() if item.ended is Ended.PASSED}

    async def play(self, began_at: dt.datetime) -> PlayedRound:
        """Play every canary; returns the round, with its finding on its way."""
        rows: list[PlayedCanary] = []
        compared: list[Compared] = []
        whole = True
        for item in self._spec.inputs:
            if self._spent_up():
                whole = False
                break
            row, outcome = await self._canary(item)
            rows.append(row)
            compared += [outcome] if outcome is not None else []
        await self._learn()
        if self._disputed:
            self._ports.found([self._dispute()])
        finding = self._finding(compared, _changes(rows, self._parts_before))
        if finding is not None and self._cause is not Cause.SELF_TEST:  # what is tested was found already
            self._ports.found([finding])
        ended = _ended(rows, compared, whole=whole)
        replica = self._replica
        return PlayedRound(
            model_id=replica.revision.model_id,
            revision_id=replica.revision.revision_id,
            replica_id=replica.replica_id,
            worker_id=replica.worker_id,
            cause=self._cause,
            began_at=began_at,
            device_seconds=self._seconds,
            ended=ended,
            words=finding.what if finding is not None else _words(rows, ended),
            canaries=tuple(rows),
        )

    async def _canary(self, item: CanaryInput) -> tuple[PlayedCanary, Compared | None]:
        """Play one canary, as often as its golden needs it; returns its row and how it compares, if to anything."""
        made = await self._draw(item)
        drawn, environment = made.drawn, made.environment
        picture_key = await self._keep(drawn)
        known = self._golden(item.key, environment)
        row = PlayedCanary(item.key, environment, None, look=drawn.look, picture_key=picture_key,
                           fingerprint=made.fingerprint, words=drawn.words or known.words,
                           parts=made.parts)  # fmt: skip
        if known.golden is not None:
            outcome = compare(item.key, drawn.look, known.golden)
        else:
            outcome = compare_across(item.key, drawn.look, self._elsewhere(item.key, environment))
            if self._cause is not Cause.SELF_TEST and (outcome is None or not outcome.failed):
                await self._teach(item, environment, drawn, picture_key)
                outcome = None
        if outcome is None:
            return row, None
        return dataclasses.replace(
            row, standing=outcome.standing, levels=outcome.levels, band=outcome.band, feature=outcome.feature
        ), outcome

    async def _teach(self, item: CanaryInput, environment: str, drawn: Drawn, picture_key: str) -> None:
        """Draw what the golden is learned of, once for each replica."""
        name = self._replica.replica_id
        before = [i for i in self._taught if (i.canary, i.environment, i.replica_id) == (item.key, environment, name)]
        look, key = drawn.look, picture_key
        for number in range(len(before), self._spec.reruns):
            if number > len(before):
                if self._spent_up():
                    return
                again = (await self._draw(item)).drawn
                look, key = again.look, await self._keep(again)
            if look is None:
                return
            self._fresh.append(Taught(item.key, environment, name, look, key))

    async def _learn(self) -> None:
        """Keep what was drawn for goldens, and settle those that replicas agree on."""
        if self._baseline is None or not self._fresh:
            return
        store, revision = self._ports.store, self._replica.revision
        await store.teach(revision.model_id, self._baseline.revision_id, self._fresh)
        self._taught = await store.taught(revision.model_id, self._baseline.revision_id)
        for canary, environment in sorted({(item.canary, item.environment) for item in self._fresh}):
            known = self._golden(canary, environment)
            self._disputed += [canary] if known.disputed else []
            if known.golden is not None and not known.of[0].settled:
                await store.settle([item.look_id for item in known.of])
                await self._end_dispute()

    def _golden(self, canary: str, environment: str) -> Learned:
        looks = [item for item in self._taught if (item.canary, item.environment) == (canary, environment)]
        placed = self._ports.placed(self._replica.revision.revision_id)
        return learned(environment, looks, placed, self._spec.reruns)

    def _elsewhere(self, canary: str, environment: str) -> list[Golden]:
        others = {i.environment for i in self._taught if i.canary == canary and i.environment != environment}
        found = [self._golden(canary, other).golden for other in sorted(others)]
        return [golden for golden in found if golden is not None]

    def _finding(self, compared: Sequence[Compared], changes: tuple[Change, ...]) -> Finding | None:
        """Return what the round found: of this replica, or of its revision where nothing of the kind drew otherwise."""
        revision, replica = self._replica.revision, self._replica
        own = self._baseline is not None and self._baseline.revision_id == revision.revision_id
        teachers = {item.replica_id for item in self._taught if item.settled and own} - {replica.replica_id}
        played = Round(
            compared=tuple(compared),
            with_adapter=frozenset(i.key for i in self._spec.inputs if asks_adapters(parsed_or_none(i.input.encode()))),
            after_adapter=self._cause is Cause.ADAPTER,
            peers_whole=len(self._peers | teachers),
            drew_alike=own,
            changes=changes,
        )
        whole_revision = not played.after_adapter and not played.peers_whole and not own
        where = Where(revision.model_id, revision.revision_id)
        if not whole_revision:
            device = ",".join(replica.devices or ()) or self._ports.device
            where = dataclasses.replace(
                where, worker_id=replica.worker_id, replica_id=replica.replica_id, device=device
            )
        return decide_round(played, where, self._ports.clock.now())

    async def _end_dispute(self) -> None:
        """Close the finding that replicas disagreed, where there is one: more than half of them agree now."""
        if self._ports.findings is not None:
            finding_id, now = self._dispute().finding_id, self._ports.clock.now()
            await self._ports.findings.close(
                finding_id, now, "a golden is learned: more than half of the replicas agree"
            )

    def _dispute(self) -> Finding:
        """Return that replicas draw otherwise, and nobody can say which is right: it is alerted on, and drains none."""
        revision, named = self._replica.revision, sorted(set(self._disputed))
        what = f"replicas of the revision do not agree on {', '.join(named)}: no golden is learned"
        where = Where(revision.model_id, revision.revision_id, parameter="golden disputed")
        now = self._ports.clock.now()
        return Finding(what, 0, where, {"disputed_canaries": float(len(named))}, now, Source.CANARY)

    def _spent_up(self) -> bool:
        if self._cause in {Cause.PERSON, Cause.SELF_TEST}:
            return False
        spent = self._known.spent_within_hour(self._ports.clock.monotonic())
        return spent >= self._spec.budget_seconds_per_hour

    async def _draw(self, item: CanaryInput) -> _Made:
        """Call the model once in a free slot."""
        call = Running(
            request_id=new_request_id(self._ports.clock.now(), 0, self._ports.chance),
            attempt=0,
            tenant_id=CANARY_TENANT,
            guarded=True,  # its files stay in quarantine
            probe=True,
        )
        await self._take_slot(call)
        try:
            return await self._call(item, call)
        finally:
            self._replica.release(call)
            await self._ports.clock.sleep(PAUSE_SECONDS)

    async def _take_slot(self, call: Running) -> None:
        deadline = self._ports.clock.monotonic() + SLOT_SECONDS
        while not self._replica.take_spare(call):
            if self._replica.state is not ReplicaState.READY or self._ports.clock.monotonic() > deadline:
                raise NoSlot
            await self._ports.clock.sleep(SLOT_LOOK_SECONDS)

    async def _call(self, item: CanaryInput, call: Running) -> _Made:
        spec, host = self._replica.revision.spec, self._replica.host
        body = await self._ports.inputs.prepare(item.input.encode(), endpoint_of(spec, item.endpoint))
        if isinstance(body, Answer):
            return _Made(Drawn(None, words="its input's files cannot be fetched"))
        if host is None:
            raise NoSlot
        headers = {
            "content-type": "application/json",
            "x-fal-request-id": str(call.request_id),
            "x-fal-endpoint": item.endpoint,
            PROBE_HEADER: "weights",
        }
        request = CallRequest(call.request_id, 0, item.endpoint, headers, body, spec.limits.request_timeout_seconds)
        started = self._ports.clock.monotonic()
        result = await host.call(request)
        self._count((self._ports.clock.monotonic() - started) * spec.resources.devices)
        if not isinstance(result, Answered):
            return _Made(Drawn(None, words=f"no answer: {type(result).__name__}"))
        answer = Answer(result.status_code, result.headers, result.body)
        report = read_report(result.headers.get(PROBE_HEADER))
        dtype = report.calls[0].dtype if report is not None and report.calls else ""
        environment = (
            ", ".join(part for part in (report.environment, dtype) if part) if report is not None else UNPROBED
        )
        if not 200 <= result.status_code < 300:
            await self._ports.looks.forget(answer)
            return _Made(Drawn(None, words=f"answered with status {result.status_code}"), environment)
        drawn = await self._ports.looks.drawn(answer, item.input.encode())
        if report is None:
            return _Made(drawn, environment)
        return _Made(drawn, environment, report.fingerprint, parts_of(report))

    def _count(self, seconds: float) -> None:
        self._seconds += seconds
        if self._cause is not Cause.SELF_TEST:
            self._known.spent.append((self._ports.clock.monotonic(), seconds))
        self._ports.metrics.add(CANARY_SECONDS, self._replica.revision.model_id, amount=seconds)

    async def _keep(self, drawn: Drawn) -> str:
        """Store a picture under its digest, so that the same picture is stored once."""
        if not drawn.png:
            return ""
        key = f"{PICTURES}/{hashlib.sha256(drawn.png).hexdigest()}.png"
        if await self._ports.objects.size(key) is None:
            await self._ports.objects.put(key, drawn.png)
        return key


def _parts_by_canary(rounds: Sequence[PlayedRound], revision_id: RevisionId) -> dict[str, Parts]:
    """Return of what the pipeline of a revision consisted when each canary was as its golden, or taught it, last."""
    found: dict[str, Parts] = {}
    for item in rounds:
        for row in item.canaries if item.revision_id == revision_id else ():
            if row.standing in {None, Standing.SAME, Standing.WITHIN} and row.parts:
                found.setdefault(row.canary, row.parts)
    return found


def _changes(rows: Sequence[PlayedCanary], before: Mapping[str, Parts]) -> tuple[Change, ...]:
    """Return what of the pipeline has changed since the golden of the first canary that differs was drawn."""
    failed = (row for row in rows if row.standing in {Standing.DIFFERS, Standing.MISSING})
    return next((changes_between(before.get(row.canary, {}), row.parts) for row in failed if row.parts), ())


def _ended(rows: Sequence[PlayedCanary], compared: Sequence[Compared], *, whole: bool) -> Ended:
    if any(item.failed for item in compared):
        return Ended.FAILED
    if not whole:
        return Ended.CUT_SHORT
    return Ended.LEARNING if any(row.standing is None for row in rows) else Ended.PASSED


def _words(rows: Sequence[PlayedCanary], ended: Ended) -> str:
    if ended is Ended.LEARNING:
        return next((row.words for row in rows if row.standing is None and row.words), "the goldens are being learned")
    if ended is Ended.CUT_SHORT:
        return "the budget of this hour was spent before the last canary"
    within = sum(row.standing is Standing.WITHIN for row in rows)
    return f"{len(rows) - within} canaries are the same and {within} within their bands"
