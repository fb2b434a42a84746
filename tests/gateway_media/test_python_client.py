"""The unmodified Python client uploads through real listeners: by its host settings' reach, and through CONNECT."""

import asyncio
import dataclasses
import json
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.types import ASGIApp

from forestay.fleet.grants import Verb
from forestay.gateway.connect_proxy import ProxyTarget, serve_connect_proxy
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.signed_tokens import verify_token
from forestay.ids import ModelId
from forestay.servers import Certificate, Listener, serve
from forestay.tls import ensure_tls

from .conftest import Credential

pytest.importorskip("fal_client")

PROGRAM = """
import asyncio, json, sys
import fal_client
from fal_client import client as internals

path, plain = sys.argv[1], sys.argv[2]
if plain:  # development over plain HTTP: the two constants that uploads use
    internals.REST_URL, internals.CDN_URL = f"{plain}/rest", f"{plain}/cdn"
internals.MULTIPART_THRESHOLD = 100_000
data = open(path, "rb").read()
one = fal_client.SyncClient()
answer = {
    "small": one.upload(b"hello", "text/plain", "hello there.txt"),
    "short": one.upload_file(path, lifecycle=fal_client.StorageSettings(expires_in="1h"))
    if hasattr(fal_client, "StorageSettings") else one.upload_file(path),
    "fallback": one.upload(b"by way of the fallback", "text/plain", "f.txt", repository="fal"),
    "parts": internals.MultipartUpload.save(
        client=one._get_cdn_client(), token_manager=one._token_manager, file_name="big.bin", data=data,
        chunk_size=30_000, content_type="application/octet-stream"),
    "token": one._get_realtime_token("forestay/digits"),
    "asynchronous": asyncio.run(fal_client.AsyncClient().upload(b"async", "text/plain", "a.txt")),
}
print("ANSWER " + json.dumps(answer))
"""


@dataclasses.dataclass(slots=True)
class Served:
    """Where the gateway listens."""

    plain: int
    tls: int
    connect: int
    ca: Path


@asynccontextmanager
async def served(gateway: ASGIApp, ports: GatewayPorts, folder: Path) -> AsyncGenerator[Served]:
    """Serve plain, TLS and CONNECT on loopback."""
    stop = asyncio.Event()
    files = ensure_tls(folder / "tls", ports.clock.now(), ("127.0.0.1",))
    plain, tls, connect = (socket.create_server(("127.0.0.1", 0)) for _ in range(3))
    port_of = [int(each.getsockname()[1]) for each in (plain, tls, connect)]
    listeners = [Listener(plain), Listener(tls, Certificate(files.certificate, files.key))]
    target = ProxyTarget("127.0.0.1", port_of[1])
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(serve(gateway, listeners, stop, server="granian", grace_seconds=5.0))  # pyright: ignore[reportArgumentType]
        group.create_task(serve_connect_proxy(connect, target, stop, lambda _: None, ports.metrics))
        yield Served(*port_of, ca=files.ca)
        stop.set()


@pytest.mark.parametrize("way", ["plain", "connect"])
async def test_the_python_client_uploads_everything_it_can(
    gateway: ASGIApp, ports: GatewayPorts, acme: Credential, tmp_path: Path, way: str
) -> None:
    """Whole, in parts, by the fallback, with a lifetime, asynchronously; and it gets its realtime token."""
    big = tmp_path / "big.bin"
    big.write_bytes(bytes(range(256)) * 400)
    async with served(gateway, ports, tmp_path) as at:
        environment = {
            "FAL_KEY": acme.headers["Authorization"].removeprefix("Key "),
            "SSL_CERT_FILE": str(at.ca),
            "PATH": "/usr/bin:/bin",
        }
        if way == "connect":
            environment["HTTPS_PROXY"] = f"http://127.0.0.1:{at.connect}"
        plain = f"http://127.0.0.1:{at.plain}" if way == "plain" else ""
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, str(big), plain, env=environment, stdout=-1, stderr=-1
        )
        out, err = await child.communicate()
    assert child.returncode == 0, err.decode()
    assert b"falling back" not in err, err.decode()
    answer = json.loads(out.decode().rpartition("ANSWER ")[2])
    base = f"http://127.0.0.1:{at.plain}/cdn/files/" if way == "plain" else "https://v3.fal.media/files/"
    contents = {"small": b"hello", "short": big.read_bytes(), "parts": big.read_bytes(), "asynchronous": b"async"}
    for name, content in {**contents, "fallback": b"by way of the fallback"}.items():
        assert answer[name].startswith(base), name
        assert await ports.media.read(answer[name].removeprefix(base).partition("/")[0]) == content, name
    claims = verify_token(answer["token"], secret="a token key", now=ports.clock.now())
    assert claims is not None
    assert claims.grant().covers(Verb.REALTIME, ModelId("forestay/digits"))
