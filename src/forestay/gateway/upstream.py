"""The one HTTP client towards workers and models: time-outs, limits of connections, mutual proof.

Two ways to a replica: through its worker (`/direct/{replica}`, both sides prove themselves) or, where the worker has
leased slots to this gateway, straight to the model's own server. Failures become values in fal's words. Decides no
retries. Called by the direct lane, realtime and the slot leases.
"""

import asyncio
import functools
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from forestay.errors import Unavailable
from forestay.gateway.connections import (
    CONNECT_SECONDS,
    BrokenOff,
    CallError,
    Connections,
    ConnectRefused,
    ConnectTimedOut,
    Disconnected,
    Response,
    origin_of,
)
from forestay.gateway.fleet_view import LiveReplica
from forestay.gateway.ports import GatewayPorts
from forestay.handshake import (
    AUTH_HEADER,
    KEY_HEADER,
    LIFETIME_HEADER,
    POLICY_HEADER,
    PREDICTED_HEADER,
    RISK_HEADER,
    STORE_HEADER,
    TENANT_HEADER,
    new_nonce,
    reply_holds,
    sign_call,
)
from forestay.queue.model import ErrorType
from forestay.values import hot_value

SLOTS_SECONDS = 2.0
CANCEL_SECONDS = 2.0
MAX_SOCKETS = 4_096
MAX_SOCKETS_PER_HOST = 1_024
BUSY_HEADER = "x-forestay-busy"
GONE_HEADER = "x-forestay-gone"  # the worker runs no such replica any more
MAX_FRAME = 64 * 1024 * 1024
_OURS = frozenset(
    {TENANT_HEADER, KEY_HEADER, STORE_HEADER, PREDICTED_HEADER, LIFETIME_HEADER, POLICY_HEADER, RISK_HEADER}
)
_PROOF = AUTH_HEADER.lower()
_PATH_SAFE = "/~!$&'()*+,;=:@-._%"


@hot_value
class Call:
    """What is asked of a model."""

    method: str
    endpoint: str
    query: str
    headers: Mapping[str, str]
    body: bytes


class Failed(Exception):
    """The replica did not answer; `kind` is fal's word. `untouched`: the model cannot have seen the call."""

    def __init__(self, kind: ErrorType, detail: str, *, untouched: bool = False) -> None:
        super().__init__(detail)
        self.kind = kind
        self.untouched = untouched


class Busy(Exception):
    """The worker has no free slot for the call."""


class Need(msgspec.Struct, frozen=True):
    """What is asked of a worker for one replica; `returned` slots of the block are used no more."""

    slots: int
    seconds: float
    awaited: int = 0  # calls that run or wait here
    returned: int = 0


class Granted(msgspec.Struct, frozen=True):
    """A block of slots; `recalled` of them go back as soon as each has served one more call."""

    granted: int
    seconds: float
    recalled: int = 0


class Upstream:
    """The client of one gateway."""

    def __init__(self, ports: GatewayPorts, gateway_id: str) -> None:
        self._ports = ports
        self._gateway_id = gateway_id
        self._key = ports.settings.secrets.internal_key
        self._connections = Connections()
        self._session: aiohttp.ClientSession | None = None  # for websockets

    async def open(self) -> None:
        """Open what websockets need; on the loop that will use it."""
        connector = aiohttp.TCPConnector(limit=MAX_SOCKETS, limit_per_host=MAX_SOCKETS_PER_HOST)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=None),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )

    async def close(self) -> None:
        """Close every connection."""
        self._connections.close()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, replica: LiveReplica, call: Call) -> Response:
        """Make a call; returns once status and headers are there, to be used in `async with`.

        Raises Failed, or Busy from a worker. Errors while the body is read are the caller's to map (`failure_of`).
        """
        direct = replica.report.direct_url
        path = _path(call.endpoint)
        if direct is not None:
            return await self._send(call, direct, path, _without_ours(call.headers))
        path = f"/direct/{replica.report.replica_id}{path}"
        headers, nonce = self._proof(call.method, path, call.headers)
        response = await self._send(call, replica.address, path, headers)
        try:
            self._judge(response.head.get(_PROOF), nonce)
        except Failed:
            response.release()
            raise
        if response.status == 429 and response.head.get(BUSY_HEADER) is not None:
            response.release()
            raise Busy
        if response.status == 404 and response.head.get(GONE_HEADER) is not None:
            response.release()
            raise _gone()
        return response

    @asynccontextmanager
    async def websocket(
        self, replica: LiveReplica, endpoint: str, query: str, headers: Mapping[str, str]
    ) -> AsyncGenerator[aiohttp.ClientWebSocketResponse]:
        """Open a websocket to the model; raises Failed, or Busy from a worker."""
        direct, path = replica.report.direct_url, quote(endpoint, safe=_PATH_SAFE)
        sent, base, nonce = _without_ours(headers), (direct or "").rstrip("/"), ""
        if direct is None:
            path, base = f"/direct/{replica.report.replica_id}{path}", replica.address
            sent, nonce = self._proof("GET", path, headers)
        url = URL(f"{base}{path}{'?' if query else ''}{query}", encoded=True)
        opening = self._open_session().ws_connect(url, headers=sent, max_msg_size=MAX_FRAME, compress=0)
        try:
            async with asyncio.timeout(CONNECT_SECONDS * 2):
                socket = await opening
        except aiohttp.WSServerHandshakeError as error:
            if error.status == 429:
                raise Busy from None
            if error.status == 404 and error.headers is not None and GONE_HEADER in error.headers:
                raise _gone() from None
            raise Failed(ErrorType.RUNNER_CONNECTION_REFUSED, f"the model answered {error.status}") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise failure_of(error) from None
        async with socket:
            if direct is None:
                # aiohttp shows a handshake's headers nowhere else
                response = socket._response  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
                self._judge(response.headers.get(AUTH_HEADER), nonce)
            yield socket

    async def lease_slots(self, replica: LiveReplica, need: Need) -> Granted:
        """Ask the worker for a block of slots; none gives it back."""
        path = f"/slots/{replica.report.replica_id}"
        body = msgspec.json.encode({"gateway": self._gateway_id, **msgspec.structs.asdict(need)})
        headers, nonce = self._proof("POST", path, {"content-type": "application/json"})
        call = Call("POST", path, "", headers, body)
        try:
            async with (
                asyncio.timeout(SLOTS_SECONDS),
                await self._send(call, replica.address, path, headers) as response,
            ):
                self._judge(response.head.get(_PROOF), nonce)
                return msgspec.json.decode(await response.read(), type=Granted)
        except msgspec.MsgspecError:
            return Granted(0, 0.0)
        except CallError as error:
            raise failure_of(error) from None

    async def cancel(self, replica: LiveReplica, endpoint: str, request_id: str) -> None:
        """Tell a model, whose server we speak to ourselves, that the caller left; it may not listen."""
        path = f"{endpoint.rstrip('/')}/cancel"
        call = Call("POST", path, "", {"x-fal-request-id": request_id, "content-type": "application/json"}, b"{}")
        async with asyncio.timeout(CANCEL_SECONDS), await self.call(replica, call) as response:
            await response.read()

    async def _send(self, call: Call, base: str, path: str, headers: Mapping[str, str]) -> Response:
        target = f"{path}?{call.query}" if call.query else path
        try:
            return await self._connections.call(call.method, origin_of(base), target, headers, call.body)
        except CallError as error:
            raise failure_of(error) from None

    def _proof(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[dict[str, str], str]:
        nonce = new_nonce(self._ports.chance)
        now = self._ports.clock.now().timestamp()
        value = sign_call(self._key, method=method, path=path, now_seconds=now, nonce=nonce)
        return {**headers, AUTH_HEADER: value}, nonce

    def _judge(self, proof: str | None, nonce: str) -> None:
        """Drop a reply without proof: whoever gave it is not our worker."""
        if not reply_holds(self._key, nonce, proof):
            raise Failed(ErrorType.RUNNER_CONNECTION_ERROR, "the worker did not prove itself")

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise Unavailable("the gateway is not running")
        return self._session


def _without_ours(headers: Mapping[str, str]) -> dict[str, str]:
    """Keep what is meant for workers from servers that are not ours."""
    return {name: value for name, value in headers.items() if name not in _OURS}


@functools.lru_cache(maxsize=1024)
def _path(endpoint: str) -> str:
    return quote(endpoint, safe=_PATH_SAFE)


def _gone() -> Failed:
    """A replica that ended while the view of the fleet was a moment old: another one takes the call."""
    return Failed(ErrorType.RUNNER_CONNECTION_REFUSED, "the worker runs this replica no more", untouched=True)


def failure_of(error: Exception) -> Failed:
    """Say in fal's words how a connection failed."""
    match error:
        case aiohttp.ConnectionTimeoutError() | ConnectTimedOut():
            return Failed(
                ErrorType.RUNNER_CONNECTION_TIMEOUT, "the model did not accept the connection", untouched=True
            )
        case TimeoutError():
            return Failed(ErrorType.REQUEST_TIMEOUT, "the model did not answer in time")
        case aiohttp.ClientConnectorError() | ConnectRefused():
            return Failed(ErrorType.RUNNER_CONNECTION_REFUSED, "the model refused the connection", untouched=True)
        case BrokenOff():
            return Failed(ErrorType.RUNNER_INCOMPLETE_RESPONSE, "the model's answer broke off")
        case aiohttp.ServerDisconnectedError() | Disconnected() | ConnectionError():
            return Failed(ErrorType.RUNNER_DISCONNECTED, "the model closed the connection")
        case _:
            return Failed(ErrorType.RUNNER_CONNECTION_ERROR, "the connection to the model failed")
