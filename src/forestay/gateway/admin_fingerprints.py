"""Admin route of fingerprints: what the outputs of a request, or of a model, were made with. It decides nothing."""

import datetime as dt
import uuid

import msgspec

from forestay.errors import UsageError
from forestay.gateway.admin_reading import Act, NotThere, plain_text
from forestay.gateway.responses import Reply, json_reply
from forestay.ids import parse_request_id
from forestay.telemetry.output_facts import FingerprintRow

_MOST = 500


async def get_fingerprints(act: Act) -> Reply:
    """List fingerprints: of one request with `request`, or of a model with `model`, the newest first."""
    outputs = act.ports.admin.outputs
    model, request = act.query("model") or "", act.query("request") or ""
    if bool(model) == bool(request):
        raise UsageError("model", "name either a model or a request")
    if model:
        rows = await outputs.fingerprints(plain_text("model", model), act.limit(20, _MOST))
    else:
        rows = await outputs.fingerprints_of(*_made(request))
        if not rows:
            raise NotThere(
                f"no fingerprint of request {request[:60]!r}: no pipeline of it was watched, or it is too old"
            )
    return json_reply(200, {"fingerprints": [_shown(row) for row in rows]})


def _made(request: str) -> tuple[uuid.UUID, dt.datetime]:
    """Return a request's id, and the moment that it holds."""
    found = parse_request_id(request)
    if found is None:
        raise NotThere(f"no request {request[:60]!r}")
    value = uuid.UUID(str(found))
    return value, dt.datetime.fromtimestamp((value.int >> 80) / 1000, dt.UTC)


def _shown(row: FingerprintRow) -> dict[str, object]:
    return {**msgspec.to_builtins(row), "described": msgspec.json.decode(row.described)}
