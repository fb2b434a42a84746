"""The audit log: append-only rows, hash-chained per writer, so that an altered or missing row is found.

Each row's hash is `sha256(previous hash || canonical JSON of the row)`. Chains are per writer, so that two processes
do not wait for one another. Pure: sealing and checking. `fleet/postgres_audit` stores rows and, for each chain, its
head, which reveals a cut tail. This module decides nothing about what is allowed.
"""

import dataclasses
import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Mapping


@dataclasses.dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act, before it is sealed into a chain."""

    at: dt.datetime
    actor: str  # human:<key id> | loop:<name> | system:<part>
    action: str  # "set_routes", "create_key", ...
    subject: str  # what it was done to
    detail: Mapping[str, object]
    reason: str
    effect: str = "applied"


@dataclasses.dataclass(frozen=True, slots=True)
class AuditRow:
    """A sealed act."""

    writer: str
    sequence: int
    entry: AuditEntry
    previous: bytes
    hash: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class AuditFault:
    """A place where a chain is not what was written."""

    writer: str
    sequence: int
    what: str


def canonical(value: object) -> object:
    """Return `value` as jsonb gives it back: whole floats become integers, NUL characters are replaced."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        return value.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, Mapping):
        return {str(canonical(str(key))): canonical(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - JSON of any shape
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - JSON of any shape
    return value


def seal(previous: bytes, writer: str, sequence: int, entry: AuditEntry) -> bytes:
    """Return the 32-byte hash that binds the entry to its place in the chain."""
    fields = {
        "writer": writer,
        "sequence": sequence,
        "at": entry.at.astimezone(dt.UTC).isoformat(timespec="microseconds"),
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "detail": entry.detail,
        "reason": entry.reason,
        "effect": entry.effect,
    }
    text = json.dumps(canonical(fields), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(previous + text.encode()).digest()


def chain(writer: str, sequence: int, previous: bytes, entries: Iterable[AuditEntry]) -> list[AuditRow]:
    """Seal entries one after another, following the row `sequence` whose hash is `previous`."""
    rows: list[AuditRow] = []
    for entry in entries:
        sequence += 1
        sealed = seal(previous, writer, sequence, entry)
        rows.append(AuditRow(writer, sequence, entry, previous, sealed))
        previous = sealed
    return rows


def find_fault(row: AuditRow, sequence_before: int, hash_before: bytes) -> AuditFault | None:
    """Compare a row with its place in the chain and with its own seal; None when all is as written."""
    if row.sequence != sequence_before + 1:
        return AuditFault(row.writer, row.sequence, f"rows {sequence_before + 1} to {row.sequence - 1} are missing")
    if row.previous != hash_before:
        return AuditFault(row.writer, row.sequence, "it does not continue the row before it")
    if row.hash != seal(row.previous, row.writer, row.sequence, row.entry):
        return AuditFault(row.writer, row.sequence, "its content is not what was sealed")
    return None
