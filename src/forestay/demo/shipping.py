"""The steps of the scenario of rollouts, one function each: what is shipped, and what must come of it.

Each acts as an operator would, by commands and the admin API, and returns the evidence in a line, or raises Broken.
`shipyard` runs them in the order of the table.
"""

import dataclasses
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import cast

from forestay.demo.command import forestay
from forestay.demo.customers import Customers, Entry, Pace
from forestay.demo.promises import SavedFile
from forestay.demo.revisions import GOOD, LEAKING, SUBTLE, Edit, write_revision
from forestay.demo.scene import Scene
from forestay.demo.stage import Broken

# A small shadow, a short proof with wide margins: what a few hundred requests can tell in a minute.
OPTIONS = (
    *("--shadow-requests", "12", "--steps", "20,50", "--step-seconds", "3", "--step-requests", "5"),
    *("--margin-factor", "4", "--watch", "3", "--allowance", "100"),
)
MODEL_ERRORS = frozenset({500})
READY_SECONDS, GATE_SECONDS, SHADOW_SECONDS, CANARY_SECONDS = 120.0, 120.0, 90.0, 150.0
FACT_SECONDS = 30.0
MOST_SHEETS = 4
_LOOK_SECONDS = 0.5
_ENDS = frozenset({"promoted", "rolled_back", "held"})
Values = Mapping[str, object]


@dataclasses.dataclass(slots=True)
class Yard:
    """The platform with its callers, and what was shipped."""

    scene: Scene
    customers: Customers
    rollouts: dict[str, str] = dataclasses.field(default_factory=dict[str, str])  # a revision's name and its rollout
    ended: dict[str, Values] = dataclasses.field(default_factory=dict[str, Values])  # how each stood at its end
    first: dict[str, int] = dataclasses.field(default_factory=dict[str, int])  # the ledger's number when it began


async def serves(yard: Yard) -> str:
    """The model answers; from now on its callers come all the while."""

    async def answers() -> str | None:
        return "ready" if await yard.customers.is_served() else None

    await yard.scene.until("the first picture", answers, READY_SECONDS)
    yard.customers.pace = Pace.GENTLE
    return "the example as it is; one caller at a time now, three while a canary runs"


async def gates(yard: Yard) -> str:
    """A good revision is loaded and checked before any traffic."""
    found = await _begin(yard, GOOD, {"gates"}, GATE_SECONDS)
    told = "; ".join(f"{gate['gate']}: {gate['evidence']}" for gate in cast("list[Values]", found["gates"]))
    return f"{GOOD.told}; {told}"


async def compared(yard: Yard) -> str:
    """It is compared in its shadow, and goes on."""
    return await _compared(yard, GOOD)


async def promoted(yard: Yard) -> str:
    """Its share grows until no harm is proved; then it has all traffic."""
    ended = await _canary(yard, GOOD)
    if ended["stage"] != "promoted":
        raise Broken(f"{ended['stage']}: {ended['reason']}")
    journal = cast("list[Values]", ended["journal"])
    shares = " > ".join(f"{line['weight']:g} %" for line in journal if cast("float", line["weight"]) > 0)
    return f"{shares}; {next(line['reason'] for line in journal if line['stage'] == 'watch')}"


async def subtle(yard: Yard) -> str:
    """A revision whose pictures are wrong, and whose success rate is perfect, is stopped in its shadow."""
    ended = await _begin(yard, SUBTLE, {"gates", "shadow"}, GATE_SECONDS + SHADOW_SECONDS)
    yard.ended[SUBTLE.name] = ended
    if ended["stage"] != "rolled_back" or "stopped in shadow" not in str(ended["reason"]):
        raise Broken(f"{ended['stage']}: {ended['reason']}")
    return str(ended["reason"])


async def unseen(yard: Yard) -> str:
    """Callers' requests of that time were answered by the control, each of them."""
    candidate = str(yard.ended[SUBTLE.name]["candidate"])
    entries = [one for one in yard.customers.ledger.since(yard.first[SUBTLE.name]) if one.request_id and one.status]
    seen = [await _revision(yard, one) for one in entries]
    failed = [one for one in entries if one.status != 200]
    if candidate in seen or failed or not seen:
        raise Broken(f"{seen.count(candidate)} of {len(seen)} saw it; {len(failed)} failed")
    return f"{len(seen)} requests of that time, all answered by {', '.join(sorted(set(seen)))}"


async def passes(yard: Yard) -> str:
    """A third revision passes gates and shadow: a dozen copies are too few for its fault."""
    await _begin(yard, LEAKING, {"gates"}, GATE_SECONDS)
    return f"{LEAKING.told}; {await _compared(yard, LEAKING)}"


async def rolled_back(yard: Yard) -> str:
    """Real traffic breaks it, and its share is taken back by itself; the reason names the size that fails."""
    ended = await _canary(yard, LEAKING)
    if ended["stage"] != "rolled_back":
        raise Broken(f"{ended['stage']}: {ended['reason']}")
    if "errors" not in str(ended["reason"]):
        raise Broken(f"the reason does not name its errors: {ended['reason']}")
    return f"{ended['reason']}. {ended['excess']:.1f} of {ended['allowance']:g} bad answers granted were spent"


async def nothing_lost(yard: Yard) -> str:
    """Every request that was asked was answered; errors are those of the third revision, by the fact of each."""
    yard.customers.pace = Pace.IDLE
    yard.customers.stop()
    ledger = yard.customers.ledger

    async def drained() -> str | None:
        waiting = [one for one in ledger.entries.values() if one.status == 0 and not one.trouble]
        return None if waiting else "drained"

    await yard.scene.until("the last answer", drained, READY_SECONDS)
    lost = ledger.lost(MODEL_ERRORS)
    if lost:
        raise Broken(f"{len(lost)} of {len(ledger.entries)} lost: {lost[0].status} {lost[0].trouble}")
    errors = [one for one in ledger.entries.values() if one.status in MODEL_ERRORS]
    guilty = yard.ended[LEAKING.name]["candidate"]
    strange = [one.request_id for one in errors if await _revision(yard, one) != guilty]
    if strange:
        raise Broken(f"{len(strange)} of {len(errors)} errors are not of {guilty}: {strange[0]}")
    return f"{ledger.told()}; each error is one of {guilty}, by its fact"


async def same_verdicts(yard: Yard) -> str:
    """What was stored gives the same verdicts again."""
    told: list[str] = []
    for name, rollout in yard.rollouts.items():
        again = cast("Values", await forestay(yard.scene, "rollout", "replay", rollout, "--json"))
        told.append(f"{name}: {', '.join(str(part['part']) for part in cast('list[Values]', again['parts']))}")
    return f"they follow again; {'; '.join(told)}"


async def reports(yard: Yard) -> str:
    """Each rollout's page lies beside this one, with its pictures."""
    output = yard.scene.stage.course.output
    for name, rollout in yard.rollouts.items():
        page = output / f"rollout-{name}.html"
        await forestay(yard.scene, "rollout", "report", rollout, "--format", "html", "--out", str(page))
        text = page.read_text(encoding="utf-8")
        missing = [part for part in ("Gates", "Shadow", "Canary", "Timeline", "<svg") if part not in text]
        if missing:
            raise Broken(f"{page.name} says nothing of {', '.join(missing)}")
    sheets = await _sheets(yard, SUBTLE)
    return f"{len(yard.rollouts)} pages and {sheets} contact sheets: control, control again, candidate"


Step = Callable[[Yard], Awaitable[str]]
STEPS: Sequence[tuple[str, Step]] = (
    ("serves", serves),
    ("gates", gates),
    ("compared", compared),
    ("promoted", promoted),
    ("subtle", subtle),
    ("unseen", unseen),
    ("passes", passes),
    ("rolled_back", rolled_back),
    ("nothing_lost", nothing_lost),
    ("same_verdicts", same_verdicts),
    ("reports", reports),
)


async def _begin(yard: Yard, edit: Edit, while_in: set[str], seconds: float) -> Values:
    """Begin the rollout of a revision, and wait until it is in none of these stages any more."""
    course = yard.scene.stage.course
    spec = write_revision(course.fleet.parent / "digits", course.data / "revisions", edit)
    yard.first[edit.name] = len(yard.customers.ledger.entries)
    begun = cast("Values", await forestay(yard.scene, "rollout", "start", str(spec), *OPTIONS, "--json"))
    if not begun["rollout_id"]:
        raise Broken(f"{begun['revision_id']} had nothing to be compared with")
    yard.rollouts[edit.name] = str(begun["rollout_id"])
    return await _until(yard, edit, while_in, seconds)


async def _compared(yard: Yard, edit: Edit) -> str:
    found = await _until(yard, edit, {"gates", "shadow"}, SHADOW_SECONDS)
    if found["stage"] != "canary":
        raise Broken(f"{found['stage']}: {found['reason']}")
    shadow = cast("Values", found["shadow"])
    return f"{shadow['reason']} ({shadow['spent_seconds']:.1f} device-seconds)"


async def _canary(yard: Yard, edit: Edit) -> Values:
    """Let all callers come until the canary is over, and return how it stood then."""
    yard.customers.pace = Pace.BUSY
    try:
        yard.ended[edit.name] = await _until(yard, edit, {"canary", "watch"}, CANARY_SECONDS)
    finally:
        yard.customers.pace = Pace.GENTLE
    return yard.ended[edit.name]


async def _until(yard: Yard, edit: Edit, while_in: set[str], seconds: float) -> Values:
    """Look at a rollout, and show how it stands, until it is in none of these stages."""
    scene, clock = yard.scene, yard.scene.clock
    deadline, shown = clock.monotonic() + seconds, ""
    while True:
        found = await scene.ask("GET", f"/admin/rollouts/{yard.rollouts[edit.name]}")
        line = f"{edit.name}: {found['stage']} at {found['weight']:g} %"
        if line != shown:
            scene.stage.course.screen.note(f"{line}: {found['reason']}")
            shown = line
        if found["stage"] not in while_in:
            return found
        if clock.monotonic() > deadline:
            raise Broken(f"still in {found['stage']} after {seconds:.0f} s: {found['reason']}")
        await clock.sleep(_LOOK_SECONDS)


async def _revision(yard: Yard, entry: Entry) -> str:
    """Return the revision that ran a request, by the platform's fact of it."""
    found: Values = {}

    async def look() -> str | None:
        nonlocal found
        status, text = await yard.scene.try_to("GET", f"/admin/requests/{entry.request_id}")
        if status == 404:  # a direct call is known by its fact alone, which is written a moment later
            return None
        if status != 200:
            raise Broken(f"/admin/requests/{entry.request_id} answered {status}")
        found = cast("Values", json.loads(text))
        return "there" if found.get("fact") else None

    await yard.scene.until(f"the fact of {entry.request_id}", look, FACT_SECONDS)
    return str(cast("Values", found["fact"])["revision_id"])


async def _sheets(yard: Yard, edit: Edit) -> int:
    """Keep the contact sheets of the requests that differ most beside the page."""
    name, stage = yard.rollouts[edit.name], yard.scene.stage
    told = await yard.scene.ask("GET", f"/admin/rollouts/{name}/report")
    shown = cast("list[Values]", cast("Values", told["shadow"])["divergences"])[:MOST_SHEETS]
    for number, item in enumerate(one for one in shown if one["has_sheet"]):
        data = await yard.scene.fetch(f"/admin/rollouts/{name}/sheets/{item['request_id']}")
        file = SavedFile(
            f"sheet-{number}.png", f"{edit.name}, {item['stratum']}: {item['measure']} {item['excess']:.0f}x"
        )
        (stage.course.output / file.name).write_bytes(data)
        stage.files.append(file)
    if not stage.files:
        raise Broken("no contact sheet of what differs was kept")
    return len(stage.files)
