"""Works cases off: makes sure that each is blocked, preserved and told, one step after another.

At least once, under the case's own id. What follows from a step is `report`'s business. The content itself never passes
through here, unless the operator has asked for it to go along. The platform's signature on a report is given by the
wiring, since signing belongs to delivery. Run by the controller; several may run at once.
"""

import asyncio
import base64
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import aiohttp
import msgspec
import yarl

from forestay.chance import Chance
from forestay.clock import Clock
from forestay.errors import ForestayError, Refused
from forestay.media.fetch import Resolver, SystemResolver, TargetRefused, guarded_connector
from forestay.media.targets import read_target
from forestay.safety.hashes.postgres_reports import PostgresReports
from forestay.safety.hashes.report import (
    Action,
    Block,
    Case,
    Deliver,
    Done,
    Failed,
    Hold,
    Preserve,
    ReportPolicy,
    body_of,
    decide_report,
    decide_step,
    proof_of,
)
from forestay.settings import Safety
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import HASH_REPORTS, Metrics

AT_A_TIME = 16
STEP_SECONDS = 30.0
LEASE_SECONDS = 120.0
MAX_MEDIA_BYTES = 64 * 1024 * 1024
_log = logger("safety.reports")

Sign = Callable[[Case, int, bytes], Mapping[str, str]]  # case, unix seconds, body -> headers that prove the sender


class Withholder(Protocol):
    """Whoever can withhold what a request made or was given."""

    async def withhold(self, case: Case) -> None:
        """Make sure that nobody can read it; doing so twice is harmless. Raises ForestayError when it failed."""
        ...


class Keeper(Protocol):
    """The sealed store."""

    async def preserve(self, case: Case) -> str:
        """Put a copy under seal and return its id; doing so twice is harmless. Raises ForestayError when it failed."""
        ...

    async def read(self, sealed_id: str) -> bytes:
        """Return a sealed copy."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class ReportPorts:
    """What the loop may use of the world."""

    reports: PostgresReports
    withholder: Withholder
    keeper: Keeper
    sign: Sign
    policy: ReportPolicy
    clock: Clock
    chance: Chance
    metrics: Metrics
    allow_private: bool = False
    resolver: Resolver = dataclasses.field(default_factory=SystemResolver)


def policy_of(settings: Safety) -> ReportPolicy:
    """Read the policy from the settings."""
    return ReportPolicy(settings.report_url, settings.report_tries, attach_media=settings.report_media)


async def run_once(ports: ReportPorts) -> int:
    """Take every due step; returns how many were tried."""
    made = 0
    while cases := await ports.reports.claim(AT_A_TIME, LEASE_SECONDS):
        async with asyncio.TaskGroup() as group:
            for case in cases:
                group.create_task(_work(ports, case))
        made += len(cases)
    return made


async def _work(ports: ReportPorts, case: Case) -> None:
    claimed = dataclasses.replace(case, due_at=ports.clock.now())  # the lease hides it from others, not from us
    for action in decide_report(claimed, ports.policy, ports.clock.now()):
        outcome = await _act(ports, case, action)
        now, jitter = ports.clock.now(), ports.chance.uniform(0.0, 1.0)
        step = decide_step(case, action, outcome, ports.policy, now, jitter)
        written = await ports.reports.settle(case, step)
        word = step.state if isinstance(outcome, Done) else "failed"
        ports.metrics.add(HASH_REPORTS, word)
        _log.info("report.step", case_id=case.opened.case_id, action=type(action).__name__, state=step.state,
                  tries=case.tries, reason=step.reason, written=written)  # fmt: skip


async def _act(ports: ReportPorts, case: Case, action: Action) -> Done | Failed:
    try:
        async with asyncio.timeout(STEP_SECONDS):
            return await _acts(ports, case, action)
    except TimeoutError:
        return Failed(f"no answer within {STEP_SECONDS:g} s")
    except TargetRefused as error:
        return Failed(f"the receiver may not be called: {error}", final=True)
    except (ForestayError, aiohttp.ClientError, OSError) as error:
        return Failed(f"{type(error).__name__}: {error}")


def _acts(ports: ReportPorts, case: Case, action: Action) -> Awaitable[Done | Failed]:
    match action:
        case Block():
            return _block(ports, case)
        case Preserve():
            return _preserve(ports, case)
        case Deliver():
            return _deliver(ports, case, with_media=action.with_media)
        case Hold():
            return _hold(action)


async def _block(ports: ReportPorts, case: Case) -> Done:
    await ports.withholder.withhold(case)
    return Done()


async def _preserve(ports: ReportPorts, case: Case) -> Done:
    return Done(sealed_id=await ports.keeper.preserve(case))


async def _hold(action: Hold) -> Failed:
    return Failed(action.reason)


async def _deliver(ports: ReportPorts, case: Case, *, with_media: bool) -> Done | Failed:
    target = read_target(ports.policy.url, ports.allow_private)
    if isinstance(target, str):
        return Failed(f"FORESTAY_REPORT_URL: {target}", final=True)
    told = body_of(case)
    if with_media:
        media = await ports.keeper.read(case.sealed_id)
        if len(media) > MAX_MEDIA_BYTES:
            raise Refused(f"the preserved copy is larger than {MAX_MEDIA_BYTES} bytes: hand it over by its sealed id")
        told["media_base64"] = base64.b64encode(media).decode()
    body = msgspec.json.encode(told)
    headers = {"Content-Type": "application/json", **ports.sign(case, int(ports.clock.now().timestamp()), body)}
    connector = guarded_connector(ports.resolver, allow_private=ports.allow_private, limit=1)
    async with (
        aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session,
        session.post(yarl.URL(target.url, encoded=True), data=body, headers=headers, allow_redirects=False) as response,
    ):
        if 200 <= response.status < 300:
            return Done(proof=proof_of(response.status, response.headers, ports.clock.now()))
        return Failed(f"the receiver answered {response.status}", final=300 <= response.status < 400)
