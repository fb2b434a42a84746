"""The loop that tells FORESTAY_REVIEW_URL of items, appeals and decisions: signed like webhooks, never with content.

At least once, under the event's own id, which is the request id of the signature. What follows from a try is
`decide`'s business; which addresses may be called is `media/targets`'. Run by the controller; several may run at once.
"""

import asyncio
import dataclasses

import aiohttp
import msgspec
import yarl

from forestay.chance import Chance
from forestay.clock import Clock
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
from forestay.delivery.signing import Signed, SigningKeys
from forestay.errors import ForestayError
from forestay.media.fetch import Resolver, SystemResolver, TargetRefused, guarded_connector
from forestay.media.targets import read_target
from forestay.safety.review.events import DueEvent, EventState, PostgresReviewEvents
from forestay.settings import Settings
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import REVIEW_TOLD, Metrics

AT_A_TIME = 16
TRY_SECONDS = 15.0
LEASE_SECONDS = 60.0
SENDER = "forestay-review"  # the user id under the signature: it is the platform that speaks
_log = logger("delivery")


@dataclasses.dataclass(frozen=True, slots=True)
class ExportPorts:
    """What the loop may use of the world."""

    events: PostgresReviewEvents
    keys: SigningKeys
    settings: Settings
    clock: Clock
    chance: Chance
    metrics: Metrics
    resolver: Resolver = dataclasses.field(default_factory=SystemResolver)


async def run_once(ports: ExportPorts) -> int:
    """Tell one batch of what is due; returns how many tries were made. Without a URL nothing is told."""
    if not ports.settings.safety.review_url:
        return 0
    due = await ports.events.claim(AT_A_TIME, LEASE_SECONDS)
    if not due:
        return 0
    allow_private = ports.settings.delivery.allow_private_webhooks
    connector = guarded_connector(ports.resolver, allow_private=allow_private, limit=AT_A_TIME)
    async with (
        aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session,
        asyncio.TaskGroup() as group,
    ):
        for event in due:
            group.create_task(_tell(ports, session, event))
    return len(due)


async def _tell(ports: ExportPorts, session: aiohttp.ClientSession, event: DueEvent) -> None:
    outcome = await _try(ports, session, event)
    settings = ports.settings
    policy = Policy(
        settings.safety.review_tries, settings.delivery.retry_base_seconds, settings.delivery.retry_cap_seconds
    )
    decision = decide_delivery(event.tries, outcome, policy, ports.clock.now(), ports.chance.uniform(0.0, 1.0))
    status = outcome.status_code if isinstance(outcome, Responded) else None
    state = _state_of(decision)
    at = decision.at if isinstance(decision, Retry) else None
    error = "" if isinstance(decision, Delivered) else decision.reason
    written = await ports.events.settle(event, state, at, status, error)
    ports.metrics.add(REVIEW_TOLD, state if written else "overtaken")
    _log.info("review.told", event_id=event.event_id, tries=event.tries, state=state, reason=decision.reason)


async def _try(ports: ExportPorts, session: aiohttp.ClientSession, event: DueEvent) -> Outcome:
    allow_private = ports.settings.delivery.allow_private_webhooks
    target = read_target(ports.settings.safety.review_url, allow_private)
    if isinstance(target, str):
        return Impossible(f"FORESTAY_REVIEW_URL: {target}")
    body = msgspec.json.encode(event.body)
    signed = Signed(event.event_id, SENDER, int(ports.clock.now().timestamp()), body)
    headers = {"Content-Type": "application/json", "User-Agent": "forestay-review", **ports.keys.headers(signed)}
    try:
        async with (
            asyncio.timeout(TRY_SECONDS),
            session.post(
                yarl.URL(target.url, encoded=True), data=body, headers=headers, allow_redirects=False
            ) as response,
        ):
            return Responded(response.status)
    except TimeoutError:
        return Broken(f"no answer within {TRY_SECONDS:g} s")
    except (TargetRefused, aiohttp.InvalidURL) as error:
        return Impossible(f"refused: {error}")
    except (aiohttp.ClientError, OSError, ForestayError) as error:
        return Broken(f"{type(error).__name__}: {error}")


def _state_of(decision: Decision) -> EventState:
    match decision:
        case Delivered():
            return "delivered"
        case Retry():
            return "pending"
        case Dead():
            return "dead"
