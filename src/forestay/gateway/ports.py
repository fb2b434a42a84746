"""What a gateway is given: the ports of other domains, gathered once by the wiring.

Decides nothing. The modules of this package, in the order a call meets them:

  asgi        the pipeline, readable in one screen          exchange    what is known of one call
  routing     hosts, ports, prefixes; app ids; URLs         auth        keys and tokens -> who calls
  standing    who is refused or slowed for misuse
  bodies      reading bodies within limits                  options     request headers -> options
  validation  the model's own schema                        fleet_view  the fleet, from memory
  submit      group commit, lost answers                    status      the board; polls and the stream
  result      replay                                        cancel      the table of cancel answers
  direct      slots, one hop                                streams     relays of answers and SSE
  realtime    relays of websockets                          responses   errors and states -> HTTP
  appeals     what a caller may do about a block            refused_inputs  what is kept for them
  limits      reserve, settle, give back                    limit_answers  429 and the RateLimit fields
  protocol    wire types                                    openapi     our own document
  poll_counts status polls and result reads, counted

Route tables of other modules (uploads, cdn, tokens, jwks, js_proxy, admin): `def routes(ports) -> list[BaseRoute]`.
Paths are those of fal's own hosts, without our prefixes: `/storage/...`, `/tokens/...`, `/.well-known/jwks.json` on the
REST surface; `/files/...` on the CDN surface; `/admin/...` and `/api/fal/proxy` at the root. `routing` strips `/rest`
and `/cdn` first. A route finds the call's id, the caller's bases and the whole app by `exchange.of(scope)`.
"""

import dataclasses
import datetime as dt
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from forestay.capacity.costs import CostStore
from forestay.chance import Chance
from forestay.clock import Clock
from forestay.fleet.anchor import AuditAnchor
from forestay.fleet.key_ring import KeyRing
from forestay.fleet.keys import KeyStore
from forestay.fleet.people import PeopleStore
from forestay.fleet.sign_in import SignInStore
from forestay.fleet.standing_store import StandingStore
from forestay.fleet.store import FleetStore
from forestay.gateway.caller_address import Tunnels
from forestay.gateway.guesses import Guesses
from forestay.gateway.oidc_provider import OidcProvider
from forestay.gateway.password_desk import PasswordDesk
from forestay.gateway.standing import Standings
from forestay.media.store import MediaStore
from forestay.queue.store import QueueStore
from forestay.settings import Settings
from forestay.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from forestay.abuse.meaning import Embedder
    from forestay.abuse.store import AbuseStore
    from forestay.alerts.store import AlertDesk
    from forestay.artefacts.admission import Admission
    from forestay.delivery.dead_letters import DeadLetters
    from forestay.drills.store import DrillStore
    from forestay.fleet.devices import DeviceStore
    from forestay.limits.counters import RemoteCounters
    from forestay.limits.store import LimitStore
    from forestay.quality.canary_store import CanaryStore
    from forestay.quality.evidence import EvidenceStore
    from forestay.quality.findings import FindingStore
    from forestay.quality.watch_store import HoldStore
    from forestay.queue.claiming import Turns
    from forestay.queue.listing import RequestList
    from forestay.readiness.postgres_store import PostgresReadiness
    from forestay.rollouts.shadow.store import ShadowStore
    from forestay.rollouts.store import RolloutFacts, RolloutStore
    from forestay.safety.audit_store import PostgresAudits
    from forestay.safety.chain import ChainFault
    from forestay.safety.guard import Guard
    from forestay.safety.hashes.postgres_reports import PostgresReports
    from forestay.safety.hashes.store import BankStore
    from forestay.safety.model import Detectors
    from forestay.safety.policies import Policies
    from forestay.safety.provenance.made import Origins
    from forestay.safety.records import VerdictSource
    from forestay.safety.review.desk import ReviewDesk
    from forestay.safety.store import SafetyStore
    from forestay.slo.policy_store import PostgresBudgetPolicy
    from forestay.slo.postgres_store import SloReader
    from forestay.storage.objects import ObjectStore
    from forestay.storage.valkey import Wakeups
    from forestay.telemetry.call_facts import CallSink, CallSource
    from forestay.telemetry.fact_reader import FactReader
    from forestay.telemetry.facts import RequestFact
    from forestay.telemetry.output_facts import PostgresOutputs
    from forestay.telemetry.poll_facts import PollMinute
    from forestay.telemetry.rollup_reader import PostgresRollups


class FactSink(Protocol):
    """Where facts of the direct lane and counts of polls go (`telemetry.facts.FactWriter`)."""

    async def write(self, batch: "Sequence[RequestFact]") -> None:
        """Write them all or none; raises Unavailable."""
        ...

    async def write_polls(self, batch: "Sequence[PollMinute]") -> None:
        """Write them all or none; raises Unavailable. Writing one twice keeps one."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class AdminReaders:
    """What the admin API alone reads."""

    requests: "RequestList"
    facts: "FactReader"
    webhooks: "DeadLetters"
    turns: "Turns"
    rollups: "PostgresRollups"
    slos: "SloReader"
    budgets: "PostgresBudgetPolicy"
    audits: "PostgresAudits"
    rollouts: "RolloutStore"
    rollout_facts: "RolloutFacts"
    shadows: "ShadowStore"
    readiness: "PostgresReadiness"
    findings: "FindingStore"
    holds: "HoldStore"
    drills: "DrillStore"
    canaries: "CanaryStore"
    outputs: "PostgresOutputs"
    devices: "DeviceStore"
    evidence: "EvidenceStore | None" = None  # without it no sealed sample of outputs is shown


@dataclasses.dataclass(frozen=True, slots=True)
class AbuseDesk:
    """What the admin API needs of the judging of misuse."""

    store: "AbuseStore"
    calls: "CallSource"


@dataclasses.dataclass(frozen=True, slots=True)
class SafetyDesk:
    """What judges content here, and what the admin API needs of it."""

    guard: "Guard"
    detectors: "Detectors"
    policies: "Policies"
    store: "SafetyStore"
    verdicts: "VerdictSource"
    verify: "Callable[[dt.datetime], Awaitable[tuple[int, list[ChainFault]]]]"  # of what was sealed since then
    review: "ReviewDesk | None" = None  # where people look again at what was stopped


@dataclasses.dataclass(frozen=True, slots=True)
class LimitPorts:
    """Rules and usage, and the counters that all gateways share (None: each counts for itself)."""

    store: "LimitStore"
    counters: "RemoteCounters | None"


@dataclasses.dataclass(frozen=True, slots=True)
class GatewayPorts:
    """Everything a gateway may use of the world."""

    queue: QueueStore
    fleet: FleetStore
    keys: KeyRing  # verified keys in memory; the gateway runs its refresh loop
    key_store: KeyStore
    objects: "ObjectStore"
    media: MediaStore
    wakeups: "Wakeups"
    facts: FactSink
    settings: Settings
    clock: Clock
    chance: Chance
    metrics: Metrics
    admin: "AdminReaders"
    costs: CostStore  # what the learning loop has come to
    standings: Standings  # in memory, kept true by the view of the fleet
    standing_store: StandingStore
    limits: LimitPorts
    people: PeopleStore
    sign_ins: SignInStore
    desk: PasswordDesk
    artefacts: "Admission"
    guesses: Guesses  # addresses that show wrong credentials
    abuse: "AbuseDesk"
    banks: "BankStore"  # of known hashes
    reports: "PostgresReports"  # cases that the law asks to report
    origins: "Origins"  # did we make this?
    alerts: "AlertDesk"
    calls: "CallSink"  # notes of calls, for the judges of misuse
    embedder: "Embedder | None" = None  # where meanings of prompts are hashed
    oidc: OidcProvider | None = None  # without an issuer
    safety: "SafetyDesk | None" = None  # without it nothing that a policy guards goes on
    anchor: AuditAnchor | None = None  # without a signing key
    tunnels: Tunnels = dataclasses.field(default_factory=Tunnels)
