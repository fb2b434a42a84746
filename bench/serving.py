"""Servers that a bench starts beside ours: by granian, or as a script.

Up when their port answers, ended with the block.
"""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Mapping, Sequence

START_SECONDS = 120.0
STOP_SECONDS = 20.0
PEERS = pathlib.Path(__file__).with_name("peers")


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def granian(module: str, environment: Mapping[str, str] | None = None) -> Generator[str]:
    """Serve `bench/peers/{module}.py` with one granian worker, as our gateway is served; yields its URL."""
    port = free_port()
    program = pathlib.Path(sys.executable).with_name("granian")
    command = [str(program), "--interface", "asgi", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--loop", "uvloop", "--log-level", "warning", f"{module}:app"]
    with running(command, f"http://127.0.0.1:{port}/", environment or {}) as url:
        yield url


@contextlib.contextmanager
def running(command: Sequence[str], url: str, environment: Mapping[str, str]) -> Generator[str]:
    """Run a server in a session of its own until its URL answers; yields the URL without its closing slash."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        cwd=PEERS,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_answer(url, process)
        yield url.rstrip("/")
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)


def _wait_answer(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with {process.returncode} before it answered")
        try:
            urllib.request.urlopen(url, timeout=2).close()  # noqa: S310 - our own loopback URL
        except OSError:  # nobody listens, or (an HTTPError) what listens is not ready
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"{url} did not answer within {START_SECONDS:g} s")
