"""The admin route of a customer's report: one tenant's month.

It decides who may read it: people of the platform and keys of its own tenant (`default`) read any tenant's; another key
reads its own tenant's, and anybody else's is not there for it.
"""

import dataclasses
import datetime as dt

from forestay.errors import UsageError
from forestay.fleet.keys import Tenant, is_tenant_id
from forestay.gateway.admin_reading import Act, NotThere
from forestay.gateway.admin_safety_audit import estimate_about
from forestay.gateway.responses import Reply, json_reply
from forestay.ids import PLATFORM_TENANT, TenantId
from forestay.slo.customer_month import fetch_report
from forestay.slo.customer_report import Customer, Month, SampleLine, month_of
from forestay.slo.model import SubjectKind
from forestay.telemetry.rollup_reader import minute_number, minute_start


async def get_report(act: Act) -> Reply:
    """Show a tenant's month: availability, latency, budgets, credits, and what counts as neither."""
    tenant = await _tenant(act)
    month, admin = _month(act), act.ports.admin
    standings = [kept.standing for kept in await admin.slos.all()]
    promised = standings, await admin.budgets.in_force(month.first)
    customer = Customer(tenant.tenant_id, tenant.name, tenant.created_at)
    sample = await _sample(act, tenant.tenant_id, month)
    report = await fetch_report(admin.rollups, customer, month, promised, act.ports.clock.now, sample)
    return json_reply(200, dataclasses.asdict(report))


async def _sample(act: Act, tenant_id: TenantId, month: Month) -> SampleLine | None:
    """Return what was found in the tenant's outputs of the month that were looked at again; None where none was."""
    first, until = minute_start(month.first), minute_start(month.until)
    found = await estimate_about(act, f"{SubjectKind.TENANT}:{tenant_id}", first, until)
    return None if found is None else SampleLine(found.looked_at, found.wrong, found.ratio, found.low, found.high)


async def _tenant(act: Act) -> Tenant:
    text = act.path("tenant_id")
    own = act.who.tenant_id in {None, PLATFORM_TENANT, text}
    found = await act.ports.key_store.tenant(TenantId(text)) if own and is_tenant_id(text) else None
    if found is None:
        raise NotThere(f"tenant: no tenant {text[:60]!r}; `forestay tenant list` shows those that exist")
    return found


def _month(act: Act) -> Month:
    """Return the month asked for, checked against the clock and against how long roll-ups are kept."""
    month, now = month_of(act.query("month") or ""), act.ports.clock.now()
    if month.first > minute_number(now):
        raise UsageError("month", f"{month.name} lies ahead; name this month or an earlier one")
    kept = now - dt.timedelta(seconds=act.ports.settings.observe.rollups_retention_seconds)
    if month.until <= minute_number(kept):
        told = f"{month.name} is not kept any more; FORESTAY_ROLLUPS_RETENTION reaches back to {kept:%Y-%m}"
        raise UsageError("month", told)
    return month
