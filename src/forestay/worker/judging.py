"""Judges what a model gives out before anybody can have it: answers, pieces of streams, frames.

Every road takes the same way: the leaves of an answer, each opened where it is media (a file of ours, a data: URI, a
link of a provider: fetched, and from then on ours, so that what is read later is what was judged), then the guard. What
cannot be opened is a place without a look, which the policy answers. It decides no content; `safety/decide` does.
Called by `attempt` through `output_check` and by `direct`.
"""

import dataclasses
import hashlib
import re
from collections.abc import Collection, Sequence
from typing import cast

import msgspec

from forestay.ids import RequestId
from forestay.media.urls import SCHEME, stored_ids
from forestay.safety.decide import NOTHING_TO_JUDGE, Judgement, Place
from forestay.safety.guard import Item, Subject
from forestay.safety.leaves import Leaf, LeafKind, TooMuch, leaves_of, parsed, replaced
from forestay.safety.model import Text
from forestay.safety.policy import Action
from forestay.safety.provenance.stamp import Wishes
from forestay.safety.taxonomy import Modality
from forestay.safety.text.fields import texts_of
from forestay.worker.opening import MEDIA, JudgingPorts, Opening, Work

_LABELS = frozenset({"file_name", "content_type"})
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclasses.dataclass(frozen=True, slots=True)
class Ruled:
    """A judged answer: its body as it may leave, and the stored files that it names."""

    judgement: Judgement
    body: bytes
    media_ids: tuple[str, ...] = ()

    @property
    def released(self) -> bool:
        """Tell whether it may leave."""
        return self.judgement.releases


class OutputJudge:
    """Judges outputs of one worker."""

    def __init__(self, ports: JudgingPorts) -> None:
        self._ports = ports
        self._opening = Opening(ports)

    def guards(self, policy_id: str, request_id: RequestId) -> bool:
        """Tell whether anything of this request is to be judged."""
        return self._ports.guard.guards(policy_id, request_id)

    def streams(self, subject: Subject) -> str:
        """Return what becomes of pieces and frames of this request: judge, withhold or pass."""
        return self._ports.guard.streams(subject.policy_id, subject.request_id)

    async def judge(
        self,
        subject: Subject,
        body: bytes,
        content_type: str,
        *,
        said: Collection[str] = (),
        lifetime_seconds: int | None = None,
        prompt_score: float = 0.0,
    ) -> Ruled:
        """Judge a whole answer; `said` are strings of the caller's own input, which an echo of is nobody's output.

        `prompt_score` is the highest score of the input: the higher, the more of a film is looked at.
        """
        work = self._begin(subject, body, lifetime_seconds, prompt_score)
        value = _parsed(body) if "json" in content_type or not content_type else None
        if value is None:
            await self._take_file(work, body, content_type)
            return Ruled(await self._ruled(work), body, ())
        await self._take(work, value, said)
        judgement = await self._ruled(work)
        if work.adopted:
            value = replaced(value, work.adopted)
            body = _written(value)
        body = _with_concepts(value, body, judgement, work.wanted)
        return await self._stamped(subject, Ruled(judgement, body, tuple(stored_ids(body))))

    async def _stamped(self, subject: Subject, ruled: Ruled) -> Ruled:
        """Give the files of an allowed answer what its policy asks for, with a record of what they are now."""
        asked = self._ports.guard.provenance(subject.policy_id, subject.request_id)
        if self._ports.stamping is None or not (asked and ruled.released and ruled.media_ids):
            return ruled
        wishes = Wishes("manifest" in asked, "watermark" in asked, "fingerprint" in asked)
        body, digests = await self._ports.stamping.apply(subject, ruled.body, ruled.media_ids, wishes)
        judgement = ruled.judgement
        if digests:
            judgement = await self._ports.guard.note(subject, judgement, [_digest(body), *digests])
        return Ruled(judgement, body, tuple(stored_ids(body)))

    async def judge_value(self, subject: Subject, value: object, raw: bytes) -> Ruled:
        """Judge one piece of a stream or a frame, already parsed; it leaves as it came or not at all."""
        work = self._begin(subject, raw, None, 1.0)
        await self._take(work, value, ())
        return Ruled(await self._ruled(work), raw, tuple(stored_ids(raw)))

    async def release(self, media_ids: Sequence[str]) -> None:
        """Let files of an allowed answer be read; raises Unavailable."""
        if media_ids:
            await self._ports.media.release(media_ids)

    def _begin(self, subject: Subject, body: bytes, lifetime_seconds: int | None, prompt_score: float) -> Work:
        wanted = self._ports.guard.modalities(subject.policy_id, subject.request_id)
        work = Work(subject, wanted, lifetime_seconds, prompt_score)
        work.digests.append(_digest(body))
        return work

    async def _ruled(self, work: Work) -> Judgement:
        if not work.items and not work.wanted:
            return NOTHING_TO_JUDGE
        return await self._ports.guard.judge(work.subject, work.items, work.digests)

    async def _take(self, work: Work, value: object, said: Collection[str]) -> None:
        """Open every leaf, a few at a time."""
        try:
            leaves = [leaf for leaf in leaves_of(value) if not leaf.text or leaf.text not in said]
        except TooMuch:
            work.unreadable("body")
            work.items += [Item(Place("body", Modality.TEXT), ())] if Modality.TEXT in work.wanted else []
            return
        if Modality.TEXT in work.wanted:
            found = texts_of(value)
            fresh = [text for text in found.texts if text.text not in said and not _is_label(text)]
            work.items += [Item(Place(text.where, Modality.TEXT), (text,)) for text in fresh]
            work.items += [Item(Place(place.where, Modality.TEXT), ()) for place in found.unread]
        files = [leaf for leaf in leaves if leaf.kind is not LeafKind.TEXT]
        if not work.wanted & MEDIA or not files:
            return
        await self._opening.take(work, files)

    async def _take_file(self, work: Work, body: bytes, content_type: str) -> None:
        """An answer that is no JSON is one file, or one text."""
        if content_type.startswith("text/"):
            if Modality.TEXT in work.wanted:
                text = Text("body", body.decode("utf-8", "replace"))
                work.items.append(Item(Place("body", Modality.TEXT), (text,)))
            return
        if work.wanted & MEDIA:
            await self._opening.open(work, Leaf((), LeafKind.BYTES, data=body))


def _parsed(body: bytes) -> object:
    """Parse JSON; None when it is none."""
    try:
        return parsed(body)
    except ValueError:
        return None


def _is_label(text: Text) -> bool:
    """Tell whether a text of an output is a file's name, kind or place, or an id: what is written beside media."""
    name = text.where.rpartition(".")[2]
    beside = name in _LABELS and " " not in text.text.strip()
    return beside or text.text.startswith(SCHEME) or _UUID.fullmatch(text.text) is not None


def _written(value: object) -> bytes:
    return msgspec.json.encode(value)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _with_concepts(value: object, body: bytes, judgement: Judgement, wanted: Collection[Modality]) -> bytes:
    """Fill `has_nsfw_concepts` beside `images`, as fal's own models do, where pictures were judged."""
    answer = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    images = answer.get("images")
    if Modality.IMAGE not in wanted or not isinstance(images, list) or "has_nsfw_concepts" in answer:
        return body
    flagged = {check.where for check in judgement.checks if check.action is not Action.ALLOW}
    count = len(cast("list[object]", images))
    concepts = [any(where.startswith(f"images[{place}]") for where in flagged) for place in range(count)]
    return _written({**answer, "has_nsfw_concepts": concepts})


def echoes(body: bytes) -> frozenset[str]:
    """Return the strings of an input: what an answer repeats of them was judged when it came in."""
    try:
        return frozenset(leaf.text for leaf in leaves_of(_parsed(body)) if leaf.text)
    except TooMuch:
        return frozenset()
