"""One load client for every HTTP bench: wrk, which costs the machine next to nothing.

`load(url, ...)` holds `connections` keep-alive connections busy for `seconds` and returns what happened, latencies in
milliseconds. wrk comes from the system (Debian: `apt-get install wrk`); as root it is installed on first use.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Mapping

_SCRIPT = """
wrk.method = %(method)s
wrk.body = %(body)s
%(headers)s
local paths = %(paths)s
local next_path = 0
if #paths > 0 then
  request = function()
    next_path = next_path %% #paths + 1
    return wrk.format(nil, paths[next_path])
  end
end
done = function(summary, latency, requests)
  io.write(string.format(
    '\\nRESULT {"requests": %%d, "seconds": %%f, "failed": %%d, "p50": %%f, "p99": %%f}\\n',
    summary.requests, summary.duration / 1e6,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status +
    summary.errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """What a run of the load client saw."""

    per_second: float
    p50_milliseconds: float
    p99_milliseconds: float
    failed: int


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """The request that is repeated; with `paths`, they take turns."""

    method: str = "GET"
    body: str = ""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    paths: tuple[str, ...] = ()


def wrk() -> str:
    """Return the path of wrk, installing it when that is possible."""
    found = shutil.which("wrk")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-qq", "wrk"], check=True, timeout=300, capture_output=True)
        found = shutil.which("wrk")
    if found is None:
        message = "this bench needs wrk on the PATH; install it with the system's package manager (Debian: wrk)"
        raise SystemExit(message)
    return found


def load(url: str, call: Call, *, connections: int, seconds: int) -> Load:
    """Load `url` and return the rate of answers and their latencies; answers of 400 and above count as failed."""
    script = _SCRIPT % {
        "method": json.dumps(call.method),
        "body": json.dumps(call.body) if call.body else "nil",
        "headers": "\n".join(f"wrk.headers[{json.dumps(k)}] = {json.dumps(v)}" for k, v in call.headers.items()),
        "paths": "{" + ", ".join(json.dumps(path) for path in call.paths) + "}",
    }
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "call.lua"
        file.write_text(script)
        command = [wrk(), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(file), url]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    seen = json.loads(line.removeprefix("RESULT "))
    return Load((seen["requests"] - seen["failed"]) / seen["seconds"], seen["p50"], seen["p99"], int(seen["failed"]))
