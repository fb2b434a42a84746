"""Chat, mail and telephones by the package apprise (BSD-2-Clause), imported when the first such message is sent.

Most of these services honour no id: a message may arrive twice after a crash, and carries its id so that people see it.
What apprise logs is not ours and may name addresses: its loggers are shut.
"""

import asyncio
import importlib
import importlib.util
import logging
from collections.abc import Awaitable
from typing import Protocol, cast

from forestay.alerts.body import plain_text, read_body
from forestay.alerts.receivers import Receiver
from forestay.alerts.store import Message
from forestay.delivery.decide import Broken, Impossible, Outcome, Responded

_TYPES = {"page": "failure", "ticket": "warning", "info": "info"}


class _Apprise(Protocol):
    def add(self, servers: str) -> bool: ...
    def async_notify(self, *, body: str, title: str, notify_type: str) -> Awaitable[bool | None]: ...


def has_apprise() -> bool:
    """Tell whether the package is installed."""
    return importlib.util.find_spec("apprise") is not None


class AppriseSender:
    """Sends plain words."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds

    async def send(self, message: Message, receiver: Receiver) -> Outcome:
        """Send one notification."""
        if not has_apprise():
            return Impossible("the extra `notify` is not installed: install forestay[notify]")
        service = _service()
        if not service.add(receiver.url):
            return Impossible("apprise does not know this kind of address; `python -m apprise -l` lists those it knows")
        body = read_body(message.body)
        kind = _TYPES[body.severity] if body.status == "firing" else "success"
        try:
            async with asyncio.timeout(self._timeout_seconds):
                sent = await service.async_notify(body=plain_text(body), title=body.title, notify_type=kind)
        except TimeoutError:
            return Broken(f"no answer within {self._timeout_seconds:g} s")
        except Exception as error:  # noqa: BLE001 - a hundred services, each with errors of its own
            return Broken(f"apprise failed ({type(error).__name__})")
        return Responded(200) if sent else Broken("the service did not take the message")


def _service() -> _Apprise:
    logging.getLogger("apprise").disabled = True
    return cast("_Apprise", importlib.import_module("apprise").Apprise())
