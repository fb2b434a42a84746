"""Follows every stream of outputs of a fleet, one output after another, and says what has changed. Pure.

A stream is what one replica makes of one kind of medium, or what a scorer says of that. The first outputs of a revision
are its reference, then frozen; each replica is followed against it: its features by `drift`, its failed contracts by a
sum of bets on their rate (the same construction, for a coin). The outputs of a new revision are also followed together,
against the reference of the revision before: what was wrong from its first output on would else be its own measure. It
decides when a stream alarms. What is wrong, and where, `diagnosis` says; what follows, `remedies`. State goes in parts
that are plain bytes: the same outputs give the same state and the same events, however they were cut. Called by `loop`.
"""

import dataclasses
import datetime as dt
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from forestay.quality.drift import Alarm, Detector, State
from forestay.quality.scorers.model import names_of
from forestay.telemetry.output_facts import OutputFact

LEAST_IN_STRATUM = 5  # outputs of a reference; smaller strata are ranked together
MAX_STREAMS = 5_000
MAX_TIMES = 512
MAX_ENDED = 50
_RATES = (0.2, 0.6, 0.95)  # of failed contracts, that are bet on
_LEAST_RATE = 0.005
_FIRST_RATE = 0.02  # while the reference is not known
_CAP = 1e30
META = "meta"


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """What the watch is tuned by."""

    reference_outputs: int = 400  # of a revision and a kind of medium
    run_length_outputs: float = 10_000.0  # of one stream, from false alarm to false alarm, on average and at least


class StreamKey(msgspec.Struct, frozen=True, order=True):
    """Which outputs are followed together."""

    model_id: str
    revision_id: str
    kind: str
    replica_id: str

    @property
    def part(self) -> str:
        """Return the name of its part of the state."""
        return f"stream/{self.revision_id}/{self.kind}/{self.replica_id}"


@dataclasses.dataclass(frozen=True, slots=True)
class Drifted:
    """The features of a stream have changed."""

    key: StreamKey
    alarm: Alarm
    since: dt.datetime
    fact: OutputFact  # the output at which it was seen


@dataclasses.dataclass(frozen=True, slots=True)
class Broke:
    """More outputs of a stream fail their contract than did."""

    key: StreamKey
    check: str  # the one that failed most
    failed: int  # of the last `of` outputs
    of: int
    evidence: float
    since: dt.datetime
    fact: OutputFact


Event = Drifted | Broke


class Reference(msgspec.Struct):
    """Healthy outputs of one revision; frozen once it is full."""

    model_id: str = ""
    frozen_at: float = 0.0
    rows: dict[str, list[list[float]]] = {}  # stratum -> outputs
    whole: int = 0
    failed: int = 0
    frozen: bool = False
    prompts: dict[str, list[int]] = {}  # stratum -> digest of each output's prompt; of older references there is none

    def strata(self) -> dict[str, list[list[float]]]:
        """Return the strata that are large enough, and under no name what is left.

        A prompt that was asked for often is a stratum of its own: prompts of one cluster draw different things, and
        how often each is asked for is no matter of the model. Others of its cluster are ranked by the cluster's rest.
        """
        large: dict[str, list[list[float]]] = {}
        for name, rows in self.rows.items():
            prompts = self.prompts.get(name) or [0] * len(rows)
            often = {digest for digest, count in Counter(prompts).items() if digest and count >= LEAST_IN_STRATUM}
            for row, digest in zip(rows, prompts, strict=True):
                large.setdefault(_of_prompt(name, digest) if digest in often else name, []).append(row)
            if len(large.get(name, ())) < LEAST_IN_STRATUM <= len(rows):
                large[name] = rows
        large = {name: rows for name, rows in large.items() if len(rows) >= LEAST_IN_STRATUM}
        rest = [row for name, rows in self.rows.items() if name not in large for row in rows]
        return {**large, "": rest or [row for rows in self.rows.values() for row in rows]}

    def rate(self) -> float:
        """Return the share of failed contracts that is usual, from above."""
        if not self.frozen:
            return _FIRST_RATE
        return min(0.5, max(_LEAST_RATE, 2 * (self.failed + 1) / (self.whole + self.failed + 1)))


class _Stored(msgspec.Struct):
    key: StreamKey
    state: State | None
    times: list[float]
    bets: list[float]
    ended: list[tuple[float, str]]
    seen: int
    base: str


class Meta(msgspec.Struct):
    """How far the watch has read; `serial` grows with every save."""

    position: int = 0
    at: dt.datetime | None = None
    serial: int = 0


class Stream:
    """One stream; its detector begins with the reference."""

    def __init__(self, key: StreamKey, reference: Reference, rules: Rules, base: str) -> None:
        """`base` is the revision whose reference it is."""
        self.key = key
        self.base = base
        self.seen = 0
        self._reference = reference
        self._rules = rules
        self._detector: Detector | None = None
        self._known: Mapping[str, Sequence[Sequence[float]]] = {}
        self._times: list[float] = []  # of the outputs that the detector has taken
        self._bets = [0.0] * len(_RATES)
        self._ended: list[tuple[float, str]] = []  # when and how the last outputs ended: a check's name, or nothing

    @property
    def e_value(self) -> float:
        """Return the evidence that its features have changed, of which the mean is at most one while they have not."""
        return self._detector.e_value if self._detector is not None else 0.0

    def take(self, facts: Sequence[OutputFact]) -> list[Event]:
        """Take its next outputs."""
        events: list[Event] = []
        whole: list[OutputFact] = []
        for fact in facts:
            self.seen += 1
            broke = self._bet(fact) if self.key.replica_id else None
            events += [broke] if broke is not None else []
            if not fact.failed and len(fact.features) == len(names_of(self.key.kind)):
                whole.append(fact)
        if whole and self._reference.frozen:
            events += self._follow(whole)
        return events

    def stored(self) -> bytes:
        """Return its part of the state."""
        state = self._detector.state() if self._detector is not None else None
        kept = (self._times, self._bets, self._ended, self.seen, self.base)
        return packed(_Stored(self.key, state, *kept))

    @staticmethod
    def restored(data: bytes, references: Mapping[tuple[str, str], Reference], rules: Rules) -> "Stream":
        """Return the stream of a part."""
        found = msgspec.msgpack.decode(zlib.decompress(data), type=_Stored)
        reference = references.get((found.base, found.key.kind), Reference())
        stream = Stream(found.key, reference, rules, found.base)
        stream.seen = found.seen
        stream._times, stream._bets, stream._ended = found.times, found.bets, found.ended
        if found.state is not None and reference.frozen:
            stream._ready().restore(found.state)
        return stream

    def _ready(self) -> Detector:
        if self._detector is None:
            seed = zlib.crc32(self.key.part.encode())
            names, threshold = names_of(self.key.kind), self._rules.run_length_outputs
            self._known = self._reference.strata()
            self._detector = Detector(names, self._known, threshold=threshold, seed=seed)
        return self._detector

    def _follow(self, facts: Sequence[OutputFact]) -> list[Event]:
        detector = self._ready()
        first = detector.seen + 1
        alarms = detector.follow([fact.features for fact in facts], [stratum_in(fact, self._known) for fact in facts])
        times = [*self._times, *(fact.at.timestamp() for fact in facts)]
        oldest = detector.seen - len(times) + 1  # number of the output of times[0]
        self._times = times[-MAX_TIMES:]
        return [
            Drifted(
                self.key,
                alarm,
                dt.datetime.fromtimestamp(times[min(len(times) - 1, max(0, alarm.since - oldest))], dt.UTC),
                facts[alarm.output - first],
            )
            for alarm in alarms
        ]

    def _bet(self, fact: OutputFact) -> Broke | None:
        """Bet that contracts fail more often than usual; a false alarm comes as rarely as one of the features."""
        usual = self._reference.rate()
        self._ended = [*self._ended, (fact.at.timestamp(), fact.failed)][-MAX_ENDED:]
        for place, rate in enumerate(_RATES):
            if rate < 2 * usual:
                continue
            factor = rate / usual if fact.failed else (1 - rate) / (1 - usual)
            self._bets[place] = min(_CAP, (self._bets[place] + 1.0) * factor)
        evidence = sum(self._bets) / len(self._bets)
        if evidence < self._rules.run_length_outputs:
            return None
        self._bets = [0.0] * len(_RATES)
        checks = Counter(check for _, check in self._ended if check)
        failed = sum(checks.values())
        name = checks.most_common(1)[0][0]
        first = dt.datetime.fromtimestamp(min(at for at, check in self._ended if check == name), dt.UTC)
        return Broke(self.key, name, failed, len(self._ended), evidence, first, fact)


class Watch:
    """All streams and references of a fleet."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.references: dict[tuple[str, str], Reference] = {}
        self.streams: dict[StreamKey, Stream] = {}
        self._changed: set[str] = set()

    def take(self, facts: Sequence[OutputFact]) -> list[Event]:
        """Take the next outputs of the fleet, in their order; returns what has changed."""
        batches: dict[StreamKey, list[OutputFact]] = {}
        events: list[Event] = []
        for fact in facts:
            if not names_of(fact.kind):
                continue  # it does not open: the contract has said so
            full = self._learn(fact)
            for replica_id in (fact.replica_id, ""):
                key = StreamKey(fact.model_id, fact.revision_id, fact.kind, replica_id)
                if self._stream(key) is not None:
                    batches.setdefault(key, []).append(fact)
            if full is not None:
                events += self._flush(batches)  # what is in the reference must not meet it
                full.frozen, full.frozen_at = True, fact.at.timestamp()
        return [*events, *self._flush(batches)]

    def evidence(self) -> dict[StreamKey, float]:
        """Return the e-values of all streams, for `drift.decide_fleet`."""
        return {key: stream.e_value for key, stream in self.streams.items()}

    def forget(self, replicas: frozenset[str]) -> list[str]:
        """Drop the streams of replicas that are no more; returns the names of their parts."""
        gone = [key for key in self.streams if key.replica_id and key.replica_id not in replicas]
        live = {key.revision_id for key in self.streams if key.replica_id and key not in gone}
        gone += [key for key in self.streams if not key.replica_id and key.revision_id not in live]
        for key in gone:
            del self.streams[key]
        return [key.part for key in gone]

    def changed_parts(self) -> dict[str, bytes]:
        """Return what has changed since the last call, to be stored."""
        found: dict[str, bytes] = {}
        for key, stream in self.streams.items():
            if key.part in self._changed:
                found[key.part] = stream.stored()
        for (revision_id, kind), reference in self.references.items():
            name = f"reference/{revision_id}/{kind}"
            if name in self._changed:
                found[name] = packed((revision_id, kind, reference))
        self._changed.clear()
        return found

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """Take over a stored state."""
        self.references.clear()
        self.streams.clear()
        for name, data in parts.items():
            if name.startswith("reference/"):
                revision_id, kind, reference = msgspec.msgpack.decode(
                    zlib.decompress(data), type=tuple[str, str, Reference]
                )
                self.references[revision_id, kind] = reference
        for name, data in parts.items():
            if name.startswith("stream/"):
                stream = Stream.restored(data, self.references, self.rules)
                self.streams[stream.key] = stream
        self._changed.clear()

    def _learn(self, fact: OutputFact) -> Reference | None:
        """Add an output to its revision's reference while that is not frozen; returns it when it became full by it."""
        reference = self.references.setdefault((fact.revision_id, fact.kind), Reference(fact.model_id))
        if reference.frozen:
            return None
        self._changed.add(f"reference/{fact.revision_id}/{fact.kind}")
        if fact.failed or len(fact.features) != len(names_of(fact.kind)):
            reference.failed += 1
            return None
        reference.rows.setdefault(stratum_of(fact), []).append(list(fact.features))
        reference.prompts.setdefault(stratum_of(fact), []).append(fact.prompt)
        reference.whole += 1
        return reference if reference.whole >= self.rules.reference_outputs else None

    def _flush(self, batches: dict[StreamKey, list[OutputFact]]) -> list[Event]:
        events: list[Event] = []
        for key, facts in batches.items():
            self._changed.add(key.part)
            events += self.streams[key].take(facts)
        batches.clear()
        return events

    def _stream(self, key: StreamKey) -> Stream | None:
        """Return the stream of a key; None where it is not followed: there is none to compare with, or no room."""
        found = self.streams.get(key)
        if found is not None:
            over = not key.replica_id and found.seen >= 2 * self.rules.reference_outputs
            return None if over else found
        if len(self.streams) >= MAX_STREAMS:
            return None
        base = key.revision_id if key.replica_id else self._before(key)
        if not base:
            return None
        reference = self.references.setdefault((base, key.kind), Reference(key.model_id))
        self.streams[key] = Stream(key, reference, self.rules, base)
        return self.streams[key]

    def _before(self, key: StreamKey) -> str:
        """Return the revision whose reference was frozen last before a new one's first outputs; empty without one."""
        own = self.references.get((key.revision_id, key.kind))
        if own is not None and own.frozen:
            return ""
        earlier = {
            revision_id: reference.frozen_at
            for (revision_id, kind), reference in self.references.items()
            if kind == key.kind and reference.model_id == key.model_id and reference.frozen
        }
        return max(earlier, key=lambda item: earlier[item], default="")


def stratum_of(fact: OutputFact) -> str:
    """Return within which outputs this one is ranked."""
    return f"{fact.endpoint} {fact.parameters} {fact.cluster}"


def stratum_in(fact: OutputFact, known: Mapping[str, object]) -> str:
    """Return within which of the known strata an output is ranked: its prompt's own, where there is one."""
    name = stratum_of(fact)
    own = _of_prompt(name, fact.prompt)
    return own if fact.prompt and own in known else name


def _of_prompt(stratum: str, digest: int) -> str:
    return f"{stratum} {digest:x}"


def unpacked_meta(data: bytes) -> Meta:
    """Read the part `meta`."""
    return msgspec.msgpack.decode(zlib.decompress(data), type=Meta)


def packed(value: object) -> bytes:
    """Return a part as it is stored."""
    return zlib.compress(msgspec.msgpack.encode(value), 1)
