"""A visit to the gallery: the scene with a caller in it, what was seen, and how its answers and records are read.

It decides nothing. Called by `screenings` and `reviewing`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import cast

from forestay.demo.asking import reason_of
from forestay.demo.scene import Scene
from forestay.demo.stage import Broken
from forestay.demo.visitor import Answer, Visitor

VISIBLE_SECONDS = 5.0  # by then a change of policy or bank is in force; it takes a second
WORDS = 240


@dataclasses.dataclass(slots=True)
class Gallery:
    """The scene, with a caller in it, and what was seen."""

    scene: Scene
    visitor: Visitor
    pictures: dict[str, bytes] = dataclasses.field(default_factory=dict[str, bytes])  # by request id, as fetched
    refused_id: str = ""  # the harmful request: its appeal is upheld
    blocked_id: str = ""  # the harmless request that the stricter policy blocks: its appeal succeeds


async def drawn(at: Gallery, **body: object) -> tuple[str, bytes]:
    """Have a picture made and fetch it; it is compared with the records later."""
    request_id = accepted(await at.visitor.submit(**body))
    data = at.pictures[request_id] = await at.visitor.picture(await at.visitor.result(request_id))
    return request_id, data


async def records(at: Gallery, request_id: str) -> Sequence[Mapping[str, object]]:
    """Read the verdict records of a request, once its input's is written: those follow in batches."""
    found: list[Mapping[str, object]] = []

    async def look() -> str | None:
        nonlocal found
        path = f"/admin/safety/verdicts?request_id={request_id}"
        found = cast("list[Mapping[str, object]]", (await at.scene.ask("GET", path))["verdicts"])
        return "there" if any(record["point"] == "input" and not record["shadow"] for record in found) else None

    await at.scene.until(f"a record of {request_id}", look, VISIBLE_SECONDS)
    return found


def accepted(answer: Answer) -> str:
    """Return the id of an accepted request; Broken when it was not accepted."""
    if answer.status != 200:
        raise Broken(f"not accepted: {answer.status} {reason_of(answer.body.decode('utf-8', 'replace'))}"[:WORDS])
    return str(answer.values["request_id"])


def violation(answer: Answer, field: str) -> str:
    """Return what a content refusal names; Broken when the answer is none, or names another field."""
    category, named = answer.violation
    if answer.status != 422 or not category:
        raise Broken(f"no content refusal: {answer.status} {answer.body[:200]!r}")
    if field and named != field:
        raise Broken(f"the refusal names {named} instead of {field}")
    return f"content_policy_violation, {category}, {named}"
