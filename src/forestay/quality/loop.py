"""The quality loop: reads outputs as they are noted, follows them, keeps what it finds, asks for remedies.

It decides nothing by itself: `watching` and `duplicates` see, `diagnosis` names, `remedies` decides, the fleet's door
lets through (mode, freeze, cap). Its state goes with the position it has read up to in one transaction: after a crash
the same outputs are read again and lead to the same state and the same findings, which are kept once. Called by the
controller.
"""

import asyncio
import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Protocol

from forestay.clock import Clock
from forestay.fleet.actions import Decided, Effect, Origin, Place, SetRoutes
from forestay.fleet.model import Fleet
from forestay.fleet.store import FleetStore
from forestay.quality import remedies
from forestay.quality.canary_store import SelfTested, Spot
from forestay.quality.catalogue import PROMPT_MIX
from forestay.quality.diagnosis import diagnose
from forestay.quality.drift import decide_fleet
from forestay.quality.duplicates import Duplicate, Duplicates
from forestay.quality.findings import Finding, FindingStore, Kept
from forestay.quality.remedies import AskSelfTest, DrainReplica, GiveBack, Ground, LeaveRevision, LiftHold, Remedy
from forestay.quality.reports import report_duplicate, report_of
from forestay.quality.suspicions import suspicions_of
from forestay.quality.watch_store import Hold, HoldStore, WatchStore
from forestay.quality.watching import (
    META,
    Broke,
    Event,
    Meta,
    Rules,
    StreamKey,
    Watch,
    packed,
    stratum_in,
    unpacked_meta,
)
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import (
    QUALITY_DECIDED,
    QUALITY_FINDINGS,
    QUALITY_LAG_SECONDS,
    QUALITY_OUTPUTS,
    Metrics,
)
from forestay.telemetry.output_facts import LATEST, OutputFact, OutputSource

BATCH = 500
SAVE_SECONDS = 5.0
LOOKED_AT = 600  # outputs of a revision that a change is explained by
SETTLED = 40  # outputs since a change, from which it is told even where nothing explains it
SETTLED_AFTER = dt.timedelta(minutes=2)  # or so long after it began
FALSE_SHARE = 0.1  # of the streams that are said to have changed, on average over the fleet
HISTORY = dt.timedelta(days=2)
REMEMBERED = 5_000  # outputs that are read again at the start, to know duplicates by
ASKED_AGAIN = dt.timedelta(minutes=10)  # at the earliest, what the door did not let through
ACTOR = "loop:quality"
_LOG = logger("quality")


class SelfTest(Protocol):
    """Runs the canary on a worker that is held back, before it may serve again."""

    async def ask(self, hold: Hold) -> None:
        """Ask for a test; its result is told by `results` later."""
        ...

    async def results(self) -> Mapping[Spot, SelfTested]:
        """Return the last self-test of each worker and revision."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class QualityPorts:
    """What the loop may use of the world."""

    outputs: OutputSource
    fleet: FleetStore
    findings: FindingStore
    state: WatchStore
    holds: HoldStore
    clock: Clock
    metrics: Metrics
    rules: Rules
    self_test: SelfTest | None = None  # without one a person ends what is held back


class QualityLoop:
    """One controller's watch over all outputs."""

    def __init__(self, ports: QualityPorts) -> None:
        self._ports = ports
        self._watch = Watch(ports.rules)
        self._duplicates = Duplicates()
        self._meta: Meta | None = None
        self._saved_at = 0.0
        self._gone: list[str] = []
        self._dirty = False
        self._refused: dict[str, dt.datetime] = {}
        self._waiting: dict[tuple[str, StreamKey], Event] = {}  # changes that nothing explains yet

    async def run_once(self) -> int:
        """Read, follow, report and ask once; returns how many outputs were read."""
        meta = await self._remember()
        now = self._ports.clock.now()
        since = (meta.at or now - HISTORY) - LATEST
        facts = await self._ports.outputs.after(meta.position, since, BATCH)
        events, doubles = await asyncio.to_thread(self._take, facts)
        if facts:
            meta.position, meta.at = facts[-1].position, max(facts[-1].at, meta.at or facts[-1].at)
            self._dirty = True
            self._ports.metrics.add(QUALITY_OUTPUTS, amount=len(facts))
        lag = (now - facts[-1].at).total_seconds() if facts else 0.0
        self._ports.metrics.set(QUALITY_LAG_SECONDS, max(0.0, lag))
        fleet = await self._ports.fleet.load()
        await self._report(events, doubles, fleet)
        await self._remedy(fleet)
        if self._dirty and self._ports.clock.monotonic() - self._saved_at >= SAVE_SECONDS:
            self._gone += self._watch.forget(frozenset(fleet.replicas))
            await self.save()
        return len(facts)

    async def save(self) -> None:
        """Write the state down with the position that it was read up to."""
        if self._meta is None:
            return
        self._meta.serial += 1
        parts = await asyncio.to_thread(self._watch.changed_parts)
        await self._ports.state.save({**parts, META: packed(self._meta)}, self._gone)
        self._gone, self._dirty = [], False
        self._saved_at = self._ports.clock.monotonic()

    def _take(self, facts: Sequence[OutputFact]) -> tuple[list[Event], list[Duplicate]]:
        return self._watch.take(facts), self._duplicates.take(facts)

    async def _remember(self) -> Meta:
        """Return how far the state goes; read it first when another process has written since."""
        data = await self._ports.state.meta()
        stored = None if data is None else unpacked_meta(data)
        if self._meta is not None and (stored is None or stored.serial == self._meta.serial):
            return self._meta
        self._watch, self._duplicates = Watch(self._ports.rules), Duplicates()
        if stored is not None:
            parts = await self._ports.state.load()
            await asyncio.to_thread(self._watch.restore, parts)
            since = (stored.at or self._ports.clock.now()) - LATEST
            before = await self._ports.outputs.after(max(0, stored.position - REMEMBERED), since, REMEMBERED)
            self._duplicates.take([fact for fact in before if fact.position <= stored.position])
        self._meta = stored or Meta()
        self._saved_at = self._ports.clock.monotonic()
        return self._meta

    async def _report(self, events: Sequence[Event], doubles: Sequence[Duplicate], fleet: Fleet) -> None:
        found = [report_duplicate(item) for item in doubles]
        for event in events:
            self._waiting.setdefault((type(event).__name__, event.key), event)
        named = self._named() if self._waiting else frozenset[StreamKey]()
        for name, event in list(self._waiting.items()):
            finding = await self._explained(event, fleet, sure=isinstance(event, Broke) or event.key in named)
            if finding is None:
                continue
            del self._waiting[name]
            if finding.catalogue == PROMPT_MIX:  # nothing is wrong with the model: nobody is told
                self._ports.metrics.add(QUALITY_DECIDED, "PromptMix", "passed over")
                _LOG.info("quality.prompt_mix", model=finding.where.model_id, what=finding.what)
            else:
                found.append(finding)
        if not found:
            return
        by_id = {item.finding_id: item for item in found}
        for finding_id in await self._ports.findings.keep(found, self._ports.clock.now()):
            item = by_id[finding_id]
            self._ports.metrics.add(QUALITY_FINDINGS, item.source.value)
            _LOG.warning("quality.found", finding=finding_id, model=item.where.model_id, row=item.catalogue,
                         revision=item.where.revision_id, replica=item.where.replica_id, what=item.what)  # fmt: skip

    def _named(self) -> frozenset[StreamKey]:
        """Return the streams that have changed beyond what the fleet's rate of false alarms allows for."""
        evidence = {str(number): (key, value) for number, (key, value) in enumerate(self._watch.evidence().items())}
        chosen = decide_fleet({name: value for name, (_, value) in evidence.items()}, FALSE_SHARE)
        return frozenset(evidence[name][0] for name in chosen)

    async def _explained(self, event: Event, fleet: Fleet, *, sure: bool) -> Finding | None:
        """Return what is to be told of a change; None while too little was seen since to say where it is."""
        key = event.key
        facts = await self._ports.outputs.of_revision(key.revision_id, key.kind, event.since, LOOKED_AT) or [event.fact]
        base = self._watch.streams[key].base if key in self._watch.streams else key.revision_id
        reference = self._watch.references.get((base, key.kind))
        known = reference.strata() if reference is not None else {}
        strata = [stratum_in(fact, known) for fact in facts]
        check = event.check if isinstance(event, Broke) else ""
        told = await asyncio.to_thread(diagnose, facts, known, strata, check)
        young = len(facts) < SETTLED and fleet.now - event.since < SETTLED_AFTER
        peers = sum(item.revision_id == key.revision_id for item in fleet.replicas.values()) > 1
        if told.contrast is None and young and peers:
            return None
        return report_of(event, told, fleet, sure=sure)

    async def _remedy(self, fleet: Fleet) -> None:
        """Ask the door for what follows, and note what it let through."""
        now = fleet.now
        kept = await self._ports.findings.found(None, now - remedies.FRESH)
        known = await self._ports.holds.holds(now - remedies.AGAIN)
        if not kept and not known:
            return
        holds, lifted = (
            [item for item in known if item.lifted_at is None],
            [item for item in known if item.lifted_at is not None],
        )
        tested: Mapping[Spot, SelfTested] = {}
        if self._ports.self_test is not None:
            tested = await self._ports.self_test.results()
        self._refused = {name: until for name, until in self._refused.items() if until > now}
        ground = Ground(fleet, suspicions_of(kept, fleet), holds, tested, self._refused, lifted)
        for remedy in remedies.decide(ground, now):
            await self._carry_out(remedy, kept, now)

    async def _carry_out(self, remedy: Remedy, kept: Sequence[Kept], now: dt.datetime) -> None:
        effect = Effect.APPLIED
        match remedy:
            case DrainReplica(hold, left):
                ending = (hold.replica_id,) if left else ()
                effect = await self._ask(Place(hold.worker_id, hold.revision_id, left, remedy.reason, ending))
                if effect is Effect.APPLIED:
                    await self._ports.holds.hold(hold)
                else:
                    self._refused[hold.finding_id] = now + ASKED_AGAIN
            case LeaveRevision(model_id, revision_id, routes, reason):
                effect = await self._ask(SetRoutes(model_id, routes, reason))
                if effect is not Effect.APPLIED:
                    here = (item.finding for item in kept if item.finding.where.revision_id == revision_id)
                    self._refused |= {item.finding_id: now + ASKED_AGAIN for item in here}
            case AskSelfTest(hold):
                if self._ports.self_test is None:
                    return
                await self._ports.self_test.ask(hold)
            case LiftHold(hold):
                await self._ports.holds.lift(hold.worker_id, hold.revision_id, now, remedy.reason)
                await self._ports.findings.close(hold.finding_id, now, remedy.reason)
            case GiveBack(hold, replicas, reason):
                effect = await self._ask(Place(hold.worker_id, hold.revision_id, replicas, reason))
                if effect is Effect.APPLIED:
                    await self._ports.holds.give_back(hold.worker_id, hold.revision_id)
                else:
                    self._refused[hold.finding_id] = now + ASKED_AGAIN
        self._ports.metrics.add(QUALITY_DECIDED, type(remedy).__name__, effect.value)
        _LOG.warning("quality.decided", remedy=type(remedy).__name__, effect=effect.value, reason=remedy.reason)

    async def _ask(self, action: Place | SetRoutes) -> Effect:
        decided: Sequence[Decided] = await self._ports.fleet.apply([action], origin=Origin.QUALITY, actor=ACTOR)
        return decided[0].effect
