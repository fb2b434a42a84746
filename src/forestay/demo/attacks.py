"""The attacks of the siege, one function each: what is done, and what must come of it.

Each sends the attacker's program, looks from the platform's side, and returns the evidence in a line, or raises Broken.
They know one another's order only by the table at the end. `siege` runs them.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

from forestay.demo.asking import Answer, calls, echo, expect, key_id, reason_of, refusal, request
from forestay.demo.bait import PICKLE, WEIGHTS, bundle_of, flip_last_weight, inner_urls, png, safetensors, spec_of
from forestay.demo.scene import ACME, ECHO_PATH, EVERY_SECONDS, GALLERY, MALLORY, SERVICE_SECONDS, TRIAL, Scene
from forestay.demo.stage import Broken
from forestay.errors import Unavailable

Attack = Callable[[Scene], Awaitable[str]]
FELT_SECONDS = 2.0  # by then every gateway acts on what an operator has done to a key
OVERLAP_SECONDS = 1.5
KNOCK = {"seconds": 15.0, "pause": 0.25}
GUESSES = 60
BOMB_PIXELS = 60_000  # a side
FLOOD_RATIO = 50  # times the neighbour's own rate
FLOOD_CALLS = 600
PER_SECOND, BURST = 5, 10  # calls that every tenant may make
IN_FLIGHT = 3  # requests that the trial tenant may have running; the model runs four at a time
HEAVY_SECONDS = 10 * SERVICE_SECONDS
HEAVY_JOBS = 20
VARIANTS = 12  # of one refused prompt; the rules that come along act on the ninth
OVERTAKERS = 8  # requests of the neighbour that must overtake the heavy jobs that wait
WAIT_SECONDS = 30.0
LOOPBACK_IS_A_NETWORK = sys.platform == "linux"  # elsewhere 127.0.0.1 is the only address that one can call from


async def leaked_key(scene: Scene) -> str:
    """Use a key that is bound to networks from inside them, then from outside."""
    inside, outside = ("127.0.0.1", "127.0.9.9") if LOOPBACK_IS_A_NETWORK else ("", "127.0.0.1")
    networks = ["127.0.0.0/24"] if LOOPBACK_IS_A_NETWORK else ["192.0.2.0/24"]
    key = await scene.new_key(ACME, "office", networks=networks)
    owner, thief = await calls(scene, [echo(key, source=source or outside) for source in (inside, outside)])
    if inside:
        expect(owner, 200, "the owner, inside")
    expect(thief, 403, "the thief, outside")
    return f"from {outside}: {refusal(thief)}" + (f"; from {inside}: 200" if inside else "")


async def rotated(scene: Scene) -> str:
    """Rotate a key with an overlap: the old secret works until then and not after, the new one works."""
    old = await scene.new_key(ACME, "rotated")
    path = f"/admin/keys/{key_id(old)}/rotate"
    new = str((await scene.ask("POST", path, {"overlap_seconds": OVERLAP_SECONDS}))["key"])
    since = scene.clock.monotonic()
    report = await scene.attack("knock", {**KNOCK, "request": echo(old)})
    seconds = scene.clock.monotonic() - since
    answer = cast("Answer", report["answer"])
    expect(answer, 401, "the old key after its overlap")
    if not report["through"] or seconds > OVERLAP_SECONDS + FELT_SECONDS:
        raise Broken(f"the old key went through {report['through']} times and was refused after {seconds:.1f} s")
    (successor,) = await calls(scene, [echo(new)])
    expect(successor, 200, "the new key")
    return (
        f"old key: {report['through']} calls in its {OVERLAP_SECONDS:g} s, refused {seconds:.1f} s after; new key: 200"
    )


async def revoked(scene: Scene) -> str:
    """Revoke a key while it is being used."""
    key = await scene.new_key(ACME, "revoked")
    reason = "found in a public repository"

    async def revoke() -> None:
        await scene.ask("DELETE", f"/admin/keys/{key_id(key)}?reason={reason.replace(' ', '+')}")
        scene.acts[key_id(key)] = reason

    seconds, report = await _cut_off(scene, key, revoke)
    expect(cast("Answer", report["answer"]), 401, "the revoked key")
    return f"refused {seconds:.2f} s after, on its call {cast('int', report['through']) + 1}: {reason}"


async def suspended(scene: Scene) -> str:
    """Suspend a caller while it calls; it is told why, and its objection is taken."""
    key = await scene.new_key(MALLORY, "crawler")
    reason = "resold access, reported by its owner"
    standing = {
        "subject": f"key:{key_id(key)}",
        "kind": "suspend",
        "code": "resale",
        "reason": reason,
        "for_seconds": 900,
    }

    async def suspend() -> None:
        await scene.ask("POST", "/admin/abuse/standings", standing)
        scene.acts[str(standing["subject"])] = reason

    seconds, report = await _cut_off(scene, key, suspend)
    answer = cast("Answer", report["answer"])
    expect(answer, 403, "the suspended key")
    said = cast("dict[str, dict[str, object]]", json.loads(str(answer["body"])))
    if said["standing"]["code"] != standing["code"]:
        raise Broken(f"the refusal does not give the reason: {answer['body']}")
    words = {"words": "the calls were my own"}
    appeal, other = await calls(scene, [request("/standing/appeal", key, words), echo(scene.keys[MALLORY])])
    expect(appeal, 201, "the appeal")
    expect(other, 200, "another key of the same tenant")
    return f"refused {seconds:.2f} s after: {said['detail']}"[:220]


async def probing(scene: Scene) -> str:
    """Feel around the content policy with one prompt in many spellings; the abuse loop slows the key by itself."""
    await scene.ask("POST", "/admin/modes", {"loop": "abuse", "mode": "act"})
    key = await scene.new_key(MALLORY, "prober")
    path = ECHO_PATH.replace("/queue/", "/run/")
    words = "a portrait of the mayor falling down a long staircase"
    asked = [request(path, key, {"text": f"{words} {'!' * n}{n}", "fail": "content"}) for n in range(VARIANTS)]
    answers = await calls(scene, asked)
    expect(answers[0], 422, "a prompt that the model refuses for its content")

    async def slowed() -> str | None:
        rows = (await scene.ask("GET", f"/admin/abuse/standings?subject=key:{key_id(key)}"))["standings"]
        for row in cast("list[Mapping[str, Answer]]", rows):
            return f"{row['standing']['kind']}: {row['standing']['reason']}"
        return None

    standing = await scene.until("a standing of the key", slowed, WAIT_SECONDS)
    refused = next((item for item in await calls(scene, asked) if item["status"] == 429), None)
    if refused is None:
        raise Broken("the slowed key went on at its old pace")
    return f"{standing}; then {refusal(refused)}"[:300]


async def strangers(scene: Scene) -> str:
    """Try the admin API with an API key, and the ways to another tenant's request."""
    key, neighbours = scene.keys[MALLORY], scene.neighbour.request_ids[-1]
    one = f"{ECHO_PATH}/requests/{neighbours}"
    doors: list[dict[str, object]] = [
        {"method": "GET", "path": "/admin/keys", "key": key},
        {"method": "POST", "path": "/admin/keys", "key": key, "body": {"tenant_id": GALLERY, "scopes": ["ADMIN"]}},
        {"method": "GET", "path": f"/admin/requests/{neighbours}/result", "key": key},
    ]
    requests: list[dict[str, object]] = [
        {"method": "GET", "path": f"{one}/status", "key": key},
        {"method": "GET", "path": one, "key": key},
        {"method": "PUT", "path": f"{one}/cancel", "key": key},
    ]
    answers = await calls(scene, doors + requests)
    for answer in answers[: len(doors)]:
        expect(answer, 403, "an admin route")
    for answer in answers[len(doors) :]:
        expect(answer, 404, "a request of another tenant")
    return f"{len(doors)} admin routes: {refusal(answers[0])}; {len(requests)} ways to another's request: 404"


async def guessing(scene: Scene) -> str:
    """Guess secrets of the neighbour's key: after some the guesser's address waits; the key must go on working."""
    before = await scene.refused("wrong_secret")
    failed = len(scene.neighbour.failures)
    asked = {"method": "GET", "path": "/standing"}
    source = "127.0.9.8" if LOOPBACK_IS_A_NETWORK else "127.0.0.1"
    plan = {"key_id": key_id(scene.keys[GALLERY]), "count": GUESSES, "source": source, "request": asked}
    report = await scene.attack("guess", plan)
    statuses = cast("dict[str, int]", report["statuses"])
    tried, held = statuses.get("401", 0), statuses.get("429", 0)
    if not tried or not held or tried + held != GUESSES:
        raise Broken(f"{GUESSES} guesses were answered {statuses}: {report['samples']}"[:300])
    counted = await scene.refused("wrong_secret") - before
    if counted != tried:
        raise Broken(f"{counted} of {tried} guesses were counted as wrong secrets")
    if len(scene.neighbour.failures) > failed:
        raise Broken(f"the key's owner was locked out: {scene.neighbour.failures[-1]}")
    waits = refusal(cast("Mapping[str, Answer]", report["samples"])["429"])
    return f"{tried} x 401, counted as wrong_secret; {held} x {waits}; the key's owner noticed nothing"


async def ssrf(scene: Scene) -> str:
    """Name inner addresses as the picture to edit, in the notations that clients read as the same address."""
    connections = 0

    async def touched(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    async with await asyncio.start_server(touched, "127.0.0.1", 0) as canary:
        port = cast("tuple[str, int]", canary.sockets[0].getsockname())[1]
        urls = inner_urls(port)
        body = {"prompt": "a red seven", "num_inference_steps": 2}
        key = scene.keys[ACME]
        wanted = [request("/run/forestay/digits/edit", key, {**body, "image_url": url}) for url in urls]
        answers = await calls(scene, wanted)
    for url, answer in zip(urls, answers, strict=True):
        expect(answer, 422, url)
        if '"image_url"' not in str(answer["body"]):
            raise Broken(f"{url}: the refusal does not name the field: {answer['body']}")
    if connections:
        raise Broken(f"the platform connected {connections} times")
    return f"{len(urls)} notations, each 422 naming image_url; the listener was never called. {refusal(answers[0])}"[
        :220
    ]


async def image_bomb(scene: Scene) -> str:
    """Send a picture of a hundred bytes that unpacks to gigabytes; the same worker then edits an ordinary one."""
    workers = {one.pid for one in scene.stage.platform.processes() if " worker" in one.command}
    body = {"prompt": "a red seven", "num_inference_steps": 2, "strength": 1.0}
    pictures = (png(BOMB_PIXELS, BOMB_PIXELS, b""), png(32, 32, (b"\0" + bytes(32 * 3)) * 32))
    urls = [f"data:image/png;base64,{base64.b64encode(picture).decode()}" for picture in pictures]
    key = scene.keys[ACME]
    bomb, ordinary = await calls(
        scene, [request("/run/forestay/digits/edit", key, {**body, "image_url": url}) for url in urls]
    )
    expect(bomb, 422, "the bomb")
    if "image_too_large" not in str(bomb["body"]) or '"image_url"' not in str(bomb["body"]):
        raise Broken(f"the refusal does not name field and reason: {bomb['body']}")
    expect(ordinary, 200, "an ordinary picture after it")
    if not workers <= {one.pid for one in scene.stage.platform.processes()}:
        raise Broken("a worker died of it")
    return f"{len(pictures[0])} bytes, {BOMB_PIXELS} x {BOMB_PIXELS} pixels: {refusal(bomb)}; the next picture: 200"


async def flood(scene: Scene) -> str:
    """Submit at fifty times the neighbour's rate."""
    key = await scene.new_key(MALLORY, "flood")
    plan = {"request": echo(key), "rate": FLOOD_RATIO / EVERY_SECONDS, "count": FLOOD_CALLS, "connections": 4}
    report = await scene.attack("flood", plan)
    statuses, seconds = cast("dict[str, int]", report["statuses"]), cast("float", report["seconds"])
    turned_away = cast("dict[str, Answer]", report["samples"]).get("429")
    if turned_away is None or set(statuses) != {"200", "429"}:
        raise Broken(f"{FLOOD_CALLS} calls were answered {statuses}")
    missing = {"retry-after", "ratelimit", "ratelimit-policy"} - set(cast("dict[str, str]", turned_away["headers"]))
    if missing:
        raise Broken(f"a 429 lacks {', '.join(sorted(missing))}")
    most = BURST + PER_SECOND * seconds + 1
    queued = sum(one["key_id"] == key_id(key) for one in await _newest(scene))
    if queued != statuses["200"] or queued > most:
        raise Broken(f"{queued} requests in the queue, {statuses['200']} acknowledged, at most {most:.0f} allowed")
    await _cancel_all(scene, key_id(key))
    rate = FLOOD_CALLS / seconds * EVERY_SECONDS
    return (
        f"{FLOOD_CALLS} calls in {seconds:.1f} s ({rate:.0f}x the neighbour's rate): {statuses['429']} x 429 with "
        f"Retry-After and RateLimit, {queued} queued of at most {most:.0f}. {refusal(turned_away)}"
    )


async def heavy_jobs(scene: Scene) -> str:
    """Submit jobs ten times as heavy as the neighbour's, many of them, within the rate of calls that is allowed."""
    key = scene.keys[TRIAL]
    body = {"text": "heavy", "sleep_seconds": HEAVY_SECONDS}
    plan = {"request": request(ECHO_PATH, key, body), "rate": PER_SECOND, "count": HEAVY_JOBS, "connections": 1}
    report = await scene.attack("flood", plan)
    if report["statuses"] != {"200": HEAVY_JOBS}:
        raise Broken(f"{HEAVY_JOBS} heavy jobs were answered {report['statuses']}")
    seen = len(scene.neighbour.request_ids)
    most = 0

    async def overtaken() -> str | None:
        nonlocal most
        found = await _newest(scene)
        heavy = Counter(str(one["state"]) for one in found if one["key_id"] == key_id(key))
        most = max(most, heavy["leased"] + heavy["running"])
        if not heavy["queued"]:
            raise Broken("the heavy jobs had all been started before as many of the neighbour's requests")
        newer = set(scene.neighbour.request_ids[seen:])
        done = sum(one["request_id"] in newer and one["state"] == "succeeded" for one in found)
        words = f"{done} requests of the neighbour came later and are done, {heavy['queued']} heavy jobs still wait"
        return words if done >= OVERTAKERS else None

    words = await scene.until("overtaking", overtaken, WAIT_SECONDS)
    await _cancel_all(scene, key_id(key))
    if most > IN_FLIGHT:
        raise Broken(f"{most} heavy jobs ran at once; the tenant may have {IN_FLIGHT} in flight")
    return f"{HEAVY_JOBS} jobs of {HEAVY_SECONDS:g} s, never more than {most} at once of {IN_FLIGHT} allowed: {words}"


async def pickled_weights(scene: Scene) -> str:
    """Deploy a model whose weights are a pickle that would run a command when it is opened."""
    bundle = bundle_of({"app.py": b"VALUE = 1\n", PICKLE: b"cos\nsystem\n(S'id'\ntR."})
    digest = hashlib.sha256(bundle).hexdigest()
    await scene.ask("PUT", f"/admin/bundles/{digest}", data=bundle)
    status, answer = await scene.try_to("POST", "/admin/models", {"spec": spec_of("demo/pickled"), "digest": digest})
    if status != 422 or PICKLE not in answer:
        raise Broken(f"answered {status}, which should name {PICKLE}: {answer[:200]}")
    return f"422 {reason_of(answer)}"[:240]


async def bad_weights(scene: Scene) -> str:
    """Deploy a model, change one byte of its weights where they are stored, then have it loaded."""
    bundle = bundle_of({"app.py": b"VALUE = 1\n", WEIGHTS: safetensors(1024)})
    digest = hashlib.sha256(bundle).hexdigest()
    await scene.ask("PUT", f"/admin/bundles/{digest}", data=bundle)
    stored = Path(unquote(urlsplit(scene.ready.object_store).path)) / "bundles" / f"{digest}.tar"
    await scene.ask("POST", "/admin/models", {"spec": spec_of("demo/altered"), "digest": digest})
    await asyncio.to_thread(flip_last_weight, stored)
    (asked,) = await calls(scene, [request("/queue/demo/altered", scene.keys[ACME], {})])
    expect(asked, 200, "a request for the model, which has it loaded")

    async def refused() -> str | None:
        shown = await scene.ask("GET", "/admin/models/demo/altered")
        for replica in cast("list[dict[str, object]]", shown["replicas"]):
            if replica["state"] == "ready":
                raise Broken("it was loaded")
            if replica["failures"]:
                return str(replica["detail"])
        return None

    detail = await scene.until("the refusal to load", refused, WAIT_SECONDS)
    if digest not in detail or "damaged" not in detail:
        raise Broken(f"it failed for another reason: {detail}")
    return detail.replace(digest, f"{digest[:12]}...")[:220]


ATTACKS: tuple[tuple[str, Attack], ...] = (
    ("leaked_key", leaked_key),
    ("rotated", rotated),
    ("revoked", revoked),
    ("suspended", suspended),
    ("strangers", strangers),
    ("probing", probing),
    ("ssrf", ssrf),
    ("image_bomb", image_bomb),
    ("flood", flood),
    ("heavy_jobs", heavy_jobs),
    ("pickled_weights", pickled_weights),
    ("bad_weights", bad_weights),
    ("guessing", guessing),  # last: where there is one loopback address, it waits from then on
)


async def _cut_off(scene: Scene, key: str, act: Callable[[], Awaitable[None]]) -> tuple[float, Answer]:
    """Let a key call until `act`, done while it calls, has stopped it; seconds from the act's answer to the refusal."""
    acted = 0.0

    async def heard() -> None:
        nonlocal acted
        await act()
        acted = scene.clock.monotonic()

    report = await scene.attack("knock", {**KNOCK, "request": echo(key)}, heard)
    seconds = scene.clock.monotonic() - acted
    if not acted:
        raise Broken(f"the key never worked: {report['answer']}")
    if seconds > FELT_SECONDS:
        raise Broken(f"felt only after {seconds:.2f} s")
    return seconds, report


async def _newest(scene: Scene, states: str = "") -> list[Answer]:
    path = f"/admin/requests?limit=1000&state={states}"
    return cast("list[Answer]", (await scene.ask("GET", path))["requests"])


async def _cancel_all(scene: Scene, key_id: str) -> None:
    """Take what an attack has left in the queue out of it, as an operator would."""
    for one in await _newest(scene, "queued"):
        if one["key_id"] == key_id:
            with contextlib.suppress(Unavailable):  # it has started or ended meanwhile
                await scene.ask("POST", f"/admin/requests/{one['request_id']}/cancel")
