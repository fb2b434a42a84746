"""Refusals looked at again: appeals, reviewers, and what their findings say about a policy.

Each acts as a caller or an analyst would, and returns the evidence in a line, or raises Broken. Called by `screenings`.
"""

import contextlib
from typing import cast

import aiohttp

from forestay.demo import gallery
from forestay.demo.command import forestay
from forestay.demo.stage import Broken
from forestay.demo.visit import VISIBLE_SECONDS, WORDS, Gallery, records
from forestay.demo.visitor import Values, session_of


async def appeal(at: Gallery) -> str:
    """Appeal two refusals: one is upheld; the other takes two people, and runs as a new request that names the old."""
    await _appeal(at, at.refused_id, "I only ask")
    await _appeal(at, at.blocked_id, "it is a scene of a play")
    async with contextlib.AsyncExitStack() as stack:
        first, second = [await _reviewer(at, name, stack) for name in ("ann", "bob")]
        upheld = await _vote(first, at.refused_id, "block")
        for again in (False, True):
            said = await _vote(first, at.blocked_id, "release")
            if said["outcome"] is not None or said["has"] != 1:
                raise Broken(f"one person released it{' by voting twice' * again}: {said}"[:WORDS])
        said = await _vote(second, at.blocked_id, "release")
    if (said["outcome"], upheld["outcome"]) != ("released", "upheld"):
        raise Broken(f"two people released it, and it is {said['outcome']}; the other is {upheld['outcome']}")

    async def linked() -> str | None:
        found = (await at.visitor.call("GET", f"/appeals/{at.blocked_id}")).values
        return str(found["linked_request_id"]) if found.get("linked_request_id") else None

    request_id = await at.scene.until("the linked request", linked, VISIBLE_SECONDS)
    answer = await at.visitor.result(request_id)
    if answer.values.get("prompt") != gallery.ON_STAGE:
        raise Broken(f"the linked request was answered {answer.status}: {answer.body[:200]!r}")
    points = {str(record["point"]): str(record["policy_id"]) for record in await records(at, request_id)}
    return f"one upheld; one at 1 of 2 after a person's two votes, released by the second, judged anew by {points}"


async def labelled(at: Gallery) -> str:
    """What the reviewers found counts as a label: the stricter policy's precision is worse than the first one's."""
    file = at.scene.stage.course.output / "policy.yaml"
    told = cast(
        "Values", await forestay(at.scene, "safety", "replay", "--policy", str(file), "--since", "1h", "--json")
    )
    scores = cast("dict[str, dict[str, float | None]]", told["scores"])
    strict, first = scores["in_force"]["precision"], scores["new"]["precision"]
    if strict is None or first is None or strict >= first:
        raise Broken(f"the reviewers' labels do not show in the replay: {scores}")
    return f"on the labels the stricter policy has precision {strict:.2f}, the first one {first:.2f}"


async def _appeal(at: Gallery, request_id: str, words: str) -> None:
    made = await at.visitor.call("POST", f"/appeals/{request_id}", {"reason": words})
    if made.status != 201:
        raise Broken(f"the appeal was answered {made.status}: {made.body[:200]!r}")


async def _reviewer(at: Gallery, name: str, stack: contextlib.AsyncExitStack) -> aiohttp.ClientSession:
    """Add an analyst and sign them in."""
    who: Values = {"email": f"{name}@demo.example", "password": f"{name} reviews what was refused"}
    await at.scene.ask("POST", "/admin/people", {**who, "role": "analyst"})
    opened = await at.scene.ask("POST", "/admin/sign-in", who)
    return await stack.enter_async_context(session_of(at.scene.ready, f"Bearer {opened['token']}"))


async def _vote(session: aiohttp.ClientSession, request_id: str, ballot: str) -> Values:
    """Vote on an appealed request; returns how its item stands."""
    vote = {"vote": ballot, "reason": "a scene of a play" if ballot == "release" else "asks for a weapon"}
    async with session.post(f"/admin/safety/review/{request_id}/vote", json=vote) as answer:
        if answer.status != 200:
            raise Broken(f"a vote was answered {answer.status}: {await answer.text()}"[:WORDS])
        return cast("Values", await answer.json())
