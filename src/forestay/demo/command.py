"""Runs a `forestay` command as its user would, against the platform of the scene. Called by steps of scenarios."""

import asyncio
import json
import subprocess
import sys

from forestay.demo.scene import Scene
from forestay.demo.stage import Broken

_SECONDS = 60.0


async def forestay(scene: Scene, *arguments: str, key: str = "") -> object:
    """Run a command and return what its --json printed (None without); Broken with its words when it failed."""
    out = await said(scene, *arguments, key=key)
    return json.loads(out) if "--json" in arguments else None


async def said(scene: Scene, *arguments: str, key: str = "") -> str:
    """Run a command and return what it printed, for a terminal of 110 columns; Broken with its words when it failed."""
    environment = {**scene.stage.environment(), "FORESTAY_URL": scene.ready.url, "COLUMNS": "110"}
    environment["FORESTAY_KEY"] = key or scene.ready.admin_key
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "forestay",
        *arguments,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(child.communicate(), _SECONDS)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode != 0:
        words = " ".join((err or out).decode("utf-8", "replace").split())
        raise Broken(f"forestay {' '.join(arguments[:3])} ended with {child.returncode}: {words}"[:300])
    return out.decode("utf-8", "replace")
