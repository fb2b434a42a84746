"""The port of what abuse keeps beside facts: the snapshot of the signals, and the rules that people set."""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Protocol


@dataclasses.dataclass(frozen=True, slots=True)
class RuleSet:
    """Rules as they were set; an empty text means the rules that come along."""

    version: int
    text: str
    set_at: dt.datetime | None
    set_by: str


BROUGHT = RuleSet(0, "", None, "")


class AbuseStore(Protocol):
    """Snapshot and rules."""

    async def load(self) -> Mapping[str, bytes]:
        """Read the snapshot's parts; empty when there is none."""
        ...

    async def parts(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """Read the named parts, those that there are."""
        ...

    async def meta(self) -> bytes | None:
        """Read the part that says how far the snapshot goes."""
        ...

    async def save(self, parts: Mapping[str, bytes]) -> None:
        """Write parts, all or none."""
        ...

    async def rules(self) -> RuleSet:
        """Read the rules in force."""
        ...

    async def set_rules(self, text: str, *, actor: str) -> RuleSet:
        """Put checked rules in force, with an audit row."""
        ...
