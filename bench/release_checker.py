"""The independent checker of releases: every byte that a client could read must stand in a verdict record that lets it.

It shares no code with the guard: it reads the tables with plain SQL, knows the seals from their description alone
(docs/explanation/judges.md) and computes digests with the standard library. A client hands it what was read, at the
moment it was read: the record must be committed by then, which is asked of the database at once, not afterwards.
"""

import dataclasses
import datetime as dt
import decimal
import hashlib
import json
import math
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

_MEDIA_URL = re.compile(rb"https?://[A-Za-z0-9._:\[\]-]+/cdn/files/([A-Za-z0-9_-]{32,48})/")
_PLAIN_FROM = 1e-5
_RELEASES = ("allow", "flag")
_RECORD = (
    "at, verdict_id, request_id, attempt, point, tenant_id, key_id, model_id, revision_id, policy_id, policy_version, "
    "policy_digest, shadow, verdict, action, category, place, reason, checks::text AS checks, judged, seconds, salt, "
    "beside, position"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Hole:
    """Something that could be read without a verdict that lets it."""

    what: str
    digest: str
    request_id: str


def as_stored(body: bytes) -> bytes:
    """Return a body as the worker wrote it: URLs of our own files name the host by which the reader came."""
    return _MEDIA_URL.sub(rb"forestay-media://\1/", body)


def digest_of(data: bytes) -> str:
    """Return the digest by which records name bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Checker:
    """Compares what was read with the verdict records of one platform."""

    def __init__(self, requests: asyncpg.Pool, facts: asyncpg.Pool) -> None:
        self._requests = requests
        self._facts = facts
        self._seen: dict[str, str] = {}  # digest -> where it was read
        self.holes: list[Hole] = []

    @property
    def count(self) -> int:
        """Return how many different pieces were read."""
        return len(self._seen)

    async def read(self, request_id: str, what: str, *pieces: bytes) -> None:
        """Take what a client has just read of one request, and ask for its records now."""
        if not request_id:
            await self.read_anywhere(what, *pieces)
            return
        wanted = {digest_of(piece) for piece in pieces}
        self._seen |= dict.fromkeys(wanted, what)
        missing = wanted - await self._allowed(request_id)
        self.holes += [Hole(what, digest, request_id) for digest in sorted(missing)]

    async def _allowed(self, request_id: str) -> set[str]:
        rows = await self._facts.fetch(
            "SELECT judged FROM verdict_facts WHERE request_id = $1 AND verdict = ANY ($2) AND NOT shadow",
            uuid.UUID(request_id),
            _RELEASES,
        )
        return {digest for row in rows for digest in row["judged"]}

    async def read_anywhere(self, what: str, *pieces: bytes) -> None:
        """Take what can be read without a request's name on it: any record may let it."""
        for piece in pieces:
            digest = digest_of(piece)
            self._seen[digest] = what
            found = await self._facts.fetchval(
                "SELECT count(*) FROM verdict_facts WHERE judged @> $1 AND verdict = ANY ($2) AND NOT shadow",
                [digest],
                _RELEASES,
            )
            if not found:
                self.holes.append(Hole(what, digest, ""))

    async def released_files(self) -> list[tuple[str, str, str]]:
        """Return every file that the platform would give to whoever asks: id, name, request."""
        rows = await self._requests.fetch(
            "SELECT media_id, file_name, request_id FROM media WHERE state = 'released' AND request_id IS NOT NULL"
        )
        return [(row["media_id"], row["file_name"], str(row["request_id"])) for row in rows]

    async def broken_seals(self) -> list[str]:
        """Compute every seal anew; returns what does not hold."""
        faults: list[str] = []
        before: Mapping[str, Any] | None = None
        sealed = 0
        for row in await self._facts.fetch("SELECT * FROM verdict_seals ORDER BY sequence"):
            records = await self._facts.fetch(
                f"SELECT {_RECORD} FROM verdict_facts WHERE position BETWEEN $1 AND $2 ORDER BY position",  # noqa: S608
                row["first_position"],
                row["last_position"],
            )
            faults += _seal_faults(before, row, records)
            before, sealed = row, sealed + row["rows"]
        total = await self._facts.fetchval("SELECT count(*) FROM verdict_facts")
        return faults if sealed == total else [*faults, f"{total - sealed} records of {total} are not sealed"]


def _seal_faults(before: Mapping[str, Any] | None, seal: Mapping[str, Any], records: Sequence[Any]) -> list[str]:
    name = f"seal {seal['sequence']}"
    digests = b"".join(hashlib.sha256(_record_text(record).encode()).digest() for record in records)
    said = [
        seal["sequence"], seal["sealed_at"].astimezone(dt.UTC).isoformat(), seal["first_position"],
        seal["last_position"], seal["rows"], seal["root"].hex(), seal["previous"].hex(),
    ]  # fmt: skip
    whole = b"forestay verdict seal 1\n" + _json(said).encode()
    checks = {
        "its records differ": hashlib.sha256(digests).digest() == seal["root"] and len(records) == seal["rows"],
        "its own hash differs": hashlib.sha256(whole).digest() == seal["hash"],
        "it does not follow the one before": seal["previous"] == (b"" if before is None else before["hash"]),
    }
    return [f"{name}: {what}" for what, fine in checks.items() if not fine]


def _record_text(record: Mapping[str, Any]) -> str:
    """Write a record as it is sealed: JSON with sorted names, times in UTC, bytes in base64."""
    import base64  # noqa: PLC0415 - beside its only use

    values = dict(record)
    values["checks"] = json.loads(values["checks"])
    at = values["at"].astimezone(dt.UTC).isoformat()
    values |= {"at": at.replace("+00:00", "Z"), "salt": base64.b64encode(values["salt"]).decode()}
    values |= {"verdict_id": str(values["verdict_id"]), "request_id": str(values["request_id"])}
    if not values["beside"]:  # a field of later versions is part of the text where it says something
        del values["beside"]
    for check in values["checks"]:
        for field in ("score", "threshold", "seconds"):  # as numbers they lose their kind in jsonb: 1.0 becomes 1
            check[field] = None if check[field] is None else float(check[field])
        check["scores"] = {name: float(score) for name, score in check["scores"].items()}
    return _json(values)


def _json(value: object) -> str:
    match value:
        case float():
            return _number(value)
        case dict():
            return "{" + ",".join(f"{_json(str(name))}:{_json(value[name])}" for name in sorted(value)) + "}"
        case list():
            return "[" + ",".join(map(_json, value)) + "]"
        case _:
            return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """Write a float with the fewest digits that read back as it, with an exponent below 0.00001 alone."""
    if not math.isfinite(value):
        raise ValueError("a record holds a number that JSON does not have")
    text = repr(value)
    mantissa, mark, exponent = text.partition("e")
    if not mark:
        return text
    return format(decimal.Decimal(text), "f") if value >= _PLAIN_FROM else f"{mantissa}e{int(exponent)}"
