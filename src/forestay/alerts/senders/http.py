"""Notifications over HTTP: one POST with a time-out, no redirects, nothing kept. For webhooks and Alertmanager.

An operator names these addresses, so loopback and private networks are allowed; link-local ones, where clouds keep
their metadata services, are not (`media/targets`).
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import aiohttp
import yarl

from forestay.clock import Clock
from forestay.delivery.decide import Broken, Impossible, Outcome, Responded
from forestay.delivery.webhooks import retry_after_seconds
from forestay.errors import ForestayError
from forestay.media.fetch import Network, TargetRefused, guarded_session
from forestay.media.targets import read_target

_CONNECT_SECONDS = 5.0


class Poster:
    """Posts bodies within a time-out."""

    def __init__(self, session: aiohttp.ClientSession, clock: Clock, timeout_seconds: float) -> None:
        self._session = session
        self._clock = clock
        self._timeout_seconds = timeout_seconds

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """Send one body; the outcome names the kind of a failure, never the address."""
        target = read_target(url, allow_private=True)
        if isinstance(target, str):
            return Impossible(f"refused: {target}")
        sent = {"Content-Type": "application/json", **headers}
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._session.post(
                    yarl.URL(target.url, encoded=True), data=body, headers=sent, allow_redirects=False
                ) as response,
            ):
                said = response.headers.get("Retry-After", "")
                return Responded(response.status, retry_after_seconds(said, self._clock.now()))
        except TimeoutError:
            return Broken(f"no answer within {self._timeout_seconds:g} s")
        except (TargetRefused, aiohttp.InvalidURL):
            return Impossible("refused: the address may not be called")
        except (aiohttp.ClientError, OSError, ForestayError) as error:
            return Broken(f"no connection ({type(error).__name__})")


@asynccontextmanager
async def poster(clock: Clock, timeout_seconds: float, network: Network | None = None) -> AsyncGenerator[Poster]:
    """Open what posts, for as long as the block runs."""
    async with guarded_session(
        network or Network(), allow_private=True, connect_seconds=_CONNECT_SECONDS, limit=32
    ) as session:
        yield Poster(session, clock, timeout_seconds)
