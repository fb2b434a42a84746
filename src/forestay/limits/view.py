"""The rules as one gateway sees them: from memory, at most a second old, and how many gateways share them.

Looked at each second and whenever `forestay:limits` says that a rule changed; each look also says that this gateway is
there. A silent database leaves the last rules in force. Decides which defaults of the settings hold: those for whose
kind no `tenant:*` rule is stored. Called by the gateway's gate.
"""

import asyncio

from forestay.clock import Clock
from forestay.errors import Unavailable, UsageError
from forestay.limits.model import ANY, MONEY_HUNDREDTHS, LimitKind, LimitRule, LimitScope, Subject, checked_rule
from forestay.limits.plan import Rulebook
from forestay.limits.store import LimitStore
from forestay.settings import Limits
from forestay.telemetry.logs import logger

POLL_SECONDS = 1.0
ALIVE_SECONDS = 10.0  # a gateway silent for longer no longer counts
ANY_TENANT = Subject(LimitScope.TENANT, ANY)
_LOG = logger("limits")


class RulesView:
    """The newest rules."""

    def __init__(self, store: LimitStore, settings: Limits, clock: Clock, gateway_id: str) -> None:
        self._store = store
        self._defaults = default_rules(settings)
        self._clock = clock
        self._gateway_id = gateway_id
        self._woken = asyncio.Event()
        self._version = 0
        self.gateways = 1
        self.book = Rulebook(self._defaults)

    def share(self) -> float:
        """Return the part of every limit that this gateway may grant alone."""
        return 1.0 / self.gateways

    def wake(self) -> None:
        """Look now: a rule changed."""
        self._woken.set()

    async def run(self) -> None:
        """Keep the rules fresh for ever."""
        while True:
            self._woken.clear()
            await self.refresh()
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def refresh(self) -> None:
        """Say that this gateway is there, and read the rules when they changed; raises Unavailable."""
        beat = await self._store.beat(self._gateway_id, ALIVE_SECONDS)
        self.gateways = beat.gateways
        if beat.version != self._version:
            self._version, rules = await self._store.rules()
            self.book = Rulebook(with_defaults(rules, self._defaults))
            _LOG.info("limits.rules_read", version=self._version, rules=len(rules))

    async def leave(self) -> None:
        """Say that this gateway stops; when nobody hears it, it is missed after a while."""
        try:
            await self._store.leave(self._gateway_id)
        except Unavailable as error:
            _LOG.info("limits.leave_not_heard", reason=str(error))


def default_rules(settings: Limits) -> list[LimitRule]:
    """Return the settings' defaults as rules of every tenant; raises UsageError when one is out of bounds."""
    amounts = {
        LimitKind.REQUESTS_PER_SECOND: settings.default_requests_per_second,
        LimitKind.IN_FLIGHT: float(settings.default_in_flight),
        LimitKind.GPU_SECONDS_PER_MINUTE: settings.default_gpu_seconds_per_minute,
        LimitKind.GPU_SECONDS_PER_MONTH: settings.default_gpu_seconds_per_month,
        LimitKind.MONEY_PER_MONTH: settings.default_money_per_month * MONEY_HUNDREDTHS,
    }
    burst = float(settings.default_burst) if settings.default_burst else None
    found: list[LimitRule] = []
    for kind, amount in amounts.items():
        if amount:
            own = burst if kind is LimitKind.REQUESTS_PER_SECOND else None
            try:
                found.append(checked_rule(ANY_TENANT, kind, amount, own))
            except UsageError as error:
                raise UsageError(f"FORESTAY_DEFAULT_{error.field.upper()}", error.message) from None
    return found


def with_defaults(rules: list[LimitRule], defaults: list[LimitRule]) -> list[LimitRule]:
    """Return the stored rules and the defaults for whose kind no rule of every tenant is stored."""
    stored = {rule.kind for rule in rules if rule.subject == ANY_TENANT}
    return [*rules, *(rule for rule in defaults if rule.kind not in stored)]
