"""Reports on models' files and trusted keys in Postgres: the adapter of `store.ArtefactStore`."""

# The driver's pooled connection is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from forestay.artefacts.report import Report, from_json, to_json
from forestay.artefacts.signing import TrustedKey
from forestay.artefacts.store import StoredKey
from forestay.clock import Clock
from forestay.fleet import postgres_audit
from forestay.fleet.audit import AuditEntry
from forestay.storage.postgres import Database, load_queries

_QUERIES = load_queries("forestay.artefacts", "sql/artefacts.sql")


class PostgresArtefactStore:
    """Reports and trusted keys; `writer` names this process's audit chain."""

    def __init__(self, database: Database, clock: Clock, writer: str = "artefacts") -> None:
        self._database = database
        self._clock = clock
        self._writer = writer

    async def save_report(self, bundle_digest: str, report: Report) -> None:
        """Keep the report on a bundle; an earlier one is replaced."""
        await self._database.execute(_QUERIES["save_report"], bundle_digest, report.reader, to_json(report).decode())

    async def report(self, bundle_digest: str) -> Report | None:
        """Return the report on a bundle; None when it was never examined, or by readers of another form."""
        text = await self._database.fetchval(_QUERIES["select_report"], bundle_digest)
        try:
            return None if text is None else from_json(str(text))
        except ValueError:
            return None

    async def trusted_keys(self) -> list[StoredKey]:
        """List the trusted keys by name."""
        records = await self._database.fetch(_QUERIES["select_keys"])
        return [
            StoredKey(
                TrustedKey(record["name"], record["public_key"], record["fingerprint"]),
                record["added_by"],
                record["added_at"],
            )
            for record in records
        ]

    async def trust(self, key: TrustedKey, *, actor: str) -> bool:
        """Trust a key; False when its name or the key itself is there already."""
        async with self._database.transaction() as connection:
            added = await connection.fetchval(_QUERIES["insert_key"], key.name, key.fingerprint, key.public_key, actor)
            if added is None:
                return False
            entry = self._entry(actor, "trust_key", key.name, key.fingerprint)
            await postgres_audit.append(connection, self._writer, [entry])
        return True

    async def distrust(self, name: str, *, actor: str) -> bool:
        """Stop trusting a key; False when there is none of that name."""
        async with self._database.transaction() as connection:
            fingerprint = await connection.fetchval(_QUERIES["delete_key"], name)
            if fingerprint is None:
                return False
            entry = self._entry(actor, "distrust_key", name, str(fingerprint))
            await postgres_audit.append(connection, self._writer, [entry])
        return True

    def _entry(self, actor: str, action: str, name: str, fingerprint: str) -> AuditEntry:
        detail = {"fingerprint": fingerprint}
        return AuditEntry(self._clock.now(), actor, action, f"trusted_key:{name}", detail, "asked for")
