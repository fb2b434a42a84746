"""Rules and usage in memory: the fake of `limits/store.LimitStore`, proven by `test_limit_store`."""

import datetime as dt
from collections.abc import Sequence

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.ids import ModelId
from forestay.limits.model import Charge, LimitKind, LimitRule, LimitScope, Subject
from forestay.limits.store import Account, Beat, Closing, Spent, UsageRow


class MemoryLimitStore:
    """Rules and usage of one test; `silent` makes it unavailable, as a lost database is."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rules: dict[tuple[Subject, LimitKind], LimitRule] = {}
        self._version = 1
        self._seen: dict[str, float] = {}
        self._marks: dict[str, int] = {}
        self.usage: list[UsageRow] = []
        self.waiting: list[Closing] = []
        self.audit: list[tuple[str, str, Subject, str]] = []
        self.silent = False

    def _look(self) -> None:
        if self.silent:
            raise Unavailable("silent, as the test asked")

    async def rules(self) -> tuple[int, list[LimitRule]]:
        """Read every rule and the version that they make."""
        self._look()
        return self._version, sorted(self._rules.values(), key=lambda rule: (str(rule.subject), rule.kind))

    async def beat(self, gateway_id: str, alive_seconds: float) -> Beat:
        """Say that a gateway is there."""
        self._look()
        now = self._clock.monotonic()
        self._seen[gateway_id] = now
        return Beat(self._version, sum(now - at < alive_seconds for at in self._seen.values()))

    async def leave(self, gateway_id: str) -> None:
        """Say that a gateway stops."""
        self._look()
        self._seen.pop(gateway_id, None)

    async def put(self, rules: Sequence[LimitRule], *, actor: str, reason: str) -> None:
        """Set the rules of one subject."""
        self._look()
        self._version += 1
        self._rules.update({(rule.subject, rule.kind): rule for rule in rules})
        self.audit.append((actor, "set_limit", rules[0].subject, reason))

    async def remove(
        self, subject: Subject, kinds: Sequence[LimitKind] | None, *, actor: str, reason: str
    ) -> list[LimitKind]:
        """Remove rules of one subject."""
        self._look()
        self._version += 1
        gone = [kind for kind in kinds or LimitKind if self._rules.pop((subject, kind), None) is not None]
        if gone:
            self.audit.append((actor, "remove_limit", subject, reason))
        return sorted(gone, key=list(LimitKind).index)

    async def spent(self, accounts: Sequence[Account], month: dt.date) -> list[Spent]:
        """Sum a month's usage for each account, in order."""
        self._look()
        return [_sum([row for row in self.usage if row.month == month and _is_of(row, item)]) for item in accounts]

    async def by_model(self, account: Account, month: dt.date) -> list[tuple[ModelId, Spent]]:
        """List a month's usage a model, dearest first."""
        self._look()
        rows = [row for row in self.usage if row.month == month and _is_of(row, account)]
        models = {row.model_id: _sum([item for item in rows if item.model_id == row.model_id]) for row in rows}
        return sorted(models.items(), key=lambda item: (-item[1].charge.gpu_seconds, item[0]))

    async def add_once(self, rows: Sequence[UsageRow], *, source: str, sequence: int) -> None:
        """Add usage; the same batch of a source again changes nothing."""
        self._look()
        if self._marks.get(source, 0) < sequence:
            self._marks[source] = sequence
            self.usage.extend(rows)

    async def closings(self, limit: int) -> list[Closing]:
        """Read the oldest settled requests that the counters have not been told."""
        self._look()
        return self.waiting[:limit]

    async def closed(self, positions: Sequence[int]) -> None:
        """Forget those that they have been told."""
        self._look()
        self.waiting = [item for item in self.waiting if item.position not in positions]

    async def tidy(self) -> None:
        """Nothing here is old."""


def _is_of(row: UsageRow, account: Account) -> bool:
    match account.subject.scope:
        case LimitScope.TENANT:
            return row.tenant_id == account.subject.id
        case LimitScope.KEY:
            return row.key_id == account.subject.id and row.tenant_id == account.tenant_id
        case LimitScope.MODEL:
            return row.model_id == account.subject.id
        case LimitScope.FLEET:
            return True


def _sum(rows: Sequence[UsageRow]) -> Spent:
    charge = Charge(sum(row.gpu_seconds for row in rows), sum(row.money for row in rows))
    return Spent(charge, sum(row.requests for row in rows))
