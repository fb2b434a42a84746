"""The loop that delivers webhooks: claims what is due, signs it, posts it, writes down what followed.

At least once, under the request's own id: a receiver that honours the id sees one effect. What follows from a try is
`decide`'s business; which addresses may be called is `media/targets`'. A receiver that hangs holds only its tenant's
few places. Run by the controller; several may run at once.
"""

import asyncio
import collections
import dataclasses
import datetime as dt
import email.utils

import aiohttp
import yarl

from forestay.chance import Chance
from forestay.clock import Clock
from forestay.delivery.body import webhook_body
from forestay.delivery.decide import (
    Broken,
    Dead,
    Decision,
    Delivered,
    Impossible,
    Outcome,
    Policy,
    Responded,
    Retry,
    decide_delivery,
)
from forestay.delivery.outbox import ClaimLimits, DueWebhook, Outbox
from forestay.delivery.signing import Signed, SigningKeys
from forestay.errors import ForestayError, Unavailable
from forestay.ids import TenantId
from forestay.media.fetch import Resolver, SystemResolver, TargetRefused, guarded_connector
from forestay.media.targets import read_target
from forestay.queue.store import QueueStore
from forestay.settings import Delivery, Gateway, Settings
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import WEBHOOK_SECONDS, WEBHOOK_TRIES, Metrics

CONCURRENCY = 32
PER_TENANT = 8
LATER_TIMEOUT_SECONDS = 120.0  # fal's own, from the second try on
LEASE_MARGIN_SECONDS = 30.0  # reading the result and writing the outcome
STOP_SECONDS = 3.0  # after `stop`, what is in flight may still end; the rest is tried again once its lease is over
LOOK_AGAIN_SECONDS = 0.5  # while receivers are slow, how often newly due webhooks are looked for
_MAX_RETRY_AFTER = 86400.0

_log = logger("delivery")


@dataclasses.dataclass(frozen=True, slots=True)
class DeliveryPorts:
    """What the loop may use of the world."""

    outbox: Outbox
    queue: QueueStore
    keys: SigningKeys
    settings: Settings
    clock: Clock
    chance: Chance
    metrics: Metrics
    resolver: Resolver = dataclasses.field(default_factory=SystemResolver)
    stop: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)  # set: claim nothing new, end soon


def media_base(settings: Gateway) -> str:
    """Return the base of media URLs in webhooks, which no caller's Host header can tell."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{(settings.public_url or f'http://{host}:{settings.port}').rstrip('/')}/cdn/files/"


async def run_once(ports: DeliveryPorts) -> int:
    """Deliver until nothing is due and nothing is in flight; returns how many tries were made."""
    connector = guarded_connector(
        ports.resolver, allow_private=ports.settings.delivery.allow_private_webhooks, limit=CONCURRENCY
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        headers={"User-Agent": "forestay-webhooks", "Content-Type": "application/json"},
    ) as session:
        return await _Round(ports, session).run()


class _Round:
    """One run: what is in flight, and of whom."""

    def __init__(self, ports: DeliveryPorts, session: aiohttp.ClientSession) -> None:
        self._ports = ports
        self._session = session
        self._in_flight: collections.Counter[TenantId] = collections.Counter()
        self._finished = asyncio.Event()

    async def run(self) -> int:
        """Claim and deliver until the outbox is quiet."""
        made = 0
        tasks: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            while not self._ports.stop.is_set():
                due = await self._claim()
                for item in due:
                    self._in_flight[item.tenant_id] += 1
                    task = group.create_task(self._deliver(item))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                made += len(due)
                if due:
                    continue
                if not tasks:
                    return made
                await self._one_finished()
            if tasks:
                _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
                for task in late:
                    task.cancel()
        return made

    async def _claim(self) -> list[DueWebhook]:
        free = CONCURRENCY - self._in_flight.total()
        if free <= 0:
            return []
        busy = [tenant for tenant, count in self._in_flight.items() if count >= PER_TENANT]
        first = self._ports.settings.delivery.first_timeout_seconds
        limits = ClaimLimits(
            free, PER_TENANT, first + LEASE_MARGIN_SECONDS, LATER_TIMEOUT_SECONDS + LEASE_MARGIN_SECONDS
        )
        return await self._ports.outbox.claim(limits, busy)

    async def _one_finished(self) -> None:
        self._finished.clear()
        try:
            async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                await self._finished.wait()
        except TimeoutError:
            return  # time to look for newly due ones

    async def _deliver(self, due: DueWebhook) -> None:
        started = self._ports.clock.monotonic()
        try:
            outcome = await self._try(due)
            await self._settle(due, outcome, self._ports.clock.monotonic() - started)
        except Unavailable as error:  # the row stays claimed: its lease ends by itself, then it is due again
            self._ports.metrics.add(WEBHOOK_TRIES, "unsettled")
            _log.warning("webhook.unsettled", request_id=str(due.request_id), tries=due.tries, reason=str(error))
        finally:
            self._in_flight[due.tenant_id] -= 1
            if not self._in_flight[due.tenant_id]:
                del self._in_flight[due.tenant_id]
            self._finished.set()

    async def _try(self, due: DueWebhook) -> Outcome:
        ports = self._ports
        target = read_target(due.url, ports.settings.delivery.allow_private_webhooks)
        if isinstance(target, str):
            return Impossible(f"refused: {target}")
        stored = await ports.queue.result(due.request_id)
        if stored is None:
            return Impossible("the request's result is gone")
        body = webhook_body(stored, media_base(ports.settings.gateway))
        signed = Signed(str(due.request_id), due.tenant_id, int(ports.clock.now().timestamp()), body)
        seconds = ports.settings.delivery.first_timeout_seconds if due.tries == 1 else LATER_TIMEOUT_SECONDS
        return await self._post(target.url, signed, seconds)

    async def _post(self, url: str, signed: Signed, seconds: float) -> Outcome:
        try:
            async with (
                asyncio.timeout(seconds),
                self._session.post(
                    yarl.URL(url, encoded=True),
                    data=signed.body,
                    headers=self._ports.keys.headers(signed),
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None),
                ) as response,
            ):
                now = self._ports.clock.now()
                return Responded(response.status, retry_after_seconds(response.headers.get("Retry-After", ""), now))
        except TimeoutError:
            return Broken(f"no answer within {seconds:g} s")
        except (TargetRefused, aiohttp.InvalidURL) as error:
            return Impossible(f"refused: {error}")
        except (aiohttp.ClientError, OSError, ForestayError) as error:
            return Broken(f"{type(error).__name__}: {error}")

    async def _settle(self, due: DueWebhook, outcome: Outcome, seconds: float) -> None:
        ports = self._ports
        policy = policy_of(ports.settings.delivery)
        decision = decide_delivery(due.tries, outcome, policy, ports.clock.now(), ports.chance.uniform(0.0, 1.0))
        status = outcome.status_code if isinstance(outcome, Responded) else None
        written = await ports.outbox.settle(due, decision, status)
        word = _word(decision) if written else "overtaken"
        ports.metrics.add(WEBHOOK_TRIES, word)
        ports.metrics.observe(WEBHOOK_SECONDS, seconds, word)
        _log.info(
            "webhook.tried",
            request_id=str(due.request_id),
            tenant_id=due.tenant_id,
            tries=due.tries,
            outcome=word,
            status=status,
            reason=decision.reason,
            seconds=round(seconds, 3),
        )


def policy_of(settings: Delivery) -> Policy:
    """Read the policy from the settings."""
    return Policy(settings.webhook_tries, settings.retry_base_seconds, settings.retry_cap_seconds)


def retry_after_seconds(text: str, now: dt.datetime) -> float | None:
    """Read a Retry-After header (seconds or a date, RFC 9110); None when it says nothing we can read."""
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), _MAX_RETRY_AFTER)
    try:
        at = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=dt.UTC)
    return min(max(0.0, (at - now).total_seconds()), _MAX_RETRY_AFTER)


def _word(decision: Decision) -> str:
    match decision:
        case Delivered():
            return "delivered"
        case Retry():
            return "retry"
        case Dead():
            return "dead"
