"""Banks in Postgres: the adapter of `store.BankStore`."""

# The driver's pooled connection is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Mapping, Sequence
from typing import cast

from forestay.clock import Clock
from forestay.errors import UsageError
from forestay.fleet import postgres_audit
from forestay.fleet.audit import AuditEntry
from forestay.safety.hashes.banks import (
    MAX_ENTRIES_A_CALL,
    Bank,
    Entry,
    Hint,
    NewBank,
    NewEntry,
    check_entry,
    check_ratio,
    checked,
)
from forestay.safety.hashes.store import CHANNEL, Near, Place
from forestay.safety.taxonomy import Category
from forestay.storage.postgres import Connection, Database, Record, load_queries
from forestay.storage.valkey import Wakeups

_SQL = load_queries("forestay.safety.hashes", "sql/banks.sql")


class PostgresBankStore:
    """Banks; `writer` names this process's audit chain. Whoever follows them is woken after each change."""

    def __init__(self, database: Database, wakeups: Wakeups, clock: Clock, writer: str = "hashes") -> None:
        self._database = database
        self._wakeups = wakeups
        self._clock = clock
        self._writer = writer

    async def create(self, bank: NewBank, *, actor: str) -> Bank | None:
        """Make a bank; see the port."""
        checked(bank)
        async with self._database.transaction() as connection:
            values = (bank.bank_id, bank.source, bank.category, bank.threshold, bank.hint, bank.enabled_ratio, actor)
            row = await connection.fetchrow(_SQL["insert_bank"], *values, await _tick(connection))
            if row is None:
                return None
            detail = {"source": bank.source, "category": bank.category, "threshold": bank.threshold, "hint": bank.hint}
            await self._audit(connection, actor, "create_bank", f"hash_bank:{bank.bank_id}", detail)
        await self._wake()
        return _bank(row)

    async def banks(self, bank_id: str | None = None) -> Sequence[Bank]:
        """List banks; see the port."""
        return [_bank(row) for row in await self._database.fetch(_SQL["select_banks"], bank_id)]

    async def set_ratio(self, bank_id: str, ratio: float, *, actor: str, reason: str) -> Bank | None:
        """Set the share; see the port."""
        check_ratio(ratio)
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_SQL["set_ratio"], bank_id, ratio, await _tick(connection))
            if row is None:
                return None
            await self._audit(
                connection, actor, "set_bank_ratio", f"hash_bank:{bank_id}", {"enabled_ratio": ratio}, reason
            )
        await self._wake()
        return _bank(row)

    async def add(self, bank_id: str, entries: Sequence[NewEntry], *, actor: str, reason: str) -> int | None:
        """Add hashes; see the port."""
        for entry in entries[: MAX_ENTRIES_A_CALL + 1]:
            check_entry(entry)
        _check_count(len(entries))
        bank = await self._number(bank_id)
        if bank is None:
            return None
        hashes = [entry.value.to_bytes(32) for entry in entries]
        columns = (hashes, [entry.threshold for entry in entries], [entry.note for entry in entries])
        async with self._database.transaction() as connection:
            version = await _tick(connection)
            rows = await connection.fetch(_SQL["insert_entries"], bank, *columns, actor, version)
            if rows:
                detail = _detail(len(rows), [int(row["entry_id"]) for row in rows])
                await self._audit(connection, actor, "add_hashes", f"hash_bank:{bank_id}", detail, reason)
        await self._wake()
        return len(rows)

    async def remove(self, bank_id: str, values: Sequence[int], *, actor: str, reason: str) -> int | None:
        """Take hashes out; see the port."""
        _check_count(len(values))
        bank = await self._number(bank_id)
        if bank is None:
            return None
        hashes = [value.to_bytes(32) for value in values]
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_SQL["remove_entries"], bank, hashes, actor, await _tick(connection))
            if rows:
                detail = _detail(len(rows), [int(row["entry_id"]) for row in rows])
                await self._audit(connection, actor, "remove_hashes", f"hash_bank:{bank_id}", detail, reason)
        await self._wake()
        return len(rows)

    async def entries(self, bank_id: str, after: int, limit: int) -> Sequence[Entry]:
        """Read a page; see the port."""
        return [_entry(row) for row in await self._database.fetch(_SQL["select_entries"], bank_id, after, limit)]

    async def suspend(self, entry_id: int, *, actor: str, reason: str) -> bool:
        """Keep an entry from blocking; see the port."""
        return await self._turn("suspend_entry", entry_id, actor, reason, reason)

    async def restore(self, entry_id: int, *, actor: str, reason: str) -> bool:
        """Let it block again; see the port."""
        return await self._turn("restore_entry", entry_id, actor, reason)

    async def changed_banks(self, version: int) -> Sequence[tuple[int, Bank]]:
        """Read changed banks; see the port."""
        rows = await self._database.fetch(_SQL["select_changed_banks"], version)
        return [(int(row["changed"]), _bank(row)) for row in rows]

    async def changed_entries(self, after: Place, limit: int) -> Sequence[Entry]:
        """Read changed entries; see the port."""
        rows = await self._database.fetch(_SQL["select_changed_entries"], after.version, after.entry_id, limit)
        return [_entry(row) for row in rows]

    async def match(self, value: int) -> Sequence[Near]:
        """Read every row; see the port."""
        return [
            Near(
                int(row["entry_id"]), str(row["bank_id"]), str(row["category"]), str(row["hint"]), str(row["hash"]),
                int(row["distance"]), None if row["suspended_reason"] is None else str(row["suspended_reason"]),
            )
            for row in await self._database.fetch(_SQL["match"], f"{value:064x}")
        ]  # fmt: skip

    async def _turn(self, query: str, entry_id: int, actor: str, reason: str, *values: str) -> bool:
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_SQL[query], entry_id, *values, await _tick(connection))
            if row is None:
                return False
            await self._audit(connection, actor, query, f"hash_entry:{entry_id}", {}, reason)
        await self._wake()
        return True

    async def _number(self, bank_id: str) -> int | None:
        found = await self.banks(bank_id)
        return found[0].bank_number if found else None

    async def _audit(
        self,
        connection: Connection,
        actor: str,
        action: str,
        subject: str,
        detail: Mapping[str, object],
        reason: str = "asked for",
    ) -> None:
        entry = AuditEntry(self._clock.now(), actor, action, subject, detail, reason)
        await postgres_audit.append(connection, self._writer, [entry])

    async def _wake(self) -> None:
        await self._wakeups.publish(CHANNEL, "changed")


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_ENTRIES_A_CALL:
        raise UsageError("hashes", f"name 1 to {MAX_ENTRIES_A_CALL} of them at a time, not {count}")


def _detail(count: int, entry_ids: list[int]) -> Mapping[str, object]:
    return {"count": count, "first_entry": min(entry_ids), "last_entry": max(entry_ids)}


async def _tick(connection: Connection) -> int:
    return int(cast("int", await connection.fetchval(_SQL["tick"])))


def _bank(row: Record) -> Bank:
    return Bank(
        bank_number=int(row["bank_number"]),
        bank_id=str(row["bank_id"]),
        source=str(row["source"]),
        category=Category(row["category"]),
        threshold=int(row["threshold"]),
        hint=Hint(row["hint"]),
        enabled_ratio=float(row["enabled_ratio"]),
        added_by=str(row["added_by"]),
        added_at=row["added_at"],
        entries=int(row.get("entries", 0)),
        suspended=int(row.get("suspended", 0)),
    )


def _entry(row: Record) -> Entry:
    return Entry(
        entry_id=int(row["entry_id"]),
        bank_number=int(row["bank_number"]),
        value=int.from_bytes(row["hash"]),
        threshold=None if row["threshold"] is None else int(row["threshold"]),
        note=str(row["note"]),
        added_by=str(row["added_by"]),
        added_at=row["added_at"],
        removed=bool(row["removed"]),
        suspended_reason=None if row["suspended_reason"] is None else str(row["suspended_reason"]),
        changed=int(row["changed"]),
    )
