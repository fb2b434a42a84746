"""The CONNECT proxy: what it tunnels, what it refuses, and that no client can hold it up."""

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from forestay.gateway.connect_proxy import ProxyLimits, ProxyTarget, allowed, serve_connect_proxy
from forestay.telemetry.metrics import CONNECT_TUNNELS, Metrics

NAMES = ("fal.run", "queue.fal.run", "rest.fal.ai", "v3.fal.media")
QUICK = ProxyLimits(head_bytes=500, head_seconds=0.3, connect_seconds=1.0, idle_seconds=5.0, connections=3)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for fal's names, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in NAMES]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = (folder / "cert.pem", folder / "key.pem")
    paths[0].write_bytes(made.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back all that comes, then close."""
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
    except (OSError, ssl.SSLError):
        writer.close()


@asynccontextmanager
async def proxying(target: ProxyTarget, metrics: Metrics) -> AsyncGenerator[int]:
    """Run the proxy."""
    stop = asyncio.Event()
    bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    listener = socket.create_server(("127.0.0.1", 0))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(serve_connect_proxy(listener, target, stop, bound.set_result, metrics, QUICK))
        yield await bound
        stop.set()


async def ask(port: int, head: bytes) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request's head and return the status line of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    await writer.drain()
    return await reader.readline(), reader, writer


@pytest.mark.parametrize("name", NAMES)
async def test_tls_runs_end_to_end_through_a_tunnel(certificate: tuple[Path, Path], name: str) -> None:
    """A real handshake for fal's name ends at our listener; a megabyte comes back whole."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
    trust = ssl.create_default_context(cafile=str(certificate[0]))
    metrics = Metrics()
    async with server, proxying(ProxyTarget("127.0.0.1", server.sockets[0].getsockname()[1]), metrics) as port:
        line, reader, writer = await ask(port, f"CONNECT {name}:443 HTTP/1.1\r\nHost: {name}:443\r\n\r\n".encode())
        assert line == b"HTTP/1.1 200 Connection Established\r\n"
        assert await reader.readline() == b"\r\n"
        await writer.start_tls(trust, server_hostname=name)
        payload = bytes(range(256)) * 4096
        async with asyncio.TaskGroup() as group:
            group.create_task(_write(writer, payload))
            received = group.create_task(reader.readexactly(len(payload)))
        assert received.result() == payload
        writer.close()


async def _write(writer: asyncio.StreamWriter, payload: bytes) -> None:
    writer.write(payload)
    await writer.drain()


async def test_one_side_may_end_while_the_other_still_speaks() -> None:
    """Half-closed: the answer to a finished request still comes."""
    answered = asyncio.Event()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)  # until the client has ended
        answered.set()
        writer.write(b"the answer")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(late, "127.0.0.1", 0)
    metrics = Metrics()
    async with server, proxying(ProxyTarget("127.0.0.1", server.sockets[0].getsockname()[1]), metrics) as port:
        _, reader, writer = await ask(port, b"CONNECT fal.run:443 HTTP/1.1\r\n\r\nquestion")
        await reader.readline()
        writer.write_eof()
        assert await reader.read(-1) == b"the answer"
        assert answered.is_set()
        writer.close()
    assert metrics.value(CONNECT_TUNNELS, "200") == 1


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"CONNECT example.com:443 HTTP/1.1\r\n\r\n", b"403"),
        (b"CONNECT fal.run:80 HTTP/1.1\r\n\r\n", b"403"),
        (b"CONNECT fal.run.example.com:443 HTTP/1.1\r\n\r\n", b"403"),
        (b"CONNECT 127.0.0.1:5432 HTTP/1.1\r\n\r\n", b"403"),
        (b"CONNECT [::1]:443 HTTP/1.1\r\n\r\n", b"403"),
        (b"CONNECT fal.run HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT fal.run:443 HTTP/2\r\n\r\n", b"400"),
        (b"CONNECT  fal.run:443 HTTP/1.1\r\n\r\n", b"400"),
        (b"GET http://169.254.169.254/ HTTP/1.1\r\n\r\n", b"405"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"405"),
        (b"CONNECT fal.run:443 HTTP/1.1\r\nX: " + b"y" * 600 + b"\r\n\r\n", b"431"),
        (b"CONNECT fal.run:443 HTTP/1.1\r\nX: never ends", b"408"),
        (b"CONNECT fal.run:443 HTTP/1.1\r\n\r\n", b"502"),
    ],
)
async def test_everything_else_gets_its_refusal(head: bytes, status: bytes) -> None:
    """Foreign hosts, other ports, other methods, garbage, long or slow heads, and a listener that is down."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed_port = free.getsockname()[1]
    async with proxying(ProxyTarget("127.0.0.1", closed_port), Metrics()) as port:
        line, reader, writer = await ask(port, head)
        assert line.split()[1] == status
        await reader.read(-1)  # the proxy closes
        writer.close()


async def test_connections_over_the_cap_are_turned_away() -> None:
    """Idle clients cannot use the proxy up for ever: the heads' time-out frees their places."""
    async with proxying(ProxyTarget("127.0.0.1", 1), Metrics()) as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        line, _, writer = await ask(port, b"CONNECT example.com:443 HTTP/1.1\r\n\r\n")
        assert line.split()[1] == b"503"
        for reader, _ in idle:
            assert (await reader.readline()).split()[1] == b"408"
            await reader.read(-1)
        line, _, again = await ask(port, b"CONNECT example.com:443 HTTP/1.1\r\n\r\n")
        assert line.split()[1] in {b"403", b"503"}
        for each in (writer, again, *(one for _, one in idle)):
            each.close()


def test_our_own_names_are_tunnelled_too() -> None:
    """With HTTPS_PROXY set, a client sends every URL through the proxy, ours included."""
    own = ("127.0.0.1:8443", "Gateway.Example:443")
    assert allowed("127.0.0.1", 8443, own)
    assert allowed("gateway.example", 443, own)
    assert not allowed("127.0.0.1", 8080, own)
    assert allowed("any.fal.run", 443, ())
    assert not allowed("falXrun", 443, ())
