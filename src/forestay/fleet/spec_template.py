"""A model spec made from the source of a `fal.App`: what can be read is filled in, the rest is left for a person. Pure.

What stands in the source `app_source` reads. This decides what it means for a spec: endpoints, fields that hold files,
GPUs, time-outs, retries. What the platform has no field for is named in a comment, never dropped without a word. It
decides no value that a person must answer for: who owns the model, what it is licensed under, what it is for, where
help is found; those stay empty, marked FILL, and `forestay model check` asks for them. The rest are defaults that a
readiness review accepts. Called by `forestay model init` and `onboard`.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import cast

from forestay.fleet.app_source import Endpoint, Outline
from forestay.ids import is_model_id

_LIMITS = {  # fal's host setting -> field of the spec's limits
    "max_multiplexing": "max_multiplexing",
    "request_timeout": "request_timeout_seconds",
    "request_start_timeout": "request_start_timeout_seconds",
    "startup_timeout": "startup_timeout_seconds",
    "termination_grace_period_seconds": "termination_grace_seconds",
}
_USUAL_LIMITS: Mapping[str, float] = {
    "max_multiplexing": 1,
    "request_timeout_seconds": 600,
    "startup_timeout_seconds": 600,
    "termination_grace_seconds": 5,
}
_MEMORY_MB = {"cpu": 2048, "gpu": 16_384}  # of the host, for one replica
_SCALING = (  # what the platform decides from demand, room and cost
    "keep_alive",
    "min_concurrency",
    "max_concurrency",
    "concurrency_buffer",
    "concurrency_buffer_perc",
    "scaling_delay",
    "regions",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """What a person answers for; empty where they have not said."""

    model: str = ""
    team: str = ""
    contact: str = ""
    licence: str = ""
    escalation: str = ""
    intended_use: str = ""
    description: str = ""


# The file -----------------------------------------------------------------------------------------------------------
FILL = "FILL"  # marks what only a person knows
_HEAD = """\
# Made from {app} by `forestay model init`. Lines marked FILL are yours: only a person knows them. Every other
# line is a default that a readiness review accepts; `forestay model check` says what is left, line by line."""
TAIL = """\
safety: {policy: standard}  # what judges every input and output; unguarded: nothing
rollout: {strategy: canary, when_inconclusive: hold}  # how a further revision gets its traffic
quality: {mode: enforce, retries: 1}  # a broken output is no success, and is tried again elsewhere
slos:  # what is promised of it over 30 days
  - {indicator: availability, objective: 99}
  - {indicator: validity, objective: 98, page: false}"""


def render_spec(outline: Outline, file_name: str, identity: Identity) -> str:
    """Return the YAML of a spec beside the app's file: whole but for the lines marked FILL."""
    settings = outline.settings
    gpus = _gpus(settings)
    pool = "gpu" if gpus else "cpu"
    app = PurePath(file_name).name
    lines = [
        _HEAD.format(app=app),
        *_left_out(settings),
        "version: 0",
        *identity_lines(
            identity.model or f"my-team/{_alias(outline)}", identity.description or outline.description, identity
        ),
        "visibility: private  # shared: every key; public: listed to everyone",
        "host:",
        "  kind: fal_app",
        f"  app: {_text(f'{app}::{outline.class_name}')}",
        *_host(outline),
        "endpoints:",
        *map(_endpoint, outline.endpoints),
        f"resources: {{pool: {pool}, devices: {gpus or 1}, memory_mb: {_MEMORY_MB[pool]}}}",
        f"limits: {{{', '.join(_limits(settings))}}}",
        *_retry(settings),
        TAIL,
    ]
    return "\n".join(lines) + "\n"


def _alias(outline: Outline) -> str:
    """Return the app's own name where it has one that may be addressed, else one made from its class."""
    own = outline.settings.get("app_name") or outline.settings.get("name")
    if isinstance(own, str) and is_model_id(f"my-team/{own}"):
        return own
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", outline.class_name).lower()


def _gpus(settings: Mapping[str, object]) -> int:
    """Return how many GPUs a replica takes: one where its machine has any and nothing else is said."""
    machines, count = settings.get("machine_type"), settings.get("num_gpus")
    named = cast("list[object]", [*machines] if isinstance(machines, list | tuple) else [machines])
    given = count if isinstance(count, int) and not isinstance(count, bool) else 0
    return max(given, 1) if any(str(name).upper().startswith("GPU") for name in named) else given


def _host(outline: Outline) -> Iterator[str]:
    settings = outline.settings
    if outline.image:
        yield "  # Its container image is not built here. Name what it installs as requirements, or an interpreter that"
        yield "  # has it as `python:`; a server in a container of its own is served as kind http_server."
    yield f"  requirements: {_list(_texts(settings.get('requirements')))}"
    yield f"  secrets: {_list(_texts(settings.get('secrets')))}"
    beside = [path for path in _texts(settings.get("app_files")) if path.startswith("..")]
    if beside:
        yield f"  include: {_list(beside)}"
    mounts = [f"/folder/of/the/worker:{folder}" for folder in _texts(settings.get("data_mounts"))]
    if mounts:
        yield f"  # data_mounts: {_list(mounts)}  # folders of the worker that hold what the app keeps there"
    hint = f"its source says {outline.fetches}: full" if outline.fetches else "loopback, or full"
    yield f"  network: none  # {hint}, where it must fetch something itself"


def _left_out(settings: Mapping[str, object]) -> list[str]:
    found = [name for name in _SCALING if settings.get(name) is not None]
    return (
        [f"# Not taken over: {', '.join(found)}. The platform loads and unloads by demand and room."] if found else []
    )


def _retry(settings: Mapping[str, object]) -> list[str]:
    given = settings.get("retry_config")
    counts = cast("dict[str, object]", given if isinstance(given, dict) else {})
    config = {
        name: cast("Mapping[str, object]", held).get("retries")
        for name, held in counts.items()
        if isinstance(held, dict)
    }
    parts: dict[str, object] = {
        "skip_conditions": _texts(settings.get("skip_retry_conditions")),
        "config": config,
    }
    said = [f"{name}: {json.dumps(value)}" for name, value in parts.items() if value]
    return [f"retry: {{{', '.join(said)}}}"] if said else []


def identity_lines(model: str, description: str, identity: Identity) -> list[str]:
    """Return the lines of what a person answers for; what nobody has said is empty and marked."""
    return [
        f"model: {_text(model)}  # what callers address, owner/alias",
        _filled("description", description, "what it makes, in a sentence"),
        "owner:",
        _filled("  team", identity.team, "who owns it"),
        _filled("  contact", identity.contact, "where that team is reached"),
        _filled("  escalation", identity.escalation, "who is called when the team does not answer"),
        _filled("licence", identity.licence, "SPDX identifier, of the code and of the weights"),
        _filled("intended_use", identity.intended_use, "who is to use it, and for what"),
        "risks: []  # what may go wrong with it, one line each",
    ]


def _filled(field: str, value: str, meaning: str) -> str:
    return f"{field}: {_text(value)}" if value else f'{field}: ""  # {FILL}: {meaning}'


def _endpoint(endpoint: Endpoint) -> str:
    named = ", ".join(f"{{field: {name}, kind: {kind}}}" for name, kind in endpoint.media)
    line = f"  - {{path: {_text(endpoint.path)}, kind: {endpoint.kind}, media_inputs: [{named}]}}"
    return (
        f"{line}  # {endpoint.unread} is in another file: name its fields that hold files" if endpoint.unread else line
    )


def _limits(settings: Mapping[str, object]) -> list[str]:
    given = dict(_USUAL_LIMITS)
    for name, field in _LIMITS.items():
        value = settings.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            given[field] = value
    return [f"{field}: {value}" for field, value in given.items()]


def _text(value: str) -> str:
    """Return a text in quotes, as YAML reads it on one line: what cannot be printed is escaped."""
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(sign if sign.isprintable() else f"\\U{ord(sign):08x}" for sign in quoted)


def _list(values: Sequence[str]) -> str:
    return f"[{', '.join(map(_text, values))}]"


def _texts(value: object) -> list[str]:
    """Return the texts of a list, and of the lists in it: fal takes requirements in steps."""
    items = cast("list[object]", value) if isinstance(value, list | tuple) else []
    nested = [text for item in items if isinstance(item, list | tuple) for text in _texts(cast("object", item))]
    return [item for item in items if isinstance(item, str)] + nested
