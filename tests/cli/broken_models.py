"""Apps and specs that are wrong in ways in which people get them wrong, and what must be told of each.

Used by the tests and by `python -m bench onboarding`. A refusal helps when it names the field (or the thing) and says
what to write instead: `field` and `mend` must both stand in what is told.
"""

import dataclasses

APP = '''"""Paints."""
import fal
from pydantic import BaseModel, Field


class Input(BaseModel):
    prompt: str
    seed: int = 0
    side: int = Field(64, ge=32, le=256)


class Painter(fal.App, name="painter"):
    """Paints a picture of one colour after another."""

    @fal.endpoint("/")
    def paint(self, input: Input) -> dict:
        return {"text": input.prompt}
'''
SPEC = """version: 0
model: acme/painter
description: Paints.
owner: {team: paint, contact: "#paint", escalation: acme on call}
licence: Apache-2.0
intended_use: illustrations
host: {kind: fal_app, app: "app.py::Painter"}
endpoints:
  - {path: /, media_inputs: []}
limits: {request_timeout_seconds: 60}
safety: {policy: standard}
slos:
  - {indicator: availability, objective: 99}
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Broken:
    """One way to get it wrong: `old` in the spec becomes `new` (or the app is `app`)."""

    name: str
    field: str
    mend: str
    old: str = ""
    new: str = ""
    app: str = APP

    @property
    def spec(self) -> str:
        """The spec with its fault."""
        return SPEC.replace(self.old, self.new) if self.old else SPEC


SPECS = (
    Broken(
        "no owner", "owner", "is missing; add it", 'owner: {team: paint, contact: "#paint", escalation: acme on call}\n'
    ),
    Broken("an empty team", "owner.team", "is empty; fill it in: Team that owns it", "team: paint", 'team: ""'),
    Broken("an empty contact", "owner.contact", "fill it in: Where that team", '"#paint"', '""'),
    Broken("an empty escalation", "owner.escalation", "fill it in: Who is called", "acme on call", '""'),
    Broken("no licence", "licence", "add it: SPDX", "licence: Apache-2.0\n"),
    Broken("an empty use", "intended_use", "fill it in: Who is to use it", "illustrations", '""'),
    Broken("a name without an owner", "model", "write it as owner/alias", "acme/painter", "painter"),
    Broken(
        "a misspelt field",
        "limits.request_timeout",
        "did you mean `request_timeout_seconds`",
        "request_timeout_seconds",
        "request_timeout",
    ),
    Broken("a section that is none", "safty", "did you mean `safety`", "safety:", "safty:"),
    Broken(
        "a kind of host that is none",
        "host.kind",
        "'fal_app', 'http_server' or 'provider'",
        "kind: fal_app",
        "kind: fal",
    ),
    Broken("an app without a class", "host.app", "write `file.py::Class`", "app.py::Painter", "app.py"),
    Broken(
        "an app that is not there",
        "host.app",
        "must be a file below the spec's folder",
        "app.py::Painter",
        "painter.py::Painter",
    ),
    Broken("a path without a slash", "endpoints.0.path", "write a path such as `/`", "path: /", "path: paint"),
    Broken(
        "a time of zero",
        "limits.request_timeout_seconds",
        "greater than 0",
        "request_timeout_seconds: 60",
        "request_timeout_seconds: 0",
    ),
    Broken(
        "a time in words",
        "limits.request_timeout_seconds",
        "a valid number",
        "request_timeout_seconds: 60",
        "request_timeout_seconds: a minute",
    ),
    Broken("an objective above all", "slos.0.objective", "less than 100", "objective: 99", "objective: 101"),
    Broken(
        "an indicator that is none",
        "slos.0.indicator",
        "'availability'",
        "indicator: availability",
        "indicator: uptime",
    ),
    Broken(
        "a latency without a threshold",
        "slos.0",
        "needs `threshold_seconds`",
        "indicator: availability",
        "indicator: latency",
    ),
    Broken(
        "a policy with a bad name",
        "safety.policy",
        "write a policy's name",
        "policy: standard",
        "policy: The Strict One",
    ),
    Broken(
        "steps that shrink",
        "rollout.steps",
        "write growing percentages",
        "safety:",
        "rollout: {steps: [50, 5]}\nsafety:",
    ),
    Broken(
        "a shadow that proves nothing",
        "rollout.shadow.requests",
        "from 12 to 200",
        "safety:",
        "rollout: {shadow: {requests: 3}}\nsafety:",
    ),
    Broken(
        "a misspelt part of a rollout",
        "rollout.alowance",
        "did you mean `allowance`",
        "safety:",
        "rollout: {alowance: 3}\nsafety:",
    ),
    Broken("another version", "version", "should be 0", "version: 0", "version: 3"),
    Broken(
        "a field written twice", "licence", "keep one", "licence: Apache-2.0\n", "licence: Apache-2.0\nlicence: MIT\n"
    ),
    Broken("no YAML", "8", "look at the brackets", "host: {", "host: {{"),
    Broken(
        "an unused field",
        "host",
        "has no meaning for fal_app; take it away",
        "kind: fal_app,",
        "kind: fal_app, url: http://a.invalid,",
    ),
    Broken(
        "a media input that is a number",
        "endpoints.0.media_inputs.0",
        "write a field's name",
        "media_inputs: []",
        "media_inputs: [7]",
    ),
)
"""Specs that `forestay model check` refuses."""

APPS = (
    Broken("no Python", "app.py", "is no Python that can be read", app="def (:\n"),
    Broken("no app", "app.py", "name the file that does", app="x = 1\n"),
    Broken(
        "two apps",
        "app.py",
        "app.py::A",
        app="class A(fal.App): pass\nclass B(fal.App): pass\n",
    ),
    Broken("no endpoint", "A", "under @fal.endpoint", app="class A(fal.App):\n    def f(self): ...\n"),
)
"""Apps that `forestay model init` refuses."""
