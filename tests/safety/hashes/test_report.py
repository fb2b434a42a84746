"""Cases that the law asks to report, with marker hashes alone: blocked, preserved, told, and proven."""

import asyncio
import dataclasses
import datetime as dt
import json
from collections.abc import AsyncIterator, Mapping

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from forestay.chance import SeededChance
from forestay.clock import SystemClock
from forestay.errors import Unavailable
from forestay.fleet import postgres_audit
from forestay.safety.hashes.postgres_reports import PostgresReports
from forestay.safety.hashes.report import (
    TRANSITIONS,
    Block,
    Case,
    CaseState,
    Deliver,
    Done,
    Failed,
    NewCase,
    ReportPolicy,
    body_of,
    case_id_of,
    decide_report,
    decide_step,
)
from forestay.safety.hashes.report_loop import ReportPorts, run_once
from forestay.storage.postgres import Database
from forestay.telemetry.metrics import Metrics

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
MARKER = NewCase(case_id_of("r-1", "images[0]", 7), 7, "marker-7f3a", "minors", 3, "r-1", "acme", "images[0]", NOW)
POLICY = ReportPolicy("http://127.0.0.1:1/hook", max_tries=3, base_seconds=0.001, cap_seconds=0.002)
OUTCOMES = st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0.0, 1.0)), max_size=30)


@given(OUTCOMES, st.booleans())
def test_no_step_is_left_out_whatever_fails(outcomes: list[tuple[bool, bool, float]], heard: bool) -> None:
    """States follow the drawn table, a case is told only once it is preserved, and only telling is ever given up."""
    policy = POLICY if heard else dataclasses.replace(POLICY, url="")
    case, now = Case(MARKER, CaseState.MATCHED, NOW), NOW
    for works, final, jitter in outcomes:
        now = max(now, case.due_at)
        actions = decide_report(case, policy, now)
        assert bool(actions) == (case.state not in {CaseState.REPORTED, CaseState.UNDELIVERED})
        for action in actions:
            assert isinstance(action, Block) == (case.state is CaseState.MATCHED)
            if isinstance(action, Deliver):
                assert case.state is CaseState.PRESERVED
                assert policy.url
            tried = dataclasses.replace(case, tries=case.tries + 1)
            outcome = Done() if works else Failed("broken", final=final)
            step = decide_step(tried, action, outcome, policy, now, jitter)
            assert step.state == case.state or step.state in TRANSITIONS[case.state]
            assert step.due_at <= now + dt.timedelta(seconds=policy.cap_seconds)
            if step.state is CaseState.UNDELIVERED:
                assert isinstance(action, Deliver)
                assert final or tried.tries >= policy.max_tries
            tries = tried.tries if step.state == case.state else 0
            case = Case(MARKER, step.state, step.due_at, step.sealed_id, tries)


@given(st.floats(0.001, 1_000.0))
def test_a_case_that_is_not_due_is_left_alone(early: float) -> None:
    """A step that failed waits for its time."""
    case = Case(MARKER, CaseState.PRESERVED, NOW + dt.timedelta(seconds=early))
    assert decide_report(case, POLICY, NOW) == []


def test_what_is_told_holds_ids_numbers_and_times_alone() -> None:
    """No content, no prompt, no credential."""
    told = body_of(Case(MARKER, CaseState.PRESERVED, NOW, "sealed-1"))
    assert set(told) == {
        "case_id", "category", "bank_id", "entry_id", "distance", "request_id", "tenant_id", "place", "matched_at",
        "sealed_id",
    }  # fmt: skip


class Receiver:
    """An authority's hook on loopback."""

    def __init__(self) -> None:
        self.answers = [200]
        self.seen: list[tuple[Mapping[str, str], dict[str, object]]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        """Record, then answer."""
        self.seen.append((dict(request.headers), json.loads(await request.read())))
        return web.Response(status=self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])


class Sealed:
    """Withholds and preserves in memory; fails as often as it is told to."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.failures = 0

    async def withhold(self, case: Case) -> None:
        """Withhold."""
        self._do("withhold", case)

    async def preserve(self, case: Case) -> str:
        """Preserve."""
        self._do("preserve", case)
        return f"sealed of {case.opened.request_id}"

    async def read(self, sealed_id: str) -> bytes:
        """Return what was sealed: a marker."""
        return f"MARKER-7F3A {sealed_id}".encode()

    def _do(self, what: str, case: Case) -> None:
        if self.failures:
            self.failures -= 1
            raise Unavailable("the sealed store is away")
        self.did.append(f"{what} {case.opened.place}")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver on loopback."""
    one = Receiver()
    app = web.Application()
    app.router.add_route("POST", "/hook", one.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield one
    await runner.cleanup()


@pytest.fixture
def ports(database: Database, receiver: Receiver) -> ReportPorts:
    """The loop on a real database, with a signature that a test can read."""
    sealed = Sealed()
    return ReportPorts(
        reports=PostgresReports(database, SystemClock()),
        withholder=sealed,
        keeper=sealed,
        sign=lambda case, _at, body: {"X-Signed": f"{case.opened.case_id} {len(body)}"},
        policy=dataclasses.replace(POLICY, url=receiver.url),
        clock=SystemClock(),
        chance=SeededChance(1),
        metrics=Metrics(),
        allow_private=True,
    )


async def worked_off(ports: ReportPorts, state: CaseState) -> None:
    """Run the loop until the only case is in a state."""
    async with asyncio.timeout(20):
        while [kept.case.state for kept in await ports.reports.cases(None, 10)] != [state]:
            await run_once(ports)


async def test_a_match_is_blocked_preserved_and_reported_with_proof(
    ports: ReportPorts, receiver: Receiver, database: Database
) -> None:
    """In this order, once, signed; the receiver's status, headers and time are kept, each move is audited."""
    assert await ports.reports.open(MARKER)
    assert not await ports.reports.open(MARKER)
    await worked_off(ports, CaseState.REPORTED)
    assert isinstance(ports.keeper, Sealed)
    assert ports.keeper.did == ["withhold images[0]", "preserve images[0]"]
    ((headers, told),) = receiver.seen
    assert headers["X-Signed"].startswith(MARKER.case_id)
    assert told["sealed_id"] == "sealed of r-1"
    assert "media_base64" not in told
    (kept,) = await ports.reports.cases(CaseState.REPORTED, 10)
    assert kept.proof is not None
    assert kept.proof["status"] == 200
    assert len(str(kept.proof["headers_sha256"])) == 64
    rows = await postgres_audit.read_newest(database, subject=f"case:{MARKER.case_id}")
    assert [row.entry.action for row in rows] == ["move_case"] * 3 + ["open_case"]


async def test_a_receiver_that_is_away_is_tried_again_and_a_person_may_start_anew(
    ports: ReportPorts, receiver: Receiver
) -> None:
    """After its tries the case waits for a person, preserved as it is."""
    receiver.answers = [503]
    await ports.reports.open(MARKER)
    await worked_off(ports, CaseState.UNDELIVERED)
    assert len(receiver.seen) == POLICY.max_tries
    receiver.answers = [204]
    assert await ports.reports.try_again(MARKER.case_id, actor="human:k", reason="their hook is back")
    await worked_off(ports, CaseState.REPORTED)


async def test_nothing_is_told_before_it_is_preserved(ports: ReportPorts, receiver: Receiver) -> None:
    """While the sealed store is away the receiver hears nothing, and nothing is given up."""
    assert isinstance(ports.keeper, Sealed)
    ports.keeper.failures = 5
    await ports.reports.open(MARKER)
    await worked_off(ports, CaseState.REPORTED)
    assert ports.keeper.failures == 0
    assert len(receiver.seen) == 1


async def test_media_goes_along_only_where_the_operator_has_asked_for_it(
    ports: ReportPorts, receiver: Receiver
) -> None:
    """Then the sealed copy is in the report."""
    asked = dataclasses.replace(ports, policy=dataclasses.replace(ports.policy, attach_media=True))
    await asked.reports.open(MARKER)
    await worked_off(asked, CaseState.REPORTED)
    assert "media_base64" in receiver.seen[0][1]


async def test_without_a_receiver_a_case_waits_preserved(ports: ReportPorts) -> None:
    """Nothing is lost while nobody is named to be told."""
    deaf = dataclasses.replace(ports, policy=dataclasses.replace(POLICY, url="", base_seconds=600.0, cap_seconds=600.0))
    await deaf.reports.open(MARKER)
    await worked_off(deaf, CaseState.PRESERVED)
    await run_once(deaf)
    (kept,) = await deaf.reports.cases(None, 10)
    assert kept.problem == "no receiver of reports is set"
