"""The port of what limits keep for good: rules, what each month has cost, and which gateways count.

Counters (`counters.py`) may be lost at any moment; what is here may not. The adapter is `postgres_store`;
`tests/conformance` runs one suite against it and against the fake. Decides nothing.
"""

import dataclasses
import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import Protocol

from forestay.ids import KeyId, ModelId, TenantId
from forestay.limits.model import Charge, LimitKind, LimitRule, Spender, Subject


@dataclasses.dataclass(frozen=True, slots=True)
class Beat:
    """What a gateway learns each second."""

    version: int  # of the rules
    gateways: int  # seen lately, this one among them


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """A subject whose spending is asked for; a key's needs its tenant."""

    subject: Subject
    tenant_id: TenantId


@dataclasses.dataclass(frozen=True, slots=True)
class Spent:
    """What a month has cost."""

    charge: Charge
    requests: int


@dataclasses.dataclass(frozen=True, slots=True)
class UsageRow:
    """What is added to one line of the month's usage."""

    month: dt.date
    tenant_id: TenantId
    key_id: KeyId
    model_id: ModelId
    gpu_seconds: float
    money: float  # hundredths
    requests: int


@dataclasses.dataclass(frozen=True, slots=True)
class Closing:
    """A settled request whose prediction the counters may still hold."""

    request_id: uuid.UUID
    spender: Spender
    gpu_seconds: float
    position: int = 0


class LimitStore(Protocol):
    """Rules and usage."""

    async def rules(self) -> tuple[int, list[LimitRule]]:
        """Read every rule and the version that they make; raises Unavailable."""
        ...

    async def beat(self, gateway_id: str, alive_seconds: float) -> Beat:
        """Say that a gateway is there; learn the version of the rules and how many gateways there are."""
        ...

    async def leave(self, gateway_id: str) -> None:
        """Say that a gateway stops."""
        ...

    async def put(self, rules: Sequence[LimitRule], *, actor: str, reason: str) -> None:
        """Set the rules of one subject, with their audit row; other kinds stay as they are."""
        ...

    async def remove(
        self, subject: Subject, kinds: Sequence[LimitKind] | None, *, actor: str, reason: str
    ) -> list[LimitKind]:
        """Remove rules of one subject (None: all), with their audit row; returns which there were."""
        ...

    async def spent(self, accounts: Sequence[Account], month: dt.date) -> list[Spent]:
        """Sum a month's usage for each account, in order."""
        ...

    async def by_model(self, account: Account, month: dt.date) -> list[tuple[ModelId, Spent]]:
        """List a month's usage a model, dearest first, at most 1,000."""
        ...

    async def add_once(self, rows: Sequence[UsageRow], *, source: str, sequence: int) -> None:
        """Add usage; the same batch of a source again, or an older one, changes nothing."""
        ...

    async def closings(self, limit: int) -> list[Closing]:
        """Read the oldest settled requests that the counters have not been told."""
        ...

    async def closed(self, positions: Sequence[int]) -> None:
        """Forget those that they have been told."""
        ...

    async def tidy(self) -> None:
        """Forget processes long gone."""
        ...


def by_kind(rules: Sequence[LimitRule]) -> Mapping[LimitKind, LimitRule]:
    """Return the rules of one subject by kind."""
    return {rule.kind: rule for rule in rules}
