"""Rules and usage in Postgres: the adapter of `limits/store.LimitStore`. A change and its audit row commit together."""

# The driver's pooled connection is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import datetime as dt
from collections.abc import Sequence

from forestay.clock import Clock
from forestay.fleet import postgres_audit
from forestay.fleet.audit import AuditEntry
from forestay.ids import KeyId, ModelId, TenantId
from forestay.limits.model import Charge, LimitKind, LimitRule, LimitScope, Spender, Subject
from forestay.limits.store import Account, Beat, Closing, Spent, UsageRow
from forestay.storage.postgres import Connection, Database, Record, load_queries
from forestay.storage.valkey import Wakeups

CHANGED = "forestay:limits"
_RULES = load_queries("forestay.limits", "sql/rules.sql")
_USAGE = load_queries("forestay.limits", "sql/usage.sql")


class PostgresLimitStore:
    """Rules and usage; `writer` names this process's audit chain."""

    def __init__(self, database: Database, wakeups: Wakeups, clock: Clock, writer: str = "limits") -> None:
        self._database = database
        self._wakeups = wakeups
        self._clock = clock
        self._writer = writer

    async def rules(self) -> tuple[int, list[LimitRule]]:
        """Read every rule and the version that they make."""
        version = await self._database.fetchval(_RULES["version"])  # first: a later rule only makes one more read
        records = await self._database.fetch(_RULES["select_rules"])
        return int(str(version)), [_rule(record) for record in records]

    async def beat(self, gateway_id: str, alive_seconds: float) -> Beat:
        """Say that a gateway is there."""
        (record,) = await self._database.fetch(_RULES["beat"], gateway_id, alive_seconds)
        return Beat(record["version"], record["gateways"])

    async def leave(self, gateway_id: str) -> None:
        """Say that a gateway stops."""
        await self._database.execute(_RULES["leave"], gateway_id)

    async def put(self, rules: Sequence[LimitRule], *, actor: str, reason: str) -> None:
        """Set the rules of one subject."""
        detail = {rule.kind.value: _shown(rule.amount, rule.burst) for rule in rules}
        async with self._database.transaction() as connection:
            await connection.execute(_RULES["bump"])
            for rule in rules:
                subject = rule.subject
                await connection.execute(
                    _RULES["put"], subject.scope.value, subject.id, rule.kind.value, rule.amount, rule.burst
                )
            await self._record(connection, actor, "set_limit", rules[0].subject, (detail, reason))
        await self._wakeups.publish(CHANGED, "")

    async def remove(
        self, subject: Subject, kinds: Sequence[LimitKind] | None, *, actor: str, reason: str
    ) -> list[LimitKind]:
        """Remove rules of one subject."""
        wanted = None if kinds is None else [kind.value for kind in kinds]
        async with self._database.transaction() as connection:
            await connection.execute(_RULES["bump"])
            removed = await connection.fetch(_RULES["remove"], subject.scope.value, subject.id, wanted)
            if removed:
                detail = {row["kind"]: _shown(row["amount"], row["burst"]) for row in removed}
                await self._record(connection, actor, "remove_limit", subject, (detail, reason))
        await self._wakeups.publish(CHANGED, "")
        return sorted((LimitKind(row["kind"]) for row in removed), key=list(LimitKind).index)

    async def spent(self, accounts: Sequence[Account], month: dt.date) -> list[Spent]:
        """Sum a month's usage for each account, in order."""
        scopes = [account.subject.scope.value for account in accounts]
        ids = [account.subject.id for account in accounts]
        tenants = [account.tenant_id for account in accounts]
        records = await self._database.fetch(_USAGE["spent"], month, scopes, ids, tenants)
        found = {record["n"]: _spent(record) for record in records}
        return [found[n] for n in range(1, len(accounts) + 1)]

    async def by_model(self, account: Account, month: dt.date) -> list[tuple[ModelId, Spent]]:
        """List a month's usage a model, dearest first."""
        scope, subject_id = account.subject.scope, account.subject.id
        tenant_id = account.tenant_id if scope in {LimitScope.TENANT, LimitScope.KEY} else None
        key_id = subject_id if scope is LimitScope.KEY else None
        model_id = subject_id if scope is LimitScope.MODEL else None
        records = await self._database.fetch(_USAGE["by_model"], month, tenant_id, key_id, model_id)
        return [(ModelId(record["model_id"]), _spent(record)) for record in records]

    async def add_once(self, rows: Sequence[UsageRow], *, source: str, sequence: int) -> None:
        """Add usage; the same batch of a source again changes nothing."""
        await self._database.execute(_USAGE["add_once"], *_columns(rows), source, sequence)

    async def closings(self, limit: int) -> list[Closing]:
        """Read the oldest settled requests that the counters have not been told."""
        return [_closing(record) for record in await self._database.fetch(_USAGE["closings"], limit)]

    async def closed(self, positions: Sequence[int]) -> None:
        """Forget those that they have been told."""
        await self._database.execute(_USAGE["closed"], list(positions))

    async def tidy(self) -> None:
        """Forget processes long gone."""
        await self._database.execute(_USAGE["tidy"])

    async def _record(
        self, connection: Connection, actor: str, action: str, subject: Subject, why: tuple[dict[str, object], str]
    ) -> None:
        detail, reason = why
        entry = AuditEntry(self._clock.now(), actor, action, f"limit:{subject}", detail, reason)
        await postgres_audit.append(connection, self._writer, [entry])


async def add_usage(connection: Connection, rows: Sequence[UsageRow]) -> None:
    """Add usage in the caller's transaction: with what it was made of, or not at all."""
    if rows:
        await connection.execute(_USAGE["add"], *_columns(rows))


async def close_later(connection: Connection, closings: Sequence[Closing]) -> None:
    """Note in the caller's transaction which predictions the counters must drop."""
    if closings:
        columns = [
            (item.request_id, item.spender.tenant_id, item.spender.key_id, item.spender.model_id, item.gpu_seconds)
            for item in closings
        ]
        await connection.execute(_USAGE["close_later"], *(list(column) for column in zip(*columns, strict=True)))


def _columns(rows: Sequence[UsageRow]) -> tuple[list[object], ...]:
    return (
        [row.month for row in rows],
        [row.tenant_id for row in rows],
        [row.key_id for row in rows],
        [row.model_id for row in rows],
        [row.gpu_seconds for row in rows],
        [row.money for row in rows],
        [row.requests for row in rows],
    )


def _rule(record: Record) -> LimitRule:
    subject = Subject(LimitScope(record["scope"]), record["subject"])
    return LimitRule(subject, LimitKind(record["kind"]), record["amount"], record["burst"])


def _spent(record: Record) -> Spent:
    return Spent(Charge(record["gpu_seconds"], record["money"]), record["requests"])


def _closing(record: Record) -> Closing:
    spender = Spender(TenantId(record["tenant_id"]), KeyId(record["key_id"]), ModelId(record["model_id"]))
    return Closing(record["request_id"], spender, record["gpu_seconds"], record["position"])


def _shown(amount: float, burst: float) -> object:
    return {"amount": amount, "burst": burst} if burst else amount
