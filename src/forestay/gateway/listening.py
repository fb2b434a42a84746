"""Hearing wake-ups: the fleet changed, requests changed, a limit changed. What is not heard is found by the polls.

Called by `asgi`, which runs it as a loop.
"""

import uuid
from collections.abc import Iterator

from forestay.gateway.board import StatusBoard
from forestay.gateway.fleet_view import FleetView
from forestay.gateway.ports import GatewayPorts
from forestay.ids import RequestId
from forestay.limits.view import RulesView

FLEET = "forestay:fleet"
CHANGED = "forestay:changed"
LIMITS = "forestay:limits"
_ID_DIGITS = 32


class Listener:
    """Passes wake-ups on to the view of the fleet and the status board."""

    def __init__(self, ports: GatewayPorts, fleet: FleetView, board: StatusBoard, rules: RulesView) -> None:
        self._ports = ports
        self._fleet = fleet
        self._board = board
        self._rules = rules

    async def run(self) -> None:
        """Listen for ever."""
        async with self._ports.wakeups.subscribe(FLEET, CHANGED, LIMITS) as messages:
            async for channel, message in messages:
                if channel == FLEET:
                    self._fleet.wake()
                elif channel == LIMITS:
                    self._rules.wake()
                else:
                    self._board.changed(read_ids(message))


def read_ids(message: str) -> Iterator[RequestId]:
    """Read request ids in hex, space-separated; anything else in the message is passed over."""
    for text in message.split():
        if len(text) == _ID_DIGITS:
            try:
                yield RequestId(uuid.UUID(hex=text))
            except ValueError:
                continue
