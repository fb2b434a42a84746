"""Judges what a model gives out before anybody can have it: answers, pieces of streams, frames.

Every road takes the same way: the leaves of an answer, each opened where it is media (a file of ours, a data: URI, a
link of a provider: fetched, and from then on ours, so that what is read later is what was judged), then the guard. What
cannot be opened is a place without a look, which the policy answers. It decides no content; `safety/decide` does.
Called by `attempt` through `output_check` and by `direct`.
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import cast

import msgspec

from forestay.errors import ForestayError
from forestay.handshake import AUTH_HEADER
from forestay.ids import RequestId, TenantId
from forestay.media.urls import SCHEME, own_media_id, stored_ids, stored_url
from forestay.queue.model import Answer
from forestay.safety.decide import NOTHING_TO_JUDGE, Able, Judgement, Place
from forestay.safety.guard import Item, Subject
from forestay.safety.leaves import Leaf, LeafKind, TooMuch, inside, leaves_of, parsed, with_links
from forestay.safety.model import Text
from forestay.safety.policy import Action
from forestay.safety.provenance.stamp import Wishes
from forestay.safety.taxonomy import Modality
from forestay.safety.text.blobs import sentence_in
from forestay.safety.text.fields import ADDRESS, texts_of
from forestay.telemetry.logs import logger
from forestay.telemetry.measures import SIGNED, UNSIGNED
from forestay.verdicts import Verdict
from forestay.worker.blurring import blurred
from forestay.worker.opening import MEDIA, JudgingPorts, Opening, Work, items_of
from forestay.worker.said_before import SaidBefore
from forestay.worker.stamping import Stored

_LABELS = frozenset({"file_name", "content_type"})
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LABEL = re.compile(r"[\w./+;=-]{1,128}")
_STORED = re.compile(re.escape(SCHEME) + r"[A-Za-z0-9_-]{32,48}/[A-Za-z0-9._-]{1,128}")
_UNPARSED = object()
_FILE = ("body",)  # the place of an answer that is no JSON
_PLAIN_HEADER = re.compile(r"[\w.:;,=/+*()-]{0,64}")  # says no more than a name of a field may
BLURRED_HEADER = "x-forestay-blurred"  # the places at which a blurred copy stands
log = logger("worker")
_CHANGED = Judgement(
    Verdict.INCONCLUSIVE, Action.REVIEW, None, "", "the policy changed while the output was looked at", again=True
)


@dataclasses.dataclass(frozen=True, slots=True)
class Ruled:
    """A judged answer: its body as it may leave, and the stored files that it names."""

    judgement: Judgement
    body: bytes
    media_ids: tuple[str, ...] = ()
    blurred: tuple[str, ...] = ()  # places at which a blurred copy stands
    inline: int = 0  # media that stand in the body itself
    work: Mapping[str, float] = dataclasses.field(default_factory=dict[str, float])  # for the request's fact

    @property
    def released(self) -> bool:
        """Tell whether it may leave."""
        return self.judgement.releases or (self.judgement.action is Action.BLUR and bool(self.blurred))

    def headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return an answer's headers with a word on what was blurred."""
        if not self.blurred:
            return headers
        return {**headers, BLURRED_HEADER: ", ".join(self.blurred).encode("ascii", "replace").decode()[:1_000]}


class OutputJudge:
    """Judges outputs of one worker."""

    def __init__(self, ports: JudgingPorts) -> None:
        self._ports = ports
        self._opening = Opening(ports)

    def guards(self, policy_id: str, tenant_id: TenantId, request_id: RequestId) -> bool:
        """Tell whether anything of this request is to be judged."""
        return self._ports.guard.guards(policy_id, tenant_id, request_id)

    def streams(self, subject: Subject) -> str:
        """Return what becomes of pieces and frames of this request: judge, withhold or pass."""
        return self._ports.guard.streams(subject)

    async def judge(
        self,
        subject: Subject,
        answer: Answer,
        *,
        said: Collection[str] = (),
        lifetime_seconds: int | None = None,
        prompt_score: float = 0.0,
    ) -> Ruled:
        """Judge a whole answer; `said` are strings of the caller's own input, which an echo of is nobody's output.

        `prompt_score` is the highest score of the input: the higher, the more of a film is looked at. Words in the
        model's own headers are judged as well.
        """
        ruled = Ruled(_CHANGED, answer.body)
        for _ in range(2):  # once more where the policy changes meanwhile; files that became ours stay so
            work = self._begin(subject, ruled.body, lifetime_seconds, prompt_score)
            work.say(_heard(answer.headers))
            ruled = await self._whole(work, ruled.body, answer.headers.get("content-type", ""), said)
            if ruled.judgement is not _CHANGED:
                break
        return await self._stamped(subject, ruled)

    async def _whole(self, work: Work, body: bytes, content_type: str, said: Collection[str]) -> Ruled:
        value = _parsed(body)  # whatever it calls itself: whoever reads it may well parse it
        if value is _UNPARSED:
            await self._take_file(work, body, content_type)
            if work.adopted:
                value = with_links({"body": _decoded(body)}, work.adopted)
                body = str(cast("dict[str, object]", value)["body"]).encode()
            judgement = await self._ruled(work, lambda _: [_digest(body)])
            return Ruled(judgement, body, tuple(stored_ids(body)), inline=work.inline)
        await self._take(work, value, body, said)
        if work.adopted:
            value = with_links(value, work.adopted)
            body = _written(value)

        def leaves_as(judgement: Judgement) -> bytes:
            return _with_concepts(value, body, judgement, work.wanted)

        def becomes(judgement: Judgement) -> Sequence[str]:
            return () if judgement.action is Action.BLUR else [_digest(leaves_as(judgement))]

        judgement = await self._ruled(work, becomes, able=frozenset({Action.BLUR}))
        if judgement.action is Action.BLUR:
            return await self._blurred(work, value, body, judgement)
        body = leaves_as(judgement)
        return Ruled(judgement, body, tuple(stored_ids(body)), inline=work.inline)

    async def _blurred(self, work: Work, value: object, body: bytes, judgement: Judgement) -> Ruled:
        """Put blurred copies into an answer, with a record of what it is now; where that cannot be done, block it."""
        places = judgement.places_of(Action.BLUR)
        try:
            made = await blurred(self._ports.media, work, value, places)
        except (ForestayError, OSError, ValueError) as error:
            log.warning("judging.not_blurred", request=str(work.subject.request_id), reason=type(error).__name__)
            made = None
        if made is None:
            blocked = dataclasses.replace(judgement, action=Action.BLOCK, verdict=Verdict.BLOCK)
            return Ruled(await self._ports.guard.note(work.subject, blocked, (), "it could not be blurred"), body)
        body = _with_concepts(value, made.body, judgement, work.wanted)
        said = "blurred copies stand in its place"
        judgement = await self._ports.guard.note(work.subject, judgement, [_digest(body), *made.digests], said)
        return Ruled(judgement, body, tuple(stored_ids(body)), tuple(sorted(places)), work.inline)

    async def _stamped(self, subject: Subject, ruled: Ruled) -> Ruled:
        """Give the files of an allowed answer what its policy asks for, with a record of what they are now."""
        asked = self._ports.guard.provenance(subject)
        if not (asked and ruled.released):
            return ruled
        wishes = Wishes("manifest" in asked, "watermark" in asked, "fingerprint" in asked)
        if self._ports.stamping is None:
            stored = Stored(ruled.body, unsigned=len(ruled.media_ids))
        else:
            stored = await self._ports.stamping.apply(subject, ruled.body, ruled.media_ids, wishes)
        body, judgement = stored.body, ruled.judgement
        if stored.digests:
            what = "stored with provenance"
            judgement = await self._ports.guard.note(subject, judgement, [_digest(body), *stored.digests], what)
        files = {SIGNED: float(stored.signed), UNSIGNED: float(stored.unsigned + ruled.inline)}
        work = files if wishes.manifest and any(files.values()) else {}
        return dataclasses.replace(ruled, judgement=judgement, body=body, media_ids=tuple(stored_ids(body)), work=work)

    async def moved(self, subject: Subject, body: bytes) -> Judgement:
        """Record how an allowed answer reads whose files went to the caller's bucket; only then may it leave."""
        allowed = Judgement(Verdict.ALLOW, Action.ALLOW, None, "", "allowed before")
        return await self._ports.guard.note(subject, allowed, [_digest(body)], "its files lie in the caller's bucket")

    async def judge_value(
        self, subject: Subject, value: object, raw: bytes, beside: Mapping[str, str], before: SaidBefore
    ) -> Ruled:
        """Judge one piece of a stream or a frame, already parsed; it leaves as it came or not at all.

        `beside` is what is said around it, an event's name and id; `before` what was said by the pieces before it.
        """
        judgement = _CHANGED
        for _ in range(2):  # once more where the policy changes meanwhile
            work = self._begin(subject, raw, None, 1.0)
            work.say(beside)
            await self._take(work, value, raw, ())
            said = work.texts()
            work.items += items_of(before.together(said))
            judgement = await self._ruled(work)
            if judgement.releases:
                before.note(said)
            if judgement is not _CHANGED:
                break
        return Ruled(judgement, raw, tuple(stored_ids(raw)))

    async def release(self, media_ids: Sequence[str], request_id: RequestId) -> None:
        """Let files that an allowed answer of this request names be read, if it made them; raises Unavailable."""
        if media_ids:
            await self._ports.media.release(media_ids, (request_id,))

    def _wanted(self, subject: Subject) -> frozenset[Modality]:
        return self._ports.guard.modalities(subject.policy_id, subject.tenant_id, subject.request_id)

    def _begin(self, subject: Subject, body: bytes, lifetime_seconds: int | None, prompt_score: float) -> Work:
        wanted = self._wanted(subject)
        work = Work(subject, wanted, lifetime_seconds, prompt_score)
        work.digests.append(_digest(body))
        return work

    async def _ruled(
        self, work: Work, becomes: Callable[[Judgement], Sequence[str]] = lambda _: (), able: Able = ()
    ) -> Judgement:
        """Ask the guard; what the policy wants looked at by now, and was not, is not judged."""
        if self._wanted(work.subject) - work.wanted:
            return _CHANGED
        if not work.items and not work.wanted:
            return NOTHING_TO_JUDGE
        return await self._ports.guard.judge(work.subject, work.items, work.digests, becomes, able)

    async def _take(self, work: Work, value: object, raw: bytes, said: Collection[str]) -> None:
        """Open every leaf, a few at a time."""
        try:
            every = leaves_of(value)
            leaves = [leaf for leaf in every if not leaf.text or leaf.text not in said]
        except TooMuch:
            work.unreadable("body")
            work.items += [Item(Place("body", Modality.TEXT), ())] if Modality.TEXT in work.wanted else []
            return
        if Modality.TEXT in work.wanted:
            found = texts_of(value)
            # Where media are judged a link is fetched and becomes ours, so that nobody reads what it says.
            ours = {f"{leaf.where}{ADDRESS}" for leaf in every if leaf.kind is LeafKind.LINK and work.wanted & MEDIA}
            read = [text for text in found.texts if text.where not in ours]
            fresh = [text for text in read if text.text not in said and not _is_label(text)]
            spelled = [Text(text.where, sentence_in(text.text)) for text in read if _is_label(text)]
            fresh += [text for text in spelled if text.text]  # the name of a file may say something, too
            work.items += [Item(Place(text.where, Modality.TEXT), (text,)) for text in fresh]
            work.items += [Item(Place(place.where, Modality.TEXT), ()) for place in found.unread]
        files = [leaf for leaf in leaves if leaf.kind is not LeafKind.TEXT]
        files += [file for leaf in leaves for file in inside(leaf) if not _is_echo(file, said)]
        # Whatever stands for one of our files becomes its URL on the way out, in the middle of a text as well.
        named = {own_media_id(leaf.text.strip()) for leaf in files if leaf.kind is LeafKind.STORED}
        hidden = [media_id for media_id in stored_ids(raw) if media_id not in named]
        files += [Leaf((), LeafKind.STORED, stored_url(media_id, "file")) for media_id in hidden]
        if work.wanted and files:
            await self._opening.take(work, files)

    async def _take_file(self, work: Work, body: bytes, content_type: str) -> None:
        """An answer that is no JSON is one file, or one text, whatever it calls itself; what says text must be some."""
        says_text = content_type.startswith("text/") or "json" in content_type
        text = _decoded(body)
        if text is not None:
            await self._take(work, {"body": text}, body, ())
        elif Modality.TEXT in work.wanted and says_text:
            work.items.append(Item(Place("body", Modality.TEXT), ()))
        if work.wanted & MEDIA and not (content_type.startswith("text/") and text is not None):
            await self._opening.open(work, Leaf((), LeafKind.BYTES, data=body))


def _is_echo(file: Leaf, said: Collection[str]) -> bool:
    """Tell whether a link in the middle of a text is the caller's own, given back."""
    return file.kind is LeafKind.LINK and any(file.text in text for text in said)


def _parsed(body: bytes) -> object:
    """Parse JSON; _UNPARSED when it is none."""
    try:
        return parsed(body)
    except ValueError:
        return _UNPARSED


def _decoded(body: bytes) -> str | None:
    """Read a text; None where it is none, or in a form in which letters would not be seen as such (UTF-16)."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _is_label(text: Text) -> bool:
    """Tell whether a text of an output is a file's name, kind or place, or an id: what is written beside media."""
    name = text.where.rpartition(".")[2]
    beside = name in _LABELS and _LABEL.fullmatch(text.text) is not None
    return beside or _STORED.fullmatch(text.text) is not None or _UUID.fullmatch(text.text) is not None


def _written(value: object) -> bytes:
    return msgspec.json.encode(value)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _with_concepts(value: object, body: bytes, judgement: Judgement, wanted: Collection[Modality]) -> bytes:
    """Fill `has_nsfw_concepts` beside `images`, as fal's own models do, where pictures were judged."""
    answer = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    images = answer.get("images")
    if Modality.IMAGE not in wanted or not isinstance(images, list):
        return body
    flagged = {check.where for check in judgement.checks if check.action is not Action.ALLOW}
    count = len(cast("list[object]", images))
    concepts = [any(where.startswith(f"images[{place}]") for where in flagged) for place in range(count)]
    if "has_nsfw_concepts" in answer:  # what the model says itself stays, but for a picture that the guard flagged
        said = answer["has_nsfw_concepts"]
        own = [word is True for word in cast("list[object]", said)] if isinstance(said, list) else []
        if not any(concepts):
            return body
        concepts = [ours or (place < len(own) and own[place]) for place, ours in enumerate(concepts)]
    return _written({**answer, "has_nsfw_concepts": concepts})


def _heard(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what headers say, where it is more than a word."""
    return {f"headers.{name}": text for name, text in headers.items() if not _PLAIN_HEADER.fullmatch(text)}


def plain_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that say no more than a word: those of a stream leave before anything is judged."""
    kept = {name: text for name, text in headers.items() if _PLAIN_HEADER.fullmatch(text)}
    return {**kept, **{name: headers[name] for name in headers if name in {"content-type", AUTH_HEADER.lower()}}}


def echoes(body: bytes) -> frozenset[str]:
    """Return the strings of an input: what an answer repeats of them was judged when it came in."""
    try:
        return frozenset(leaf.text for leaf in leaves_of(_parsed(body)) if leaf.text)
    except TooMuch:
        return frozenset()
