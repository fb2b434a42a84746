"""Calls that the attacks make, and what their answers say. Called by `attacks`; it decides nothing."""

import contextlib
import json
from collections.abc import Mapping
from typing import cast

from forestay.demo.scene import ECHO_PATH, Scene
from forestay.demo.stage import Broken

Answer = Mapping[str, object]
HELLO = {"text": "hello"}
PAUSE_SECONDS = 0.25  # between calls, below the rate that a tenant may have


async def calls(scene: Scene, requests: list[dict[str, object]]) -> list[Answer]:
    """Make calls from outside, one after another."""
    return cast(
        "list[Answer]", (await scene.attack("calls", {"requests": requests, "pause": PAUSE_SECONDS}))["answers"]
    )


def echo(key: str, **more: object) -> dict[str, object]:
    """Return a call that costs little."""
    return {**request(ECHO_PATH, key, HELLO), **more}


def request(path: str, key: str, body: Mapping[str, object]) -> dict[str, object]:
    """Return a call as the attacker's program takes it."""
    return {"method": "POST", "path": path, "key": key, "body": body}


def key_id(credential: str) -> str:
    """Return the part of a credential that is no secret."""
    return credential.partition(":")[0]


def expect(answer: Answer, status: int, what: str) -> None:
    """Raise Broken unless the call was answered with this status."""
    if answer["status"] != status:
        raise Broken(f"{what}: {answer['status']} instead of {status}: {str(answer['body'])[:200]}")


def refusal(answer: Answer) -> str:
    """Return the answer's status and its reason in the platform's words."""
    return f"{answer['status']} {reason_of(str(answer['body']))}"


def reason_of(body: str) -> str:
    """Return the reason in an error's body: its `detail`, or the messages of the fields in it; else the body."""
    said: object = body
    with contextlib.suppress(ValueError):
        said = json.loads(body)
    if not isinstance(said, dict):
        return body
    detail = cast("dict[str, object]", said).get("detail", body)
    if not isinstance(detail, list):
        return str(detail)
    return "; ".join(str(field.get("msg", body)) for field in cast("list[Mapping[str, object]]", detail))
