"""Admin routes of limits: set, list and remove rules; show what a subject has spent, holds and has left.

A rule holds on every gateway within a second of its answer, without a restart. Amounts of money are currency units here
and hundredths inside.
"""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence

import msgspec

from forestay.errors import Unavailable, UsageError
from forestay.gateway.admin_reading import Act, NotThere, plain_text
from forestay.gateway.responses import Reply, json_reply
from forestay.ids import KeyId, ModelId, TenantId
from forestay.limits.counters import Level, Taken, month_left_seconds, month_of, read_levels
from forestay.limits.model import (
    ANY,
    BUDGETS,
    MONEY_HUNDREDTHS,
    Charge,
    LimitKind,
    LimitRule,
    LimitScope,
    Subject,
    checked_rule,
    parse_subject,
)
from forestay.limits.plan import SHARED_SLOT, Check, Rulebook, make_plan, slot_of_tenant
from forestay.limits.store import Account, Spent
from forestay.limits.view import default_rules, with_defaults


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    subject: str
    requests_per_second: float | None = None
    burst: float | None = None
    in_flight: float | None = None
    gpu_seconds_per_minute: float | None = None
    gpu_seconds_per_month: float | None = None
    money_per_month: float | None = None
    reason: str = "asked for"


async def get_limits(act: Act) -> Reply:
    """List the rules; with `subject` those that hold for it, its own and those of `*`."""
    _, stored = await act.ports.limits.store.rules()
    text = act.query("subject")
    if text is None:
        return json_reply(200, {"limits": [rule_view(rule) for rule in stored]})
    subject = parse_subject(text)
    checks = _book(act, stored).of(subject)
    return json_reply(200, {"subject": str(subject), "limits": [rule_view(check.rule) for check in checks]})


async def put_limits(act: Act) -> Reply:
    """Set rules of one subject; kinds that are not named stay as they are."""
    wanted = await act.json(_Wanted)
    subject = parse_subject(wanted.subject)
    rules = [
        checked_rule(subject, kind, _stored_amount(kind, amount), _burst_of(kind, wanted))
        for kind in LimitKind
        if (amount := getattr(wanted, kind.value)) is not None
    ]
    if wanted.burst is not None and wanted.requests_per_second is None:
        raise UsageError("burst", "belongs to requests_per_second; set both together")
    if not rules:
        raise UsageError("body", f"name at least one limit: {', '.join(LimitKind)}")
    await _must_exist(act, subject)
    reason = plain_text("reason", wanted.reason)
    await act.ports.limits.store.put(rules, actor=act.actor, reason=reason)
    return json_reply(200, {"subject": str(subject), "limits": [rule_view(rule) for rule in rules]})


async def delete_limits(act: Act) -> Reply:
    """Remove rules of one subject: those of `kind` (repeatable), or all."""
    subject = parse_subject(act.query("subject") or "")
    kinds = [_kind(text) for text in act.request.query_params.getlist("kind")]
    reason = plain_text("reason", act.query("reason") or "asked for")
    removed = await act.ports.limits.store.remove(subject, kinds or None, actor=act.actor, reason=reason)
    if not removed:
        raise NotThere(f"{subject} has no such limit of its own; `forestay limit list` shows those that exist")
    return json_reply(200, {"subject": str(subject), "removed": removed})


async def get_usage(act: Act) -> Reply:
    """Show what a subject has spent this month (or in `month`), a model at a time, and what its limits leave."""
    subject = parse_subject(act.query("subject") or "")
    if subject.id == ANY and subject.scope is not LimitScope.FLEET:
        raise UsageError("subject", "name one subject; `*` stands for many")
    now = act.ports.clock.now()
    month = _month(act.query("month")) or month_of(now)
    account = Account(subject, await _must_exist(act, subject))
    (spent,) = await act.ports.limits.store.spent([account], month)
    models = await act.ports.limits.store.by_model(account, month)
    levels: Sequence[tuple[Check, Level | None]] = []
    if month == month_of(now):
        levels = await _levels(act, account)
    return json_reply(
        200,
        {
            "subject": str(subject),
            "month": f"{month:%Y-%m}",
            "month_ends_in_seconds": round(month_left_seconds(now)) if levels or month == month_of(now) else 0,
            "spent": _spent_view(spent),
            "by_model": [{"model_id": model_id, **_spent_view(item)} for model_id, item in models],
            "limits": [_level_view(check, level, spent.charge) for check, level in levels],
        },
    )


async def _levels(act: Act, account: Account) -> list[tuple[Check, Level | None]]:
    """Ask the counters what each limit leaves; None where they do not say (nothing was counted yet, or no Valkey)."""
    _, stored = await act.ports.limits.store.rules()
    checks, counters = _book(act, stored).of(account.subject), act.ports.limits.counters
    shared = account.subject.scope in {LimitScope.MODEL, LimitScope.FLEET}
    levels: Sequence[Level | None] = [None] * len(checks)
    if checks and counters is not None:
        plan = make_plan(SHARED_SLOT if shared else slot_of_tenant(account.tenant_id), checks)
        try:
            outcome = await counters.view(plan)
        except Unavailable:
            outcome = None
        if isinstance(outcome, Taken):
            levels = read_levels(outcome.levels)
    return list(zip(checks, levels, strict=True))


def _book(act: Act, stored: list[LimitRule]) -> Rulebook:
    """Return the stored rules with the settings' defaults, as the gateways read them."""
    return Rulebook(with_defaults(stored, default_rules(act.ports.settings.limits)))


async def _must_exist(act: Act, subject: Subject) -> TenantId:
    """Return the tenant of a key or a tenant (empty for others); a subject that does not exist is a typing error."""
    if subject.id == ANY:
        return TenantId("")
    match subject.scope:
        case LimitScope.KEY:
            return await _tenant_of(act, KeyId(subject.id))
        case LimitScope.TENANT:
            known = {tenant.tenant_id for tenant in await act.ports.key_store.tenants()}
            if subject.id not in known:
                raise UsageError("subject", f"no tenant {subject.id!r}; `forestay tenant list` shows those that exist")
            return TenantId(subject.id)
        case LimitScope.MODEL:
            if ModelId(subject.id) not in (await act.ports.fleet.load()).models:
                raise UsageError("subject", f"no model {subject.id!r}; `forestay model list` shows those that exist")
        case LimitScope.FLEET:
            pass
    return TenantId("")


async def _tenant_of(act: Act, key_id: KeyId) -> TenantId:
    stored = await act.ports.key_store.find(key_id)
    if stored is None:
        raise UsageError("subject", f"no key {key_id!r}; `forestay key list` shows those that exist")
    return stored.key.tenant_id


def _stored_amount(kind: LimitKind, amount: float) -> float:
    return amount * MONEY_HUNDREDTHS if kind is LimitKind.MONEY_PER_MONTH else amount


def _burst_of(kind: LimitKind, wanted: _Wanted) -> float | None:
    return wanted.burst if kind is LimitKind.REQUESTS_PER_SECOND else None


def _kind(text: str) -> LimitKind:
    try:
        return LimitKind(text.replace("-", "_"))
    except ValueError:
        raise UsageError("kind", f"{text[:60]!r} is none of {', '.join(LimitKind)}") from None


def _month(text: str | None) -> dt.date | None:
    if text is None:
        return None
    try:
        return dt.date.fromisoformat(f"{text}-01")
    except ValueError:
        raise UsageError("month", "must be a month such as 2030-01") from None


def rule_view(rule: LimitRule) -> dict[str, object]:
    """Return a rule as it is shown."""
    shown: dict[str, object] = {
        "subject": str(rule.subject),
        "kind": rule.kind.value,
        "amount": _units(rule.kind, rule.amount),
    }
    return {**shown, "burst": rule.burst} if rule.burst else shown


def _units(kind: LimitKind, amount: float) -> float:
    return amount / MONEY_HUNDREDTHS if kind is LimitKind.MONEY_PER_MONTH else amount


def _spent_view(spent: Spent) -> dict[str, object]:
    charge = spent.charge
    return {
        "gpu_seconds": round(charge.gpu_seconds, 3),
        "money": round(charge.money / MONEY_HUNDREDTHS, 4),
        "requests": spent.requests,
    }


def _level_view(check: Check, level: Level | None, spent: Charge) -> Mapping[str, object]:
    """Return one limit with what is spent, reserved and left of it, in its own unit."""
    rule = check.rule
    view = {**rule_view(dataclasses.replace(rule, subject=check.subject)), "from": str(rule.subject)}
    most = rule.burst or _units(rule.kind, rule.amount)
    used = 0.0
    if rule.kind in BUDGETS:
        used = _units(rule.kind, spent.money if rule.kind is LimitKind.MONEY_PER_MONTH else spent.gpu_seconds)
    elif level is None:
        return {**view, "spent": None, "reserved": None, "left": None, "more_in_seconds": None}
    left = most - used if level is None else _units(rule.kind, level.left)
    numbers = {"spent": used, "reserved": most - used - left, "left": left}
    shown = {name: round(max(0.0, number), 3) for name, number in numbers.items()}
    return {**view, **shown, "more_in_seconds": None if level is None else round(level.more_in_seconds, 3)}
