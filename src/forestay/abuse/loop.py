"""The abuse loop: reads calls as they are written, judges whom they are about, asks the fleet's door for standings.

It decides nothing by itself: signals see (`signals`), rules decide (`decide`), the door lets through (`fleet/apply`:
mode, freeze, cap, what a person said). Its state lives in memory and is written down every minute, so that a restart,
or another controller, goes on where it was; without a readable snapshot it learns from the kept facts anew, and judges
only what is fresh. What the door did not let through is not asked again at once. Called by the controller.
"""

import asyncio
import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence

from forestay.abuse import snapshot
from forestay.abuse.facts import call_of
from forestay.abuse.labels import in_force, judge
from forestay.abuse.rules_file import default_rules, read_rules
from forestay.abuse.signals import Known, Signals
from forestay.abuse.snapshot import Meta
from forestay.abuse.store import AbuseStore
from forestay.abuse.vocabulary import Per
from forestay.clock import Clock
from forestay.fleet.actions import Effect, Origin, SetStanding
from forestay.fleet.model import Fleet
from forestay.fleet.spec_yaml import SpecError
from forestay.fleet.standing import SEVERITY, Standing
from forestay.fleet.standing_store import StandingStore
from forestay.fleet.store import FleetStore
from forestay.telemetry.call_facts import LATEST, CallFact, CallSource
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import ABUSE_CALLS, ABUSE_DECIDED, ABUSE_LAG_SECONDS, ABUSE_RULES_BROKEN, Metrics

BATCH = 500
CHUNK = 50  # calls between two looks at the event loop, which other loops share
FRESH_SECONDS = 3_600.0  # older calls teach, but nobody is judged for them now
SAVE_SECONDS = 60.0
RULES_SECONDS = 2.0
HISTORY = dt.timedelta(days=30)
ASKED_AGAIN = dt.timedelta(minutes=10)  # at the earliest, what the door did not let through
ACTOR = "loop:abuse"
_LOG = logger("abuse")


@dataclasses.dataclass(frozen=True, slots=True)
class AbusePorts:
    """What the loop may use of the world."""

    calls: CallSource
    fleet: FleetStore
    standings: StandingStore
    store: AbuseStore
    clock: Clock
    metrics: Metrics


@dataclasses.dataclass(frozen=True, slots=True)
class _Held:
    """A wish that was not let through, and until when it is not repeated."""

    rule: str
    severity: int
    until: dt.datetime


class AbuseLoop:
    """One controller's memory of everybody's calls."""

    def __init__(self, ports: AbusePorts) -> None:
        self._ports = ports
        self._rules = default_rules()
        self._rules_version: int = -1
        self._rules_at = 0.0
        self._signals = Signals(self._rules.counters)
        self._meta: Meta | None = None
        self._saved_at = 0.0
        self._changed: set[int] = set()
        self._held: dict[str, _Held] = {}

    async def run_once(self) -> int:
        """Read, judge and ask once; returns how many calls were read."""
        await self._ports.standings.expire()
        await self._follow_rules()
        meta = await self._remember()
        now = self._ports.clock.now()
        since = (meta.at or now - HISTORY) - LATEST
        facts = await self._ports.calls.after(meta.position, since, BATCH)
        touched = await self._observe(facts, now)
        if facts:
            meta.position, meta.at = facts[-1].position, max(facts[-1].at, meta.at or facts[-1].at)
            self._ports.metrics.add(ABUSE_CALLS, amount=len(facts))
        lag = (now - facts[-1].at).total_seconds() if facts else 0.0
        self._ports.metrics.set(ABUSE_LAG_SECONDS, max(0.0, lag))
        if touched:
            await self._judge(touched, meta)
        if self._changed and self._ports.clock.monotonic() - self._saved_at >= SAVE_SECONDS:
            await self.save()
        return len(facts)

    async def save(self) -> None:
        """Write the state down."""
        if self._meta is None:
            return
        self._meta.serial += 1
        parts = snapshot.parts_of(self._signals, self._meta, frozenset(self._changed))
        await self._ports.store.save(parts)
        self._changed.clear()
        self._saved_at = self._ports.clock.monotonic()

    async def _remember(self) -> Meta:
        """Return how far the memory goes; read the snapshot first when another process has led since."""
        stored = snapshot.read_meta(await self._ports.store.meta())
        if self._meta is not None and (stored is None or stored.serial == self._meta.serial):
            return self._meta
        signals = Signals(self._rules.counters)
        meta = snapshot.restore(await self._ports.store.load(), signals) if stored is not None else None
        if meta is None:
            _LOG.info("abuse.learns_anew", days=HISTORY.days)
        self._signals, self._meta = signals, meta or Meta(serial=0 if stored is None else stored.serial)
        self._changed = set() if meta is not None else set(range(snapshot.SHARDS))
        self._saved_at = self._ports.clock.monotonic()
        return self._meta

    async def _follow_rules(self) -> None:
        """Take rules that people have set since; ones that cannot be read any more leave the former in force."""
        if self._rules_version >= 0 and self._ports.clock.monotonic() - self._rules_at < RULES_SECONDS:
            return
        self._rules_at = self._ports.clock.monotonic()
        wanted = await self._ports.store.rules()
        if wanted.version == self._rules_version:
            return
        self._rules_version = wanted.version
        try:
            rules = read_rules(wanted.text, f"rules version {wanted.version}") if wanted.text else default_rules()
        except SpecError as error:
            self._ports.metrics.add(ABUSE_RULES_BROKEN)
            _LOG.error("abuse.rules_broken", version=wanted.version, reason=str(error)[:500])
            return
        if rules.counters != self._rules.counters:
            self._signals.count(rules.counters)
        self._rules = rules
        self._held.clear()
        _LOG.info("abuse.rules", version=wanted.version, rules=len(rules.rules))

    async def _observe(self, facts: Sequence[CallFact], now: dt.datetime) -> dict[tuple[Per, str], float]:
        """Let the signals see the calls; returns whom fresh ones were about, and when last."""
        touched: dict[tuple[Per, str], float] = {}
        oldest = now.timestamp() - FRESH_SECONDS
        for number, fact in enumerate(facts):
            call = call_of(fact)
            for per, subject in self._signals.observe(call):
                if call.at >= oldest:
                    touched[per, subject] = max(call.at, touched.get((per, subject), 0.0))
            if call.key:
                self._changed.add(snapshot.shard_of(call.key))
            if number % CHUNK == CHUNK - 1:
                await asyncio.sleep(0)
        return touched

    async def _judge(self, touched: Mapping[tuple[Per, str], float], meta: Meta) -> None:
        fleet, now = await self._ports.fleet.load(), self._ports.clock.now()
        wanted: list[Standing] = []
        for (per, subject), at in touched.items():
            wanted += self._decided(per, subject, at, fleet, meta)
        asked = [item for item in wanted if not self._is_held(item, now)]
        if not asked:
            return
        decided = await self._ports.fleet.apply([SetStanding(item) for item in asked], origin=Origin.ABUSE, actor=ACTOR)
        for standing, outcome in zip(asked, decided, strict=True):
            self._ports.metrics.add(ABUSE_DECIDED, standing.rule, outcome.effect.value)
            _LOG.info(
                "abuse.decided",
                subject=standing.subject,
                kind=standing.kind.value,
                rule=standing.rule,
                effect=outcome.effect.value,
                reason=standing.reason,
                why=outcome.why,
            )
            if outcome.effect is not Effect.APPLIED:
                self._hold(standing, outcome.effect, now)

    def _decided(self, per: Per, subject: str, at: float, fleet: Fleet, meta: Meta) -> list[Standing]:
        now = self._ports.clock.now()
        labels = in_force(meta.labels, subject, now)
        history = self._signals.history(per, subject, at, Known(labels, fleet.standings.get(subject)))
        return judge(history, self._rules, meta.labels, now)

    def _is_held(self, wanted: Standing, now: dt.datetime) -> bool:
        held = self._held.get(wanted.subject)
        if held is None or held.until <= now:
            return False
        return held.severity >= SEVERITY[wanted.kind]

    def _hold(self, standing: Standing, effect: Effect, now: dt.datetime) -> None:
        """Remember a wish that was not let through: one that was only advised for half of its time."""
        lasting = standing.expires_at - standing.since
        wait = max(lasting / 2, ASKED_AGAIN) if effect is not Effect.REFUSED else ASKED_AGAIN
        self._held[standing.subject] = _Held(standing.rule, SEVERITY[standing.kind], now + wait)
        if len(self._held) > 50_000:
            del self._held[next(iter(self._held))]
