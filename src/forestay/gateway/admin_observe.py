"""Admin routes of observing: facts from outside, and what is rolled up of a model, a tenant or everything."""

import dataclasses
import datetime as dt
from collections.abc import Iterable

from forestay.errors import UsageError
from forestay.gateway.admin_reading import Act, read_body
from forestay.gateway.responses import Reply, json_reply
from forestay.telemetry.histogram import merged, quantile
from forestay.telemetry.measures import TIMED
from forestay.telemetry.outside import Batch, read_batch
from forestay.telemetry.rollup_reader import minute_number
from forestay.telemetry.rollups import Group, Tally

MAX_BYTES = 8 * 1024 * 1024
_MOST_TENANTS = 20
_MAX_SPAN = dt.timedelta(days=31)
_QUANTILES = (0.5, 0.9, 0.99)


async def post_facts(act: Act) -> Reply:
    """Take facts from outside; what is wrong is named by its place and field, the rest is kept."""
    batch = await read_body(act.request, act.ports, Batch, MAX_BYTES)
    retention = act.ports.settings.queue.facts_retention_seconds
    kept, faults = read_batch(batch, act.ports.clock.now(), retention)
    if kept:
        await act.ports.facts.write(kept)
    return json_reply(200, {"kept": len(kept), "faults": [dataclasses.asdict(fault) for fault in faults]})


async def get_summary(act: Act) -> Reply:
    """Return counts, quantiles by stage, device-seconds and work between two moments, and the tenants hurt most."""
    reader = act.ports.admin.rollups
    until = act.moment("until") or act.ports.clock.now()
    since = act.moment("since") or until - dt.timedelta(hours=1)
    if not dt.timedelta(0) < until - since <= _MAX_SPAN:
        raise UsageError("since", "must lie before `until`, at most 31 days")
    model, tenant = act.query("model"), act.query("tenant")
    tallies = await reader.tallies(minute_number(since), minute_number(until), model, tenant)
    complete = await reader.complete_until()
    return json_reply(
        200,
        {
            "since": since,
            "until": until,
            "complete_until": None if complete is None else dt.datetime.fromtimestamp(complete * 60, dt.UTC),
            "all": _summary(tallies.values()),
            "models": {name: _summary(found) for name, found in sorted(_by_model(tallies.items()).items())},
            "worst_tenants": _worst_tenants(tallies.items()),
        },
    )


def _worst_tenants(tallies: Iterable[tuple[Group, Tally]]) -> list[dict[str, object]]:
    """Return the tenants with the most bad requests, the worst first; who had none is not among them."""
    counts: dict[str, list[int]] = {}
    for group, tally in tallies:
        if group.model_id and group.tenant_id and (tally.good or tally.bad):
            good, bad = counts.get(group.tenant_id, (0, 0))
            counts[group.tenant_id] = [good + tally.good, bad + tally.bad]
    worst = sorted((item for item in counts.items() if item[1][1]), key=lambda item: (-item[1][1], item[0]))
    return [{"tenant_id": name, "good": good, "bad": bad} for name, (good, bad) in worst[:_MOST_TENANTS]]


def _by_model(tallies: Iterable[tuple[Group, Tally]]) -> dict[str, list[Tally]]:
    found: dict[str, list[Tally]] = {}
    for group, tally in tallies:
        if group.model_id:  # polls are counted of the platform alone
            found.setdefault(group.model_id, []).append(tally)
    return found


def _summary(tallies: Iterable[Tally]) -> dict[str, object]:
    total = Tally()
    for tally in tallies:
        total.add(tally)
    stages = {measure.value: total.latency.get(measure.value, {}) for measure in sorted(TIMED)}
    return {
        "requests": total.requests,
        "availability": [total.good, total.bad, total.excluded],
        "cancelled": total.cancelled,
        "validity": [total.valid, total.invalid],
        "safety": [total.judged, total.unjudged],
        "delivery": [total.delivered, total.undelivered],
        "submit": [total.submits_good, total.submits_bad],
        "status": [total.polls_good, total.polls_bad],
        "guard": [total.guard_good, total.guard_bad],
        "attempts": total.attempts,
        "device_seconds": sum(total.device_seconds),
        "goodput": [total.device_ms_good, total.device_ms_bad],
        "work": {unit: sum(amounts) for unit, amounts in total.work.items()},
        "stages": {
            name: {f"p{share * 100:g}": quantile(merged((bins,)), share) for share in _QUANTILES}
            for name, bins in stages.items()
            if bins
        },
    }
