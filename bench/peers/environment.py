"""A virtual environment per peer, made on first use and kept per machine.

Peers never share our environment: their pins would fight with ours. Called by the benches; each peer is then run as a
script of `bench/peers/` by the environment's own interpreter and prints one JSON object on its last line.
"""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

CACHE = pathlib.Path(os.environ.get("FORESTAY_BENCH_CACHE", pathlib.Path(__file__).parents[2] / ".bench-cache"))
INSTALL_TIMEOUT_SECONDS = 900


def peer_python(name: str, packages: Sequence[str]) -> pathlib.Path:
    """Return the interpreter of the peer's environment, building it when it is missing or its packages changed."""
    digest = hashlib.sha256("\n".join(sorted(packages)).encode()).hexdigest()[:12]
    folder = CACHE / f"{name}-{digest}"
    python = folder / "bin" / "python"
    ready = folder / ".ready"
    if not ready.exists():
        print(f"installing {name} into its own environment (once per machine) ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=INSTALL_TIMEOUT_SECONDS)
        command = [str(python), "-m", "pip", "install", "--quiet", "--quiet", "--disable-pip-version-check", *packages]
        subprocess.run(command, check=True, timeout=INSTALL_TIMEOUT_SECONDS)
        ready.write_text("\n".join(packages))
    return python


def run_peer(python: pathlib.Path, script: str, arguments: Sequence[str], timeout_seconds: float) -> dict[str, float]:
    """Run `bench/peers/{script}` and return the JSON object that it prints last."""
    path = pathlib.Path(__file__).with_name(script)
    done = subprocess.run(
        [str(python), str(path), *arguments], capture_output=True, text=True, timeout=timeout_seconds, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        message = f"{script} ended with {done.returncode}: {(done.stderr or done.stdout)[-2000:]}"
        raise RuntimeError(message)
    return json.loads(lines[-1])
