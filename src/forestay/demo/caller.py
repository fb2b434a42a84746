"""What a user of the platform would write: a program with nothing but the published fal client, run as its own process.

It knows the platform only through the environment that `forestay demo` gives it (host names, a CA file, a key; or a
proxy). It tells what happened as one JSON object a line on standard output and keeps the files in its own folder. It
decides whether a promise was kept as far as a caller can see; `calling.py` reads it and looks from the other side.

    python -m forestay.demo.caller SCENARIO[,SCENARIO] FOLDER WEBHOOK_URL
"""

import base64
import json
import sys
import time  # noqa: TID251 - a user's own program, outside the platform: it measures what a caller would
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fal_client
import httpx

DIGITS, MOTION, TONES, ECHO = "forestay/digits", "forestay/digits-motion", "forestay/tones", "forestay/echo"
PROMPT = "a red seven on a dark background"
SEED = 7
LONG_SECONDS = 25.0
CANCEL_SECONDS = 1.0
BURST_ECHOES = 16
BURST_PICTURES = 8
ANSWER_SECONDS = 90.0

Result = dict[str, Any]
Step = Callable[["Caller"], str]


class Broken(Exception):
    """A promise that did not hold, in words."""


def require(kept: bool, message: str) -> None:
    """Raise Broken with `message` unless `kept`."""
    if not kept:
        raise Broken(message)


def say(**event: Any) -> None:
    """Tell whoever runs this program one thing."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def answered(model: str, count: int = 1) -> None:
    """Tell how many requests of a model were answered well: the caller's own ledger, which others are held against."""
    say(event="answered", model=model, count=count)


class Caller:
    """The steps' shared belongings: a folder, a webhook address, and what was submitted early."""

    def __init__(self, folder: Path, webhook_url: str) -> None:
        self.folder = folder
        self.webhook_url = webhook_url
        self.early: dict[str, fal_client.SyncRequestHandle] = {}

    def save(self, name: str, data: bytes, caption: str) -> None:
        """Keep a file where a person can look at it."""
        (self.folder / name).write_bytes(data)
        say(event="saved", file=name, caption=caption)

    def fetch(self, url: str) -> bytes:
        """Download a result the way any HTTP client would."""
        if url.startswith("data:"):
            return base64.b64decode(url.partition(",")[2])
        answer = httpx.get(url, timeout=30.0, follow_redirects=True)
        require(answer.status_code == 200, f"{url} answered {answer.status_code}")
        return answer.content


def submit_early(caller: Caller) -> str:
    """Submit the two slow ones now and collect them later, as a patient user would."""
    clip: Result = {"prompt_from": "a red three on a dark background", "prompt_to": "a blue eight on a dark background"}
    caller.early["clip"] = fal_client.submit(MOTION, {**clip, "seed": SEED, "num_frames": 16})
    caller.early["sound"] = fal_client.submit(TONES, {"prompt": "c4", "seed": SEED})
    ids = {handle.request_id for handle in caller.early.values()}
    require(len(ids) == 2, "two submits gave one id")
    return "two slow requests acknowledged; collected below"


def picture(caller: Caller) -> str:
    """Submit, poll, fetch: the queue protocol by hand."""
    handle = fal_client.submit(DIGITS, {"prompt": PROMPT, "seed": SEED}, webhook_url=caller.webhook_url)
    seen: list[str] = []
    for update in handle.iter_events(interval=0.1):
        name = type(update).__name__
        if not seen or seen[-1] != name:
            seen.append(name)
    require(seen[-1] == "Completed", f"the last status was {seen[-1]}")
    result = handle.get()
    data = caller.fetch(result["images"][0]["url"])
    require(data.startswith(b"\x89PNG"), "the picture is not a PNG file")
    caller.save("seven.png", data, PROMPT)
    answered(DIGITS)
    return f"{' > '.join(seen)}; {len(data):,} bytes of PNG"


def same_seed(caller: Caller) -> str:
    """Run the same prompt and seed again, synchronously, and compare the bytes of the picture."""
    result: Result = fal_client.run(DIGITS, {"prompt": PROMPT, "seed": SEED})
    again = caller.fetch(result["images"][0]["url"])
    require(again == (caller.folder / "seven.png").read_bytes(), "another picture came back")
    answered(DIGITS)
    return "synchronous call, identical file"


def logs(_caller: Caller) -> str:
    """Subscribe with logs."""
    lines: list[str] = []

    def note(update: fal_client.Status) -> None:
        if isinstance(update, fal_client.InProgress | fal_client.Completed):
            lines[:] = [str(line["message"]) for line in update.logs or []]

    arguments = {"text": "hello", "log_lines": 6, "sleep_seconds": 0.6}
    result: Result = fal_client.subscribe(ECHO, arguments, with_logs=True, on_queue_update=note)
    require(result["text"] == "hello", "the answer is not what was said")
    found = [line for line in lines if line.startswith("echo line")]
    require(len(found) == 6, f"{len(found)} of 6 lines arrived")
    answered(ECHO)
    return "6 of 6 lines, attributed to the request"


def previews(caller: Caller) -> str:
    """Stream a picture with a preview for each step."""
    steps = 12
    events: list[Result] = list(
        fal_client.stream(DIGITS, {"prompt": "a green four", "seed": 4, "num_inference_steps": steps})
    )
    shown = [event for event in events if "step" in event]
    for event in shown:
        caller.save(f"step-{event['step']:02d}.png", caller.fetch(event["images"][0]["url"]), f"step {event['step']}")
    require(len(shown) == steps, f"{len(shown)} previews for {steps} steps")
    final = caller.fetch(events[-1]["images"][0]["url"])
    caller.save("four.png", final, "a green four, streamed")
    answered(DIGITS)
    return f"{len(shown)} previews, then the picture"


def cancel(_caller: Caller) -> str:
    """Cancel a request while the model runs it."""
    handle = fal_client.submit(ECHO, {"text": "never", "sleep_seconds": LONG_SECONDS})
    deadline = time.monotonic() + ANSWER_SECONDS
    while not isinstance(handle.status(), fal_client.InProgress):
        require(time.monotonic() < deadline, "it never started")
        time.sleep(0.05)
    start = time.monotonic()
    handle.cancel()
    while not isinstance(handle.status(), fal_client.Completed):
        require(time.monotonic() - start < LONG_SECONDS, "it was not cancelled at all")
    seconds = time.monotonic() - start
    require(seconds <= CANCEL_SECONDS, f"took {seconds:.2f} s")
    try:
        handle.get()
    except fal_client.FalClientHTTPError as error:
        require(error.status_code == 499, f"the result is {error.status_code}, not 499")
    else:
        raise Broken("a cancelled request gave a result")
    return f"stopped {seconds:.2f} s after the call"


def clip(caller: Caller) -> str:
    """Collect the film."""
    result = caller.early["clip"].get()
    data = caller.fetch(result["video"]["url"])
    require(data[4:8] == b"ftyp", "not an MP4 file")
    caller.save("three-to-eight.mp4", data, "a red three becomes a blue eight")
    answered(MOTION)
    return f"{result['frames']} frames, {len(data):,} bytes of MP4"


def sound(caller: Caller) -> str:
    """Collect the sound."""
    result = caller.early["sound"].get()
    data = caller.fetch(result["audio"]["url"])
    require(data[:4] == b"RIFF" and data[8:12] == b"WAVE", "not a WAV file")
    caller.save("c4.wav", data, "c4")
    answered(TONES)
    return f"{len(data):,} bytes of WAV"


def bad_input(_caller: Caller) -> str:
    """Send a value of the wrong kind and read which field it was."""
    try:
        fal_client.submit(DIGITS, {"prompt": PROMPT, "num_inference_steps": "many"})
    except fal_client.FalClientHTTPError as error:
        require(error.status_code == 422, f"answered {error.status_code}")
        detail: list[Result] = error.response.json()["detail"]
        require("num_inference_steps" in detail[0]["loc"], f"the answer names {detail[0]['loc']}")
        return "422 names num_inference_steps; nothing queued"
    raise Broken("it was accepted")


def burst(caller: Caller) -> str:
    """Submit many at once, say so, and then insist on every answer, whatever happens meanwhile."""
    hook = caller.webhook_url
    handles = [
        fal_client.submit(ECHO, {"text": f"echo {number}", "sleep_seconds": 1.0}, webhook_url=hook)
        for number in range(BURST_ECHOES)
    ]
    handles += [
        fal_client.submit(DIGITS, {"prompt": str(number), "seed": number}, webhook_url=hook)
        for number in range(BURST_PICTURES)
    ]
    say(event="burst", request_ids=[handle.request_id for handle in handles], echoes=BURST_ECHOES)
    answers: list[Result] = [handle.get() for handle in handles]
    for number, answer in enumerate(answers[:BURST_ECHOES]):
        require(answer["text"] == f"echo {number}", f"request {number} got another's answer")
    for number, answer in enumerate(answers[BURST_ECHOES:]):
        caller.save(f"burst-{number}.png", caller.fetch(answer["images"][0]["url"]), f"burst: {number}")
    answered(ECHO, BURST_ECHOES)
    answered(DIGITS, BURST_PICTURES)
    return f"{len(answers)} of {len(handles)} acknowledged requests answered"


def upload(caller: Caller) -> str:
    """Upload a picture and read it back."""
    data = (caller.folder / "seven.png").read_bytes()
    url = fal_client.upload(data, "image/png", "seven.png")
    require(caller.fetch(url) == data, "the upload came back changed")
    (caller.folder / "upload.url").write_text(url, encoding="utf-8")
    return f"{len(data):,} bytes, read back unchanged"


def edit(caller: Caller) -> str:
    """Redraw the uploaded picture."""
    url = (caller.folder / "upload.url").read_text(encoding="utf-8")
    (caller.folder / "upload.url").unlink()
    arguments = {"prompt": "a blue seven on a dark background", "image_url": url, "seed": SEED, "strength": 0.6}
    result: Result = fal_client.subscribe(f"{DIGITS}/edit", arguments)
    data = caller.fetch(result["images"][0]["url"])
    caller.save("seven-edited.png", data, "the uploaded seven, redrawn in blue")
    answered(DIGITS)
    return f"{len(data):,} bytes of PNG"


def realtime(_caller: Caller) -> str:
    """Talk over a WebSocket."""
    with fal_client.realtime(ECHO) as connection:
        for number in range(5):
            connection.send({"text": f"message {number}"})
            answer = connection.recv()
            require(answer is not None and answer.get("text") == f"message {number}", f"got {answer}")
    answered(ECHO)  # one session is one request
    return "5 messages, 5 answers, token issued"


SCENARIOS: dict[str, tuple[tuple[str, Step], ...]] = {
    "serve": (
        ("early", submit_early),
        ("picture", picture),
        ("same_seed", same_seed),
        ("stream", previews),
        ("logs", logs),
        ("bad_input", bad_input),
        ("cancel", cancel),
        ("sound", sound),
        ("clip", clip),
    ),
    "burst": (("burst", burst),),
    "proxy": (("upload", upload), ("edit", edit), ("realtime", realtime)),
}


def main() -> int:
    """Run the scenarios that are named; a broken promise does not stop the next step."""
    scenarios, folder, webhook_url = sys.argv[1:4]
    caller = Caller(Path(folder), webhook_url)
    for name, step in [step for scenario in scenarios.split(",") for step in SCENARIOS[scenario]]:
        say(event="started", step=name)
        start = time.monotonic()
        try:
            evidence, kept = step(caller), True
        except Exception as error:  # noqa: BLE001 - whatever went wrong is this step's evidence
            evidence, kept = f"{type(error).__name__}: {error}"[:300], False
        say(event="done", step=name, kept=kept, evidence=evidence, seconds=round(time.monotonic() - start, 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
