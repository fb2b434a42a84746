"""What a webhook says about a finished request: fal's body, built from the stored result. Pure.

`{request_id, gateway_request_id, status: OK|ERROR, payload, error?, payload_error?}` (contract, section 2.6). A request
keeps one id through all its attempts here, so both ids are that one. Called by `webhooks`.
"""

import msgspec

from forestay.media.urls import rewrite_media_urls
from forestay.queue.model import State
from forestay.queue.store import Stored


class _Body(msgspec.Struct, omit_defaults=True):
    request_id: str
    gateway_request_id: str
    status: str
    payload: msgspec.Raw
    error: str = ""
    payload_error: str = ""


_NULL = msgspec.Raw(b"null")


def webhook_body(stored: Stored, media_base: str) -> bytes:
    """Return the JSON body; the model's own JSON is passed on byte for byte, with media URLs under `media_base`."""
    answer = stored.answer
    request_id = str(stored.snapshot.request_id)
    failed = stored.snapshot.state is not State.SUCCEEDED or not 200 <= answer.status_code < 300
    payload_error = _unfit_for_json(answer.body)
    payload = _NULL if payload_error else msgspec.Raw(rewrite_media_urls(answer.body, media_base))
    return msgspec.json.encode(
        _Body(
            request_id=request_id,
            gateway_request_id=request_id,
            status="ERROR" if failed else "OK",
            payload=payload,
            error=f"Invalid status code: {answer.status_code}" if failed else "",  # fal's words; why is in the payload
            payload_error=payload_error,
        )
    )


def _unfit_for_json(body: bytes) -> str:
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "The result is not valid JSON"
    return ""
