"""`forestay safety audit`: a sample of what was released, looked at once more, through HTTP to a real database."""

import datetime as dt
from collections.abc import Awaitable, Callable
from typing import cast

import msgspec
from tests.cli.conftest import Platform, Ran
from tests.cli.test_slo import burnt, ended

from forestay.clock import SystemClock
from forestay.safety.audit_store import PostgresAudits, Sampling
from forestay.telemetry.facts import FactWriter, RequestFact

Forestay = Callable[..., Awaitable[Ran]]


async def released(platform: Platform, count: int) -> list[RequestFact]:
    """Let queued requests of a minute ago be released, and one of each that is never sampled."""
    at = SystemClock().now() - dt.timedelta(minutes=1)
    facts = [ended("acme", at, good=True) for _ in range(count)]
    failed, direct, probe = (ended("acme", at, good=good) for good in (False, True, True))
    others = [failed, msgspec.structs.replace(direct, lane="direct"), msgspec.structs.replace(probe, traffic="probe")]
    await FactWriter(platform.database).write([*facts, *others])
    return facts


async def test_the_sample_follows_from_the_seed_alone(platform: Platform) -> None:
    """The same each time; another seed is another; nothing but released outputs of callers' queued requests."""
    facts = await released(platform, 400)
    audits, now = PostgresAudits(platform.database, platform.database, writer="test"), SystemClock().now()
    since = now - dt.timedelta(hours=1)

    async def drawn(seed: str, ratio: float) -> list[str]:
        return [str(one.request_id) for one in await audits.due(Sampling(seed, ratio), since, now, 1_000)]

    everything = await drawn("a", 1.0)
    assert set(everything) == {str(fact.request_id) for fact in facts}
    tenth = await drawn("a", 0.1)
    assert tenth == await drawn("a", 0.1) == everything[: len(tenth)]  # the first so many are a sample as well
    assert 15 < len(tenth) < 75
    assert set(tenth) != set(await drawn("b", 0.1))
    assert await drawn("a", 0.0) == []


async def test_people_label_the_sample_and_the_estimate_stands_beside_the_slo_on_safety(
    forestay: Forestay, platform: Platform
) -> None:
    """Each output once, on record; nothing that was not drawn; share, interval and what would halve it."""
    await burnt(platform)
    assert "sample" not in (await forestay("slo", "status")).out
    facts = await released(platform, 3)
    assert "is not known" in (await forestay("safety", "audit", "estimate")).out
    due = cast("list[dict[str, str]]", (await forestay("safety", "audit", "list", "--json")).json())
    assert {row["request_id"] for row in due} == {str(fact.request_id) for fact in facts}
    for row, said in zip(due, ("--right", "--right", "--wrong"), strict=True):
        done = await forestay("safety", "audit", "label", row["request_id"], said, "--reason", "looked at")
        assert done.status == 0, done.err
    again = await forestay(
        "safety", "audit", "label", due[0]["request_id"], "--wrong", "--reason", "on second thoughts"
    )
    assert (again.status, "never edited" in again.err) == (1, True)
    other = str(ended("acme", facts[0].submitted_at, good=True).request_id)
    stranger = await forestay("safety", "audit", "label", other, "--wrong", "--reason", "chosen")
    assert "is not in the sample" in stranger.err
    assert "nothing of the sample waits" in (await forestay("safety", "audit", "list")).out
    told = (await forestay("safety", "audit", "estimate", "--model", "acme/digits")).out
    assert "3 released outputs were looked at again, 1 should not have gone out: 33.3 %" in told
    assert "is not known" in (await forestay("safety", "audit", "estimate", "--model", "acme/other")).out
    explained = (await forestay("slo", "explain", "forestay-safety")).out
    assert "note: 3 released outputs were looked at again, 1 should not have gone out" in explained
    assert "looked at again" not in (await forestay("slo", "explain", "forestay-guard")).out
    columns, *rows = [line.split("\t") for line in (await forestay("slo", "status")).out.splitlines()]
    shown = {row[0]: row[columns.index("wrong by a sample, 95 %")] for row in rows}
    assert shown["forestay-safety"] == "33.3 % (6.15 to 79.2 %), 3 looked at"
    assert shown["forestay-guard"] == "-"
    month = f"{facts[0].finished_at:%Y-%m}"
    asked = ("slo", "report", "--tenant", "acme", "--month")
    [sample] = [line for line in (await forestay(*asked, month)).out.splitlines() if line.startswith("| 3 | 1 | ")]
    assert sample == "| 3 | 1 | 33.3 % | 6.15 % and 79.2 % |"
    earlier = f"{facts[0].finished_at.replace(day=1) - dt.timedelta(days=1):%Y-%m}"
    assert "is not known" in (await forestay(*asked, earlier)).out
    assert "audit_release" in (await forestay("audit", "list", "--json")).out
