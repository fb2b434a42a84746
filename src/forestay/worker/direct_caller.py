"""What a gateway tells a worker of a direct call beside the call itself: whose it is, and what its caller chose.

It decides what an old or silent gateway means: the worst risk, and nothing may be kept. Pure. Called by `direct`.
"""

from collections.abc import Mapping

from forestay.handshake import (
    KEY_HEADER,
    LIFETIME_HEADER,
    POLICY_HEADER,
    PREDICTED_HEADER,
    RISK_HEADER,
    STORE_HEADER,
    TENANT_HEADER,
)
from forestay.ids import KeyId, RequestId, TenantId
from forestay.queue.model import Options
from forestay.worker.replica import DIRECT_ATTEMPT, Running

NOT_FOR_MODELS = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "upgrade", "authorization", "cookie", "te", "trailer"}
)
_OF_THIS_CALL = frozenset(
    {"x-fal-request-id", "x-fal-endpoint", "traceparent", "accept", "accept-encoding", "content-type", "user-agent"}
)


def running_of(headers: Mapping[str, str], request_id: RequestId, endpoint: str) -> Running:
    """Return a direct call as its replica runs it; `headers` have lower-case names, `endpoint` has no query."""
    lifetime, policy, risk = headers.get(LIFETIME_HEADER, ""), headers.get(POLICY_HEADER), _risk(headers)
    lifetime_seconds = int(lifetime) if lifetime.isascii() and lifetime.isdigit() else None
    options = Options(
        store_io=headers.get(STORE_HEADER) == "1",
        object_lifetime_seconds=lifetime_seconds,
        upload_policy=policy,
        forward_headers=_forwarded(headers),
        risk=risk,
    )
    return Running(
        request_id=request_id,
        attempt=DIRECT_ATTEMPT,
        tenant_id=TenantId(headers.get(TENANT_HEADER, "")),
        object_lifetime_seconds=lifetime_seconds,
        upload_policy=policy,
        risk=risk,
        key_id=KeyId(headers.get(KEY_HEADER, "")),
        endpoint=endpoint,
        options=options,
        predicted_seconds=_seconds(headers.get(PREDICTED_HEADER)),
    )


def _risk(headers: Mapping[str, str]) -> float:
    """Read what a gateway says of the prompt; what it does not say is the worst."""
    text = headers.get(RISK_HEADER)
    try:
        return min(1.0, max(0.0, float(text))) if text is not None else 1.0
    except ValueError:
        return 1.0


def _seconds(text: str | None) -> float:
    """Read a prediction in device-seconds; 1 where there is none, as for a submission."""
    try:
        seconds = float(text or "1")
    except ValueError:
        return 1.0
    return seconds if 0.0 < seconds < float("inf") else 1.0


def _forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what the caller had forwarded to the model: neither the connection's own nor what this call names."""
    not_theirs = NOT_FOR_MODELS | _OF_THIS_CALL
    return {
        name: value
        for name, value in headers.items()
        if name not in not_theirs and not name.startswith(("x-forestay-", "sec-websocket-"))
    }
