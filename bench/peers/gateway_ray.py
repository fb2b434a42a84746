"""Ray Serve with one deployment that passes calls on, run by its own environment: `gateway_ray.py BACKEND PORT`."""

import signal
import sys
import threading

import aiohttp
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 0.1})
class Proxy:
    """One replica, as ours is one gateway process."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, request: Request) -> Response:
        """Pass the call on."""
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1000))
        async with self._session.post(self._backend, data=await request.body()) as response:
            return Response(await response.read(), response.status, media_type="application/json")


def main() -> None:
    """Serve until SIGTERM."""
    backend, port = sys.argv[1], int(sys.argv[2])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Proxy.bind(backend), route_prefix="/run/bench/echo")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
    ray.shutdown()


if __name__ == "__main__":
    main()
