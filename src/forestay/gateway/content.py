"""The text of an input, judged after admission and before anything is queued or called.

Every string of the body is judged, whatever its field. What the policy blocks is a 422 that names category and field;
what nobody could judge is a 503 that says when to try again, because it says nothing about the content. It decides no
content: `safety/decide` does. Called by the queue's submit and the direct lane.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec

from forestay.fleet.spec import UNGUARDED
from forestay.gateway.exchange import Exchange
from forestay.gateway.guards import Target
from forestay.gateway.responses import Reply, reply_of, unavailable
from forestay.queue.model import Answer
from forestay.safety.decide import Judgement, Place
from forestay.safety.guard import Item, Subject
from forestay.safety.leaves import parsed
from forestay.safety.model import Text
from forestay.safety.policy import Action, Policy
from forestay.safety.records import Point
from forestay.safety.refusal import refusal
from forestay.safety.taxonomy import Modality
from forestay.safety.text.blobs import sentence_in
from forestay.safety.text.fields import texts_of
from forestay.safety.text.rewriting import Change, rewrite, rules_of
from forestay.telemetry.call_facts import CONTENT_THROTTLED

if TYPE_CHECKING:
    from forestay.safety.guard import Guard

RETRY_SECONDS = 5.0
MAX_HEADER, MAX_FIELDS = 2_000, 20
REWRITTEN_HEADER = b"x-forestay-rewritten"
UNJUDGED = "content_not_judged"  # the cause, for metrics and facts


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """An input that does not go on; with an answer to keep when it is the content's own fault."""

    reply: Reply
    answer: Answer | None
    judgement: Judgement | None = None  # with an answer


@dataclasses.dataclass(frozen=True, slots=True)
class Rewritten:
    """An input that goes on in other words."""

    body: bytes
    changes: tuple[Change, ...]

    def lines(self) -> list[str]:
        """Return for people what was changed."""
        return [f"{item.where}: {', '.join(item.was)} -> {item.now}" for item in self.changes]

    def header(self) -> tuple[bytes, bytes]:
        """Return for programs what was changed, as JSON; of too many changes the fields alone."""
        said = [{"field": item.where, "was": item.was, "now": item.now} for item in self.changes]
        text = json.dumps(said)
        if len(text) > MAX_HEADER:
            text = json.dumps(sorted({item.where for item in self.changes})[:MAX_FIELDS])
        return REWRITTEN_HEADER, text.encode()[:MAX_HEADER]


class ContentGate:
    """Judges inputs at one gateway."""

    def __init__(self, guard: "Guard | None") -> None:
        self._guard = guard

    async def check(
        self, exchange: Exchange, target: Target, body: bytes, query: str = ""
    ) -> Refused | Rewritten | None:
        """Return None when the input may go on as it is."""
        policy_id, tenant_id = target.revision.spec.safety.policy, target.caller.tenant_id
        if self._guard is None:
            if policy_id == UNGUARDED:
                return None
            return _unjudged(f"no guard runs here, and policy {policy_id} asks for one")
        if Modality.TEXT not in self._guard.modalities(policy_id, tenant_id, target.request_id):
            return None
        subject = Subject(
            request_id=target.request_id,
            attempt=0,
            point=Point.INPUT,
            tenant_id=tenant_id,
            key_id=target.caller.key_id,
            model_id=target.model.model_id,
            revision_id=target.revision.revision_id,
            policy_id=policy_id,
        )
        judgement = await self._guard.judge(subject, items_of(body, query), (), able=frozenset({Action.REWRITE}))
        exchange.fields["verdict"] = judgement.verdict.value
        exchange.risk = judgement.risk
        rewritten: Rewritten | None = None
        if judgement.action is Action.REWRITE:
            rewritten = _rewritten(body, judgement, self._guard.policies_of(subject))
            # Judged once more whatever came of it: what would be rewritten again is blocked now.
            again = body if rewritten is None else rewritten.body
            judgement = await self._guard.judge(subject, items_of(again, query), ())
        if judgement.action is Action.THROTTLE:
            exchange.counted_as = CONTENT_THROTTLED
        if judgement.releases:
            if rewritten is not None:
                exchange.notices = (*exchange.notices, rewritten.header())
            return rewritten
        if judgement.again:
            return _unjudged(judgement.reason)
        answer = refusal(judgement, "body")
        return Refused(reply_of(answer), answer, judgement)

    def must_see(self, target: Target) -> bool:
        """Tell whether a worker must stand between this call and its model, so that it can be judged there."""
        policy_id, tenant_id = target.revision.spec.safety.policy, target.caller.tenant_id
        return self._guard is not None and self._guard.guards(policy_id, tenant_id, target.request_id)


def items_of(body: bytes, query: str = "") -> list[Item]:
    """Return every string of an input as something to judge; what is too much to look at is a place without a look."""
    try:
        found = texts_of(parsed(body)) if body else texts_of(None)
    except ValueError:  # not JSON, or nested too deep
        return [Item(Place("body", Modality.TEXT), ())]
    asked = parse_qsl(query, keep_blank_values=True)
    spelled = (name if " " in name else sentence_in(name) for name, _ in asked)
    named = [Text("query.<key>", said) for said in spelled if said]
    texts = [*found.texts, *(Text(f"query.{name}", value) for name, value in asked if value.strip()), *named]
    items = [Item(Place(text.where, Modality.TEXT), (text,)) for text in texts]
    return items + [Item(Place(place.where, Modality.TEXT), ()) for place in found.unread]


def _rewritten(body: bytes, judgement: Judgement, policies: Sequence[Policy]) -> Rewritten | None:
    """Put a policy's words in the place of what it does not want; None where nothing of it stands there plainly."""
    try:
        value = parsed(body)
    except ValueError:
        return None
    made, changes = rewrite(value, judgement.places_of(Action.REWRITE), rules_of(policies))
    return Rewritten(msgspec.json.encode(made), tuple(changes)) if changes else None


def _unjudged(reason: str) -> Refused:
    reply = unavailable("The content of this request cannot be judged now; try again", RETRY_SECONDS)
    return Refused(dataclasses.replace(reply, cause=UNJUDGED, why=reason), None)
