"""Judging one piece of a request from end to end: policy, detectors, decision, record.

It decides nothing about content (`decide` does) and everything about failing: without a policy that can be read, or
without a record that is committed, nothing is released. A place may be seen in several looks (frames of a film): its
scores are the highest of them, and one look without a score leaves the place without one, unless another look blocks.
Candidate policies judge in shadow afterwards, off the path. Called by the gateway for inputs, by the worker for media
and outputs; one in each process, whose `run` must run beside.
"""

import asyncio
import dataclasses
import functools
import uuid
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from forestay.chance import Chance
from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.ids import KeyId, ModelId, RequestId, RevisionId, TenantId
from forestay.queue.group_commit import BatchLimits, GroupCommit
from forestay.safety.decide import Able, Judgement, Place, decide, fallbacks, is_decisive, stricter, wanted
from forestay.safety.lines import for_lines, mode_of
from forestay.safety.model import HINT, Content, DetectorInfo, Detectors, Outcome, Scores, Text, Trouble, Unscored
from forestay.safety.pipeline import Check, run_checks
from forestay.safety.policies import Policies
from forestay.safety.policy import Action, Policy
from forestay.safety.records import Point, VerdictRecord, VerdictSink, check_records, shadowed
from forestay.safety.taxonomy import Category, Modality
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import SHADOWS_DROPPED, VERDICT_SECONDS, VERDICTS, VERDICTS_UNWRITTEN, Metrics
from forestay.verdicts import Verdict

KNOWN_SECONDS = 5.0  # how often detectors are asked what they are
FIRST_SECONDS = 0.25  # the first judgement waits so long for that
FLUSH_SECONDS = 0.2
RULING_SECONDS = 10.0  # to record what a person decided
MAX_KEPT = 10_000  # records of allowed inputs that wait to be written
MAX_SHADOWS = 32  # judgements that candidates still owe; beyond, they are dropped and counted
SALT_BITS = 128
ASK_SHARE, INSTEAD_SHARE = 0.7, 0.9  # of the deadline: until then detectors, their stand-ins; the rest is the record's
_STREAMS = ("pass", "judge", "withhold")  # the strictest last
_LATER = frozenset({Point.INPUT, Point.INPUT_MEDIA, Point.LINES})  # whose records nobody waits for
_NOTHING = frozenset[Modality]()
_LOG = logger("safety")
Finding = tuple[Action, Category | None]


def _as_judged(_: Judgement) -> Sequence[str]:
    """Say that an answer leaves as it was judged."""
    return ()


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """Whose content is judged, and where."""

    request_id: RequestId
    attempt: int
    point: Point
    tenant_id: TenantId
    key_id: KeyId
    model_id: ModelId
    revision_id: RevisionId
    policy_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """A place with the looks that were taken at it; none: it could not be opened."""

    place: Place
    looks: tuple[Content, ...]


class MatchWatch(Protocol):
    """Hears what matched a list of known things, and for whom; see `hashes/matcher`."""

    def note(self, scores: Scores, tenant_id: TenantId) -> object:
        """Count it; at once, and without a wait."""
        ...


class CaseWatch(Protocol):
    """Whoever opens cases of matches that the law asks to report; see `hashes/cases`."""

    async def note(self, scores: Scores, request_id: RequestId, tenant_id: TenantId) -> None:
        """Open the case, if these scores tell of one; waits a moment, and never raises for a store that is away."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class GuardPorts:
    """What a guard may use of the world."""

    detectors: Detectors
    policies: Policies
    records: VerdictSink
    clock: Clock
    chance: Chance
    metrics: Metrics
    matches: MatchWatch | None = None
    cases: CaseWatch | None = None


class Guard:
    """Judges."""

    def __init__(self, ports: GuardPorts) -> None:
        self._ports = ports
        self._writes = GroupCommit[VerdictRecord, None](self._write, BatchLimits(patience_seconds=10.0))
        self._kept: deque[VerdictRecord] = deque()
        self._shadows: asyncio.Queue[tuple[Subject, Policy, Sequence[Item], Able]] = asyncio.Queue(MAX_SHADOWS)
        self._known: Mapping[str, DetectorInfo] = {}

    def guards(self, policy_id: str, tenant_id: TenantId, request_id: RequestId) -> bool:
        """Tell whether anything of this request is to be judged."""
        if self._ports.policies.unguarded(policy_id, tenant_id):
            return False
        found = self._ports.policies.all_of(policy_id, tenant_id, request_id)
        return any(item.deciding is None or item.deciding.guards or item.shadow is not None for item in found)

    def modalities(self, policy_id: str, tenant_id: TenantId, request_id: RequestId) -> frozenset[Modality]:
        """Return which content of this request has to be looked at; all of it while a policy cannot be read."""
        if self._ports.policies.unguarded(policy_id, tenant_id):
            return _NOTHING
        found = self._ports.policies.all_of(policy_id, tenant_id, request_id)
        if any(item.deciding is None for item in found):
            return frozenset(Modality)
        asked = [policy for item in found for policy in (item.deciding, item.shadow) if policy is not None]
        return frozenset[Modality]().union(*(policy.modalities() for policy in asked))

    def streams(self, subject: Subject) -> str:
        """Return what becomes of pieces and frames: judge, withhold or pass; of two policies the stricter."""
        asked = ["withhold" if policy is None else policy.streams for policy in self._deciding(subject)]
        return max(asked, key=_STREAMS.index)

    def lines(self, subject: Subject) -> str:
        """Return what becomes of the lines that model code prints: judge, withhold or pass."""
        return mode_of(self._deciding(subject))

    def policies_of(self, subject: Subject) -> list[Policy]:
        """Return the policies that decide about this request, as far as they can be read."""
        return [policy for policy in self._deciding(subject) if policy is not None]

    def provenance(self, subject: Subject) -> frozenset[str]:
        """Return what released files of this request are given: manifest, watermark, fingerprint."""
        return frozenset[str]().union(*(policy.provenance for policy in self._deciding(subject) if policy is not None))

    def policy_of(self, policy_id: str, tenant_id: TenantId, request_id: RequestId) -> Policy | None:
        """Return the version that decides about this request; None while it cannot be read.

        What people may do about it is as strict as the model's policy and the tenant's together.
        """
        deciding = [found.deciding for found in self._ports.policies.all_of(policy_id, tenant_id, request_id)]
        model, rules = deciding[0], [policy.review for policy in deciding if policy is not None]
        if model is None:
            return None
        needs = max(rule.release_needs for rule in rules)
        two = frozenset[Category]().union(*(rule.two_people for rule in rules))
        marks = frozenset[str]().union(*(policy.provenance for policy in deciding if policy is not None))
        review = dataclasses.replace(model.review, release_needs=needs, two_people=two, provenance=marks)
        return dataclasses.replace(model, review=review)

    async def rule(self, subject: Subject, verdict: Verdict, reason: str) -> Judgement:
        """Record what a person decided about a withheld output, before it takes effect."""
        action = Action.ALLOW if verdict is Verdict.ALLOW else Action.BLOCK
        judgement = Judgement(verdict, action, None, "", reason)
        return await self._keep(subject, self._record(subject, [None], judgement, (), 0.0), judgement)

    async def note(self, subject: Subject, judgement: Judgement, judged: Sequence[str], what: str) -> Judgement:
        """Record what a judged output has become (stamped copies) before it is released; as `judge` in failing."""
        deciding = self._deciding(subject)
        said = dataclasses.replace(judgement, reason=f"{judgement.reason}; {what}", checks=())
        return await self._keep(
            subject, self._record(subject, deciding, said, judged, 0.0), judgement, _patience(deciding)
        )

    async def judge(
        self,
        subject: Subject,
        items: Sequence[Item],
        judged: Sequence[str],
        becomes: Callable[[Judgement], Sequence[str]] = _as_judged,
        able: Able = (),
    ) -> Judgement:
        """Judge the items together; `judged` are digests of what was looked at, `able` says what can be changed here.

        `becomes` says in what form, by its digests, an answer leaves that is so judged. The record is committed when
        this returns, but for inputs that are allowed: theirs follows soon. It takes no longer than the policy's
        deadline, the record included: a log that is slow releases nothing.
        """
        found = self._ports.policies.all_of(subject.policy_id, subject.tenant_id, subject.request_id)
        started = self._ports.clock.monotonic()
        deciding = [item.deciding for item in found]
        readable = [policy for policy in deciding if policy is not None]
        if len(readable) < len(deciding):
            judgement = _no_policy(subject.policy_id if deciding[0] is None else "of the tenant")
        else:
            judgement = await self._by(readable, subject, items, able, counted=True)
        seconds = self._ports.clock.monotonic() - started
        self._ports.metrics.add(VERDICTS, subject.model_id, subject.point.value, judgement.verdict.value)
        self._ports.metrics.observe(VERDICT_SECONDS, seconds, subject.point.value)
        for item in found:
            self._owe_shadow(subject, item.shadow, items, able)
        record = self._record(subject, deciding, judgement, [*judged, *becomes(judgement)], seconds)
        deadline = _patience(deciding)
        left = max(deadline - seconds, (1 - INSTEAD_SHARE) * deadline)
        kept = await self._keep(subject, record, judgement, left)
        return dataclasses.replace(kept, verdict_id=str(record.verdict_id))

    async def judge_lines(self, subject: Subject, pieces: Sequence[Text], known: Collection[Finding] = ()) -> Judgement:
        """Judge lines that were put together (`lines`), within a second; a record follows of what is more than allowed.

        What is `known` of this attempt needs no further record. No candidate judges lines, and what matches a list is
        not counted: that is for inputs and outputs.
        """
        deciding, started = self._deciding(subject), self._ports.clock.monotonic()
        readable = [for_lines(policy) for policy in deciding if policy is not None]
        if len(readable) < len(deciding):
            judgement = _no_policy(subject.policy_id if deciding[0] is None else "of the tenant")
        else:
            items = [Item(Place(piece.where, Modality.TEXT), (piece,)) for piece in pieces]
            judgement = await self._by(readable, subject, items, ())
        self._ports.metrics.add(VERDICTS, subject.model_id, subject.point.value, judgement.verdict.value)
        if judgement.action is Action.ALLOW or (judgement.action, judgement.category) in known:
            return judgement
        seconds = self._ports.clock.monotonic() - started
        return await self._keep(subject, self._record(subject, deciding, judgement, (), seconds), judgement)

    async def run(self) -> None:
        """Write records and judge in shadow, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._writes.run())
            group.create_task(self._learn_for_ever())
            group.create_task(self._flush_for_ever())
            group.create_task(self._judge_in_shadow())

    async def flush(self) -> None:
        """Write the records of allowed inputs that still wait; raises Unavailable, and keeps them."""
        left = len(self._kept)  # what comes meanwhile is the next round's, or a busy guard would write row by row
        while left > 0 and self._kept:
            batch = [self._kept.popleft() for _ in range(min(500, left, len(self._kept)))]
            left -= len(batch)
            try:
                await self._write(batch)
            except BaseException:
                self._kept.extendleft(reversed(batch))
                raise

    def _deciding(self, subject: Subject) -> list[Policy | None]:
        found = self._ports.policies.all_of(subject.policy_id, subject.tenant_id, subject.request_id)
        return [item.deciding for item in found]

    async def _by(
        self,
        policies: Sequence[Policy],
        subject: Subject,
        items: Sequence[Item],
        able: Able,
        *,
        counted: bool = False,
    ) -> Judgement:
        """Judge by one policy or two, each detector asked once; cheaper ones stand in for those that gave no score.

        All of it within the longer of their deadlines, so that neither judges by less than it asks for.
        """
        items = merged(items)
        places = [item.place for item in items]
        outcomes: list[Outcome] = []
        named = _together([wanted(policy, places) for policy in policies])
        if named:
            clock, seconds = self._ports.clock, max(policy.deadline_seconds for policy in policies)
            ends = clock.monotonic() + INSTEAD_SHARE * seconds
            looks = {item.place: item.looks for item in items}
            outcomes += await self._ask(policies, named, looks, ASK_SHARE * seconds)
            instead = _together([fallbacks(policy, places, outcomes) for policy in policies])
            if instead:
                left = max((INSTEAD_SHARE - ASK_SHARE) * seconds, ends - clock.monotonic())
                outcomes += await self._ask(policies, instead, looks, left)
        watch = self._ports.matches if counted else None
        if watch is not None:
            for outcome in outcomes:
                if isinstance(outcome, Scores) and outcome.scores:
                    watch.note(outcome, subject.tenant_id)
        if counted and self._ports.cases is not None:
            for outcome in outcomes:
                if isinstance(outcome, Scores) and HINT in outcome.notes:
                    await self._ports.cases.note(outcome, subject.request_id, subject.tenant_id)
        waived = self._ports.policies.waived(subject.model_id)
        return functools.reduce(stricter, [decide(policy, places, outcomes, waived, able) for policy in policies])

    async def _ask(
        self,
        policies: Sequence[Policy],
        named: Mapping[str, tuple[Place, ...]],
        looks: Mapping[Place, tuple[Content, ...]],
        within_seconds: float,
    ) -> list[Outcome]:
        """Ask the named detectors about all looks at their places, and put the looks together again."""
        known = await self._declared()
        modality_of = {look.where: place.modality for place, taken in looks.items() for look in taken}
        checks = [
            Check(
                detector_id,
                tuple(look for place in places for look in looks[place]),
                costly=detector_id in known and known[detector_id].costly,
            )
            for detector_id, places in named.items()
        ]

        def decisive(said: Sequence[Outcome]) -> bool:
            return any(_blocks(policies, modality_of[outcome.where], outcome) for outcome in said)

        said = await run_checks(checks, self._ports.detectors, within_seconds, self._ports.clock, decisive)
        by_look = {(outcome.detector_id, outcome.where): outcome for outcome in said}
        return [
            joined(
                detector_id,
                place,
                [by_look[detector_id, look.where] for look in looks[place]],
                functools.partial(_blocks, policies, place.modality),
            )
            for detector_id, places in named.items()
            for place in places
        ]

    async def _declared(self) -> Mapping[str, DetectorInfo]:
        """Return what detectors say of themselves, as it was heard last; nobody waits for it but the first."""
        if not self._known:
            await self._learn(FIRST_SECONDS)
        return self._known

    async def _learn(self, within_seconds: float) -> None:
        try:
            async with asyncio.timeout(within_seconds):
                self._known = {info.detector_id: info for info in await self._ports.detectors.known()}
        except (Unavailable, TimeoutError) as error:
            _LOG.warning("safety.detectors_silent", reason=str(error) or type(error).__name__)

    async def _learn_for_ever(self) -> None:
        while True:
            await self._learn(KNOWN_SECONDS)
            await self._ports.clock.sleep(KNOWN_SECONDS)

    def _record(
        self,
        subject: Subject,
        policies: Sequence[Policy | None],
        judgement: Judgement,
        judged: Sequence[str],
        seconds: float,
    ) -> VerdictRecord:
        policy = policies[0]
        chance, digests = self._ports.chance, {name: info.digest for name, info in self._known.items()}
        return VerdictRecord(
            at=self._ports.clock.now(),
            verdict_id=uuid.UUID(int=chance.bits(128)),
            request_id=subject.request_id,
            attempt=subject.attempt,
            point=subject.point.value,
            tenant_id=subject.tenant_id,
            key_id=subject.key_id,
            model_id=subject.model_id,
            revision_id=subject.revision_id,
            policy_id=subject.policy_id,
            policy_version=-1 if policy is None else policy.version,
            policy_digest="" if policy is None else policy.digest,
            shadow=False,
            verdict=judgement.verdict.value,
            action=judgement.action.value,
            category=None if judgement.category is None else judgement.category.value,
            place=judgement.where,
            reason=judgement.reason,
            checks=check_records(judgement, digests),
            judged=list(judged),
            seconds=round(seconds, 6),
            salt=chance.bits(SALT_BITS).to_bytes(SALT_BITS // 8),
            beside=" ".join("unreadable" if one is None else f"{one.policy_id}@{one.version}" for one in policies[1:]),
        )

    async def _keep(
        self, subject: Subject, record: VerdictRecord, judgement: Judgement, within_seconds: float = RULING_SECONDS
    ) -> Judgement:
        """Commit the record before anything is released by it; what cannot be recorded is not released."""
        if subject.point in _LATER:
            if len(self._kept) >= MAX_KEPT:
                self._kept.popleft()
                self._ports.metrics.add(VERDICTS_UNWRITTEN, "dropped")
            self._kept.append(record)
            return judgement
        try:
            async with asyncio.timeout(within_seconds):
                await self._writes.add(record)
        except (Unavailable, TimeoutError) as error:
            self._ports.metrics.add(VERDICTS_UNWRITTEN, "refused")
            why = str(error) or "not committed in time"
            _LOG.warning("safety.verdict_unwritten", request_id=str(subject.request_id), reason=why)
            if judgement.verdict in {Verdict.ALLOW, Verdict.FLAG}:
                what = "its verdict could not be recorded"
                withheld = dataclasses.replace(judgement, verdict=Verdict.INCONCLUSIVE, action=Action.REVIEW)
                return dataclasses.replace(withheld, reason=what, again=True)
        return judgement

    async def _write(self, batch: Sequence[VerdictRecord]) -> Sequence[None]:
        """Commit; whatever the log raises, a full disk too, is a log that is away: it must not end the process."""
        try:
            await self._ports.records.write(batch)
        except Unavailable:
            raise
        except Exception as error:
            _LOG.exception("safety.verdicts_refused")
            raise Unavailable(f"the log of verdicts refused them ({type(error).__name__})") from error
        return [None] * len(batch)

    async def _flush_for_ever(self) -> None:
        while True:
            await self._ports.clock.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except Unavailable as error:
                _LOG.warning("safety.verdicts_unwritten", waiting=len(self._kept), reason=str(error))

    def _owe_shadow(self, subject: Subject, shadow: Policy | None, items: Sequence[Item], able: Able) -> None:
        if shadow is None:
            return
        try:
            self._shadows.put_nowait((subject, shadow, items, able))
        except asyncio.QueueFull:
            self._ports.metrics.add(SHADOWS_DROPPED)

    async def _judge_in_shadow(self) -> None:
        while True:
            subject, policy, items, able = await self._shadows.get()
            started = self._ports.clock.monotonic()
            judgement = await self._by([policy], subject, items, able)
            seconds = self._ports.clock.monotonic() - started
            record = self._record(subject, [policy], judgement, (), seconds)
            while len(self._kept) >= MAX_KEPT:
                await self._ports.clock.sleep(FLUSH_SECONDS)
            self._kept.append(shadowed(record))


def merged(items: Sequence[Item]) -> list[Item]:
    """Put items of one place together and give every look a name of its own: no look may stand for another.

    A place of which any part could not be opened has no look at all.
    """
    looks: dict[Place, list[Content]] = {}
    shut: set[Place] = set()
    for item in items:
        looks.setdefault(item.place, []).extend(item.looks)
        if not item.looks:
            shut.add(item.place)
    taken: set[str] = set()
    made: list[Item] = []
    for place, found in looks.items():
        named: list[Content] = []
        for look in () if place in shut else found:
            number, where = 1, look.where
            while where in taken:
                number, where = number + 1, f"{look.where} #{number + 1}"
            taken.add(where)
            named.append(look if where == look.where else dataclasses.replace(look, where=where))
        made.append(Item(place, tuple(named)))
    return made


def joined(detector_id: str, place: Place, said: Sequence[Outcome], blocks: Callable[[Outcome], bool]) -> Outcome:
    """Put the looks at one place together: the highest scores; trouble of one look is trouble of the place.

    Unless the looks that have scores already block: then nothing that the others could say would change it.
    """
    silent = [outcome.trouble for outcome in said if isinstance(outcome, Unscored)]
    # What was scored took its own time each; those without a score waited side by side.
    waited = max((outcome.seconds for outcome in said if isinstance(outcome, Unscored)), default=0.0)
    seconds = waited + sum(outcome.seconds for outcome in said if isinstance(outcome, Scores))
    scores: dict[Category, float] = {}
    notes: dict[str, str] = {}
    for outcome in said:
        if isinstance(outcome, Scores):
            notes.update(outcome.notes)
            scores |= {name: max(score, scores.get(name, 0.0)) for name, score in outcome.scores.items()}
    found = Scores(detector_id, place.where, scores, seconds, notes)
    if not said:
        return Unscored(detector_id, place.where, Trouble.UNREADABLE)
    return Unscored(detector_id, place.where, silent[0], seconds) if silent and not blocks(found) else found


def _patience(policies: Sequence[Policy | None]) -> float:
    """Return how long a judgement may take: without a policy that can be read nothing is waited for but the record."""
    return max(1.0 if policy is None else policy.deadline_seconds for policy in policies)


def _together(asked: Sequence[Mapping[str, tuple[Place, ...]]]) -> Mapping[str, tuple[Place, ...]]:
    """Put together who is asked about which places, each once."""
    found: dict[str, dict[Place, None]] = {}
    for named in asked:
        for detector_id, places in named.items():
            found.setdefault(detector_id, {}).update(dict.fromkeys(places))
    return {detector_id: tuple(places) for detector_id, places in found.items()}


def _blocks(policies: Sequence[Policy], modality: Modality, outcome: Outcome) -> bool:
    return any(is_decisive(policy, modality, outcome) for policy in policies)


def _no_policy(policy_id: str) -> Judgement:
    reason = f"policy {policy_id} cannot be read here"
    return Judgement(Verdict.INCONCLUSIVE, Action.REVIEW, None, "", reason, again=True)
