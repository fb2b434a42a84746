"""Counting goes on when Valkey does not answer: in this process, at its share, and back again by itself.

It decides who counts: Valkey while it answers; after the first question without an answer this process, at 1/n of every
limit, until a probe is answered. So a dead Valkey costs its time-out once, not once a call. No caller hears of it; it
is counted in `forestay_guard_open_total` and logged once a change. Called by the gateway's gate.
"""

import asyncio
from collections.abc import Callable

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.limits.counters import NOWHERE, Counters, Elsewhere, Outcome, RemoteCounters
from forestay.limits.local_counters import LocalCounters
from forestay.limits.model import Charge
from forestay.limits.plan import Plan
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import GUARD_OPEN, LIMIT_COUNTERS_AWAY, Metrics

PROBE_SECONDS = 0.25
_LOG = logger("limits")


class Switch:
    """The counters that are in charge now, and the name in which this gateway holds with them.

    The name changes with every change of hands: what the last question of a broken connection may have taken is held
    under the old name, which nobody keeps any more. `on_change` shall keep under the new one what is in flight.
    """

    def __init__(
        self, remote: RemoteCounters | None, name: str, share: Callable[[], float], clock: Clock, metrics: Metrics
    ) -> None:
        self._remote = remote
        self._name = name
        self._local = LocalCounters(clock, share)
        self._clock = clock
        self._metrics = metrics
        self._away = asyncio.Event()
        self._changes = 0
        self.present: Counters = remote or self._local
        self.holder = name
        self.on_change: Callable[[], None] = lambda: None

    async def take(
        self, plan: Plan, holder: str, charge: Charge, lease_seconds: float, elsewhere: Elsewhere = NOWHERE
    ) -> Outcome:
        """Take from whoever is in charge; the empty holder is this gateway."""
        if self.present is self._remote:
            try:
                return await self.present.take(plan, holder or self.holder, charge, lease_seconds, elsewhere)
            except Unavailable as error:
                self._lose(str(error))
        if self._away.is_set():
            self._metrics.add(GUARD_OPEN, "limits")
        return self._local.take_now(plan, holder or self.holder, charge, lease_seconds, elsewhere)

    async def run(self) -> None:
        """Run the remote counters and look for them while they are away."""
        if self._remote is None:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._remote.run())
            while True:
                await self._away.wait()
                await self._clock.sleep(PROBE_SECONDS)
                await self._probe(self._remote)

    def _lose(self, reason: str) -> None:
        """Note that Valkey does not answer: this process counts until it does."""
        if not self._away.is_set():
            self._away.set()
            self._metrics.set(LIMIT_COUNTERS_AWAY, 1)
            _LOG.warning("limits.counters_away", reason=reason, consequence="this gateway grants its share")
            self._change(self._local)

    async def _probe(self, remote: RemoteCounters) -> None:
        try:
            await remote.flush()
        except Unavailable:
            return
        self._away.clear()
        self._metrics.set(LIMIT_COUNTERS_AWAY, 0)
        _LOG.info("limits.counters_back")
        self._local.forget()
        self._change(remote)

    def _change(self, counters: Counters) -> None:
        self._changes += 1
        self.present, self.holder = counters, f"{self._name}.{self._changes}"
        self.on_change()
