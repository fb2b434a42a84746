"""The control loops with their beats: each is `run_once` of its domain, put together with what it needs.

It decides how often each runs and what wakes it; `controller` runs them. Imports wait until the controller starts.
Called by the wiring of the controller process.
"""

import datetime as dt
import functools
import pathlib
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from forestay.errors import UsageError
from forestay.startup import Process, Stores, admission, audit_anchor, limit_counters, own_name, reviewing, sealing

if TYPE_CHECKING:
    from forestay.abuse.loop import AbuseLoop
    from forestay.alerts.loop import AlertLoop
    from forestay.capacity.fal_metrics import FalMetrics
    from forestay.capacity.learn import LearningLoop
    from forestay.capacity.loop import Held
    from forestay.capacity.placement import Spot
    from forestay.capacity.shed_loop import SheddingLoop
    from forestay.controller import Loop
    from forestay.delivery.outbox import PostgresOutbox
    from forestay.delivery.signing import SigningKeys
    from forestay.fleet.model import ModelEntry
    from forestay.ids import ModelId
    from forestay.readiness.gather import Sources
    from forestay.safety.review.desk import ReviewDesk

FINGERPRINT_BATCH = 5_000
FINDING_BATCH = 1_000


def control_loops(process: Process, stores: Stores) -> "list[Loop]":
    """List the control loops with their beats; each is `run_once` of its domain."""
    from forestay.abuse.loop import BATCH as ABUSE_BATCH
    from forestay.capacity import learn
    from forestay.capacity.loop import PlacementLoop
    from forestay.controller import Loop
    from forestay.delivery import retention as old_webhooks
    from forestay.fleet.postgres_people import PostgresPeopleStore
    from forestay.media import retention as old_media
    from forestay.queue import claiming, expire, rescue
    from forestay.queue import retention as old_requests
    from forestay.rollouts.loop import RolloutLoop

    queue, settings = stores.queue, process.settings
    people = PostgresPeopleStore(stores.database, process.clock, process.chance)
    kept = settings.queue.retention_seconds
    outbox = _outbox(stores)
    rescue_beat = max(0.1, min(1.0, settings.queue.lease_seconds / 8))  # an orphan runs again within 1.5 leases
    loops = [
        Loop("rescue", rescue_beat, lambda: rescue.run_once(queue, stores.wakeups)),
        Loop("expire", 0.5, lambda: expire.run_once(queue, stores.wakeups)),
        Loop(
            "placement",
            1.0,
            PlacementLoop(stores.fleet, queue, held=_held(stores)).run_once,
            wakes_on=("forestay:demand", "forestay:fleet", "forestay:queue"),
            rest_factor=4.0,  # every submit wakes it: in a flood it works a fifth of the time, at most
        ),
        Loop("rollout", 1.0, RolloutLoop(stores.fleet).run_once, wakes_on=("forestay:fleet",)),
        _steering(process, stores),
        *_shadow_loops(process, stores),
        _readiness(process, stores),
        Loop("webhooks", 1.0, _deliver(process, stores, outbox), wakes_on=("forestay:webhooks",)),
        *_settlement_loops(process, stores),
        Loop("turns", 1.0, lambda: claiming.run_once(stores.database)),
        Loop("shed", 1.0, _shedder(process, stores).run_once),
        Loop("costs", 2.0, _learner(process, stores).run_once, batch=learn.BATCH),
        Loop(
            "retention",
            60.0,
            lambda: old_requests.run_once(queue, stores.database, stores.objects, process.clock, kept),
        ),
        Loop("media_retention", 60.0, lambda: old_media.run_once(stores.media), batch=old_media.BATCH),
        Loop("audit_anchor", 60.0, _sign_heads(process, stores)),
        Loop("sign_in_retention", 600.0, people.forget_old),
        Loop("webhook_retention", 60.0, lambda: old_webhooks.run_once(outbox, kept), batch=old_webhooks.BATCH),
        *_partition_loops(process, stores),
        Loop("abuse", 0.5, _abuse(process, stores).run_once, batch=ABUSE_BATCH),
        _throttles(process, stores),
        *_verdict_loops(process, stores),
        *_rollup_loops(process, stores),
        *_review_loops(process, stores),
        *_quality_loops(process, stores),
    ]
    return [*loops, *_alert_loops(process, stores, [loop.name for loop in loops])]


def _held(stores: Stores) -> "Held":
    """Return what tells the placement loop which revisions quality holds back on which workers."""
    from forestay.quality.watch_store import PostgresWatch

    watch = PostgresWatch(stores.database)

    async def held() -> "frozenset[Spot]":
        return frozenset((item.worker_id, item.revision_id) for item in await watch.holds())

    return held


def _quality_loops(process: Process, stores: Stores) -> "list[Loop]":
    """List the loop that follows outputs, and those that drop what is past its time."""
    from forestay.controller import Loop
    from forestay.quality import evidence_loop, loop
    from forestay.quality.postgres_canaries import CanarySelfTest, PostgresCanaries
    from forestay.quality.watch_store import PostgresWatch
    from forestay.quality.watching import Rules
    from forestay.telemetry import output_facts

    settings, watch = process.settings.quality, PostgresWatch(stores.database)
    facts, kept = stores.facts_database, settings.outputs_retention_seconds
    canaries, shown = PostgresCanaries(stores.database), sealing(process, stores)
    ports = loop.QualityPorts(
        shown.outputs, stores.fleet, shown.findings, state=watch, holds=watch, clock=process.clock,
        metrics=process.metrics, rules=Rules(settings.reference_outputs, settings.run_length_outputs),
        self_test=CanarySelfTest(canaries, process.clock),
    )  # fmt: skip

    async def forget() -> int:
        before = process.clock.now() - dt.timedelta(seconds=kept)
        await watch.forget(before)
        await evidence_loop.forget(shown)
        return await shown.findings.forget(before, FINDING_BATCH)

    async def forget_rounds() -> int:
        keys = await canaries.forget(process.clock.now() - dt.timedelta(seconds=kept), FINDING_BATCH)
        await stores.objects.delete(keys)
        return len(keys)

    return [
        Loop("quality", 1.0, loop.QualityLoop(ports).run_once, batch=loop.BATCH),
        Loop("quality_evidence", 5.0, lambda: evidence_loop.run_once(shown)),
        Loop("output_partitions", 3600.0, lambda: output_facts.keep_partitions(facts, process.clock, kept)),
        Loop("finding_retention", 600.0, forget, batch=FINDING_BATCH),
        Loop("canary_retention", 600.0, forget_rounds),
    ]


def _partition_loops(process: Process, stores: Stores) -> "list[Loop]":
    """List the loops that make the coming days' partitions of facts and drop those past their time."""
    from forestay.controller import Loop
    from forestay.telemetry import call_facts, facts

    database, clock, kept = stores.facts_database, process.clock, process.settings.queue
    calls_kept = kept.call_facts_retention_seconds
    return [
        Loop("fact_partitions", 3600.0, lambda: facts.keep_partitions(database, clock, kept.facts_retention_seconds)),
        Loop("call_fact_partitions", 3600.0, lambda: call_facts.keep_partitions(database, clock, calls_kept)),
    ]


def _rollup_loops(process: Process, stores: Stores) -> "list[Loop]":
    """List the loops of roll-ups, and the one that watches SLOs by them."""
    from forestay.controller import Loop
    from forestay.telemetry import rollup_loop

    facts, kept = stores.facts_database, process.settings.observe.rollups_retention_seconds
    rolling = rollup_loop.RollupLoop(stores.database, facts, process.clock, process.metrics)
    return [
        Loop("rollups", 2.0, rolling.run_once, batch=rollup_loop.BATCH),
        _slo_loop(process, stores),
        Loop("rollup_partitions", 3600.0, lambda: rollup_loop.keep_partitions(facts, process.clock, kept)),
        Loop("fal_metrics", 10.0, _fal_metrics(process, stores).run_once),
        *_trace_loops(process, stores),
    ]


def _slo_loop(process: Process, stores: Stores) -> "Loop":
    """Return the loop that watches SLOs: those of files and specs, and the defaults."""
    from forestay.controller import Loop
    from forestay.safety.policies import Policies
    from forestay.safety.postgres_store import PostgresSafetyStore
    from forestay.safety.sealing import PolicySeal
    from forestay.slo.loop import SloLoop, SloPorts
    from forestay.slo.named import NamedSlos
    from forestay.slo.policy_store import PostgresBudgetPolicy
    from forestay.slo.postgres_store import PostgresSloStandings
    from forestay.telemetry.rollup_reader import PostgresRollups

    async def models() -> "Mapping[ModelId, ModelEntry]":
        return (await stores.fleet.load()).models

    store = PostgresSloStandings(stores.database)
    seal = PolicySeal(process.settings.secrets.internal_key)
    policies = Policies(PostgresSafetyStore(stores.database, stores.wakeups, seal), seal, process.clock)

    async def signs() -> bool:
        await policies.refresh()
        return policies.asks_for("manifest", {entry.spec.safety.policy for entry in (await models()).values()})

    named = NamedSlos(process.settings.observe.slo_file, models, store, process.metrics, signs)
    reader = PostgresRollups(stores.facts_database)
    policy = PostgresBudgetPolicy(stores.database, writer=own_name("controller"))
    kept_minutes = int(process.settings.observe.rollups_retention_seconds) // 60
    loop = SloLoop(SloPorts(reader, named.slos, store, process.clock, process.metrics, policy, kept_minutes))
    return Loop("slo", 5.0, loop.run_once, lost=loop.lost)


def _fal_metrics(process: Process, stores: Stores) -> "FalMetrics":
    from forestay.capacity.fal_metrics import FalMetrics
    from forestay.telemetry.last_minute import PostgresLastMinute

    minute = PostgresLastMinute(stores.facts_database)
    return FalMetrics(stores.fleet, stores.queue, minute, process.metrics)


def _alert_loops(process: Process, stores: Stores, names: list[str]) -> "list[Loop]":
    """List the loops of alerting: decide, send, forget, and tell the watcher outside. `names` are those watched."""
    from forestay.alerts import notify, retention
    from forestay.alerts.deadman import Deadman
    from forestay.alerts.loop import CHANNEL, Routes
    from forestay.alerts.notify import NotifyPorts, senders_of
    from forestay.alerts.postgres_outbox import PostgresOutbox
    from forestay.alerts.postgres_store import PostgresAlerts
    from forestay.alerts.rules_file import check_extras
    from forestay.alerts.senders.apprise_chat import has_apprise
    from forestay.controller import Loop

    settings, clock = process.settings.alerts, process.clock
    store, outbox = PostgresAlerts(stores.database), PostgresOutbox(stores.database)
    routes = Routes(settings.routes_file, lambda routing: check_extras(routing, has_apprise))
    ports = NotifyPorts(
        outbox=outbox,
        routing=routes.newest,
        senders=senders_of(_signing_keys(process), settings, clock),
        settings=settings,
        clock=clock,
        chance=process.chance,
        metrics=process.metrics,
        stop=process.stop,
    )
    loops = [
        Loop("alerts", settings.beat_seconds, _alert_loop(process, stores, names).run_once),
        Loop("notify", 1.0, lambda: notify.run_once(ports), wakes_on=(CHANNEL,)),
        Loop("alert_retention", 600.0, lambda: retention.run_once(store, outbox, clock, settings.retention_seconds)),
    ]
    if settings.deadman_url:
        deadman = Deadman(store, outbox, settings, clock, process.metrics)
        loops.append(Loop("deadman", settings.deadman_seconds, deadman.run_once))
    return loops


def _alert_loop(process: Process, stores: Stores, names: list[str]) -> "AlertLoop":
    from forestay.alerts.loop import AlertLoop, AlertPorts, Routes
    from forestay.alerts.postgres_outbox import PostgresOutbox
    from forestay.alerts.postgres_store import PostgresAlerts
    from forestay.alerts.rules_file import check_extras
    from forestay.alerts.senders.apprise_chat import has_apprise
    from forestay.alerts.sources.own import OwnSource
    from forestay.alerts.sources.platform import PlatformSource, Thresholds
    from forestay.alerts.sources.quality import QualitySource
    from forestay.alerts.sources.safety import SafetySource
    from forestay.alerts.sources.slo import SloSource
    from forestay.quality.postgres_findings import PostgresFindings
    from forestay.quality.watch_store import PostgresWatch

    settings = process.settings.alerts
    thresholds = Thresholds(settings.queue_age_seconds, settings.worker_silent_seconds)
    return AlertLoop(
        AlertPorts(
            store=PostgresAlerts(stores.database),
            sources=(
                PlatformSource(stores.database, stores.fleet, process.metrics, thresholds, lambda: names),
                SafetySource(stores.database, stores.facts_database),
                SloSource(stores.database),
                QualitySource(PostgresFindings(stores.database), PostgresWatch(stores.database)),
            ),
            own=OwnSource(PostgresOutbox(stores.database)),
            routes=Routes(settings.routes_file, lambda routing: check_extras(routing, has_apprise)),
            wakeups=stores.wakeups,
            clock=process.clock,
            metrics=process.metrics,
            runbook_base=settings.runbook_base,
        )
    )


def _trace_loops(process: Process, stores: Stores) -> "list[Loop]":
    """List the loop that sends spans, where a collector is named."""
    observe = process.settings.observe
    if not observe.otlp_endpoint:
        return []
    from forestay.controller import Loop
    from forestay.telemetry import trace_export
    from forestay.telemetry.otlp import Collector, parse_headers

    collector = Collector(observe.otlp_endpoint, parse_headers(process.settings.secrets.otlp_headers))
    loop = trace_export.TraceLoop(stores.facts_database, collector, observe.trace_service, process.metrics)
    return [Loop("traces", 2.0, loop.run_once, batch=trace_export.BATCH)]


def _verdict_loops(process: Process, stores: Stores) -> "list[Loop]":
    """List the loops of verdict records: sealed soon, kept for long."""
    from forestay.controller import Loop
    from forestay.safety import chain, records

    facts, kept = stores.facts_database, process.settings.safety.verdicts_retention_seconds
    sealer = chain.Sealer(facts, process.clock)
    return [
        Loop("verdict_seals", 2.0, sealer.run_once, batch=chain.BATCH),
        Loop("verdict_partitions", 3600.0, lambda: records.keep_partitions(facts, process.clock, kept)),
    ]


def _review_loops(process: Process, stores: Stores) -> "list[Loop]":
    """List the loops of reviews: decisions carried out, items mended and told of, copies forgotten."""
    from forestay.controller import Loop
    from forestay.delivery import review_export
    from forestay.queue.listing import PostgresRequestList
    from forestay.safety.review import loop as review
    from forestay.safety.review.events import PostgresReviewEvents

    desk, settings = reviewing(process, stores, own_name("controller")), process.settings
    events, requests = PostgresReviewEvents(stores.database), PostgresRequestList(stores.database)
    export = review_export.ExportPorts(
        events, _signing_keys(process), settings, process.clock, process.chance, process.metrics
    )
    kept = settings.safety.sealed_retention_seconds
    run = functools.partial(review.run_once, desk, process.clock, process.metrics)
    mend = functools.partial(review.mend_once, desk, requests, stores.queue)
    tell = functools.partial(review_export.run_once, export)
    forget = functools.partial(review.forget_once, desk, events, kept)
    return [
        Loop("review", 1.0, run, batch=review.BATCH),
        Loop("review_mend", 30.0, mend, batch=review.MEND_BATCH),
        Loop("review_export", 1.0, tell, batch=review_export.AT_A_TIME),
        Loop("review_retention", 60.0, forget, batch=review.FORGET_BATCH),
        *_report_loops(process, stores, desk),
    ]


def _report_loops(process: Process, stores: Stores, desk: "ReviewDesk") -> "list[Loop]":
    """List the loops of what the law asks to report, and of fingerprints of what was released."""
    from forestay.controller import Loop
    from forestay.delivery.signing import Signed
    from forestay.safety.hashes import report_loop
    from forestay.safety.hashes.postgres_reports import PostgresReports
    from forestay.safety.hashes.report import Case
    from forestay.safety.provenance.fingerprints import PostgresFingerprints
    from forestay.safety.review.preserving import ACTOR, RequestWithholder, SealedKeeper

    keys, settings = _signing_keys(process), process.settings
    fingerprints = PostgresFingerprints(stores.database)
    kept = settings.safety.fingerprints_retention_seconds

    def sign(case: Case, at: int, body: bytes) -> "Mapping[str, str]":
        return keys.headers(Signed(case.opened.case_id, ACTOR, at, body))

    ports = report_loop.ReportPorts(
        reports=PostgresReports(stores.database, process.clock, own_name("controller")),
        withholder=RequestWithholder(stores.queue, stores.media, stores.wakeups),
        keeper=SealedKeeper(desk.sealed, stores.media),
        sign=sign,
        policy=report_loop.policy_of(settings.safety),
        clock=process.clock,
        chance=process.chance,
        metrics=process.metrics,
        allow_private=settings.delivery.allow_private_webhooks,
    )
    return [
        Loop("hash_reports", 1.0, lambda: report_loop.run_once(ports)),
        Loop("fingerprint_retention", 600.0, lambda: fingerprints.forget(kept, FINGERPRINT_BATCH), FINGERPRINT_BATCH),
    ]


def _steering(process: Process, stores: Stores) -> "Loop":
    """Return the loop that steers rollouts: on its beat, when routes have moved, and when a person gives an order."""
    from forestay.controller import Loop
    from forestay.quality.postgres_canaries import PostgresCanaries
    from forestay.rollouts import steer
    from forestay.rollouts.load_gate import LoadGate
    from forestay.rollouts.postgres_store import PostgresRolloutFacts, PostgresRolloutStore
    from forestay.rollouts.readiness_gate import ReadinessGate
    from forestay.rollouts.safety_gate import SafetyGate
    from forestay.rollouts.shadow.postgres_store import PostgresShadowStore
    from forestay.safety.records import PostgresVerdicts
    from forestay.safety.review.postgres_store import PostgresReviews
    from forestay.safety.sealing import PolicySeal
    from forestay.slo.policy_store import PostgresBudgetPolicy

    store = PostgresRolloutStore(stores.database, writer=own_name("controller"))
    shadow, facts = PostgresShadowStore(stores.database), PostgresRolloutFacts(stores.facts_database)
    budgets = PostgresBudgetPolicy(stores.database, writer=own_name("controller"))
    sources = _review_sources(process, stores)
    readiness = ReadinessGate(sources, required=process.settings.artefacts.require_readiness)
    reviews = PostgresReviews(stores.database, process.clock, process.chance)
    seal = PolicySeal(process.settings.secrets.internal_key)
    safety = SafetyGate(sources.safety, seal, reviews, PostgresVerdicts(stores.facts_database))
    load = LoadGate(stores.queue, process.settings.queue.cell)
    asked = steer.GateSources(budgets, readiness, PostgresCanaries(stores.database), safety, load)
    loop = steer.SteeringLoop(store, facts, stores.fleet, shadow, asked)
    wakes = ("forestay:fleet", steer.CHANNEL)
    return Loop("steering", 1.0, loop.run_once, batch=steer.MOST_FACTS, wakes_on=wakes)


def _readiness(process: Process, stores: Stores) -> "Loop":
    """Return the loop that reviews every model again."""
    from forestay.controller import Loop
    from forestay.readiness.loop import EVERY_SECONDS, ReadinessLoop

    return Loop("readiness", EVERY_SECONDS, ReadinessLoop(_review_sources(process, stores), process.metrics).run_once)


def _review_sources(process: Process, stores: Stores) -> "Sources":
    """Return where the facts of a readiness review come from."""
    from forestay.readiness.gather import Sources
    from forestay.readiness.postgres_store import PostgresReadiness
    from forestay.safety.postgres_store import PostgresSafetyStore
    from forestay.safety.sealing import PolicySeal
    from forestay.slo.postgres_store import PostgresSloStandings

    name = own_name("controller")
    seal = PolicySeal(process.settings.secrets.internal_key)
    return Sources(
        stores.fleet,
        PostgresSloStandings(stores.database),
        admission(process, stores, name),
        PostgresSafetyStore(stores.database, stores.wakeups, seal, writer=name),
        PostgresReadiness(stores.database, stores.facts_database, writer=name),
    )


def _shadow_loops(process: Process, stores: Stores) -> "list[Loop]":
    """List the loops of rollouts' shadows: mirror and compare, and forget."""
    from forestay.controller import Loop
    from forestay.media.decode import Decoder, limits_of
    from forestay.rollouts.postgres_store import PostgresRolloutStore
    from forestay.rollouts.shadow.compare import Comparer
    from forestay.rollouts.shadow.loop import ShadowLoop, ShadowPorts
    from forestay.rollouts.shadow.postgres_store import PostgresShadowStore

    ports = ShadowPorts(
        rollouts=PostgresRolloutStore(stores.database, writer=own_name("controller")),
        shadow=PostgresShadowStore(stores.database),
        queue=stores.queue,
        fleet=stores.fleet,
        objects=stores.objects,
        comparer=Comparer(stores.media, Decoder(limits_of(process.settings.ingress), at_a_time=1)),
        clock=process.clock,
        chance=process.chance,
        cell=process.settings.queue.cell,
    )
    loop = ShadowLoop(ports)
    return [Loop("shadow", 1.0, loop.run_once), Loop("shadow_retention", 600.0, loop.tidy)]


def _abuse(process: Process, stores: Stores) -> "AbuseLoop":
    from forestay.abuse.loop import AbuseLoop, AbusePorts
    from forestay.abuse.postgres_store import PostgresAbuseStore
    from forestay.fleet.postgres_standings import PostgresStandings
    from forestay.telemetry.call_facts import PostgresCalls

    name = own_name("controller")
    return AbuseLoop(
        AbusePorts(
            calls=PostgresCalls(stores.facts_database),
            fleet=stores.fleet,
            standings=PostgresStandings(stores.database, stores.wakeups, process.chance, writer=name),
            store=PostgresAbuseStore(stores.database, writer=name),
            clock=process.clock,
            metrics=process.metrics,
        )
    )


def _throttles(process: Process, stores: Stores) -> "Loop":
    """Return the loop that counts what policies throttled after its call was noted."""
    from forestay.abuse import throttles
    from forestay.controller import Loop
    from forestay.safety.records import PostgresVerdicts
    from forestay.telemetry.call_facts import PostgresCalls

    facts = stores.facts_database
    loop = throttles.ThrottleLoop(PostgresVerdicts(facts), PostgresCalls(facts), process.clock)
    return Loop("throttles", 2.0, loop.run_once, batch=throttles.BATCH)


def _shedder(process: Process, stores: Stores) -> "SheddingLoop":
    from forestay.capacity.admission import Rules
    from forestay.capacity.shed_loop import SheddingLoop

    rules = Rules(process.settings.queue.starvation_bound_seconds)
    return SheddingLoop(stores.queue, stores.fleet, stores.wakeups, process.metrics, rules)


def _learner(process: Process, stores: Stores) -> "LearningLoop":
    from forestay.capacity.learn import LearningLoop
    from forestay.capacity.postgres_costs import PostgresCostStore
    from forestay.telemetry.cost_facts import PostgresCostFacts

    kept_seconds = process.settings.queue.facts_retention_seconds
    costs = PostgresCostStore(stores.database, kept_seconds)
    return LearningLoop(PostgresCostFacts(stores.facts_database), costs, stores.fleet, process.clock)


def _settlement_loops(process: Process, stores: Stores) -> "list[Loop]":
    """List the loops of facts: shipped with their usage added, then told to the counters of limits."""
    from forestay.abuse.refusals import LateRefusals
    from forestay.controller import Loop
    from forestay.limits import settlement
    from forestay.limits.postgres_store import PostgresLimitStore
    from forestay.queue import claiming
    from forestay.telemetry import facts
    from forestay.telemetry.call_facts import PostgresCalls
    from forestay.telemetry.causes import probe_tenants_of

    store = PostgresLimitStore(stores.database, stores.wakeups, process.clock)
    ground = settlement.Ground(store, stores.fleet, process.settings.limits)
    settle = settlement.Settlement(ground, process.metrics).settle
    refusals = LateRefusals(PostgresCalls(stores.facts_database), process.clock)
    probes = probe_tenants_of(process.settings.observe.probe_tenants)

    async def ship() -> int:
        await ground.refresh()
        return await facts.ship(
            stores.database, stores.facts_database, (claiming.settle_facts, settle, refusals.settle), probes
        )

    async def tidy() -> int:
        await store.tidy()
        return 0

    loops = [Loop("facts", 1.0, ship), Loop("limit_retention", 3600.0, tidy)]
    counters = limit_counters(process)
    if counters is not None:
        closer = settlement.Closer(store, counters, ground, process.clock)
        loops.append(Loop("limits", 1.0, closer.run_once, batch=settlement.BATCH))
    return loops


def _outbox(stores: Stores) -> "PostgresOutbox":
    from forestay.delivery.outbox import PostgresOutbox

    return PostgresOutbox(stores.database)


def _sign_heads(process: Process, stores: Stores) -> "Callable[[], Awaitable[int]]":
    """Return the run of the loop that signs the audit log's heads, and says by a metric when they may not be signed."""
    from forestay.fleet.anchor import LogTampered
    from forestay.telemetry.metrics import AUDIT_TAMPERED

    anchor = audit_anchor(process, stores)

    async def run_once() -> int:
        try:
            signed = await anchor.run_once()
        except LogTampered:
            process.metrics.set(AUDIT_TAMPERED, 1)
            raise
        process.metrics.set(AUDIT_TAMPERED, 0)
        return signed

    return run_once


def _signing_keys(process: Process) -> "SigningKeys":
    """Return the keys that webhooks are signed with; raises UsageError when there is no file for them."""
    from forestay.delivery.signing import load_or_create_keys

    key_file = process.settings.secrets.signing_key_file
    if not key_file:
        raise UsageError("FORESTAY_SIGNING_KEY_FILE", "is not set; expected a file for the key that signs webhooks")
    return load_or_create_keys(pathlib.Path(key_file))


def _deliver(process: Process, stores: Stores, outbox: "PostgresOutbox") -> "Callable[[], Awaitable[int]]":
    """Return the delivery loop's run; raises UsageError when there is no key to sign webhooks with."""
    from forestay.delivery.webhooks import DeliveryPorts
    from forestay.delivery.webhooks import run_once as deliver

    ports = DeliveryPorts(
        outbox=outbox,
        queue=stores.queue,
        keys=_signing_keys(process),
        settings=process.settings,
        clock=process.clock,
        chance=process.chance,
        metrics=process.metrics,
        stop=process.stop,
    )
    return lambda: deliver(ports)
