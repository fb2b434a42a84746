"""The port by which judges read roll-ups: minutes of counts of a model, a tenant or the platform; and its adapter.

No traffic is no row: neither good nor bad. A minute at or after `complete_until` has not been seen, which is something
else than an empty one. A minute that was rolled up again because facts came late is told by `changed`. It decides
nothing about objectives.
"""

import dataclasses
import datetime as dt
import enum
from typing import Any, Protocol, cast

from forestay.errors import UsageError
from forestay.storage.postgres import Database, Record, load_queries
from forestay.telemetry.histogram import bin_of, merged
from forestay.telemetry.measures import TIMED, Measure
from forestay.telemetry.rollups import COUNTS, Group, Tallies, Tally

_SQL = load_queries("forestay.telemetry", "sql/rollups.sql")
_MINUTE_SECONDS = 60


class By(enum.StrEnum):
    """Whose counts are added up."""

    PLATFORM = "platform"
    MODEL = "model"
    TENANT = "tenant"


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """What is asked: an indicator, by whom, and of which one (None: each, in one answer)."""

    measure: Measure
    by: By = By.PLATFORM
    name: str | None = None
    threshold_seconds: float | None = None  # of timed measures: good is at most so long, within the histogram's error

    def __post_init__(self) -> None:
        if (self.measure in TIMED) != (self.threshold_seconds is not None):
            needs = "needs a threshold in seconds" if self.measure in TIMED else "knows no threshold"
            raise UsageError("threshold_seconds", f"{self.measure.value} {needs}")
        if self.measure is Measure.STATUS and self.by is not By.PLATFORM:
            raise UsageError("by", "status is counted of the whole platform alone")


@dataclasses.dataclass(frozen=True, slots=True)
class MinuteCounts:
    """One subject's minute; goodput counts device-milliseconds, everything else requests, notices or verdicts.

    Of throughput, good is what ended by no fault of ours (by a caller's own too: it waits no longer), bad what failed
    or could not be taken.
    """

    minute: int  # since 1970-01-01T00:00Z
    subject: str  # model, tenant, or empty for the platform
    good: int = 0
    bad: int = 0
    probes_good: int = 0
    probes_bad: int = 0
    asked: int = 0  # of throughput: what was asked for in this minute, by probes too


@dataclasses.dataclass(slots=True)
class ModelCounts:
    """What a tenant asked of one model over some minutes; probes are counted and lie in no other number."""

    good: int = 0
    bad: int = 0
    probes: int = 0
    cancelled: int = 0  # of excluded: the caller cancelled them, or left
    failed: dict[str, int] = dataclasses.field(default_factory=dict[str, int])  # cause -> bad
    excluded: dict[str, int] = dataclasses.field(default_factory=dict[str, int])  # cause -> neither good nor bad
    latency: dict[int, int] = dataclasses.field(default_factory=dict[int, int])  # bin -> successes: `histogram`

    def add(self, other: "ModelCounts") -> None:
        """Take what other minutes held."""
        self.good += other.good
        self.bad += other.bad
        self.probes += other.probes
        self.cancelled += other.cancelled
        for cause, count in other.failed.items():
            self.failed[cause] = self.failed.get(cause, 0) + count
        for cause, count in other.excluded.items():
            self.excluded[cause] = self.excluded.get(cause, 0) + count
        self.latency = merged((self.latency, other.latency))


@dataclasses.dataclass(frozen=True, slots=True)
class Changed:
    """Minutes that were rolled up since an earlier look, and where to go on."""

    minutes: tuple[int, ...]
    position: int
    more: bool


class RollupReader(Protocol):
    """Roll-ups, as judges read them."""

    async def complete_until(self) -> int | None:
        """Return the first minute that is not complete yet; None before anything was rolled up."""
        ...

    async def counts(self, question: Question, since: int, until: int) -> list[MinuteCounts]:
        """Return the counts of the minutes from `since` on, before `until`, in order; one without any is absent."""
        ...

    async def changed(self, after: int, limit: int = 10_000) -> Changed:
        """Return the minutes that were rolled up after a position (0: from the beginning), each once, in order."""
        ...


class PostgresRollups:
    """RollupReader over the facts database."""

    def __init__(self, facts: Database) -> None:
        self._facts = facts

    async def complete_until(self) -> int | None:
        """Return the first minute that is not complete yet."""
        found = await self._facts.fetchval(_SQL["complete_until"])
        return minute_number(found) if isinstance(found, dt.datetime) else None

    async def counts(self, question: Question, since: int, until: int) -> list[MinuteCounts]:
        """Return the counts of minutes, in one statement whatever the number of subjects."""
        bounds = (minute_start(since), minute_start(until), question.by.value, question.name, question.measure.value)
        if question.threshold_seconds is None:
            rows = await self._facts.fetch(_SQL["counts"], *bounds)
        else:
            rows = await self._facts.fetch(_SQL["timed_counts"], *bounds, bin_of(question.threshold_seconds))
        return _counts(rows)

    async def tallies(self, since: int, until: int, model_id: str | None, tenant_id: str | None) -> Tallies:
        """Return everything that is rolled up of the minutes, of one model and tenant (None: any), for reports."""
        bounds = minute_start(since), minute_start(until)
        return dict(_tally(row) for row in await self._facts.fetch(_SQL["rows"], *bounds, model_id, tenant_id))

    async def of_tenant(self, since: int, until: int, tenant_id: str) -> dict[str, ModelCounts]:
        """Return what a tenant asked of each model in the minutes, in two statements; for reports to customers."""
        bounds = minute_start(since), minute_start(until), tenant_id
        found: dict[str, ModelCounts] = {}
        for row in await self._facts.fetch(_SQL["tenant_models"], *bounds):
            model = found.setdefault(cast("str", row["model_id"]), ModelCounts())
            good, bad, excluded = (cast("int", row[name]) for name in ("good", "bad", "excluded"))
            if row["probe"]:
                model.probes += good + bad + excluded
                continue
            model.good, model.bad = model.good + good, model.bad + bad
            model.cancelled += cast("int", row["cancelled"])
            if bad:
                model.failed[cast("str", row["cause"])] = bad
            if excluded:
                model.excluded[cast("str", row["cause"])] = excluded
        for row in await self._facts.fetch(_SQL["tenant_latency"], *bounds):
            model = found.setdefault(cast("str", row["model_id"]), ModelCounts())
            model.latency[cast("int", row["bin"])] = cast("int", row["count"])
        return found

    async def changed(self, after: int, limit: int = 10_000) -> Changed:
        """Return the minutes that were rolled up after a position."""
        rows = await self._facts.fetch(_SQL["changed"], after, limit)
        minutes = tuple(minute_number(cast("dt.datetime", row["minute"])) for row in rows)
        return Changed(minutes, cast("int", rows[-1]["rolled"]) if rows else after, len(rows) == limit)


def minute_number(moment: dt.datetime) -> int:
    """Return a minute's number since 1970."""
    return int(moment.timestamp()) // _MINUTE_SECONDS


def minute_start(number: int) -> dt.datetime:
    """Return when a minute begins."""
    return dt.datetime.fromtimestamp(number * _MINUTE_SECONDS, dt.UTC)


def _tally(row: Record) -> tuple[Group, Tally]:
    group = Group(**{field.name: row[field.name] for field in dataclasses.fields(Group)})
    # Null: it was not counted yet when the row was made.
    counts = {name: cast("Any", row[name] or 0) for name in COUNTS}
    tally = Tally(**counts, device_seconds=[row["device_seconds"]])
    tally.work = {unit: [amount] for unit, amount in cast("dict[str, float]", row["work"]).items()}
    latency = cast("dict[str, dict[str, int]]", row["latency"])
    tally.latency = {stage: {int(number): n for number, n in bins.items()} for stage, bins in latency.items()}
    return group, tally


def _counts(rows: list[Record]) -> list[MinuteCounts]:
    found: dict[tuple[int, str], MinuteCounts] = {}
    for row in rows:
        good, bad = cast("int | None", row["good"]) or 0, cast("int | None", row["bad"]) or 0
        asked = cast("int | None", row.get("asked")) or 0
        if not good and not bad and not asked:
            continue  # only what counts as neither: no traffic as far as this indicator goes
        key = minute_number(cast("dt.datetime", row["minute"])), cast("str", row["subject"])
        before = found.get(key) or MinuteCounts(*key)
        found[key] = (
            dataclasses.replace(before, probes_good=good, probes_bad=bad, asked=before.asked + asked)
            if row["probe"]
            else dataclasses.replace(before, good=good, bad=bad, asked=before.asked + asked)
        )
    return list(found.values())
