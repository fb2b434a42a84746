"""`forestay slo status` and `explain`, through HTTP to a real database and back."""

import dataclasses
import datetime as dt
import json
import pathlib
import uuid
from collections.abc import Awaitable, Callable

import msgspec
from tests.cli.conftest import Platform, Ran
from tests.slo.objectives import slo

from forestay.chance import SystemChance
from forestay.cli.slo import told
from forestay.clock import SystemClock
from forestay.ids import KeyId, ModelId, TenantId, new_request_id
from forestay.slo.defaults import default_slos
from forestay.slo.loop import SloLoop, SloPorts
from forestay.slo.model import Counts, Measure, Minute, Part, Sli, SliKind, SloId, Subject, SubjectKind
from forestay.slo.named import NamedSlos
from forestay.slo.postgres_store import PostgresSloStandings
from forestay.slo.slo_folder import FileRead
from forestay.slo.watching import Watching
from forestay.telemetry.facts import FactWriter, RequestFact
from forestay.telemetry.metrics import Metrics
from forestay.telemetry.poll_facts import PollMinute
from forestay.telemetry.rollup_loop import RollupLoop
from forestay.telemetry.rollup_reader import PostgresRollups

START = 29_000_000
Forestay = Callable[..., Awaitable[Ran]]


async def burnt(platform: Platform) -> None:
    """A model in the middle of an outage beside the SLOs of Forestay itself, which nobody used."""
    watching = Watching([*default_slos({}), slo()], Minute(START), Minute(START))
    for minute in range(300):
        watching.take({SloId("digits"): Counts(good=50) if minute < 290 else Counts(bad=50)})
    await PostgresSloStandings(platform.database).keep(watching.standings(), platform.ports.clock.now())


async def test_what_wakes_somebody_stands_first(forestay: Forestay, platform: Platform) -> None:
    """As a table and as JSON; `--burning` leaves out what is quiet."""
    assert "no SLO is watched yet" in (await forestay("slo", "status")).out
    await burnt(platform)
    rows = json.loads((await forestay("slo", "status", "--json")).out)
    assert [row["slo_id"] for row in rows] == [
        "digits", "forestay-delivery", "forestay-guard", "forestay-safety", "forestay-status",
        "forestay-submit",
    ]  # fmt: skip
    assert [row["word"] for row in rows] == ["page", *["no_data"] * 5]
    burning = (await forestay("slo", "status", "--burning")).out.splitlines()
    assert len(burning) == 2
    assert "model:acme/digits" in burning[1]
    assert "overdrawn" in burning[1]


async def test_an_explanation_says_what_how_fast_since_when_why_and_what_is_left(
    forestay: Forestay, platform: Platform
) -> None:
    """By the SLO's id, the model's id, or the model's own name."""
    await burnt(platform)
    for name in ("digits", "acme/digits"):
        told = (await forestay("slo", "explain", name)).out
        assert "standing: page since 20" in told
        assert "500 bad of 15,000" in told
        assert "budget: overdrawn: " in told
        assert "burn rate: " in told
        assert "page: digits (model acme/digits): " in told
        assert "Why now: " in told
    quiet = (await forestay("slo", "explain", "forestay-guard")).out
    assert "neither good nor bad" in quiet


async def test_an_explanation_of_a_composite_names_the_parts_that_hurt_it(
    forestay: Forestay, platform: Platform
) -> None:
    """In the reason over the window that tells, and below it over the parts' own windows."""
    whole = dataclasses.replace(
        slo(), slo_id=SloId("all"), subject=Subject(SubjectKind.COMPOSITE), parts=(Part(SloId("digits")),)
    )
    watching = Watching([slo(), whole], Minute(START), Minute(START))
    for minute in range(300):
        watching.take({SloId("digits"): Counts(good=50) if minute < 290 else Counts(bad=50)})
    await PostgresSloStandings(platform.database).keep(watching.standings(), platform.ports.clock.now())
    told = (await forestay("slo", "explain", "all")).out
    assert "99.9 % of what its parts count, by their weights, within 30 days" in told
    assert "harm by part: digits 100% (500 bad of 15,000)" in told
    assert "It is hurt by digits (100%: " in told


def test_an_explanation_says_what_a_promise_of_throughput_is() -> None:
    """In slices and the promised rate, where nobody has described it."""
    sli = Sli(SliKind.TIME_SLICE, Measure.THROUGHPUT, 90.0, 5, slice_objective=0.95, per_second=2.5)
    watching = Watching([slo(0.99, sli=sli)], Minute(0), Minute(0))
    watching.take({})
    [standing] = watching.standings()
    said = told({"word": standing.word, **msgspec.to_builtins(standing)})
    assert said[0].endswith(
        "99 % of slices of 5 min in which the demand was met, or 2.5 requests a second, within 30 days"
    )


async def test_an_unknown_slo_is_told_with_the_way_to_those_that_exist(forestay: Forestay, platform: Platform) -> None:
    """Wrong usage, not an empty answer."""
    await burnt(platform)
    refused = await forestay("slo", "explain", "nothing")
    assert refused.status == 2
    assert "`forestay slo status` lists them" in refused.err


def ended(tenant: str, at: dt.datetime, *, good: bool) -> RequestFact:
    """A request of a tenant."""
    return RequestFact(
        request_id=new_request_id(at, 0, SystemChance()),
        lane="queue",
        tenant_id=TenantId(tenant),
        key_id=KeyId("k"),
        model_id=ModelId("acme/digits"),
        endpoint="/",
        revision_id=None,
        replica_id=None,
        attempts=1,
        state="succeeded" if good else "failed",
        outcome="succeeded" if good else "model_crash",
        status_code=200 if good else 500,
        error_type=None,
        submitted_at=at,
        started_at=at,
        answered_at=at,
        finished_at=at,
        device_seconds=1.0,
        cause=None if good else "model",
    )


async def test_a_tenants_slo_of_a_file_counts_that_tenants_requests_alone(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """From facts through roll-ups to the status, which says in which file and line it stands."""
    path = tmp_path / "tenants.yaml"
    path.write_text(
        "version: 1\nslos:\n"
        "  - id: gold-up\n    subject: {tenant: gold}\n    objective: 99\n"
        "    sli: {kind: ratio, measure: availability}\n    owner: {team: sales}\n"
    )
    database, clock, at = platform.database, SystemClock(), SystemClock().now() - dt.timedelta(minutes=10)
    facts = [ended("gold", at, good=number > 0) for number in range(20)]
    await FactWriter(database).write([*facts, *(ended("tin", at, good=False) for _ in range(7))])
    await RollupLoop(database, database, clock, Metrics()).run_once()
    store = PostgresSloStandings(database)

    async def models() -> dict[ModelId, object]:
        return {}

    named = NamedSlos(str(path), models, store, Metrics())  # type: ignore[arg-type]
    await SloLoop(SloPorts(PostgresRollups(database), named.slos, store, clock, Metrics())).run_once()
    rows = {row["slo_id"]: row for row in json.loads((await forestay("slo", "status", "--json")).out)}
    gold = rows["gold-up"]
    assert (gold["subject"], gold["events"], gold["bad"], gold["origin"]) == ("tenant:gold", 20, 1, "tenants.yaml:3")
    assert rows["forestay-submit"]["origin"] == "default"
    assert "from: tenants.yaml:3" in (await forestay("slo", "explain", "gold")).out


async def test_polls_that_gateways_counted_are_an_slo_of_forestay_itself(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """From a gateway's row through roll-ups to the status, with nothing set up."""
    database, clock = platform.database, SystemClock()
    at = (clock.now() - dt.timedelta(minutes=10)).replace(second=0, microsecond=0)
    await FactWriter(database).write_polls([PollMinute(at, uuid.UUID(int=1), "gateway-1", 990, 10)])
    await RollupLoop(database, database, clock, Metrics()).run_once()
    store = PostgresSloStandings(database)

    async def models() -> dict[ModelId, object]:
        return {}

    named = NamedSlos(str(tmp_path), models, store, Metrics())  # type: ignore[arg-type]
    await SloLoop(SloPorts(PostgresRollups(database), named.slos, store, clock, Metrics())).run_once()
    rows = {row["slo_id"]: row for row in json.loads((await forestay("slo", "status", "--json")).out)}
    status = rows["forestay-status"]
    assert (status["subject"], status["events"], status["bad"], status["origin"]) == ("platform", 1_000, 10, "default")
    assert "10 bad of 1,000" in (await forestay("slo", "explain", "forestay-status")).out


async def test_a_broken_file_of_slos_is_told_beside_the_standings(forestay: Forestay, platform: Platform) -> None:
    """With file, line and mend; what still holds is shown as ever, and `--json` stays clean."""
    await burnt(platform)
    store = PostgresSloStandings(platform.database)
    await store.tell_files([FileRead("a.yaml", (slo(),), ("a.yaml:5: objective: too much",)), FileRead("b.yaml")])
    shown = await forestay("slo", "status")
    assert "broken file of SLOs: a.yaml:5: objective: too much (1 SLOs of it hold as last read)" in shown.err
    assert len(json.loads((await forestay("slo", "status", "--json")).out)) == 6
    await store.tell_files([FileRead("b.yaml")])
    assert not (await forestay("slo", "status")).err
    assert [file.name for file in await store.files()] == ["b.yaml"]
