"""A webhook receiver in a thread of the test process."""

import http.server
import threading
import time
from typing import Self

from forestay.demo.receiver import Delivery

WAIT_SECONDS = 30.0


class HookReceiver:
    """Listens on a free port of loopback and keeps what arrives."""

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self._deliveries: list[Delivery] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                receiver.keep(
                    Delivery(
                        request_id=self.headers.get("X-Fal-Webhook-Request-Id", ""),
                        user_id=self.headers.get("X-Fal-Webhook-User-Id", ""),
                        timestamp=self.headers.get("X-Fal-Webhook-Timestamp", ""),
                        signature=self.headers.get("X-Fal-Webhook-Signature", ""),
                        body=body,
                        arrived_at=time.time(),
                    )
                )
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where webhooks go."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def keep(self, delivery: Delivery) -> None:
        """Keep a delivery and wake whoever waits."""
        with self._arrived:
            self._deliveries.append(delivery)
            self._arrived.notify_all()

    def wait_for(self, request_ids: set[str]) -> dict[str, Delivery]:
        """Return the latest delivery of each request, waiting until all have one."""

        def told() -> dict[str, Delivery]:
            return {one.request_id: one for one in self._deliveries if one.request_id in request_ids}

        with self._arrived:
            complete = self._arrived.wait_for(lambda: told().keys() == request_ids, WAIT_SECONDS)
            assert complete, f"no webhook for {request_ids - told().keys()} within {WAIT_SECONDS} s"
            return told()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
