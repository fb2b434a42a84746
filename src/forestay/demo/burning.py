"""The steps of the scenario of objectives, one function each: what is done, and what must come of it.

Each acts as a caller or an operator would and returns the evidence in a line, or raises Broken. `watch` runs them in
the order of the table. What was answered is compared with what the commands, the receiver and the collector say.
"""

import asyncio
import dataclasses
import datetime as dt
import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import cast

import aiohttp

from forestay.demo import studio
from forestay.demo.command import forestay, said
from forestay.demo.receiver import Delivery, Receiver, is_genuine, read_jwks
from forestay.demo.scene import Scene
from forestay.demo.second_opinion import second_opinion
from forestay.demo.stage import Broken
from forestay.demo.studio import BUSY, MODELS, PORTRAIT, POSTER, SKETCH
from forestay.slo.model import Counts, Minute
from forestay.slo.prometheus import EVIDENCE_METRIC

BUSY_BAD, THIN_BAD, MENDING, OWN_ERRORS = 40, 4, 240, 12
AT_ONCE = 8
READY_SECONDS, ROLLED_SECONDS, TOLD_SECONDS = 60.0, 60.0, 40.0
MINUTE_SECONDS = 90.0  # a minute must be over, and rolled up, before it says anything
SLO_FOLDER = "slos"
SPAN_ID = "b7ad6b7169203331"
_EPOCH = Minute(0)
Values = Mapping[str, object]
Minutes = dict[str, dict[Minute, Counts]]


@dataclasses.dataclass(slots=True)
class Desk:
    """The platform with a caller and a receiver, and what was seen."""

    scene: Scene
    calls: aiohttp.ClientSession
    receiver: Receiver
    first_live: Minute = _EPOCH  # what comes before was ingested
    last_live: Minute = _EPOCH  # in it the last of the harm was done
    minutes: Minutes = dataclasses.field(default_factory=dict[str, dict[Minute, Counts]])
    shown: dict[str, str] = dataclasses.field(default_factory=dict[str, str])  # a command and what it printed
    alert_ids: dict[str, str] = dataclasses.field(default_factory=dict[str, str])  # by model


async def history(desk: Desk) -> str:
    """Ingest six hours of facts, wait until they are rolled up; then write SLOs, and deploy the models they are of."""
    scene = desk.scene
    desk.first_live = Minute(int(scene.clock.now().timestamp()) // 60)
    past = studio.history(desk.first_live)
    file = scene.stage.course.output / "edge.jsonl"
    file.write_text("\n".join(studio.facts(past)) + "\n", encoding="utf-8")
    sent = cast(
        "Values",
        await forestay(scene, "observe", "ingest", str(file), "--format", "jsonl", "--source", studio.SOURCE, "--json"),
    )
    wanted = {model: sum(count.total for count in minutes.values()) for model, minutes in past.items()}

    async def rolled() -> str | None:
        found = cast("dict[str, Values]", (await _summary(desk, desk.first_live - 400, desk.first_live))["models"])
        return "rolled" if all(found.get(m, {}).get("requests") == n for m, n in wanted.items()) else None

    await scene.until("rolling up what was ingested", rolled, ROLLED_SECONDS)
    objectives = scene.stage.course.output / SLO_FOLDER / "demo.yaml"
    objectives.with_suffix(".new").write_text(studio.slos(), encoding="utf-8")
    objectives.with_suffix(".new").replace(objectives)  # the controller reads it within seconds, and never half of it
    await said(scene, "slo", "lint", str(objectives))
    data = studio.bundle()
    digest = hashlib.sha256(data).hexdigest()
    await scene.ask("PUT", f"/admin/bundles/{digest}", data=data)
    for model in MODELS:
        await scene.ask("POST", "/admin/models", {"spec": studio.spec(model), "digest": digest})
    statuses = await asyncio.gather(*(_ready(desk, model) for model in MODELS))
    return (
        f"{sent['kept']} facts taken; {len(statuses)} models deployed, each with an SLO of 99 % from a file of our own"
    )


async def told(desk: Desk) -> str:
    """The poster failed in what was ingested: its alert came, and is acknowledged."""
    words = await _delivered(desk, POSTER, "opened", TOLD_SECONDS)
    alert_id = desk.alert_ids[POSTER]
    await forestay(desk.scene, "alert", "ack", alert_id, "--reason", "the driver of one GPU is replaced")
    return f"{words} Acknowledged."


async def hurt(desk: Desk) -> str:
    """Fail the busy and the thin model; one bad request for the sketch; good ones for the poster, which is mended."""
    bad = {BUSY: BUSY_BAD, PORTRAIT: THIN_BAD, SKETCH: 1}
    for model, count in bad.items():
        answers = await _run(desk, model, [{"prompt": "x", "fail": True}] * count)
        if set(answers) != {500}:
            raise Broken(f"{model} answered {dict(Counter(answers))}")
    refused = await _run(desk, SKETCH, [{"prompt": "x", "seconds": "long"}] * OWN_ERRORS)
    if set(refused) != {422}:
        raise Broken(f"callers' own errors were answered {dict(Counter(refused))}")
    await _cancelled(desk)
    served = await _run(desk, POSTER, [{"prompt": "a poster"}] * MENDING)
    if set(served) != {200}:
        raise Broken(f"the poster answered {dict(Counter(served))}")
    desk.last_live = Minute(int(desk.scene.clock.now().timestamp()) // 60)
    failed = ", ".join(f"{count} of {model}" for model, count in bad.items())
    return f"failed: {failed}; {OWN_ERRORS} refused inputs, one cancelled; {MENDING} good ones of {POSTER}"


async def trace(desk: Desk) -> str:
    """Send a context along; the model, the waterfall and the collector must all name it."""
    trace_id = hashlib.sha256(str(desk.scene.stage.course.data).encode()).hexdigest()[:32]
    headers = {"traceparent": f"00-{trace_id}-{SPAN_ID}-01"}
    path = f"/queue/{BUSY}"
    async with desk.calls.post(path, json={"prompt": "follow me", "seconds": 0.3}, headers=headers) as answer:
        request_id = str(cast("Values", await answer.json())["request_id"])

    async def result() -> str | None:
        async with desk.calls.get(f"{path}/requests/{request_id}") as found:
            text = await found.text()
            return text if found.status == 200 and "traceparent" in text else None

    heard = str(json.loads(await desk.scene.until("the result", result, READY_SECONDS))["traceparent"])

    async def whole() -> str | None:
        found = await desk.scene.ask("GET", f"/admin/requests/{request_id}/trace")
        return json.dumps(found["spans"]) if found["ended"] else None

    spans = cast("list[Values]", json.loads(await desk.scene.until("the trace", whole, TOLD_SECONDS)))
    named = {str(span["name"]): span for span in spans}
    await _show(desk, "request", "trace", request_id)
    if {span["trace_id"] for span in spans} != {trace_id} or named["request"]["parent_id"] != SPAN_ID:
        raise Broken("the trace is not the caller's")
    if heard != f"00-{trace_id}-{named['model']['span_id']}-01":
        raise Broken(f"the model was told {heard}")

    async def collected() -> str | None:
        found = {str(span["spanId"]) for span in desk.receiver.spans if span["traceId"] == trace_id}
        return "all" if {str(span["span_id"]) for span in spans} <= found else None

    await desk.scene.until("the trace's coming to the collector", collected, TOLD_SECONDS)
    return f"trace {trace_id}: {', '.join(named)}; the model read it, and the collector has all {len(spans)} spans"


async def busy(desk: Desk) -> str:
    """The busy model pages, by a rule, in words that say who is hurt."""

    async def over() -> str | None:
        return "over" if await _last_minute(desk) >= desk.last_live else None

    await desk.scene.until("the end of the minute of the harm", over, MINUTE_SECONDS)
    words = await _delivered(desk, BUSY, "opened", TOLD_SECONDS)
    finding = await _finding(desk, BUSY)
    if "fast" not in cast("list[str]", finding["rules"]):
        raise Broken(f"it was not a rule that spoke: {finding['rules']}")
    return words


async def thin(desk: Desk) -> str:
    """The thin model pages, by evidence alone."""
    words = await _delivered(desk, PORTRAIT, "opened", TOLD_SECONDS)
    finding = await _finding(desk, PORTRAIT)
    if finding["rules"] != ["evidence"]:
        raise Broken(f"it was not evidence alone that spoke: {finding['rules']}")
    for words_of in (("slo", "status"), ("slo", "explain", "busy"), ("slo", "explain", "portrait")):
        await _show(desk, *words_of)
    return words


async def stayed(desk: Desk) -> str:
    """A new revision of the busy model, whose budget is spent, may not begin: the rollout says which budget and why."""
    folder = desk.scene.stage.course.output / "next"
    folder.mkdir(exist_ok=True)
    (folder / "app.py").write_bytes(studio.APP)
    spec = {**studio.spec(BUSY), "description": "The next revision."}
    (folder / "model.yaml").write_text(json.dumps(spec), encoding="utf-8")  # JSON is YAML
    rollout = (await said(desk.scene, "rollout", "start", str(folder / "model.yaml"))).strip()

    async def held() -> str | None:
        found = cast("Values", await forestay(desk.scene, "rollout", "status", rollout, "--json"))
        gates = {str(gate["gate"]): gate for gate in cast("list[Values]", found["gates"])}
        if found["weight"] or found["stage"] != "gates":
            raise Broken(f"the rollout of {BUSY} is at {found['stage']}, {found['weight']} %")
        evidence = str(gates.get("budget", {}).get("evidence", ""))
        return evidence if evidence.startswith("held by freeze") else None

    words = await desk.scene.until("the budget's word on the rollout", held, TOLD_SECONDS)
    await _show(desk, "slo", "decisions")
    await _show(desk, "rollout", "status", rollout)
    await said(desk.scene, "rollout", "abort", rollout, "--reason", "the demo has seen it held")
    return words


async def single(desk: Desk) -> str:
    """The sketch had one bad request: the rule is held, and nobody was told."""
    row = await _standing(desk, SKETCH)
    finding = await _finding(desk, SKETCH)
    burns = cast("dict[str, float]", row["burns"])
    if row["word"] != "held" or any(subject == SKETCH for subject, _ in _transitions(desk)):
        raise Broken(f"it stands at {row['word']}: {finding['reason']}")
    if min(burns["5"], burns["60"]) <= 14.4:
        raise Broken(f"the workbook's rule would not have spoken either: {burns}")
    await _show(desk, "slo", "explain", "sketch")
    pace = f"{burns['60']:.3g}x in 1 h, {burns['5']:.3g}x in 5 min"
    return f"{finding['reason']} The workbook's rule asks for 14.4x in both its windows, and would have paged: {pace}."


async def neither(desk: Desk) -> str:
    """What callers did themselves is counted apart; then keep the minutes for the pictures and the second opinion."""
    last = await _last_minute(desk)
    desk.minutes = {model: dict(found) for model, found in studio.history(desk.first_live).items()}
    apart: Counter[str] = Counter()
    for minute in range(desk.first_live, last + 1):
        models = cast("dict[str, Values]", (await _summary(desk, minute, minute + 1))["models"])
        for model in MODELS:
            good, bad, excluded = cast("list[int]", models.get(model, {}).get("availability") or [0, 0, 0])
            apart[model] += excluded
            if good or bad:
                desk.minutes[model][Minute(minute)] = Counts(good=good, bad=bad)
    if apart[SKETCH] != OWN_ERRORS + 1:
        raise Broken(f"{apart[SKETCH]} of {SKETCH} are counted as neither, not {OWN_ERRORS + 1}")
    row = await _standing(desk, SKETCH)
    return f"{apart[SKETCH]} of {SKETCH} count as neither; its SLO counts {row['bad']:g} bad of {row['events']:g}"


async def mended(desk: Desk) -> str:
    """The poster serves well again: its alert is over."""
    words = await _delivered(desk, POSTER, "resolved", TOLD_SECONDS)
    row = await _standing(desk, POSTER)
    return f"{words} It stands at {row['word']}, {cast('float', row['left_ratio']):.0%} of the budget left"


async def genuine(desk: Desk) -> str:
    """Signatures verify, and no transition of an alert came to the receiver twice."""
    async with desk.calls.get("/rest/.well-known/jwks.json") as answer:
        keys = read_jwks(cast("Values", await answer.json()))
    false = [one.request_id for one in desk.receiver.deliveries if not is_genuine(one, keys)]
    ids = Counter(str(item["id"]) for one in desk.receiver.deliveries for item in _items(one))
    if false or not ids or max(ids.values()) > 1:
        raise Broken(f"{len(false)} signatures do not verify; told twice: {[i for i, n in ids.items() if n > 1]}")
    return f"{len(ids)} news in {len(desk.receiver.deliveries)} notifications, each once and genuine"


async def prometheus(desk: Desk) -> str:
    """Have the exported rules look at the same minutes."""
    rows = {model: str((await _standing(desk, model))["word"]) for model in MODELS}
    last = max(minute for minutes in desk.minutes.values() for minute in minutes)
    with_gauge = await _gauges(desk)
    if with_gauge[PORTRAIT] < 1 or with_gauge[SKETCH] >= 1:
        raise Broken(f"the exported evidence says otherwise: {with_gauge}")
    return await asyncio.to_thread(second_opinion, desk.minutes, last, rows, desk.scene.stage.course.output)


Step = Callable[[Desk], Awaitable[str]]
STEPS: Sequence[tuple[str, Step]] = (
    ("history", history),
    ("told", told),
    ("hurt", hurt),
    ("trace", trace),
    ("busy", busy),
    ("thin", thin),
    ("stayed", stayed),
    ("single", single),
    ("neither", neither),
    ("mended", mended),
    ("genuine", genuine),
    ("prometheus", prometheus),
)


async def _run(desk: Desk, model: str, bodies: Sequence[Values]) -> list[int]:
    """Make calls, a few at once, and return how they were answered."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(body: Values) -> int:
        async with gate, desk.calls.post(f"/run/{model}", json=body) as answer:
            await answer.read()
            return answer.status

    return list(await asyncio.gather(*(one(body) for body in bodies)))


async def _show(desk: Desk, *words: str) -> None:
    """Run a command, show what it prints, and keep it for the page."""
    command = f"forestay {' '.join(words)}"
    desk.shown[command] = await said(desk.scene, *words)
    for line in (f"$ {command}", *desk.shown[command].splitlines()):
        desk.scene.stage.course.screen.note(line)


async def _ready(desk: Desk, model: str) -> str:
    async def answers() -> str | None:
        return "ready" if await _run(desk, model, [{"prompt": "hello"}]) == [200] else None

    return await desk.scene.until(f"the first answer of {model}", answers, READY_SECONDS)


async def _cancelled(desk: Desk) -> None:
    path = f"/queue/{SKETCH}"
    async with desk.calls.post(path, json={"prompt": "never mind", "seconds": 20}) as answer:
        request_id = str(cast("Values", await answer.json())["request_id"])
    async with desk.calls.put(f"{path}/requests/{request_id}/cancel") as answer:
        if answer.status not in {200, 202}:
            raise Broken(f"the cancel was answered {answer.status}")


async def _gauges(desk: Desk) -> dict[str, float]:
    """Return the evidence of each model as the controller exports it to a Prometheus."""
    ready = cast(
        "Mapping[str, Mapping[str, str]]", json.loads((desk.scene.stage.course.data / "ready.json").read_text())
    )
    async with desk.calls.get(ready["metrics_urls"]["controller"]) as answer:
        text = await answer.text()
    found: dict[str, float] = {}
    for model in MODELS:
        name = f'{EVIDENCE_METRIC}{{severity="page",slo="{model.partition("/")[2]}-available"}} '
        [line] = [one for one in text.splitlines() if one.startswith(name)]
        found[model] = float(line.removeprefix(name))
    return found


async def _summary(desk: Desk, since: int, until: int) -> Values:
    return await desk.scene.ask("GET", f"/admin/observe/v1/summary?since={_time(since)}&until={_time(until)}")


def _time(minute: int) -> str:
    return dt.datetime.fromtimestamp(minute * 60, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def _last_minute(desk: Desk) -> int:
    """Return the last minute that the SLOs of the models are about."""
    return min([cast("int", (await _standing(desk, model))["minute"]) for model in MODELS])


async def _standing(desk: Desk, model: str) -> Values:
    rows = cast("list[Values]", (await desk.scene.ask("GET", "/admin/slos"))["slos"])
    return next(row for row in rows if row["subject"] == f"model:{model}")


async def _finding(desk: Desk, model: str) -> Values:
    findings = cast("list[Values]", (await _standing(desk, model))["findings"])
    if not findings:
        raise Broken(f"nothing is said of {model}")
    return findings[0]


def _items(delivery: Delivery) -> list[Values]:
    return cast("list[Values]", delivery.payload()["items"])


def _transitions(desk: Desk) -> dict[tuple[str, str], Values]:
    """Return what was told of each model's SLO, by the model and what happened."""
    return {
        (str(item["subject"]).removeprefix("model:"), str(item["transition"])): item
        for one in desk.receiver.deliveries
        for item in _items(one)
        if item["name"] == "slo_burns"
    }


async def _delivered(desk: Desk, model: str, transition: str, seconds: float) -> str:
    """Wait until the receiver has heard it, and return its words."""

    async def heard() -> str | None:
        item = _transitions(desk).get((model, transition))
        if item is None:
            return None
        desk.alert_ids[model] = str(item["alert_id"])
        return str(item["summary"] if transition == "opened" else item["reason"])

    return await desk.scene.until(f"news of {model}: {transition}", heard, seconds)
