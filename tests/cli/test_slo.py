"""`forestay slo status` and `explain`, through HTTP to a real database and back."""

import json
from collections.abc import Awaitable, Callable

from tests.cli.conftest import Platform, Ran
from tests.slo.objectives import slo

from forestay.slo.defaults import default_slos
from forestay.slo.model import Counts, Minute, SloId
from forestay.slo.postgres_store import PostgresSloStandings
from forestay.slo.watching import Watching

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
        "digits", "forestay-delivery", "forestay-guard", "forestay-safety", "forestay-submit",
    ]  # fmt: skip
    assert [row["word"] for row in rows] == ["page", *["no_data"] * 4]
    burning = (await forestay("slo", "status", "--burning")).out.splitlines()
    assert len(burning) == 2
    assert "model:acme/digits" in burning[1]


async def test_an_explanation_says_what_how_fast_since_when_why_and_what_is_left(
    forestay: Forestay, platform: Platform
) -> None:
    """By the SLO's id, the model's id, or the model's own name."""
    await burnt(platform)
    for name in ("digits", "acme/digits"):
        told = (await forestay("slo", "explain", name)).out
        assert "standing: page since 20" in told
        assert "500 bad of 15,000" in told
        assert "burn rate: " in told
        assert "page: digits (model acme/digits): " in told
        assert "Why now: " in told
    quiet = (await forestay("slo", "explain", "forestay-guard")).out
    assert "neither good nor bad" in quiet


async def test_an_unknown_slo_is_told_with_the_way_to_those_that_exist(forestay: Forestay, platform: Platform) -> None:
    """Wrong usage, not an empty answer."""
    await burnt(platform)
    refused = await forestay("slo", "explain", "nothing")
    assert refused.status == 2
    assert "`forestay slo status` lists them" in refused.err
