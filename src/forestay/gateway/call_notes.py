"""Notes of calls: one for each call of a model and each refused credential, written in batches off the path.

It decides what is noted: polls, results, downloads and health are not. Text is hashed in a thread, in the round that
writes it, and forgotten. What cannot be written now is kept while there is room; beyond that the oldest are dropped and
counted. Called by `asgi` after every answer.
"""

import asyncio
import functools
import hashlib
import re
import uuid
from collections import OrderedDict, deque

import msgspec
from starlette.types import Scope

from forestay.abuse.calls import narrow_network
from forestay.abuse.simhash import PromptHasher
from forestay.errors import Unavailable
from forestay.fleet.model import Revision
from forestay.gateway.auth import PUBLIC_KEY
from forestay.gateway.caller_address import address_of_call
from forestay.gateway.exchange import Exchange, Said
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.prompt_meanings import Hashed, PromptMeanings
from forestay.gateway.prompt_text import digest_of, text_and_shape, text_fields
from forestay.telemetry.call_facts import CallFact
from forestay.telemetry.metrics import CALLS_NOT_NOTED, TEXT_NOT_HASHED

FLUSH_SECONDS = 0.5
MAX_BATCH = 500
MAX_KEPT = 20_000
MAX_BODY = 256 * 1024  # of a request whose text is looked at
MAX_KEPT_BYTES = 64 * 1024 * 1024  # of bodies that wait to be hashed; beyond it calls are noted without their text
MAX_FIELDS = 512  # endpoints whose text fields are remembered
MAX_REPEATS = 4_096  # bodies whose hashes are remembered: who floods, repeats
MAX_CLIENTS = 1_024  # kinds of clients, and networks, that are remembered
_LANES = {"submit": "queue", "run": "direct", "stream": "stream", "realtime": "realtime"}
_KEY_ID = re.compile(r"[0-9a-f-]{16,36}")
_DIGITS = re.compile(rb"[0-9]+")
_VOLATILE = (b"x-fal-", b"x-forwarded-", b"x-forestay-", b"cf-", b"sec-websocket-")
_CHANGING = frozenset({
    b"authorization", b"content-length", b"content-type", b"cookie", b"forwarded", b"host", b"idempotency-key",
    b"traceparent", b"tracestate", b"via", b"x-real-ip", b"user-agent", b"if-none-match", b"range",
})  # fmt: skip


class Note(msgspec.Struct, frozen=True):
    """A call as it was answered, with what must still be hashed."""

    fact: CallFact
    said: Said | None


class CallNotes:
    """Calls that happened and are not written yet."""

    def __init__(self, ports: GatewayPorts) -> None:
        self._ports = ports
        self._kept: deque[Note] = deque()
        self._kept_bytes = 0
        secret = (ports.settings.secrets.internal_key or "no key").encode()
        self._key = hashlib.blake2b(secret, digest_size=32, person=b"forestay-calls").digest()
        self._hasher = PromptHasher(self._key)
        self._meanings = (
            None
            if ports.embedder is None
            else PromptMeanings(
                ports.embedder, self._key, ports.metrics, per_second=ports.settings.gateway.meanings_per_second
            )
        )
        self._fields: OrderedDict[tuple[str, str], frozenset[str]] = OrderedDict()
        self._repeats: OrderedDict[tuple[str, str, str], tuple[int | None, int, int, int]] = OrderedDict()
        self._agent = functools.lru_cache(MAX_CLIENTS)(functools.partial(_agent, self._key))
        self._network = functools.lru_cache(MAX_CLIENTS)(narrow_network)

    def note(self, exchange: Exchange, scope: Scope) -> None:
        """Note one answered call, if it is one to note."""
        lane = _LANES.get(exchange.route)
        nobody = exchange.status_code == 401 and not exchange.key_id
        unproven = nobody and b"authorization" in exchange.headers
        if not unproven and (lane is None or nobody):
            return
        if len(self._kept) >= MAX_KEPT:
            self._taken(self._kept.popleft())
            self._ports.metrics.add(CALLS_NOT_NOTED, "full")
        fact = self._fact(exchange, scope, lane or exchange.surface.value, unproven=unproven)
        self._kept.append(self._note(fact, exchange.said))

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._ports.clock.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self, *, last: bool = False) -> None:
        """Hash and write what is kept; what the database refuses stays for the next round. Raises Unavailable.

        The last time no meanings are hashed: nobody waits for them at the end.
        """
        budget = self._meanings.budget(FLUSH_SECONDS) if self._meanings is not None and not last else 0
        left = len(self._kept)  # what comes meanwhile is the next round's, or a busy gateway would write row by row
        while left > 0 and self._kept:
            batch = [self._taken(self._kept.popleft()) for _ in range(min(MAX_BATCH, left, len(self._kept)))]
            left -= len(batch)
            hashed = await asyncio.to_thread(self._hashed, batch)
            facts = [item.fact for item in hashed]
            if self._meanings is not None:
                facts, budget = await self._meanings.added(hashed, budget)
            try:
                await self._ports.calls.write(facts)
            except Unavailable:
                self._kept.extendleft(Note(fact, None) for fact in reversed(facts))
                raise

    def _note(self, fact: CallFact, said: Said | None) -> Note:
        """Return the note, without the body where it is too long, or too many wait already."""
        if said is None or not said.body or len(said.body) > MAX_BODY:
            return Note(fact, None)
        if self._kept_bytes + len(said.body) > MAX_KEPT_BYTES:
            self._ports.metrics.add(TEXT_NOT_HASHED)
            return Note(fact, None)
        self._kept_bytes += len(said.body)
        return Note(fact, said)

    def _taken(self, note: Note) -> Note:
        """Let go of what the note holds of the memory for bodies."""
        self._kept_bytes -= 0 if note.said is None else len(note.said.body)
        return note

    def _fact(self, exchange: Exchange, scope: Scope, lane: str, *, unproven: bool) -> CallFact:
        ports, status = self._ports, exchange.status_code
        address = address_of_call(scope, ports.settings.gateway.trusted_proxies, ports.tunnels)
        credential = _credential(exchange) if unproven else ""
        claimed = credential.partition(":")[0]
        accepted = status < 400 and not exchange.counted_as
        return CallFact(
            at=ports.clock.now(),
            call_id=_call_id(exchange, ports),
            tenant_id=exchange.tenant_id,
            key_id="" if exchange.key_id == PUBLIC_KEY else exchange.key_id,
            model_id=exchange.model_id,
            lane=lane,
            verb=exchange.route[:40],
            network="" if address is None else self._network(address),
            agent=self._agent(
                exchange.headers.get(b"user-agent", b"")[:200], tuple([name for name, _ in scope["headers"]][:100])
            ),
            accepted=accepted,
            cause="" if accepted else (exchange.counted_as or exchange.cause or f"http_{status}")[:60],
            status_code=status,
            predicted_seconds=0.0 if exchange.said is None else exchange.said.predicted_seconds,
            claimed=claimed if _KEY_ID.fullmatch(claimed) else "",
            tried=digest_of(credential, self._key) if credential else 0,
        )

    def _hashed(self, batch: list[Note]) -> list[Hashed]:
        return [self._with_text(note.fact, note.said) if note.said is not None else Hashed(note.fact) for note in batch]

    def _with_text(self, fact: CallFact, said: Said) -> Hashed:
        body = hashlib.blake2b(said.body, digest_size=16, key=self._key).hexdigest()
        known = (str(said.revision.revision_id), said.endpoint, body)
        text = ""
        if known not in self._repeats:
            self._repeats[known], text = self._hashes_of(said)
            if len(self._repeats) > MAX_REPEATS:
                self._repeats.popitem(last=False)
        prompt, raw, chars, shape = self._repeats[known]
        return Hashed(msgspec.structs.replace(fact, prompt=prompt, raw=raw, prompt_chars=chars, shape=shape), text)

    def _hashes_of(self, said: Said) -> tuple[tuple[int | None, int, int, int], str]:
        """Return the prompt's 64 bits, the exact text's digest, its length, the shape of the rest; and the text."""
        try:
            value: object = msgspec.json.decode(said.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return (None, 0, 0, 0), ""
        text, shape = text_and_shape(value, self._fields_of(said.revision, said.endpoint), self._key)
        prompt = self._hasher.hash(text) if text else None
        raw = digest_of(text, self._key) if text else 0
        return (None if prompt is None else signed(prompt), raw, len(text), shape), text

    def _fields_of(self, revision: Revision, endpoint: str) -> frozenset[str]:
        place = (str(revision.revision_id), endpoint)
        fields = self._fields.get(place)
        if fields is None:
            fields = self._fields[place] = text_fields(revision.openapi, endpoint)
            if len(self._fields) > MAX_FIELDS:
                self._fields.popitem(last=False)
        return fields


def _agent(key: bytes, agent: bytes, headers: tuple[bytes, ...]) -> str:
    """Return a digest of the client's kind: its name without versions, and the order of its own headers."""
    order = [name for name in headers if name not in _CHANGING and not name.startswith(_VOLATILE)]
    said = _DIGITS.sub(b"", agent) + b"\n" + b"\n".join(order[:40])
    return hashlib.blake2b(said, digest_size=8, key=key).hexdigest()


def signed(value: int) -> int:
    """Return 64 bits as Postgres keeps them."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _call_id(exchange: Exchange, ports: GatewayPorts) -> uuid.UUID:
    if exchange.call_id is not None:
        return exchange.call_id
    try:
        return uuid.UUID(exchange.request_id)
    except ValueError:
        return uuid.UUID(int=ports.chance.bits(128))


def _credential(exchange: Exchange) -> str:
    _, _, rest = exchange.headers.get(b"authorization", b"").partition(b" ")
    return rest.strip().decode("latin-1")[:512]
