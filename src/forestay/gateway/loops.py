"""Keeping a gateway's background loops alive: an error is logged and counted, then the loop runs again.

A gateway serves from memory that its loops refresh; one that died in silence would serve old truth. Decides only the
pause. Called by `asgi` when the gateway starts.
"""

from collections.abc import Awaitable, Callable

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import LOOP_FAILURES, Metrics

_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 5.0
_CALM_SECONDS = 30.0
_LOG = logger("gateway")


async def keep_running(name: str, loop: Callable[[], Awaitable[None]], clock: Clock, metrics: Metrics) -> None:
    """Run `loop` for ever; between failures wait 0.2 s, doubling to 5 s, forgotten after 30 s without one."""
    pause = _PAUSE_SECONDS
    while True:
        started = clock.monotonic()
        try:
            await loop()
        except Unavailable as error:
            metrics.add(LOOP_FAILURES, name)
            _LOG.warning("gateway.loop_waits", loop=name, reason=str(error))
        except Exception:  # noqa: BLE001 - logged and counted; a defect in one loop stops no gateway
            metrics.add(LOOP_FAILURES, name)
            _LOG.exception("gateway.loop_failed", loop=name)
        if clock.monotonic() - started > _CALM_SECONDS:
            pause = _PAUSE_SECONDS
        await clock.sleep(pause)
        pause = min(pause * 2, _MAX_PAUSE_SECONDS)
