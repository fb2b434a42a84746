"""The steps of the scenario of quality, one function each: which fault is put in, and what must come of it.

Each acts as an operator or a caller would and returns the evidence in a line, or raises Broken. `game_day` runs them in
the order of the table. Faults are put in by `forestay drill`, but for the last, which is a deploy.
"""

import asyncio
import dataclasses
import io
import json
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import cast

import aiohttp
from PIL import Image

from forestay.demo import workshop
from forestay.demo.command import forestay, said
from forestay.demo.promises import SavedFile
from forestay.demo.receiver import Receiver, is_genuine, read_jwks
from forestay.demo.scene import Scene
from forestay.demo.side_by_side import Side, numbers_of, rows_of, told_of
from forestay.demo.stage import Broken
from forestay.demo.tenants import Ended, Tenant, ask_all
from forestay.demo.workshop import DIGITS, MOTION, TONES

READY_SECONDS, FOUND_SECONDS, READ_SECONDS, PUT_IN_SECONDS = 120.0, 45.0, 60.0, 30.0
BROKEN_CALLS = 4  # one more than the detector of broken contracts needs where it has no reference yet
QUIET_SECONDS = 3.0  # in which a loop that runs every second would have acted
SCHEDULERS = frozenset({9, 10, 11, 12, 13})  # rows of the catalogue that are a scheduler's or its settings'
Values = Mapping[str, object]


@dataclasses.dataclass(slots=True)
class Floor:
    """The platform with its two tenants, and what was seen."""

    scene: Scene
    one: Tenant
    other: Tenant
    receiver: Receiver
    bad: Values = dataclasses.field(default_factory=dict[str, object])  # the replica that is drained
    revision_id: str = ""  # the one that every replica runs at first
    asked: int = 0  # outputs that the detectors must have seen
    healthy: dict[str, SavedFile] = dataclasses.field(default_factory=dict[str, SavedFile])
    drills: list[str] = dataclasses.field(default_factory=list[str])
    sides: list[Side] = dataclasses.field(default_factory=list[Side])
    shown: dict[str, str] = dataclasses.field(default_factory=dict[str, str])  # a command and what it printed

    @property
    def tenants(self) -> Sequence[Tenant]:
        """Return both."""
        return self.one, self.other


async def learned(floor: Floor) -> str:
    """Serve healthy outputs until the detectors have their reference, on both workers; keep one of each kind."""
    await forestay(floor.scene, "fleet", "mode", "quality", "act", "--json")
    asked = workshop.pictures(workshop.LEARNING, skewed=False, first_seed=1_000)
    async with asyncio.TaskGroup() as group:
        group.create_task(_first(floor, MOTION, workshop.film(), "film.mp4"))
        group.create_task(_first(floor, TONES, workshop.sound(), "sound.wav"))
        drawn = group.create_task(ask_all(floor.tenants, DIGITS, asked))
    await _keep(floor, DIGITS, workshop.picture(**workshop.HEALTHY), "seven.png")
    await _keep(floor, DIGITS, workshop.picture(**workshop.SECOND), "three.png", floor.other)
    floor.asked += workshop.PAIR * len(drawn.result())
    await floor.scene.until("two replicas of the picture model", lambda: _two_ready(floor), READY_SECONDS)
    await _read(floor)
    await _nothing_found(floor)
    replicas = await _replicas(floor, DIGITS)
    floor.revision_id = str(replicas[0]["revision_id"])
    return (
        f"{floor.asked} outputs of two tenants followed, the first {workshop.REFERENCE} pictures are the reference; "
        f"replicas on {', '.join(sorted(str(item['worker_id']) for item in replicas))}; nothing stands against any"
    )


async def mix(floor: Floor) -> str:
    """Ask for the same three prompts nine times of ten: nothing may be found."""
    asked = workshop.pictures(workshop.MIXED, skewed=True, first_seed=20_000)
    floor.asked += workshop.PAIR * len(await ask_all(floor.tenants, DIGITS, asked))
    await _read(floor)
    await floor.scene.clock.sleep(QUIET_SECONDS)
    await _nothing_found(floor)
    return f"{workshop.PAIR * len(asked)} pictures, 9 of 10 of three prompts out of {len(workshop.PROMPTS)}: quiet"


async def overflow(floor: Floor) -> str:
    """Half precision overflows on one worker: callers get good pictures, and it is named with its stage."""
    floor.bad = min(await _replicas(floor, DIGITS), key=lambda item: str(item["worker_id"]))
    worker = str(floor.bad["worker_id"])
    await _drill(floor, "half-overflows-in-the-denoiser", DIGITS, worker)
    ended = await ask_all(floor.tenants, DIGITS, workshop.pictures(8, skewed=False, first_seed=30_000))
    lights = [_brightest(await floor.one.file(url)) for item in ended for url in item.urls]
    if min(lights) < 30:
        raise Broken(f"a caller got a black picture: brightest values {lights}")
    found = await _found(floor, DIGITS, lambda row: row["source"] == "probe" and row["catalogue"] == 1)
    where = _where(found)
    expect = {"worker_id": worker, "replica_id": floor.bad["replica_id"], "parameter": "stage=denoiser"}
    _same(where, expect)
    await _beside(floor, "half precision overflows on one worker", "seven.png", None, found,
                  "tried again on another replica, which drew it well")  # fmt: skip
    return f"{len(lights)} of {len(lights)} pictures whole; {told_of(found)}"


async def drained(floor: Floor) -> str:
    """The loop drains it and holds its worker back, with the reason; then the drill is over."""
    worker = floor.bad["worker_id"]

    async def held() -> str | None:
        holds = cast("list[Values]", (await floor.scene.ask("GET", "/admin/quality/holds"))["holds"])
        gone = all(item["replica_id"] != floor.bad["replica_id"] for item in await _replicas(floor, DIGITS))
        mine = [item for item in holds if item["worker_id"] == worker]
        return str(mine[0]["reason"]) if mine and gone else None

    reason = await floor.scene.until(f"the drain on {worker}", held, FOUND_SECONDS)
    left = await _replicas(floor, DIGITS)
    await _stop_drills(floor)
    await _show(floor, "quality", "status")
    return f"{worker} is held back, {len(left)} serves on: {reason}"


async def leak(floor: Floor) -> str:
    """An adapter stays in the pipeline: found at the next request; the last replica that serves is not drained."""
    last = await _last(floor)
    await _drill(floor, "an-adapter-is-left-in", DIGITS, str(last["worker_id"]))
    await _keep(floor, DIGITS, workshop.picture(**workshop.HEALTHY), "seven-leaked.png")
    found = await _found(floor, DIGITS, lambda row: row["catalogue"] == 23)
    _same(_where(found), {"replica_id": last["replica_id"], "parameter": "adapter=leaked"})
    await floor.scene.clock.sleep(QUIET_SECONDS)
    if last["replica_id"] not in {item["replica_id"] for item in await _replicas(floor, DIGITS)}:
        raise Broken("the last replica that served was drained")
    await _stop_drills(floor)
    await _beside(floor, "an adapter stays in the pipeline", "seven.png", "seven-leaked.png", found)
    return f"{told_of(found)}; not drained: none else serves"


async def repeated(floor: Floor) -> str:
    """A cache hands one tenant's picture to another: a page, which tells neither picture nor tenant."""
    last = await _last(floor)
    await _drill(floor, "first-answer-again-and-again", DIGITS, str(last["worker_id"]))
    await _keep(floor, DIGITS, workshop.picture(**workshop.FIRST), "four.png")
    await _keep(floor, DIGITS, workshop.picture(**workshop.SECOND), "three-repeated.png", floor.other)
    found = await _found(floor, DIGITS, lambda row: row["source"] == "duplicate")
    if not cast("Values", found["evidence"]).get("across_tenants"):
        raise Broken(f"it was not seen that it was another tenant's: {found['what']}")
    if any(name in str(found) for name in (workshop.ONE, workshop.OTHER, "green four")):
        raise Broken("the finding tells a tenant or a prompt")
    _same(_where(found), {"replica_id": last["replica_id"]})
    await _stop_drills(floor)
    await _beside(floor, "one tenant's picture for another", "three.png", "three-repeated.png", found)
    return told_of(found)


async def frozen(floor: Floor) -> str:
    """A film that stands still."""
    return await _never_handed_out(floor, MOTION, ("clip-is-frozen", "frozen", 40, "film.mp4"), workshop.film)


async def silent(floor: Floor) -> str:
    """A sound that says nothing."""
    return await _never_handed_out(floor, TONES, ("sound-is-silent", "silent", 42, "sound.wav"), workshop.sound)


async def revision(floor: Floor) -> str:
    """Deploy a revision with a wrong scheduler setting: its canaries find it, and name the setting first."""
    folder = floor.scene.stage.course.fleet.parent / workshop.FOLDERS[DIGITS]
    wrong = folder.with_name("digits_wrong")
    shutil.copytree(folder, wrong)
    workshop.set_wrong(wrong)
    await said(floor.scene, "deploy", str(wrong / "model.yaml"))

    async def moved() -> str | None:
        new = [item for item in await _replicas(floor, DIGITS) if item["revision_id"] != floor.revision_id]
        return str(new[0]["revision_id"]) if new else None

    new = await floor.scene.until("a replica of the new revision", moved, READY_SECONDS)
    since = floor.scene.clock.monotonic()
    whole = {"revision_id": new, "replica_id": ""}
    found = await _found(floor, DIGITS, lambda row: row["source"] == "canary" and whole.items() <= _where(row).items())
    seconds = floor.scene.clock.monotonic() - since
    first = rows_of(found)[0]
    if first not in SCHEDULERS or workshop.SETTING not in str(found["what"]):
        raise Broken(f"row {first} is named first, not a scheduler's, or not {workshop.SETTING}: {told_of(found)}")

    await _keep(floor, DIGITS, workshop.picture(**workshop.HEALTHY), "seven-revision.png")
    await _show(floor, "quality", "explain", DIGITS)
    await _beside(floor, "a new revision with a wrong beta_end", "seven.png", "seven-revision.png", found)
    return f"row {first} named first, {seconds:.1f} s after its first replica was ready; {told_of(found)}"


async def alerted(floor: Floor) -> str:
    """Every alert came once, and genuine."""
    ready = floor.scene.ready
    async with aiohttp.ClientSession(ready.url) as calls, calls.get("/rest/.well-known/jwks.json") as answer:
        keys = read_jwks(cast("Values", await answer.json()))
    false = [one.request_id for one in floor.receiver.deliveries if not is_genuine(one, keys)]
    items = [item for one in floor.receiver.deliveries for item in cast("list[Values]", one.payload()["items"])]
    opened = Counter(str(item["alert_id"]) for item in items if item["transition"] == "opened")
    twice = [alert for alert, count in opened.items() if count > 1]
    names = Counter(str(item["name"]) for item in items if item["transition"] == "opened")
    if false or twice or not {"outputs_degraded", "outputs_repeated", "replica_held_back"} <= set(names):
        raise Broken(f"{len(false)} signatures do not verify, told twice: {twice}, told: {dict(names)}")
    return f"{len(opened)} alerts, each opened once: " + ", ".join(f"{count} {name}" for name, count in names.items())


async def record(floor: Floor) -> str:
    """Every drill is over, was in force where it was aimed and nowhere else, and stands in the audit log."""
    rows = cast("list[Values]", await forestay(floor.scene, "drill", "list", "--json"))
    running = [row["drill_id"] for row in rows if row["running"]]
    wide = [row["drill_id"] for row in rows if len(cast("Values", row["replicas"])) != 1]
    log = json.dumps(await forestay(floor.scene, "audit", "list", "--json"))
    off_record = [drill for drill in floor.drills if f"drill:{drill}" not in log]
    if running or wide or off_record or len(rows) != len(floor.drills):
        raise Broken(f"running {running}, not in one replica {wide}, not on record {off_record}")
    await _show(floor, "drill", "list")
    return f"{len(rows)} drills, each in one replica, begun and stopped on record with its reason"


Step = Callable[[Floor], Awaitable[str]]
STEPS: Sequence[tuple[str, Step]] = (
    ("learned", learned),
    ("mix", mix),
    ("overflow", overflow),
    ("drained", drained),
    ("leak", leak),
    ("repeated", repeated),
    ("frozen", frozen),
    ("silent", silent),
    ("revision", revision),
    ("alerted", alerted),
    ("record", record),
)


async def _never_handed_out(
    floor: Floor, model: str, fault: tuple[str, str, int, str], asked: Callable[[int], Values]
) -> str:
    """Put a fault of files in; calls fail with the check's name, and the row is named. Then it works again."""
    name, check, row, healthy = fault
    [replica] = await _replicas(floor, model)
    await _drill(floor, name, model, str(replica["worker_id"]))
    ended = [await floor.one.run(model, asked(seed)) for seed in range(100, 100 + BROKEN_CALLS)]
    told = {(item.status, item.headers.get("x-forestay-output-check")) for item in ended}
    if told != {(502, check)}:
        raise Broken(f"broken outputs were answered {told}")
    found = await _found(floor, model, lambda one: one["catalogue"] == row)
    _same(_where(found), {"revision_id": replica["revision_id"]})
    await _stop_drills(floor)
    if (await floor.one.run(model, asked(99))).status != 200:
        raise Broken("it is broken still though the drill is over")
    await _beside(floor, name.replace("-", " "), healthy, None, found, _detail(ended[0]))
    return f"502, x-forestay-output-check: {check}; {told_of(found)}"


async def _drill(floor: Floor, fault: str, model: str, worker: str) -> None:
    """Start a drill on a worker and wait until its replica says that the fault is in force."""
    on = ("--model", model, "--worker", worker, "--for", "5m", "--reason", "the demonstration")
    begun = cast("Values", await forestay(floor.scene, "drill", "start", fault, *on, "--json"))
    floor.drills.append(str(begun["drill_id"]))
    floor.scene.stage.course.screen.note(f"$ forestay drill start {fault} --model {model} --worker {worker}")

    async def in_force() -> str | None:
        states = set((await _states(floor))[floor.drills[-1]].values())
        if states - {"in force"}:
            raise Broken(f"{fault}: {states}")
        return "in force" if states else None

    await floor.scene.until(f"{fault} on {worker}", in_force, PUT_IN_SECONDS)


async def _stop_drills(floor: Floor) -> None:
    """Stop the last drill and wait until its fault is out, or its replica gone."""
    drill = floor.drills[-1]
    await forestay(floor.scene, "drill", "stop", drill, "--reason", "seen enough", "--json")
    gone = floor.bad.get("replica_id")

    async def out() -> str | None:
        said_by = (await _states(floor))[drill]
        return "out" if all(words == "ended" or name == gone for name, words in said_by.items()) else None

    await floor.scene.until(f"the end of {drill}", out, PUT_IN_SECONDS)


async def _states(floor: Floor) -> dict[str, dict[str, str]]:
    rows = cast("list[Values]", (await floor.scene.ask("GET", "/admin/drills"))["drills"])
    return {str(row["drill_id"]): cast("dict[str, str]", row["replicas"]) for row in rows}


async def _keep(floor: Floor, model: str, body: Values, name: str, tenant: Tenant | None = None) -> None:
    """Ask for one output and keep its file beside the page."""
    asker = tenant or floor.one
    ended = await asker.ask(model, body)
    if ended.status != 200:
        raise Broken(f"{model} answered {ended.status}: {ended.values}"[:300])
    await _save(floor, asker, ended, name)


async def _first(floor: Floor, model: str, body: Values, name: str) -> None:
    """Load a model by calling it directly: requests that wait would have it grow to a second replica."""

    async def answered() -> str | None:
        ended = await floor.one.run(model, body)
        if ended.status == 200:
            await _save(floor, floor.one, ended, name)
        return "answered" if ended.status == 200 else None

    await floor.scene.until(f"the first answer of {model}", answered, READY_SECONDS)


async def _save(floor: Floor, asker: Tenant, ended: Ended, name: str) -> None:
    (floor.scene.stage.course.output / name).write_bytes(await asker.file(ended.urls[0]))
    floor.healthy[name] = SavedFile(name, name.rpartition(".")[0].replace("-", ", "))
    floor.asked += 1


async def _read(floor: Floor) -> None:
    """Wait until the detectors have taken everything that was made."""
    ready = cast(
        "Mapping[str, Mapping[str, str]]", json.loads((floor.scene.stage.course.data / "ready.json").read_text())
    )
    url = ready["metrics_urls"]["controller"]

    async def all_read() -> str | None:
        async with aiohttp.ClientSession() as calls, calls.get(url) as answer:
            lines = (await answer.text()).splitlines()
        taken = sum(float(one.rpartition(" ")[2]) for one in lines if one.startswith("forestay_quality_outputs_total"))
        return "all" if taken >= floor.asked else None

    await floor.scene.until(f"the reading of {floor.asked} outputs", all_read, READ_SECONDS)


async def _two_ready(floor: Floor) -> str | None:
    replicas = await _replicas(floor, DIGITS)
    return "ready" if len({item["worker_id"] for item in replicas}) == 2 else None


async def _replicas(floor: Floor, model: str) -> list[Values]:
    """Return a model's replicas that serve."""
    rows = cast("list[Values]", (await floor.scene.ask("GET", "/admin/fleet"))["replicas"])
    return [row for row in rows if row["model_id"] == model and row["state"] == "ready"]


async def _last(floor: Floor) -> Values:
    """Return the one replica of the picture model that serves while the other's worker is held back."""
    serving = await _replicas(floor, DIGITS)
    if len(serving) != 1:
        raise Broken(f"{len(serving)} replicas serve, not 1: the drained one is back before this was shown")
    return serving[0]


async def _findings(floor: Floor, model: str) -> list[Values]:
    path = f"/admin/quality/findings?hours=1&closed=1&model={model}"
    return cast("list[Values]", (await floor.scene.ask("GET", path))["findings"])


async def _nothing_found(floor: Floor) -> None:
    found = [row["what"] for model in workshop.FOLDERS for row in await _findings(floor, model)]
    if found:
        raise Broken(f"found though all is well: {found}"[:400])


async def _found(floor: Floor, model: str, wanted: Callable[[Values], bool], seconds: float = FOUND_SECONDS) -> Values:
    """Wait for a finding; Broken tells what was found instead."""
    seen: list[Values] = []

    async def look() -> str | None:
        seen[:] = await _findings(floor, model)
        found = [row for row in seen if wanted(row)]
        return json.dumps(found[0]) if found else None

    try:
        return cast("Values", json.loads(await floor.scene.until("the finding", look, seconds)))
    except Broken as error:
        raise Broken(f"{error}; found: {[(row['catalogue'], row['source']) for row in seen]}") from None


async def _beside(floor: Floor, title: str, healthy: str, faulty: str | None, found: Values, instead: str = "") -> None:
    shown = floor.healthy[faulty] if faulty is not None else None
    floor.sides.append(Side(title, floor.healthy[healthy], shown, instead, f"{told_of(found)} {numbers_of(found)}"))


async def _show(floor: Floor, *words: str) -> None:
    """Run a command, and keep what it prints for the page."""
    floor.shown[f"forestay {' '.join(words)}"] = await said(floor.scene, *words)


def _where(row: Values) -> Values:
    return cast("Values", row["where"])


def _same(where: Values, expected: Values) -> None:
    wrong = {name: where.get(name) for name, value in expected.items() if where.get(name) != value}
    if wrong:
        raise Broken(f"it is said to be at {wrong}, and is at {dict(expected)}")


def _detail(ended: Ended) -> str:
    return str(ended.values.get("detail") or ended.values)[:200]


def _brightest(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as picture:
        return max(high for _, high in cast("Sequence[tuple[int, int]]", picture.convert("RGB").getextrema()))
