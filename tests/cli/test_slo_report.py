"""`forestay slo report`, from facts through roll-ups and HTTP to the page that a customer reads."""

import datetime as dt
import pathlib
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import pytest
from tests.cli.conftest import Platform, Ran
from tests.cli.test_slo import ended

from forestay.clock import SystemClock
from forestay.fleet.keys import KeyRequest, Scope
from forestay.ids import ModelId, TenantId
from forestay.slo.loop import SloLoop, SloPorts
from forestay.slo.named import NamedSlos
from forestay.slo.postgres_store import PostgresSloStandings
from forestay.telemetry.facts import FactWriter, RequestFact
from forestay.telemetry.metrics import Metrics
from forestay.telemetry.rollup_loop import RollupLoop
from forestay.telemetry.rollup_reader import PostgresRollups

Forestay = Callable[..., Awaitable[Ran]]
AT = (SystemClock().now().replace(day=1) - dt.timedelta(days=40)).replace(hour=12, minute=0, second=0, microsecond=0)
MONTH, THIS_MONTH = f"{AT:%Y-%m}", f"{SystemClock().now():%Y-%m}"
FILE = """\
version: 1
slos:
  - id: gold-up
    subject: {tenant: acme}
    objective: 99
    sli: {kind: ratio, measure: availability}
    window: {rolling: 90d}
    owner: {team: sales}
    credits: [{below: 99.9, credit: 12}]
  - id: rivals-up
    subject: {tenant: rival}
    objective: 99
    sli: {kind: ratio, measure: availability}
    owner: {team: sales}
"""


def answered(tenant: str, at: dt.datetime, end: str) -> RequestFact:
    """A request that took three seconds."""
    made = ended(tenant, at, good=end == "good")
    made = msgspec.structs.replace(made, submitted_at=at - dt.timedelta(seconds=3))
    if end != "caller":
        return made
    return msgspec.structs.replace(made, outcome="caller_error", status_code=422, cause="caller")


async def lived(platform: Platform, tmp_path: pathlib.Path, facts: Sequence[RequestFact]) -> None:
    """Facts rolled up, and the controller's watch of the SLOs of a file."""
    path = tmp_path / "customers.yaml"
    path.write_text(FILE)
    database, clock, metrics = platform.database, SystemClock(), Metrics()
    await platform.ports.key_store.create_tenant(TenantId("rival"), "Rival Inc", actor="system:test")
    await FactWriter(database).write(list(facts))
    await RollupLoop(database, database, clock, metrics).run_once()
    store = PostgresSloStandings(database)

    async def models() -> dict[ModelId, object]:
        return {}

    named = NamedSlos(str(path), models, store, metrics)  # type: ignore[arg-type]
    await SloLoop(SloPorts(PostgresRollups(database), named.slos, store, clock, metrics)).run_once()


@pytest.fixture
async def month(platform: Platform, tmp_path: pathlib.Path) -> None:
    """Of acme 99 good, one bad and two of its own errors; later three bad ones; of its rival bad ones alone."""
    later = AT + dt.timedelta(hours=2)
    await lived(
        platform,
        tmp_path,
        [
            *(answered("acme", AT, "good") for _ in range(99)),
            answered("acme", AT, "bad"),
            *(answered("acme", AT, "caller") for _ in range(2)),
            *(answered("acme", later, "bad") for _ in range(3)),
            *(answered("rival", AT, "bad") for _ in range(7)),
        ],
    )


@pytest.mark.usefixtures("month")
async def test_a_month_is_told_with_its_credit_by_the_files_own_table_and_without_any_other_tenant(
    forestay: Forestay,
) -> None:
    """Counts, latency, the budget, what is not counted; nothing of the rival."""
    report = (await forestay("slo", "report", "--tenant", "acme", "--month", MONTH, "--json")).json()
    assert report["finished"] is True
    assert report["availability"] == {"good": 99, "bad": 4, "ratio": 99 / 103}
    [model] = report["models"]  # type: ignore[misc]
    assert model["p50_seconds"] == pytest.approx(3.0, rel=0.016)
    credit = report["credit"]
    assert (credit["credit_ratio"], credit["slo_id"]) == (0.12, "gold-up")  # type: ignore[index]
    assert credit["origin"] == "customers.yaml:3"  # type: ignore[index]
    [slo] = report["slos"]  # type: ignore[misc]
    assert (slo["slo_id"], slo["events"], slo["bad"]) == ("gold-up", 103, 4)
    assert slo["used_ratio"] == pytest.approx(4 / 103 / 0.01)
    for form in ("md", "html", "json"):
        page = (await forestay("slo", "report", "--tenant", "acme", "--month", MONTH, "--format", form)).out
        assert "gold-up" in page
        assert "rival" not in page.lower()


@pytest.mark.usefixtures("month")
async def test_what_was_adjusted_is_told_with_who_and_why_and_the_credit_is_counted_without_it(
    forestay: Forestay, tmp_path: pathlib.Path
) -> None:
    """As Markdown; into a file as HTML."""
    span = (f"{AT + dt.timedelta(hours=1):%Y-%m-%dT%H:%M}", f"{AT + dt.timedelta(hours=3):%Y-%m-%dT%H:%M}")
    done = await forestay("slo", "adjust", "gold-up", "--from", span[0], "--until", span[1], "--reason", "agreed work")
    assert done.status == 0, done.err
    page = (await forestay("slo", "report", "--tenant", "acme", "--month", MONTH)).out
    assert "| 3 | - | agreed work (by human:" in page
    assert "(4 of 103 requests failed by a fault of ours)" in page
    assert "on 99 % (1 of 100 requests failed by a fault of ours) after adjustments of gold-up" in page
    out = tmp_path / "acme.html"
    written = await forestay("slo", "report", "--tenant", "acme", "--month", MONTH, "--format", "html", "--out", out)
    assert written.out == f"{out}\n"
    assert "agreed work" in out.read_text()


async def test_a_month_without_traffic_that_is_not_over_is_told_as_both(forestay: Forestay) -> None:
    """Neither good nor bad, and provisional; the default table is named."""
    page = (await forestay("slo", "report", "--tenant", "acme", "--month", THIS_MONTH)).out
    assert "Provisional: the month is not over." in page
    assert "neither good nor bad" in page
    assert "Credit: 0 % of the month's fee so far, by the default table." in page


@pytest.mark.parametrize(
    ("tenant", "month", "status", "told"),
    [
        ("acme", "2026-13", 2, "--month: '2026-13' is no month such as 2026-11"),
        ("", THIS_MONTH, 2, "--tenant: is empty"),
        ("acme", "2999-01", 1, "month: 2999-01 lies ahead; name this month or an earlier one"),
        ("acme", "2001-01", 1, "is not kept any more; FORESTAY_ROLLUPS_RETENTION reaches back to"),
        ("nobody", THIS_MONTH, 1, "tenant: no tenant 'nobody'; `forestay tenant list` shows those that exist"),
        ("../keys", THIS_MONTH, 1, "HTTP 404"),
    ],
)
async def test_what_cannot_be_told_names_its_field(
    forestay: Forestay, tenant: str, month: str, status: int, told: str
) -> None:
    """A bad month, one that lies ahead or is gone, and a tenant that is not there."""
    refused = await forestay("slo", "report", "--tenant", tenant, "--month", month)
    assert refused.status == status
    assert told in refused.err


@pytest.mark.usefixtures("month")
async def test_a_tenants_admin_key_reads_its_own_report_and_the_platforms_key_every_one(
    forestay: Forestay, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another tenant's report is told just as one of a tenant that does not exist; without ADMIN there is none."""
    hidden = await forestay("slo", "report", "--tenant", "rival", "--month", MONTH)
    missing = await forestay("slo", "report", "--tenant", "rivax", "--month", MONTH)
    assert (hidden.status, hidden.err.replace("rival", "rivax")) == (1, missing.err)
    keys = platform.ports.key_store
    await keys.create_tenant(TenantId("default"), "Default", actor="system:test")
    made = await keys.create(KeyRequest(TenantId("default"), "t", frozenset({Scope.ADMIN})), actor="system:test")
    assert made is not None
    monkeypatch.setenv("FORESTAY_KEY", made.credential)
    told = (await forestay("slo", "report", "--tenant", "rival", "--month", MONTH, "--json")).json()
    assert (told["tenant_name"], told["availability"]) == ("Rival Inc", {"good": 0, "bad": 7, "ratio": 0.0})
    monkeypatch.setenv("FORESTAY_KEY", platform.api_key)
    assert (await forestay("slo", "report", "--tenant", "acme", "--month", MONTH)).status == 1
