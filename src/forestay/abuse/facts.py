"""Call facts as calls: how what is stored becomes what the signals see. Pure; called by the loop and by replay."""

from forestay.abuse.calls import Call, category_of
from forestay.telemetry.call_facts import CallFact

_TWO_64 = 1 << 64


def call_of(fact: CallFact) -> Call:
    """Return the call that a fact is about."""
    return Call(
        id=str(fact.call_id),
        at=fact.at.timestamp(),
        tenant=fact.tenant_id,
        key=fact.key_id,
        model=fact.model_id,
        lane=fact.lane,
        verb=fact.verb,
        network=fact.network,
        agent=fact.agent,
        accepted=fact.accepted,
        cause=fact.cause,
        category=category_of(fact.cause),
        seconds=fact.predicted_seconds,
        prompt=None if fact.prompt is None else fact.prompt % _TWO_64,
        raw=fact.raw,
        meaning=fact.meaning,
        shape=fact.shape,
        claimed=fact.claimed,
        tried=fact.tried,
    )
