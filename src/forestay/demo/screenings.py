"""The screenings of the safety scenario, one function each: what is done, and what must come of it.

Each acts as a caller, an analyst or an operator would, and returns the evidence in a line, or raises Broken. What a
caller could read is compared with the verdict records, by digest. `inspection` runs them in the order of the table.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

from forestay.demo import gallery
from forestay.demo.command import forestay
from forestay.demo.platform import kill
from forestay.demo.reviewing import appeal, labelled
from forestay.demo.stage import Broken
from forestay.demo.visit import VISIBLE_SECONDS, WORDS, Gallery, accepted, drawn, records, violation
from forestay.demo.visitor import Values
from forestay.safety.hashes.pdq import LEAST_QUALITY

BANK = "demo-known"
RELEASED = frozenset({"allow", "flag"})
TRAFFIC_SECONDS = 6.0
KILLS = (1.0, 2.5)  # seconds into the traffic
PAUSE_SECONDS = 0.05
RECENT = ("a red boat on a calm lake", "two boxers hit each other hard in the ring", "a harbour at dawn")


Screening = Callable[[Gallery], Awaitable[str]]


async def policy(at: Gallery) -> str:
    """Set a policy from a file, put it in force, and deploy a model under it."""
    file = at.scene.stage.course.output / "policy.yaml"
    file.write_text(gallery.policy_text(), encoding="utf-8")
    await forestay(at.scene, "safety", "policy", "set", gallery.POLICY, str(file), "--reason", "the gallery opens")
    await forestay(at.scene, "safety", "policy", "stage", gallery.POLICY, "100", "--reason", "nothing yet to compare")
    data = gallery.bundle()
    digest = hashlib.sha256(data).hexdigest()
    await at.scene.ask("PUT", f"/admin/bundles/{digest}", data=data)
    await at.scene.ask("POST", "/admin/models", {"spec": gallery.spec(), "digest": digest})

    async def in_force() -> str | None:
        answer = await at.visitor.submit(prompt=gallery.HARMLESS, picture=False)
        return None if answer.status == 503 else accepted(answer)

    await at.scene.until("the policy's coming into force", in_force, VISIBLE_SECONDS)
    coverage = await at.scene.ask("GET", "/admin/safety/coverage")
    cells = cast("list[Values]", coverage["cells"])
    empty = sum(not cell["detectors"] for cell in cells)
    return f"policy {gallery.POLICY} version 1 in force; of {len(cells)} cells of the matrix {empty} have no detector"


async def harmless(at: Gallery) -> str:
    """A harmless prompt gets its picture; both sides are on record, and the file answers who made it."""
    request_id, data = await drawn(at, prompt=gallery.HARMLESS)
    points = {record["point"]: record["verdict"] for record in await records(at, request_id)}
    if points.get("input") not in RELEASED or points.get("output") not in RELEASED:
        raise Broken(f"verdicts on record: {points}")
    origin = await at.scene.ask("POST", "/admin/safety/made-by-us", data=data)
    made = [cast("Values", item["made"] or {}) for item in cast("list[Values]", origin["evidence"])]
    if not any(one.get("request_id") == request_id for one in made):
        raise Broken(f"the file does not say which request made it: {origin}"[:WORDS])
    layers = ", ".join(str(item["layer"]) for item in cast("list[Values]", origin["evidence"]))
    return f"picture of {len(data)} bytes; verdicts {points['input']} and {points['output']}; made by us: {layers}"


async def refused(at: Gallery) -> str:
    """A harmful prompt is refused with category and field, before anything is queued."""
    answer = await at.visitor.submit(prompt=gallery.HARMFUL)
    at.refused_id = answer.request_id
    return f"422 in {violation(answer, 'body.prompt')}"


async def disguised(at: Gallery) -> str:
    """The same prompt, disguised."""
    said = {
        name: violation(await at.visitor.submit(prompt=text), "body.prompt")
        for name, text in gallery.disguises(gallery.HARMFUL).items()
    }
    return f"{len(said)} of {len(said)} refused: {', '.join(said)}"


async def marker_in(at: Gallery) -> str:
    """A drawn marker at the input is refused before the model is called."""
    url = _data_uri(gallery.encoded(gallery.marker(), "PNG"), "png")
    request_id = accepted(await at.visitor.submit(prompt="redraw this", image_url=url))
    said = violation(await at.visitor.result(request_id), "body.image_url")
    points = [str(record["point"]) for record in await records(at, request_id)]
    if "output" in points:
        raise Broken("the model was called")
    return f"{said}; the model was not called"


async def marker_out(at: Gallery) -> str:
    """A drawn marker that the model paints is never readable; the caller gets a typed refusal, no black frame."""
    request_id = accepted(await at.visitor.submit(prompt=gallery.PAINTED_WISH))
    answer = await at.visitor.result(request_id)
    said = violation(answer, "")
    if at.scene.ready.url.encode() in answer.body or b"/files/" in answer.body:
        raise Broken(f"the refusal names an address: {answer.body[:200]!r}")
    state = str((await at.scene.ask("GET", f"/admin/requests/{request_id}"))["state"])
    return f"{said}; the request is {state}, the file stays in quarantine"


async def known_hash(at: Gallery) -> str:
    """A picture is put into a bank; from then on it is refused, coded anew and smaller too."""
    clean = _data_uri(gallery.encoded(gallery.known_picture(), "PNG"), "png")
    await drawn(at, prompt="redraw this", image_url=clean)
    found = gallery.known_hash()
    if found.quality < LEAST_QUALITY:
        raise Broken(f"the picture's hash has quality {found.quality}, below {LEAST_QUALITY}")
    bank: Values = {"bank_id": BANK, "source": "the demonstration", "category": "sexual"}
    await at.scene.ask("POST", "/admin/safety/banks", bank)
    entry = {"entries": [{"hash": found.hex, "note": "a town at night"}], "reason": "known from the demonstration"}
    await at.scene.ask("POST", f"/admin/safety/banks/{BANK}/add", entry)
    changed = _data_uri(gallery.encoded(gallery.known_picture(), "JPEG", 200), "jpeg")

    async def matched() -> str | None:
        answer = await at.visitor.submit(prompt="redraw this", image_url=changed)
        answer = await at.visitor.result(accepted(answer))
        return None if answer.status == 200 else violation(answer, "body.image_url")

    said = await at.scene.until("a match", matched, VISIBLE_SECONDS)
    return f"as JPEG, 200 pixels: {said}"


async def judge_killed(at: Gallery) -> str:
    """Kill the judge in the middle of traffic, twice: text goes on by its stand-in, pictures wait until judged."""
    clock, started = at.scene.clock, at.scene.clock.monotonic()
    ids_of: dict[str, list[str]] = {"text": [], "picture": []}
    told = Counter[int]()
    kills = list(KILLS)
    while (seconds := clock.monotonic() - started) < TRAFFIC_SECONDS:
        if kills and seconds >= kills[0]:
            kills.pop(0)
            await _kill_judge(at)
        for kind, ids in ids_of.items():
            answer = await at.visitor.submit(prompt=f"a quiet harbour, number {len(ids)}", picture=kind == "picture")
            told[answer.status] += 1
            ids.extend([accepted(answer)] if answer.status == 200 else [])
        forbidden = await at.visitor.submit(prompt=gallery.FORBIDDEN)
        if forbidden.status == 200:
            raise Broken(f"{gallery.FORBIDDEN!r} was accepted {seconds:.1f} s into the traffic")
        await clock.sleep(PAUSE_SECONDS)
    if kills or set(told) != {200}:
        raise Broken(f"covered traffic was answered {dict(told)}, {len(KILLS) - len(kills)} kills")
    for request_id in ids_of["picture"]:
        at.pictures[request_id] = await at.visitor.picture(await at.visitor.result(request_id))
    for request_id in ids_of["text"]:
        if (await at.visitor.result(request_id)).status != 200:
            raise Broken(f"text request {request_id} did not succeed")
    stood_in = await _asked(at, ids_of["text"] + ids_of["picture"], "text-lexicon@1")
    if not stood_in:
        raise Broken("the stand-in was never asked: the kills hit nothing")
    return (
        f"{len(KILLS)} kills; {len(ids_of['text'])} text requests and {len(ids_of['picture'])} pictures, all "
        f"delivered; {stood_in} prompts judged by the stand-in; a forbidden one was refused throughout"
    )


async def unjudged(at: Gallery) -> str:
    """Compare every picture that the caller could read with the verdict records, by digest."""
    without = [
        request_id
        for request_id, data in at.pictures.items()
        if f"sha256:{hashlib.sha256(data).hexdigest()}"
        not in {
            str(digest)
            for record in await records(at, request_id)
            if record["verdict"] in RELEASED and record["point"] == "output"
            for digest in cast("list[object]", record["judged"])
        }
    ]
    if without or not at.pictures:
        raise Broken(f"{len(without)} of {len(at.pictures)} pictures have no verdict of their bytes: {without[:3]}")
    verified = await at.scene.ask("GET", "/admin/safety/verify")
    if verified["faults"]:
        raise Broken(f"the records were altered: {verified['faults']}"[:WORDS])
    return f"{len(at.pictures)} pictures read, each judged in these very bytes before; {verified['seals']} seals whole"


async def replayed(at: Gallery) -> str:
    """Edit the policy, and ask what it would have changed in what has passed."""
    at.blocked_id = accepted(await at.visitor.submit(prompt=gallery.ON_STAGE, picture=False))
    for prompt in RECENT:
        await drawn(at, prompt=prompt)
    await records(at, at.blocked_id)
    file = at.scene.stage.course.output / "stricter.yaml"
    file.write_text(gallery.policy_text(gallery.STRICT_AT), encoding="utf-8")
    told = cast(
        "Values", await forestay(at.scene, "safety", "replay", "--policy", str(file), "--since", "1h", "--json")
    )
    changes = cast("list[Values]", told["changes"])
    now_blocked = {str(change["request_id"]) for change in changes if change["after"] == "block"}
    if at.blocked_id not in now_blocked:
        raise Broken(f"the replay does not say that {gallery.ON_STAGE!r} would be blocked")
    return f"{told['judged']} verdicts judged anew under the edited policy: {len(changes)} would change"


async def staged(at: Gallery) -> str:
    """Roll the edited policy out: in shadow, for half of the requests, for all."""
    file = at.scene.stage.course.output / "stricter.yaml"
    name = gallery.POLICY
    await forestay(at.scene, "safety", "policy", "set", name, str(file), "--reason", "stricter about violence")

    async def in_shadow() -> str | None:
        answer = await at.visitor.submit(prompt=gallery.ON_STAGE, picture=False)
        found = await records(at, accepted(answer))
        return "seen" if any(record["shadow"] and record["verdict"] == "block" for record in found) else None

    await at.scene.until("a verdict in shadow", in_shadow, VISIBLE_SECONDS)
    words = [f"shadow: {gallery.ON_STAGE.split()[3]} passes, on record as one that would be blocked"]
    for percent in (50, 100):
        await forestay(at.scene, "safety", "policy", "stage", name, str(percent), "--reason", "as replayed")

        async def felt(percent: int = percent) -> str | None:
            answers = [await at.visitor.submit(prompt=gallery.ON_STAGE, picture=False) for _ in range(8)]
            refusals = sum(answer.status == 422 for answer in answers)
            if refusals == 8 or (percent < 100 and refusals > 0):
                at.blocked_id = next(answer.request_id for answer in answers if answer.status == 422)
                return f"{percent} %: {refusals} of 8 blocked"
            return None

        words.append(await at.scene.until(f"stage {percent} %", felt, VISIBLE_SECONDS))
    return "; ".join(words)


async def _kill_judge(at: Gallery) -> None:
    process = at.scene.stage.platform.judge_running()
    if process is None:
        raise Broken("no judge runs")
    kill(process)


async def _asked(at: Gallery, request_ids: Sequence[str], detector_id: str) -> int:
    """Count the requests for whose input a detector was asked."""
    count = 0
    for request_id in request_ids:
        checks = [
            check
            for record in await records(at, request_id)
            for check in cast("list[Values]", record["checks"])
            if record["point"] == "input"
        ]
        count += any(check["detector"] == detector_id for check in checks)
    return count


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


SCREENINGS: tuple[tuple[str, Screening], ...] = (
    ("policy", policy),
    ("harmless", harmless),
    ("refused", refused),
    ("disguised", disguised),
    ("marker_in", marker_in),
    ("marker_out", marker_out),
    ("known_hash", known_hash),
    ("judge_killed", judge_killed),
    ("replayed", replayed),
    ("staged", staged),
    ("appeal", appeal),
    ("labelled", labelled),
)
