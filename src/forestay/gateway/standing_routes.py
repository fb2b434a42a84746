"""What a caller may ask about its own standing: `GET /standing`, and `POST /standing/appeal` against it.

Open to every proven API key, whatever its standing: someone who is suspended must be able to object. An appeal changes
nothing by itself; a person decides it (`forestay abuse`). Mounted at the root.
"""

import msgspec
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from forestay.errors import UsageError
from forestay.fleet.keys import Caller
from forestay.gateway.admin_reading import plain_text
from forestay.gateway.auth import authenticate
from forestay.gateway.incoming import SenderGone, SenderSlow, read_json
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.protocol import FieldError
from forestay.gateway.responses import Reply, field_errors, json_reply, plain_error
from forestay.gateway.standing import APPEAL_PATH, shown

MAX_WORDS = 2_000


class _Words(msgspec.Struct, forbid_unknown_fields=True):
    words: str


def routes(ports: GatewayPorts) -> list[BaseRoute]:
    """Return the caller's own routes about its standing."""

    async def standing(request: Request) -> Reply:
        caller = await authenticate(request.scope, ports)
        if isinstance(caller, Reply):
            return caller
        found = ports.standings.of(caller)
        return json_reply(200, {"standing": None if found is None else shown(found)})

    async def appeal(request: Request) -> Reply:
        caller = await authenticate(request.scope, ports)
        if isinstance(caller, Reply):
            return caller
        try:
            asked = await read_json(request, _Words, ports.settings.gateway.body_timeout_seconds)
            words = plain_text("words", asked.words, MAX_WORDS, empty=False)
        except UsageError as error:
            place: list[str | int] = ["body"] if error.field == "body" else ["body", error.field]
            return field_errors([FieldError(loc=place, msg=error.message, type="value_error")])
        except (SenderSlow, SenderGone) as error:
            return plain_error(408, str(error), "slow_body")
        return await _appeal(ports, caller, words)

    return [Route("/standing", standing, methods=["GET"]), Route(APPEAL_PATH, appeal, methods=["POST"])]


async def _appeal(ports: GatewayPorts, caller: Caller, words: str) -> Reply:
    found = ports.standings.of(caller)
    made = None
    if found is not None:
        made = await ports.standing_store.appeal(found.standing_id, words, actor=f"caller:{caller.key_id}")
    if made is None:
        return plain_error(404, "This key has no standing to object to", "no_standing")
    return json_reply(201, {"appeal_id": made.appeal_id, "standing_id": made.standing_id, "state": made.state})
