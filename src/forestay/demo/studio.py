"""What the scenario of objectives is made of: a model that fails when it is told to, six hours of traffic, routes.

Pure. The traffic is that of another fleet, as its access log would tell it. Called by `burning` and `watch`.
"""

import datetime as dt
import json
from collections.abc import Iterator, Mapping

from forestay.demo.bait import bundle_of
from forestay.slo.model import Counts, Minute

BUSY, SKETCH, PORTRAIT, POSTER = "demo/busy", "demo/sketch", "demo/portrait", "demo/poster"
MODELS = (BUSY, SKETCH, PORTRAIT, POSTER)
OBJECTIVE = 0.99
HOURS = 6
SOURCE = "edge-eu"
_THIN_EVERY = 15  # minutes between two requests of a model with little traffic
_BROKEN = (18, 9)  # the poster's requests failed from so many minutes ago until so many
APP = b"""
import time

import fal
from pydantic import BaseModel


class Wish(BaseModel):
    prompt: str = ""
    fail: bool = False
    seconds: float = 0.0


class Made(BaseModel):
    prompt: str
    traceparent: str


class Studio(fal.App, name="studio", keep_alive=60):
    machine_type = "XS"
    max_multiplexing = 4

    @fal.endpoint("/")
    def make(self, input: Wish) -> Made:
        time.sleep(input.seconds)
        if input.fail:
            raise RuntimeError("failing on request")
        context = self.current_request
        return Made(prompt=input.prompt, traceparent=(context.headers if context else {}).get("traceparent", ""))
"""


def bundle() -> bytes:
    """Return the model as a bundle."""
    return bundle_of({"app.py": APP})


def spec(model: str) -> dict[str, object]:
    """Return the spec under one of the names."""
    return {
        "version": 0,
        "model": model,
        "description": "Says what it was told, or fails when it is told to.",
        "owner": {"team": "demo", "contact": "demo@forestay.invalid"},
        "licence": "Apache-2.0",
        "visibility": "shared",
        "host": {"kind": "fal_app", "app": "app.py::Studio"},
        "endpoints": [{"path": "/"}],
        "resources": {"pool": "cpu", "devices": 0, "memory_mb": 200},
        "limits": {"max_multiplexing": 4},
    }


def history(until: Minute) -> Mapping[str, Mapping[Minute, Counts]]:
    """Return the counts of six hours before a minute, by model: two busy ones, two thin ones, one that was broken."""
    found: dict[str, dict[Minute, Counts]] = {model: {} for model in MODELS}
    for ago in range(HOURS * 60, 0, -1):
        minute = Minute(until - ago)
        found[BUSY][minute] = Counts(good=2)
        found[POSTER][minute] = Counts(good=4, bad=2) if _BROKEN[1] <= ago < _BROKEN[0] else Counts(good=6)
        if ago % _THIN_EVERY == 0:
            found[SKETCH][minute] = found[PORTRAIT][minute] = Counts(good=1)
    return found


def facts(counts: Mapping[str, Mapping[Minute, Counts]]) -> Iterator[str]:
    """Yield the same as lines that the ingest API takes."""
    for model, minutes in counts.items():
        for minute, count in minutes.items():
            start = dt.datetime.fromtimestamp(minute * 60, dt.UTC)
            for number, status in enumerate([200] * count.good + [500] * count.bad):
                ended = start + dt.timedelta(seconds=5 + 8 * number)
                told = {"id": f"{model}-{minute}-{number}", "model": model, "status": status}
                yield json.dumps({**told, "finished_at": ended.isoformat(), "seconds": 0.4})


def slos() -> str:
    """Return a file of SLOs, one a model; `series` is where a Prometheus of one's own would have the same counts."""
    return "version: 1\nslos:\n" + "".join(
        f"""  - id: {model.partition("/")[2]}-available
    description: requests that ended without a fault of ours
    subject: {{model: {model}}}
    objective: {OBJECTIVE * 100:g}
    sli:
      kind: ratio
      measure: availability
      series: {{total: 'requests_total{{model="{model}"}}', bad: 'requests_total{{model="{model}",outcome="bad"}}'}}
    window: {{rolling: 30d}}
    owner: {{team: demo}}
"""
        for model in MODELS
    )


def routes(url: str) -> str:
    """Return a file of routes: one receiver, told at once of each model apart."""
    return f"""receivers:
  - {{name: phone, kind: webhook, url: "{url}"}}
routes:
  - name: everything
    to: [phone]
    group_by: [subject]
    group_wait: 0s
    group_interval: 1s
    page_interval: 1s
resolve_after: 1s
"""
