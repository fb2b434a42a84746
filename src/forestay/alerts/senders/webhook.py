"""Signed webhooks: the body as it was decided, under the signature family of the platform's other webhooks.

`X-Fal-Webhook-*` as `delivery/signing` makes them (request id: the notification's; user id: the receiver's name), and
the id once more as `Idempotency-Key`. Public keys: `/rest/.well-known/jwks.json`.
"""

from forestay.alerts.receivers import Receiver
from forestay.alerts.senders.http import Poster
from forestay.alerts.store import Message
from forestay.clock import Clock
from forestay.delivery.decide import Outcome
from forestay.delivery.signing import Signed, SigningKeys


class WebhookSender:
    """Sends signed JSON."""

    def __init__(self, poster: Poster, keys: SigningKeys, clock: Clock) -> None:
        self._poster = poster
        self._keys = keys
        self._clock = clock

    async def send(self, message: Message, receiver: Receiver) -> Outcome:
        """Send one notification."""
        body = message.body.encode()
        signed = Signed(message.notification_id, receiver.name, int(self._clock.now().timestamp()), body)
        headers = {
            **self._keys.headers(signed),
            "Idempotency-Key": message.notification_id,
            "User-Agent": "forestay-alerts",
        }
        return await self._poster.post(receiver.url, body, headers)
