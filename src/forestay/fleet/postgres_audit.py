"""Audit rows in Postgres: appended inside the caller's transaction, so that an act and its row commit together."""

# The driver's pooled connection is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import datetime as dt
import json
from collections.abc import Sequence

import asyncpg
import msgspec

from forestay.fleet.actions import Effect, Origin
from forestay.fleet.apply import Recent
from forestay.fleet.audit import AuditEntry, AuditFault, AuditRow, canonical, chain, find_fault
from forestay.storage.postgres import Connection, Database, load_queries

_PAGE = 1_000
_QUERIES = load_queries("forestay.fleet", "sql/audit.sql")


async def append(connection: Connection, writer: str, entries: Sequence[AuditEntry]) -> None:
    """Add the entries to the writer's chain in the caller's transaction; the chain stays locked until it ends."""
    if not entries:
        return
    head = await connection.fetchrow(_QUERIES["lock_head"], writer)
    if head is None:
        message = f"audit chain {writer!r} gave no head; the database is missing its migrations: run `forestay doctor`"
        raise RuntimeError(message)
    rows = chain(writer, int(head["sequence"]), bytes(head["hash"]), entries)
    for row in rows:
        entry = row.entry
        texts = [str(canonical(text)) for text in (entry.actor, entry.action, entry.subject)]
        detail = json.dumps(canonical(entry.detail), sort_keys=True, allow_nan=False)
        await connection.execute(
            _QUERIES["insert_row"], writer, row.sequence, entry.at, *texts, detail,
            str(canonical(entry.reason)), entry.effect, row.previous, row.hash,
        )  # fmt: skip
    await connection.execute(_QUERIES["move_head"], writer, rows[-1].sequence, rows[-1].hash)


async def read_newest(
    database: Database, *, subject: str | None = None, before: dt.datetime | None = None, limit: int = 100
) -> list[AuditRow]:
    """Read at most `limit` rows, newest first."""
    return [_row(record) for record in await database.fetch(_QUERIES["select_newest"], subject, before, limit)]


async def verify(database: Database) -> list[AuditFault]:
    """Recompute every chain; an empty list means that no row was altered, removed, added or reordered."""
    faults: list[AuditFault] = []
    for record in await database.fetch(_QUERIES["select_writers"]):
        faults.extend(await _verify_chain(database, record["writer"], record["sequence"], record["hash"]))
    return faults


async def _verify_chain(
    database: Database, writer: str, head_sequence: int | None, head_hash: bytes | None
) -> list[AuditFault]:
    faults: list[AuditFault] = []
    sequence, previous = 0, b""
    while True:
        rows = [_row(record) for record in await database.fetch(_QUERIES["select_chain"], writer, sequence, _PAGE)]
        for row in rows:
            fault = find_fault(row, sequence, previous)
            faults.extend([fault] if fault else [])
            sequence, previous = row.sequence, row.hash
        if len(rows) < _PAGE:
            break
    if head_sequence is None:
        faults.append(AuditFault(writer, sequence, "the chain's head is missing"))
    elif sequence != head_sequence:
        faults.append(AuditFault(writer, head_sequence, f"rows are missing at the end: the last one is {sequence}"))
    elif previous != (head_hash or b""):
        faults.append(AuditFault(writer, sequence, "the last row is not the one that the head names"))
    return faults


def _row(record: asyncpg.Record) -> AuditRow:
    entry = AuditEntry(
        at=record["at"],
        actor=str(record["actor"]),
        action=str(record["action"]),
        subject=str(record["subject"]),
        detail=json.loads(record["detail"]),
        reason=str(record["reason"]),
        effect=str(record["effect"]),
    )
    return AuditRow(str(record["writer"]), int(record["sequence"]), entry, record["previous"], record["hash"])


class _Detail(msgspec.Struct):
    """The part of a fleet action's detail that later decisions look at."""

    origin: str
    why: str = ""
    pool: str = ""
    removed_devices: int = 0
    restricted: int = 0


async def read_recent(connection: Connection, window_seconds: float) -> list[Recent]:
    """Read the fleet actions decided within the window, oldest first."""
    found: list[Recent] = []
    for record in await connection.fetch(_QUERIES["select_recent"], window_seconds):
        detail = msgspec.json.decode(record["detail"], type=_Detail)
        found.append(
            Recent(
                at=record["at"],
                origin=Origin[detail.origin.upper()],
                subject=str(record["subject"]),
                effect=Effect(record["effect"]),
                why=detail.why,
                pool=detail.pool,
                removed_devices=detail.removed_devices,
                restricted=detail.restricted,
            )
        )
    return found
