"""Anchoring the audit log: checkpoints of its heads are written to the object store, and the log is held against them.

A transaction's lock makes controllers and gateways take turns. The newest checkpoints are kept; an operator may keep
one anywhere else too (`forestay audit anchor > file`) and hold the log against that, which shows even what somebody did
who can write to both the database and the object store. Rules: `checkpoints`. Called by the controller's loop and the
admin API.
"""

# The driver's pooled connection is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import dataclasses
from collections.abc import Mapping

import msgspec

from forestay.clock import Clock
from forestay.errors import Refused
from forestay.fleet.audit import AuditFault
from forestay.fleet.checkpoints import (
    Checkpoint,
    Head,
    SignedCheckpoint,
    Signer,
    Tampered,
    compare,
    decide_checkpoint,
    find_gaps,
    is_ours,
    parse,
    seal,
)
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Connection, Database, load_queries

KEPT = 200
_PREFIX = "audit/checkpoints"
_QUERIES = load_queries("forestay.fleet", "sql/audit.sql")


class LogTampered(Refused):
    """The log lost or changed rows that were signed; `faults` name them."""

    def __init__(self, faults: tuple[AuditFault, ...]) -> None:
        first = faults[0]
        message = f"the audit log was tampered with: {first.writer} {first.sequence}: {first.what}; nothing is signed"
        super().__init__(f"{message}. See `forestay audit verify`")
        self.faults = faults


@dataclasses.dataclass(frozen=True, slots=True)
class Anchored:
    """How the log stands against what was signed."""

    newest: SignedCheckpoint | None
    faults: tuple[AuditFault, ...]


class AuditAnchor:
    """Checkpoints in the object store."""

    def __init__(self, database: Database, objects: ObjectStore, signer: Signer, clock: Clock) -> None:
        self._database = database
        self._objects = objects
        self._signer = signer
        self._clock = clock

    async def run_once(self) -> int:
        """Sign the heads if they have moved; returns 1 then. Raises LogTampered when rows that were signed are gone."""
        async with self._database.transaction() as connection:
            await connection.execute(_QUERIES["lock_checkpoints"])
            numbers = await self._numbers()
            last = await self._newest(numbers)
            heads = {
                str(row["writer"]): Head(int(row["sequence"]), bytes(row["hash"]).hex())
                for row in await connection.fetch(_QUERIES["select_heads"])
            }
            found = await _found(connection, last.checkpoint) if last is not None else {}
            decided = decide_checkpoint(last, heads, found, self._clock.now())
            if isinstance(decided, Tampered):
                raise LogTampered(decided.faults)
            if decided is None:
                return 0
            await self._objects.put(_key(decided.number), msgspec.json.encode(seal(decided, self._signer)))
        await self._objects.delete([_key(number) for number in numbers[: max(0, len(numbers) + 1 - KEPT)]])
        return 1

    async def sign_now(self) -> SignedCheckpoint | None:
        """Sign the heads as they are and return the newest checkpoint; None while the log is empty."""
        await self.run_once()
        return await self._newest(await self._numbers())

    async def verify(self, outside: SignedCheckpoint | None = None) -> Anchored:
        """Hold the log against every kept checkpoint's neighbour, the newest one, and one that was kept outside."""
        faults: list[AuditFault] = []
        kept: list[SignedCheckpoint] = []
        for number in await self._numbers():
            signed = parse(await self._objects.get(_key(number)) or b"")
            if signed is None or signed.checkpoint.number != number or not is_ours(signed, self._signer):
                faults.append(AuditFault("checkpoints", number, "it was not signed by this platform"))
            else:
                kept.append(signed)
        faults.extend(find_gaps(kept))
        if outside is not None and not is_ours(outside, self._signer):
            faults.append(AuditFault("checkpoints", outside.checkpoint.number, "the one given was not signed by us"))
        elif outside is not None and (not kept or kept[-1].checkpoint.number < outside.checkpoint.number):
            faults.append(AuditFault("checkpoints", outside.checkpoint.number, "it is missing from the object store"))
        held = [signed for signed in (kept[-1] if kept else None, outside) if signed is not None]
        async with self._database.transaction() as connection:
            for signed in held:
                if is_ours(signed, self._signer):
                    faults.extend(compare(signed.checkpoint, await _found(connection, signed.checkpoint)))
        return Anchored(kept[-1] if kept else None, tuple(dict.fromkeys(faults)))

    async def _numbers(self) -> list[int]:
        names = [item.key.rpartition("/")[2].removesuffix(".json") async for item in self._objects.list(_PREFIX)]
        return sorted(int(name) for name in names if name.isdigit())

    async def _newest(self, numbers: list[int]) -> SignedCheckpoint | None:
        """Return the newest checkpoint; one that we did not sign is tampering too."""
        if not numbers:
            return None
        signed = parse(await self._objects.get(_key(numbers[-1])) or b"")
        if signed is None or signed.checkpoint.number != numbers[-1] or not is_ours(signed, self._signer):
            raise LogTampered((AuditFault("checkpoints", numbers[-1], "it was not signed by this platform"),))
        return signed


async def _found(connection: Connection, checkpoint: Checkpoint) -> Mapping[str, str | None]:
    """Return the hash that the log holds at each place which the checkpoint names."""
    writers = list(checkpoint.heads)
    sequences = [checkpoint.heads[writer].sequence for writer in writers]
    rows = await connection.fetch(_QUERIES["select_hashes_at"], writers, sequences)
    return {str(row["writer"]): bytes(row["hash"]).hex() for row in rows}


def _key(number: int) -> str:
    return f"{_PREFIX}/{number:012d}.json"
